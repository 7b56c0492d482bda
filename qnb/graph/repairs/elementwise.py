"""Ops on single elements, and reductions, that the NPU does not have, written with ops that it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from qnb.graph.facts import attribute
from qnb.graph.repairs.rewriter import Rewriter

if TYPE_CHECKING:
    import onnx

__all__ = ["activations", "erf", "mod", "reductions", "variadic"]

_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
"""Coefficients of formula 7.1.26 of Abramowitz and Stegun, Handbook of Mathematical Functions (1964): error ≤ 1.5e-7."""

_SELU_ALPHA, _SELU_GAMMA = 1.6732632423543772, 1.0507009873554805


def erf(graph: Rewriter) -> None:
    """Erf becomes Abramowitz and Stegun's formula 7.1.26, whose error is 1.5e-7."""
    for node in list(graph.nodes("Erf")):
        x = node.input[0]
        graph.start(node)
        size = graph.op("Abs", x)
        t = graph.op("Reciprocal", graph.op("Add", graph.op("Mul", size, graph.like(x, 0.3275911)), graph.like(x, 1)))
        series = graph.op("Mul", t, graph.like(x, _ERF[-1]))
        for factor in reversed(_ERF[:-1]):
            series = graph.op("Mul", graph.op("Add", series, graph.like(x, factor)), t)
        tail = graph.op("Mul", series, graph.op("Exp", graph.op("Neg", graph.op("Mul", x, x))))
        graph.replace(graph.op("Mul", graph.op("Sign", x), graph.op("Sub", graph.like(x, 1), tail)))


def activations(graph: Rewriter) -> None:
    """Softsign, Selu, Celu, Shrink, Sinh, Cosh, Asinh and Hardmax become what defines them."""
    for node in list(graph.nodes(*_ACTIVATIONS)):
        graph.start(node)
        made = _ACTIVATIONS[node.op_type](graph, node, node.input[0])
        if made:
            graph.replace(made)


def _softsign(graph: Rewriter, node: onnx.NodeProto, x: str) -> str:
    return graph.op("Div", x, graph.op("Add", graph.op("Abs", x), graph.like(x, 1)))


def _selu(graph: Rewriter, node: onnx.NodeProto, x: str) -> str:
    bent = graph.op("Elu", x, alpha=attribute(node, "alpha", _SELU_ALPHA))
    return graph.op("Mul", bent, graph.like(x, attribute(node, "gamma", _SELU_GAMMA)))


def _celu(graph: Rewriter, node: onnx.NodeProto, x: str) -> str:
    alpha = graph.like(x, attribute(node, "alpha", 1.0))
    return graph.op("Mul", graph.op("Elu", graph.op("Div", x, alpha)), alpha)


def _shrink(graph: Rewriter, node: onnx.NodeProto, x: str) -> str:
    limit, bias = attribute(node, "lambd", 0.5), attribute(node, "bias", 0.0)
    if bias != limit or "float" not in graph.dtype(x):
        return ""
    step = graph.like(x, limit)
    up = graph.op("Relu", graph.op("Sub", x, step))
    return graph.op("Sub", up, graph.op("Relu", graph.op("Sub", graph.op("Neg", x), step)))


def _hyperbolic(op_type: str) -> Callable[[Rewriter, onnx.NodeProto, str], str]:
    def build(graph: Rewriter, node: onnx.NodeProto, x: str) -> str:
        both = graph.op(op_type, graph.op("Exp", x), graph.op("Exp", graph.op("Neg", x)))
        return graph.op("Mul", both, graph.like(x, 0.5))

    return build


def _asinh(graph: Rewriter, node: onnx.NodeProto, x: str) -> str:
    size = graph.op("Abs", x)
    root = graph.op("Sqrt", graph.op("Add", graph.op("Mul", size, size), graph.like(x, 1)))
    return graph.op("Mul", graph.op("Sign", x), graph.op("Log", graph.op("Add", size, root)))


def _hardmax(graph: Rewriter, node: onnx.NodeProto, x: str) -> str:
    shape = graph.shape(x)
    if not shape:
        return ""
    axis = attribute(node, "axis", -1) % len(shape)
    best = graph.op("Cast", graph.op("ArgMax", x, axis=axis, keepdims=1), to=6)
    places = np.arange(shape[axis], dtype=np.int32).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return graph.op("Cast", graph.op("Equal", best, graph.constant(places)), to=1)


