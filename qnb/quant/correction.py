"""Correction: biases make good for the mean error that rounding the weights brings.

Knows graphs, grids and the means of tensors; nothing of sessions and data. `qnb.quant.layerwise` does the same with what it
measures layer by layer, activations' rounding included; this needs one pass over the data, and no quantized model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from qnb.quant.encodings import Encoding, Encodings
from qnb.quant.folding import tidied
from qnb.quant.linear import Linear, add_bias, inferred, linears, padding
from qnb.quant.structure import Structure, attribute, prepared

__all__ = ["correct_biases"]


def correct_biases(
    model: onnx.ModelProto, encodings: Encodings | Mapping[str, Encoding], means: Mapping[str, NDArray[Any]]
) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    """Subtract the mean of ``(Ŵ - W) x`` from each layer's bias.

    ``b <- b - E[ε x]`` with ``E[ε x] = (Ŵ - W) E[x]`` (Nagel et al., "Data-Free Quantization Through Weight Equalization and
    Bias Correction", ICCV 2019, section 4.2, equations 16 to 18; E[x] observed on the float model, as in its appendix
    D). Where a convolution pads with zeros, each position of its kernel sees data in only a share of the output
    positions, and counts by that share. A layer without a bias gets one; MatMul has none, and is passed over.

    Parameters
    ----------
    model : onnx.ModelProto
        Float; not changed.
    encodings : Encodings, or mapping of str to Encoding
        Grids of weights (of the whole model: what is not a layer's weight is ignored).
    means : mapping of str to ndarray, shape [C]
        Mean of each layer's input per channel, over samples and positions, on the float model.

    Returns
    -------
    model : onnx.ModelProto
    rows : list of dict
        One a layer that was corrected: ``step``, ``layer``, ``channels``, and ``largest`` correction, in its output's unit.
    """
    weights = encodings.weights if isinstance(encodings, Encodings) else encodings
    structure = Structure(prepared(model))
    shapes = inferred(structure.model)
    rows: list[dict[str, Any]] = []
    for layer in linears(structure):
        data = layer.node.input[0]
        if layer.weight not in weights or data not in means or layer.node.op_type in ("MatMul", "ConvTranspose"):
            continue
        mean = np.asarray(means[data], dtype=np.float64).reshape(-1)
        if mean.size != layer.inputs:
            continue
        shares = _shares(layer, shapes.get(data, ())[2:])
        if shares is None:
            continue
        values = structure.finite_values(layer.weight)
        encoding = weights[layer.weight]
        error = encoding.dequantize(encoding.quantize(values)).astype(np.float64) - values
        # [groups, outputs, inputs, positions] with E[x] of each input and the share of each position
        per_input = (layer.canonical(error) * shares).sum(axis=-1)
        drift = np.einsum("goi,gi->go", per_input, mean.reshape(layer.groups, -1)).reshape(-1)
        if not drift.any():
            continue
        add_bias(structure, layer, -drift)
        rows.append(
            {
                "step": "correct bias",
                "layer": layer.node.name,
                "channels": layer.outputs,
                "largest": float(np.abs(drift).max()),
            }
        )
    return tidied(structure), rows


def _shares(layer: Linear, spatial: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Give for each position of the kernel the share of output positions at which it lies on data, not on padding."""
    if layer.node.op_type != "Conv":
        return np.ones(1)
    kernel, rank = layer.shape[2:], len(layer.shape) - 2
    if len(spatial) != rank:
        return None
    strides, dilations = attribute(layer.node, "strides", [1] * rank), attribute(layer.node, "dilations", [1] * rank)
    shares = np.ones(())
    for size, width, stride, dilation, (before, after) in zip(
        spatial, kernel, strides, dilations, padding(layer.node, spatial, kernel), strict=True
    ):
        count = (size + before + after - (width - 1) * dilation - 1) // stride + 1
        at = np.arange(count)[None, :] * stride + np.arange(width)[:, None] * dilation - before
        shares = np.multiply.outer(shares, ((at >= 0) & (at < size)).mean(axis=1))
    return np.asarray(shares, dtype=np.float64).reshape(-1)
