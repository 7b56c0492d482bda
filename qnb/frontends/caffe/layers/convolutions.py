"""Convolution, Deconvolution and InnerProduct."""

from __future__ import annotations

from typing import Any

from qnb.frontends.caffe.graph import Graph
from qnb.frontends.caffe.layers.registry import axis_of, count, reads
from qnb.frontends.caffe.network import Layer, Shape

_MANY = (1, 1000)  # Caffe applies one set of weights to each bottom


@reads("Convolution", bottoms=_MANY)
def convolution(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Filters of ``num_output x channels of a group x kernel``; the output size rounds down."""
    return _filtered(layer, graph, bottoms, layer.param("convolution_param").group, transposed=False)


@reads("ConvolutionDepthwise", "ConvolutionDepthWise", "DepthwiseConvolution", "DepthwiseConv", bottoms=_MANY)
def depthwise(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """A convolution of each channel by itself: forks of Caffe have it as a type."""
    return _filtered(layer, graph, bottoms, _channels(layer, graph, bottoms[0]), transposed=False)


@reads("Deconvolution", bottoms=_MANY)
def deconvolution(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """A transposed convolution, with filters of ``channels x num_output of a group x kernel``."""
    return _filtered(layer, graph, bottoms, layer.param("convolution_param").group, transposed=True)


def _channels(layer: Layer, graph: Graph, bottom: str) -> int:
    shape = graph.shapes[bottom]
    if not 3 <= len(shape) <= 5:
        raise layer.fails(
            f"its input has the shape {'x'.join(map(str, shape))}; batch, channels and 1 to 3 sizes are needed",
            "see the layer before it",
        )
    return shape[1]


def _filtered(layer: Layer, graph: Graph, bottoms: list[str], group: int, *, transposed: bool) -> list[str]:
    p = layer.param("convolution_param")
    channels, spatial = _channels(layer, graph, bottoms[0]), len(graph.shapes[bottoms[0]]) - 2
    outputs = p.num_output
    if axis_of(layer, p.axis, spatial + 2) != 1:
        raise layer.fails(f"its channels are on axis {p.axis}", "only axis: 1 is read; permute the blob before")
    if not outputs or not group or channels % group or outputs % group:
        raise layer.fails(
            f"{channels} channels in and {outputs} out don't go into {group} group{'s' * (group != 1)}",
            "see num_output and group",
        )
    kernel = _sizes(layer, p, "kernel", spatial, 0)
    stride, pad = _sizes(layer, p, "stride", spatial, 1), _sizes(layer, p, "pad", spatial, 0)
    dilation = _repeated(layer, list(p.dilation), "dilation", spatial, 1)
    if not all(kernel) or not all(stride) or not all(dilation):
        raise layer.fails("its kernel, stride or dilation is 0", "give sizes of at least 1 (kernel_size is required)")
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    shapes = []
    for shape in (graph.shapes[bottom] for bottom in bottoms):
        if len(shape) != spatial + 2 or shape[1] != channels:
            raise layer.fails("its inputs differ in channels or axes", "they share one set of weights")
        axes = zip(shape[2:], reach, stride, pad, strict=True)
        if transposed:
            sizes = [s * (n - 1) + r - 2 * q for n, r, s, q in axes]
        else:
            sizes = [(n + 2 * q - r) // s + 1 for n, r, s, q in axes]
        shapes.append((shape[0], outputs, *sizes))
        graph.check(layer, shapes[-1])
    filters = (channels, outputs // group, *kernel) if transposed else (outputs, channels // group, *kernel)
    operands = [graph.constant(layer, "weight", layer.weight(0, filters, "weights"))]
    if p.bias_term:
        operands.append(graph.constant(layer, "bias", layer.weight(1, (outputs,), "bias")))
    attributes = {
        "kernel_shape": list(kernel),
        "strides": list(stride),
        "pads": [*pad, *pad],
        "dilations": list(dilation),
        "group": group,
    }
    kind = "ConvTranspose" if transposed else "Conv"
    return [
        graph.add(layer, kind, [bottom, *operands], shape, **attributes)
        for bottom, shape in zip(bottoms, shapes, strict=True)
    ]


def _sizes(layer: Layer, p: Any, what: str, spatial: int, default: int) -> Shape:
    """Read kernel, stride or pad: one number, one for each axis, or ``…_h`` and ``…_w``."""
    both = [f"{what}_h", f"{what}_w"]
    if any(p.HasField(name) for name in both):
        if spatial != 2:
            raise layer.fails(f"{what}_h and {what}_w are for images", f"use {what} for blobs of {spatial + 2} axes")
        return tuple(getattr(p, name) if p.HasField(name) else default for name in both)
    return _repeated(layer, list(getattr(p, "kernel_size" if what == "kernel" else what)), what, spatial, default)


def _repeated(layer: Layer, sizes: list[int], what: str, spatial: int, default: int) -> Shape:
    if len(sizes) not in (0, 1, spatial):
        raise layer.fails(f"{len(sizes)} values of {what} for {spatial} axes", "give one for all, or one for each")
    return tuple(sizes or [default]) * (spatial if len(sizes) < 2 else 1)


@reads("InnerProduct")
def inner_product(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Everything from ``axis`` on, flattened, times a matrix."""
    p = layer.param("inner_product_param")
    shape = graph.shapes[bottoms[0]]
    axis = axis_of(layer, p.axis, len(shape))
    rows, columns, outputs = count(shape[:axis]), count(shape[axis:]), p.num_output
    if not outputs:
        raise layer.fails("it has no num_output", "give one of at least 1")
    if p.transpose:
        weight = layer.weight(0, (columns, outputs), "weights").T.copy()
    else:
        weight = layer.weight(0, (outputs, columns), "weights")
    operands = [graph.constant(layer, "weight", weight)]
    if p.bias_term:
        operands.append(graph.constant(layer, "bias", layer.weight(1, (outputs,), "bias")))
    flat = bottoms[0]
    if axis == 1 and len(shape) > 2:
        flat = graph.add(layer, "Flatten", [flat], (rows, columns), axis=1)
    else:
        flat = graph.reshape(layer, flat, (rows, columns))
    product = graph.add(layer, "Gemm", [flat, *operands], (rows, outputs), transB=1)
    return [graph.reshape(layer, product, (*shape[:axis], outputs))]
