"""Layers that combine several blobs element by element, or reduce one."""

from __future__ import annotations

import numpy as np

from qnb.frontends.caffe.graph import Graph
from qnb.frontends.caffe.layers.registry import axis_of, count, reads
from qnb.frontends.caffe.network import Layer

_PROD, _SUM, _MAX = 0, 1, 2
_REDUCTIONS = {1: "ReduceSum", 2: "ReduceL1", 3: "ReduceSumSquare", 4: "ReduceMean"}


@reads("Eltwise", bottoms=(2, 1000))
def eltwise(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Product, sum with coefficients, or largest of blobs of one shape."""
    p = layer.param("eltwise_param")
    shapes = {graph.shapes[bottom] for bottom in bottoms}
    if len(shapes) > 1:
        listed = ", ".join("x".join(map(str, graph.shapes[bottom])) for bottom in bottoms)
        raise layer.fails(f"its inputs have several shapes: {listed}", "see the layers that make them")
    if len(p.coeff) not in (0, len(bottoms)):
        raise layer.fails(f"{len(p.coeff)} coeff for {len(bottoms)} inputs", "give one for each")
    if p.operation == _SUM and len(p.coeff):
        return [_weighted(layer, graph, bottoms, list(p.coeff))]
    kind = {_PROD: "Mul", _SUM: "Add", _MAX: "Max"}[p.operation]
    top = bottoms[0]
    for bottom in bottoms[1:]:  # two by two, as QNN has them
        top = graph.elementwise(layer, kind, top, bottom)
    return [top]


def _weighted(layer: Layer, graph: Graph, bottoms: list[str], factors: list[float]) -> str:
    top = bottoms[0] if factors[0] == 1 else graph.scalar(layer, "Mul", bottoms[0], factors[0], "coeff")
    for bottom, factor in zip(bottoms[1:], factors[1:], strict=True):
        other = bottom if abs(factor) == 1 else graph.scalar(layer, "Mul", bottom, factor, "coeff")
        top = graph.elementwise(layer, "Sub" if factor == -1 else "Add", top, other)
    return top


@reads("Axpy", bottoms=(3, 3))
def axpy(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """SENet's: a x + y, with one a for each channel."""
    factor, x, y = (graph.shapes[bottom] for bottom in bottoms)
    if len(x) < 2 or factor[:2] != x[:2] or count(factor) != count(x[:2]) or x != y:
        raise layer.fails(
            "its inputs don't fit: a has one value for each channel of x, and y is as x", "see its inputs"
        )
    gate = graph.reshape(layer, bottoms[0], (*x[:2], *(1,) * (len(x) - 2)))
    return [graph.elementwise(layer, "Add", graph.elementwise(layer, "Mul", bottoms[1], gate), bottoms[2])]


@reads("Reduction")
def reduction(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Sum, sum of magnitudes, of squares, or mean of all from ``axis`` on; times ``coeff``."""
    p = layer.param("reduction_param")
    shape = graph.shapes[bottoms[0]]
    axis = axis_of(layer, p.axis, len(shape))
    axes = graph.constant(layer, "axes", list(range(axis, len(shape))), np.int64)
    top = graph.add(layer, _REDUCTIONS[p.operation], [bottoms[0], axes], shape[:axis], keepdims=0)
    return [top if p.coeff == 1 else graph.scalar(layer, "Mul", top, p.coeff, "coeff")]


@reads("ArgMax")
def argmax(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Index, or value, of the largest along an axis; without one of each whole sample. Floats, as all of Caffe."""
    p = layer.param("argmax_param")
    shape, source = graph.shapes[bottoms[0]], bottoms[0]
    if p.HasField("axis"):
        axis = axis_of(layer, p.axis, len(shape))
        out = (*shape[:axis], p.top_k, *shape[axis + 1 :])
    else:
        axis = 2
        shape, out = (shape[0], 1, count(shape[1:])), (shape[0], 1, p.top_k)
        source = graph.reshape(layer, source, shape)
    if not 1 <= p.top_k <= shape[axis]:
        raise layer.fails(f"top_k {p.top_k} of {shape[axis]} values", "give one from 1 to their number")
    if p.top_k == 1 and not p.out_max_val:
        found = graph.add(layer, "ArgMax", [source], out, axis=axis, keepdims=1)
        return [graph.elementwise(layer, "Cast", found, to=1)]
    number = graph.constant(layer, "top_k", [p.top_k], np.int64)
    values, found = graph.add_many(layer, "TopK", [source, number], [out, out], axis=axis)
    if p.out_max_val and p.HasField("axis"):
        return [values]
    indices = graph.elementwise(layer, "Cast", found, to=1)
    if not p.out_max_val:
        return [indices]
    return [graph.add(layer, "Concat", [indices, values], (shape[0], 2, p.top_k), axis=1)]
