"""Looks at archives before anything else reads them: sizes that are plausible, names that stay inside, no code in them.

Runs nothing and unpacks nothing. Knows the outside of Keras's formats; no framework.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from qnb.errors import ExportError

__all__ = ["check_config", "check_hdf5", "check_zip", "keras_config"]

MAX_BYTES = 64 << 30
"""Unpacked size above which a file is taken for damaged or hostile, in bytes: no model for a phone is as large."""

_RATIO = 200  # of unpacked to packed bytes; weights hardly shrink, text shrinks some twentyfold
_SMALL = 16 << 20  # bytes: below this a ratio says nothing
MAX_TEXT_BYTES = 64 << 20
"""Of the configuration in a Keras file, which is some 500 bytes a layer."""

_PARTS = {
    *(
        "layers",
        "models",
        "engine",
        "initializers",
        "regularizers",
        "constraints",
        "activations",
        "optimizers",
        "losses",
    ),
    *("metrics", "ops", "quantizers", "dtype_policies", "random", "applications"),
}
"""Of Keras, whose classes and functions models are made of; `keras.utils`, for instance, has some that fetch files."""

_TRUST = "pass trust=True if you know where the file comes from"


def check_zip(path: Path) -> list[str]:
    """Give the names in a zip archive, all of which are safe to read.

    Raises
    ------
    ExportError
        If it is damaged, would unpack to an absurd size, or names files outside of itself.
    """
    again = "copy or download it again, from a place that you trust"
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ExportError(f"{path} is a damaged archive: {error}", hint="copy or download it again") from error
    total, packed = sum(info.file_size for info in infos), sum(info.compress_size for info in infos)
    if total > MAX_BYTES or (total > _SMALL and total > _RATIO * max(packed, 1)) or packed > path.stat().st_size:
        raise ExportError(
            f"{path} says that its {path.stat().st_size:,} bytes unpack to {total:,}: that is no model", hint=again
        )
    for info in infos:
        name = PurePosixPath(info.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or any(":" in part for part in name.parts[:1]):
            raise ExportError(f"{path} holds a file that points outside of it: {info.filename!r}", hint=again)
    return [info.filename for info in infos]


def keras_config(path: Path) -> Any:
    """Give the configuration in a ``.keras`` file, after :func:`check_zip`.

    Raises
    ------
    ExportError
        If it is not JSON.
    """
    check_zip(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > MAX_TEXT_BYTES:
                raise ValueError(f"its configuration has {archive.getinfo('config.json').file_size:,} bytes")
            return json.loads(archive.read("config.json"))
    except (
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        ValueError,
        RecursionError,
        RuntimeError,
        OSError,
        EOFError,
    ) as error:
        raise ExportError(f"{path} is a damaged Keras file: {error}", hint="copy it again, or save it again") from error


def check_config(path: Path, config: Any, *, trust: bool) -> None:
    """Refuse a Keras configuration that would run code of the file, or needs classes that Keras does not have.

    Parameters
    ----------
    path : pathlib.Path
        For the message.
    config : plain values
        As Keras stores them.
    trust : bool
        Whether the file may run code of its own.

    Raises
    ------
    ExportError
        If it holds a Lambda layer or a foreign class, and is not trusted.
    """
    if trust:
        return
    for entry in _entries(config):
        kind, inner = str(entry["class_name"]), entry.get("config")
        name = inner.get("name") if isinstance(inner, dict) else None
        called = f"{kind} {name!r}" if name else kind
        if kind in ("Lambda", "__lambda__"):
            raise ExportError(
                f"{path} holds Python code in a Lambda layer ({called}), which would run when the model is read",
                hint=f"build it with layers instead, or {_TRUST}",
            )
        module = entry.get("module")
        if "module" in entry and not _of_keras(module):
            raise ExportError(
                f"{path} needs the class {called}, which is not one that Keras makes models of"
                + (f" (it is of the module {module!r})" if module else ""),
                hint="load the model where that class is defined, and pass the model itself: "
                f"qnb.export(keras.saving.load_model(…)); or, where the module is installed, {_TRUST}",
            )


def _of_keras(module: Any) -> bool:
    """Say whether a module is a part of Keras that models are made of."""
    parts = [part for part in str(module or "").split(".") if part != "src"]
    return parts == ["builtins"] or (parts[0] in ("keras", "tf_keras") and {*parts[1:2]} <= _PARTS)


def _entries(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every serialised object, however deep; without recursion, since depth is the file's choice."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "class_name" in item:
                yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def check_hdf5(file: Any, path: Path) -> None:
    """Refuse an HDF5 file that reads other files, or says that it holds far more than it does.

    Parameters
    ----------
    file : h5py.File
        Open for reading.
    path : pathlib.Path
        Of the file, or of the archive that it is in.

    Raises
    ------
    ExportError
        If so; names the link or dataset.
    """
    import h5py

    limit = max(_SMALL, _RATIO * path.stat().st_size)
    waiting: list[tuple[str, Any]] = [("", file)]
    seen = set()
    while waiting:
        where, group = waiting.pop()
        for name in group:
            full = f"{where}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ExportError(
                    f"{path} links to something elsewhere at {full!r}", hint="save the model again, as one file"
                )
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(item, h5py.Group):
                waiting.append((full, item))
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise ExportError(
                        f"{path} keeps {full!r} in another file", hint="save the model again, as one file"
                    )
                limit -= item.nbytes
                if limit < 0:
                    raise ExportError(
                        f"{path} says that it holds far more values than its size allows, such as {full!r} "
                        f"({item.nbytes:,} bytes)",
                        hint="copy or download it again, from a place that you trust",
                    )
