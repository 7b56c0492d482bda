"""Rounding: chooses the integer codes and scales of one layer's weights, so that what the layer gives changes least.

Knows numpy and a layer's moments; nothing of graphs, sessions and files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qnb.errors import UnknownName
from qnb.quant.moments import Array, Problem

__all__ = ["METHODS", "Solution", "adaround", "adaround_loss", "descend", "gptq", "nearest", "solve"]

METHODS = ("gptq", "adaround", "seqmse", "nearest")

_BLOCK = 128


@dataclass(frozen=True)
class Solution:
    """Codes, shape [groups, outputs, k], and scales, shape [groups, outputs]."""

    codes: NDArray[np.int64]
    scale: Array

    @property
    def weights(self) -> Array:
        """The weights that lie on the grid."""
        return self.codes * self.scale[:, :, None]


def solve(
    problem: Problem, method: str, *, iterations: int = 10_000, tick: Callable[[], None] = lambda: None
) -> Solution:
    """Choose codes and scales.

    Parameters
    ----------
    problem : Problem
    method : {"gptq", "adaround", "seqmse", "nearest"}
        ``gptq``
            Column by column, each one's rounding error made good by the columns still to come (Frantar et al., "GPTQ:
            Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023, section 3), for several
            scales a row; then `descend`.
        ``adaround``
            `adaround`, on the scales of ``seqmse``.
        ``seqmse``
            The scale of each row whose nearest codes give the least loss (AIMET's Sequential MSE).
        ``nearest``
            Nearest codes on the scale that clips nothing.
    iterations : int
        Of ``adaround``.
    tick : callable
        Called often.

    Raises
    ------
    UnknownName
    """

    def ticking(choose: Callable[[Array], Solution]) -> Callable[[Array], Solution]:
        def chosen(scale: Array) -> Solution:
            tick()
            return choose(scale)

        return chosen

    if method == "nearest":
        return nearest(problem, _full_scale(problem, problem.weight))
    if method in ("seqmse", "adaround"):
        found = _best(problem, _scales(problem, problem.weight), ticking(lambda scale: nearest(problem, scale)))
        return found if method == "seqmse" else adaround(problem, found.scale, iterations, tick)
    if method != "gptq":
        raise UnknownName.among("method", method, METHODS)
    # scales of which the nearest codes are far off are not worth the work
    scales = _scales(problem, problem.target)
    losses = np.array([_totals(problem, nearest(problem, scale, problem.target)) for scale in scales])
    ranked = np.take_along_axis(np.array(scales), np.argsort(losses, axis=0), axis=0)
    found = _best(problem, list(ranked[: _tried(problem)]), ticking(_Columns(problem).codes))
    return descend(problem, found, tick=tick)


def nearest(problem: Problem, scale: Array, weights: Array | None = None) -> Solution:
    """Round to the nearest codes."""
    source = problem.weight if weights is None else weights
    codes = np.clip(np.rint(source / scale[:, :, None]), problem.qmin, problem.qmax)
    return Solution(codes.astype(np.int64), scale)


def gptq(problem: Problem, scale: Array) -> Solution:
    """Choose codes on the given scales column by column: see `solve`."""
    return _Columns(problem).codes(scale)


def descend(
    problem: Problem, start: Solution, *, sweeps: int = 20, tick: Callable[[], None] = lambda: None
) -> Solution:
    """Improve a solution by coordinate descent until nothing moves: codes one column at a time, then scales.

    Along one code the loss is a parabola, so its best integer is the rounded one; for given codes Q the best scale of a
    row is ``(Q H targetᵀ) / (Q H Qᵀ)``. The loss never rises.
    """
    codes, scale = start.codes.astype(np.float64), start.scale.copy()
    hessian = problem.hessian
    diagonal = np.einsum("gii->gi", hessian)
    for _ in range(sweeps):
        gradient = (codes * scale[:, :, None] - problem.target) @ hessian
        moved = False
        tick()
        for j in range(codes.shape[-1]):
            wanted = codes[:, :, j] - gradient[:, :, j] / (diagonal[:, None, j] * scale)
            step = np.clip(np.rint(wanted), problem.qmin, problem.qmax) - codes[:, :, j]
            # half a code away the parabola is level: rounding noise must not go round in circles
            step[np.abs(wanted - codes[:, :, j]) < 0.5 + 1e-9] = 0
            if step.any():
                moved = True
                codes[:, :, j] += step
                gradient += (step * scale)[:, :, None] * hessian[:, None, j]
        if not moved:
            break
        scale = _refit(problem, codes, scale)
    return Solution(codes.astype(np.int64), scale)


def adaround(
    problem: Problem, scale: Array, iterations: int = 10_000, tick: Callable[[], None] = lambda: None
) -> Solution:
    """Learn whether each weight goes up or down (Nagel et al., ICML 2020, section 3.3, equations 21 to 25).

    Gradient descent (Adam, rate 0.01) on V, with codes ``floor(W / s) + h(V)``, rectified sigmoid
    ``h = clip(1.2 sigmoid(V) - 0.1, 0, 1)``, and regularizer ``0.3 Σ 1 - |2 h - 1|^β``, whose β falls from 20 to 2 along a
    cosine after a fifth of the iterations. The loss of each row is taken relative to ``s²`` times the mean of the
    Hessian's diagonal (in that unit the paper's 0.01 is too weak; 0.1 to 1 serve alike). A row for which this ends above
    its nearest codes keeps those. Since the loss is the quadratic form, a step costs k² a row, however many samples there
    were.
    """
    unit = scale[:, :, None]
    floor = np.floor(problem.weight / unit)
    rest = np.clip(problem.weight / unit - floor, 1e-3, 1 - 1e-3)
    v = -np.log(1.2 / (rest + 0.1) - 1)
    size = np.einsum("gii->g", problem.hessian)[:, None, None] / problem.hessian.shape[-1]
    first, second = np.zeros_like(v), np.zeros_like(v)
    warm = iterations // 5
    for step in range(1, iterations + 1):
        tick()
        share = (step - warm) / max(1, iterations - warm)
        beta = 2 + 18 * 0.5 * (1 + np.cos(np.pi * share))
        _, gradient = adaround_loss(v, floor, problem, scale, size, 0.3 if step > warm else 0.0, beta)
        first += 0.1 * (gradient - first)
        second += 0.001 * (gradient**2 - second)
        v -= 0.01 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    learned = Solution(np.clip(floor + (v > 0), problem.qmin, problem.qmax).astype(np.int64), scale)
    plain = nearest(problem, scale)
    better = _totals(problem, learned) < _totals(problem, plain)
    return Solution(np.where(better[:, :, None], learned.codes, plain.codes), scale)


def adaround_loss(
    v: Array, floor: Array, problem: Problem, scale: Array, size: Array, weight: float, beta: float
) -> tuple[float, Array]:
    """Give the loss of `adaround` and its gradient by V."""
    sigmoid = 1 / (1 + np.exp(-v))
    raw = 1.2 * sigmoid - 0.1
    h = np.clip(raw, 0, 1)
    codes = np.clip(floor + h, problem.qmin, problem.qmax)
    error = codes - problem.target / scale[:, :, None]
    pull = error @ problem.hessian / size
    distance = np.abs(2 * h - 1)
    loss = float((pull * error).sum() + weight * (1 - distance**beta).sum())
    by_h = 2 * pull * ((floor + h > problem.qmin) & (floor + h < problem.qmax))
    by_h -= weight * 2 * beta * distance ** (beta - 1) * np.sign(2 * h - 1)
    gradient: Array = by_h * ((raw > 0) & (raw < 1)) * 1.2 * sigmoid * (1 - sigmoid)
    return loss, gradient


# --- scales --------------------------------------------------------------------------------------------------------


def _full_scale(problem: Problem, weights: Array) -> Array:
    largest = np.abs(weights).max(axis=-1)
    if problem.common:
        largest = np.full_like(largest, largest.max())
    scale: Array = np.maximum(largest / problem.qmax, 1e-10)
    return scale


def _scales(problem: Problem, weights: Array) -> list[Array]:
    """Give the scales to try, from the one that clips nothing downwards; the fewer the bits, the further."""
    lowest, count = (0.3, 36) if problem.bits <= 4 else (0.75, 11) if problem.bits <= 8 else (1.0, 1)
    full = _full_scale(problem, weights)
    return [full * factor for factor in np.linspace(1.0, lowest, count)]


def _tried(problem: Problem) -> int:
    """How many scales to try in full: what some seconds allow."""
    k = problem.hessian.shape[-1]
    operations = problem.target.size * k
    return int(np.clip(1e10 / max(1, operations), 3, 16))


def _totals(problem: Problem, solution: Solution) -> Array:
    """Give the loss by which scales are compared: of each row, or of all together where they share one."""
    loss = problem.loss(solution.weights)
    return np.full_like(loss, loss.sum()) if problem.common else loss


def _best(problem: Problem, scales: list[Array], choose: Callable[[Array], Solution]) -> Solution:
    """Give for each row the solution of least loss among the scales."""
    best: Solution | None = None
    least = np.empty(0)
    for scale in scales:
        found = choose(scale)
        loss = _totals(problem, found)
        if best is None:
            best, least = found, loss
            continue
        better = loss < least
        best = Solution(
            np.where(better[:, :, None], found.codes, best.codes), np.where(better, found.scale, best.scale)
        )
        least = np.where(better, loss, least)
    assert best is not None
    return best


def _refit(problem: Problem, codes: Array, scale: Array) -> Array:
    applied = codes @ problem.hessian
    fits, norms = (applied * problem.target).sum(axis=-1), (applied * codes).sum(axis=-1)
    if problem.common:
        fits, norms = np.full_like(fits, fits.sum()), np.full_like(norms, norms.sum())
    sound = (norms > 0) & (fits > 0)
    made: Array = np.where(sound, np.divide(fits, norms, out=np.ones_like(fits), where=norms > 0), scale)
    return made


class _Columns:
    """GPTQ for one problem: the factor of the inverse Hessian is worked out once, for all scales."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        # the columns that matter most go first, while there are others left to make good for them
        self.order = np.argsort(-np.einsum("gii->gi", problem.hessian), axis=-1, kind="stable")
        groups = np.arange(self.order.shape[0])[:, None, None]
        ordered = problem.hessian[groups, self.order[:, :, None], self.order[:, None, :]]
        self.upper = np.linalg.cholesky(np.linalg.inv(ordered)).transpose(0, 2, 1)

    def codes(self, scale: Array) -> Solution:
        order = self.order[:, None, :]
        left = np.take_along_axis(self.problem.target, np.broadcast_to(order, self.problem.target.shape), axis=-1)
        found = np.empty(left.shape)
        k = left.shape[-1]
        for begin in range(0, k, _BLOCK):
            end = min(begin + _BLOCK, k)
            errors = np.empty((*left.shape[:2], end - begin))
            for j in range(begin, end):
                row = self.upper[:, j]
                codes = np.clip(np.rint(left[:, :, j] / scale), self.problem.qmin, self.problem.qmax)
                found[:, :, j] = codes
                error = (left[:, :, j] - codes * scale) / row[:, j, None]
                errors[:, :, j - begin] = error
                left[:, :, j + 1 : end] -= error[:, :, None] * row[:, None, j + 1 : end]
            left[:, :, end:] -= errors @ self.upper[:, begin:end, end:]
        result = np.empty(found.shape, dtype=np.int64)
        np.put_along_axis(result, np.broadcast_to(order, found.shape), found.astype(np.int64), axis=-1)
        return Solution(result, scale)
