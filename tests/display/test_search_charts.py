"""Oracle: the drawn artists themselves, against the table that went in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qnb.display import search_charts
from qnb.display.style import png
from qnb.errors import BadInput


def parts(count: int = 6) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "part": [f"layer_{i}" for i in range(count)],
            "op_type": "Conv",
            "tensors": "w, y",
            "precision": ["w8a8", "w4a8", "fp16", "w8a16", "a8", "odd"] * (count // 6),
            "weight_bits": pd.Series([8, 4, 16, 8, None, 2] * (count // 6), dtype="Int64"),
            "activation_bits": pd.Series([8, 8, 16, 16, 8, 8] * (count // 6), dtype="Int64"),
            "sqnr_db": np.linspace(5, 60, count),
            "alone_sqnr_db": np.linspace(5, 60, count),
            "source": "host",
        }
    )


def mixes() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "point": ["w4a8", "mix 1", "mix 2", "mix 2", "w8a16"],
            "cost_percent": [50.0, 90.0, 120.0, 120.0, 200.0],
            "sqnr_db": [3.0, 20.0, 31.0, 30.4, 40.0],
            "weight_kb": [1.0, 2, 3, 3, 4],
            "pareto": [True] * 5,
            "chosen": [False, False, True, True, False],
            "source": ["host", "host", "host", "simulator", "host"],
        }
    )


def drawn(ax) -> set[tuple[float, float]]:
    lines = [line for line in ax.get_lines() if line.get_marker() not in ("None", "", None)]
    return {(float(x), float(y)) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}


def test_each_part_is_a_dot_at_its_sqnr_in_the_tables_order():
    table = parts()
    figure = search_charts.sensitivity(table, all_sqnr_db=2.0)
    (ax,) = figure.axes
    assert drawn(ax) == {(v, float(y)) for y, v in enumerate(table["sqnr_db"])}
    assert [t.get_text().split()[0] for t in ax.get_yticklabels()] == list(table["part"])
    assert {t.get_text() for t in ax.get_legend().get_texts()} == set(table["precision"])
    assert any("all quantized: 2.0 dB" in t.get_text() for t in ax.texts)
    assert png(figure)[:4] == b"\x89PNG"


def test_several_precisions_of_a_part_share_its_row():
    table = pd.concat([parts(), parts().assign(precision="w16a16", sqnr_db=70.0)], ignore_index=True)
    (ax,) = search_charts.sensitivity(table).axes
    assert len(ax.get_yticklabels()) == 6


def test_what_has_no_figure_is_counted_and_left_out():
    table = parts()
    table.loc[0, "sqnr_db"] = np.nan
    table.loc[1, "sqnr_db"] = np.inf
    figure = search_charts.sensitivity(table)
    assert "2 parts without a finite value not drawn" in figure.get_supxlabel()
    with pytest.raises(BadInput, match="finite sqnr_db"):
        search_charts.sensitivity(table.assign(sqnr_db=np.nan))
    with pytest.raises(BadInput, match="part"):
        search_charts.sensitivity(table.drop(columns="part"))


def test_many_parts_are_cut_and_it_is_said():
    figure = search_charts.sensitivity(parts(60))
    assert "the first 40 of 60 parts" in figure.get_supxlabel()
    assert len(figure.axes[0].get_yticklabels()) == 40


def test_every_mix_is_a_point_and_the_simulators_are_told_apart():
    table = mixes()
    figure = search_charts.pareto(table, cost="bit operations", target=30.0)
    (ax,) = figure.axes
    assert drawn(ax) >= set(zip(table["cost_percent"], table["sqnr_db"], strict=True))
    labels = {t.get_text() for t in ax.get_legend().get_texts()}
    assert {"Pareto front", "simulator†", "chosen", "one precision for all"} <= labels
    written = {t.get_text() for t in ax.texts}
    assert {"w4a8", "w8a16", "target 30.0 dB"} <= written
    assert ax.get_xlabel() == "bit operations [% of w8a8]"
    assert "simulator†" in figure.get_supxlabel()
    assert png(figure)[:4] == b"\x89PNG"


def test_one_mix_alone_and_none_at_all():
    assert search_charts.pareto(mixes().iloc[:1]).axes
    with pytest.raises(BadInput, match="finite"):
        search_charts.pareto(mixes().assign(sqnr_db=np.nan))
    with pytest.raises(BadInput, match="no rows"):
        search_charts.pareto(mixes().iloc[:0])


def test_the_chosen_mix_shows_bits_and_where_there_are_none():
    table = parts()
    table.loc[2, "alone_sqnr_db"] = np.inf
    table.loc[3, "alone_sqnr_db"] = -3.0
    figure = search_charts.assignment(table)
    (ax,) = figure.axes
    written = [t.get_text() for t in ax.texts]
    assert [w for w in written if w in set(table["precision"])] == list(table["precision"])
    assert "–" in written
    assert ax.get_xlim()[0] <= -3.0
    assert png(figure)[:4] == b"\x89PNG"
    assert search_charts.assignment(table.assign(alone_sqnr_db=np.nan)).axes
