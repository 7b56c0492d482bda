"""What the tests need to see of processes and files: which workers live, and what was left lying about."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import psutil

ROOT = Path(__file__).parents[1]
MODULE = "qnb.runtime.worker"


def workers_under(folder: Path) -> list[int]:
    """Worker processes, whoever their parent is by now, whose cache lies under `folder`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            ours = Path(process.environ().get("QNB_CACHE_DIR", "/nowhere")).is_relative_to(folder)
            if ours and MODULE in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Wait for a condition; give the seconds that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - start


def leftovers(folder: Path) -> list[Path]:
    """Half-made and intermediate files and folders under a cache, or any other folder."""
    return [
        path
        for path in folder.rglob("*")
        if path.suffix in (".part", ".old") or path.parent.name == "scratch" or path.name.startswith("qnb-worker-")
    ]


class Strike:
    """Does something to a worker of this process in the middle of its work, from a thread; and to nobody else."""

    def __init__(
        self, act: Callable[[int], None], after: float = 0.3, said: str = "", when: Callable[[], object] = lambda: True
    ) -> None:
        self._act = act
        self._when = when  # wait until this holds
        self._after = after
        self._said = said  # wait until native code has printed this
        self._given_up = threading.Event()
        self.time = 0.0
        self.pid = 0

    def _run(self) -> None:
        from qnb.runtime import client

        since: dict[int, float] = {}
        while not self._given_up.wait(0.005):
            if not self._when():
                continue
            busy = [w.pid for w in client.workers() if w.busy and (not self._said or self._said in w._log_text(0))]
            ripe = [pid for pid in busy if time.monotonic() - since.setdefault(pid, time.monotonic()) > self._after]
            if ripe:
                self.pid, self.time = ripe[0], time.monotonic()
                self._act(self.pid)
                return

    def __enter__(self) -> Strike:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up.set()
        self._thread.join()
        assert self.pid, "the work was over before it was struck: make it longer"


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def interrupt_kernel(_pid: int) -> None:
    """Interrupt this very process, as Ctrl-C and the stop button do; the worker has a group of its own."""
    os.kill(os.getpid(), signal.SIGINT)


@contextlib.contextmanager
def default_interrupts() -> Iterator[None]:
    """Python's own answer to SIGINT for the block, whatever runs the tests."""

    def answer(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, answer)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def python(code: str, *args: object, cache: Path, prefix: tuple[str, ...] = (), **env: str) -> subprocess.Popen[str]:
    """Start a Python of its own, as another kernel; `args` are its sys.argv[1:], `prefix` is put before the command."""
    environment = {**os.environ, "QNB_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT), **env}
    return subprocess.Popen(
        [*prefix, sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=ROOT,
    )


def output_of(
    code: str, *args: object, cache: Path, timeout: float = 120, prefix: tuple[str, ...] = (), **env: str
) -> str:
    """Run code in a Python of its own; give what it printed, or fail with it."""
    with python(code, *args, cache=cache, prefix=prefix, **env) as process:
        try:
            out, _ = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0, out
    return out
