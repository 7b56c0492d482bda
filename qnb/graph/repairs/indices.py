"""Indices as the NPU reads them: counted from the front, and of 32 bits."""

from __future__ import annotations

import numpy as np

from qnb.graph.facts import attribute
from qnb.graph.repairs.rewriter import Rewriter

__all__ = ["gather_nd", "narrow", "negative"]


def negative(graph: Rewriter) -> None:
    """Indices of Gather that count from the end become those that count from the front."""
    for node in list(graph.nodes("Gather", "GatherElements")):
        shape, indices = graph.shape(node.input[0]), graph.value(node.input[1])
        if shape is None or not shape or indices is None or not (indices < 0).any():
            continue
        graph.start(node)
        size = shape[attribute(node, "axis", 0)]
        where = graph.constant(np.where(indices < 0, indices + size, indices), indices.dtype)
        graph.replace(graph.op(node.op_type, node.input[0], where, axis=attribute(node, "axis", 0)))


_INDEXING = ("Gather", "GatherElements", "ScatterElements")
_LARGEST = np.iinfo(np.int32).max


def narrow(graph: Rewriter) -> None:
    """Casts to int64 that only indexing ops read become casts to int32: no axis is that long."""
    for node in list(graph.nodes("Cast")):
        name = node.output[0]
        readers = graph.readers(name)
        if attribute(node, "to") != 7 or name in graph.outputs or not readers:
            continue
        if graph.dtype(node.input[0]) not in ("int8", "uint8", "int16", "uint16", "int32"):
            continue
        if all(r.op_type in _INDEXING and r.input[1] == name and list(r.input).count(name) == 1 for r in readers):
            graph.start(node)
            graph.replace(graph.op("Cast", node.input[0], to=6))


def gather_nd(graph: Rewriter) -> None:
    """GatherND with fixed indices becomes Gather on merged axes."""
    for node in list(graph.nodes("GatherND")):
        x, shape, indices = node.input[0], graph.shape(node.input[0]), graph.value(node.input[1])
        batch, out = attribute(node, "batch_dims", 0), graph.shape(node.output[0])
        if shape is None or indices is None or out is None or not indices.size:
            continue
        each = indices.reshape(int(np.prod(indices.shape[:batch], dtype=np.int64)), *indices.shape[batch:])
        if (each != each[0]).any():  # each sample of the batch has indices of its own
            continue
        axes = shape[batch : batch + indices.shape[-1]]
        positive = np.where(each[0] < 0, each[0] + np.array(axes), each[0])
        steps = np.append(np.cumprod(axes[:0:-1], dtype=np.int64)[::-1], 1)
        graph.start(node)
        flat = [*shape[:batch], int(np.prod(axes)), *shape[batch + len(axes) :]]
        merged = graph.op("Reshape", x, graph.constant(flat, np.int64))
        where = graph.constant((positive @ steps).reshape(-1), np.int64)
        picked = graph.op("Gather", merged, where, axis=batch)
        graph.replace(graph.op("Reshape", picked, graph.constant(list(out), np.int64)))
