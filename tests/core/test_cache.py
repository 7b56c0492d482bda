"""The cache: complete entries under the digest of what they depend on.

Oracle: what a build function was seen to do, and the files themselves.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from qnb import cache
from qnb.errors import ArtifactError
from qnb.files import digest
from tests.processes import leftovers, python


def make(folder: Path) -> dict[str, Any]:
    (folder / "a.bin").write_bytes(b"content" * 100)
    (folder / "b.txt").write_text("text")
    return {"made": 1}


def test_an_entry_is_found_with_its_values_and_stamps(cache_folder: Path) -> None:
    key = cache.key(model="m", options={"b": 1, "a": 2})
    assert key == cache.key(options={"a": 2, "b": 1}, model="m"), "the order of words means nothing"
    assert key != cache.key(model="m", options={"b": 1, "a": 3})
    assert cache.lookup("kind", key) is None
    stored = cache.store("kind", key, make)
    found = cache.lookup("kind", key)
    assert found == stored
    assert found is not None
    assert found.meta == {"made": 1}
    assert found.stamps["a.bin"]["digest"] == digest(stored.folder / "a.bin")
    assert stored.folder.is_relative_to(cache_folder)


def test_a_failed_build_leaves_nothing(cache_folder: Path) -> None:
    def broken(folder: Path) -> dict[str, Any]:
        make(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.store("kind", "key", broken)
    assert cache.lookup("kind", "key") is None
    assert [p for p in cache_folder.rglob("*") if p.is_file()] == []
    assert leftovers(cache_folder) == []


@pytest.mark.parametrize("record", ["", "{", "[]", "null", '{"values": {}}', '{"files": 3, "values": {}}', "\xff"])
def test_a_broken_record_is_removed(record: str, cache_folder: Path) -> None:
    folder = cache.store("kind", "key", make).folder
    (folder / "entry.json").write_text(record, encoding="latin-1")
    assert cache.lookup("kind", "key") is None
    assert not folder.exists()


def test_a_file_is_kept_once_under_its_digest_and_mended(cache_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.onnx"
    source.write_bytes(b"model")
    kept, sha = cache.put_file(source, ".onnx")
    assert (kept.read_bytes(), sha) == (b"model", digest(source))
    assert cache.put_file(source, ".onnx") == (kept, sha)
    kept.write_bytes(b"modem")  # damaged, of the same size
    assert cache.put_file(source, ".onnx")[0].read_bytes() == b"model"
    kept.unlink()
    with pytest.raises(ArtifactError, match="gone") as caught:
        cache.require(kept, "model m")
    assert str(kept) in caught.value.what


def test_what_is_moved_in_leaves_nothing_and_brings_what_belongs_to_it(cache_folder: Path, tmp_path: Path) -> None:
    for _ in range(2):  # the second time all is there already
        source, weights = tmp_path / "source.onnx", tmp_path / "abc.data"
        source.write_bytes(b"model")
        weights.write_bytes(b"weights")
        kept, sha = cache.put_file(source, ".onnx", move=True, beside=[weights])
        assert (kept.read_bytes(), kept.with_name("abc.data").read_bytes()) == (b"model", b"weights")
        assert sha == digest(kept)
        assert not weights.exists()
        source.unlink(missing_ok=True)


def test_scratch_is_gone_afterwards(cache_folder: Path) -> None:
    with cache.scratch() as folder:
        (folder / "big").write_bytes(bytes(1000))
    assert not folder.exists()
    with pytest.raises(ZeroDivisionError), cache.scratch() as folder:
        (folder / "big").write_bytes(bytes(1000 // 0))
    assert not folder.exists()


def test_cleaning_takes_the_old_and_then_the_least_recently_used(cache_folder: Path) -> None:
    now = time.time()
    for age, name in enumerate(["new", "used", "old", "ancient"]):
        folder = cache.store("kind", name, make).folder
        for path in folder.iterdir():
            os.utime(path, (now - age * 10 * 86400,) * 2)
    assert cache.clean(max_age_days=25)[0] == 1
    assert cache.lookup("kind", "ancient") is None
    size = sum(size for _, _, size, _ in cache.entries()) // 3
    removed, freed = cache.clean(max_bytes=2 * size + 10)
    assert (removed, freed) == (1, size)
    assert {path.name for _, path, _, _ in cache.entries()} == {"new", "used"}


def test_two_processes_that_make_the_same_at_once(cache_folder: Path) -> None:
    code = """
    import sys, time
    from qnb import cache
    def make(folder):
        (folder / "file").write_bytes(sys.argv[1].encode() * 100000)
        time.sleep(0.3)
        return {"by": sys.argv[1]}
    for number in range(3):
        entry = cache.store("kind", f"key{number}", make)
        content = (entry.folder / "file").read_bytes()
        assert content == entry.meta["by"].encode() * 100000, "an entry of one with the file of the other"
    """
    others = [python(code, name, cache=cache_folder) for name in "ab"]
    for other in others:
        out, _ = other.communicate(timeout=60)
        assert other.returncode == 0, out
    assert leftovers(cache_folder) == []
    assert cache.lookup("kind", "key2") is not None
