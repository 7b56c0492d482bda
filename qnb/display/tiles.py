"""The headline figures of a report card: each with its unit and its source.

Knows the table's column names, nothing of the step that fills it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qnb.display.draw import figures, require, texts
from qnb.display.style import (
    GRID,
    INK,
    MUTED,
    PAPER,
    compact,
    elide,
    new_figure,
    number,
    rc,
    source_label,
    source_notes,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Tile", "headline", "tiles"]

_ACROSS = 3
_BYTES = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB"))


@dataclass(frozen=True)
class Tile:
    """A headline figure in words: what it is, the value with its unit, where it comes from, and what it is of."""

    name: str
    value: str
    unit: str
    source: str
    detail: str


def tiles(table: pd.DataFrame) -> list[Tile]:
    """Word the rows of a headline table.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a figure: figure, value, unit, source ("" for what was counted), detail.
    """
    made = []
    words = (texts(table, c) for c in ("figure", "unit", "source", "detail"))
    for value, name, unit, source, detail in zip(figures(table, "value"), *words, strict=True):
        written, unit = _written(float(value), unit)
        made.append(Tile(name, written, unit, source_label(source) if source else "", detail))
    return made


def _written(value: float, unit: str) -> tuple[str, str]:
    if unit == "bytes":
        power, short = next(((p, u) for p, u in _BYTES if value >= p), (1, "bytes"))
        return number(value / power if power > 1 else int(value)), short
    if unit in ("MACs", "parameters"):
        return compact(value), unit
    return ("exact", "") if value == float("inf") else (number(value), unit)


def headline(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw the headline figures as tiles.

    Parameters
    ----------
    table : pandas.DataFrame
        As for `tiles`.
    title : str
        What they are of.

    Returns
    -------
    matplotlib.figure.Figure
        Three tiles in a row; each says its source, with the mark of what no device measured.

    Raises
    ------
    BadInput
        No rows, or a column is missing.
    """
    from matplotlib.patches import FancyBboxPatch

    require(table, "figure", "value", "unit", "source", "detail")
    made = tiles(table)
    down = -(-len(made) // _ACROSS)
    with rc():
        figure = new_figure(8.4, 0.55 + 1.12 * down, title or "Headline", source_notes(texts(table, "source")))
        ax = figure.subplots()
        ax.set(xlim=(0, _ACROSS), ylim=(down, 0))
        ax.set_axis_off()
        for position, tile in enumerate(made):
            x, y = position % _ACROSS, position // _ACROSS
            ax.add_patch(
                FancyBboxPatch(
                    (x + 0.04, y + 0.06), 0.92, 0.86, boxstyle="round,pad=0,rounding_size=0.04", facecolor=PAPER,
                    edgecolor=GRID, linewidth=1,
                )
            )  # fmt: skip
            ax.text(x + 0.1, y + 0.23, elide(tile.name, 34), fontsize=8.5, color=MUTED, va="center")
            ax.text(
                x + 0.1, y + 0.5, f"{tile.value} {tile.unit}", fontsize=15, color=INK, va="center", fontweight="bold"
            )
            said = f"{tile.detail} · {tile.source}" if tile.source and tile.detail else tile.detail or tile.source
            ax.text(x + 0.1, y + 0.77, elide(said, 44), fontsize=7, color=MUTED, va="center")
    return figure
