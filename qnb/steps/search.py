"""Step ``search``: the cheapest mix of precisions that holds an accuracy, or the most accurate one within a budget."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

from qnb.artifacts import BuildArgument, Quantized
from qnb.defaults import settings
from qnb.errors import BadInput, UnknownName
from qnb.progress import progress
from qnb.quant.mixes import Assignment, CostName, Problem, bits_of, check_candidates
from qnb.quant.parts import Granularity, override_entries
from qnb.quant.search import pareto
from qnb.results import Result
from qnb.runtime.locate import find_runtime
from qnb.socs import find
from qnb.steps._common import StepTimer, as_measured
from qnb.steps._hunt import Goal, Hunt, scorer_of, write_mix
from qnb.steps._mixed import SOURCE, SOURCE_NOTE, Journal, Points, open_bench
from qnb.steps.calibrate import DataArgument, PreprocessArgument
from qnb.steps.context import ExecutorArgument
from qnb.steps.infer import LabelsArgument, as_labels
from qnb.steps.sensitivity import MetricArgument, check_choices, describe, journal_key, resumed_note
from qnb.views import Chart, Graph, network_graph

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_INTEGERS = ("w4a8", "w8a8", "w4a16", "w8a16")
_W16_ARCH = 73
"""Hexagon generation from which on 16-bit weights are taken."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Search(Result):
    """The mixes that were measured, and the one that was looked for.

    Attributes
    ----------
    best : Quantized
        The model with the mix that was chosen.
    overrides : mapping
        The mix as overrides: ``qnb.calibrate(model, data, overrides=…)`` makes the same model again.
    frame : pandas.DataFrame
        A row for each mix that was measured: bits, costs, accuracy.
    layers : pandas.DataFrame
        A row for each layer or tensor: what it is in the chosen mix, and the SQNR with it quantized alone.
    goal : str
        What was asked for, in words.
    expected_s : float
        Seconds that the measurements were expected to take, by the first of them; 0 if there was none to do.
    """

    kind: ClassVar[str] = "search"

    best: Quantized
    overrides: Mapping[str, Any]
    layers: pd.DataFrame
    name: str
    goal: str
    cost: str
    target: float
    expected_s: float

    @property
    def title(self) -> str:
        """What was found for what."""
        row = self.frame[self.frame["chosen"]].iloc[0]
        bits = f"{row['weight_bits']:.1f}-bit weights, {row['activation_bits']:.1f}-bit activations"
        return f"{self.name}: {self.goal}: {bits}, {row['cost_percent']:.0f} % of w8a8's {_COSTS[self.cost]}"

    def tables(self) -> dict[str, pd.DataFrame]:
        """The mixes, and the chosen one part by part."""
        return {self.title: self.frame, _MIX: self.layers}

    def plot(self) -> Figure:
        """Accuracy against cost, with the Pareto front."""
        from qnb.display import search_charts

        return search_charts.pareto(self.frame, cost=_COSTS[self.cost], target=self.target)

    def plot_layers(self) -> Figure:
        """The precision of each part in the chosen mix."""
        from qnb.display import search_charts

        return search_charts.assignment(self.layers)

    def _charts(self) -> list[Chart]:
        return [
            Chart("accuracy against cost", "points", self.title, "cost_percent", "sqnr_db", group="source"),
            Chart("bits of the weights in the chosen mix", "bars", _MIX, "part", "weight_bits"),
            Chart("SQNR of each part alone", "bars", _MIX, "part", "alone_sqnr_db"),
        ]

    def _graph(self) -> Graph | None:
        network = self.best.float_model.network
        if network is None:
            return None
        nodes = self.best.float_model.nodes()
        for row in self.layers.to_dict("records"):
            if row["part"] in nodes:
                names = ("weight_bits", "activation_bits", "alone_sqnr_db")
                nodes[row["part"]].values |= {name: row[name] for name in names}
                nodes[row["part"]].facts["precision"] = row["precision"]
        return network_graph(
            self.title, network, nodes, colours=("weight_bits", "activation_bits", "alone_sqnr_db", "macs")
        )

    def figures(self) -> list[Figure]:
        """Accuracy against cost, and the chosen mix."""
        return [self.plot(), self.plot_layers()]


