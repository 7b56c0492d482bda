"""Ranges: from what an observer has seen of each tensor to the real range that its grid should cover.

Knows observers; nothing of graphs or encodings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qnb.errors import BadInput, UnknownName
from qnb.quant.observers import Distribution, Histogram, MinMax

__all__ = [
    "DEFAULT_PERCENTILE",
    "METHODS",
    "entropy",
    "find",
    "min_max",
    "mse",
    "percentile",
    "squared_error",
    "zeros_apart",
]

METHODS = ("min-max", "percentile", "mse", "entropy")
DEFAULT_PERCENTILE = 99.99

_Range = tuple[float, float]
_Score = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
_NARROWEST = 0.02  # of an end, the least that is tried
_COARSE, _FINE, _ROUNDS = 12, 5, 3  # candidates for each end: over the whole, then around the best, closer each time
_CLOSE_TO_ALL = 1e-9


def find(
    observer: MinMax, method: str, *, bits: int = 8, percentile: float = DEFAULT_PERCENTILE
) -> dict[str, tuple[float, float]]:
    """Give the range of each tensor by one of `METHODS`.

    Parameters
    ----------
    observer : MinMax
        A `Histogram` for all but ``min-max``.
    method : {"min-max", "percentile", "mse", "entropy"}
    bits : int
        Of the grid that will cover the range; ``mse`` and ``entropy`` ask.
    percentile : float
        See `percentile`.

    Raises
    ------
    UnknownName
        For another method.
    BadInput
        If the percentage is none, or the observer has counted nothing.
    """
    if method not in METHODS:
        raise UnknownName.among("range method", method, METHODS)
    if method == "min-max":
        return min_max(observer)
    if not isinstance(observer, Histogram):
        raise BadInput(f"range method {method} without a histogram", hint="gather statistics with a Histogram")
    if method == "percentile":
        return _percentile(observer, percentile)
    return mse(observer, bits) if method == "mse" else entropy(observer, bits)


def min_max(observer: MinMax) -> dict[str, tuple[float, float]]:
    """Give the smallest and largest value of each tensor: nothing is clipped."""
    return observer.extents


def percentile(observer: Histogram, p: float = DEFAULT_PERCENTILE) -> dict[str, tuple[float, float]]:
    """Give the range that holds `p` percent of each tensor's values, the same share cut off on both sides.

    The ends are the ``(100 - p) / 2`` and ``(100 + p) / 2`` percentiles, linearly interpolated as by ``numpy.percentile``
    and right to one bin of the histogram. (Cutting half on each side is also what ONNX Runtime's and AIMET's percentile
    calibration do.)

    Parameters
    ----------
    observer : Histogram
    p : float
        Above 0, at most 100 (which is `min_max`).

    Returns
    -------
    dict
        Tensor name to the range's ends, within what was seen.

    Raises
    ------
    BadInput
        If `p` is not a percentage.
    """
    if not 0 < p <= 100:
        raise BadInput(f"a percentile of {p}", hint="give a percentage above 0 and up to 100, such as 99.99")
    cut = (100 - p) / 200
    ranges = {}
    for name, (low, high) in observer.extents.items():
        if p < 100:
            distribution = observer.distribution(name)
            quantiles = (_quantile(distribution, cut), _quantile(distribution, 1 - cut))
            smallest = low
            low, high = (float(np.clip(value, low, high)) for value in quantiles)
            if smallest == 0 and low < distribution.width:  # zeros, as far as the bins tell
                low = 0.0
        ranges[name] = low, high
    return ranges


_percentile = percentile


def mse(observer: Histogram, bits: int = 8) -> dict[str, tuple[float, float]]:
    """Give the range with the least mean squared error between values and their codes' real values.

    The error of clipping and rounding together, ``E[(x - Q(x))**2]``: Nagel et al., "A White Paper on Neural Network
    Quantization", arXiv:2106.08295, section 3.1, "MSE". ``Q`` is the asymmetric grid with an exact zero of Jacob et al.,
    CVPR 2018, ``scale = (hi - lo) / (2**bits - 1)``. A bin's values are taken to lie evenly in it, so that its part in the
    error is an integral in closed form, right also where steps are narrower than bins; values in the bin of zero are taken
    to be zeros, as they are behind a Relu.

    Parameters
    ----------
    observer : Histogram
    bits : int
        Bits of the grid.

    Returns
    -------
    dict
        Tensor name to the range's ends, within what was seen.
    """
    return {
        name: _searched(extent, _mse_score(observer.distribution(name), bits))
        for name, extent in observer.extents.items()
    }


def entropy(observer: Histogram, bits: int = 8) -> dict[str, tuple[float, float]]:
    """Give the range whose `2**bits` levels lose the least information.

    Least is the Kullback-Leibler divergence of the values' distribution, what lies outside heaped on the outermost bins,
    from the one with each level's values spread evenly over those bins of the level that are not empty: Migacz, "8-bit
    Inference with TensorRT", GTC 2017; there, and in ONNX Runtime, with the same bins on either side of zero, here with
    each end on its own and as many levels as the grid has codes. Zeros are exact on any grid, so the bin of zero counts
    no more than its neighbours. Where the grid is as fine as the histogram, as with 16 bits, nothing is clipped.

    Parameters
    ----------
    observer : Histogram
    bits : int
        Bits of the grid.

    Returns
    -------
    dict
        Tensor name to the range's ends, within what was seen.
    """
    found = {}
    for name, extent in observer.extents.items():
        distribution = observer.distribution(name)
        fine = distribution.counts.size <= 1 << bits
        found[name] = extent if fine else _searched(extent, _entropy_score(distribution, 1 << bits))
    return found


def _searched(extent: _Range, score: _Score) -> _Range:
    """Give the range within `extent` (and zero) of the lowest score; among those that are as good, the widest."""
    low, high = min(extent[0], 0.0), max(extent[1], 0.0)
    if low == high:
        return extent
    shares = np.geomspace(1.0, _NARROWEST, _COARSE)
    lows, highs = low * shares if low else np.zeros(1), high * shares if high else np.zeros(1)
    best = _lowest(lows, highs, score)
    ratio = shares[1]
    for _ in range(_ROUNDS):
        near = np.geomspace(1 / ratio, ratio, _FINE)
        lows = np.maximum(best[0] * near, low) if low else np.zeros(1)
        highs = np.minimum(best[1] * near, high) if high else np.zeros(1)
        best = _lowest(lows, highs, score)
        ratio **= 2 / (_FINE - 1)
    lowest, highest = best
    # an end that was left alone stays what was seen: zero is the grid's matter
    return (extent[0] if lowest <= low else lowest), (extent[1] if highest >= high else highest)


def _lowest(lows: NDArray[np.float64], highs: NDArray[np.float64], score: _Score) -> _Range:
    """Give the best of all pairs; each end holds zero, so they can't cross."""
    pairs_low, pairs_high = (grid.ravel() for grid in np.meshgrid(lows, highs, indexing="ij"))
    scores = score(pairs_low, pairs_high)
    ties = np.flatnonzero(scores <= scores.min() * (1 + _CLOSE_TO_ALL))
    widest = ties[np.argmax((pairs_high - pairs_low)[ties])]
    return float(pairs_low[widest]), float(pairs_high[widest])


