"""The charts across chips and builds: latency by SoC with its interval, and accuracy against latency.

Knows the tables' column names, nothing of the steps that fill them; see `qnb.display.charts` for what all charts keep to.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb.display.draw import (
    MAX_ROWS,
    Floats,
    colours_of,
    configurations,
    constant,
    figures,
    label_rows,
    left_out,
    nothing_finite,
    plain,
    plain_axis,
    plain_ticks,
    require,
    side_columns,
    texts,
    wants_log,
)
from qnb.display.labels import label_points
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
    new_figure,
    number,
    rc,
    source_label,
    source_notes,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["accuracy_against_latency", "latency_by_soc"]

# What was measured is filled, what was not is hollow.
_MARKS: dict[str, dict[str, Any]] = {
    "device": {"marker": "*", "color": VERMILLION, "markersize": 11, "markeredgecolor": PAPER},
    "published": {"marker": "D", "color": GREEN, "markersize": 6, "markeredgecolor": PAPER},
    "transferred": {"marker": "s", "color": PURPLE, "markersize": 6, "markerfacecolor": PAPER},
    "estimate": {"marker": "o", "color": BLUE, "markersize": 6.5, "markerfacecolor": PAPER},
}
_UNHEARD: dict[str, Any] = {"marker": "P", "color": NEUTRAL, "markersize": 6, "markerfacecolor": PAPER}
_ON_A_CHIP = ("device", "published")
_WHYS = 8
"""At most so many reasons are written for SoCs without a figure."""


@dataclass
class _Row:
    """All that is known of one SoC in one precision by one path."""

    label: str
    points: list[tuple[float, float, float, str]]
    """Latency, its low and high end, source."""

    @property
    def at(self) -> float:
        return min(point[0] for point in self.points)


def latency_by_soc(estimates: pd.DataFrame, measured: pd.DataFrame | None = None) -> Figure:
    """Draw a build's latency on each SoC: estimates with their interval, and measured points with marks of their own.

    Parameters
    ----------
    estimates : pandas.DataFrame
        soc, name, hexagon_arch, precision, path, latency_ms, low_ms, high_ms, source, why. Rows of source "none" are listed
        below with their reason.
    measured : pandas.DataFrame, optional
        soc, precision, source, and latency_ms or median_ms. Only what a device measured, here or published, is drawn.

    Returns
    -------
    matplotlib.figure.Figure
        Latency in ms across, the fastest on top; a log axis if the slowest takes over eight times the fastest.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no row has a finite latency.
    """
    require(estimates, "soc", "latency_ms", "source")
    rows, missing = _by_soc(estimates)
    notes = []
    if measured is not None and len(measured):
        notes = _add_measured(rows, measured, estimates)
    if not rows:
        raise nothing_finite("no SoC has a finite latency_ms")
    ranked = sorted(rows.values(), key=lambda row: row.at)
    if len(ranked) > MAX_ROWS:
        notes.append(f"the {MAX_ROWS} fastest of {len(ranked):,}; the table has them all")
    shown = ranked[:MAX_ROWS]
    points = [point for row in shown for point in row.points]
    sources = list(dict.fromkeys(point[3] for point in points))
    notes = [*source_notes(sources), *notes]
    if any(np.isfinite([low, high]).all() and high > low for _, low, high, _ in points):
        notes.append(
            "lines: the interval that holds the true latency with a probability of 80 %, as the estimate has it"
        )
    notes += missing
    ends = np.array([v for point in points for v in point[:3] if np.isfinite(v)])
    log = wants_log(ends, 8)
    with rc():
        title = f"Latency by SoC{constant(estimates, 'build', *_fixed(estimates))}"
        figure = new_figure(8.6, 1.3 + 0.27 * len(shown), title, notes)
        ax = figure.subplots()
        if log:
            ax.set_xscale("log")
        seen: set[str] = set()
        for y, row in enumerate(shown):
            for latency, low, high, source in row.points:
                mark = _MARKS.get(source, _UNHEARD)
                if np.isfinite(low) and np.isfinite(high):
                    ax.plot([low, high], [y, y], color=mark["color"], linewidth=1.4, alpha=0.75, zorder=2)
                    for end in (low, high):
                        ax.plot([end], [y], marker="|", markersize=6, color=mark["color"], zorder=2)
                label = source_label(source) if source not in seen else None
                ax.plot([latency], [y], linestyle="", zorder=3, label=label, **mark)
                seen.add(source)
        label_rows(ax, [row.label for row in shown])
        ax.margins(x=0.06)
        if log:
            plain_ticks(ax.xaxis)
        else:
            ax.set_xlim(left=0)
            plain_axis(ax)
        best = [min(row.points, key=lambda p: (p[3] not in _ON_A_CHIP, p[0])) for row in shown]
        written = [("ms", [number(p[0]) for p in best]), ("interval", [_interval(p) for p in best])]
        written.append(("source", [source_label(p[3]) for p in best]))
        side_columns(ax, [(head, list(enumerate(entries))) for head, entries in written])
        ax.set_xlabel(f"latency [ms]{', log scale' if log else ''}")
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)
        if len(seen) > 1:
            figure.legend(loc="outside upper right", ncols=len(seen))
    return figure


def _interval(point: tuple[float, float, float, str]) -> str:
    _, low, high, _ = point
    return f"{number(low)} – {number(high)}" if np.isfinite(low) and np.isfinite(high) else "–"


def _fixed(table: pd.DataFrame) -> list[str]:
    """Columns that say the same in all rows, and so stand in the title."""
    return [c for c in ("precision", "path") if len(set(texts(table, c))) == 1]


def _by_soc(table: pd.DataFrame) -> tuple[dict[tuple[str, str, str], _Row], list[str]]:
    """Give the rows that have a latency, and notes for those that have none."""
    latency, low, high = (figures(table, c) for c in ("latency_ms", "low_ms", "high_ms"))
    varying = [c for c in ("precision", "path") if c not in _fixed(table)]
    named = [texts(table, c) for c in ("soc", "name", "hexagon_arch", *varying)]
    keys = zip(*(texts(table, c) for c in ("soc", "precision", "path")), strict=True)
    rows: dict[tuple[str, str, str], _Row] = {}
    without: list[tuple[str, str]] = []
    for i, (key, source, why) in enumerate(zip(keys, texts(table, "source"), texts(table, "why"), strict=True)):
        parts = [elide(column[i], 26) for column in named if column[i]]
        if not np.isfinite(latency[i]) or source == "none":
            without.append((key[0], why))
            continue
        row = rows.setdefault(key, _Row(" · ".join(dict.fromkeys(parts)), []))
        row.points.append((float(latency[i]), float(low[i]), float(high[i]), source))
    return rows, _reasons(without)


def _reasons(without: list[tuple[str, str]]) -> list[str]:
    """Say which SoCs have no figure and why; those of one reason together."""
    by_why: dict[str, list[str]] = {}
    for soc, why in without:
        if soc not in by_why.setdefault(why, []):
            by_why[why].append(soc)
    notes = []
    for why, socs in list(by_why.items())[:_WHYS]:
        names = ", ".join(elide(soc, 18) for soc in socs[:6]) + (f" and {len(socs) - 6} more" if len(socs) > 6 else "")
        notes.append(f"no figure for {names}" + (f": {textwrap.shorten(why, 160, placeholder=' …')}" if why else ""))
    if len(by_why) > _WHYS:
        notes.append(f"and {len(by_why) - _WHYS} more reasons in the table")
    return notes


def _add_measured(rows: dict[tuple[str, str, str], _Row], measured: pd.DataFrame, estimates: pd.DataFrame) -> list[str]:
    """Add what devices measured to the rows of the same SoC and precision; say what is left out."""
    require(measured, "soc", "source")
    column = "latency_ms" if "latency_ms" in measured.columns else "median_ms"
    precisions = texts(measured, "precision")
    dropped: dict[str, int] = {}
    for soc, precision, source, latency in zip(
        texts(measured, "soc"), precisions, texts(measured, "source"), figures(measured, column), strict=True
    ):
        if source not in _ON_A_CHIP:
            dropped[source] = dropped.get(source, 0) + 1
            continue
        if not np.isfinite(latency) or not soc:
            continue
        point = (float(latency), float("nan"), float("nan"), source)
        fitting = [row for (s, p, _), row in rows.items() if s == soc and (p == precision or not precision)]
        for row in fitting:
            row.points.append(point)
        if not fitting:
            varying = (
                [] if "precision" in _fixed(estimates) and precision in texts(estimates, "precision") else [precision]
            )
            rows[(soc, precision, "measured")] = _Row(" · ".join(filter(None, [soc, *varying])), [point])
    return [
        f"{count} row{'s'[: count != 1]} of {source_label(source)} not drawn: that is not the time of a SoC"
        for source, count in dropped.items()
    ]


_ACCURACIES = {
    "accuracy": ("accuracy on labels [%]", 100.0),
    "sqnr_db": ("SQNR against fp32 [dB]", 1.0),
    "top1_agreement": ("top-1 agreement with fp32 [%]", 100.0),
}
_LABELLED = 12
_MARKERS = {"htp": "o", "gpu": "D", "cpu": "s"}


def accuracy_against_latency(table: pd.DataFrame, *, accuracy: str | None = None) -> Figure:
    """Draw accuracy against latency, a panel for each source: their times are not compared with one another.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a build and backend: build, backend, soc, precision, source, median_ms (or latency_ms), and accuracy, sqnr_db
        or top1_agreement.
    accuracy : str, optional
        Which of these to draw; by default the first of them that has a value.

    Returns
    -------
    matplotlib.figure.Figure
        Latency in ms across, accuracy up. Filled marks and the line are the Pareto front: nothing of that source is both
        faster and more accurate.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no row has both a latency and an accuracy.
    """
    time = "median_ms" if "median_ms" in getattr(table, "columns", ()) else "latency_ms"
    require(table, "backend", time)
    latency = figures(table, time)
    candidates = [accuracy] if accuracy else [c for c in _ACCURACIES if (~np.isnan(figures(table, c))).any()]
    column = candidates[0] if candidates else "sqnr_db"
    require(table, column)
    label, scale = _ACCURACIES.get(column, (column, 1.0))
    score = figures(table, column) * scale
    usable = np.isfinite(latency) & ~np.isnan(score) & (score > -np.inf)
    if not usable.any():
        raise nothing_finite(f"no row has both {time} and {column}")
    finite = score[usable & np.isfinite(score)]
    exact = float(finite.max() + 0.08 * (np.ptp(finite) or 10.0)) if finite.size else 100.0
    notes = ["filled, and the line: the Pareto front of its source; nothing there is faster and at least as accurate"]
    notes += left_out(int((~usable).sum()), "row")
    if np.isinf(score[usable]).any():
        notes.append("rows that agree exactly with fp32 are drawn on top")
    sources, on = texts(table, "source"), texts(table, "backend")
    panels = [s for s in dict.fromkeys(sources) if any(u and t == s for u, t in zip(usable, sources, strict=True))]
    drawn = np.where(np.isinf(score), exact, score)
    labels = configurations(table.drop(columns="source", errors="ignore"), "build", width=34)
    with rc():
        title = f"Accuracy against latency{constant(table, 'build', 'soc')}"
        figure = new_figure(2.2 + 3.1 * len(panels), 3.9, title, [*source_notes(panels), *notes])
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        hidden = 0
        todo = []
        for ax, source in zip(axes, panels, strict=True):
            mine = np.flatnonzero(usable & np.array([s == source for s in sources]))
            backends = [on[i] for i in mine]
            front = _front(latency[mine], drawn[mine])
            _points(ax, latency[mine], drawn[mine], front, backends)
            ax.set_title(source_label(source) if source else "no source given", fontsize=8.5, color=MUTED)
            ax.set_xlabel(f"latency [ms]{', log scale' if ax.get_xscale() == 'log' else ''}")
            order = [*np.flatnonzero(front), *np.flatnonzero(~front)]
            named = order if len(order) <= 2 * _LABELLED else order[: min(_LABELLED, int(front.sum()))]
            places = [(float(latency[mine[i]]), float(drawn[mine[i]])) for i in order]
            todo.append((ax, places, [labels[mine[i]] for i in named]))
        axes[0].set_ylabel(label)
        low, high = float(drawn[usable].min()), float(drawn[usable].max())
        room = 0.14 * (high - low) or max(1.0, 0.02 * abs(high))
        axes[0].set_ylim(low - room, high + room)
        if np.isinf(score[usable]).any():
            ticks = [t for t in axes[0].get_yticks() if finite.size and low - room < t <= finite.max() + 1e-9]
            axes[0].set_yticks([*ticks, exact], labels=[*map(plain, ticks), "exact"])
        for number_, (ax, places, names) in enumerate(todo):
            hidden += len(places) - label_points(ax, places, names, settled=number_ > 0)
        if hidden:
            figure.text(
                0.99, 0.985, f"{hidden:,} point{'s'[: hidden != 1]} without a name: see the table", ha="right", va="top",
                fontsize=7.5, color=MUTED,
            )  # fmt: skip
    return figure


def _front(latency: Floats, score: Floats) -> np.ndarray:
    """Say which points nothing else beats: no other is as fast and as accurate, and better in one of the two."""
    front = np.zeros(len(latency), dtype=bool)
    best = -np.inf
    fastest = np.nan
    for i in np.lexsort((-score, latency)):
        equal = score[i] == best and latency[i] == fastest
        if score[i] > best or equal:
            front[i] = True
            best, fastest = score[i], latency[i]
    return front


def _points(ax: Axes, latency: Floats, score: Floats, front: np.ndarray, backends: list[str]) -> None:
    if wants_log(latency, 8):
        ax.set_xscale("log")
    order = np.flatnonzero(front)[np.argsort(latency[front], kind="stable")]
    ax.plot(latency[order], score[order], color=INK, linewidth=0.9, drawstyle="steps-post", zorder=2)
    dense = len(latency) > 2 * _LABELLED
    for backend in dict.fromkeys(backends):
        (colour,) = colours_of([backend])
        mine = np.array([b == backend for b in backends])
        for which, face, alpha in ((mine & ~front, PAPER, 0.35 if dense else 1.0), (mine & front, colour, 1.0)):
            ax.scatter(
                latency[which], score[which], marker=_MARKERS.get(backend, "o"), s=16 if dense and face == PAPER else 46,
                facecolors=face, edgecolors=colour, linewidths=1.2, alpha=alpha, zorder=3 if face == PAPER else 4,
            )  # fmt: skip
    ax.grid(axis="both")
    if ax.get_xscale() == "log":
        low, high = float(latency.min()), float(latency.max())
        ax.set_xlim(low / 1.6, high * 1.6)
        plain_ticks(ax.xaxis)
    else:
        ax.set_xlim(0, float(latency.max()) * 1.25 or 1.0)
        plain_axis(ax, 4)
