"""Memory that a kernel and its worker share, so that a large request is copied once and not through a pipe.

A file without a name in memory (Linux; elsewhere arrays go through the pipe), passed to the worker when it starts, gone
with the two processes. One request is under way at a time, so each begins at the front. Knows nothing of messages.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qnb.runtime.protocol import DTYPES, ProtocolError

SIZE = 64 << 20
"""Bytes of address space; memory is taken only where something was written."""

_ALIGNMENT = 64
_WORTH_IT = 64 << 10


class Arena:
    """The shared memory, seen from either side.

    Parameters
    ----------
    fd : int
        The file.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, SIZE)
        self._bytes = np.frombuffer(self._map, np.uint8)

    @classmethod
    def create(cls) -> Arena | None:
        """Make one, or None where the platform has no such memory."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                fd = os.memfd_create("qnb")
                os.ftruncate(fd, SIZE)
                return cls(fd)
        return None

    def put(self, arrays: Mapping[str, np.ndarray]) -> list[list[Any]] | None:
        """Copy arrays in; give a table of name, dtype, shape and offset, or None if they don't fit or are not worth it."""
        total = sum(a.nbytes + _ALIGNMENT for a in arrays.values())
        if not _WORTH_IT <= total <= SIZE:
            return None
        table, offset = [], 0
        for name, array in arrays.items():
            self._view(offset, str(array.dtype), array.shape)[...] = array
            table.append([name, str(array.dtype), list(array.shape), offset])
            offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        return table

    def get(self, table: Sequence[Sequence[Any]]) -> dict[str, np.ndarray]:
        """Give read-only views of what the other side put in; they hold until its next request.

        Raises
        ------
        ProtocolError
            If the table points outside.
        """
        found = {}
        for name, dtype, shape, offset in table:
            if dtype not in DTYPES or offset < 0 or any(n < 0 for n in shape):
                raise ProtocolError(f"array {name!r} of dtype {dtype!r} and shape {shape}")
            view = self._view(offset, dtype, tuple(shape))
            view.flags.writeable = False
            found[str(name)] = view
        return found

    def _view(self, offset: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        end = offset + math.prod(shape) * np.dtype(dtype).itemsize
        if end > SIZE:
            raise ProtocolError(f"an array that ends at byte {end} of {SIZE}")
        return self._bytes[offset:end].view(dtype).reshape(shape)

    def close(self) -> None:
        """Give it back; safe to call again."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._bytes = np.empty(0, np.uint8)
            self._map.close()  # it has a descriptor of its own
