"""Encodings: which real number each integer code of a quantized tensor stands for.

Knows numpy; nothing of graphs, files or how ranges were found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qnb.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BIAS_BITS", "BITS", "MIN_RANGE", "Encoding", "Encodings", "encoding_from_range"]

BITS = (4, 8, 16, 32)
BIAS_BITS = 32

MIN_RANGE = 1e-4
"""Narrowest real range that a grid is made for; the value that ONNX Runtime's QNN quantization uses, so that a tensor
of zeros, or a dead channel, gets a scale that survives being multiplied by another one in float32."""


@dataclass(frozen=True, eq=False)
class Encoding:
    """An affine integer grid: ``real = scale * (code - zero_point)``, as in ONNX's DequantizeLinear.

    Parameters
    ----------
    bits : int
        4, 8, 16, or 32 (biases).
    signed : bool
        Whether codes run from ``-2**(bits-1)`` or from 0.
    scale : array_like of float, shape [C], or [C, B] block-wise
        Real size of one step; one entry per channel, a single one for a tensor with one grid; one per channel and block
        of a block-wise grid.
    zero_point : array_like of int, shape of `scale`
        The code of real zero, in the ONNX sense. QNN's ``offset`` is its negative.
    axis : int, optional
        The channel axis; None for a tensor with one grid.
    block_axis : int, optional
        The axis that is cut into blocks: a weight's input channels. None unless block-wise.
    block_size : int, optional
        Entries of `block_axis` in one block, all of a channel that have one scale.
    block_scale : array_like of int, shape [C, B], optional
        Of a block-wise grid in two levels (QNN's blockwise expansion, AIMET's low-power block-wise quantization, LPBQ):
        the integer, at least 1, that each block's scale is of its channel's, ``scale == channel_scale[:, None] *
        block_scale``.

    Raises
    ------
    BadInput
        If the parts don't make a grid.
    """

    bits: int
    signed: bool
    scale: NDArray[np.float64]
    zero_point: NDArray[np.int64]
    axis: int | None = None
    block_axis: int | None = None
    block_size: int | None = None
    block_scale: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        shape: tuple[int, ...] = (-1,)
        if self.blockwise:
            self._check_blocks()
            shape = np.shape(self.scale)
        scale = np.array(self.scale, dtype=np.float64).reshape(shape)
        zero_point = np.array(self.zero_point, dtype=np.int64).reshape(shape if np.size(self.zero_point) else (-1,))
        if self.bits not in BITS:
            raise BadInput(f"an encoding of {self.bits} bits", hint=f"use one of {', '.join(map(str, BITS))} bits")
        if scale.shape != zero_point.shape or not scale.size:
            raise BadInput(
                f"an encoding with {scale.size} scales and {zero_point.size} zero points",
                hint="give one of each a channel",
            )
        if self.axis is None and scale.size != 1:
            raise BadInput(f"an encoding with {scale.size} scales and no axis", hint="say which axis is the channels'")
        # float32 is what every runtime stores: a scale that is zero or infinite there is no scale
        with np.errstate(over="ignore", under="ignore"):
            stored = scale.astype(np.float32)
        if not (np.isfinite(stored).all() and (stored > 0).all()):
            raise BadInput(
                "an encoding's scale is not a positive float32", hint="check the range that it was made from"
            )
        if (zero_point < self.qmin).any() or (zero_point > self.qmax).any():
            raise BadInput(
                f"a zero point is outside of {self.dtype}: {zero_point.min()} … {zero_point.max()}",
                hint=f"zero points of {self.dtype} lie in {self.qmin} … {self.qmax} (QNN's offset is their negative)",
            )
        for name, value in (("scale", scale), ("zero_point", zero_point)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    def _check_blocks(self) -> None:
        shape = np.shape(self.scale)
        if self.axis is None or self.block_axis in (None, self.axis) or len(shape) != 2 or (self.block_size or 0) < 1:
            raise BadInput(
                f"blocks of {self.block_size} along axis {self.block_axis}, channels along axis {self.axis}, scales of "
                f"shape {list(shape)}",
                hint="give block_size, two different axes, and scales of shape [channels, blocks]",
            )
        if np.shape(self.zero_point) != shape:
            raise BadInput(
                f"an encoding with {np.size(self.scale)} scales and {np.size(self.zero_point)} zero points",
                hint="give one of each a block",
            )
        if self.block_scale is None:
            return
        levels = np.array(self.block_scale, dtype=np.int64)
        if levels.shape != shape or (levels < 1).any():
            raise BadInput(
                f"block scales of shape {list(levels.shape)}, the smallest of them {levels.min(initial=1)}",
                hint=f"give integers from 1 on of shape {list(shape)}",
            )
        steps = np.asarray(self.scale, dtype=np.float64) / levels
        if not np.allclose(steps, steps[:, :1], rtol=1e-6, atol=0):
            raise BadInput(
                "the blocks' scales are not their channel's times the block scales",
                hint="make the encoding by Encoding.lpbq",
            )
        levels.setflags(write=False)
        object.__setattr__(self, "block_scale", levels)

    @classmethod
    def lpbq(
        cls, bits: int, channel_scale: ArrayLike, block_scale: ArrayLike, *, axis: int, block_axis: int, block_size: int
    ) -> Encoding:
        """Make a symmetric signed block-wise grid in two levels.

        Parameters
        ----------
        bits : int
        channel_scale : array_like of float, shape [C]
            AIMET's ``per_channel_float_scale``; rounded to float32, as it is stored.
        block_scale : array_like of int, shape [C, B]
            AIMET's ``per_block_int_scale``.
        axis, block_axis, block_size : int
            As in `Encoding`.
        """
        levels = np.asarray(block_scale, dtype=np.int64)
        step = np.asarray(channel_scale, dtype=np.float32).astype(np.float64).reshape(-1, 1)
        if levels.ndim != 2 or step.size != levels.shape[0]:
            raise BadInput(
                f"{step.size} channel scales and block scales of shape {list(levels.shape)}",
                hint="give one scale a channel, and integers of shape [channels, blocks]",
            )
        zero_point = np.zeros(levels.shape, dtype=np.int64)
        return cls(bits, True, step * levels, zero_point, axis, block_axis, block_size, levels)

    @property
    def blockwise(self) -> bool:
        """Whether a channel has several grids, one for each block."""
        return any(part is not None for part in (self.block_axis, self.block_size, self.block_scale))

    @property
    def blocks(self) -> int:
        """Number of blocks of a channel; 1 where the grid is not block-wise."""
        return int(self.scale.shape[1]) if self.blockwise else 1

    @property
    def channel_scale(self) -> NDArray[np.float64]:
        """The channels' scales of a grid in two levels; else the scale itself, or the blocks' largest; shape [C]."""
        if self.block_scale is not None:
            return np.asarray(self.scale[:, 0] / self.block_scale[:, 0])
        return np.asarray(self.scale.max(1)) if self.blockwise else self.scale

    @property
    def qmin(self) -> int:
        """The lowest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """The highest code."""
        return (1 << (self.bits - self.signed)) - 1

    @property
    def dtype(self) -> str:
        """Name of the codes' type, such as ``"uint8"``."""
        return f"{'' if self.signed else 'u'}int{self.bits}"

    @property
    def symmetric(self) -> bool:
        """Whether real zero is the middle code in every channel (0 of int8, 128 of uint8)."""
        middle = 0 if self.signed else 1 << (self.bits - 1)
        return bool((self.zero_point == middle).all())

    @property
    def offset(self) -> NDArray[np.int64]:
        """QNN's offset, ``real = scale * (code + offset)``; shape of `scale`."""
        return -self.zero_point

    @property
    def min(self) -> NDArray[np.float64]:
        """Real value of the lowest code; shape of `scale`."""
        return self.scale * (self.qmin - self.zero_point)

    @property
    def max(self) -> NDArray[np.float64]:
        """Real value of the highest code; shape of `scale`."""
        return self.scale * (self.qmax - self.zero_point)

    @property
    def channels(self) -> int:
        """Number of channels with a grid of their own; 1 for a tensor with one grid."""
        return int(self.scale.shape[0])

    def quantize(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give the codes of `values`: ``clip(round_half_even(x / float32(scale)) + zero_point)``, ONNX's QuantizeLinear.

        Division and rounding are done in float64, so that int32 biases keep all their bits.

        Parameters
        ----------
        values : ndarray of float

        Returns
        -------
        ndarray of `dtype` (4-bit codes in 8-bit integers), same shape
        """
        scale, zero_point = self._along(values.shape)
        codes = np.rint(values.astype(np.float64) / scale) + zero_point
        holder = self.dtype if self.bits >= 8 else self.dtype.replace("4", "8")
        return np.clip(codes, self.qmin, self.qmax).astype(holder)

    def dequantize(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """Give the real values of `codes`: ``float32(scale) * (code - zero_point)``, ONNX's DequantizeLinear."""
        scale, zero_point = self._along(codes.shape)
        real: NDArray[np.float32] = ((codes.astype(np.int64) - zero_point) * scale).astype(np.float32)
        return real

    def per_block(self, shape: tuple[int, ...], values: NDArray[Any]) -> NDArray[Any]:
        """Give block-wise `values` (shape [C, B]) as ONNX's DequantizeLinear takes them for a tensor of `shape`.

        Returns
        -------
        ndarray
            Of `shape`, but B long along `block_axis`; the same along the axes that are neither channels nor blocks.
        """
        assert self.axis is not None
        assert self.block_axis is not None
        spread = [1] * len(shape)
        spread[self.axis], spread[self.block_axis] = values.shape
        laid = (values if self.axis < self.block_axis else values.T).reshape(spread)
        return np.broadcast_to(laid, [self.blocks if i == self.block_axis else n for i, n in enumerate(shape)]).copy()

    def _along(self, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Give scale (rounded to float32) and zero point shaped to broadcast along the channel axis, and over blocks."""
        scale = self.scale.astype(np.float32).astype(np.float64)
        if self.block_axis is not None and self.block_size is not None:
            if shape[self.block_axis] != self.blocks * self.block_size:
                raise BadInput(
                    f"{self.blocks} blocks of {self.block_size} for {shape[self.block_axis]} entries",
                    hint="the block size has to divide the axis that is cut into blocks",
                )
            axis, size = self.block_axis, self.block_size
            return (
                self.per_block(shape, scale).repeat(size, axis),
                self.per_block(shape, self.zero_point).repeat(size, axis),
            )
        spread = [1] * len(shape)
        if self.axis is not None:
            spread[self.axis] = -1
        return scale.reshape(spread), self.zero_point.reshape(spread)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoding) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        levels = None if self.block_scale is None else self.block_scale.tobytes()
        grid = self.scale.shape, self.scale.tobytes(), self.zero_point.tobytes(), self.axis
        return self.bits, self.signed, *grid, self.block_axis, self.block_size, levels


def encoding_from_range(
    lo: ArrayLike, hi: ArrayLike, bits: int, *, signed: bool, symmetric: bool, axis: int | None = None
) -> Encoding:
    """Make the grid that covers a real range.

    The range is widened to hold zero, so that padding and ReLU are exact, and to `MIN_RANGE`. Then, with codes
    ``qmin … qmax``:

    asymmetric
        ``scale = (hi - lo) / (qmax - qmin)``, ``zero_point = round(qmin - lo / scale)``: equations 1–3 and section 3 of
        Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
        CVPR 2018; rounding half to even as ONNX's QuantizeLinear.
    symmetric
        ``scale = max(-lo, hi) / (2**(bits-1) - 1)``, ``zero_point`` in the middle (0, or ``2**(bits-1)`` when unsigned), so
        that the lowest code is left unused: section 3.1 there. (ONNX Runtime divides the unsigned range by
        ``2**bits - 1`` steps, which clips the upper end by half a step.)

    Parameters
    ----------
    lo, hi : array_like of float, scalar or shape [C]
        Ends of the real range, one per channel.
    bits : int
    signed, symmetric : bool
    axis : int, optional
        The channel axis when there are channels.

    Raises
    ------
    BadInput
        If an end is not finite, or ``lo > hi``.
    """
    low = np.atleast_1d(np.asarray(lo, dtype=np.float64))
    high = np.atleast_1d(np.asarray(hi, dtype=np.float64))
    if not (np.isfinite(low).all() and np.isfinite(high).all()) or (low > high).any():
        raise BadInput(f"not a range: {low.min()} … {high.max()}", hint="a range has finite ends, the lower one first")
    low = np.minimum(low, 0.0)
    high = np.maximum(np.maximum(high, 0.0), low + MIN_RANGE)
    if symmetric:
        scale = np.maximum(-low, high) / ((1 << (bits - 1)) - 1)
        zero_point = np.full(scale.shape, 0 if signed else 1 << (bits - 1))
    else:
        qmin = -(1 << (bits - 1)) if signed else 0
        steps = (1 << bits) - 1
        scale = (high - low) / steps
        zero_point = np.clip(np.rint(qmin - low / scale), qmin, qmin + steps)
    return Encoding(bits, signed, scale, zero_point.astype(np.int64), axis)


@dataclass(frozen=True)
class Encodings:
    """All encodings of a model.

    Parameters
    ----------
    activations : mapping of str to Encoding
        Tensors that are computed: graph inputs and op outputs.
    weights : mapping of str to Encoding
        Parameters, biases (32 bits) included.
    notes : tuple of str
        Where they are otherwise than was asked for, because HTP takes no other, and why. No part of the value.
    """

    activations: Mapping[str, Encoding] = field(default_factory=dict)
    weights: Mapping[str, Encoding] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def frame(self) -> pd.DataFrame:
        """One row a tensor. With several channels or blocks `min`, `max` and `scale` are the extremes over them (the
        largest scale), and `zero_point` and `offset` are missing unless all share them. `block_size` is missing where a
        tensor has no blocks.
        """
        import pandas as pd

        rows = [_row(name, "activation", encoding) for name, encoding in self.activations.items()]
        rows += [
            _row(name, "bias" if encoding.bits == BIAS_BITS else "weight", encoding)
            for name, encoding in self.weights.items()
        ]
        frame = pd.DataFrame(rows, columns=list(_row("", "", _ANY)))
        return frame.astype(dict.fromkeys(("axis", "block_size", "zero_point", "offset"), "Int64"))


def _row(name: str, kind: str, encoding: Encoding) -> dict[str, Any]:
    first = int(encoding.zero_point.flat[0])
    shared = first if (encoding.zero_point == first).all() else None
    return {
        "tensor": name,
        "kind": kind,
        "bits": encoding.bits,
        "signed": encoding.signed,
        "symmetric": encoding.symmetric,
        "axis": encoding.axis,
        "channels": encoding.channels,
        "block_size": encoding.block_size,
        "min": float(encoding.min.min()),
        "max": float(encoding.max.max()),
        "scale": float(encoding.scale.max()),
        "zero_point": shared,
        "offset": None if shared is None else -shared,
    }


_ANY = Encoding(8, False, np.ones(1), np.zeros(1, dtype=np.int64))
