"""Folding: batch normalizations disappear into the weights of the layer before them.

Knows graphs; nothing of grids and data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from qnb.quant.linear import add_bias, linears, put
from qnb.quant.structure import Structure, attribute, prepared

__all__ = ["fold_batch_norms"]


def fold_batch_norms(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    """Fold each BatchNormalization into the Conv, ConvTranspose or Gemm that alone feeds it.

    ``W' = W * gamma / sqrt(var + eps)``, ``b' = (b - mean) * gamma / sqrt(var + eps) + beta``, per output channel
    (equation 14 of Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018). What another op or an output reads as well is left as it is.

    Parameters
    ----------
    model : onnx.ModelProto
        Float; not changed.

    Returns
    -------
    model : onnx.ModelProto
        The same function.
    rows : list of dict
        One a fold: ``step``, ``layer``, ``into``, ``channels``.
    """
    structure = Structure(prepared(model))
    layers = {layer.node.output[0]: layer for layer in linears(structure)}
    rows: list[dict[str, Any]] = []
    for node in list(structure.graph.node):
        if node.op_type != "BatchNormalization" or attribute(node, "training_mode", 0) or any(node.output[1:]):
            continue
        layer = layers.get(node.input[0])
        alone = layer is not None and len(structure.consumers[node.input[0]]) == 1
        if not alone or node.input[0] in structure.outputs or not set(node.input[1:]) <= set(structure.parameters):
            continue
        assert layer is not None
        if layer.node.op_type == "MatMul":  # its channels are on the last axis
            continue
        gamma, beta, mean, var = (structure.values(name).astype(np.float64) for name in node.input[1:5])
        if gamma.shape != (layer.outputs,):
            continue
        factor = gamma / np.sqrt(var + attribute(node, "epsilon", 1e-5))
        weight = layer.canonical(structure.values(layer.weight).astype(np.float64))
        scaled = weight * factor.reshape(layer.groups, -1, 1, 1)
        put(structure, layer.weight, layer.stored(scaled))
        bias = structure.values(layer.bias).astype(np.float64).reshape(-1) if layer.bias else np.zeros(layer.outputs)
        add_bias(structure, layer, (bias - mean) * factor + beta - bias)
        layer.node.output[0] = node.output[0]
        structure.graph.node.remove(node)
        rows.append({"step": "fold batch norm", "layer": node.name, "into": layer.node.name, "channels": layer.outputs})
    return tidied(structure), rows


def tidied(structure: Structure) -> onnx.ModelProto:
    """Give the model without parameters that nothing reads, and without statements of tensors that are gone."""
    graph = structure.graph
    used = {name for node in graph.node for name in (*node.input, *node.output)}
    used |= {o.name for o in graph.output}
    for field in ("initializer", "value_info"):
        kept = [item for item in getattr(graph, field) if item.name in used]
        graph.ClearField(field)
        getattr(graph, field).extend(kept)
    return structure.model
