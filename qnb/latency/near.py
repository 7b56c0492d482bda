"""What the models that are much like this one were missed by, as a correction of its estimate.

The mean of a Gaussian process over the fit's residuals, with a squared exponential kernel [1]_. The kernel is narrow: a
model as large as none of those fitted, or otherwise put together, is not corrected.

.. [1] C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press, 2006, eq. 2.25 and 4.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnb.latency.features import features
from qnb.latency.work import Work

__all__ = ["SIZES", "alikeness", "correction", "sizes"]

Array = NDArray[np.float64]

SIZES = ("ops", "macs", "weights", "elements")
"""What two models are compared by."""

_NAMED = 0.25
"""Alikeness from which on a model is named as one that an estimate leans on."""


def sizes(work: Work) -> Array:
    """Give the logarithms of a model's `SIZES`.

    Returns
    -------
    array of len(`SIZES`)
        Of ops that are not free; MACs; weights; elements that ops read and write.
    """
    found = features(work)
    macs = found["macs"] + found["depthwise_macs"]
    return np.log(np.maximum([found["ops"], macs, found["weights"], found["elements"]], 1.0))


def alikeness(left: Array, right: Array, length: float) -> Array:
    """Give how much alike models are: 1 where all sizes agree, towards 0 where they do not.

    Parameters
    ----------
    left : array of models x sizes
        Scaled to a variance of 1.
    right : array of others x sizes
        Likewise.
    length : float
        Root of the mean squared distance at which it has fallen to exp(-1/2).

    Returns
    -------
    array of models x others
    """
    distance = ((left[:, None] - right[None]) ** 2).mean(-1)
    found: Array = np.exp(-distance / (2 * length**2))
    return found


def correction(known: Mapping[str, Any], column: int, compiles: str, work: Work) -> tuple[float, list[str]]:
    """Give what to add to the log milliseconds of an estimate, and the fitted models that are much like this one.

    Parameters
    ----------
    known : mapping
        ``near`` of a precision in the data file.
    column : int
        Of the chip with its path.
    compiles : str
        The SoCs that it was compiled for, such as ``52+72``.
    work : Work
        The work in its graph.

    Returns
    -------
    float, list of str
        The names with the most alike first.
    """
    here = (sizes(work) - known["mean"]) / known["scale"]
    alike = alikeness(here[None], np.array(known["sizes"]), known["length"])[0]
    pull = np.array(known["pull"][compiles])[:, column]
    order = [i for i in np.argsort(-alike) if alike[i] >= _NAMED]
    return float(alike @ pull), [known["names"][i] for i in order]
