"""A plain view of a graph in which one thing is one op, whatever the exporter made of it.

Quantize/dequantize pairs are seen through, constants are set apart, and layer norms, GELUs, swishes and biases that were
taken apart are put together. For counting only: nothing here can be run.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from qnb.graph import facts
from qnb.graph.facts import Shape

if TYPE_CHECKING:
    import onnx

__all__ = ["Node", "canonical"]


@dataclass(frozen=True)
class Node:
    """One op: type, the tensors that it reads and writes (constants too), whole-number attributes, and its MACs."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, int] = field(default_factory=dict)
    macs: int = 0


def canonical(model: onnx.ModelProto) -> tuple[list[Node], dict[str, Shape], dict[str, Shape]]:
    """Give the ops, the shapes of activations, and those of constants, by name.

    Raises
    ------
    BadInput
        If a shape is unknown.
    """
    specs = facts.tensor_specs(model)
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    alias: dict[str, str] = {}
    nodes: list[Node] = []
    for proto, row in zip(model.graph.node, facts.layers(model), strict=True):
        inputs = tuple(alias.get(name, name) for name in proto.input if name)
        outputs = tuple(name for name in proto.output if name)
        if proto.op_type in ("QuantizeLinear", "DequantizeLinear", "Identity", "Dropout") and inputs:
            alias[outputs[0]] = inputs[0]
            continue
        if proto.op_type == "Constant" or (inputs and all(name in constants for name in inputs)):
            constants.update((name, specs[name].shape if name in specs else ()) for name in outputs)
            continue
        attributes = {a.name: int(a.i) for a in proto.attribute if a.type == a.INT}
        nodes.append(Node(proto.name, facts.op_type(proto), inputs, outputs, attributes, int(row["macs"])))
    shapes = {name: spec.shape for name, spec in specs.items() if name not in constants}
    return _Fuser(nodes, constants).run(), shapes, constants


