"""What runs inside a worker: a fixed registry of named jobs.

A step submits a job by name with paths and plain values; a job may use quant/ and graph/, so that activations are
reduced where they arise. Jobs know nothing of steps, notebooks or the kernel process.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_WHERE: dict[str, str] = {
    "search_open": "qnb.jobs.searching",
    "search_measure": "qnb.jobs.searching",
    "probe": "qnb.jobs.run",
    "load": "qnb.jobs.run",
    "run": "qnb.jobs.run",
    "measure": "qnb.jobs.measure",
    "profile_ops": "qnb.jobs.profiling",
    "measure_roofs": "qnb.jobs.roofs",
    "compile_context": "qnb.jobs.build",
    "estimate_cost": "qnb.jobs.costing",
    "dump_graph": "qnb.jobs.build",
    "place": "qnb.jobs.build",
    "advise": "qnb.jobs.advising",
    "cast_fp16": "qnb.jobs.build",
    "check_open": "qnb.jobs.checking",
    "check_sample": "qnb.jobs.checking",
    "check_close": "qnb.jobs.checking",
    "normalise": "qnb.jobs.models",
    "graph_work": "qnb.jobs.models",
    "graph_ops": "qnb.jobs.reading",
    "observe_open": "qnb.jobs.calibration",
    "observe": "qnb.jobs.calibration",
    "observe_save": "qnb.jobs.calibration",
    "observe_close": "qnb.jobs.calibration",
    "transform": "qnb.jobs.weights",
    "optimise": "qnb.jobs.weights",
    "score": "qnb.jobs.weights",
    "quantize": "qnb.jobs.quantizing",
    "convert_foreign": "qnb.jobs.foreign",
    "import_quantized": "qnb.jobs.importing",
    "import_caffe": "qnb.jobs.caffe",
}


@functools.cache
def _job(name: str) -> Callable[..., Any]:
    job: Callable[..., Any] = getattr(importlib.import_module(_WHERE[name]), name)
    return job


class _Registry(Mapping[str, Callable[..., Any]]):
    """Name to job; a job's module is imported when the job is first asked for, so that a worker starts fast."""

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return _job(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_WHERE)

    def __len__(self) -> int:
        return len(_WHERE)


JOBS = _Registry()
