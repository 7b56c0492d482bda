"""Step ``sensitivity``: what each layer, or tensor, alone does to the model's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from qnb import cache
from qnb.artifacts import BuildArgument
from qnb.errors import BadInput, UnknownName
from qnb.progress import progress
from qnb.quant.mixes import Part, bits_of, check_candidates
from qnb.quant.parts import Granularity, said
from qnb.results import Result
from qnb.runtime.locate import find_runtime
from qnb.steps._common import StepTimer, as_measured
from qnb.steps._mixed import SOURCE, SOURCE_NOTE, Candidate, Journal, Points, Scorer, identity, open_bench
from qnb.steps.calibrate import DataArgument, PreprocessArgument
from qnb.steps.context import ExecutorArgument
from qnb.steps.infer import LabelsArgument, as_labels
from qnb.values import Argument
from qnb.views import Chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Metric = Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray], np.ndarray | None], float]
MetricArgument = Annotated[Metric | None, Argument("python", ("function",))]
Mode = Literal["alone", "without"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Sensitivity(Result):
    """How much each layer or tensor takes from the model's accuracy.

    Attributes
    ----------
    frame : pandas.DataFrame
        A row for each layer or tensor and precision, the most harmful first.
    name : str
        The model's.
    mode : str
        ``alone``: nothing else is quantized; ``without``: all else is.
    samples : int
        How many samples were measured on.
    all_sqnr_db : float
        SQNR with everything quantized, dB; NaN for several precisions.
    """

    kind: ClassVar[str] = "sensitivity"

    name: str
    mode: str
    samples: int
    all_sqnr_db: float

    @property
    def title(self) -> str:
        """What was measured on how much."""
        how = "quantized alone" if self.mode == "alone" else "left in float alone"
        precisions = ", ".join(dict.fromkeys(self.frame["precision"]))
        return f"{self.name}: each part {how}, {precisions}, {self.samples} samples"

    def _charts(self) -> list[Chart]:
        return [Chart("SQNR by part", "bars", self.title, "part", "sqnr_db", group="precision")]

    def plot(self) -> Figure:
        """SQNR by layer or tensor, the most sensitive on top."""
        from qnb.display import search_charts

        return search_charts.sensitivity(self.frame, mode=self.mode, all_sqnr_db=self.all_sqnr_db)


def sensitivity(
    model: BuildArgument,
    data: DataArgument,
    *,
    precision: str | Sequence[str] = "w8a8",
    granularity: Granularity = "layer",
    mode: Mode = "alone",
    samples: int = 16,
    metric: MetricArgument = None,
    labels: LabelsArgument = None,
    per_channel: bool = True,
    preprocess: PreprocessArgument = None,
    resume: bool = True,
    executor: ExecutorArgument = None,
    runtime: str | None = None,
) -> Sensitivity:
    """See which layers, or tensors, lose the accuracy when they are quantized.

    Each is quantized alone while all else stays in float (or stays in float alone while all else is quantized), and the
    model's output is compared with that of the float model: as many runs as there are parts and precisions. Ranges are
    gathered once, over all data, by min-max.

    Parameters
    ----------
    model : Model, Quantized or path
        A float model; of a quantized one the float model with its tensors' scales, equalized if it was.
    data : array, dict, iterable, DataLoader, folder or file
        Calibration inputs, as for `calibrate`; the first ones are measured on.
    precision : str or sequence of str
        What to quantize to: ``w4a8``, ``w8a8``, ``w4a16``, ``w8a16``, ``w16a16``; several, or one text with commas.
    granularity : {"layer", "tensor"}
        A layer is an op with its weights and its output; or each weight and each activation by itself.
    mode : {"alone", "without"}
        ``alone`` quantizes one part and nothing else; ``without`` quantizes everything but one part.
    samples : int
        How many samples to measure on.
    metric : callable, optional
        Gives a figure of its own, the higher the better: called with outputs by name, the float model's outputs, and
        the labels.
    labels : array, optional
        True class of each sample, passed on to `metric`.
    per_channel : bool
        Whether each output channel of a weight has its own scale.
    preprocess : callable, optional
        Turns an image or a file's array into the model's input.
    resume : bool
        Whether to go on from what an interrupted call has measured.
    executor : concurrent.futures.Executor, optional
        Where to measure; by default threads, one a core, each with a worker of its own.
    runtime : str, optional
        Version of the runtime.

    Returns
    -------
    Sensitivity
        Table: a row for each part and precision, the most harmful first.

    Raises
    ------
    BadInput
        If a sample does not fit the model, or a precision is unknown.
    Interrupted
        If the user interrupted; what was measured is kept.

    Examples
    --------
    >>> found = qnb.sensitivity(model, images, precision="w8a8")
    """
    import pandas as pd

    timer = StepTimer("sensitivity")
    precisions = check_candidates(precision)
    check_choices(granularity, mode)
    if "fp16" in precisions:
        raise BadInput("fp16 quantizes nothing", hint="choose integers, such as w8a8")
    classes = as_labels(labels)
    found_runtime = find_runtime(runtime)
    float_model = as_measured(model)
    with open_bench(
        float_model,
        data,
        candidates=precisions,
        granularity=granularity,
        samples=samples,
        preprocess=preprocess,
        per_channel=per_channel,
        runtime=found_runtime,
    ) as bench:
        scorer = metric_scorer(metric, bench.reference, classes)
        asked = [(part, p, option) for part in bench.problem.parts for p, option in part_options(part, precisions)]
        candidates = [_candidate(part, p, option, mode) for part, p, option in asked]
        whole = [Candidate({}, others=_both(p)) for p in precisions]
        journal = Journal(journal_key(bench.key, metric, classes), resume=resume)
        with progress("sensitivity", len(candidates) + len(whole), unit="point") as bar:
            measure = Points(bench, journal, "sensitivity", executor, bar, len(candidates) + len(whole), scorer)
            figures = measure([*candidates, *whole])
    rows = [
        {**describe(part), "precision": option, "sqnr_db": f["sqnr_db"], **_metric(f), "source": SOURCE}
        for (part, _, option), f in zip(asked, figures[: len(asked)], strict=True)
    ]
    first = "metric" if metric is not None else "sqnr_db"
    frame = pd.DataFrame(rows).sort_values(first, ascending=mode == "alone", kind="stable", ignore_index=True)
    quantized_whole = figures[len(asked) :]
    notes = [
        SOURCE_NOTE,
        *(f"everything in {p}: {f['sqnr_db']:.1f} dB" for p, f in zip(precisions, quantized_whole, strict=True)),
    ]
    return Sensitivity(
        frame=frame,
        recipe=timer.recipe(
            found_runtime.qairt,
            model=float_model,
            data=bench.data,
            precision=list(precisions),
            granularity=granularity,
            mode=mode,
            samples=bench.samples,
            metric=metric,
            per_channel=per_channel,
        ),
        notes=(*notes, *resumed_note(journal)),
        log=bench.log,
        name=float_model.name,
        mode=mode,
        samples=bench.samples,
        all_sqnr_db=quantized_whole[0]["sqnr_db"] if len(precisions) == 1 else float("nan"),
    )


def check_choices(granularity: str, mode: str = "alone") -> None:
    """Refuse unknown words."""
    if granularity not in ("layer", "tensor"):
        raise UnknownName.among("granularity", granularity, ["layer", "tensor"])
    if mode not in ("alone", "without"):
        raise UnknownName.among("mode", mode, ["alone", "without"])


def metric_scorer(
    metric: Metric | None, reference: Mapping[str, np.ndarray], labels: np.ndarray | None
) -> Scorer | None:
    """Give the function that adds the user's figure, or None.

    Raises
    ------
    BadInput
        When it is called and the user's function fails, or gives no number.
    """
    if metric is None:
        return None

    def score(outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        try:
            return {"metric": float(metric(outputs, reference, labels))}
        except Exception as error:
            raise BadInput(
                f"the metric failed: {type(error).__name__}: {error}",
                hint="it is called with outputs by name, the float model's outputs, and the labels, and returns a number",
            ) from error

    return score


def part_options(part: Part, precisions: Sequence[str]) -> list[tuple[str, str]]:
    """Give the precisions that were asked for, each with what this part becomes in it, where that differs."""
    found: dict[str, str] = {}
    for precision in precisions:
        weights, activations = bits_of(precision)
        exact = f"w{weights}" * bool(part.weights) + f"a{activations}" * bool(part.tensors)
        near = next((o for o in part.options if not part.tensors or o.endswith(f"a{activations}")), part.options[0])
        found.setdefault(exact if exact in part.options else near, precision)
    return [(precision, option) for option, precision in found.items()]


def describe(part: Part) -> dict[str, Any]:
    """Columns that name a part in a table."""
    tensors = [*part.weights, *part.tensors]
    return {"part": part.name, "op_type": part.op_type, "tensors": ", ".join(tensors)}


def journal_key(bench: str, metric: Metric | None, labels: np.ndarray | None) -> str:
    """Digest of all that a figure depends on, the candidate aside."""
    scored = identity(metric) if metric is not None else ""
    return cache.key(bench=bench, metric=scored, labels=labels.tolist() if labels is not None else None)


def resumed_note(journal: Journal) -> tuple[str, ...]:
    """Say how much was there already."""
    return (f"{journal.resumed} points were there already from an earlier call",) if journal.resumed else ()


def _candidate(part: Part, precision: str, option: str, mode: Mode) -> Candidate:
    if mode == "alone":
        return Candidate(said(part, option), alone=True)
    return Candidate(dict.fromkeys((*part.weights, *part.tensors), 0), others=_both(precision))


def _both(precision: str) -> tuple[int, int]:
    weights, activations = bits_of(precision)
    return weights or 8, activations or 8


def _metric(figures: Mapping[str, float]) -> dict[str, float]:
    return {"metric": figures["metric"]} if "metric" in figures else {}
