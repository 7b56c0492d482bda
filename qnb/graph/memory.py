"""What a graph holds in memory op by op, and with how many bits: counted from its shapes, nothing is run.

The order is that of the file, which is an order in which the ops can run, and every tensor is whole. A compiler for an NPU
tiles tensors and reorders ops, so that this is what there is to hold, not what a chip was seen to hold. Knows nothing of
hardware, and encodings only as a number of bits for a tensor's name.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qnb.errors import ArtifactError, BadInput
from qnb.graph.facts import nbytes, op_type, tensor_specs
from qnb.values import TensorSpec

if TYPE_CHECKING:
    import onnx

__all__ = ["VIEWS", "Footprint", "footprint", "memory", "precisions", "read_structure"]

VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Ops whose output is their input's bytes under another shape: they hold nothing more."""


def read_structure(path: Path | str) -> onnx.ModelProto:
    """Read a model without the weights that are in files of their own.

    Raises
    ------
    ArtifactError
        If it can't be read.
    """
    import onnx

    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # OSError, or protobuf's DecodeError
        raise ArtifactError(
            f"{path} can't be read as ONNX: {error}", hint="run the step that made it again, or load a saved copy"
        ) from error


def memory(
    model: onnx.ModelProto, bits: Mapping[str, int] | None = None, *, float_bits: int | None = None
) -> list[dict[str, Any]]:
    """Give one row per op, in graph order: the bytes of activations that are alive while it runs.

    A tensor is alive from the op that makes it (an input of the graph from the first op on) to the last op that reads it
    (an output of the graph to the last op). While an op runs both its inputs and its outputs are alive. `VIEWS` hand on
    the bytes that they get, and move none. A tensor inside a fused op, such as a convolution's output before its ReLU, is
    never held (see `bits`): the first of the fused ops writes what the last one gives.

    Parameters
    ----------
    model : onnx.ModelProto
        A model with all shapes known (see :func:`qnb.graph.normalise.normalise`).
    bits : mapping of str to int, optional
        Bits of each tensor that is quantized. A float tensor without, whose only reader's output has some, is inside a
        fused op. By default every tensor has the bits of its type.
    float_bits : int, optional
        Bits of float tensors that are not in `bits`; by default those of their type.

    Returns
    -------
    list of dict
        ``op``, ``op_type``, ``live_bytes`` (activations alive while the op runs), ``read_bytes`` and ``written_bytes``
        (activations), ``weight_bytes`` (constants that the op reads; what several ops share counts at each).

    Raises
    ------
    BadInput
        If a shape is unknown.
    """
    graph = _Graph.of(model, bits or {}, float_bits)
    born = dict.fromkeys(map(graph.held_as, graph.inputs), 0)
    dies = dict.fromkeys(born, 0)  # an input that nothing reads is there for the first op: it was handed over
    traffic: list[tuple[int, int]] = []
    for at, op in enumerate(graph.ops):
        read = {graph.held_as(name) for name in op.inputs if name not in graph.fused} - set(
            map(graph.held_as, op.outputs)
        )
        written = {name for name in map(graph.held_as, op.outputs) if name not in born}
        for name in (*map(graph.held_as, op.inputs), *map(graph.held_as, op.outputs)):
            born.setdefault(name, at)
            dies[name] = at
        traffic.append((sum(map(graph.size, read)), sum(map(graph.size, written))))
    for name in graph.outputs:
        dies[graph.held_as(name)] = len(graph.ops) - 1
    changes = [0] * (len(graph.ops) + 1)
    for name, first in born.items():
        changes[first] += graph.size(name)
        changes[dies[name] + 1] -= graph.size(name)
    rows, live = [], 0
    for at, (op, (read_bytes, written_bytes)) in enumerate(zip(graph.ops, traffic, strict=True)):
        live += changes[at]
        rows.append(
            {
                "op": op.name,
                "op_type": op.op_type,
                "live_bytes": live,
                "read_bytes": read_bytes,
                "written_bytes": written_bytes,
                "weight_bytes": sum(map(graph.size, op.constants)),
            }
        )
    return rows


@dataclass(frozen=True)
class Footprint:
    """What a graph's tensors take.

    Attributes
    ----------
    largest : str
        Name of the largest tensor, an activation or a constant.
    largest_bytes : int
    constant_bytes : int
        All constants, each once.
    live_bytes : int
        The most that activations take at one time, as `memory` counts them.
    """

    largest: str
    largest_bytes: int
    constant_bytes: int
    live_bytes: int


def footprint(
    model: onnx.ModelProto, bits: Mapping[str, int] | None = None, *, float_bits: int | None = None
) -> Footprint:
    """Add up what a graph's tensors take; the arguments are those of `memory`."""
    graph = _Graph.of(model, bits or {}, float_bits)
    constants = {name for op in graph.ops for name in op.constants}
    tensors = constants.union(graph.inputs, *(op.outputs for op in graph.ops)) - graph.fused.keys()
    largest = max(sorted(tensors), key=graph.size, default="")
    live = max((row["live_bytes"] for row in memory(model, bits, float_bits=float_bits)), default=0)
    return Footprint(largest, graph.size(largest) if largest else 0, sum(map(graph.size, constants)), live)


