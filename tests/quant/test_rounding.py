"""Rounding of one layer.

Oracles: all codes tried one by one; numpy's least squares on the samples themselves; torch's autograd; GPTQ as its paper
writes it, without blocks.
"""

import itertools

import numpy as np
import pytest
import torch

from qnb.errors import UnknownName
from qnb.quant.matching import match, settings
from qnb.quant.moments import Moments, Problem, quality
from qnb.quant.rounding import METHODS, Solution, adaround_loss, descend, gptq, nearest, solve


def _inputs(rows=400, groups=1, k=6, seed=0, noise=0.05):
    """Correlated inputs with a mean, and the same with noise."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((groups, k, k))
    x = np.einsum("rgk,gkj->rgj", rng.standard_normal((rows, groups, k)) + 1, mix).astype(np.float32)
    return x, (x + noise * rng.standard_normal(x.shape)).astype(np.float32)


def _moments(weight, x, quantized):
    moments = Moments(weight)
    for part in np.array_split(np.arange(x.shape[0]), 5):
        moments.add(x[part], quantized[part])
    return moments


def _problem(bits=3, groups=1, outputs=4, k=6, seed=0, **options):
    weight = np.random.default_rng(seed + 1).standard_normal((groups, outputs, k))
    x, quantized = _inputs(groups=groups, k=k, seed=seed)
    return Problem.of(weight, _moments(weight, x, quantized), bits, **options)


def _best_by_trial(problem, scale):
    """Try all codes of every row."""
    codes = np.array(list(itertools.product(range(problem.qmin, problem.qmax + 1), repeat=problem.hessian.shape[-1])))
    least = np.empty(problem.target.shape[:2])
    for g, o in np.ndindex(*least.shape):
        error = codes * scale[g, o] - problem.target[g, o]
        least[g, o] = np.einsum("nk,kj,nj->n", error, problem.hessian[g], error).min()
    return least


def test_moments_are_those_of_numpy():
    x, quantized = _inputs(groups=2)
    weight = np.random.default_rng(9).standard_normal((2, 3, 6))
    moments = _moments(weight, x, quantized)
    np.testing.assert_allclose(moments.quantized, np.einsum("rgi,rgj->gij", quantized, quantized) / 400, rtol=1e-4)
    np.testing.assert_allclose(moments.cross, np.einsum("rgi,rgj->gij", x, quantized) / 400, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(moments.power, (np.einsum("gok,rgk->rgo", weight, x) ** 2).mean(0), rtol=1e-4)
    centred = moments.centred()
    for g in range(2):
        np.testing.assert_allclose(
            centred.quantized[g],
            np.cov(quantized[:, g].T, bias=True),
            rtol=1e-3,
            atol=1e-3 * centred.quantized[g].max(),
        )


def test_moments_of_parts_add_up():
    x, quantized = _inputs()
    weight = np.ones((1, 2, 6))
    both = _moments(weight, x[:100], quantized[:100]).with_(_moments(weight, x[100:], quantized[100:]))
    whole = _moments(weight, x, quantized)
    assert both.rows == whole.rows
    np.testing.assert_allclose(both.cross, whole.cross, rtol=1e-5, atol=1e-5)


def test_the_target_is_the_least_squares_solution():
    x, quantized = _inputs(noise=0.5)
    weight = np.random.default_rng(1).standard_normal((1, 4, 6))
    problem = Problem.of(weight, _moments(weight, x, quantized), 4, damping=1e-7)
    expected = np.linalg.lstsq(quantized[:, 0].astype(float), x[:, 0] @ weight[0].T, rcond=None)[0].T
    np.testing.assert_allclose(problem.target[0], expected, rtol=1e-3, atol=1e-3)


def test_quality_is_what_the_samples_say():
    x, quantized = _inputs(groups=2)
    weight = np.random.default_rng(1).standard_normal((2, 4, 6))
    candidate, shift = np.round(weight, 1), np.full((2, 4), 0.3)
    y = np.einsum("gok,rgk->rgo", weight, x)
    error = np.einsum("gok,rgk->rgo", candidate, quantized) + shift - y
    expected = 10 * np.log10(((y - y.mean(0)) ** 2).sum() / (error**2).sum())
    assert quality(_moments(weight, x, quantized), weight, candidate, shift) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("groups", "outputs"), [(1, 4), (3, 1)])
def test_codes_are_near_the_best_there_are(seed, groups, outputs):
    problem = _problem(groups=groups, outputs=outputs, k=5, seed=seed)
    scale = np.abs(problem.target).max(-1) / problem.qmax * 0.8
    best = _best_by_trial(problem, scale)
    plain = problem.loss(nearest(problem, scale, problem.target).weights)
    columns = problem.loss(gptq(problem, scale).weights)
    found = problem.loss(solve(problem, "gptq").weights)
    assert (columns >= best * (1 - 1e-9)).all()
    assert columns.sum() < plain.sum()
    # scales are chosen as well, so that it may go below the best codes of the one scale
    assert found.sum() < best.sum() * 1.1


@pytest.mark.parametrize("bits", [4, 8])
def test_many_columns_go_as_few(bits):
    """More columns than one block: the same codes as column by column without blocks."""
    problem = _problem(bits, k=150, outputs=3, seed=5)
    scale = np.abs(problem.target).max(-1) / problem.qmax
    found = gptq(problem, scale)
    order = np.argsort(-np.diagonal(problem.hessian[0]), kind="stable")
    inverse = np.linalg.inv(problem.hessian[0][np.ix_(order, order)])
    left = problem.target[0][:, order].copy()
    codes = np.empty_like(left)
    for j in range(150):  # Frantar et al. 2023, equation 2 and 3: remove row and column j of the inverse
        codes[:, j] = np.clip(np.rint(left[:, j] / scale[0]), problem.qmin, problem.qmax)
        error = (left[:, j] - codes[:, j] * scale[0]) / inverse[j, j]
        left -= np.outer(error, inverse[j])
        inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    same = (found.codes[0][:, order] == codes).mean()
    assert same > 0.98  # the two ways round differently, and what comes behind follows


@pytest.mark.parametrize("common", [False, True])
def test_descent_never_rises_and_ends_where_no_code_helps(common):
    problem = _problem(4, outputs=6, k=12, common=common)
    scale = np.abs(problem.weight).max(-1) / problem.qmax
    start = nearest(problem, np.full_like(scale, scale.max()) if common else scale)
    end = descend(problem, start)
    assert problem.loss(end.weights).sum() < problem.loss(start.weights).sum()
    assert np.unique(end.scale).size == (1 if common else end.scale.size)
    for j, step in itertools.product(range(12), (-1, 1)):
        codes = end.codes.copy()
        codes[..., j] = np.clip(codes[..., j] + step, problem.qmin, problem.qmax)
        moved = problem.loss(Solution(codes, end.scale).weights)
        assert (moved >= problem.loss(end.weights) * (1 - 1e-6)).all()


def test_the_gradient_is_autograds():
    problem = _problem(4, groups=2, outputs=3, k=5)
    scale = np.abs(problem.weight).max(-1) / problem.qmax * 0.7
    floor = np.floor(problem.weight / scale[:, :, None])
    size = np.ones((2, 1, 1)) * 1.7
    v = np.random.default_rng(3).standard_normal(floor.shape) * 2
    loss, gradient = adaround_loss(v, floor, problem, scale, size, 0.3, 5.0)
    t = torch.tensor(v, requires_grad=True)
    h = torch.clamp(1.2 * torch.sigmoid(t) - 0.1, 0, 1)
    codes = torch.clamp(torch.tensor(floor) + h, problem.qmin, problem.qmax)
    error = codes - torch.tensor(problem.target / scale[:, :, None])
    expected = (error @ torch.tensor(problem.hessian) * error / torch.tensor(size)).sum()
    expected = expected + 0.3 * (1 - (2 * h - 1).abs() ** 5).sum()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-9)
    np.testing.assert_allclose(gradient, t.grad.numpy(), rtol=1e-6, atol=1e-9)


def test_each_method_is_better_than_the_one_it_is_meant_to_beat():
    problem = _problem(4, outputs=16, k=24, seed=7)
    loss = {m: problem.loss(solve(problem, m, iterations=1500).weights).sum() for m in METHODS}
    assert loss["gptq"] < loss["adaround"] < loss["seqmse"] < loss["nearest"]


@pytest.mark.parametrize("seed", [7, 8])
def test_adaround_is_far_better_than_nearest_codes_on_its_scales(seed):
    problem = _problem(4, outputs=16, k=64, seed=seed)
    plain, learned = solve(problem, "seqmse"), solve(problem, "adaround", iterations=1500)
    assert (learned.scale == plain.scale).all()
    assert problem.loss(learned.weights).sum() < 0.7 * problem.loss(plain.weights).sum()


def test_adaround_goes_up_or_down_and_no_further():
    problem = _problem(4, outputs=4, k=12)
    found = solve(problem, "adaround", iterations=300)
    exact = problem.weight / found.scale[:, :, None]
    inside = (exact > problem.qmin) & (exact < problem.qmax)
    assert (np.abs(found.codes - exact)[inside] < 1).all()


def test_nothing_that_comes_in_is_no_trouble():
    """Dead inputs, and a layer whose inputs are all zero."""
    weight = np.random.default_rng(0).standard_normal((2, 3, 4))
    x, quantized = _inputs(groups=2, k=4)
    x[:, 0], quantized[:, 0] = 0, 0
    x[:, 1, 2], quantized[:, 1, 2] = 0, 0
    for scale in (1.0, 0.0):
        moments = _moments(weight, x * np.float32(scale), quantized * np.float32(scale))
        solution, shift, _ = match(weight, moments, Moments(weight), 4, "gptq")
        assert np.isfinite(solution.weights).all()
        assert np.isfinite(shift).all()
        unseen = np.abs(solution.weights - weight)[0]
        assert (unseen <= solution.scale[0][:, None] * 0.51).all()


def test_few_samples_are_not_fitted_too_closely():
    """With fewer rows than inputs the weights could match the samples exactly, and be of no use elsewhere."""
    weight = np.random.default_rng(1).standard_normal((1, 8, 64))
    x, quantized = _inputs(rows=1000, k=64, noise=1.0)
    seen, held = _moments(weight, x[:30], quantized[:30]), _moments(weight, x[30:40], quantized[30:40])
    new = _moments(weight, x[40:], quantized[40:])

    def score(damping):
        solution, shift, used = match(weight, seen, held, 4, "gptq", damping=damping)
        return quality(new, weight, solution.weights, shift), used

    chosen, used = score(None)
    assert used > 0.01
    assert chosen > score(1e-4)[0] + 1


def test_unknown_words_are_refused():
    with pytest.raises(UnknownName, match="gptp"):
        solve(_problem(), "gptp")
    with pytest.raises(UnknownName, match="itterations"):
        settings({"itterations": 3})
