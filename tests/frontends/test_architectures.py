"""Real architectures, from module to normalised ONNX.

Oracles: eager torch (outputs), torch's FLOP counter and parameter counts, MobileNetV2's published size.
"""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from qnb.frontends.torch import to_onnx
from qnb.graph.compare import agreement
from tests.graph._worker import normalise
from tests.models import BUILDERS, INPUTS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("architectures")
    modules = {name: build() for name, build in BUILDERS.items()}
    exports = {name: to_onnx(module, folder / f"{name}.onnx", shapes=INPUTS[name]) for name, module in modules.items()}
    jobs = [
        {"path_in": str(export.path), "path_out": str(folder / f"{name}-n.onnx")} for name, export in exports.items()
    ]
    answers = dict(zip(exports, normalise(jobs), strict=True))
    return {name: (modules[name], exports[name], answers[name]) for name in BUILDERS}


@pytest.mark.parametrize("name", BUILDERS)
def test_it_computes_what_the_module_computes(made, name):
    _, export, answer = made[name]
    session = ort.InferenceSession(answer["files"][0], providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert len(export.pairs) == 2
    for inputs, outputs in export.pairs:
        for value, found in zip(names, session.run(None, inputs), strict=True):
            assert agreement(outputs[value], found)["sqnr_db"] > 90  # float32 rounding leaves about 120 dB
    (first, _), (second, _) = export.pairs
    assert all(not np.array_equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", BUILDERS)
def test_names_and_shapes_are_kept(made, name):
    module, export, answer = made[name]
    assert {v["name"]: tuple(v["shape"]) for v in answer["inputs"]} == INPUTS[name]
    with torch.no_grad():
        result = module(*(torch.zeros(shape) for shape in INPUTS[name].values()))
    expected = result if isinstance(result, dict) else {"output": result}
    assert {v["name"]: tuple(v["shape"]) for v in answer["outputs"]} == {k: tuple(v.shape) for k, v in expected.items()}
    assert not answer["notes"]
    assert not export.notes
    assert (answer["simplified"], answer["opset"], answer["ir_version"]) == (True, 20, 10)


@pytest.mark.parametrize("name", BUILDERS.keys() - {"lstm"})  # torch does not count its fused LSTM
def test_macs_are_torchs(made, name):
    module, _, answer = made[name]
    inputs = [torch.zeros(shape) for shape in INPUTS[name].values()]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    assert sum(row["macs"] for row in answer["layers"]) * 2 == counter.get_total_flops()


@pytest.mark.parametrize("name", BUILDERS)
def test_parameters_are_torchs(made, name):
    module, _, answer = made[name]
    # batch norm is folded: of each channel's gain and bias, one bias stays with the convolution
    folded = sum(m.num_features for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert sum(row["parameters"] for row in answer["layers"]) == sum(p.numel() for p in module.parameters()) - folded
    assert "BatchNormalization" not in answer["ops"]


def test_mobilenet_v2_is_the_published_one(made):
    # Sandler et al. 2018, table 4: 3.4 M parameters, 300 M multiply-adds; torchvision's count is 3 504 872
    module, _, answer = made["mobilenet_v2"]
    assert sum(p.numel() for p in module.parameters()) == 3_504_872
    assert sum(row["macs"] for row in answer["layers"]) == pytest.approx(300e6, rel=0.01)


def test_fused_ops_stay_whole(made):
    vit, recurrent = made["vit_block"][2]["ops"], made["lstm"][2]["ops"]
    assert vit["LayerNormalization"] == 2
    assert vit["Gelu"] == 1
    assert recurrent["LSTM"] == 1


def test_every_op_has_a_name_of_its_own(made):
    for _, _, answer in made.values():
        names = [row["op"] for row in answer["layers"]]
        assert all(names)
        assert len(set(names)) == len(names)
        assert names == [node.name for node in onnx.load(answer["files"][0]).graph.node]
