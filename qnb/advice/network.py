"""An ONNX graph as rules look at it: ops by name, who makes and who reads a tensor, shapes, constants, MACs.

Reads, changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb.graph import facts

if TYPE_CHECKING:
    import onnx

    from qnb.values import TensorSpec

__all__ = ["CONVOLUTIONS", "Network"]

CONVOLUTIONS = ("Conv", "ConvTranspose")
_DENSE = ("Gemm", "MatMul")


class Network:
    """An ONNX model.

    Parameters
    ----------
    model : onnx.ModelProto
        Its shapes need not all be known.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.model = model
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.outputs = {value.name for value in model.graph.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}

    @cached_property
    def by_name(self) -> dict[str, onnx.NodeProto]:
        """Ops by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def specs(self) -> dict[str, TensorSpec]:
        """Dtype and shape of each tensor where they are known."""
        return facts.tensor_specs(self.model)

    @cached_property
    def layers(self) -> dict[str, dict[str, Any]]:
        """Row of each op: see `qnb.graph.facts.layers`; empty where a shape is not known."""
        if facts.unknown_shapes(self.model):
            return {}
        return {row["op"]: row for row in facts.layers(self.model)}

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(row["macs"] for row in self.layers.values())

    def of_type(self, *types: str) -> Iterator[onnx.NodeProto]:
        """Ops of ONNX's own of these types."""
        return (node for node in self.nodes if facts.op_type(node) in types)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is stored in the model."""
        return name in self._initializers

    def array(self, name: str) -> np.ndarray | None:
        """Value of a constant, or None where the tensor is none."""
        from onnx import numpy_helper

        tensor = self._initializers.get(name)
        return None if tensor is None else np.asarray(numpy_helper.to_array(tensor))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, ``()`` where it is not known."""
        spec = self.specs.get(name)
        return spec.shape if spec else ()

    def elements(self, name: str) -> int:
        """Elements of a tensor, 0 where its shape is not known."""
        spec = self.specs.get(name)
        return math.prod(spec.shape) if spec else 0

    def weight(self, node: onnx.NodeProto) -> str:
        """Name of the constant that a convolution or dense op multiplies with, or ``""``."""
        if node.op_type not in (*CONVOLUTIONS, *_DENSE) or len(node.input) < 2:
            return ""
        names = (node.input[1], node.input[0]) if node.op_type == "MatMul" else (node.input[1],)
        return next((name for name in names if self.is_constant(name)), "")

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The one op that reads a tensor, or None where there are others, or it is an output."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None
