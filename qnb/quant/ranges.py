"""Ranges: from what an observer has seen of each tensor to the real range that its grid should cover.

Knows observers; nothing of graphs or encodings.
"""

from __future__ import annotations

import numpy as np

from qnb.errors import BadInput
from qnb.quant.observers import Distribution, Histogram, MinMax

__all__ = ["DEFAULT_PERCENTILE", "min_max", "percentile"]

DEFAULT_PERCENTILE = 99.99


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
            low, high = (float(np.clip(value, low, high)) for value in quantiles)
        ranges[name] = low, high
    return ranges


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
