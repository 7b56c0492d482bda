"""What `sensitivity` and `search` share: the bench that mixes are measured on, the journal of figures, the fan-out.

Knows nothing of which mixes are worth measuring.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qnb import cache, kept, running
from qnb.artifacts import Model
from qnb.errors import BadInput, Interrupted
from qnb.files import storage_errors, write_text
from qnb.progress import Progress, progress
from qnb.quant.mixes import Op, Part, Problem
from qnb.quant.parts import Granularity
from qnb.runtime import client
from qnb.runtime.locate import Runtime
from qnb.runtime.options import session_spec
from qnb.samples import samples as sample_stream
from qnb.steps._observing import Ranges, gather

_POLL_S = 0.2
SOURCE = "host"
METHOD = "min-max"
SOURCE_NOTE = "sqnr_db of source host: the quantized graph on ONNX Runtime's CPU, against the float model there"
_EXACT_INTEGERS = {"session.disable_quant_qdq": "1"}
"""ONNX Runtime must compute what the Q/DQ nodes say: its own integer kernels saturate on some CPUs."""

Scorer = Callable[[Mapping[str, np.ndarray]], dict[str, float]]
"""Figures of outputs beside their SQNR."""


@dataclass(frozen=True)
class Bench:
    """A model with its ranges, samples and float outputs, laid out in a folder that every worker reads.

    Attributes
    ----------
    problem : Problem
        The parts, and what a mix costs.
    reference : mapping of str to ndarray
        The float model's outputs.
    ranges : mapping
        Of its tensors.
    samples, observed : int
        How many samples are measured on, and how many the ranges come from.
    key : str
        Digest of all that a measurement depends on, the candidate aside.
    """

    folder: Path
    model: Model
    runtime: Runtime
    per_channel: bool
    problem: Problem
    reference: Mapping[str, np.ndarray]
    ranges: Ranges
    samples: int
    observed: int
    data: str
    key: str
    log: str


@contextlib.contextmanager
def open_bench(
    model: Model,
    data: Any,
    *,
    candidates: Sequence[str],
    granularity: Granularity,
    samples: int,
    preprocess: Callable[..., Any] | None,
    per_channel: bool,
    runtime: Runtime,
) -> Iterator[Bench]:
    """Gather ranges over all data, keep the first samples and the float model's outputs, and cut the model into parts."""
    if samples < 1:
        raise BadInput(f"samples is {samples}", hint="measure on at least one sample")
    stream = sample_stream(data, model.inputs, preprocess=preprocess)
    digest = hashlib.sha256(model.digest.encode())
    with cache.scratch() as folder:
        with client.borrow(runtime) as worker, progress("ranges", stream.count, unit="sample") as bar:
            passing = kept.keeping(stream, folder / "samples", samples)
            out = folder / "observed.onnx"
            seen = gather(worker, runtime, model.path, out, passing, [{"method": METHOD}], bar)
            files = kept.files(folder / "samples")
            for sample in map(kept.load, files):
                for spec in model.inputs:
                    digest.update(sample[spec.name].tobytes())
            text = json.dumps(seen.ranges[METHOD], sort_keys=True)
            digest.update(f"{text}{per_channel}{runtime.version}".encode())
            write_text(folder / "ranges.json", text)
            opened = worker.call(
                "search_open",
                {
                    "folder": str(folder),
                    "model": str(model.path),
                    "spec": session_spec(str(model.path), "ort", runtime).plain(),
                    "candidates": list(candidates),
                    "granularity": granularity,
                    "per_channel": per_channel,
                },
            )
        yield Bench(
            folder,
            model,
            runtime,
            per_channel,
            _problem(opened.values),
            opened.arrays,
            seen.ranges[METHOD],
            len(files),
            seen.samples,
            stream.describe(),
            digest.hexdigest(),
            seen.log + opened.log,
        )


def _problem(plain: Mapping[str, Any]) -> Problem:
    def part(values: Mapping[str, Any]) -> Part:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return Part(**fields)

    ops = tuple(Op(**op) for op in plain["ops"])
    return Problem(tuple(map(part, plain["parts"])), ops, plain["fixed_bytes"])


@dataclass(frozen=True)
class Candidate:
    """What is measured: bits of tensors (0: float), and what becomes of those that are not spoken of.

    Attributes
    ----------
    bits : mapping of str to int
    alone : bool
        Whether all else is float; otherwise it has `others`.
    others : (int, int)
        Bits of the weights and activations that are not spoken of.
    """

    bits: Mapping[str, int]
    alone: bool = False
    others: tuple[int, int] = (8, 8)

    @property
    def key(self) -> str:
        """Digest by which the journal knows it."""
        return cache.key(bits=sorted(self.bits.items()), alone=self.alone, others=self.others)


class Journal:
    """Figures that were measured, a line each, written as they come: an interrupt or a crash loses none of them.

    Parameters
    ----------
    key : str
        Digest of all that the figures depend on, the candidate aside.
    resume : bool
        Whether what an earlier call measured counts.
    """

    def __init__(self, key: str, *, resume: bool) -> None:
        self.path = cache.root() / "searches" / key / "points.jsonl"
        self.known: dict[str, dict[str, float]] = {}
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not resume:
                self.path.unlink(missing_ok=True)
            if self.path.exists():
                self.known = dict(_lines(self.path.read_text(encoding="utf-8", errors="replace")))
        self.resumed = len(self.known)

    def add(self, key: str, figures: Mapping[str, float]) -> None:
        """Keep the figures of a candidate."""
        self.known[key] = dict(figures)
        line = json.dumps({"key": key, "figures": self.known[key]})
        with storage_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")  # a line that a crash cut short must not spoil this one

    def __len__(self) -> int:
        return len(self.known)


