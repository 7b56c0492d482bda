"""What the explorer knows of each activation: its values as they were counted, its grid, and what another grid would do.

Knows nothing of widgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qnb.artifacts import Quantized
from qnb.display.style import number
from qnb.quant.encodings import Encoding, encoding_from_range
from qnb.quant.observers import Distribution
from qnb.quant.trial import Trial, Tried, from_fit
from qnb.steps._findings import entries
from qnb.steps.check import Check

__all__ = ["BITS", "Choice", "Tensor", "around", "checked", "counted", "rows"]

BITS = (8, 16)
"""Bits that the NPU takes of an activation."""


@dataclass(frozen=True)
class Choice:
    """A grid as it is chosen: ends of the real range, bits, and whether zero is in the middle."""

    low: float
    high: float
    bits: int
    symmetric: bool

    def encoding(self, signed: bool) -> Encoding:
        """Give the grid.

        Raises
        ------
        BadInput
            If the ends are no range.
        """
        return encoding_from_range(self.low, self.high, self.bits, signed=signed, symmetric=self.symmetric)


@dataclass(frozen=True)
class Tensor:
    """An activation.

    Attributes
    ----------
    distribution : Distribution
        How its values are distributed.
    extent : (float, float)
        Smallest and largest value.
    encoding : Encoding
        The grid that it has.
    trial : Trial
        Tries other grids.
    now : Tried
        What the grid that it has does.
    """

    name: str
    distribution: Distribution
    extent: tuple[float, float]
    encoding: Encoding
    trial: Trial
    now: Tried

    @classmethod
    def of(cls, name: str, distribution: Distribution, extent: tuple[float, float], encoding: Encoding) -> Tensor:
        """Make it, and see what its grid does."""
        trial = Trial(distribution, extent)
        return cls(name, distribution, extent, encoding, trial, trial.of(encoding))

    @property
    def choice(self) -> Choice:
        """The grid that it has, as one would choose it."""
        grid, high = self.encoding, float(self.encoding.max[0])
        low = -high if grid.symmetric else float(grid.min[0])  # a symmetric grid's lowest code is left unused
        return Choice(low, high, grid.bits, grid.symmetric)


def counted(quantized: Quantized, found: Mapping[str, tuple[Distribution, tuple[float, float]]]) -> dict[str, Tensor]:
    """Give the activations that have one grid, with the values that were counted of them."""
    frame = quantized.frame
    made = {}
    for row in entries(frame[(frame["kind"] == "activation") & (frame["channels"] == 1)]):
        if row.tensor in found:
            grid = Encoding(int(row.bits), bool(row.signed), np.array([row.scale]), np.array([int(row.zero_point)]))
            made[str(row.tensor)] = Tensor.of(str(row.tensor), *found[row.tensor], grid)
    return made


def rows(now: Tried, own: Encoding, tried: Tried, grid: Encoding) -> list[list[str]]:
    """Give the figures as text: what, now, tried."""
    pairs = [
        ("SQNR [dB]", now.sqnr_db, tried.sqnr_db),
        ("MSE [unit²]", now.mse, tried.mse),
        ("clipped [%]", now.clipped_percent, tried.clipped_percent),
        ("scale [unit]", float(own.scale[0]), float(grid.scale[0])),
        ("zero point", int(own.zero_point[0]), int(grid.zero_point[0])),
    ]
    return [[what, number(a), number(b)] for what, a, b in pairs]


def checked(check: Check) -> dict[str, Tensor]:
    """Give the activations that have one grid, with the values that a check has counted of them."""
    made = {}
    for row, counts in zip(entries(check.tensors[check.tensors["kind"] != "bias"]), check.counts, strict=True):
        if row.kind != "activation" or row.grids != 1 or not counts.sum() or not row.grid_max > row.grid_min:
            continue
        bits, name = int(row.bits), str(row.tensor)
        scale = (row.grid_max - row.grid_min) / ((1 << bits) - 1)
        grid = Encoding(bits, False, np.array([scale]), np.array([round(-row.grid_min / scale)]))
        distribution = from_fit(counts, row.grid_min, row.grid_max, bits)
        made[name] = Tensor.of(name, distribution, (row.observed_min, row.observed_max), grid)
    return made


def around(tensor: Tensor, grid: Encoding, bins: int = 1024) -> np.ndarray:
    """Count a tensor's values anew in the bins that `qnb.display.check_charts.histogram` wants, around a grid."""
    scale = float(grid.scale[0])
    span = scale * (1 << grid.bits)
    low = float(grid.min[0]) - scale / 2
    edges = np.linspace(low - span / 2, low + 1.5 * span, bins + 1)
    below = np.concatenate(([0.0], np.cumsum(tensor.distribution.counts)))
    at = np.interp(edges, tensor.distribution.edges, below)
    at[0], at[-1] = 0.0, below[-1]  # what lies further out
    counts: np.ndarray = np.rint(np.diff(at)).astype(np.int64)
    return counts
