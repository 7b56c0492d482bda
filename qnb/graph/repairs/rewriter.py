"""A graph that is being rewritten: who makes and reads each tensor, its shape, its value; and new ops in the place of old.

Changes the model in place and calls nothing native. Knows nothing of which rewriting is worth it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb.graph.edit import drop_unused_initializers, opset_of, standard
from qnb.graph.facts import tensor_specs

if TYPE_CHECKING:
    import onnx

__all__ = ["Rewriter"]


class Rewriter:
    """A model and what is to be rewritten in it.

    Parameters
    ----------
    model : onnx.ModelProto
        In topological order, with shapes inferred and constants as initializers. Changed in place by `finish`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opset = opset_of(model)
        self.outputs = {value.name for value in model.graph.output}
        self._specs = tensor_specs(model)
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._values: dict[str, np.ndarray] = {}
        self._makers: dict[str, onnx.NodeProto] = {}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self._names = set(self._specs) | {node.name for node in model.graph.node}
        self._nodes = list(model.graph.node)  # held, so that each keeps its id
        for node in self._nodes:
            self._names.update(node.output)
            self._makers.update(dict.fromkeys(filter(None, node.output), node))
            for name in filter(None, node.input):
                self._readers[name].append(node)
        self._new: dict[int, list[onnx.NodeProto]] = {}
        self._gone: set[int] = set()
        self._at: onnx.NodeProto | None = None
        self._made: list[onnx.NodeProto] = []
        self.places = 0

    # --- looking --------------------------------------------------------------------------------------------------

    def nodes(self, *op_types: str) -> Iterator[onnx.NodeProto]:
        """Give the ops of these types, those that were replaced meanwhile left out."""
        for node in self._nodes:
            if node.op_type in op_types and standard(node) and id(node) not in self._gone:
                yield node

    def maker(self, name: str, *op_types: str) -> onnx.NodeProto | None:
        """Give the op that makes a tensor, if it is of one of these types."""
        node = self._makers.get(name)
        if node is None or id(node) in self._gone or not standard(node):
            return None
        return node if not op_types or node.op_type in op_types else None

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """Give the ops that read a tensor."""
        return [node for node in self._readers[name] if id(node) not in self._gone]

    def only_read_by(self, name: str, *nodes: onnx.NodeProto) -> bool:
        """Say whether nothing but these ops sees a tensor."""
        allowed = {id(node) for node in nodes}
        return name not in self.outputs and all(id(node) in allowed for node in self.readers(name))

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Give a tensor's shape, if it is known."""
        spec = self._specs.get(name)
        return None if spec is None else spec.shape

    def wider_than(self, axes: int) -> set[str]:
        """Give the tensors of more axes than that."""
        return {name for name, spec in self._specs.items() if len(spec.shape) > axes}

    def dtype(self, name: str) -> str:
        """Give a tensor's type as numpy calls it; nothing where it is not known."""
        spec = self._specs.get(name)
        return "" if spec is None else spec.dtype

    def value(self, name: str) -> np.ndarray | None:
        """Give the content of a constant; None for what is none."""
        if name not in self._values and name in self._tensors:
            from onnx import numpy_helper

            self._values[name] = numpy_helper.to_array(self._tensors[name])
        return self._values.get(name)

    def scalar(self, name: str) -> float | None:
        """Give the one number that a constant holds; None where it is no constant or holds several."""
        if (spec := self._specs.get(name)) is None or name not in self._tensors or int(np.prod(spec.shape)) != 1:
            return None
        value = self.value(name)
        return None if value is None else float(value.reshape(()))

    def integers(self, name: str) -> list[int] | None:
        """Give the whole numbers that a constant holds; None where it is no constant."""
        value = self.value(name) if name else None
        return None if value is None else [int(number) for number in value.reshape(-1)]

    # --- rewriting ------------------------------------------------------------------------------------------------

    def start(self, node: onnx.NodeProto) -> None:
        """Begin ops that are to stand in the place of `node`."""
        self._at, self._made = node, []

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Add a constant; give its name."""
        from onnx import numpy_helper

        assert self._at is not None
        name = self._free(f"{self._at.name}_constant")
        tensor = numpy_helper.from_array(np.ascontiguousarray(np.asarray(value, dtype)), name)
        if np.ndim(value) == 0:  # ascontiguousarray makes a row of it
            del tensor.dims[:]
        self.model.graph.initializer.append(tensor)
        self._tensors[name] = self.model.graph.initializer[-1]
        return name

    def like(self, name: str, value: Any) -> str:
        """Add a constant of the type of a tensor."""
        return self.constant(value, self.dtype(name) or "float32")

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add an op; give its (first) output's name."""
        return self.ops(op_type, *inputs, outputs=outputs, **attributes)[0]

    def ops(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """Add an op; give the names of its outputs."""
        from onnx import helper

        assert self._at is not None
        name = self._free(f"{self._at.name}_{op_type}")
        made = [self._free(f"{name}_out") for _ in range(outputs)]
        self._made.append(helper.make_node(op_type, inputs, made, name=name, **attributes))
        return made

    def replace(self, *results: str, also: Sequence[onnx.NodeProto] = ()) -> None:
        """Put the ops that were added in the place of the node, and let their `results` stand for its outputs.

        Parameters
        ----------
        *results : str
            A tensor for each output of the node, ``""`` for one that nothing reads.
        also : sequence of NodeProto
            Further ops that go; nothing else may read what they make.
        """
        from onnx import helper

        assert self._at is not None
        made_here = {name for node in self._made for name in node.output}
        renamed: dict[str, str] = {}
        for old, new in zip(self._at.output, results, strict=False):
            if not old or not new:
                continue
            if new in made_here and new not in renamed:
                renamed[new] = old
            else:  # what is there already, or stands for two outputs
                name = self._free(f"{self._at.name}_Identity")
                self._made.append(helper.make_node("Identity", [renamed.get(new, new)], [old], name=name))
        for node in self._made:
            for names in (node.input, node.output):
                for position, name in enumerate(names):
                    names[position] = renamed.get(name, name)
        for node in self._made:
            self._makers.update(dict.fromkeys(filter(None, node.output), node))
            for name in filter(None, node.input):
                self._readers[name].append(node)
        self._new[id(self._at)] = self._made
        self._gone.update(id(node) for node in (self._at, *also))
        self._at, self._made = None, []
        self.places += 1

    def made(self) -> list[onnx.NodeProto]:
        """Give the ops that were put in so far."""
        return [node for nodes in self._new.values() for node in nodes if id(node) not in self._gone]

    def reread(self, node: onnx.NodeProto, position: int, name: str) -> None:
        """Let an op read another tensor; what made the old one goes if nothing else needs it."""
        old = node.input[position]
        node.input[position] = name
        self._readers[old] = [reader for reader in self._readers[old] if old in reader.input]
        self._readers[name].append(node)
        maker = self.maker(old)
        if maker is not None and all(not self.readers(o) and o not in self.outputs for o in maker.output):
            self._gone.add(id(maker))

    def finish(self) -> int:
        """Write the changes into the model; give the number of places."""
        graph = self.model.graph
        if self._gone:
            kept = [new for node in self._nodes for new in self._stand_ins(node)]
            graph.ClearField("node")
            graph.node.extend(kept)
        if self.places:  # what inference has no rule for keeps what is known of it
            foreign = {name for node in graph.node if not standard(node) for name in node.output}
            values = [value for value in graph.value_info if value.name in foreign]
            graph.ClearField("value_info")
            graph.value_info.extend(values)
        drop_unused_initializers(self.model)  # those of attempts that were given up, too
        return self.places

    def _stand_ins(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Give what stands for a node: itself, or ops that may have been replaced themselves."""
        if id(node) not in self._gone:
            yield node
        for new in self._new.get(id(node), ()):
            yield from self._stand_ins(new)

    def _free(self, stem: str) -> str:
        name, number = stem, 0
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name
