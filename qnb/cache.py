"""The content-addressed cache: what was made once is not made again.

An entry is a folder named by the digest of everything that its content depends on, complete from the moment it
appears. Knows nothing of what the entries hold.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
import psutil

from qnb.errors import ArtifactError
from qnb.files import building, digest, is_intact, replacing, storage_errors

_META = "entry.json"
MAX_AGE_DAYS = 60
MAX_BYTES = 20 << 30


def root() -> Path:
    """The cache's folder: ``QNB_CACHE_DIR``, or the user's cache folder of this platform."""
    override = os.environ.get("QNB_CACHE_DIR")
    return Path(override) if override else Path(platformdirs.user_cache_dir("qnb", appauthor=False))


def key(**parts: Any) -> str:
    """Digest of plain values: the name of the entry that depends on them and on nothing else."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """A complete cache entry.

    Attributes
    ----------
    folder : Path
        Where its files are.
    meta : mapping
        The plain values that were stored with it.
    stamps : mapping of str to mapping
        Size, time stamp and digest of each file, as checked just now.
    """

    folder: Path
    meta: Mapping[str, Any]
    stamps: Mapping[str, Mapping[str, Any]]


def _stamp(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "digest": digest(path)}


def lookup(kind: str, entry_key: str) -> Entry | None:
    """Find an entry whose files are as they were written, by size, time stamp and digest.

    A damaged entry is removed and not returned.
    """
    folder = root() / kind / entry_key
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        stamps: dict[str, dict[str, Any]] = meta["files"]
        intact = all(_stamp(folder / name) == stamp for name, stamp in stamps.items())
        values = meta["values"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        intact, values, stamps = False, {}, {}
    if not intact:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    with contextlib.suppress(OSError):  # a read-only cache still serves
        os.utime(folder / _META)
    return Entry(folder, values, stamps)


def store(kind: str, entry_key: str, build: Callable[[Path], Mapping[str, Any]]) -> Entry:
    """Make an entry: `build` fills the folder that it is given and returns plain values to keep with it.

    The entry appears only once `build` has returned; after an error nothing is left. Where somebody else made it
    meanwhile, theirs is given: what is in use is never replaced by a twin.

    Raises
    ------
    StorageError
        If the cache can't be written.
    """
    folder = root() / kind / entry_key
    with building(folder, first_wins=True) as temporary:
        values = dict(build(temporary))
        files = {p.name: _stamp(p) for p in sorted(temporary.iterdir())}
        ours = json.dumps({"values": values, "files": files})
        (temporary / _META).write_text(ours, encoding="utf-8")
    made = Entry(folder, values, files)
    return made if (folder / _META).read_text(encoding="utf-8") == ours else lookup(kind, entry_key) or made


def put_file(source: Path, suffix: str, *, move: bool = False, beside: Sequence[Path] = ()) -> tuple[Path, str]:
    """Keep a file under the digest of its bytes; return the kept path and the digest.

    With `move` the file itself is kept, and is gone from `source` afterwards: nothing is copied. Files that it refers to by
    name, and that are called by their own digest, come `beside` it; they are moved in any case.
    """
    sha = digest(source)
    kept = root() / "files" / sha[:2] / f"{sha}{suffix}"
    for other in beside:  # first, so that nobody sees the one without them
        with replacing(kept.parent / other.name) as temporary:
            shutil.move(other, temporary)
    if not (kept.exists() and is_intact(kept, sha)):
        with replacing(kept) as temporary:
            (shutil.move if move else shutil.copyfile)(source, temporary)
    else:
        with contextlib.suppress(OSError):
            os.utime(kept)
    return kept, sha


def require(path: Path, what: str) -> Path:
    """Return `path`, or say that the file is gone and how to have it again."""
    if not path.exists():
        raise ArtifactError(
            f"the file of {what} is gone: {path}",
            hint="it was cleaned from the cache; run the step that made it again, or load a saved result",
        )
    return path


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for intermediate files, gone at the end of the block."""
    base = root() / "scratch"
    with storage_errors(base):
        base.mkdir(parents=True, exist_ok=True)
        _sweep(base)
        folder = base / f"{os.getpid()}-{time.monotonic_ns()}"
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(base: Path) -> None:
    """Remove what processes left that were killed."""
    for folder in base.iterdir():
        pid = folder.name.partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


_NOT_ENTRIES = ("runtimes", "scratch")
"""What lives beside the entries: installed runtimes go only when they are asked to."""


def entries() -> Iterator[tuple[str, Path, int, float]]:
    """Everything in the cache: kind, path, bytes, time of last use (seconds since the epoch)."""
    base = root()
    for kind in sorted(p for p in base.iterdir() if p.is_dir()) if base.is_dir() else ():
        if kind.name in _NOT_ENTRIES:
            continue
        pattern = "*/*" if kind.name == "files" else "*"
        for path in sorted(kind.glob(pattern)):
            with contextlib.suppress(FileNotFoundError):  # another process may clean up as well
                members = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
                used = max((p.stat().st_mtime for p in members), default=path.stat().st_mtime)
                yield kind.name, path, sum(p.stat().st_size for p in members), used


def clean(*, max_age_days: float = MAX_AGE_DAYS, max_bytes: int = MAX_BYTES) -> tuple[int, int]:
    """Remove what was not used for `max_age_days`, then the least recently used beyond `max_bytes`.

    Returns
    -------
    tuple of int
        Entries removed and bytes freed.
    """
    found = sorted(entries(), key=lambda entry: entry[3])
    total = sum(size for _, _, size, _ in found)
    oldest = time.time() - max_age_days * 86400
    removed = freed = 0
    for _, path, size, used in found:
        if used >= oldest and total <= max_bytes:
            continue
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        removed, freed, total = removed + 1, freed + size, total - size
    return removed, freed
