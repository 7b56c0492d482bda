"""Small, exact rewrites of an ONNX graph that change no value: order of nodes, constants, names.

Each changes the model in place and calls nothing native. Knows nothing of files and shapes.
"""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from qnb.errors import ExportError
from qnb.graph.facts import op_type

if TYPE_CHECKING:
    import onnx

__all__ = [
    "constants_to_initializers",
    "drop_unused_initializers",
    "identities_on_constants",
    "name_nodes",
    "opset_of",
    "reads",
    "sort_nodes",
    "standard",
]


def standard(node: onnx.NodeProto) -> bool:
    """Say whether the op is one of ONNX's own."""
    return node.domain in ("", "ai.onnx")


def opset_of(model: onnx.ModelProto) -> int:
    """Give the version of ONNX's own opset (0 if the model names none)."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def reads(node: onnx.NodeProto) -> set[str]:
    """Give the names of all tensors that a node reads, those of its subgraphs' bodies included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
            own |= {name for inner in graph.node for name in inner.output}
            used = set().union(*(reads(inner) for inner in graph.node), {v.name for v in graph.output})
            names |= used - own
    return names


def sort_nodes(model: onnx.ModelProto) -> None:
    """Put the nodes in topological order, keeping the given order where it is free.

    Raises
    ------
    ExportError
        If a tensor has two producers or none, or nodes wait for each other in a circle.
    """
    graph = model.graph
    ready = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    ready |= {t.values.name for t in graph.sparse_initializer}
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in producer or name in ready:
                raise ExportError(
                    f"tensor {name!r} is written twice, the second time by {_called(node)}",
                    hint="export the model again",
                )
            producer[name] = index
    waiting: list[set[int]] = []
    followers: dict[int, list[int]] = {}
    for index, node in enumerate(graph.node):
        needs = reads(node) - ready
        if missing := sorted(needs - producer.keys()):
            raise ExportError(
                f"{_called(node)} reads tensor {missing[0]!r}, which nothing produces", hint="export the model again"
            )
        waiting.append({producer[name] for name in needs})
        for before in waiting[-1]:
            followers.setdefault(before, []).append(index)
    if missing := [v.name for v in graph.output if v.name not in producer and v.name not in ready]:
        raise ExportError(f"output {missing[0]!r} is not produced by any op", hint="export the model again")
    order: list[int] = []
    free = [index for index, needs in enumerate(waiting) if not needs]
    while free:
        order.append(index := heappop(free))
        for follower in followers.get(index, ()):
            waiting[follower].discard(index)
            if not waiting[follower]:
                heappush(free, follower)
    if len(order) < len(graph.node):
        stuck = [node for index, node in enumerate(graph.node) if waiting[index]]
        raise ExportError(
            f"the graph has a cycle: {', '.join(map(_called, stuck[:4]))} wait for each other",
            hint="QNN takes graphs without cycles only; export the model again",
        )
    if order != sorted(order):
        _set_nodes(graph, [graph.node[index] for index in order])


def _called(node: onnx.NodeProto) -> str:
    if node.name or not node.output:
        return f"{op_type(node)} {node.name!r}"
    return f"{op_type(node)} (output {node.output[0]!r})"


def identities_on_constants(model: onnx.ModelProto) -> int:
    """Count the Identity nodes that only rename a constant."""
    constants = {t.name for t in model.graph.initializer}
    count = 0
    for node in model.graph.node:
        if standard(node) and node.op_type in ("Constant", "Identity"):
            if node.op_type == "Identity" and node.input[0] not in constants:
                continue
            count += node.op_type == "Identity"
            constants.add(node.output[0])
    return count


def constants_to_initializers(model: onnx.ModelProto, *, identities: bool = True) -> None:
    """Turn Constant nodes into initializers and, unless told not to, remove Identity nodes that only rename a constant.

    Torch's older exporter shares equal weights through Identity, and a bias behind one would be quantized as if it
    were an activation. A graph output is left as it is.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    outputs = {v.name for v in graph.output}
    known = {t.name for t in graph.initializer} - {v.name for v in graph.input}
    alias: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = alias.get(name, name)
        if not standard(node) or node.op_type not in ("Constant", "Identity") or node.output[0] in outputs:
            kept.append(node)
        elif node.op_type == "Identity":
            if identities and node.input[0] in known and not _inside(graph, node.output[0]):
                alias[node.output[0]] = node.input[0]
            else:
                kept.append(node)
        elif node.attribute[0].name != "sparse_value":
            attribute = node.attribute[0]
            tensor = TensorProto()
            if attribute.name == "value":
                tensor.CopyFrom(attribute.t)
            else:
                import numpy as np

                value = helper.get_attribute_value(attribute)
                dtype = {"value_float": "f4", "value_floats": "f4", "value_int": "i8", "value_ints": "i8"}
                tensor.CopyFrom(numpy_helper.from_array(np.array(value, dtype.get(attribute.name, object))))
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
            known.add(tensor.name)
        else:
            kept.append(node)
    if len(kept) < len(graph.node):
        _set_nodes(graph, kept)


def _inside(graph: onnx.GraphProto, name: str) -> bool:
    """Say whether a subgraph of an op reads `name` from outside."""
    return any(name in reads(node) and name not in node.input for node in graph.node)


def _set_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    graph.ClearField("node")
    graph.node.extend(nodes)


def drop_unused_initializers(model: onnx.ModelProto) -> None:
    """Remove constants that no op reads, and take constants out of the graph's inputs."""
    graph = model.graph
    constants = {t.name for t in graph.initializer}
    inputs = [v for v in graph.input if v.name not in constants]
    if len(inputs) < len(graph.input):
        graph.ClearField("input")
        graph.input.extend(inputs)
    used = set().union(*(reads(node) for node in graph.node), {v.name for v in graph.output})
    for index in reversed(range(len(graph.initializer))):  # one by one: copying the others would double the memory
        if graph.initializer[index].name not in used:
            del graph.initializer[index]


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own; names that are already unique stay."""
    counts = Counter(node.name for node in model.graph.node)
    taken = {name for name, count in counts.items() if name and count == 1}
    numbers: Counter[str] = Counter()
    for node in model.graph.node:
        if node.name in taken and counts[node.name] == 1:
            continue
        stem = node.name or node.op_type
        while True:
            candidate = f"{stem}_{numbers[stem]}"
            numbers[stem] += 1
            if candidate not in taken:
                break
        node.name = candidate
        taken.add(candidate)
