"""Stripping: QuantizeLinear and DequantizeLinear are taken out of a graph, and what they said is kept as encodings.

The counterpart of `qnb.quant.rewrite`, for graphs of any origin. Knows graphs and encodings; nothing of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qnb.errors import BadInput, ExportError
from qnb.quant.encodings import Encoding, Encodings
from qnb.quant.structure import attribute

__all__ = ["DEQUANTIZE", "MOVES", "QUANTIZE", "Stripped", "counterpart", "renew_nodes", "strip"]

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"

_TYPES: dict[int, tuple[int, bool]] = {
    TensorProto.INT4: (4, True), TensorProto.UINT4: (4, False), TensorProto.INT8: (8, True), TensorProto.UINT8: (8, False),
    TensorProto.INT16: (16, True), TensorProto.UINT16: (16, False), TensorProto.INT32: (32, True),
}  # fmt: skip

MOVES = {
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "SpaceToDepth",
    "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Ops that some tools put between quantize and dequantize: on codes they do what they do on real values."""

_POSITIVE = {"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus", "Sqrt"}
_KEEPS_SIGN = MOVES | {
    "Add", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Mul", "Pad", "ReduceMax", "ReduceMean", "ReduceSum",
    "Resize",
}  # fmt: skip

_SUFFIXES = ("_quantized", "_QuantizeLinear_Output", "_q", "_int8", "_uint8")


