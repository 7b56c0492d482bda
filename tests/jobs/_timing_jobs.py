"""Jobs of known cost, timed in a worker by the harness that times sessions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from qnb.jobs.measure import timed_with_memory

Reply = tuple[dict[str, Any], dict[str, np.ndarray]]
_MB = 1 << 20


def sleep(ctx: Any, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Sleep in each call as long as ``seconds`` says for it, the first ones for warm-up."""
    pauses = iter(args["seconds"])

    def call() -> None:
        time.sleep(next(pauses, 0.01))

    figures, latency_ms = timed_with_memory(lambda: call, args["runs"], args["warmup"], ctx)
    return figures, {"latency_ms": latency_ms}


def burn(ctx: Any, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Keep one core busy in each call."""

    def call() -> None:
        end = time.thread_time() + args["seconds"]  # the worker's other threads may work as well
        while time.thread_time() < end:
            pass

    figures, latency_ms = timed_with_memory(lambda: call, args["runs"], 0, ctx)
    return figures, {"latency_ms": latency_ms}


def allocate(ctx: Any, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Hold ``load_mb`` from loading on, and ``call_mb`` during each call; let go of both, or keep what was loaded."""
    kept = ctx.state.setdefault("kept", [])

    def load() -> Callable[[], object]:
        held = np.ones(args["load_mb"] * _MB, np.uint8)
        if args["keep"]:
            kept.append(held)

        def call() -> int:
            return int(held[0]) + int(np.ones(args["call_mb"] * _MB, np.uint8)[-1])

        return call

    figures, latency_ms = timed_with_memory(load, args["runs"], 1, ctx)
    return figures, {"latency_ms": latency_ms}


def collected(ctx: Any, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Say whether Python's garbage collector runs in a call, and after."""
    import gc

    seen: list[bool] = []
    timed_with_memory(lambda: lambda: seen.append(gc.isenabled()), args["runs"], 1, ctx)
    return {"warmup": seen[0], "timed": seen[1 : 1 + args["runs"]], "after": gc.isenabled()}, {}


JOBS = {job.__name__: job for job in (sleep, burn, allocate, collected)}
