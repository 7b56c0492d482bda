"""Step ``estimate``: how long a build will take on which Snapdragon, without having it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from qnb import running
from qnb.artifacts import Build, BuildArgument, Context, Quantized
from qnb.errors import BadInput, CompileError, PlacementError
from qnb.latency import CompilerCost, Measurement, Prediction, Work, predict, targets, transfer, unfitted
from qnb.latency import find as find_measured
from qnb.latency import published as as_published
from qnb.latency.measured import coefficients
from qnb.latency.work import OpWork
from qnb.progress import Progress, progress
from qnb.results import Result
from qnb.runtime import client
from qnb.runtime.locate import Runtime, find_runtime
from qnb.socs import Soc, find, find_all, table
from qnb.steps._common import StepTimer, as_build
from qnb.steps._costing import COST_MODELS, Cost, compiler_cost
from qnb.views import Chart

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_SOURCES = {"published": "published", "transferred": "transferred", "estimated": "estimate", "none": "none"}
_PRECISIONS = {"float": "fp16"}
"""The table calls it float; what runs on the NPU is fp16."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Estimate(Result):
    """Latency on each SoC, with its interval and what it rests on.

    Attributes
    ----------
    frame : pandas.DataFrame
        A row for each SoC.
    costs : pandas.DataFrame
        What the compiler says that the build costs: a row for each Hexagon generation that it has a cost model of.
    """

    kind: ClassVar[str] = "estimate"

    name: str
    costs: pd.DataFrame

    @property
    def title(self) -> str:
        """What was estimated, and how fast it is at best and at worst."""
        known = self.frame.dropna(subset=["latency_ms"])
        if not len(known):
            return f"{self.name}: no estimate"
        best, worst = (known.loc[getattr(known["latency_ms"], end)()] for end in ("idxmin", "idxmax"))
        return (
            f"{self.name} {best['precision']}: {best['latency_ms']:.3g} ms on {best['soc']}"
            f" … {worst['latency_ms']:.3g} ms on {worst['soc']}"
        )

    def tables(self) -> dict[str, pd.DataFrame]:
        """SoCs, and the compiler's own figures."""
        return {self.title: self.frame} | ({"the compiler's estimate": self.costs} if len(self.costs) else {})

    def figures(self) -> list[Figure]:
        """That of `plot`, if there is a figure to draw."""
        return [self.plot()] if self.frame["latency_ms"].notna().any() else []

    def _charts(self) -> list[Chart]:
        return [Chart("latency by SoC", "bars", self.title, "soc", "latency_ms", low="low_ms", high="high_ms")]

    def plot(self) -> Figure:
        """Latency by SoC, with intervals; what was measured is marked."""
        from qnb.display import soc_charts

        return soc_charts.latency_by_soc(self.frame)


