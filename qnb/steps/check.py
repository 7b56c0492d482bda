"""Step ``check``: where a quantized model loses its accuracy, layer by layer and tensor by tensor; and a gate for builds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qnb.artifacts import BuildArgument, Context, Quantized
from qnb.errors import (
    BadInput,
    CheckFailed,
    CompileError,
    InferenceError,
    PlacementError,
    RuntimeUnavailable,
    UnknownName,
    WorkerCrashed,
)
from qnb.results import Result
from qnb.runtime.locate import Runtime, find_runtime
from qnb.samples import samples as sample_stream
from qnb.socs import Soc
from qnb.steps._check_run import Replayable, Work
from qnb.steps._check_tables import TENSORS, tables_of
from qnb.steps._common import StepTimer, as_build
from qnb.steps._deploy import Deployment, deploy
from qnb.steps._findings import Evidence, entries, findings, mark
from qnb.steps.calibrate import DataArgument, PreprocessArgument
from qnb.steps.infer import LabelsArgument, as_labels
from qnb.views import Chart, Graph, Node, network_graph

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Check(Result):
    """Where accuracy goes.

    Attributes
    ----------
    frame : pandas.DataFrame
        A row for each layer's output and source: its agreement with fp32 in isolation and accumulated.
    outputs : pandas.DataFrame
        A row for each output of the model and source.
    tensors : pandas.DataFrame
        A row for each quantized tensor: how its values lie on its grid.
    channels : pandas.DataFrame
        A row for each channel of an activation or weight: its range.
    findings : pandas.DataFrame
        What is wrong, where, and what mends it; the most severe first.
    counts : ndarray of int64, (T, 1024)
        Histogram of each row of `tensors` that has one (not of biases), in their order.
    reasons : tuple of str
        Why the check failed; empty if it passed, or nothing was asked.
    judged : bool
        Whether a threshold was given.
    tensor : str
        Tensor whose histogram is drawn.
    network : pandas.DataFrame or None
        How the ops of the float model hang together: `Model.network`.
    """

    kind: ClassVar[str] = "check"

    name: str
    precision: str
    outputs: pd.DataFrame
    tensors: pd.DataFrame
    channels: pd.DataFrame
    findings: pd.DataFrame
    counts: np.ndarray
    reasons: tuple[str, ...]
    judged: bool
    tensor: str
    samples: int
    network: pd.DataFrame | None = None

    @property
    def passed(self) -> bool:
        """Whether no threshold was missed."""
        return not self.reasons

    @property
    def first_bad(self) -> str:
        """Name of the first layer that is bad in isolation, or else accumulated; ``""`` if none is."""
        for rule in ("QNB-Q001", "QNB-Q003"):
            rows = self.findings[self.findings["id"] == rule]
            if len(rows):
                return str(rows["layer"].iloc[0])
        return ""

    @property
    def title(self) -> str:
        """The verdict, the outputs' SQNR, and the first bad layer."""
        verdict = ["PASS" if self.passed else "FAIL"] if self.judged else []
        worst = self.outputs.loc[self.outputs["source"] == _primary(self.outputs), "sqnr_db"].min()
        figures = [f"{worst:.1f} dB ({_primary(self.outputs)})"]
        bad = [f"first bad layer {self.first_bad}"] if self.first_bad else []
        return " · ".join([*verdict, f"{self.name} {self.precision}", *figures, *bad])

    def require(self) -> None:
        """Do nothing if the check passed.

        Raises
        ------
        CheckFailed
            If it did not; says which threshold was missed, and what mends the most severe finding.
        """
        if not self.passed:
            remedies = self.findings.loc[self.findings["severity"] == "error", "remedy"]
            hint = str(remedies.iloc[0]) if len(remedies) else 'calibrate with effort="balanced"'
            raise CheckFailed(f"{self.name} {self.precision}: {'; '.join(self.reasons)}", hint=hint, log=self.log)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Layers, tensors, outputs, and last the findings."""
        found = {"layers": self.frame, "tensors": self.tensors, "outputs": self.outputs, "findings": self.findings}
        shown = [(name, frame) for name, frame in found.items() if len(frame) or name == "findings"]
        return {self.title if i == 0 else name: frame for i, (name, frame) in enumerate(shown)}

    def plot(self) -> Figure:
        """SQNR layer by layer; without layers, the tensors that lose most."""
        from qnb.display import check_charts

        return check_charts.layer_sqnr(self.frame) if len(self.frame) else self.plot_tensors()

    def plot_tensors(self) -> Figure:
        """The tensors that lose most by themselves."""
        from qnb.display import check_charts

        return check_charts.worst_tensors(self.tensors)

    def histogram(self, tensor: str | None = None) -> Figure:
        """Draw how a tensor's values lie on its grid.

        Parameters
        ----------
        tensor : str, optional
            Its name; by default `tensor`.

        Raises
        ------
        UnknownName
            If there is no such tensor in the table.
        """
        from qnb.display import check_charts

        row = self._row(tensor or self.tensor)
        return check_charts.histogram(self.tensors.iloc[[row]], self.counts[row])

    def plot_channels(self, tensor: str | None = None) -> Figure:
        """Draw the range of each channel of a tensor.

        Parameters
        ----------
        tensor : str, optional
            Its name; by default the one whose channels differ most.

        Raises
        ------
        UnknownName
            If there is no such tensor, or it has no channels.
        """
        from qnb.display import check_charts

        names = list(dict.fromkeys(self.channels["tensor"]))
        if tensor is not None and tensor not in names:
            raise UnknownName.among("tensor with channels", tensor, names)
        name = tensor or _most_uneven(self.channels)
        rows = self.channels[self.channels["tensor"] == name]
        return check_charts.channel_ranges(rows, self.tensors[self.tensors["tensor"] == name])

    def figures(self) -> list[Figure]:
        """Layers, worst tensors, a histogram, and the channels that differ most."""
        drawn = [self.plot(), *([self.plot_tensors()] if len(self.frame) else []), self.histogram()]
        return [*drawn, self.plot_channels()] if len(self.channels) else drawn

    def _charts(self) -> list[Chart]:
        return [
            Chart("accumulated SQNR by layer", "bars", self.title, "layer", "accumulated_sqnr_db", group="source"),
            Chart("SQNR of each layer in isolation", "bars", self.title, "layer", "isolated_sqnr_db", group="source"),
        ]

    def _graph(self) -> Graph | None:
        if self.network is None or not len(self.frame):
            return None
        nodes: dict[str, Node] = {}
        for row in self.frame[self.frame["source"] == _primary(self.outputs)].to_dict("records"):
            figures = {"sqnr_db": row["accumulated_sqnr_db"]}
            figures |= {name: row[name] for name in ("isolated_sqnr_db", "drop_db", "cosine", "mse")}
            facts = {name: row[name] for name in ("tensor", "source", "remark") if row[name]}
            nodes.setdefault(row["layer"], Node(row["layer"], row["op_type"], None, figures, facts))
        return network_graph(self.title, self.network, nodes, colours=("sqnr_db", "isolated_sqnr_db", "drop_db"))

    def _row(self, tensor: str) -> int:
        names = list(self.tensors.loc[self.tensors["kind"] != "bias", "tensor"])
        if tensor not in names:
            raise UnknownName.among("tensor", tensor, names)
        return names.index(tensor)


def check(
    quantized: BuildArgument,
    data: DataArgument,
    *,
    labels: LabelsArgument = None,
    samples: int | None = None,
    layers: bool = True,
    layer_samples: int = 16,
    min_sqnr: float | None = None,
    max_top1_drop: float | None = None,
    tensor: str | None = None,
    soc: str | int | None = None,
    preprocess: PreprocessArgument = None,
    runtime: str | None = None,
) -> Check:
    """See where a quantized model loses accuracy: layer by layer, tensor by tensor; and whether it is good enough.

    Each layer's output is compared with fp32: as ONNX Runtime computes the quantized graph on this host's CPU, and as the
    NPU itself computes it. Accumulated, errors add up along the network; in isolation each layer is fed with exact
    inputs, so that the first bad one stands out.

    Parameters
    ----------
    quantized : Quantized, Context or path
        What to check.
    data : array, dict, iterable, DataLoader, folder or file
        Samples, best ones that were not calibrated with; as for `calibrate`.
    labels : array, optional
        True class of each sample, for the top-1 accuracy.
    samples : int, optional
        Use at most so many.
    layers : bool
        Whether to look into the layers, or only at tensors and outputs.
    layer_samples : int
        How many of the samples go through layers and tensors, the first ones; all go through the outputs.
    min_sqnr : float, optional
        Fail where an output's SQNR is lower, in dB; on the NPU, or on this host where there is none.
    max_top1_drop : float, optional
        Fail where the top-1 accuracy falls by more, in percentage points; without labels, where the top-1 class changes
        for more per cent of the samples.
    tensor : str, optional
        Draw this tensor's histogram; by default that of the first bad layer's output, or of the activation that loses
        most.
    soc : str or int, optional
        SoC whose NPU is simulated: part, name or QNN id.
    preprocess : callable, optional
        Turns an image or a file's array into the model's input.
    runtime : str, optional
        Version of the runtime.

    Returns
    -------
    Check
        Table: a row for each layer and source. `.findings` says what is wrong and what mends it; `.passed` whether the
        thresholds hold.

    Raises
    ------
    BadInput
        If it is not quantized, or data or labels do not fit.
    UnknownName
        If there is no such tensor.

    Examples
    --------
    >>> result = qnb.check(quantized, images, min_sqnr=30)
    >>> result.findings
    >>> result.require()
    """
    timer = StepTimer("check")
    build, target = _quantized(quantized, soc)
    if layer_samples < 1:
        raise BadInput(f"layer_samples is {layer_samples}", hint="give at least 1; layers=False leaves the layers out")
    found_runtime = find_runtime(runtime)
    if tensor is not None and tensor not in set(build.frame["tensor"]):
        raise UnknownName.among("tensor", tensor, build.frame["tensor"])
    classes = as_labels(labels)
    stream = sample_stream(data, build.inputs, preprocess=preprocess, limit=samples)
    if classes is not None:
        _check_labels(classes, build)
    notes: list[str] = []
    deployed = _deployed(build, target, found_runtime, notes)
    incoming = iter(stream)
    first = next(incoming, None)
    if first is None:
        raise BadInput("there is no sample in the data", hint="give at least one")
    held = Replayable(first, incoming)
    work = Work(build, found_runtime, layers, layer_samples)
    try:
        gathered = work.run(deployed, held, stream.count)
    except WorkerCrashed as error:
        if deployed is None or held.gone:
            raise
        notes.append(f"no figures of {deployed.source}: its process ended early ({error.what.splitlines()[0]})")
        gathered = work.run(None, held, stream.count)
    notes += [f"{what}: {why.splitlines()[0]}" for what, why in gathered.opened["notes"].items()]
    for source in gathered.closed["changed"]:
        notes.append(
            f"{source}: with the layers' outputs exposed, the model's own outputs change: its accumulated figures are of a "
            "graph that the compiler fused otherwise"
        )
    made = tables_of(gathered.opened, gathered.closed, gathered.arrays, gathered.classes, classes, limit=samples)
    marked = mark(made.layers, made.tensors, made.inputs)
    found = findings(
        Evidence(
            marked, made.tensors, made.channels, made.outputs, made.inputs, build.method, build.weights, build.precision,
            build.samples,
        )
    )  # fmt: skip
    reasons = _reasons(made.outputs, min_sqnr, max_top1_drop)
    return Check(
        frame=marked,
        recipe=timer.recipe(
            found_runtime.qairt,
            quantized=build,
            data=stream.describe(),
            soc=deployed.label["soc"] if deployed else None,
            min_sqnr=min_sqnr,
            max_top1_drop=max_top1_drop,
            layer_samples=layer_samples,
        ),
        notes=(*(f"FAIL: {reason}" for reason in reasons), *(deployed.notes if deployed else ()), *notes),
        log=gathered.log,
        name=build.name,
        precision=build.precision,
        outputs=made.outputs,
        tensors=made.tensors[TENSORS],
        channels=made.channels,
        findings=found,
        counts=made.counts,
        reasons=reasons,
        judged=min_sqnr is not None or max_top1_drop is not None,
        tensor=tensor or _worst(made.tensors, found),
        samples=gathered.count,
        network=build.float_model.network,
    )


def _quantized(value: object, soc: str | int | None) -> tuple[Quantized, str | int | Soc | None]:
    """Find the quantized model that is meant, and the SoC that it is for.

    Raises
    ------
    BadInput
        If it is a float model.
    """
    build = as_build(value)
    if isinstance(build, Context):
        parent, own = build.parent, build.soc
        if isinstance(parent, Quantized):
            return parent, soc if soc is not None else own
        build = parent
    if isinstance(build, Quantized):
        return build, soc
    raise BadInput(
        f"{build.name} is a float model: there is no quantization to check",
        hint="quantize it first: qnb.calibrate(model, data)",
    )


def _check_labels(labels: np.ndarray, build: Quantized) -> None:
    """Refuse labels that are no classes of the first classifying output; before the work, not after it."""
    sizes = [s.shape[1] for s in build.outputs if len(s.shape) == 2 and s.shape[1] >= 2]
    if not sizes:
        raise BadInput("labels are given, but no output is (samples, classes)", hint="leave labels out")
    if labels.size and not 0 <= labels.min() <= labels.max() < sizes[0]:
        raise BadInput(
            f"labels from {labels.min()} to {labels.max()}, but the model has {sizes[0]} classes",
            hint=f"give the index of the true class, 0 to {sizes[0] - 1}",
        )


def _deployed(build: Quantized, soc: Any, runtime: Runtime, notes: list[str]) -> Deployment | None:
    """Prepare the NPU's part; where there is none, a note says why."""
    try:
        return deploy(build, "htp", runtime, soc=soc)
    except (PlacementError, RuntimeUnavailable, CompileError, InferenceError, WorkerCrashed) as error:
        notes.append(f"no figures of the NPU: {error.what.splitlines()[0]}")
        return None


