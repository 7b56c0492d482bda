"""Blocks: the block-wise grid of a weight, from its values.

Knows numpy and encodings; nothing of graphs or of what HTP takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnb.errors import BadInput
from qnb.quant.encodings import MIN_RANGE, Encoding

__all__ = ["LPBQ_LEVELS", "block_encoding"]

LPBQ_LEVELS = 16
"""Largest integer multiple of a channel's step that a block's step may be: 4 bits, as AIMET makes them for QNN's blockwise
expansion (weights of 4 bits that unfold to 8)."""


def block_encoding(
    values: NDArray[Any], bits: int, *, axis: int, block_axis: int, block_size: int, levels: int | None = LPBQ_LEVELS
) -> Encoding:
    """Make the symmetric signed block-wise grid of a weight from its values.

    A block's scale is made for its largest magnitude, as in `encoding_from_range`. In two levels the channel's scale is
    ``1 / levels`` of its largest block scale, and a block has that multiple of it, 1 … `levels`, whose grid is nearest to
    the block's values in the sum of squares: low-power block-wise quantization as AIMET and QNN define it, where AIMET
    rounds the block's scale to the next multiple instead.

    Parameters
    ----------
    values : ndarray of float
    bits : int
    axis, block_axis, block_size : int
        As in `Encoding`.
    levels : int, optional
        None for blocks with scales of their own.

    Raises
    ------
    BadInput
        If the blocks don't divide the axis.
    """
    if values.shape[block_axis] % block_size:
        raise BadInput(
            f"blocks of {block_size} in {values.shape[block_axis]} entries", hint="give a divisor of that number"
        )
    moved = np.moveaxis(values.astype(np.float64), (axis, block_axis), (0, 1))
    blocked = moved.reshape(moved.shape[0], moved.shape[1] // block_size, -1)  # [C, B, entries]
    qmax = (1 << (bits - 1)) - 1
    scale = np.maximum(np.abs(blocked).max(2), MIN_RANGE) / qmax
    if levels is None:
        zero_point = np.zeros(scale.shape, dtype=np.int64)
        return Encoding(bits, True, scale, zero_point, axis, block_axis, block_size)
    step = (scale.max(1, keepdims=True) / levels).astype(np.float32).astype(np.float64)
    best = np.full(scale.shape, np.inf)
    chosen = np.ones(scale.shape, dtype=np.int64)
    for level in range(1, levels + 1):
        grid = (step * level)[:, :, None]
        error = np.square(np.clip(np.rint(blocked / grid), -qmax - 1, qmax) * grid - blocked).sum(2)
        better = error < best
        best, chosen = np.where(better, error, best), np.where(better, level, chosen)
    return Encoding.lpbq(bits, step, chosen, axis=axis, block_axis=block_axis, block_size=block_size)
