"""Writing files so that nobody ever sees half of one, and digesting them.

Knows nothing of what is in the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from qnb.errors import QnbError, StorageError

_CHUNK = 1 << 20


@contextlib.contextmanager
def storage_errors(path: Path | str) -> Iterator[None]:
    """Turn an `OSError` of the block into a `StorageError` that names `path`."""
    try:
        yield
    except QnbError:  # some are an OSError too: WorkerTimeout
        raise
    except OSError as error:
        raise StorageError.of(error, path) from error


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Give a temporary file name beside `path`; at the end of the block it takes the place of `path`.

    After an error, or an interrupt, the temporary file is gone and `path` is as it was.

    Raises
    ------
    StorageError
        If the file can't be written.
    """
    path = Path(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def building(folder: Path | str, *, first_wins: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `folder`; at the end of the block it takes the place of `folder`.

    An older `folder` is removed only once the new one is complete.

    Parameters
    ----------
    folder : path
        Folder to make.
    first_wins : bool
        Whether a folder that somebody else made during the block stays instead.

    Raises
    ------
    StorageError
        If the folder can't be written.
    """
    folder = Path(folder)
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = not folder.exists()
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
        retired = temporary.with_suffix(".old")
        try:
            yield temporary
            temporary.chmod(0o755)
            if folder.exists():
                if first_wins and free:
                    return
                folder.rename(retired)
            try:
                temporary.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
        finally:
            if retired.exists() and not folder.exists():
                retired.rename(folder)
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(retired, ignore_errors=True)


def write_bytes(path: Path | str, content: bytes) -> Path:
    """Write `content` to `path` in one step; return the path."""
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def write_text(path: Path | str, content: str) -> Path:
    """Write `content` as UTF-8 to `path` in one step; return the path."""
    return write_bytes(path, content.encode())


@contextlib.contextmanager
def native_writes(folder: Path | str, expected: int = 0) -> Iterator[None]:
    """Around native code that writes into `folder`: on a full disk it fails with other words, or not at all.

    Parameters
    ----------
    folder : path
        Where it writes.
    expected : int
        Bytes that it may well write; after a failure there has to be room for as many, or the disk is to blame.

    Raises
    ------
    StorageError
        If there is no room left afterwards.
    """
    try:
        yield
    except QnbError:
        _require_room(Path(folder), max(expected, _CHUNK))
        raise
    _require_room(Path(folder), 64 << 10)


def _require_room(folder: Path, size: int) -> None:
    """Write `size` bytes and remove them again: quotas and reserved blocks are in no figure of free space."""
    with storage_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        for start in range(0, size, _CHUNK):
            file.write(bytes(min(_CHUNK, size - start)))
        file.flush()


def digest(path: Path | str) -> str:
    """Give the SHA-256 of a file as hex text (2 GB/s where the CPU has SHA instructions)."""
    sha = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


_seen: dict[Path, tuple[tuple[int, int, int], str]] = {}


def is_intact(path: Path, expected: str) -> bool:
    """Say whether a file still has the digest that it should have.

    It is hashed once, and again only when its size or time stamp has changed since.
    """
    status = path.stat()
    # The change time as well: a tool may set the other one back.
    stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    known = _seen.get(path)
    if known is None or known[0] != stamp:
        known = _seen[path] = (stamp, digest(path))
    return known[1] == expected
