"""Step ``compare``: backends side by side, and builds side by side, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from qnb.artifacts import Build, BuildArgument
from qnb.errors import BadInput, PlacementError, RuntimeUnavailable
from qnb.progress import progress
from qnb.results import Result
from qnb.runtime.locate import find_runtime
from qnb.runtime.options import BackendOptions, configured
from qnb.samples import samples as sample_stream
from qnb.steps._common import StepTimer, as_build, random_inputs, read_config
from qnb.steps._deploy import check_backends, deploy
from qnb.steps.calibrate import DataArgument, PreprocessArgument
from qnb.steps.context import ConfigArgument
from qnb.steps.infer import LabelsArgument, accuracy_frame, as_labels, run_samples
from qnb.steps.profile import time_runs
from qnb.values import BACKENDS, Backend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison(Result):
    """Builds and backends side by side.

    Attributes
    ----------
    frame : pandas.DataFrame
        A row for each build on each backend: latency, agreement with fp32, accuracy, size.
    runs : pandas.DataFrame
        A row for each timed run.
    """

    kind: ClassVar[str] = "comparison"

    runs: pd.DataFrame

    @property
    def title(self) -> str:
        """What is compared."""
        builds = list(dict.fromkeys(self.frame["build"]))
        return f"{', '.join(builds)} on {', '.join(dict.fromkeys(self.frame['backend']))}"

    def plot(self) -> Figure:
        """Latency, agreement, accuracy and size."""
        from qnb.report import charts

        return charts.comparison(self.frame)

    def plot_latency(self) -> Figure:
        """Distribution of the latency."""
        from qnb.report import charts

        return charts.latency_distribution(self.runs)


def compare(
    *builds: BuildArgument,
    data: DataArgument = None,
    labels: LabelsArgument = None,
    backends: Sequence[Backend] = BACKENDS,
    soc: str | int | None = None,
    runs: int = 10,
    warmup: int = 2,
    samples: int | None = None,
    preprocess: PreprocessArgument = None,
    config: ConfigArgument = None,
    runtime: str | None = None,
) -> Comparison:
    """Set backends, or builds, side by side: latency, accuracy, size.

    Each backend runs each build in the precision that it is made for: integers on htp, fp16 on gpu, fp32 on cpu. Agreement
    is measured against the float model on ONNX Runtime's CPU.

    Parameters
    ----------
    *builds : Model, Quantized, Context or path
        One build on several backends, or several builds.
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
    config : mapping or path, optional
        Backend configuration.
    runtime : str, optional
        Version of the runtime.

    Returns
    -------
    Comparison
        Table: a row for each build on each backend. What a backend does not take has a row that says why.

    Raises
    ------
    BadInput
        If there is nothing to compare, or a sample does not fit.

    Examples
    --------
    >>> qnb.compare(quantized, data=images, labels=labels)
    >>> qnb.compare(model, quantized, backends=["htp"])
    """
    import pandas as pd

    timer = StepTimer("compare")
    if not builds:
        raise BadInput("nothing to compare", hint="qnb.compare(quantized) sets its backends side by side")
    if runs < 1 or warmup < 0:
        raise BadInput(f"runs is {runs} and warmup {warmup}", hint="time at least one run")
    found_runtime = find_runtime(runtime)
    found = [as_build(b) for b in builds]
    wanted = check_backends(backends)
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
            latency = timed.arrays["latency_ms"]
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
            long.append(pd.DataFrame({"build": _label(build), **deployed.label, "latency_ms": latency}))
            notes += deployed.notes
            log += timed.log + ran.log
    if not long:
        raise PlacementError("none of the builds runs on any of these backends", hint="\n".join(notes))
    return Comparison(
        frame=pd.DataFrame(rows, columns=_COLUMNS),
        recipe=timer.recipe(found_runtime.qairt, builds=found, backends=list(wanted), soc=soc, runs=runs),
        notes=tuple(dict.fromkeys(notes)),
        log=log,
        runs=pd.concat(long, ignore_index=True),
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
