"""Step ``compare``: backends side by side, and builds side by side, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from qnb.artifacts import Build, Context, Contexts, Model, Quantized
from qnb.errors import BadInput, PlacementError, QnbError, RuntimeUnavailable
from qnb.progress import progress
from qnb.results import Result, load
from qnb.runtime import client
from qnb.runtime.locate import Runtime, find_runtime
from qnb.runtime.options import BackendOptions, configured
from qnb.samples import samples as sample_stream
from qnb.steps._common import StepTimer, as_build, random_inputs, read_config
from qnb.steps._deploy import Deployment, check_backends, deploy
from qnb.steps._op_comparison import Side, aligned_ops
from qnb.steps._op_table import profile_ops
from qnb.steps._timing import describe
from qnb.steps.calibrate import DataArgument, PreprocessArgument
from qnb.steps.check import check
from qnb.steps.context import ConfigArgument
from qnb.steps.infer import LabelsArgument, accuracy_frame, as_labels, run_samples
from qnb.steps.profile import Profile, runs_frame, time_runs
from qnb.values import BACKENDS, Argument, Backend
from qnb.views import Chart

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

import numpy as np

ComparedArgument = Annotated[
    Model | Quantized | Context | Contexts | Profile | str | Path,
    Argument("model", ("Model", "Quantized", "Context", "Contexts", "Profile")),
]


def _no_ops() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison(Result):
    """Builds and backends side by side.

    Attributes
    ----------
    frame : pandas.DataFrame
        A row for each build on each backend: latency, agreement with fp32, accuracy, size.
    runs : pandas.DataFrame
        A row for each timed run.
    ops : pandas.DataFrame
        Two builds op by op on the NPU: each op of either build in one row. Empty unless it was asked for.
    names : tuple of str
        What the two builds of `ops` are called, the left one first.
    """

    kind: ClassVar[str] = "comparison"

    runs: pd.DataFrame
    ops: pd.DataFrame = field(default_factory=_no_ops)
    names: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What is compared."""
        builds = list(dict.fromkeys(self.frame["build"]))
        return f"{', '.join(builds)} on {', '.join(dict.fromkeys(self.frame['backend']))}"

    def plot(self) -> Figure:
        """Latency, agreement, accuracy and size."""
        from qnb.display import charts

        return charts.comparison(self.frame)

    def plot_latency(self) -> Figure:
        """Distribution of the latency."""
        from qnb.display import charts

        return charts.latency_distribution(self.runs)

    def plot_ops(self, top: int = 20, by: Literal["", "time_ms", "cycles", "bytes", "macs"] = "") -> Figure:
        """Draw by how much each op differs between the two builds, the largest changes first.

        Parameters
        ----------
        top : int
            How many ops get a bar of their own.
        by : {"time_ms", "cycles", "bytes", "macs"}, optional
            What is drawn; by default the first of these that has a value.

        Raises
        ------
        BadInput
            If ops were not compared.
        """
        from qnb.display import compare_charts

        if not len(self.ops):
            raise BadInput("ops were not compared", hint="qnb.compare(left, right, ops=True)")
        return compare_charts.op_deltas(self.ops, left=self.names[0], right=self.names[1], top=top, by=by)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Builds and backends, and the ops where they were compared."""
        found = {self.title: self.frame}
        return found | ({f"op by op: {' → '.join(self.names)}": self.ops} if len(self.ops) else {})

    def _charts(self) -> list[Chart]:
        figures = {
            "median latency": "median_ms",
            "agreement with fp32": "sqnr_db",
            "accuracy": "accuracy",
            "size": "size_kb",
        }
        return [
            *(Chart(title, "bars", self.title, "build", column, group="backend") for title, column in figures.items()),
            *(Chart("change by op", "bars", name, "op", "time_ms_delta") for name in list(self.tables())[1:]),
        ]

    def figures(self) -> list[Figure]:
        """The comparison, and the ops where they were compared."""
        return [self.plot(), *([self.plot_ops()] if len(self.ops) else [])]


def compare(
    *builds: ComparedArgument,
    data: DataArgument = None,
    labels: LabelsArgument = None,
    backends: Sequence[Backend] = BACKENDS,
    soc: str | int | None = None,
    runs: int = 10,
    warmup: int = 2,
    samples: int | None = None,
    preprocess: PreprocessArgument = None,
    ops: bool = False,
    config: ConfigArgument = None,
    runtime: str | None = None,
) -> Comparison:
    """Set backends, or builds, side by side: latency, accuracy, size.

    Each backend runs each build in the precision that it is made for: integers on htp, fp16 on gpu, fp32 on cpu. Agreement
    is measured against the float model on ONNX Runtime's CPU.

    Two builds can also be compared op by op: each op is found again in the other build, though it was renamed, quantized,
    fused or edited, and its cycles, time, bytes and accuracy are set side by side.

    Parameters
    ----------
    *builds : Model, Quantized, Context, Profile or path
        One build on several backends, or several builds; or two results of `profile`, which are compared as they are.
    data : array, dict, iterable, DataLoader, folder or file, optional
        Samples for the agreement; by default four of random numbers from a seed.
    labels : array, optional
        True class of each sample, for the top-1 accuracy.
    backends : sequence of {"htp", "gpu", "cpu"}
        Where to run. A `Context` is compared on htp alone.
    soc : str or int, optional
        SoC whose NPU is simulated: part, name or QNN id.
    runs, warmup : int
        Timed runs, and runs before them that are not.
    samples : int, optional
        Use at most so many.
    preprocess : callable, optional
        Turns an image or a file's array into the model's input.
    ops : bool
        Whether two builds are compared op by op as well, on htp. With data, the accuracy of each layer of a quantized
        build is measured too.
    config : mapping or path, optional
        Backend configuration.
    runtime : str, optional
        Version of the runtime.

    Returns
    -------
    Comparison
        Table: a row for each build on each backend. What a backend does not take has a row that says why. ``.ops`` holds
        two builds op by op.

    Raises
    ------
    BadInput
        If there is nothing to compare, a sample does not fit, or there are not two builds to compare op by op.

    Examples
    --------
    >>> qnb.compare(quantized, data=images, labels=labels)
    >>> qnb.compare(model, quantized, backends=["htp"])
    >>> qnb.compare(quantized, mixed, data=images, backends=["htp"], ops=True)
    """
    import pandas as pd

    timer = StepTimer("compare")
    if not builds:
        raise BadInput("nothing to compare", hint="qnb.compare(quantized) sets its backends side by side")
    if runs < 1 or warmup < 0:
        raise BadInput(f"runs is {runs} and warmup {warmup}", hint="time at least one run")
    sides = [_opened(b) for b in builds]
    if any(isinstance(side, Profile) for side in sides):
        return _of_profiles(sides, timer)
    found_runtime = find_runtime(runtime)
    found = [as_build(side) for side in sides]
    wanted = check_backends(backends)
    if ops:
        _check_two(found, wanted)
    values = read_config(config, "config")
    classes = as_labels(labels)
    held = _held_samples(data, found[0], preprocess, samples)
    pairs = [
        (b, backend) for b in found for backend in wanted if b.kind != "context" or backend == "htp" or len(wanted) == 1
    ]
    rows: list[dict[str, Any]] = []
    long: list[pd.DataFrame] = []
    notes: list[str] = []
    log = ""
    aligned: dict[int, tuple[Build, Side]] = {}
    with progress("compare", len(pairs) * (warmup + runs)) as bar:
        for number, (build, backend) in enumerate(pairs):
            bar.update(number * (warmup + runs), text=f"{_label(build)} on {backend}")
            options = configured(BackendOptions(), values, backend)
            try:
                deployed = deploy(build, backend, found_runtime, soc=soc, options=options)
            except (PlacementError, RuntimeUnavailable) as error:
                rows.append({"build": _label(build), "backend": backend, "note": error.what.splitlines()[0]})
                notes.append(f"{_label(build)} on {backend}: {error.what.splitlines()[0]}")
                continue
            timed = time_runs(deployed, held[0], found_runtime, runs, warmup, bar, number)
            ran = run_samples(deployed, held, found_runtime, bar=_quiet(), with_reference=True)
            series = describe(timed.arrays["latency_ms"])
            latency = series.latency_ms[series.steady]
            rows.append(
                {
                    "build": _label(build),
                    **deployed.label,
                    "median_ms": float(np.median(latency)),
                    "p95_ms": float(np.percentile(latency, 95)),
                    "throughput_per_s": 1e3 / float(latency.mean()),
                    **_worst(accuracy_frame(deployed, ran, classes, limit=samples)),
                    "size_kb": deployed.size_bytes / 1024,
                    "note": "",
                }
            )
            runs_made = runs_frame(deployed, series)
            runs_made.insert(0, "build", _label(build))
            long.append(runs_made)
            notes += deployed.notes
            log += timed.log + ran.log
            if ops and backend == "htp":
                bar.update((number + 1) * (warmup + runs), text=f"{_label(build)}: ops")
                side, op_log = _op_side(build, deployed, held, found_runtime, data is not None, notes)
                aligned[len(aligned)] = build, side
                log += op_log
    if not long:
        raise PlacementError("none of the builds runs on any of these backends", hint="\n".join(notes))
    if ops and len(aligned) != 2:
        notes.append("ops are not compared: the NPU takes only one of the builds, or none")
    return Comparison(
        frame=pd.DataFrame(rows, columns=_COLUMNS),
        recipe=timer.recipe(
            found_runtime.qairt, builds=found, backends=list(wanted), soc=soc, runs=runs, ops=True if ops else None
        ),
        notes=tuple(dict.fromkeys(notes)),
        log=log,
        runs=pd.concat(long, ignore_index=True),
        **_two_sides([(_label(build), side) for build, side in aligned.values()]),
    )


_COLUMNS = [
    "build",
    "backend",
    "soc",
    "precision",
    "source",
    "median_ms",
    "p95_ms",
    "throughput_per_s",
    "sqnr_db",
    "cosine",
    "max_abs_error",
    "top1_agreement",
    "accuracy",
    "size_kb",
    "note",
]


def _opened(value: object) -> object:
    """Open the folder of a saved profile; what else an argument may be, `as_build` knows."""
    if isinstance(value, str | Path):
        folder = Path(value).expanduser()
        if (folder / "result.json").exists():
            return load(folder)
    return value


def _check_two(found: Sequence[Build], backends: Sequence[Backend]) -> None:
    if len(found) != 2:
        raise BadInput(
            f"{len(found)} build{'s'[: len(found) != 1]} to compare op by op",
            hint="give two: qnb.compare(left, right, ops=True)",
        )
    if "htp" not in backends:
        raise BadInput("ops are profiled on htp alone, which is not among the backends", hint='backends=["htp"]')


def _op_side(
    build: Build,
    deployed: Deployment,
    held: Sequence[dict[str, np.ndarray]],
    runtime: Runtime,
    with_accuracy: bool,
    notes: list[str],
) -> tuple[Side, str]:
    """Profile a build's ops, read its graph, and, with the user's own samples, measure the accuracy of its layers."""
    graph = build.parent if isinstance(build, Context) else build
    profiled, profile_notes, log = profile_ops(deployed, held[0], runtime)
    notes += [f"{_label(build)}: {note}" for note in profile_notes]
    listed = client.call("graph_ops", {"model": str(graph.path)}, runtime=runtime)
    sqnr: dict[str, float] = {}
    if with_accuracy and isinstance(graph, Quantized):
        try:
            checked = check(build, list(held), soc=deployed.soc.part if deployed.soc else None, runtime=runtime.version)
        except QnbError as error:
            notes.append(f"{_label(build)}: no accuracy by op: {error.what.splitlines()[0]}")
        else:
            sqnr = _layer_sqnr(checked.frame, deployed.source)
    elif with_accuracy:
        notes.append(f"{_label(build)}: accuracy by op is measured for quantized builds alone")
    return Side(profiled, deployed.precision, listed.values["ops"], sqnr), log


def _layer_sqnr(layers: pd.DataFrame, source: str) -> dict[str, float]:
    """Accumulated SQNR of each layer's worst output, from the source that the profile is of."""
    rows = layers[layers["source"] == source]
    return {str(op): float(value) for op, value in rows.groupby("layer")["accumulated_sqnr_db"].min().items()}


