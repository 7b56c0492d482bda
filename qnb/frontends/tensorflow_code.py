"""Looks at TensorFlow graphs before TensorFlow runs them: they must compute, and touch neither Python nor files.

Works on the protobuf messages. Runs nothing; imports no TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qnb.errors import ExportError

__all__ = ["check_graph", "check_saved_model"]

_PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
_OUTSIDE = re.compile(
    r"File|Dataset|Reader|Checkpoint|SummaryWriter|SummaryDbWriter|ImportEvent|Remap|Proto(V\d)?$"
    r"|^(Debug|Dump|Rpc|RemoteCall|Save|Restore|DistributedSave)"
)
"""Names of ops that read or write files, or speak to other machines."""

_SAVER = {
    "SaveV2",
    "RestoreV2",
    "MergeV2Checkpoints",
    "ShardedFilename",
    "Save",
    "SaveSlices",
    "Restore",
    "RestoreSlice",
}
"""Those with which TensorFlow stores weights: every SavedModel has them, beside what it computes with."""


def check_graph(graph: Any, path: Path) -> None:
    """Refuse a GraphDef, all of which runs, if it calls Python or touches files.

    Raises
    ------
    ExportError
        If so; names the op.
    """
    _check("", graph.node, path)
    for function in graph.library.function:
        _check(function.signature.name, function.node_def, path)


def check_saved_model(model: Any, path: Path) -> None:
    """Refuse a SavedModel that calls Python or touches files, when it is read or when it runs.

    Parameters
    ----------
    model : tensorflow.core.protobuf.saved_model_pb2.SavedModel
        As it is stored.
    path : pathlib.Path
        For the message.

    Raises
    ------
    ExportError
        If so; names the op and the function that it is in.
    """
    for meta in model.meta_graphs:
        library = {function.signature.name: function.node_def for function in meta.graph_def.library.function}
        runs = _functions_from(library, meta.object_graph_def.concrete_functions)
        _check("", meta.graph_def.node, path, saver=True)
        if not meta.object_graph_def.nodes:  # of TensorFlow 1: reading it runs parts of the graph itself
            nodes = _nodes_from(meta.graph_def.node, _ends(meta))
            _check("", [node for node in nodes if node.op not in ("RestoreV2", "ShardedFilename")], path)
            runs |= _functions_from(library, _called(nodes))
        for name, inner in library.items():
            _check(name, inner, path, saver=name not in runs)


def _check(where: str, nodes: Iterable[Any], path: Path, *, saver: bool = False) -> None:
    for node in nodes:
        place = f"{node.op} {node.name!r}{f' in {where}' if where else ''}"
        if node.op in _PYTHON:
            raise ExportError(
                f"{path} calls Python from its graph ({place}), which no other runtime can do",
                hint="write tf.py_function and tf.numpy_function with TensorFlow ops, and save the model again",
            )
        prints = node.op == "PrintV2" and b"://" in node.attr["output_stream"].s
        if prints or (_OUTSIDE.search(node.op) and not (saver and node.op in _SAVER)):
            raise ExportError(
                f"{path} reads or writes files when it runs ({place})",
                hint="leave that out of the model: do it in Python before or afterwards",
            )


def _called(nodes: Iterable[Any]) -> set[str]:
    """Give the names of functions in the nodes' attributes; an op may also be a function's name."""
    names = set()
    for node in nodes:
        names.add(node.op)
        for value in node.attr.values():
            names.update(function.name for function in (value.func, *value.list.func))
    return names


def _functions_from(library: dict[str, Any], names: Iterable[str]) -> set[str]:
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in library and name not in seen:
            seen.add(name)
            waiting.extend(_called(library[name]))
    return seen


def _ends(meta: Any) -> list[str]:
    """Give what TensorFlow 1's loader runs: signatures, initializers, and the op that restores the weights."""
    ends = [meta.saver_def.restore_op_name]
    ends += [info.name for signature in meta.signature_def.values() for info in signature.outputs.values()]
    for collection in meta.collection_def.values():  # initializers are in some of them
        ends += [*collection.node_list.value]
    return ends


def _nodes_from(nodes: Iterable[Any], ends: Iterable[str]) -> list[Any]:
    known = {node.name: node for node in nodes}
    waiting, seen = [_plain(name) for name in ends], set()
    while waiting:
        name = waiting.pop()
        if name in known and name not in seen:
            seen.add(name)
            waiting.extend(_plain(source) for source in known[name].input)
    return [known[name] for name in sorted(seen)]


def _plain(name: str) -> str:
    return name.lstrip("^").partition(":")[0]
