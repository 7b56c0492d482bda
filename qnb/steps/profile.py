"""Step ``profile``: how long a build takes on each backend, and where the time goes on the NPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qnb.artifacts import BuildArgument
from qnb.errors import BadInput
from qnb.progress import Progress, progress
from qnb.results import Result
from qnb.runtime import client
from qnb.runtime.locate import Runtime, find_runtime
from qnb.runtime.options import BackendOptions, configured
from qnb.samples import samples as sample_stream
from qnb.steps._common import StepTimer, as_build, random_inputs, read_config
from qnb.steps._deploy import Deployment, Fallback, check_backends, deploy
from qnb.steps._op_table import profile_ops, stages_frame, traffic_frame
from qnb.steps._roofs import roofs_frame
from qnb.steps._timing import Series, describe
from qnb.steps.calibrate import DataArgument
from qnb.steps.context import ConfigArgument
from qnb.values import BACKENDS, Backend
from qnb.views import Chart, Graph, Node, network_graph

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_OPS = "ops on htp"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Profile(Result):
    """Latency, throughput, CPU use and memory on each backend.

    Attributes
    ----------
    frame : pandas.DataFrame
        A row for each backend; its figures are of the runs after the warm-up.
    statistics : pandas.DataFrame
        A row for each backend: confidence intervals, warm-up, outliers, MLPerf's percentile, drift.
    runs : pandas.DataFrame
        A row for each timed run, in order: backend, soc, precision, source, latency_ms, warmup, outlier.
    ops : pandas.DataFrame
        A row for each op on the NPU, and last what belongs to no op; empty without htp.
    stages : pandas.DataFrame
        The compiler's stages; empty where nothing was compiled, or the runtime does not report them.
    traffic : pandas.DataFrame
        DDR traffic of one inference on the NPU, as the compiler plans it, and VTCM.
    roofs : pandas.DataFrame
        Ceilings of the roofline: the highest rates seen on this machine, and what reached them; empty without ops.
    network : pandas.DataFrame or None
        How the ops of the float model hang together: `Model.network`.
    """

    kind: ClassVar[str] = "profile"

    name: str
    runs: pd.DataFrame
    ops: pd.DataFrame
    statistics: pd.DataFrame | None = None
    stages: pd.DataFrame | None = None
    traffic: pd.DataFrame | None = None
    roofs: pd.DataFrame | None = None
    network: pd.DataFrame | None = None

    @property
    def title(self) -> str:
        """What was timed where."""
        return f"{self.name}: latency on {', '.join(self.frame['backend'])}"

    def tables(self) -> dict[str, pd.DataFrame]:
        """Backends, statistics of the runs, and what is known of the NPU: ops, compiler stages, DDR traffic and VTCM."""
        others = {
            "statistics of the runs": self.statistics,
            _OPS: self.ops,
            "compiler stages": self.stages,
            "DDR traffic and VTCM": self.traffic,
            "ceilings of the roofline": self.roofs,
        }
        return {self.title: self.frame} | {t: f for t, f in others.items() if f is not None and len(f)}

    def plot(self) -> Figure:
        """Distribution of the latency on each backend, without the warm-up."""
        from qnb.display import charts

        runs = self.runs
        return charts.latency_distribution(runs[~runs["warmup"].astype(bool)] if "warmup" in runs else runs)

    def figures(self) -> list[Figure]:
        """Latency, and the ops where they were profiled."""
        return [self.plot(), *([self.plot_ops()] if len(self.ops) else [])]

    def _charts(self) -> list[Chart]:
        return [
            Chart("median latency", "bars", self.title, "backend", "median_ms"),
            Chart("time by op on htp", "bars", _OPS, "op", "time_ms"),
            Chart("work and time of the ops", "points", _OPS, "macs", "time_ms", group="op_type"),
        ]

    def _graph(self) -> Graph | None:
        if self.network is None or not len(self.ops):
            return None
        known = set(self.network["op"])
        nodes: dict[str, Node] = {}
        fused: dict[str, str] = {}
        for row in self.ops.to_dict("records"):
            behind = [op for op in row["onnx_ops"].split(", ") if op in known]
            if behind:  # the others were put in by the runtime, and are in the table
                figures = ("time_ms", "percent", "cycles", "macs", "bytes", "intensity_macs_per_byte")
                facts = {name: row[name] for name in ("onnx_ops", "precision", "source")}
                nodes[row["op"]] = Node(row["op"], row["op_type"], "htp", {name: row[name] for name in figures}, facts)
                fused |= {op: row["op"] for op in behind if op not in fused}
        return network_graph(
            self.title, self.network, nodes, colours=("time_ms", "percent", "macs", "bytes"), fused=fused
        )

    def plot_ops(self, top: int = 15) -> Figure:
        """Draw the slowest ops on the NPU.

        Raises
        ------
        BadInput
            If ops were not profiled.
        """
        from qnb.display import charts

        if not len(self.ops):
            raise BadInput("this profile has no ops", hint='profile with backends=["htp"] and ops=True')
        return charts.op_times(self.ops, top=top)

    def plot_roofline(self) -> Figure:
        """Draw each op's rate against its MACs per byte, under the highest rates that were seen on this machine.

        Raises
        ------
        BadInput
            If ops were not profiled, or none has multiply-accumulates.
        """
        from qnb.display import perf_charts

        if not len(self.ops):
            raise BadInput("this profile has no ops", hint='profile with backends=["htp"] and ops=True')
        return perf_charts.roofline(self.ops, self.roofs)


def profile(
    build: BuildArgument,
    data: DataArgument = None,
    *,
    backends: Sequence[Backend] = BACKENDS,
    soc: str | int | None = None,
    runs: int = 20,
    warmup: int = 3,
    ops: bool = True,
    config: ConfigArgument = None,
    fallback: Fallback | None = None,
    runtime: str | None = None,
) -> Profile:
    """Time a model on each backend, and each of its ops on the NPU.

    Each backend runs the build in the precision that it is made for. The session is loaded anew, warmed up, and then timed
    run by run; timed runs that were still warming up are found and left out of the figures, outliers stay in and are
    counted, and a drift over the runs is noticed. Off a Snapdragon the NPU's times are the simulator's, and the tables
    say so.

    Parameters
    ----------
    build : Model, Quantized, Context or path
        What to time. A `Context` is timed on htp alone.
    data : array, dict, iterable, folder or file, optional
        Its first sample is what is run; by default random numbers from a seed.
    backends : sequence of {"htp", "gpu", "cpu"}
        Where to run.
    soc : str or int, optional
        SoC whose NPU is simulated: part, name or QNN id.
    runs, warmup : int
        Timed runs, and runs before them that are not.
    ops : bool
        Whether to profile op by op on htp.
    config : mapping or path, optional
        Backend configuration.
    fallback : {"cpu"}, optional
        Let ops that the backend does not take run on ONNX Runtime's CPU.
    runtime : str, optional
        Version of the runtime.

    Returns
    -------
    Profile
        Tables: mean, median and percentiles in ms, throughput, CPU use, memory, load time; confidence intervals, outliers
        and drift; for htp a row for each op with the ONNX ops behind it, MACs and bytes, the compiler's stages, and DDR
        traffic.

    Raises
    ------
    PlacementError
        If an op is not on the backend.
    BadInput
        If an argument does not fit.

    Examples
    --------
    >>> qnb.profile(quantized, backends=["htp", "cpu"], runs=50)
    """
    import pandas as pd

    timer = StepTimer("profile")
    if runs < 1 or warmup < 0:
        raise BadInput(f"runs is {runs} and warmup {warmup}", hint="time at least one run")
    found_runtime = find_runtime(runtime)
    found = as_build(build)
    wanted = check_backends(backends)
    if found.kind == "context" and tuple(backends) == BACKENDS:
        wanted = ("htp",)  # nothing else runs a context
    values = read_config(config, "config")
    sample = random_inputs(found.inputs)
    if data is not None:
        sample = next(iter(sample_stream(data, found.inputs, limit=1)))
    rows: list[dict[str, Any]] = []
    statistics: list[dict[str, Any]] = []
    long: list[pd.DataFrame] = []
    op_frame, stages, traffic, roofs, log = pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), ""
    notes: list[str] = []
    with progress("profile", len(wanted) * (warmup + runs)) as bar:
        for number, backend in enumerate(wanted):
            options = configured(BackendOptions(), values, backend)
            bar.update(number * (warmup + runs), text=f"{backend}: load")
            deployed = deploy(found, backend, found_runtime, soc=soc, options=options, fallback=fallback)
            answer = time_runs(deployed, sample, found_runtime, runs, warmup, bar, number)
            series = describe(answer.arrays["latency_ms"])
            rows.append(_row(deployed, series, answer))
            statistics.append({**deployed.label, **series.statistics()})
            long.append(runs_frame(deployed, series))
            notes += [*deployed.notes, *(f"{backend}: {note}" for note in series.notes())]
            log += answer.log
            if deployed.context is not None:
                stages, traffic = stages_frame(deployed.context), traffic_frame(deployed.context)
                notes += deployed.context.notes
            if backend == "htp" and ops:
                bar.update((number + 1) * (warmup + runs), text="htp: ops")
                op_frame, op_notes, op_log = profile_ops(deployed, sample, found_runtime)
                log += op_log
                roofs, roof_notes = roofs_frame(deployed, op_frame, found_runtime)
                notes += [*op_notes, *roof_notes]
    return Profile(
        frame=pd.DataFrame(rows),
        recipe=timer.recipe(found_runtime.qairt, build=found, backends=list(wanted), soc=soc, runs=runs, warmup=warmup),
        notes=tuple(dict.fromkeys(notes)),
        log=log,
        name=found.name,
        runs=pd.concat(long, ignore_index=True),
        ops=op_frame,
        statistics=pd.DataFrame(statistics),
        stages=stages,
        traffic=traffic,
        roofs=roofs,
        network=found.float_model.network,
    )


def time_runs(
    deployed: Deployment,
    sample: Mapping[str, np.ndarray],
    runtime: Runtime,
    runs: int,
    warmup: int,
    bar: Progress,
    number: int = 0,
) -> client.Answer:
    """Time one deployment in a fresh worker: see `qnb.jobs.measure.measure`."""
    start = number * (warmup + runs)
    with client.fresh(runtime) as worker:
        return worker.call(
            "measure",
            {"spec": deployed.spec.plain(), "runs": runs, "warmup": warmup},
            sample,
            on_progress=lambda done, _t, text: bar.update(start + done, text=f"{deployed.backend}: {text}"),
        )


def runs_frame(deployed: Deployment, series: Series) -> pd.DataFrame:
    """Give a row for each timed run, the warm-up and the outliers among them marked."""
    import pandas as pd

    columns = {"latency_ms": series.latency_ms, "warmup": ~series.steady, "outlier": series.outliers}
    return pd.DataFrame({**deployed.label, **columns})


def _row(deployed: Deployment, series: Series, answer: client.Answer) -> dict[str, Any]:
    measured = (
        "cpu_percent",
        "memory_before_mb",
        "memory_peak_mb",
        "memory_delta_mb",
        "memory_after_mb",
        "load_ms",
    )
    return {
        **deployed.label,
        "runs": int(series.steady.sum()),
        **series.figures(),
        **{name: answer.values[name] for name in measured},
    }
