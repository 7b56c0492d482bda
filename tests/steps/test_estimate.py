"""Estimates. Oracles: the shipped table of device measurements, read here by itself, and the compiler's own figures."""

from __future__ import annotations

import csv
import gzip
from importlib import resources
from typing import Any

import numpy as np
import pytest

import qnb
from qnb.errors import BadInput, UnknownName
from qnb.socs import find
from tests import models
from tests.steps.oracles import noise

PHONES = ["SM8750", "SM8650", "SM8550", "SM8450", "SM8350"]


@pytest.fixture(scope="module")
def mobilenet() -> Any:
    return qnb.export(models.mobilenet_v2(), shapes={"image": (1, 3, 224, 224)}, name="MobileNet-v2")


@pytest.fixture(scope="module")
def estimated(mobilenet) -> Any:
    return qnb.estimate(mobilenet, published=False)


def table(path: str = "onnx", precision: str = "float") -> dict[int, list[float]]:
    """Milliseconds of MobileNetV2 by SoC id."""
    data = (resources.files("qnb") / "data" / "device_latency.csv.gz").read_bytes()
    found: dict[int, list[float]] = {}
    for row in csv.DictReader(gzip.decompress(data).decode().splitlines()):
        if (row["model"], row["precision"], row["runtime"]) == ("mobilenet_v2", precision, path):
            found.setdefault(int(row["soc_model"]), []).append(float(row["latency_ms"]))
    return found


def test_a_model_of_the_table_gets_what_was_measured(mobilenet):
    frame = qnb.estimate(mobilenet, soc=PHONES).frame.set_index("soc")
    known = table()
    published = frame[frame["source"] == "published"]
    assert len(published) >= 3
    for soc, row in published.iterrows():
        assert row["latency_ms"] in known[find(soc).soc_model]
        assert row["low_ms"] < row["latency_ms"] < row["high_ms"]
    others = frame[frame["source"] != "published"]
    assert all(find(soc).soc_model not in known for soc in others.index)


def test_a_name_alone_proves_nothing():
    smaller = qnb.export(models.mobilenet_v2(), shapes={"image": (1, 3, 192, 192)}, name="mobilenet_v2")
    other = qnb.export(models.small_cnn(), shapes={"image": (1, 3, 32, 32)}, name="mobilenet_v2")
    for model in (smaller, other):
        assert "published" not in set(qnb.estimate(model, soc=["SM8650"]).frame["source"])


def test_the_estimate_is_near_what_devices_took(estimated):
    """MobileNetV2 is among the models of the fit; its own error has to be within what left-out models show."""
    known = {id_: float(np.median(ms)) for id_, ms in table().items()}
    frame = estimated.frame
    assert set(frame["source"]) <= {"estimate", "none"}
    rows = frame[frame["source"] == "estimate"]
    ratios = np.array(
        [r.latency_ms / known[find(r.soc).soc_model] for r in rows.itertuples() if find(r.soc).soc_model in known]
    )
    assert len(ratios) >= 8
    assert 0.7 < np.median(ratios) < 1.4
    assert (rows["low_ms"] < rows["latency_ms"]).all()
    assert (rows["latency_ms"] < rows["high_ms"]).all()
    assert set(estimated.costs["soc"]) == {"SA8255", "SA8797"}
    assert (estimated.costs["cycles"] > 0).all()


def test_what_is_read_from_memory_is_the_weights_at_least(mobilenet, estimated):
    for read in estimated.costs["ddr_read_bytes"]:
        assert read == pytest.approx(2 * mobilenet.parameters, rel=0.3)  # fp16, filled up to whole tiles


def test_your_own_measurement_is_scaled(mobilenet):
    def scaled(ms: float) -> Any:
        frame = qnb.estimate(mobilenet, soc=PHONES[:4], measured={"SM8550": ms}, published=False).frame
        return frame.set_index("soc")

    once, twice = scaled(1.0), scaled(2.0)
    assert once.loc["SM8550", ["latency_ms", "source"]].tolist() == [1.0, "device"]
    rest = once.drop("SM8550")
    assert set(rest["source"]) == {"transferred"}
    np.testing.assert_allclose(twice["latency_ms"], 2 * once["latency_ms"], rtol=0.3)
    assert once.loc["SM8750", "latency_ms"] < 1 < once.loc["SM8450", "latency_ms"]


def test_what_would_be_a_guess_is_not_given(digits, mobilenet):
    four_bits = qnb.calibrate(digits.model, digits.train[:8], precision="w4a8")
    frame = qnb.estimate(four_bits, soc=["SM8650"]).frame
    assert frame["source"].tolist() == ["none"]
    assert np.isnan(frame["latency_ms"]).all()
    assert "w4a8" in frame["why"][0]
    assert not len(qnb.estimate(four_bits, soc=["SM8650"]).costs), "nothing is compiled for what can't be estimated"
    unknown = qnb.estimate(mobilenet, soc=["SC8480XP", "SM8650"]).frame.set_index("soc")
    assert np.isfinite(unknown.loc["SM8650", "latency_ms"])


def test_nothing_to_draw_is_shown_without_a_chart(digits):
    four_bits = qnb.calibrate(digits.model, digits.train[:8], precision="w4a8")
    made = qnb.estimate(four_bits, soc=["SM8650"])
    assert made.figures() == []
    assert "none" in made.to_html()
    assert "no estimate" in made.title


def test_a_context_is_estimated_for_its_own_soc(digits):
    quantized = qnb.calibrate(digits.model, digits.train[:8])
    context = qnb.context(quantized, soc="SM8550")
    assert qnb.estimate(context).frame["soc"].tolist() == ["SM8550"]


def test_it_opens_again(estimated, tmp_path):
    again = qnb.load(estimated.save(tmp_path / "e"))
    assert again.title == estimated.title
    assert again.frame.equals(estimated.frame)
    assert again.costs.equals(estimated.costs)


def test_what_is_refused(digits):
    with pytest.raises(UnknownName, match="SM8651"):
        qnb.estimate(digits.model, soc="SM8651")
    with pytest.raises(BadInput, match="above 0"):
        qnb.estimate(digits.model, measured={"SM8550": 0.0})
    with pytest.raises(UnknownName):
        qnb.estimate(digits.model, measured={"SM0": 1.0})


def test_noise_is_no_model():
    with pytest.raises(BadInput):
        qnb.estimate(noise(1, 2))
