"""A full disk and a folder that may not be written to.

Oracle: a real, small tmpfs and a real unprivileged user; sizes and digests of what was there before.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qnb
from qnb import cache
from qnb.errors import StorageError
from qnb.files import digest
from tests.conftest import Digits
from tests.processes import leftovers, output_of

SIZE = 4 << 20


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 4 MiB."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"mount is not permitted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def disk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The small file system, empty, with the cache on it."""
    monkeypatch.setenv("QNB_CACHE_DIR", str(small_disk / "cache"))
    yield small_disk
    for path in small_disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def fill(disk: Path, leave: int) -> Path:
    """Fill the disk but for `leave` bytes."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    ballast.write_bytes(bytes(max(0, free - leave)))
    return ballast


def contents(disk: Path) -> dict[str, str]:
    # An entry's record is touched when the entry is used, and the ballast is ours.
    files = [p for p in disk.rglob("*") if p.is_file() and p.name != "ballast"]
    return {str(p.relative_to(disk)): digest(p) for p in files}


Work = Callable[[Digits, Path], Any]
WORK: dict[str, Work] = {
    "export": lambda d, _: qnb.export(d.model.path, name="again"),
    "calibrate": lambda d, _: qnb.calibrate(d.model, d.train[:8]),
    "calibrate by percentile": lambda d, _: qnb.calibrate(d.model, d.train[:8], ranges="percentile"),
    "context": lambda d, _: qnb.context(d.quantized, soc="SM8550"),
    "context for several": lambda d, _: qnb.context(d.quantized, soc=["SM8550", "SM8450"]),
    "convert": lambda d, _: qnb.convert(d.quantized),
    "infer on htp": lambda d, _: qnb.infer(d.quantized, d.test[:2], soc="SM8550"),
    "infer on gpu": lambda d, _: qnb.infer(d.quantized, d.test[:2], backend="gpu"),
    "profile of ops": lambda d, _: qnb.profile(d.contexts["SM8650"], runs=1),
    "save": lambda d, disk: d.contexts["SM8650"].save(disk / "saved" / "context"),
}


@pytest.mark.parametrize("leave", [0, 6 << 10, 40 << 10])
@pytest.mark.parametrize("work", WORK)
def test_a_full_disk_is_named_and_nothing_half_written_stays(work: str, leave: int, disk: Path, digits: Digits) -> None:
    kept = qnb.context(digits.quantized, soc="SM8475")  # an entry from before
    saved = kept.save(disk / "before")
    ballast = fill(disk, leave)
    before = contents(disk)
    with pytest.raises(StorageError, match="disk is full") as caught:
        WORK[work](digits, disk)
    assert str(disk) in caught.value.what
    assert "free some space" in caught.value.hint
    assert isinstance(caught.value, OSError)
    assert contents(disk) == before
    assert leftovers(disk) == []

    assert qnb.context(digits.quantized, soc="SM8475").cached, "earlier entries serve from a full disk"
    assert qnb.infer(kept, digits.test[:2]).samples == 2
    assert qnb.infer(qnb.load(saved), digits.test[:2]).samples == 2
    ballast.unlink()
    assert WORK[work](digits, disk) is not None, "it works again once there is room"


def test_what_native_code_wrote_on_a_nearly_full_disk_is_whole(disk: Path, digits: Digits) -> None:
    """Wherever the disk gets full, there is a StorageError or the very QNN graph: never a part of one."""
    import json

    expected = {p.name: p.stat().st_size for p in qnb.convert(digits.quantized).files.values()}
    shutil.rmtree(disk / "cache")
    outcomes = {"refused": 0, "made": 0}
    for leave in range(8 << 10, 200 << 10, 12 << 10):
        ballast = fill(disk, leave)
        try:
            made = qnb.convert(digits.quantized)
            assert {p.name: p.stat().st_size for p in made.files.values()} == expected
            assert all(json.loads(p.read_text()) for p in made.files.values() if p.suffix == ".json")
            outcomes["made"] += 1
        except StorageError:
            outcomes["refused"] += 1
        ballast.unlink()
        shutil.rmtree(disk / "cache")
    assert min(outcomes.values()) > 0, outcomes


def without_privileges() -> tuple[str, ...]:
    """Command prefix under which permissions count; root's override of them is one of its capabilities."""
    if os.name != "posix":
        pytest.skip("permissions of POSIX")
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root is not bound by permissions, and there is no setpriv to give its privileges up")
    return ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the right to write away from everything in a folder, for the block."""
    everything = [folder, *folder.rglob("*")]
    modes = [path.stat().st_mode for path in everything]
    for path, mode in zip(everything, modes, strict=True):
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for path, mode in zip(everything, modes, strict=True):
            path.chmod(mode)


def test_a_read_only_folder_is_named_to_an_unprivileged_user(saved: Path, tmp_path: Path) -> None:
    code = """
    import sys
    import numpy as np, qnb
    from pathlib import Path
    from qnb.errors import StorageError
    saved, folder = Path(sys.argv[1]), Path(sys.argv[2])
    model, quantized = qnb.load(saved / "model"), qnb.load(saved / "quantized")
    x = np.load(saved / "test.npy")[:2]
    calls = {
        "context": lambda: qnb.context(quantized),
        "several": lambda: qnb.context(quantized, soc=["SM8550", "SM8450"]),
        "calibrate": lambda: qnb.calibrate(model, x),
        "export": lambda: qnb.export(model.path),
        "convert": lambda: qnb.convert(quantized),
        "infer": lambda: qnb.infer(quantized, x),
        "gpu": lambda: qnb.infer(quantized, x, backend="gpu"),
        "save": lambda: quantized.save(folder / "saved"),
    }
    for name, call in calls.items():
        try:
            call()
            print(name, "went through")
        except StorageError as error:
            assert "no permission" in error.what and str(folder) in error.what, error.what
            assert "QNB_CACHE_DIR" in error.hint
            print(name, "refused")
    frame = qnb.doctor().frame
    print("cache", frame.loc[frame["component"] == "cache", "state"].item())
    """
    folder = tmp_path / "read-only"
    folder.mkdir()
    with read_only(folder):
        out = output_of(code, saved, folder, cache=folder / "cache", prefix=without_privileges())
    steps = ("context", "several", "calibrate", "export", "convert", "infer", "gpu", "save")
    assert out.splitlines() == [*(f"{step} refused" for step in steps), "cache failed"]
    assert list(folder.iterdir()) == []


def test_a_read_only_cache_still_serves(saved: Path, tmp_path: Path) -> None:
    code = """
    import sys
    from pathlib import Path
    import numpy as np, qnb
    from qnb.errors import StorageError
    saved = Path(sys.argv[1])
    quantized = qnb.load(saved / "quantized")
    made = qnb.context(quantized)
    print(made.cached, qnb.infer(quantized, np.load(saved / "test.npy")[:2]).samples)
    try:
        qnb.context(quantized, soc="SM8550")
        print("compiled")
    except StorageError as error:
        print(error.what)
    """
    folder = tmp_path / "cache"
    assert output_of(code, saved, cache=folder).splitlines() == ["False 2", "compiled"]
    shutil.rmtree(folder)
    output_of(code.replace("SM8550", "SM8650"), saved, cache=folder)
    before = sorted(folder.rglob("*"))
    with read_only(folder):
        out = output_of(code, saved, cache=folder, prefix=without_privileges())
    first, second = out.splitlines()
    assert first == "True 2"
    assert "no permission" in second
    assert str(folder) in second
    assert sorted(folder.rglob("*")) == before


def test_a_place_that_can_not_be_a_folder_is_an_error(tmp_path: Path, digits: Digits, monkeypatch: Any) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        digits.model.save(file / "saved")
    monkeypatch.setenv("QNB_CACHE_DIR", str(file))
    for step in (lambda: qnb.context(digits.quantized), lambda: qnb.calibrate(digits.model, np.zeros((1, 1, 8, 8)))):
        with pytest.raises(StorageError, match=str(file)):
            step()
    assert file.read_text() == "in the way"
    assert cache.root() == file