_MIX = "the chosen mix"
_COSTS = {"bops": "bit operations", "size": "weight bytes"}


def search(
    model: BuildArgument,
    data: DataArgument,
    *,
    target_sqnr: float | None = None,
    max_top1_drop: float | None = None,
    target_metric: float | None = None,
    budget: float | None = None,
    cost: CostName = "bops",
    candidates: str | Sequence[str] | None = None,
    granularity: Granularity = "layer",
    samples: int = 32,
    labels: LabelsArgument = None,
    metric: MetricArgument = None,
    points: int = 9,
    refine: int = 16,
    verify: bool = True,
    soc: str | int | None = None,
    per_channel: bool = True,
    preprocess: PreprocessArgument = None,
    resume: bool = True,
    executor: ExecutorArgument = None,
    runtime: str | None = None,
) -> Search:
    """Find the cheapest mix of precisions that holds an accuracy, or the most accurate one within a budget.

    Every part is measured alone; a greedy path of mixes is made of that, from the most accurate to the cheapest; mixes along
    the path are measured as a whole, the path is bisected, and from the best point single changes and swaps are tried.
    What is found is verified on the NPU's simulator. Ranges are gathered once, over all data, by min-max.

    Parameters
    ----------
    model : Model, Quantized or path
        A float model; of a quantized one the float model with its tensors' scales, equalized if it was.
    data : array, dict, iterable, DataLoader, folder or file
        Calibration inputs, as for `calibrate`; the first ones are measured on.
    target_sqnr : float, optional
        Find the cheapest mix with at least this SQNR against the float model, dB.
    max_top1_drop : float, optional
        Find the cheapest mix whose top-1 accuracy on `labels` is at most so many percentage points below the float model's.
    target_metric : float, optional
        Find the cheapest mix for which `metric` gives at least this.
    budget : float, optional
        Find the most accurate mix that costs at most this share of what w8a8 throughout costs, for instance 0.75.
    cost : {"bops", "size"}
        What is to be cheap: bit operations (MACs x weight bits x activation bits), or bytes of weights.
    candidates : sequence of str, optional
        Precisions that a part may have: ``w4a8``, ``w8a8``, ``w4a16``, ``w8a16``, ``w16a16``, ``fp16``; by default all
        integer ones that the SoC takes.
    granularity : {"layer", "tensor"}
        A layer is an op with its weights and its output; or each weight and each activation by itself.
    samples : int
        How many samples to measure on.
    labels : array, optional
        True class of each sample, for the top-1 accuracy.
    metric : callable, optional
        Gives a figure of its own, the higher the better: called with outputs by name, the float model's outputs, and
        the labels.
    points : int
        How many mixes along the path are measured in any case.
    refine : int
        How many mixes may be measured around the best point of the path.
    verify : bool
        Whether the chosen mix is run on the simulator, and a more accurate one taken where it misses the target there.
    soc : str or int, optional
        SoC whose NPU is simulated: part, name or QNN id.
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
    Search
        Tables: a row for each mix that was measured, and the chosen one part by part. ``.best`` is the quantized model,
        ``.overrides`` makes it again.

    Raises
    ------
    BadInput
        If there is no goal or more than one, or an argument does not fit.
    CalibrationError
        If no mix holds the target, on this host or on the simulator, or none is within the budget.
    Interrupted
        If the user interrupted; what was measured is kept, and the same call resumes.

    Examples
    --------
    >>> found = qnb.search(model, images, target_sqnr=30)
    >>> small = qnb.search(model, images, budget=0.6, cost="size")
    """
    timer = StepTimer("search")
    goal = Goal.of(target_sqnr, max_top1_drop, target_metric, budget, labels, metric)
    if cost not in _COSTS:
        raise UnknownName.among("cost", cost, _COSTS)
    check_choices(granularity)
    if points < 2 or refine < 0:
        raise BadInput(f"points is {points} and refine {refine}", hint="measure at least two points of the path")
    found_runtime = find_runtime(runtime)
    target_soc = find(soc if soc is not None else settings.soc, qairt=found_runtime.qairt)
    precisions = check_candidates(candidates) if candidates is not None else _taken_by(target_soc.arch)
    classes = as_labels(labels)
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
        problem = bench.problem
        goal = goal.against(bench.reference, classes)
        baselines = {p: problem.uniform(p) for p in precisions if p != "fp16"}
        steps = sum(len(part.options) - 1 for part in problem.parts)
        total = steps + len(problem.parts) + len(baselines) + points + 2 * math.ceil(math.log2(steps + 2)) + refine
        scorer = scorer_of(bench, metric, classes)
        journal = Journal(journal_key(bench.key, metric, classes), resume=resume)
        with progress("search", total, unit="point") as bar:
            measure = Points(bench, journal, "search", executor, bar, total, scorer)
            hunt = Hunt(bench, measure, goal, cost, points, refine, list(baselines.values()))
            best = hunt.run(verify, target_soc.part)
        overrides = override_entries(problem, best)
        quantized = write_mix(bench, best, overrides, timer)
    notes = [SOURCE_NOTE, *hunt.notes, *resumed_note(journal)]
    if any("fp16" in mix for mix in hunt.figures):
        notes.append("the rounding of fp16 itself is in the simulator's figures, not in those of source host")
    return Search(
        frame=_frame(problem, hunt, best, baselines, cost),
        recipe=timer.recipe(
            found_runtime.qairt,
            model=float_model,
            data=bench.data,
            goal=goal.text,
            cost=cost,
            candidates=list(precisions),
            granularity=granularity,
            samples=bench.samples,
            soc=target_soc.part,
            per_channel=per_channel,
        ),
        notes=tuple(notes),
        log=bench.log + hunt.log,
        files={"overrides": quantized.files["overrides"]},
        best=quantized,
        overrides=overrides,
        layers=_layers(problem, best, hunt.alone),
        name=float_model.name,
        goal=goal.text,
        cost=cost,
        target=goal.shown,
        expected_s=measure.expected_s,
    )


