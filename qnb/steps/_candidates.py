"""What the step select finds out about each candidate: placement, footprint, and what is measured of it here.

Knows nothing of scores and ranks.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qnb.artifacts import Model, Quantized
from qnb.errors import CompileError, InferenceError, PlacementError, RuntimeUnavailable, WorkerCrashed
from qnb.graph.memory import footprint, read_structure
from qnb.progress import SILENT
from qnb.runtime.locate import Runtime, source_of
from qnb.socs import Soc
from qnb.steps._common import random_inputs
from qnb.steps._deploy import deploy
from qnb.steps._selecting import Candidate
from qnb.steps.convert import Conversion
from qnb.steps.infer import accuracy_frame, run_samples, top1
from qnb.steps.profile import time_runs
from qnb.values import Backend, reason_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["measured", "placed", "with_estimate", "with_footprint"]

_BEST_FIRST = ("published", "transferred", "estimate")
_MB = 1 << 20
_RUNS, _WARMUP = 10, 2


def with_estimate(candidate: Candidate, estimated: pd.DataFrame | None) -> Candidate:
    """Take a candidate's latency, and its memory, from the estimates of its build; or say why there is none."""
    if candidate.runs_as == "device":
        return candidate  # it is measured
    if candidate.backend != "htp":
        return replace(
            candidate, latency_why=f"this host is no Snapdragon, and there is no estimate for {candidate.backend}"
        )
    if estimated is None:
        return replace(candidate, latency_why="there are no estimates for this runtime")
    rows = estimated[(estimated["precision"] == candidate.precision) & (estimated["latency_ms"] > 0)]
    ranks = {source: i for i, source in enumerate(_BEST_FIRST)}
    found = sorted(
        rows.to_dict("records"), key=lambda r: (ranks.get(str(r["source"]), len(ranks)), r["path"] != "onnx")
    )
    if not found:
        said = estimated.loc[estimated["precision"] == candidate.precision, "why"]
        why = str(said.iloc[0]) if len(said) else f"the estimates have no row for {candidate.precision}"
        return replace(candidate, latency_why=why)
    row = found[0]
    memory = float(row["peak_memory_mb"])
    known = {"memory_mb": memory, "memory_source": str(row["source"])} if memory > 0 else {}
    return replace(
        candidate, latency_ms=float(row["latency_ms"]), low_ms=float(row["low_ms"]), high_ms=float(row["high_ms"]),
        latency_source=str(row["source"]), **known,  # type: ignore[arg-type]
    )  # fmt: skip


def placed(backend: Backend, variant: Model | Quantized, conversion: Conversion, soc: Soc) -> Candidate:
    """Say what a backend takes of a build."""
    answers = conversion.frame[backend]
    precision = {"cpu": "fp32", "gpu": "fp16"}.get(backend, "")
    precision = precision or (variant.precision if isinstance(variant, Quantized) else "fp16")
    no = conversion.frame[answers == "no"]
    return Candidate(
        backend=backend,
        build=f"{variant.name} {variant.precision}",
        precision=precision,
        soc=soc.part,
        runs_as=source_of(backend),
        accepted=-1 if (answers == "unknown").any() else int((answers == "yes").sum()),
        ops=len(answers),
        refused=_refused(no, backend),
    )


def _refused(rows: pd.DataFrame, backend: Backend, most: int = 3) -> str:
    """Name the ops that are refused, and once what is said of the reason."""
    if not len(rows):
        return ""
    reasons = [said for text in rows["reason"] if (said := reason_of(backend, str(text))) not in ("", "not known")]
    named = [f"{op} {kind}" for op, kind in zip(rows["op"][:most], rows["op_type"][:most], strict=True)]
    more = [f"{len(rows) - most} more"] if len(rows) > most else []
    why = f": {reasons[0]}" if reasons else ""
    return f"{', '.join([*named, *more])}{why}"


def with_footprint(candidate: Candidate, variant: Model | Quantized) -> Candidate:
    """Compute the largest tensor, and the memory where nothing better is known, from the graph and the precision."""
    bits: dict[str, int] = {}
    if isinstance(variant, Quantized) and candidate.backend == "htp":
        bits = {str(t): int(b) for t, b in zip(variant.frame["tensor"], variant.frame["bits"], strict=True)}
    float_bits = 32 if candidate.precision == "fp32" else 16  # of a mix, what is not encoded stays in fp16
    size = footprint(read_structure(variant.float_model.path), bits, float_bits=float_bits)
    candidate = replace(candidate, largest_tensor=size.largest, largest_tensor_mb=size.largest_bytes / _MB)
    if math.isnan(candidate.memory_mb):
        whole = (size.constant_bytes + size.live_bytes) / _MB
        candidate = replace(candidate, memory_mb=whole, memory_source="estimate")
    return candidate


def measured(
    candidate: Candidate,
    variant: Model | Quantized,
    soc: Soc,
    held: list[dict[str, np.ndarray]] | None,
    labels: np.ndarray | None,
    limit: int | None,
    runtime: Runtime,
    notes: list[str],
    logs: list[str],
) -> Candidate:
    """Measure the accuracy where there is data, and on a Snapdragon latency and memory."""
    on_device = candidate.runs_as == "device"
    if (held is None and not on_device) or 0 <= candidate.accepted < candidate.ops:
        return candidate
    try:
        deployed = deploy(variant, candidate.backend, runtime, soc=soc if candidate.backend == "htp" else None)
        if held is not None:
            ran = run_samples(deployed, held, runtime, SILENT, with_reference=True)
            logs.append(ran.log)
            figures = accuracy_frame(deployed, ran, labels, limit=limit)
            candidate = replace(
                candidate,
                sqnr_db=float(figures["sqnr_db"].min()),
                accuracy=float(figures["accuracy"].max()),
                fp32_accuracy=top1(ran.reference, labels) if labels is not None else math.nan,
                accuracy_source=deployed.source,
            )
        if on_device:
            sample = held[0] if held else random_inputs(variant.inputs)
            timed = time_runs(deployed, sample, runtime, _RUNS, _WARMUP, SILENT)
            logs.append(timed.log)
            candidate = replace(
                candidate,
                latency_ms=float(np.median(timed.arrays["latency_ms"])),
                latency_source="device",
                memory_mb=float(timed.values["memory_peak_mb"]),
                memory_source="device",
            )
    except (PlacementError, RuntimeUnavailable, CompileError, InferenceError, WorkerCrashed) as error:
        notes.append(f"{candidate.name}: could not be run: {error.what.splitlines()[0]}")
    return candidate
