"""A full disk and a read-only folder: a clear error, and nothing lost or left behind.

Oracle: the kernel's own ENOSPC on a small tmpfs, and EACCES for an unprivileged user. Both need root to set up; the work
is done in processes of their own, so that the user's files can't be touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import leftovers

NOBODY = 65534
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tmpfs and setuid are Linux's here")


@pytest.fixture
def small_disk(tmp_path: Path, as_root: None) -> Iterator[Path]:
    """A tmpfs of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"can't mount a tmpfs here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def run(script: str, **environment: str) -> str:
    """Run a script in a process of its own; give what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "QNB_PROGRESS": "0", **environment},
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_full_disk_as_the_cache(saved: Path, small_disk: Path) -> None:
    out = run(
        f"""
        import contextlib, pathlib, qnb
        from qnb.errors import StorageError
        disk = pathlib.Path({str(small_disk)!r})
        quantized = qnb.load({str(saved / "quantized")!r})
        first = qnb.context(quantized, soc="SM8650")  # still fits
        intact = first.binary.read_bytes()
        filler = disk / "filler"
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        for work in (
            lambda: qnb.context(quantized, soc="SM8550"),
            lambda: qnb.convert(quantized),
            lambda: qnb.export(next(pathlib.Path({str(saved / "model")!r}, "files").iterdir()), simplify=False),
            lambda: first.save(disk / "kept"),
        ):
            try:
                work()
            except StorageError as error:
                assert str(disk) in str(error), error
                assert "disk is full" in str(error) and error.hint, error
            else:
                raise AssertionError("no error on a full disk")
        assert first.binary.read_bytes() == intact
        assert qnb.context(quantized, soc="SM8650").cached
        filler.unlink()
        assert not qnb.context(quantized, soc="SM8550").cached  # works again
        print("fine")
        """,
        QNB_CACHE_DIR=str(small_disk / "cache"),
    )
    assert "fine" in out
    assert leftovers(small_disk) == []
    assert not (small_disk / "kept").exists()


@pytest.fixture
def public_folder(as_root: None) -> Iterator[Path]:
    """A folder that an unprivileged user may enter and write to; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="qnb-test-", dir="/tmp") as name:
        Path(name).chmod(0o777)
        yield Path(name)


def test_a_read_only_folder_as_an_unprivileged_user(saved: Path, public_folder: Path) -> None:
    """The user drops root's rights after a first walk: Python itself may lie where others can't import it from."""
    locked = public_folder / "locked"
    locked.mkdir(mode=0o755)
    out = run(
        f"""
        import os
        import qnb
        from qnb.errors import StorageError

        public, locked = {str(public_folder)!r}, {str(locked)!r}
        sample = [[[[0.5] * 8] * 8]]
        os.environ["QNB_CACHE_DIR"] = public + "/first"
        quantized = qnb.load(qnb.load({str(saved / "quantized")!r}).save(public + "/quantized"))
        first = qnb.context(quantized)
        qnb.convert(quantized)
        before = qnb.infer(first, sample)
        repr(before), first.save(public + "/context")
        os.chmod(public + "/first", 0o755)

        os.setuid({NOBODY})
        assert qnb.context(quantized).cached  # a read-only cache still serves what it has
        os.environ["QNB_CACHE_DIR"] = locked + "/cache"
        for name in ("context", "convert"):
            try:
                getattr(qnb, name)(quantized)
            except StorageError as error:
                assert "no permission" in str(error) and locked in str(error) and error.hint, error
            else:
                raise AssertionError(name + " gave no error in a read-only cache")
        try:
            first.save(locked + "/kept")
        except StorageError as error:
            assert "no permission" in str(error) and locked in str(error), error
        else:
            raise AssertionError("no error in a read-only folder")
        os.environ["QNB_CACHE_DIR"] = public + "/second"
        assert (qnb.infer(first, sample)["logits"] == before["logits"]).all()
        print(first.save(public + "/kept"))
        """
    )
    assert "kept" in out
    assert list(locked.iterdir()) == []
    assert leftovers(public_folder) == []
