"""Charts: they are rendered, and what is drawn is read back from the figure and from its pixels.

Oracles: the tables' own figures, the contrast formula and thresholds of WCAG 2.2, and the colour-vision model of Machado,
Oliveira and Fernandes (2009).
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from qnb.display import charts, style
from qnb.display.draw import tint
from qnb.errors import BadInput
from tests.display import frames

inf, nan = np.inf, np.nan

# chart, table with that many rows, columns of figures, columns of names
CHARTS: dict[str, tuple[Callable[..., Figure], Callable[..., pd.DataFrame], list[str], list[str]]] = {
    "latency_distribution": (charts.latency_distribution, frames.runs, ["latency_ms"], ["build"]),
    "op_times": (charts.op_times, frames.ops, ["time_ms", "cycles"], ["op", "op_type"]),
    "accuracy_by_backend": (charts.accuracy_by_backend, frames.accuracy, ["sqnr_db", "accuracy"], ["output", "build"]),
    "comparison": (charts.comparison, frames.comparison, ["median_ms", "sqnr_db", "size_kb"], ["build"]),
    "compile_matrix": (charts.compile_matrix, frames.contexts, ["size_kb", "compile_ms"], ["soc", "name"]),
    "placement": (charts.placement, frames.placement, [], ["op_type"]),
    "layers": (charts.layers, frames.layers, ["macs", "parameters"], ["op", "op_type"]),
    "encodings": (charts.encodings, frames.encodings, ["min", "max"], ["tensor"]),
    "doctor": (charts.doctor, frames.doctor, [], ["state", "name", "reason"]),
}
MEASURED = ["latency_distribution", "op_times", "accuracy_by_backend", "comparison", "compile_matrix"]


def pixels(figure: Figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(style.png(figure, dpi=60))).convert("RGB")).astype(int)


def texts(figure: Figure) -> list[Text]:
    """Every text that is drawn: matplotlib also keeps labels for ticks out of view."""
    figure.draw_without_rendering()
    found = list(figure.texts)
    for ax in figure.axes:
        found += [*ax.texts, ax.xaxis.label, ax.title, ax._left_title]
        if ax.axison:
            for axis, at in ((ax.xaxis, 0), (ax.yaxis, 1)):
                low, high = sorted(axis.get_view_interval())
                found += [t for t in axis.get_ticklabels() if low <= t.get_position()[at] <= high]
    return [t for t in found if t.get_visible() and t.get_text().strip()]


def written(figure: Figure) -> list[str]:
    return [t.get_text() for t in texts(figure)]


def assert_drawn(figure: Figure) -> None:
    """The image is not blank, nothing touches its edge, and every text is inside."""
    image = pixels(figure)
    paper = np.array([int(style.PAPER[i : i + 2], 16) for i in (1, 3, 5)])
    inked = np.abs(image - paper).max(axis=2) > 8
    assert 0.005 < inked.mean() < 0.8
    for edge in (inked[:2], inked[-2:], inked[:, :2], inked[:, -2:]):
        assert not edge.any()
    box = figure.bbox
    for text in texts(figure):
        extent = text.get_window_extent()
        assert extent.x0 >= box.x0 - 1
        assert extent.x1 <= box.x1 + 1, text.get_text()


def assert_no_overlap(figure: Figure) -> None:
    boxes = [(t.get_window_extent().padded(-1), t.get_text()) for t in texts(figure)]
    for (first, a), (second, b) in combinations(boxes, 2):
        assert not first.overlaps(second), (a, b)


def bars(ax: Axes) -> list[Rectangle]:
    return [p for p in ax.patches if isinstance(p, Rectangle)]


@pytest.fixture(params=list(CHARTS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- all charts


@pytest.mark.parametrize("rows", [1, 2, None, 200])
def test_each_chart_is_drawn_whole_for_few_and_many_rows(name: str, rows: int | None) -> None:
    draw, table, _, _ = CHARTS[name]
    figure = draw(table() if rows is None else table(rows))
    assert_drawn(figure)
    assert_no_overlap(figure)
    assert max(figure.get_size_inches()) < 32


def test_very_long_and_hostile_names_are_elided_and_drawn_literally(name: str) -> None:
    draw, table, _, names = CHARTS[name]
    frame = table(6)
    for column in names:
        frame[column] = [f"{i}{frames.LONG}{i}" for i in range(len(frame))]
    figure = draw(frame)
    assert_drawn(figure)
    assert_no_overlap(figure)
    drawn = "\n".join(written(figure))
    assert "…" in drawn
    assert "\x1b" not in drawn
    assert "$x_0$" in drawn
    assert all(not t.get_parse_math() for t in texts(figure) if "$" in t.get_text())


@pytest.mark.parametrize("value", [nan, inf, -inf, None])
def test_single_missing_and_infinite_figures_do_not_stop_a_chart(name: str, value: Any) -> None:
    draw, table, figures, _ = CHARTS[name]
    for column in figures:
        frame = table(6)
        frame[column] = frame[column].astype(float)
        frame.loc[frame.index[1], column] = value
        assert_drawn(draw(frame))


def test_an_empty_table_or_one_without_the_columns_is_bad_input(name: str) -> None:
    draw, table, _, _ = CHARTS[name]
    with pytest.raises(BadInput, match="no rows") as caught:
        draw(table(3).iloc[:0])
    assert caught.value.hint
    with pytest.raises(BadInput, match="needs the column"):
        draw(pd.DataFrame({"something": [1]}))


@pytest.mark.parametrize("chart", ["latency_distribution", "op_times", "comparison", "compile_matrix", "encodings"])
def test_a_table_without_one_figure_is_bad_input(chart: str) -> None:
    draw, table, _, _ = CHARTS[chart]
    frame = table(4)
    numeric = [c for c in frame.columns if frame[c].dtype.kind in "fi"]
    with pytest.raises(BadInput, match="nothing to draw"):
        draw(frame.assign(**dict.fromkeys(numeric, nan)))


def test_every_axis_with_a_scale_says_its_unit(name: str) -> None:
    draw, table, _, _ = CHARTS[name]
    figure = draw(table())
    for ax in figure.axes:
        if ax.get_xlabel():
            assert re.search(r"\[.+\]", ax.get_xlabel())
        else:  # heat tables say the units in their heads, the doctor has none
            assert name in ("compile_matrix", "placement", "doctor")
    if name == "compile_matrix":
        heads = [t.get_text() for t in figure.axes[0].get_xticklabels()]
        assert [h.splitlines()[-1] for h in heads] == ["[KB]", "[ms]", "[ms]", "[KB]", "[MB]"]


@pytest.mark.parametrize("chart", MEASURED)
def test_what_no_device_measured_is_marked_and_explained(chart: str) -> None:
    draw, table, _, _ = CHARTS[chart]
    frame = table(6)
    sources = set(frame["source"])
    drawn = written(draw(frame))
    for source in sources:
        assert any(f"{source}†" in t and style.SOURCE_NOTES[source] not in t for t in drawn), "in a label"
        assert any(f"{source}†: {style.SOURCE_NOTES[source]}" in t for t in drawn), "in a footnote"
    on_device = "\n".join(written(draw(frame.assign(source="device"))))
    assert "†" not in on_device
    assert style.SOURCE_NOTES["device"] in on_device
    unheard = "\n".join(written(draw(frame.assign(source="guess"))))
    assert "guess†: not measured on a device" in unheard


def test_the_users_settings_neither_change_a_chart_nor_are_changed_by_it(name: str) -> None:
    draw, table, _, _ = CHARTS[name]
    expected = pixels(draw(table(4)))
    with mpl.rc_context({"axes.facecolor": "black", "text.color": "red", "font.size": 30, "axes.grid": True}):
        before = mpl.rcParams.copy()
        image = pixels(draw(table(4)))
        assert mpl.rcParams.copy() == before
    np.testing.assert_array_equal(image, expected)


def test_pyplot_is_never_imported() -> None:
    code = (
        "import sys; from qnb.display import charts, style; from tests.display import frames\n"
        "assert not {'matplotlib', 'pandas'} & (set(sys.modules) - before)\n"
        "style.png(charts.latency_distribution(frames.runs()), dpi=40)\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    code = "import sys\nbefore = {'pandas'}  # the tables of this test\n" + code
    subprocess.run([sys.executable, "-c", code], check=True)


# --- colours


def test_contrast_is_wcags_formula() -> None:
    assert style.contrast("#000", "#fff") == pytest.approx(21)
    # Known values of WCAG checkers: the darkest grey that fails and the lightest that passes 4.5:1 on white.
    assert style.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert style.contrast("#ffffff", "#767676") == pytest.approx(4.54, abs=0.005)


def test_text_and_bars_stand_out_from_the_paper() -> None:
    for ink in (style.INK, style.MUTED):
        assert style.contrast(ink, style.PAPER) >= 4.5  # WCAG 2.2, 1.4.3
    for colour in (*style.BACKEND_COLOURS.values(), style.NEUTRAL, style.PURPLE):
        assert style.contrast(colour, style.PAPER) >= 3.0  # WCAG 2.2, 1.4.11


@pytest.mark.parametrize("name", ["compile_matrix", "placement"], indirect=True)
def test_text_in_cells_stands_out_from_them(name: str) -> None:
    draw, table, _, _ = CHARTS[name]
    ax = draw(table(30)).axes[0]
    image = ax.images[0].get_array()
    checked = 0
    for text in ax.texts:
        x, y = (round(v) for v in text.get_position())
        assert style.contrast(text.get_color(), tuple(image[y, x])) >= 4.5
        checked += 1
    assert checked == image.shape[0] * image.shape[1]


@pytest.mark.parametrize("backend", list(style.BACKEND_COLOURS))
def test_dark_text_is_readable_on_the_darkest_tint(backend: str) -> None:
    assert style.contrast(style.INK, tint(style.BACKEND_COLOURS[backend], 0.65)) >= 4.5


# Severity 1.0, for linear RGB: Machado, Oliveira, Fernandes, IEEE TVCG 15 (6), 2009, table 1.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def lab(colour: str, vision: np.ndarray) -> np.ndarray:
    """sRGB to CIE L*a*b* (D65) through a colour-vision matrix; formulas of IEC 61966-2-1 and CIE 15."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(vision @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = to_xyz @ linear / [0.9505, 1.0, 1.089]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", list(VISION))
