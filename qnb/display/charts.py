"""The charts, one function each: a table of a step in, a matplotlib `Figure` out.

Knows the tables' column names, nothing of the steps that fill them. Each chart takes its table as the step gives it,
raises `BadInput` for one without rows or columns to draw, writes missing values as "n/a", and marks every row that no
device measured (see `qnb.display.style.SOURCE_NOTES`).
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from qnb.display.draw import (
    MAX_ROWS,
    box,
    colours_of,
    configurations,
    constant,
    figures,
    first_rows,
    hatches_of,
    heat_table,
    label_rows,
    left_out,
    notes_of,
    nothing_finite,
    plain_axis,
    plain_ticks,
    require,
    side_columns,
    texts,
    tint,
    value_panel,
    wants_log,
)
from qnb.display.model_charts import doctor, encodings, layers, placement
from qnb.display.style import (
    BLUE,
    MUTED,
    NEUTRAL,
    PALE,
    PAPER,
    elide,
    heading,
    new_figure,
    number,
    rc,
    source_label,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = [
    "accuracy_by_backend",
    "comparison",
    "compile_matrix",
    "doctor",
    "encodings",
    "latency_distribution",
    "layers",
    "op_times",
    "placement",
]

UNATTRIBUTED = "(unattributed"
"""How the name of a row begins that stands for time which belongs to no op."""


def latency_distribution(runs: pd.DataFrame) -> Figure:
    """Draw every run's latency, a box and its points for each configuration.

    Parameters
    ----------
    runs : pandas.DataFrame
        One row a run: backend, soc, precision, source, latency_ms.

    Returns
    -------
    matplotlib.figure.Figure
        Latency in ms across; a log axis if the slowest run takes over eight times the fastest. The box spans the
        quartiles, its whiskers the 5th to the 95th percentile.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no run has a finite latency.
    """
    require(runs, "backend", "latency_ms")
    latency = figures(runs, "latency_ms")
    finite = np.isfinite(latency)
    if not finite.any():
        raise nothing_finite("no run has a finite latency_ms")
    notes = left_out(int((~finite).sum()), "run")
    runs, latency = runs.loc[finite], latency[finite]
    # Grouped by their full description: two long names may be shortened to the same label.
    keys = list(zip(*(texts(runs, c) for c in ("build", "backend", "soc", "precision", "source")), strict=True))
    labels = dict(zip(keys, configurations(runs, "build"), strict=True))
    if len(labels) > MAX_ROWS:
        notes.append(f"the first {MAX_ROWS} of {len(labels)} configurations; the table has them all")
    order = list(labels)[:MAX_ROWS]
    groups = [latency[[k == key for k in keys]] for key in order]
    drawn = np.concatenate(groups)
    log = wants_log(drawn, 8)
    with rc():
        title = f"Latency by backend{constant(runs, 'build', 'soc')}"
        figure = new_figure(7.2, 1.15 + 0.5 * len(order), title, [*notes_of(runs), *notes])
        ax = figure.subplots()
        if log:
            ax.set_xscale("log")
        rng = np.random.default_rng(0)  # the same points at every drawing
        backends = [key[1] for key in order]
        styles = zip(groups, colours_of(backends), hatches_of(backends), strict=True)
        for y, (group, colour, hatch) in enumerate(styles):
            box(ax, y - 0.12, group, colour, hatch)
            jitter = rng.uniform(-0.09, 0.09, len(group))
            ax.scatter(
                group, y + 0.24 + jitter, s=7, color=colour, alpha=0.55, linewidths=0, rasterized=len(group) > 2000
            )
        numbered = list(enumerate(groups))
        columns = (("median", np.median), ("p95", lambda group: np.percentile(group, 95)), ("runs", len))
        side_columns(ax, [(name, [(y, number(of(group))) for y, group in numbered]) for name, of in columns])
        label_rows(ax, [labels[key] for key in order])
        ax.margins(x=0.06)
        if log:
            plain_ticks(ax.xaxis)
        elif drawn.min() >= 0:
            ax.set_xlim(left=0)
        ax.set_xlabel(f"latency [ms]{', log scale' if log else ''}")
        ax.grid(axis="x")
        ax.spines["left"].set_visible(False)
    return figure


def op_times(ops: pd.DataFrame, top: int = 15) -> Figure:
    """Draw the slowest ops, the rest as one bar, and apart from them the time that belongs to no op.

    Parameters
    ----------
    ops : pandas.DataFrame
        op, op_type, cycles, time_ms, percent, source; rows whose op begins with "(unattributed" are set apart.
    top : int
        How many ops get a bar of their own.

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
    column = max(("time_ms", "cycles"), key=lambda c: int(np.isfinite(figures(ops, c)).sum()))
    values = figures(ops, column)
    if not np.isfinite(values).any():
        raise nothing_finite("no op has a finite time_ms or cycles")
    names, types = texts(ops, "op"), texts(ops, "op_type")
    usable = [i for i in range(len(ops)) if np.isfinite(values[i])]
    apart = [i for i in usable if names[i].startswith(UNATTRIBUTED)]
    ranked = sorted((i for i in usable if not names[i].startswith(UNATTRIBUTED)), key=lambda i: -values[i])
    shown, rest = ranked[:top], ranked[top:]

    labels = [f"{elide(names[i], 38)}  {elide(types[i], 18)}" for i in shown]
    labels += [f"the other {len(rest):,} ops"] * bool(rest)
    owned = len(labels)
    labels += [elide(names[i], 44) for i in apart]
    heights = np.array([*values[shown], *([values[rest].sum()] * bool(rest)), *values[apart]])
    rows = [float(y) if y < owned else y + 0.5 * bool(owned) for y in range(len(labels))]
    colours = [BLUE] * len(shown) + [NEUTRAL] * (len(labels) - len(shown))
    hatches = [""] * owned + ["////"] * len(apart)
    shares = 100 * heights / (values[usable].sum() or 1.0)

    name, unit = ("time", "ms") if column == "time_ms" else ("cycles", "count")
    sources = ", ".join(sorted({source_label(s) for s in texts(ops, "source") if s}))
    notes = left_out(len(ops) - len(usable), "op")
    if rest and heights[len(shown)] > 4 * np.delete(heights, len(shown)).max(initial=0):
        notes.append("the bar of the other ops goes beyond the axis")
    notes += ["unattributed: time of the run that the profile assigns to no op"] * bool(apart)
    with rc():
        title = f"Slowest ops{constant(ops, 'build', 'backend', 'soc')}"
        figure = new_figure(8.4, 1.2 + 0.235 * len(labels), title, [*notes_of(ops), *notes])
        ax = figure.subplots()
        for y, height, colour, hatch in zip(rows, heights, colours, hatches, strict=True):
            ax.barh(y, height, height=0.68, color=colour, hatch=hatch, edgecolor=PAPER, linewidth=0)
        label_rows(ax, labels, rows)
        written = {
            heading(column)[1]: [number(h) for h in heights],
            "share": [f"{s:.1f} %" for s in shares],
            "cumulative": [f"{s:.1f} %" for s in np.cumsum(shares[:owned])],
        }
        side_columns(ax, [(head, list(zip(rows, entries, strict=False))) for head, entries in written.items()])
        if heights.min() < 0:
            ax.axvline(0, color=NEUTRAL, linewidth=0.8)
        elif rest and (most := float(np.delete(heights, len(shown)).max())) * 4 < heights[len(shown)]:
            ax.set_xlim(0, 1.3 * most)  # the single ops would vanish beside the bar of all others
        plain_axis(ax)
        ax.set_xlabel(" · ".join(filter(None, (f"{name} [{unit}]", sources))))
        ax.grid(axis="x")
    return figure


