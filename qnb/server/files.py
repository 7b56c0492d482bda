"""Files under the server's root: which of them may be read, and their view documents, made in a worker and kept for a while.

Knows nothing of HTTP but the names of what can go wrong.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from qnb.errors import ArtifactError, BadInput, QnbError, UnknownName, WorkerCrashed, WorkerTimeout
from qnb.runtime.process import Worker

if TYPE_CHECKING:
    from qnb.server.handlers import QnbServer

_MODULE = "qnb.server.parsing"
_MAX_KEPT_BYTES = 64 << 20
_MAX_KEPT = 64
_MAX_RESULT_FILES = 10_000

_SUFFIXES = {
    ".onnx": "onnx", ".dlc": "dlc", ".bin": "binary", ".json": "json", ".encodings": "json",
}  # fmt: skip

Key = tuple[str, int, int]


class NotThere(QnbError):
    """There is no such file, or it is not for the eyes of this server's users."""


class Forbidden(QnbError):
    """The path leads out of the server's root."""


class TooLarge(QnbError):
    """The file is larger than what is read."""


def resolve(root: Path, relative: str, *, hidden: bool) -> Path:
    """Find what a path relative to the server's root means.

    Parameters
    ----------
    root : Path
        The server's root.
    relative : str
        With slashes, as Jupyter writes paths.
    hidden : bool
        Whether files and folders whose names begin with a dot may be read.

    Raises
    ------
    BadInput
        If it is no such path.
    Forbidden
        If it leads out of the root, also by a link.
    NotThere
        If there is nothing, or it is hidden.
    """
    if not relative or "\0" in relative:
        raise BadInput("no path is given", hint="give ?path=, relative to the server's root")
    parts = [part for part in relative.replace(os.sep, "/").split("/") if part not in ("", ".")]
    if ".." in parts or Path(*parts).is_absolute() or Path(*parts).drive:
        raise Forbidden("the path leads out of the server's root", hint="give a path relative to it")
    base = Path(os.path.realpath(root))
    try:
        found = Path(os.path.realpath(base.joinpath(*parts), strict=True))
    except OSError as error:
        raise NotThere(f"there is no {relative}", hint="see the path; it is relative to the server's root") from error
    if not found.is_relative_to(base):
        raise Forbidden(f"{relative} leads out of the server's root", hint="copy what it links to under the root")
    if not hidden and any(part.startswith(".") for part in (*parts, *found.relative_to(base).parts)):
        raise NotThere(f"there is no {relative}", hint="hidden files are shown if ContentsManager.allow_hidden is on")
    return found


def kind_of(path: Path) -> str:
    """Tell how a path is to be read.

    Raises
    ------
    ArtifactError
        If a folder is not a saved result.
    UnknownName
        If there is no viewer for such files.
    """
    if path.is_dir():
        if not (path / "result.json").is_file():
            raise ArtifactError(
                "the folder is not a saved result", hint="choose a folder that .save(…) made, or a file"
            )
        return "result"
    if path.name == "result.json":
        return "result"
    if path.suffix.lower() not in _SUFFIXES:
        raise UnknownName.among("kind of file", path.suffix or path.name, _SUFFIXES)
    if not path.is_file():
        raise BadInput("that is no regular file", hint="choose a file or a saved result")
    return _SUFFIXES[path.suffix.lower()]


class Views:
    """The view documents of files, as JSON; what was made is kept until the file changes or room is needed."""

    def __init__(self, limits: QnbServer) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._pending: dict[Key, Future[bytes]] = {}

    def get(self, path: Path) -> bytes:
        """Give the document of a file or folder that `resolve` found; one reading at a time for each.

        Raises
        ------
        TooLarge
            If it is larger than the limit.
        QnbError
            If it can't be read, or reading it takes too long.
        """
        kind = kind_of(path)
        if path.name == "result.json":
            path = path.parent
        try:
            key = self._key(path)
        except OSError as error:
            raise NotThere(f"{path.name} can't be read: {error.strerror}", hint="see who may read it") from error
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            first = key not in self._pending
            pending = self._pending.setdefault(key, Future())
        if not first:
            return pending.result()
        try:
            content = self._read(path, kind)
        except BaseException as error:
            pending.set_exception(error)
            raise
        else:
            self._keep(key, content)
            pending.set_result(content)
            return content
        finally:
            with self._lock:
                del self._pending[key]

    def _key(self, path: Path) -> Key:
        """Path, time and size: for a folder those of its newest file, and of all."""
        files = [path]
        if path.is_dir():
            files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names][:_MAX_RESULT_FILES]
        stats = [file.lstat() for file in files]
        size = sum(status.st_size for status in stats)
        most = self._limits.max_file_mb * 1_000_000
        if size > most:
            raise TooLarge(
                f"{path.name} has {size / 1e6:,.0f} MB, and at most {self._limits.max_file_mb:,} MB are read",
                hint="c.QnbServer.max_file_mb in jupyter_server_config.py raises the limit",
            )
        return str(path), max(status.st_mtime_ns for status in stats), size

    def _keep(self, key: Key, content: bytes) -> None:
        with self._lock:
            self._kept[key] = content
            while len(self._kept) > _MAX_KEPT or sum(map(len, self._kept.values())) > _MAX_KEPT_BYTES:
                self._kept.popitem(last=False)

    def _read(self, path: Path, kind: str) -> bytes:
        arguments = {"path": str(path), "kind": kind, "max_bytes": self._limits.max_file_mb * 1_000_000}
        worker = Worker(None, _MODULE)
        try:
            answer = worker.call("view", arguments, timeout_s=self._limits.timeout_s)
        except WorkerTimeout as error:
            raise BadInput(
                f"{path.name} could not be read within {self._limits.timeout_s:g} s",
                hint="c.QnbServer.timeout_s in jupyter_server_config.py raises the limit",
            ) from error
        except WorkerCrashed as error:
            raise BadInput(
                f"{path.name} could not be read: the process that read it ended early",
                hint="the file may be damaged",
            ) from error
        finally:
            worker.close()
        return json.dumps(answer.values["document"], ensure_ascii=True, allow_nan=False).encode()