def test_backends_can_be_told_apart_with_any_colour_vision(vision: str) -> None:
    for (_, first), (_, second) in combinations(style.BACKEND_COLOURS.items(), 2):
        # A difference of 10 is seen at a glance (2.3 is the least that is seen at all).
        assert np.linalg.norm(lab(first, VISION[vision]) - lab(second, VISION[vision])) > 10
    assert len(set(style.BACKEND_HATCHES.values())) == len(style.BACKEND_COLOURS)


# --- one by one


def test_latency_shows_the_runs_and_their_percentiles() -> None:
    frame = frames.runs(90)
    figure = charts.latency_distribution(frame)
    ax = figure.axes[0]
    assert ax.get_xscale() == "log"
    assert "log" in ax.get_xlabel()
    points = np.concatenate([c.get_offsets()[:, 0] for c in ax.collections])
    np.testing.assert_allclose(np.sort(points), np.sort(frame["latency_ms"]))
    for _, group in frame.groupby("backend"):
        median = np.percentile(group["latency_ms"], 50)
        assert any(np.allclose(line.get_xdata(), median) for line in ax.lines)
        assert style.number(float(median)) in written(figure)
    assert charts.latency_distribution(frame[frame.backend == "cpu"]).axes[0].get_xscale() == "linear"
    assert charts.latency_distribution(frame.assign(latency_ms=0.0)).axes[0].get_xscale() == "linear"


