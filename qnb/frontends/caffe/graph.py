"""The ONNX graph in the making: ops, constants, the shape of every tensor, and which tensor a blob is at the moment.

Caffe lets a layer write over its input; tensors are written once, so a blob's name moves from tensor to tensor. Knows
nothing of Caffe's layer types.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb.frontends.caffe.network import MAX_AXES, MAX_ELEMENTS, Layer, Shape

if TYPE_CHECKING:
    import onnx

__all__ = ["OPSET", "Graph", "Op"]

OPSET = 20
_IR_VERSION = 10


@dataclass
class Op:
    """One op: an ONNX one, or ``Affine`` (a gain and a bias for each channel) until it is folded or written out."""

    type: str
    layer: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)


class Graph:
    """Ops in order.

    Attributes
    ----------
    ops : list of Op
    constants : dict of str to ndarray
    shapes : dict of str to Shape
        Of every tensor that is no constant.
    blobs : dict of str to str
        The tensor that each blob is at the moment.
    """

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.constants: dict[str, np.ndarray] = {}
        self.shapes: dict[str, Shape] = {}
        self.blobs: dict[str, str] = {}
        self.inputs: list[str] = []
        self._taken: set[str] = set()

    def input(self, name: str, shape: Shape) -> None:
        """Add an input; it keeps its name."""
        self.inputs.append(name)
        self._taken.add(name)
        self.shapes[name] = shape
        self.blobs[name] = name

    def add(self, layer: Layer, kind: str, inputs: Sequence[str], shape: Sequence[int], **attributes: Any) -> str:
        """Add an op with one output; give that tensor.

        Raises
        ------
        ExportError
            If the output would be empty or absurdly large.
        """
        return self.add_many(layer, kind, inputs, [shape], **attributes)[0]

    def add_many(
        self, layer: Layer, kind: str, inputs: Sequence[str], shapes: Sequence[Sequence[int]], **attributes: Any
    ) -> list[str]:
        """Add an op with several outputs; as `add`."""
        outputs = []
        for shape in shapes:
            sizes = tuple(int(size) for size in shape)
            self.check(layer, sizes)
            outputs.append(self._fresh(layer.name))
            self.shapes[outputs[-1]] = sizes
        self.ops.append(Op(kind, layer.name, list(inputs), outputs, attributes))
        return outputs

    def check(self, layer: Layer, shape: Shape) -> None:
        """Refuse an output that would be empty or absurdly large."""
        if len(shape) > MAX_AXES or any(size < 1 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise layer.fails(
                f"its output would have the shape {'x'.join(map(str, shape))}",
                "see its parameters and the shapes of its inputs; shapes=… sets those of the network's inputs",
            )

    def constant(self, layer: Layer, what: str, values: Any, dtype: Any = np.float32) -> str:
        """Keep an array as a constant; give its name."""
        name = self._fresh(f"{layer.name}.{what}")
        self.constants[name] = np.asarray(values, dtype)
        return name

    def scalar(self, layer: Layer, kind: str, tensor: str, value: float, what: str) -> str:
        """Add an elementwise op with one number."""
        return self.add(layer, kind, [tensor, self.constant(layer, what, value)], self.shapes[tensor])

    def elementwise(self, layer: Layer, kind: str, tensor: str, *others: str, **attributes: Any) -> str:
        """Add an op whose output has the shape of its first input."""
        return self.add(layer, kind, [tensor, *others], self.shapes[tensor], **attributes)

    def reshape(self, layer: Layer, tensor: str, shape: Sequence[int]) -> str:
        """Add a Reshape, where the shape is another one."""
        if tuple(shape) == self.shapes[tensor]:
            return tensor
        return self.add(layer, "Reshape", [tensor, self.constant(layer, "shape", shape, np.int64)], shape)

    def _fresh(self, stem: str) -> str:
        name, number = stem, 0
        while name in self._taken:
            number += 1
            name = f"{stem}.{number}"
        self._taken.add(name)
        return name

    # --- after the last layer ---------------------------------------------------------------------------------------

    def prune(self, wanted: Iterable[str]) -> None:
        """Take out ops that none of the tensors needs, and constants that no op reads."""
        needed, kept = set(wanted), []
        for op in reversed(self.ops):
            if needed.intersection(op.outputs):
                needed.update(op.inputs)
                kept.append(op)
        self.ops = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in needed}

    def constant_tensors(self) -> set[str]:
        """Give the tensors that depend on no input."""
        fixed = set(self.constants)
        for op in self.ops:
            if fixed.issuperset(name for name in op.inputs if name):
                fixed.update(op.outputs)
        return fixed

    def name_tensors(self, blobs: Sequence[str]) -> list[str]:
        """Let tensors bear the names of the blobs that they ended as; give the names of those of `blobs`, the outputs.

        Every output becomes a tensor of its own, also where two blobs are the same tensor or one is an input.
        """
        layers = {output: op.layer for op in self.ops for output in op.outputs}
        new: dict[str, str] = {}
        names, copies = [], []
        for blob in blobs:
            tensor = self.blobs[blob]
            name = f"{blob}.out" if blob in self.inputs else blob
            names.append(name)
            if tensor in layers and tensor not in new:
                new[tensor] = name
            else:
                copies.append((tensor, name))
        taken = {*self.inputs, *names}
        for blob, tensor in self.blobs.items():
            if tensor in layers and tensor not in new and blob not in taken:
                new[tensor] = blob
                taken.add(blob)
        for tensor in [*layers, *self.constants]:
            if tensor not in new:
                new[tensor] = self._fresh(f"{tensor}.inner") if tensor in taken else tensor
        for op in self.ops:
            op.inputs = [new.get(name, name) for name in op.inputs]
            op.outputs = [new[name] for name in op.outputs]
        self.shapes = {new.get(name, name): shape for name, shape in self.shapes.items()}
        self.constants = {new[name]: value for name, value in self.constants.items()}
        for tensor, name in copies:
            source = new.get(tensor, tensor)
            self.ops.append(Op("Identity", layers.get(tensor, name), [source], [name]))
            self.shapes[name] = self.shapes[source]
        return names

    def model(self, name: str, outputs: Sequence[str]) -> onnx.ModelProto:
        """Write the graph out."""
        from onnx import TensorProto, helper

        def value(tensor: str) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(tensor, TensorProto.FLOAT, self.shapes[tensor])

        alone: dict[str, int] = {}
        for op in self.ops:
            alone[op.layer] = alone.get(op.layer, 0) + 1
        nodes, counts = [], dict.fromkeys(alone, 0)
        for op in self.ops:
            called = op.layer
            if alone[called] > 1:
                counts[op.layer] += 1
                called = f"{op.layer}.{op.type}_{counts[op.layer]}"
            nodes.append(helper.make_node(op.type, op.inputs, op.outputs, name=called, **op.attributes))
        graph = helper.make_graph(nodes, name, [value(n) for n in self.inputs], [value(n) for n in outputs])
        model: onnx.ModelProto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="qnb.frontends.caffe",
        )
        for constant, array in self.constants.items():  # made in place: they are most of the memory
            made = model.graph.initializer.add(name=constant, dims=array.shape)
            made.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
            made.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        return model
