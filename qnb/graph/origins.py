"""Which ONNX ops are behind the ops that a runtime made of them, and what those compute and move.

The runtime names what it makes after the ONNX node that it was made of. Its compiler then fuses some of them: the cycles
of both are counted at one, and the other has none. Knows nothing of the runtime itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qnb.graph import facts
from qnb.values import TensorSpec

if TYPE_CHECKING:
    import onnx

__all__ = ["PUT_IN", "Origin", "Precisions", "origins"]

_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout"}
"""Ops that compute and move nothing where they have no cycles of their own."""

_KEEP_VALUES = _VIEWS | {
    *("Transpose", "Slice", "Split", "Gather", "Concat", "MaxPool", "Expand", "Tile", "Pad"),
    *("DepthToSpace", "SpaceToDepth", "ReduceMax", "ReduceMin"),
}
"""Ops whose output is in the precision of their input unless an encoding says otherwise."""

_REST_OF_FUSED = 0.02
"""Matrix work with so small a share of the cycles of the simple op after it was fused into it all the same."""

_QDQ = ("QuantizeLinear", "DequantizeLinear")
PUT_IN = ("Input", "Output", "Transpose", "Cast", *_QDQ)
"""Names that the runtime gives to the first op of a kind that it puts in; those of ONNX nodes they may be too."""
_SUFFIX = re.compile(r"[A-Z_:/.]")
"""What may follow the ONNX op's name: ``node_lstmStridedSlice_3``, ``node_softmax_2``; a digit belongs to the name."""


@dataclass(frozen=True)
class Precisions:
    """How wide tensors are on the NPU.

    Attributes
    ----------
    bits : mapping of str to int
        Width of each quantized tensor.
    float_bits : int
        Width of those that stay in float: 16, or 32.
    biases : frozenset of str
        Quantized tensors that are biases.
    """

    bits: Mapping[str, int] = field(default_factory=dict)
    float_bits: int = 16
    biases: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Origin:
    """What is behind one op of the runtime.

    Attributes
    ----------
    nodes : tuple of str
        ONNX ops; none where the runtime put the op in, such as a change of layout.
    op_type : str
        ONNX type of the one that computes most, or a word for what the runtime put in.
    macs : float
        Multiply-accumulates.
    nbytes : float
        Activations read and written, and weights read, at their width on the NPU; NaN where it is not known.
    precision : str
        Such as ``w8a8``, ``a8`` for an op without weights, ``fp16``.
    """

    nodes: tuple[str, ...]
    op_type: str
    macs: float
    nbytes: float
    precision: str


def origins(
    cycles: Mapping[str, float],
    model: onnx.ModelProto,
    build: onnx.ModelProto | None = None,
    precisions: Precisions | None = None,
    elsewhere: Iterable[str] = (),
) -> dict[str, Origin]:
    """Find what is behind each op of a runtime.

    Where one ONNX op became several, its work is spread over them by their cycles. Where several became one, or the
    compiler counts the cycles of one at another, the work is at the one with the cycles; the op without any has no work.

    Parameters
    ----------
    cycles : mapping of str to float
        The runtime's ops and their cycles.
    model : onnx.ModelProto
        The float model, all shapes known.
    build : onnx.ModelProto, optional
        What was compiled, where it is another: the model with quantize and dequantize nodes.
    precisions : Precisions, optional
        Widths on the NPU; by default all in 16 bits.
    elsewhere : iterable of str
        ONNX ops that this runtime does not run.
    """
    return _Graph(model, build, precisions or Precisions()).behind(cycles, frozenset(elsewhere))


@dataclass(frozen=True)
class _Node:
    name: str
    op_type: str
    inputs: tuple[str, ...]
    weights: tuple[str, ...]
    outputs: tuple[str, ...]
    macs: int


