"""Equalize: rescales channels so that a grid per tensor suits them all, and leaves the function as it is.

Knows graphs and, where it is given them, ranges and statistics of tensors; nothing of sessions and data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from qnb.quant.folding import fold_batch_norms, tidied
from qnb.quant.linear import Linear, add_bias, inferred, linears, padding, put
from qnb.quant.structure import Structure, attribute, prepared

__all__ = [
    "Group",
    "absorb_biases",
    "clip_inputs",
    "equalize",
    "fold_batch_norms",
    "groups_of",
    "scale_group",
    "spread",
]

_PASSING = {"Relu", "LeakyRelu", "Identity", "Dropout", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}
"""Ops with f(s x) = s f(x) for s > 0, channel by channel, channels on axis 1."""

_SAME_FIRST_AXES = {"Pad", "Resize", "ReduceMean", "ReduceSum", "ReduceMax"}
"""Ops that pass a scale if they leave batch and channels alone."""

_SWEEPS = 200
_SETTLED = 1e-3  # of a factor's logarithm in one sweep
_DEAD = 1e-6  # of the largest channel: below it a channel is not worth scaling


@dataclass
class Group:
    """Tensors whose channels have to be scaled together, who writes them and who reads them."""

    channels: int
    producers: list[Linear] = field(default_factory=list)
    consumers: list[Linear] = field(default_factory=list)
    clips: list[onnx.NodeProto] = field(default_factory=list)
    added: bool = False
    blocked: bool = False

    @property
    def free(self) -> bool:
        """Whether it may be scaled."""
        return not self.blocked and bool(self.producers) and bool(self.consumers)


def equalize(
    model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]] | None = None, *, replace_clips: bool = False
) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    """Equalize the ranges of weights across layers, iterated until nothing moves.

    Channel i of what lies between two layers is divided by ``s_i = sqrt(r1_i r2_i) / r2_i``, where r1 and r2 are the
    largest magnitudes of its weights in the layer before and in the layer behind: ``W1 <- W1 / s``, ``b1 <- b1 / s``,
    ``W2 <- W2 s`` (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
    section 4.1, equations 8 to 12). It passes ops with ``f(s x) = s f(x)``: Relu, PRelu, LeakyRelu, pooling, zero padding,
    resizing, flattening. Beyond the paper it passes residual additions and branches: then all layers that write the
    tensors, and all that read them, are scaled by one s; each weight counts relative to its own largest.

    A Clip from 0 (ReLU6) has no ``f(s x) = s f(x)``. It is replaced by Relu where `ranges` say that its input never
    passes the upper bound; else it bars the way. AIMET replaces all of them, which changes the function:
    ``replace_clips=True`` does that.

    Parameters
    ----------
    model : onnx.ModelProto
        Float, batch norms folded; not changed.
    ranges : mapping of str to (float, float), optional
        What was observed of the inputs of Clips: see `clip_inputs`.
    replace_clips : bool
        Whether Clip from 0 becomes Relu whatever was observed.

    Returns
    -------
    model : onnx.ModelProto
        The same function.
    rows : list of dict
        One a group of layers: ``step``, ``layer`` (written by), ``into`` (read by), ``channels``, ``spread_before``,
        ``spread_after``: the largest factor between two channels' ranges in the layer before.
    """
    structure = Structure(prepared(model))
    groups = groups_of(structure, ranges, every_clip=replace_clips)
    layers = {layer.weight: layer for group in groups for layer in (*group.producers, *group.consumers)}
    weights = {
        name: layer.canonical(structure.finite_values(name).astype(np.float64)).copy() for name, layer in layers.items()
    }
    totals = [np.ones(group.channels) for group in groups]
    before = [spread(_written(group, weights)) for group in groups]
    for _ in range(_SWEEPS):
        moved = 0.0
        for group, total in zip(groups, totals, strict=True):
            factors = _factors(_written(group, weights), _read(group, weights))
            scale_group(group, weights, factors)
            total *= factors
            moved = max(moved, float(np.abs(np.log(factors)).max()))
        if moved < _SETTLED:
            break
    rows = []
    for group, total, at_first in zip(groups, totals, before, strict=True):
        for layer in group.producers:
            if layer.bias is not None:
                bias = structure.values(layer.bias)
                put(structure, layer.bias, bias / total.reshape(bias.shape))
        for node in group.clips:
            del node.input[1:]
            node.ClearField("attribute")
            node.op_type = "Relu"
        rows.append(
            {
                "step": "equalize",
                "layer": ", ".join(layer.node.name for layer in group.producers),
                "into": ", ".join(layer.node.name for layer in group.consumers),
                "channels": group.channels,
                "spread_before": at_first,
                "spread_after": spread(_written(group, weights)),
            }
        )
    for name, layer in layers.items():
        put(structure, name, layer.stored(weights[name]))
    return tidied(structure), rows


def clip_inputs(model: onnx.ModelProto) -> list[str]:
    """Give the inputs of those Clips whose replacement by Relu would let `equalize` pass."""
    structure = Structure(prepared(model))
    return [node.input[0] for group in groups_of(structure, every_clip=True) for node in group.clips]


def absorb_biases(
    model: onnx.ModelProto, statistics: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]
) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    """Move the part of a bias that Relu never cuts off into the next layer's bias.

    With ``c = max(0, mean - 3 sigma)`` of each channel before the Relu, ``b1 <- b1 - c`` and ``b2 <- b2 + W2 c`` (Nagel et
    al., ICCV 2019, section 4.1.3, equations 13 to 15; there from the batch norm's parameters, here from what was observed).
    It holds exactly for all values above c. The paper lets it pass zero padding, where it is wrong at the borders; here
    a layer that pads is passed over, and so are branches and additions.

    Parameters
    ----------
    model : onnx.ModelProto
        Float; not changed.
    statistics : mapping of str to (ndarray, ndarray)
        Mean and standard deviation per channel, shape [C], of layers' outputs, before their Relu.

    Returns
    -------
    model : onnx.ModelProto
    rows : list of dict
        One a pair: ``step``, ``layer``, ``into``, ``channels`` that were moved, ``largest`` c.
    """
    structure = Structure(prepared(model))
    shapes = inferred(structure.model)
    rows: list[dict[str, Any]] = []
    for group in groups_of(structure):
        if group.added or len(group.producers) > 1 or len(group.consumers) > 1:
            continue
        (first,), (second,) = group.producers, group.consumers
        between = _between(structure, first, second)
        if first.node.output[0] not in statistics or between is None or _pads(second, shapes):
            continue
        mean, deviation = (np.asarray(v, dtype=np.float64) for v in statistics[first.node.output[0]])
        moved = np.maximum(0.0, mean - 3 * deviation)
        if not moved.any():
            continue
        weight = second.canonical(structure.values(second.weight).astype(np.float64)).sum(axis=-1)
        repeated = np.repeat(moved, second.inputs // moved.size).reshape(second.groups, -1)
        add_bias(structure, first, -moved)
        add_bias(structure, second, np.einsum("goi,gi->go", weight, repeated).reshape(-1))
        rows.append(
            {
                "step": "absorb bias",
                "layer": first.node.name,
                "into": second.node.name,
                "channels": int((moved > 0).sum()),
                "largest": float(moved.max()),
            }
        )
    return tidied(structure), rows


# --- which channels belong together --------------------------------------------------------------------------------


def groups_of(
    structure: Structure, ranges: Mapping[str, tuple[float, float]] | None = None, *, every_clip: bool = False
) -> list[Group]:
    """Give the groups of tensors that may be divided by one factor a channel, where their readers are multiplied by it.

    `ranges` and `every_clip` say which Clips it passes: see `equalize`.
    """
    return [group for group in _groups(structure, dict(ranges or {}), every_clip) if group.free]


def _groups(structure: Structure, ranges: dict[str, tuple[float, float]], every_clip: bool) -> list[Group]:
    """Sort all tensors into groups of one scale per channel, blocked ones included."""
    shapes = inferred(structure.model)
    layers = {layer.node.name: layer for layer in linears(structure) if layer.node.op_type != "MatMul"}
    of: dict[str, Group] = {}
    flat: set[str] = set()  # tensors [N, C * positions], channel by channel

    def group_of(name: str) -> Group:
        if name not in of:
            of[name] = Group(0, blocked=True)
        return of[name]

    def join(first: str, second: str) -> None:
        one, other = group_of(first), group_of(second)
        if one is other:
            return
        one.blocked |= other.blocked or one.channels != other.channels
        one.added = True
        one.producers += other.producers
        one.consumers += other.consumers
        one.clips += other.clips
        for name in [name for name, group in of.items() if group is other]:
            of[name] = one

    for node in structure.graph.node:
        data = [name for name in node.input if name and name not in structure.parameters]
        if node.name in layers:
            layer = layers[node.name]
            group = group_of(data[0])
            fits = layer.inputs % max(1, group.channels) == 0 and (layer.inputs == group.channels or data[0] in flat)
            group.blocked |= not fits
            group.consumers.append(layer)
            of[node.output[0]] = Group(layer.outputs, [layer])
        elif node.op_type in ("Add", "Sum") and len(data) == len(node.input) and _one_shape(data, shapes):
            for name in data[1:]:
                join(data[0], name)
                group_of(data[0]).blocked |= (name in flat) != (data[0] in flat)
            of[node.output[0]] = group_of(data[0])
            flat |= {node.output[0]} if data[0] in flat else set()
        elif data and _passes(structure, node, shapes, ranges, every_clip):
            of[node.output[0]] = group_of(data[0])
            if structure._clip_bounds(node) and node.op_type == "Clip":
                of[data[0]].clips.append(node)
            if data[0] in flat or node.op_type in ("Flatten", "Reshape", "Squeeze"):
                flat.add(node.output[0])
        else:
            for name in data:
                group_of(name).blocked = True
    for name in (*structure.inputs, *structure.outputs):
        group_of(name).blocked = True
    unique = {id(group): group for group in of.values()}
    return list(unique.values())


def _passes(
    structure: Structure,
    node: onnx.NodeProto,
    shapes: Mapping[str, tuple[int, ...]],
    ranges: Mapping[str, tuple[float, float]],
    every_clip: bool,
) -> bool:
    """Whether ``f(s x) = s f(x)`` for one s > 0 a channel, channels staying where they are."""
    if node.op_type in _PASSING:
        return not any(node.output[1:])
    if node.op_type == "PRelu":
        slope = structure.parameters.get(node.input[1])
        return slope is not None
    if node.op_type == "Clip":
        bounds = structure._clip_bounds(node)
        if bounds is None or bounds[0] != 0:
            return False
        seen = ranges.get(node.input[0])
        return every_clip or (seen is not None and seen[1] <= bounds[1])
    before, behind = shapes.get(node.input[0]), shapes.get(node.output[0])
    if before is None or behind is None or len(before) < 2:
        return False
    if node.op_type in ("Flatten", "Reshape", "Squeeze"):
        return len(behind) == 2 and behind[0] == before[0] and behind[1] == int(np.prod(before[1:]))
    if node.op_type == "Pad" and not structure._shares(node):
        return False
    if node.op_type.startswith("Reduce"):
        axes = _constant_axes(structure, node)
        if not axes or {axis % len(before) for axis in axes} & {0, 1}:
            return False
    return node.op_type in _SAME_FIRST_AXES and len(behind) >= 2 and behind[:2] == before[:2] and len(before) > 2


def _constant_axes(structure: Structure, node: onnx.NodeProto) -> list[int]:
    """Give the axes that a reduction goes over; none where they are not known."""
    if len(node.input) > 1 and node.input[1]:
        known = node.input[1] in structure.parameters
        return [int(a) for a in structure.values(node.input[1]).reshape(-1)] if known else []
    return [int(a) for a in attribute(node, "axes", [])]


def _one_shape(names: list[str], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return all(name in shapes for name in names) and len({shapes[name] for name in names}) == 1


def _between(structure: Structure, first: Linear, second: Linear) -> list[onnx.NodeProto] | None:
    """Give the ops from one layer to the next; None unless a constant passes them all (no padding, no second reader)."""
    found: list[onnx.NodeProto] = []
    name = first.node.output[0]
    while len(structure.consumers[name]) == 1:
        node = structure.consumers[name][0]
        if node.name == second.node.name:
            return found
        pads = any(attribute(node, "pads", [0])) or attribute(node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
        padded_average = node.op_type == "AveragePool" and pads  # MaxPool ignores what it pads with
        if padded_average or node.op_type in ("Pad", "ReduceSum", "PRelu", "LeakyRelu") or not node.output:
            return None
        found.append(node)
        name = node.output[0]
    return None


def _pads(layer: Linear, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    if layer.node.op_type == "ConvTranspose":
        return True  # its borders see fewer positions of the kernel
    if layer.node.op_type != "Conv":
        return False
    spatial = shapes.get(layer.node.input[0], ())[2:]
    if not spatial:
        return True
    return any(zeros for pair in padding(layer.node, spatial, layer.shape[2:]) for zeros in pair)


# --- factors -------------------------------------------------------------------------------------------------------


def _written(group: Group, weights: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Largest magnitude of the weights that write each channel."""
    ranges = [np.abs(weights[layer.weight]).max(axis=(2, 3)).reshape(-1) for layer in group.producers]
    return _together(ranges)


def _read(group: Group, weights: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Largest magnitude of the weights that read each channel."""
    ranges = [
        np.abs(weights[layer.weight]).max(axis=(1, 3)).reshape(group.channels, -1).max(axis=1)
        for layer in group.consumers
    ]
    return _together(ranges)


def _together(ranges: list[NDArray[Any]]) -> NDArray[np.float64]:
    if len(ranges) == 1:
        return ranges[0]
    largest: NDArray[np.float64] = np.max([values / max(float(values.max()), 1e-30) for values in ranges], axis=0)
    return largest


def _factors(written: NDArray[np.float64], read: NDArray[np.float64]) -> NDArray[np.float64]:
    live = (written > _DEAD * written.max()) & (read > _DEAD * read.max())
    factors = np.ones(written.size)
    factors[live] = np.sqrt(written[live] * read[live]) / read[live]
    return factors


def scale_group(group: Group, weights: Mapping[str, NDArray[Any]], factors: NDArray[np.float64]) -> None:
    """Divide the canonical weights that write a group by `factors`, shape [channels]; multiply those that read it."""
    for layer in group.producers:
        weights[layer.weight][...] /= factors.reshape(layer.groups, -1, 1, 1)
    for layer in group.consumers:
        repeated = np.repeat(factors, layer.inputs // factors.size)
        weights[layer.weight][...] *= repeated.reshape(layer.groups, 1, -1, 1)


def spread(values: NDArray[np.float64]) -> float:
    """Give the factor between the largest and the smallest entry, dead ones aside."""
    live = values[values > _DEAD * values.max()]
    return float(live.max() / live.min()) if live.size else 1.0
