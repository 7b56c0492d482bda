"""The charts of a report card: what is drawn is read back from the figure and from its pixels.

Oracles: the tables' own figures, numpy over them, and a brute-force search for what beats a point.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from qnb.display import graph_charts, perf_charts, soc_charts, style, tiles
from qnb.errors import BadInput
from tests.display import card_frames as made
from tests.display import frames
from tests.display.test_charts import assert_drawn, assert_no_overlap, bars, texts, written

nan, inf = np.nan, np.inf

# chart, table with that many rows, columns of figures, columns of names
CHARTS: dict[str, tuple[Callable[..., Figure], Callable[..., pd.DataFrame], list[str], list[str]]] = {
    "op_time_cumulative": (perf_charts.op_time_cumulative, made.profiled, ["time_ms", "cycles"], ["op", "op_type"]),
    "time_by_op_type": (perf_charts.time_by_op_type, made.profiled, ["time_ms"], ["op_type"]),
    "roofline": (perf_charts.roofline, made.profiled, ["macs", "cycles", "bytes"], ["op", "op_type"]),
    "memory_over_graph": (graph_charts.memory_over_graph, made.memory, ["live_bytes", "weight_bytes"], ["op", "op_type"]),
    "weights_and_activations": (
        graph_charts.weights_and_activations, made.memory, ["weight_bytes", "activation_bytes"], ["op", "op_type"],
    ),
    "precision_map": (graph_charts.precision_map, made.precision, ["weight_bits", "weight_bytes"], ["op", "op_type"]),
    "latency_by_soc": (soc_charts.latency_by_soc, made.estimates, ["latency_ms", "low_ms"], ["soc", "name"]),
    "accuracy_against_latency": (soc_charts.accuracy_against_latency, made.builds, ["median_ms", "sqnr_db"], ["build"]),
    "headline": (tiles.headline, made.headline, ["value"], ["figure", "detail"]),
}  # fmt: skip


def said(figure: Figure) -> list[str]:
    """All that is written, axes' labels at the left too."""
    return [*written(figure), *(ax.get_ylabel() for ax in figure.axes)]


@pytest.fixture(params=list(CHARTS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("rows", [1, 2, 10, 41, 1000])
def test_each_chart_is_drawn_whole_for_few_and_many_rows(name: str, rows: int) -> None:
    draw, table, _, _ = CHARTS[name]
    figure = draw(table(min(rows, 40) if name == "headline" else rows))
    assert_drawn(figure)
    assert_no_overlap(figure)
    assert max(figure.get_size_inches()) < 20


def test_long_and_hostile_names_are_elided_and_drawn_literally(name: str) -> None:
    draw, table, _, names = CHARTS[name]
    frame = table(6)
    for column in names:
        frame[column] = [f"{i}{frames.LONG}é{i}" for i in range(len(frame))]
    figure = draw(frame)
    assert_drawn(figure)
    assert_no_overlap(figure)
    drawn = "\n".join(written(figure))
    assert "…" in drawn or name == "op_time_cumulative"  # which has no names
    assert "\x1b" not in drawn
    assert all(not t.get_parse_math() for t in texts(figure) if "$" in t.get_text())


@pytest.mark.parametrize("value", [nan, inf, -inf, None])
def test_single_missing_and_infinite_figures_do_not_stop_a_chart(name: str, value: Any) -> None:
    draw, table, columns, _ = CHARTS[name]
    for column, rows in product(columns, (6, 60) if value == inf and name != "headline" else (6,)):
        frame = table(rows)
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


@pytest.mark.parametrize("chart", [c for c in CHARTS if c != "headline"])
def test_a_table_without_one_figure_is_bad_input(chart: str) -> None:
    draw, table, _, _ = CHARTS[chart]
    frame = table(4)
    numeric = [c for c in frame.columns if frame[c].dtype.kind in "fi"]
    with pytest.raises(BadInput, match="nothing to draw"):
        draw(frame.assign(**dict.fromkeys(numeric, nan)))


@pytest.mark.parametrize("chart", ["op_time_cumulative", "time_by_op_type", "roofline", "accuracy_against_latency"])
def test_what_no_device_measured_is_marked_and_explained(chart: str) -> None:
    draw, table, _, _ = CHARTS[chart]
    frame = table(6)
    for source in set(frame["source"]):
        drawn = said(draw(frame))
        assert any(f"{source}†" in t and style.SOURCE_NOTES[source] not in t for t in drawn), "beside the figures"
        assert any(style.SOURCE_NOTES[source] in t for t in drawn), "in a footnote"
    assert "†" not in "\n".join(said(draw(frame.assign(source="device"))))


# --- one by one


def test_cumulative_share_is_that_of_the_sorted_times() -> None:
    frame = made.profiled(30)
    ax = perf_charts.op_time_cumulative(frame).axes[0]
    times = np.sort(frame["time_ms"].to_numpy()[:30])[::-1]
    share = 100 * times.cumsum() / times.sum()
    (line,) = [line for line in ax.lines if line.get_label() == "the slowest ops"]
    np.testing.assert_allclose(line.get_ydata(), share)
    for wanted in (50, 80, 95):
        count = int((share < wanted).sum()) + 1  # the first ops that together reach it
        assert f"{count} op{'s' * (count > 1)}: {share[count - 1]:.0f} %" in [t.get_text() for t in ax.texts]
    assert perf_charts.op_time_cumulative(made.profiled(200)).axes[0].get_xscale() == "log"


def test_time_by_type_sums_each_type_and_sets_the_unattributed_apart() -> None:
    frame = made.profiled(50)
    ax = perf_charts.time_by_op_type(frame).axes[0]
    sums = frame[frame["op_type"] != ""].groupby("op_type")["time_ms"].sum().sort_values(ascending=False)
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels == [*sums.index, "(unattributed: accelerator)"]
    np.testing.assert_allclose([b.get_width() for b in bars(ax)], [*sums, 0.05])
    assert [bool(b.get_hatch()) for b in bars(ax)] == [False] * 5 + [True]
    few = perf_charts.time_by_op_type(frame, top=2).axes[0]
    assert [t.get_text() for t in few.get_yticklabels()][2] == "the other 3 types"


def points(figure: Figure) -> np.ndarray:
    return np.concatenate([c.get_offsets() for c in figure.axes[0].collections if c.get_label()[:1] != "_"])


def test_roofline_draws_macs_over_bytes_and_macs_over_cycles() -> None:
    frame = made.profiled(30)
    some = frame[frame["macs"] > 0]
    expected = np.stack([some["macs"] / some["bytes"], some["macs"] / some["cycles"]], axis=1)
    found = points(perf_charts.roofline(frame))
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0))
    by_time = points(perf_charts.roofline(frame.assign(source="device")))  # GMAC/s where a device measured
    np.testing.assert_allclose(np.sort(by_time[:, 1]), np.sort(some["macs"] / some["time_ms"] / 1e6))
    assert "10 ops without multiply-accumulates" in " ".join(written(perf_charts.roofline(frame)))
    without = frame.drop(columns="intensity_macs_per_byte")
    np.testing.assert_allclose(np.sort(points(perf_charts.roofline(without)), axis=0), np.sort(expected, axis=0))


