"""Checks of what stands in an encoding file: each gives the value, or says which tensor and key can't be used, and why.

Knows nothing of the formats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnb.errors import BadConfig, UnknownName
from qnb.quant.encodings import BITS

SHAPE_HINT = "activation_encodings and param_encodings hold tensors by name (version 2.0.0: a list named encodings)"


def known_keys(entry: Mapping[Any, Any], known: set[str], origin: str, where: str) -> None:
    """Refuse a key that is not `known`, with near ones."""
    for key in entry:
        if key not in known:
            near = UnknownName.among("key", key, sorted(known))
            raise BadConfig(f"{origin}: {where}: {near.what} ({entry[key]!r})"[:300], hint=near.hint)


def lacking(origin: str, name: str, keys: set[str], hint: str = "add it") -> BadConfig:
    """Give the error of keys that are not there."""
    return BadConfig(f"{origin}: tensor {name!r}: no {' and no '.join(sorted(keys))}", hint=hint)


def blockwise(origin: str, name: str) -> BadConfig:
    """Give the error of a grid per block."""
    return BadConfig(
        f"{origin}: tensor {name!r}: a grid per block",
        hint="qnb takes grids per tensor and per channel: export one of them",
    )


def mapping(entry: Any, origin: str, name: str) -> Mapping[str, Any]:
    """Give an entry that is a mapping."""
    if isinstance(entry, Mapping):
        return entry
    raise BadConfig(f"{origin}: tensor {name!r}: not an encoding but {entry!r}"[:300], hint="an encoding is a mapping")


def listed(body: Any, origin: str, section: str) -> list[Any]:
    """Give a section that is a list."""
    if isinstance(body, list) or not body:
        return body or []
    raise BadConfig(
        f"{origin}: {section} is not a list", hint="from 1.0.0 on encodings are a list of mappings with a name"
    )


def name_of(entry: Any, origin: str) -> str:
    """Give an entry's tensor name."""
    name = mapping(entry, origin, "?").get("name")
    if isinstance(name, str):
        return name
    raise BadConfig(f"{origin}: an encoding without a name: {entry!r}"[:300], hint="add the tensor's name")


def bits_of(value: Any, origin: str, name: str, key: str) -> int:
    """Give a bit width."""
    if isinstance(value, int) and not isinstance(value, bool) and value in BITS:
        return value
    raise BadConfig(f"{origin}: {name!r}: {key} is {value!r}", hint=f"use one of {', '.join(map(str, BITS))}")


def flag(value: Any, origin: str, name: str, key: str) -> bool:
    """Give a truth value, which older formats write as text."""
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise BadConfig(f"{origin}: tensor {name!r}: {key} is {value!r}", hint="write True or False")


def is_float(value: Any, origin: str, name: str) -> bool:
    """Give whether a dtype, int or float, is float."""
    if str(value).lower() in ("int", "float"):
        return str(value).lower() == "float"
    raise BadConfig(f"{origin}: tensor {name!r}: dtype is {value!r}", hint="write int or float")


def numbers(value: Any, origin: str, name: str, key: str) -> NDArray[np.float64]:
    """Give finite numbers as an array, shape [C]; offsets are whole."""
    values = value if isinstance(value, list) else [value]
    good = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    if good and values and (key != "offset" or all(v == int(v) for v in values)):
        return np.array(values, dtype=np.float64)
    shown = values[0] if len(values) == 1 else value
    kind = "whole numbers" if key == "offset" else "finite numbers"
    raise BadConfig(f"{origin}: tensor {name!r}: {key} is {shown!r}"[:300], hint=f"give {kind}")
