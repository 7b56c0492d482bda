"""Select. Oracles: the other steps on the same build and samples (convert, infer), numpy over the criteria's own columns.

Estimates of the latency are figures that the test gives itself: what matters is where they go.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import helper

import qnb
from qnb.errors import BadInput, CheckFailed, UnknownName
from qnb.provenance import Recipe
from qnb.results import Result
from qnb.steps._selecting import POWER, UNKNOWN, WEIGHTS, weights_of
from tests import nets
from tests.steps.oracles import noise

CRITERIA = list(WEIGHTS)


def estimate(*rows: tuple[str, str, str, float, float, float, float, str, str]) -> Result:
    """A result with the frame of step estimate."""
    columns = ["soc", "precision", "path", "latency_ms", "low_ms", "high_ms", "peak_memory_mb", "source", "why"]
    return Result(frame=pd.DataFrame(rows, columns=columns), recipe=Recipe("estimate", {}, {}, 0.0))


FAST = estimate(
    ("SM8650", "w8a8", "qnn_dlc", 0.5, 0.4, 0.6, math.nan, "estimate", ""),
    ("SM8650", "w8a8", "onnx", 2.0, 1.5, 3.0, 30.0, "transferred", ""),
    ("SM8650", "fp16", "onnx", math.nan, math.nan, math.nan, math.nan, "none", "no chip like it was measured in fp16"),
    ("SM8750", "w8a8", "onnx", 1.0, 1.0, 1.0, math.nan, "published", ""),
)


@pytest.fixture(scope="module")
def chosen(digits):
    return qnb.select(digits.quantized, data=digits.test[:20], labels=digits.labels[:20], estimates=FAST)


def of(result: qnb.Result, backend: str, precision: str) -> pd.Series:
    rows = result.frame[(result.frame["backend"] == backend) & (result.frame["precision"] == precision)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_each_backend_in_its_precision_and_htp_in_fp16_too(chosen, digits):
    assert sorted(zip(chosen.frame["backend"], chosen.frame["precision"], strict=True)) == [
        ("cpu", "fp32"), ("gpu", "fp16"), ("htp", "fp16"), ("htp", "w8a8"),
    ]  # fmt: skip
    assert chosen.best == "htp"
    assert chosen.frame["precision"][0] == "w8a8"
    assert list(chosen.frame["rank"]) == [1, 2, 3, 4]
    plain = qnb.select(digits.model)
    assert sorted(zip(plain.frame["backend"], plain.frame["precision"], strict=True)) == [
        ("cpu", "fp32"), ("gpu", "fp16"), ("htp", "fp16"),
    ]  # fmt: skip


def test_placement_is_what_convert_says_and_a_gpu_that_is_not_there_is_unknown(chosen, digits):
    placement = qnb.convert(digits.quantized).frame
    pd.testing.assert_frame_equal(chosen.placement, placement)
    for backend, precision in (("htp", "w8a8"), ("cpu", "fp32")):
        share = 100 * (placement[backend] == "yes").mean()
        assert of(chosen, backend, precision)["placement_percent"] == pytest.approx(share)
    gpu = of(chosen, "gpu", "fp16")
    assert np.isnan(gpu["placement_percent"])
    assert gpu["fits"] == "unknown"
    assert "placement" in gpu["why"]
    assert any("no Adreno GPU" in note for note in chosen.notes)


def test_accuracy_is_what_infer_measures(chosen, digits):
    for backend, build in (("htp", digits.quantized), ("cpu", digits.quantized), ("gpu", digits.quantized)):
        ran = qnb.infer(build, digits.test[:20], labels=digits.labels[:20], backend=backend).frame.iloc[0]
        row = of(chosen, backend, ran["precision"])
        assert row["sqnr_db"] == pytest.approx(ran["sqnr_db"])
        assert row["accuracy"] == ran["accuracy"]
        assert row["accuracy_source"] == ran["source"]
    half = qnb.infer(digits.model, digits.test[:20], backend="htp").frame.iloc[0]
    assert of(chosen, "htp", "fp16")["sqnr_db"] == pytest.approx(half["sqnr_db"])


def test_latency_is_an_estimates_and_never_a_simulators(chosen):
    row = of(chosen, "htp", "w8a8")
    # a measurement that was scaled goes before a model's estimate
    assert (row["latency_ms"], row["low_ms"], row["high_ms"]) == (2.0, 1.5, 3.0)
    assert row["latency_source"] == row["memory_source"] == "transferred"
    assert row["memory_mb"] == 30
    others = chosen.frame[chosen.frame["latency_source"] == "none"]
    assert len(others) == 3
    assert others["latency_ms"].isna().all()
    assert any("no chip like it was measured in fp16" in note for note in chosen.notes)


def test_without_estimates_the_latency_is_not_known(digits):
    result = qnb.select(digits.quantized)
    assert result.frame["latency_ms"].isna().all()
    assert set(result.frame["latency_source"]) == {"none"}
    assert result.frame["sqnr_db"].isna().all()
    assert set(result.frame["accuracy_source"]) == {"none"}
    assert "not known: accuracy, latency" in result.frame["why"][0]
    assert result.best == "htp"


def test_every_point_can_be_added_up_from_the_criteria(chosen):
    for rank, rows in chosen.criteria.groupby("rank"):
        assert list(rows["criterion"]) == CRITERIA
        assert rows["weight_percent"].sum() == pytest.approx(100)
        points = rows["weight_percent"] * rows["score"].fillna(UNKNOWN)
        np.testing.assert_allclose(rows["points"], points)
        row = chosen.frame[chosen.frame["rank"] == rank].iloc[0]
        assert row["score"] == pytest.approx(points.sum())
        scores = rows.set_index("criterion")["score"]
        assert scores.dropna().between(0, 1).all()
        for name in CRITERIA:
            assert row[f"{name}_score"] == pytest.approx(scores[name], nan_ok=True)
        assert (rows["source"] != "").all()
    tutorials = chosen.criteria[chosen.criteria["criterion"].isin(["power", "tensor", "precision"])]
    assert set(tutorials["source"]) == {"tutorial"}


def test_constraints_make_power_or_latency_weigh_more(digits):
    plain, power, speed = weights_of([]), weights_of(["power_critical"]), weights_of(["performance_critical"])
    assert power["power"] / power["latency"] == pytest.approx(4 * plain["power"] / plain["latency"])
    assert speed["latency"] / speed["power"] == pytest.approx(3 * plain["latency"] / plain["power"])
    both = weights_of(["power_critical", "performance_critical", "power_critical"])
    assert both["power"] / both["memory"] == 4 * plain["power"] / plain["memory"]
    one, other = qnb.select(digits.quantized), qnb.select(digits.quantized, constraint="power_critical")
    gap = [of(r, "htp", "w8a8")["score"] - of(r, "cpu", "fp32")["score"] for r in (one, other)]
    assert gap[1] > gap[0]
    assert f"power efficiency {POWER['htp']}" in other.frame["why"][0]


@pytest.fixture(scope="module")
def wide_rank(tmp_path_factory):
    """A model with six-dimensional tensors, which the NPU does not take and QNN's CPU backend does."""
    path = tmp_path_factory.mktemp("rank") / "six.onnx"
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="relu"),
        helper.make_node("Transpose", ["a"], ["b"], name="six_axes", perm=[0, 5, 4, 3, 2, 1]),
        helper.make_node("Reshape", ["b", "shape"], ["c"], name="flat"),
        helper.make_node("Sigmoid", ["c"], ["y"], name="sigmoid"),
    ]
    weights = {"shape": np.array([1, 32])}
    onnx.save(nets.model(nodes, [nets.value("x", (1, 2, 2, 2, 2, 2))], [nets.value("y", (1, 32))], weights), path)
    return qnb.export(path, simplify=False, no_repair=["rank"])