def precisions(
    model: onnx.ModelProto,
    bits: Mapping[str, int] | None = None,
    weights: Collection[str] = (),
    *,
    float_bits: int | None = None,
) -> list[dict[str, Any]]:
    """Give one row per op, in graph order: the precision of its weights and of what it writes.

    Parameters
    ----------
    model, bits, float_bits
        As for `memory`.
    weights : collection of str
        Those of `bits` that are weights. Other constants count as weights if they are of float type and have at least two
        dimensions.

    Returns
    -------
    list of dict
        ``op``, ``op_type``, ``weights`` and ``activations`` (``int8``, ``fp16``, …; ``""`` for an op without weights),
        ``weight_bits`` and ``activation_bits`` (NaN without), ``weight_bytes`` of these weights.
    """
    given = bits or {}
    graph = _Graph.of(model, given, float_bits)
    rows = []
    for op in graph.ops:
        own = [
            name
            for name in op.constants
            if name in weights
            or (name not in given and "float" in graph.specs[name].dtype and len(graph.specs[name].shape) >= 2)
        ]
        written = [graph.written_as(name) for name in op.outputs]
        row: dict[str, Any] = {"op": op.name, "op_type": op.op_type}
        for kind, names in (("weight", own), ("activation", written)):
            lowest = min(names, key=graph.bits_of, default="")
            row[f"{kind}s"] = graph.precision(lowest) if lowest else ""
            row[f"{kind}_bits"] = float(graph.bits_of(lowest)) if lowest else float("nan")
        rows.append(row | {"weight_bytes": sum(graph.size(name) for name in own)})
    return rows


@dataclass(frozen=True)
class _Op:
    """An op with its tensors, each named once: activations read, constants read, activations written."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class _Graph:
    ops: tuple[_Op, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    specs: Mapping[str, TensorSpec]
    bits: Mapping[str, int]
    float_bits: int | None
    roots: Mapping[str, str]
    fused: Mapping[str, str]

    @classmethod
    def of(cls, model: onnx.ModelProto, bits: Mapping[str, int], float_bits: int | None) -> _Graph:
        specs = tensor_specs(model)
        constants = {tensor.name for tensor in model.graph.initializer}
        constants |= {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
        inputs = tuple(value.name for value in model.graph.input if value.name not in constants)
        known = {*inputs, *(name for node in model.graph.node for name in node.output if name)} - constants
        ops = []
        for node in model.graph.node:
            if node.op_type == "Constant":
                continue
            read = list(dict.fromkeys(name for name in _read_by(node) if name))
            ops.append(
                _Op(
                    node.name,
                    op_type(node),
                    tuple(name for name in read if name in known),
                    tuple(name for name in read if name in constants and name in specs),
                    tuple(name for name in node.output if name),
                )
            )
            for name in (*ops[-1].inputs, *ops[-1].outputs):
                if name not in specs:
                    raise BadInput(
                        f"the shape of tensor {name!r} of {ops[-1].op_type} {node.name!r} is not known",
                        hint="normalise the model first (qnb.export)",
                    )
        outputs = tuple(value.name for value in model.graph.output if value.name in known)
        roots: dict[str, str] = {}
        for op in ops:
            if op.op_type in VIEWS and op.inputs and len(op.outputs) == 1:
                roots[op.outputs[0]] = roots.get(op.inputs[0], op.inputs[0])
        shared = dict(bits)  # the same bytes have the same bits under all their names
        for name, root in roots.items():
            if name in bits:
                shared.setdefault(root, bits[name])
        shared |= {name: shared[root] for name, root in roots.items() if root in shared and name not in bits}
        return cls(tuple(ops), inputs, outputs, specs, shared, float_bits, roots, _fused(ops, outputs, specs, shared))

    def held_as(self, name: str) -> str:
        """Name of the tensor whose bytes these are; inside a fused op, of what leaves it."""
        name = self.written_as(name)
        return self.roots.get(name, name)

    def bits_of(self, name: str) -> int:
        if name in self.bits:
            return self.bits[name]
        spec = self.specs[name]
        if self.float_bits and "float" in spec.dtype:
            return self.float_bits
        elements = math.prod(spec.shape)
        return 8 * nbytes(spec) // elements if elements else 0

    def size(self, name: str) -> int:
        """Bytes of a tensor, rounded up to a whole byte."""
        return -(-math.prod(self.specs[name].shape) * self.bits_of(name) // 8)

    def precision(self, name: str) -> str:
        """Such as ``int8`` or ``fp16``."""
        kind = "int" if name in self.bits or "float" not in self.specs[name].dtype else "fp"
        return f"{kind}{self.bits_of(name)}"

    def written_as(self, name: str) -> str:
        """Name of the tensor that leaves the fused op in which `name` is."""
        while name in self.fused:
            name = self.fused[name]
        return name


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that an op reads, those that its subgraphs take from outside too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            for child in inner.node:
                yield from _read_by(child)
            yield from (value.name for value in inner.output)


def _fused(
    ops: Iterable[_Op], outputs: Collection[str], specs: Mapping[str, TensorSpec], bits: Mapping[str, int]
) -> dict[str, str]:
    """Give the tensors inside fused ops, each with what its only reader writes.

    What has no encoding, in a graph where its reader's output has one, was not quantized because it is never there.
    """
    if not bits:
        return {}
    ops = list(ops)
    readers: dict[str, list[_Op]] = {}
    for op in ops:
        for name in op.inputs:
            readers.setdefault(name, []).append(op)
    found: dict[str, str] = {}
    for op in reversed(ops):
        for name in op.outputs:
            reading = readers.get(name, [])
            if name in bits or name in outputs or len(reading) != 1 or "float" not in specs[name].dtype:
                continue
            after = reading[0].outputs
            if len(after) == 1 and (after[0] in bits or after[0] in found):
                found[name] = after[0]
    return found