def test_roofline_draws_a_ceiling_only_where_a_peak_is_known() -> None:
    frame = made.profiled(30)
    bare = perf_charts.roofline(frame)
    assert bare.axes[0].lines == [] or all(len(line.get_xdata()) < 100 for line in bare.axes[0].lines)
    assert any("no ceiling is drawn: no peak rate per cycle is known" in t for t in written(bare))
    roofed = perf_charts.roofline(frame, made.peaks())
    (roof,) = [line for line in roofed.axes[0].lines if len(line.get_xdata()) >= 100]
    np.testing.assert_allclose(roof.get_ydata(), np.minimum(8192, 64 * np.asarray(roof.get_xdata())))
    assert "ceiling made up: estimate" in " ".join(written(roofed))
    legend = " ".join(t.get_text() for t in roofed.legends[0].get_texts())
    assert "made up (estimate†)" in legend
    seen = made.peaks().assign(compute_by="conv_7", memory_by="an addition")
    assert "reached in MACs by conv_7 and in bytes by an addition" in " ".join(
        written(perf_charts.roofline(frame, seen))
    )
    in_seconds = perf_charts.roofline(frame, made.peaks(), per="second")  # a peak per cycle is none per second
    assert any("no peak rate per second" in t for t in written(in_seconds))


def test_memory_marks_the_peak() -> None:
    frame = made.memory(20)
    ax = graph_charts.memory_over_graph(frame).axes[0]
    power = 2**20
    np.testing.assert_allclose([b.get_width() for b in bars(ax)], frame["live_bytes"] / power)
    peak = int(frame["live_bytes"].argmax())
    odd = [i for i, b in enumerate(bars(ax)) if to_hex(b.get_facecolor()).upper() == style.VERMILLION]
    assert odd == [peak]
    many = made.memory(500)
    peak = int(many["live_bytes"].argmax())
    assert any(f"op_{peak} (op {peak + 1:,})" in t for t in written(graph_charts.memory_over_graph(many)))


def test_weights_and_activations_stand_in_the_order_of_the_graph() -> None:
    frame = made.memory(12)
    weights, activations = graph_charts.weights_and_activations(frame).axes
    np.testing.assert_allclose([b.get_width() for b in bars(weights)], frame["weight_bytes"] / 1024)
    np.testing.assert_allclose([b.get_width() for b in bars(activations)], frame["activation_bytes"] / 2**20)
    assert weights.get_xlabel() == "weights [KB]"
    assert [t.get_text().split()[0] for t in weights.get_yticklabels()] == list(frame["op"])


