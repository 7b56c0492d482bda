"""Moments: what is kept of a layer's inputs to choose its weights by; its size does not depend on the number of samples.

Knows numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Moments", "Problem", "drift", "quality"]

Array = NDArray[np.float64]


class Moments:
    """First and second moments of what a layer multiplies its weights with, float (x) and as quantized so far (x̂).

    Attributes
    ----------
    quantized, cross : ndarray of float64, shape [groups, k, k]
        k inputs of a group times positions of the kernel.
    mean, quantized_mean : ndarray of float64, shape [groups, k]
    power : ndarray of float64, shape [groups, outputs of a group]
    weight : ndarray of float32, shape [groups, outputs of a group, k]
        The layer's.
    rows : int
        Positions that were seen.
    """

    def __init__(self, weight: NDArray[Any]) -> None:
        groups, outputs, k = weight.shape
        self.weight = weight.astype(np.float32)
        self.rows = 0
        self._floor = np.zeros(groups)  # what single precision leaves of the power where the means are taken out
        self._quantized = np.zeros((groups, k, k))
        self._cross = np.zeros((groups, k, k))
        self._mean, self._quantized_mean = np.zeros((2, groups, k))
        self._power, self._output = np.zeros((2, groups, outputs))

    def add(self, x: NDArray[np.float32], quantized: NDArray[np.float32]) -> None:
        """Take in rows, shape [rows, groups, k], the same positions of both."""
        a, b = x.transpose(1, 2, 0), quantized.transpose(1, 0, 2)  # [groups, k, rows], [groups, rows, k]
        self.rows += x.shape[0]
        self._cross += a @ b
        self._quantized += b.transpose(0, 2, 1) @ b
        self._mean += x.sum(axis=0, dtype=np.float64)
        self._quantized_mean += quantized.sum(axis=0, dtype=np.float64)
        y = self.weight @ a
        self._power += np.square(y).sum(axis=-1, dtype=np.float64)
        self._output += y.sum(axis=-1, dtype=np.float64)

    def centred(self) -> Moments:
        """Give the moments about the means: what is left for the weights where a bias takes care of the means."""
        made = Moments(self.weight)
        made.rows = self.rows
        x, q = self._mean / self.rows, self._quantized_mean / self.rows
        made._quantized = self._quantized - self.rows * q[:, :, None] * q[:, None, :]
        made._cross = self._cross - self.rows * x[:, :, None] * q[:, None, :]
        made._floor = 1e-5 * np.trace(self.quantized, axis1=1, axis2=2) / q.shape[-1]
        made._power = np.maximum(self._power - np.square(self._output) / self.rows, 0)
        return made

    def with_(self, other: Moments) -> Moments:
        """Give the moments of both together."""
        made = Moments(self.weight)
        made.rows = self.rows + other.rows
        for name in ("_quantized", "_cross", "_mean", "_quantized_mean", "_power", "_output"):
            setattr(made, name, getattr(self, name) + getattr(other, name))
        return made

    @property
    def floor(self) -> Array:
        """Power of x̂ below which all is rounding error, shape [groups]."""
        return self._floor

    @property
    def quantized(self) -> Array:
        """Mean of ``x̂ x̂ᵀ``."""
        return self._quantized / self.rows

    @property
    def cross(self) -> Array:
        """Mean of ``x x̂ᵀ``."""
        return self._cross / self.rows

    @property
    def mean(self) -> Array:
        """Mean of x."""
        return self._mean / self.rows

    @property
    def quantized_mean(self) -> Array:
        """Mean of x̂."""
        return self._quantized_mean / self.rows

    @property
    def power(self) -> Array:
        """Mean of ``(W x)²``."""
        return self._power / self.rows


@dataclass(frozen=True)
class Problem:
    """Minimise ``(Ŵ - target) hessian (Ŵ - target)ᵀ``, row by row, over Ŵ = scale * integer codes.

    Attributes
    ----------
    weight : ndarray, shape [groups, outputs, k]
        The float weights.
    target : ndarray, like `weight`
        The float weights that give most nearly ``W x`` from x̂.
    hessian : ndarray, shape [groups, k, k]
        Mean of x̂ x̂ᵀ, damped; positive definite.
    bits : int
        Of signed symmetric codes.
    common : bool
        Whether all rows share one scale.
    """

    weight: Array
    target: Array
    hessian: Array
    bits: int
    common: bool = False

    @property
    def qmin(self) -> int:
        """The lowest code."""
        return -(1 << (self.bits - 1))

    @property
    def qmax(self) -> int:
        """The highest code."""
        return (1 << (self.bits - 1)) - 1

    def loss(self, weights: Array) -> Array:
        """Give the loss of each row, shape [groups, outputs]."""
        error = weights - self.target
        rows: Array = ((error @ self.hessian) * error).sum(axis=-1)
        return rows

    @classmethod
    def of(cls, weight: Array, moments: Moments, bits: int, *, common: bool = False, damping: float = 0.01) -> Problem:
        """Make the problem of a layer: ``||W x - Ŵ x̂||² + λ ||Ŵ - W||²`` with λ = `damping` times the mean of E[x̂²].

        Its float minimum is ``W* = (W E[x x̂ᵀ] + λ W) (E[x̂ x̂ᵀ] + λ I)⁻¹``; what is beyond it is the quadratic form here.
        (Asymmetric reconstruction: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML
        2020, section 3.4; damping as in Frantar et al., "GPTQ", ICLR 2023, section 3.3.)
        """
        hessian = moments.quantized
        k = hessian.shape[-1]
        size = np.trace(hessian, axis1=1, axis2=2)[:, None, None] / k
        typical = size.mean()
        least = np.maximum(moments.floor[:, None, None], 1e-6 * typical)
        ridge = np.maximum(damping * size, np.where(least > 0, least, 1.0)) * np.eye(k)
        hessian = hessian + ridge
        target = np.linalg.solve(hessian, (weight @ (moments.cross + ridge)).transpose(0, 2, 1)).transpose(0, 2, 1)
        return cls(weight, target, hessian, bits, common)


def drift(moments: Moments, weight: Array, candidate: Array) -> Array:
    """Give the mean of ``W x - Ŵ x̂`` of each row, shape [groups, outputs]."""
    rows: Array = (weight @ moments.mean[:, :, None] - candidate @ moments.quantized_mean[:, :, None])[:, :, 0]
    return rows


def quality(moments: Moments, weight: Array, candidate: Array, shift: Array | float = 0.0) -> float:
    """Give the SQNR in dB of ``candidate x̂ + shift`` against ``W x``, about the mean of ``W x``, over all rows."""
    centred = moments.centred()
    cross = ((weight @ centred.cross) * candidate).sum()
    signal = float(centred.power.sum())
    noise = signal - 2 * cross + ((candidate @ centred.quantized) * candidate).sum()
    noise += np.square(drift(moments, weight, candidate) - shift).sum()
    return float(10 * np.log10(max(signal, 1e-30) / max(float(noise), 1e-12 * signal, 1e-30)))
