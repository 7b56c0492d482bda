"""The charts of where the time goes on the NPU: how much of it few ops take, by op type, and against the roofline.

Knows the tables' column names, nothing of the steps that fill them; see `qnb.display.charts` for what all charts keep to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qnb.display.charts import UNATTRIBUTED
from qnb.display.draw import (
    Floats,
    constant,
    figures,
    label_rows,
    left_out,
    notes_of,
    nothing_finite,
    plain_axis,
    plain_ticks,
    require,
    side_columns,
    texts,
)
from qnb.display.labels import label_points
from qnb.display.style import (
    BLUE,
    GREEN,
    INK,
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

__all__ = ["op_time_cumulative", "roofline", "time_by_op_type"]

_SHARES = (50, 80, 95)
_NAMED = 8
_TYPE_STYLES = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (PURPLE, "D"), ("#b08000", "v"))
_OTHER = (NEUTRAL, "P")


def _measured(ops: pd.DataFrame) -> tuple[str, Floats, np.ndarray]:
    """Find which of time and cycles the ops have, its values, and which rows stand for no op.

    Raises
    ------
    BadInput
        If no row has either.
    """
    column = max(("time_ms", "cycles"), key=lambda c: int(np.isfinite(figures(ops, c)).sum()))
    values = figures(ops, column)
    if not np.isfinite(values).any():
        raise nothing_finite("no op has a finite time_ms or cycles")
    return column, values, np.array([name.startswith(UNATTRIBUTED) for name in texts(ops, "op")])


def _axis_label(ops: pd.DataFrame, column: str, what: str = "") -> str:
    unit = f"{'time' if column == 'time_ms' else 'cycles'} [{'ms' if column == 'time_ms' else 'count'}]"
    sources = ", ".join(sorted({source_label(s) for s in texts(ops, "source") if s}))
    return " · ".join(filter(None, (what or unit, sources)))


def op_time_cumulative(ops: pd.DataFrame) -> Figure:
    """Draw how much of the ops' time the slowest ones take together.

    Parameters
    ----------
    ops : pandas.DataFrame
        op, op_type, cycles, time_ms, source; rows whose op begins with "(unattributed" are left out.

    Returns
    -------
    matplotlib.figure.Figure
        Number of ops across, the slowest first (a log axis for more than 60); their share of all ops' time up.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no op takes any time or cycles.
    """
    require(ops, "op", "op_type")
    column, values, apart = _measured(ops)
    usable = np.isfinite(values) & ~apart
    total = float(values[usable].sum())
    if not total > 0:
        raise nothing_finite(f"no op has any {column}")
    order = np.flatnonzero(usable)[np.argsort(-values[usable], kind="stable")]
    share = 100 * np.cumsum(values[order]) / total
    count = len(order)
    notes = left_out(int((~np.isfinite(values) & ~apart).sum()), "op")
    aside = values[apart & np.isfinite(values)].sum()
    if aside > 0:
        notes.append(f"without {number(float(aside))} {heading(column)[1]} that the profile assigns to no op")
    with rc():
        title = f"How few ops take how much{constant(ops, 'build', 'backend', 'soc')}"
        figure = new_figure(7.2, 3.7, title, [*notes_of(ops), *notes])
        ax = figure.subplots()
        ranks = np.arange(1, count + 1)
        ax.plot(ranks, 100 * ranks / count, color=NEUTRAL, linewidth=0.9, linestyle=":", label="if all ops were alike")
        ax.plot(
            ranks, share, color=BLUE, linewidth=1.6, marker="o", label="the slowest ops",
            markersize=0 if count > 60 else 3.5, markeredgecolor=PAPER, markeredgewidth=0.4,
        )  # fmt: skip
        if count > 60:
            ax.set_xscale("log")
            ax.set_xlim(1, count)
            plain_ticks(ax.xaxis)
        else:
            ax.set_xlim(0.5, count + 0.5)
            plain_axis(ax, min(8, count), whole=True)
        ax.set_ylim(0, 104)
        ax.set_yticks(range(0, 101, 20))
        ax.set_xlabel(f"ops, the slowest first [count{', log scale' if count > 60 else ''}]")
        ax.set_ylabel(_axis_label(ops, column, f"share of the ops' {heading(column)[0]} [%]"))
        ax.grid(axis="both")
        ax.legend(loc="lower right")
        reached = list(dict.fromkeys(int(np.searchsorted(share, s - 1e-9)) for s in _SHARES))
        for at in reached:
            ax.plot([ranks[at]], [share[at]], marker="o", markersize=6, color=VERMILLION, markeredgecolor=PAPER)
        label_points(
            ax, [(float(ranks[at]), float(share[at])) for at in reached],
            [f"{at + 1:,} op{'s'[: at != 0]}: {share[at]:.0f} %" for at in reached],
            below=True, fontsize=8,
        )  # fmt: skip
    return figure


def time_by_op_type(ops: pd.DataFrame, top: int = 15) -> Figure:
    """Draw the time of all ops of a type together, and apart from them the time that belongs to no op.

    Parameters
    ----------
    ops : pandas.DataFrame
        op, op_type, cycles, time_ms, source; rows whose op begins with "(unattributed" are set apart.
    top : int
        How many types get a bar of their own.

    Returns
    -------
    matplotlib.figure.Figure
        Time in ms across, or cycles where no op has a time. Shares are of the whole table, unattributed included.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no op has a finite time or cycle count.
    """
    require(ops, "op", "op_type")
    column, values, apart = _measured(ops)
    usable = np.isfinite(values)
    types = np.array([t or "(no type)" for t in texts(ops, "op_type")])
    sums = {
        str(t): (float(values[mine].sum()), int(mine.sum()))
        for t in dict.fromkeys(types[usable & ~apart])
        if (mine := usable & ~apart & (types == t)).any()
    }
    ranked = sorted(sums.items(), key=lambda pair: -pair[1][0])
    bars = [(elide(t, 30), total, count, BLUE, "") for t, (total, count) in ranked[:top]]
    if rest := ranked[top:]:
        bars.append(
            (f"the other {len(rest)} types", sum(s for _, (s, _) in rest), sum(n for _, (_, n) in rest), NEUTRAL, "")
        )
    owned = len(bars)
    names = texts(ops, "op")
    bars += [(elide(names[i], 44), float(values[i]), 0, NEUTRAL, "////") for i in np.flatnonzero(apart & usable)]
    rows = [float(y) if y < owned else y + 0.5 * bool(owned) for y in range(len(bars))]
    everything = float(values[usable].sum()) or 1.0
    notes = left_out(int((~usable).sum()), "op")
    notes += ["unattributed: time of the run that the profile assigns to no op"] * bool((apart & usable).any())
    with rc():
        title = f"Time by op type{constant(ops, 'build', 'backend', 'soc')}"
        figure = new_figure(7.6, 1.2 + 0.235 * len(bars), title, [*notes_of(ops), *notes])
        ax = figure.subplots()
        for y, (_, height, _, colour, hatch) in zip(rows, bars, strict=True):
            ax.barh(y, height, height=0.68, color=colour, hatch=hatch, edgecolor=PAPER, linewidth=0)
        label_rows(ax, [label for label, *_ in bars], rows)
        columns = {
            "ops": [f"{count:,}" if count else "" for _, _, count, _, _ in bars],
            heading(column)[1]: [number(height) for _, height, _, _, _ in bars],
            "share": [f"{100 * height / everything:.1f} %" for _, height, _, _, _ in bars],
        }
        side_columns(ax, [(head, list(zip(rows, entries, strict=True))) for head, entries in columns.items()])
        if min(height for _, height, *_ in bars) < 0:
            ax.axvline(0, color=NEUTRAL, linewidth=0.8)
        plain_axis(ax)
        ax.set_xlabel(_axis_label(ops, column))
        ax.grid(axis="x")
    return figure


def roofline(
    ops: pd.DataFrame, peaks: pd.DataFrame | None = None, *, per: Literal["second", "cycle"] | None = None
) -> Figure:
    """Draw each op's achieved rate against its arithmetic intensity, under the ceilings that are known.

    Parameters
    ----------
    ops : pandas.DataFrame
        op, op_type, macs, bytes or intensity_macs_per_byte, cycles, time_ms, source. Rows whose op begins with
        "(unattributed", and those without multiply-accumulates, are left out.
    peaks : pandas.DataFrame, optional
        One row a ceiling: name, source, and the peak rate of multiply-accumulates (gmacs_per_s, macs_per_cycle) or of
        memory (gb_per_s, bytes_per_cycle) or both; compute_by and memory_by, what reached them, where they were measured.
        Without any that fits, none is drawn, and the chart says so.
    per : {"second", "cycle"}, optional
        Unit of the rate. By default seconds for what a device measured, else cycles where there are any.

    Returns
    -------
    matplotlib.figure.Figure
        Intensity in MACs per byte across, rate up, both on log axes; a point's area is its share of the time.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no op has MACs, bytes and a time.
    """
    require(ops, "op", "op_type", "macs")
    apart = np.array([name.startswith(UNATTRIBUTED) for name in texts(ops, "op")])
    macs, cycles, times = (figures(ops, c) for c in ("macs", "cycles", "time_ms"))
    intensity = figures(ops, "intensity_macs_per_byte")
    with np.errstate(divide="ignore", invalid="ignore"):
        intensity = np.where(np.isfinite(intensity), intensity, macs / figures(ops, "bytes"))
        by_second, by_cycle = macs / (times * 1e6), macs / cycles
    if per is None:
        measured = set(texts(ops, "source")) <= {"device", "published"}
        per = "second" if measured or not np.isfinite(by_cycle[~apart]).any() else "cycle"
    rate, cost = (by_second, times) if per == "second" else (by_cycle, cycles)
    drawn = ~apart & np.isfinite(intensity) & np.isfinite(rate) & (intensity > 0) & (rate > 0)
    if not drawn.any():
        raise nothing_finite(f"no op has macs, bytes and {'time_ms' if per == 'second' else 'cycles'} above zero")
    unit = "GMAC/s" if per == "second" else "MACs/cycle"
    roofs, notes = _roofs(peaks, per)
    idle = int((~apart & ~drawn).sum())
    notes += [f"{idle:,} op{'s'[: idle != 1]} without multiply-accumulates, bytes or time not drawn"] * bool(idle)
    x, y, weight = intensity[drawn], rate[drawn], np.nan_to_num(cost[drawn])
    names, types = (np.array(texts(ops, c))[drawn] for c in ("op", "op_type"))
    order = np.argsort(-weight, kind="stable")
    left, right = x.min() / 1.7, x.max() * 1.7
    ridges = [top / slope for _, top, slope, _ in roofs if np.isfinite(top) and np.isfinite(slope) and slope > 0]
    left, right = min([left, *(r / 1.5 for r in ridges)]), max([right, *(r * 1.5 for r in ridges)])
    with rc():
        title = f"Roofline{constant(ops, 'build', 'backend', 'soc')}"
        figure = new_figure(8.6, 4.8, title, [*notes_of(ops), *notes])
        ax = figure.subplots()
        ax.set_xscale("log")
        ax.set_yscale("log")
        heights = _ceilings(ax, roofs, left, right, unit)
        crowded = len(x) > 100
        kept = list(dict.fromkeys(types[order]))[: len(_TYPE_STYLES)]
        area = 12 + 150 * weight / (weight.max() or 1.0)
        for position, kind in enumerate([*kept, None]):
            mine = ~np.isin(types, kept) if kind is None else types == kind
            if not mine.any():
                continue
            colour, marker = _OTHER if kind is None else _TYPE_STYLES[position]
            label = "other types" if kind is None else elide(kind or "(no type)", 22)
            ax.scatter(
                x[mine], y[mine], s=area[mine], color=colour, marker=marker, edgecolors=PAPER, linewidths=0.5,
                alpha=0.45 if crowded else 0.8,
                label=f"{label} ({int(mine.sum()):,})", zorder=3, rasterized=len(x) > 2000,
            )  # fmt: skip
        if crowded:  # the named ones stand out of the cloud
            named = order[:_NAMED]
            ax.scatter(x[named], y[named], s=area[named] + 8, facecolors="none", edgecolors=INK, linewidths=1, zorder=4)
        ax.set_xlim(left, right)
        low, high = min([y.min(), *heights]), max([y.max(), *heights])
        ax.set_ylim(low / 1.8, high * 1.8)
        plain_ticks(ax.xaxis)
        plain_ticks(ax.yaxis)
        ax.set_xlabel("intensity [MACs/byte], log scale")
        ax.set_ylabel(" · ".join([f"achieved [{unit}], log scale", *_sources(ops)]))
        ax.grid(axis="both")
        legend = figure.legend(loc="outside right upper", alignment="left")
        for handle in legend.legend_handles:
            if handle is not None and hasattr(handle, "set_sizes"):
                handle.set_sizes([32.0])
        label_points(ax, list(zip(x[order], y[order], strict=True)), [elide(n, 26) for n in names[order][:_NAMED]])
    return figure


def _sources(ops: pd.DataFrame) -> list[str]:
    return sorted({source_label(s) for s in texts(ops, "source") if s})


_Roof = tuple[str, float, float, str]
"""Name, ceiling of the rate (infinite for none), slope of the memory's line (infinite for none), source."""


