"""Linear: the layers whose weights can be moved about — Conv, ConvTranspose, Gemm, MatMul — behind one form.

Knows ONNX's layouts of weights, biases and patches; nothing of grids, and of how weights are chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import numpy_helper

from qnb.quant.structure import Structure, _inferred, attribute, fresh

__all__ = ["Linear", "add_bias", "inferred", "linears", "padding", "patches", "put"]


@dataclass(frozen=True)
class Linear:
    """One layer ``y = W x + b``, with a constant float weight that no other node reads.

    Attributes
    ----------
    node : onnx.NodeProto
    weight : str
    bias : str or None
        The constant of shape [outputs] that the node itself adds; None where it adds none.
    groups, outputs, inputs : int
        Of channels; `inputs` counts those of all groups.
    shape : tuple of int
        Of the weight as it is stored.
    """

    node: onnx.NodeProto
    weight: str
    bias: str | None
    groups: int
    outputs: int
    inputs: int
    shape: tuple[int, ...]

    @property
    def axis(self) -> int:
        """The axis of the input and of the output that channels are on."""
        return -1 if self.node.op_type == "MatMul" else 1

    def canonical(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give the weight as [groups, outputs of a group, inputs of a group, positions of the kernel].

        Output channel ``g * o + j`` is ``[g, j]``, input channel ``g * i + j`` is ``[g, :, j]``, as ONNX numbers them.
        """
        if self.node.op_type == "Conv":
            return values.reshape(self.groups, self.outputs // self.groups, self.inputs // self.groups, -1)
        if self.node.op_type == "ConvTranspose":
            apart = values.reshape(self.groups, self.inputs // self.groups, self.outputs // self.groups, -1)
            return apart.transpose(0, 2, 1, 3)
        return (values if self.outputs_first else values.T)[None, :, :, None]

    def stored(self, canonical: NDArray[Any]) -> NDArray[Any]:
        """Undo `canonical`."""
        if self.node.op_type == "Conv":
            return canonical.reshape(self.shape)
        if self.node.op_type == "ConvTranspose":
            return canonical.transpose(0, 2, 1, 3).reshape(self.shape)
        matrix = canonical[0, :, :, 0]
        return matrix if self.outputs_first else matrix.T

    @property
    def outputs_first(self) -> bool:
        """Whether a two-dimensional weight is stored as [outputs, inputs]."""
        return self.node.op_type == "Gemm" and bool(attribute(self.node, "transB", 0))


def linears(structure: Structure) -> Iterator[Linear]:
    """Give the graph's layers in its order; those of another form (shared weights, scaled Gemm) are left out."""
    for node in structure.graph.node:
        if (found := _linear(structure, node)) is not None:
            yield found


def _linear(structure: Structure, node: onnx.NodeProto) -> Linear | None:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or len(node.input) < 2:
        return None
    weight = structure.parameters.get(node.input[1])
    if (
        weight is None
        or weight.data_type != onnx.TensorProto.FLOAT
        or len(structure.consumers[weight.name]) > 1
        or list(node.input).count(weight.name) > 1
        or weight.name in structure.outputs
    ):
        return None
    shape = tuple(weight.dims)
    groups = int(attribute(node, "group", 1))
    if node.op_type == "Conv":
        outputs, inputs = shape[0], shape[1] * groups
    elif node.op_type == "ConvTranspose":
        outputs, inputs = shape[1] * groups, shape[0]
    elif len(shape) != 2:
        return None
    else:
        scaled = attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1
        if node.op_type == "Gemm" and (scaled or attribute(node, "transA", 0)):
            return None
        inputs, outputs = shape[::-1] if attribute(node, "transB", 0) else shape
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if bias is not None:
        value = structure.parameters.get(bias)
        own = value is not None and len(structure.consumers[bias]) == 1 and value.data_type == onnx.TensorProto.FLOAT
        if value is None or not own or list(value.dims) not in ([outputs], [1, outputs]):
            return None
    return Linear(node, weight.name, bias, groups, outputs, inputs, shape)


def put(structure: Structure, name: str, values: NDArray[Any]) -> None:
    """Give a parameter other values, of any shape."""
    structure.parameters[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values, dtype=np.float32), name))


