"""Deviation: how far quantized tensors are from float ones, and how well a grid fits what lies on it, piece by piece.

Memory does not grow with the samples. Knows numpy; nothing of graphs, sessions or files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "Deviation", "Fit", "Grid", "channel_axis"]

BINS = 1024
"""Bins of a tensor's histogram; half of them cover the grid, a quarter lies on each side of it."""

_PIECE = 1 << 14  # values at a time, so that intermediates stay in the cache


class Deviation:
    """Sums over pairs of a reference tensor and what came of it."""

    def __init__(self) -> None:
        self._signal = self._noise = self._value = self._both = 0.0
        self._largest = 0.0
        self._count = 0

    def update(self, reference: NDArray[Any], value: NDArray[Any]) -> None:
        """Take in one more pair of one shape; infinities and NaN go through to the figures."""
        left, right = reference.reshape(-1), value.reshape(-1)
        with np.errstate(all="ignore"):
            for at in range(0, left.size, _PIECE):
                r, v = (side[at : at + _PIECE].astype(np.float64) for side in (left, right))
                self._signal += float(np.dot(r, r))
                self._value += float(np.dot(v, v))
                self._both += float(np.dot(r, v))
                r -= v
                self._noise += float(np.dot(r, r))
                self._largest = float(np.maximum(self._largest, max(r.max(), -r.min())))
        self._count += left.size

    def figures(self) -> dict[str, float]:
        """Give ``sqnr_db``, ``cosine``, ``mse`` (squared unit of the tensor) and ``max_abs_error``.

        The first two as `qnb.graph.compare.agreement` defines them, over all pairs together.
        """
        if not self._count:
            return dict.fromkeys(("sqnr_db", "cosine", "mse", "max_abs_error"), math.nan)
        lengths = math.sqrt(self._signal) * math.sqrt(self._value)
        cosine = self._both / lengths if lengths else float(self._signal == self._value)
        with np.errstate(all="ignore"):
            ratio = np.float64(self._signal) / self._noise if self._noise else np.inf
            sqnr = float(10 * np.log10(ratio)) if ratio else -math.inf
        return {
            "sqnr_db": sqnr,
            "cosine": 1.0 if self._noise == 0 else cosine,
            "mse": self._noise / self._count,
            "max_abs_error": self._largest,
        }


@dataclass(frozen=True)
class Grid:
    """The integer grid of a tensor, with one scale for all of it: ``real = scale * (code - zero_point)``.

    Attributes
    ----------
    scale, zero_point : float, int
    bits : int
    signed : bool
    """

    scale: float
    zero_point: int
    bits: int
    signed: bool

    @property
    def qmin(self) -> int:
        """Lowest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """Highest code."""
        return (1 << (self.bits - self.signed)) - 1

    def quantize(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give the codes of `values`, as ONNX's QuantizeLinear does: rounded half to even, in 8 or 16 bits."""
        codes = np.rint(values / np.float32(self.scale)) + np.float32(self.zero_point)
        dtype = np.dtype(f"{'' if self.signed else 'u'}int{max(8, self.bits)}")
        return np.clip(codes, self.qmin, self.qmax).astype(dtype)

    @property
    def min(self) -> float:
        """Real value of the lowest code."""
        return self.scale * (self.qmin - self.zero_point)

    @property
    def max(self) -> float:
        """Real value of the highest code."""
        return self.scale * (self.qmax - self.zero_point)


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Give the axis of an activation's channels: 1 of an image (N, C, H, W), the last of tokens and vectors."""
    if len(shape) < 2:
        return None
    return 1 if len(shape) >= 4 else len(shape) - 1


