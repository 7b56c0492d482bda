"""A job that reads what a graph is made of: its ops, and how they hang together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from qnb.graph.facts import op_type, tensor_specs
from qnb.runtime.worker import JobContext, Reply


def graph_ops(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """List a graph's ops; args: model. Reads no weights.

    Answers with ``ops``: for each its name, op_type, inputs and outputs (names of tensors, constants left out), and its
    sign, the sizes of its result and of its weights.
    """
    import onnx

    graph_of = onnx.load(args["model"], load_external_data=False)
    graph = graph_of.graph
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes = {name: spec.shape for name, spec in tensor_specs(graph_of).items()}
    stored = dict(constants)  # and what dequantizers make of constants
    rows = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            stored[node.output[0]] = stored[node.input[0]]
        made = [name for name in node.output if name]
        rows.append(
            {
                "name": node.name,
                "op_type": op_type(node),
                "inputs": [name for name in node.input if name and name not in constants],
                "outputs": made,
                "sign": _sign(made, shapes, [stored[name] for name in node.input if name in stored]),
            }
        )
    return {"ops": rows}, {}


def _sign(made: list[str], shapes: Mapping[str, tuple[int, ...]], weights: list[tuple[int, ...]]) -> str:
    """Write sizes down so that layouts, transposed weights and dimensions of one make no difference."""
    if not made or made[0] not in shapes:
        return ""
    wide = [w for w in weights if len(w) > 1]
    return " ".join([_size(shapes[made[0]]), *(f"by {_size(w)}" for w in wide[:1])])


def _size(shape: Iterable[int]) -> str:
    return "x".join(str(n) for n in sorted(shape) if n != 1) or "1"
