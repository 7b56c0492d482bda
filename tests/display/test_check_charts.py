"""Charts of the step check: rendered, and read back from the figure and from its pixels.

Oracles: the tables' own figures; numpy's histogram edges.
"""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from qnb.display import check_charts
from qnb.errors import BadInput
from tests.display.frames import LONG
from tests.display.test_charts import assert_drawn, assert_no_overlap, written

nan = np.nan


def layers(count=10, bad=(3, 6), sources=("host", "simulator")):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        for source in sources:
            kinds = [f"{'first ' * (i == bad[0])}bad {k}" for k in ("isolated", "accumulated")] if i in bad else []
            rows.append(
                {
                    "layer": f"node_conv2d_{i}", "op_type": "Conv" if i % 4 else "Add", "tensor": f"t_{i}", "source": source,
                    "isolated_sqnr_db": 12.0 if i in bad else 38 + rng.normal(),
                    "accumulated_sqnr_db": (9.0 if i >= bad[0] else 36.0) + rng.normal() - 0.02 * i, "drop_db": 0.0,
                    "remark": ", ".join(kinds), "cosine": 0.99, "mse": 0.1,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def tensors(count=30):
    kinds = [("activation", "weight", "bias")[i % 3] for i in range(count)]
    frame = pd.DataFrame({"tensor": [f"features.{i}.conv" for i in range(count)], "kind": kinds})
    return frame.assign(
        layer="node", source="host", bits=[32 if k == "bias" else 8 for k in kinds], grids=1,
        sqnr_db=np.linspace(5, 60, count)[::-1], cosine=0.99, mse=0.1,
        clipped_percent=[(0.0, 0.004, 12.5)[i % 3] for i in range(count)],
        codes_used_percent=[nan if k == "bias" else 61.0 for k in kinds], range_use_percent=99.0, core_percent=60.0,
        observed_min=-1.0, observed_max=3.0, grid_min=-1.0, grid_max=2.8,
    )  # fmt: skip


def channels(count=32):
    rng = np.random.default_rng(1)
    size = rng.gamma(2, 1, count)
    size[min(4, count - 1)] = 30
    return pd.DataFrame(
        {"tensor": "2.weight", "kind": "weight", "channel": np.arange(count), "min": -size / 2, "max": size / 2,
         "range": size, "ratio": size / np.median(size)}
    )  # fmt: skip


def counts(grid=(-1.0, 2.8), bits=8, bins=1024, spread=0.6):
    step = (grid[1] - grid[0]) / (2**bits - 1)
    low, high = grid[0] - step / 2, grid[1] + step / 2
    edges = np.linspace(low - (high - low) / 2, high + (high - low) / 2, bins + 1)
    values = np.random.default_rng(2).normal(0.7, spread, 20_000)
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0], values


DRAWN = {
    "layer_sqnr": lambda n: check_charts.layer_sqnr(layers(max(n, 8))),
    "worst_tensors": lambda n: check_charts.worst_tensors(tensors(n)),
    "histogram": lambda n: check_charts.histogram(tensors(1), counts(spread=n / 30)[0]),
    "channel_ranges": lambda n: check_charts.channel_ranges(channels(n), tensors(1)),
}


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("count", [1, 10, 100])
def test_charts_are_drawn_whole(name, count):
    before = dict(mpl.rcParams)
    figure = DRAWN[name](count)
    assert_drawn(figure)
    assert_no_overlap(figure)
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("count", [10, 100])
def test_layers_are_drawn_with_their_figures(count):
    table = layers(count)
    figure = check_charts.layer_sqnr(table)
    assert len(figure.axes) == 2
    tall = count <= 40
    for ax, column in zip(figure.axes, ("isolated_sqnr_db", "accumulated_sqnr_db"), strict=True):
        lines = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
        assert set(lines) == {"host†", "simulator†"}
        for source in ("host", "simulator"):
            drawn = lines[f"{source}†"].get_xdata() if tall else lines[f"{source}†"].get_ydata()
            np.testing.assert_allclose(drawn, table.loc[table["source"] == source, column])
    said = " ".join(written(figure))
    assert "first bad" in said
    assert "node_conv2d_3" in said
    if tall:
        assert all(f"node_conv2d_{i}  " in said for i in range(count))


def test_one_source_and_layers_without_a_figure():
    table = layers(10, sources=("host",))
    table.loc[2, "isolated_sqnr_db"] = nan
    figure = check_charts.layer_sqnr(table)
    assert_drawn(figure)
    host = next(line for line in figure.axes[0].lines if line.get_label() == "host†")
    assert len(host.get_xdata()) == 9
    only = check_charts.layer_sqnr(table.assign(isolated_sqnr_db=nan))
    assert len(only.axes) == 1
    exact = table.assign(accumulated_sqnr_db=np.inf)
    assert_drawn(check_charts.layer_sqnr(exact))
    assert any("above 90 dB" in text for text in written(check_charts.layer_sqnr(exact)))


def test_names_of_others_do_no_harm():
    table = layers(10).replace({"layer": {"node_conv2d_3": LONG}, "tensor": {"t_4": LONG}})
    assert_drawn(check_charts.layer_sqnr(table))
    assert_drawn(check_charts.worst_tensors(tensors(6).assign(tensor=[f"{i}{LONG}" for i in range(6)])))
    assert_drawn(check_charts.histogram(tensors(1).assign(tensor=LONG), counts()[0]))
    assert_drawn(check_charts.channel_ranges(channels().assign(tensor=LONG), tensors(1)))


def test_the_worst_tensors_come_first():
    figure = check_charts.worst_tensors(tensors(60), top=25)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert len(widths) == 25
    assert widths == sorted(widths)
    said = " ".join(written(figure))
    assert "the 25 worst of 60" in said
    assert "< 0.01 %" in said
    assert "12 %" in said or "13 %" in said


def test_the_histogram_shades_what_is_clipped():
    found, values = counts(spread=1.5)
    figure = check_charts.histogram(tensors(1), found)
    inside, beyond = (patch.get_data().values for patch in figure.axes[0].patches if hasattr(patch, "get_data"))
    step = 3.8 / 255
    assert beyond.sum() == pytest.approx(np.sum((values < -1 - step / 2) | (values > 2.8 + step / 2)), rel=0.01)
    assert inside.sum() + beyond.sum() == found.sum()
    ends = {round(float(line.get_xdata()[0]), 3) for line in figure.axes[0].lines}
    assert {round(-1 - step / 2, 3), round(2.8 + step / 2, 3)} <= ends


def test_few_codes_are_drawn_as_lines():
    four = tensors(1).assign(bits=4)
    found, _ = counts(bits=4)
    figure = check_charts.histogram(four, found)
    assert len(figure.axes[0].lines) == 16 + 2  # its codes, and the ends
    assert len(check_charts.histogram(tensors(1), counts()[0]).axes[0].lines) == 2
    # an outlier stretched the grid: few of its codes are in the picture, which zooms in
    zoomed = check_charts.histogram(tensors(1).assign(grid_min=-100.0, grid_max=100.0), counts((-100.0, 100.0))[0])
    low, high = zoomed.axes[0].get_xlim()
    assert high - low < 20
    assert len(zoomed.axes[0].lines) > 4


def test_outlier_channels_stand_out():
    figure = check_charts.channel_ranges(channels(), tensors(1))
    said = " ".join(written(figure))
    assert "1 of 32 channels are 8 or more times" in said
    assert "the widest, 4," in said
    alone = check_charts.channel_ranges(channels(), tensors(1).assign(grids=32))
    assert len(alone.axes[0].lines) == len(figure.axes[0].lines) - 2


def test_nothing_to_draw():
    with pytest.raises(BadInput, match="no rows"):
        check_charts.layer_sqnr(layers().iloc[:0])
    with pytest.raises(BadInput, match="needs the column"):
        check_charts.worst_tensors(tensors().drop(columns=["sqnr_db"]))
    with pytest.raises(BadInput, match="no layer has"):
        check_charts.layer_sqnr(layers().assign(isolated_sqnr_db=nan, accumulated_sqnr_db=nan))
    with pytest.raises(BadInput, match="no value"):
        check_charts.histogram(tensors(1), np.zeros(1024, np.int64))
    with pytest.raises(BadInput, match="no tensor has"):
        check_charts.worst_tensors(tensors().assign(sqnr_db=nan))
    with pytest.raises(BadInput, match="no channel has"):
        check_charts.channel_ranges(channels().assign(min=nan), tensors(1))
