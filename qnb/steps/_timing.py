"""Statistics of a series of timed runs: plain functions of an array of milliseconds, in the order of the runs.

Knows nothing of what was timed. Nothing is thrown away: a warm-up is told apart, outliers are counted and stay in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
_RESAMPLES = 2000
_MOST_TO_RESAMPLE = 2000
"""Of more runs the mean is as good as normally distributed, and its interval is written down without resampling."""
_NORMAL_95 = 1.959964

_FEWEST_FOR_WARMUP = 8
_FEWEST_FOR_DRIFT = 8
_SLOWEST_STEADY = 3.0
_LEAST_SPREAD = 0.01
_MAD_TO_SIGMA = 1.4826
_TUKEY = 1.5
_DRIFT_P = 0.01
_DRIFT_PERCENT = 2.0
_DRIFT_POINTS = 1000
_MLPERF_PERCENTILE = 0.9
_MLPERF_CONFIDENCE = 0.99


@dataclass(frozen=True)
class Trend:
    """How a series moves from its first run to its last.

    Attributes
    ----------
    percent : float
        Theil-Sen slope over the whole series, in percent of its median; NaN for fewer than 8 runs.
    p_value : float
        Two-sided Mann-Kendall test against no trend, ties corrected, normal approximation; NaN likewise.
    """

    percent: float
    p_value: float

    @property
    def found(self) -> bool:
        """Whether it is a drift: p below 0.01, and at least 2 % over the series."""
        return self.p_value < _DRIFT_P and abs(self.percent) >= _DRIFT_PERCENT


@dataclass(frozen=True)
class Warmup:
    """How a series begins.

    Attributes
    ----------
    runs : int
        Leading runs that are slower than the steady state.
    settled : bool
        Whether there is a steady state; without one no run is taken for warm-up.
    """

    runs: int
    settled: bool


def warmup(latency_ms: np.ndarray) -> Warmup:
    """Find the runs at the start of a series that are slower than its steady state.

    The steady state is the second half of the series. A run is slower where it lies above that half's median by more
    than three of its standard deviations (1.4826 times the median absolute deviation, at least 1 % of the median).
    Leading runs count, up to the first that is not slower. If the whole first half is slower, the series did not
    settle: that is a drift, and no run is taken for warm-up. Fewer than 8 runs are too few to tell.
    """
    count = len(latency_ms)
    if count < _FEWEST_FOR_WARMUP:
        return Warmup(0, True)
    half = latency_ms[count // 2 :]
    middle = float(np.median(half))
    spread = max(_MAD_TO_SIGMA * float(np.median(np.abs(half - middle))), _LEAST_SPREAD * middle)
    slower = latency_ms[: count // 2] > middle + _SLOWEST_STEADY * spread
    leading = int(np.argmin(slower)) if not slower.all() else len(slower)
    return Warmup(0, False) if leading == len(slower) else Warmup(leading, True)


def outliers(latency_ms: np.ndarray) -> np.ndarray:
    """Mark the runs beyond Tukey's fences: more than 1.5 interquartile ranges outside the quartiles."""
    low, high = np.percentile(latency_ms, (25, 75))
    reach = _TUKEY * (high - low)
    return np.asarray((latency_ms < low - reach) | (latency_ms > high + reach))


