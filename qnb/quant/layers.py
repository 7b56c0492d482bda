"""Layers: the parts of a QDQ graph between its integer tensors, exposed together or taken apart, to see where error arises.

A layer is the float ops between DequantizeLinear and QuantizeLinear: one op as a rule, or an op with the activation that
fuses into it. Knows graphs, of any quantizer's making; nothing of sessions, data or encodings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper

__all__ = ["Feed", "Layer", "Layers", "Signature", "chunks"]

Signature = tuple[str, tuple[int, ...]]
"""numpy dtype name and shape of a tensor."""

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_CLIPS = ("Relu", "Clip")
_MOVES = {
    "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Ops that compute nothing. In isolation the NPU's compiler takes some of them away with their Q and DQ, or refuses them."""
_SUFFIXES = ("_float", "_QuantizeLinear_Input")
"""What qnb's writer and ONNX Runtime's quantizer append to a graph output's name before its QuantizeLinear."""


class Feed(NamedTuple):
    """What an input of the isolated layers wants: a tensor of the float model, as the codes of a QuantizeLinear if one
    is named by its place in the QDQ graph.
    """

    tensor: str
    quantizer: int | None


@dataclass(frozen=True)
class Layer:
    """One layer of a QDQ graph.

    Attributes
    ----------
    name, op_type : str
        Of its ops; those of several are joined with ``+`` in `op_type`, and `name` is the first one's.
    nodes : tuple of int
        Places of its float ops in the graph.
    inputs : tuple of str
        Activations that it reads, by their names in the QDQ graph before quantization.
    outputs : mapping of str to str
        What it computes: name in the QDQ graph to name in the float model. Only what both have.
    """

    name: str
    op_type: str
    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: Mapping[str, str]

    @property
    def computes(self) -> bool:
        """Whether it does more than move values."""
        return not set(self.op_type.split("+")) <= _MOVES


