"""BatchNorm, Scale, Bias, LRN, MVN, Normalize and Softmax."""

from __future__ import annotations

import numpy as np

from qnb.frontends.caffe.graph import Graph
from qnb.frontends.caffe.layers.activations import powered
from qnb.frontends.caffe.layers.registry import axis_of, count, reads
from qnb.frontends.caffe.network import Layer, Shape

_ACROSS_CHANNELS = 0


def _channels(layer: Layer, shape: Shape) -> int:
    if len(shape) < 2:
        raise layer.fails(f"its input has {len(shape)} axis and no channels", "see the layer before it")
    return shape[1]


def _affine(layer: Layer, graph: Graph, tensor: str, gain: np.ndarray, bias: np.ndarray) -> str:
    return graph.elementwise(layer, "Affine", tensor, gain=gain.astype(np.float64), bias=bias.astype(np.float64))


@reads("BatchNorm")
def batch_norm(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """(x - mean) / sqrt(variance + eps), with the statistics of training; both are kept times a factor."""
    p = layer.param("batch_norm_param")
    if p.HasField("use_global_stats") and not p.use_global_stats:
        raise layer.fails(
            "use_global_stats: false normalizes with the statistics of each batch, which a fixed network can't",
            "leave the line out: in the phase TEST Caffe takes the statistics of training",
        )
    if p.scale_bias:
        raise layer.fails("scale_bias is of NVIDIA's fork", "write it as BatchNorm and Scale")
    channels = _channels(layer, graph.shapes[bottoms[0]])
    factor = float(layer.weight(2, (1,), "factor of the statistics")[0])
    factor = 1 / factor if factor else 0.0
    mean = layer.weight(0, (channels,), "mean").astype(np.float64) * factor
    variance = layer.weight(1, (channels,), "variance").astype(np.float64) * factor + p.eps
    if not (variance > 0).all():
        raise layer.fails("its variance is not above 0", "the weights are damaged, or eps is missing: train it again")
    gain = 1 / np.sqrt(variance)
    return [_affine(layer, graph, bottoms[0], gain, -mean * gain)]


@reads("Scale", bottoms=(1, 2))
def scale(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Times a trained blob or a second input, broadcast from ``axis`` on; with ``bias_term`` plus another one."""
    p = layer.param("scale_param")
    if len(bottoms) == 2:
        top, axis, shape = _broadcast(layer, graph, "Mul", bottoms, p.axis)
        if not p.bias_term:
            return [top]
        bias = layer.weight(0, shape, "bias")
        return [_spread(layer, graph, "Add", top, bias, axis)]
    axis, shape = _covered(layer, graph.shapes[bottoms[0]], p.axis, p.num_axes)
    gain = layer.weight(0, shape, "scale")
    bias = layer.weight(1, shape, "bias") if p.bias_term else np.zeros(shape, np.float32)
    if axis == 1 and len(shape) == 1:
        return [_affine(layer, graph, bottoms[0], gain, bias)]
    top = _spread(layer, graph, "Mul", bottoms[0], gain, axis)
    return [_spread(layer, graph, "Add", top, bias, axis) if p.bias_term else top]


@reads("Bias", bottoms=(1, 2))
def bias(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Plus a trained blob or a second input, broadcast from ``axis`` on."""
    p = layer.param("bias_param")
    if len(bottoms) == 2:
        return [_broadcast(layer, graph, "Add", bottoms, p.axis)[0]]
    axis, shape = _covered(layer, graph.shapes[bottoms[0]], p.axis, p.num_axes)
    values = layer.weight(0, shape, "bias")
    if axis == 1 and len(shape) == 1:
        return [_affine(layer, graph, bottoms[0], np.ones(shape), values)]
    return [_spread(layer, graph, "Add", bottoms[0], values, axis)]


def _covered(layer: Layer, shape: Shape, axis: int, axes: int) -> tuple[int, Shape]:
    """Give the first axis that a trained blob covers, and the blob's shape."""
    first = axis_of(layer, axis, len(shape))
    last = len(shape) if axes == -1 else first + axes
    if axes < -1 or last > len(shape):
        raise layer.fails(f"num_axes {axes} from axis {axis} of {len(shape)}", "see axis and num_axes")
    return first, shape[first:last]


def _spread(layer: Layer, graph: Graph, kind: str, tensor: str, values: np.ndarray, axis: int) -> str:
    rank = len(graph.shapes[tensor])
    shaped = values.reshape(*values.shape, *(1,) * (rank - axis - values.ndim)) if values.ndim else values
    return graph.elementwise(layer, kind, tensor, graph.constant(layer, "scale" if kind == "Mul" else "bias", shaped))


def _broadcast(layer: Layer, graph: Graph, kind: str, bottoms: list[str], axis: int) -> tuple[str, int, Shape]:
    """Combine two inputs, the second of which has the shape of some axes of the first."""
    shape, other = (graph.shapes[bottom] for bottom in bottoms)
    first = axis_of(layer, axis, len(shape)) if other else 0
    if other != shape[first : first + len(other)]:
        raise layer.fails(
            f"its second input ({'x'.join(map(str, other))}) does not fit the first ({'x'.join(map(str, shape))}) at "
            f"axis {first}",
            "see axis, and the layers that make them",
        )
    second = graph.reshape(layer, bottoms[1], (*other, *(1,) * (len(shape) - first - len(other))))
    return graph.elementwise(layer, kind, bottoms[0], second), first, other


@reads("LRN")
def lrn(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Local response normalization, over neighbouring channels or over a window of each channel."""
    p = layer.param("lrn_param")
    shape = graph.shapes[bottoms[0]]
    if not p.local_size % 2 or len(shape) != 4:
        raise layer.fails(f"local_size {p.local_size} on {len(shape)} axes", "it takes images and an odd local_size")
    if p.norm_region == _ACROSS_CHANNELS:
        attributes = {"size": p.local_size, "alpha": p.alpha, "beta": p.beta, "bias": p.k}
        return [graph.elementwise(layer, "LRN", bottoms[0], **attributes)]
    square = graph.elementwise(layer, "Mul", bottoms[0], bottoms[0])
    size, pad = p.local_size, (p.local_size - 1) // 2
    mean = graph.elementwise(
        layer, "AveragePool", square, kernel_shape=[size] * 2, pads=[pad] * 4, strides=[1, 1], count_include_pad=1
    )
    scaled = graph.scalar(layer, "Mul", mean, p.alpha, "alpha")
    base = graph.scalar(layer, "Add", scaled, 1, "one")  # Caffe has no k here
    return [graph.elementwise(layer, "Div", bottoms[0], powered(layer, graph, base, p.beta))]


@reads("MVN")
def mvn(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Minus the mean and over the standard deviation of each image, or of each of its channels."""
    p = layer.param("mvn_param")
    shape = graph.shapes[bottoms[0]]
    if len(shape) != 4:
        raise layer.fails(f"it takes images, but its input has {len(shape)} axes", "see the layer before it")
    first = 1 if p.across_channels else 2
    axes = graph.constant(layer, "axes", list(range(first, 4)), np.int64)
    reduced = (*shape[:first], *(1,) * (4 - first))
    mean = graph.add(layer, "ReduceMean", [bottoms[0], axes], reduced, keepdims=1)
    centred = graph.elementwise(layer, "Sub", bottoms[0], mean)
    if not p.normalize_variance:
        return [centred]
    square = graph.elementwise(layer, "Mul", centred, centred)
    variance = graph.add(layer, "ReduceMean", [square, axes], reduced, keepdims=1)
    deviation = graph.scalar(layer, "Add", graph.elementwise(layer, "Sqrt", variance), p.eps, "eps")
    return [graph.elementwise(layer, "Div", centred, deviation)]


@reads("Normalize")
def normalize(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """SSD's: over the length of each pixel's channels, or of the whole image; times a trained scale.

    Caffe's eps (1e-10) keeps it from dividing by zero, as LpNormalization does by itself.
    """
    p = layer.param("norm_param")
    shape = graph.shapes[bottoms[0]]
    channels = _channels(layer, shape)
    if p.eps > 1e-6:
        raise layer.fails(f"eps {p.eps:g} is large enough to change values", "only eps up to 1e-6 are read")
    if p.across_spatial:
        flat = graph.reshape(layer, bottoms[0], (shape[0], count(shape[1:])))
        top = graph.reshape(layer, graph.elementwise(layer, "LpNormalization", flat, axis=1, p=2), shape)
    else:
        top = graph.elementwise(layer, "LpNormalization", bottoms[0], axis=1, p=2)
    if p.channel_shared:
        return [graph.scalar(layer, "Mul", top, float(layer.weight(0, (), "scale")), "scale")]
    return [_spread(layer, graph, "Mul", top, layer.weight(0, (channels,), "scale"), 1)]


@reads("Softmax")
def softmax(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Along one axis, by default the channels."""
    axis = axis_of(layer, layer.param("softmax_param").axis, len(graph.shapes[bottoms[0]]))
    return [graph.elementwise(layer, "Softmax", bottoms[0], axis=axis)]
