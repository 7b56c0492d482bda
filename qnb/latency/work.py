"""The work in a graph as a Hexagon NPU meets it: what each op computes and moves, by kind of op.

Reads a model, changes nothing. Built so that two exports of one network give about the same: layer norms, GELUs and the
like that an exporter took apart are put together again, and quantize/dequantize nodes are seen through. Counts only;
what the work takes in time is said in `estimator`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from qnb.graph import facts
from qnb.graph.facts import Shape
from qnb.latency.fusing import Node, canonical

if TYPE_CHECKING:
    import onnx

__all__ = ["KINDS", "OpWork", "Work", "fingerprint", "rows", "work_of"]

KINDS = (
    "conv",
    "pointwise",
    "grouped",
    "depthwise",
    "transposed",
    "linear",
    "matmul",
    "recurrent",
    "elementwise",
    "activation",
    "softmax",
    "norm",
    "reduce",
    "pool",
    "resize",
    "layout",
    "copy",
    "free",
    "unknown",
)
"""Kinds of op. ``free``: costs nothing or is merged into its neighbour; ``unknown``: of a type not in the table below."""

_TYPES = {
    "elementwise": "Add Sub Mul Div Pow Min Max Sum Where Equal Greater GreaterOrEqual Less LessOrEqual And Or Not Xor Mod",
    "activation": "Sigmoid HardSigmoid HardSwish Swish LeakyRelu PRelu Tanh Erf Gelu Exp Log Sqrt Elu Celu Selu Mish Neg "
    "Abs Softplus Softsign Sin Cos Round Floor Ceil Reciprocal Sign ThresholdedRelu",
    "softmax": "Softmax LogSoftmax",
    "norm": "LayerNormalization InstanceNormalization GroupNormalization RMSNormalization BatchNormalization "
    "LpNormalization LRN MeanVarianceNormalization",
    "reduce": "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ArgMax ArgMin TopK "
    "CumSum GlobalAveragePool GlobalMaxPool",
    "pool": "MaxPool AveragePool LpPool",
    "resize": "Resize Upsample GridSample",
    "layout": "Transpose DepthToSpace SpaceToDepth",
    "copy": "Concat Slice Split Pad Gather GatherElements GatherND ScatterND ScatterElements Expand Tile OneHot Trilu Cast",
    "recurrent": "LSTM GRU RNN",
    "free": "Reshape Squeeze Unsqueeze Flatten Identity Dropout Shape Size Constant ConstantOfShape Range Relu Clip "
    "QuantizeLinear DequantizeLinear",
}
_KIND_OF = {op: kind for kind, ops in _TYPES.items() for op in ops.split()}
_LANES = 32
"""Channels that the matrix unit takes at a time: fewer are filled up with zeros."""


@dataclass(frozen=True)
class OpWork:
    """What one op computes and moves.

    Attributes
    ----------
    name, op_type : str
        As in the graph; an op that was put together again bears the name of its last node.
    kind : str
        One of `KINDS`.
    macs : int
        Multiply-accumulates.
    padded_macs : int
        The same with input and output channels filled up to 32 each, as the matrix unit works.
    inputs, outputs : int
        Elements of activations read and written.
    weights : int
        Elements of constants; those that several ops share count at the first.
    """

    name: str
    op_type: str
    kind: str
    macs: int
    padded_macs: int
    inputs: int
    outputs: int
    weights: int


@dataclass(frozen=True)
class Work:
    """The work in one graph.

    Attributes
    ----------
    ops : tuple of OpWork
        In graph order.
    edge : int
        Elements of the graph's own inputs and outputs.
    """

    ops: tuple[OpWork, ...]
    edge: int

    @cached_property
    def totals(self) -> dict[str, dict[str, int]]:
        """Sums by kind: ``count``, ``macs``, ``padded_macs``, ``inputs``, ``outputs``, ``weights``."""
        fields = ("macs", "padded_macs", "inputs", "outputs", "weights")
        found = {kind: dict.fromkeys(("count", *fields), 0) for kind in KINDS}
        for op in self.ops:
            row = found[op.kind]
            row["count"] += 1
            for field in fields:
                row[field] += getattr(op, field)
        return found

    def total(self, field: str, kinds: Iterable[str] = KINDS) -> int:
        """Sum a field over kinds of op."""
        return sum(self.totals[kind][field] for kind in kinds)

    @property
    def unknown(self) -> list[str]:
        """Types of ops that no kind is known for."""
        return sorted({op.op_type for op in self.ops if op.kind == "unknown"})


def work_of(model: onnx.ModelProto) -> Work:
    """Count the work of a graph, op by op.

    Parameters
    ----------
    model : onnx.ModelProto
        A model with all shapes known, in float or with quantize/dequantize nodes. The content of weights is not read.

    Raises
    ------
    BadInput
        If a shape is unknown.
    """
    inputs, outputs = facts.io_specs(model)
    nodes, shapes, constants = canonical(model)
    counted: set[str] = set()
    ops = []
    for node in nodes:
        names = [name for name in dict.fromkeys(node.inputs) if name in constants and name not in counted]
        counted.update(names)
        ops.append(_op(node, shapes, constants, sum(math.prod(constants[name]) for name in names)))
    return Work(tuple(ops), sum(math.prod(spec.shape) for spec in (*inputs, *outputs)))


def _op(node: Node, shapes: Mapping[str, Shape], constants: Mapping[str, Shape], weights: int) -> OpWork:
    def shape(name: str) -> Shape:
        return constants[name] if name in constants else shapes[name]

    kind, padded = _matrix_work(node, shape, constants)
    return OpWork(
        name=node.name,
        op_type=node.op_type,
        kind=kind,
        macs=node.macs,
        padded_macs=padded,
        inputs=sum(math.prod(shape(name)) for name in dict.fromkeys(node.inputs) if name not in constants),
        outputs=sum(math.prod(shape(name)) for name in node.outputs),
        weights=weights if kind != "free" else 0,
    )


def _up(channels: int) -> int:
    return -(-channels // _LANES) * _LANES


def _matrix_work(node: Node, shape: Callable[[str], Shape], constants: Mapping[str, Shape]) -> tuple[str, int]:
    """Give kind and padded MACs; of an op without MACs only its kind."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return _conv_work(node, shape)
    if node.op_type in ("Gemm", "MatMul"):
        return _product_work(node, shape, constants)
    if node.op_type == "Einsum":
        return "matmul", node.macs
    return _KIND_OF.get(node.op_type, "unknown"), node.macs


