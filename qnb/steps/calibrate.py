"""Step ``calibrate``: ranges over calibration data, and a quantized model with its encodings."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from qnb import cache, frames
from qnb.artifacts import Model, ModelArgument, Quantized
from qnb.errors import BadInput, UnknownName
from qnb.progress import progress
from qnb.runtime import client
from qnb.runtime.locate import Runtime, find_runtime
from qnb.runtime.options import session_spec
from qnb.samples import samples as sample_stream
from qnb.steps._common import StepTimer, as_model, read_config
from qnb.steps.convert import OverridesArgument
from qnb.values import Argument, Precision, RangeMethod

if TYPE_CHECKING:
    import pandas as pd

DataArgument = Annotated[
    Any, Argument("data", ("ndarray", "Tensor", "dict", "list", "tuple", "DataLoader", "Dataset", "generator"))
]
PreprocessArgument = Annotated[Callable[..., Any] | None, Argument("python", ("function",))]

PRECISIONS = ("w8a8", "w8a16")
METHODS = ("min-max", "percentile")


def calibrate(
    model: ModelArgument,
    data: DataArgument,
    *,
    precision: Precision = "w8a8",
    ranges: RangeMethod = "min-max",
    percentile: float = 99.99,
    per_channel: bool = True,
    samples: int | None = None,
    preprocess: PreprocessArgument = None,
    overrides: OverridesArgument = None,
    runtime: str | None = None,
) -> Quantized:
    """Quantize a model with ranges gathered over calibration data.

    Samples are run one by one through the float model; what is kept of them are statistics, so that memory depends on the
    model and not on how much data there is.

    Parameters
    ----------
    model : Model or path
        A float model.
    data : array, dict, iterable, DataLoader, folder or file
        Calibration inputs: arrays or dicts of them by input name, batches of a torch DataLoader, a folder of .npy, .npz,
        .raw or images, or an ``input_list`` file.
    precision : {"w8a8", "w8a16"}
        Bits of weights and activations.
    ranges : {"min-max", "percentile"}
        ``min-max`` clips nothing; ``percentile`` cuts off what is rare.
    percentile : float
        Per cent of each activation's values that ``percentile`` keeps.
    per_channel : bool
        Whether each output channel of a weight has its own scale.
    samples : int, optional
        Use at most so many.
    preprocess : callable, optional
        Turns an image or a file's array into the model's input.
    overrides : mapping or path, optional
        Encodings to set by hand: the tutorial's flat file, or AIMET's 0.6.1, 1.0.0, 2.0.0.
    runtime : str, optional
        Version of the runtime.

    Returns
    -------
    Quantized
        Table: a row for each encoded tensor. Files: the QDQ model, and the encodings (AIMET's 2.0.0).

    Raises
    ------
    BadInput
        If a sample does not fit the model, or holds NaN.
    CalibrationError
        If a range can't be found.
    BadConfig
        If the overrides don't fit the model.

    Examples
    --------
    >>> quantized = qnb.calibrate(model, images, precision="w8a8", ranges="percentile")
    """
    timer = StepTimer("calibrate")
    if precision not in PRECISIONS:
        raise UnknownName.among("precision", precision, PRECISIONS)
    if ranges not in METHODS:
        raise UnknownName.among("range method", ranges, METHODS)
    if not 50 < percentile <= 100:
        raise BadInput(f"percentile is {percentile}", hint="give per cent above 50 and up to 100, for instance 99.99")
    found_runtime = find_runtime(runtime)
    float_model = as_model(model)
    stream = sample_stream(data, float_model.inputs, preprocess=preprocess, limit=samples)
    encodings = read_config(overrides, "overrides file")
    key = uuid.uuid4().hex
    count = 0
    with cache.scratch() as folder, client.borrow(found_runtime) as worker:
        observed = folder / "observed.onnx"
        spec = session_spec(str(observed), "ort", found_runtime)
        opened = worker.call(
            "observe_open",
            {
                "key": key,
                "model": str(float_model.path),
                "out": str(observed),
                "spec": spec.plain(),
                "histogram": ranges == "percentile",
            },
        )
        with progress("calibrate", stream.count, unit="sample") as bar:
            for sample in stream:
                worker.call("observe", {"key": key}, sample)
                count += 1
                bar.step()
        closed = worker.call("observe_close", {"key": key, "percentile": percentile})
        made = _quantize(
            worker,
            folder,
            float_model,
            found_runtime,
            precision,
            per_channel,
            closed.values["ranges"],
            encodings,
        )
    method = f"percentile {percentile:g}" if ranges == "percentile" else ranges
    weights = "per channel" if per_channel else "per tensor"
    return _result(
        made,
        float_model,
        precision,
        method,
        weights,
        count,
        timer.recipe(
            found_runtime.qairt,
            model=float_model,
            data=stream.describe(),
            precision=precision,
            ranges=method,
            per_channel=per_channel,
            overrides=overrides,
        ),
        opened.log + closed.log + made.log,
    )


@dataclass
class _Made:
    """A quantized model's files and table, and what to say of them."""

    files: Mapping[str, Path]
    digest: str
    frame: pd.DataFrame
    notes: tuple[str, ...]
    log: str


def _quantize(
    worker: client.Worker,
    folder: Path,
    model: Model,
    runtime: Runtime,
    precision: str,
    per_channel: bool,
    ranges: Mapping[str, Any] | None,
    overrides: Mapping[str, Any],
) -> _Made:
    bits = re.fullmatch(r"w(\d+)a(\d+)", precision)
    assert bits is not None
    out, encodings = folder / "quantized.onnx", folder / "encodings.json"
    answer = worker.call(
        "quantize",
        {
            "model": str(model.path),
            "out": str(out),
            "encodings": str(encodings),
            "activation_bits": int(bits[2]),
            "weight_bits": int(bits[1]),
            "per_channel": per_channel,
            "ranges": dict(ranges) if ranges is not None else None,
            "overrides": dict(overrides) or None,
            "spec": session_spec(str(out), "ort", runtime).plain(),
        },
    )
    kept, digest = cache.put_file(out, ".onnx")
    kept_encodings, _ = cache.put_file(encodings, ".encodings.json")
    made = frames.from_plain(answer.values["frame"])
    notes = tuple(answer.values["notes"])
    return _Made({"model": kept, "encodings": kept_encodings}, digest, made, notes, answer.log)


def _result(
    made: _Made, model: Model, precision: str, method: str, weights: str, count: int, recipe: Any, log: str
) -> Quantized:
    return Quantized(
        frame=made.frame,
        recipe=recipe,
        notes=made.notes,
        log=log,
        files=made.files,
        name=model.name,
        digest=made.digest,
        parent=model,
        precision=precision,
        method=method,
        weights=weights,
        samples=count,
    )


def apply_overrides(model: Model, overrides: Mapping[str, Any], runtime: Runtime) -> Quantized:
    """Quantize what the overrides encode and nothing else: see `qnb.convert`."""
    timer = StepTimer("convert")
    with cache.scratch() as folder, client.borrow(runtime) as worker:
        made = _quantize(worker, folder, model, runtime, "w8a8", True, None, overrides)
    return _result(
        made, model, "mixed", "overrides", "per channel", 0, timer.recipe(runtime.qairt, model=model), made.log
    )
