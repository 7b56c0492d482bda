"""The figures that everything stands on.

Oracles: the PyTorch module itself; ONNX Runtime's CPU provider, driven by the test; true labels of scikit-learn's digits.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

import qnb
from qnb.runtime import client
from qnb.runtime.locate import find_runtime
from qnb.runtime.options import session_spec
from tests.models import INPUTS
from tests.steps.oracles import exported, noise, on_onnxruntime, split, sqnr_db


@pytest.mark.parametrize("name", ["inverted_residuals", "resnet_block", "vit_block", "lstm", "two_in_two_out"])
def test_fp32_on_the_cpu_backend_is_what_onnx_runtime_and_the_module_compute(name):
    module, model = exported(name)
    stacks = {i: noise(3, *shape[1:], seed=n) for n, (i, shape) in enumerate(INPUTS[name].items())}
    result = qnb.infer(model, stacks, backend="cpu")
    assert len(result.offloaded) == 0
    expected = on_onnxruntime(model.path, split(**stacks))
    with torch.no_grad():
        direct = module(*(torch.tensor(s) for s in stacks.values()))
    direct = direct if isinstance(direct, dict) else {model.outputs[0].name: direct}
    assert set(result.outputs) == set(expected) == set(direct)
    for output, values in result.outputs.items():
        np.testing.assert_allclose(values, expected[output], atol=1e-4, rtol=0)
        np.testing.assert_allclose(values, direct[output].numpy(), atol=1e-4, rtol=0)


def test_fp32_digits_on_the_cpu_backend(digits):
    images, labels = digits.test[:100], digits.labels[:100]
    result = qnb.infer(digits.model, images, backend="cpu", labels=labels)
    expected = on_onnxruntime(digits.model.path, split(image=images))["logits"]
    np.testing.assert_allclose(result["logits"], expected, atol=1e-4, rtol=0)
    assert result.frame["accuracy"][0] == np.mean(expected.argmax(1) == labels) > 0.9
    assert result.frame["source"][0] == "host"


@pytest.mark.parametrize("soc", ["SM8650", "SM8350"])  # Hexagon v75 and v68
def test_w8a8_on_the_simulator_is_as_good_as_the_qdq_model_on_onnx_runtime(digits, soc):
    result = qnb.infer(digits.contexts[soc], digits.test, labels=digits.labels)
    fp32 = on_onnxruntime(digits.model.path, split(image=digits.test))["logits"]
    qdq = on_onnxruntime(digits.quantized.path, split(image=digits.test))["logits"]
    row = result.frame.iloc[0]
    assert row["sqnr_db"] == pytest.approx(sqnr_db(fp32, result["logits"]), abs=0.01)
    assert abs(row["sqnr_db"] - sqnr_db(fp32, qdq)) < 1
    assert row["sqnr_db"] > 20
    assert row["accuracy"] == np.mean(result["logits"].argmax(1) == digits.labels)
    assert row["accuracy"] > np.mean(fp32.argmax(1) == digits.labels) - 0.01
    assert row["top1_agreement"] == np.mean(result["logits"].argmax(1) == fp32.argmax(1)) > 0.98
    assert (row["source"], row["soc"], row["precision"]) == ("simulator", soc, "w8a8")


def test_two_hexagon_generations_differ_in_the_last_bits_only(digits):
    v75, v68 = (qnb.infer(c, digits.test, reference=False)["logits"] for c in digits.contexts.values())
    assert not np.array_equal(v75, v68)  # qnn-facts: other last bits for v68 than for v73 and later
    step = digits.quantized.frame.set_index("tensor").loc["logits", "scale"]
    assert np.abs(v75 - v68).max() <= 4 * step


def test_outputs_lie_on_the_grid_that_the_encodings_say(digits, walk):
    grid = digits.quantized.frame.set_index("tensor").loc["logits"]
    codes = walk["inference"]["logits"] / grid["scale"] + grid["zero_point"]
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)
    assert codes.min() > -0.5
    assert codes.max() < 255.5


@pytest.mark.parametrize(("precision", "least"), [("w8a8", 25), ("w8a16", 38)])
@pytest.mark.parametrize("soc", ["SM8650", "SM8350"])
def test_a_vision_transformer_runs_whole_on_both_generations(vit, precision, least, soc):
    module, model = vit
    images = noise(6, 3, 32, 32)
    result = qnb.infer(qnb.calibrate(model, images, precision=precision), images, soc=soc)
    with torch.no_grad():
        expected = module(torch.tensor(images)).numpy()
    assert sqnr_db(expected, result["output"]) > least
    assert len(result.offloaded) == 0


def test_mobilenet_v2_is_wholly_on_the_cpu_backend():
    _, model = exported("mobilenet_v2")
    spec = session_spec(str(model.path), "cpu", find_runtime(), strict=False)
    nodes = client.call("load", {"spec": spec.plain()}).values["assignment"]
    assert {provider for provider, _, _ in nodes} == {"QNNExecutionProvider"}
    assert sum(op == "Conv" for _, _, op in nodes) == 52  # Sandler et al. 2018, table 2
    image = noise(1, 3, 224, 224)
    ours = qnb.infer(model, image, backend="cpu")["output"]
    np.testing.assert_allclose(ours, on_onnxruntime(model.path, [{"x": image}])["output"], atol=1e-4, rtol=0)


def test_a_second_context_comes_from_the_cache_in_less_than_50_ms(digits):
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        context = qnb.context(digits.quantized)
        seconds.append(time.perf_counter() - start)
        assert context.cached
        assert context.digest == digits.contexts["SM8650"].digest
    assert min(seconds) < 0.05


def test_several_socs_in_parallel_give_the_same_programs_as_one_by_one(digits, monkeypatch, tmp_path):
    socs = ["SM8650", "SM8550", "SM8450", "SM8350"]
    monkeypatch.setenv("QNB_CACHE_DIR", str(tmp_path / "together"))
    together = qnb.context(digits.quantized, soc=socs)
    monkeypatch.setenv("QNB_CACHE_DIR", str(tmp_path / "apart"))
    apart = [qnb.context(digits.quantized, soc=soc) for soc in socs]
    for one, other in zip(together, apart, strict=True):
        assert not one.cached
        assert not other.cached
        assert (one.size_bytes, one.ddr) == (other.size_bytes, other.ddr)
        # The compiler numbers tensors and ops from its process' start on, so the bytes are equal but for such numbers.
        first, second = (np.fromfile(c.binary, np.uint8) for c in (one, other))
        assert np.count_nonzero(first != second) < 0.005 * first.size
        outputs = [qnb.infer(c, digits.test[:20], reference=False)["logits"] for c in (one, other)]
        np.testing.assert_array_equal(*outputs)
    assert len({c.size_bytes for c in apart}) > 1  # generations differ


def test_ops_and_what_belongs_to_none_add_up(walk):
    ops = walk["profile"].ops
    assert ops["percent"].sum() == pytest.approx(100)
    assert (ops["time_ms"] >= 0).all()
    assert list(ops["op"][-2:]) == ["(unattributed: accelerator)", "(unattributed: runtime and host)"]
    parts = ops[:-1]
    assert (parts["time_ms"] / parts["cycles"]).dropna().std() == pytest.approx(0, abs=1e-9)


def test_every_figure_says_where_it_comes_from(walk):
    for kind in ("profile", "comparison"):
        said = dict(zip(walk[kind].frame["backend"], walk[kind].frame["source"], strict=True))
        assert said == {"htp": "simulator", "gpu": "reference", "cpu": "host"}, kind
        assert dict(zip(walk[kind].runs["backend"], walk[kind].runs["source"], strict=True)) == said
        for text in (str(walk[kind]), walk[kind].to_html(chart=False)):
            assert "reference" in text
            assert "no Adreno" in text
    assert set(walk["profile"].ops["source"]) == {"simulator"}
    assert set(walk["inference"].frame["source"]) == {"simulator"}
    assert set(walk["context"].frame["source"]) == {"host"}
