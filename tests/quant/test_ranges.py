"""Range methods. Oracles: brute force over the raw data with the grid itself, the divergence written out as a loop as in the
literature, `numpy.percentile`, and ONNX Runtime's entropy calibrator where both do the same.
"""

import itertools
import time

import numpy as np
import pytest
from onnxruntime.quantization.calibrate import HistogramCollector

from qnb.errors import BadInput, UnknownName
from qnb.quant import ranges
from qnb.quant.encodings import encoding_from_range
from qnb.quant.observers import Histogram, MinMax

RNG = np.random.default_rng(5)
SHAPES = {
    "normal": RNG.standard_normal(60_000),
    "relu": np.maximum(RNG.standard_normal(60_000), 0),
    "laplace": RNG.laplace(size=60_000),
    "skewed": RNG.gamma(2, size=60_000) - 1,
    "outliers": np.r_[RNG.standard_normal(60_000), [40.0, -3.0, 38.0]],
    "heavy": RNG.standard_t(3, size=60_000),
    "uniform": RNG.uniform(-1, 2, 60_000),
    "negative": -RNG.exponential(size=60_000),
}
SHAPES = {name: values.astype(np.float32) for name, values in SHAPES.items()}


def observed(values):
    observer = Histogram()
    observer.update("t", values)
    return observer


def error(values, low, high, bits):
    """Mean squared error of `values` on the grid of that range, value by value."""
    grid = encoding_from_range(low, high, bits, signed=False, symmetric=False)
    return float(np.mean((grid.dequantize(grid.quantize(values)).astype(np.float64) - values) ** 2))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", SHAPES)
def test_mse_is_that_of_brute_force_on_the_raw_data(name, bits):
    values = SHAPES[name]
    low, high = ranges.find(observed(values), "mse", bits=bits)["t"]
    ends = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    shares = np.geomspace(1, 0.05, 12)
    lows, highs = (sorted({end * share for share in shares}) for end in ends)
    best = min(error(values, a, b, bits) for a in lows for b in highs)
    assert error(values, low, high, bits) <= best * 1.03
    assert error(values, low, high, bits) <= error(values, *ends, bits) * 1.001


@pytest.mark.parametrize("method", ["mse", "entropy"])
@pytest.mark.parametrize("name", ["normal", "heavy", "relu"])
def test_with_16_bits_nothing_worth_mentioning_is_clipped(method, name):
    values = SHAPES[name]
    low, high = ranges.find(observed(values), method, bits=16)["t"]
    assert error(values, low, high, 16) <= error(values, float(values.min()), float(values.max()), 16) * 1.01
    assert (low, high) == pytest.approx((values.min(), values.max()), rel=0.05, abs=1e-3)


def divergence(counts, first, last, levels):
    """KL divergence for the bins first … last, step by step as Migacz 2017 puts it."""
    inside = counts[first:last].astype(float)
    p = inside.copy()
    p[0] += counts[:first].sum()
    p[-1] += counts[last:].sum()
    cuts = [(last - first) * i // levels for i in range(levels + 1)]
    q = np.zeros_like(inside)
    for a, b in itertools.pairwise(cuts):
        filled = p[a:b] > 0
        if filled.any():
            q[a:b][filled] = inside[a:b].sum() / filled.sum()
    p, q = p / p.sum(), q / q.sum()
    if ((p > 0) & (q == 0)).any():
        return np.inf
    return float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))


@pytest.mark.parametrize("name", ["normal", "laplace", "heavy", "outliers", "relu"])
def test_entropy_is_near_the_least_divergence_of_all_ranges(name):
    values = SHAPES[name]
    observer = observed(values)
    low, high = ranges.find(observer, "entropy", bits=6)["t"]
    distribution = observer.distribution("t")
    counts, edges = distribution.counts.copy(), distribution.edges
    zero = int(np.searchsorted(edges, 0, side="right")) - 1
    counts[zero] = min(counts[zero], max(counts[max(zero - 1, 0)] if zero else 0, counts[zero + 1]))

    def of(a, b):
        first = max(0, int(np.floor((a - edges[0]) / distribution.width)))
        last = min(counts.size, int(np.ceil((b - edges[0]) / distribution.width)))
        return divergence(counts, first, last, 64) if last - first >= 64 else np.inf

    ends = min(edges[0], 0.0), edges[-1]
    shares = np.geomspace(1, 0.05, 30)
    best = min(of(ends[0] * i, ends[1] * j) for i in (shares if ends[0] else [0]) for j in shares)
    assert of(low, high) <= best * 1.15 + 1e-4
    assert of(low, high) <= of(*ends)


def test_entropy_clips_an_outlier_as_onnx_runtime_does():
    """Theirs is symmetric and has 128 levels of 2048 bins; of symmetric data ours, with 256 for both sides, is near."""
    values = np.r_[RNG.standard_normal(200_000), [30.0, -30.0]].astype(np.float32)
    theirs = HistogramCollector("entropy", False, 2048, 128, 99.99, "all")
    theirs.collect({"t": [values]})
    threshold = float(np.ravel(theirs.compute_collection_result()["t"][1])[0])
    low, high = ranges.find(observed(values), "entropy", bits=8)["t"]
    assert threshold < 10  # it does clip
    for end in (-low, high):
        assert 3 < end < 10


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_what_starts_at_zero_goes_on_doing_so(method, bits):
    for name, end in (("relu", 0), ("negative", 1)):
        found = ranges.find(observed(np.minimum(SHAPES[name], 0) if end else SHAPES[name]), method, bits=bits)["t"]
        assert abs(found[end]) <= (1e-3 if end else 0)


@pytest.mark.parametrize("method", ranges.METHODS)
def test_constants_and_single_values(method):
    for value in (0.0, 3.5, -2.0, 1e-30, 1e20):
        (found,) = ranges.find(observed(np.full(100, value, np.float32)), method).values()
        assert np.isfinite(found).all()
        assert min(found[0], 0) <= value * (1 + 1e-6 * np.sign(value))
        assert found[0] <= found[1]
        assert max(abs(found[0]), abs(found[1])) == pytest.approx(abs(value), rel=2e-3)


def test_percentile_through_find():
    values = SHAPES["heavy"]
    observer = observed(values)
    for p in (99.0, 99.9):
        expected = np.percentile(values, [(100 - p) / 2, (100 + p) / 2])
        found = ranges.find(observer, "percentile", percentile=p)["t"]
        np.testing.assert_allclose(found, expected, atol=observer.distribution("t").width)


def test_find_refuses():
    with pytest.raises(UnknownName, match="min-max"):
        ranges.find(MinMax(), "minmax")
    for method in ("percentile", "mse", "entropy"):
        with pytest.raises(BadInput, match="histogram"):
            ranges.find(MinMax(), method)


def test_nothing_observed_gives_nothing():
    for method in ranges.METHODS:
        assert ranges.find(Histogram(), method) == {}


def test_all_tensors_of_a_large_model_are_searched_at_once():
    """66 tensors, as MobileNetV2 has, half of them with two ends; a tenth of a second where nobody else computes."""
    observer = Histogram()
    for number in range(66):
        values = RNG.standard_normal(40_000).astype(np.float32)
        observer.update(str(number), np.maximum(values, 0) if number % 2 else values)
    for method in ("mse", "entropy"):
        begin = time.process_time()
        assert len(ranges.find(observer, method)) == 66
        assert time.process_time() - begin < 0.6  # the target is 0.3