def test_precision_map_writes_each_precision_and_its_share() -> None:
    cells = [t.get_text() for t in graph_charts.precision_map(made.precision(8)).axes[0].texts]
    frame = made.precision(8)
    expected = [
        w for row in zip(frame["weights"].replace("", "no weights"), frame["activations"], strict=True) for w in row
    ]
    assert cells == expected
    legend = [t.get_text() for t in graph_charts.precision_map(made.precision(400)).legends[0].get_texts()]
    assert "int8: weights of 100 ops, 33 % of their bytes; activations of 320" in legend
    assert "no weights: 100 ops" in legend


def test_latency_by_soc_keeps_estimates_and_measurements_apart() -> None:
    frame = made.estimates(8)
    measured = pd.DataFrame(
        {
            "soc": ["SM8000", "SM8000", "SM9999"], "precision": "w8a8", "source": ["device", "simulator", "device"],
            "median_ms": [1.5, 50.0, 3.0],
        }
    )  # fmt: skip
    figure = soc_charts.latency_by_soc(frame, measured)
    ax = figure.axes[0]
    drawn = {}
    for line in ax.lines:
        if len(line.get_xdata()) == 1 and line.get_marker() != "|":
            drawn.setdefault(line.get_marker(), []).append(float(line.get_xdata()[0]))
    by_source = {s: sorted(g["latency_ms"]) for s, g in frame.groupby("source")}
    assert sorted(drawn["o"]) == pytest.approx(by_source["estimate"])
    assert sorted(drawn["D"]) == pytest.approx(by_source["published"])
    assert sorted(drawn["s"]) == pytest.approx(by_source["transferred"])
    assert sorted(drawn["*"]) == [1.5, 3.0]
    spans = sorted(tuple(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2)
    some = frame[frame["low_ms"].notna()]
    np.testing.assert_allclose(spans, sorted(zip(some["low_ms"], some["high_ms"], strict=True)))
    said = " ".join(written(figure)).replace("\n", " ")
    assert "no figure for SM8003, SM8007: its generation is in no table" in said
    assert "1 row of simulator† not drawn" in said
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert len(labels) == 7
    assert any(label.startswith("SM9999") for label in labels)


def beaten(latency: np.ndarray, score: np.ndarray) -> list[bool]:
    return [
        any(
            a <= latency[i] and s >= score[i] and (a < latency[i] or s > score[i])
            for a, s in zip(latency, score, strict=True)
        )
        for i in range(len(latency))
    ]


@pytest.mark.parametrize("rows", [3, 12, 300])
def test_the_pareto_front_is_what_nothing_of_its_source_beats(rows: int) -> None:
    frame = made.builds(rows)
    frame["median_ms"] = frame["median_ms"].round(0)  # so that there are equal ones
    figure = soc_charts.accuracy_against_latency(frame)
    assert [ax.get_title("left") for ax in figure.axes] == [f"{s}†" for s in dict.fromkeys(frame["source"])]
    for ax, (_, group) in zip(figure.axes, frame.groupby("source", sort=False), strict=True):
        latency, score = group["median_ms"].to_numpy(), group["sqnr_db"].to_numpy()
        front = sorted(
            tuple(p)
            for p, worse in zip(zip(latency, score, strict=True), beaten(latency, score), strict=True)
            if not worse
        )
        filled = [c for c in ax.collections if to_hex(c.get_facecolor()[0]) != style.PAPER] if rows else []
        found = sorted(tuple(map(float, p)) for c in filled for p in c.get_offsets())
        np.testing.assert_allclose(found, front)


def test_accuracy_that_is_exact_is_drawn_on_top() -> None:
    frame = made.builds(6).assign(sqnr_db=[30.0, inf, 40.0, 33.0, inf, 60.0])
    ax = soc_charts.accuracy_against_latency(frame).axes[0]
    labels = {t.get_text(): t.get_position()[1] for t in ax.get_yticklabels()}
    assert labels["exact"] > 60
    assert (
        soc_charts.accuracy_against_latency(frame.assign(accuracy=0.9)).axes[0].get_ylabel() == "accuracy on labels [%]"
    )


def test_tiles_are_worded_with_their_unit_and_source() -> None:
    worded = [(t.value, t.unit, t.source) for t in tiles.tiles(made.headline(6))]
    assert worded == [
        ("4.20", "ms", "simulator†"), ("exact", "", "host†"), ("88.0", "KB", "host†"), ("3.00", "KB", ""),
        ("338 k", "MACs", ""), ("n/a", "%", "device"),
    ]  # fmt: skip
