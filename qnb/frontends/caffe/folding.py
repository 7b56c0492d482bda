"""BatchNorm, Scale and Bias folded into the layer before, or into each other; what is left is written as ONNX ops.

All three are one gain and one bias for each channel. Exact but for float32 rounding: products are taken in float64.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np

from qnb.frontends.caffe.graph import Graph, Op

__all__ = ["fold"]


def fold(graph: Graph, outputs: Collection[str]) -> None:
    """Take the ``Affine`` ops out of the graph, in place; `outputs` are tensors that must stay."""
    readers = Counter(name for op in graph.ops for name in op.inputs)
    producers: dict[str, Op] = {}
    kept: list[Op] = []
    for op in graph.ops:
        before = producers.get(op.inputs[0]) if op.inputs else None
        if (
            op.type == "Affine"
            and before is not None
            and readers[op.inputs[0]] == 1
            and op.inputs[0] not in outputs
            and _merged(graph, before, op)
        ):
            before.outputs = op.outputs
            op = before
        else:
            kept.append(op)
        producers.update(dict.fromkeys(op.outputs, op))
    graph.ops = []
    for op in kept:
        graph.ops += _written(graph, op) if op.type == "Affine" else [op]


def _merged(graph: Graph, before: Op, op: Op) -> bool:
    """Put the gain and the bias into the op before, if it can take them."""
    gain, bias = op.attributes["gain"], op.attributes["bias"]
    if before.type == "Affine":
        before.attributes = {
            "gain": before.attributes["gain"] * gain,
            "bias": before.attributes["bias"] * gain + bias,
        }
        return True
    if before.type not in ("Conv", "ConvTranspose", "Gemm"):
        return False
    weight = graph.constants[before.inputs[1]].astype(np.float64)
    if before.type == "ConvTranspose":  # (in, out of a group, …): the channels of the groups come one after the other
        groups = before.attributes["group"]
        shaped = gain.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))
        weight = (weight.reshape(groups, -1, *weight.shape[1:]) * shaped).reshape(weight.shape)
    else:
        weight = weight * gain.reshape(-1, *(1,) * (weight.ndim - 1))
    old = graph.constants[before.inputs[2]] if len(before.inputs) > 2 else np.zeros(len(bias))
    stem = before.inputs[1].removesuffix(".weight")
    before.inputs = [before.inputs[0], f"{stem}.weight", f"{stem}.bias"]
    graph.constants[before.inputs[1]] = weight.astype(np.float32)
    graph.constants[before.inputs[2]] = (old * gain + bias).astype(np.float32)
    return True


def _written(graph: Graph, op: Op) -> list[Op]:
    """Write what could not be folded as Mul and Add, or as one BatchNormalization of images."""
    gain, bias = (op.attributes[key].astype(np.float32) for key in ("gain", "bias"))
    source, target = op.inputs[0], op.outputs[0]
    rank = len(graph.shapes[source])
    broad = (-1, *(1,) * (rank - 2))
    if rank == 4 and not (gain == 1).all() and bias.any():
        values = {"gain": gain, "bias": bias, "mean": np.zeros_like(gain), "variance": np.ones_like(gain)}
        names = []
        for what, value in values.items():
            names.append(f"{target}.{what}")
            graph.constants[names[-1]] = value
        return [Op("BatchNormalization", op.layer, [source, *names], [target], {"epsilon": 0.0})]
    steps = [("Mul", f"{target}.gain", gain)] if (gain != 1).any() else []
    if bias.any() or not steps:
        steps.append(("Add", f"{target}.bias", bias))
    ops = []
    for kind, name, value in steps:
        graph.constants[name] = value.reshape(broad)
        output = target if name == steps[-1][1] else f"{target}.scaled"
        graph.shapes[output] = graph.shapes[source]
        ops.append(Op(kind, op.layer, [source, name], [output]))
        source = output
    return ops
