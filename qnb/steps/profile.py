"""Step ``profile``: how long a build takes on each backend, and where the time goes on the NPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qnb import cache
from qnb.artifacts import BuildArgument
from qnb.errors import BadInput
from qnb.progress import Progress, progress
from qnb.results import Result
from qnb.runtime import client, logs
from qnb.runtime.locate import Runtime, find_runtime
from qnb.runtime.options import BackendOptions, configured
from qnb.samples import samples as sample_stream
from qnb.steps._common import StepTimer, as_build, random_inputs, read_config
from qnb.steps._deploy import Deployment, Fallback, check_backends, deploy
from qnb.steps.calibrate import DataArgument
from qnb.steps.context import ConfigArgument
from qnb.values import BACKENDS, Backend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_OP_RUNS = 3
_PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Profile(Result):
    """Latency, throughput, CPU use and memory on each backend.

    Attributes
    ----------
    frame : pandas.DataFrame
        A row for each backend.
    runs : pandas.DataFrame
        A row for each timed run: backend, soc, precision, source, latency_ms.
    ops : pandas.DataFrame
        A row for each op on the NPU, and last what belongs to no op; empty without htp.
    """

    kind: ClassVar[str] = "profile"

    name: str
    runs: pd.DataFrame
    ops: pd.DataFrame

    @property
    def title(self) -> str:
        """What was timed where."""
        return f"{self.name}: latency on {', '.join(self.frame['backend'])}"

    def tables(self) -> dict[str, pd.DataFrame]:
        """Backends, and ops."""
        return {self.title: self.frame} | ({"ops on htp": self.ops} if len(self.ops) else {})

    def plot(self) -> Figure:
        """Distribution of the latency on each backend."""
        from qnb.report import charts

        return charts.latency_distribution(self.runs)

    def figures(self) -> list[Figure]:
        """Latency, and the ops where they were profiled."""
        return [self.plot(), *([self.plot_ops()] if len(self.ops) else [])]

    def plot_ops(self, top: int = 15) -> Figure:
        """Draw the slowest ops on the NPU.

        Raises
        ------
        BadInput
            If ops were not profiled.
        """
        from qnb.report import charts

        if not len(self.ops):
            raise BadInput("this profile has no ops", hint='profile with backends=["htp"] and ops=True')
        return charts.op_times(self.ops, top=top)


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
    run by run. Off a Snapdragon the NPU's times are the simulator's, and the tables say so.

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
        Table: mean, median and percentiles in ms, throughput, CPU use, memory, load time; and a row for each op on htp.

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
    long: list[pd.DataFrame] = []
    op_frame, log = pd.DataFrame(), ""
    notes: list[str] = []
    with progress("profile", len(wanted) * (warmup + runs)) as bar:
        for number, backend in enumerate(wanted):
            options = configured(BackendOptions(), values, backend)
            bar.update(number * (warmup + runs), text=f"{backend}: load")
            deployed = deploy(found, backend, found_runtime, soc=soc, options=options, fallback=fallback)
            answer = time_runs(deployed, sample, found_runtime, runs, warmup, bar, number)
            rows.append(_row(deployed, answer))
            long.append(pd.DataFrame({**deployed.label, "latency_ms": answer.arrays["latency_ms"]}))
            notes += deployed.notes
            log += answer.log
            if backend == "htp" and ops:
                bar.update((number + 1) * (warmup + runs), text="htp: ops")
                op_frame, op_log = _profile_ops(deployed, sample, found_runtime)
                log += op_log
    return Profile(
        frame=pd.DataFrame(rows),
        recipe=timer.recipe(found_runtime.qairt, build=found, backends=list(wanted), soc=soc, runs=runs, warmup=warmup),
        notes=tuple(dict.fromkeys(notes)),
        log=log,
        name=found.name,
        runs=pd.concat(long, ignore_index=True),
        ops=op_frame,
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


def _row(deployed: Deployment, answer: client.Answer) -> dict[str, Any]:
    latency = answer.arrays["latency_ms"]
    mean = float(latency.mean())
    return {
        **deployed.label,
        "runs": len(latency),
        "mean_ms": mean,
        "median_ms": float(np.median(latency)),
        **{f"p{p}_ms": float(np.percentile(latency, p)) for p in _PERCENTILES},
        "throughput_per_s": 1e3 / mean,
        "cpu_percent": answer.values["cpu_percent"],
        "memory_before_mb": answer.values["memory_before_mb"],
        "memory_peak_mb": answer.values["memory_peak_mb"],
        "memory_delta_mb": answer.values["memory_delta_mb"],
        "load_ms": answer.values["load_ms"],
    }


def _profile_ops(deployed: Deployment, sample: Mapping[str, np.ndarray], runtime: Runtime) -> tuple[pd.DataFrame, str]:
    with cache.scratch() as folder:
        path = str(folder / "profile.csv")
        options = dict(deployed.spec.provider_options) | {"profiling_level": "detailed", "profiling_file_path": path}
        spec = replace(deployed.spec, provider_options=options)
        answer = client.call(
            "profile_ops", {"spec": spec.plain(), "csv": path, "runs": _OP_RUNS}, sample, runtime=runtime
        )
    return _ops_frame(deployed, answer.values["executions"], answer.values["wall_ms"]), answer.log


def _ops_frame(deployed: Deployment, executions: Sequence[Mapping[str, Any]], wall_ms: Sequence[float]) -> pd.DataFrame:
    """Mean cycles of each op; its time is its share of the accelerator's; what is left is said, not spread."""
    import pandas as pd

    if not executions:
        return pd.DataFrame()
    count = len(executions)
    cycles: dict[str, int] = {}  # of all executions, so that what is left of whole numbers is exact
    for execution in executions:
        for name, value in execution["ops"]:
            name = logs.original_name(name)
            cycles[name] = cycles.get(name, 0) + value
    total = sum(e["cycles"] for e in executions)
    accelerator_ms = sum(e["accelerator_us"] for e in executions) / count / 1e3
    wall = sum(wall_ms) / len(wall_ms)
    ms_per_cycle = accelerator_ms / (total / count) if total else 0.0
    types = dict(zip(deployed.build.float_model.frame["op"], deployed.build.float_model.frame["op_type"], strict=True))
    left = {"(unattributed: accelerator)": total - sum(cycles.values())}
    rows = [
        (name, _type_of(name, types), value / count, value / count * ms_per_cycle)
        for name, value in (cycles | left).items()
    ]
    rows.append(("(unattributed: runtime and host)", "", float("nan"), wall - accelerator_ms))
    frame = pd.DataFrame(rows, columns=["op", "op_type", "cycles", "time_ms"])
    frame["percent"] = 100 * frame["time_ms"] / wall if wall else float("nan")
    frame["source"] = deployed.source
    return frame


def _type_of(name: str, types: Mapping[str, str]) -> str:
    if name in types:
        return types[name]
    for kind in ("DequantizeLinear", "QuantizeLinear", "Transpose", "Cast", "Input", "Output"):
        if kind in name:
            return kind
    return ""