class Layers:
    """The layers of one QDQ model.

    Parameters
    ----------
    model : onnx.ModelProto
        With QuantizeLinear and DequantizeLinear nodes; not changed.
    known : collection of str
        Names of the float model's tensors: only where such a one is can a layer be cut from the next.
    """

    def __init__(self, model: onnx.ModelProto, known: Collection[str]) -> None:
        self.model = model
        self.graph = model.graph
        self._known = set(known)
        self._nodes = list(self.graph.node)
        self._producer = {name: i for i, node in enumerate(self._nodes) for name in node.output if name}
        self._readers: dict[str, list[int]] = defaultdict(list)
        for i, node in enumerate(self._nodes):
            for name in dict.fromkeys(n for n in node.input if n):
                self._readers[name].append(i)
        self._graph_inputs = {i.name for i in self.graph.input} - {i.name for i in self.graph.initializer}
        self._graph_outputs = {o.name for o in self.graph.output}

    # --- reading --------------------------------------------------------------------------------------------------

    @cached_property
    def _static(self) -> set[str]:
        """Tensors that depend on parameters alone: weights with their DequantizeLinear, shapes."""
        found = {i.name for i in self.graph.initializer} | {""}
        for node in self._nodes:
            if all(name in found for name in node.input):
                found.update(node.output)
        return found - {""}

    @cached_property
    def _ops(self) -> list[int]:
        """Float ops: what neither quantizes, nor dequantizes, nor is constant."""
        return [i for i, n in enumerate(self._nodes) if n.op_type not in (_Q, _DQ) and not self._constant(i)]

    def _constant(self, i: int) -> bool:
        return all(name in self._static for name in self._nodes[i].output if name)

    def _data(self, i: int) -> list[str]:
        return list(dict.fromkeys(n for n in self._nodes[i].input if n and n not in self._static))

    def trace(self, name: str) -> tuple[str, list[int]]:
        """Go from what an op reads back to the float tensor that it was: its name, and the Q and DQ nodes in between,
        the one next to that tensor first.
        """
        chain: list[int] = []
        while name in self._producer and self._nodes[self._producer[name]].op_type in (_Q, _DQ):
            chain.insert(0, self._producer[name])
            name = self._nodes[chain[0]].input[0]
        return name, chain

    def float_name(self, name: str) -> str | None:
        """Give the name in the float model of a float tensor of this graph; None where it has none there."""
        if name in self._known:
            return name
        stripped = [name.removesuffix(s) for s in _SUFFIXES if name.endswith(s)]
        behind = [self._nodes[d].output[0] for d in self._dequantizers(name)]
        return next((n for n in (*behind, *stripped) if n in self._known), None)

    def quantizer(self, name: str) -> int | None:
        """Place of the QuantizeLinear that puts the float tensor `name` on its grid; None where it stays float."""
        return next((i for i in self._readers[name] if self._nodes[i].op_type == _Q), None)

    def _dequantizers(self, name: str) -> list[int]:
        q = self.quantizer(name)
        if q is None:
            return []
        return [i for i in self._readers[self._nodes[q].output[0]] if self._nodes[i].op_type == _DQ]

    @cached_property
    def activations(self) -> dict[str, str]:
        """Activations that have a grid: name in this graph to name in the float model, in the order of the graph."""
        names = [*(i.name for i in self.graph.input), *(o for i in self._ops for o in self._nodes[i].output)]
        found = {n: self.float_name(n) for n in names if n and self.quantizer(n) is not None}
        return {n: f for n, f in found.items() if f is not None}

    def weights(self) -> dict[str, int]:
        """Give the DequantizeLinear of each stored integer parameter, by the name of its codes."""
        stored = {i.name for i in self.graph.initializer}
        return {n.input[0]: i for i, n in enumerate(self._nodes) if n.op_type == _DQ and n.input[0] in stored}

    @cached_property
    def layers(self) -> list[Layer]:
        """All layers, in the order of the graph."""
        group = {i: i for i in self._ops}

        def find(i: int) -> int:
            while group[i] != i:
                i = group[i]
            return i

        for i in self._ops:
            for name in self._data(i):
                origin, chain = self.trace(name)
                before = self._producer.get(origin)
                if before is not None and before in group and self._joined(before, origin, chain, i):
                    first, second = sorted((find(before), find(i)))
                    group[second] = first
        members: dict[int, list[int]] = defaultdict(list)
        for i in self._ops:
            members[find(i)].append(i)
        return [self._layer(nodes) for _, nodes in sorted(members.items())]

    def _joined(self, before: int, origin: str, chain: Sequence[int], i: int) -> bool:
        """Whether op `i`, which reads `origin`, is of one layer with the op that makes it."""
        if self.float_name(origin) is None:
            return True
        if not chain:  # float in between: what touches integers takes its float neighbours with it
            return self._touches_integers(before) or self._touches_integers(i)
        # a clip behind the grid that clips as well: before it, that grid would seem to cut off half of the values
        return self._nodes[i].op_type in _CLIPS and self._op_readers(origin) == {i}

    def _op_readers(self, name: str) -> set[int]:
        """Ops that read a tensor, through whatever Q and DQ."""
        found: set[int] = set()
        for i in self._readers[name]:
            if self._nodes[i].op_type in (_Q, _DQ):
                found |= self._op_readers(self._nodes[i].output[0])
                if self._nodes[i].output[0] in self._graph_outputs:
                    found.add(-1)
            else:
                found.add(i)
        return found

    def _touches_integers(self, i: int) -> bool:
        node = self._nodes[i]
        reads = any(n in self._producer and self._nodes[self._producer[n]].op_type == _DQ for n in node.input)
        return reads or any(self.quantizer(n) is not None for n in node.output if n)

    def _layer(self, nodes: Sequence[int]) -> Layer:
        own = set(nodes)
        made = [name for i in nodes for name in self._nodes[i].output if name]
        inputs = dict.fromkeys(
            origin for i in nodes for name in self._data(i) for origin in (self.trace(name)[0],) if origin not in made
        )
        outputs = {}
        for name in made:
            named = self.float_name(name)
            leaves = name in self._graph_outputs or bool(self._op_readers(name) - own)
            if leaves and named is not None:
                outputs[name] = named
        first = self._nodes[nodes[0]]
        types = [self._nodes[i].op_type for i in nodes]
        op_type = "+".join(types) if len(types) <= 3 else f"{types[0]}+…+{types[-1]} ({len(types)} ops)"
        return Layer(first.name or made[0], op_type, tuple(nodes), tuple(inputs), outputs)

    # --- making graphs ----------------------------------------------------------------------------------------------

    def exposed(self) -> tuple[onnx.ModelProto, dict[str, str]]:
        """Give the whole model with the output of each layer as a further graph output, as its grid holds it.

        Returns
        -------
        onnx.ModelProto
        dict
            Name of a layer's output in this graph to the name under which the model gives it.
        """
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        made = _Made(set(self._producer) | self._graph_inputs | {i.name for i in self.graph.initializer})
        where: dict[str, str] = {}
        for layer in self.layers:
            for name in layer.outputs:
                ready = [name, *(self._nodes[d].output[0] for d in self._dequantizers(name))]
                given = next((n for n in ready if n in self._graph_outputs), None)
                if given is None:
                    q = self.quantizer(name)
                    given = name if q is None else self._dequantized(made, name, self._nodes[q].output[0])
                    result.graph.output.append(onnx.ValueInfoProto(name=given))
                where[name] = given
        result.graph.node.extend(made.nodes)
        return result, where

    def isolated(
        self, layers: Iterable[Layer], signatures: Mapping[str, Signature]
    ) -> tuple[onnx.ModelProto, dict[str, Feed], dict[str, str]]:
        """Give one model in which the layers stand side by side: each reads its inputs from outside and gives its outputs.

        Inputs that are quantized are read as codes: the simulator would take longer to quantize them than to run all layers.

        Parameters
        ----------
        layers : iterable of Layer
        signatures : mapping of str to Signature
            Type and shape of each activation, by its name in the float model.

        Returns
        -------
        onnx.ModelProto
            Layers that only move values, or read or give something without a signature, are left out.
        dict
            Input of the model to what is to be fed.
        dict
            Name of a layer's output in this graph to the name under which the model gives it.
        """
        feeds: dict[str, Feed] = {}
        where: dict[str, str] = {}
        graph = helper.make_graph([], "layers", [], [])
        made = _Made(set(self._producer) | self._graph_inputs | {i.name for i in self.graph.initializer})
        taken: set[int] = set()
        for layer in layers:
            reads = {origin: self.float_name(origin) for origin in layer.inputs}
            known = [*reads.values(), *layer.outputs.values()]
            if (
                not layer.computes
                or not layer.inputs
                or not layer.outputs
                or any(n is None or n not in signatures for n in known)
            ):
                continue
            needed, quantizers = self._needed(layer)
            renamed = {}
            for origin, fed in reads.items():
                assert fed is not None
                if any(origin in self._nodes[i].input for i in needed):
                    name = next((k for k, v in feeds.items() if v == Feed(fed, None)), None)
                    renamed[origin] = name or made.fresh(f"{origin}_in")
                    feeds[renamed[origin]] = Feed(fed, None)
            for i in sorted(quantizers):
                origin_name = self.float_name(self._nodes[i].input[0])
                assert origin_name is not None
                feeds[self._nodes[i].output[0]] = Feed(origin_name, i)
            for i in sorted(needed):
                if i not in taken:
                    taken.add(i)
                    node = graph.node.add()
                    node.CopyFrom(self._nodes[i])
                    for k, name in enumerate(node.input):
                        node.input[k] = renamed.get(name, name)
            for name in layer.outputs:
                where[name] = self._given(made, name)
        graph.node.extend(made.nodes)
        used = {name for node in graph.node for name in node.input}
        graph.initializer.extend(i for i in self.graph.initializer if i.name in used)
        for name, feed in feeds.items():
            dtype, shape = signatures[feed.tensor]
            kind = int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
            if feed.quantizer is not None:
                kind = self.code_type(feed.quantizer)
            graph.input.append(helper.make_tensor_value_info(name, kind, shape))
        for name, given in where.items():
            dtype, shape = signatures[next(la.outputs[name] for la in self.layers if name in la.outputs)]
            graph.output.append(
                helper.make_tensor_value_info(given, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
            )
        model = helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)
        return model, feeds, where

    def code_type(self, quantizer: int) -> int:
        """Give ONNX's number for the type of the codes that a QuantizeLinear makes."""
        node = self._nodes[quantizer]
        zero = node.input[2] if len(node.input) > 2 else ""
        return next((i.data_type for i in self.graph.initializer if i.name == zero), onnx.TensorProto.UINT8)

    def _one_grid(self, place: int) -> bool:
        """Whether the node is a QuantizeLinear with one scale and codes of whole bytes."""
        node = self._nodes[place]
        if node.op_type != _Q or self.code_type(place) in (onnx.TensorProto.UINT4, onnx.TensorProto.INT4):
            return False
        return any(i.name == node.input[1] and np.prod(i.dims) == 1 for i in self.graph.initializer)

    def _needed(self, layer: Layer) -> tuple[set[int], set[int]]:
        """Nodes of a layer: its ops, the Q and DQ in front of them, and what makes its constants; and, apart, the
        QuantizeLinear of what it reads.
        """
        needed, quantizers = set(layer.nodes), set[int]()
        open_ = [name for i in layer.nodes for name in self._nodes[i].input if name]
        for name in open_:
            if name in self._static:
                i = self._producer.get(name)
                if i is not None and i not in needed:
                    needed.add(i)
                    open_.extend(n for n in self._nodes[i].input if n)
            else:
                origin, chain = self.trace(name)
                if chain and origin in layer.inputs and self._one_grid(chain[0]):
                    quantizers.add(chain.pop(0))
                needed.update(chain)
                open_.extend(n for i in chain for n in self._nodes[i].input[1:] if n)
        return needed, quantizers

    def _given(self, made: _Made, name: str) -> str:
        """Quantize and dequantize a layer's output anew, apart from the nodes by which the next layer reads it."""
        q = self.quantizer(name)
        if q is None:
            return name
        codes = made.fresh(f"{name}_out_quantized")
        node = made.add(self._nodes[q], codes)
        node.input[0] = name
        return self._dequantized(made, name, codes)

    def _dequantized(self, made: _Made, name: str, codes: str) -> str:
        q = self.quantizer(name)
        assert q is not None
        template = next((self._nodes[i] for i in self._dequantizers(name)), None)
        out = made.fresh(f"{name}_out")
        node = made.add(template or self._nodes[q], out)
        node.op_type = _DQ
        node.input[0] = codes
        return out


