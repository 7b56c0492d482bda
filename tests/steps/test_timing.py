"""Statistics of a series of runs.

Oracle: scipy's own tests and estimators on the same series; the share of simulated series in which an interval holds the
true value; published logs of MLPerf's LoadGen, which say how many runs it sets aside for how many there were.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from qnb.steps import _timing as timing


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def latencies(rng, count, spread=0.05):
    """Give a steady series with a tail to the right, as latencies have; its true mean and median beside it."""
    return rng.lognormal(np.log(10), spread, count)


# --- warm-up -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [1, 2, 5])
@pytest.mark.parametrize("count", [12, 30, 200])
def test_slow_runs_at_the_start_are_found(rng, warm, count):
    found = 0
    for _ in range(100):
        series = latencies(rng, count)
        series[:warm] *= np.linspace(3, 1.5, warm)
        found += timing.warmup(series).runs == warm
    assert found >= 90


def test_a_steady_series_has_hardly_ever_a_warmup(rng):
    for spread in (0.01, 0.05, 0.2):
        runs = [timing.warmup(latencies(rng, 20, spread)).runs for _ in range(500)]
        assert np.mean(np.array(runs) > 0) < 0.07
        assert np.mean(runs) < 0.1
    assert timing.warmup(np.full(20, 3.0)) == timing.Warmup(0, True)


def test_a_slow_run_later_is_no_warmup(rng):
    series = latencies(rng, 40)
    series[10] *= 5
    assert timing.warmup(series).runs == 0


def test_a_series_that_never_settles_loses_no_run():
    stepped = np.r_[np.full(10, 20.0), np.full(10, 10.0)]
    assert timing.warmup(stepped) == timing.Warmup(0, False)
    found = timing.describe(stepped)
    assert found.steady.all()
    assert "did not settle" in " ".join(found.notes())


def test_few_runs_are_too_few_to_tell():
    assert timing.warmup(np.array([9.0, 1, 1, 1, 1, 1, 1])) == timing.Warmup(0, True)


def test_an_exponential_warmup_is_taken_until_it_is_in_the_noise(rng):
    series = latencies(rng, 100, 0.02) * (1 + 2 * np.exp(-np.arange(100) / 4))
    left = series[timing.warmup(series).runs :]
    assert 8 <= timing.warmup(series).runs <= 25
    assert left[0] < 1.1 * np.median(series)


# --- outliers ------------------------------------------------------------------------------------------------------


def test_known_outliers_are_counted_and_kept(rng):
    series = rng.normal(10, 0.1, 200)
    slow = np.array([20, 77, 150])
    series[slow] = (15, 40, 12)
    marked = timing.outliers(series)
    assert marked[slow].all()
    quartiles = np.percentile(series, (25, 75))
    reach = 1.5 * stats.iqr(series)
    np.testing.assert_array_equal(marked, (series < quartiles[0] - reach) | (series > quartiles[1] + reach))
    found = timing.describe(series)
    assert found.statistics()["outliers"] == marked.sum()
    assert found.figures()["mean_ms"] == pytest.approx(series.mean())  # they stay in
    assert found.statistics()["max_ms"] == 40


def test_equal_runs_have_no_outlier():
    assert not timing.outliers(np.full(9, 2.0)).any()


# --- drift ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [8, 21, 300])
@pytest.mark.parametrize("slope", [0.0, 0.01, -0.05])
def test_the_trend_is_that_of_scipy(rng, count, slope):
    series = np.round(latencies(rng, count) * (1 + slope * np.arange(count) / count), 1)  # rounded: with ties
    found = timing.trend(series)
    expected = stats.theilslopes(series).slope * (count - 1) / np.median(series) * 100
    assert found.percent == pytest.approx(expected)
    x = np.arange(count)
    # Kendall's tau is the same score; scipy's asymptotic p-value is without the correction for continuity.
    tau = stats.kendalltau(x, series, method="asymptotic")
    score = _mann_kendall_score(series)
    assert np.sign(score) == np.sign(tau.statistic) or score == 0
    sigma = abs(score) / stats.norm.isf(tau.pvalue / 2) if score else 1.0
    expected = 2 * stats.norm.sf((abs(score) - 1) / sigma) if score else 1.0
    assert found.p_value == pytest.approx(expected, rel=1e-6)


def _mann_kendall_score(series):
    return sum(np.sign(b - a) for i, a in enumerate(series) for b in series[i + 1 :])


@pytest.mark.parametrize("percent", [10, -10, 40])
def test_a_known_drift_is_found_and_named(rng, percent):
    drift = 1 + percent / 100 * np.arange(60) / 59
    found = [timing.describe(latencies(rng, 60, 0.01) * drift) for _ in range(50)]
    assert all(f.trend.found for f in found)
    middle = 100 * percent / (100 + percent / 2)  # of the median, in the middle of the way
    assert np.median([f.trend.percent for f in found]) == pytest.approx(middle, rel=0.1)
    word = "slower" if percent > 0 else "faster"
    assert all(f"% {word} over the runs" in " ".join(f.notes()) for f in found if f.settled)


def test_a_steady_series_hardly_ever_drifts(rng):
    for count in (12, 100):
        assert np.mean([timing.trend(latencies(rng, count)).found for _ in range(500)]) < 0.02


def test_outliers_make_no_drift(rng):
    series = latencies(rng, 100, 0.02)
    series[90:95] *= 10
    assert not timing.trend(series).found


def test_a_long_series_is_no_more_work(rng):
    series = latencies(rng, 50_000) * np.linspace(1, 1.2, 50_000)
    found = timing.trend(series)
    assert found.percent == pytest.approx(100 * 0.2 / 1.1, rel=0.05)
    assert found.p_value < 1e-6


def test_no_trend_of_a_handful():
    found = timing.trend(np.arange(1.0, 8.0))
    assert np.isnan([found.percent, found.p_value]).all()
    assert not found.found


# --- intervals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [6, 7, 20, 51, 400])
def test_the_interval_of_the_median_is_scipys(rng, count):
    series = latencies(rng, count)
    below = int(stats.binom.ppf(0.025, count, 0.5))  # the first that is likely enough
    low, high = timing.median_interval(series)
    ordered = np.sort(series)
    assert (low, high) == (ordered[below - 1], ordered[count - below])
    enclosing = stats.quantile_test(series, p=0.5, q=np.median(series)).confidence_interval(0.95)
    assert low <= enclosing.low <= enclosing.high <= high  # scipy's may leave 5 % on one side


@pytest.mark.parametrize("count", [10, 30, 100])
def test_the_interval_of_the_median_holds_it_as_often_as_it_says(rng, count):
    held = [low <= 10 <= high for low, high in (timing.median_interval(latencies(rng, count)) for _ in range(2000))]
    assert 0.94 < np.mean(held) < 0.99  # never less than 95 %, but for chance; ranks are whole numbers


def test_the_interval_of_the_mean_is_scipys(rng):
    series = latencies(rng, 25, 0.3)
    expected = stats.bootstrap((series,), np.mean, method="percentile", n_resamples=20_000, random_state=1)
    low, high = timing.mean_interval(series)
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert low == pytest.approx(expected.confidence_interval.low, abs=0.05 * width)
    assert high == pytest.approx(expected.confidence_interval.high, abs=0.05 * width)
    assert timing.mean_interval(series) == (low, high)  # from a seed


@pytest.mark.parametrize(("count", "least"), [(10, 0.86), (30, 0.91), (3000, 0.93)])
def test_the_interval_of_the_mean_holds_it(rng, count, least):
    truth = 10 * np.exp(0.1**2 / 2)
    held = [
        low <= truth <= high
        for low, high in (timing.mean_interval(latencies(rng, count, 0.1), seed) for seed in range(300))
    ]
    assert least <= np.mean(held) <= 0.99


def test_too_few_runs_have_no_interval():
    assert np.isnan(timing.median_interval(np.arange(5.0))).all()
    assert np.isnan(timing.mean_interval(np.array([1.0]))).all()


# --- MLPerf and AI Benchmark ---------------------------------------------------------------------------------------


PUBLISHED = [(64, 0), (201, 9), (659, 47), (708, 51), (2048, 172), (2116, 178), (2145, 181), (7469, 685), (79944, 7796)]
"""Runs, and how many of them LoadGen's summary said that it would discard; the first is its "at least 64 queries"."""


