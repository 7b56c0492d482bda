"""The chart of the step debug: where the time goes, and what was found there.

Knows the tables' column names, nothing of the step that fills them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qnb.display.draw import (
    constant,
    figures,
    label_rows,
    notes_of,
    nothing_finite,
    plain_axis,
    require,
    side_columns,
    texts,
)
from qnb.display.style import BLUE, NEUTRAL, PAPER, compact, elide, new_figure, rc, source_label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["bottlenecks"]

_TOP = 15
_IDS = 2
_UNATTRIBUTED = "(unattributed"
_FIRST = "#b3261e"


def bottlenecks(layers: pd.DataFrame, found: pd.DataFrame, top: int = _TOP) -> Figure:
    """Draw the slowest ops with what was found of them; the rest as one bar.

    Parameters
    ----------
    layers : pandas.DataFrame
        op, op_type, htp, cycles, macs, slowest, findings, source. Where nothing was timed, MACs are drawn.
    found : pandas.DataFrame
        The findings: id, severity, op.
    top : int
        How many ops get a bar of their own.

    Returns
    -------
    matplotlib.figure.Figure
        The five slowest in red. All others together, and ops off the NPU, come last and without a bar.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no op has cycles or MACs.
    """
    from matplotlib.ticker import FuncFormatter

    require(layers, "op", "op_type", "htp", "slowest", "findings")
    cycles = figures(layers, "cycles")
    timed = bool((np.nan_to_num(cycles) > 0).any())
    values = cycles if timed else figures(layers, "macs")
    names, types, ids = texts(layers, "op"), texts(layers, "op_type"), texts(layers, "findings")
    real = [i for i in range(len(layers)) if np.isfinite(values[i]) and not names[i].startswith(_UNATTRIBUTED)]
    off = [i for i, place in enumerate(texts(layers, "htp")) if place == "no"]
    if not off and not any(values[i] > 0 for i in real):
        raise nothing_finite("no op has cycles or MACs")
    ranked = sorted((i for i in real if i not in set(off)), key=lambda i: -values[i])
    shown = [i for i in ranked[:top] if values[i] > 0 or ids[i]]
    rest = [i for i in ranked if i not in set(shown)]
    total = float(sum(values[i] for i in real)) or 1.0
    slowest = figures(layers, "slowest")

    labels = [f"{elide(names[i], 36)}  {elide(types[i], 18)}" for i in shown]
    heights = [float(values[i]) for i in shown]
    colours = [_FIRST if slowest[i] > 0 else BLUE for i in shown]
    beside = [_ids(ids[i]) for i in shown]
    if rest:
        labels.append(f"the other {len(rest):,} ops")
        heights.append(float(sum(values[i] for i in rest)))
        colours.append(NEUTRAL)
        beside.append(_ids(", ".join(ids[i] for i in rest if ids[i])))
    for i in off[:8]:
        labels.append(f"{elide(names[i], 36)}  {elide(types[i], 18)}")
        heights.append(0.0)
        colours.append(NEUTRAL)
        beside.append(f"off the NPU · {_ids(ids[i])}".rstrip(" ·"))
    notes = notes_of(layers) if timed else ["nothing was timed: MACs are drawn"]
    notes += ["red: the five slowest"] * (timed and bool((slowest > 0).any()))
    notes += [f"{len(off) - 8:,} more ops are off the NPU"] * (len(off) > 8)
    unit = "cycles" if timed else "MACs"
    sources = ", ".join(sorted({source_label(s) for s in texts(layers, "source") if s})) if timed else ""
    with rc():
        title = f"Bottlenecks: {_counts(found)}{constant(layers, 'build')}"
        figure = new_figure(9.6, 1.2 + 0.24 * len(labels), title, notes)
        ax = figure.subplots()
        for y, (height, colour) in enumerate(zip(heights, colours, strict=True)):
            if y < len(shown):  # the bar of all others together would dwarf the ops that stand for themselves
                ax.barh(y, height, height=0.68, color=colour, edgecolor=PAPER, linewidth=0)
        label_rows(ax, labels)
        rows = range(len(labels))
        known = len(shown) + bool(rest)
        written = {
            unit: [compact(h) if y < known else "n/a" for y, h in enumerate(heights)],
            "share": [f"{100 * h / total:.1f} %" if y < known else "" for y, h in enumerate(heights)],
            "findings": beside,
        }
        side_columns(ax, [(head, list(zip(rows, cells, strict=True))) for head, cells in written.items()])
        plain_axis(ax)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: compact(x)))
        ax.set_xlim(left=0)
        ax.set_xlabel(" · ".join(filter(None, (unit, sources))))
        ax.grid(axis="x")
    return figure


def _ids(text: str) -> str:
    found = list(dict.fromkeys(filter(None, (part.strip().removeprefix("QNB-") for part in text.split(",")))))
    more = len(found) - _IDS
    return ", ".join(found[:_IDS]) + (f" +{more}" if more > 0 else "")


def _counts(found: pd.DataFrame) -> str:
    severities = texts(found, "severity")
    counts = [(s, severities.count(s)) for s in ("error", "warning", "info")]
    said = [f"{n} {s}{'s' * (n > 1 and s != 'info')}" for s, n in counts if n]
    return ", ".join(said) or "nothing found"
