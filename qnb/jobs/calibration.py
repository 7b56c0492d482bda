"""Jobs of calibration: activations are reduced to statistics where they arise, then written into the model as Q/DQ.

A calibration is open under a key while its samples come in; only its statistics are kept.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from qnb import frames
from qnb.errors import CalibrationError
from qnb.files import replacing, storage_errors, write_text
from qnb.quant import encoding_files, observers, ranges
from qnb.quant.qdq import encode, insert_qdq, observed_tensors
from qnb.runtime.session import Loaded, create
from qnb.runtime.worker import JobContext, Reply

_IR_VERSION = 10


@dataclass
class _Calibration:
    loaded: Loaded
    observer: observers.MinMax
    samples: int = 0


def observe_open(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Begin; args: key, model, spec (for a session on ``out``), out, histogram. The tensors to observe become outputs."""
    model = onnx.load(args["model"])
    wanted = observed_tensors(model)
    outputs = {o.name for o in model.graph.output}
    inputs = {i.name for i in model.graph.input}
    known = {v.name: v for v in model.graph.value_info}
    for name in wanted:
        if name not in outputs | inputs:
            model.graph.output.append(known.get(name) or onnx.ValueInfoProto(name=name))
    with storage_errors(args["out"]):
        onnx.save(model, args["out"])
    observer = observers.Histogram() if args["histogram"] else observers.MinMax()
    loaded = create(args["spec"])
    loaded.outputs = [name for name in wanted if name not in inputs]
    ctx.state.setdefault("calibrations", {}).clear()  # one that was given up must not hold its memory
    ctx.state["calibrations"][args["key"]] = _Calibration(loaded, observer)
    return {"tensors": len(wanted)}, {}


def observe(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Take in one sample; args: key; arrays: the inputs."""
    calibration = _open(ctx, args["key"])
    values = calibration.loaded.run(arrays)
    for name, value in zip(calibration.loaded.outputs, values, strict=True):
        calibration.observer.update(name, value)
    for name, value in arrays.items():
        if value.dtype.kind == "f":
            calibration.observer.update(name, value)
    calibration.samples += 1
    return {}, {}


def observe_close(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """End; args: key, method, percentile. Answers with the range of each tensor."""
    calibration = _open(ctx, args["key"])
    del ctx.state["calibrations"][args["key"]]
    if not calibration.samples:
        raise CalibrationError("no calibration sample came", hint="give data with at least one sample")
    if isinstance(calibration.observer, observers.Histogram):
        found = ranges.percentile(calibration.observer, args["percentile"])
    else:
        found = ranges.min_max(calibration.observer)
    return {"ranges": {name: [float(lo), float(hi)] for name, (lo, hi) in found.items()}}, {}


def _open(ctx: JobContext, key: str) -> _Calibration:
    calibration = ctx.state.get("calibrations", {}).get(key)
    if calibration is None:
        raise CalibrationError("the calibration is not open in this worker", hint="run the step again")
    assert isinstance(calibration, _Calibration)
    return calibration


def quantize(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Write Q/DQ into a model.

    args: model, out, encodings (path to write), activation_bits, weight_bits, per_channel, ranges (or None: only what the
    overrides say is quantized), overrides (plain values or None), spec (of the result on ONNX Runtime, as a check).
    Answers with the encodings' table, and with what in the overrides was read otherwise than written.
    """
    model = onnx.load(args["model"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", encoding_files.EncodingFileWarning)
        overrides = encoding_files.read(args["overrides"]) if args["overrides"] else None
    given = args["ranges"]
    encodings = encode(
        model,
        {name: (lo, hi) for name, (lo, hi) in given.items()} if given is not None else None,
        activation_bits=args["activation_bits"],
        weight_bits=args["weight_bits"],
        per_channel=args["per_channel"],
        overrides=overrides,
    )
    quantized = insert_qdq(model, encodings.activations, encodings.weights)
    quantized.ir_version = min(quantized.ir_version, _IR_VERSION)
    with replacing(args["out"]) as temporary:
        onnx.save(quantized, str(temporary))
    write_text(args["encodings"], encoding_files.dumps(encodings))
    create(args["spec"])
    return {"frame": frames.to_plain(encodings.frame), "notes": [str(warning.message) for warning in said]}, {}
