"""The charts of the step check: where accuracy is lost layer by layer, and how a tensor's values lie on its grid.

Knows the tables' column names, nothing of the step that fills them; see `qnb.display.charts` for what all charts keep to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qnb.display.draw import (
    MAX_ROWS,
    Floats,
    figures,
    label_rows,
    left_out,
    notes_of,
    nothing_finite,
    plain_axis,
    require,
    side_columns,
    texts,
    tint,
)
from qnb.display.style import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    NEUTRAL,
    PAPER,
    VERMILLION,
    compact,
    elide,
    new_figure,
    number,
    rc,
    source_label,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["channel_ranges", "histogram", "layer_sqnr", "worst_tensors"]

_LINES: dict[str, dict[str, Any]] = {
    # larger and below, so that it shows where the two agree
    "host": {"color": GREEN, "marker": "s", "linestyle": "--", "markersize": 1.6, "linewidth": 1.8, "zorder": 2.5},
    "simulator": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "device": {"color": BLUE, "marker": "o", "linestyle": "-"},
}
_MOST_DB = 90.0
"""Layers that lose nothing measurable are drawn here: the rest would otherwise share the lower half."""


def layer_sqnr(table: pd.DataFrame) -> Figure:
    """Draw each layer's signal-to-quantization-noise ratio, in isolation and accumulated, a line for each source.

    Parameters
    ----------
    table : pandas.DataFrame
        layer, op_type, tensor, source, isolated_sqnr_db, accumulated_sqnr_db, remark.

    Returns
    -------
    matplotlib.figure.Figure
        Up to 40 layers stand below each other by name; more go from left to right by number, and the bad ones are named.
        The first bad layer has a band behind it.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no layer has a finite figure.
    """
    require(table, "layer", "op_type", "tensor", "source", "isolated_sqnr_db", "accumulated_sqnr_db", "remark")
    tensors = list(dict.fromkeys(texts(table, "tensor")))
    panels = [
        (label, column)
        for label, column in (
            ("in isolation: exact inputs", "isolated_sqnr_db"),
            ("accumulated", "accumulated_sqnr_db"),
        )
        if not np.isnan(figures(table, column)).all()
    ]
    if not panels:
        raise nothing_finite("no layer has an isolated_sqnr_db or accumulated_sqnr_db")
    tall = len(tensors) <= MAX_ROWS
    notes = notes_of(table)
    if any((figures(table, column) > _MOST_DB).any() for _, column in panels):
        notes.append(f"layers above {_MOST_DB:.0f} dB are drawn there")
    with rc():
        size = (9.2, 1.35 + 0.215 * len(tensors)) if tall else (10.4, 5.6)
        figure = new_figure(*size, "Where accuracy is lost, layer by layer", notes)
        shape = (1, len(panels)) if tall else (len(panels), 1)
        axes = figure.subplots(*shape, sharex=not tall, sharey=tall, squeeze=False).ravel()
        low = 0.0
        for ax, (label, column) in zip(axes, panels, strict=True):
            kind = column.partition("_")[0]
            for source in dict.fromkeys(texts(table, "source")):
                rows = table[np.array(texts(table, "source")) == source]
                at = np.array([tensors.index(t) + (not tall) for t in texts(rows, "tensor")], dtype=float)
                values = np.clip(figures(rows, column), -_MOST_DB, _MOST_DB)
                if np.isfinite(values).any():
                    low = min(low, float(np.nanmin(values)))
                _line(ax, at, values, source, tall=tall, dense=len(tensors) > 60)
            _bad(ax, table, tensors, kind, column, tall=tall)
            ax.set_title(label, fontsize=8.5, color=MUTED)
        _layer_axes(axes, table, tensors, low, tall=tall)
        # beside the title, where no line can be
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), fontsize=8)
    return figure


def _line(ax: Axes, at: Floats, values: Floats, source: str, *, tall: bool, dense: bool) -> None:
    style: dict[str, Any] = {"linewidth": 1.2, "markersize": 1.0, "zorder": 3}
    style |= _LINES.get(source, {"color": NEUTRAL, "marker": "D", "linestyle": ":"})
    style["markersize"] *= 2.2 if dense else 4.2
    known = np.isfinite(values)  # what only moves values has no figure in isolation
    x, y = (values[known], at[known]) if tall else (at[known], values[known])
    ax.plot(x, y, markeredgecolor=PAPER, markeredgewidth=0.4, label=source_label(source), **style)


_BEHIND: dict[str, Any] = {"facecolor": PAPER, "edgecolor": "none", "pad": 1, "alpha": 0.75}


def _bad(ax: Axes, table: pd.DataFrame, tensors: list[str], kind: str, column: str, *, tall: bool) -> None:
    """Mark the bad layers; the first one of each source gets a band, and where there are no names on the axis, a name."""
    seen: set[str] = set()
    room = max(1, len(tensors) // 9)
    taken = [-room]
    for tensor, layer, remark, value in zip(
        texts(table, "tensor"), texts(table, "layer"), texts(table, "remark"), figures(table, column), strict=True
    ):
        said = [part for part in remark.split(", ") if part.endswith(f"bad {kind}")]
        if not said or tensor in seen:
            continue
        seen.add(tensor)
        at, first = tensors.index(tensor) + (not tall), said[0].startswith("first")
        value = float(np.clip(value, -_MOST_DB, _MOST_DB))
        x, y = (value, at) if tall else (at, value)
        ax.plot([x], [y], marker="o", markersize=9, markerfacecolor="none", markeredgecolor=VERMILLION, zorder=4)
        if first:
            band = ax.axhspan if tall else ax.axvspan
            band(at - 0.5, at + 0.5, color=tint(VERMILLION, 0.16), zorder=0)
            style: dict[str, Any] = {"fontsize": 7.5, "color": VERMILLION, "fontweight": "bold", "zorder": 5}
            if tall:
                ax.annotate(
                    "first bad layer",
                    (x, y),
                    xytext=(9, 0),
                    textcoords="offset points",
                    va="center",
                    bbox=_BEHIND,
                    **style,
                )
            else:  # above all lines
                right = at > 0.7 * len(tensors)
                ax.annotate(
                    f"first bad: {elide(layer, 28)}", (at, 1), xycoords=("data", "axes fraction"), va="top",
                    xytext=(-6 if right else 6, -2), textcoords="offset points", ha="right" if right else "left",
                    bbox=_BEHIND, **style,
                )  # fmt: skip
            taken.append(at)
        elif not tall and all(abs(at - other) >= room for other in taken):
            ax.annotate(
                elide(layer, 22), (x, y), xytext=(7, -1), textcoords="offset points", fontsize=7, color=INK, va="center",
                bbox=_BEHIND,
            )  # fmt: skip
            taken.append(at)


def _layer_axes(axes: npt.NDArray[Any], table: pd.DataFrame, tensors: list[str], low: float, *, tall: bool) -> None:
    shown = np.concatenate([figures(table, c) for c in ("isolated_sqnr_db", "accumulated_sqnr_db")])
    shown = shown[np.isfinite(shown)]
    high = min(_MOST_DB, float(shown.max())) if shown.size else _MOST_DB
    names = dict(
        zip(texts(table, "tensor"), zip(texts(table, "layer"), texts(table, "op_type"), strict=True), strict=True)
    )
    for ax in axes:
        if tall:
            ax.set_xlim(low - 1, high * 1.06 + 1)
            plain_axis(ax)
            ax.set_xlabel("SQNR against fp32 [dB]")
        else:
            ax.set_ylim(low - 2, high * 1.16 + 2)
            ax.set_xlim(0, len(tensors) + 1 + 0.04 * len(tensors))
            ax.set_ylabel("SQNR against fp32 [dB]", fontsize=8)
        ax.grid(axis="both" if tall else "y", linewidth=0.5)
    if tall:
        label_rows(axes[0], [f"{elide(names[t][0], 30)}  {elide(names[t][1], 18)}" for t in tensors])
        axes[-1].tick_params(axis="y", length=0)
    else:
        axes[-1].set_xlabel("layer, in the order of the network [number from 1]; the table has their names")


def worst_tensors(table: pd.DataFrame, top: int = 25) -> Figure:
    """Draw the tensors that lose most by being put on their grid, each by itself.

    Parameters
    ----------
    table : pandas.DataFrame
        tensor, kind, bits, sqnr_db, clipped_percent, codes_used_percent, source.
    top : int
        How many.

    Returns
    -------
    matplotlib.figure.Figure
        SQNR in dB across; hatched bars are weights, dotted ones biases.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no tensor has a finite SQNR.
    """
    require(table, "tensor", "kind", "bits", "sqnr_db", "clipped_percent", "codes_used_percent")
    sqnr = figures(table, "sqnr_db")
    finite = np.isfinite(sqnr)
    if not finite.any():
        raise nothing_finite("no tensor has a finite sqnr_db")
    notes = left_out(int(np.isnan(sqnr).sum()), "tensor")
    order = sorted((int(i) for i in np.flatnonzero(finite)), key=lambda i: sqnr[i])[:top]
    if len(order) < int(finite.sum()):
        notes.append(f"the {len(order)} worst of {int(finite.sum()):,} tensors; the table has them all")
    rows, sqnr = table.iloc[order], sqnr[order]
    with rc():
        figure = new_figure(8.4, 1.2 + 0.215 * len(rows), "Tensors that lose most by themselves", notes)
        ax = figure.subplots()
        for y, (value, kind) in enumerate(zip(sqnr, texts(rows, "kind"), strict=True)):
            colour, hatch = _KINDS.get(kind, (NEUTRAL, ""))
            ax.barh(y, value, height=0.64, color=colour, hatch=hatch, edgecolor=PAPER, linewidth=0)
        label_rows(ax, [elide(name, 40) for name in texts(rows, "tensor")])
        columns: list[tuple[str, list[str]]] = [
            ("dB", [number(v) for v in sqnr]),
            ("kind", texts(rows, "kind")),
            ("bits", [f"{b:.0f}" for b in figures(rows, "bits")]),
            ("clipped", [_percent(v) for v in figures(rows, "clipped_percent")]),
            ("codes used", [_percent(v) for v in figures(rows, "codes_used_percent")]),
        ]
        side_columns(ax, [(title, list(enumerate(entries))) for title, entries in columns])
        ax.set_xlim(min(0.0, float(sqnr.min()) * 1.05), max(1.0, float(sqnr.max())) * 1.03)
        plain_axis(ax)
        ax.set_xlabel("SQNR of rounding and clipping this tensor alone [dB]")
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)
    return figure


_KINDS = {"activation": (BLUE, ""), "weight": (VERMILLION, "////"), "bias": (GREEN, "....")}


def _percent(value: float) -> str:
    if np.isnan(value):
        return "n/a"
    return "0 %" if value == 0 else "< 0.01 %" if value < 0.01 else f"{value:.2f} %" if value < 10 else f"{value:.0f} %"


_FEW_LINES = 64
_CODES, _REAL = "codes above the lowest, each channel on its own grid", "real value [the tensor's own unit]"


def histogram(row: pd.DataFrame, counts: npt.NDArray[np.int64]) -> Figure:
    """Draw the histogram of one tensor over its quantization grid.

    Parameters
    ----------
    row : pandas.DataFrame
        The tensor's row: tensor, kind, bits, grids, grid_min, grid_max, sqnr_db, clipped_percent, codes_used_percent (not
        said where it is missing).
    counts : ndarray of int64, (bins,)
        Values in each bin: the middle half of the bins is the grid, a quarter lies on each side of it. The first and the
        last bin also hold what lies further out.

    Returns
    -------
    matplotlib.figure.Figure
        Log counts over the tensor's unit; over codes for a weight with several grids. What lies beyond the grid is
        shaded; the grid's codes are drawn as lines where they are few.

    Raises
    ------
    BadInput
        A column is missing, or nothing was counted.
    """
    require(row, "tensor", "kind", "bits", "grids", "grid_min", "grid_max", "clipped_percent", "codes_used_percent")
    if not counts.sum():
        raise nothing_finite("no value of the tensor was counted")
    said = row.iloc[0]
    bits, several = int(said["bits"]), int(said["grids"]) > 1
    # a code's values reach half a step to both sides; the histogram's middle half is the grid
    step = 1.0 if several else (float(said["grid_max"]) - float(said["grid_min"])) / ((1 << bits) - 1)
    low = -0.5 if several else float(said["grid_min"]) - step / 2
    high = low + step * (1 << bits)
    edges = np.linspace(low - (high - low) / 2, high + (high - low) / 2, len(counts) + 1)
    used = np.flatnonzero(counts)
    left, right = float(edges[used[0]]), float(edges[used[-1] + 1])
    zoomed = right - left < (high - low) / 3
    view = (
        (min(left, low), max(right, high))
        if not zoomed
        else (left - 0.1 * (right - left), right + 0.1 * (right - left))
    )
    with rc():
        title = f"{elide(said['tensor'], 48)} on its grid"
        facts = [f"{said['kind']}", f"{bits} bits"]
        facts += [f"{said['grids']:.0f} grids"] * several
        facts += [f"{number(said['sqnr_db'])} dB", f"{_percent(float(said['clipped_percent']))} clipped"]
        used_share = float(said["codes_used_percent"])
        facts += [f"{_percent(used_share)} of the codes used"] * (not np.isnan(used_share))
        figure = new_figure(8.4, 3.4, title, ["the grid reaches beyond what is drawn"] if zoomed else [])
        ax = figure.subplots()
        inside = (edges[:-1] + edges[1:]) / 2
        beyond = (inside < low) | (inside > high)
        for mask, colour in ((~beyond, BLUE), (beyond, VERMILLION)):
            drawn = np.where(mask, counts, 0)
            ax.stairs(drawn, edges, fill=True, color=colour, linewidth=0)
        ax.set_yscale("log")
        ax.set_ylim(bottom=0.6)
        lines = np.arange(low + step / 2, high, step)
        lines = lines[(lines >= view[0]) & (lines <= view[1])]
        if len(lines) <= _FEW_LINES:
            for x in lines:
                ax.axvline(x, color=INK, linewidth=0.5, alpha=0.35, zorder=3)
        for x in (low, high):
            if view[0] <= x <= view[1]:
                ax.axvline(x, color=INK, linewidth=1.2, zorder=4)
        span = view[1] - view[0]
        ax.set_xlim(view[0] - 0.02 * span, view[1] + 0.02 * span)
        for a, b in ((view[0] - 0.02 * span, low), (high, view[1] + 0.02 * span)):
            if b > a:
                ax.axvspan(a, b, color=GRID, alpha=0.6, zorder=0, linewidth=0)
        ax.set_title(" · ".join(facts), fontsize=8, color=MUTED)
        plain_axis(ax, 7)
        lines_said = "; thin lines: its codes" if len(lines) <= _FEW_LINES else ""
        ax.set_xlabel(f"{_CODES if several else _REAL}; solid lines: ends of the grid{lines_said}")
        ax.set_ylabel("values, log scale")
        _plain_counts(ax)
    return figure


def _plain_counts(ax: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: compact(v)))
    ax.yaxis.set_minor_formatter(NullFormatter())


def channel_ranges(channels: pd.DataFrame, row: pd.DataFrame) -> Figure:
    """Draw the range of each channel of a tensor; those far wider than the median one stand out.

    Parameters
    ----------
    channels : pandas.DataFrame
        A row for each channel: tensor, channel, min, max, ratio.
    row : pandas.DataFrame
        The tensor's row: grid_min, grid_max, grids, bits; may be empty.

    Returns
    -------
    matplotlib.figure.Figure
        Channels from left to right; solid lines are the ends of the grid where there is one for all.

    Raises
    ------
    BadInput
        No rows, or a column is missing.
    """
    require(channels, "tensor", "channel", "min", "max", "ratio")
    low, high, ratio = (figures(channels, c) for c in ("min", "max", "ratio"))
    if not np.isfinite(low).any():
        raise nothing_finite("no channel has a finite range")
    at = figures(channels, "channel")
    wide = ratio >= 8
    one_grid = len(row) == 1 and bool(figures(row, "grids")[0] == 1)
    widest = int(np.nanargmax(np.where(np.isfinite(ratio), ratio, -1)))
    with rc():
        title = f"Channels of {elide(texts(channels, 'tensor')[0], 52)}"
        notes = ["solid lines: ends of the grid that all channels share"] * one_grid
        figure = new_figure(8.8, 3.3, title, notes)
        ax = figure.subplots()
        thick = float(np.clip(300 / len(at), 0.8, 7))
        for mask, colour in ((~wide, BLUE), (wide, VERMILLION)):
            ax.vlines(at[mask], low[mask], high[mask], color=colour, linewidth=thick)
        ax.axhline(0, color=NEUTRAL, linewidth=0.8)
        if one_grid:
            for end in ("grid_min", "grid_max"):
                ax.axhline(figures(row, end)[0], color=INK, linewidth=1)
        outliers = f"{int(wide.sum())} of {len(at)} channels are 8 or more times as wide as the median one"
        ax.set_title(
            f"{outliers}; the widest, {at[widest]:.0f}, {number(ratio[widest])} times", fontsize=8, color=MUTED
        )
        ax.set_xlim(at.min() - 1, at.max() + 1)
        plain_axis(ax, 10)
        ax.set_xlabel("channel")
        ax.set_ylabel("range [tensor's own unit]")
        ax.grid(axis="y")
    return figure
