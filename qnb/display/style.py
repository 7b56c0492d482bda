"""The one look of qnb's charts and tables: colours, number formats, labels, and what each source means.

Knows nothing of steps and of single charts. Matplotlib is imported where a figure is made, never pyplot: a
`Figure` of our own has no global state, switches no backend and needs no closing.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from numbers import Integral
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = [
    "BACKEND_COLOURS",
    "BACKEND_HATCHES",
    "INK",
    "MUTED",
    "PAPER",
    "SOURCE_MARK",
    "SOURCE_NOTES",
    "clean",
    "compact",
    "contrast",
    "elide",
    "heading",
    "is_source",
    "new_figure",
    "number",
    "png",
    "rc",
    "source_label",
    "source_notes",
    "sources_of",
    "svg",
]

PAPER = "#fbfbf9"
"""Opaque figure background: a chart reads the same on a light page, on a dark page and in print."""
INK = "#1f2328"
MUTED = "#5f6670"
GRID = "#dedfdb"
NEUTRAL = "#8a8f98"
PALE = "#e9e9e5"

# Of the Okabe-Ito palette (https://jfly.uni-koeln.de/color/) those that keep 3:1 against PAPER (WCAG 2.2, 1.4.11).
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#00875F", "#9C5583"

BACKEND_COLOURS: Mapping[str, str] = MappingProxyType({"htp": BLUE, "gpu": VERMILLION, "cpu": GREEN})
BACKEND_HATCHES: Mapping[str, str] = MappingProxyType({"htp": "", "gpu": "////", "cpu": "...."})

SOURCE_MARK = "†"
SOURCE_NOTES: Mapping[str, str] = MappingProxyType(
    {
        "device": "measured on a Snapdragon device",
        "simulator": "this host's Hexagon simulator: the arithmetic is the NPU's, the time is not a Snapdragon's",
        "host": "on this host's CPU (QNN's CPU backend; in check, search, calibrate ONNX Runtime), not a Snapdragon's",
        "reference": "fp16 on ONNX Runtime's CPU, standing in for the GPU",
        "published": "a published figure from a table that qnb ships, not measured here",
        "transferred": "a measurement on another chip, scaled to this one",
        "estimate": "computed by a model of the SoC, not measured",
        "tutorial": "a rule of thumb of the tutorial, not a measurement",
        "none": "no figure is given where it would be a guess",
    }
)
"""What each value of the column `source` means, in table and chart footnotes."""

# Tried in this order for names that DejaVu Sans has no glyphs for.
_CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "PingFang SC", "Yu Gothic", "Malgun Gothic")


@cache
def _fonts() -> list[str]:
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in _CJK_FONTS if name in installed)]


@contextmanager
def rc() -> Iterator[None]:
    """Apply the style inside a `with` block and restore the caller's settings after it."""
    import matplotlib as mpl

    settings: dict[str, Any] = {
        "figure.dpi": 120,
        "figure.facecolor": PAPER,
        "savefig.facecolor": "auto",
        "font.family": _fonts(),
        "font.size": 9,
        "text.color": INK,
        "text.parse_math": False,  # a "$" in a tensor's name is a "$"
        "axes.facecolor": PAPER,
        "axes.edgecolor": NEUTRAL,
        "axes.labelcolor": INK,
        "axes.labelsize": 9,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "xtick.color": NEUTRAL,
        "ytick.color": NEUTRAL,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8.5,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "hatch.linewidth": 0.8,
    }
    with mpl.rc_context():
        mpl.rcdefaults()  # whatever style sheet is active, a chart of qnb looks the same
        mpl.rcParams.update(settings)  # type: ignore[arg-type]  # its stub wants literal keys
        yield


def new_figure(width: float, height: float, title: str, notes: Iterable[str] = ()) -> Figure:
    """Make an empty figure with a title on top and footnotes below, both laid out with the axes.

    Parameters
    ----------
    width, height : float
        Inches; the footnotes' height is added.
    title : str
        Bold line at the top left.
    notes : iterable of str
        Footnotes, wrapped to the width.
    """
    import textwrap

    from matplotlib.layout_engine import ConstrainedLayoutEngine

    lines = [line for note in notes for line in textwrap.wrap(clean(note), width=int(width * 17.5))]
    engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = _chart()(figsize=(width, height + 0.14 * len(lines)), layout=engine)
    figure.suptitle(elide(title, int(width * 11)), x=0.012, ha="left", fontsize=10.5, fontweight="bold")
    if lines:
        # The figure's x label is the one text at the bottom for which the layout keeps room.
        figure.supxlabel("\n".join(lines), x=0.012, ha="left", fontsize=7.5, color=MUTED, linespacing=1.35)
    return figure


@cache
def _chart() -> type[Figure]:
    from matplotlib.figure import Figure

    class Chart(Figure):
        """A figure that a notebook shows by itself, where plain ones are shown only once pyplot was imported."""

        def _repr_png_(self) -> bytes:
            return png(self, dpi=110)

    return Chart