def accuracy_by_backend(accuracy: pd.DataFrame) -> Figure:
    """Draw each output's signal-to-quantization-noise ratio against fp32, and top-1 figures where there are any.

    Parameters
    ----------
    accuracy : pandas.DataFrame
        output, backend, soc, precision, source, sqnr_db, top1_agreement and accuracy (fractions, NaN where not known).

    Returns
    -------
    matplotlib.figure.Figure
        SQNR in dB ("exact" where the outputs are equal), agreement and accuracy in percent.

    Raises
    ------
    BadInput
        No rows, or a column is missing.
    """
    require(accuracy, "backend", "sqnr_db")
    rows, notes = first_rows(accuracy, "rows")
    sqnr = figures(rows, "sqnr_db")
    panels = [("SQNR against fp32 [dB]", sqnr)]
    for column, label in (("top1_agreement", "top-1 agreement with fp32 [%]"), ("accuracy", "accuracy on labels [%]")):
        if not np.isnan(figures(rows, column)).all():
            panels.append((label, 100 * figures(rows, column)))
    with rc():
        title = f"Accuracy by backend{constant(rows, 'build', 'output', 'soc')}"
        figure = new_figure(4.8 + 2.2 * (len(panels) - 1), 1.05 + 0.36 * len(rows), title, [*notes_of(rows), *notes])
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, (label, values) in zip(axes, panels, strict=True):
            limit = 100 if label.endswith("[%]") else None
            value_panel(ax, values, texts(rows, "backend"), label=label, infinite="exact", limit=limit)
        label_rows(axes[0], configurations(rows, "build", "output"))
    return figure