def _primary(outputs: pd.DataFrame) -> str:
    """Source that is judged: the NPU's, where there is one."""
    return str(next((s for s in outputs["source"] if s != "host"), "host"))


def _reasons(outputs: pd.DataFrame, min_sqnr: float | None, max_top1_drop: float | None) -> tuple[str, ...]:
    """Say which thresholds are missed.

    Raises
    ------
    BadInput
        If a top-1 drop is asked about, and no output is a classifier's.
    """
    source = _primary(outputs)
    rows = outputs[outputs["source"] == source]
    found = []
    if min_sqnr is not None:
        for row in entries(rows):
            if not row.sqnr_db >= min_sqnr:
                found.append(f"output {row.output} has {row.sqnr_db:.2f} dB ({source}), below min_sqnr {min_sqnr:g}")
    if max_top1_drop is not None:
        if rows["top1_drop_percent"].isna().all():
            raise BadInput(
                "max_top1_drop is given, but no output is (samples, classes)", hint="leave it out, and give min_sqnr"
            )
        for row in entries(rows):
            if row.top1_drop_percent > max_top1_drop:
                what = "top-1 accuracy falls by" if row.accuracy == row.accuracy else "top-1 class changes for"
                drop = f"{row.top1_drop_percent:.2f} %"
                found.append(
                    f"output {row.output}: the {what} {drop} ({source}), above max_top1_drop {max_top1_drop:g}"
                )
    return tuple(found)


def _worst(tensors: pd.DataFrame, found: pd.DataFrame) -> str:
    """Choose the tensor to draw: the output of the first bad layer, or else the activation that loses most."""
    first = found.loc[found["id"].isin(["QNB-Q001", "QNB-Q003"]), "tensor"]
    if len(first) and first.iloc[0] in set(tensors["tensor"]):
        return str(first.iloc[0])
    rows = tensors[(tensors["kind"] == "activation") & tensors["sqnr_db"].notna()]
    rows = rows if len(rows) else tensors[tensors["kind"] != "bias"]
    return str(rows["tensor"].iloc[int(rows["sqnr_db"].argmin())]) if len(rows) else ""


def _most_uneven(channels: pd.DataFrame) -> str:
    ratios = channels.groupby("tensor", sort=False)["ratio"].max()
    return str(ratios.fillna(0).idxmax())
