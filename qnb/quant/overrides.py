"""Overrides: what a person, or a file, says about some tensors' encodings, in whole or in part.

Knows encodings; nothing of files or graphs. A part that is left open comes from the tensor's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qnb.errors import BadConfig, BadInput
from qnb.quant.encodings import Encoding, encoding_from_range

__all__ = ["Override", "Overrides"]


@dataclass(frozen=True, eq=False)
class Override:
    """What is said of one tensor; None leaves a part to the default.

    Parameters
    ----------
    kind : {"activation", "param"}, optional
        What the tensor is; None where the file doesn't say.
    keep_float : bool
        Leave the tensor unquantized.
    bits, signed
        As in `Encoding`.
    low, high : ndarray of float64, shape [C], optional
        Ends of the real range, one per channel.
    scale, zero_point : ndarray, shape [C], or [C, B] block-wise, optional
        The grid itself; goes before the range. `zero_point` is in the ONNX sense. Of shape [C·B] where a file gives the
        blocks of all channels in one list and not how many channels there are.
    axis : int, optional
        The channel axis.
    block_size, block_axis, block_scale
        As in `Encoding`; a size alone asks for blocks, and leaves their grids open.
    """

    kind: Literal["activation", "param"] | None = None
    keep_float: bool = False
    bits: int | None = None
    signed: bool | None = None
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None
    zero_point: NDArray[np.int64] | None = None
    axis: int | None = None
    block_size: int | None = None
    block_axis: int | None = None
    block_scale: NDArray[np.int64] | None = None

    @property
    def has_grid(self) -> bool:
        """Whether it says what is needed for a grid, bits aside."""
        grid = self.scale is not None and self.zero_point is not None
        return grid or (self.low is not None and self.high is not None)

    @property
    def channels(self) -> int:
        """How many channels it speaks of; 1 for all of them alike."""
        return max((part.shape[0] for part in (self.scale, self.low, self.high) if part is not None), default=1)

    def over(self, default: Encoding) -> Encoding:
        """Complete it from the tensor's `default`.

        Raises
        ------
        BadInput
            If the parts don't make a grid, or have another number of channels than the default allows.
        """
        bits = default.bits if self.bits is None else self.bits
        signed = default.signed if self.signed is None else self.signed
        symmetric = default.symmetric and signed
        if self.block_size is not None and self.scale is not None:
            return self._in_blocks(default, bits, signed)
        if self.channels not in (1, default.channels):
            raise BadInput(
                f"{self.channels} channels where the tensor has {default.channels}",
                hint="give one value, or one for each channel (grids per block need version 1.0.0 or 2.0.0)",
            )
        if self.channels > 1 and self.axis not in (None, default.axis):
            raise BadInput(
                f"channels along axis {self.axis}", hint=f"HTP has this tensor's channels along axis {default.axis}"
            )
        size = 1 if self.has_grid and self.channels == 1 else default.channels
        axis = None if size < default.channels else default.axis
        if self.scale is not None:
            middle = 0 if signed else 1 << (bits - 1)
            unsaid = default.zero_point if (bits, signed) == (default.bits, default.signed) else np.array([middle])
            zero_point = unsaid if self.zero_point is None else self.zero_point
            return Encoding(bits, signed, np.resize(self.scale, size), np.resize(zero_point, size), axis)
        if default.blockwise:
            if self.low is None and self.high is None and (bits, signed) == (default.bits, default.signed):
                return default
            raise BadInput(
                "a range for a tensor with a grid per block", hint="leave out block_size, or give the blocks' scales"
            )
        if self.low is None and self.high is None and (bits, signed) == (default.bits, default.signed):
            return default
        lowest = -default.max if symmetric else default.min  # a symmetric grid's lowest code is unused
        low = lowest if self.low is None else np.resize(self.low, size)
        high = default.max if self.high is None else np.resize(self.high, size)
        return encoding_from_range(low, high, bits, signed=signed, symmetric=symmetric, axis=axis)

    def _in_blocks(self, default: Encoding, bits: int, signed: bool) -> Encoding:
        """Complete a grid per block: which axes it lies along is for the tensor to say, where the file doesn't."""
        assert self.scale is not None
        axis = self.axis if default.axis is None else default.axis
        block_axis = self.block_axis if default.block_axis is None else default.block_axis
        if axis is None or block_axis is None:
            raise BadInput(
                "a grid per block, where HTP takes none",
                hint="HTP takes blocks in 1 x 1 convolutions and matrix products: leave it out to get the nearest grid",
            )
        if self.block_axis not in (None, block_axis):
            raise BadInput(
                f"blocks along axis {self.block_axis}", hint=f"HTP has this tensor's blocks along axis {block_axis}"
            )
        channels = self.scale.shape[0] if self.scale.ndim == 2 else default.channels
        if channels != default.channels and default.axis is not None:
            raise BadInput(
                f"{channels} channels where the tensor has {default.channels}",
                hint="give the scales of all blocks of each channel",
            )
        if self.scale.size % channels:
            raise BadInput(
                f"{self.scale.size} scales for {channels} channels", hint="give as many blocks for each channel"
            )
        scale = self.scale.reshape(channels, -1)
        middle = 0 if signed else 1 << (bits - 1)
        zeros = np.full(scale.shape, middle) if self.zero_point is None else self.zero_point.reshape(scale.shape)
        return Encoding(bits, signed, scale, zeros, axis, block_axis, self.block_size, self.block_scale)


@dataclass(frozen=True)
class Overrides:
    """What is said of a model's tensors.

    Parameters
    ----------
    tensors : mapping of str to Override
    activation_bits, param_bits : int, optional
        For all tensors of the kind that say nothing themselves.
    origin : str
        Where it comes from, for messages.
    """

    tensors: Mapping[str, Override] = field(default_factory=dict)
    activation_bits: int | None = None
    param_bits: int | None = None
    origin: str = "the overrides"

    def complete(self, name: str, default: Encoding) -> Encoding | None:
        """Give the encoding of the tensor `name`: what is said of it, the rest from `default`; None to keep it in float.

        Raises
        ------
        BadConfig
            If what is said of the tensor does not make a grid.
        """
        override = self.tensors.get(name)
        if override is None:
            return default
        if override.keep_float:
            return None
        try:
            return override.over(default)
        except BadInput as error:
            raise BadConfig(f"{self.origin}: tensor {name!r}: {error.what}", hint=error.hint) from error
