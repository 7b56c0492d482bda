"""Tables as text: a DataFrame in, an HTML fragment or a plain-text table out.

Knows nothing of steps. Every string from the frame is escaped, or stripped of control characters: names of tensors and
files are other people's input.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from html import escape
from itertools import zip_longest
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb.display.style import clean, elide, is_source, number, source_label, sources_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["grid", "html", "text"]

HTML_ROWS = 1000
TEXT_ROWS = 60
WIDTH = 120
"""Columns of a terminal that a plain-text table keeps to."""

# Selectors reach only inside .qnb-table. JupyterLab's variables first, then VS Code's; where a background is set, a
# text colour is set with it, so that the two always belong together (Canvas and CanvasText follow the page).
# Cells are named through their scroll box: JupyterLab's own rule for tables in outputs, which sets all text to the right,
# weighs two classes and an element.
_STYLE = """
.qnb-table{margin:.4em 0 1em;font:13px/1.4 var(--jp-ui-font-family,system-ui,sans-serif);color:inherit}
.qnb-table .qnb-title{font-weight:600;font-size:14px;margin-bottom:.3em}
.qnb-table .qnb-scroll{max-height:28em;overflow:auto;display:inline-block;max-width:100%}
.qnb-table table{border-collapse:collapse;margin:0;border:0;font-variant-numeric:tabular-nums}
.qnb-table .qnb-scroll th,.qnb-table .qnb-scroll td{padding:.2em .8em;text-align:left;white-space:nowrap;border:0;
border-bottom:1px solid var(--jp-border-color2,rgba(128,128,128,.35));background:none;color:inherit}
.qnb-table .qnb-scroll th{position:sticky;top:0;z-index:1;font-weight:600;
background:var(--jp-layout-color2,var(--vscode-editor-background,Canvas));
color:var(--jp-ui-font-color1,var(--vscode-editor-foreground,CanvasText))}
.qnb-table .qnb-scroll .qnb-number{text-align:right}
.qnb-table .qnb-scroll td.qnb-prose{white-space:normal;min-width:24em;max-width:40em;overflow-wrap:anywhere}
.qnb-table .qnb-note{font-size:12px;opacity:.8;margin-top:.25em}
""".replace("\n", "")


def html(frame: pd.DataFrame, *, title: str, notes: Iterable[str] = (), caption: str = "") -> str:
    """Return a self-contained HTML fragment: title, scrolling table, row count, what the sources mean, notes.

    Parameters
    ----------
    frame : pandas.DataFrame
        An index with a name, or of other labels than 0, 1, 2 …, becomes the first columns. Of more than
        1,000 rows the first 1,000 are written, and the row count says so.
    title : str
    notes : iterable of str
        Lines below the table, after the legend of the sources that are in the column `source`.
    caption : str
        A line between title and table.

    Returns
    -------
    str
        All text is escaped. Units stay in the column names, as in the frame.
    """
    table = _with_index(frame)
    parts = [f'<div class="qnb-title">{escape(clean(title))}</div>'] if title else []
    parts += [f"<div>{escape(clean(caption))}</div>"] if caption else []
    parts.append(f'<div class="qnb-scroll" tabindex="0">{grid(frame)}</div>')
    below = [_row_count(len(table), min(len(table), HTML_ROWS)), *sources_of(table), *notes]
    parts += [f'<div class="qnb-note">{escape(clean(note))}</div>' for note in below]
    return f'<div class="qnb-table"><style>{_STYLE}</style>{"".join(parts)}</div>'


def grid(frame: pd.DataFrame, rows: int = HTML_ROWS, *, breaks: bool = False, turned: bool = False) -> str:
    """Return the bare ``<table>`` of the first rows, all text escaped; cells of numbers have the class ``qnb-number``.

    With `breaks`, a column's name may go on in a second line after an underscore, and short sentences may be broken. A
    `turned` table has a line for each column: few rows of many columns can be read without scrolling.
    """
    shown = _with_index(frame).iloc[:rows]
    columns = [_Column(shown, k) for k in range(shown.shape[1])]
    names = [escape(c.name).replace("_", "_<wbr>") if breaks else escape(c.name) for c in columns]
    if turned:
        lines = [
            f'<tr><th scope="row">{name}</th>' + "".join(_cell(cell, c.css, breaks) for cell in c.cells) + "</tr>"
            for c, name in zip(columns, names, strict=True)
        ]
        return f'<table class="turned"><tbody>{"".join(lines)}</tbody></table>'
    head = "".join(f"<th{c.css}>{name}</th>" for c, name in zip(columns, names, strict=True))
    body = "".join(
        "<tr>" + "".join(_cell(c.cells[y], c.css, breaks) for c in columns) + "</tr>" for y in range(len(shown))
    )  # fmt: skip
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def text(frame: pd.DataFrame, *, title: str, notes: Iterable[str] = ()) -> str:
    """Return a table for terminals and ``text/plain``, no line over 120 columns.

    Parameters
    ----------
    frame : pandas.DataFrame
        As in `html`; of more than 60 rows the first 60 are written, and the row count says so.
    title : str
    notes : iterable of str

    Returns
    -------
    str
        Long sentences are wrapped in their cell, long names shortened in their middle. What is still too wide continues
        below, in blocks that each begin with the columns that tell the rows apart.
    """
    table = _with_index(frame)
    shown = table.iloc[:TEXT_ROWS]
    columns = [_Column(shown, k) for k in range(shown.shape[1])]
    for limit in (60, 52, 44, 36, 30, 24):
        for c in columns:
            c.fit(limit)
        if _width(columns) <= WIDTH:
            break
    lines = [elide(title, WIDTH)] if title else []
    for block in _blocks(columns):
        lines += ["", "  ".join(c.pad(c.head) for c in block).rstrip(), "  ".join("─" * c.width for c in block)]
        for y in range(len(shown)):
            for parts in zip_longest(*(c.lines[y] for c in block), fillvalue=""):
                lines.append("  ".join(c.pad(part) for c, part in zip(block, parts, strict=True)).rstrip())
    lines.append("")
    for note in (_row_count(len(table), len(shown)), *sources_of(table), *notes):
        lines += _wrap(clean(note))
    return "\n".join(lines).lstrip("\n")


class _Column:
    """One column as text: its name, its cells, and on which side they stand."""

    def __init__(self, frame: pd.DataFrame, position: int) -> None:
        label: Any = frame.columns[position]
        self.name = clean(" ".join(map(str, label)) if isinstance(label, tuple) else label)
        values = [_plain(v) for v in frame.iloc[:, position]]
        known = [v for v in values if v is not None]
        # A column without any value can only be told by its dtype.
        kind = frame.dtypes.iloc[position].kind if not known else ""
        self.numeric = all(_is_number(v) for v in known) if known else kind in "fiu"
        self.whole = self.numeric and all(float(v).is_integer() for v in known if np.isfinite(v))
        self.cells = [self._text(v) for v in values]
        self.css = ' class="qnb-number"' if self.numeric else ""
        self.fit(WIDTH)

    def _text(self, value: Any) -> str:
        if value is None:
            return "n/a" if self.numeric else ""
        if _is_number(value) and np.isfinite(value):
            if self.name == "cosine":
                return f"{value:.6f}"  # it is the distance from 1 that tells
            return number(int(value) if self.whole else value).replace("−", "-")  # a hyphen can be pasted into code
        if _is_number(value) or isinstance(value, bool):
            return number(value, infinite="exact" if self.name == "sqnr_db" else "∞").replace("−", "-")
        return source_label(value) if is_source(self.name) else clean(value)

    def fit(self, limit: int) -> None:
        """Lay the cells out in at most `limit` columns: sentences over several lines, other text shortened."""
        self.head = elide(self.name, 32)
        limit = max(limit, len(self.head))
        self.lines = [self._lines(cell, limit) for cell in self.cells]
        self.width = max(len(self.head), 1, *(len(line) for cell in self.lines for line in cell))

    def _lines(self, cell: str, limit: int) -> list[str]:
        if self.numeric or len(cell) <= limit:
            return [cell]
        return textwrap.wrap(cell, limit, max_lines=6, placeholder=" …") if _is_prose(cell) else [elide(cell, limit)]

    def pad(self, cell: str) -> str:
        return cell.rjust(self.width) if self.numeric else cell.ljust(self.width)


def _plain(value: Any) -> Any:
    """Turn numpy scalars into Python's, and everything that pandas calls missing into None."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and np.isnan(value)) or type(value).__name__ in ("NAType", "NaTType"):
        return None
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with an index that says something as its first columns."""
    unnamed = all(name is None for name in frame.index.names)
    if unnamed and frame.index.nlevels == 1 and frame.index.dtype.kind in "iu":
        return frame
    table = frame.reset_index(drop=True)
    for k, name in enumerate(frame.index.names):
        label = f"index {k}" if name is None else str(name)
        table.insert(k, label, frame.index.get_level_values(k), allow_duplicates=True)
    return table


def _is_prose(cell: str) -> bool:
    """Tell a sentence, which can be wrapped, from a name, which can't."""
    return cell.count(" ") >= 3


