"""Messages between kernel and worker: exact, and safe against whatever comes.

Oracle: what went in; for hostile bytes, the one error that may come out.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qnb.runtime.protocol import MAGIC, MAX_HEADER, ProtocolError, receive, send

DTYPES = (
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
arrays = st.dictionaries(
    st.text(),
    st.sampled_from(DTYPES).flatmap(
        lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    ),
    max_size=3,
)


class Dripping(io.RawIOBase):
    """A pipe that gives and takes a few bytes at a time."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)

    def readinto(self, buffer: Any) -> int:
        part = self.content[: min(7, len(buffer))]
        buffer[: len(part)] = part
        del self.content[: len(part)]
        return len(part)

    def write(self, data: Any) -> int:
        part = bytes(data[:5])
        self.content += part
        return len(part)


@given(body=st.dictionaries(st.text(), plain, max_size=4), sent=arrays)
@settings(max_examples=100, deadline=None)
def test_what_is_received_is_what_was_sent(body: dict[str, Any], sent: dict[str, np.ndarray]) -> None:
    stream = Dripping()
    send(stream, body, sent)
    send(stream, {"second": True})
    got, received = receive(stream)
    assert got == body
    assert list(received) == list(sent)
    for name, array in sent.items():
        assert (received[name].dtype, received[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(received[name], array)
        assert received[name].flags.writeable
    assert receive(stream) == ({"second": True}, {})
    with pytest.raises(EOFError):
        receive(stream)


def test_arrays_in_any_memory_order_are_sent_by_value() -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    stream = Dripping()
    send(stream, {}, {"f": np.asfortranarray(array), "slice": array[:, ::2, ::-1], "scalar": np.float32(3)})
    _, received = receive(stream)
    np.testing.assert_array_equal(received["f"], array)
    np.testing.assert_array_equal(received["slice"], array[:, ::2, ::-1])
    assert received["scalar"].shape == ()


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_refused(content: bytes) -> None:
    with pytest.raises((ProtocolError, EOFError)):
        receive(Dripping(content))


def framed(header: Any, tail: bytes = b"") -> bytes:
    packed = header if isinstance(header, bytes) else msgpack.packb(header)
    return struct.pack("<4sI", MAGIC, len(packed)) + packed + tail


HOSTILE: dict[str, bytes] = {
    "header too long": struct.pack("<4sI", MAGIC, MAX_HEADER + 1),
    "no msgpack": framed(b"\xc1\xc1"),
    "half a header": framed(b"\x82\xa4body"),
    "a list": framed([1, 2]),
    "no arrays": framed({"body": {}}),
    "body is no mapping": framed({"body": [1], "arrays": []}),
    "objects": framed({"body": {}, "arrays": [["x", "object", [1]]]}, bytes(8)),
    "records": framed({"body": {}, "arrays": [["x", "i4,f8", [1]]]}, bytes(12)),
    "dates": framed({"body": {}, "arrays": [["x", "datetime64[s]", [1]]]}, bytes(8)),
    "negative shape": framed({"body": {}, "arrays": [["x", "int8", [-1]]]}),
    "shape that overflows": framed({"body": {}, "arrays": [["x", "int8", [2**40, 2**40]]]}),
    "shape of words": framed({"body": {}, "arrays": [["x", "int8", ["many"]]]}),
    "arrays of two columns": framed({"body": {}, "arrays": [["x", "int8"]]}),
    "keys that are numbers": framed({1: 2}),
    "an extension type": framed(msgpack.packb({"body": msgpack.ExtType(4, b"x"), "arrays": []})),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_messages_are_refused(kind: str) -> None:
    with pytest.raises(ProtocolError):
        receive(Dripping(HOSTILE[kind]))
