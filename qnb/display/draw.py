"""What the charts are made of: checked columns, row labels, panels of bars or dots, heat tables.

Knows matplotlib's axes and the style, not which chart is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qnb.display.style import (
    BACKEND_COLOURS,
    BACKEND_HATCHES,
    INK,
    MUTED,
    NEUTRAL,
    PAPER,
    clean,
    contrast,
    elide,
    number,
    source_label,
    source_notes,
)
from qnb.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

MAX_ROWS = 40
"""More rows than this are not legible in one figure; the chart says how many it left out."""


def require(frame: pd.DataFrame, *columns: str) -> None:
    """Raise `BadInput` unless `frame` has rows and all of `columns`."""
    missing = [c for c in columns if c not in getattr(frame, "columns", ())]
    if missing:
        raise BadInput(
            f"this chart needs the column{'s'[: len(missing) > 1]} {', '.join(missing)}, which the table does not have",
            hint="pass the table of the step that the chart is named after, with its own column names",
        )
    if not len(frame):
        raise BadInput(
            "there is nothing to draw: the table has no rows", hint="run the step on at least one item first"
        )


def figures(frame: pd.DataFrame, column: str) -> Floats:
    """Return a column as float64 (N,), NaN where it is missing or is not a number."""
    if column not in frame.columns:
        return np.full(len(frame), np.nan)
    import pandas as pd

    return np.asarray(pd.to_numeric(frame[column], errors="coerce"), dtype=np.float64)


def texts(frame: pd.DataFrame, column: str) -> list[str]:
    """Return a column as clean text, empty where it is missing."""
    if column not in frame.columns:
        return [""] * len(frame)
    return ["" if missing else clean(v) for v, missing in zip(frame[column], frame[column].isna(), strict=True)]


def left_out(count: int, what: str) -> list[str]:
    """Return the note that `count` rows, named by their singular, are not drawn; nothing for none."""
    return [f"{count:,} {what}{'s'[: count != 1]} without a finite value not drawn"] if count else []


def nothing_finite(what: str) -> BadInput:
    """Return the error for a column without one finite value."""
    return BadInput(f"there is nothing to draw: {what}", hint="look at the table and at the step's log for the reason")


def first_rows(frame: pd.DataFrame, what: str, limit: int = MAX_ROWS) -> tuple[pd.DataFrame, list[str]]:
    """Return the first `limit` rows and, if some were left out, a note that says so."""
    if len(frame) <= limit:
        return frame, []
    return frame.iloc[:limit], [f"the first {limit} of {len(frame):,} {what}; the table has them all"]


def configurations(frame: pd.DataFrame, *leading: str, width: int = 44) -> list[str]:
    """Name each row by what sets it apart: `leading` columns and the SoC where they differ, backend, precision, source.

    A source other than a device always carries its mark.
    """
    varying = [c for c in (*leading, "soc") if len(set(texts(frame, c))) > 1]
    before = [texts(frame, c) for c in varying if c != "soc"]
    after = [texts(frame, "soc")] if "soc" in varying else []
    sources = [source_label(s) if s else "" for s in texts(frame, "source")]
    labels = []
    for i, pair in enumerate(zip(texts(frame, "backend"), texts(frame, "precision"), strict=True)):
        fixed = " · ".join(filter(None, [" ".join(filter(None, pair)), *(column[i] for column in after), sources[i]]))
        room = max(12, (width - len(fixed)) // max(1, len(before)) - 3)  # only the user's own names are shortened
        labels.append(" · ".join(filter(None, [*(elide(column[i], room) for column in before), fixed])))
    return labels


def constant(frame: pd.DataFrame, *columns: str) -> str:
    """Return " · value" for each of `columns` that has one and the same value in all rows: the rest of a title."""
    values = [set(texts(frame, c)) for c in columns]
    return "".join(f" · {elide(v, 40)}" for one in values if len(one) == 1 for v in one if v)


def notes_of(frame: pd.DataFrame) -> list[str]:
    """Return the footnotes for the sources in `frame`."""
    return source_notes(texts(frame, "source"))


def colours_of(backends: Iterable[str]) -> list[str]:
    """Return the fixed colour of each backend, a neutral one for others."""
    return [BACKEND_COLOURS.get(b, NEUTRAL) for b in backends]


def hatches_of(backends: Iterable[str]) -> list[str]:
    """Return the fixed hatch of each backend: colour is never the only cue."""
    return [BACKEND_HATCHES.get(b, "") for b in backends]


def spread(values: Floats) -> float:
    """Return largest over smallest of the finite values: 1 for fewer than two, infinity if not all are positive."""
    finite = values[np.isfinite(values)]
    if finite.size < 2:
        return 1.0
    return float(finite.max() / finite.min()) if finite.min() > 0 else np.inf


def wants_log(values: Floats, threshold: float) -> bool:
    """Say whether the finite values, all positive, spread too far for a linear axis."""
    ratio = spread(values)
    return bool(threshold < ratio < np.inf)


def plain(x: float, _: object = None) -> str:
    """Write a tick's number in full: 0.5, 10, −2,000."""
    return f"{x:,.10g}".replace("-", "−")