def test_an_op_that_the_npu_refuses_puts_it_behind_and_is_named(wide_rank):
    data = noise(3, 2, 2, 2, 2, 2)
    result = qnb.select(wide_rank, data=data, constraint=["power_critical", "performance_critical"])
    assert result.best == "cpu"
    refused = of(result, "htp", "fp16")
    assert refused["fits"] == "no"
    assert refused["rank"] > of(result, "cpu", "fp32")["rank"]
    assert "six_axes Transpose" in refused["refused"]
    assert "six_axes Transpose" in refused["why"]
    placement = qnb.convert(wide_rank).frame
    count = int((placement["htp"] == "no").sum())
    assert f"htp refuses {count} of 4 ops" in refused["why"]
    assert refused["shortfall_percent"] == pytest.approx(100 * count / 4)
    assert np.isnan(refused["sqnr_db"])
    assert of(result, "cpu", "fp32")["sqnr_db"] > 60
    assert result.verdict.startswith("take cpu fp32")


def test_an_soc_without_fp16_leaves_the_integers(digits):
    result = qnb.select(digits.quantized, soc="SM7325")
    assert set(result.frame["soc"]) == {"SM7325"}
    half = of(result, "htp", "fp16")
    assert half["fits"] == "no"
    assert "takes no fp16" in half["why"]
    assert of(result, "htp", "w8a8")["rank"] == 1


def test_a_target_that_is_missed_goes_before_all_points(digits):
    data, labels = digits.test[:20], digits.labels[:20]
    quantized = qnb.infer(digits.quantized, data).frame["sqnr_db"][0]
    result = qnb.select(digits.quantized, data=data, labels=labels, min_sqnr=quantized + 5)
    integers = of(result, "htp", "w8a8")
    assert integers["fits"] == "no"
    assert integers["rank"] == 4
    assert integers["score"] > result.frame["score"][0] - 20
    assert f"SQNR of {quantized:.1f} dB is below {quantized + 5:g} dB" in integers["why"]
    assert result.frame["precision"][0] == "fp16"
    assert integers["shortfall_percent"] == pytest.approx(100 * 5 / (quantized + 5))
    met = qnb.select(digits.quantized, data=data, labels=labels, min_sqnr=quantized - 1, min_accuracy=0.5)
    assert of(met, "htp", "w8a8")["fits"] == "yes"


