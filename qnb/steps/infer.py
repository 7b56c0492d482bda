"""Step ``infer``: samples through a build on a backend, and how well the outputs agree with fp32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from qnb.artifacts import Build, BuildArgument, Context, Quantized
from qnb.defaults import settings
from qnb.errors import BadInput
from qnb.graph.compare import agreement
from qnb.progress import Progress, progress
from qnb.results import Result
from qnb.runtime import client
from qnb.runtime.locate import Runtime, find_runtime
from qnb.runtime.options import BackendOptions, SessionSpec, configured, session_spec
from qnb.sample_sources import as_array
from qnb.samples import samples as sample_stream
from qnb.steps._common import StepTimer, as_build, read_config
from qnb.steps._deploy import Deployment, Fallback, check_backends, deploy
from qnb.steps.calibrate import DataArgument, PreprocessArgument
from qnb.steps.context import ConfigArgument
from qnb.values import Argument, Backend
from qnb.views import Chart

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LabelsArgument = Annotated[Any, Argument("labels", ("ndarray", "Tensor", "list"))]
_CHUNK_BYTES = 16 << 20
_CHUNK_SAMPLES = 64


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Inference(Result):
    """Outputs, and their agreement with the float model.

    Attributes
    ----------
    outputs : mapping of str to ndarray
        By name; samples along the first axis, N × batch of the model.
    frame : pandas.DataFrame
        A row for each output: agreement with the float model on ONNX Runtime's CPU.
    io : pandas.DataFrame
        How each input and output crosses the model's edge: its float type, the integer grid behind it, and the share of
        the values that the grid clipped.
    samples : int
        How many there were.
    offloaded : pandas.DataFrame
        With ``fallback="cpu"``: the ops that ran on ONNX Runtime's CPU.
    """

    kind: ClassVar[str] = "inference"

    name: str
    outputs: Mapping[str, np.ndarray]
    io: pd.DataFrame
    samples: int
    offloaded: pd.DataFrame

    @property
    def title(self) -> str:
        """What ran where."""
        row = self.frame.iloc[0]
        where = f"{row['backend']} {row['soc']}".strip()
        return f"{self.name} {row['precision']} on {where} ({row['source']}): {self.samples} samples"

    def __getitem__(self, output: str) -> np.ndarray:
        return self.outputs[output]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Agreement, the model's edge, and what was offloaded."""
        found = {self.title: self.frame, "inputs and outputs": self.io}
        return found | ({"ops on ONNX Runtime's CPU": self.offloaded} if len(self.offloaded) else {})

    def _charts(self) -> list[Chart]:
        return [Chart("agreement with fp32 by output", "bars", self.title, "output", "sqnr_db")]

    def plot(self) -> Figure:
        """Agreement with fp32, by output."""
        from qnb.display import charts

        return charts.accuracy_by_backend(self.frame)


def infer(
    build: BuildArgument,
    data: DataArgument,
    *,
    backend: Backend | None = None,
    soc: str | int | None = None,
    fallback: Fallback | None = None,
    labels: LabelsArgument = None,
    samples: int | None = None,
    preprocess: PreprocessArgument = None,
    config: ConfigArgument = None,
    reference: bool = True,
    fp32: bool = False,
    runtime: str | None = None,
) -> Inference:
    """Run samples on a backend, and see how well the outputs agree with fp32.

    Inputs and outputs are float; quantizing them is done on the backend. Every node is where it was asked to be, or the
    call fails.

    Parameters
    ----------
    build : Model, Quantized, Context or path
        What to run. On ``cpu`` and ``gpu`` a quantized model is represented by its float parent, and the table says so.
    data : array, dict, iterable, DataLoader, folder or file
        One sample or many; as for `calibrate`. A model of static batch is looped.
    backend : {"htp", "gpu", "cpu"}, optional
        Where to run. Without an Adreno, ``gpu`` is an fp16 reference.
    soc : str or int, optional
        SoC whose NPU is simulated: part, name or QNN id.
    fallback : {"cpu"}, optional
        Let ops that the backend does not take run on ONNX Runtime's CPU; they are listed.
    labels : array, optional
        True class of each sample, for the top-1 accuracy.
    samples : int, optional
        Use at most so many.
    preprocess : callable, optional
        Turns an image or a file's array into the model's input.
    config : mapping or path, optional
        Backend configuration.
    reference : bool
        Whether to run the float model as well, and compare.
    fp32 : bool
        Run a float model on the NPU's simulator in fp32 instead of fp16: that of SM8350 (Hexagon v68) can.
    runtime : str, optional
        Version of the runtime.

    Returns
    -------
    Inference
        Table: max error, SQNR, cosine and top-1 by output. ``.outputs`` holds the arrays.

    Raises
    ------
    PlacementError
        If an op is not on the backend.
    BadInput
        If a sample does not fit the model.
    InferenceError
        If the runtime fails.

    Examples
    --------
    >>> result = qnb.infer(quantized, images, backend="htp", labels=labels)
    >>> result.outputs["logits"]
    """
    timer = StepTimer("infer")
    found_runtime = find_runtime(runtime)
    found = as_build(build)
    where, *others = check_backends(backend or settings.backend)
    if others:
        raise BadInput(
            f"infer runs on one backend, not on {len(others) + 1}", hint="qnb.compare sets them side by side"
        )
    options = configured(BackendOptions(), read_config(config, "config"), where)
    stream = sample_stream(data, found.inputs, preprocess=preprocess, limit=samples)
    classes = as_labels(labels)
    with progress(f"{where}: load") as bar:
        deployed = deploy(found, where, found_runtime, soc=soc, options=options, fallback=fallback, fp32=fp32)
        bar.update(0, text=deployed.precision)
    with progress(f"infer on {where}", stream.count, unit="sample") as bar:
        ran = run_samples(deployed, stream, found_runtime, bar, with_reference=reference)
    if not ran.count:
        raise BadInput("there is no sample in the data", hint="give at least one")
    return Inference(
        frame=accuracy_frame(deployed, ran, classes, limit=samples),
        recipe=timer.recipe(
            found_runtime.qairt,
            build=found,
            data=stream.describe(),
            backend=where,
            soc=deployed.label["soc"] or None,
            config=config,
        ),
        notes=deployed.notes,
        log=ran.log,
        name=found.name,
        outputs=ran.outputs,
        io=_io_frame(found, deployed, ran),
        samples=ran.count,
        offloaded=_offloaded(ran, deployed),
    )


