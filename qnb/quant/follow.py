"""Follow: the encodings that follow from those that were chosen — shared grids, constants, biases.

Knows graphs and encodings; chooses nothing itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import onnx

from qnb.errors import BadConfig
from qnb.quant.encodings import BIAS_BITS, Encoding, Encodings, encoding_from_range
from qnb.quant.overrides import Overrides
from qnb.quant.structure import Structure

__all__ = ["ACTIVATION_BITS", "complete", "made_in_float", "node_bits", "read_as", "shared_grids"]

ACTIVATION_BITS = (8, 16)


def complete(
    structure: Structure, activations: Mapping[str, Encoding], weights: Mapping[str, Encoding], overrides: Overrides
) -> Encodings:
    """Add what follows from the given encodings: constants, tensors that share a grid, biases.

    Parameters that only nodes read which compute in float are left out: HTP takes them as integers only where data and
    result are.
    """
    shared, tables = shared_grids(structure, activations, weights, overrides)
    parameters = {**weights, **tables}
    for name, role in structure.roles.items():
        bits = [b for node in structure.consumers[name] if (b := node_bits(structure, shared, node, weights))]
        if name in parameters and not bits and name not in tables:
            del parameters[name]
        if name in parameters or not bits:
            continue
        operand = role.kind == "constant" or (role.kind == "beta" and bits != [16])
        if operand and (made := _constant(structure, name, max(bits), overrides)) is not None:
            parameters[name] = made
    for name, role in structure.roles.items():
        if role.kind in ("bias", "beta"):
            _add_bias(structure, name, role.node, shared, parameters, overrides)
    return Encodings(
        {name: shared[name] for name in structure.activations if name in shared},
        {name: parameters[name] for name in structure.roles if name in parameters},
    )


def shared_grids(
    structure: Structure, activations: Mapping[str, Encoding], weights: Mapping[str, Encoding], overrides: Overrides
) -> tuple[dict[str, Encoding], dict[str, Encoding]]:
    """Give the grids of all activations, those that share another's included, and of the tables that are gathered from."""
    shared = _shared(structure, activations)
    known = [e.bits for e in shared.values()]
    usual = max(set(known), key=known.count) if known else ACTIVATION_BITS[0]
    tables = {}
    for name in dict.fromkeys(structure.root(name) for name in structure.activations):
        if name in structure.roles:
            table = weights.get(name) or _constant(structure, name, usual, overrides)
            if table is not None:
                tables[name] = table
    for name in structure.activations:
        if (root := structure.root(name)) in tables:
            shared.setdefault(name, tables[root])
    return shared, tables


def _constant(structure: Structure, name: str, bits: int, overrides: Overrides) -> Encoding | None:
    values = structure.finite_values(name)
    default = encoding_from_range(values.min(), values.max(), bits, signed=False, symmetric=False)
    return overrides.complete(name, default)


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


def node_bits(
    structure: Structure,
    activations: Mapping[str, Encoding],
    node: onnx.NodeProto,
    weights: Collection[str] | None = None,
) -> int | None:
    """Give the bits that `node` computes its float output in; None where it computes in float.

    That is where its output or any data that it reads has no grid, or a weight that is not among `weights` (all are,
    where those are None).
    """
    for name in structure.data_inputs(node):
        role = structure.roles.get(name)
        if role is None and _grid(structure, activations, name) is None and name not in structure.parameters:
            return None
        if role is not None and role.kind in ("weight", "gamma") and weights is not None and name not in weights:
            return None
    grids = [grid for name in node.output if (grid := _grid(structure, activations, name)) is not None]
    return grids[0].bits if grids else None


def made_in_float(
    structure: Structure, activations: Mapping[str, Encoding], name: str, weights: Collection[str]
) -> bool:
    """Whether what `name` takes its values from is computed in float, and rounded to a grid only then."""
    node = structure.producer.get(structure.root(name))
    while node is not None and node.input and node.input[0] in structure.fused:
        node = structure.producer[node.input[0]]
    return node is not None and node_bits(structure, activations, node, weights) is None


def _grid(structure: Structure, activations: Mapping[str, Encoding], name: str) -> Encoding | None:
    """Give the grid of a tensor, or of what comes of it behind the Relu or Clip that it fuses into."""
    while name in structure.fused and name not in activations:
        name = structure.fused[name].node.output[0]
    return activations.get(name)


def read_as(
    structure: Structure,
    activations: Mapping[str, Encoding],
    encoding: Encoding,
    node: onnx.NodeProto,
    weights: Mapping[str, Encoding],
) -> Encoding:
    """Give the encoding in which `node` reads an activation or constant of `encoding`: the same, in the node's bits."""
    bits = node_bits(structure, activations, node, weights)
    if bits is None or bits == encoding.bits or encoding.bits not in ACTIVATION_BITS:
        return encoding
    return encoding_from_range(encoding.min, encoding.max, bits, signed=encoding.signed, symmetric=encoding.symmetric)


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
    if name in parameters or weight not in parameters or node_bits(structure, activations, node, parameters) is None:
        return
    reads = read_as(structure, activations, activations[data], node, parameters)
    grid = parameters[weight]
    values = structure.finite_values(name)
    per_channel = grid.axis is not None and values.size == grid.channels
    largest = np.abs(values.reshape(-1)) if per_channel else np.abs(values).max()
    needed = largest * 1.0001 / np.iinfo(np.int32).max / reads.scale
    if grid.symmetric and not grid.blockwise and (needed > grid.scale).any():
        grid = replace(grid, scale=np.maximum(grid.scale, needed))
        parameters[weight] = grid
    step = grid.channel_scale
    # the product as float32 arithmetic gives it, which is what the runtime compares it with
    scale = np.float32(reads.scale) * (step if per_channel else step.max(keepdims=True)).astype(np.float32)
    axis = int(np.argmax(values.shape)) if per_channel else None
    default = Encoding(BIAS_BITS, True, scale.astype(np.float64), np.zeros(scale.size, dtype=np.int64), axis)
    if (encoding := overrides.complete(name, default)) is not None:
        parameters[name] = encoding