def add_bias(structure: Structure, layer: Linear, values: NDArray[Any]) -> None:
    """Add `values`, shape [outputs], to what the layer adds; it gets a bias if it has none (not for MatMul)."""
    if layer.bias is not None:
        put(structure, layer.bias, structure.values(layer.bias).astype(np.float64) + values)
        return
    taken = set(structure.parameters) | set(structure.producer) | set(structure.inputs)
    name = fresh(f"{layer.weight}_bias", taken)
    tensor = structure.graph.initializer.add()
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(values, dtype=np.float32), name))
    structure.parameters[name] = tensor
    structure.consumers[name].append(layer.node)
    while len(layer.node.input) < 3:
        layer.node.input.append("")
    layer.node.input[2] = name


def inferred(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Give the shape of each tensor that has a fixed one (native code)."""
    found = {}
    for value in (*_inferred(model), *model.graph.input, *model.graph.value_info, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            found[value.name] = tuple(d.dim_value for d in dims)
    return found


def padding(node: onnx.NodeProto, spatial: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int]]:
    """Give the zeros before and after each spatial axis of a Conv's input, as its attributes ask."""
    rank = len(spatial)
    mode = attribute(node, "auto_pad", b"NOTSET")
    if mode == b"VALID":
        return [(0, 0)] * rank
    pads = list(attribute(node, "pads", [0] * 2 * rank))
    if mode == b"NOTSET":
        return list(zip(pads[:rank], pads[rank:], strict=True))
    strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
    found = []
    for size, width, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size)
        found.append((total // 2, total - total // 2) if mode == b"SAME_UPPER" else (total - total // 2, total // 2))
    return found


def patches(layer: Linear, data: NDArray[Any], chosen: NDArray[np.float64] | None = None) -> NDArray[np.float32] | None:
    """Give what the layer multiplies its weights with, one row an output position.

    Parameters
    ----------
    layer : Linear
    data : ndarray of float32
        Its input.
    chosen : ndarray of float in 0 … 1, optional
        Which positions, as shares of their number; all of them where None.

    Returns
    -------
    ndarray of float32, shape [positions, groups, inputs of a group x positions of the kernel]
        None for a layer whose input can't be written so (ConvTranspose).
    """
    if layer.node.op_type == "ConvTranspose":
        return None
    if layer.node.op_type != "Conv":
        rows = data.reshape(-1, layer.inputs)
        return _pick(rows, chosen).reshape(-1, 1, layer.inputs).astype(np.float32, copy=False)
    kernel, rank = layer.shape[2:], data.ndim - 2
    strides = attribute(layer.node, "strides", [1] * rank)
    dilations = attribute(layer.node, "dilations", [1] * rank)
    padded = np.pad(data, [(0, 0), (0, 0), *padding(layer.node, data.shape[2:], kernel)])
    reach = [(width - 1) * step + 1 for width, step in zip(kernel, dilations, strict=True)]
    windows = sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    every: tuple[Any, ...] = tuple(slice(None, None, step) for step in strides)
    inside: tuple[Any, ...] = tuple(slice(None, None, step) for step in dilations)
    windows = windows[(slice(None), slice(None), *every, *inside)]  # [n, channels, *positions, *kernel]
    where = windows.shape[2 : 2 + rank]
    flat = np.arange(windows.shape[0] * int(np.prod(where)))
    picked = np.unravel_index(_pick(flat, chosen), (windows.shape[0], *where))
    index: tuple[Any, ...] = (picked[0], slice(None), *picked[1:])
    rows = windows[index]  # [chosen, channels, *kernel]
    return np.ascontiguousarray(rows, dtype=np.float32).reshape(rows.shape[0], layer.groups, -1)


def _pick(rows: NDArray[Any], chosen: NDArray[np.float64] | None) -> NDArray[Any]:
    if chosen is None or chosen.size >= rows.shape[0]:
        return rows
    picked: NDArray[Any] = rows[(chosen * rows.shape[0]).astype(np.intp)]
    return picked
