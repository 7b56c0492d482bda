"""The charts of what a model is and where it fits: placement, layers, encodings; and the state of an installation.

Knows the tables' column names, nothing of the steps that fill them; `qnb.display.charts` offers these charts too.
"""

from __future__ import annotations

import textwrap
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from qnb.display.draw import (
    MAX_ROWS,
    constant,
    figures,
    first_rows,
    heat_table,
    label_rows,
    left_out,
    nothing_finite,
    plain_axis,
    require,
    side_columns,
    symlog,
    texts,
    tint,
    value_panel,
    wants_log,
)
from qnb.display.style import (
    BACKEND_COLOURS,
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    NEUTRAL,
    PALE,
    PAPER,
    PURPLE,
    VERMILLION,
    compact,
    elide,
    new_figure,
    number,
    rc,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["doctor", "encodings", "layers", "placement"]


def placement(table: pd.DataFrame) -> Figure:
    """Draw which share of each op type every backend takes.

    Parameters
    ----------
    table : pandas.DataFrame
        One row an op: op, op_type, htp, gpu, cpu ("yes", "no" or "unknown").

    Returns
    -------
    matplotlib.figure.Figure
        A row an op type, the most frequent first, and one for all ops; a hatched cell is not known.

    Raises
    ------
    BadInput
        No rows, or a column is missing.
    """
    require(table, "op_type", *BACKEND_COLOURS)
    types = np.array(texts(table, "op_type"))
    states = {backend: np.array([s.lower() for s in texts(table, backend)]) for backend in BACKEND_COLOURS}
    counted = sorted(((int((types == t).sum()), t) for t in dict.fromkeys(types)), key=lambda pair: -pair[0])
    notes = [f"the {MAX_ROWS} most frequent of {len(counted)} op types"] * (len(counted) > MAX_ROWS)
    groups = [(f"{elide(t, 32)}  ({n:,})", types == t) for n, t in counted[:MAX_ROWS]]
    groups.append((f"all ops  ({len(table):,})", np.ones(len(table), dtype=bool)))
    cells: list[list[tuple[object, str]]] = []
    unknown = []
    for y, (_, members) in enumerate(groups):
        cells.append([])
        for x, (backend, state) in enumerate(states.items()):
            taken = int((state[members] == "yes").sum())
            refused = int((state[members] == "no").sum())
            open_ = int(members.sum()) - taken - refused
            text = f"{taken:,} of {taken + refused:,}" + (f" + {open_:,} unknown" if open_ else "")
            # Full colour only where every op is taken: one refused op in a hundred must be seen.
            shade = 0.65 if taken and not refused else 0.1 + 0.3 * taken / max(1, taken + refused)
            colour: object = tint(BACKEND_COLOURS[backend], shade) if taken else PALE
            if taken + refused == 0:
                text, colour = "unknown", PAPER
                unknown.append((y, x))
            cells[y].append((colour, text))
    with rc():
        figure = new_figure(6.4, 0.85 + 0.27 * len(groups), "Ops that each backend takes", notes)
        ax = figure.subplots()
        heat_table(ax, cells, [label for label, _ in groups], list(states), hatched=unknown)
        ax.axhline(len(groups) - 1.5, color=INK, linewidth=1)
    return figure


def layers(table: pd.DataFrame, top: int = 15) -> Figure:
    """Draw where a model's multiply-accumulates and parameters are.

    Parameters
    ----------
    table : pandas.DataFrame
        One row an op: op, op_type, macs, parameters.
    top : int
        How many ops get a bar of their own: those with most MACs, then with most parameters.

    Returns
    -------
    matplotlib.figure.Figure
        MACs and parameters, in thousands, millions or billions as the axis says.

    Raises
    ------
    BadInput
        No rows, or a column is missing.
    """
    require(table, "op", "op_type", "macs", "parameters")
    macs, parameters = (np.nan_to_num(figures(table, c), posinf=0, neginf=0) for c in ("macs", "parameters"))
    names, types = texts(table, "op"), texts(table, "op_type")
    ranked = sorted(range(len(table)), key=lambda i: (-macs[i], -parameters[i]))
    shown, rest = ranked[:top], ranked[top:]
    labels = [f"{elide(names[i], 38)}  {elide(types[i], 18)}" for i in shown]
    labels += [f"the other {len(rest):,} ops"] * bool(rest)
    with rc():
        title = f"Work and weights by op{constant(table, 'build')}"
        figure = new_figure(8.4, 1.2 + 0.235 * len(labels), title)
        axes = figure.subplots(1, 2, sharey=True)
        for ax, values, what in zip(axes, (macs, parameters), ("MACs", "parameters"), strict=True):
            drawn = np.array([*values[shown], *([values[rest].sum()] * bool(rest))])
            power, prefix = next(((p, t) for p, t in _PREFIXES if drawn.max() >= p), (1.0, "count"))
            value_panel(
                ax, drawn / power, ["htp"] * len(shown) + [""] * bool(rest), label=f"{what} [{prefix}]",
                written=partial(_count, power=power),
            )  # fmt: skip
            ax.set_title(f"{compact(values.sum())} in all", fontsize=8, color=MUTED)
            if rest and 0 < (most := drawn[:-1].max() / power) * 4 < drawn[-1] / power:
                # The single ops would vanish beside the bar of all others: it runs out of the axis, its value stays inside.
                ax.set_xlim(0, 1.3 * most)
                plain_axis(ax, 4)
                ax.texts[-1].set(
                    position=(-4, 0), ha="right", bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5}
                )
                ax.texts[-1].xy = (1.3 * most, len(shown))
        label_rows(axes[0], labels)
    return figure