@pytest.mark.parametrize(("runs", "set_aside"), PUBLISHED)
def test_mlperf_sets_aside_as_many_runs_as_loadgen_said_that_it_did(rng, runs, set_aside):
    series = rng.permutation(np.arange(runs, dtype=float))
    assert timing.mlperf_p90_estimate(series) == runs - 1 - set_aside


def test_mlperf_gives_no_estimate_of_63_runs(rng):
    assert np.isnan(timing.mlperf_p90_estimate(rng.random(63)))


@pytest.mark.parametrize("runs", [1, 2, 10, 20, 25, 64, 101, 1000])
def test_mlperfs_percentile_is_one_of_the_runs(rng, runs):
    """The sorted run at index floor(0.9 n), as LoadGen takes it."""
    series = rng.random(runs)
    assert timing.mlperf_p90(series) == sorted(series)[runs * 9 // 10]


def test_the_mean_after_warmup_is_ai_benchmarks(rng):
    series = latencies(rng, 30, 0.01)
    series[:2] = (60, 30)
    found = timing.describe(series)
    assert found.statistics()["warmup_runs"] == 2
    assert found.figures()["mean_ms"] == pytest.approx(series[2:].mean())
    assert found.figures()["throughput_per_s"] == pytest.approx(1000 / series[2:].mean())
    assert "the first 2 timed runs were still warming up" in " ".join(found.notes())


# --- all together --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5, 20, 500])
def test_figures_are_those_of_numpy(rng, count):
    series = latencies(rng, count, 0.001)
    found = timing.describe(series)
    values = series[found.steady]
    figures, more = found.figures(), found.statistics()
    for share in (50, 90, 95, 99):
        assert figures[f"p{share}_ms"] == pytest.approx(np.percentile(values, share))
    assert figures["median_ms"] == more["median_ms"] == np.median(values)
    assert more["mean_ms"] == pytest.approx(values.mean())
    assert (more["min_ms"], more["max_ms"]) == (values.min(), values.max())
    assert more["runs"] + more["warmup_runs"] == count
    if count > 1:
        assert more["deviation_ms"] == pytest.approx(np.std(values, ddof=1))
        assert more["mean_low_ms"] <= more["mean_ms"] <= more["mean_high_ms"]
    else:
        assert np.isnan(more["deviation_ms"])