def test_where_none_fits_the_nearest_is_named_and_nothing_is_best(digits):
    result = qnb.select(digits.quantized, memory_mb=0.001)
    assert result.best is None
    assert set(result.frame["fits"]) == {"no"}
    smallest = result.frame.loc[result.frame["memory_mb"].idxmin()]
    assert smallest["rank"] == 1
    assert result.verdict.startswith(f"none fits; the nearest is {smallest['backend']} {smallest['precision']}")
    assert "is over 0.001 MB" in result.verdict
    assert smallest["shortfall_percent"] == pytest.approx(100 * (smallest["memory_mb"] / 0.001 - 1))
    with pytest.raises(CheckFailed, match="none fits"):
        result.require()
    assert qnb.select(digits.quantized).require() is None


def test_a_latency_budget_is_judged_by_the_estimate(digits):
    within = qnb.select(digits.quantized, estimates=FAST, latency_ms=2.5)
    assert within.frame["precision"][0] == "w8a8"
    assert within.frame["fits"][0] == "yes"
    assert set(within.frame["fits"][1:]) == {"unknown"}
    over = qnb.select(digits.quantized, estimates=FAST, latency_ms=0.5)
    late = of(over, "htp", "w8a8")
    assert late["fits"] == "no"
    assert late["rank"] == 4
    assert "latency of 2 ms (transferred) is over 0.5 ms" in late["why"]
    assert late["shortfall_percent"] == pytest.approx(300)
    assert late["latency_score"] == pytest.approx(0.25)
    assert over.frame["fits"][0] == "unknown"
    assert "as far as is known" in over.verdict


def test_memory_and_largest_tensor_follow_the_precision(digits):
    result = qnb.select(digits.quantized)
    frame = result.frame
    rows = {p: of(result, b, p) for b, p in (("htp", "w8a8"), ("htp", "fp16"), ("cpu", "fp32"))}
    assert set(frame["memory_source"]) == {"estimate"}
    assert rows["fp32"]["memory_mb"] == pytest.approx(2 * rows["fp16"]["memory_mb"], rel=0.01)
    weights = sum(digits.model.frame["weight_bytes"]) / 2**20
    assert rows["fp32"]["memory_mb"] > weights
    assert rows["w8a8"]["memory_mb"] < 0.3 * rows["fp32"]["memory_mb"]
    largest = max(math.prod(a.shape) for a in map(np.asarray, (p.detach() for p in digits.module.parameters())))
    assert rows["fp32"]["largest_tensor_mb"] == pytest.approx(4 * largest / 2**20)
    assert dict(zip(frame["backend"], frame["tensor_limit_mb"], strict=True)) == {"htp": 8, "gpu": 64, "cpu": 512}


def test_a_context_stands_for_what_it_was_made_of(digits):
    result = qnb.select(digits.contexts["SM8350"])
    assert set(result.frame["soc"]) == {"SM8350"}
    assert of(result, "htp", "w8a8")["rank"] == 1


def test_on_a_snapdragon_latency_and_memory_are_measured(digits, monkeypatch):
    # No Snapdragon here: the figures are this host's, called a device's in this test alone.
    monkeypatch.setattr("qnb.steps._candidates.source_of", lambda backend: "device" if backend == "htp" else "host")
    result = qnb.select(digits.quantized, estimates=FAST)
    row = of(result, "htp", "w8a8")
    assert row["latency_source"] == row["memory_source"] == "device"
    assert row["latency_ms"] > 0
    assert row["latency_ms"] != 2.0
    assert row["memory_mb"] > 10


def test_saved_and_opened_again(chosen, tmp_path):
    chosen.save(tmp_path / "choice")
    again = qnb.load(tmp_path / "choice")
    pd.testing.assert_frame_equal(again.frame, chosen.frame)
    pd.testing.assert_frame_equal(again.criteria, chosen.criteria)
    assert (again.best, again.verdict, again.title) == (chosen.best, chosen.verdict, chosen.title)
    assert len(chosen.figures()) == 1
    assert str(again).startswith("digits w8a8: take htp w8a8")


def test_what_does_not_fit_is_refused(digits):
    data = digits.test[:4]
    for arguments, said in (
        ({"min_sqnr": 30}, "no data"),
        ({"min_accuracy": 0.5}, "data and labels are missing"),
        ({"min_accuracy": 0.5, "data": data}, "labels are missing"),
        ({"min_accuracy": 75, "data": data, "labels": digits.labels[:4]}, "min_accuracy is 75"),
        ({"min_sqnr": math.nan, "data": data}, "min_sqnr"),
        ({"latency_ms": 0}, "latency_ms is 0"),
        ({"memory_mb": math.nan}, "memory_mb is nan"),
        ({"data": []}, "no sample"),
        ({"estimates": digits.quantized}, "estimates lacks"),
        ({"estimates": FAST, "soc": "SM8550"}, "for SM8650, SM8750, not for SM8550"),
    ):
        with pytest.raises(BadInput, match=said):
            qnb.select(digits.quantized, **arguments)
    with pytest.raises(UnknownName, match="power_critical"):
        qnb.select(digits.quantized, constraint="power")
