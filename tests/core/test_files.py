"""Files that appear whole or not at all.

Oracle: the file system, looked at from outside while and after something goes wrong.
"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from qnb.errors import StorageError, WorkerTimeout
from qnb.files import building, digest, is_intact, native_writes, replacing, storage_errors, write_text


def fail_halfway(path: Path, error: type[BaseException]) -> None:
    path.write_text("half")
    raise error


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent, "a rename works within one file system only"
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_after_an_error_the_file_is_as_it_was(error: type[BaseException], tmp_path: Path) -> None:
    path = write_text(tmp_path / "file.txt", "before")
    with pytest.raises(error), replacing(path) as temporary:
        fail_halfway(temporary, error)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    folder = tmp_path / "result"
    for content in ("first", "second"):
        with building(folder) as temporary:
            (temporary / "file").write_text(content)
        assert (folder / "file").read_text() == content
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_error_the_folder_is_as_it_was(error: type[BaseException], tmp_path: Path) -> None:
    folder = tmp_path / "result"
    with building(folder) as temporary:
        (temporary / "file").write_text("before")
    with pytest.raises(error), building(folder) as temporary:
        fail_halfway(temporary / "file", error)
    assert (folder / "file").read_text() == "before"
    assert list(tmp_path.iterdir()) == [folder]


def test_an_interrupt_between_the_renames_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "result"
    with building(folder) as temporary:
        (temporary / "file").write_text("before")
    rename, calls = Path.rename, []

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), building(folder) as temporary:
        (temporary / "file").write_text("after")
    assert (folder / "file").read_text() == "before"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_twin_that_came_first_stays_if_asked(tmp_path: Path) -> None:
    folder = tmp_path / "entry"
    with building(folder, first_wins=True) as slower:
        (slower / "file").write_text("slower")
        with building(folder, first_wins=True) as faster:
            (faster / "file").write_text("faster")
    assert (folder / "file").read_text() == "faster"
    with building(folder, first_wins=True) as later:
        (later / "file").write_text("later")
    assert (folder / "file").read_text() == "later", "what was there before the block is replaced"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("number", "says", "hint"),
    [
        (errno.ENOSPC, "disk is full", "free some space"),
        (errno.EDQUOT, "disk is full", "free some space"),
        (errno.EACCES, "no permission", "may write"),
        (errno.EROFS, "no permission", "may write"),
        (errno.EIO, os.strerror(errno.EIO), "can be written"),
    ],
)
def test_errors_of_the_system_are_worded(number: int, says: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=says) as caught, storage_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path) in caught.value.what
    assert hint in caught.value.hint


def test_our_own_errors_pass_though_they_are_errors_of_the_system_too(tmp_path: Path) -> None:
    error = WorkerTimeout("no answer", hint="wait longer")
    assert isinstance(error, OSError)
    for block in (
        storage_errors(tmp_path),
        building(tmp_path / "x"),
        replacing(tmp_path / "y"),
        native_writes(tmp_path),
    ):
        with pytest.raises(WorkerTimeout), block:
            raise error
    assert list(tmp_path.iterdir()) == []


def test_the_digest_is_sha256(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    path = tmp_path / "file"
    path.write_bytes(content)
    assert digest(path) == hashlib.sha256(content).hexdigest()


def test_a_change_is_seen_even_where_size_and_time_are_put_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"original")
    sha, status = digest(path), path.stat()
    assert is_intact(path, sha)
    path.write_bytes(b"Original")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    if os.name == "posix":  # where there is a time of change that nobody can set
        assert not is_intact(path, sha)
    path.write_bytes(b"original")
    assert is_intact(path, sha)
