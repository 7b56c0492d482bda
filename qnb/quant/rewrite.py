"""Rewrite: puts encodings into a graph as QuantizeLinear and DequantizeLinear nodes.

Knows graphs and complete encodings; nothing of how they were chosen.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from qnb.errors import BadConfig
from qnb.quant.encodings import Encoding, Encodings
from qnb.quant.follow import read_as
from qnb.quant.structure import Structure, fresh

__all__ = ["Writer"]

CONTRIB = "com.microsoft"
IR_VERSION = 10  # the newest that the pinned ONNX Runtime writes itself


class Writer:
    """Rewrites one prepared graph, node by node in its order."""

    def __init__(self, structure: Structure, encodings: Encodings) -> None:
        self.structure = structure
        self.graph = structure.graph
        self.activations, self.weights = dict(encodings.activations), encodings.weights
        bits = {e.bits for e in (*self.activations.values(), *self.weights.values())}
        if 4 in bits:
            raise BadConfig("a 4-bit encoding", hint="this version of qnb writes 8 and 16 bits")
        # ONNX has per-channel Q/DQ from opset 13 on and 16 bits from 21 on
        self.domain = "" if structure.opset >= 21 or (structure.opset >= 13 and 16 not in bits) else CONTRIB
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
        self.nodes.append(result)
        for index, name in enumerate(node.output):
            final = self.becomes.get(name, name)
            result.output[index] = final
            if final in self.activations:
                if final in self.structure.outputs:
                    result.output[index] = self._fresh(f"{final}_float")
                self._quantize_dequantize(result.output[index], final, self.activations[final])

    def _read(self, name: str, node: onnx.NodeProto) -> str:
        """Give the name under which `node` reads `name`: its dequantized self, converted to the bits of `node`."""
        encoding = self.activations.get(name) or self.weights.get(name)
        if encoding is None:
            return name
        role = self.structure.roles.get(name)
        follows = role is None or role.kind == "constant"
        wanted = read_as(self.structure, self.activations, encoding, node) if follows else encoding
        key = name, wanted.bits
        if key not in self.read_as:
            # a DequantizeLinear of its own, which the execution provider fuses with the QuantizeLinear to a Convert
            again = self._dequantize(self.codes[name], self._fresh(f"{name}_to_{wanted.dtype}"), name, encoding)
            self._quantize_dequantize(again, name, wanted)
        return self.read_as[key]

    def _parameter(self, name: str, encoding: Encoding) -> None:
        self.codes[name] = self._fresh(f"{name}_quantized")
        self.constants.append(numpy_helper.from_array(encoding.quantize(self.structure.values(name)), self.codes[name]))
        out = self._fresh(f"{name}_dequantized")
        self.read_as[name, encoding.bits] = self._dequantize(self.codes[name], out, name, encoding)

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
            for stored, values in zip(
                self.grids[key],
                (encoding.scale.astype(np.float32), encoding.zero_point.astype(encoding.dtype)),
                strict=True,
            ):
                self.constants.append(numpy_helper.from_array(values.reshape(shape), stored))
        return self.grids[key]

    def _fresh(self, name: str) -> str:
        name = fresh(name, self.taken)
        self.taken.add(name)
        return name
