"""What `recognise` says of what people pass. Oracles: objects and files that the frameworks themselves make."""

import sys
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from qnb.errors import BadInput, ExportError
from qnb.frontends import recognise
from qnb.frontends.onnx import as_file
from tests.graph._models import conv_net, save


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(nn.ReLU(), torch.ones(2))


def onnx_program(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.onnx.export(nn.ReLU().eval(), (torch.ones(2),), path, dynamo=True, verbose=False)


def test_what_is_read(tmp_path):
    path = save(conv_net(1), tmp_path / "no-suffix")
    assert recognise(nn.ReLU()) == "torch"
    assert recognise(path) == recognise(tmp_path / "no-suffix") == "onnx"
    assert recognise(conv_net(1)) == "onnx"
    assert recognise(conv_net(1).SerializeToString()) == "onnx"
    assert recognise(b"\x1c\0\0\0TFL3" + bytes(8)) == "tflite"
    assert recognise(scripted()) == recognise(torch.export.export(Net(), (torch.ones(2),))) == "torch"
    model = type("Model", (), {"__module__": "keras.src.models.model"})
    assert recognise(type("Mine", (model,), {})()) == "keras-model"


def test_the_files_of_a_caffe_network_are_read(tmp_path):
    (tmp_path / "net").write_text('name: "n"\nlayer {\n}\n')
    (tmp_path / "short.prototxt").write_text("# nothing yet")
    (tmp_path / "cut.caffemodel").write_bytes(b"\x0a\x05Le")
    for path in tmp_path.iterdir():
        assert recognise(path) == "caffe"
    assert recognise(("a.prototxt", "b.caffemodel")) == "caffe"


def test_an_onnx_program_is_read(tmp_path):
    program = onnx_program(str(tmp_path / "p.onnx"))
    assert recognise(program) == "onnx"
    path, _ = as_file(program, tmp_path / "out")
    assert [node.op_type for node in onnx.load(path).graph.node] == ["Relu"]


class Net(nn.Module):
    def forward(self, x):
        return x


class KerasLike:
    pass


KerasLike.__module__ = "keras.src.models.functional"


@pytest.mark.parametrize(
    ("source", "error", "what", "hint"),
    [
        (Net().state_dict() | {"w": torch.ones(2)}, BadInput, "state_dict", "load_state_dict"),
        ({"state_dict": {}, "epoch": 3}, BadInput, "checkpoint", "load_state_dict"),
        (Net, BadInput, "Net is a module's class", "Net(…)"),
        (int, BadInput, "int is a class", "torch.nn.Module"),
        (torch.ones(2), BadInput, "tensor", "torch.nn.Module"),
        (np.ones(2), BadInput, "numpy.ndarray", "torch.nn.Module"),
        (lambda x: x, BadInput, "function", "forward"),
        (None, BadInput, "NoneType", "torch.nn.Module"),
        (3, BadInput, "int", "torch.nn.Module"),
        (KerasLike(), BadInput, "no Keras model", "keras.Model"),
        (type("Mine", (KerasLike,), {"__call__": lambda self: None})(), BadInput, "no Keras model", "keras.Model"),
    ],
)
def test_what_is_no_model_is_named(source, error, what, hint):
    with pytest.raises(error) as caught:
        recognise(source)
    assert what in caught.value.what
    assert hint in caught.value.hint


def test_near_names_of_a_missing_file(tmp_path):
    save(conv_net(1), tmp_path / "resnet50.onnx")
    with pytest.raises(BadInput, match="no file") as caught:
        recognise(tmp_path / "resnet5O.onnx")
    assert str(tmp_path / "resnet50.onnx") in caught.value.hint
    with pytest.raises(BadInput) as caught:
        recognise(tmp_path / "zzz")
    assert "resnet50.onnx" in caught.value.hint
    with pytest.raises(BadInput, match=r"its folder .* does not exist"):
        recognise(tmp_path / "nowhere" / "m.onnx")


def test_folders(tmp_path):
    with pytest.raises(BadInput, match="is a folder"):
        recognise(tmp_path)
    save(conv_net(1), tmp_path / "m.onnx")
    with pytest.raises(BadInput, match="is a folder") as caught:
        recognise(tmp_path)
    assert str(tmp_path / "m.onnx") in caught.value.hint
    (tmp_path / "saved_model.pb").touch()
    assert recognise(str(tmp_path)) == "tensorflow"


@pytest.mark.parametrize(("name", "said"), [("m.onnx", "named like an ONNX model"), ("m.bin", "not an ONNX model")])
def test_contents_come_before_the_suffix(tmp_path, name, said):
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(300))
    with pytest.raises(ExportError, match=said):
        recognise(tmp_path / name)


def test_a_pickled_module_is_refused_unopened(tmp_path):
    torch.save(Net(), tmp_path / "m.pt")
    with pytest.raises(ExportError, match="pickled PyTorch file") as caught:
        recognise(tmp_path / "m.pt")
    assert "pass the module" in caught.value.hint
    assert recognise(tmp_path / "m.pt", trust=True) == "torch-pickle"


def test_it_imports_no_framework():
    import subprocess

    code = (
        "import sys; from qnb.frontends import recognise\n"
        "try: recognise(object())\nexcept Exception: pass\n"
        "print({'torch', 'onnx', 'onnxruntime', 'tensorflow', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_objects_become_files(tmp_path):
    model = conv_net(1)
    for source in (model, model.SerializeToString()):
        path, _ = as_file(source, tmp_path)
        assert onnx.load(path) == model
    assert as_file(model, tmp_path)[1] == "g"
    assert as_file(tmp_path / "net.v2.onnx", tmp_path) == (tmp_path / "net.v2.onnx", "net.v2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.onnx"]