def _lines(text: str) -> Iterator[tuple[str, dict[str, float]]]:
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            yield str(entry["key"]), {str(k): float(v) for k, v in entry["figures"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # the end of a process in the middle of a write; it is measured again


class Points:
    """Measures candidates: from the journal where it has them, else in workers, several at once.

    Parameters
    ----------
    bench : Bench
    journal : Journal
    step : str
        Name of the step, for messages.
    executor : Executor, optional
        Where the measurements run; by default threads, one a core, each with a worker of its own.
    scorer : callable, optional
        Gives further figures of the outputs; it is called in this process.
    """

    def __init__(
        self,
        bench: Bench,
        journal: Journal,
        step: str,
        executor: Executor | None,
        bar: Progress,
        total: int,
        scorer: Scorer | None = None,
    ) -> None:
        self._bench, self._journal, self._step = bench, journal, step
        self._executor, self._bar, self._total, self._scorer = executor, bar, total, scorer
        self.width = int(getattr(executor, "_max_workers", None) or os.cpu_count() or 1)
        self.measured = 0
        self.expected_s = 0.0
        """Seconds that all points were expected to take, by the first one."""
        self._said = ""

    def score(self, outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Give the scorer's figures of outputs."""
        return self._scorer(outputs) if self._scorer is not None else {}

    def note(self, text: str) -> None:
        """Say what is best so far, beside the bar."""
        self._said = text

    def __call__(self, candidates: Sequence[Candidate]) -> list[dict[str, float]]:
        """Give the figures of each candidate: ``sqnr_db``, and those of the scorer."""
        keys = [c.key for c in candidates]
        new = {k: c for k, c in zip(keys, candidates, strict=True) if k not in self._journal.known}
        if new:
            self._run(new)
        self._bar.update(len(self._journal), text=self._said)
        return [self._journal.known[key] for key in keys]

    def _run(self, candidates: Mapping[str, Candidate]) -> None:
        if self._executor is not None:
            executor = self._executor
            self._gather({k: running.submit(executor, measure, *self._task(k, c)) for k, c in candidates.items()})
            return
        with running.threads(min(len(candidates), self.width)) as threads:
            self._gather({k: threads.submit(measure, *self._task(k, c)) for k, c in candidates.items()})

    def _task(self, key: str, candidate: Candidate) -> tuple[str, dict[str, Any]]:
        bench = self._bench
        # one thread each: there are as many workers as cores
        spec = session_spec("", "ort", bench.runtime, config=_EXACT_INTEGERS).plain() | {"threads": 1}
        return bench.runtime.version, {
            "name": key[:32],
            "folder": str(bench.folder),
            "model": str(bench.model.path),
            "spec": spec,
            "bits": dict(candidate.bits),
            "alone": candidate.alone,
            "weight_bits": candidate.others[0],
            "activation_bits": candidate.others[1],
            "per_channel": bench.per_channel,
            "outputs": self._scorer is not None,
        }

    def _gather(self, futures: Mapping[str, Future[_Measured]]) -> None:
        """Take figures as they come; after an error or an interrupt, what has not begun does not begin."""
        names = {future: key for key, future in futures.items()}
        pending = set(names)
        try:
            while pending:
                done, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                for future in done:
                    self._take(names[future], future.result())
                running.heed()
        except BaseException as error:
            for future in pending:
                future.cancel()
            if isinstance(error, KeyboardInterrupt):
                raise self._interrupted() from error
            raise

    def _take(self, key: str, measured: _Measured) -> None:
        figures, outputs, seconds = measured
        if self._scorer is not None:
            figures = figures | self._scorer(outputs)
        self._journal.add(key, figures)
        self.measured += 1
        if not self.expected_s:
            self.expected_s = seconds * self._total / self.width
        left = max(0, self._total - len(self._journal)) * self.expected_s / max(1, self._total)
        self._bar.update(len(self._journal), text=", ".join(filter(None, [self._said, f"about {left:.0f} s left"])))

    def _interrupted(self) -> Interrupted:
        kept = len(self._journal)
        return Interrupted(
            f"{self._step}: interrupted by the user; {kept} point{'s'[: kept != 1]} that were measured are kept",
            hint="the same call resumes with them",
        )


_Measured = tuple[dict[str, float], dict[str, np.ndarray], float]


def measure(runtime: str, args: Mapping[str, Any]) -> _Measured:
    """Measure one candidate in a worker of this process, wherever an executor has put it.

    Returns
    -------
    tuple
        Its figures, its outputs where they were asked for, and the seconds that it took.
    """
    start = time.perf_counter()
    answer = client.call("search_measure", args, runtime=runtime)
    return answer.values, answer.arrays, time.perf_counter() - start


def identity(function: Callable[..., Any] | None) -> str:
    """Tell one function of the user's from another, as well as that can be done: by its name and its source."""
    if function is None:
        return ""
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        text = repr(getattr(getattr(function, "__code__", None), "co_code", ""))
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}:{text}"