def test_latency_keeps_builds_apart_whose_names_shorten_to_the_same() -> None:
    frame = frames.runs(60)
    other = frame.assign(build="b" * 40 + "1" + "b" * 40)
    same = frame.assign(build="b" * 40 + "2" + "b" * 40)
    labels = charts.latency_distribution(pd.concat([other, same])).axes[0].get_yticklabels()
    assert len(labels) == 6
    assert len({t.get_text() for t in labels}) == 3


def test_latency_leaves_out_runs_without_a_time_and_says_so() -> None:
    frame = frames.runs(30)
    frame["latency_ms"] = np.where(np.arange(30) < 4, nan, frame["latency_ms"])
    assert any("4 runs without a finite value" in t for t in written(charts.latency_distribution(frame)))


def test_op_times_ranks_sums_up_and_sets_the_unattributed_apart() -> None:
    figure = charts.op_times(frames.ops(40), top=5)
    ax = figure.axes[0]
    widths = [b.get_width() for b in bars(ax)]
    assert widths == pytest.approx([40, 39, 38, 37, 36, sum(range(1, 36)), 30])
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels[0].startswith("conv_0")
    assert labels[5] == "the other 35 ops"
    assert labels[6] == "(unattributed)"
    centres = [b.get_y() + b.get_height() / 2 for b in bars(ax)]
    gaps = np.diff(centres)
    assert gaps[-1] > gaps[0]
    assert bars(ax)[-1].get_hatch()
    assert f"{100 * 820 / 850:.1f} %" in written(figure)  # all ops summed up, of the whole with the unattributed