@dataclass
class Ran:
    """What came of running samples: stacked outputs, those of the float model, and facts of the session."""

    outputs: dict[str, np.ndarray]
    reference: dict[str, np.ndarray]
    count: int
    assignment: list[list[str]]
    clipped: dict[str, list[int]]
    log: str


def run_samples(deployed: Deployment, stream: Any, runtime: Runtime, bar: Progress, *, with_reference: bool) -> Ran:
    """Run a stream of samples, a chunk a message; outputs are kept, inputs are not."""
    specs: list[tuple[str, SessionSpec]] = [("outputs", deployed.spec)]
    if with_reference:
        specs.append(("reference", session_spec(str(deployed.build.float_model.path), "ort", runtime)))
    parts: dict[str, list[dict[str, np.ndarray]]] = {kind: [] for kind, _ in specs}
    ran = Ran({}, {}, 0, [], {}, "")
    grids = _grids(deployed)
    with client.borrow(runtime) as worker:
        for chunk, size in _chunks(stream):
            _count_clipped(chunk, grids, ran.clipped)
            for kind, spec in specs:
                first = kind == "outputs"
                answer = worker.call(
                    "run",
                    {"spec": spec.plain(), "count": size, "describe": first and not ran.count},
                    chunk,
                    on_progress=_onto(bar, ran.count) if first else None,
                )
                parts[kind].append(answer.arrays)
                ran.log += answer.log
                ran.assignment = answer.values.get("assignment") or ran.assignment
            ran.count += size
            bar.update(ran.count)
    for kind, arrays in parts.items():
        setattr(ran, kind, _joined(arrays))
    _count_clipped(ran.reference or ran.outputs, grids, ran.clipped)
    return ran


def _onto(bar: Progress, start: int) -> client.OnProgress:
    return lambda done, _total, _text: bar.update(start + done)


