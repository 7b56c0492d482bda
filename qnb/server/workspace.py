"""What of qnb's lies under the server's root: models and saved results, and what was made from what.

Reads names, and the ``result.json`` of saved results; loads nothing. Knows nothing of HTTP.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qnb.results import KINDS

_RESULT = "result.json"
_MAX_JSON = 8 << 20
_MAX_NAMES = 50_000
_FILES = {
    ".onnx": "onnx",
    ".dlc": "dlc",
    ".encodings": "encodings",
    ".encodings.json": "encodings",
    ".bin": "context binary",
}
_DIGEST = re.compile(r"\b([0-9a-f]{12}|[0-9a-f]{64})\b")
_SKIPPED = {"node_modules", "__pycache__", "site-packages"}


def search(root: Path, *, hidden: bool, depth: int, most: int, seconds: float) -> dict[str, Any]:
    """Look for models and saved results; links are not followed.

    Parameters
    ----------
    root : Path
    hidden : bool
        Whether folders and files whose names begin with a dot count.
    depth : int
        How many folders deep to look.
    most : int
        How many entries to give.
    seconds : float
        After which to stop.

    Returns
    -------
    dict
        ``root``, ``entries``, and ``cut``: whether there may be more.
    """
    end = time.monotonic() + seconds
    entries: list[dict[str, Any]] = []
    names, cut = 0, False
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        deep = len(here.relative_to(root).parts)
        folders[:] = sorted(f for f in folders if (hidden or not f.startswith(".")) and f not in _SKIPPED)
        names += len(folders) + len(files)
        if _RESULT in files and (saved := _result(root, here)) is not None:
            entries.append(saved)
            folders.clear()  # what is in it belongs to it
        else:
            visible = sorted(f for f in files if hidden or not f.startswith("."))
            entries += filter(None, (_file(root, here / name) for name in visible))
        if deep >= depth and folders:
            folders.clear()
            cut = True
        if len(entries) > most or names > _MAX_NAMES or time.monotonic() > end:
            cut = True
            break
    return {"root": str(root), "entries": entries[:most], "cut": cut}


def _entry(root: Path, path: Path, kind: str, title: str, **more: Any) -> dict[str, Any]:
    blank: dict[str, Any] = {"digest": None, "soc": None, "calibration": None, "parents": [], "made": None, "bytes": 0}
    return {"path": path.relative_to(root).as_posix(), "kind": kind, "title": title, **blank, **more}


def _file(root: Path, path: Path) -> dict[str, Any] | None:
    lower = path.name.lower()
    kind = next((kind for suffix, kind in _FILES.items() if lower.endswith(suffix)), None)
    if kind is None or path.is_symlink():
        return None
    if kind == "context binary" and not lower.endswith("_qnn.bin") and not list(path.parent.glob("*.onnx")):
        return None  # many things are called .bin
    try:
        status = path.stat()
    except OSError:
        return None
    made = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds")
    return _entry(root, path, kind, path.name, made=made, bytes=status.st_size)


def _result(root: Path, folder: Path) -> dict[str, Any] | None:
    """Read what a saved result says of itself; None if it is none."""
    try:
        content = _read(folder / _RESULT)
        fields: Mapping[str, Any] = content["fields"]
        if content["kind"] not in KINDS:
            return None
        recipe = fields["recipe"]["fields"]
        asked = dict(recipe["arguments"]["$map"])
        size = sum(file.lstat().st_size for file in folder.rglob("*"))
        soc = fields["soc"]["fields"]["part"] if isinstance(fields.get("soc"), dict) else asked.get("soc")
        return _entry(
            root,
            folder,
            content["kind"],
            str(content["title"]),
            digest=_text(fields.get("digest")),
            soc=_text(soc),
            calibration=_text(asked.get("data")),
            parents=list(dict.fromkeys(_parents(folder, fields, asked))),
            made=_text(recipe["created"]),
            bytes=size,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _read(path: Path) -> Any:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_JSON:
        raise ValueError("not a result that is read")
    return json.loads(path.read_bytes())


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _parents(folder: Path, fields: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    """Give the digests of what it was made from: of the results inside it, else those (cut) that its recipe names."""
    inside = []
    for name in ("parent", "build", "best"):
        where = fields.get(name)
        if isinstance(where, dict) and isinstance(where.get("$result"), str):
            path = (folder / where["$result"] / _RESULT).resolve()
            if path.is_relative_to(folder.resolve()):
                inside.append(_text(_read(path)["fields"].get("digest")))
    yield from filter(None, inside)
    if not any(inside):
        for value in asked.values():
            for text in value if isinstance(value, list) else [value]:
                yield from _DIGEST.findall(text) if isinstance(text, str) else ()
