"""Text that a person wrote, JSON or YAML, becomes a mapping, or an error that says where it is wrong.

Knows nothing of what the keys mean.
"""

from __future__ import annotations

import json
import re
from typing import Any

from qnb.errors import BadConfig


def read(text: str, what: str) -> dict[str, Any]:
    """Read keys and values.

    Parameters
    ----------
    text : str
        JSON if it begins with a brace, else YAML (safe: no objects). Numbers such as ``1e-3`` are numbers in both.
    what : str
        What it is, for messages: ``the overrides in the cell's body``, ``config.yaml``.

    Returns
    -------
    dict
        Plain values.

    Raises
    ------
    BadConfig
        With line and column (from 1) of the mistake; a key that comes twice is one.
    """
    value = _json(text, what) if text.lstrip().startswith(("{", "[")) else _yaml(text, what)
    if not isinstance(value, dict):
        kind = "empty" if value is None else f"a {type(value).__name__}"
        raise BadConfig(
            f"{what} must be keys and values, but it is {kind}",
            hint="write `key: value` lines, or JSON",
        )
    return {str(key): item for key, item in value.items()}


def _wrong(what: str, line: int, column: int, why: str, text: str) -> BadConfig:
    lines = text.splitlines()
    shown = f"\n    {lines[line - 1]}\n    {' ' * (column - 1)}^" if 0 < line <= len(lines) else ""
    return BadConfig(f"{what}, line {line}, column {column}: {why}{shown}", hint="mend that line")


def _json(text: str, what: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if key in made:
                line, column = _second(text, key)
                raise _wrong(what, line, column, f"{key!r} comes twice", text)
            made[key] = value
        return made

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        mistake = _wrong(what, error.lineno, error.colno, error.msg, text)
        try:
            return _yaml(text, what)  # YAML has braces as well
        except BadConfig:
            raise mistake from error


def _second(text: str, key: str) -> tuple[int, int]:
    """Line and column of the last place where `key` stands as a key."""
    *_, last = re.finditer(rf"{re.escape(json.dumps(key))}\s*:", text)
    before = text[: last.start()]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _yaml(text: str, what: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Safe, and strict about keys; YAML 1.1 alone would read ``1e-3`` as text."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[Any] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, str | int | float | bool) and key in seen:
                    mark = key_node.start_mark
                    raise _wrong(what, mark.line + 1, mark.column + 1, f"{key!r} comes twice", text)
                seen.add(key) if isinstance(key, str | int | float | bool) else None
            return super().construct_mapping(node, deep)

    number = re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = str(error.problem or error.context)
        raise _wrong(what, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1, why, text) from error
    except yaml.YAMLError as error:
        raise BadConfig(f"{what} is not YAML: {error}", hint="write `key: value` lines, or JSON") from error
