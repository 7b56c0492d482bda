"""What a model takes on a Snapdragon, without one: measured figures, scaled ones, and estimates.

::

    work        the work in a graph, by kind of op
    features    what the estimator looks at; the compiler's figures
    measured    the shipped table of device measurements
    estimator   figures for a chip, each with its tier, interval and reason
    fusing      a plain view of a graph, the same for different exporters

The coefficients are fitted by ``tools/latency``. Knows graphs, and nothing of steps, workers and reports.
"""

from qnb.latency.estimator import Prediction, predict, published, transfer, unfitted
from qnb.latency.features import ESTIMATING_SOCS, CompilerCost
from qnb.latency.measured import Measurement, Target, find, measurements, targets
from qnb.latency.work import Work, work_of

__all__ = [
    "ESTIMATING_SOCS",
    "CompilerCost",
    "Measurement",
    "Prediction",
    "Target",
    "Work",
    "find",
    "measurements",
    "predict",
    "published",
    "targets",
    "transfer",
    "unfitted",
    "work_of",
]
