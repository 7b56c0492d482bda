"""Fit the estimator's coefficients, judge them by leaving models out, and write them down.

``python tools/latency/fit.py`` prints the cross-validated errors, and writes ``qnb/data/latency_model.json`` and the tables
between the markers in ``docs/latency.md``; with ``--check`` it prints and writes nothing. It takes a minute; no compiler is
needed, as the compiler's figures are in ``compiler_costs.csv`` (made by ``compile.py``).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dataset import Array, Dataset, graph_works, load, qairt, rows
from fitting import Settings, fit_costs, leave_out, pull, relative_error, spearman
from transfers import fit_transfers

from qnb.latency.features import COMPILER, ESTIMATING_SOCS, GRAPH, KINDS, ROOFLINE, features
from qnb.latency.measured import measurements, same_size
from qnb.latency.near import alikeness, sizes
from qnb.latency.work import fingerprint

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "qnb" / "data" / "latency_model.json"
PAGE = ROOT / "docs" / "latency.md"
DATE = "2026-11-21"
PRECISIONS = ("float", "w8a8")
PATHS = ("qnn_dlc", "onnx")
"""Paths that are fitted. With LiteRT some models take ten times as long on a chip, which neither graph nor cycles say."""

MISSING_OPS = 3
"""Ops without a cost that a graph may have, so that its cycles still count."""

COVERAGE = 0.8
SETTINGS = {
    "float": Settings(shrink=0.001, prior=0.01, knee=0.1),
    "w8a8": Settings(shrink=0.01, prior=0.01, knee=0.1),
}
FLOOR = 0.2
"""Log error that is there where all views agree."""

LENGTH = 0.3
"""How far apart models may be in size to be alike, in standard deviations of all."""

NOISE = 0.7
"""Variance of what like models don't share of their residuals, over that of what they do."""

FARTHEST = 0.5
"""Log residual from which on a model counts as no more amiss."""

_ROOM = 1.5
"""How far beyond the fitted sizes an estimate is still given."""

_CYCLES = ("constant", *COMPILER)
VIEWS: dict[str, tuple[tuple[int | None, tuple[str, ...]], ...]] = {
    "float": ((52, _CYCLES), (72, _CYCLES), (52, (*GRAPH, *COMPILER)), (72, (*GRAPH, *COMPILER))),
    "w8a8": tuple((soc, names) for names in (_CYCLES, ROOFLINE, KINDS, (*_CYCLES, *ROOFLINE[1:])) for soc in (52, 72)),
}
"""What is averaged, for each SoC that the compiler estimates: its figures alone; and the work in the graph. Where many
models were measured, that is by kind, together with these figures; else as one sum, by the coarsest kinds, and as one sum
together with these figures."""

SCENARIOS: dict[str, tuple[int, ...]] = {"52+72": ESTIMATING_SOCS, "52": (52,), "72": (72,)}


@dataclass(frozen=True)
class View:
    """One view's features of all models, scaled to about 1, and which models have them."""

    soc: int | None
    names: tuple[str, ...]
    scale: Array
    values: Array
    known: Any


def view(data: Dataset, soc: int | None, names: tuple[str, ...]) -> View:
    """Give the features; NaN where a model was not compiled for the SoC."""
    known = np.array([soc is None or soc in costs for costs in data.costs])
    found = [features(w, c.get(soc) if soc else None) for w, c in zip(data.works, data.costs, strict=True)]
    values = np.array([[row.get(name, np.nan) for name in names] for row in found], dtype=float)
    scale = np.array([_typical(values[known, k]) for k in range(len(names))])
    return View(soc, names, scale, values / scale, known)


def _typical(values: Array) -> float:
    return float(values[values > 0].mean()) if (values > 0).any() else 1.0


def held_out(data: Dataset, views: list[View], groups: tuple[str, ...], settings: Settings) -> list[Array]:
    """Give each view's log milliseconds, by the model whose group was left out, for all models."""
    found = []
    for one in views:
        predicted = np.full((len(data.names), *data.target.shape), np.nan)
        kept = [group for group, known in zip(groups, one.known, strict=True) if known]
        inner, _ = leave_out(one.values[one.known], data.target[one.known], settings, kept)
        predicted[np.ix_(one.known, one.known)] = inner
        found.append(predicted)
    return found


def combined(views: list[View], logs: list[Array], socs: tuple[int, ...]) -> tuple[Array, Array]:
    """Average the views of some compiles, and say how far they are apart."""
    used = np.stack([log for one, log in zip(views, logs, strict=True) if one.soc is None or one.soc in socs])
    if len(socs) > 1:  # a model that lacks one of the compiles tells nothing of having both
        used = np.where(np.isnan(used).any(0), np.nan, used)
    return used.mean(0), used.max(0) - used.min(0)


def scaled_sizes(data: Dataset) -> tuple[Array, Array, Array]:
    """Give the models' sizes, scaled, and their mean and deviation."""
    found = np.stack([sizes(work) for work in data.works])
    mean, deviation = found.mean(0), found.std(0)
    return (found - mean) / deviation, mean, deviation