@dataclass
class Fit:
    """How the values of one tensor lie on its grid.

    Parameters
    ----------
    grid : Grid

    Attributes
    ----------
    counts : ndarray of int64, shape [BINS]
        Histogram from `start` on, in bins of `width`; what lies further out is in the first and the last bin.
    channel_min, channel_max : ndarray of float32, shape [C], or None
        Extremes by channel, of tensors that have some.
    """

    grid: Grid
    count: int = 0
    low: float = math.inf
    high: float = -math.inf
    below: int = 0
    above: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    channel_min: NDArray[np.float32] | None = None
    channel_max: NDArray[np.float32] | None = None
    noise: Deviation = field(default_factory=Deviation)

    def __post_init__(self) -> None:
        codes = self.grid.qmax - self.grid.qmin + 1
        self._used = np.zeros(codes, dtype=bool) if self.grid.bits <= 16 else np.zeros(0, dtype=bool)
        # a code's values reach half a step to both sides of it
        span = self.grid.scale * codes
        self.start = self.grid.min - self.grid.scale / 2 - span / 2
        self.width = 2 * span / BINS

    def update(self, values: NDArray[Any], axis: int | None) -> None:
        """Take in one more array of the tensor; `axis` is that of its channels."""
        if not values.size:
            return
        self._channels(values, axis)
        flat = values.reshape(-1)
        for at in range(0, flat.size, _PIECE):
            self._piece(flat[at : at + _PIECE].astype(np.float64))

    def _piece(self, x: NDArray[np.float64]) -> None:
        grid = self.grid
        self.count += x.size
        x = x[np.isfinite(x)]
        if not x.size:
            return
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        codes = np.rint(x / np.float64(np.float32(grid.scale))) + grid.zero_point
        self.below += int(np.count_nonzero(codes < grid.qmin))
        self.above += int(np.count_nonzero(codes > grid.qmax))
        np.clip(codes, grid.qmin, grid.qmax, out=codes)
        self.noise.update(x, (codes - grid.zero_point) * np.float64(np.float32(grid.scale)))
        if self._used.size:
            self._used[(codes - grid.qmin).astype(np.intp)] = True
        bins = np.clip((x - self.start) / self.width, 0, BINS - 1).astype(np.intp)
        self.counts += np.bincount(bins, minlength=BINS)

    def _channels(self, values: NDArray[Any], axis: int | None) -> None:
        if axis is None or values.ndim < 2 or values.shape[axis] < 2:
            return
        others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
        low, high = values.min(axis=others).astype(np.float32), values.max(axis=others).astype(np.float32)
        if self.channel_min is None or self.channel_max is None or self.channel_min.shape != low.shape:
            self.channel_min, self.channel_max = low, high
        else:
            np.minimum(self.channel_min, low, out=self.channel_min)
            np.maximum(self.channel_max, high, out=self.channel_max)

    def figures(self) -> dict[str, float]:
        """Give the figures of the table of tensors.

        Returns
        -------
        dict
            ``mse``, ``sqnr_db``, ``cosine``
                Of rounding and clipping this tensor alone.
            ``codes_used_percent``
                Share of the grid's codes that came up, of as many as there could be: no more than there were values.
            ``range_use_percent``
                Observed range over the grid's; above 100 where the grid is too narrow.
            ``clipped_percent``
                Share of the values beyond the grid by more than half a step.
            ``core_percent``
                Share of the grid's range that the central 99.9 % of the values take.
            ``observed_min``, ``observed_max``, ``grid_min``, ``grid_max``
                In the tensor's own unit.
        """
        grid, finite = self.grid, self.low <= self.high
        reach = min(self._used.size, max(self.count, 1))
        # as the grid does: its range always holds zero
        span = max(self.high, 0.0) - min(self.low, 0.0) if finite else math.nan
        low, high = self.quantiles(0.999)
        return {
            **{k: v for k, v in self.noise.figures().items() if k != "max_abs_error"},
            "codes_used_percent": 100 * float(self._used.sum()) / reach if reach else math.nan,
            "range_use_percent": 100 * span / (grid.max - grid.min),
            "clipped_percent": 100 * (self.below + self.above) / max(self.count, 1),
            "core_percent": 100 * (max(high, 0.0) - min(low, 0.0)) / (grid.max - grid.min) if finite else math.nan,
            "observed_min": self.low if finite else math.nan,
            "observed_max": self.high if finite else math.nan,
            "grid_min": grid.min,
            "grid_max": grid.max,
        }

    def quantiles(self, share: float) -> tuple[float, float]:
        """Give the ends of the range that holds the central `share` of the values, right to a bin."""
        total = int(self.counts.sum())
        if not total:
            return math.nan, math.nan
        below = np.cumsum(self.counts)
        tail = (1 - share) / 2 * total
        first = int(np.searchsorted(below, tail, side="right"))
        last = int(np.searchsorted(below, total - tail, side="left"))
        ends = self.start + self.width * first, self.start + self.width * (min(last, BINS - 1) + 1)
        return max(ends[0], self.low), min(ends[1], self.high)
