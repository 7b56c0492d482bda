"""The workers of this process: borrowed for a block, kept for the next caller, ended with the kernel.

What a worker is and how it is called: `qnb.runtime.process`. Knows nothing of what the jobs do.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from qnb.errors import Interrupted
from qnb.runtime.locate import Runtime, find_runtime
from qnb.runtime.process import AFTER_INTERRUPT, Answer, OnProgress, Worker

__all__ = ["Answer", "OnProgress", "Worker", "borrow", "call", "close_all", "fresh", "workers"]


class _Pool:
    """The workers of this process, per runtime; idle ones are used again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Runtime, list[Worker]] = {}
        self._all: list[Worker] = []

    @contextlib.contextmanager
    def borrow(self, runtime: Runtime) -> Iterator[Worker]:
        worker = self._take(runtime)
        try:
            yield worker
        finally:
            self._give_back(worker)

    @contextlib.contextmanager
    def fresh(self, runtime: Runtime) -> Iterator[Worker]:
        worker = self._started(runtime)
        try:
            yield worker
        finally:
            with self._lock:
                self._forget(worker)

    def _take(self, runtime: Runtime) -> Worker:
        with self._lock:
            idle = self._idle.setdefault(runtime, [])
            while idle:
                # The one used first is the one whose sessions are loaded.
                worker = idle.pop(0)
                if worker.alive:
                    return worker
                self._forget(worker)
        return self._started(runtime)

    def _started(self, runtime: Runtime) -> Worker:
        worker = Worker(runtime)
        with self._lock:
            self._all.append(worker)
        return worker

    def _give_back(self, worker: Worker) -> None:
        if worker.busy:  # an interrupt came where nobody waited for the answer
            worker.close()
        with self._lock:
            if worker.alive:
                assert worker.runtime is not None
                idle = self._idle.setdefault(worker.runtime, [])
                idle.append(worker)
                idle.sort(key=self._all.index)
            else:
                self._forget(worker)

    def _forget(self, worker: Worker) -> None:
        worker.close()
        if worker in self._all:
            self._all.remove(worker)

    def workers(self) -> list[Worker]:
        with self._lock:
            return list(self._all)

    def close(self) -> None:
        for worker in self.workers():
            worker.close()
        with self._lock:
            self._idle.clear()
            self._all.clear()


_pool = _Pool()
_pool_pid = os.getpid()


def _this_process_pool() -> _Pool:
    global _pool, _pool_pid
    if _pool_pid != os.getpid():  # a forked child must not talk to its parent's workers
        _pool, _pool_pid = _Pool(), os.getpid()
    return _pool


@contextlib.contextmanager
def borrow(runtime: Runtime | str | None = None) -> Iterator[Worker]:
    """Have a worker for the block; it is started if none is idle, and kept for the next caller.

    Parameters
    ----------
    runtime : Runtime or str, optional
        A runtime or its version; the default is ``settings.runtime``.

    Raises
    ------
    Interrupted
        If the user interrupted the block.
    """
    with _worded_interrupts(), _this_process_pool().borrow(find_runtime(runtime)) as worker:
        yield worker


@contextlib.contextmanager
def fresh(runtime: Runtime | str | None = None) -> Iterator[Worker]:
    """Have a worker that has done nothing before, for the block: its memory is that of the work alone."""
    with _worded_interrupts(), _this_process_pool().fresh(find_runtime(runtime)) as worker:
        yield worker


@contextlib.contextmanager
def _worded_interrupts() -> Iterator[None]:
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt as interrupt:
        raise Interrupted("interrupted by the user", hint=AFTER_INTERRUPT) from interrupt


def call(
    job: str,
    args: Mapping[str, Any] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    *,
    runtime: Runtime | str | None = None,
    timeout_s: float | None = None,
    on_progress: OnProgress | None = None,
) -> Answer:
    """Run one job in a borrowed worker: see `Worker.call`."""
    with borrow(runtime) as worker:
        return worker.call(job, args, arrays, timeout_s=timeout_s, on_progress=on_progress)


def workers() -> list[Worker]:
    """Give the workers that this process has started and not ended."""
    return _this_process_pool().workers()


def close_all() -> None:
    """End all workers of this process; the next call starts new ones."""
    _this_process_pool().close()


atexit.register(close_all)
