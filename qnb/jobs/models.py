"""Jobs on ONNX files that need native code: checking, simplifying, shape inference."""

from __future__ import annotations

from typing import Any

import numpy as np

from qnb.graph import normalise as graph_normalise
from qnb.runtime.worker import JobContext, Reply


def normalise(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Bring an ONNX file into qnb's form; args: path_in, path_out, shapes, batch, simplify."""
    facts = graph_normalise.normalise(
        args["path_in"], args["path_out"], shapes=args["shapes"], batch=args["batch"], simplify=args["simplify"]
    )
    return facts, {}