def _count(value: float, power: float) -> str:
    return compact(round(value * power))


_PREFIXES = ((1e12, "trillions"), (1e9, "billions"), (1e6, "millions"), (1e3, "thousands"))


def encodings(table: pd.DataFrame, top: int = MAX_ROWS) -> Figure:
    """Draw the ranges of the activations, from min to max.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a tensor: tensor, kind, bits, min, max, scale; only rows of kind "activation" are drawn.
    top : int
        How many tensors to draw at most: those with the coarsest step (the widest range for their bits).

    Returns
    -------
    matplotlib.figure.Figure
        The tensor's own units across, symmetric-log if the ranges differ by a factor of over 50.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no activation has a finite range.
    """
    require(table, "tensor", "kind", "bits", "min", "max")
    active = table.loc[np.array([kind == "activation" for kind in texts(table, "kind")])]
    low, high, bits = (figures(active, c) for c in ("min", "max", "bits"))
    finite = np.isfinite(low) & np.isfinite(high)
    if not finite.any():
        raise nothing_finite("no activation has a finite min and max")
    notes = left_out(int((~finite).sum()), "activation")
    active, low, high, bits = active.loc[finite], low[finite], high[finite], bits[finite]
    step = (high - low) / (np.exp2(np.nan_to_num(bits, nan=8.0)) - 1)
    keep = np.sort(np.argsort(-step, kind="stable")[:top])
    if len(keep) < len(active):
        notes.append(f"the {len(keep)} activations with the coarsest step of {len(active):,}; the table has them all")
    active, low, high, bits, step = active.iloc[keep], low[keep], high[keep], bits[keep], step[keep]
    with rc():
        title = f"Activation ranges{constant(table, 'build', 'precision')}"
        figure = new_figure(8.0, 1.2 + 0.21 * len(active), title, notes)
        ax = figure.subplots()
        wide = wants_log(high - low, 50)
        if wide:
            symlog(ax, np.concatenate([low, high]))
        for y, (left, right, b) in enumerate(zip(low, high, bits, strict=True)):
            colour, hatch = _BITS.get(b, (NEUTRAL, ""))
            ax.barh(y, right - left, left=left, height=0.58, color=colour, hatch=hatch, edgecolor=PAPER, linewidth=0)
            if left == right:
                ax.plot([left], [y], marker="|", markersize=7, color=colour)
        ax.axvline(0, color=INK, linewidth=0.8)
        ax.use_sticky_edges = False
        ax.margins(x=0.03)
        label_rows(ax, [elide(name, 44) for name in texts(active, "tensor")])
        columns = [
            (name, [(y, number(v)) for y, v in enumerate(of)])
            for name, of in (("min", low), ("max", high), ("step", step))
        ]
        columns.append(("bits", [(y, "n/a" if np.isnan(v) else f"{v:.0f}") for y, v in enumerate(bits)]))
        side_columns(ax, columns)
        ax.set_xlabel(f"real value [tensor's own unit]{', symmetric log scale' if wide else ''}")
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)
    return figure