def _two_sides(sides: Sequence[tuple[str, Side]]) -> dict[str, Any]:
    """Fields of a comparison that hold the ops; none where one of the two sides could not be profiled."""
    if len(sides) != 2 or not all(len(side.ops) for _, side in sides):
        return {}
    (left, one), (right, other) = sides
    if left == right:
        left, right = f"{left} (left)", f"{right} (right)"
    return {"ops": aligned_ops(one, other), "names": (left, right)}


def _of_profiles(sides: Sequence[object], timer: StepTimer) -> Comparison:
    """Compare two profiles as they are: nothing is run."""
    import pandas as pd

    profiles = [side for side in sides if isinstance(side, Profile)]
    if len(profiles) != 2 or len(sides) != 2:
        raise BadInput(
            f"{len(profiles)} profile{'s'[: len(profiles) != 1]} among {len(sides)} things to compare",
            hint="give two profiles, or builds alone; qnb.profile(build) makes a profile",
        )
    rows: list[dict[str, Any]] = []
    long: list[pd.DataFrame] = []
    found: list[tuple[str, Side]] = []
    for profile in profiles:
        htp = profile.frame[profile.frame["backend"] == "htp"]
        build = " ".join(filter(None, [profile.name, *htp["precision"], *htp["soc"]]))
        for row in profile.frame.to_dict("records"):
            rows.append({str(c): row[c] for c in _COLUMNS if c in row} | {"build": build, "note": ""})
        long.append(profile.runs.assign(build=build))
        found.append((build, Side(profile.ops, next(iter(htp["precision"]), ""))))
    notes = dict.fromkeys([note for profile in profiles for note in profile.notes])
    compared = _two_sides(found)
    if not compared:
        notes["ops are not compared: one of the profiles has none"] = None
    return Comparison(
        frame=pd.DataFrame(rows, columns=_COLUMNS),
        recipe=timer.recipe(builds=[build for build, _ in found]),
        notes=tuple(notes),
        runs=pd.concat(long, ignore_index=True),
        **compared,
    )


def _quiet() -> Any:
    from qnb.progress import SILENT

    return SILENT


def _label(build: Build) -> str:
    return f"{build.name} {build.precision}" + (f" {build.soc.part}" if build.kind == "context" else "")  # type: ignore[union-attr]


def _held_samples(data: Any, build: Build, preprocess: Any, limit: int | None) -> list[dict[str, np.ndarray]]:
    """Samples are used once for each row, so they are kept; the default is a handful."""
    if data is None:
        return [random_inputs(build.inputs, seed) for seed in range(4)]
    held = list(sample_stream(data, build.inputs, preprocess=preprocess, limit=limit))
    if not held:
        raise BadInput("there is no sample in the data", hint="give at least one")
    return held


def _worst(accuracy: pd.DataFrame) -> dict[str, float]:
    """Figures of the output that agrees least, and the accuracy of the one that has labels."""
    figures = {
        "sqnr_db": accuracy["sqnr_db"].min(),
        "cosine": accuracy["cosine"].min(),
        "max_abs_error": accuracy["max_abs_error"].max(),
        "top1_agreement": accuracy["top1_agreement"].min(),
        "accuracy": accuracy["accuracy"].max(),
    }
    return {name: float(value) for name, value in figures.items()}
