"""What ``calibrate`` tries beyond plain ranges, and keeps only where it is measured to help.

Each trial changes one thing (the model's scaling, a range method, biases, rounding), quantizes, and is scored by the
SQNR of the outputs against the float model over the last samples that are kept, on ONNX Runtime's CPU. Runs no step of
its own: `qnb.steps.calibrate` calls these in order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb import kept
from qnb.progress import SILENT, Progress
from qnb.runtime.client import Answer, Worker
from qnb.runtime.locate import Runtime
from qnb.runtime.options import session_spec
from qnb.steps._observing import Observed, Ranges, gather

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["KEPT_BYTES", "PLANS", "Candidate", "Plan", "Tuner"]

Sample = Mapping[str, np.ndarray]

_SCORED = 32
"""Samples that trials are scored on, at most: the last of those that are kept. Where weights are rounded it is a quarter of
them, on which none is rounded, since rounding fits what it has seen."""

_FEW = 16
"""Of fewer samples all are needed for both."""

KEPT_BYTES = 256 << 20
"""Room for the samples that are kept, on disk and in memory."""

_WORTH_DB = 0.05
"""What a change must gain to be kept."""


@dataclass(frozen=True)
class Plan:
    """What is to be done: True in any case, False not at all, None where it is measured to help.

    Attributes
    ----------
    ranges : str
        A range method, or ``auto``: all of them, and the best one kept.
    equalize, absorb_bias, correct_bias : bool or None
    rounding : str or None
        How weights are rounded to their grids; None: the methods of `roundings` that help.
    roundings : tuple of str
    most_parameters : int
        `roundings` are only tried in models of at most so many parameters,
    in_large : tuple of str
        and these in larger ones, where weights have 4 bits.
    kept : int
        How many of the first samples are kept for trials and for weights.
    """

    ranges: str = "min-max"
    equalize: bool | None = False
    absorb_bias: bool | None = False
    correct_bias: bool | None = False
    rounding: str | None = "nearest"
    roundings: tuple[str, ...] = ()
    most_parameters: int = 1 << 62
    in_large: tuple[str, ...] = ()
    kept: int = _SCORED

    @property
    def rescales(self) -> bool:
        """Whether the float model's tensors may be rescaled."""
        return self.equalize is not False or self.absorb_bias is not False

    @property
    def needs_samples(self) -> bool:
        """Whether samples have to be kept."""
        return self.rescales or self.correct_bias is not False or self.ranges == "auto" or self.rounding != "nearest"

    def with_choices(
        self,
        ranges: str | None,
        equalize: bool | None,
        absorb_bias: bool | None,
        correct_bias: bool | None,
        rounding: str | None,
    ) -> Plan:
        """Give the plan with what the user chose himself in place of its own."""
        chosen = {
            "ranges": ranges,
            "equalize": equalize,
            "absorb_bias": absorb_bias,
            "correct_bias": correct_bias,
            "rounding": rounding,
        }
        made = replace(self, **{key: value for key, value in chosen.items() if value is not None})  # type: ignore[arg-type]
        return made if rounding is None else replace(made, kept=max(made.kept, _ROUNDED))


_ROUNDED = 128
"""Samples that weights are optimized on."""

_TRY_ALL = Plan("auto", equalize=None, absorb_bias=None, correct_bias=None, rounding=None, kept=_ROUNDED)

PLANS = {
    "fast": Plan(),
    # in a small model the weights' codes take about a second; with 4 bits their scales are worth some in any
    "balanced": replace(_TRY_ALL, roundings=("gptq",), most_parameters=300_000, in_large=("seqmse",)),
    "best": replace(_TRY_ALL, roundings=("seqmse", "gptq")),
}


@dataclass
class Candidate:
    """A quantized model under trial.

    Attributes
    ----------
    model : Path
        The float model that it was made of.
    path, encodings : Path
    values : dict
        Answer of the job ``quantize``.
    """

    model: Path
    path: Path
    encodings: Path
    values: dict[str, Any]
    sqnr_db: float = math.nan


