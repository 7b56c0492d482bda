"""The chart of a choice among backends. Knows the tables' column names, nothing of the step that fills them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from qnb.display.draw import (
    figures,
    first_rows,
    heat_table,
    label_rows,
    require,
    texts,
    tint,
    value_panel,
)
from qnb.display.style import BLUE, PALE, VERMILLION, elide, new_figure, rc, source_label, source_notes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["selection"]


def selection(table: pd.DataFrame, criteria: pd.DataFrame) -> Figure:
    """Draw the candidates by rank: their points, and what was found for each criterion.

    Parameters
    ----------
    table : pandas.DataFrame
        rank, backend, precision, soc, fits, score, source.
    criteria : pandas.DataFrame
        rank, criterion, found, met, score, weight_percent, source.

    Returns
    -------
    matplotlib.figure.Figure
        Points at the left; at the right a cell for each criterion, darker where it scores higher, in another colour where
        a target is missed, hatched where nothing is known.

    Raises
    ------
    BadInput
        No rows, or a column is missing.
    """
    require(table, "rank", "backend", "score", "fits")
    require(criteria, "rank", "criterion", "found", "met", "score", "weight_percent")
    rows, notes = first_rows(table, "candidates")
    ranks = [int(r) for r in rows["rank"]]
    names = list(dict.fromkeys(texts(criteria, "criterion")))
    weight = dict(zip(texts(criteria, "criterion"), figures(criteria, "weight_percent"), strict=True))
    place = {rank: y for y, rank in enumerate(ranks)}
    cells: list[list[tuple[object, str]]] = [[(PALE, "")] * len(names) for _ in ranks]
    blank = []
    columns = (
        texts(criteria, "criterion"),
        texts(criteria, "found"),
        texts(criteria, "met"),
        texts(criteria, "source"),
    )
    scores = figures(criteria, "score")
    for i, (name, found, met, source) in enumerate(zip(*columns, strict=True)):
        y = place.get(int(criteria["rank"].iloc[i]))
        if y is None:
            continue
        x = names.index(name)
        if np.isnan(scores[i]):
            blank.append((y, x))
            cells[y][x] = (PALE, "not known")
            continue
        colour = VERMILLION if met == "no" else BLUE
        marked = "" if source in ("tutorial", "none", "") else f"\n{source_label(source)}"
        cells[y][x] = (tint(colour, 0.12 + 0.6 * scores[i] if met != "no" else 0.6), f"{_broken(found)}{marked}")
    fits = {"yes": "", "no": " ✗", "unknown": " ?"}
    labels = [
        f"{rank}  {backend} {elide(precision, 12)}{fits.get(fit, '')}"
        for rank, backend, precision, fit in zip(
            ranks, texts(rows, "backend"), texts(rows, "precision"), texts(rows, "fits"), strict=True
        )
    ]
    sources = [s for s in texts(criteria, "source") if s not in ("tutorial", "none")]
    notes = [
        *source_notes([*sources, *texts(rows, "source")]),
        "darker: a higher score; orange: a target is missed; hatched: not known, counts half",
        "✗: misses a target; ?: meets all that is known; power, tensor and precision are the tutorial's rules of thumb",
        *notes,
    ]
    with rc():
        title = f"Which backend{_for(texts(rows, 'soc'))}"
        figure = new_figure(4.3 + 1.18 * len(names), 1.1 + 0.56 * len(ranks), title, notes)
        left, right = figure.subplots(1, 2, sharey=False, width_ratios=[1.7, 1.15 * len(names)])
        value_panel(left, figures(rows, "score"), texts(rows, "backend"), label="points of 100", limit=100)
        label_rows(left, labels)
        left.set_ylim(len(ranks) - 0.5, -0.5)
        heads = [f"{name}\n{weight[name]:.3g} %" for name in names]
        heat_table(right, cells, [""] * len(ranks), heads, hatched=blank)
    return figure


def _broken(text: str, width: int = 17) -> str:
    return "\n".join(textwrap.wrap(elide(text, 2 * width), width))


def _for(socs: list[str]) -> str:
    one = set(socs)
    return f" for {elide(one.pop(), 30)}" if len(one) == 1 and "" not in one else ""
