"""Charts of two builds op by op. Knows the table's column names, nothing of the step that fills it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qnb.display.draw import (
    figures,
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
    GREEN,
    INK,
    MUTED,
    NEUTRAL,
    PAPER,
    VERMILLION,
    elide,
    new_figure,
    number,
    rc,
    source_label,
)
from qnb.errors import UnknownName

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "op_deltas"]

FIGURES = {
    "time_ms": ("time", "ms"),
    "cycles": ("cycles", "count"),
    "bytes": ("bytes", "count"),
    "macs": ("MACs", "count"),
}
_UNATTRIBUTED = "(unattributed"
_HATCHES = {"left only": "////", "right only": "\\\\\\\\"}
_MARKS = {state: hatch[:3] for state, hatch in _HATCHES.items()}


@dataclass(frozen=True)
class _Row:
    label: str
    left: float
    right: float
    delta: float
    state: str = ""
    apart: bool = False


def op_deltas(ops: pd.DataFrame, *, left: str = "left", right: str = "right", top: int = 20, by: str = "") -> Figure:
    """Draw by how much each op differs between two builds, the largest changes first.

    Parameters
    ----------
    ops : pandas.DataFrame
        op_left, op_right, op_type_left, op_type_right, state, part_of, source, and <figure>_left, _right, _delta. Rows
        that are part of another op are drawn as one with it.
    left, right : str
        What the two builds are called.
    top : int
        How many ops get a bar of their own; the rest share one.
    by : {"time_ms", "cycles", "bytes", "macs"}, optional
        What is drawn; by default the first of these that has a value.

    Returns
    -------
    matplotlib.figure.Figure
        Bars to the left are less in the right build, bars to the right more. All bars add up to the whole difference.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no difference has a value.
    UnknownName
        If there is no such figure.
    """
    require(ops, "op_left", "op_right", "state", "part_of")
    if by and by not in FIGURES:
        raise UnknownName.among("figure", by, FIGURES)
    column = by or next((c for c in FIGURES if np.isfinite(figures(ops, f"{c}_delta")).any()), "time_ms")
    rows, unknown = _grouped(ops, column)
    if not rows:
        raise nothing_finite(f"no op has a difference of {FIGURES[column][0]} with a value")
    ranked = sorted((r for r in rows if not r.apart), key=lambda r: -abs(r.delta))
    shown, rest = ranked[:top], ranked[top:]
    if rest:
        shown = [*shown, _together(f"the other {len(rest):,} op{'s'[: len(rest) != 1]}", rest)]
    apart = [r for r in rows if r.apart]
    drawn = [*shown, *apart]
    at = [y + (0.5 if shown and r.apart else 0.0) for y, r in enumerate(drawn)]
    word, unit = FIGURES[column]
    sources = ", ".join(sorted({source_label(s) for s in texts(ops, "source") if s}))
    notes = [*notes_of(ops), *left_out(unknown, "op"), *_legend(drawn)]
    total = _together("all together", rows)
    with rc():
        title = f"{word.capitalize()} op by op: {elide(left, 34)} → {elide(right, 34)}"
        figure = new_figure(10.0, 1.35 + 0.235 * len(drawn), title, notes)
        ax = figure.subplots()
        for y, row in zip(at, drawn, strict=True):
            colour = NEUTRAL if row.apart or row.state == "rest" else VERMILLION if row.delta > 0 else GREEN
            ax.barh(
                y, row.delta, height=0.68, color=colour, hatch=_HATCHES.get(row.state, ""), edgecolor=PAPER, linewidth=0
            )
        ax.axvline(0, color=INK, linewidth=0.8)
        label_rows(ax, [r.label for r in drawn], at)
        reach = max(abs(r.delta) for r in drawn) or 1.0
        low, high = min(0.0, *(r.delta for r in drawn)), max(0.0, *(r.delta for r in drawn))
        ax.set_xlim(low - 0.04 * reach, high + 0.04 * reach)
        foot = at[-1] + 1.25
        ax.set_ylim(foot + 0.7, -0.7)
        ax.set_yticks([*at, foot], labels=[*(r.label for r in drawn), total.label])
        written = [*zip(at, drawn, strict=True), (foot, total)]
        side_columns(
            ax,
            [
                ("left", [(y, number(r.left)) for y, r in written]),
                ("right", [(y, number(r.right)) for y, r in written]),
                ("difference", [(y, _signed(r.delta)) for y, r in written]),
                ("of left", [(y, _share(r)) for y, r in written]),
            ],
        )
        plain_axis(ax)
        ax.set_xlabel(" · ".join(filter(None, (f"difference in {word} [{unit}], right less left", sources))))
        sides = ["◀ less"] * (low < 0) + ["more ▶"] * (high > 0)
        ax.set_title("   ".join(sides), fontsize=7.5, color=MUTED)
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)
    return figure


def _grouped(ops: pd.DataFrame, column: str) -> tuple[list[_Row], int]:
    """Give a row for each op with what is part of it, and how many have no difference to draw."""
    ends = {c: figures(ops, f"{column}_{c}") for c in ("left", "right", "delta")}
    ours, theirs = texts(ops, "op_left"), texts(ops, "op_right")
    kinds = list(zip(texts(ops, "op_type_left"), texts(ops, "op_type_right"), strict=True))
    states, parts = texts(ops, "state"), texts(ops, "part_of")
    names = [a or b for a, b in zip(ours, theirs, strict=True)]
    heads = {names[i]: i for i in reversed(range(len(ops))) if not parts[i]}
    members: dict[int, list[int]] = {i: [i] for i in range(len(ops)) if not parts[i]}
    for i, part in enumerate(parts):
        if part:
            members.setdefault(heads.get(part, i), []).append(i)
    rows, unknown = [], 0
    for head, group in members.items():
        known = [i for i in group if np.isfinite(ends["delta"][i])]
        if not known:
            unknown += not names[head].startswith(_UNATTRIBUTED)
            continue
        apart = names[head].startswith(_UNATTRIBUTED)
        more = [names[i] for i in group if i != head]
        label = _label(names[head], theirs[head] if ours[head] else "", kinds[head], more)
        label = elide(names[head], 44) if apart else label
        one, other, delta = (float(np.nansum(ends[c][known])) for c in ("left", "right", "delta"))
        rows.append(_Row(label, one, other, delta, states[head], apart))
    return rows, unknown


def _label(name: str, renamed: str, kinds: tuple[str, str], more: list[str]) -> str:
    """Name an op, what it is called in the right build, its types, and what is part of it."""
    kind = elide(" → ".join(dict.fromkeys(k for k in kinds if k and k != name)), 18)
    if renamed and renamed != name:
        label = f"{elide(name, 19)} → {elide(renamed, 19)}  {kind}".rstrip()
        return f"{label} + {len(more)}" if more else label
    label = f"{elide(name, 26)}  {kind}".rstrip()
    return label + (f" + {elide(more[0], 16)}" if more else "") + (f" + {len(more) - 1}" if len(more) > 1 else "")


def _together(label: str, rows: list[_Row]) -> _Row:
    return _Row(label, sum(r.left for r in rows), sum(r.right for r in rows), sum(r.delta for r in rows), state="rest")


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value)


def _share(row: _Row) -> str:
    if not row.left:
        return "new" if row.state == "right only" else ""
    if row.state == "left only" and not row.right:
        return "gone"
    ratio = row.right / row.left
    return f"{100 * ratio:.0f} %" if ratio < 10 else f"{ratio:,.0f} ×"


def _legend(rows: list[_Row]) -> list[str]:
    states = {r.state for r in rows}
    marks = [f"{state}: hatched {mark}" for state, mark in _MARKS.items() if state in states]
    notes = ["; ".join(marks)] if marks else []
    if any(" + " in r.label for r in rows):
        notes.append("a + b, or a + how many: one of the builds counts them under one name")
    return notes
