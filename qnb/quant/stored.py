"""Stored parameters: the integer weights and biases of a QDQ graph, set beside the float parameters that they were.

Knows graphs and numpy; nothing of sessions and data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from qnb.quant.deviation import BINS, Deviation
from qnb.quant.encodings import BIAS_BITS
from qnb.quant.layers import Layers
from qnb.quant.structure import Structure, prepared

__all__ = ["stored_parameters"]

Arrays = dict[str, NDArray[Any]]
_NAMES = {onnx.TensorProto.UINT4: "uint4", onnx.TensorProto.INT4: "int4"}


def stored_parameters(
    model: onnx.ModelProto, reference: onnx.ModelProto, parts: Layers
) -> tuple[list[dict[str, Any]], Arrays]:
    """Compare every stored integer parameter with the float one.

    Parameters
    ----------
    model : onnx.ModelProto
        The QDQ model.
    reference : onnx.ModelProto
        The float model.
    parts : Layers
        Those of `model`.

    Returns
    -------
    list of dict
        A row for each: tensor, kind (``weight`` or ``bias``), layer (the node that reads it), bits, grids, reads
        (the reader's first input), code_sum (largest sum of absolute codes into one output), and figures as those of
        `qnb.quant.deviation.Fit`.
    dict
        ``counts:<tensor>`` (histogram as that of `qnb.quant.deviation.Fit`, over the codes), and ``min:<tensor>``,
        ``max:<tensor>`` by output channel.
    """
    structure = Structure(prepared(reference))
    floats = {name: structure.parameters[name] for name in structure.parameters}
    stored = {i.name: i for i in model.graph.initializer}
    rows: list[dict[str, Any]] = []
    arrays: Arrays = {}
    for codes, place in parts.weights().items():
        node = model.graph.node[place]
        name = _float_name(codes, node.output[0], model, structure)
        if name is None or node.input[1] not in stored:
            continue
        tensor = stored[codes]
        values, q = numpy_helper.to_array(floats[name]).astype(np.float64), _integers(tensor)
        if values.shape != q.shape:
            continue
        dtype = _NAMES.get(tensor.data_type) or np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).name
        signed, bits = not dtype.startswith("u"), int(dtype.lstrip("uint"))
        scale = numpy_helper.to_array(stored[node.input[1]]).astype(np.float64)
        zero = _integers(stored[node.input[2]]) if len(node.input) > 2 else np.zeros(scale.shape, dtype=np.int64)
        scales, zeros = (_along(part, node, q.shape) for part in (scale, zero))
        role = structure.roles.get(name)
        reader = next((n for n in structure.graph.node if name in n.input), None)
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        row = {
            "tensor": name,
            "kind": "bias" if bits == BIAS_BITS else "weight",
            "layer": reader.name if reader is not None else "",
            "bits": bits,
            "grids": int(scale.size),
            "scale": float(scale.max()),
        }
        steps = values / scales + zeros
        if bits != BIAS_BITS and reader is not None:
            row |= {
                "reads": reader.input[0],
                "code_sum": _largest_sum(q - zeros, role.axis if role is not None else None),
            }
        row |= _figures(values, q, scales, zeros, steps, low, high, bits)
        if bits != BIAS_BITS:
            span = high - low + 1
            bins = np.clip((steps.reshape(-1) - (low - 0.5 - span / 2)) / (2 * span / BINS), 0, BINS - 1).astype(
                np.intp
            )
            arrays[f"counts:{name}"] = np.bincount(bins, minlength=BINS)
        axis = role.axis if role is not None else None
        if axis is not None and values.ndim > 1:
            others = tuple(i for i in range(values.ndim) if i != axis)
            arrays |= {f"min:{name}": values.min(axis=others), f"max:{name}": values.max(axis=others)}
        rows.append(row)
    return rows, arrays


def _figures(
    values: NDArray[np.float64],
    q: NDArray[np.int64],
    scales: NDArray[np.float64],
    zeros: NDArray[np.int64],
    steps: NDArray[np.float64],
    low: int,
    high: int,
    bits: int,
) -> dict[str, float]:
    noise = Deviation()
    noise.update(values, (q - zeros) * scales)
    figures = {k: v for k, v in noise.figures().items() if k != "max_abs_error"}
    centred = low < 0 and not zeros.any()
    beyond = np.count_nonzero((steps < low - 0.5) | (steps > high + 0.5))
    return figures | {
        # of 2**32 codes no share is worth saying
        "codes_used_percent": 100 * len(np.unique(q)) / min(1 << bits, q.size) if bits < BIAS_BITS else np.nan,
        "range_use_percent": np.nan
        if bits == BIAS_BITS
        else 100 * (np.abs(q).max() / high if centred else np.ptp(q) / (high - low)),
        "clipped_percent": 100 * float(beyond) / q.size,
        "core_percent": float("nan"),
        "observed_min": float(values.min()),
        "observed_max": float(values.max()),
        "grid_min": float(((low - zeros) * scales).min()),
        "grid_max": float(((high - zeros) * scales).max()),
    }


def _largest_sum(q: NDArray[np.int64], axis: int | None) -> int:
    """Give the largest sum of absolute codes that goes into one output: what a unit input code at most adds up to."""
    axis = q.ndim - 1 if axis is None else axis
    return int(np.abs(q).sum(axis=tuple(i for i in range(q.ndim) if i != axis)).max()) if q.ndim > 1 else 0


def _integers(tensor: onnx.TensorProto) -> NDArray[np.int64]:
    return np.asarray(numpy_helper.to_array(tensor)).astype(np.int64)


def _along(part: NDArray[Any], node: onnx.NodeProto, shape: tuple[int, ...]) -> NDArray[Any]:
    """Spread scales or zero points over a tensor, as DequantizeLinear does: one, one a channel, or one a block."""
    said = {a.name: a.i for a in node.attribute if a.name in ("axis", "block_size")}
    axis = said.get("axis", 1)
    if part.ndim == 0 or (part.size == 1 and part.ndim <= 1):
        return part.reshape([1] * len(shape))
    if part.ndim == 1:
        return part.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])
    block = said.get("block_size") or -(-shape[axis] // part.shape[axis])
    spread = np.repeat(part, block, axis=axis)
    return np.take(spread, np.arange(shape[axis]), axis=axis)


def _float_name(codes: str, dequantized: str, model: onnx.ModelProto, structure: Structure) -> str | None:
    """Find the float parameter that the integers were: by its name, or as the same input of the same node."""
    bare = codes.removesuffix("_quantized")
    if bare in structure.parameters:
        return bare
    nodes = {n.name: n for n in structure.graph.node}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == dequantized and node.name in nodes and place < len(nodes[node.name].input):
                found = nodes[node.name].input[place]
                return found if found in structure.parameters else None
    return None
