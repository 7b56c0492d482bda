"""Compare. Oracles: the other steps' results on the same samples, and numpy over the runs."""

from __future__ import annotations

import numpy as np
import pytest

import qnb
from qnb.errors import BadInput, PlacementError


def test_backends_side_by_side(digits, walk):
    frame = walk["comparison"].frame
    assert list(frame["backend"]) == ["htp", "gpu", "cpu"]
    assert list(frame["precision"]) == ["w8a8", "fp16", "fp32"]
    assert set(frame["build"]) == {"digits w8a8"}
    for row in frame.itertuples():
        single = qnb.infer(digits.quantized, digits.test[:20], labels=digits.labels[:20], backend=row.backend)
        expected = single.frame.iloc[0]
        for figure in ("max_abs_error", "sqnr_db", "cosine", "top1_agreement", "accuracy"):
            assert getattr(row, figure) == pytest.approx(expected[figure], rel=1e-6), (row.backend, figure)
        latency = walk["comparison"].runs.query(f"backend == '{row.backend}'")["latency_ms"]
        assert row.median_ms == pytest.approx(latency.median())
        assert row.p95_ms == pytest.approx(np.percentile(latency, 95))
        assert row.throughput_per_s == pytest.approx(1000 / latency.mean())
    sizes = dict(zip(frame["backend"], frame["size_kb"], strict=True))
    assert sizes["htp"] == digits.contexts["SM8650"].size_bytes / 1024
    assert sizes["cpu"] == digits.model.path.stat().st_size / 1024
    assert 0.4 < sizes["gpu"] / sizes["cpu"] < 0.7  # half the bytes a weight
    assert any(note.startswith("gpu: the float parent") for note in walk["comparison"].notes)


def test_two_builds_side_by_side(digits):
    wide = qnb.calibrate(digits.model, digits.train[:50], precision="w8a16")
    result = qnb.compare(digits.quantized, wide, data=digits.test[:20], backends=["htp"], runs=2, warmup=0)
    frame = result.frame.set_index("build")
    assert list(frame.index) == ["digits w8a8", "digits w8a16"]
    assert frame.loc["digits w8a16", "sqnr_db"] > frame.loc["digits w8a8", "sqnr_db"]
    assert frame["accuracy"].isna().all()
    assert list(dict.fromkeys(result.runs["build"])) == list(frame.index)
    assert len(result.plot().axes) > 0


def test_two_contexts_are_told_apart_by_their_soc(digits):
    result = qnb.compare(*digits.contexts.values(), data=digits.test[:5], runs=1, warmup=0)
    assert list(result.frame["build"]) == ["digits w8a8 SM8650", "digits w8a8 SM8350"]
    assert list(result.frame["soc"]) == ["SM8650", "SM8350"]


def test_what_a_backend_does_not_take_has_a_row_that_says_why(digits):
    result = qnb.compare(digits.model, digits.quantized, backends=["htp"], soc="SM7325", runs=1, warmup=0)
    refused, taken = result.frame.itertuples()
    assert "fp16" in refused.note
    assert np.isnan(refused.median_ms)
    assert taken.median_ms > 0
    assert any("fp16" in note for note in result.notes)
    with pytest.raises(PlacementError, match="none of the builds"):
        qnb.compare(digits.model, backends=["htp"], soc="SM7325")
    with pytest.raises(PlacementError):
        qnb.compare(digits.contexts["SM8650"], backends=["cpu"])


def test_several_outputs_count_by_the_worst(two_quantized, two_data):
    row = qnb.compare(two_quantized, data=two_data, backends=["htp"], runs=1, warmup=0).frame.iloc[0]
    by_output = qnb.infer(two_quantized, two_data).frame
    assert row["sqnr_db"] == pytest.approx(by_output["sqnr_db"].min())
    assert row["max_abs_error"] == pytest.approx(by_output["max_abs_error"].max())


def test_a_generator_serves_every_row(digits):
    result = qnb.compare(digits.quantized, data=(x for x in digits.test[:5]), runs=1, warmup=0)
    assert result.frame["sqnr_db"].notna().all()


def test_without_data_it_compares_on_noise(digits):
    frame = qnb.compare(digits.quantized, backends=["htp", "cpu"], runs=1, warmup=0).frame
    assert frame["sqnr_db"].notna().all()


def test_nothing_to_compare():
    with pytest.raises(BadInput, match="nothing to compare"):
        qnb.compare()
