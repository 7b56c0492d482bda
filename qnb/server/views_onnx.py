"""An ONNX file as a view document: facts, ops, inputs and outputs, initializers, graph; weights are not looked at.

Runs in a worker. Knows nothing of results.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from qnb import views
from qnb.errors import ArtifactError
from qnb.graph import contents, facts
from qnb.values import TensorSpec

_CONTEXT = "EPContext"
_CONTEXT_FACTS = {
    "partition_name": "graph", "ep_sdk_version": "QAIRT", "ep_cache_context": "context binary", "embed_mode": "embedded",
    "source": "made by", "soc_model": "QNN's id of the SoC", "hardware_architecture": "hexagon_arch",
}  # fmt: skip


def view_onnx(path: Path) -> dict[str, Any]:
    """Read an ONNX file, also the wrapper of a context binary.

    Raises
    ------
    ArtifactError
        If it is none, or is cut short.
    """
    model = _parsed(path)
    graph = model.graph
    network = facts.network(model)
    for place, row in enumerate(network):
        row["op"] = row["op"] or f"({place})"  # ops without a name are told apart by their place
    specs = facts.tensor_specs(model)
    about = {row["op"]: _node(row, node, specs) for row, node in zip(network, graph.node, strict=True)}
    wrapped = [node for node in graph.node if node.op_type == _CONTEXT]
    parameters, external = _weights(model, specs)
    known: list[tuple[str, Any]] = [
        ("IR version", model.ir_version),
        ("opset", ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)),
        ("producer", f"{model.producer_name} {model.producer_version}".strip()),
        ("domain", model.domain),
        ("ops", len(graph.node)),
        ("parameters", parameters),
        ("functions", len(model.functions)),
        *_of_context(wrapped),
        *((f"metadata: {entry.key}", entry.value) for entry in model.metadata_props[:50]),
    ]
    notes = [f"{external} initializers lie in other files, which are not read"] if external else []
    if wrapped:
        notes.append("what runs is in the context binary; this file says where that is, and what goes in and out")
    return views.document(
        "onnx",
        f"{graph.name or path.name}: {len(graph.node):,} ops, {parameters:,} parameters",
        notes=notes,
        facts=[(name, value) for name, value in known if value not in ("", 0)],
        tables=[_ops(network), _io(graph), _kinds(model), _initializers(graph)],
        charts=[views.Chart("ops by type", "bars", "ops by type", "op_type", "count")],
        graph=views.graph_of(
            graph.name or path.name,
            ([row[column] for column in views.NETWORK] for row in network),
            about,
            colours=("activation_bytes",),
        ),
    )


def _parsed(path: Path) -> onnx.ModelProto:
    kind = contents.kind_of(path)
    what, hint = contents.KINDS[kind]
    if kind not in ("onnx", "onnx-cut", "unknown"):
        raise ArtifactError(f"{path.name} is {what}", hint=hint)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError) as error:
        said = "damaged" if kind == "onnx" else what
        raise ArtifactError(f"{path.name} is {said}: {error}", hint=hint or "copy it again") from error
    if not model.ir_version or not model.HasField("graph"):
        raise ArtifactError(f"{path.name} has no ONNX graph in it", hint=hint or "copy or download it again")
    return model


def _node(row: dict[str, Any], node: onnx.NodeProto, specs: dict[str, TensorSpec]) -> views.Node:
    attributes = {a.name: _attribute(a) for a in node.attribute[:50]}
    known = [specs[name] for name in row["gives"] if name in specs]
    figures = {"activation_bytes": sum(facts.nbytes(spec) for spec in known)} if known else {}
    backend = "htp" if node.op_type == _CONTEXT else None
    return views.Node(row["op"], row["op_type"], backend, figures, {"gives": ", ".join(row["types"]), **attributes})


def _attribute(attribute: onnx.AttributeProto) -> Any:
    if attribute.type == onnx.AttributeProto.STRING:
        return attribute.s[:200].decode(errors="replace")
    if attribute.type == onnx.AttributeProto.INT:
        return attribute.i
    if attribute.type == onnx.AttributeProto.FLOAT:
        return attribute.f
    if attribute.type == onnx.AttributeProto.INTS:
        return list(attribute.ints[:32])
    if attribute.type == onnx.AttributeProto.FLOATS:
        return list(attribute.floats[:32])
    return f"({onnx.AttributeProto.AttributeType.Name(attribute.type).lower()})"


def _weights(model: onnx.ModelProto, specs: dict[str, TensorSpec]) -> tuple[int, int]:
    """Count parameters, and initializers that lie elsewhere."""
    constants = {tensor.name for tensor in model.graph.initializer}
    names = {name for node in model.graph.node for name in facts.parameters(node, specs, constants)}
    return sum(math.prod(specs[name].shape) for name in names), sum(
        t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer
    )


def _of_context(nodes: list[Any]) -> list[tuple[str, Any]]:
    found = []
    for node in nodes[:20]:
        for attribute in node.attribute:
            if attribute.name in _CONTEXT_FACTS:
                found.append((_CONTEXT_FACTS[attribute.name], _attribute(attribute)))
    return found


def _ops(network: list[dict[str, Any]]) -> views.Table:
    rows = [
        [row["op"], row["op_type"], ", ".join(row["takes"]), ", ".join(row["gives"]), ", ".join(row["types"])]
        for row in network[: views.MAX_ROWS]
    ]
    return views.Table("ops", ["op", "op_type", "takes", "gives", "types"], rows, len(network))


def _io(graph: onnx.GraphProto) -> views.Table:
    constants = {tensor.name for tensor in graph.initializer}
    rows = [
        [direction, value.name, *_type(value)]
        for direction, values in (("input", graph.input), ("output", graph.output))
        for value in values
        if value.name not in constants
    ]
    return views.Table("inputs and outputs", ["direction", "name", "dtype", "shape"], rows)


def _type(value: onnx.ValueInfoProto) -> tuple[str, str]:
    if value.type.WhichOneof("value") != "tensor_type":
        return str(value.type.WhichOneof("value")), ""
    tensor = value.type.tensor_type
    dims = [
        dim.dim_param or "?" if dim.WhichOneof("value") != "dim_value" else str(dim.dim_value)
        for dim in tensor.shape.dim
    ]
    return _dtype(tensor.elem_type), "×".join(dims)


def _dtype(number: int) -> str:
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(number).name
    except (KeyError, TypeError, ValueError):
        return f"type {number}"


def _kinds(model: onnx.ModelProto) -> views.Table:
    return views.Table("ops by type", ["op_type", "count"], [list(item) for item in facts.op_counts(model).items()])


def _initializers(graph: onnx.GraphProto) -> views.Table:
    rows = [
        [
            tensor.name, _dtype(tensor.data_type), "×".join(map(str, tensor.dims)),
            len(tensor.raw_data) or None, "another file" if tensor.data_location == tensor.EXTERNAL else "this file",
        ]
        for tensor in graph.initializer[: views.MAX_ROWS]
    ]  # fmt: skip
    columns = ["tensor", "dtype", "shape", "bytes", "stored_in"]
    return views.Table("initializers", columns, rows, len(graph.initializer))
