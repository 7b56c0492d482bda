"""How the step select scores: what is known of each candidate in, criteria, verdicts and ranks out. Runs nothing."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qnb.values import Backend

__all__ = ["WEIGHTS", "Candidate", "Criterion", "Judged", "Targets", "judge", "weights_of"]

Constraint = Literal["power_critical", "performance_critical"]
CONSTRAINTS: tuple[Constraint, ...] = ("power_critical", "performance_critical")

WEIGHTS: Mapping[str, float] = {
    "placement": 30, "accuracy": 20, "latency": 20, "power": 10, "memory": 10, "tensor": 5, "precision": 5,
}  # fmt: skip
"""What each criterion counts without constraints; shares of their sum."""
STRESSED: Mapping[Constraint, tuple[str, float]] = {
    "power_critical": ("power", 4.0),
    "performance_critical": ("latency", 3.0),
}
"""What a constraint makes weightier, and how many times."""

POWER: Mapping[Backend, float] = {"htp": 0.9, "gpu": 0.6, "cpu": 0.4}
TENSOR_LIMIT_MB: Mapping[Backend, float] = {"htp": 8.0, "gpu": 64.0, "cpu": 512.0}
PREFERRED: Mapping[Backend, str] = {"htp": "integers", "gpu": "fp16", "cpu": "fp32"}
TUTORIAL = "tutorial"
"""Source of these three: rules of thumb of the tutorial that the workflow is from, measured by nobody here."""

UNKNOWN = 0.5
"""Score of what is not known: it speaks neither for nor against a candidate."""
ENOUGH_DB = 30.0
"""SQNR that earns the full score where none is asked for: what step check takes as good enough always."""


@dataclass(frozen=True)
class Targets:
    """What is asked of a candidate; None where nothing is."""

    min_sqnr: float | None = None
    min_accuracy: float | None = None
    latency_ms: float | None = None
    memory_mb: float | None = None


@dataclass(frozen=True)
class Candidate:
    """What is known of a build on a backend. NaN and ``""`` stand for what is not.

    Attributes
    ----------
    accepted, ops : int
        Ops of the model that the backend takes, and all of them; `accepted` is -1 where the backend can't be asked.
    refused : str
        The ops that it refuses, in words.
    runs_as : str
        Source of what runs here: ``simulator``, ``host``, ``reference`` or ``device``.
    """

    backend: Backend
    build: str
    precision: str
    soc: str
    runs_as: str
    accepted: int
    ops: int
    refused: str = ""
    latency_ms: float = math.nan
    low_ms: float = math.nan
    high_ms: float = math.nan
    latency_source: str = ""
    latency_why: str = ""
    sqnr_db: float = math.nan
    accuracy: float = math.nan
    fp32_accuracy: float = math.nan
    accuracy_source: str = ""
    memory_mb: float = math.nan
    memory_source: str = ""
    largest_tensor: str = ""
    largest_tensor_mb: float = math.nan

    @property
    def name(self) -> str:
        """Backend and precision."""
        return f"{self.backend} {self.precision}"

    @property
    def placement_percent(self) -> float:
        """Share of the ops that the backend takes."""
        return 100 * self.accepted / self.ops if self.accepted >= 0 and self.ops else math.nan

    @property
    def preferred(self) -> bool:
        """Whether it computes in what the backend is made for."""
        wanted = PREFERRED[self.backend]
        return self.precision == wanted or (wanted == "integers" and not self.precision.startswith("fp"))


@dataclass(frozen=True)
class Criterion:
    """One criterion of one candidate.

    Attributes
    ----------
    found, target : str
        In words, with unit.
    met : bool or None
        None where nothing is asked, or nothing is known: `asked` tells which.
    shortfall : float
        By which share of the target it is missed; 0 where it is met.
    score : float
        0 to 1; NaN where it is not known.
    """

    name: str
    found: str
    target: str
    score: float
    source: str
    asked: bool = False
    met: bool | None = None
    shortfall: float = 0.0
    missed: str = ""

    @property
    def counted(self) -> float:
        """The score that is added up."""
        return UNKNOWN if math.isnan(self.score) else self.score


@dataclass(frozen=True)
class Judged:
    """A candidate with its criteria, total and rank."""

    candidate: Candidate
    criteria: tuple[Criterion, ...]
    score: float
    rank: int = 0

    @property
    def fits(self) -> Literal["yes", "unknown", "no"]:
        """Whether all that is asked is met."""
        asked = [c.met for c in self.criteria if c.asked]
        return "no" if False in asked else "unknown" if None in asked else "yes"

    @property
    def missed(self) -> list[Criterion]:
        """Criteria that are missed, the worst first."""
        return sorted((c for c in self.criteria if c.met is False), key=lambda c: -c.shortfall)

    @property
    def open(self) -> list[str]:
        """Criteria of which nothing is known."""
        return [c.name for c in self.criteria if math.isnan(c.score)]

    @property
    def shortfall(self) -> float:
        """By which share the worst target is missed."""
        return max((c.shortfall for c in self.criteria), default=0.0)


def weights_of(constraints: Collection[Constraint]) -> dict[str, float]:
    """Give what each criterion counts, in percent."""
    weights = dict(WEIGHTS)
    for constraint in dict.fromkeys(constraints):
        name, times = STRESSED[constraint]
        weights[name] *= times
    total = sum(weights.values())
    return {name: 100 * weight / total for name, weight in weights.items()}


def judge(
    candidates: Sequence[Candidate], targets: Targets, constraints: Collection[Constraint]
) -> tuple[list[Judged], list[str]]:
    """Score and rank candidates; give with them a sentence for each that says why it stands where it does."""
    weights = weights_of(constraints)
    judged = []
    for candidate in candidates:
        criteria = tuple(_criteria(candidate, candidates, targets))
        judged.append(Judged(candidate, criteria, sum(weights[c.name] * c.counted for c in criteria)))
    order = {"yes": 0, "unknown": 1, "no": 2}
    judged.sort(key=lambda j: (order[j.fits], round(j.shortfall, 12), -j.score))
    ranked = [Judged(j.candidate, j.criteria, j.score, rank) for rank, j in enumerate(judged, 1)]
    return ranked, [_why(j, constraints) for j in ranked]


def _criteria(one: Candidate, every: Sequence[Candidate], targets: Targets) -> list[Criterion]:
    fastest = min((c.latency_ms for c in every if c.latency_ms > 0), default=math.nan)
    smallest = min((c.memory_mb for c in every if c.memory_mb > 0), default=math.nan)
    limit = TENSOR_LIMIT_MB[one.backend]
    band = f" ({one.low_ms:.3g} to {one.high_ms:.3g})" if math.isfinite(one.low_ms + one.high_ms) else ""
    return [
        _placement(one),
        _accuracy(one, targets),
        _at_most(
            "latency", one.latency_ms, targets.latency_ms, fastest, "ms", one.latency_source, band, one.latency_why
        ),
        Criterion("power", f"{POWER[one.backend]:g} of 1", "", POWER[one.backend], TUTORIAL),
        _at_most("memory", one.memory_mb, targets.memory_mb, smallest, "MB", one.memory_source),
        Criterion(
            "tensor",
            f"largest {one.largest_tensor_mb:.3g} MB" if one.largest_tensor_mb > 0 else "not known",
            f"at most {limit:g} MB",
            min(1.0, limit / one.largest_tensor_mb) if one.largest_tensor_mb > 0 else math.nan,
            TUTORIAL,
        ),
        Criterion("precision", one.precision, PREFERRED[one.backend], 1.0 if one.preferred else 0.5, TUTORIAL),
    ]


def _placement(one: Candidate) -> Criterion:
    source = one.runs_as if one.accepted >= 0 else ""
    if one.accepted < 0:
        return Criterion("placement", "not known", "all ops", math.nan, source, asked=True)
    share = one.accepted / one.ops if one.ops else 0.0
    refused = one.ops - one.accepted
    return Criterion(
        "placement",
        f"{one.accepted} of {one.ops} ops",
        "all ops",
        share,
        source,
        asked=True,
        met=not refused,
        shortfall=1 - share,
        missed=f"{one.backend} refuses {refused} of {one.ops} ops ({one.refused})",
    )


def _accuracy(one: Candidate, targets: Targets) -> Criterion:
    """Score the labels' accuracy where there are labels, else the SQNR; both targets must be met."""
    found, wanted, missed = [], [], []
    met: list[bool | None] = []
    shortfall = 0.0
    sqnr = "exact" if one.sqnr_db == math.inf else f"{one.sqnr_db:.1f} dB"
    if not math.isnan(one.sqnr_db):
        found.append(sqnr)
    if not math.isnan(one.accuracy):
        found.insert(0, f"{100 * one.accuracy:.1f} % right")
    for value, target, words, unit in (
        (one.accuracy, targets.min_accuracy, f"{100 * one.accuracy:.1f}", "%"),
        (one.sqnr_db, targets.min_sqnr, f"{one.sqnr_db:.1f}", "dB"),
    ):
        if target is None:
            continue
        asked = f"{100 * target:g} %" if unit == "%" else f"{target:g} dB"
        wanted.append(f"at least {asked}")
        met.append(None if math.isnan(value) else bool(value >= target))
        if met[-1] is False:
            short = 1.0 if value == -math.inf else (target - value) / abs(target or 1.0)
            shortfall = max(shortfall, short)
            missed.append(f"{'accuracy' if unit == '%' else 'SQNR'} of {words} {unit} is below {asked}")
    if not math.isnan(one.accuracy):
        full = targets.min_accuracy or one.fp32_accuracy or 1.0
        score = min(1.0, one.accuracy / full)
    else:
        score = min(1.0, max(0.0, one.sqnr_db / (targets.min_sqnr or ENOUGH_DB)))
        score = math.nan if math.isnan(one.sqnr_db) else score
    verdict = False if False in met else None if not met or None in met else True
    return Criterion(
        "accuracy", ", ".join(found) or "not known", " and ".join(wanted), score, one.accuracy_source,
        asked=bool(wanted), met=verdict, shortfall=shortfall, missed=" and ".join(missed),
    )  # fmt: skip


