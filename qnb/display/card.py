"""A report card as one HTML file: plain values, tables and figures in, a page out that needs nothing beside it.

Knows nothing of steps and results. All text is escaped, by the template or by `qnb.display.tables`; pictures are in the page
itself, letters in them are shapes, and the page forbids itself the network.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qnb.display.style import clean, png, sources_of, svg
from qnb.display.tables import grid
from qnb.display.tiles import Tile

if TYPE_CHECKING:
    import jinja2
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Card", "Chart", "Section", "Table", "chart", "csv_text", "page"]

ROWS = 100
"""A table has at most so many rows in the page."""
OPEN_ROWS = 14
"""A longer table is folded."""
_WIDE = 9
_TURNED_COLUMNS, _TURNED_ROWS = 12, 6
"""A table of more columns and no more rows is turned: else most of it is beyond the edge of the page."""
_SVG_BYTES = 250_000
_DPI = 150

_SCRIPT = (
    "addEventListener('beforeprint',function(){document.querySelectorAll('details:not([open])').forEach(function(d)"
    "{d.open=true;d.dataset.folded=1})});addEventListener('afterprint',function(){document.querySelectorAll("
    "'details[data-folded]').forEach(function(d){d.open=false;delete d.dataset.folded})})"
)
"""Unfolds what is folded while the page is printed: style sheets alone can't, in all browsers."""


@dataclass(frozen=True)
class Chart:
    """A picture in the page.

    Attributes
    ----------
    image : str
        A ``data:`` address.
    caption : str
        What it shows.
    width : int
        In CSS pixels.
    """

    image: str
    caption: str
    width: int


@dataclass(frozen=True)
class Table:
    """A table of a section; `csv` names its file in the CSV set, ``""`` where there is none."""

    title: str
    frame: pd.DataFrame
    csv: str = ""
    folded: bool | None = None
    in_page: bool = True

    @property
    def html(self) -> str:
        """The table itself, its text escaped."""
        return grid(self._told, ROWS, breaks=True, turned=self.is_turned)

    @property
    def _told(self) -> pd.DataFrame:
        """The table without the columns that say nothing in any row; the CSV file has them."""
        frame = self.frame
        if not len(frame):
            return frame
        silent = (frame.isna() | (frame == "")).all().to_numpy()
        return frame if silent.all() else frame.loc[:, ~silent]

    @property
    def is_turned(self) -> bool:
        """Whether each column has a line instead of each row."""
        return self._told.shape[1] > _TURNED_COLUMNS and 0 < len(self.frame) <= _TURNED_ROWS

    @property
    def is_wide(self) -> bool:
        """Whether paper needs smaller print for it."""
        return self._told.shape[1] > _WIDE and not self.is_turned

    @property
    def is_folded(self) -> bool:
        """Whether the page shows it folded."""
        return len(self.frame) > OPEN_ROWS if self.folded is None else self.folded

    @property
    def rows(self) -> str:
        """How many rows there are, and where those are that the page leaves out."""
        count = len(self.frame)
        if count <= ROWS:
            return f"{count:,} row{'s'[: count != 1]}" if count else "no rows"
        whole = f"all in {self.csv}" if self.csv else "the result itself has all"
        return f"the first {ROWS} of {count:,} rows; {whole}"

    @property
    def notes(self) -> list[str]:
        """What the sources in it mean."""
        return sources_of(self.frame)


@dataclass(frozen=True)
class Section:
    """A part of the card.

    Attributes
    ----------
    title : str
        Its heading.
    lead : str
        A sentence under the heading.
    charts : sequence of Chart
    tables : sequence of Table
    notes : sequence of str
        What the reader should know beside them.
    """

    title: str
    lead: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    anchor: str = ""

    @property
    def shown(self) -> list[Table]:
        """The tables that are in the page."""
        return [table for table in self.tables if table.in_page]


@dataclass(frozen=True)
class Card:
    """All that is in the page."""

    title: str
    subtitle: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    generator: str
    notes: Sequence[str] = field(default_factory=tuple)


def chart(figure: Figure, caption: str) -> Chart:
    """Make a picture of a figure: SVG if it is small, else PNG."""
    width = round(float(figure.get_size_inches()[0]) * 96)
    drawn = svg(figure).encode()
    kind, content = ("svg+xml", drawn) if len(drawn) <= _SVG_BYTES else ("png", png(figure, dpi=_DPI))
    return Chart(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", clean(caption), width)


def named(sections: Sequence[Section]) -> list[Section]:
    """Give every section an anchor, and every table the name of its CSV file; no two have the same."""
    anchors, files = _Names(), _Names()
    done = []
    for section in sections:
        anchor = anchors.take(section.title)
        tables = [replace(table, csv=f"{files.take(f'{anchor}-{table.title}')}.csv") for table in section.tables]
        done.append(replace(section, anchor=anchor, tables=tables))
    return done


class _Names:
    """Names for files and anchors: lower-case ASCII letters, digits and hyphens, none twice."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, text: str) -> str:
        plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].strip("-") or "part"
        name = next(n for n in _numbered(plain) if n not in self._taken)
        self._taken.add(name)
        return name


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def page(card: Card) -> str:
    """Write the page."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    text: str = _template().render(card=card, script=_SCRIPT, digest=digest)
    return text


@cache
def _template() -> jinja2.Template:
    import jinja2

    folder = Path(__file__).parent
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
    )  # fmt: skip
    environment.filters["clean"] = clean
    return environment.get_template("card.html.j2")


def csv_text(frame: pd.DataFrame) -> str:
    """Write a table as CSV (RFC 4180) with all its rows and digits.

    A text that a spreadsheet would take for a formula gets an apostrophe in front: names are other people's input.
    """
    safe: Any = frame.copy()
    for position, kind in enumerate(safe.dtypes):
        if kind.kind not in "biufcmM":
            safe.isetitem(position, [_plain_text(value) for value in safe.iloc[:, position]])
    text: str = safe.to_csv(index=False, lineterminator="\r\n")
    return text


def _plain_text(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
