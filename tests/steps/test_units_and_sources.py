"""Every figure has a unit in its column's name, and says where it comes from.

Oracle: the list below, against every table of a walk through all steps. What needs no unit (counts, ratios, values in a
tensor's own unit) is named here one by one, so that a new column has to be thought of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest

import qnb
from tests.models import BUILDERS, INPUTS

UNITS = {
    "ms", "s", "kb", "mb", "bytes", "db", "percent", "per_s", "per_cycle", "per_byte", "cycles", "macs", "bops",
    "parameters", "bits",
}  # fmt: skip
COUNTS = {
    "axis", "block_size", "channels", "charts", "grids", "input_set", "ops_without_cost", "outliers", "rank", "rows", "runs",
    "slowest", "soc_model", "tables", "warmup_runs",
}  # fmt: skip
RATIOS = {
    "accuracy", "accuracy_score", "cosine", "drift_p_value", "fp32_accuracy", "latency_score", "memory_score",
    "placement_score", "points", "power_efficiency", "power_score", "precision_score", "score", "tensor_score",
    "top1_agreement",
}  # fmt: skip
IN_THE_TENSORS_UNIT = {
    "grid_max", "grid_min", "max", "max_abs_error", "min", "mse", "observed_max", "observed_min", "offset", "scale",
    "zero_point",
}  # fmt: skip
BESIDE = {("headline", "value")}
"""Figures whose unit stands in a column of its own."""

COUNTED = {
    ("model", "macs"), ("model", "parameters"), ("model", "weight_bytes"), ("model", "activation_bytes"),
    ("quantized", "bits"),
}  # fmt: skip
"""Figures of a graph, not of a machine: they have no source."""


def tables(result: Any) -> Iterator[tuple[str, pd.DataFrame]]:
    yield from result.tables().items()
    yield from ((name, getattr(result, name)) for name in ("runs", "trials") if getattr(result, name, None) is not None)


def figures(frame: pd.DataFrame) -> list[str]:
    numbers = (c for c in frame.columns if pd.api.types.is_numeric_dtype(frame[c]))
    return [str(c) for c in numbers if not pd.api.types.is_bool_dtype(frame[c])]


def unit(column: str) -> str:
    return next((u for u in UNITS if column == u or column.endswith(f"_{u}")), "")


def bare(column: str) -> str:
    """Name of a figure without the side of a comparison that it is of."""
    head, _, end = column.rpartition("_")
    return head if end in ("left", "right", "delta") else column


@pytest.fixture(scope="module")
def everything(walk, digits):
    """All results of the walk, a comparison op by op, and an estimate of a model that is large enough for one."""
    seen = qnb.export(BUILDERS["small_cnn"](), shapes=INPUTS["small_cnn"], name="small")
    two = [qnb.profile(b, backends=["htp"], runs=1, warmup=0) for b in (digits.model, digits.quantized)]
    return [*walk.values(), qnb.compare(*two), qnb.estimate(seen, soc="SM8650")]


def test_every_figure_has_a_unit_in_its_name_or_needs_none(everything):
    needs_none = COUNTS | RATIOS | IN_THE_TENSORS_UNIT
    without = {
        (result.kind, title, column)
        for result in everything
        for title, frame in tables(result)
        for column in figures(frame)
        if not unit(bare(column)) and bare(column) not in needs_none and (title, column) not in BESIDE
    }
    assert without == set()
    headline = next(r for r in everything if r.kind == "report").headline
    assert (headline["unit"] != "").all()


def test_the_list_of_what_needs_no_unit_names_nothing_that_is_gone(everything):
    there = {column for result in everything for _, frame in tables(result) for column in figures(frame)}
    assert there >= COUNTS | RATIOS | IN_THE_TENSORS_UNIT


def test_every_measured_figure_says_where_it_comes_from(everything):
    silent = {
        (result.kind, title, column)
        for result in everything
        for title, frame in tables(result)
        for column in figures(frame)
        if (unit(bare(column)) or column in RATIOS) and (result.kind, column) not in COUNTED
        if "source" not in frame.columns or not (frame["source"][frame[column].notna()].astype(str) != "").all()
    }
    assert silent == set()
