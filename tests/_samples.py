"""What the tests of samples share: inputs, random arrays, and streams that are read to their end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qnb.errors import BadInput
from qnb.samples import samples
from qnb.values import TensorSpec

X = TensorSpec("x", "float32", (1, 3, 4, 5))
X4 = TensorSpec("x", "float32", (4, 3))
A, B = TensorSpec("a", "float32", (1, 3)), TensorSpec("b", "int32", (1, 2, 2))
RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def collect(data: Any, *inputs: TensorSpec, **options: Any) -> list[dict[str, np.ndarray]]:
    """Iterate, and check what holds for every sample: names, order, shape, dtype, layout, and the promised count."""
    stream = samples(data, inputs, **options)
    promised = stream.count
    result = list(stream)
    for sample in result:
        assert list(sample) == [spec.name for spec in inputs]
        for spec in inputs:
            array = sample[spec.name]
            assert type(array) is np.ndarray
            assert array.shape == spec.shape
            assert array.dtype == spec.dtype
            assert array.flags.c_contiguous
    assert promised in (None, len(result))
    return result


def fails(data: Any, *inputs: TensorSpec, **options: Any) -> str:
    """Return the message of the `BadInput` that making or reading the stream raises; it must say what to do next."""
    with pytest.raises(BadInput) as caught:
        list(samples(data, inputs, **options))
    assert caught.value.hint
    return str(caught.value)
