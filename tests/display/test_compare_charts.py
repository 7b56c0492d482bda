"""Charts of two builds op by op, and of a choice. Oracle: the drawn artists and pixels, against the table that went in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from qnb.display import compare_charts, select_charts
from qnb.errors import BadInput, UnknownName
from tests.display.test_charts import assert_drawn, written


def ops(count: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    left, right = rng.uniform(1, 9, count), rng.uniform(1, 9, count)
    frame = pd.DataFrame(
        {
            "op_left": [f"encoder_layer_{i}_attention_self_query" for i in range(count)],
            "op_right": [f"encoder_layer_{i}_attention_self_query" for i in range(count)],
            "op_type_left": "MatMul", "op_type_right": "MatMul", "state": "changed", "part_of": "",
            "time_ms_left": left, "time_ms_right": right, "time_ms_delta": right - left, "source": "simulator",
        }
    )  # fmt: skip
    if count > 4:
        frame.loc[1, ["op_right", "state", "part_of"]] = ["", "left only", frame["op_left"][0]]
        frame.loc[1, ["time_ms_right", "time_ms_delta"]] = [np.nan, -left[1]]
        frame.loc[2, ["op_left", "state"]] = ["", "right only"]
        frame.loc[2, ["time_ms_left", "time_ms_delta"]] = [np.nan, right[2]]
        frame.loc[3, ["op_left", "op_right", "op_type_left", "op_type_right"]] = ["(unattributed: runtime)"] * 2 + [
            ""
        ] * 2
    return frame


def bars(figure) -> list[float]:
    return [p.get_width() for p in figure.axes[0].patches if isinstance(p, Rectangle)]


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_bars_add_up_to_the_whole_difference_the_largest_first(count):
    table = ops(count)
    figure = compare_charts.op_deltas(table, left="net fp32", right="net w8a8", top=20)
    drawn = bars(figure)
    assert sum(drawn) == pytest.approx(table["time_ms_delta"].sum())
    assert len(drawn) <= 20 + 2
    ranked = drawn[: min(20, len(drawn) - (count > 4))]
    assert [abs(v) for v in ranked] == sorted((abs(v) for v in ranked), reverse=True)
    words = written(figure)
    assert "all together" in words
    assert any("net fp32 → net w8a8" in w for w in words)
    assert any("simulator†" in w for w in words)
    if count == 1000:
        assert "the other 978 ops" in words
    assert_drawn(figure)


def test_what_is_part_of_an_op_is_drawn_as_one_with_it():
    table = ops(10)
    drawn = bars(compare_charts.op_deltas(table))
    assert len(drawn) == 9
    assert min(abs(v - table["time_ms_delta"][:2].sum()) for v in drawn) < 1e-9


def test_the_first_figure_with_a_value_is_drawn_or_the_one_asked_for():
    table = ops(10)
    for name in ("left", "right", "delta"):
        table[f"macs_{name}"] = 5.0
    assert "time" in compare_charts.op_deltas(table).axes[0].get_xlabel()
    assert "MACs" in compare_charts.op_deltas(table, by="macs").axes[0].get_xlabel()
    table["time_ms_delta"] = np.nan
    assert "MACs" in compare_charts.op_deltas(table).axes[0].get_xlabel()
    with pytest.raises(UnknownName, match="time"):
        compare_charts.op_deltas(table, by="tyme_ms")
    with pytest.raises(BadInput, match="nothing to draw"):
        compare_charts.op_deltas(table.assign(macs_delta=np.nan))
    with pytest.raises(BadInput, match="state"):
        compare_charts.op_deltas(table.drop(columns="state"))


CRITERIA = ("placement", "accuracy", "latency", "power", "memory", "tensor", "precision")


def selection(count: int = 4) -> tuple[pd.DataFrame, pd.DataFrame]:
    backends = [("htp", "gpu", "cpu")[i % 3] for i in range(count)]
    table = pd.DataFrame({"rank": range(1, count + 1), "backend": backends, "precision": "w8a8", "soc": "SM8650"})
    table = table.assign(fits=["yes", "unknown", "no", "no"][: min(count, 4)] + ["no"] * max(0, count - 4))
    table = table.assign(score=np.linspace(90, 10, count), source="simulator")
    rows = [
        {
            "rank": rank, "criterion": name, "found": f"{rank} of {name}", "met": "no" if rank == 3 else "yes",
            "score": np.nan if (rank, name) == (2, "latency") else 1 / rank, "weight_percent": 100 / 7,
            "source": "tutorial" if name == "power" else "simulator",
        }
        for rank in table["rank"]
        for name in CRITERIA
    ]  # fmt: skip
    return table, pd.DataFrame(rows)


@pytest.mark.parametrize("count", [1, 4, 1000])
def test_candidates_stand_by_rank_with_every_criterion(count):
    table, criteria = selection(count)
    figure = select_charts.selection(table, criteria)
    words = written(figure)
    shown = min(count, 40)
    assert sum(w.startswith(f"{rank}  ") for w in words for rank in range(1, count + 1)) == shown
    assert all(any(w.startswith(name) for w in words) for name in CRITERIA)
    cells = [w for w in words if " of " in w]
    assert len([w for w in cells if "simulator†" in w]) >= shown * 6 - 1
    assert words.count("not known") == (count > 1)
    assert bars(figure)[0] == 90
    assert_drawn(figure)


def test_a_choice_without_rows_has_no_chart():
    table, criteria = selection()
    with pytest.raises(BadInput, match="no rows"):
        select_charts.selection(table.iloc[:0], criteria)
    with pytest.raises(BadInput, match="found"):
        select_charts.selection(table, criteria.drop(columns="found"))