def _mse_score(distribution: Distribution, bits: int) -> _Score:
    """Make the function from pairs of ends to mean squared errors."""
    error_of = squared_error(distribution)
    steps = (1 << bits) - 1

    def score(lows: NDArray[np.float64], highs: NDArray[np.float64]) -> NDArray[np.float64]:
        scale = (highs - lows) / steps
        return error_of(scale, np.rint(-lows / scale), steps)

    return score


def squared_error(
    distribution: Distribution, extent: _Range | None = None
) -> Callable[[NDArray[np.float64], NDArray[np.float64], int], NDArray[np.float64]]:
    """Make the function from grids to mean squared errors; how it counts is said at `mse`.

    Parameters
    ----------
    distribution : Distribution
    extent : (float, float), optional
        Smallest and largest value, where the outermost bins are known to be filled no further.

    Returns
    -------
    callable
        Of the grids' scales (shape [N]), how many codes each has below zero (shape [N]), and how many steps all have; gives
        the errors in the squared unit of the tensor, shape [N].
    """
    counts, edges = zeros_apart(distribution, extent)
    # the sum over bins of share x integral, as a sum over edges
    shares = counts / (int(distribution.counts.sum()) * np.diff(edges))
    jumps = np.concatenate((shares, [0.0])) - np.concatenate(([0.0], shares))
    used = np.flatnonzero(jumps)
    ends, jumps = edges[used], -jumps[used]

    def error_of(scale: NDArray[np.float64], below: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
        parts = []
        for some in (slice(i, i + 64) for i in range(0, scale.size, 64)):
            step = scale[some, None]
            position = ends / step
            code = np.rint(position)
            np.minimum(np.maximum(code, -below[some, None], out=code), steps - below[some, None], out=code)
            # the integral of (x - Q(x))**2 from 0 on, in steps: a twelfth for each whole one, and a cube for the rest
            position -= code
            integral = position * position
            integral *= position
            integral *= 4.0
            integral += code
            parts.append((integral @ jumps) * (step[:, 0] ** 3 / 12))
        errors: NDArray[np.float64] = np.maximum(np.concatenate(parts), 0.0)
        return errors

    return error_of


def zeros_apart(
    distribution: Distribution, extent: _Range | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give counts without those of the bin that holds zero, which count as zeros, and the edges, none beyond `extent`."""
    counts, edges = distribution.counts.astype(np.float64), distribution.edges
    zero = int(np.clip(np.searchsorted(edges, 0.0, side="right") - 1, 0, counts.size - 1))
    if edges[zero] <= 0 <= edges[zero + 1]:
        counts[zero] = 0.0
    if extent is not None:
        # a bin of one value alone keeps a width, if a small one
        edges[0] = min(max(edges[0], extent[0]), edges[1] - distribution.width / 1024)
        edges[-1] = max(min(edges[-1], extent[1]), edges[-2] + distribution.width / 1024)
    return counts, edges


def _entropy_score(distribution: Distribution, levels: int) -> _Score:
    """Make the function from pairs of ends to divergences; all sums over bins are differences of running sums."""
    counts, edges = distribution.counts.astype(np.float64), distribution.edges
    zero = int(np.clip(np.searchsorted(edges, 0.0, side="right") - 1, 0, counts.size - 1))
    if edges[zero] <= 0 <= edges[zero + 1] and counts.size > 2:
        around = [counts[i] for i in (zero - 1, zero + 1) if 0 <= i < counts.size]
        counts[zero] = min(counts[zero], max(around))
    total = counts.sum()
    shares = counts / total
    below = np.minimum(np.concatenate(([0.0], np.cumsum(shares))), 1.0)
    below[-1] = 1.0
    filled = np.concatenate(([0.0], np.cumsum(shares > 0)))
    own = np.concatenate(([0.0], np.cumsum(np.where(shares > 0, shares * np.log(np.maximum(shares, 1e-300)), 0.0))))

    def score(lows: NDArray[np.float64], highs: NDArray[np.float64]) -> NDArray[np.float64]:
        first = np.clip(np.floor((lows - edges[0]) / distribution.width), 0, counts.size - 1).astype(np.int64)
        last = np.clip(np.ceil((highs - edges[0]) / distribution.width), first + 1, counts.size).astype(np.int64)
        cuts = first[:, None] + ((last - first)[:, None] * np.arange(levels + 1)) // levels
        inside = np.diff(below[cuts], axis=1)
        bins = np.diff(filled[cuts], axis=1)
        left, right = below[first], 1.0 - below[last]
        # an empty outermost bin on which others are heaped is empty no more
        bins[:, 0] += (left > 0) & (shares[first] == 0)
        bins[:, -1] += (right > 0) & (shares[last - 1] == 0)
        # sum p log p, the two outermost bins with what was clipped
        entropy = own[last] - own[first]
        for end, more in ((first, left), (last - 1, right)):
            entropy = entropy - _x_log_x(shares[end]) + _x_log_x(shares[end] + more)
        whole = inside.copy()
        whole[:, 0] += left
        whole[:, -1] += right
        kept = below[last] - below[first]
        with np.errstate(divide="ignore", invalid="ignore"):
            level = np.log(inside / np.maximum(bins, 1) / kept[:, None])
            cross = np.where(whole > 0, whole * np.where(inside > 0, level, -50.0), 0.0).sum(axis=1)
        divergence = entropy - cross
        # fewer bins than levels: such a range says nothing of what rounding loses
        divergence[last - first < levels] = np.inf
        divergence[kept <= 0] = np.inf
        floored: NDArray[np.float64] = np.maximum(divergence, 1e-12)
        return floored

    return score


def _x_log_x(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(x > 0, x * np.log(np.maximum(x, 1e-300)), 0.0)


def _quantile(distribution: Distribution, q: float) -> float:
    """Interpolate between the two order statistics around rank ``q (n - 1)``, each placed within its bin."""
    counts = distribution.counts
    below = np.concatenate(([0], np.cumsum(counts)))
    rank = q * (below[-1] - 1)
    ranks = np.array([np.floor(rank), np.ceil(rank)])
    bins = np.searchsorted(below, ranks, side="right") - 1
    inside = (ranks - below[bins] + 0.5) / counts[bins]
    first, second = distribution.start + distribution.width * (bins + inside)
    return float(first + (second - first) * (rank - ranks[0]))
