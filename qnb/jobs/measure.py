"""The job that times a session, and the harness that it does so with."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from qnb.runtime.session import create
from qnb.runtime.worker import JobContext, Reply

_MB = 1 << 20
_CPU_WINDOW_S = 0.2
"""CPU use is measured over at least so long: the system counts what other threads used in ticks of some milliseconds."""


class PeakMemory:
    """Peak resident memory of this process during a block.

    On Linux the kernel's own high-water mark, reset at the start; elsewhere sampled every 5 ms.
    """

    def __enter__(self) -> PeakMemory:
        self.before = self.peak = psutil.Process().memory_info().rss
        self._exact = self._reset_high_water_mark()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        if not self._exact:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._exact:
            self.peak = max(self.peak, self._high_water_mark())
        else:
            self._thread.join()

    @staticmethod
    def _reset_high_water_mark() -> bool:
        try:
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
        except OSError:
            return False
        return True

    @staticmethod
    def _high_water_mark() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._done.wait(0.005):
            self.peak = max(self.peak, process.memory_info().rss)


@dataclass(frozen=True)
class Timed:
    """What a loop of timed calls took.

    Attributes
    ----------
    latency_ms : ndarray
        Wall time of each call, in order.
    cpu_percent : float
        CPU use of the process over them; 100 is one core.
    """

    latency_ms: np.ndarray
    cpu_percent: float


def timed(call: Callable[[], object], runs: int, warmup: int, ctx: JobContext) -> Timed:
    """Call something `warmup` times, and then `runs` times with the clock running.

    Python's garbage collector rests meanwhile: what it does is not of the call.
    """
    latency_ms = np.empty(runs)
    for index in range(warmup):
        call()
        ctx.progress(index + 1, warmup + runs, "warm-up")
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        cpu_start = time.process_time()
        start = time.perf_counter()
        for index in range(runs):
            begin = time.perf_counter_ns()
            call()
            latency_ms[index] = (time.perf_counter_ns() - begin) / 1e6
            ctx.progress(warmup + index + 1, warmup + runs, f"{latency_ms[index]:.3g} ms")
        while time.perf_counter() - start < _CPU_WINDOW_S:
            call()
        wall = time.perf_counter() - start
        cpu_s = time.process_time() - cpu_start
    finally:
        if collecting:
            gc.enable()
    return Timed(latency_ms, 100 * cpu_s / wall if wall > 0 else 0.0)


def timed_with_memory(
    load: Callable[[], Callable[[], object]], runs: int, warmup: int, ctx: JobContext
) -> tuple[dict[str, float], np.ndarray]:
    """Load something that can be called, time it, let go of it: figures of its memory and CPU use, and its latencies.

    Memory is that of this process, in MiB: before loading, at the highest since, and after it was let go of.
    """
    gc.collect()
    with PeakMemory() as memory:
        call: Callable[[], object] | None = load()
        assert call is not None
        result = timed(call, runs, warmup, ctx)
    call = None
    gc.collect()
    after = psutil.Process().memory_info().rss
    return {
        "cpu_percent": result.cpu_percent,
        "memory_before_mb": memory.before / _MB,
        "memory_peak_mb": memory.peak / _MB,
        "memory_delta_mb": (memory.peak - memory.before) / _MB,
        "memory_after_mb": after / _MB,
    }, result.latency_ms


def measure(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Load a session anew, warm it up and time its runs; args: spec, runs, warmup; arrays: one sample.

    Answers with load time, CPU use, memory before, at the peak and after, and the array ``latency_ms``.
    """
    load_ms = 0.0

    def load() -> Callable[[], object]:
        nonlocal load_ms
        loaded = create(args["spec"])
        load_ms = loaded.load_s * 1e3
        return lambda: loaded.run(arrays)

    figures, latency_ms = timed_with_memory(load, args["runs"], args["warmup"], ctx)
    return {"load_ms": load_ms, **figures}, {"latency_ms": latency_ms}
