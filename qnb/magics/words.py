"""The words of a magic's line.

As in a shell, spaces part words and quotes hold them together; other than there, brackets do so too, so that
``batch[:8, 0]`` and ``contexts["Snapdragon 8 Gen 3"]`` are one word each and keep their quotes. A backslash is just a
backslash: paths of Windows need no care. Knows nothing of steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from qnb.errors import BadInput

_CLOSING = {"[": "]", "(": ")", "{": "}"}


@dataclass(frozen=True)
class Word:
    """One word: its meaning, and where it stands in the line."""

    text: str
    start: int
    end: int
    waits_for: str = ""
    """The quote or bracket that would close it."""


def split(line: str) -> list[Word]:
    """Split a line, forgiving what is not closed; what follows a ``#`` is a comment."""
    words = []
    at = 0
    while at < len(line):
        if line[at].isspace():
            at += 1
        elif line[at] == "#":
            break
        else:
            words.append(_word(line, at))
            at = words[-1].end
    return words


def _word(line: str, start: int) -> Word:
    text = ""
    brackets: list[str] = []
    quote = ""
    at = start
    while at < len(line):
        char = line[at]
        if quote:
            if char != quote or brackets:
                text += char
            if char == quote:
                quote = ""
        elif char in "\"'" and (brackets or at == start or line[at - 1] in "=,:"):
            quote = char
            text += char if brackets else ""
        elif not brackets and char.isspace():
            break
        else:
            if char in _CLOSING:
                brackets.append(_CLOSING[char])
            elif brackets and char == brackets[-1]:
                brackets.pop()
            text += char
        at += 1
    return Word(text, start, at, quote or "".join(brackets[-1:]))


def texts(line: str) -> list[str]:
    """Split a line into its words' texts.

    Raises
    ------
    BadInput
        If a quote or a bracket is not closed.
    """
    words = split(line)
    for word in words:
        if word.waits_for:
            raise BadInput(f"{line[word.start : word.end]!r} is not closed", hint=f"a {word.waits_for} is missing")
    return [word.text for word in words]
