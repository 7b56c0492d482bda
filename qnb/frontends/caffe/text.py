"""Where things stand in a prototxt: the line of each layer, and fields that no reader here knows.

One pass over the words of the text, before protobuf's own parser: that one reports no positions of what it accepts, and
goes as deep as the text does. Knows nothing of layers' meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from qnb.errors import ExportError
from qnb.frontends.caffe.schema import known_fields

__all__ = ["Outline", "outline"]

_MAX_DEPTH = 30
"""Caffe's own messages nest five deep."""

_WORDS = re.compile(
    r"""(?P<line>\n) | [^\S\n]+ | \#[^\n]* | (?P<text>"(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*')
      | (?P<mark>[{}<>\[\]:;,]) | (?P<word>[^\s{}<>\[\]:;,"'\#]+) | (?P<stray>["'])""",
    re.VERBOSE,
)


@dataclass
class Outline:
    """What stands where.

    Attributes
    ----------
    lines : dict of str to list of int
        Line of each ``layer`` and ``layers`` block, in order, from 1.
    strangers : dict of int to dict
        By that line, as keys: fields in the blocks of parameters (``convolution_param.foo``) that are not in the schema.
    """

    lines: dict[str, list[int]] = field(default_factory=lambda: {"layer": [], "layers": []})
    strangers: dict[int, dict[str, None]] = field(default_factory=dict)


def outline(text: str, called: str) -> Outline:
    """Walk through a prototxt.

    Raises
    ------
    ExportError
        If it nests absurdly deep, or braces or quotes don't match; with the line.
    """
    found = Outline()
    line, name = 1, ""
    open_blocks: list[tuple[str, int, str]] = []  # name, line, closing mark
    messages: list[str | None] = ["NetParameter"]  # of each open block, where it is known
    for match in _WORDS.finditer(text):
        kind, word = match.lastgroup, match[0]
        if kind == "line":
            line += 1
        elif kind == "stray":
            raise ExportError(
                f"{called}, line {line}: a quote is not closed", hint="put the closing quote in its place"
            )
        elif kind == "word":
            name = word
        elif word in ("{", "<"):
            open_blocks.append((name, line, "}" if word == "{" else ">"))
            if len(open_blocks) > _MAX_DEPTH:
                raise ExportError(
                    f"{called}, line {line}: blocks nest more than {_MAX_DEPTH} deep", hint="this is no Caffe network"
                )
            if len(open_blocks) == 1 and name in found.lines:
                found.lines[name].append(line)
            messages.append(_message(messages[-1], name, open_blocks, found))
        elif word in ("}", ">"):
            if not open_blocks or open_blocks[-1][2] != word:
                raise ExportError(f"{called}, line {line}: {word!r} closes nothing", hint="see the braces before it")
            open_blocks.pop()
            messages.pop()
        elif word == ":" and name:
            _message(messages[-1], name, [*open_blocks, (name, line, "")], found)
    if open_blocks:
        name, line, _ = open_blocks[0]
        raise ExportError(
            f"{called} ends inside the block {name!r} that line {line} opens",
            hint="it was cut short, or a closing brace is missing: copy or download it again",
        )
    return found


def _message(parent: str | None, name: str, path: list[tuple[str, int, str]], found: Outline) -> str | None:
    """Give the type of the field's message; note the field where its parent is known to have none of that name."""
    if parent is None:
        return None
    fields = known_fields(parent)
    if name not in fields and len(path) > 2 and path[0][0] in found.lines and path[1][0].endswith("_param"):
        found.strangers.setdefault(path[0][1], {})[".".join(step[0] for step in path[1:])] = None
    kind = fields.get(name, "")
    return kind if kind[:1].isupper() and kind.endswith(("Parameter", "Shape", "Rule", "State", "Spec")) else None
