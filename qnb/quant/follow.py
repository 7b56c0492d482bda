"""Follow: the encodings that follow from those that were chosen — shared grids, constants, biases.

Knows graphs and encodings; chooses nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from qnb.errors import BadConfig
from qnb.quant.encodings import BIAS_BITS, Encoding, Encodings, encoding_from_range
from qnb.quant.overrides import Overrides
from qnb.quant.structure import Structure

__all__ = ["ACTIVATION_BITS", "complete", "read_as"]

ACTIVATION_BITS = (8, 16)


def complete(
    structure: Structure, activations: Mapping[str, Encoding], weights: Mapping[str, Encoding], overrides: Overrides
) -> Encodings:
    """Add what follows from the given encodings: constants, tensors that share a grid, biases."""
    shared = _shared(structure, activations)
    parameters = dict(weights)
    bits_known = [e.bits for e in shared.values()]
    usual_bits = max(set(bits_known), key=bits_known.count) if bits_known else ACTIVATION_BITS[0]
    for name, role in structure.roles.items():
        if role.kind in ("constant", "beta") and name not in parameters:
            bits = [b for node in structure.consumers[name] if (b := node_bits(structure, shared, node)) is not None]
            if role.kind == "beta" and bits == [16]:
                continue  # below, as bias
            if not bits and name not in structure.source.values():
                continue
            values = structure.finite_values(name)
            wide = max(bits, default=usual_bits)
            default = encoding_from_range(values.min(), values.max(), wide, signed=False, symmetric=False)
            if (encoding := overrides.complete(name, default)) is not None:
                parameters[name] = encoding
    for name in structure.activations:
        root = structure.root(name)
        if root in parameters:
            shared.setdefault(name, parameters[root])
    for name, role in structure.roles.items():
        if role.kind in ("bias", "beta"):
            _add_bias(structure, name, role.node, shared, parameters, overrides)
    return Encodings(
        {name: shared[name] for name in structure.activations if name in shared},
        {name: parameters[name] for name in structure.roles if name in parameters},
    )


def _shared(structure: Structure, activations: Mapping[str, Encoding]) -> dict[str, Encoding]:
    """Spread each grid over all tensors that have to share it."""
    group: dict[str, str] = {}
    for name in activations:
        root = structure.root(name)
        first = group.setdefault(root, name)
        if activations[first] != activations[name]:
            raise BadConfig(
                f"tensors {first!r} and {name!r} have different encodings, but the ops between them only move values",
                hint="give both the same encoding, or one of them none",
            )
    return {
        name: activations[group[structure.root(name)]]
        for name in structure.activations
        if structure.root(name) in group
    }


def node_bits(structure: Structure, activations: Mapping[str, Encoding], node: onnx.NodeProto) -> int | None:
    """Give the bits that `node` computes its float output in; None where that stays float."""
    for name in node.output:
        while name in structure.fused and name not in activations:
            name = structure.fused[name].node.output[0]
        if name in activations:
            return activations[name].bits
    return None


def read_as(
    structure: Structure, activations: Mapping[str, Encoding], encoding: Encoding, node: onnx.NodeProto
) -> Encoding:
    """Give the encoding in which `node` reads an activation or constant of `encoding`: the same, in the node's bits."""
    bits = node_bits(structure, activations, node)
    if bits is None or bits == encoding.bits or encoding.bits not in ACTIVATION_BITS:
        return encoding
    return encoding_from_range(encoding.min, encoding.max, bits, signed=encoding.signed, symmetric=False)


def _add_bias(
    structure: Structure,
    name: str,
    node_name: str,
    activations: Mapping[str, Encoding],
    parameters: dict[str, Encoding],
    overrides: Overrides,
) -> None:
    """Add the encoding of the bias `name`: 32 bits, ``scale = input scale * weight scale``, zero point 0.

    So it is added straight into the accumulator (Jacob et al. 2018, equation 11).

    Where that scale is so small that the bias would overflow, the weight's is raised, as ONNX Runtime's quantizer does.
    """
    node = next(n for n in structure.consumers[name] if n.name == node_name)
    data, weight = node.input[0], node.input[1]
    if name in parameters or data not in activations or weight not in parameters:
        return
    reads = read_as(structure, activations, activations[data], node)
    grid = parameters[weight]
    values = structure.finite_values(name)
    per_channel = grid.axis is not None and values.size == grid.channels
    largest = np.abs(values.reshape(-1)) if per_channel else np.abs(values).max()
    needed = largest * 1.0001 / np.iinfo(np.int32).max / reads.scale
    if grid.symmetric and (needed > grid.scale).any():
        grid = Encoding(grid.bits, grid.signed, np.maximum(grid.scale, needed), grid.zero_point, grid.axis)
        parameters[weight] = grid
    # the product as float32 arithmetic gives it, which is what the runtime compares it with
    scale = np.float32(reads.scale) * (grid.scale if per_channel else grid.scale.max(keepdims=True)).astype(np.float32)
    axis = int(np.argmax(values.shape)) if per_channel else None
    default = Encoding(BIAS_BITS, True, scale.astype(np.float64), np.zeros(scale.size, dtype=np.int64), axis)
    if (encoding := overrides.complete(name, default)) is not None:
        parameters[name] = encoding