def _at_most(
    name: str,
    value: float,
    budget: float | None,
    least: float,
    unit: str,
    source: str,
    band: str = "",
    why: str = "",
) -> Criterion:
    """Score a figure that is to be small: against the budget, or without one against the smallest there is."""
    target = f"at most {budget:g} {unit}" if budget is not None else ""
    if math.isnan(value):
        found = f"not known: {why}" if why else "not known"
        return Criterion(name, found, target, math.nan, source, asked=budget is not None)
    full = budget if budget is not None else least
    met = None if budget is None else bool(value <= budget)
    return Criterion(
        name,
        f"{value:.3g} {unit}{band}",
        target,
        min(1.0, full / value) if value else 1.0,
        source,
        asked=budget is not None,
        met=met,
        shortfall=value / budget - 1 if met is False and budget else 0.0,
        missed=f"{name} of {value:.3g} {unit} ({source}) is over {budget:g} {unit}" if met is False else "",
    )


def _why(judged: Judged, constraints: Collection[Constraint]) -> str:
    one = judged.candidate
    if judged.missed:
        return f"does not fit: {'; '.join(c.missed for c in judged.missed)}"
    said = [f"takes all {one.ops} ops" if one.accepted >= 0 else "may take the ops, which can't be asked here"]
    by_name = {c.name: c for c in judged.criteria}
    if not math.isnan(one.latency_ms):
        said.append(f"{by_name['latency'].found} ({one.latency_source})")
    if one.accuracy_source:
        said.append(f"{by_name['accuracy'].found} ({one.accuracy_source})")
    if not math.isnan(one.memory_mb):
        said.append(f"{by_name['memory'].found} of memory ({one.memory_source})")
    if "power_critical" in constraints:
        said.append(f"power efficiency {POWER[one.backend]:g} ({TUTORIAL})")
    if not one.preferred:
        said.append(f"{one.precision} is not what {one.backend} is made for")
    if judged.open:
        said.append(f"not known: {', '.join(judged.open)}")
    return "; ".join(said)


