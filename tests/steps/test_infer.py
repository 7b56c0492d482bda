"""Infer. Oracles: ONNX Runtime's CPU provider driven by the test, the PyTorch module, numpy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import qnb
from qnb.errors import BadInput, PlacementError
from tests import nets
from tests.steps.oracles import noise, on_onnxruntime, split, sqnr_db


@pytest.mark.parametrize(
    ("backend", "precision", "source", "least_db"),
    [("htp", "w8a8", "simulator", 30), ("gpu", "fp16", "reference", 60), ("cpu", "fp32", "host", 110)],
)
def test_two_inputs_and_two_outputs_on_each_backend(two, two_data, two_quantized, backend, precision, source, least_db):
    module, model = two
    result = qnb.infer(two_quantized, two_data, backend=backend)
    with torch.no_grad():
        expected = module(*map(torch.tensor, two_data.values()))
    assert list(result.outputs) == [o.name for o in model.outputs]
    for row in result.frame.itertuples():
        value = result[row.output]
        reference = expected[row.output].numpy()
        assert value.dtype == np.float32
        assert value.shape == reference.shape
        assert sqnr_db(reference, value) > least_db
        if backend != "cpu":  # there both references, the module and ONNX Runtime, are as far away as the value
            assert row.sqnr_db == pytest.approx(sqnr_db(reference, value), abs=0.5)
        assert row.max_abs_error == pytest.approx(np.abs(value - reference).max(), abs=1e-6)
        assert (row.backend, row.precision, row.source) == (backend, precision, source)
        assert row.soc == ("SM8650" if backend == "htp" else "")
    assert result.samples == 12
    assert np.isnan(result.frame.set_index("output").loc["features", "top1_agreement"])


def test_the_gpus_stand_in_is_the_fp16_cast(two, two_data):
    result = qnb.infer(two[1], two_data, backend="gpu")
    with torch.no_grad():
        half = two[0].half()(*(torch.tensor(v).half() for v in two_data.values()))
        two[0].float()
    np.testing.assert_allclose(result["logits"], half["logits"].float().numpy(), atol=2e-3)
    assert any("no Adreno" in note for note in result.notes)


@pytest.mark.parametrize("backend", ["htp", "cpu"])
def test_an_lstm_runs(lstm, backend):
    module, model = lstm
    data = noise(4, 10, 12)
    with torch.no_grad():
        expected = module(torch.tensor(data)).numpy()
    result = qnb.infer(model, data, backend=backend)
    assert sqnr_db(expected, result["output"]) > (30 if backend == "htp" else 100)
    assert len(result.offloaded) == 0


def test_a_context_computes_what_its_model_does(digits):
    for soc, context in digits.contexts.items():
        by_context = qnb.infer(context, digits.test[:30])
        by_model = qnb.infer(digits.quantized, digits.test[:30], soc=soc)
        np.testing.assert_array_equal(by_context["logits"], by_model["logits"])
        assert by_context.frame.equals(by_model.frame)
    with pytest.raises(BadInput, match="compiled for"):
        qnb.infer(digits.contexts["SM8650"], digits.test, soc="SM8350")
    for backend in ("cpu", "gpu"):
        with pytest.raises(PlacementError, match="can't run on"):
            qnb.infer(digits.contexts["SM8650"], digits.test, backend=backend)


def test_many_samples_come_in_their_order_over_chunks(digits):
    together = qnb.infer(digits.quantized, digits.test[:150], reference=False)
    assert together["logits"].shape == (150, 10)
    for index in (0, 63, 64, 65, 149):
        alone = qnb.infer(digits.quantized, digits.test[index], reference=False)
        np.testing.assert_array_equal(alone["logits"][0], together["logits"][index])


def test_a_model_of_static_batch_is_looped():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    model = qnb.export(module, shapes={"x": (4, 3, 4)}, input_names=["x"], output_names=["y"])
    data = noise(12, 3, 4)
    result = qnb.infer(model, data, backend="cpu")
    with torch.no_grad():
        np.testing.assert_allclose(result["y"], module(torch.tensor(data)).numpy(), atol=1e-5)
    assert result.samples == 3
    with pytest.raises(BadInput, match="multiple of 4"):
        qnb.infer(model, data[:6], backend="cpu")


def test_without_a_reference_there_is_no_agreement_but_there_is_accuracy(digits):
    result = qnb.infer(digits.quantized, digits.test[:50], labels=digits.labels[:50], reference=False)
    row = result.frame.iloc[0]
    assert np.isnan(row["sqnr_db"])
    assert np.isnan(row["top1_agreement"])
    assert row["accuracy"] == np.mean(result["logits"].argmax(1) == digits.labels[:50])


def test_labels_of_any_whole_kind_and_from_a_file(digits, tmp_path):
    np.save(tmp_path / "labels.npy", digits.labels[:20])
    kinds = (digits.labels[:20], digits.labels[:20].tolist(), torch.tensor(digits.labels[:20]), tmp_path / "labels.npy")
    found = {qnb.infer(digits.quantized, digits.test[:20], labels=kind).frame["accuracy"][0] for kind in kinds}
    assert len(found) == 1
    limited = qnb.infer(digits.quantized, digits.test, labels=digits.labels, samples=20)
    assert limited.samples == 20
    assert {limited.frame["accuracy"][0]} == found


def test_the_edge_is_shown_with_its_grid_and_what_it_clipped(digits):
    bright = digits.test[:10].copy()
    bright[0, 0, 0, 0] = 40.0
    io = qnb.infer(digits.quantized, bright).io.set_index("tensor")
    encodings = digits.quantized.frame.set_index("tensor")
    for name in ("image", "logits"):
        assert io.loc[name, "scale"] == encodings.loc[name, "scale"]
        assert io.loc[name, "zero_point"] == encodings.loc[name, "zero_point"]
        assert io.loc[name, "on_backend"] == "uint8"
        assert io.loc[name, "dtype"] == "float32"
    assert io.loc["image", "clipped_percent"] == pytest.approx(100 / bright.size)
    assert set(io["source"]) == {"host"}
    assert qnb.infer(digits.model, bright).io["clipped_percent"].isna().all()


def test_fp32_on_the_simulator_only_when_asked(digits):
    half = qnb.infer(digits.model, digits.test[:10])
    full = qnb.infer(digits.model, digits.test[:10], fp32=True)
    assert (half.frame["precision"][0], full.frame["precision"][0]) == ("fp16", "fp32")
    assert (half.frame["soc"][0], full.frame["soc"][0]) == ("SM8650", "SM8350")
    assert full.frame["sqnr_db"][0] > 110 > half.frame["sqnr_db"][0]


@pytest.fixture(scope="module")
def partly(tmp_path_factory):
    """A model with one op that QNN has not."""
    path = tmp_path_factory.mktemp("partly") / "partly.onnx"
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="relu"),
        helper.make_node("Det", ["a"], ["b"], name="determinant"),
        helper.make_node("Neg", ["b"], ["y"], name="negative"),
    ]
    onnx.save(nets.model(nodes, [nets.value("x", (2, 4, 4))], [nets.value("y", (2,))]), path)
    return qnb.export(path)


@pytest.mark.parametrize("backend", ["htp", "cpu"])
def test_falling_back_is_the_callers_choice_and_listed(partly, backend):
    data = noise(2, 4, 4)
    with pytest.raises(PlacementError, match="determinant"):
        qnb.infer(partly, data, backend=backend)
    result = qnb.infer(partly, data, backend=backend, fallback="cpu")
    assert "determinant" in set(result.offloaded["op"])
    assert "Det" in set(result.offloaded["op_type"])
    assert "determinant" in str(result)
    np.testing.assert_allclose(result["y"], -np.linalg.det(np.maximum(data, 0)), atol=0.02)


def test_a_quantized_graph_on_the_cpu_only_as_a_fallback(digits):
    result = qnb.infer(digits.quantized, digits.test[:5], backend="cpu", fallback="cpu")
    assert result.frame["precision"][0] == "w8a8"
    assert len(result.offloaded) > 0
    assert any("debugging" in note for note in result.notes)
    assert len(qnb.infer(digits.quantized, digits.test[:5], backend="cpu").offloaded) == 0


def test_an_onnx_file_and_a_saved_folder_are_builds_too(digits, saved):
    expected = qnb.infer(digits.model, digits.test[:3], backend="cpu")["logits"]
    np.testing.assert_array_equal(qnb.infer(saved / "model", digits.test[:3], backend="cpu")["logits"], expected)
    by_file = qnb.infer(digits.model.files["model"], digits.test[:3], backend="cpu")["logits"]
    np.testing.assert_allclose(by_file, expected, atol=1e-5)
    assert np.abs(expected - on_onnxruntime(digits.model.path, split(image=digits.test[:3]))["logits"]).max() < 1e-4


def test_a_configuration_reaches_the_backend(digits):
    config = {"htp_config": {"performance_mode": "burst", "vtcm_mb": 2, "device_id": 0}, "cpu_config": {}}
    result = qnb.infer(digits.quantized, digits.test[:5], config=config)
    assert result.recipe.arguments["config"] == config
    np.testing.assert_array_equal(result["logits"], qnb.infer(digits.quantized, digits.test[:5])["logits"])


def test_defaults_are_the_settings(digits, monkeypatch):
    monkeypatch.setattr(qnb.settings, "backend", "cpu")
    assert qnb.infer(digits.model, digits.test[:2]).frame["backend"][0] == "cpu"
    monkeypatch.setattr(qnb.settings, "backend", "htp")
    monkeypatch.setattr(qnb.settings, "soc", "SM8350")
    assert qnb.infer(digits.quantized, digits.test[:2]).frame["soc"][0] == "SM8350"
