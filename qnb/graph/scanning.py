"""The types of a model's ops, read off its file without reading its weights.

Knows the wire format of ONNX's messages; builds nothing, so that it is safe and quick in any process.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from qnb.files import storage_errors

__all__ = ["op_types"]

# field numbers of onnx.proto: ModelProto.graph and .functions, GraphProto.node and FunctionProto.node, NodeProto.op_type
_GRAPH, _FUNCTIONS, _GRAPH_NODE, _FUNCTION_NODE, _OP_TYPE = 7, 25, 1, 7, 4


def op_types(path: Path) -> set[str]:
    """Give the op types in an ONNX file, its local functions included; of a damaged file those before the damage.

    Raises
    ------
    StorageError
        If the file can't be read.
    """
    with storage_errors(path), path.open("rb") as file:
        if not path.stat().st_size:
            return set()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return {op.decode("utf-8", errors="replace") for op in _op_types(content)}


def _op_types(content: mmap.mmap) -> Iterator[bytes]:
    for number, start, end in _fields(content, 0, len(content)):
        if number in (_GRAPH, _FUNCTIONS):
            wanted = _GRAPH_NODE if number == _GRAPH else _FUNCTION_NODE
            for inner, first, last in _fields(content, start, end):
                if inner == wanted:
                    yield from (content[a:b] for field, a, b in _fields(content, first, last) if field == _OP_TYPE)


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of the length-delimited fields of a protobuf message; stop where it is damaged."""
    while start < end:
        tag, start = _varint(content, start, end)
        wire = tag & 7
        length = {0: 0, 1: 8, 5: 4}.get(wire)
        if wire == 0:
            _, start = _varint(content, start, end)
        elif wire == 2:
            length, start = _varint(content, start, end)
            if start + length <= end:
                yield tag >> 3, start, start + length
        if length is None:
            return
        start += length


def _varint(content: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while start < end:
        byte = content[start]
        start += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value, start
