"""Scaling a measurement from one chip to another, fitted and judged on the table of device measurements."""

from __future__ import annotations

from collections import defaultdict
from itertools import permutations
from typing import Any

import numpy as np
from dataset import Array
from fitting import relative_error

from qnb.latency import measured

PRECISIONS = ("float", "w8a8", "w8a16")
FEWEST = 20
"""Models that a chip has to share with the others."""
FOLDS = 10
_ROUNDS, _KNEE = 20, 0.05


def latencies(precision: str, path: str) -> tuple[list[str], list[int], Array]:
    """Give models, chips and log milliseconds."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for row in measured.measurements():
        if row.precision == precision and row.path == path and row.on_npu:
            found[f"{row.model}@{row.component}"][row.soc_model] = float(np.log(row.ms))
    count: dict[int, int] = defaultdict(int)
    for chips in found.values():
        for soc in chips:
            count[soc] += 1
    socs = sorted(soc for soc in count if count[soc] >= FEWEST)
    names = sorted(name for name in found if sum(soc in socs for soc in found[name]) > 1)
    return names, socs, np.array([[found[name].get(soc, np.nan) for soc in socs] for name in names])


def line(left: Array, right: Array) -> tuple[float, float]:
    """Fit a straight line through logarithms that few outliers do not move; give offset and slope."""
    weight = np.ones(len(left))
    matrix = np.column_stack([np.ones(len(left)), left])
    for _ in range(_ROUNDS):
        root = np.sqrt(weight)
        offset, slope = np.linalg.lstsq(matrix * root[:, None], right * root, rcond=None)[0]
        weight = 1 / np.sqrt(1 + ((offset + slope * left - right) / _KNEE) ** 2)
    return float(offset), float(slope)


def fit_transfers() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Fit all pairs of chips by precision and path; give coefficients and the table of errors."""
    coefficients: dict[str, Any] = {}
    table = []
    for precision in PRECISIONS:
        for path in measured.PATHS:
            names, socs, target = latencies(precision, path)
            if len(names) < FEWEST:
                continue
            pairs, rows = {}, []
            for a, b in permutations(range(len(socs)), 2):
                ok = np.isfinite(target[:, a]) & np.isfinite(target[:, b])
                if ok.sum() >= FEWEST:
                    pairs[f"{socs[a]}>{socs[b]}"], row = _pair(target[ok, a], target[ok, b])
                    rows.append(row)
            coefficients[f"{precision}:{path}"] = {"domain": _domain(target), "pairs": pairs}
            middle = np.median(np.array(rows), axis=0)
            table.append(
                {"precision": precision, "path": path, "pairs": len(rows), "models": len(names)}
                | dict(zip(("median", "p90", "coverage"), (round(float(x), 3) for x in middle), strict=True))
            )
    return coefficients, table


def _domain(target: Array) -> list[float]:
    return [round(float(np.exp(np.nanmin(target))), 4), round(float(np.exp(np.nanmax(target))), 1)]


def _pair(left: Array, right: Array) -> tuple[list[float], tuple[float, float, float]]:
    """Give offset, slope and the interval's two quantiles; and the error of models that were left out."""
    fold = np.arange(len(left)) % FOLDS
    predicted = np.empty(len(left))
    for k in range(FOLDS):
        offset, slope = line(left[fold != k], right[fold != k])
        predicted[fold == k] = offset + slope * left[fold == k]
    residual = predicted - right
    inside = np.empty(len(left), dtype=bool)
    for k in range(FOLDS):
        low, high = np.quantile(residual[fold != k], [0.1, 0.9])
        inside[fold == k] = (residual[fold == k] >= low) & (residual[fold == k] <= high)
    low, high = np.quantile(residual, [0.1, 0.9])
    error = relative_error(predicted, right)
    offset, slope = line(left, right)
    return [round(x, 4) for x in (offset, slope, float(high), float(low))], (
        float(np.median(error)),
        float(np.percentile(error, 90)),
        float(inside.mean()),
    )
