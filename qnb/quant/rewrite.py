"""Rewrite: puts encodings into a graph as QuantizeLinear and DequantizeLinear nodes.

Knows graphs and complete encodings; nothing of how they were chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from qnb.quant.encodings import Encoding, Encodings
from qnb.quant.follow import node_bits, read_as
from qnb.quant.structure import Structure, fresh

__all__ = ["IR_VERSION", "Writer"]

CONTRIB = "com.microsoft"
IR_VERSION = 10  # the newest that the pinned ONNX Runtime writes itself


class Writer:
    """Rewrites one prepared graph, node by node in its order."""

    def __init__(self, structure: Structure, encodings: Encodings) -> None:
        self.structure = structure
        self.graph = structure.graph
        self.activations, self.weights = dict(encodings.activations), encodings.weights
        bits = {e.bits for e in (*self.activations.values(), *self.weights.values())}
        # ONNX has per-channel Q/DQ from opset 13 on, 4 and 16 bits from 21 on
        self.domain = "" if structure.opset >= 21 or (structure.opset >= 13 and not bits & {4, 16}) else CONTRIB
        self.taken = {n.name for n in self.graph.node} | set(structure.parameters) | set(structure.inputs)
        self.taken |= {name for n in self.graph.node for name in (*n.input, *n.output)}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.grids: dict[tuple[str, int], tuple[str, str]] = {}
        self.codes: dict[str, str] = {}  # tensor -> its quantized self, in its own encoding
        self.read_as: dict[tuple[str, int], str] = {}  # tensor and bits -> name of its dequantized self
        self.becomes: dict[str, str] = {}  # tensor -> what its producer writes once the clip behind it is dropped
        self.dropped: set[str] = set()
        for name in structure.fused:
            self._fuse(name)

    def write(self) -> onnx.ModelProto:
        """Give the model."""
        for name, encoding in self.weights.items():
            self._parameter(name, encoding)
        for name in self.structure.inputs:
            if name in self.activations:
                self._quantize_dequantize(name, name, self.activations[name])
        for node in self.graph.node:
            if node.name not in self.dropped:
                self._node(node)
        used = {name for node in self.nodes for name in node.input} | self.structure.outputs
        kept = [tensor for tensor in (*self.graph.initializer, *self.constants) if tensor.name in used]
        stated = [value for value in self.graph.value_info if value.name in used]
        for field, values in (("node", self.nodes), ("initializer", kept), ("value_info", stated)):
            self.graph.ClearField(field)
            getattr(self.graph, field).extend(values)
        model = self.structure.model
        model.ir_version = min(model.ir_version, IR_VERSION)
        if self.domain and self.domain not in {o.domain for o in model.opset_import}:
            model.opset_import.append(helper.make_opsetid(self.domain, 1))
        return model

    def _fuse(self, name: str) -> None:
        """Drop the Relu or Clip behind `name` where the grid of its output clips as well; else give both that grid."""
        steps, end = [], name
        while end in self.structure.fused and end not in self.activations:
            steps.append(self.structure.fused[end])
            end = steps[-1].node.output[0]
        if end not in self.activations or not steps:
            return
        grid = self.activations[end]
        slack = grid.scale[0] / 2
        if all(grid.min[0] >= step.low - slack and grid.max[0] <= step.high + slack for step in steps):
            self.becomes[name] = end
            self.dropped |= {step.node.name for step in steps}
        else:
            self.activations[name] = grid

    def _node(self, node: onnx.NodeProto) -> None:
        data = set(self.structure.data_inputs(node))
        result = onnx.NodeProto()
        result.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in data:
                result.input[index] = self._read(name, node)
        self._keep_float(node, result)
        self.nodes.append(result)
        for index, name in enumerate(node.output):
            final = self.becomes.get(name, name)
            result.output[index] = final
            if final in self.activations:
                if final in self.structure.outputs:
                    result.output[index] = self._fresh(f"{final}_float")
                self._quantize_dequantize(result.output[index], final, self.activations[final])

    def _keep_float(self, node: onnx.NodeProto, result: onnx.NodeProto) -> None:
        """Let a node in float stay in float: ONNX Runtime gives an int8 weight, in silence, to a Conv, ConvTranspose, Gemm
        or MatMul with Add that stands between integers.

        A Clip to the ends of what is read changes nothing, but hides the DequantizeLinear from that.
        """
        weight = self.structure.roles.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None or weight.kind != "weight" or result.input[1] != node.input[1]:
            return
        if (grid := self.activations.get(node.input[0])) is None:
            return
        bounds = []
        for end, value in (("min", grid.min[0]), ("max", grid.max[0])):
            bounds.append(self._fresh(f"{node.name}_{end}"))
            self.constants.append(numpy_helper.from_array(np.array(value, np.float32), bounds[-1]))
        clipped = self._fresh(f"{node.name}_data")
        self.nodes.append(
            helper.make_node("Clip", [result.input[0], *bounds], [clipped], self._fresh(f"{node.name}_Clip"))
        )
        result.input[0] = clipped

    def _read(self, name: str, node: onnx.NodeProto) -> str:
        """Give the name under which `node` reads `name`: its dequantized self, converted to the bits of `node`."""
        encoding = self.activations.get(name) or self.weights.get(name)
        role = self.structure.roles.get(name)
        if encoding is None or (role and node_bits(self.structure, self.activations, node, self.weights) is None):
            return name  # a node that computes in float reads its parameters in float
        follows = role is None or role.kind == "constant"
        wanted = read_as(self.structure, self.activations, encoding, node, self.weights) if follows else encoding
        key = name, wanted.bits
        if key not in self.read_as:
            # a DequantizeLinear of its own, which the execution provider fuses with the QuantizeLinear to a Convert
            again = self._dequantize(self.codes[name], self._fresh(f"{name}_to_{wanted.dtype}"), name, encoding)
            self._quantize_dequantize(again, name, wanted)
        return self.read_as[key]

    def _parameter(self, name: str, encoding: Encoding) -> None:
        self.codes[name] = self._fresh(f"{name}_quantized")
        values = self.structure.values(name)
        self.constants.append(_stored(encoding.quantize(values), encoding, self.codes[name]))
        out = self._fresh(f"{name}_dequantized")
        if encoding.blockwise:
            grid = self._blocks(name, encoding, values.shape)
            self._add("DequantizeLinear", [self.codes[name], *grid], out, encoding.block_axis)
            self.nodes[-1].attribute.append(helper.make_attribute("block_size", encoding.block_size))
            self.read_as[name, encoding.bits] = out
        else:
            self.read_as[name, encoding.bits] = self._dequantize(self.codes[name], out, name, encoding)

    def _blocks(self, name: str, encoding: Encoding, shape: tuple[int, ...]) -> tuple[str, str]:
        """Give the names of the blocks' scales and zero points; scales in two levels are dequantized themselves.

        Like that the QNN execution provider recognises a blockwise expansion.
        """
        scale, zero_point = self._fresh(f"{name}_scale"), self._fresh(f"{name}_zero_point")
        self.constants.append(_stored(encoding.per_block(shape, encoding.zero_point), encoding, zero_point))
        if encoding.block_scale is None:
            values = encoding.per_block(shape, encoding.scale).astype(np.float32)
            self.constants.append(numpy_helper.from_array(values, scale))
            return scale, zero_point
        levels = numpy_helper.from_array(
            encoding.per_block(shape, encoding.block_scale).astype(np.uint8), self._fresh(f"{name}_block_scale")
        )
        step = numpy_helper.from_array(encoding.channel_scale.astype(np.float32), self._fresh(f"{name}_channel_scale"))
        zeros = numpy_helper.from_array(np.zeros(encoding.channels, np.uint8), self._fresh(f"{name}_block_zero_point"))
        self.constants += [levels, step, zeros]
        self._add("DequantizeLinear", [levels.name, step.name, zeros.name], scale, encoding.axis)
        return scale, zero_point

    def _quantize_dequantize(self, source: str, name: str, encoding: Encoding) -> None:
        """Quantize the float tensor `source` and dequantize it as the tensor `name`."""
        codes = self._fresh(f"{name}_quantized")
        first = self.codes.setdefault(name, codes) == codes
        out = name if first and name in self.structure.outputs else self._fresh(f"{name}_dequantized")
        self._add("QuantizeLinear", [source, *self._grid(name, encoding)], codes, None)
        self.read_as[name, encoding.bits] = self._dequantize(codes, out, name, encoding)

    def _dequantize(self, codes: str, out: str, name: str, encoding: Encoding) -> str:
        self._add("DequantizeLinear", [codes, *self._grid(name, encoding)], out, encoding.axis)
        return out

    def _add(self, op_type: str, inputs: list[str], output: str, axis: int | None) -> None:
        node = helper.make_node(op_type, inputs, [output], self._fresh(f"{output}_{op_type}"), domain=self.domain)
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self.nodes.append(node)

    def _grid(self, name: str, encoding: Encoding) -> tuple[str, str]:
        """Give the names of scale and zero point, stored once for a tensor and its bits."""
        key = name, encoding.bits
        if key not in self.grids:
            self.grids[key] = self._fresh(f"{name}_scale"), self._fresh(f"{name}_zero_point")
            shape = () if encoding.axis is None else (-1,)
            scale, zero_point = self.grids[key]
            self.constants.append(numpy_helper.from_array(encoding.scale.astype(np.float32).reshape(shape), scale))
            self.constants.append(_stored(encoding.zero_point.reshape(shape), encoding, zero_point))
        return self.grids[key]

    def _fresh(self, name: str) -> str:
        name = fresh(name, self.taken)
        self.taken.add(name)
        return name


def _stored(codes: NDArray[Any], encoding: Encoding, name: str) -> onnx.TensorProto:
    """Give integers as a tensor of the encoding's type; 4-bit ones two a byte, the first in the lower half, as in ONNX."""
    if encoding.bits != 4:
        return numpy_helper.from_array(codes.astype(encoding.dtype), name)
    halves = codes.astype(np.int8).reshape(-1).view(np.uint8) & 0xF
    halves = np.pad(halves, (0, halves.size % 2))
    kind = onnx.TensorProto.INT4 if encoding.signed else onnx.TensorProto.UINT4
    packed = (halves[::2] | halves[1::2] << 4).astype(np.uint8).tobytes()
    return onnx.TensorProto(name=name, data_type=kind, dims=codes.shape, raw_data=packed)
