"""A step as its faces see it: parameters, defaults, choices and help, read from its signature and NumPy docstring.

Imports the step's module only when a face is asked for; knows no step by name.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from qnb.errors import UnknownName
from qnb.faces.housekeeping import VERBS
from qnb.steps import STEPS, SUMMARIES
from qnb.values import Argument

REQUIRED: Any = inspect.Parameter.empty
BODY_KINDS = ("overrides", "config")
"""Kinds of `Argument` that a cell's body stands for."""

_PYTHON_KINDS = ("python", "example")
_SEQUENCES = (Sequence, list, tuple)
_WORDS = {
    "soc": "SOC",
    "runtime": "VERSION",
    "version": "VERSION",
    "folder": "FOLDER",
    "name": "NAME",
    "performance_mode": "MODE",
}
_SCALARS = {int: "N", float: "X", str: "TEXT", bool: ""}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a step.

    Attributes
    ----------
    name : str
        As in Python: ``per_channel``.
    hint : type
        Its annotation, without the marker and without None.
    default : object
        `REQUIRED` where there is none.
    place : {"positional", "many", "option"}
        How it is given; ``many`` is a step's ``*args``.
    marker : Argument or None
        Set where the value is an object, such as a model or data.
    type_text, help : str
        From the docstring.
    """

    name: str
    hint: Any
    default: Any
    place: Literal["positional", "many", "option"]
    marker: Argument | None = None
    type_text: str = ""
    help: str = ""

    @property
    def option(self) -> str:
        """How it is written as an option: ``--per-channel``."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def negative(self) -> str:
        """How a flag is turned off: ``--no-per-channel``; ``""`` for what is not a flag."""
        return f"--no-{self.name.replace('_', '-')}" if self.hint is bool else ""

    @property
    def required(self) -> bool:
        """Whether it has to be given."""
        return self.default is REQUIRED and self.place != "many"

    @cached_property
    def members(self) -> tuple[Any, ...]:
        """The types of which a value may be, a union taken apart."""
        return _members(self.hint)

    @cached_property
    def item(self) -> Any:
        """Type of one item where a sequence may be given, else None."""
        for member in self.members:
            if typing.get_origin(member) in _SEQUENCES and (arguments := typing.get_args(member)):
                return arguments[0]
        return None

    @property
    def alone(self) -> bool:
        """Whether a sequence of one may also be given as that one."""
        return any(member is str or member is int for member in self.members)

    @property
    def is_mapping(self) -> bool:
        """Whether it is a mapping of names to dimensions, written ``image=1x3x224x224``, or to numbers, ``SM8550=3.2``."""
        return self.marker is None and self.mapped is not None

    @cached_property
    def mapped(self) -> Any:
        """Type of the values where it is a mapping, else None."""
        mappings = [m for m in self.members if typing.get_origin(m) in (Mapping, dict)]
        return typing.get_args(mappings[0])[1] if mappings else None

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """The values it can take, where they are few."""
        source = _members(self.item) if self.item is not None else self.members
        return tuple(str(v) for m in source if typing.get_origin(m) is Literal for v in typing.get_args(m))

    @property
    def takes_path(self) -> bool:
        """Whether an object may also be given as a path."""
        return not self.needs_python and any(member in (str, Path, Any, object) for member in self.members)

    @property
    def needs_python(self) -> bool:
        """Whether only an object will do, such as a function or an executor: a notebook has such, a terminal has not."""
        return self.marker is not None and self.marker.kind in _PYTHON_KINDS

    @property
    def is_body(self) -> bool:
        """Whether a cell's body can stand for it."""
        return self.marker is not None and self.marker.kind in BODY_KINDS

    @property
    def metavar(self) -> str:
        """What stands for its value in a usage line."""
        if self.choices:
            return "|".join(self.choices)
        if self.marker is not None:
            return self.name.upper()
        if self.is_mapping:
            return "NAME=X" if self.mapped is float else "NAME=DIMS"
        if self.hint is bool:
            return ""
        if self.name in _WORDS:
            word = _WORDS[self.name]
            return f"{word},{word}" if self.item is not None else word
        scalar = self.item if self.item is not None else next((m for m in self.members if m in _SCALARS), str)
        word = _SCALARS.get(scalar, "TEXT")
        return f"{word},{word}" if self.item is not None else word

    @property
    def default_text(self) -> str:
        """The default as one would write it; ``""`` where it is None or there is none."""
        if self.default is REQUIRED or self.default is None:
            return ""
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        if isinstance(self.default, list | tuple):
            return ",".join(map(str, self.default))
        return str(self.default)