def _chunks(stream: Any) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    held: list[dict[str, np.ndarray]] = []
    held_bytes = 0

    def stacked() -> tuple[dict[str, np.ndarray], int]:
        if len(held) == 1:
            return {name: array[None] for name, array in held[0].items()}, 1
        return {name: np.stack([s[name] for s in held]) for name in held[0]}, len(held)

    for sample in stream:
        held.append(sample)
        held_bytes += sum(a.nbytes for a in sample.values())
        if held_bytes >= _CHUNK_BYTES or len(held) >= _CHUNK_SAMPLES:
            yield stacked()
            held, held_bytes = [], 0
    if held:
        yield stacked()


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Samples along the first axis: (N, batch, …) becomes (N × batch, …)."""
    joined = {}
    for name in parts[0] if parts else ():
        whole = parts[0][name] if len(parts) == 1 else np.concatenate([p[name] for p in parts])
        joined[name] = whole.reshape(-1, *whole.shape[2:]) if whole.ndim > 1 else whole
    return joined


def _grids(deployed: Deployment) -> dict[str, tuple[float, float]]:
    """Range of the integer grid behind each input and output of a quantized build that runs as such."""
    quantized = deployed.build.parent if isinstance(deployed.build, Context) else deployed.build
    if not isinstance(quantized, Quantized) or deployed.precision != quantized.precision:
        return {}
    frame = quantized.frame
    names = {s.name for s in (*quantized.inputs, *quantized.outputs)}
    edge = frame[frame["tensor"].isin(names)]
    return {str(t): (float(lo), float(hi)) for t, lo, hi in zip(edge["tensor"], edge["min"], edge["max"], strict=True)}


def _count_clipped(
    values: Mapping[str, np.ndarray], grids: Mapping[str, tuple[float, float]], clipped: dict[str, list[int]]
) -> None:
    for name, (low, high) in grids.items():
        if name in values:
            count = clipped.setdefault(name, [0, 0])
            array = values[name]
            slack = (high - low) * 1e-3  # the ends are rounded to the grid
            count[0] += int(np.count_nonzero((array < low - slack) | (array > high + slack)))
            count[1] += array.size


def accuracy_frame(
    deployed: Deployment, ran: Ran, labels: np.ndarray | None, *, limit: int | None = None
) -> pd.DataFrame:
    """Agreement of each output with the float model, and the top-1 accuracy where labels are given.

    Raises
    ------
    BadInput
        If no output is a classifier's, a label is not one of its classes, or there are not as many labels as samples;
        there may be more where `limit` cut the samples off.
    """
    import pandas as pd

    nan = float("nan")
    classifier = _classifier_output(ran.outputs, labels)
    rows = []
    for name, value in ran.outputs.items():
        none = {"max_abs_error": nan, "sqnr_db": nan, "cosine": nan, "top1_agreement": nan}
        figures = agreement(ran.reference[name], value) if name in ran.reference else none
        accuracy = nan
        if name == classifier:
            accuracy = float(np.mean(value.argmax(axis=1) == _one_each(labels, value, limit)))
        rows.append({"output": name, **deployed.label, **figures, "accuracy": accuracy})
    return pd.DataFrame(rows)


def top1(outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
    """Share of the samples whose largest class is the true one; there may be more labels than samples.

    Raises
    ------
    BadInput
        As `accuracy_frame`.
    """
    value = outputs[str(_classifier_output(outputs, labels))]
    return float(np.mean(value.argmax(axis=1) == _one_each(labels, value, len(value))))


def _classifier_output(outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> str | None:
    if labels is None:
        return None
    for name, value in outputs.items():
        if value.ndim == 2 and value.shape[1] >= 2:
            return name
    shapes = ", ".join(f"{n} {v.shape}" for n, v in outputs.items())
    raise BadInput(f"labels are given, but no output is (samples, classes): {shapes}", hint="leave labels out")


_LABELS_HINT = "give one whole number, the index of the true class, for each sample"


def as_labels(labels: Any) -> np.ndarray | None:
    """Read the true classes: whole numbers in one dimension, or the .npy file that holds them.

    Raises
    ------
    BadInput
        If they are something else.
    """
    if labels is None:
        return None
    if isinstance(labels, str | Path):
        try:
            labels = np.load(Path(labels).expanduser(), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise BadInput(
                f"could not read labels from {labels}: {error}", hint="give an array, or a .npy file"
            ) from error
    array = as_array(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise BadInput(f"labels of shape {array.shape} and dtype {array.dtype}", hint=_LABELS_HINT)
    return array


def _one_each(labels: np.ndarray | None, scores: np.ndarray, limit: int | None) -> np.ndarray:
    assert labels is not None
    count, classes = scores.shape
    if len(labels) < count or (limit is None and len(labels) > count):
        raise BadInput(f"{len(labels)} labels for {count} samples", hint=_LABELS_HINT)
    if labels.min() < 0 or labels.max() >= classes:
        raise BadInput(
            f"labels from {labels.min()} to {labels.max()}, but the model has {classes} classes",
            hint=f"give the index of the true class, 0 to {classes - 1}",
        )
    return labels[:count]


def _io_frame(build: Build, deployed: Deployment, ran: Ran) -> pd.DataFrame:
    import pandas as pd

    nan = float("nan")
    quantized = build.parent if isinstance(build, Context) else build
    encoded: Mapping[str, Any] = {}
    if ran.clipped and isinstance(quantized, Quantized):
        encoded = {str(r.tensor): r for r in quantized.frame.itertuples()}
    rows = []
    for direction, specs in (("input", build.inputs), ("output", build.outputs)):
        for spec in specs:
            grid = encoded.get(spec.name)
            beyond, total = ran.clipped.get(spec.name, [0, 0])
            rows.append(
                {
                    "direction": direction,
                    "tensor": spec.name,
                    "shape": "×".join(map(str, spec.shape)),
                    "dtype": spec.dtype,
                    "on_backend": f"{'int' if grid.signed else 'uint'}{grid.bits}" if grid else deployed.precision,
                    "scale": float(grid.scale) if grid else nan,
                    "zero_point": float(grid.zero_point) if grid else nan,
                    "clipped_percent": 100 * beyond / total if total else nan,
                    "source": "host" if total else "",
                }
            )
    return pd.DataFrame(rows)


def _offloaded(ran: Ran, deployed: Deployment) -> pd.DataFrame:
    import pandas as pd

    on_qnn = deployed.spec.backend != "ort"
    rows = [(name, op) for ep, name, op in ran.assignment if on_qnn and not ep.startswith("QNN")]
    return pd.DataFrame(rows, columns=["op", "op_type"])