def counterpart(node: onnx.NodeProto, op_type: str, source: str, target: str, name: str) -> onnx.NodeProto:
    """Give a Q or DQ of the same grid as `node`, one of them, has; with other tensors and a name of its own."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.op_type, made.name = op_type, name
    made.input[0], made.output[0] = source, target
    return made


def renew_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Give a graph these nodes, some of which may be its own."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


@dataclass(frozen=True)
class Stripped:
    """A float model, and the grids that its tensors had."""

    model: onnx.ModelProto
    encodings: Encodings
    notes: tuple[str, ...]


def strip(model: onnx.ModelProto) -> Stripped:
    """Take Q/DQ out of a graph.

    Weights become what their codes stand for. Quantizers drop a Relu whose output's grid begins at 0, since the grid clips
    as well: it is put back where a grid begins at 0 and what is before it can be negative (as ReLU6, where that is what the
    grids look like). A tensor that is quantized a second time, to be read in other bits, keeps the grid that it has first.

    Parameters
    ----------
    model : onnx.ModelProto
        With constants as initializers, in topological order; not changed.

    Raises
    ------
    ExportError
        If a scale is not a constant, a grid is of no integer type, or ops compute with codes.
    """
    return _Stripper(model).result()


class _Stripper:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.source = model
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.values: dict[str, NDArray[Any]] = {}  # constants that were computed: codes and real values
        self.alias: dict[str, str] = {}  # what Q and DQ write -> the float tensor
        self.codes: dict[str, onnx.NodeProto] = {}  # codes -> the Q that made them
        self.activations: dict[str, Encoding] = {}
        self.weights: dict[str, Encoding] = {}
        self.parameters: dict[str, NDArray[Any]] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.positive: set[str] = set()
        self.notes: list[str] = []
        self.restored: dict[str, onnx.NodeProto] = {}
        self.again: set[str] = set()
        self.outputs = {value.name for value in model.graph.output}
        self.taken = set(self.tensors) | {name for node in model.graph.node for name in (*node.input, *node.output)}
        # what holds codes, and the scales that are dequantized themselves: those of a grid in two levels
        self.coded = {name for node in model.graph.node if node.op_type == QUANTIZE for name in node.output}
        self.scales = {
            node.input[1]: node
            for node in model.graph.node
            if node.op_type == DEQUANTIZE and attribute(node, "block_size", 0)
        }
        self.dequantizer = {node.output[0]: node for node in model.graph.node if node.op_type == DEQUANTIZE}

    def result(self) -> Stripped:
        for node in self.source.graph.node:
            if node.op_type == QUANTIZE:
                self._quantize(node)
            elif node.op_type == DEQUANTIZE:
                self._dequantize(node)
            else:
                self._op(node)
        self._relu6()
        self._name_outputs()
        if self.restored:
            some = ", ".join(map(repr, [*self.restored][:3])) + (" …" if len(self.restored) > 3 else "")
            self.notes.append(
                f"{len(self.restored)} grids that begin at 0 stand for a Relu, which the float model has again: {some}"
            )
        if self.again:
            self.notes.append(
                f"{len(self.again)} tensors have a second grid for ops of other bits; the first is listed"
            )
        return Stripped(self._model(), Encodings(self.activations, self.weights), tuple(self.notes))

    def _model(self) -> onnx.ModelProto:
        made = onnx.ModelProto()
        made.CopyFrom(self.source)
        graph = made.graph
        for field in ("node", "initializer", "value_info"):
            graph.ClearField(field)
        graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input} | self.outputs
        graph.initializer.extend(tensor for name, tensor in self.tensors.items() if name in used - set(self.parameters))
        for name, values in self.parameters.items():
            if name in used:
                graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        domains = {node.domain for node in self.nodes}
        kept = [o for o in made.opset_import if o.domain in domains | {"", "ai.onnx"}]
        del made.opset_import[:]
        made.opset_import.extend(kept)
        del graph.quantization_annotation[:]
        return made

    # --- nodes ---

    def _quantize(self, node: onnx.NodeProto) -> None:
        name = node.input[0]
        values = self._constant(name)
        self.codes[node.output[0]] = node
        if values is not None and name not in self.alias:
            self.values[node.output[0]] = self._grid(node, values.shape).quantize(values)
            if name in self.tensors:
                self.alias[node.output[0]] = name
            return
        real = self.alias.get(name, name)
        encoding = self._grid(node, None)
        if real in self.activations or real in self.again:
            if self.activations.get(real) != encoding:
                self.again.add(real)
        else:
            self._restore_relu(real, encoding)
            self.activations[real] = encoding
        self.alias[node.output[0]] = real

    def _dequantize(self, node: onnx.NodeProto) -> None:
        codes, out = node.input[0], node.output[0]
        values = self._constant(codes)
        if values is None:
            if codes not in self.alias:
                raise ExportError(
                    f"{node.name!r} dequantizes {codes!r}, which no QuantizeLinear wrote",
                    hint="export the model with float inputs and outputs, and with quantize nodes before dequantize nodes",
                )
            self.alias[out] = self.alias[codes]
            return
        encoding = self._grid(node, values.shape)
        real = encoding.dequantize(values)
        if out in self.scales:
            self.values[out] = real
            return
        name = self._parameter_name(codes, out)
        if name in self.parameters and self.weights.get(name) != encoding:
            name = out
        self.parameters[name] = real
        self.weights[name] = encoding
        self.values[out] = real
        self.alias[out] = name

    def _op(self, node: onnx.NodeProto) -> None:
        on_codes = [name for name in node.input if name in self.coded]
        if on_codes and node.op_type not in MOVES:
            raise ExportError(
                f"{node.op_type} {node.name!r} computes with the codes of {on_codes[0]!r}, not with real values",
                hint="make the model in QDQ form, with a dequantize node before each op",
            )
        made = onnx.NodeProto()
        made.CopyFrom(node)
        made.input[:] = [self.alias.get(name, name) for name in node.input]
        self.nodes.append(made)
        data = [name for name in made.input if name and name not in self.tensors]
        clips = node.op_type == "Clip" and len(node.input) > 1 and (low := self._constant(node.input[1])) is not None
        keeps = node.op_type in _KEEPS_SIGN and all(name in self.positive for name in data)
        if node.op_type in _POSITIVE or keeps or (clips and low is not None and low.item() >= 0):
            self.positive |= set(node.output)
        if on_codes:  # what comes out is codes still
            for name in node.output:
                self.alias[name] = name
                self.codes[name] = self.codes.get(on_codes[0], node)
            self.coded |= set(node.output)

    # --- grids ---

    def _constant(self, name: str) -> NDArray[Any] | None:
        if name in self.values:
            return self.values[name]
        return numpy_helper.to_array(self.tensors[name]) if name in self.tensors else None

    def _grid(self, node: onnx.NodeProto, shape: tuple[int, ...] | None) -> Encoding:
        """Read the grid of a Q or DQ node; `shape` is that of what it is for, where that is known."""
        scale = self._constant(node.input[1])
        point = self._constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if scale is None or (point is None and len(node.input) > 2 and node.input[2]):
            raise ExportError(
                f"{node.op_type} {node.name!r} takes its scale or zero point from another op",
                hint="HTP needs grids that are constants: quantize the model statically",
            )
        kind = self._type(node)
        if kind not in _TYPES:
            raise ExportError(
                f"{node.op_type} {node.name!r} makes {TensorProto.DataType.Name(kind).lower()}, which is no integer grid",
                hint="quantize to 4, 8 or 16 bits, and biases to 32",
            )
        bits, signed = _TYPES[kind]
        size = attribute(node, "block_size", 0)
        axis = attribute(node, "axis", 1)
        zeros = np.zeros(scale.shape, np.int64) if point is None else point.astype(np.int64)
        if zeros.size == 1:
            zeros = np.broadcast_to(zeros.reshape(()), scale.shape)
        try:
            if size and scale.ndim > 1:
                return self._blocks(node, bits, signed, scale.astype(np.float64), zeros, axis, size)
            if scale.size == 1:
                return Encoding(bits, signed, scale.astype(np.float64), zeros)
            rank = len(shape) if shape is not None else None
            axis = axis % rank if rank else axis
            return Encoding(bits, signed, scale.astype(np.float64), zeros, axis)
        except BadInput as error:
            raise ExportError(f"{node.op_type} {node.name!r}: {error.what}", hint=error.hint) from error

    def _type(self, node: onnx.NodeProto) -> int:
        if len(node.input) > 2 and node.input[2] in self.tensors:
            return int(self.tensors[node.input[2]].data_type)
        if node.op_type == DEQUANTIZE:
            if node.input[0] in self.tensors:
                return int(self.tensors[node.input[0]].data_type)
            if node.input[0] in self.codes:
                return self._type(self.codes[node.input[0]])
        return int(attribute(node, "output_dtype", 0)) or TensorProto.UINT8

    def _blocks(
        self,
        node: onnx.NodeProto,
        bits: int,
        signed: bool,
        scale: NDArray[Any],
        zeros: NDArray[Any],
        axis: int,
        size: int,
    ) -> Encoding:
        block_axis = axis % scale.ndim
        channel_axis = next(i for i in range(scale.ndim) if i != block_axis)
        grid, points = (np.moveaxis(v, (channel_axis, block_axis), (0, 1)) for v in (scale, zeros))
        rest = tuple(range(2, scale.ndim))
        if (np.ptp(grid, rest) if rest else np.zeros(1)).any() or (np.ptp(points, rest) if rest else np.zeros(1)).any():
            raise ExportError(
                f"{node.op_type} {node.name!r} has scales along more than two axes",
                hint="QNN takes blocks along one axis, with a scale per channel of one other",
            )
        grid, points = (values.reshape(*values.shape[:2], -1)[:, :, 0] for values in (grid, points))
        if (made := self._two_levels(node, bits, grid, channel_axis, block_axis, size)) is not None:
            return made
        return Encoding(bits, signed, grid, points, channel_axis, block_axis, size)

    def _two_levels(
        self, node: onnx.NodeProto, bits: int, grid: NDArray[Any], channel_axis: int, block_axis: int, size: int
    ) -> Encoding | None:
        """Give the grid in two levels where the scale is dequantized itself, from integers and a scale per channel."""
        scaled = self.dequantizer.get(node.input[1])
        if scaled is None:
            return None
        step = self._constant(scaled.input[1])
        if step is None or step.size not in (1, grid.shape[0]):
            return None
        channel = np.broadcast_to(step.astype(np.float64).ravel(), grid.shape[:1])
        levels = np.rint(grid / channel[:, None]).astype(np.int64)
        return Encoding.lpbq(bits, channel, levels, axis=channel_axis, block_axis=block_axis, block_size=size)

    # --- names ---

    def _parameter_name(self, codes: str, out: str) -> str:
        """Give a parameter the name that it had in float, as far as that can be told."""
        if codes in self.alias:  # quantized in the graph
            return self.alias[codes]
        for suffix in _SUFFIXES:
            if codes.endswith(suffix) and (name := codes.removesuffix(suffix)) and name not in self.taken:
                return name
        return out

    def _restore_relu(self, name: str, encoding: Encoding) -> None:
        if encoding.min.min() < 0:
            return
        producer = next((node for node in reversed(self.nodes) if name in node.output), None)
        if name in self.positive or producer is None:
            self.positive.add(name)
            return
        before = self._fresh(f"{name}_unclipped")
        producer.output[:] = [before if out == name else out for out in producer.output]
        for node in self.nodes:
            node.input[:] = [before if read == name else read for read in node.input]
        self.nodes.append(helper.make_node("Relu", [before], [name], self._fresh(f"{name}_Relu")))
        self.positive.add(name)
        self.restored[name] = self.nodes[-1]

    def _relu6(self) -> None:
        """Take every Relu that was put back for a ReLU6, if no grid ends above 6 and one ends just there."""
        grids = [self.activations[name] for name in self.restored]
        reach = [(grid.max.max() - 6) / grid.scale.max() for grid in grids]
        if not reach or not -0.5 <= max(reach) <= 0.5:
            return
        bounds = [self._fresh("relu6_low"), self._fresh("relu6_high")]
        for bound, value in zip(bounds, (0, 6), strict=True):
            self.tensors[bound] = numpy_helper.from_array(np.array(value, np.float32), bound)
        for node in self.restored.values():
            node.op_type = "Clip"
            node.input.extend(bounds)

    def _name_outputs(self) -> None:
        """Let the float tensor behind an output's DQ have the output's name."""
        inputs = {value.name for value in self.source.graph.input}
        for output in sorted(self.outputs & set(self.alias)):
            name = self.alias[output]
            if name == output:
                continue
            if name in inputs | self.outputs | set(self.parameters) | set(self.tensors):
                self.nodes.append(helper.make_node("Identity", [name], [output], self._fresh(f"{output}_Identity")))
                continue
            for node in self.nodes:
                node.input[:] = [output if n == name else n for n in node.input]
                node.output[:] = [output if n == name else n for n in node.output]
            for other, target in self.alias.items():
                if target == name:
                    self.alias[other] = output
            if name in self.activations:
                self.activations[output] = self.activations.pop(name)

    def _fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name
