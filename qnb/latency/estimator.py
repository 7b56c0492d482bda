"""Estimates of a model's latency on a chip: from the compiler's figures and the graph, or from another chip.

The coefficients are ``data/latency_model.json``, made by ``tools/latency/fit.py``. What the figures mean and how good they
are is in ``docs/latency.md``. Knows nothing of files, workers and steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from qnb.latency.features import ESTIMATING_SOCS, CompilerCost, features
from qnb.latency.measured import Measurement, coefficients, targets
from qnb.latency.near import correction
from qnb.latency.work import Work

__all__ = ["COVERAGE", "Prediction", "Tier", "predict", "published", "transfer", "unfitted"]

Tier = Literal["published", "transferred", "estimated", "none"]
COVERAGE = 0.8
"""Share of models that an interval is meant to hold."""

_ARCH = {52: "v73", 72: "v81"}
"""Hexagon architecture of each of `ESTIMATING_SOCS`."""

_REPEAT = 1.1
"""Factor that 90 per cent of repeated measurements between adjacent releases of the table stay within."""


@dataclass(frozen=True)
class Prediction:
    """A latency, and what it is worth.

    Attributes
    ----------
    tier : {"published", "transferred", "estimated", "none"}
        Where it comes from; ``none``: there is no figure.
    soc_model : int
        QNN's number of the SoC.
    precision, path : str
        As asked for.
    ms : float or None
        Latency of one inference in milliseconds.
    low_ms, high_ms : float or None
        Eight of ten models are within.
    memory_mb : int or None
        Peak memory in megabytes, where it was measured.
    reason : str
        Why there is no figure; or what the figure rests on.
    notes : tuple of str
        What makes it less certain.
    """

    tier: Tier
    soc_model: int
    precision: str
    path: str
    ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    memory_mb: int | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()


def published(row: Measurement) -> Prediction:
    """Give a published measurement as a figure."""
    return Prediction(
        "published",
        row.soc_model,
        row.precision,
        row.path,
        ms=row.ms,
        low_ms=row.ms / _REPEAT,
        high_ms=row.ms * _REPEAT,
        memory_mb=row.memory_mb,
        reason=f"measured on {row.device}" + ("" if row.on_npu else "; not every layer ran on the NPU"),
    )


def predict(
    work: Work,
    costs: Sequence[CompilerCost],
    soc_model: int,
    *,
    precision: str,
    path: str = "qnn_dlc",
    cpu_ops: Sequence[str] = (),
) -> Prediction:
    """Estimate a model's latency on a chip from the compiler's figures and the graph.

    Parameters
    ----------
    work : Work
        The work in its graph.
    costs : sequence of CompilerCost
        The compiler's estimates, for one or both of `ESTIMATING_SOCS`.
    soc_model : int
        The chip, by QNN's number.
    precision : str
        ``float`` (fp16), ``w8a8`` or ``w8a16``.
    path : {"qnn_dlc", "onnx", "tflite"}
        How it will run.
    cpu_ops : sequence of str
        Ops that are left to the CPU.

    Returns
    -------
    Prediction
        Of the tier ``estimated``; or ``none`` with the reason.
    """
    asked = (soc_model, precision, path)
    reason = unfitted(soc_model, precision, path)
    if reason:
        return Prediction("none", *asked, reason=reason)
    known = coefficients()["precisions"][precision]
    column = f"{path}:{soc_model}"
    by_soc = {cost.soc_model: cost for cost in costs if cost.soc_model in ESTIMATING_SOCS}
    reason = _outside(known, work, by_soc, cpu_ops)
    if reason:
        return Prediction("none", *asked, reason=reason)
    number = known["columns"].index(column)
    found = _logs(known, number, work, by_soc)
    moved, like = correction(known["near"], number, _compiles(by_soc), work)
    log_ms = sum(weight * value for weight, value in found) / sum(weight for weight, _ in found) + moved
    logs = [value for _, value in found]
    # Where the views differ, the error is larger.
    scale = known["interval"]["floor"] + max(logs) - min(logs)
    low, high = (math.exp(log_ms - scale * q) for q in known["interval"][_compiles(by_soc)])
    return Prediction(
        "estimated",
        *asked,
        ms=math.exp(log_ms),
        low_ms=low,
        high_ms=high,
        reason=f"compiler cycles for Hexagon {' and '.join(_ARCH[id_] for id_ in sorted(by_soc))} and the work in "
        f"the graph, fitted to {known['models']} models"
        + (f"; {100 * math.expm1(moved):+.0f} % as those most like it need it: {_some(like)}" if like else ""),
    )


def unfitted(soc_model: int, precision: str, path: str) -> str:
    """Why no model at all can be estimated in a precision on a chip with a path, or nothing if one can.

    Parameters
    ----------
    soc_model, precision, path
        As for `predict`.
    """
    known = coefficients()["precisions"].get(precision)
    if known is None:
        fitted = ", ".join(coefficients()["precisions"])
        return f"no coefficients were fitted for {precision}, only for {fitted}"
    if f"{path}:{soc_model}" not in known["columns"]:
        return _no_column(known["columns"], soc_model, precision, path)
    return ""


def transfer(ms: float, source: int, target: int, *, precision: str, path: str = "qnn_dlc") -> Prediction:
    """Scale a measurement from one chip to another.

    Parameters
    ----------
    ms : float
        Latency measured on `source`, in milliseconds.
    source, target : int
        Chips, by QNN's number.
    precision : str
        ``float`` (fp16), ``w8a8`` or ``w8a16``.
    path : {"qnn_dlc", "onnx", "tflite"}
        How it ran, and will run.

    Returns
    -------
    Prediction
        Of the tier ``transferred``; or ``none`` with the reason.
    """
    asked = (target, precision, path)
    known = coefficients()["transfer"].get(f"{precision}:{path}")
    pair = known and known["pairs"].get(f"{source}>{target}")
    if not pair:
        return Prediction(
            "none", *asked, reason=f"too few {precision} models were measured with {path} on both {source} and {target}"
        )
    low, high = known["domain"]
    if not low <= ms <= high:
        return Prediction(
            "none", *asked, reason=f"{ms:.3g} ms is outside of what was measured ({low:.3g} to {high:.3g} ms)"
        )
    offset, slope, over, under = pair
    log_ms = offset + slope * math.log(ms)
    return Prediction(
        "transferred",
        *asked,
        ms=math.exp(log_ms),
        low_ms=math.exp(log_ms - over),
        high_ms=math.exp(log_ms - under),
        reason=f"{ms:.4g} ms measured on the chip {source}, scaled",
    )


def _compiles(by_soc: Mapping[int, CompilerCost]) -> str:
    return "+".join(map(str, sorted(by_soc)))


def _logs(
    known: Mapping[str, Any], column: int, work: Work, by_soc: Mapping[int, CompilerCost]
) -> list[tuple[float, float]]:
    """Weight and log milliseconds of each view that can be had."""
    found = []
    for view in known["views"]:
        if view["compile"] is not None and view["compile"] not in by_soc:
            continue
        values = features(work, by_soc.get(view["compile"]))
        total = sum(
            values[name] / scale * math.exp(log)
            for name, scale, log in zip(view["features"], view["scale"], view["log_ms"][column], strict=True)
        )
        found.append((view["weight"], math.log(total)))
    return found


def _no_column(columns: Sequence[str], soc_model: int, precision: str, path: str) -> str:
    here = [column.partition(":")[0] for column in columns if column.endswith(f":{soc_model}")]
    if here:
        return f"{precision} with {path} was not measured enough on this chip to be fitted; {', '.join(here)} was"
    if any(target.soc_model == soc_model for target in targets()):
        return f"too few {precision} models were measured on this chip to fit it"
    return "the chip is not in the table of device measurements"


def _outside(known: Mapping[str, Any], work: Work, by_soc: Mapping[int, CompilerCost], cpu_ops: Sequence[str]) -> str:
    """Why a model is outside of what was fitted, or nothing."""
    if cpu_ops:
        return f"{len(cpu_ops)} ops are left to the CPU, whose time is not estimated: {_some(cpu_ops)}"
    if work.unknown:
        return f"ops of a type that the estimator does not know: {_some(work.unknown)}"
    strange = [kind for kind in work.totals if work.totals[kind]["count"] and kind not in known["kinds"]]
    if strange:
        return f"no model with such ops was fitted: {_some(strange)}"
    if not by_soc:
        socs = " or ".join(map(str, ESTIMATING_SOCS))
        return f"there is no compile for an SoC that the compiler gives an estimate for (id {socs})"
    missing = max(cost.missing_ops for cost in by_soc.values())
    if missing > known["missing_ops"]:
        return f"the compiler knows no cost of {missing} ops"
    values = features(work, next(iter(by_soc.values())))
    for name, (low, high) in known["domain"].items():
        value = _by_soc(name, values, by_soc)
        if value is not None and not low <= value <= high:
            return f"{name} = {value:.3g} is outside of what was fitted ({low:.3g} to {high:.3g})"
    return ""


def _by_soc(name: str, values: Mapping[str, float], by_soc: Mapping[int, CompilerCost]) -> float | None:
    """Give a feature by the name that the domain has: ``cycles 52`` is that of a compile, None where there is none."""
    feature, _, soc = name.partition(" ")
    if not soc:
        return values[feature]
    return float(by_soc[int(soc)].cycles) if int(soc) in by_soc else None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