def _cell(cell: str, css: str, breaks: bool = False) -> str:
    prose = len(cell) > 72 and _is_prose(cell)
    short = elide(cell, 400 if prose else 72)
    if prose:
        css = ' class="qnb-prose"'
    elif breaks and len(cell) > 24 and _is_prose(cell):
        css = ' class="qnb-words"'
    full = f' title="{escape(cell)}"' if short != cell else ""
    return f"<td{css}{full}>{escape(short)}</td>"


def _row_count(rows: int, shown: int) -> str:
    if shown < rows:
        return f"the first {shown:,} of {rows:,} rows"
    return f"{rows:,} row{'s'[: rows != 1]}" if rows else "no rows"


def _blocks(columns: Sequence[_Column]) -> list[list[_Column]]:
    """Share the columns out among blocks of at most `WIDTH`, each headed by the columns that tell the rows apart."""
    keys = _keys(columns)
    blocks: list[list[_Column]] = [[]]
    for c in columns:
        if blocks[-1] and _width([*blocks[-1], c]) > WIDTH:
            blocks.append([*keys])
        blocks[-1].append(c)
    return blocks


def _keys(columns: Sequence[_Column]) -> Sequence[_Column]:
    """Return the shortest run of leading columns without repeated rows, or the first if that takes half the width."""
    for count in range(1, len(columns) + 1):
        rows = list(zip(*(c.cells for c in columns[:count]), strict=True))
        if len(set(rows)) == len(rows) and _width(columns[:count]) <= WIDTH // 2:
            return columns[:count]
    return columns[:1]


def _width(columns: Sequence[_Column]) -> int:
    return sum(c.width for c in columns) + 2 * (len(columns) - 1)


def _wrap(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ")