def _roofs(peaks: pd.DataFrame | None, per: Literal["second", "cycle"]) -> tuple[list[_Roof], list[str]]:
    """Give the ceilings in the unit of the chart, and notes that name their sources, or say that there are none."""
    none = f"no ceiling is drawn: no peak rate per {per} is known for this part"
    if peaks is None or not len(peaks):
        return [], [none]
    require(peaks, "name", "source")
    compute, stream = ("gmacs_per_s", "gb_per_s") if per == "second" else ("macs_per_cycle", "bytes_per_cycle")
    roofs: list[_Roof] = []
    for name, top, slope, source in zip(
        texts(peaks, "name"), figures(peaks, compute), figures(peaks, stream), texts(peaks, "source"), strict=True
    ):
        known = [v for v in (top, slope) if np.isfinite(v) and v > 0]
        if known:
            bounded = (v if np.isfinite(v) and v > 0 else np.inf for v in (top, slope))
            roofs.append((name, *bounded, source))  # type: ignore[arg-type]
    ops = zip(*(texts(peaks, column) for column in ("name", "compute_by", "memory_by")), strict=True)
    by = {name: found for name, *found in ops}
    notes = []
    for name, _, _, source in roofs:
        reached = [f"{what} by {elide(op, 40)}" for what, op in zip(("MACs", "bytes"), by[name], strict=True) if op]
        said = f"; reached in {' and in '.join(reached)}, so it is no peak of the hardware" if reached else ""
        notes.append(f"ceiling {elide(name, 40)}: {source or 'source not given'}{said}")
    return roofs, notes or [none]


def _ceilings(ax: Axes, roofs: list[_Roof], left: float, right: float, unit: str) -> list[float]:
    """Draw the ceilings from one end of the axis to the other; give the rates that the chart has to reach."""
    heights: list[float] = []
    for position, (name, top, slope, source) in enumerate(roofs):
        across = np.geomspace(left, right, 200)
        line = np.minimum(top, slope * across)
        style: dict[str, Any] = {"color": INK, "linewidth": 1.2, "linestyle": ("-", "--", "-.", ":")[position % 4]}
        speed = unit.replace("GMAC", "GB").replace("MACs", "bytes")
        words = [f"{number(rate)} {of}" if np.isfinite(rate) else "" for rate, of in ((top, unit), (slope, speed))]
        mark = f" ({elide(source_label(source), 14)})" if source else ""
        ax.plot(across, line, label=f"{elide(name, 22)}{mark}\n{', '.join(filter(None, words))}", **style)
        heights.append(float(line.max()))
    return heights