def test_op_times_falls_back_to_cycles() -> None:
    figure = charts.op_times(frames.ops(4).assign(time_ms=nan))
    assert figure.axes[0].get_xlabel().startswith("cycles [count]")
    assert bars(figure.axes[0])[0].get_width() == 4e5


def test_accuracy_writes_exact_and_not_available() -> None:
    frame = frames.accuracy(3).assign(sqnr_db=[inf, nan, -4.0])
    sqnr, _, labelled = (figure := charts.accuracy_by_backend(frame)).axes
    assert [t.get_text() for t in sqnr.texts] == ["exact", "n/a", "−4.00"]
    assert [t.get_text() for t in labelled.texts] == ["96.1", "97.5", "n/a"]
    assert [b.get_width() for b in bars(sqnr)][1] == -4.0
    assert figure.axes[1].get_xlabel() == "top-1 agreement with fp32 [%]"
    without = charts.accuracy_by_backend(frame.assign(top1_agreement=nan, accuracy=nan))
    assert len(without.axes) == 1


def test_comparison_has_a_panel_for_each_figure_that_there_is() -> None:
    figure = charts.comparison(frames.comparison(3))
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "median latency [ms]", "SQNR against fp32 [dB]", "size [KB]", "accuracy [%]",
    ]  # fmt: skip
    latency, sqnr, size, _ = figure.axes
    assert [b.get_width() for b in bars(latency)] == [10, 50, 90]
    ends = sorted(line.get_xdata()[1] for line in latency.lines if len(line.get_xdata()) == 2)
    assert ends == pytest.approx([11, 55, 99])  # thin lines to p95
    assert sqnr.texts[2].get_text() == "exact"
    assert size.texts[1].get_text() == "n/a"
    labels = [t.get_text() for t in latency.get_yticklabels()]
    assert labels == ["htp w8a8 · simulator†", "gpu fp16 · reference†", "cpu fp32 · host†"]
    assert len(charts.comparison(frames.comparison(3).assign(size_kb=nan)).axes) == 3
    top1 = charts.comparison(frames.comparison(3).assign(accuracy=nan)).axes[-1]
    assert top1.get_xlabel() == "top-1 agreement [%]"
    assert [t.get_text() for t in top1.texts] == ["98.0"] * 3


def test_comparison_takes_dots_on_a_log_axis_for_a_wide_spread() -> None:
    ax = charts.comparison(frames.comparison(3).assign(median_ms=[1, 10, 1000.0], p95_ms=nan)).axes[0]
    assert ax.get_xscale() == "log"
    assert not bars(ax)  # a bar has no length where there is no zero
    dots = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
    assert dots == [1, 10, 1000]
    figure_texts = [t.get_text() for t in ax.get_xticklabels() if t.get_text()]
    assert {"1", "1,000"} <= set(figure_texts)


def test_rows_are_named_by_what_sets_them_apart() -> None:
    frame = frames.comparison(6)
    labels = [t.get_text() for t in charts.comparison(frame).axes[0].get_yticklabels()]
    assert labels[3] == "build 1 · htp w8a8 · simulator†"
    frame["soc"] = ["SM8550", "SM8650"] * 3
    labels = [t.get_text() for t in charts.comparison(frame).axes[0].get_yticklabels()]
    assert labels[3] == "build 1 · htp w8a8 · SM8650 · simulator†"


