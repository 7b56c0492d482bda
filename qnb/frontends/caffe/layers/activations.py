"""Layers that work on each element by itself."""

from __future__ import annotations

import math

import numpy as np

from qnb.frontends.caffe.graph import Graph
from qnb.frontends.caffe.layers.registry import reads
from qnb.frontends.caffe.network import Layer

_PLAIN = {"AbsVal": "Abs", "BNLL": "Softplus", "Sigmoid": "Sigmoid", "TanH": "Tanh"}


@reads(*_PLAIN)
def plain(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """What ONNX has under another name, without parameters; BNLL is log(1 + exp x)."""
    return [graph.elementwise(layer, _PLAIN[layer.type], bottoms[0])]


@reads("ReLU")
def relu(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """With ``negative_slope``, leaky."""
    slope = layer.param("relu_param").negative_slope
    if slope:
        return [graph.elementwise(layer, "LeakyRelu", bottoms[0], alpha=slope)]
    return [graph.elementwise(layer, "Relu", bottoms[0])]


@reads("ReLU6")
def relu6(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """min(max(x, 0), 6)."""
    return [_clipped(layer, graph, bottoms[0], 0, 6)]


@reads("Clip")
def clip(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """min(max(x, min), max)."""
    p = layer.param("clip_param")
    if not p.HasField("min") or not p.HasField("max"):
        raise layer.fails("it has no min or no max", "give both in clip_param")
    return [_clipped(layer, graph, bottoms[0], p.min, p.max)]


def _clipped(layer: Layer, graph: Graph, tensor: str, low: float, high: float) -> str:
    return graph.elementwise(
        layer, "Clip", tensor, graph.constant(layer, "min", low), graph.constant(layer, "max", high)
    )


@reads("PReLU")
def prelu(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """A trained slope for each channel, or one for all."""
    shape = graph.shapes[bottoms[0]]
    if layer.param("prelu_param").channel_shared:
        slope = float(layer.weight(0, (), "slope"))
        return [graph.elementwise(layer, "LeakyRelu", bottoms[0], alpha=slope)]
    if len(shape) < 2:
        raise layer.fails("its input has no channels", "see the layer before it")
    slopes = layer.weight(0, shape[1:2], "slopes").reshape(-1, *(1,) * (len(shape) - 2))
    return [graph.elementwise(layer, "PRelu", bottoms[0], graph.constant(layer, "slope", slopes))]


@reads("ELU")
def elu(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Alpha (exp(x) - 1) below 0."""
    return [graph.elementwise(layer, "Elu", bottoms[0], alpha=layer.param("elu_param").alpha)]


@reads("Swish")
def swish(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """X sigmoid(beta x)."""
    beta = layer.param("swish_param").beta
    inner = bottoms[0] if beta == 1 else graph.scalar(layer, "Mul", bottoms[0], beta, "beta")
    gate = graph.elementwise(layer, "Sigmoid", inner)
    return [graph.elementwise(layer, "Mul", bottoms[0], gate)]


@reads("Threshold")
def threshold(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """1 above the threshold, else 0."""
    limit = layer.param("threshold_param").threshold
    above = graph.scalar(layer, "Greater", bottoms[0], limit, "threshold")
    return [graph.elementwise(layer, "Cast", above, to=1)]


@reads("Power")
def power(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """(shift + scale x) to a power."""
    p = layer.param("power_param")
    if p.power == 0 or p.scale == 0:  # Caffe fills its output with one value
        value = 1.0 if p.power == 0 else _power(layer, p.shift, p.power)
        nothing = graph.scalar(layer, "Mul", bottoms[0], 0, "zero")
        return [graph.scalar(layer, "Add", nothing, value, "value")]
    return [powered(layer, graph, _linear(layer, graph, bottoms[0], p.scale, p.shift), p.power)]


def _power(layer: Layer, base: float, exponent: float) -> float:
    try:
        value = base**exponent
    except (OverflowError, ZeroDivisionError):
        value = math.inf
    if isinstance(value, complex) or not math.isfinite(value):
        raise layer.fails(f"{base:g} to the power {exponent:g} is no finite number", "see power_param")
    return float(value)


def powered(layer: Layer, graph: Graph, tensor: str, exponent: float) -> str:
    """Add x to a power, with the simplest op for it."""
    if exponent == 1:
        return tensor
    if exponent == 2:
        return graph.elementwise(layer, "Mul", tensor, tensor)
    if exponent == 0.5:
        return graph.elementwise(layer, "Sqrt", tensor)
    return graph.scalar(layer, "Pow", tensor, exponent, "power")


def _linear(layer: Layer, graph: Graph, tensor: str, scale: float, shift: float) -> str:
    if scale != 1:
        tensor = graph.scalar(layer, "Mul", tensor, scale, "scale")
    return graph.scalar(layer, "Add", tensor, shift, "shift") if shift else tensor


@reads("Exp")
def exp(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Base to the power (shift + scale x); the base -1 stands for e."""
    p = layer.param("exp_param")
    base = _log_of_base(layer, p.base)
    return [graph.elementwise(layer, "Exp", _linear(layer, graph, bottoms[0], p.scale * base, p.shift * base))]


@reads("Log")
def log(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Logarithm of shift + scale x; the base -1 stands for e."""
    p = layer.param("log_param")
    base = _log_of_base(layer, p.base)
    top = graph.elementwise(layer, "Log", _linear(layer, graph, bottoms[0], p.scale, p.shift))
    return [top if base == 1 else graph.scalar(layer, "Mul", top, 1 / base, "base")]


def _log_of_base(layer: Layer, base: float) -> float:
    if base == -1:
        return 1.0
    if not base > 0 or base == 1 or not np.isfinite(base):
        raise layer.fails(f"its base is {base:g}", "a base is above 0 and not 1; -1 stands for e")
    return math.log(base)
