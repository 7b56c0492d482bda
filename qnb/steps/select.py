"""Step ``select``: which backend to take for a model, from what the backends accept, estimates and measured accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from qnb.artifacts import BuildArgument, Context, Model, Quantized
from qnb.defaults import settings
from qnb.errors import (
    BadInput,
    CheckFailed,
    UnknownName,
)
from qnb.progress import progress
from qnb.results import Result, load
from qnb.runtime.locate import find_runtime
from qnb.samples import samples as sample_stream
from qnb.socs import Soc, find
from qnb.steps._candidates import measured, placed, with_estimate, with_footprint
from qnb.steps._common import StepTimer, as_build
from qnb.steps._selecting import (
    CONSTRAINTS,
    Constraint,
    Judged,
    Targets,
    criteria_table,
    judge,
    table,
    weights_of,
)
from qnb.steps.calibrate import DataArgument, PreprocessArgument
from qnb.steps.convert import Conversion, convert
from qnb.steps.estimate import estimate
from qnb.steps.infer import LabelsArgument, as_labels
from qnb.values import Argument, Backend
from qnb.views import Chart

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

EstimatesArgument = Annotated[Result | str | Path | None, Argument("estimates", ("Estimate",))]
_ESTIMATED = ("soc", "precision", "path", "latency_ms", "low_ms", "high_ms", "peak_memory_mb", "source", "why")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Selection(Result):
    """The backends, ranked.

    Attributes
    ----------
    frame : pandas.DataFrame
        A row for each backend and precision, the best first: what is known of it, its scores, and why it stands there.
    criteria : pandas.DataFrame
        A row for each of them and criterion: what was found and asked, the score, its weight and where it comes from.
    placement : pandas.DataFrame
        Op by op what each backend takes: as of `convert`.
    verdict : str
        The answer in one sentence.
    """

    kind: ClassVar[str] = "selection"

    name: str
    criteria: pd.DataFrame
    placement: pd.DataFrame
    verdict: str

    @property
    def best(self) -> Backend | None:
        """The backend to take; None where none fits."""
        first = self.frame.iloc[0]
        backend: Backend = first["backend"]
        return None if first["fits"] == "no" else backend

    @property
    def title(self) -> str:
        """The answer in one sentence."""
        return f"{self.name}: {self.verdict}"

    def require(self) -> None:
        """Do nothing if a backend fits.

        Raises
        ------
        CheckFailed
            If none does; says which is nearest, and by how much it misses.
        """
        if self.best is None:
            raise CheckFailed(self.title, hint="relax the target that is missed, or change the model: see .criteria")

    def tables(self) -> dict[str, pd.DataFrame]:
        """The ranks, and each criterion."""
        return {self.title: self.frame, "criteria": self.criteria}

    def _charts(self) -> list[Chart]:
        return [
            Chart("score", "bars", self.title, "backend", "score", group="precision"),
            Chart("points by criterion", "bars", "criteria", "criterion", "points", group="backend"),
            Chart(
                "latency",
                "bars",
                self.title,
                "backend",
                "latency_ms",
                "low_ms",
                "high_ms",
                "precision",
                "latency_source",
            ),
        ]

    def plot(self) -> Figure:
        """Points of each candidate, criterion by criterion."""
        from qnb.display import select_charts

        return select_charts.selection(self.frame, self.criteria)


def select(
    build: BuildArgument,
    *,
    data: DataArgument = None,
    labels: LabelsArgument = None,
    constraint: Sequence[Constraint] = (),
    min_sqnr: float | None = None,
    min_accuracy: float | None = None,
    latency_ms: float | None = None,
    memory_mb: float | None = None,
    soc: str | int | None = None,
    estimates: EstimatesArgument = None,
    samples: int | None = None,
    preprocess: PreprocessArgument = None,
    runtime: str | None = None,
) -> Selection:
    """Choose the backend for a model: from what each one takes of it, its accuracy, latency, memory and power.

    Each backend is a candidate in the precision that it is made for, and htp in fp16 beside it. The real backends are asked
    which ops they take; accuracy is measured with your data; latency is measured on a Snapdragon, and estimated elsewhere.
    A candidate that misses a target never stands before one that does not. Then the sum of the criteria's scores
    decides, each between 0 and 1 times its weight. What is not known counts half, and is named.

    Parameters
    ----------
    build : Model, Quantized, Context or path
        What is to run.
    data : array, dict, iterable, DataLoader, folder or file, optional
        Samples for the accuracy, as for `infer`; without them it is not known.
    labels : array, optional
        True class of each sample, for the top-1 accuracy.
    constraint : sequence of {"power_critical", "performance_critical"}, optional
        What matters most: power counts four times, or latency three times as much.
    min_sqnr : float, optional
        Lowest SQNR against fp32 of the worst output, in dB. Needs data.
    min_accuracy : float, optional
        Lowest top-1 accuracy, between 0 and 1. Needs data and labels.
    latency_ms : float, optional
        Longest time of one inference.
    memory_mb : float, optional
        Most memory.
    soc : str or int, optional
        SoC that it is for: part, name or QNN id.
    estimates : Estimate or path, optional
        Result of `estimate` for this build, for its latency on htp; by default it is made.
    samples : int, optional
        Use at most so many.
    preprocess : callable, optional
        Turns an image or a file's array into the model's input.
    runtime : str, optional
        Version of the runtime.

    Returns
    -------
    Selection
        Table: the candidates, the best first. `.best` is the backend, `.verdict` says why in a sentence, `.criteria` shows
        each criterion.

    Raises
    ------
    BadInput
        If a target needs data or labels that are not given, or an argument does not fit.

    Examples
    --------
    >>> choice = qnb.select(quantized, data=images, constraint=["power_critical"], min_sqnr=30)
    >>> choice.best
    """
    import pandas as pd

    timer = StepTimer("select")
    targets = Targets(min_sqnr, min_accuracy, latency_ms, memory_mb)
    constraints = _constraints(constraint)
    _check_targets(targets, data is not None, labels is not None)
    found_runtime = find_runtime(runtime)
    found = as_build(build)
    if isinstance(found, Context):
        soc = soc if soc is not None else found.soc.soc_model
        found = found.parent
    target = find(soc if soc is not None else settings.soc, qairt=found_runtime.qairt)
    classes = as_labels(labels)
    held = None
    if data is not None:
        held = list(sample_stream(data, found.inputs, preprocess=preprocess, limit=samples))
        if not held:
            raise BadInput("there is no sample in the data", hint="give at least one")
    estimated = _estimated(found, target, estimates, runtime)
    notes: list[str] = []
    logs: list[str] = []
    candidates = []
    variants = _variants(found)
    with progress("select", 2 * len(variants)) as bar:
        conversions: dict[str, Conversion] = {}
        for backend, variant in variants:
            bar.step(f"asking {backend}")
            if variant.digest not in conversions:
                conversions[variant.digest] = convert(variant, soc=target.part, runtime=runtime)
                logs.append(conversions[variant.digest].log)
            candidate = placed(backend, variant, conversions[variant.digest], target)
            candidate = with_estimate(candidate, estimated)
            candidate = with_footprint(candidate, variant)
            bar.step(f"running {candidate.name}")
            candidates.append(measured(candidate, variant, target, held, classes, samples, found_runtime, notes, logs))
    ranked, why = judge(candidates, targets, constraints)
    weights = weights_of(constraints)
    for one in candidates:
        if one.latency_why:
            notes.append(f"{one.name}: latency is not known: {one.latency_why}")
    notes += [
        "power, tensor and precision are rules of thumb of the tutorial, not measurements; what is not known counts half",
        f"weights in percent: {', '.join(f'{name} {weight:.3g}' for name, weight in weights.items())}",
    ]
    return Selection(
        frame=pd.DataFrame(table(ranked, why)),
        recipe=timer.recipe(
            found_runtime.qairt, build=found, constraint=list(constraints), soc=target.part, min_sqnr=min_sqnr,
            min_accuracy=min_accuracy, latency_ms=latency_ms, memory_mb=memory_mb, samples=len(held) if held else None,
        ),
        notes=tuple(dict.fromkeys([*(n for c in conversions.values() for n in c.notes if n.startswith("gpu:")), *notes])),
        log="\n".join(logs),
        name=f"{found.name} {found.precision}",
        criteria=pd.DataFrame(criteria_table(ranked, weights)),
        placement=conversions[found.digest].frame,
        verdict=_verdict(ranked, why),
    )  # fmt: skip


def _constraints(given: object) -> tuple[Constraint, ...]:
    names: Iterable[Any] = [given] if isinstance(given, str) else given if isinstance(given, Iterable) else [given]
    found: list[Constraint] = []
    for name in names:
        if name not in CONSTRAINTS:
            raise UnknownName.among("constraint", name, CONSTRAINTS)
        found.append(name)
    return tuple(dict.fromkeys(found))


def _check_targets(targets: Targets, data: bool, labels: bool) -> None:
    for name, value in (("latency_ms", targets.latency_ms), ("memory_mb", targets.memory_mb)):
        if value is not None and not 0 < value < math.inf:
            raise BadInput(f"{name} is {value}", hint="give a budget above 0, or leave it out")
    if targets.min_accuracy is not None and not 0 <= targets.min_accuracy <= 1:
        raise BadInput(f"min_accuracy is {targets.min_accuracy}", hint="it is a share between 0 and 1, such as 0.75")
    if targets.min_sqnr is not None and math.isnan(targets.min_sqnr):
        raise BadInput("min_sqnr is not a number", hint="give dB, such as 30")
    if targets.min_sqnr is not None and not data:
        raise BadInput("min_sqnr is asked for, but there is no data to measure it with", hint="give data=")
    if targets.min_accuracy is not None and not (data and labels):
        missing = " and ".join(n for n, there in (("data", data), ("labels", labels)) if not there)
        raise BadInput(f"min_accuracy is asked for, but {missing} are missing", hint="give data= and labels=")


def _variants(build: Model | Quantized) -> list[tuple[Backend, Model | Quantized]]:
    """List what is chosen among: the build on each backend, and its float model on htp."""
    floating: list[tuple[Backend, Model | Quantized]] = [("htp", build.float_model)]
    return [("htp", build), *(floating if isinstance(build, Quantized) else []), ("gpu", build), ("cpu", build)]


def _estimated(build: Model | Quantized, soc: Soc, estimates: object, runtime: str | None) -> pd.DataFrame | None:
    """Find the latency estimates for a build, and for its float model, on an SoC; they are made where none are given."""
    if estimates is None:
        import pandas as pd

        builds = [variant for backend, variant in _variants(build) if backend == "htp"]
        try:
            made = [estimate(one, soc=soc.part, runtime=runtime).frame for one in builds]
        except BadInput:  # this runtime's compiler is not the one that the estimates were fitted to
            return None
        return pd.concat(made, ignore_index=True)
    result = load(estimates) if isinstance(estimates, str | Path) else estimates
    frame = getattr(result, "frame", None)
    missing = [c for c in _ESTIMATED if c not in getattr(frame, "columns", ())]
    if frame is None or missing:
        what = f"lacks {', '.join(missing)}" if frame is not None else f"is a {type(result).__name__}"
        raise BadInput(f"estimates {what}", hint="give the result of estimate for this build")
    rows: pd.DataFrame = frame[frame["soc"].astype(str) == soc.part]
    if not len(rows):
        socs = ", ".join(dict.fromkeys(frame["soc"].astype(str)))
        raise BadInput(
            f"the estimates are for {socs}, not for {soc.part}", hint="estimate for the SoC that is asked for"
        )
    return rows


def _verdict(ranked: Sequence[Judged], why: Sequence[str]) -> str:
    """Say the answer in one sentence."""
    first, rest = ranked[0], ranked[1:]
    one = first.candidate
    where = f"{one.name} on {one.soc}"
    if first.fits == "no":
        return f"none fits; the nearest is {where}, which {why[0]}"
    hedge = "" if first.fits == "yes" else ", as far as is known"
    others = [j for j in rest if j.fits != "no"]
    behind = (
        f"; next is {others[0].candidate.name} with {others[0].score:.0f} points to {first.score:.0f}"
        if others
        else "; nothing else fits"
    )
    return f"take {where}{hedge}: it {why[0]}{behind}"