def residual(data: Dataset, predicted: Array) -> Array:
    """Give log measured less log estimated, bounded."""
    return np.clip(data.target - predicted, -FARTHEST, FARTHEST)


def estimated(
    data: Dataset, views: list[View], logs: list[Array], socs: tuple[int, ...], groups: tuple[str, ...]
) -> tuple[Array, Array]:
    """Give each model's estimate by fits and near models without its group, and how far the views are apart."""
    every, spread = combined(views, logs, socs)
    places, _, _ = scaled_sizes(data)
    alike = alikeness(places, places, LENGTH)
    own = range(len(data.names))
    found = every[own, own]
    for i in own:
        others = np.array([group != groups[i] for group in groups])
        rest = pull(alike[np.ix_(others, others)], residual(data, every[i])[others], NOISE)
        found[i] += alike[i, others] @ rest
    return found, spread[own, own]


def intervals(error: Array, scale: Array) -> tuple[float, float]:
    """Give the quantiles of the scaled log errors (estimate less measured) that the interval leaves out, by model."""
    ratio = np.sort([np.nanmedian(row) for row in error / scale if np.isfinite(row).any()])
    tail = (1 - COVERAGE) / 2
    count = len(ratio)
    low = ratio[max(int(np.floor(tail * (count + 1))) - 1, 0)]
    high = ratio[min(int(np.ceil((1 - tail) * (count + 1))) - 1, count - 1)]
    return float(high), float(low)


def covered(error: Array, scale: Array) -> float:
    """Share of measurements inside an interval that was made without their model."""
    inside = []
    for i in range(len(error)):
        if np.isnan(error[i]).all():
            continue
        rest = np.arange(len(error)) != i
        high, low = intervals(error[rest], scale[rest])
        ratio = (error[i] / scale[i])[np.isfinite(error[i])]
        inside.append(float(((ratio <= high) & (ratio >= low)).mean()))
    return float(np.mean(inside))


def judged(data: Dataset, predicted: Array, spread: Array, path: str) -> dict[str, Any]:
    """Give errors over the chips of a path: the median over chips, and how many there are."""
    picked = [j for j, column in enumerate(data.columns) if column.startswith(f"{path}:")]
    error = relative_error(predicted, data.target)[:, picked]
    logs = np.abs(predicted - data.target)[:, picked]
    ranks = [spearman(predicted[ok, j], data.target[ok, j]) for j in picked if (ok := _both(data, predicted, j)).any()]
    return {
        "chips": len(picked),
        "models": int(np.isfinite(error).any(1).sum()),
        "points": int(np.isfinite(error).sum()),
        "median": _over_chips(error, 50),
        "p90": _over_chips(error, 90),
        "log_median": _over_chips(logs, 50),
        "log_p90": _over_chips(logs, 90),
        "rank": round(float(np.median(ranks)), 3),
        "coverage": round(covered((predicted - data.target)[:, picked], FLOOR + spread[:, picked]), 3),
    }


def _both(data: Dataset, predicted: Array, j: int) -> Any:
    return np.isfinite(data.target[:, j]) & np.isfinite(predicted[:, j])


def _over_chips(error: Array, percent: int) -> float:
    return round(float(np.median(np.nanpercentile(error, percent, axis=0))), 3)


