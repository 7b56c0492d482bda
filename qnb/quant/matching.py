"""Matching: one layer's weights and bias from its moments, with nothing left for a person to tune.

Knows numpy; nothing of graphs, sessions and files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from qnb.errors import UnknownName
from qnb.quant.moments import Array, Moments, Problem, drift, quality
from qnb.quant.rounding import Solution, solve

__all__ = ["match", "settings"]

_DAMPINGS = (0.01, 0.1, 0.5, 2.0, 8.0)


def match(
    weight: Array,
    moments: Moments,
    held: Moments,
    bits: int,
    method: str,
    *,
    common: bool = False,
    biased: bool = True,
    damping: float | None = None,
    iterations: int = 10_000,
    tick: Callable[[float], None] = lambda part: None,
) -> tuple[Solution, Array, float]:
    """Choose a layer's codes, scales and shift of its bias.

    How much the quantized weights may adapt to what the samples happen to hold (`damping` of `Problem.of`) is decided on
    samples that took no part: each of several is tried on `moments`, and judged on `held`.

    Parameters
    ----------
    weight : ndarray, shape [groups, outputs, k]
    moments, held : Moments
        Of two disjoint parts of the samples; `held` may have no rows.
    bits, common
        See `Problem`.
    method, iterations
        See `solve`.
    biased : bool
        Whether the layer adds a bias, which then takes up the mean error.
    damping : float, optional
        None to choose it.
    tick : callable
        Called often, with the share that is done.

    Returns
    -------
    solution : Solution
    shift : ndarray, shape [groups, outputs]
        To be added to the bias.
    damping : float
        That was used.
    """
    done = 0.0

    def attempt(seen: Moments, strength: float, method: str) -> tuple[Solution, Array]:
        used = seen.centred() if biased else seen
        problem = Problem.of(weight, used, bits, common=common, damping=strength)
        found = solve(problem, method, iterations=iterations, tick=lambda: tick(done))
        return found, drift(seen, weight, found.weights) if biased else np.zeros(weight.shape[:2])

    if damping is None:
        damping = _DAMPINGS[-1]
        if held.rows and method in ("gptq", "adaround"):
            trials = {}
            for strength in _DAMPINGS:
                trials[strength] = attempt(moments, strength, "gptq")  # for adaround as well: it takes far less time
                done += 1 / (len(_DAMPINGS) + 1)
            damping = max(_DAMPINGS, key=lambda d: quality(held, weight, trials[d][0].weights, trials[d][1]))
    return *attempt(moments.with_(held) if held.rows else moments, damping, method), damping


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Give the options of `qnb.quant.layerwise.optimise` with their defaults filled in."""
    known = {"damping": None, "iterations": 10_000, "rows": 8192, "correct_bias": True, "seed": 0, "bytes": 1 << 29}
    for name in options:
        if name not in known:
            raise UnknownName.among("option", name, known)
    return known | dict(options)
