"""Job of import: a QDQ file of another tool is brought into form, and taken apart into encodings and a float model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from qnb import frames
from qnb.errors import ExportError
from qnb.files import write_text
from qnb.graph import edit, writing
from qnb.graph.normalise import normalise
from qnb.graph.reading import read
from qnb.quant import encoding_files
from qnb.quant.imported import is_quantized, take_apart
from qnb.runtime.worker import JobContext, Reply


def import_quantized(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Take a QDQ file in; args: path_in, path_out, float_out, encodings (paths to write), shapes, batch.

    Answers with `quantized` alone, false, where the file is a float model; else with the encodings' table, precision, form
    of the weights and notes. What is written at ``path_out`` computes what ``path_in`` does, at fixed shapes and with float
    inputs and outputs; at ``float_out`` is the model without Q/DQ.
    """
    model = read(args["path_in"])
    if not is_quantized(model):
        return {"quantized": False}, {}
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    edit.sort_nodes(model)
    edit.constants_to_initializers(model)
    edit.drop_unused_initializers(model)
    edit.name_nodes(model)
    try:
        parts = take_apart(model)
    except ExportError as error:
        raise ExportError(f"{args['name']}: {error.what}", hint=error.hint) from error
    out = args["path_out"]
    with writing.staged(f"{out}.source.onnx") as target:
        writing.save(parts.kept, target)
    facts = normalise(f"{out}.source.onnx", out, shapes=args["shapes"], batch=args["batch"], simplify=False, opset=None)
    with writing.staged(args["float_out"]) as target:
        writing.save(parts.float_model, target)
    ranks = {tensor.name: len(tensor.dims) for tensor in parts.float_model.graph.initializer}
    write_text(args["encodings"], encoding_files.dumps(parts.encodings, ranks=ranks))
    answer = {
        "quantized": True,
        "frame": frames.to_plain(parts.encodings.frame),
        "precision": parts.precision,
        "weights": parts.weights,
        "notes": [*facts["notes"], *parts.notes],
        "inputs": facts["inputs"],
        "outputs": facts["outputs"],
        "edge": parts.edge,
        "files": facts["files"],
    }
    return answer, {}