@dataclass
class Tuner:
    """Quantizes and scores variants of one model in one worker.

    Attributes
    ----------
    model : Path
        The float model that says what is right.
    options : mapping
        Arguments of the job ``quantize`` that all variants share.
    ranges_options : mapping
        ``bits`` and ``percentile`` of the range methods.
    bar : Progress
    """

    worker: Worker
    runtime: Runtime
    folder: Path
    model: Path
    options: Mapping[str, Any]
    ranges_options: Mapping[str, Any]
    bar: Progress
    log: list[str] = field(default_factory=list)
    _trials: list[dict[str, Any]] = field(default_factory=list)
    _made: int = 0
    _held_out: int = 0

    @property
    def samples(self) -> Path:
        """Folder of the samples that are kept."""
        return self.folder / "samples"

    @property
    def trials(self) -> pd.DataFrame | None:
        """What was tried; None if nothing was."""
        import pandas as pd

        return pd.DataFrame(self._trials) if self._trials else None

    def keep(self, samples: Sequence[Sample], *, rounds: bool) -> None:
        """Write the first samples for the jobs that need them; where weights will be rounded some are held out."""
        for number, sample in enumerate(samples):
            kept.put(self.samples, number, sample)
        self._held_out = min(_SCORED, len(samples) // 4) if rounds and len(samples) >= _FEW else 0

    def tell_expected(
        self, plan: Plan, first: Sequence[Sample], total: int | None, parameters: int, layers: int
    ) -> None:
        """Show how long all of it will take, as far as that can be told from the first sample's own time.

        The factors are what was seen on two cores with convolutional nets of 5 000 to 25 million parameters: good to a
        factor of two.
        """
        feeds = {name: value[None] for name, value in first[0].items()}
        order = {"spec": self._spec(self.model), "count": 1}
        once = min(self._call("run", order, feeds).values["run_ms"] / 1e3 for _ in range(2))
        passes = 2 * (total or len(first))
        if plan.rescales:
            passes += 8 * len(first)
        passes += 15 * min(len(first), self._held_out or _SCORED)
        seconds = once * passes
        methods = (plan.rounding,) if plan.rounding is not None else self._roundings(plan, parameters)
        if methods and methods != ("nearest",):
            seconds += 0.1 * layers + (3e-6 if methods == ("seqmse",) else 35e-6) * parameters
        self.bar.update(0, text=f"about {_duration(seconds)} in all")

    # --- observing ---------------------------------------------------------------------------------------------

    def observe(self, model: Path, samples: Iterable[Sample], methods: Sequence[str], **more: Any) -> Observed:
        """Find ranges by each of the methods: see `gather`; the bar moves where there is a checkpoint."""
        self._made += 1
        out = self.folder / f"observed-{self._made}.onnx"
        orders = [{"method": method, **self.ranges_options} for method in methods]
        bar = self.bar if "checkpoint" in more else SILENT
        found = gather(self.worker, self.runtime, model, out, samples, orders, bar, **more)
        self.log.append(found.log)
        return found

    # --- quantizing and scoring --------------------------------------------------------------------------------

    def quantize(self, model: Path, ranges: Ranges | None, *, chosen: Path | None = None) -> Candidate:
        """Quantize a float model with given ranges."""
        self._made += 1
        out = self.folder / f"quantized-{self._made}.onnx"
        encodings = out.with_suffix(".encodings.json")
        answer = self._call(
            "quantize",
            {
                **self.options,
                "model": str(model),
                "out": str(out),
                "encodings": str(encodings),
                "ranges": {name: list(extent) for name, extent in ranges.items()} if ranges is not None else None,
                "chosen": str(chosen) if chosen else None,
                "spec": self._spec(out),
            },
        )
        return Candidate(model, out, encodings, answer.values)

    def choose(self, step: str, options: Mapping[str, Candidate], began: float, *, worth_db: float = _WORTH_DB) -> str:
        """Score what has no score yet, note the trial, and give the name of the best.

        Parameters
        ----------
        step : str
        options : mapping of str to Candidate
            The first is what there was before; another one must be better by `worth_db`.
        began : float
            ``time.perf_counter()`` when the trial began.
        """
        unscored = [c for c in options.values() if math.isnan(c.sqnr_db)]
        if unscored:
            answer = self._call(
                "score",
                {
                    "model": str(self.model),
                    "candidates": [str(c.path) for c in unscored],
                    "samples": str(self.samples),
                    "spec": self._spec(self.model),
                    "last": self._held_out or _SCORED,
                },
            )
            for candidate, sqnr_db in zip(unscored, answer.values["sqnr_db"], strict=True):
                candidate.sqnr_db = sqnr_db
        first, *others = options
        best = max(others, key=lambda name: options[name].sqnr_db, default=first)
        if not options[best].sqnr_db > options[first].sqnr_db + worth_db:
            best = first
        seconds = time.perf_counter() - began
        self._trials += [
            {
                "step": step,
                "option": name,
                "sqnr_db": candidate.sqnr_db,
                "kept": name == best,
                "seconds": seconds / max(1, len(unscored)) if candidate in unscored else 0.0,
                "source": "host",
            }
            for name, candidate in options.items()
        ]
        return best

    # --- what is tried -----------------------------------------------------------------------------------------

    def rescaled(self, plan: Plan, first: Sequence[Sample]) -> Path:
        """Give the float model, its tensors rescaled as the plan says."""
        current, before = self.model, None
        for step, name, wanted in (
            ("equalize", "cross-layer equalization", plan.equalize),
            ("absorb", "high biases absorbed", plan.absorb_bias),
        ):
            if wanted is False:
                continue
            began = time.perf_counter()
            self.bar.update(0, text=name)
            made, rows = self._transformed(current, ["fold", step])
            if not rows and wanted is None:
                continue
            if wanted is None:
                options = {"before": before or self._roughly(current, first), name: self._roughly(made, first)}
                before = options[self.choose(name, options, began)]
                current = before.model
            else:
                current = made
        return current

    def with_ranges(self, model: Path, ranges: Mapping[str, Ranges]) -> tuple[str, Candidate]:
        """Quantize with each of the methods' ranges, and give the best one's name and model."""
        began = time.perf_counter()
        options = {}
        for method, found in ranges.items():
            self.bar.update(0, text=f"ranges: {method}")
            options[method] = self.quantize(model, found)
        best = next(iter(options)) if len(options) == 1 else self.choose("ranges", options, began)
        return best, options[best]

    def corrected(self, plan: Plan, before: Candidate, ranges: Ranges, means: Mapping[str, np.ndarray]) -> Candidate:
        """Correct biases for what rounding the weights adds to the mean."""
        if plan.correct_bias is False:
            return before
        began = time.perf_counter()
        self.bar.update(0, text="bias correction")
        model, rows = self._transformed(before.model, ["correct"], encodings=before.encodings, means=means)
        if not rows:
            return before
        after = self.quantize(model, ranges)
        if plan.correct_bias:
            return after
        options = {"before": before, "corrected": after}
        return options[self.choose("bias correction", options, began)]

    def rounded(self, plan: Plan, plain: Candidate, best: Candidate, ranges: Ranges, parameters: int) -> Candidate:
        """Choose the codes of the weights on the samples that are kept.

        Parameters
        ----------
        plan : Plan
        plain : Candidate
            What the weights are rounded for: before biases were corrected, since rounding corrects them itself.
        best : Candidate
            What it has to be better than.
        ranges : mapping
            Of the activations.
        parameters : int
            How many the model has.
        """
        if plan.rounding is not None:
            return best if plan.rounding == "nearest" else self._rounded(plan.rounding, plain, ranges) or best
        methods = self._roundings(plan, parameters)
        if not methods:
            return best
        began = time.perf_counter()
        options = {"before": best}
        for method in methods:
            if (made := self._rounded(method, plain, ranges)) is not None:
                options[method] = made
        return options[self.choose("rounding", options, began)]

    def _roundings(self, plan: Plan, parameters: int) -> tuple[str, ...]:
        """Give the methods of rounding that are tried in a model of so many parameters."""
        if parameters <= plan.most_parameters:
            return plan.roundings
        return plan.in_large if self.options["weight_bits"] == 4 else ()

    def _rounded(self, method: str, plain: Candidate, ranges: Ranges) -> Candidate | None:
        """Quantize with codes chosen by a method; None if there was nothing to choose."""
        self._made += 1
        out = self.folder / f"rounded-{self._made}.onnx"
        chosen = out.with_suffix(".chosen.json")
        self.bar.update(0, text=method)

        def told(done: float, total: float | None, text: str) -> None:
            self.bar.update(done, total, f"{method}: {text}")

        answer = self.worker.call(
            "optimise",
            {
                "model": str(plain.model),
                "out": str(out),
                "encodings": str(plain.encodings),
                "chosen": str(chosen),
                "samples": str(self.samples),
                "held_out": self._held_out,
                "method": method,
                "options": None,
                "spec": self._spec(out),
                "folder": str(self.folder / "layers"),
            },
            on_progress=told,
        )
        self.log.append(answer.log)
        return self.quantize(out, ranges, chosen=chosen) if answer.values["rows"] else None

    def _roughly(self, model: Path, first: Sequence[Sample]) -> Candidate:
        """Quantize with the first samples' smallest and largest values: good enough to compare scalings."""
        return self.quantize(model, self.observe(model, first, ["min-max"]).ranges["min-max"])

    def _transformed(
        self,
        model: Path,
        steps: Sequence[str],
        *,
        encodings: Path | None = None,
        means: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[Path, list[dict[str, Any]]]:
        self._made += 1
        out = self.folder / f"changed-{self._made}.onnx"
        order = {
            "model": str(model),
            "out": str(out),
            "steps": list(steps),
            "samples": str(self.samples),
            "spec": self._spec(out),
            "folder": str(self.folder / "pieces"),
            "encodings": str(encodings) if encodings else None,
        }
        answer = self._call("transform", order, means)
        return out, answer.values["rows"]

    def _spec(self, path: Path) -> dict[str, Any]:
        return session_spec(str(path), "ort", self.runtime).plain()

    def _call(self, job: str, args: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> Answer:
        answer = self.worker.call(job, args, arrays)
        self.log.append(answer.log)
        return answer


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"
