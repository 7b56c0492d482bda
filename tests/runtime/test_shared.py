"""The memory that a kernel and its worker share. Oracle: numpy's own arrays, and a second mapping of the same file."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from qnb.runtime.protocol import ProtocolError
from qnb.runtime.shared import SIZE, Arena

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memfd is Linux's")


@pytest.fixture
def arena():
    made = Arena.create()
    assert made is not None
    yield made
    made.close()


def test_the_other_side_sees_what_was_put_in(arena):
    rng = np.random.default_rng(0)
    sent = {
        "image": rng.standard_normal((1, 3, 99, 101)).astype(np.float32),
        "turned": np.asfortranarray(rng.standard_normal((300, 70))),
        "flags": rng.random(7) > 0.5,
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 4), np.int8),
    }
    table = arena.put(sent)
    other = Arena(arena.fd)
    got = other.get(table)
    for name, array in sent.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)
        assert not got[name].flags.writeable


def test_what_is_small_or_too_large_goes_another_way(arena):
    assert arena.put({"x": np.zeros(10)}) is None
    assert arena.put({"x": np.broadcast_to(np.float32(0), (SIZE // 4 + 1,))}) is None


@pytest.mark.parametrize(
    "row", [["x", "float32", [4], SIZE - 8], ["x", "float32", [-1], 0], ["x", "object", [1], 0], ["x", "int8", [1], -5]]
)
def test_a_table_that_points_outside_is_refused(arena, row):
    with pytest.raises(ProtocolError):
        arena.get([row])