def estimate(
    build: BuildArgument,
    *,
    soc: str | int | Sequence[str | int] | None = None,
    path: Literal["onnx", "qnn_dlc", "tflite"] = "onnx",
    measured: Mapping[str, float] | None = None,
    published: bool = True,
    runtime: str | None = None,
) -> Estimate:
    """Estimate how long a build takes on each Snapdragon, without one at hand.

    For each SoC the best figure that can be had is given: *published*, if this very model is in the shipped table of device
    measurements; *transferred*, if it was measured on another SoC, by you or in the table, and is scaled from there;
    *estimate*, from the compiler's own cost model and the graph's work, fitted to the table; *none* where it would be a
    guess, with the reason. The interval holds eight of ten models.

    Parameters
    ----------
    build : Model, Quantized, Context or path
        A float model is estimated in fp16, a quantized one in its integers.
    soc : str, int or sequence, optional
        SoCs: part, name or QNN id. The default is every SoC that the estimates were fitted for, or a context's own.
    path : {"onnx", "qnn_dlc", "tflite"}
        How it will run: with ONNX Runtime's QNN execution provider, as a DLC or context binary with QNN itself, or with
        LiteRT's delegate.
    measured : mapping of str to float, optional
        Milliseconds that you measured of this build run this way, by SoC: ``{"SM8550": 3.2}``.
    published : bool
        Whether to look the model up in the shipped table.
    runtime : str, optional
        Version of the runtime whose compiler is asked; it has to be of the QAIRT release that was fitted.

    Returns
    -------
    Estimate
        Table: a row for each SoC.

    Raises
    ------
    UnknownName
        If there is no such SoC.
    BadInput
        If an argument does not fit, or the runtime is of another release than was fitted.

    Examples
    --------
    >>> qnb.estimate(quantized, soc=["SM8650", "SM8550"])
    >>> qnb.estimate(model, measured={"SM8550": 3.2})
    """
    import pandas as pd

    timer = StepTimer("estimate")
    found_runtime = _fitted_runtime(runtime)
    found = as_build(build)
    parent = found.parent if isinstance(found, Context) else found
    socs = _wanted(soc, found)
    own = _own_measurements(measured)
    precision = parent.precision if isinstance(parent, Quantized) else "float"
    work = _work(found, found_runtime)
    known = _in_table(parent, work, precision) if published else ()
    found_rows = {s: _measured_row(s, known, own, precision, path) for s in socs}
    missing = [s for s, row in found_rows.items() if row is None]
    if missing and all(unfitted(s.soc_model, precision, path) for s in missing):  # no compilation would change that
        found_rows |= {s: _estimated_row(work, (), s, precision, path, "") for s in missing}
        missing = []
    costs: list[Cost] = []
    if missing:
        with progress("estimate", len(COST_MODELS)) as bar:
            bar.update(0, text="compiling")
            costs, failure = _costs(parent, found_runtime, bar)
        found_rows |= {s: _estimated_row(work, costs, s, precision, path, failure) for s in missing}
    frame = pd.DataFrame([found_rows[s] for s in socs], columns=_COLUMNS)
    if soc is None and frame["latency_ms"].notna().any():
        frame = frame[frame["latency_ms"].notna()].reset_index(drop=True)  # nobody asked for the others
    return Estimate(
        frame=frame,
        recipe=timer.recipe(found_runtime.qairt, build=found, soc=[s.part for s in socs], path=path, measured=measured),
        notes=_notes(frame),
        name=found.name,
        costs=pd.DataFrame([_cost_row(c) for c in costs]),
    )


_COLUMNS = [
    "soc",
    "name",
    "hexagon_arch",
    "precision",
    "path",
    "latency_ms",
    "low_ms",
    "high_ms",
    "peak_memory_mb",
    "source",
    "why",
]


def _wanted(soc: str | int | Sequence[str | int] | None, build: Build) -> list[Soc]:
    if soc is not None:
        return find_all(soc)
    if isinstance(build, Context):
        return [build.soc]
    fitted = {target.soc_model for target in targets()}
    first = {s.soc_model: s for s in reversed(table()) if s.usable}  # of parts that share an id, the first in the table
    return [s for s in table() if s.soc_model in fitted and first.get(s.soc_model) is s]


def _fitted_runtime(version: str | None) -> Runtime:
    found = find_runtime(version)
    fitted = coefficients()["qairt"]
    if found.qairt != fitted:
        raise BadInput(
            f"runtime {found.version} is QAIRT {found.qairt}, but the estimates were fitted to QAIRT {fitted}",
            hint="its compiler counts other cycles: give the version that qnb was installed with (runtime='default')",
        )
    return found


def _own_measurements(measured: Mapping[str, float] | None) -> dict[int, float]:
    found = {}
    for name, ms in (measured or {}).items():
        if not ms > 0:
            raise BadInput(f"measured: {name} takes {ms} ms", hint="give milliseconds above 0")
        found[find(name).soc_model] = float(ms)
    return found


def _work(build: Build, runtime: Runtime) -> Work:
    """Count the work in the float graph, in a worker: it parses a file that may be large or damaged."""
    values = client.call("graph_work", {"model": str(build.float_model.path)}, runtime=runtime).values
    return Work(tuple(OpWork(**op) for op in values["ops"]), values["edge"])


def _in_table(parent: Any, work: Work, precision: str) -> tuple[Measurement, ...]:
    model = parent.float_model
    return find_measured(model.name, model.parameters, [spec.shape for spec in model.inputs], precision, work)


