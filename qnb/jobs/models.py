"""Jobs that read ONNX files, which may be large, damaged or hostile: checking, simplifying, shape inference, counting."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx

from qnb.graph import normalise as graph_normalise
from qnb.latency.work import work_of
from qnb.runtime.worker import JobContext, Reply


def normalise(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Bring an ONNX file into qnb's form; args: path_in, path_out, shapes, batch, simplify, repairs."""
    facts = graph_normalise.normalise(
        args["path_in"],
        args["path_out"],
        shapes=args["shapes"],
        batch=args["batch"],
        simplify=args["simplify"],
        repairs=args["repairs"],
    )
    return facts, {}


def graph_work(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Count what each op of a graph computes and moves; args: model. Answers with the fields of `qnb.latency.work.Work`."""
    found = work_of(onnx.load(args["model"], load_external_data=False))
    return dataclasses.asdict(found), {}