_BITS = {4.0: (GREEN, "...."), 8.0: (BLUE, ""), 16.0: (VERMILLION, "////"), 32.0: (PURPLE, "xxxx")}


def doctor(table: pd.DataFrame) -> Figure:
    """Draw the state of what was looked for, a row each.

    Parameters
    ----------
    table : pandas.DataFrame
        Column `state`; the columns before it name the row, those after it explain it.

    Returns
    -------
    matplotlib.figure.Figure
        Sign, state, name and explanation; the sign, not only its colour, tells good from bad.

    Raises
    ------
    BadInput
        No rows, or no column `state`.
    """
    require(table, "state")
    rows, notes = first_rows(table, "rows", 60)
    names = list(map(str, rows.columns))
    split = names.index("state")
    before, after = ([texts(rows, c) for c in part] for part in (names[:split], names[split + 1 :]))
    whys = [
        textwrap.wrap(" — ".join(filter(None, parts)), 84, max_lines=3, placeholder=" …")
        for parts in _rows(after, len(rows))
    ]
    heights = [0.09 + 0.14 * max(1, len(lines)) for lines in whys]
    tops = np.concatenate([[0.0], np.cumsum(heights)])
    with rc():
        figure = new_figure(9.2, 0.45 + tops[-1], "Doctor", notes)
        ax = figure.subplots()
        ax.set(xlim=(0, 1), ylim=(tops[-1], 0))
        ax.set_axis_off()
        for state, name, why, top, bottom in zip(
            texts(rows, "state"), _rows(before, len(rows)), whys, tops[:-1], tops[1:], strict=True
        ):
            sign, colour = _STATES.get(state.lower(), ("–", MUTED))
            y = top + 0.115
            ax.text(0.0, y, sign, color=colour, fontsize=10, fontweight="bold", va="center")
            ax.text(0.022, y, elide(state, 14), color=colour, va="center", fontsize=8.5)
            ax.text(0.145, y, elide(" · ".join(filter(None, name)), 32), va="center", fontsize=8.5)
            ax.text(0.43, top + 0.045, "\n".join(why), va="top", fontsize=8, color=MUTED, linespacing=1.25)
            ax.axhline(bottom, color=GRID, linewidth=0.6)
    return figure


def _rows(columns: list[list[str]], count: int) -> list[list[str]]:
    """Turn columns of texts into rows; without columns the rows are empty."""
    return [[column[i] for column in columns] for i in range(count)]


_GOOD, _WARN, _BAD = ("✓", GREEN), ("!", VERMILLION), ("✗", "#b3261e")
_STATES = {
    **dict.fromkeys(("ok", "yes", "available", "found", "installed", "ready", "set"), _GOOD),
    **dict.fromkeys(("warning", "old", "partial", "reference", "limited", "simulator"), _WARN),
    **dict.fromkeys(("no", "missing", "error", "unavailable", "failed", "broken", "mismatch"), _BAD),
}
