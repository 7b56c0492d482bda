"""The charts of what a graph holds: memory op by op, weights and activations by layer, and the precision along it.

Knows the tables' column names, nothing of the steps that fill them; see `qnb.display.charts` for what all charts keep to.
Up to 40 ops stand below each other by name; more go from left to right by their number, and the outstanding ones are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb.display.draw import (
    MAX_ROWS,
    Floats,
    constant,
    figures,
    heat_table,
    label_rows,
    nothing_finite,
    plain_axis,
    require,
    side_columns,
    texts,
    tint,
    value_panel,
)
from qnb.display.labels import label_points
from qnb.display.style import (
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
    elide,
    new_figure,
    number,
    rc,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["memory_over_graph", "precision_map", "weights_and_activations"]

COUNTED = "counted from the graph's shapes, not measured"
_ORDER = "each tensor whole, ops in the order of the file: the NPU's compiler tiles tensors and may reorder ops"
_UNITS = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB"), (1, "bytes"))

# Colour is never the only cue: each number of bits has a hatch of its own, and integers differ from floats in the words.
_BITS: dict[float, tuple[str, str]] = {
    4.0: (GREEN, "...."),
    8.0: (BLUE, ""),
    16.0: (VERMILLION, "////"),
    32.0: (PURPLE, "xxxx"),
}


def memory_over_graph(table: pd.DataFrame) -> Figure:
    """Draw the bytes of activations that are alive while each op runs, in the order of the graph.

    Parameters
    ----------
    table : pandas.DataFrame
        One row an op: op, op_type, live_bytes, read_bytes, written_bytes, weight_bytes.

    Returns
    -------
    matplotlib.figure.Figure
        Bytes, KB or MB (of 1,024), as the axis says; the peak is marked.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no op has a finite number of live bytes.
    """
    require(table, "op", "op_type", "live_bytes")
    live = _bytes(table, "live_bytes")
    if not np.isfinite(live).any():
        raise nothing_finite("no op has a finite live_bytes")
    peak = int(np.nanargmax(np.where(np.isfinite(live), live, -np.inf)))
    names, types = texts(table, "op"), texts(table, "op_type")
    power, unit = _unit(live)
    title = f"Memory over the graph{constant(table, 'build', 'precision')}"
    notes = [COUNTED, _ORDER]
    with rc():
        if len(table) <= MAX_ROWS:
            figure = new_figure(8.4, 1.2 + 0.235 * len(table), title, notes)
            ax = figure.subplots()
            colours = [VERMILLION if y == peak else BLUE for y in range(len(table))]
            ax.barh(
                range(len(table)), np.nan_to_num(live) / power, height=0.68, color=colours, edgecolor=PAPER, linewidth=0
            )
            label_rows(ax, _names(names, types))
            columns: list[tuple[str, list[tuple[float, str]]]] = [
                ("live", [(y, f"{_size(v)}{' (peak)' if y == peak else ''}") for y, v in enumerate(live)])
            ]
            for head, column in (("read", "read_bytes"), ("written", "written_bytes"), ("weights", "weight_bytes")):
                columns.append((head, [(y, _size(v)) for y, v in enumerate(_bytes(table, column))]))
            side_columns(ax, columns)
            plain_axis(ax)
            ax.set_xlabel(f"activations alive [{unit}]")
            ax.grid(axis="x")
            return figure
        figure = new_figure(9.6, 4.6, title, notes)
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        _along(top, live / power, BLUE, f"alive [{unit}]")
        weights = _bytes(table, "weight_bytes")
        weight_power, weight_unit = _unit(weights)
        _along(below, weights / weight_power, GREEN, f"weights read [{weight_unit}]")
        _number_axis(below, len(table))
        top.plot([peak + 1], [live[peak] / power], marker="o", markersize=6, color=VERMILLION, markeredgecolor=PAPER)
        label_points(
            top, [(peak + 1.0, float(live[peak] / power))],
            [f"peak {_size(live[peak])}: {elide(names[peak], 32)} (op {peak + 1:,})"], fontsize=8,
        )  # fmt: skip
    return figure


def weights_and_activations(table: pd.DataFrame) -> Figure:
    """Draw the bytes of each op's weights and of the activations that it writes, in the order of the graph.

    Parameters
    ----------
    table : pandas.DataFrame
        One row an op: op, op_type, weight_bytes, activation_bytes.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels in bytes, KB or MB (of 1,024), as their axes say.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no op has a finite number of bytes.
    """
    require(table, "op", "op_type", "weight_bytes", "activation_bytes")
    panels = [
        ("weights", _bytes(table, "weight_bytes"), GREEN),
        ("activations written", _bytes(table, "activation_bytes"), BLUE),
    ]
    if not any(np.isfinite(values).any() for _, values, _ in panels):
        raise nothing_finite("no op has a finite weight_bytes or activation_bytes")
    names = texts(table, "op")
    title = f"Weights and activations by op{constant(table, 'build', 'precision')}"
    with rc():
        if len(table) <= MAX_ROWS:
            figure = new_figure(8.4, 1.3 + 0.235 * len(table), title, [COUNTED])
            axes = figure.subplots(1, 2, sharey=True)
            for ax, (what, values, _), backend in zip(axes, panels, ("cpu", "htp"), strict=True):
                power, unit = _unit(values)
                value_panel(
                    ax, values / power, [backend] * len(table), label=f"{what} [{unit}]",
                    written=lambda v, power=power: _size(v * power),  # type: ignore[misc]
                )  # fmt: skip
                ax.set_title(f"{_size(np.nansum(values))} in all", fontsize=8, color=MUTED)
            label_rows(axes[0], _names(names, texts(table, "op_type")))
            return figure
        figure = new_figure(9.6, 4.6, title, [COUNTED])
        stacked = figure.subplots(2, 1, sharex=True)
        for ax, (what, values, colour) in zip(stacked, panels, strict=True):
            power, unit = _unit(values)
            _along(ax, values / power, colour, f"{what} [{unit}]")
            ax.set_title(f"{_size(np.nansum(values))} in all", fontsize=8, color=MUTED)
        _number_axis(stacked[1], len(table))
        for ax, (_, values, _) in zip(stacked, panels, strict=True):
            power, _ = _unit(values)
            usual = float(np.median(values[values > 0])) if (values > 0).any() else 0.0
            ranked = np.argsort(-np.nan_to_num(values), kind="stable")
            largest = [int(i) for i in ranked[:3] if values[i] > 1.2 * usual]  # only what stands out has a name
            label_points(
                ax, [(i + 1.0, float(values[i] / power)) for i in largest],
                [f"{elide(names[i], 26)}: {_size(values[i])}" for i in largest],
            )  # fmt: skip
    return figure


def precision_map(table: pd.DataFrame) -> Figure:
    """Draw the bits of the weights and of the activations along the graph.

    Parameters
    ----------
    table : pandas.DataFrame
        One row an op, in graph order: op, op_type, weight_bits, activation_bits; weights and activations ("int8", "fp16")
        where they are known in words; weight_bytes for the shares.

    Returns
    -------
    matplotlib.figure.Figure
        Up to 40 ops a cell each, by name; more in two bands, with the share of each precision.

    Raises
    ------
    BadInput
        No rows, a column is missing, or no op has a number of bits.
    """
    require(table, "op", "op_type", "weight_bits", "activation_bits")
    bits = {kind: figures(table, f"{kind}_bits") for kind in ("weight", "activation")}
    if not any(np.isfinite(values).any() for values in bits.values()):
        raise nothing_finite("no op has weight_bits or activation_bits")
    words = {kind: _precisions(texts(table, f"{kind}s"), values) for kind, values in bits.items()}
    title = f"Precision along the graph{constant(table, 'build')}"
    with rc():
        if len(table) <= MAX_ROWS:
            cells: list[list[tuple[object, str]]] = [
                [_cell(bits[kind][y], words[kind][y]) for kind in ("weight", "activation")] for y in range(len(table))
            ]
            hatched = [(y, x) for y, row in enumerate(cells) for x, (_, text) in enumerate(row) if text == _NONE]
            figure = new_figure(6.6, 0.7 + 0.235 * len(table), title, [COUNTED])
            labels = _names(texts(table, "op"), texts(table, "op_type"))
            heat_table(figure.subplots(), cells, labels, ["weights", "activations"], hatched=hatched)
            return figure
        figure = new_figure(9.6, 2.4, title, [COUNTED])
        ax = figure.subplots()
        seen: dict[str, Any] = {}
        for y, kind in enumerate(("weight", "activation")):
            spans: dict[str, list[tuple[float, float]]] = {}
            styles: dict[str, tuple[str, str]] = {}
            for start, stop, word in _runs(words[kind]):
                spans.setdefault(word, []).append((start + 0.5, stop - start))
                styles.setdefault(word, (PALE, "") if word == _NONE else _style(bits[kind][start], word))
            for word, ranges in spans.items():
                colour, hatch = styles[word]
                bars = ax.broken_barh(
                    ranges, (y - 0.36, 0.72), facecolor=colour, hatch=hatch, edgecolor=PAPER, linewidth=0, label=word
                )
                seen.setdefault(word, bars)
        label_rows(ax, ["weights", "activations"])
        _number_axis(ax, len(table))
        weight_bytes = _bytes(table, "weight_bytes")
        legend = [_share(word, words, weight_bytes) for word in seen]
        figure.legend(list(seen.values()), legend, loc="outside upper right", ncols=min(2, len(seen)), fontsize=7.5)
    return figure


_NONE = "no weights"


def _precisions(said: Sequence[str], bits: Floats) -> list[str]:
    return [
        word or (f"{value:.0f} bits" if np.isfinite(value) else _NONE) for word, value in zip(said, bits, strict=True)
    ]


def _style(bits: float, word: str) -> tuple[str, str]:
    colour, hatch = _BITS.get(float(bits), (NEUTRAL, ""))
    return (PURPLE, "\\\\\\\\") if word.startswith("fp") and bits == 16 else (colour, hatch)


def _cell(bits: float, word: str) -> tuple[object, str]:
    return (PAPER, word) if word == _NONE else (tint(_style(bits, word)[0], 0.45), word)


def _runs(words: Sequence[str]) -> list[tuple[int, int, str]]:
    """Take a sequence apart in runs of equal words: start, end, word."""
    starts = [i for i, word in enumerate(words) if i == 0 or word != words[i - 1]]
    return [(a, b, words[a]) for a, b in zip(starts, [*starts[1:], len(words)], strict=True)]


def _share(word: str, words: dict[str, list[str]], weight_bytes: Floats) -> str:
    """Say of how many ops the weights and the activations have a precision, and its share of the bytes of weights."""
    with_weights = np.array([w == word for w in words["weight"]])
    total = float(np.nansum(weight_bytes))
    share = f", {100 * float(np.nansum(weight_bytes[with_weights])) / total:.0f} % of their bytes" if total else ""
    if word == _NONE:
        return f"no weights: {int(with_weights.sum()):,} ops"
    parts = [f"weights of {int(with_weights.sum()):,} ops{share}"] if with_weights.any() else []
    active = sum(w == word for w in words["activation"])
    return f"{word}: {'; '.join([*parts, *([f'activations of {active:,}'] if active else [])])}"


def _names(names: Sequence[str], types: Sequence[str]) -> list[str]:
    return [f"{elide(name, 34)}  {elide(kind, 18)}" for name, kind in zip(names, types, strict=True)]


def _bytes(table: pd.DataFrame, column: str) -> Floats:
    """A column of sizes; what is not finite is not known."""
    values = figures(table, column)
    return np.where(np.isfinite(values), values, np.nan)


def _unit(values: Floats) -> tuple[float, str]:
    finite = values[np.isfinite(values)]
    largest = float(finite.max()) if finite.size else 0.0
    return next(((float(power), unit) for power, unit in _UNITS if largest >= power), (1.0, "bytes"))


def _size(value: float) -> str:
    """Write bytes in the unit that gives few digits."""
    if not np.isfinite(value):
        return "n/a"
    power, unit = next(((p, u) for p, u in _UNITS if value >= p), (1, "bytes"))
    return f"{number(value / power if power > 1 else round(value))} {unit}"


def _along(ax: Axes, values: Floats, colour: str, label: str) -> None:
    """Fill the area under a value for each op, from left to right."""
    at = np.arange(1, len(values) + 1)
    heights = np.nan_to_num(values)
    lined = len(values) <= 300  # the outlines of more would hide what they surround
    ax.fill_between(at, heights, step="mid", color=tint(colour, 0.45 if lined else 0.75), linewidth=0)
    if lined:
        ax.step(at, heights, where="mid", color=colour, linewidth=0.8)
    ax.set_ylim(0, float(heights.max()) * 1.28 or 1.0)
    ax.set_ylabel(label)
    ax.grid(axis="y", color=GRID)


def _number_axis(ax: Axes, count: int) -> None:
    plain_axis(ax, 10, whole=True)
    ax.set_xlim(0.5, count + 0.5)
    ax.set_xlabel("op in the order of the graph [number]; the table has their names", color=INK)