class _Graph:
    def __init__(self, model: onnx.ModelProto, build: onnx.ModelProto | None, precisions: Precisions) -> None:
        self._specs = facts.tensor_specs(model)
        self._precisions = precisions
        constants = {tensor.name for tensor in model.graph.initializer}
        macs = {row["op"]: row["macs"] for row in facts.layers(model)}
        self._nodes = {
            node.name: _Node(
                node.name,
                facts.op_type(node),
                tuple(dict.fromkeys(n for n in node.input if n and n not in constants)),
                tuple(facts.parameters(node, self._specs, constants)),
                tuple(n for n in node.output if n),
                macs[node.name],
            )
            for node in model.graph.node
        }
        self._producer = {t: node for node in self._nodes.values() for t in node.outputs}
        self._consumers: dict[str, list[_Node]] = {}
        for node in self._nodes.values():
            for tensor in node.inputs:
                self._consumers.setdefault(tensor, []).append(node)
        self._inputs, self._outputs = facts.io_specs(model)
        self._ends = {spec.name for spec in self._outputs}
        self._added = _added_nodes(build, self._nodes) if build is not None else {}
        self._widths = self._all_widths()

    # --- which ONNX ops ---------------------------------------------------------------------------------------------

    def behind(self, cycles: Mapping[str, float], elsewhere: frozenset[str]) -> dict[str, Origin]:
        homes = {op: self._home(op) for op in cycles}
        named: dict[str, list[str]] = {}
        for op, home in homes.items():
            if home in self._nodes:
                named.setdefault(home, []).append(op)
        at = self._where_cycles_are(named, cycles, elsewhere)
        nodes: dict[str, list[str]] = {op: [home] if home else [] for op, home in homes.items()}
        for node, ops in at.items():
            for op in ops:
                if node not in nodes[op]:
                    nodes[op].append(node)
        order = {name: number for number, name in enumerate(self._nodes)}
        work = {op: [n for n, ops in at.items() if op in ops] for op in cycles}
        return {
            op: self._origin(op, sorted(nodes[op], key=lambda n: order.get(n, -1)), work[op], at, cycles)
            for op in cycles
        }

    def _home(self, op: str) -> str:
        """Name of the ONNX node that an op is named after, or nothing."""
        if op in self._nodes or op in self._added:
            return op
        if op in PUT_IN:
            return ""
        for names in (self._nodes, self._producer, self._added):
            fits = (n for n in names if op.startswith(n) and n not in PUT_IN and n and _SUFFIX.match(op, len(n)))
            best = max(fits, key=len, default="")
            if best:
                return self._producer[best].name if names is self._producer else best
        return ""

    def _where_cycles_are(
        self, named: Mapping[str, list[str]], cycles: Mapping[str, float], elsewhere: frozenset[str]
    ) -> dict[str, list[str]]:
        """Give, for each ONNX node, the ops at which its cycles are counted; nodes of which nothing is known are left out.

        A node that no op is named after was folded into the one before it, or after it. One whose ops have no cycles was
        fused by the compiler, which counts a chain at its last op: Conv, Add and Relu at the Relu.
        """
        own = {n: [op for op in ops if cycles[op] > 0] for n, ops in named.items()}
        total = {n: sum(cycles[op] for op in ops) for n, ops in own.items()}
        for name in own:
            following = self._next(self._nodes[name]) if self._nodes[name].macs else None
            if following and not following.macs and total[name] < _REST_OF_FUSED * total.get(following.name, 0):
                own[name] = []
        at = {n: ops for n, ops in own.items() if ops}
        for name, node in self._nodes.items():
            if name in at or name in elsewhere or (name in named and node.op_type in _VIEWS):
                continue
            after = node.macs or (name in named and self._feeds_no_matrix_work(node))
            sides = (self._after, self._before) if after else (self._before, self._after)
            found = next((f for f in (side(node, own) for side in sides) if f), None)
            if found:
                at[name] = found
        return at

    def _before(self, node: _Node, own: Mapping[str, list[str]]) -> list[str] | None:
        seen = {node.name}
        while True:
            near = [self._producer[t] for t in node.inputs if t in self._producer]
            near = [n for n in near if n.name not in seen and self._is_only_read_once(n)]
            if not near:
                return None
            for candidate in near:
                if own.get(candidate.name):
                    return own[candidate.name]
            node = near[0]
            seen.add(node.name)

    def _after(self, node: _Node, own: Mapping[str, list[str]]) -> list[str] | None:
        following = self._next(node)
        while following is not None:
            if own.get(following.name):
                return own[following.name]
            following = self._next(following)
        return None

    def _next(self, node: _Node) -> _Node | None:
        """Give the only reader of a node's only output, or None."""
        return self._consumers[node.outputs[0]][0] if self._is_only_read_once(node) else None

    def _feeds_no_matrix_work(self, node: _Node) -> bool:
        return not any(c.macs for t in node.outputs for c in self._consumers.get(t, ()))

    def _is_only_read_once(self, node: _Node) -> bool:
        read = [c for t in node.outputs for c in self._consumers.get(t, ())]
        return len(read) == 1 and len(node.outputs) == 1 and node.outputs[0] not in self._ends

    # --- what they compute and move ---------------------------------------------------------------------------------

    def _origin(
        self,
        op: str,
        nodes: Sequence[str],
        work: Sequence[str],
        at: Mapping[str, list[str]],
        cycles: Mapping[str, float],
    ) -> Origin:
        if not nodes:
            return self._put_in(op)
        if nodes[0] in self._added:
            return self._added_origin(self._added[nodes[0]])
        known = [self._nodes[n] for n in nodes if n in self._nodes]
        most = max(known, key=lambda n: (n.macs, n.name == self._home(op)))
        precision = self._precision(known)
        if not work:
            return Origin(tuple(nodes), most.op_type, 0.0, 0.0, precision)
        sharing = sorted({o for n in work for o in at[n]})
        share = cycles[op] / sum(cycles[o] for o in sharing)
        together = [self._nodes[n] for n in self._nodes if n in at and set(at[n]) & set(sharing)]
        return Origin(
            tuple(nodes),
            most.op_type,
            share * sum(n.macs for n in together),
            share * self._traffic(together),
            precision,
        )

    def _traffic(self, nodes: Sequence[_Node]) -> float:
        inside = {n.name for n in nodes}
        made = {t for n in nodes for t in n.outputs}
        read = {t for n in nodes for t in n.inputs} - made
        written = {t for t in made if t in self._ends or any(c.name not in inside for c in self._consumers.get(t, ()))}
        total = sum(self._size(t) for t in (*read, *written))
        for node in nodes:
            for weight in node.weights:
                size = self._size(weight)
                if node.op_type == "Gather":  # of a table it reads the rows that it gives
                    size = min(size, sum(self._size(t) for t in node.outputs))
                total += size
        return total

    def _size(self, tensor: str) -> float:
        spec = self._specs.get(tensor)
        return math.prod(spec.shape) * self._widths.get(tensor, self._width(spec)) / 8 if spec else float("nan")

    def _width(self, spec: TensorSpec) -> int:
        return self._precisions.float_bits if "float" in spec.dtype else 8 * max(1, facts.item_size(spec.dtype))

    def _all_widths(self) -> dict[str, int]:
        """Width of every quantized tensor; through ops that keep values the width of what they read."""
        widths = dict(self._precisions.bits)
        for node in self._nodes.values():
            if node.op_type in _KEEP_VALUES and node.inputs and node.inputs[0] in widths:
                for tensor in node.outputs:
                    widths.setdefault(tensor, widths[node.inputs[0]])
        return widths

    def _precision(self, nodes: Iterable[_Node]) -> str:
        activations, weights = [], []
        for node in nodes:
            activations += [self._widths[t] for t in (*node.inputs, *node.outputs) if t in self._widths]
            weights += [self._widths[t] for t in node.weights if t in self._widths and t not in self._precisions.biases]
        if not activations:
            return f"fp{self._precisions.float_bits}"
        return (f"w{max(weights)}" if weights else "") + f"a{max(activations)}"

    # --- what is in no float model -----------------------------------------------------------------------------------

    def _put_in(self, op: str) -> Origin:
        """Describe an op that the runtime put in: it names them after their type."""
        nan, precision = float("nan"), f"fp{self._precisions.float_bits}" if not self._precisions.bits else ""
        if op in ("Input", "Output"):
            specs = self._inputs if op == "Input" else self._outputs
            return Origin((), op, 0.0, float(sum(facts.nbytes(s) for s in specs)), precision)
        kind = next((k for k in ("DequantizeLinear", "QuantizeLinear", "Transpose", "Cast") if k in op), "")
        return Origin((), kind, 0.0, nan, precision)

    def _added_origin(self, node: _Added) -> Origin:
        spec = next((self._specs[t] for t in node.tensors if t in self._specs), None)
        size = float("nan")
        if spec is not None and node.bits:
            float_bits = 32 if node.edge else self._precisions.float_bits
            size = math.prod(spec.shape) * (node.bits + float_bits) / 8
        return Origin((node.name,), node.op_type, 0.0, size, f"a{node.bits}" if node.bits else "")


@dataclass(frozen=True)
class _Added:
    """A node of what was compiled that is not in the float model, as a rule one that quantizes or dequantizes."""

    name: str
    op_type: str
    tensors: tuple[str, ...]
    bits: int
    edge: bool


def _added_nodes(build: onnx.ModelProto, known: Mapping[str, _Node]) -> dict[str, _Added]:
    from onnx import TensorProto

    types = {tensor.name: tensor.data_type for tensor in build.graph.initializer}
    ends = {value.name for value in (*build.graph.input, *build.graph.output)}
    made = {}
    for node in build.graph.node:
        if node.name in known:
            continue
        tensors = [*node.input[:1], *node.output]
        # A tensor of the float model is also read and written under these names.
        plain = [re.sub(r"_(de)?quantized$|_float$", "", t) for t in tensors]
        bits = 0
        if node.op_type in _QDQ and len(node.input) > 2 and node.input[2] in types:
            name = TensorProto.DataType.Name(types[node.input[2]])
            digits = re.search(r"\d+$", name)
            bits = int(digits[0]) if digits else 0
        edge = any(t in ends for t in tensors)
        made[node.name] = _Added(node.name, facts.op_type(node), tuple(dict.fromkeys((*tensors, *plain))), bits, edge)
    return made