@dataclass(frozen=True)
class Face:
    """A step: its function, and all that its faces are made of."""

    name: str
    function: Callable[..., Any]
    summary: str
    description: str
    parameters: tuple[Parameter, ...]
    returns: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    examples: tuple[str, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Parameter]:
        """Parameters by their Python name."""
        return {p.name: p for p in self.parameters}

    @property
    def positionals(self) -> tuple[Parameter, ...]:
        """Parameters that are given by their place."""
        return tuple(p for p in self.parameters if p.place != "option")

    @property
    def body(self) -> Parameter | None:
        """The parameter for which a cell's body stands, if there is one."""
        return next((p for p in self.parameters if p.is_body), None)


def _members(hint: Any) -> tuple[Any, ...]:
    """Take a union apart, leaving out None."""
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (Union, types.UnionType):
        return tuple(m for a in typing.get_args(hint) if a is not type(None) for m in _members(a))
    return (hint,)


def _marker(hint: Any) -> Argument | None:
    """Find the marker, also inside ``Annotated[…] | None``."""
    if typing.get_origin(hint) is Annotated:
        return next((m for m in typing.get_args(hint)[1:] if isinstance(m, Argument)), None)
    if typing.get_origin(hint) in (Union, types.UnionType):
        return next((m for a in typing.get_args(hint) if (m := _marker(a))), None)
    return None


def _bare(hint: Any) -> Any:
    """Strip marker and None."""
    members = _members(hint)
    return members[0] if len(members) == 1 else Union[members]  # noqa: UP007 - built at run time


_PLACES: dict[Any, Literal["positional", "many", "option"]] = {
    inspect.Parameter.POSITIONAL_ONLY: "positional",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional",
    inspect.Parameter.VAR_POSITIONAL: "many",
    inspect.Parameter.KEYWORD_ONLY: "option",
}


def read(name: str, function: Callable[..., Any]) -> Face:
    """Make the face of a function that is written like a step."""
    import doctest

    import docstring_parser

    text = inspect.getdoc(function) or ""
    doc = docstring_parser.parse(text, style=docstring_parser.DocstringStyle.NUMPYDOC)
    helps: dict[str, tuple[str, str]] = {}
    for entry in doc.params:
        for one in entry.arg_name.split(","):
            helps[one.strip().lstrip("*")] = (_joined(entry.type_name), _joined(entry.description))
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = []
    for key, parameter in inspect.signature(function).parameters.items():
        hint = hints.get(key, Any)
        marker = _marker(hint)
        parameters.append(
            Parameter(key, _bare(hint), parameter.default, _PLACES[parameter.kind], marker, *helps.get(key, ("", "")))
        )
    returned = doc.returns
    return Face(
        name=name,
        function=function,
        summary=_joined(doc.short_description),
        description=_joined(doc.long_description),
        parameters=tuple(parameters),
        returns=f"{returned.type_name}. {_joined(returned.description)}" if returned else "",
        errors={str(r.type_name): _joined(r.description) for r in doc.raises},
        examples=tuple(e.source.rstrip() for e in doctest.DocTestParser().get_examples(text)),
    )


def _joined(text: str | None) -> str:
    """Undo a docstring's line breaks, but keep its paragraphs."""
    paragraphs = re.split(r"\n\s*\n", text.strip()) if text else []
    return "\n\n".join(" ".join(p.split()) for p in paragraphs)


def names() -> tuple[str, ...]:
    """All steps, in the order of the workflow."""
    return tuple(STEPS)


def verbs() -> tuple[str, ...]:
    """What is offered beside the steps."""
    return tuple(VERBS)


def summary(name: str) -> str:
    """Give the first line of a step, or of what is offered beside the steps, without importing a step."""
    return SUMMARIES[name] if name in SUMMARIES else first_line(VERBS[name])


def first_line(function: Callable[..., Any]) -> str:
    """Give the first line of a docstring."""
    return (inspect.getdoc(function) or "").partition("\n")[0]


@cache
def face(name: str) -> Face:
    """Find the face of a step, or of what is offered beside the steps, by name.

    Raises
    ------
    UnknownName
        If there is no such step.
    """
    if name in VERBS:
        return read(name, VERBS[name])
    if name not in STEPS:
        raise UnknownName.among("step", name, (*STEPS, *VERBS))
    module, _, function = STEPS[name].partition(":")
    return read(name, getattr(importlib.import_module(module), function))
