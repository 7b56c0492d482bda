"""Jobs that time a session and read the runtime's own profile."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from qnb.files import native_writes
from qnb.runtime import logs
from qnb.runtime.session import create
from qnb.runtime.worker import JobContext, Reply

_MB = 1 << 20
_CPU_WINDOW_S = 0.2
"""CPU use is measured over at least so long: the system counts what other threads used in ticks of some milliseconds."""


class _PeakMemory:
    """Peak resident memory of this process during a block.

    On Linux the kernel's own high-water mark, reset at the start; elsewhere sampled every 5 ms.
    """

    def __enter__(self) -> _PeakMemory:
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


def measure(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Load a session anew, warm it up and time its runs; args: spec, runs, warmup; arrays: one sample.

    Answers with load time, memory before, at the peak and after loading, CPU use, and the array ``latency_ms``.
    """
    runs, warmup = args["runs"], args["warmup"]
    latency_ms = np.empty(runs)
    with _PeakMemory() as memory:
        loaded = create(args["spec"])
        for index in range(warmup):
            loaded.run(arrays)
            ctx.progress(index + 1, warmup + runs, "warm-up")
        cpu_start = time.process_time()
        start = time.perf_counter()
        for index in range(runs):
            begin = time.perf_counter_ns()
            loaded.run(arrays)
            latency_ms[index] = (time.perf_counter_ns() - begin) / 1e6
            ctx.progress(warmup + index + 1, warmup + runs, f"{latency_ms[index]:.3g} ms")
        while time.perf_counter() - start < _CPU_WINDOW_S:
            loaded.run(arrays)
        wall = time.perf_counter() - start
        cpu_s = time.process_time() - cpu_start
    return {
        "load_ms": loaded.load_s * 1e3,
        "cpu_percent": 100 * cpu_s / wall if wall > 0 else 0.0,
        "memory_before_mb": memory.before / _MB,
        "memory_peak_mb": memory.peak / _MB,
        "memory_delta_mb": (memory.peak - memory.before) / _MB,
    }, {"latency_ms": latency_ms}


def profile_ops(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Run with the runtime's detailed profile; args: spec, csv (the path in its options), runs; arrays: one sample.

    Answers with one entry for each inference (cycles, times, ops), and with the wall times around them.
    """
    wall_ms = []
    with native_writes(Path(args["csv"]).parent):
        loaded = create(args["spec"])
        for index in range(args["runs"]):
            begin = time.perf_counter_ns()
            loaded.run(arrays)
            wall_ms.append((time.perf_counter_ns() - begin) / 1e6)
            ctx.progress(index + 1, args["runs"], "ops")
        del loaded  # the runtime completes the file when the session ends
    found = logs.executions(logs.read_profile(args["csv"]))
    return {
        "wall_ms": wall_ms,
        "executions": [
            {
                "cycles": e.cycles,
                "accelerator_us": e.accelerator_us,
                "qnn_us": e.qnn_us,
                "ops": [list(o) for o in e.ops],
            }
            for e in found
        ],
    }, {}