@dataclass
class _Made:
    """Nodes that are added to a graph, under names that are free there."""

    taken: set[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def fresh(self, name: str) -> str:
        candidate, number = name, 2
        while candidate in self.taken:
            candidate, number = f"{name}_{number}", number + 1
        self.taken.add(candidate)
        return candidate

    def add(self, template: onnx.NodeProto, output: str) -> onnx.NodeProto:
        node = onnx.NodeProto()
        node.CopyFrom(template)
        node.name = self.fresh(f"{output}_node")
        node.output[0] = output
        self.nodes.append(node)
        return node


def chunks(
    layers: Sequence[Layer], sizes: Mapping[str, int], *, most_bytes: int, most_layers: int
) -> list[list[Layer]]:
    """Share layers out, in their order, so that no part reads and writes more than `most_bytes` (one large layer may).

    Parameters
    ----------
    layers : sequence of Layer
    sizes : mapping of str to int
        Bytes of each activation by its name in the QDQ graph, as float; what is missing counts for nothing.
    most_bytes, most_layers : int
    """
    parts: list[list[Layer]] = []
    held = 0
    for layer in layers:
        size = sum(sizes.get(name, 0) for name in (*layer.inputs, *layer.outputs))
        if not parts or held + size > most_bytes or len(parts[-1]) >= most_layers:
            parts.append([])
            held = 0
        parts[-1].append(layer)
        held += size
    return parts
