"""The charts of mixed precision: what each part does alone, accuracy against cost, and the mix that was chosen.

Knows the tables' column names, nothing of the steps that fill them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qnb.display.draw import (
    MAX_ROWS,
    figures,
    first_rows,
    label_rows,
    left_out,
    notes_of,
    nothing_finite,
    plain_axis,
    require,
    side_columns,
    texts,
)
from qnb.display.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    NEUTRAL,
    PAPER,
    PURPLE,
    VERMILLION,
    elide,
    heading,
    new_figure,
    number,
    rc,
    source_label,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["assignment", "pareto", "sensitivity"]

# Colour is never the only cue: each precision has a marker of its own as well.
_STYLES: dict[str, tuple[str, str]] = {
    "w4a8": (VERMILLION, "v"),
    "w4": (VERMILLION, "v"),
    "w8a8": (BLUE, "o"),
    "w8": (BLUE, "o"),
    "a8": (BLUE, "^"),
    "w4a16": ("#b08000", "<"),
    "w8a16": (GREEN, "s"),
    "a16": (GREEN, "^"),
    "w16a16": (PURPLE, "D"),
    "w16": (PURPLE, "D"),
    "fp16": (INK, "*"),
}
_PLAIN = (NEUTRAL, "P")


def sensitivity(table: pd.DataFrame, *, mode: str = "alone", all_sqnr_db: float = float("nan")) -> Figure:
    """Draw the SQNR of the output by part, the most harmful on top.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a part and precision: part, op_type, precision, sqnr_db, source; sorted.
    mode : {"alone", "without"}
        Whether a part was quantized alone, or left in float alone.
    all_sqnr_db : float
        SQNR with everything quantized, drawn as a line; NaN for none.

    Returns
    -------
    matplotlib.figure.Figure
        dB across; a dot for each precision of a part.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no SQNR is finite.
    """
    require(table, "part", "precision", "sqnr_db")
    sqnr = figures(table, "sqnr_db")
    if not np.isfinite(sqnr).any():
        raise nothing_finite("no part has a finite sqnr_db")
    parts = list(dict.fromkeys(texts(table, "part")))
    notes = left_out(int((~np.isfinite(sqnr)).sum()), "part")
    notes += [f"the first {MAX_ROWS} of {len(parts):,} parts; the table has them all"] * (len(parts) > MAX_ROWS)
    rows = {part: y for y, part in enumerate(parts[:MAX_ROWS])}
    types = dict(zip(texts(table, "part"), texts(table, "op_type"), strict=True))
    with rc():
        title = "Output SQNR with one part quantized" if mode == "alone" else "Output SQNR with one part left in float"
        figure = new_figure(8.0, 1.3 + 0.235 * len(rows), title, [*notes_of(table), *notes])
        ax = figure.subplots()
        seen: set[str] = set()
        for part, precision, value in zip(texts(table, "part"), texts(table, "precision"), sqnr, strict=True):
            if part in rows and np.isfinite(value):
                _dot(ax, value, rows[part], precision, seen)
        if np.isfinite(all_sqnr_db):
            ax.axvline(all_sqnr_db, color=INK, linewidth=1, linestyle="--")
            ax.annotate(
                f"all quantized: {all_sqnr_db:.1f} dB", (all_sqnr_db, 1), xycoords=("data", "axes fraction"),
                xytext=(4, 3), textcoords="offset points", fontsize=7.5, color=MUTED, va="bottom",
            )  # fmt: skip
        label_rows(ax, [f"{elide(part, 38)}  {elide(types[part], 16)}" for part in rows])
        ax.set_xlabel("SQNR of the output against fp32 [dB]")
        ax.grid(axis="both")
        ax.margins(x=0.06)
        plain_axis(ax, 8)
        _legend(ax, len(seen))
    return figure


def _dot(ax: Axes, x: float, y: float, precision: str, seen: set[str], **more: Any) -> None:
    colour, marker = _STYLES.get(precision, _PLAIN)
    label = "" if precision in seen else precision
    seen.add(precision)
    ax.plot(
        [x], [y], marker=marker, color=colour, markersize=7, markeredgecolor=PAPER, linestyle="", label=label, **more
    )


def _legend(ax: Axes, entries: int, where: Literal["best", "lower right"] = "best") -> None:
    if entries > 1:
        ax.legend(loc=where, frameon=True, framealpha=0.85, facecolor=PAPER, edgecolor="none")


def pareto(table: pd.DataFrame, *, cost: str = "cost", target: float = float("nan")) -> Figure:
    """Draw accuracy against cost: each mix that was measured, the Pareto front, and the one that was chosen.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a mix and source: point, cost_percent, sqnr_db, weight_kb, pareto, chosen, source.
    cost : str
        What is to be cheap, in words.
    target : float
        SQNR that was asked for, dB, drawn as a line; NaN for none.

    Returns
    -------
    matplotlib.figure.Figure
        Cost in percent of w8a8 across, SQNR in dB up; what the simulator gave has markers of its own.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no point is finite.
    """
    require(table, "point", "cost_percent", "sqnr_db", "pareto", "chosen", "source")
    x, y = figures(table, "cost_percent"), figures(table, "sqnr_db")
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        raise nothing_finite("no mix has a finite cost_percent and sqnr_db")
    simulated = np.array([s != "host" for s in texts(table, "source")])
    front = np.array([bool(v) for v in table["pareto"]]) & ~simulated & finite
    chosen = np.array([bool(v) for v in table["chosen"]]) & finite
    names = texts(table, "point")
    host = finite & ~simulated
    uniform = np.array([not name.startswith("mix") for name in names]) & host
    with rc():
        title = "Accuracy against cost of each mix"
        figure = new_figure(7.6, 4.4, title, [*notes_of(table), *left_out(int((~finite).sum()), "mix")])
        ax = figure.subplots()
        order = np.argsort(x[front], kind="stable")
        ax.plot(
            x[front][order], y[front][order], color=BLUE, linewidth=1.2, drawstyle="steps-post", label="Pareto front"
        )
        rest = host & ~uniform & ~chosen
        ax.plot(x[rest], y[rest], "o", markersize=4.5, color=NEUTRAL, markeredgecolor=PAPER, label="mix")
        ax.plot(
            x[uniform],
            y[uniform],
            "s",
            markersize=6.5,
            color=GREEN,
            markeredgecolor=PAPER,
            label="one precision for all",
        )
        there = finite & simulated
        if there.any():
            label = source_label(texts(table, "source")[int(there.argmax())])
            ax.plot(x[there], y[there], "x", markersize=7, color=VERMILLION, markeredgewidth=1.8, label=label)
        here = chosen & ~simulated
        ax.plot(x[here], y[here], "*", markersize=14, color=PURPLE, markeredgecolor=PAPER, label="chosen", zorder=5)
        if np.isfinite(target):
            ax.axhline(target, color=INK, linewidth=1, linestyle="--")
            ax.annotate(
                f"target {number(target)} dB", (0, target), xycoords=("axes fraction", "data"), xytext=(4, 3),
                textcoords="offset points", fontsize=7.5, color=MUTED,
            )  # fmt: skip
        right = np.nanmax(x[finite]) - 0.1 * np.ptp(x[finite])
        for i in uniform.nonzero()[0]:
            side, way = ("right", -1) if x[i] > right else ("left", 1)
            ax.annotate(
                elide(names[i], 14), (x[i], y[i]), xytext=(way * 6, -10), textcoords="offset points", fontsize=7.5,
                color=INK, ha=side,
            )  # fmt: skip
        ax.margins(0.07)
        ax.set_xlabel(f"{cost} [% of w8a8]")
        ax.set_ylabel("SQNR against fp32 [dB]")
        plain_axis(ax, 8)
        ax.grid(axis="both")
        _legend(ax, 2, "lower right")
    return figure


def assignment(table: pd.DataFrame) -> Figure:
    """Draw the precision of each part in the chosen mix.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a part, in the graph's order: part, op_type, precision, weight_bits, activation_bits, alone_sqnr_db.

    Returns
    -------
    matplotlib.figure.Figure
        The SQNR with the part quantized alone across, in dB; bits at the right.

    Raises
    ------
    BadInput
        No rows, or a column is missing.
    """
    require(table, "part", "precision", "alone_sqnr_db")
    rows, notes = first_rows(table, "parts")
    sqnr = figures(rows, "alone_sqnr_db")
    with rc():
        title = "The chosen mix, part by part"
        figure = new_figure(8.4, 1.3 + 0.235 * len(rows), title, [*notes_of(rows), *notes])
        ax = figure.subplots()
        seen: set[str] = set()
        for y, (precision, value) in enumerate(zip(texts(rows, "precision"), sqnr, strict=True)):
            if np.isfinite(value):
                ax.plot([0, value], [y, y], color=_STYLES.get(precision, _PLAIN)[0], linewidth=1, alpha=0.5)
                _dot(ax, value, y, precision, seen)
        names = zip(texts(rows, "part"), texts(rows, "op_type"), strict=True)
        label_rows(ax, [f"{elide(part, 38)}  {elide(kind, 16)}" for part, kind in names])
        columns = [("precision", list(enumerate(texts(rows, "precision"))))]
        for column in ("weight_bits", "activation_bits"):
            values = figures(rows, column)
            columns.append(
                (heading(column)[0], [(y, "–" if np.isnan(v) else f"{v:.0f}") for y, v in enumerate(values)])
            )
        side_columns(ax, [(head, [(float(y), text) for y, text in values]) for head, values in columns])
        ax.set_xlabel("SQNR of the output with this part alone quantized [dB]")
        ax.set_xlim(left=min(0.0, float(sqnr[np.isfinite(sqnr)].min(initial=0.0))))
        ax.grid(axis="x")
        plain_axis(ax, 8)
    return figure
