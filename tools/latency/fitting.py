"""Fits the estimator's coefficients and judges them by leaving models out.

The model of a chip's latency is a sum of costs that are never negative: a constant, the compiler's cycles, DDR bytes and the
work by kind of op. All chips are fitted at once. A cost on one chip is the product of what it is on all, of the chip's
speed, and of a deviation that is drawn towards none, so that chips with few measurements lean on the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

__all__ = ["Costs", "Settings", "fit_costs", "leave_out", "pull", "relative_error", "spearman"]

Array = NDArray[np.float64]
_BOUND = 30.0
_FLOOR_MS = 1e-12


@dataclass(frozen=True)
class Settings:
    """How the fit is held back.

    Attributes
    ----------
    shrink : float
        Weight of the squared log deviations of a chip's costs from those of all chips.
    prior : float
        Weight of the squared log deviations of each cost from an equal share; keeps unused ones finite.
    knee : float
        Log error from which on a residual counts linearly instead of squared.
    """

    shrink: float = 0.1
    prior: float = 0.001
    knee: float = 0.2


@dataclass(frozen=True)
class Costs:
    """Fitted costs.

    Attributes
    ----------
    log : array of features x columns
        Natural logarithm of milliseconds per unit of each (scaled) feature; a column is a chip with a path.
    state : array
        What a further fit starts from.
    """

    log: Array
    state: Array

    def predict(self, features: Array) -> Array:
        """Give log milliseconds, models x columns."""
        found: Array = np.log(np.maximum(features @ np.exp(self.log), _FLOOR_MS))
        return found


def fit_costs(features: Array, target: Array, settings: Settings, start: Costs | None = None) -> Costs:
    """Fit the costs to log milliseconds.

    Parameters
    ----------
    features : array of models x features
        Not negative, each of about 1 in a model that has it.
    target : array of models x columns
        Log milliseconds; NaN where there is no measurement.
    settings : Settings
        How the fit is held back.
    start : Costs, optional
        A fit to nearly the same data, to start from.
    """
    known = np.isfinite(target)
    wanted = np.where(known, target, 0.0)
    weight = known * len(target) / known.sum()
    count, columns = features.shape[1], target.shape[1]
    even = np.full(count, -np.log(count))

    def parts(state: Array) -> tuple[Array, Array, Array]:
        return state[:count], state[count : count + columns], state[count + columns :].reshape(count, columns)

    def loss(state: Array) -> tuple[float, Array]:
        common, speed, own = parts(state)
        costs = np.exp(np.clip(common[:, None] + speed + own, -_BOUND, _BOUND))
        predicted = np.maximum(features @ costs, _FLOOR_MS)
        residual = (np.log(predicted) - wanted) * known
        steep = np.sqrt(1 + (residual / settings.knee) ** 2)
        value = float((weight * settings.knee**2 * (steep - 1)).sum())
        slope = (features.T @ (weight * residual / steep / predicted * known)) * costs
        value += settings.shrink * float((own**2).sum()) / columns
        value += settings.prior * float(((common - even) ** 2).sum()) + 1e-3 * float(speed.mean()) ** 2
        return value, np.concatenate(
            [
                slope.sum(1) + 2 * settings.prior * (common - even),
                slope.sum(0) + 2e-3 * speed.mean() / columns,
                (slope + 2 * settings.shrink * own / columns).ravel(),
            ]
        )

    if start is None:
        rough = np.log(features.mean(1))[:, None]
        speed = np.nanmedian(np.where(known, wanted - rough, np.nan), axis=0)
        state = np.concatenate([even, speed, np.zeros(count * columns)])
    else:
        state = start.state
    found = minimize(loss, state, jac=True, method="L-BFGS-B", options={"maxiter": 500, "maxfun": 600}).x
    common, speed, own = parts(found)
    return Costs(np.clip(common[:, None] + speed + own, -_BOUND, _BOUND), found)


def leave_out(features: Array, target: Array, settings: Settings, groups: Sequence[str]) -> tuple[Array, Costs]:
    """Predict all models from fits without one group.

    Parameters
    ----------
    features, target, settings
        As for `fit_costs`.
    groups : sequence of str
        Group of each model: its own name, or its family.

    Returns
    -------
    array of models x models x columns, Costs
        Log milliseconds by the fit without the group of the first, for all; and the fit to all.
    """
    full = fit_costs(features, target, settings)
    predicted = np.full((len(target), *target.shape), np.nan)
    for held in _groups(groups):
        predicted[held] = fit_costs(features[~held], target[~held], settings, full).predict(features)
    return predicted, full


def pull(alike: Array, residual: Array, noise: float) -> Array:
    """Solve for what each model adds to the correction of those that are like it.

    Parameters
    ----------
    alike : array of models x models
        How much alike they are; see `qnb.latency.near`.
    residual : array of models x columns
        Log of measured less that of estimated; NaN where there is no measurement.
    noise : float
        Variance of what a model's neighbours don't share, over that of what they do.

    Returns
    -------
    array of models x columns
        Nothing where there is no measurement.
    """
    found = np.zeros(residual.shape)
    for j in range(residual.shape[1]):
        known = np.isfinite(residual[:, j])
        found[known, j] = np.linalg.solve(alike[np.ix_(known, known)] + noise * np.eye(known.sum()), residual[known, j])
    return found


def _groups(groups: Sequence[str]) -> Iterator[NDArray[np.bool_]]:
    names = np.asarray(groups)
    for name in dict.fromkeys(groups):
        yield names == name


def relative_error(predicted: Array, target: Array) -> Array:
    """Give |predicted / measured - 1| from logarithms; NaN where nothing was measured."""
    found: Array = np.abs(np.expm1(predicted - target))
    return found


def spearman(predicted: Array, target: Array) -> float:
    """Give the rank correlation of two columns."""
    left, right = (np.argsort(np.argsort(x)).astype(float) for x in (predicted, target))
    return float(np.corrcoef(left, right)[0, 1])