def _taken_by(arch: str) -> tuple[str, ...]:
    """Integer precisions that a generation of the NPU takes."""
    return (*_INTEGERS, "w16a16") if int(arch.lstrip("v") or 0) >= _W16_ARCH else _INTEGERS


def _frame(
    problem: Problem, hunt: Hunt, best: Assignment, baselines: Mapping[str, Assignment], cost: CostName
) -> pd.DataFrame:
    import pandas as pd

    names = {mix: name for name, mix in reversed(list(baselines.items()))}
    whole = problem.cost(problem.uniform("w8a8"), cost)
    mixes = sorted(hunt.figures, key=lambda m: (problem.cost(m, cost), -hunt.figures[m]["sqnr_db"]))
    front = pareto([problem.cost(m, cost) for m in mixes], [hunt.figures[m][hunt.goal.column] for m in mixes])
    rows = []
    numbers = count(1)
    for mix, on_front in zip(mixes, front, strict=True):
        weight_bits, activation_bits = problem.average_bits(mix)
        row = {
            "point": names.get(mix) or f"mix {next(numbers)}",
            "mix": ", ".join(f"{n} {option}" for option, n in sorted(Counter(mix).items())),
            "weight_bits": weight_bits,
            "activation_bits": activation_bits,
            "weight_kb": problem.weight_bytes(mix) / 1024,
            "activation_kb": problem.activation_bytes(mix) / 1024,
            "bops": problem.bops(mix),
            "cost_percent": 100 * problem.cost(mix, cost) / whole if whole else float("nan"),
        }
        for figures, source in ((hunt.figures[mix], SOURCE), (hunt.simulated.get(mix), "")):
            if figures:
                rows.append(
                    {
                        **row,
                        **{k: v for k, v in figures.items() if k != "source"},
                        "pareto": on_front,
                        "chosen": mix == best,
                        "source": source or figures["source"],
                    }
                )
    return pd.DataFrame(rows)


def _layers(problem: Problem, best: Assignment, alone: list[dict[str, float]]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for part, option, options in zip(problem.parts, best, alone, strict=True):
        weights, activations = bits_of(option)
        rows.append(
            {
                **describe(part),
                "precision": option,
                "weight_bits": weights if part.weights else None,
                "activation_bits": activations if part.tensors else None,
                "alone_sqnr_db": options[option],
                "source": SOURCE,
            }
        )
    frame = pd.DataFrame(rows)
    return frame.astype({"weight_bits": "Int64", "activation_bits": "Int64"})
