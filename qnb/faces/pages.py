"""Help pages: what is shown of a step, as text for terminals and as HTML for notebooks.

The HTML sets no colours of its own, so it reads the same on light and dark pages, and needs no style sheet, which
notebooks strip. Knows nothing of notebooks and terminals themselves.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from qnb.faces.examples import rewritten
from qnb.faces.face import Face, Parameter

Form = Literal["magic", "command"]

_WIDTH = 100
_COLUMN = 30
_LINE = "border:0;border-bottom:1px solid rgba(128,128,128,.3);background:none;color:inherit;"
_CELL = f"{_LINE}padding:.25em 1.2em .25em 0;text-align:left;vertical-align:top;"
_CODE = "font-family:var(--jp-code-font-family,monospace);background:none;color:inherit;padding:0;"
_PRE = f"{_CODE}margin:.3em 0 .6em;padding:.5em .8em;border-left:3px solid rgba(128,128,128,.4);white-space:pre-wrap;"
_FRAME = "color:inherit;font:13px/1.45 var(--jp-ui-font-family,system-ui,sans-serif);max-width:62em"


def plain(text: str) -> str:
    """Drop the marks of reStructuredText literals."""
    return re.sub(r"`{1,2}([^`]+)`{1,2}", r"\1", text)


def marked(text: str) -> str:
    """Escape a text for HTML; literals become code."""
    return re.sub(r"`{1,2}([^`]+)`{1,2}", rf'<code style="{_CODE}">\1</code>', escape(text, quote=False))


@dataclass(frozen=True)
class Row:
    """A line of a help page: what is written, in brief what it is, and what it does."""

    term: str
    brief: str = ""
    text: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a help page: rows, or lines of code."""

    title: str
    rows: tuple[Row, ...] = ()
    code: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """A help page, shown by notebooks as HTML and by terminals as text."""

    heading: str
    paragraphs: tuple[str, ...]
    sections: tuple[Section, ...]

    def __str__(self) -> str:
        return "\n".join(self._lines()).rstrip()

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        yield self.heading
        for paragraph in self.paragraphs:
            yield ""
            yield from textwrap.wrap(plain(paragraph), _WIDTH)
        for section in self.sections:
            yield ""
            yield section.title
            for row in section.rows:
                yield from _text_row(row)
            yield from (f"  {line}" for block in section.code for line in block.splitlines())

    def _repr_html_(self) -> str:
        parts = [
            f'<div style="{_FRAME}"><div style="{_CODE}font-weight:600;font-size:14px">{escape(self.heading)}</div>'
        ]
        parts += [f'<p style="margin:.5em 0">{marked(p)}</p>' for p in self.paragraphs]
        for section in self.sections:
            parts.append(f'<div style="font-weight:600;margin:.8em 0 .2em">{escape(section.title)}</div>')
            if section.rows:
                parts.append('<table style="border-collapse:collapse;border:0;margin:0;font-size:13px">')
                parts += [_html_row(row) for row in section.rows]
                parts.append("</table>")
            parts += [f'<pre style="{_PRE}">{escape(block)}</pre>' for block in section.code]
        return "".join([*parts, "</div>"])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": str(self), "text/html": self._repr_html_()}


def _text_row(row: Row) -> Iterator[str]:
    said = [s for s in (plain(row.brief), plain(row.text)) if s]
    right = [line for part in said for line in textwrap.wrap(part, _WIDTH - _COLUMN)]
    term = f"  {row.term}"
    if len(term) > _COLUMN - 2 or not right:
        yield term
    else:
        yield f"{term:<{_COLUMN}}{right.pop(0)}"
    yield from (" " * _COLUMN + line for line in right)


def _html_row(row: Row) -> str:
    brief = f'<span style="opacity:.75">{marked(row.brief)}</span>' if row.brief else ""
    said = "<br>".join(s for s in (brief, marked(row.text)) if s)
    # A long list of choices may break after a bar, nowhere else.
    term = escape(row.term).replace("|", "|<wbr>")
    return (
        f'<tr style="background:none"><td style="{_CELL}{_CODE}padding:.25em 1.2em .25em 0;max-width:22em">{term}</td>'
        f'<td style="{_CELL}">{said}</td></tr>'
    )


def usage(face: Face, form: Form) -> str:
    """Give the usage line: ``%qnn calibrate MODEL DATA [options]``."""
    words = [f"%qnn {face.name}" if form == "magic" else f"qnb {face.name}"]
    for parameter in face.positionals:
        word = parameter.metavar
        if parameter.place == "many":
            word = f"{word} …"
        words.append(word if parameter.required or parameter.place == "many" else f"[{word}]")
    words += [f"{p.option} {p.metavar}" for p in face.parameters if p.place == "option" and p.required]
    if any(p.place == "option" and not p.required for p in face.parameters):
        words.append("[options]")
    return " ".join(words)


def _row(parameter: Parameter) -> Row:
    if parameter.place == "option":
        term = f"{parameter.option} {parameter.metavar}".rstrip()
        if parameter.negative:
            term = parameter.negative if parameter.default is True else parameter.option
    else:
        term = parameter.metavar
    # A plain value's type shows in its metavar.
    briefs = [parameter.type_text] if parameter.marker is not None else []
    if parameter.negative:
        briefs += [f"{parameter.option} is the default"] if parameter.default is True else []
    elif parameter.is_mapping:
        briefs.append("such as image=1x3x224x224; once for each")
    elif parameter.item is not None:
        briefs.append("several: with commas, or the option again")
    briefs += [f"default {parameter.default_text}"] if parameter.default_text and not parameter.negative else []
    return Row(term, "; ".join(briefs), parameter.help)


def step_page(face: Face, extras: Sequence[Row] = ()) -> Page:
    """Write the help page of a step for notebooks; `extras` are options of the magic itself."""
    body = face.body
    sections = [Section("Arguments", tuple(_row(p) for p in face.positionals))] if face.positionals else []
    options = tuple(_row(p) for p in face.parameters if p.place == "option")
    sections.append(Section("Options", (*options, *extras)))
    if body is not None:
        note = f"`%%qnn {face.name} …` takes its lines, JSON or YAML, for `{body.option}`."
        sections.append(Section("Cell body", (Row(body.name.upper(), "", note),)))
    if face.returns:
        kind, _, text = face.returns.partition(". ")
        sections.append(Section("Gives", (Row(kind, "", text),)))
    if face.examples:
        lines = [line for e in face.examples if (line := rewritten(e, face, "magic"))]
        if lines:
            sections.append(Section("Examples", code=("\n".join(lines),)))
        sections.append(Section("The same in Python", code=("\n".join(face.examples),)))
    paragraphs = [face.summary, *(p for p in face.description.split("\n\n") if p)]
    return Page(usage(face, "magic"), tuple(paragraphs), tuple(sections))


def overview(heading: str, steps: Iterable[tuple[str, str]], sections: Iterable[Section], *, intro: str) -> Page:
    """Write the page that lists the steps in the order of the workflow."""
    table = Section("Steps", tuple(Row(name, "", text) for name, text in steps))
    return Page(heading, (intro,), (table, *sections))
