"""The job that reads the runtime's own profile: cycles op by op, and which ONNX ops are behind them."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qnb.files import native_writes
from qnb.runtime.logs import original_name
from qnb.runtime.profiles import Execution, read_profile
from qnb.runtime.session import QNN, create
from qnb.runtime.worker import JobContext, Reply


def profile_ops(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Run with the runtime's detailed profile; arrays: one sample.

    args: ``spec``, ``csv`` (the path in its options), ``runs``, ``warmup`` (runs before them that are not counted) and,
    for the ONNX ops behind the runtime's, ``model`` and ``build`` (ONNX files: the float model, and what was compiled),
    ``bits``, ``biases`` and ``float_bits`` (see `qnb.graph.origins.Precisions`).

    Answers with medians over the runs: ``ops`` (a mapping for each: op, cycles, and the fields of its `Origin`),
    ``cycles`` and ``accelerator_ms`` of a whole run, ``left`` (cycles of it that are of no op), ``host_ms`` (the rest of
    its wall time); and with ``graphs`` and ``notes``. A runtime that wrote no run gives no ops.
    """
    warmup, runs = args.get("warmup", 0), args["runs"]
    wall_ms = []
    Path(args["csv"]).unlink(missing_ok=True)  # the runtime would append to it
    with native_writes(Path(args["csv"]).parent):
        loaded = create(args["spec"])
        for index in range(warmup + runs):
            begin = time.perf_counter_ns()
            loaded.run(arrays)
            wall_ms.append((time.perf_counter_ns() - begin) / 1e6)
            ctx.progress(index + 1, warmup + runs, "ops")
        on_cpu = [original_name(name) for ep, name, _ in loaded.assignment if ep != QNN]
        del loaded  # the runtime completes the file when the session ends
    profile = read_profile(args["csv"])
    rounds = _rounds(profile.executions(), warmup + runs)[warmup:]
    answer: dict[str, Any] = {"ops": [], "graphs": len(rounds[0]) if rounds else 0, "notes": list(profile.notes)}
    if not rounds:
        return answer, {}
    cycles = _median_cycles(rounds)
    accelerator_ms = [sum(e.accelerator_us for e in round_) / 1e3 for round_ in rounds]
    host_ms = [max(0.0, wall - spent) for wall, spent in zip(wall_ms[warmup:], accelerator_ms, strict=True)]
    labelled, origins = _behind(cycles, args, on_cpu) if "model" in args else (cycles, {})
    if len(rounds[0]) > 1:  # their ends are not those of the model
        origins |= {
            op: dataclasses.replace(origins[op], nbytes=float("nan")) for op in ("Input", "Output") if op in origins
        }
    return answer | {
        "ops": [
            {"op": op, "cycles": value, **(dataclasses.asdict(origins[op]) if op in origins else {})}
            for op, value in labelled.items()
        ],
        "cycles": statistics.median(sum(e.cycles for e in round_) for round_ in rounds),
        "left": statistics.median(
            max(0, sum(e.cycles - sum(v for _, v in e.ops) for e in round_)) for round_ in rounds
        ),
        "accelerator_ms": statistics.median(accelerator_ms),
        "host_ms": statistics.median(host_ms),
    }, {}


def _rounds(executions: Sequence[Execution], runs: int) -> list[list[Execution]]:
    """Give the executions of each inference: one, or one for each graph where ops between them are on the CPU."""
    graphs = len(executions) // runs
    if not graphs or graphs * runs != len(executions):
        return []
    return [list(executions[start : start + graphs]) for start in range(0, len(executions), graphs)]


def _median_cycles(rounds: Sequence[Sequence[Execution]]) -> dict[str, float]:
    """Give the median of each op's cycles: on a host another process takes the simulator's time from one run."""
    taken: list[dict[str, int]] = []
    for executions in rounds:
        taken.append({})
        for name, value in (op for e in executions for op in e.ops):
            taken[-1][name] = taken[-1].get(name, 0) + value
    names = dict.fromkeys(name for one in taken for name in one)
    return {name: statistics.median(one.get(name, 0) for one in taken) for name in names}


def _behind(
    cycles: dict[str, float], args: dict[str, Any], on_cpu: list[str]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Name the ops as their ONNX nodes where they are the same, and find what is behind each."""
    import onnx

    from qnb.graph.origins import PUT_IN, Precisions, origins

    model = onnx.load(args["model"], load_external_data=False)
    build = onnx.load(args["build"], load_external_data=False) if args["build"] != args["model"] else None
    known = {node.name for graph in (model, build) if graph is not None for node in graph.graph.node} - set(PUT_IN)
    labelled: dict[str, float] = {}
    for name, value in cycles.items():
        plain = original_name(name)
        label = plain if plain in known else name
        labelled[label] = labelled.get(label, 0.0) + value
    precisions = Precisions(args["bits"], args["float_bits"], frozenset(args["biases"]))
    return labelled, dict(origins(labelled, model, build, precisions, on_cpu))
