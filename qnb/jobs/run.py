"""Jobs that load a session and run samples through it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from qnb.runtime.session import Loaded, SessionStore
from qnb.runtime.session import probe as probe_session
from qnb.runtime.worker import JobContext, Reply


def sessions(ctx: JobContext) -> SessionStore:
    """Give the worker's loaded sessions."""
    store = ctx.state.setdefault("sessions", SessionStore())
    assert isinstance(store, SessionStore)
    return store


def describe(loaded: Loaded) -> dict[str, Any]:
    """Facts of a loaded session as plain values."""
    return {"assignment": [list(row) for row in loaded.assignment], "load_ms": loaded.load_s * 1e3}


def probe(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Say whether a backend starts; args: spec."""
    probe_session(args["spec"])
    return {}, {}


def load(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Load a session and keep it; args: spec. Answers with its node assignment and load time."""
    loaded, cached = sessions(ctx).get(args["spec"])
    return describe(loaded) | {"cached": cached}, {}


def run(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Run samples one by one.

    args: spec, and `count`, the number of samples; arrays: ``{input}`` with the samples stacked along a new first
    axis. Answers with the outputs stacked likewise, and with `run_ms`, what the session itself took for all of them.
    """
    loaded, _ = sessions(ctx).get(args["spec"])
    count = args["count"]
    run_ns = 0
    stacked: dict[str, np.ndarray] = {}
    for index in range(count):
        feeds = {name: array[index] for name, array in arrays.items()}
        begin = time.perf_counter_ns()
        results = loaded.run(feeds)
        run_ns += time.perf_counter_ns() - begin
        for name, value in zip(loaded.outputs, results, strict=True):
            if index == 0:
                stacked[name] = np.empty((count, *value.shape), value.dtype) if count > 1 else value[None]
            if count > 1:
                stacked[name][index] = value
        if index + 1 < count:  # the answer itself tells of the last
            ctx.progress(index + 1, count)
    answer: dict[str, Any] = {"run_ms": run_ns / 1e6}
    if args.get("describe"):
        answer |= describe(loaded)
    return answer, stacked