def fit_precision(precision: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Fit one precision; give its coefficients and the table of its errors."""
    data = load(precision, MISSING_OPS, PATHS)
    views = [view(data, soc, names) for soc, names in VIEWS[precision]]
    settings = SETTINGS[precision]
    table, found = [], {}
    for left_out, groups in (("model", data.names), ("family", data.families)):
        logs = held_out(data, views, groups, settings)
        for scenario, socs in SCENARIOS.items():
            predicted, spread = found[left_out, scenario] = estimated(data, views, logs, socs, groups)
            for path in sorted({column.partition(":")[0] for column in data.columns}):
                row = judged(data, predicted, spread, path)
                table.append(
                    {"precision": precision, "path": path, "left out": left_out, "compiled for": scenario} | row
                )
    interval: dict[str, Any] = {"floor": FLOOR}
    for scenario in SCENARIOS:
        predicted, spread = found["model", scenario]
        interval[scenario] = [round(q, 4) for q in intervals(predicted - data.target, FLOOR + spread)]
    wrong = found["model", "52+72"][0] - data.target
    costs = [fit_costs(one.values[one.known], data.target[one.known], settings).log for one in views]
    misses = {name: np.nanmedian(row) for name, row in zip(data.names, wrong, strict=True) if np.isfinite(row).any()}
    return {
        "models": len(data.names),
        "names": list(data.names),
        "columns": list(data.columns),
        "kinds": sorted({kind for work in data.works for kind, row in work.totals.items() if row["count"]}),
        "missing_ops": MISSING_OPS,
        "domain": domain(data),
        "views": [_fitted(one, log_ms) for one, log_ms in zip(views, costs, strict=True)],
        "near": near(data, views, costs),
        "interval": interval,
        "misses": {name: round(float(np.expm1(miss)), 3) for name, miss in misses.items()},
    }, table


def _fitted(one: View, log_ms: Array) -> dict[str, Any]:
    return {
        "compile": one.soc,
        "weight": 1.0,
        "features": list(one.names),
        "scale": [float(f"{value:.6g}") for value in one.scale],
        "log_ms": _rounded(log_ms.T),
    }


def near(data: Dataset, views: list[View], costs: list[Array]) -> dict[str, Any]:
    """Give what corrects the estimate of a model that is like some of these."""
    places, mean, deviation = scaled_sizes(data)
    logs = [
        np.log(np.where(one.known[:, None], one.values @ np.exp(log), np.nan))
        for one, log in zip(views, costs, strict=True)
    ]
    alike = alikeness(places, places, LENGTH)
    found = {
        scenario: _rounded(pull(alike, residual(data, combined(views, logs, socs)[0]), NOISE))
        for scenario, socs in SCENARIOS.items()
    }
    return {
        "names": list(data.names),
        "length": LENGTH,
        "mean": _rounded(mean[None])[0],
        "scale": _rounded(deviation[None])[0],
        "sizes": _rounded(places),
        "pull": found,
    }


def _rounded(values: Array) -> list[list[float]]:
    return [[round(float(value), 3) for value in row] for row in values]


def domain(data: Dataset) -> dict[str, list[float]]:
    """Give the sizes that were fitted, with some room; few weights only save what they would cost."""
    sizes: dict[str, list[float]] = {}
    for work, costs in zip(data.works, data.costs, strict=True):
        sizes.setdefault("weights", []).append(work.total("weights"))
        sizes.setdefault("ops", []).append(features(work)["ops"])
        for soc, cost in costs.items():
            sizes.setdefault(f"cycles {soc}", []).append(cost.cycles)
    found = {name: [float(f"{min(v) / _ROOM:.3g}"), float(f"{max(v) * _ROOM:.3g}")] for name, v in sizes.items()}
    return found | {"weights": [0.0, found["weights"][1]]}


HEAD = ("precision", "path", "left out", "compiled for", "models", "chips", "points", "median", "p90", "log_median",
        "log_p90", "rank", "coverage")  # fmt: skip


def markdown(table: list[dict[str, Any]], head: tuple[str, ...]) -> str:
    """Write rows as a table."""
    lines = ["| " + " | ".join(name.replace("_", " ") for name in head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_shown(name, row[name]) for name in head) + " |" for row in table]
    return "\n".join(lines) + "\n"


def _shown(name: str, value: Any) -> str:
    percent = name in ("median", "p90", "log_median", "log_p90", "coverage", "error")
    return f"{100 * value:.1f} %" if percent else str(value)


def fit() -> dict[str, Any]:
    """Fit everything; give what is written to the data file."""
    precisions, table = {}, []
    for precision in PRECISIONS:
        precisions[precision], errors = fit_precision(precision)
        table += errors
    transfers, transfer_table = fit_transfers()
    return {
        "qairt": qairt(),
        "date": DATE,
        "precisions": precisions,
        "transfer": transfers,
        "graphs": identified(),
        "cross_validation": table,
        "transfer_cross_validation": transfer_table,
    }


def identified() -> dict[str, list[int]]:
    """Give the fingerprints of those graphs whose number of parameters is the one in the table."""
    stated = {(row.model, row.component): row.parameters for row in measurements()}
    stated |= {(model, ""): text for (model, _), text in stated.items()}
    listed = {row["name"]: row for row in rows("models.csv")}
    found = {}
    for name, work in graph_works().items():
        entry = listed[name]
        text = stated.get((entry["model"], entry["component"]), "")
        if any(same_size(text, count) for count in (int(entry["parameters"] or 0), work.total("weights"))):
            found[name] = list(fingerprint(work))
    return found


TRANSFER_HEAD = ("precision", "path", "pairs", "models", "median", "p90", "coverage")


def write(found: dict[str, Any]) -> None:
    """Write the data file and the tables of the page."""
    MODEL.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    misses = [
        {"precision": p, "model": name, "error": value}
        for p, known in found["precisions"].items()
        for name, value in sorted(known["misses"].items(), key=lambda item: -abs(np.log1p(item[1])))[:8]
    ]
    for name, part in (
        ("estimate", markdown(found["cross_validation"], HEAD)),
        ("transfer", markdown(found["transfer_cross_validation"], TRANSFER_HEAD)),
        ("misses", markdown(misses, ("precision", "model", "error"))),
    ):
        begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
        before, _, rest = text.partition(begin)
        text = before + begin + "\n" + part + "\n" + end + rest.partition(end)[2]
    PAGE.write_text(text, encoding="utf-8")


def main() -> None:
    """Fit, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="print the errors and write nothing")
    options = parser.parse_args()
    found = fit()
    print(markdown(found["cross_validation"], HEAD))
    print(markdown(found["transfer_cross_validation"], TRANSFER_HEAD))
    if not options.check:
        write(found)


if __name__ == "__main__":
    main()
