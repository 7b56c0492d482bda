"""One step as a card: its fields, the line that they make, and running that line.

A field holds a word as one would write it on the line, and running parses these words as the magic does, so that the card,
the line that it shows and a cell with that line can't differ. Knows nothing of how a card is shown.
"""

from __future__ import annotations

import keyword
import os
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from qnb.errors import BadInput, QnbError, UnknownName
from qnb.faces import face as faces
from qnb.faces import lines, names, pages
from qnb.faces.face import Face, Parameter

__all__ = ["Card", "Field", "Namespace", "Word", "free_name", "held_as", "name_of"]

Namespace = MutableMapping[str, Any]
Word = str | bool | list[str]
Kind = Literal["text", "choice", "several", "flag"]


@dataclass
class Field:
    """A parameter of the step that can be chosen.

    Attributes
    ----------
    parameter : Parameter
    value : str, bool or list of str
        What is chosen: empty for the step's default.
    options : sequence of (str, str)
        What can be chosen: word, and what is read there; empty where anything can be written.
    """

    parameter: Parameter
    value: Word = ""
    options: Sequence[tuple[str, str]] = ()

    @property
    def kind(self) -> Kind:
        """How it is chosen."""
        if isinstance(self.value, bool):
            return "flag"
        if isinstance(self.value, list):
            return "several"
        return "choice" if self.options else "text"

    def checked(self, value: object) -> Word:
        """Give a value of this field's kind.

        Raises
        ------
        BadInput
            If it is of another.
        """
        if isinstance(self.value, bool) and isinstance(value, bool):
            return value
        if isinstance(self.value, list) and isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            return [*value]
        if isinstance(self.value, str) and isinstance(value, str):
            return value.strip()
        wanted = {"flag": "True or False", "several": "a list of words"}.get(self.kind, "a word")
        raise BadInput(f"{self.parameter.name}: {value!r}", hint=f"give {wanted}, as one would write it on the line")

    def plain(self, namespace: Namespace) -> dict[str, Any]:
        """Give it as plain values."""
        parameter = self.parameter
        fitting = [] if parameter.marker is None else list(names.fitting_names(parameter, namespace))
        default = parameter.default_text
        return {
            "name": parameter.name,
            "label": parameter.name.replace("_", " "),
            "kind": self.kind,
            "value": self.value,
            "options": [list(option) for option in self.options],
            "suggestions": fitting[:50],
            "placeholder": f"default: {default}" if default else "" if parameter.required else "not given",
            "help": pages.plain(parameter.help),
        }


def _field(parameter: Parameter) -> Field:
    options = [(choice, choice) for choice in parameter.choices]
    if isinstance(parameter.default, bool):
        return Field(parameter, parameter.default)
    if options and parameter.item is not None:
        default = parameter.default if isinstance(parameter.default, list | tuple) else ()
        return Field(parameter, [str(value) for value in default], options)
    if options:
        said = f"default ({parameter.default_text})" if parameter.default_text else "as the step chooses"
        return Field(parameter, "", [("", said), *((o, t) for o, t in options if o != parameter.default_text)])
    return Field(parameter)


@dataclass
class Card:
    """A step that can be run again and again; without an action, a result alone.

    Attributes
    ----------
    id : str
        Name of the card, and of its step.
    title : str
    target : str
        Variable that the result gets.
    fields : dict of str to Field
    result : object
        What the step answered last.
    """

    id: str
    title: str
    target: str
    fields: dict[str, Field]
    result: Any = None
    action: str = "Run"
    edited: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, step: str, title: str, target: str, chosen: Iterable[str], *, action: str = "Run") -> Card:
        """Make the card of a step with some of its parameters."""
        face = faces.face(step)
        return cls(step, title, target, {name: _field(face.by_name[name]) for name in chosen}, action=action)

    @property
    def face(self) -> Face:
        """The step."""
        return faces.face(self.id)

    def set(self, name: str, value: object) -> None:
        """Choose a parameter, or with ``target`` the variable.

        Raises
        ------
        UnknownName
            If there is no such field.
        BadInput
            If it is no such value, or can't name a variable.
        """
        if name == "target":
            if not isinstance(value, str) or not value.isidentifier() or keyword.iskeyword(value):
                raise BadInput(f"{value!r} can't name a variable", hint="letters, digits and _, such as quantized")
            self.target = value
            return
        if name not in self.fields:
            raise UnknownName.among(f"field of {self.id}:", name, [*self.fields, "target"])
        self.fields[name].value = self.fields[name].checked(value)
        self.edited.add(name)

    @property
    def choices(self) -> dict[str, Word]:
        """What is chosen, by parameter."""
        return {name: chosen.value for name, chosen in self.fields.items()}

    @property
    def line(self) -> str:
        """The line that does the same; what is missing stands there in capitals."""
        if not self.action:
            return ""
        try:
            missing = [p for p in self.face.positionals if p.required and not self.fields[p.name].value]
            return lines.line(self.face, self.choices | {p.name: p.metavar for p in missing}, self.target)
        except QnbError:
            return f"{self.target} = {pages.usage(self.face, 'magic')}"

    def run(self, namespace: Namespace) -> Any:
        """Do what the line does, and put the result into the namespace.

        Raises
        ------
        QnbError
            What the words lack, or what the step raises.
        """
        from qnb.faces.binding import parse

        def resolve(parameter: Parameter, word: str) -> Any:
            return names.resolve(parameter, word, namespace)

        args, kwargs = parse(
            self.face, lines.tokens(self.face, self.choices), resolve, usage=pages.usage(self.face, "magic")
        )
        result = self.face.function(*args, **kwargs)
        namespace[self.target] = result
        self.result = result
        return result

    def plain(self, namespace: Namespace) -> dict[str, Any]:
        """Give it as plain values."""
        return {
            "id": self.id,
            "title": self.title,
            "summary": pages.plain(self.face.summary) if self.action else "",
            "target": self.target,
            "fields": [chosen.plain(namespace) for chosen in self.fields.values()],
            "line": self.line,
            "action": self.action,
        }


def name_of(value: object, namespace: Namespace) -> str:
    """Give the variable that holds this very object; ``""`` if none does."""
    found = (name for name, held in list(namespace.items()) if held is value and not name.startswith("_"))
    return next(found, "")


def free_name(wanted: str, namespace: Namespace) -> str:
    """Give a name that is not taken: `wanted`, or with a number."""
    number, name = 1, wanted
    while name in namespace:
        number += 1
        name = f"{wanted}{number}"
    return name


def held_as(value: object, wanted: str, namespace: Namespace) -> str:
    """Give the word for a value: its path, its variable, or a new variable for it."""
    if isinstance(value, str | os.PathLike):
        return str(value)
    name = name_of(value, namespace) or free_name(wanted, namespace)
    namespace[name] = value
    return name
