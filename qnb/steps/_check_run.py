"""The worker's part of the step check: samples through the float model, the QDQ graphs and the NPU.

Knows sessions' specifications and jobs by name; nothing of tables and findings.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from qnb import cache
from qnb.artifacts import Quantized
from qnb.progress import progress
from qnb.runtime import client
from qnb.runtime.locate import Runtime
from qnb.runtime.options import BackendOptions, session_spec
from qnb.socs import find
from qnb.steps._deploy import Deployment
from qnb.steps.context import default_soc, htp_options

__all__ = ["Gathered", "Replayable", "Work"]


class Replayable:
    """A stream that can be begun anew as long as no more than its first sample was asked for."""

    def __init__(self, first: dict[str, np.ndarray], rest: Iterator[dict[str, np.ndarray]]) -> None:
        self.first = first
        self._rest = rest
        self.gone = False

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for number, sample in enumerate(chain([self.first], self._rest)):
            self.gone = number > 0
            yield sample


@dataclass
class Gathered:
    """What the worker answered."""

    opened: Mapping[str, Any]
    closed: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    classes: Mapping[str, np.ndarray]
    count: int
    log: str


@dataclass(frozen=True)
class Work:
    """The worker's part of the step."""

    build: Quantized
    runtime: Runtime
    layers: bool
    layer_samples: int

    def run(self, deployed: Deployment | None, held: Replayable, total: int | None) -> Gathered:
        """Stream the samples through."""
        key, log = uuid.uuid4().hex, []
        classes: dict[str, list[np.ndarray]] = {}
        count = 0
        with cache.scratch() as folder, client.borrow(self.runtime) as worker:
            with progress("check: load the layers") as bar:
                opened = worker.call(
                    "check_open",
                    {"key": key, "folder": str(folder), "layers": self.layers, **self._sessions(deployed)},
                    held.first,
                    on_progress=lambda _done, _total, text: bar.update(0, text=text),
                )
            log.append(opened.log)
            with progress("check", total, unit="sample") as bar:
                for sample in held:
                    answer = worker.call("check_sample", {"key": key, "inner": count < self.layer_samples}, sample)
                    log.append(answer.log)
                    for name, found in answer.arrays.items():
                        classes.setdefault(name, []).append(found)
                    count += 1
                    bar.step()
            closed = worker.call("check_close", {"key": key})
        joined = {name: np.concatenate(parts) for name, parts in classes.items()}
        return Gathered(
            opened.values, closed.values, opened.arrays | closed.arrays, joined, count, "".join([*log, closed.log])
        )

    def _sessions(self, deployed: Deployment | None) -> dict[str, Any]:
        build, runtime = self.build, self.runtime
        reference = cache.require(build.files.get("float", build.float_model.path), f"float model of {build.name}")
        host = session_spec(str(build.path), "ort", runtime).plain()
        specs = {"float": session_spec(str(build.float_model.path), "ort", runtime).plain(), "host": host}
        graphs = {"host": host}
        if deployed is not None:
            soc = deployed.soc or find(default_soc(False), qairt=runtime.qairt)
            options = htp_options(build, BackendOptions(soc=soc), False)
            specs[deployed.source] = deployed.spec.plain()
            graphs[deployed.source] = session_spec(str(build.path), "htp", runtime, options).plain()
        return {
            "specs": specs,
            "graphs": graphs,
            "spec": session_spec("", "ort", runtime).plain(),
            "reference": str(reference),
            "quantized": str(build.path),
        }
