"""The hunt behind step `search`: what is asked for, measuring towards it, verifying on the simulator, writing the model.

Knows nothing of tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qnb import cache, frames, kept
from qnb.artifacts import Quantized
from qnb.errors import BadInput, CalibrationError, RuntimeUnavailable
from qnb.files import write_text
from qnb.progress import SILENT
from qnb.quant.mixes import Assignment, CostName, bits_of
from qnb.quant.parts import override_entries, said
from qnb.quant.search import Found, cheapest, most_accurate
from qnb.runtime import client
from qnb.runtime.options import session_spec
from qnb.steps._common import StepTimer
from qnb.steps._deploy import deploy
from qnb.steps._mixed import METHOD, Bench, Candidate, Points, Scorer
from qnb.steps.infer import accuracy_frame, run_samples, top1
from qnb.steps.sensitivity import metric_scorer

_ATTEMPTS = 4
_WORST_NOISE = 1e6  # of a part that makes NaN of the output


@dataclass(frozen=True)
class Goal:
    """What is asked for: a column, and the least that it must be; or a share of w8a8's cost."""

    column: str
    asked: float
    text: str
    least: float = float("nan")
    budget: float | None = None

    @classmethod
    def of(
        cls,
        target_sqnr: float | None,
        max_top1_drop: float | None,
        target_metric: float | None,
        budget: float | None,
        labels: object,
        metric: object,
    ) -> Goal:
        given = {
            "target_sqnr": target_sqnr,
            "max_top1_drop": max_top1_drop,
            "target_metric": target_metric,
            "budget": budget,
        }
        said_ = {name: value for name, value in given.items() if value is not None}
        if len(said_) != 1:
            what = f"{' and '.join(said_)} are given" if said_ else "no goal is given"
            raise BadInput(what, hint=f"give one of {', '.join(given)}; for instance target_sqnr=30")
        ((name, value),) = said_.items()
        if not math.isfinite(value) or (name in ("budget", "max_top1_drop") and value < 0):
            raise BadInput(f"{name} is {value}", hint="give a finite number, 0 or more")
        if name == "max_top1_drop" and labels is None:
            raise BadInput("max_top1_drop needs the true classes", hint="give labels=, one for each sample")
        if name == "target_metric" and metric is None:
            raise BadInput(
                "target_metric needs a metric", hint="give metric=, a function of outputs, reference and labels"
            )
        if name == "budget":
            column = "metric" if metric is not None else "sqnr_db"
            return cls(column, value, f"at most {100 * value:.0f} % of w8a8's cost", budget=value)
        if name == "target_sqnr":
            return cls("sqnr_db", value, f"at least {value:g} dB", value)
        if name == "target_metric":
            return cls("metric", value, f"metric of at least {value:g}", value)
        return cls("top1_percent", value, f"at most {value:g} points of top-1 lost")

    def against(self, reference: Mapping[str, np.ndarray], labels: np.ndarray | None) -> Goal:
        """Set the least accuracy by the float model's own."""
        if self.column != "top1_percent" or labels is None:
            return self
        least = 100 * top1(reference, labels) - self.asked
        return Goal(self.column, self.asked, self.text, least - 1e-9)

    @property
    def shown(self) -> float:
        """The least SQNR, for the chart; NaN where something else is asked for."""
        return self.asked if self.column == "sqnr_db" and self.budget is None else float("nan")


