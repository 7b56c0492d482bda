"""From what was chosen for a step to the line that does the same: the inverse of `qnb.faces.binding`.

Choices are words, as one would write them on the line, so that a widget and a magic can't mean different things. Knows
nothing of notebooks and terminals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qnb.errors import BadInput, UnknownName
from qnb.faces.face import Face, Parameter

__all__ = ["Choices", "line", "tokens"]

Choices = Mapping[str, str | bool | Sequence[str]]
"""By parameter: a word, several of them, or whether a switch is on. What is empty is not said."""


def tokens(face: Face, choices: Choices) -> list[str]:
    """Give the words after the step's name.

    Parameters
    ----------
    face : Face
        The step.
    choices : mapping
        See `Choices`; what is the step's default is left out.

    Raises
    ------
    UnknownName
        If the step has no such parameter.
    BadInput
        If a place before a given one is empty.
    """
    for name in choices:
        if name not in face.by_name:
            raise UnknownName.among(f"option of {face.name}", name, face.by_name)
    words: list[str] = []
    empty = ""
    for parameter in face.positionals:
        given = _given(parameter, choices.get(parameter.name, ""))
        if given and empty:
            raise BadInput(f"{face.name}: {empty} is missing", hint=f"it stands before {parameter.metavar}")
        empty = empty or ("" if given else parameter.metavar)
        words += given
    for parameter in face.parameters:
        if parameter.place == "option":
            words += _option(parameter, choices.get(parameter.name, ""))
    return words


def line(face: Face, choices: Choices, target: str = "") -> str:
    """Give the line of a notebook: ``quantized = %qnn calibrate model images --precision w8a16``.

    Parameters
    ----------
    face : Face
        The step.
    choices : mapping
        See `tokens`.
    target : str
        Variable for the result.
    """
    words = ["%qnn", face.name, *(_quoted(word) for word in tokens(face, choices))]
    return " ".join([*([target, "="] if target else []), *words])


def _given(parameter: Parameter, value: str | bool | Sequence[str]) -> list[str]:
    if isinstance(value, bool):
        raise BadInput(f"{parameter.option} takes a value", hint=f"such as {parameter.option} {parameter.metavar}")
    if isinstance(value, str):
        value = value.split() if parameter.place == "many" or parameter.is_mapping else [value.strip()]
    return [word for word in value if word]


def _option(parameter: Parameter, value: str | bool | Sequence[str]) -> list[str]:
    if isinstance(value, bool):
        if not parameter.negative:
            raise BadInput(f"{parameter.option} takes a value", hint=f"such as {parameter.option} {parameter.metavar}")
        return [] if value is parameter.default else [parameter.option if value else parameter.negative]
    words = _given(parameter, value)
    if not words:
        return []
    if parameter.is_mapping:
        return [part for word in words for part in (parameter.option, word)]
    joined = ",".join(words)
    return [] if joined == parameter.default_text else [parameter.option, joined]


def _quoted(word: str) -> str:
    """Hold a word together where a line would part it, or take it for a comment or for a quote's begin."""
    if not word or any(c.isspace() for c in word) or word[0] in "#\"'":
        quote = "'" if '"' in word else '"'
        return f"{quote}{word}{quote}"
    return word
