"""Looks at PyTorch's archives before torch does: it runs parts of a ``.pt2`` as Python, and TorchScript can write files.

Runs nothing. Knows the outside of the formats; no framework.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qnb.errors import ExportError

__all__ = ["check_program", "check_script"]

MAX_JSON_BYTES = 256 << 20
"""Of a program's description: one of a thousand layers has some 2 MB."""

_TRUST = "pass trust=True if you know where the file comes from"

# --- TorchScript -----------------------------------------------------------------------------------------------------

_FILE_OPS = re.compile(r"\b(save|from_file)\b")  # the ops that touch files; torch has no others in its own namespace
_SPELT = re.compile(r"""\bgetattr\s*\(([^()]|\([^()]*\))*?(\\|"\s*"|'\s*')""")  # a name put together from pieces
_NAMESPACE = re.compile(r"\bops\s*\.\s*(\w+)")
_NAMESPACES = {"aten", "prim", "prims", "quantized", "torchvision"}


def check_script(path: Path, members: list[str]) -> None:
    """Refuse a TorchScript archive whose code reads or writes files, or calls other libraries' ops.

    Parameters
    ----------
    path : pathlib.Path
        The archive.
    members : list of str
        Its names, as `qnb.frontends.archives.check_zip` gives them.

    Raises
    ------
    ExportError
        If so; names the member and what it calls.
    """
    for name, data in _members(path, [name for name in members if name.endswith(".py")]):
        code = data.decode("utf-8", errors="replace")
        if found := _FILE_OPS.search(code):
            raise ExportError(
                f"{path} names {found.group()!r} in its code ({name}), with which TorchScript reads or writes files",
                hint=f"export the original torch.nn.Module; or {_TRUST}",
            )
        if _SPELT.search(code):
            raise ExportError(f"{path} hides a name in its code ({name})", hint=_TRUST)
        if odd := set(_NAMESPACE.findall(code)) - _NAMESPACES:
            raise ExportError(
                f"{path} calls ops of another library in its code ({name}): {', '.join(sorted(odd))}",
                hint=f"export the original torch.nn.Module; or {_TRUST}",
            )


def _members(path: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                if archive.getinfo(name).file_size > MAX_JSON_BYTES:
                    raise ExportError(
                        f"{path} holds a text of {archive.getinfo(name).file_size:,} bytes ({name}): that is no model",
                        hint="copy or download it again, from a place that you trust",
                    )
                yield name, archive.read(name)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise ExportError(f"{path} is a damaged archive: {error}", hint="copy or download it again") from error


# --- torch.export ----------------------------------------------------------------------------------------------------

# what ends up in code that torch writes and runs: names
_NAME = re.compile(r"[\w.:/$<>\[\] -]*")
_ARGUMENT = re.compile(r"\*{0,2}\w+")
_TARGET = re.compile(r"(torch\.ops(\.\w+)+|_operator\.\w+|math\.\w+|torch\.sym_\w+|torch\._sym_\w+)|#?\w*")
# what torch keeps as text, or compares, without running it
_TEXTS = {"as_string", "as_strings", "metadata", "torch_version", "guards_code"}
_SPECS = {"in_spec", "out_spec"}
_PLAIN = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.keyword, ast.Name, ast.Load),
    *(ast.Constant, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.Tuple),
)

_FUNCTIONS = {"floor", "ceiling", "sqrt", "log", "exp", "max", "min", "abs"}
_POWERS = {"Pow", "PowByNatural", "LShift"}
_TOO_MANY = 4


def check_program(path: Path, members: list[str]) -> None:
    """Refuse a ``torch.export`` archive that holds more than a graph and tensors.

    torch evaluates the expressions of symbolic sizes as Python, writes the names in the graph into code that it runs, loads
    the libraries that AOTInductor has compiled into the archive, and unpickles what it does not know.

    Parameters
    ----------
    path : pathlib.Path
        The archive.
    members : list of str
        Its names, as `qnb.frontends.archives.check_zip` gives them.

    Raises
    ------
    ExportError
        If so; names the member and what is in it.
    """
    for name in members:
        parts = name.split("/")
        if parts[-1].startswith("opaque_obj") or parts[-1].startswith("custom_obj"):
            raise ExportError(f"{path} holds pickled Python objects ({name}), which run code when read", hint=_TRUST)
        if "aotinductor" in parts or parts[-1].endswith((".so", ".dll", ".dylib", ".pyd")):
            raise ExportError(
                f"{path} holds compiled code ({name}), which runs when the file is read",
                hint=f"save the program again with torch.export.save; or {_TRUST}",
            )
    for name, data in _members(path, [name for name in members if name.endswith(".json")]):
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ExportError(f"{path} is damaged: {name}: {error}", hint="copy or download it again") from error
        for key, text in _strings(content):
            if not _harmless(key, text):
                raise ExportError(
                    f"{path} holds something other than a name or a size ({name}, {key}): {text[:80]!r}",
                    hint=f"torch would run it as code: export the model again; or {_TRUST}",
                )


def _strings(value: Any) -> Iterator[tuple[str, str]]:
    """Yield every string with the key that it stands under, and the keys; without recursion: depth is the file's choice."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        key, item = waiting.pop()
        if isinstance(item, str):
            yield key, item
        elif isinstance(item, list):
            waiting.extend((key, inner) for inner in item)
        elif isinstance(item, dict):
            for inner, content in item.items():
                yield "a key", inner
                waiting.append((key if key in _TEXTS else inner, content))


def _harmless(key: str, text: str) -> bool:
    if key in _TEXTS:
        return True
    if key in _SPECS:
        return _harmless_spec(text)
    if key == "expr_str":
        return _harmless_expression(text)
    if key == "target":
        return bool(_TARGET.fullmatch(text)) and not _FILE_OPS.search(text)
    return bool((_ARGUMENT if key == "forward_arg_names" else _NAME).fullmatch(text))


def _harmless_spec(text: str) -> bool:
    """Say whether the description of nested arguments has no factories, which are imported and called."""
    return not text or ("default_factory" not in text and "\\u" not in text)


def _harmless_expression(text: str) -> bool:
    """Say whether it is arithmetic of numbers, symbols and sympy's classes, with no powers that grow without end."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    powers = 0
    for node in ast.walk(tree):
        if not isinstance(node, _PLAIN):
            return False
        if isinstance(node, ast.Name) and "__" in node.id:
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isidentifier():
            return False
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or not (node.func.id[0].isupper() or node.func.id in _FUNCTIONS):
                return False
            if node.func.id in _POWERS:
                powers += 1 if len(node.args) == 2 and _small(node.args[1]) else _TOO_MANY
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift):
            powers += 1 if _small(node.right) else _TOO_MANY
    return powers < _TOO_MANY


def _small(exponent: ast.AST) -> bool:
    if isinstance(exponent, ast.Call) and len(exponent.args) == 1:  # Integer(2)
        exponent = exponent.args[0]
    return isinstance(exponent, ast.Constant) and isinstance(exponent.value, int) and 0 <= exponent.value <= 16