def scorer_of(bench: Bench, metric: Any, labels: np.ndarray | None) -> Scorer | None:
    """Give the function for the figures beside SQNR: top-1 where there are labels, and the user's own."""
    own = metric_scorer(metric, bench.reference, labels)
    if own is None and labels is None:
        return None

    def score(outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        figures = {"top1_percent": 100 * top1(outputs, labels)} if labels is not None else {}
        return figures | (own(outputs) if own else {})

    return score


class Hunt:
    """One search: the figures of all that was measured, and the mix that it comes to."""

    def __init__(
        self,
        bench: Bench,
        measure: Points,
        goal: Goal,
        cost: CostName,
        points: int,
        refine: int,
        baselines: list[Assignment],
    ) -> None:
        self.bench, self.measure, self.goal, self.cost = bench, measure, goal, cost
        self._settings: dict[str, Any] = {
            "cost": cost,
            "points": points,
            "refine": refine,
            "baselines": baselines,
            "batch": measure.width,
        }
        self.figures: dict[Assignment, dict[str, float]] = {}
        self.simulated: dict[Assignment, dict[str, Any]] = {}
        self.alone: list[dict[str, float]] = []
        self.notes: list[str] = []
        self.log = ""

    def run(self, verify: bool, soc: str) -> Assignment:
        """Find the mix; where it is verified and misses the target on the simulator, find a more accurate one."""
        self.alone = self._alone()
        noise = [{o: _noise(db) for o, db in options.items()} for options in self.alone]
        margin = 0.0
        best: Assignment | None = None
        for _ in range(_ATTEMPTS):
            found = self._search(noise, margin)
            if found.best is None:
                break
            best = found.best
            if not verify or self._missing(best, soc) <= 0:
                return best
            reached = self.figures[best][self.goal.column]
            margin = reached + self._missing(best, soc) - self.goal.least + 1e-6
        raise self._nothing() if best is None else self._missed()

    def _alone(self) -> list[dict[str, float]]:
        """Measure every part in every precision with all else in float; SQNR in dB."""
        parts = self.bench.problem.parts
        asked = [(i, option) for i, part in enumerate(parts) for option in part.options]
        found: list[dict[str, float]] = [{} for _ in parts]
        self.measure.note("each part alone")
        got = self.measure([Candidate(said(parts[i], option), alone=True) for i, option in asked])
        for (i, option), figures in zip(asked, got, strict=True):
            found[i][option] = figures["sqnr_db"]
        return found

    def _search(self, noise: list[dict[str, float]], margin: float) -> Found:
        problem = self.bench.problem
        if self.goal.budget is None:
            return cheapest(problem, noise, self._scores, self.goal.least + margin, **self._settings)
        limit = self.goal.budget * problem.cost(problem.uniform("w8a8"), self.cost)
        return most_accurate(problem, noise, self._scores, limit * (1 + 1e-12), **self._settings)

    def _scores(self, mixes: Sequence[Assignment]) -> list[float]:
        parts = self.bench.problem.parts
        got = self.measure(
            [
                Candidate({k: v for part, o in zip(parts, mix, strict=True) for k, v in said(part, o).items()})
                for mix in mixes
            ]
        )
        self.figures.update(zip(mixes, got, strict=True))
        self.measure.note(self._best_so_far())
        return [figures[self.goal.column] for figures in got]

    def _best_so_far(self) -> str:
        problem, goal = self.bench.problem, self.goal
        good = [m for m, f in self.figures.items() if goal.budget is not None or f[goal.column] >= goal.least]
        if not good:
            return "nothing holds yet"
        cheap = min(good, key=lambda m: problem.cost(m, self.cost))
        share = 100 * problem.cost(cheap, self.cost) / problem.cost(problem.uniform("w8a8"), self.cost)
        return f"best: {share:.0f} % of w8a8, {self.figures[cheap]['sqnr_db']:.1f} dB"

    def _missing(self, mix: Assignment, soc: str) -> float:
        """Say by how much a mix misses the target on the simulator; what it reaches there is kept."""
        if mix not in self.simulated:
            try:
                self._simulate(mix, soc)
            except RuntimeUnavailable as error:
                self.notes.append(f"not verified: {error.what}")
                self.simulated[mix] = {}
        reached = self.simulated[mix].get(self.goal.column)
        if self.goal.budget is not None or reached is None:
            return 0.0
        return self.goal.least - float(reached)

    def _simulate(self, mix: Assignment, soc: str) -> None:
        bench = self.bench
        quantized = write_mix(bench, mix, override_entries(bench.problem, mix), StepTimer("search"))
        self.measure.note("on the simulator")
        deployed = deploy(quantized, "htp", bench.runtime, soc=soc)
        ran = run_samples(
            deployed, map(kept.load, kept.files(bench.folder / "samples")), bench.runtime, SILENT, with_reference=True
        )
        self.log += ran.log
        frame = accuracy_frame(deployed, ran, None)
        extra = self.measure.score(ran.outputs)
        self.simulated[mix] = {**extra, "sqnr_db": float(frame["sqnr_db"].min()), "source": deployed.source}

    def _missed(self) -> CalibrationError:
        column = self.goal.column
        mix = max(self.simulated, key=lambda m: self.simulated[m][column])
        there, here = self.simulated[mix][column], self.figures[mix][column]
        return CalibrationError(
            f"no mix that was tried holds {self.goal.text} on the simulator: the best has {column} {there:.2f} there, and "
            f"{here:.2f} on this host",
            hint="add fp16 to the candidates (HTP is less exact in w16a16 than its bits say), lower the target, or say "
            "verify=False to take this host's word",
        )

    def _nothing(self) -> CalibrationError:
        if self.goal.budget is not None:
            return CalibrationError(
                f"no mix is within the budget of {100 * self.goal.budget:.0f} % of w8a8's cost",
                hint="raise the budget, or add cheaper candidates, such as w4a8",
            )
        column = self.goal.column
        top = max(f[column] for f in self.figures.values())
        return CalibrationError(
            f"no mix holds {self.goal.text}: the best of those that were measured has {column} {top:.2f}, "
            f"and {self.goal.least:.2f} is wanted",
            hint="add more accurate candidates (w16a16, fp16), lower the target, or see what qnb.sensitivity says",
        )


def _noise(sqnr_db: float) -> float:
    """Noise power over signal power."""
    return _WORST_NOISE if math.isnan(sqnr_db) else min(_WORST_NOISE, 10 ** (-sqnr_db / 10))


def write_mix(bench: Bench, mix: Assignment, overrides: Mapping[str, Any], timer: StepTimer) -> Quantized:
    """Make the quantized model of a mix."""
    out, encodings, said_ = (bench.folder / name for name in ("best.onnx", "best.json", "best.overrides.json"))
    write_text(said_, json.dumps(overrides, indent=1) + "\n")
    answer = client.call(
        "quantize",
        {
            "model": str(bench.model.path),
            "out": str(out),
            "encodings": str(encodings),
            "activation_bits": 8,
            "weight_bits": 8,
            "ranges": bench.ranges,
            "overrides": dict(overrides),
            "per_channel": bench.per_channel,
            "spec": session_spec(str(out), "ort", bench.runtime).plain(),
        },
        runtime=bench.runtime,
    )
    model, digest = cache.put_file(out, ".onnx")
    return Quantized(
        frame=frames.from_plain(answer.values["frame"]),
        recipe=timer.recipe(bench.runtime.qairt, model=bench.model, data=bench.data, overrides=overrides),
        notes=tuple(answer.values["notes"]),
        log=answer.log,
        files={
            "model": model,
            "encodings": cache.put_file(encodings, ".encodings.json")[0],
            "overrides": cache.put_file(said_, ".overrides.json")[0],
        },
        name=bench.model.name,
        digest=digest,
        parent=bench.model,
        precision=_precision(mix),
        method=METHOD,
        weights="per channel" if bench.per_channel else "per tensor",
        samples=bench.observed,
    )


def _precision(mix: Assignment) -> str:
    """Name a mix: ``w8a8``, ``w4-8a8-16``; ``mixed`` where layers stay in float."""
    if "fp16" in mix:
        return "mixed"
    columns = [sorted({b for b in bits if b}) for bits in zip(*map(bits_of, mix), strict=True)]
    return "".join(f"{k}{'-'.join(map(str, sorted({c[0], c[-1]})))}" for k, c in zip("wa", columns, strict=True) if c)