def table(ranked: Sequence[Judged], why: Sequence[str]) -> list[dict[str, Any]]:
    """Give the rows of the ranked table."""
    rows = []
    for judged, sentence in zip(ranked, why, strict=True):
        one = judged.candidate
        scores = {f"{c.name}_score": c.score for c in judged.criteria}
        rows.append(
            {
                "rank": judged.rank, "backend": one.backend, "precision": one.precision, "soc": one.soc,
                "build": one.build, "fits": judged.fits, "score": judged.score,
                "placement_percent": one.placement_percent, "refused": one.refused,
                "latency_ms": one.latency_ms, "low_ms": one.low_ms, "high_ms": one.high_ms,
                "latency_source": one.latency_source or "none",
                "sqnr_db": one.sqnr_db, "accuracy": one.accuracy, "accuracy_source": one.accuracy_source or "none",
                "memory_mb": one.memory_mb, "memory_source": one.memory_source or "none",
                "largest_tensor": one.largest_tensor, "largest_tensor_mb": one.largest_tensor_mb,
                "tensor_limit_mb": TENSOR_LIMIT_MB[one.backend], "power_efficiency": POWER[one.backend],
                "preferred_precision": PREFERRED[one.backend],
                **scores,
                "shortfall_percent": 100 * judged.shortfall, "why": sentence, "source": one.runs_as,
            }
        )  # fmt: skip
    return rows


def criteria_table(ranked: Sequence[Judged], weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """Give a row for each candidate and criterion: what was found, what was asked, and the points that it earned."""
    return [
        {
            "rank": judged.rank, "backend": judged.candidate.backend, "precision": judged.candidate.precision,
            "criterion": c.name, "found": c.found, "target": c.target,
            "met": "" if not c.asked else "unknown" if c.met is None else "yes" if c.met else "no",
            "score": c.score, "weight_percent": weights[c.name], "points": weights[c.name] * c.counted,
            "source": c.source or "none",
        }
        for judged in ranked
        for c in judged.criteria
    ]  # fmt: skip