def _measured_row(
    soc: Soc, known: Sequence[Measurement], own: Mapping[int, float], precision: str, path: str
) -> dict[str, Any] | None:
    """Give what a measurement says: of the build on this very SoC, or else on another one; None if there is none."""
    if soc.soc_model in own:
        ms = own[soc.soc_model]
        mine = Prediction(
            "none", soc.soc_model, precision, path, ms=ms, low_ms=ms, high_ms=ms, reason="measured by you"
        )
        return _row(soc, mine, source="device")
    here = [row for row in known if row.path == path]
    if same := sorted((row for row in here if row.soc_model == soc.soc_model), key=lambda row: row.ms):
        return _row(soc, as_published(same[len(same) // 2]))
    elsewhere = [(ms, id_) for id_, ms in own.items()] or [(row.ms, row.soc_model) for row in here]
    scaled = [
        (found, f"{ms:.4g} ms on {find(id_).part}, scaled")
        for ms, id_ in elsewhere
        if (found := transfer(ms, id_, soc.soc_model, precision=precision, path=path)).ms is not None
    ]
    return _row(soc, *min(scaled, key=lambda pair: _width(pair[0]))) if scaled else None


def _width(found: Prediction) -> float:
    return (found.high_ms or 0.0) / (found.low_ms or 1.0)


def _row(soc: Soc, found: Prediction, why: str = "", *, source: str = "") -> dict[str, Any]:
    nan = float("nan")
    return {
        "soc": soc.part,
        "name": soc.name,
        "hexagon_arch": soc.arch,
        "precision": _PRECISIONS.get(found.precision, found.precision),
        "path": found.path,
        "latency_ms": nan if found.ms is None else found.ms,
        "low_ms": nan if found.low_ms is None else found.low_ms,
        "high_ms": nan if found.high_ms is None else found.high_ms,
        "peak_memory_mb": nan if found.memory_mb is None else float(found.memory_mb),
        "source": source or _SOURCES[found.tier],
        "why": "; ".join((why or found.reason, *found.notes)),
    }


def _notes(frame: pd.DataFrame) -> tuple[str, ...]:
    notes = ["low_ms … high_ms: eight of ten models are within; the fit and its errors are in docs/latency.md"]
    if (frame["source"] == "published").any():
        notes.append(
            "published: Qualcomm measured a model of this graph, or of this name, size and input, on the device"
        )
    return tuple(notes)


def _cost_row(cost: Cost) -> dict[str, Any]:
    estimate = cost.estimate
    return {
        "soc": find(cost.soc_model).part,
        "hexagon_arch": find(cost.soc_model).arch,
        "cycles": estimate.cycles,
        "lower_cycles": estimate.lower,
        "upper_cycles": estimate.upper,
        "ddr_read_bytes": estimate.input_fill_bytes,
        "ddr_write_bytes": estimate.output_spill_bytes,
        "fill_bytes": estimate.fill_bytes,
        "spill_bytes": estimate.spill_bytes,
        "ops_without_cost": estimate.missing_ops,
        "compile_s": cost.compile_s,
        "source": "estimate",
    }


def _costs(parent: Any, runtime: Runtime, bar: Progress) -> tuple[list[Cost], str]:
    """Compile for each generation that there is a cost model of, side by side; or say why that can't be done."""
    found = {}
    try:
        with running.threads(len(COST_MODELS)) as threads:
            asked = {threads.submit(compiler_cost, parent, id_, runtime=runtime): id_ for id_ in COST_MODELS}
            for future in as_completed(asked):
                found[asked[future]] = future.result()
                bar.step(f"compiled for Hexagon {find(asked[future]).arch}")
    except (PlacementError, CompileError) as error:
        return [], error.what.splitlines()[0]
    return [found[id_] for id_ in COST_MODELS], ""


def _estimated_row(
    work: Work, costs: Sequence[Cost], soc: Soc, precision: str, path: str, failure: str
) -> dict[str, Any]:
    if failure:
        return _row(soc, Prediction("none", soc.soc_model, precision, path, reason=failure))
    cpu_ops = [f"{name} ({op})" for name, op in costs[0].cpu_ops] if costs else []
    figures = [
        CompilerCost(
            cost.soc_model,
            cost.estimate.cycles,
            cost.estimate.lower,
            cost.estimate.upper,
            cost.estimate.input_fill_bytes,
            cost.estimate.fill_bytes,
            cost.estimate.spill_bytes,
            cost.estimate.output_spill_bytes,
            cost.estimate.missing_ops,
        )
        for cost in costs
    ]
    return _row(soc, predict(work, figures, soc.soc_model, precision=precision, path=path, cpu_ops=cpu_ops))