def trend(latency_ms: np.ndarray) -> Trend:
    """Find whether a series gets slower or faster: the clock of a chip that grows warm, another load beside it.

    A long series is taken in blocks of equal length, each by its median, so that it costs no more than 1000 points.
    """
    nan = float("nan")
    if len(latency_ms) < _FEWEST_FOR_DRIFT:
        return Trend(nan, nan)
    block = -(-len(latency_ms) // _DRIFT_POINTS)
    whole = len(latency_ms) // block * block
    values = np.median(latency_ms[:whole].reshape(-1, block), axis=1)
    count = len(values)
    later, earlier = np.tril_indices(count, -1)
    rise = values[later] - values[earlier]
    slope = float(np.median(rise / (later - earlier)))
    middle = float(np.median(latency_ms))
    percent = 100 * slope * (count - 1) / middle if middle else nan
    score = int(np.sign(rise).sum())
    _, ties = np.unique(values, return_counts=True)
    variance = (count * (count - 1) * (2 * count + 5) - int((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    z = (abs(score) - 1) / math.sqrt(variance) if score and variance else 0.0  # continuity corrected
    return Trend(percent, math.erfc(z / math.sqrt(2)))


def median_interval(latency_ms: np.ndarray) -> tuple[float, float]:
    """Give a 95 % confidence interval of the median from its ranks: exact for any distribution of independent runs.

    Below 6 runs no two runs enclose the median so surely, and the interval is NaN.
    """
    count = len(latency_ms)
    below = _largest_tail(count, 0.5, (1 - CONFIDENCE) / 2)
    if below is None:
        return float("nan"), float("nan")
    ordered = np.sort(latency_ms)
    return float(ordered[below]), float(ordered[count - 1 - below])


def mean_interval(latency_ms: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Give a 95 % confidence interval of the mean: percentiles of the means of 2000 bootstrap resamples.

    NaN for a single run; of more than 2000 runs the normal interval.
    """
    count = len(latency_ms)
    if count < 2:
        return float("nan"), float("nan")
    if count > _MOST_TO_RESAMPLE:
        reach = _NORMAL_95 * float(latency_ms.std(ddof=1)) / math.sqrt(count)
        return float(latency_ms.mean()) - reach, float(latency_ms.mean()) + reach
    drawn = np.random.default_rng(seed).integers(0, count, (_RESAMPLES, count))
    low, high = np.percentile(latency_ms[drawn].mean(axis=1), (50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)))
    return float(low), float(high)


def mlperf_p90(latency_ms: np.ndarray) -> float:
    """Give the 90th percentile as MLPerf's LoadGen does for its single-stream scenario: a run, nothing between two."""
    return float(np.sort(latency_ms)[int(len(latency_ms) * _MLPERF_PERCENTILE)])


def mlperf_p90_estimate(latency_ms: np.ndarray) -> float:
    """Give MLPerf's early-stopping estimate of the 90th percentile, which it reports for single stream.

    It sets aside as many of the slowest runs as leave the percentile below the slowest of the others at 99 % confidence.
    Fewer than 64 runs are too few, and the estimate is NaN.
    """
    count = len(latency_ms)
    slow = _largest_tail(count, 1 - _MLPERF_PERCENTILE, 1 - _MLPERF_CONFIDENCE)
    return float(np.sort(latency_ms)[count - slow]) if slow else float("nan")


def _largest_tail(count: int, chance: float, limit: float) -> int | None:
    """Give the largest k for which k or fewer of `count` events of a chance are less likely than a limit, or None."""
    total, found = 0.0, None
    log = count * math.log1p(-chance)  # of the likelihood of exactly k; itself it may be too small for a float
    for k in range(count + 1):
        total += math.exp(log)
        if total >= limit:
            break
        found = k
        if k < count:
            log += math.log((count - k) / (k + 1)) + math.log(chance) - math.log1p(-chance)
    return found


@dataclass(frozen=True)
class Series:
    """What is said of a series of timed runs.

    Attributes
    ----------
    steady : ndarray of bool
        Which runs are of the steady state: all but the warm-up. Every figure below is of these.
    outliers : ndarray of bool
        Which runs are outliers: kept in every figure, and counted.
    """

    latency_ms: np.ndarray
    steady: np.ndarray
    outliers: np.ndarray
    settled: bool
    trend: Trend

    def figures(self) -> dict[str, float]:
        """Give the figures of the table: mean, median, percentiles and throughput."""
        values = self.latency_ms[self.steady]
        mean, median = float(values.mean()), float(np.median(values))
        return {
            "mean_ms": mean,
            "median_ms": median,
            **{f"p{p}_ms": float(np.percentile(values, p)) for p in (50, 90, 95, 99)},
            "throughput_per_s": 1e3 / mean if mean else float("inf"),
        }

    def statistics(self) -> dict[str, float]:
        """Give how sure they are, and what is peculiar."""
        values = self.latency_ms[self.steady]
        mean, median = mean_interval(values), median_interval(values)
        return {
            "runs": int(self.steady.sum()),
            "warmup_runs": int((~self.steady).sum()),
            "outliers": int(self.outliers.sum()),
            "mean_ms": float(values.mean()),
            "mean_low_ms": mean[0],
            "mean_high_ms": mean[1],
            "median_ms": float(np.median(values)),
            "median_low_ms": median[0],
            "median_high_ms": median[1],
            "deviation_ms": float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
            "min_ms": float(values.min()),
            "max_ms": float(values.max()),
            "mlperf_p90_ms": mlperf_p90(values),
            "mlperf_p90_estimate_ms": mlperf_p90_estimate(values),
            "drift_percent": self.trend.percent,
            "drift_p_value": self.trend.p_value,
        }

    def notes(self) -> list[str]:
        """Give what a reader of the figures must know."""
        said = []
        warm = int((~self.steady).sum())
        if warm:
            first = "the first timed run was" if warm == 1 else f"the first {warm} timed runs were"
            said.append(f"{first} still warming up: kept in .runs, left out of the figures")
        if not self.settled:
            said.append(
                "the first half of the runs is slower than the second: it did not settle; use more warm-up runs"
            )
        elif self.trend.found:
            word = "slower" if self.trend.percent > 0 else "faster"
            said.append(
                f"it got {abs(self.trend.percent):.0f} % {word} over the runs (Mann-Kendall p = {self.trend.p_value:.1g}): "
                "the clock or another load on the machine changed"
            )
        return said


def describe(latency_ms: np.ndarray) -> Series:
    """Find out all that is said of a series of timed runs, in their order."""
    found = warmup(latency_ms)
    steady = np.arange(len(latency_ms)) >= found.runs
    beyond = np.zeros(len(latency_ms), bool)
    beyond[steady] = outliers(latency_ms[steady])
    return Series(latency_ms, steady, beyond, found.settled, trend(latency_ms[steady]))
