"""Oracle: rounding by hand in numpy, of the float model's own weights and inputs, run by ONNX Runtime; SQNR written anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import qnb
from qnb.errors import BadInput, Interrupted, UnknownName
from qnb.steps import _mixed
from qnb.steps.sensitivity import Sensitivity
from tests.hard import hard_digits
from tests.processes import Strike, default_interrupts, interrupt_kernel
from tests.steps.oracles import on_onnxruntime, split, sqnr_db

SAMPLES = 24


@pytest.fixture(scope="module")
def train() -> np.ndarray:
    return hard_digits().train[:100]


@pytest.fixture(scope="module")
def by_tensor(hard_model, train) -> Sensitivity:
    return qnb.sensitivity(hard_model, train, granularity="tensor", samples=SAMPLES)


def output(path: Any, images: np.ndarray) -> np.ndarray:
    return on_onnxruntime(path, split(image=images))["logits"]


def figure(found: Sensitivity, part: str) -> float:
    return float(found.frame.set_index("part").loc[part, "sqnr_db"])


def test_a_weight_alone_is_rounded_channel_by_channel(hard_model, train, by_tensor, tmp_path):
    reference = output(hard_model.path, train[:SAMPLES])
    model = onnx.load(hard_model.path)
    weights = [i.name for i in model.graph.initializer if len(i.dims) > 1]
    assert len(weights) == 6
    for name in weights:
        rounded = onnx.ModelProto()
        rounded.CopyFrom(model)
        tensor = next(i for i in rounded.graph.initializer if i.name == name)
        values = numpy_helper.to_array(tensor)
        scale = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True) / 127
        tensor.CopyFrom(numpy_helper.from_array((np.rint(values / scale) * scale).astype(np.float32), name))
        onnx.save(rounded, tmp_path / "rounded.onnx")
        assert figure(by_tensor, name) == pytest.approx(
            sqnr_db(reference, output(tmp_path / "rounded.onnx", train[:SAMPLES])), abs=0.1
        )


def test_an_input_alone_is_rounded_to_the_range_of_all_data(hard_model, train, by_tensor):
    images = train[:SAMPLES]
    scale = (train.max() - min(0, train.min())) / 255
    rounded = (np.rint(images / scale) * scale).astype(np.float32)
    expected = sqnr_db(output(hard_model.path, images), output(hard_model.path, rounded))
    assert figure(by_tensor, "image") == pytest.approx(expected, abs=0.1)


def test_the_most_harmful_comes_first_and_layers_join_their_tensors(hard_model, train, by_tensor):
    layers = qnb.sensitivity(hard_model, train, samples=SAMPLES)
    for found in (layers, by_tensor):
        assert list(found.frame["sqnr_db"]) == sorted(found.frame["sqnr_db"])
        assert set(found.frame["source"]) == {"host"}
    assert len(layers.frame) == 8
    assert len(by_tensor.frame) == 14
    named = {t for tensors in layers.frame["tensors"] for t in tensors.split(", ")}
    assert named == set(by_tensor.frame["part"])
    # The depthwise convolutions' outputs have the bad ranges (tests/hard.py); the last layer's has not.
    assert layers.frame["part"].iloc[-3:].str.contains("linear|image|mean").all()


def test_what_is_spared_brings_most_first(hard_model, train):
    whole = qnb.calibrate(hard_model, train, precision="w8a8")
    spared = qnb.sensitivity(hard_model, train, mode="without", samples=SAMPLES)
    expected = sqnr_db(output(hard_model.path, train[:SAMPLES]), output(whole.path, train[:SAMPLES]))
    assert spared.all_sqnr_db == pytest.approx(expected, abs=1.0)  # ONNX Runtime's own integer kernels round otherwise
    assert list(spared.frame["sqnr_db"]) == sorted(spared.frame["sqnr_db"], reverse=True)
    assert spared.frame["sqnr_db"].iloc[0] > spared.all_sqnr_db + 0.5


def test_more_bits_are_better(hard_model, train):
    found = qnb.sensitivity(hard_model, train, precision="w4a8,w8a8,w8a16", samples=SAMPLES)
    table = found.frame.pivot_table(index="part", columns="precision", values="sqnr_db")
    assert (table["w8a8"] >= table["w4a8"]).loc["node_linear"]
    layers = table.dropna(subset=["w8a16"])
    assert (layers["w8a16"] > layers["w8a8"] - 0.5).all()  # the weights' own bits may be what counts
    assert table.loc["image", "a16"] > table.loc["image", "a8"] + 30  # 8 bits are 48 dB
    assert np.isnan(found.all_sqnr_db)


def test_a_metric_of_ones_own(hard_model, train):
    data = hard_digits()
    labels = np.arange(100) % 10
    seen = []

    def metric(outputs, reference, labels):
        seen.append((outputs["logits"], reference["logits"], labels))
        return -float(np.abs(outputs["logits"] - reference["logits"]).max())

    found = qnb.sensitivity(hard_model, data.train[:100], samples=8, metric=metric, labels=labels)
    assert list(found.frame["metric"]) == sorted(found.frame["metric"])
    reference = output(hard_model.path, data.train[:8])
    for outputs, floats, classes in seen:
        assert outputs.shape == (8, 10)
        np.testing.assert_allclose(floats, reference, atol=1e-4)
        np.testing.assert_array_equal(classes, labels)
    assert found.frame["metric"].max() <= 0


def test_a_metric_that_fails_is_said_to_be_the_users(hard_model, train):
    with pytest.raises(BadInput, match="the metric failed: ZeroDivisionError"):
        qnb.sensitivity(hard_model, train, samples=4, metric=lambda *_: 1 / 0)


def test_several_inputs_and_outputs(two, two_data):
    found = qnb.sensitivity(two[1], two_data, samples=4)
    assert {"image", "context"} <= set(found.frame["part"])
    assert found.frame["sqnr_db"].notna().all()


def test_it_is_saved_and_opened_again(by_tensor, tmp_path):
    again = qnb.load(by_tensor.save(tmp_path / "saved"))
    assert isinstance(again, Sensitivity)
    assert again.frame.equals(by_tensor.frame)
    assert again.title == by_tensor.title
    assert len(again.plot().axes) == 1


def test_what_does_not_fit(hard_model, train):
    with pytest.raises(UnknownName, match="w8a9"):
        qnb.sensitivity(hard_model, train, precision="w8a9")
    with pytest.raises(BadInput, match="fp16"):
        qnb.sensitivity(hard_model, train, precision="fp16")
    with pytest.raises(UnknownName, match="granularity"):
        qnb.sensitivity(hard_model, train, granularity="op")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="mode"):
        qnb.sensitivity(hard_model, train, mode="with")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="samples is 0"):
        qnb.sensitivity(hard_model, train, samples=0)
    with pytest.raises(BadInput):
        qnb.sensitivity(hard_model, np.full((2, 1, 8, 8), np.nan, np.float32))


def test_what_was_measured_is_not_measured_again(hard_model, train, cache_folder, monkeypatch):
    calls = []
    real = _mixed.measure
    monkeypatch.setattr(_mixed, "measure", lambda *args: calls.append(args) or real(*args))
    first = qnb.sensitivity(hard_model, train, samples=6)
    assert len(calls) == 9  # eight parts, and all of them together
    second = qnb.sensitivity(hard_model, train, samples=6)
    assert len(calls) == 9
    assert second.frame.equals(first.frame)
    assert any("9 points were there already" in note for note in second.notes)
    qnb.sensitivity(hard_model, train, samples=6, resume=False)
    assert len(calls) == 18
    qnb.sensitivity(hard_model, train[:50], samples=6)  # other data, other ranges
    assert len(calls) == 27


def test_a_journal_that_a_crash_cut_short_is_read_as_far_as_it_goes(hard_model, train, cache_folder, monkeypatch):
    first = qnb.sensitivity(hard_model, train, samples=5)
    (journal,) = cache_folder.glob("searches/*/points.jsonl")
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20] + '\n{"key": 3}\nnull\n\x00')
    calls = []
    real = _mixed.measure
    monkeypatch.setattr(_mixed, "measure", lambda *args: calls.append(args) or real(*args))
    assert qnb.sensitivity(hard_model, train, samples=5).frame.equals(first.frame)
    assert len(calls) == 1


def test_an_interrupt_keeps_what_was_measured(hard_model, cache_folder: Path):
    """A real SIGINT in the middle of the work; the same call then does the rest."""
    data = hard_digits().train

    def some_are_there() -> bool:
        return any(path.read_text().count("key") > 5 for path in cache_folder.glob("searches/*/points.jsonl"))

    strike = Strike(interrupt_kernel, after=0.05, when=some_are_there)
    with default_interrupts(), strike, pytest.raises(Interrupted) as caught:
        qnb.sensitivity(hard_model, data, samples=1200, granularity="tensor", precision="w8a8,w8a16,w4a8,w16a16")
    assert "are kept" in caught.value.what
    assert "resumes" in caught.value.hint
    kept = int(caught.value.what.split(";")[1].split()[0])
    (journal,) = cache_folder.glob("searches/*/points.jsonl")
    assert len([line for line in journal.read_text().splitlines() if line]) == kept > 0
    rest = qnb.sensitivity(hard_model, data, samples=1200, granularity="tensor", precision="w8a8,w8a16,w4a8,w16a16")
    assert any(f"{kept} points were there already" in note for note in rest.notes)