def short(x: float, _: object = None) -> str:
    """Write a tick's number with a letter for its thousands: 500, 10 k, 2.5 M."""
    power, letter = next(((p, c) for p, c in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if abs(x) >= p), (1.0, ""))
    return f"{plain(x / power)}{letter}"


def plain_axis(ax: Axes, ticks: int = 5, *, whole: bool = False) -> None:
    """Label the linear x axis with plain numbers, at most about `ticks` of them; `whole` ones where a count is meant."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10], integer=whole))
    ax.xaxis.set_major_formatter(FuncFormatter(plain))


def plain_ticks(axis: Any) -> None:
    """Label the ticks of a log axis with plain numbers in place of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    few = high / max(low, 1e-300) < 100
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=12))
    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_minor_formatter(NullFormatter())


def symlog(ax: Axes, ends: Floats) -> None:
    """Give the x axis a symmetric log scale for the finite values `ends`, with a tick a decade."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    sizes = np.abs(ends[ends != 0])
    # Three decades at most: below them the axis is linear, or the zone around zero would fill the chart.
    first, last = np.floor(np.log10(max(sizes.min(), sizes.max() / 1000))), np.floor(np.log10(sizes.max()))
    powers = 10.0 ** np.arange(first, last + 1)
    ax.set_xscale("symlog", linthresh=powers[0], linscale=0.5)
    ticks = np.concatenate([-powers[::-1] if ends.min() < 0 else [], [0.0], powers if ends.max() > 0 else []])
    ax.xaxis.set_major_locator(FixedLocator(list(ticks)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(plain))


def label_rows(ax: Axes, labels: Sequence[str], positions: Sequence[float] | None = None) -> None:
    """Write `labels` at the left, the first on top."""
    where = list(positions) if positions is not None else list(range(len(labels)))
    ax.set_yticks(where, labels=list(labels))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(max(where) + 0.7, min(where) - 0.7)


def box(ax: Axes, y: float, values: Floats, colour: str, hatch: str) -> None:
    """Draw a box from quartile to quartile with its median, and whiskers from the 5th to the 95th percentile."""
    # By hand: `Axes.boxplot` reads every setting, the backend's too, and thereby imports pyplot.
    p5, p25, p50, p75, p95 = np.percentile(values, [5, 25, 50, 75, 95])
    half = 0.17
    ax.plot([p5, p95], [y, y], color=colour, linewidth=1, zorder=2)
    for end in (p5, p95):
        ax.plot([end, end], [y - half / 2, y + half / 2], color=colour, linewidth=1, zorder=2)
    ax.barh(
        y, p75 - p25, left=p25, height=2 * half, color=tint(colour, 0.45), edgecolor=colour, hatch=hatch[:3], zorder=3
    )
    ax.plot([p50, p50], [y - half, y + half], color=INK, linewidth=1.6, zorder=4, solid_capstyle="butt")


def value_panel(
    ax: Axes,
    values: Floats,
    backends: Sequence[str],
    *,
    label: str,
    log: bool = False,
    infinite: str = "∞",
    upper: Floats | None = None,
    limit: float | None = None,
    written: Callable[[float], str] | None = None,
) -> None:
    """Draw one horizontal bar (or, on a log axis, one dot) a row, with its value written behind it.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    values : ndarray of float64, (N,)
        NaN is written as "n/a", infinity as a pale bar over the whole axis with the word `infinite`.
    backends : sequence of str, N
        For colour and hatch.
    label : str
        Axis label with its unit.
    log : bool
        A log axis has no zero for a bar to start from: dots are drawn.
    upper : ndarray of float64, (N,), optional
        End of a thin line from each value, e.g. the 95th percentile.
    limit : float, optional
        The axis never needs to show more than this (100 for percent).
    written : callable, optional
        How to write a finite value, if not by `number`.
    """
    rows = range(len(values))
    ends = values if upper is None else np.fmax(values, upper)
    finite = ends[np.isfinite(ends)]
    colours = colours_of(backends)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if log:
        low = float(values[np.isfinite(values)].min())
        ax.set_xscale("log")
        span = max(high / low, 1.0)
        ax.set_xlim(low / span**0.08 / 1.1, high * span**0.45 * 1.1)
        plain_ticks(ax.xaxis)
    else:
        low, high = min(low, 0.0), max(high, 0.0)
        span = (high - low) or 1.0
        ax.set_xlim(low - (0.3 * span if low < 0 else 0.0), high + 0.3 * span)
        if limit is not None and low >= 0 and high <= limit:
            ax.set_xlim(0, limit * 1.25)
            ax.set_xticks(np.linspace(0, limit, 5))
        else:
            plain_axis(ax, 4)
        if not finite.size:
            ax.set_xticks([])
        if low < 0:
            ax.axvline(0, color=NEUTRAL, linewidth=0.8)
    if high >= 10_000:  # a panel is narrow: written in full, the numbers run into one another
        from matplotlib.ticker import FuncFormatter

        ax.xaxis.set_major_formatter(FuncFormatter(short))
    ax.spines["left"].set_visible(not log and low >= 0)
    left, right = ax.get_xlim()

    for y, value, end, colour, hatch in zip(rows, values, ends, colours, hatches_of(backends), strict=True):
        at, text, ink = left if log else 0.0, number(value, infinite=infinite), INK
        text = written(value) if written and np.isfinite(value) else text
        if np.isnan(value):
            ink = MUTED
        elif value == np.inf:
            ax.barh(
                y, right - at, left=at, height=0.62, color=colour, alpha=0.22, hatch=hatch, edgecolor=PAPER, linewidth=0
            )
        elif log and np.isfinite(value):
            ax.plot([left, value], [y, y], color=colour, linewidth=0.8, alpha=0.5)
            ax.plot(
                [value], [y], marker=_MARKERS.get(backends[y], "o"), markersize=6.5, color=colour, markeredgecolor=PAPER
            )
            at = value
        elif np.isfinite(value):
            ax.barh(y, value, height=0.62, color=colour, hatch=hatch, edgecolor=PAPER, linewidth=0)
            at = value
        if np.isfinite(end) and np.isfinite(value) and end > value:
            ax.plot([value, end], [y, y], color=INK, linewidth=1.1, solid_capstyle="butt")
            ax.plot([end], [y], marker="|", markersize=6, color=INK)
            at = end
        behind = -1 if np.isfinite(value) and at < 0 else 1
        ax.annotate(
            text, (at, y), xytext=(behind * (6 if log else 4), 0), textcoords="offset points", fontsize=8, color=ink,
            va="center", ha="left" if behind > 0 else "right",
        )  # fmt: skip
    ax.set_xlabel(label)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")


_MARKERS = {"htp": "o", "gpu": "D", "cpu": "s"}


def tint(colour: str, share: float) -> tuple[float, float, float]:
    """Mix `share` (0–1) of a colour into the paper."""
    from matplotlib.colors import to_rgb

    paper, full = np.asarray(to_rgb(PAPER)), np.asarray(to_rgb(colour))
    red, green, blue = paper + (full - paper) * share
    return float(red), float(green), float(blue)


def heat_table(
    ax: Axes,
    cells: Sequence[Sequence[tuple[Any, str]]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    hatched: Iterable[tuple[int, int]] = (),
) -> None:
    """Draw a table whose cells are (colour, text); the text is dark or light, whichever is easier to read.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    cells : R sequences of C (colour, str)
    rows, columns : sequence of str
        Labels at the left and on top.
    hatched : iterable of (row, column)
        Cells to hatch, for "there is no value".
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    ax.imshow(
        np.array([[to_rgb(colour) for colour, _ in row] for row in cells]), aspect="auto", interpolation="nearest"
    )
    blank = set(hatched)
    for y, row in enumerate(cells):
        for x, (colour, text) in enumerate(row):
            ink = INK if contrast(INK, colour) >= contrast("#ffffff", colour) else "#ffffff"
            box = {"facecolor": colour, "edgecolor": "none", "pad": 1.5} if (y, x) in blank else None
            ax.text(x, y, text, ha="center", va="center", fontsize=8, color=ink, bbox=box)
    for y, x in blank:
        ax.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="none", edgecolor="#cfcfca", hatch="////", linewidth=0)
        )
    ax.set_xticks(range(len(columns)), labels=list(columns))
    ax.set_yticks(range(len(rows)), labels=list(rows))
    ax.set_xticks(np.arange(1, len(columns)) - 0.5, minor=True)
    ax.set_yticks(np.arange(1, len(rows)) - 0.5, minor=True)
    ax.grid(which="minor", color=PAPER, linewidth=2)
    ax.tick_params(which="both", length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def side_columns(ax: Axes, columns: Iterable[tuple[str, Iterable[tuple[float, str]]]]) -> None:
    """Write columns of texts right of the axes, each a title and (row position, text) pairs."""
    # Distances in points, not in widths of the axes: the layout can then make room for them.
    right = 6.0
    for title, values in columns:
        entries = list(values)
        right += 9 + 5.1 * max(len(title), *(len(text) for _, text in entries), 3)
        style: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "fontsize": 8, "annotation_clip": False}
        for y, text in entries:
            ax.annotate(text, (1, y), xycoords=ax.get_yaxis_transform(), xytext=(right, 0), va="center", **style)
        ax.annotate(title, (1, 1), xycoords="axes fraction", xytext=(right, 2), va="bottom", color=MUTED, **style)
