"""Checks of what stands in an encoding file: each gives the value, or names the field that can't be used, and says why.

Written by hand and not as a JSON schema: what is allowed depends on the version, on the section and on other fields (signs,
counts, ranges against grids), which a schema either can't say or reports as "not valid under any of the given schemas".

Knows nothing of the formats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnb.errors import BadConfig, UnknownName
from qnb.quant.encodings import BITS

SHAPE_HINT = "activation_encodings and param_encodings hold tensors by name (version 2.0.0: a list named encodings)"


@dataclass(frozen=True)
class Place:
    """A place in a file, for messages: ``file: encodings[3].y_scale``.

    Parameters
    ----------
    origin : str
        The file.
    path : str
        Where in it, such as ``encodings[3]``; empty for its top level.
    tensor : str, optional
        Whose encoding it is, where the path doesn't say.
    """

    origin: str
    path: str = ""
    tensor: str = ""

    def at(self, key: str | int, tensor: str = "") -> Place:
        """Give the place of an entry of this one: a key, a number in a list, or the name of `tensor`."""
        plain = isinstance(key, str) and key != tensor
        step = (f".{key}" if self.path else str(key)) if plain else f"[{key!r}]"
        return Place(self.origin, self.path + step, tensor or self.tensor)

    def error(self, what: str, hint: str) -> BadConfig:
        """Give the error of what stands here."""
        whose = f" (tensor {self.tensor!r})" if self.tensor and repr(self.tensor) not in self.path else ""
        where = f"{self.path}{whose}: " if self.path else ""
        return BadConfig(f"{self.origin}: {where}{what}"[:400], hint=hint)

    def wrong(self, value: Any, hint: str) -> BadConfig:
        """Give the error of a value that can't stand here."""
        whose = f" (tensor {self.tensor!r})" if self.tensor and repr(self.tensor) not in self.path else ""
        return BadConfig(f"{self.origin}: {self.path} is {value!r}"[:400] + whose, hint=hint)

    def lacking(self, keys: set[str], hint: str = "add it") -> BadConfig:
        """Give the error of keys that are not there."""
        return self.error(f"no {' and no '.join(sorted(keys))}", hint)


def known_keys(entry: Mapping[Any, Any], known: set[str], place: Place) -> None:
    """Refuse a key that is not `known`, with near ones."""
    for key in entry:
        if key not in known:
            near = UnknownName.among("key", key, sorted(known))
            raise place.error(f"{near.what} ({entry[key]!r})", near.hint)


def mapping(entry: Any, place: Place) -> Mapping[str, Any]:
    """Give an entry that is a mapping."""
    if isinstance(entry, Mapping):
        return entry
    raise place.error(f"not an encoding but {entry!r}", "an encoding is a mapping")


def listed(body: Any, place: Place) -> list[Any]:
    """Give a section that is a list."""
    if isinstance(body, list) or not body:
        return body or []
    raise place.error("not a list", "from 1.0.0 on encodings are a list of mappings with a name")


def name_of(entry: Any, place: Place) -> str:
    """Give an entry's tensor name."""
    name = mapping(entry, place).get("name")
    if isinstance(name, str):
        return name
    raise place.error(f"an encoding without a name: {entry!r}", "add the tensor's name")


def whole(value: Any, place: Place, least: int = 1) -> int:
    """Give a whole number that is at least `least`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise place.wrong(value, f"give a whole number from {least} on")


def bits_of(value: Any, place: Place) -> int:
    """Give a bit width."""
    if isinstance(value, int) and not isinstance(value, bool) and value in BITS:
        return value
    raise place.wrong(value, f"use one of {', '.join(map(str, BITS))}")


def flag(value: Any, place: Place) -> bool:
    """Give a truth value, which older formats write as text."""
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise place.wrong(value, "write True or False")


def is_float(value: Any, place: Place) -> bool:
    """Give whether a dtype, int or float, is float."""
    if str(value).lower() in ("int", "float"):
        return str(value).lower() == "float"
    raise place.wrong(value, "write int or float")


def numbers(value: Any, place: Place, *, integers: bool = False) -> NDArray[np.float64]:
    """Give finite numbers as an array: of shape [C], or of the shape in which the lists are nested."""
    flat = _flattened(value)
    good = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in flat)
    if good and flat and (not integers or all(v == int(v) for v in flat)):
        try:
            return np.atleast_1d(np.array(value, dtype=np.float64))
        except ValueError:  # lists of different lengths
            raise place.error("lists of different lengths", "give as many values along an axis everywhere") from None
    raise place.wrong(flat[0] if len(flat) == 1 else value, f"give {'whole' if integers else 'finite'} numbers")


def _flattened(value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    return [number for part in value for number in _flattened(part)]