def png(figure: Figure, *, dpi: float = 200) -> bytes:
    """Return the figure as PNG bytes, without pyplot and whatever backend is active.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    dpi : float
        Pixels per inch; 200 is sharp on a high-density screen and in print.
    """
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    with rc():
        FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """Return the figure as SVG whose letters are shapes: it needs no font, names nothing outside, and is always the same."""
    import io

    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with rc(), mpl.rc_context({"svg.hashsalt": "qnb", "svg.fonttype": "path"}):
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(buffer, metadata=metadata)  # type: ignore[no-untyped-call]  # draws once
    text = buffer.getvalue()
    return text[text.index("<svg") :]  # without the document type, which names an address


def source_label(source: object) -> str:
    """Return a source's name, with `SOURCE_MARK` unless it is a device."""
    name = clean(source)
    return name if name in ("device", "") else f"{name}{SOURCE_MARK}"


def is_source(column: object) -> bool:
    """Whether a column says where figures come from: ``source``, or ``ddr_source`` of some of them."""
    return str(column) == "source" or str(column).endswith("_source")


def sources_of(frame: pd.DataFrame) -> list[str]:
    """Return one footnote for each source that any column of a table names."""
    return source_notes(value for column in frame.columns if is_source(column) for value in frame[column])


def source_notes(sources: Iterable[object]) -> list[str]:
    """Return one footnote for each source that is present, in the order of `SOURCE_NOTES`, unknown ones last."""
    present = {clean(s) for s in sources if isinstance(s, str) and s}
    known = [s for s in SOURCE_NOTES if s in present]
    unknown = sorted(present - set(known))
    return [f"{source_label(s)}: {SOURCE_NOTES.get(s, 'not measured on a device')}" for s in (*known, *unknown)]


def clean(text: object) -> str:
    """Return `text` on one line and without control characters, so that no name can steer a terminal or a layout."""
    kept = (c for c in str(text) if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    return " ".join("".join(kept).split())


def elide(text: object, width: int) -> str:
    """Shorten `text` to `width` characters, leaving out its middle: names of tensors differ at both ends."""
    line = clean(text)
    if len(line) <= width:
        return line
    head = (width - 1) // 2
    return f"{line[:head]}…{line[len(line) - (width - 1 - head) :]}"


def number(value: object, *, infinite: str = "∞") -> str:
    """Format a number with three significant digits at least, and with thousands separators.

    Parameters
    ----------
    value : object
        A real number; anything that is missing or is not one gives "n/a".
    infinite : str
        What to write for plus infinity.

    Returns
    -------
    str
        With the typographic minus sign (U+2212), as on the charts' axes.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}".replace("-", "−")
    try:
        x = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "n/a"
    if math.isnan(x):
        return "n/a"
    if math.isinf(x):
        return infinite if x > 0 else "−∞"
    if x == 0:
        return "0"
    x = x if abs(x) >= 100 else float(f"{x:.2e}")
    exponent = math.floor(math.log10(abs(x)))
    if -4 < exponent < 12:
        return f"{x:,.{max(0, 2 - exponent)}f}".replace("-", "−")
    return f"{x:.2e}".replace("-", "−")


_UNITS = {
    "ms": "ms",
    "us": "µs",
    "s": "s",
    "kb": "KB",
    "mb": "MB",
    "bytes": "bytes",
    "db": "dB",
    "percent": "%",
    "per_s": "1/s",
    "cycles": "cycles",
}


def compact(value: float) -> str:
    """Format a count with a letter for its thousands: 950, 12.5 k, 3.10 M, 4.09 G, 1.20 T."""
    for power, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= power:
            return f"{number(value / power)} {letter}"
    return number(int(value)) if np.isfinite(value) and value == int(value) else number(value)


def heading(column: str) -> tuple[str, str]:
    """Split a column's name in words and unit: ``ddr_read_kb`` gives ("ddr read", "KB"), no unit an empty text."""
    for suffix, unit in sorted(_UNITS.items(), key=lambda pair: -len(pair[0])):
        if column == suffix or column.endswith(f"_{suffix}"):
            return _words(column if column == suffix else column[: -len(suffix) - 1]), unit
    return _words(column), ""


def _words(name: str) -> str:
    """Turn a column's name into words, acronyms in capitals."""
    return " ".join(
        w.upper() if w in ("cpu", "ddr", "sqnr", "vtcm") else w for w in clean(name).replace("_", " ").split()
    )


def contrast(first: object, second: object) -> float:
    """Return the contrast ratio of two colours, from 1 to 21.

    The formula is that of WCAG 2.2, "relative luminance" and "contrast ratio"
    (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio).
    """
    from matplotlib.colors import to_rgb

    def luminance(colour: Any) -> float:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)
