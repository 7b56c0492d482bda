"""Trial: what a grid would do to a tensor whose distribution was counted, without running anything.

Knows distributions and encodings; nothing of graphs. Values are taken to lie evenly in their bin, and those of the bin of
zero to be zeros, as `qnb.quant.ranges.mse` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qnb.quant.encodings import Encoding
from qnb.quant.observers import Distribution
from qnb.quant.ranges import squared_error, zeros_apart

__all__ = ["Trial", "Tried", "from_fit"]


@dataclass(frozen=True)
class Tried:
    """The figures of one grid.

    Attributes
    ----------
    mse : float
        Mean squared error of clipping and rounding, in the squared unit of the tensor.
    sqnr_db : float
        Signal over that error; infinite where there is none.
    clipped_percent : float
        Share of the values beyond the grid by more than half a step.
    """

    mse: float
    sqnr_db: float
    clipped_percent: float


class Trial:
    """Tries grids on one distribution; what does not depend on the grid is worked out once.

    Parameters
    ----------
    distribution : Distribution
    extent : (float, float), optional
        Smallest and largest value, where they are known.
    """

    def __init__(self, distribution: Distribution, extent: tuple[float, float] | None = None) -> None:
        counts, edges = zeros_apart(distribution, extent)
        self._error = squared_error(distribution, extent)
        self._total = float(distribution.counts.sum())
        self._edges = edges
        self._below = np.concatenate(([0.0], np.cumsum(counts)))
        cubes = edges**3
        self._power = float(counts @ (np.diff(cubes) / np.diff(edges))) / (3 * self._total)

    def of(self, encoding: Encoding) -> Tried:
        """Try a grid.

        Parameters
        ----------
        encoding : Encoding
            With one scale for the whole tensor.
        """
        # float32 is what every runtime stores
        scale = float(np.float32(encoding.scale[0]))
        below = float(encoding.zero_point[0] - encoding.qmin)
        steps = encoding.qmax - encoding.qmin
        mse = float(self._error(np.array([scale]), np.array([below]), steps)[0])
        ends = np.array([-below - 0.5, steps - below + 0.5]) * scale
        low, high = np.interp(ends, self._edges, self._below)
        clipped = low + self._below[-1] - high
        ratio = self._power / mse if mse else math.inf
        return Tried(mse, 10 * math.log10(ratio) if ratio else -math.inf, 100 * float(clipped) / self._total)


def from_fit(counts: np.ndarray, grid_min: float, grid_max: float, bits: int) -> Distribution:
    """Give the distribution that a check has counted around a grid: see `qnb.quant.deviation.Fit`.

    Parameters
    ----------
    counts : ndarray of int64, shape [bins]
        The middle half of the bins is the grid, a quarter lies on each side; what is further out is in the outermost.
    grid_min, grid_max : float
        Real values of the lowest and the highest code.
    bits : int
        Of the grid.
    """
    scale = (grid_max - grid_min) / ((1 << bits) - 1)
    span = scale * (1 << bits)
    used = np.flatnonzero(counts)
    width = 2 * span / counts.size
    start = grid_min - scale / 2 - span / 2 + width * int(used[0])
    return Distribution(start, width, np.asarray(counts[used[0] : used[-1] + 1], dtype=np.int64))
