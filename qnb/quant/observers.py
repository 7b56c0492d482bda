"""Observers: statistics of many tensors, gathered piece by piece in memory that does not grow with the samples.

Knows numpy; nothing of graphs, sessions or encodings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qnb.errors import CalibrationError

__all__ = ["BINS", "Distribution", "Histogram", "MinMax"]

BINS = 2048

_CHUNK = 1 << 16  # float32 values at a time: the piece and its bin numbers stay in the second-level cache
_FINEST = -100  # exponent of the narrowest bin: 2**100 still is a float32


class MinMax:
    """Smallest and largest value of each tensor."""

    def __init__(self) -> None:
        self._extents: dict[str, tuple[float, float]] = {}

    def update(self, name: str, array: NDArray[Any]) -> None:
        """Take in one more array of the tensor `name`, of any shape.

        Raises
        ------
        CalibrationError
            If it holds NaN or an infinity.
        """
        for piece in _pieces(array):
            self._widen(name, _extent(name, piece, array))

    def merge(self, other: Self) -> None:
        """Take in all that `other` has seen."""
        for name, extent in other._extents.items():
            self._widen(name, extent)

    @property
    def extents(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest value by tensor name."""
        return dict(self._extents)

    def _widen(self, name: str, extent: tuple[float, float]) -> None:
        low, high = self._extents.get(name, extent)
        self._extents[name] = min(low, extent[0]), max(high, extent[1])


class Histogram(MinMax):
    """Smallest and largest value of each tensor, and how its values are distributed over `BINS` bins.

    Bins are ``2**k`` wide and begin at multiples of their width, and their window always holds zero. When a value falls
    outside, the window moves; where it would get too long, bins are merged in pairs, which loses nothing but resolution.
    So the range need not be known beforehand, and two histograms of one tensor merge exactly. Values that lie within
    ``2**-12`` of a bin's width of its edge may be counted next door (bin numbers are worked out in float32).
    """

    def __init__(self) -> None:
        super().__init__()
        self._bins: dict[str, _Bins] = {}

    def update(self, name: str, array: NDArray[Any]) -> None:
        """Take in one more array of the tensor `name`, of any shape.

        Raises
        ------
        CalibrationError
            If it holds NaN or an infinity.
        """
        for piece in _pieces(array):
            extent = _extent(name, piece, array)
            self._widen(name, extent)
            self._bins.setdefault(name, _Bins()).add(piece, *extent)

    def merge(self, other: Self) -> None:
        """Take in all that `other` has seen."""
        super().merge(other)
        for name, bins in other._bins.items():
            self._bins.setdefault(name, _Bins()).merge(bins)

    def distribution(self, name: str) -> Distribution:
        """Give what was counted of the tensor `name`."""
        bins = self._bins[name]
        used = np.flatnonzero(bins.counts)
        counts = bins.counts[used[0] : used[-1] + 1].copy()
        return Distribution(
            math.ldexp(bins.first + int(used[0]), bins.exponent), math.ldexp(1.0, bins.exponent), counts
        )


@dataclass(frozen=True)
class Distribution:
    """Equal bins from `start` on, each `width` wide, and how many values fell into each.

    Attributes
    ----------
    start, width : float
        In the tensor's real unit.
    counts : ndarray of int64, shape [bins]
        At most `BINS`; the first and the last are not zero.
    """

    start: float
    width: float
    counts: NDArray[np.int64]

    @property
    def edges(self) -> NDArray[np.float64]:
        """The bins' edges, shape [bins + 1]."""
        return np.float64(self.start) + np.float64(self.width) * np.arange(self.counts.size + 1, dtype=np.float64)


class _Bins:
    """Counts in the window ``first … first + BINS - 1`` of bins that are ``2**exponent`` wide; bin i begins at i widths."""

    def __init__(self) -> None:
        self.exponent = _FINEST
        self.first = 0
        self.counts = np.zeros(BINS, dtype=np.int64)

    def add(self, piece: NDArray[np.float32], low: float, high: float) -> None:
        """Count the values of `piece`, all of which lie in ``low … high``."""
        self._make_room(low, high)
        index = np.multiply(piece, np.float32(math.ldexp(1.0, -self.exponent)))
        index += np.float32(-self.first)
        # truncation is floor here: nothing is negative. One bin more for what rounds up at the window's end.
        counted = np.bincount(index.astype(np.intp), minlength=BINS + 1)
        self.counts += counted[:BINS]
        self.counts[-1] += counted[BINS]

    def merge(self, other: _Bins) -> None:
        """Add the counts of `other`."""
        self._make_room(*other._span())
        shift = self.exponent - other.exponent
        # the wider bins of the two may still be other's
        if shift < 0:
            self._coarsen(-shift)
            self._make_room(*other._span())
            shift = self.exponent - other.exponent
        used = np.flatnonzero(other.counts)
        np.add.at(self.counts, ((other.first + used) >> shift) - self.first, other.counts[used])

    def _span(self) -> tuple[float, float]:
        """Real ends of what was counted, both within the bins' outer edges."""
        used = np.flatnonzero(self.counts)
        if not used.size:
            return 0.0, 0.0
        return (
            math.ldexp(self.first + int(used[0]), self.exponent),
            math.ldexp(self.first + int(used[-1]) + 0.5, self.exponent),
        )

    def _make_room(self, low: float, high: float) -> None:
        """Move the window, and widen its bins as far as needed, to hold ``low … high``, zero and what was counted."""
        low, high = min(low, 0.0), max(high, 0.0)
        last = self.first + BINS - 1
        begin, end = (math.floor(math.ldexp(value, -self.exponent)) for value in (low, high))
        if begin >= self.first and end <= last:
            return
        used = np.flatnonzero(self.counts)
        if used.size:
            begin, end = min(begin, self.first + int(used[0])), max(end, self.first + int(used[-1]))
        shift = 0
        while (end >> shift) - (begin >> shift) >= BINS:
            shift += 1
        self._coarsen(shift)
        # what is left of the window goes to the side that grew, where the next growth is likely
        begin, end = begin >> shift, end >> shift
        self._move(end - BINS + 1 if begin < self.first else begin)

    def _coarsen(self, shift: int) -> None:
        """Merge every ``2**shift`` bins into one."""
        if shift:
            used = np.flatnonzero(self.counts)
            counts = np.zeros(BINS, dtype=np.int64)
            first = self.first >> shift
            np.add.at(counts, ((self.first + used) >> shift) - first, self.counts[used])
            self.exponent, self.first, self.counts = self.exponent + shift, first, counts

    def _move(self, first: int) -> None:
        """Let the window begin at bin `first`; what was counted lies inside."""
        used = np.flatnonzero(self.counts)
        counts = np.zeros(BINS, dtype=np.int64)
        counts[used + self.first - first] = self.counts[used]
        self.first, self.counts = first, counts


def _pieces(array: NDArray[Any]) -> Iterator[NDArray[np.float32]]:
    flat = np.ascontiguousarray(array).reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK].astype(np.float32, copy=False)


def _extent(name: str, piece: NDArray[np.float32], whole: NDArray[Any]) -> tuple[float, float]:
    low, high = float(piece.min()), float(piece.max())  # NaN comes through both
    if math.isfinite(low) and math.isfinite(high):
        return low, high
    nans, infinities = int(np.isnan(whole).sum()), int(np.isinf(whole).sum())
    raise CalibrationError(
        f"tensor {name!r} has {nans} NaN and {infinities} infinite of {whole.size} values on a calibration sample",
        hint="run the float model on that sample: its data or its weights are out of range there",
    )
