"""The shipped coefficients are what the tool makes of its inputs, and are as good as the page says.

Oracles: the fit itself, made again; the limits that were set for it; and scikit-learn's Gaussian process.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from qnb.latency.measured import coefficients
from qnb.latency.near import alikeness, correction
from qnb.latency.work import OpWork, Work
from tests.latency.inputs import dataset, tool
from tests.processes import ROOT


@pytest.fixture(scope="module")
def again() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(tool("fit").fit()))
    return found


def test_a_refit_gives_the_shipped_errors(again: dict[str, Any]) -> None:
    shipped = coefficients()["cross_validation"]
    assert len(again["cross_validation"]) == len(shipped)
    for new, old in zip(again["cross_validation"], shipped, strict=True):
        numbers = {"median", "p90", "log_median", "log_p90", "rank", "coverage"}
        assert {k: v for k, v in new.items() if k not in numbers} == {k: v for k, v in old.items() if k not in numbers}
        for name in numbers:
            assert new[name] == pytest.approx(old[name], abs=0.02), (new, name)
    for new, old in zip(again["transfer_cross_validation"], coefficients()["transfer_cross_validation"], strict=True):
        assert [new[k] for k in ("precision", "path", "pairs", "models")] == [
            old[k] for k in ("precision", "path", "pairs", "models")
        ]
        assert [new[k] for k in ("median", "p90", "coverage")] == pytest.approx(
            [old[k] for k in ("median", "p90", "coverage")], abs=0.01
        )


def test_graphs_that_differ_from_the_measured_ones_are_left_out_and_listed() -> None:
    works, found = tool("dataset").graph_works(), {}
    for precision in ("float", "w8a8"):
        for name in tool("dataset").compiler_costs(precision):
            if reason := tool("dataset").other_graph(name, works[name], precision):
                found[name] = reason
                assert name not in coefficients()["precisions"][precision]["names"]
    assert found == {row["name"]: row["left_out"] for row in tool("dataset").rows("models.csv") if row["left_out"]}
    assert "497 layers" in found["densenet121"]
    assert "densenet121" in coefficients()["precisions"]["float"]["names"]


def test_a_graph_is_told_by_its_fingerprint_only_if_its_parameters_are_those_of_the_table() -> None:
    graphs = coefficients()["graphs"]
    assert "resnet50" in graphs
    assert "distil_bert_base_uncased_hf" not in graphs  # 67 million parameters, 11.3 in the table
    assert "siglip2@image_encoder" not in graphs  # none in the table


def test_the_page_shows_the_shipped_errors() -> None:
    fit, page = tool("fit"), (ROOT / "docs" / "latency.md").read_text(encoding="utf-8")
    assert fit.markdown(coefficients()["cross_validation"], fit.HEAD) in page
    assert fit.markdown(coefficients()["transfer_cross_validation"], fit.TRANSFER_HEAD) in page


LIMITS = {
    ("float", "onnx"): (0.12, 0.35, 0.975),
    ("float", "qnn_dlc"): (0.12, 0.35, 0.975),
    ("w8a8", "onnx"): (0.12, 0.50, 0.96),
    ("w8a8", "qnn_dlc"): (0.12, 0.45, 0.96),
}


@pytest.mark.parametrize(("precision", "path"), LIMITS)
def test_left_out_models_are_met(precision: str, path: str) -> None:
    median, p90, rank = LIMITS[precision, path]
    (row,) = [
        r
        for r in coefficients()["cross_validation"]
        if (r["precision"], r["path"], r["left out"], r["compiled for"]) == (precision, path, "model", "52+72")
    ]
    assert row["median"] <= median
    assert row["p90"] <= p90
    assert row["rank"] >= rank


def test_intervals_hold_what_they_claim() -> None:
    for row in coefficients()["cross_validation"]:
        assert 0.7 <= row["coverage"] <= 0.9, row
    for row in coefficients()["transfer_cross_validation"]:
        assert 0.7 <= row["coverage"] <= 0.9, row


def test_a_model_that_is_left_out_does_not_help_itself() -> None:
    """A model with wrong measurements is predicted as if they were right, also by those that are like it."""
    fit, data = tool("fit"), dataset("float")
    views = [fit.view(data, soc, names) for soc, names in fit.VIEWS["float"]][:1]
    (soc,) = {one.soc for one in views}
    wrong = data.target.copy()
    wrong[0] += np.log(10)
    before, after = (
        fit.estimated(some, views, fit.held_out(some, views, some.names, fit.SETTINGS["float"]), (soc,), some.names)[0]
        for some in (data, replace(data, target=wrong))
    )
    assert after[0] == pytest.approx(before[0], abs=0.02)
    assert np.nanmax(np.abs(after[1:] - before[1:])) > 0.02  # those that are like it hear of it


def test_corrections_are_those_of_a_gaussian_process() -> None:
    """Oracle: scikit-learn's regressor, with the kernel and the noise that are stated."""
    random = np.random.default_rng(0)
    places, new = random.standard_normal((20, 4)), random.standard_normal((5, 4))
    residual = random.standard_normal((20, 2))
    residual[3, 0] = np.nan
    pull = tool("fitting").pull(alikeness(places, places, 0.6), residual, 0.7)
    found = alikeness(new, places, 0.6) @ pull
    for j in range(2):
        known = np.isfinite(residual[:, j])
        # the mean, not the sum, of squares over the four sizes: the length is that of one size
        process = GaussianProcessRegressor(RBF(0.6 * np.sqrt(4)), alpha=0.7, optimizer=None)
        assert found[:, j] == pytest.approx(process.fit(places[known], residual[known, j]).predict(new), abs=1e-9)


def test_a_model_unlike_any_is_not_corrected() -> None:
    works, known = tool("dataset").graph_works(), coefficients()["precisions"]["float"]["near"]
    moved, like = correction(known, 0, "52+72", works["resnet50"])
    assert "resnet50" in like
    alone = OpWork("", "Conv", "conv", 10**15, 10**15, 10, 10, 10)
    moved, like = correction(known, 0, "52+72", Work((alone,), 10))
    assert like == []
    assert abs(moved) < 1e-6
