"""The graph that QNN makes of a model for the NPU, read from its JSON: ops, tensors with their types, and the edge.

Type codes are those of ``Qnn_DataType_t`` and ``Qnn_TensorType_t`` in the public QNN API reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

__all__ = ["NpuGraph", "NpuOp", "NpuTensor"]

_KINDS = {0x00: "int", 0x01: "uint", 0x02: "float", 0x03: "sfixed", 0x04: "ufixed", 0x05: "bool"}
_INPUT, _OUTPUT, _STATIC = 0, 1, 4
CONVERSIONS = ("Quantize", "Dequantize", "Convert", "Cast")


@dataclass(frozen=True)
class NpuTensor:
    """A tensor: ``dtype`` such as ``ufixed8`` or ``float32``; role is "input", "output", "constant" or ""."""

    name: str
    kind: str
    bits: int
    shape: tuple[int, ...]
    role: str

    @property
    def dtype(self) -> str:
        """Kind and bits."""
        return f"{self.kind}{self.bits}"

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.ceil(math.prod(self.shape) * self.bits / 8)


@dataclass(frozen=True)
class NpuOp:
    """An op of the QNN graph; constants are left out of its inputs."""

    name: str
    type: str
    inputs: tuple[NpuTensor, ...]
    outputs: tuple[NpuTensor, ...]


class NpuGraph:
    """A QNN graph.

    Parameters
    ----------
    content : mapping
        The JSON that the runtime writes.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        graph = content["graph"]
        self.tensors = {name: _tensor(name, value) for name, value in graph["tensors"].items()}
        self.ops = self._live(
            NpuOp(name, node["type"], self._known(node["input_names"]), self._known(node["output_names"]))
            for name, node in graph["nodes"].items()
        )

    def _known(self, names: list[str]) -> tuple[NpuTensor, ...]:
        found = [self.tensors[name] for name in names if name in self.tensors]
        return tuple(tensor for tensor in found if tensor.role != "constant")

    @staticmethod
    def _live(ops: Iterable[NpuOp]) -> list[NpuOp]:
        """Leave out what no output needs: the runtime writes such ops, and the compiler drops them."""
        every = list(ops)
        made = {tensor.name: op for op in every for tensor in op.outputs}
        live: set[str] = set()
        waiting = [op for op in every if any(tensor.role == "output" for tensor in op.outputs)]
        while waiting:
            op = waiting.pop()
            if op.name not in live:
                live.add(op.name)
                waiting += [made[tensor.name] for tensor in op.inputs if tensor.name in made]
        return [op for op in every if op.name in live]

    @cached_property
    def producer(self) -> dict[str, NpuOp]:
        """Op that makes a tensor, by the tensor's name."""
        return {tensor.name: op for op in self.ops for tensor in op.outputs}

    @cached_property
    def readers(self) -> dict[str, list[NpuOp]]:
        """Ops that read a tensor, by the tensor's name."""
        found: dict[str, list[NpuOp]] = {}
        for op in self.ops:
            for tensor in op.inputs:
                found.setdefault(tensor.name, []).append(op)
        return found

    def before(self, op: NpuOp) -> list[NpuOp]:
        """Ops whose outputs an op reads."""
        return [self.producer[t.name] for t in op.inputs if t.name in self.producer]

    def after(self, op: NpuOp) -> list[NpuOp]:
        """Ops that read what an op makes."""
        return [reader for t in op.outputs for reader in self.readers.get(t.name, [])]

    @cached_property
    def at_edge(self) -> set[str]:
        """Names of the conversions and transposes between the graph's inputs or outputs and its first or last real op."""
        return self._edge(forward=True) | self._edge(forward=False)

    def _edge(self, *, forward: bool) -> set[str]:
        role = "input" if forward else "output"
        found: set[str] = set()
        waiting = [op for op in self.ops if any(t.role == role for t in (op.inputs if forward else op.outputs))]
        while waiting:
            op = waiting.pop()
            if op.name not in found and op.type in (*CONVERSIONS, "Transpose"):
                found.add(op.name)
                waiting += self.after(op) if forward else self.before(op)
        return found


def _tensor(name: str, value: Mapping[str, Any]) -> NpuTensor:
    code = int(value["data_type"])
    role = {_INPUT: "input", _OUTPUT: "output", _STATIC: "constant"}.get(int(value["type"]), "")
    return NpuTensor(name, _KINDS.get(code >> 8, "other"), _bits(code & 0xFF), tuple(map(int, value["dims"])), role)


def _bits(code: int) -> int:
    return int(f"{code:x}") if f"{code:x}".isdigit() else 8  # 0x32 stands for 32