def test_compile_matrix_scales_each_column_on_its_own() -> None:
    frame = frames.contexts(5)
    ax = charts.compile_matrix(frame).axes[0]
    heads = [t.get_text().replace("\n", " ") for t in ax.get_xticklabels()]
    assert heads == ["size [KB]", "compile [ms]", "graph prepare [ms]", "DDR read [KB]", "VTCM [MB]"]
    image = np.asarray(ax.images[0].get_array())
    for x, column in enumerate(["size_kb", "compile_ms", "graph_prepare_ms", "ddr_read_kb", "vtcm_mb"]):
        lightness = image[:, x].sum(axis=1)
        assert (np.diff(lightness) < 0).all() == (frame[column].nunique() > 1)  # rising figures, darker cells
        assert ax.texts[x].get_text() == style.number(frame[column].iloc[0])


def test_placement_counts_by_op_type() -> None:
    ax = charts.placement(frames.placement(60)).axes[0]
    rows = [t.get_text() for t in ax.get_yticklabels()]
    cells = np.array([t.get_text() for t in ax.texts]).reshape(len(rows), 3)
    assert rows == ["Op0  (15)", "Op1  (15)", "Op2  (15)", "Op3  (15)", "all ops  (60)"]
    assert cells[:, 0].tolist() == ["15 of 15", "15 of 15", "15 of 15", "14 of 15", "59 of 60"]
    assert set(cells[:, 1]) == {"unknown"}
    image = np.asarray(ax.images[0].get_array())
    assert image[3, 0].sum() > image[0, 0].sum() + 0.3  # one refused op of fifteen is seen
    partly = charts.placement(frames.placement(4).assign(op_type="Conv", cpu=["yes", "no", "unknown", "unknown"]))
    assert partly.axes[0].texts[2].get_text() == "1 of 2 + 2 unknown"


def test_layers_show_macs_and_parameters() -> None:
    macs, parameters = charts.layers(frames.layers(40), top=3).axes
    assert macs.get_xlabel() == "MACs [millions]"
    assert [b.get_width() for b in bars(macs)] == pytest.approx([39, 38, 37, sum(range(37))])
    assert [t.get_text() for t in macs.texts] == ["39.0 M", "38.0 M", "37.0 M", "666 M"]
    assert [t.get_text() for t in parameters.texts][:2] == ["0", "1.00 k"]
    assert macs.get_title("left") == "780 M in all"


def test_encodings_span_min_to_max() -> None:
    frame = frames.encodings(6)
    ax = charts.encodings(pd.concat([frame, frame.assign(kind="weight", tensor="w", min=-99.0)])).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == list(frame.tensor)
    spans = [(b.get_x(), b.get_x() + b.get_width()) for b in bars(ax)]
    np.testing.assert_allclose(spans, frame[["min", "max"]])
    assert [bool(b.get_hatch()) for b in bars(ax)] == [b == 16 for b in frame.bits]
    frame.loc[2, "max"] = 5000.0
    wide = charts.encodings(frame)
    assert wide.axes[0].get_xscale() == "symlog"
    assert "symmetric log" in wide.axes[0].get_xlabel()
    assert_drawn(wide)
    coarse = charts.encodings(frame, top=2)
    assert [t.get_text() for t in coarse.axes[0].get_yticklabels()] == ["t_2", "t_4"]
    with pytest.raises(BadInput, match="no activation"):
        charts.encodings(frame.assign(kind="weight"))


def test_doctor_tells_good_from_bad_by_a_sign() -> None:
    drawn = written(charts.doctor(frames.doctor(6)))
    assert [t for t in drawn if t in "✓!✗–"] == ["✓", "!", "✗", "✗", "!", "–"]
    assert "backend · item 3" in drawn
    assert "why it is so — what to do" in drawn


@pytest.fixture(autouse=True)
def _no_leftover_settings() -> Iterator[None]:
    before = mpl.rcParams.copy()
    yield
    assert mpl.rcParams.copy() == before
