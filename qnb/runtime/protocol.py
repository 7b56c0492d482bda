"""The messages between the kernel and a worker.

A message is a length-prefixed msgpack header followed by the raw bytes of its arrays; nothing is unpickled, so the
other side may be anything: a pipe, ssh, or a process that was damaged. Knows nothing of what the messages mean.

Layout: ``b"qnb1"``, header length (uint32, little endian), header, then each array's bytes in C order.
The header is ``{"body": {...}, "arrays": [[name, dtype, shape], ...]}``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any, Protocol

import msgpack
import numpy as np

MAGIC = b"qnb1"
_PREFIX = struct.Struct("<4sI")
MAX_HEADER = 64 << 20
MAX_ARRAY = 8 << 30
DTYPES = frozenset(
    ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]
)

Arrays = Mapping[str, np.ndarray]


class ProtocolError(Exception):
    """The bytes are not a message of ours."""


class Readable(Protocol):
    """What `receive` needs of a stream."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill a part of `buffer`; 0 or None at the end of the stream."""


class Writable(Protocol):
    """What `send` needs of a stream."""

    def write(self, data: memoryview, /) -> int | None:
        """Write a part of `data` and say how much."""


def _write_all(stream: Writable, data: memoryview) -> None:
    while data.nbytes:
        data = data[stream.write(data) or 0 :]


def _read_exactly(stream: Readable, count: int) -> memoryview:
    view = np.empty(count, np.uint8).data  # not zeroed, unlike a bytearray
    filled = 0
    while filled < count:
        got = stream.readinto(view[filled:])
        if not got:
            raise EOFError
        filled += got
    return view


def send(stream: Writable, body: Mapping[str, Any], arrays: Arrays | None = None) -> None:
    """Write one message.

    Parameters
    ----------
    stream : Writable
        An unbuffered binary stream.
    body : mapping
        Plain values: None, bool, int, float, str, bytes, lists and dicts of them.
    arrays : mapping of str to ndarray, optional
        Arrays of a bool, integer or float dtype, any shape.
    """
    chunks = {name: np.asarray(array, order="C") for name, array in (arrays or {}).items()}
    table = [[name, str(a.dtype), list(a.shape)] for name, a in chunks.items()]
    header = msgpack.packb({"body": dict(body), "arrays": table}, use_bin_type=True)
    _write_all(stream, memoryview(_PREFIX.pack(MAGIC, len(header)) + header))
    for chunk in chunks.values():
        if chunk.size:
            _write_all(stream, chunk.reshape(-1).view(np.uint8).data)


def receive(stream: Readable) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read one message: its body and its arrays.

    Raises
    ------
    EOFError
        At the end of the stream.
    ProtocolError
        If the bytes are not a message.
    """
    magic, length = _PREFIX.unpack(_read_exactly(stream, _PREFIX.size))
    if magic != MAGIC or length > MAX_HEADER:
        raise ProtocolError("not a qnb message")
    try:
        header = msgpack.unpackb(_read_exactly(stream, length), raw=False, strict_map_key=True)
        body, table = header["body"], [(str(n), str(d), tuple(map(int, s))) for n, d, s in header["arrays"]]
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a broken header: {error}") from error
    if not isinstance(body, dict):
        raise ProtocolError("a header without a body")
    arrays: dict[str, np.ndarray] = {}
    for name, dtype, shape in table:
        if dtype not in DTYPES or any(n < 0 for n in shape):
            raise ProtocolError(f"array {name!r} of dtype {dtype!r} and shape {shape}")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size > MAX_ARRAY:
            raise ProtocolError(f"array {name!r} of {size} bytes")
        arrays[name] = np.frombuffer(_read_exactly(stream, size), dtype=dtype).reshape(shape)
    return body, arrays
