"""Export as a step. Oracles: the PyTorch module, ONNX's own reader and checker, and arithmetic from the layers' shapes."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import qnb
from qnb.errors import BadInput, ExportError
from qnb.files import digest
from tests import nets
from tests.models import small_cnn
from tests.steps.oracles import exported, noise, on_onnxruntime


def test_the_tutorials_net():
    model = qnb.export(small_cnn(), shapes={"image": (1, 3, 224, 224)}, input_names=["image"], name="small")
    pixels = 224 * 224
    assert model.macs == pixels * (27 * 32 + 9 * 32 * 64) + 64 * 10
    assert model.parameters == sum(p.numel() for p in small_cnn().parameters()) == 20042
    assert model.name == "small"
    assert [(i.name, i.dtype, i.shape) for i in model.inputs] == [("image", "float32", (1, 3, 224, 224))]
    assert model.outputs[0].shape == (1, 10)
    assert model.frame["macs"].sum() == model.macs
    assert model.ops["Conv"] == 2
    assert model.digest == digest(model.path)


def test_the_file_is_valid_fixed_and_not_too_new(digits):
    loaded = onnx.load(digits.model.path)
    onnx.checker.check_model(loaded, full_check=True)
    assert loaded.ir_version <= 10
    assert [o.version for o in loaded.opset_import if o.domain == ""] == [20] == [digits.model.opset]
    for value in (*loaded.graph.input, *loaded.graph.output):
        assert all(d.dim_value > 0 for d in value.type.tensor_type.shape.dim)


def test_agreement_with_the_source_is_measured_and_true(digits):
    check = digits.model.check
    assert list(check["input_set"]) == [1, 2]
    assert (check["max_abs_error"] < 1e-4).all()
    x = digits.test[:1]
    with torch.no_grad():
        expected = digits.module(torch.tensor(x)).numpy()
    np.testing.assert_allclose(on_onnxruntime(digits.model.path, [{"image": x}])["logits"], expected, atol=1e-4)


def test_several_inputs_and_outputs_keep_their_names(two):
    module, model = two
    assert {i.name: i.shape for i in model.inputs} == {"image": (1, 3, 16, 16), "context": (1, 6)}
    assert {o.name: o.shape for o in model.outputs} == {"logits": (1, 4), "features": (1, 8, 16, 16)}
    feeds = {"image": noise(1, 3, 16, 16), "context": noise(1, 6, seed=1)}
    with torch.no_grad():
        expected = module(*map(torch.tensor, feeds.values()))
    for name, values in on_onnxruntime(model.path, [feeds]).items():
        np.testing.assert_allclose(values, expected[name].numpy(), atol=1e-5)
    assert set(model.check["output"]) == {"logits", "features"}


@pytest.fixture
def dynamic(tmp_path):
    """An ONNX file with an open batch, as most model zoos have them."""
    x, y = nets.value("x", ["N", 3]), nets.value("y", ["N", 2])
    weights = {"w": noise(3, 2)}
    path = tmp_path / "dynamic.onnx"
    onnx.save(nets.model([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], [x], [y], weights), path)
    return path, weights["w"]


@pytest.mark.parametrize(
    ("how", "batch"), [({}, 1), ({"batch": 4}, 4), ({"shapes": {"x": (2, 3)}}, 2), ({"simplify": False}, 1)]
)
def test_an_open_batch_is_fixed_by_argument(dynamic, how, batch):
    path, w = dynamic
    model = qnb.export(path, **how)
    assert model.inputs[0].shape == (batch, 3)
    assert model.outputs[0].shape == (batch, 2)
    assert model.name == "dynamic"
    x = noise(2 * batch, 3)
    np.testing.assert_allclose(qnb.infer(model, x, backend="cpu")["y"], x @ w, atol=1e-5)


def test_a_proto_in_memory_is_as_good_as_its_file(dynamic):
    path, _ = dynamic
    assert qnb.export(onnx.load(path)).digest == qnb.export(path).digest


def test_exporting_twice_gives_the_same_model():
    assert exported("resnet_block")[1].digest == exported("resnet_block")[1].digest


def test_a_module_is_left_as_it_was():
    module = small_cnn().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    qnb.export(module, shapes={"input": (1, 3, 16, 16)})
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


class _Noisy(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


def test_a_model_that_is_random_is_found_out():
    with pytest.raises(ExportError, match="other values for output"):
        qnb.export(_Noisy(), shapes={"x": (1, 4)})


def test_arguments_that_do_not_fit(dynamic):
    path, _ = dynamic
    with pytest.raises(BadInput, match="for modules"):
        qnb.export(path, input_names=["a"])
    with pytest.raises(BadInput, match="y"):
        qnb.export(path, shapes={"y": (1, 3)})
    with pytest.raises(BadInput, match="batch"):
        qnb.export(path, batch=0)
    with pytest.raises(BadInput):
        qnb.export(small_cnn())


def test_the_recipe_is_plain_and_complete(digits):
    recipe = digits.model.recipe
    assert recipe.step == "export"
    assert recipe.versions["torch"] == torch.__version__
    assert recipe.versions["qairt"] == "2.47"
    assert recipe.seconds > 0
    json.dumps(recipe.arguments, allow_nan=False)
