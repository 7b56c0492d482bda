"""Jobs of calibration: activations are reduced to statistics where they arise.

A calibration is open under a key while its samples come in; only its statistics are kept.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from qnb import kept
from qnb.errors import BadInput, CalibrationError
from qnb.files import replacing, storage_errors
from qnb.graph import exposed
from qnb.quant import observers, ranges
from qnb.quant.qdq import observed_tensors
from qnb.quant.structure import attribute
from qnb.runtime.session import Chain, create_optimised, optimise
from qnb.runtime.worker import JobContext, Reply

_SEGMENT = 4 << 20  # bytes of outputs that fit in a cache

_DENSE = 8  # samples after which fewer values of each are enough

_AXES = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}
"""Where the channels are in what an op with weights reads."""


@dataclass
class _Calibration:
    chain: Chain
    names: dict[str, list[str]]
    inputs: list[str]
    lows: dict[str, float | None]
    observer: observers.MinMax
    means: observers.ChannelMeans
    axes: dict[str, int] = field(default_factory=dict)
    averages: dict[str, str] = field(default_factory=dict)
    samples: int = 0

    def take(self, sample: Mapping[str, NDArray[Any]]) -> None:
        """Run one sample and reduce what it gives."""
        with _whole():
            for name in self.inputs:
                self._reduce(name, sample[name])
            self.chain.run(sample, self._reduce)
            self.samples += 1

    def _reduce(self, output: str, value: NDArray[Any]) -> None:
        if output in self.averages:
            self.means.update(self.averages[output], value, 1)
            return
        for name in self.names.get(output, ()):
            if name in self.lows:
                self.observer.update(name, value, low=self.lows[name])
            if name in self.axes and name not in self.averages.values():
                self.means.update(name, value, self.axes[name])


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Let an interrupt wait for the end of the block: a sample is in the statistics or it is not."""
    if threading.current_thread() is not threading.main_thread():  # interrupts reach the main thread alone
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def observe_open(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Begin, or go on with, a calibration.

    args: key, model, spec (for a session on ``out``), out (a path; files beside it are written too), histogram; and, where
    they are wanted, means (of the channels of what Conv, Gemm and MatMul read), most (values of an array that
    are counted; 0 for all), resume (a file of `observe_save`),
    threads. Answers with how many tensors are observed, and how many samples were already.
    """
    stored = onnx.load(args["model"], load_external_data=False)
    model = stored
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in stored.graph.initializer):
        model = onnx.load(args["model"])  # parameters that say what is observed may be among them
    wanted = observed_tensors(model)
    inputs = {i.name for i in model.graph.input}
    axes = _channel_axes(model) if args.get("means") else {}
    asked = [name for name in dict.fromkeys([*wanted, *axes]) if name not in inputs]
    exposed.with_outputs(args["model"], stored, asked, args["out"])
    lows, shapes = _lows(model, wanted), _shapes(model)
    most = args.get("most", observers.MOST) or None
    kind = observers.Histogram(most, dense=_DENSE) if args["histogram"] else observers.MinMax()
    del model, stored
    chain, names, averages = _chain(args["spec"], Path(args["out"]), asked, shapes, axes, args.get("threads", 0))
    fed = [name for name in dict.fromkeys([*wanted, *axes]) if name in inputs]
    calibration = _Calibration(
        chain, names | {name: [name] for name in fed}, fed, lows, kind, observers.ChannelMeans(), axes, averages
    )
    if args.get("resume"):
        _resume(calibration, Path(args["resume"]), wanted)
    ctx.state.setdefault("calibrations", {}).clear()  # one that was given up must not hold its memory
    ctx.state["calibrations"][args["key"]] = calibration
    return {"tensors": len(wanted), "samples": calibration.samples}, {}


def observe(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Take in samples; args: key, count; arrays: the inputs, `count` samples stacked along a new first axis."""
    calibration = _open(ctx, args["key"])
    count = args["count"]
    for index in range(count):
        calibration.take({name: array[index] for name, array in arrays.items()})
        if index + 1 < count:  # the answer itself tells of the last
            ctx.progress(index + 1, count)
    return {"samples": calibration.samples}, {}


def observe_save(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Write the statistics so far, from which `observe_open` can go on; args: key, path."""
    calibration = _open(ctx, args["key"])
    state = calibration.observer.state() | calibration.means.state()
    with replacing(args["path"]) as part:
        kept.save(part, state | {"samples": np.array([calibration.samples], np.int64)})
    return {"samples": calibration.samples}, {}


def observe_close(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """End; args: key, methods: a list of ``{"method", "percentile", "bits"}``, the last two where they matter.

    Answers with the range of each tensor by method, and with the channels' means as ``mean:<tensor>``.
    """
    calibration = _open(ctx, args["key"])
    del ctx.state["calibrations"][args["key"]]
    if not calibration.samples:
        raise CalibrationError("no calibration sample came", hint="give data with at least one sample")
    means = {f"mean:{name}": value for name, value in calibration.means.means.items()}
    found = {
        order["method"]: _plain(
            ranges.find(
                calibration.observer,
                order["method"],
                bits=order.get("bits", 8),
                percentile=order.get("percentile", ranges.DEFAULT_PERCENTILE),
            )
        )
        for order in args["methods"]
    }
    return {"samples": calibration.samples, "ranges": found}, means


def _open(ctx: JobContext, key: str) -> _Calibration:
    calibration = ctx.state.get("calibrations", {}).get(key)
    if calibration is None:
        raise CalibrationError("the calibration is not open in this worker", hint="run the step again")
    assert isinstance(calibration, _Calibration)
    return calibration


def _chain(
    spec: Mapping[str, Any],
    out: Path,
    asked: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    averaged: Collection[str],
    threads: int,
) -> tuple[Chain, dict[str, list[str]], dict[str, str]]:
    """Load the model with its tensors as outputs, fused and laid out as without them.

    Answers also with the tensors that each output stands for, and with those of which it holds the channels' means.
    """
    optimised = out.with_name(f"{out.stem}-optimised.onnx")
    optimise(spec, optimised)
    model = onnx.load(str(optimised), load_external_data=False)
    blocked, means = exposed.blocked_outputs(model, asked, averaged)
    names: dict[str, list[str]] = {}
    for name in asked:
        names.setdefault(blocked.get(name, name), []).append(name)
    # blocks of channels are filled, so what is blocked has the shape of what it stands for
    stated = {output: shapes[some[0]] for output, some in names.items() if some[0] in shapes}
    sizes = {output: 4 * math.prod(stated.get(output, (0,))) for output in names}
    parts = exposed.segments(model, sizes, _SEGMENT)
    sessions = []
    for number, part in enumerate(parts):
        path = out.with_name(f"{out.stem}-{number}.onnx")
        with storage_errors(path):
            onnx.save(part, str(path))
        sessions.append(create_optimised(spec, path, threads))
    return Chain(sessions, {**shapes, **stated}), names, {output: name for name, output in means.items()}


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Give the shapes that the model states."""
    stated = {v.name: v.type.tensor_type.shape.dim for v in (*model.graph.value_info, *model.graph.output)}
    return {
        name: tuple(dim.dim_value for dim in dims)
        for name, dims in stated.items()
        if all(dim.WhichOneof("value") == "dim_value" for dim in dims)
    }


def _lows(model: onnx.ModelProto, wanted: Sequence[str]) -> dict[str, float | None]:
    """Give each tensor's lowest value where its op says it: 0 behind a Relu or a Clip at 0."""
    parameters = {i.name: i for i in model.graph.initializer}
    parameters |= {
        node.output[0]: node.attribute[0].t
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute[0].name == "value"
    }
    lows: dict[str, float | None] = dict.fromkeys(wanted)
    for node in model.graph.node:
        if node.op_type == "Relu":
            low: float | None = 0.0
        elif node.op_type == "Clip":
            bound = node.input[1] if len(node.input) > 1 else ""
            low = attribute(node, "min", None)
            if bound in parameters:
                low = float(numpy_helper.to_array(parameters[bound]).item())
        else:
            continue
        if low == 0.0 and node.output[0] in lows:
            lows[node.output[0]] = 0.0
    return lows


def _channel_axes(model: onnx.ModelProto) -> dict[str, int]:
    """Give the tensors whose channel means correct biases, what ops with weights read, and the axis of their channels."""
    parameters = {i.name for i in model.graph.initializer}
    parameters |= {n.output[0] for n in model.graph.node if n.op_type in ("Constant", "Identity")} - {
        n.output[0] for n in model.graph.node if n.op_type == "Identity" and n.input[0] not in parameters
    }
    axes: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in _AXES and node.input[1] in parameters and node.input[0] not in parameters:
            axes[node.input[0]] = 0 if attribute(node, "transA", 0) else _AXES[node.op_type]
    return axes


def _resume(calibration: _Calibration, path: Path, wanted: Sequence[str]) -> None:
    try:
        arrays = kept.load(path)
        observer = observers.restore(arrays)
        calibration.means.load(arrays)
        samples = int(arrays["samples"][0])
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise BadInput(
            f"{path} holds no calibration statistics: {error}", hint="calibrate again, without resuming"
        ) from error
    same = type(observer) is type(calibration.observer) and set(observer.extents) <= set(wanted)
    if samples and not (same and set(calibration.means.means) == set(calibration.axes)):
        raise CalibrationError(
            f"{path} holds statistics of another model or of other kinds", hint="calibrate again, without resuming"
        )
    calibration.observer, calibration.samples = observer, samples


def _plain(found: Mapping[str, tuple[float, float]]) -> dict[str, list[float]]:
    return {name: [float(lo), float(hi)] for name, (lo, hi) in found.items()}
