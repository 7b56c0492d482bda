"""A docstring's Python example, rewritten as the magic or the command that does the same.

Works on syntax alone: nothing is evaluated. Knows nothing of notebooks and terminals.
"""

from __future__ import annotations

import ast
from typing import Literal

from qnb.faces.face import Face, Parameter


class _Untold(Exception):
    """The example holds something that a command line can't say."""


def rewritten(source: str, face: Face, form: Literal["magic", "command"]) -> str | None:
    """Rewrite a statement such as ``q = qnb.calibrate(model, batches, precision="w8a16")``.

    Parameters
    ----------
    source : str
        Python, one statement.
    face : Face
        The step that it calls.
    form : {"magic", "command"}
        ``q = %qnn calibrate model batches --precision w8a16``, or
        ``qnb calibrate model batches --precision w8a16 --out q``.

    Returns
    -------
    str or None
        None where the statement does not call the step, or says more than words can.
    """
    try:
        statement = ast.parse(source).body[0]
    except (SyntaxError, IndexError):
        return None
    target = ""
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        target = statement.targets[0].id
    elif not isinstance(statement, ast.Expr):
        return None
    call = statement.value
    if not isinstance(call, ast.Call) or ast.unparse(call.func).rpartition(".")[2] != face.name:
        return None
    try:
        words = [face.name, *_words(call, face)]
    except _Untold:
        return None
    if form == "magic":
        return " ".join([*([target, "="] if target else []), "%qnn", *words])
    return " ".join(["qnb", *words, *(["--out", target] if target else [])])


def _words(call: ast.Call, face: Face) -> list[str]:
    words = [_value(argument) for argument in call.args]
    for keyword in call.keywords:
        parameter = face.by_name.get(keyword.arg or "")
        if parameter is None:
            raise _Untold
        words += _option(parameter, keyword.value)
    return words


def _option(parameter: Parameter, value: ast.expr) -> list[str]:
    if parameter.negative:
        if not isinstance(value, ast.Constant):
            raise _Untold
        return [parameter.option if value.value else parameter.negative]
    if parameter.is_mapping:
        if not isinstance(value, ast.Dict):
            raise _Untold
        return [w for k, v in zip(value.keys, value.values, strict=True) for w in (parameter.option, _dimensions(k, v))]
    return [parameter.option, _value(value)]


def _dimensions(name: ast.expr | None, dims: ast.expr) -> str:
    if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
        raise _Untold
    if isinstance(dims, ast.Constant):
        return f"{name.value}={dims.value!r}"
    if not isinstance(dims, ast.Tuple | ast.List):
        raise _Untold
    return f"{name.value}={'x'.join(ast.unparse(d) for d in dims.elts)}"


def _value(value: ast.expr) -> str:
    if isinstance(value, ast.Constant):
        text = str(value.value)
        return f'"{text}"' if " " in text or not text else text
    if isinstance(value, ast.List | ast.Tuple):
        text = ",".join(_value(v).strip('"') for v in value.elts)
        return f'"{text}"' if " " in text else text
    if isinstance(value, ast.Name | ast.Attribute | ast.Subscript):
        return ast.unparse(value)
    raise _Untold
