"""Job of quantization: encodings are chosen for a float model and written into it as Q/DQ."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx

from qnb import frames
from qnb.errors import BadConfig
from qnb.files import replacing, write_text
from qnb.quant import encoding_files
from qnb.quant.encodings import Encoding
from qnb.quant.overrides import Overrides
from qnb.quant.qdq import encode, insert_qdq, weight_encodings
from qnb.runtime.session import create
from qnb.runtime.worker import JobContext, Reply


def quantize(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Write Q/DQ into a model.

    args: model, out, encodings (path to write), activation_bits, weight_bits, per_channel, ranges (or None: only what the
    overrides say is quantized), overrides (plain values or None), spec (of the result on ONNX Runtime, as a check; None
    for no check); and where they are not the defaults block_size, symmetric, chosen (path of an encodings file with the
    grids of weights that were optimized, or None).
    Answers with the encodings' table, and with notes: what in the overrides was read otherwise than written, and where HTP
    does not take what was asked for.
    """
    model = onnx.load(args["model"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", encoding_files.EncodingFileWarning)
        overrides = encoding_files.read(args["overrides"]) if args["overrides"] else None
    given = args["ranges"]
    chosen = args.get("chosen")
    encodings = encode(
        model,
        {name: (lo, hi) for name, (lo, hi) in given.items()} if given is not None else None,
        activation_bits=args["activation_bits"],
        weight_bits=args["weight_bits"],
        per_channel=args["per_channel"],
        block_size=args.get("block_size"),
        symmetric=args.get("symmetric", False),
        weights=_chosen(chosen, model, args) if chosen else None,
        overrides=overrides,
    )
    quantized = insert_qdq(model, encodings.activations, encodings.weights)
    with replacing(args["out"]) as temporary:
        onnx.save(quantized, str(temporary))
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    write_text(args["encodings"], encoding_files.dumps(encodings, ranks=ranks))
    if args["spec"] is not None:
        create(args["spec"])
    notes = [*(str(warning.message) for warning in said), *encodings.notes]
    return {"frame": frames.to_plain(encodings.frame), "notes": notes}, {}


def _chosen(path: str, model: onnx.ModelProto, args: dict[str, Any]) -> dict[str, Encoding]:
    """Read the grids of weights from an encodings file that states them whole."""
    read: Overrides = encoding_files.read(path)
    defaults = weight_encodings(
        model, bits=args["weight_bits"], per_channel=args["per_channel"], block_size=args.get("block_size")
    )
    found = {}
    for name, override in read.tensors.items():
        if name not in defaults:
            raise BadConfig(f"{path}: tensor {name!r} is no weight", hint="write the weights' encodings only")
        encoding = read.complete(name, defaults[name])
        if encoding is None or not override.has_grid:
            raise BadConfig(f"{path}: tensor {name!r} has no grid", hint="write its scale and zero point")
        found[name] = encoding
    return found