def _conv_work(node: Node, shape: Callable[[str], Shape]) -> tuple[str, int]:
    source, weight, out = shape(node.inputs[0]), shape(node.inputs[1]), shape(node.outputs[0])
    groups, kernel = node.attributes.get("group", 1), math.prod(weight[2:])
    transposed = node.op_type == "ConvTranspose"
    places = math.prod((source if transposed else out)[2:]) * out[0]
    cin, cout = source[1] // groups, out[1] // groups
    if groups > 1 and cin == 1:
        return ("transposed" if transposed else "depthwise"), places * kernel * _up(out[1])
    padded = places * kernel * _up(cin) * _up(cout) * groups
    if transposed:
        return "transposed", padded
    return ("grouped" if groups > 1 else "pointwise" if kernel == 1 else "conv"), padded


def _product_work(node: Node, shape: Callable[[str], Shape], constants: Mapping[str, Shape]) -> tuple[str, int]:
    left, out = shape(node.inputs[0]), shape(node.outputs[0])
    length = left[0] if node.attributes.get("transA") else left[-1]
    wide = out[-1] if out else 1
    kind = "linear" if any(name in constants for name in node.inputs[:2]) else "matmul"
    return kind, math.prod(out) // max(wide, 1) * _up(length) * _up(wide)


def fingerprint(found: Work) -> tuple[int, int, int]:
    """Give MACs, weights and number of ops: together they tell one architecture from another."""
    return found.total("macs"), found.total("weights"), len(found.ops)


def rows(found: Work) -> Iterator[dict[str, int | str]]:
    """Give each op as a plain row, for a table."""
    for op in found.ops:
        yield {
            "op_type": op.op_type,
            "kind": op.kind,
            "macs": op.macs,
            "padded_macs": op.padded_macs,
            "inputs": op.inputs,
            "outputs": op.outputs,
            "weights": op.weights,
        }