def comparison(table: pd.DataFrame) -> Figure:
    """Draw builds or backends side by side: latency, SQNR, size and accuracy, a panel each.

    Parameters
    ----------
    table : pandas.DataFrame
        build, backend, soc, precision, source, median_ms, p95_ms, sqnr_db, size_kb, top1_agreement, accuracy
        (the last two as fractions). A panel without any value is left out; `accuracy` goes before `top1_agreement`.

    Returns
    -------
    matplotlib.figure.Figure
        Thin lines at the latency reach to the 95th percentile; NaN is "n/a", infinite SQNR is "exact".

    Raises
    ------
    BadInput
        No rows, a column is missing, or none of the figures has a value.
    """
    require(table, "backend")
    rows, notes = first_rows(table, "rows")
    agreement = "accuracy" if not np.isnan(figures(rows, "accuracy")).all() else "top1_agreement"
    titles = {
        "median_ms": ("median latency [ms]", "lower is better"),
        "sqnr_db": ("SQNR against fp32 [dB]", "higher is better"),
        "size_kb": ("size [KB]", "lower is better"),
        agreement: ("accuracy [%]" if agreement == "accuracy" else "top-1 agreement [%]", "higher is better"),
    }
    panels = [column for column in titles if not np.isnan(figures(rows, column)).all()]
    if not panels:
        raise nothing_finite(f"none of {', '.join(titles)} has a value")
    if "median_ms" in panels and np.isfinite(figures(rows, "p95_ms")).any():
        notes = ["thin line: up to the 95th percentile of the latency", *notes]
    with rc():
        title = f"Comparison{constant(rows, 'build', 'soc')}"
        figure = new_figure(3.0 + 1.75 * len(panels), 1.25 + 0.34 * len(rows), title, [*notes_of(rows), *notes])
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, column in zip(axes, panels, strict=True):
            percent = column == agreement
            values = figures(rows, column) * (100 if percent else 1)
            label, better = titles[column]
            log = column in ("median_ms", "size_kb") and wants_log(values, 25)
            value_panel(
                ax, values, texts(rows, "backend"), label=label + (", log" if log else ""), log=log,
                infinite="exact" if column == "sqnr_db" else "∞", limit=100 if percent else None,
                upper=figures(rows, "p95_ms") if column == "median_ms" else None,
            )  # fmt: skip
            ax.set_title(better, fontsize=7.5, color=MUTED)
        label_rows(axes[0], configurations(rows, "build"))
    return figure


def compile_matrix(contexts: pd.DataFrame) -> Figure:
    """Draw the compiled contexts as a heat table, SoC by figure, each column shaded on its own scale.

    Parameters
    ----------
    contexts : pandas.DataFrame
        soc, name, arch, precision, source and any of size_kb, compile_ms, <stage>_ms, ddr_*_kb, vtcm_mb.

    Returns
    -------
    matplotlib.figure.Figure
        The values are written in the cells; darker is larger in its column.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no figure has a value.
    """
    require(contexts, "soc")
    rows, notes = first_rows(contexts, "contexts")
    measured = [c for c in map(str, rows.columns) if heading(c)[1] in ("KB", "MB", "ms", "bytes")]
    columns = [c for c in measured if np.isfinite(figures(rows, c)).any()]
    if not columns:
        raise nothing_finite("no column of times or sizes has a value")
    shades: list[list[tuple[object, str]]] = [[] for _ in range(len(rows))]
    missing = []
    for x, column in enumerate(columns):
        values = figures(rows, column)
        finite = values[np.isfinite(values)]
        low = finite.min()
        span = max(float(np.ptp(finite)), 0.25 * float(np.abs(finite).max()))  # a few per cent are not light and dark
        for y, value in enumerate(values):
            share = 0.12 + 0.6 * (value - low) / span if span and np.isfinite(value) else 0.12
            text = number(rows[column].iloc[y] if np.isfinite(value) else value)  # an integer stays one
            shades[y].append((tint(BLUE, share) if np.isfinite(value) else PALE, text))
            if not np.isfinite(value):
                missing.append((y, x))
    heads = []
    for column in columns:
        words, unit = heading(column)
        lines = textwrap.wrap(" ".join(elide(word, 15) for word in words.split()), 12, break_long_words=False)
        heads.append("\n".join([*lines, f"[{unit}]"]))
    names = zip(*(texts(rows, c) for c in ("soc", "name", "arch", "precision")), texts(rows, "source"), strict=True)
    labels = [
        elide(" · ".join(filter(None, (*parts, source and source_label(source)))), 64) for *parts, source in names
    ]
    notes = ["darker: larger, each column on its own scale", *notes]
    with rc():
        tallest = max(head.count("\n") for head in heads) + 1
        figure = new_figure(
            max(6.0, 3.4 + 0.86 * len(columns)), 0.7 + 0.13 * tallest + 0.3 * len(rows),
            f"Contexts compiled ahead of time{constant(rows, 'build')}", [*notes_of(rows), *notes],
        )  # fmt: skip
        heat_table(figure.subplots(), shades, labels, heads, hatched=missing)
    return figure
