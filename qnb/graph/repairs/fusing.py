"""Ops that exporters have taken apart, put together again: the NPU has them in one piece."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qnb.graph.facts import attribute
from qnb.graph.repairs.rewriter import Rewriter

if TYPE_CHECKING:
    import onnx

__all__ = ["gelu", "hard_swish", "layer_norm"]


def _near(value: float | None, target: float) -> bool:
    return value is not None and math.isclose(value, target, rel_tol=1e-4)


def _scaled(graph: Rewriter, name: str) -> tuple[str, float, list[onnx.NodeProto]]:
    """Read a tensor as another one times a number, through the Mul or Div that makes it."""
    node = graph.maker(name, "Mul", "Div")
    if node is not None:
        left, right = node.input
        if (by := graph.scalar(right)) is not None and by != 0:
            return left, by if node.op_type == "Mul" else 1 / by, [node]
        if node.op_type == "Mul" and (by := graph.scalar(left)) is not None:
            return right, by, [node]
    return name, 1.0, []


def _plus(graph: Rewriter, name: str, number: float) -> tuple[str, onnx.NodeProto] | None:
    """Read a tensor as another one plus that number."""
    node = graph.maker(name, "Add")
    if node is not None:
        for one, other in (tuple(node.input), tuple(reversed(node.input))):
            if _near(graph.scalar(other), number):
                return one, node
    return None


def _product(graph: Rewriter, name: str, wanted: str) -> tuple[onnx.NodeProto, float, list[onnx.NodeProto]] | None:
    """Follow the products that `name` goes into, until `wanted` was multiplied once and a number at most twice.

    Gives the last product, the number, and all ops on the way.
    """
    way: list[onnx.NodeProto] = []
    number, seen = 1.0, False
    best = None
    for _ in range(3):
        readers = graph.readers(name)
        if len(readers) != 1 or readers[0].op_type not in ("Mul", "Div") or name in graph.outputs:
            break
        node = readers[0]
        if (node.op_type == "Div" and node.input[0] != name) or (node.input[0] == name == node.input[1]):
            break
        other = node.input[1] if node.input[0] == name else node.input[0]
        by = graph.scalar(other)
        if by is not None:
            number *= by if node.op_type == "Mul" else 1 / by if by else math.inf
        elif node.op_type == "Mul" and not seen:
            base, factor, more = (other, 1.0, []) if other == wanted else _scaled(graph, other)
            if base != wanted or not all(graph.only_read_by(n.output[0], node) for n in more):
                break
            number, seen, way = number * factor, True, [*way, *more]
        else:
            break
        way.append(node)
        name = node.output[0]
        if seen:
            best = node, number, list(way)
            if by is not None:
                break
    return best


def gelu(graph: Rewriter) -> None:
    """Gelu that an exporter took apart, x / 2 · (1 + erf(x / √2)), becomes one op."""
    if graph.opset < 20:
        return
    for node in list(graph.nodes("Erf")):
        x, factor, inner = _scaled(graph, node.input[0])
        readers = graph.readers(node.output[0])
        if not _near(factor, math.sqrt(0.5)) or len(readers) != 1 or node.output[0] in graph.outputs:
            continue
        plus = _plus(graph, readers[0].output[0], 1.0) if readers[0].op_type == "Add" else None
        found = _product(graph, readers[0].output[0], x) if plus is not None else None
        if found is None or not _near(found[1], 0.5):
            continue
        last, _, way = found
        gone = [node, readers[0], *(n for n in way if n is not last)]
        gone += [n for n in inner if graph.only_read_by(n.output[0], node)]
        graph.start(last)
        graph.replace(graph.op("Gelu", x), also=gone)


def layer_norm(graph: Rewriter) -> None:
    """LayerNormalization over the last axis that an exporter took apart becomes one op."""
    if graph.opset < 17:
        return
    for mean in list(graph.nodes("ReduceMean")):
        x = mean.input[0]
        shape = graph.shape(x)
        if shape is None or not shape or not _over_last(graph, mean, len(shape)):
            continue
        found = _normalised(graph, x, mean)
        if found is None:
            continue
        last, epsilon, gone = found
        scale, last, gone = _affine(graph, last, "Mul", shape[-1], gone)
        bias, last, gone = _affine(graph, last, "Add", shape[-1], gone)
        gone = [n for n in gone if n is not last]
        graph.start(last)
        scale = scale or graph.like(x, np.ones(shape[-1]))
        inputs = [x, scale, *([bias] if bias else [])]
        graph.replace(graph.op("LayerNormalization", *inputs, axis=-1, epsilon=epsilon), also=gone)


def _over_last(graph: Rewriter, node: onnx.NodeProto, rank: int) -> bool:
    axes = graph.integers(node.input[1]) if len(node.input) > 1 else attribute(node, "axes")
    return axes is not None and [a % rank for a in axes] == [rank - 1] and attribute(node, "keepdims", 1) == 1


def _normalised(
    graph: Rewriter, x: str, mean: onnx.NodeProto
) -> tuple[onnx.NodeProto, float, list[onnx.NodeProto]] | None:
    """Find ``(x - mean) / sqrt(mean((x - mean)²) + ε)``; give its last op, ε, and the ops it is made of."""
    differences = [
        n for n in graph.readers(mean.output[0]) if n.op_type == "Sub" and list(n.input) == [x, mean.output[0]]
    ]
    if not differences or not graph.only_read_by(mean.output[0], *differences):
        return None
    names = {n.output[0] for n in differences}
    squares = [r for name in names for r in graph.readers(name) if _is_square(graph, r, names)]
    for square in squares:
        way = _chain(graph, square.output[0])
        if way is None:
            continue
        variance, plus, root, epsilon = way
        last = _divided(graph, root, names)
        if last is None:
            continue
        quotient, more = last
        inside = [mean, *differences, square, variance, plus, root, *more]
        if all(graph.only_read_by(n.output[0], *inside, quotient) for n in inside):
            return quotient, epsilon, [*inside, quotient]
    return None


def _is_square(graph: Rewriter, node: onnx.NodeProto, names: set[str]) -> bool:
    if node.op_type == "Mul":
        return set(node.input) <= names
    return node.op_type == "Pow" and node.input[0] in names and graph.scalar(node.input[1]) == 2


def _chain(graph: Rewriter, name: str) -> tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto, float] | None:
    """Follow ``ReduceMean``, ``Add ε``, ``Sqrt``."""
    variance = next((n for n in graph.readers(name) if n.op_type == "ReduceMean"), None)
    if variance is None or not _over_last(graph, variance, len(graph.shape(name) or ())):
        return None
    plus = next((n for n in graph.readers(variance.output[0]) if n.op_type == "Add"), None)
    if plus is None:
        return None
    epsilon = next((e for e in map(graph.scalar, plus.input) if e is not None), None)
    root = next((n for n in graph.readers(plus.output[0]) if n.op_type == "Sqrt"), None)
    return None if root is None or epsilon is None else (variance, plus, root, epsilon)


def _divided(
    graph: Rewriter, root: onnx.NodeProto, names: set[str]
) -> tuple[onnx.NodeProto, list[onnx.NodeProto]] | None:
    """Find the quotient by a root, or the product with its reciprocal."""
    for reader in graph.readers(root.output[0]):
        if reader.op_type == "Div" and reader.input[0] in names and reader.input[1] == root.output[0]:
            return reader, []
        one_over = reader.op_type == "Div" and graph.scalar(reader.input[0]) == 1
        if reader.op_type == "Reciprocal" or one_over:
            for product in graph.readers(reader.output[0]):
                if product.op_type == "Mul" and set(product.input) <= names | {reader.output[0]}:
                    return product, [reader]
    return None


def _affine(
    graph: Rewriter, last: onnx.NodeProto, op_type: str, size: int, gone: list[onnx.NodeProto]
) -> tuple[str, onnx.NodeProto, list[onnx.NodeProto]]:
    """Find a product with, or a sum of, a constant for each channel after `last`."""
    name = last.output[0]
    readers = graph.readers(name)
    if len(readers) == 1 and name not in graph.outputs and readers[0].op_type == op_type:
        for other in readers[0].input:
            if graph.shape(other) == (size,) and graph.value(other) is not None:
                return other, readers[0], [*gone, readers[0]]
    return "", last, gone


def hard_swish(graph: Rewriter) -> None:
    """HardSwish and HardSigmoid, as x · clip(x + 3, 0, 6) / 6 and without the product, become one op."""
    for clip in list(graph.nodes("Clip")):
        low, high = (graph.scalar(n) if n else None for n in [*clip.input[1:3], "", ""][:2])
        plus = _plus(graph, clip.input[0], 3.0)
        if plus is None or low != 0 or not _near(high, 6.0) or clip.output[0] in graph.outputs:
            continue
        x, add = plus
        before = [add] if graph.only_read_by(add.output[0], clip) else []
        found = _product(graph, clip.output[0], x)
        if found is not None and _near(found[1], 1 / 6) and graph.opset >= 14:
            last, _, way = found
            graph.start(last)
            graph.replace(graph.op("HardSwish", x), also=[clip, *before, *(n for n in way if n is not last)])
            continue
        readers = graph.readers(clip.output[0])
        if len(readers) == 1 and _near(_scaled(graph, readers[0].output[0])[1], 1 / 6):
            graph.start(readers[0])
            graph.replace(graph.op("HardSigmoid", x, alpha=1 / 6, beta=0.5), also=[clip, *before])
    for gate in list(graph.nodes("HardSigmoid")):
        if not _near(attribute(gate, "alpha", 0.2), 1 / 6) or not _near(attribute(gate, "beta", 0.5), 0.5):
            continue
        readers = graph.readers(gate.output[0])
        alone = len(readers) == 1 and gate.output[0] not in graph.outputs
        if alone and readers[0].op_type == "Mul" and set(readers[0].input) == {gate.input[0], gate.output[0]}:
            graph.start(readers[0])
            graph.replace(graph.op("HardSwish", gate.input[0]), also=[gate])