_ACTIVATIONS: dict[str, Callable[[Rewriter, onnx.NodeProto, str], str]] = {
    "Softsign": _softsign,
    "Selu": _selu,
    "Celu": _celu,
    "Shrink": _shrink,
    "Sinh": _hyperbolic("Sub"),
    "Cosh": _hyperbolic("Add"),
    "Asinh": _asinh,
    "Hardmax": _hardmax,
}


def reductions(graph: Rewriter) -> None:
    """ReduceL1, ReduceLogSum, ReduceLogSumExp, ReduceSumSquare, and ReduceProd over few values, become what defines them."""
    kinds = ("ReduceL1", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare", "ReduceProd")
    for node in list(graph.nodes(*kinds)):
        x, shape = node.input[0], graph.shape(node.input[0])
        axes = _axes(graph, node, len(shape or ()))
        if shape is None or axes is None or "float" not in graph.dtype(x):
            continue
        graph.start(node)
        keep = attribute(node, "keepdims", 1)
        if node.op_type == "ReduceProd":
            made = _prod(graph, x, shape, axes, keep)
            if made:
                graph.replace(made)
            continue
        where = graph.constant(axes, np.int64)
        if node.op_type == "ReduceL1":
            x = graph.op("Abs", x)
        elif node.op_type == "ReduceSumSquare":
            x = graph.op("Mul", x, x)
        elif node.op_type == "ReduceLogSumExp":
            top = graph.op("ReduceMax", x, where, keepdims=1)  # so that no exponential is too large
            x = graph.op("Exp", graph.op("Sub", x, top))
            log = graph.op("Add", graph.op("Log", graph.op("ReduceSum", x, where, keepdims=1)), top)
            graph.replace(log if keep else graph.op("Squeeze", log, where))
            continue
        summed = graph.op("ReduceSum", x, where, keepdims=keep)
        graph.replace(graph.op("Log", summed) if node.op_type == "ReduceLogSum" else summed)


def _axes(graph: Rewriter, node: onnx.NodeProto, rank: int) -> list[int] | None:
    """Axes that a reduction goes over, as positive numbers; None where they are not known."""
    if len(node.input) > 1 and node.input[1]:
        axes = graph.integers(node.input[1])
    else:
        axes = attribute(node, "axes", [])
    if axes is None or (not axes and attribute(node, "noop_with_empty_axes", 0)):
        return None
    return sorted({int(a) % rank for a in axes}) if axes and rank else list(range(rank))


_MOST_FACTORS = 64


def _prod(graph: Rewriter, x: str, shape: Sequence[int], axes: Sequence[int], keep: int) -> str:
    if len(axes) != 1 or not 2 <= shape[axes[0]] <= _MOST_FACTORS:
        return ""
    length = shape[axes[0]]
    parts = graph.ops("Split", x, graph.constant([1] * length, np.int64), outputs=length, axis=axes[0])
    product = parts[0]
    for part in parts[1:]:
        product = graph.op("Mul", product, part)
    return product if keep else graph.op("Squeeze", product, graph.constant(axes, np.int64))


def variadic(graph: Rewriter) -> None:
    """Sum, Mean, Max and Min of more than two tensors become a chain."""
    for node in list(graph.nodes("Sum", "Mean", "Max", "Min")):
        inputs = list(node.input)
        step = {"Sum": "Add", "Mean": "Add"}.get(node.op_type, node.op_type)
        if len(inputs) == 2 and step == node.op_type:
            continue
        graph.start(node)
        made = inputs[0]
        for name in inputs[1:]:
            made = graph.op(step, made, name)
        graph.replace(graph.op("Mul", made, graph.like(inputs[0], 1 / len(inputs))) if node.op_type == "Mean" else made)


def mod(graph: Rewriter) -> None:
    """Mod with the sign of the dividend (fmod) becomes x - y · trunc(x / y)."""
    for node in list(graph.nodes("Mod")):
        x, y = node.input
        if not attribute(node, "fmod", 0) or "float" not in graph.dtype(x):
            continue
        graph.start(node)
        ratio = graph.op("Div", x, y)
        whole = graph.op("Mul", graph.op("Sign", ratio), graph.op("Floor", graph.op("Abs", ratio)))
        graph.replace(graph.op("Sub", x, graph.op("Mul", y, whole)))