class _Fuser:
    """Puts together what was taken apart; each pattern is looked for around its one op that nothing else has."""

    def __init__(self, nodes: list[Node], constants: dict[str, Shape]) -> None:
        self.nodes, self.constants = nodes, constants
        self.producer = {name: i for i, node in enumerate(nodes) for name in node.outputs}
        self.readers: dict[str, list[int]] = defaultdict(list)
        for i, node in enumerate(nodes):
            for name in dict.fromkeys(node.inputs):
                self.readers[name].append(i)
        self.gone: set[int] = set()
        self.new: dict[int, Node] = {}

    def run(self) -> list[Node]:
        for i, node in enumerate(self.nodes):
            if i in self.gone:
                continue
            if node.op_type == "Sqrt":
                self._layer_norm(i)
            elif node.op_type in _GATES:
                self._gate(i)
            elif node.op_type in ("MatMul", "Conv", "ConvTranspose"):
                self._bias(i)
        return [self.new.get(i, node) for i, node in enumerate(self.nodes) if i not in self.gone]

    def _made_by(self, tensor: str, *types: str) -> int | None:
        i = self.producer.get(tensor)
        return i if i is not None and self.nodes[i].op_type in types else None

    def _varying(self, i: int) -> list[str]:
        """Inputs that are not constants, each once."""
        return [name for name in dict.fromkeys(self.nodes[i].inputs) if name not in self.constants]

    def _only_reader(self, tensor: str, *types: str) -> int | None:
        readers = self.readers[tensor]
        return readers[0] if len(readers) == 1 and self.nodes[readers[0]].op_type in types else None

    def _fuse(self, op_type: str, parts: set[int], source: str) -> None:
        """Put one op in the place of the last of several."""
        last = max(parts)
        constants = tuple(n for i in sorted(parts) for n in self.nodes[i].inputs if n in self.constants)
        self.new[last] = replace(
            self.nodes[last], op_type=op_type, inputs=(source, *constants), outputs=self.nodes[last].outputs
        )
        self.gone |= parts - {last}

    def _layer_norm(self, root: int) -> None:
        """X - mean, over the square root of the mean of its square, then scale and shift."""
        eps = self._made_by(self.nodes[root].inputs[0], "Add")
        mean = self._made_by(self._varying(eps)[0], "ReduceMean") if eps is not None else None
        square = self._made_by(self.nodes[mean].inputs[0], "Pow", "Mul") if mean is not None else None
        less = self._made_by(self._varying(square)[0], "Sub") if square is not None else None
        first = self._made_by(self.nodes[less].inputs[1], "ReduceMean") if less is not None else None
        over = self._only_reader(self.nodes[root].outputs[0], "Div", "Reciprocal", "Mul")
        if eps is None or mean is None or square is None or less is None or first is None or over is None:
            return
        source = self.nodes[less].inputs[0]
        if self.nodes[first].inputs[0] != source:
            return
        parts = {root, eps, mean, square, less, first, over}
        for types in (("Mul",), ("Mul", "Add"), ("Add",)):
            after = self._only_reader(self.nodes[over].outputs[0], *types)
            if after is None:
                break
            mates = [n for n in self._varying(after) if self.producer.get(n) not in parts]
            if mates:
                break
            parts.add(after)
            over = after
        self._fuse("LayerNormalization", parts, source)

    def _gate(self, core: int) -> None:
        """X times a function of x: GELU, swish, hard swish."""
        before: set[int] = set()
        frontier = {self.nodes[core].inputs[0]}
        for _ in range(6):
            if len(frontier) == 1:
                source = next(iter(frontier))
                after = self._gated(core, source)
                if after is not None:
                    inner = {
                        i for i in before if set(self.readers[self.nodes[i].outputs[0]]) <= before | after | {core}
                    }
                    if inner == before:
                        self._fuse(_GATES[self.nodes[core].op_type], before | after | {core}, source)
                    return
            made = [(self.producer[name], name) for name in frontier if name in self.producer]
            if not made:
                return
            i, name = max(made)
            if self.nodes[i].op_type not in _POINTWISE or name in self.constants:
                return
            before.add(i)
            frontier = (frontier - {name}) | set(self._varying(i))

    def _gated(self, core: int, source: str) -> set[int] | None:
        """Ops after the core up to the product with the source, or None where there is none."""
        found: set[int] = set()
        tensor, gated = self.nodes[core].outputs[0], False
        for _ in range(4):
            i = self._only_reader(tensor, "Mul", "Div", "Add")
            if i is None:
                break
            mates = [name for name in self._varying(i) if name != tensor]
            if mates and gated:
                break
            if mates:
                scaled = self._made_by(mates[0], "Mul", "Div")
                if mates[0] != source and scaled is not None and self._varying(scaled) == [source]:
                    found.add(scaled)
                elif mates[0] != source or self.nodes[i].op_type != "Mul":
                    break
                gated = True
            elif gated and any(
                self.constants[n] not in ((), (1,)) for n in self.nodes[i].inputs if n in self.constants
            ):
                break
            found.add(i)
            tensor = self.nodes[i].outputs[0]
        return found if gated else None

    def _bias(self, root: int) -> None:
        """A product with a constant, and the constant added to it."""
        node = self.nodes[root]
        after = self._only_reader(node.outputs[0], "Add", "BatchNormalization")
        if after is None or self._varying(after) != [node.outputs[0]] or node.inputs[1] not in self.constants:
            return
        extra = tuple(name for name in self.nodes[after].inputs if name in self.constants)
        self.new[after] = replace(node, inputs=(*node.inputs, *extra), outputs=self.nodes[after].outputs)
        self.gone.add(root)


_GATES = {
    "Erf": "Gelu",
    "Tanh": "Gelu",
    "Sigmoid": "Swish",
    "HardSigmoid": "HardSwish",
    "Clip": "HardSwish",
    "Relu": "HardSwish",
}
_POINTWISE = ("Add", "Sub", "Mul", "Div", "Pow")
