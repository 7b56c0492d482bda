"""Notebook variables by name: what a word on a magic's line means, and which variables fit a parameter.

Knows nothing of IPython beyond the namespace that it is given.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qnb.errors import BadInput, QnbError, UnknownName
from qnb.faces.binding import neighbours
from qnb.faces.face import Parameter

_HARMLESS = (
    ast.Expression,
    ast.Name,
    ast.Load,
    ast.Attribute,
    ast.Subscript,
    ast.Slice,
    ast.Constant,
    ast.Tuple,
    ast.UnaryOp,
    ast.USub,
)
_ARRAYS = ("data", "labels", "example")
_NOT_THE_USERS = ("In", "Out", "exit", "quit", "get_ipython", "open")


def resolve(parameter: Parameter, word: str, namespace: Mapping[str, Any]) -> Any:
    """Find what a word means: a variable, an item or attribute of one, or else a path.

    Parameters
    ----------
    parameter : Parameter
        The object-typed parameter that it is for.
    word : str
        Such as ``net``, ``batch[:8]``, ``contexts["SM8650"]`` or ``data/images``.
    namespace : mapping
        The notebook's variables.

    Raises
    ------
    UnknownName
        If it is neither; near names are given.
    BadInput
        If the expression fails.
    """
    expression = _expression(word)
    if expression is not None and _root(expression) in namespace:
        try:
            return eval(compile(expression, "<%qnn>", "eval"), {"__builtins__": {}}, _Names(namespace))
        except QnbError:
            raise
        except Exception as error:
            if (path := _path(parameter, word)) is not None:  # net.onnx is a file, also where net is a variable
                return path
            raise BadInput(
                f"{word}: {type(error).__name__}: {error}", hint="see what it gives in a cell of its own"
            ) from error
    if (path := _path(parameter, word)) is not None:
        return path
    raise _unknown(parameter, word, namespace)


def _path(parameter: Parameter, word: str) -> str | None:
    """Give the file or folder that a word names, if the parameter takes one and it is there."""
    path = Path(word).expanduser()
    # Path.exists raises for what is too long to be a name
    return str(path) if parameter.takes_path and os.path.exists(path) else None  # noqa: PTH110


class _Names(dict[str, Any]):
    """The namespace as `eval` wants it: a real mapping, also where it is a chain of them."""

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        super().__init__()
        self._namespace = namespace

    def __missing__(self, name: str) -> Any:
        return self._namespace[name]


def _expression(word: str) -> ast.Expression | None:
    """Parse names with attributes and indices; calls and other work are for cells."""
    try:
        tree = ast.parse(word, mode="eval")
    except (SyntaxError, ValueError):
        return None
    return tree if all(isinstance(node, _HARMLESS) for node in ast.walk(tree)) and _root(tree) else None


def _root(tree: ast.Expression) -> str:
    node: ast.expr = tree.body
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _unknown(parameter: Parameter, word: str, namespace: Mapping[str, Any]) -> QnbError:
    fitting = list(fitting_names(parameter, namespace))
    near = [*fitting, *neighbours(word)] if parameter.takes_path else fitting
    what = "variable or file" if parameter.takes_path else "variable"
    if "(" in word:
        hint = "a magic takes names, items and attributes; do the call in a cell, and name its result"
    elif fitting:
        hint = f"variables that fit {parameter.metavar}: {', '.join(fitting[:8])}"
    else:
        hint = f"no variable of this notebook fits {parameter.metavar} yet ({parameter.type_text or parameter.marker})"
    return UnknownName.among(what, word, near, hint=hint)


def fitting_names(parameter: Parameter, namespace: Mapping[str, Any]) -> Iterator[str]:
    """Names of the variables that fit a parameter, in alphabetical order."""
    for name in sorted(namespace):
        if not name.startswith("_") and name not in _NOT_THE_USERS and fits(parameter, namespace[name]):
            yield name


def fits(parameter: Parameter, value: object) -> bool:
    """Whether a value looks right for a parameter: by the names of its classes, or, for data, by its looks."""
    marker = parameter.marker
    if marker is None or isinstance(value, type):
        return False
    if {cls.__name__ for cls in type(value).__mro__} & set(marker.accepts):
        return True
    if marker.kind in _ARRAYS:
        return hasattr(value, "shape") and hasattr(value, "dtype")
    return marker.kind == "preprocess" and callable(value)
