"""Job of import: the files of a Caffe network, which may be damaged or hostile, become an ONNX file."""

from __future__ import annotations

from typing import Any

import numpy as np

from qnb.frontends.caffe import to_onnx
from qnb.graph import writing
from qnb.runtime.worker import JobContext, Reply


def import_caffe(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Read a Caffe network; args: network, weights, path_out, shapes, batch, outputs. Answers with name and notes."""
    made = to_onnx(
        args["network"], args["weights"], shapes=args["shapes"], batch=args["batch"], outputs=args["outputs"]
    )
    with writing.staged(args["path_out"]) as target:
        writing.save(made.model, target)
    return {"name": made.name, "notes": list(made.notes)}, {}
