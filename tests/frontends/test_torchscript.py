"""TorchScript archives and exported programs come in. Oracle: the eager module that they were made of."""

from __future__ import annotations

import pickle
import warnings
import zipfile

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

import qnb
from qnb.errors import ExportError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, image, times: int = 1):
        return {"scores": self.linear(torch.relu(self.conv(image)).mean((2, 3))) * times}


class Branch(nn.Module):
    def forward(self, x):
        if bool(x.sum() > 0):
            return x * 2.0
        return x - 1.0


def quiet(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript; people still have such files
        return function(*args, **options)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchscript")
    image = torch.randn(1, 3, 8, 8)
    scripted = quiet(torch.jit.script, net)
    quiet(torch.jit.save, quiet(torch.jit.trace, net, (image,), strict=False), str(folder / "traced.pt"))
    quiet(torch.jit.save, scripted, str(folder / "scripted.pt"))
    quiet(torch.jit.save, quiet(torch.jit.freeze, scripted), str(folder / "frozen.pt"))
    torch.export.save(torch.export.export(net, (image,)), folder / "program.pt2")
    torch.save(net, folder / "pickled.pt")
    return folder


@pytest.mark.parametrize("name", ["traced.pt", "scripted.pt", "frozen.pt", "program.pt2"])
def test_files(net, files, name):
    shapes = None if name == "program.pt2" else {"image": (1, 3, 8, 8)}  # a program has an example of its own
    model = qnb.export(files / name, shapes=shapes)
    assert [spec.name for spec in (*model.inputs, *model.outputs)] == ["image", "scores"]
    assert model.name == name.partition(".")[0]
    image = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    found = ort.InferenceSession(str(model.path)).run(None, {"image": image})[0]
    np.testing.assert_allclose(found, net(torch.from_numpy(image))["scores"].detach(), atol=1e-5)


def test_objects_in_memory(net):
    image = torch.randn(1, 3, 8, 8)
    for source, options in (
        (quiet(torch.jit.script, net), {"shapes": {"image": (1, 3, 8, 8)}}),
        (torch.export.export(net, (image,)), {}),
    ):
        model = qnb.export(source, **options)
        assert model.check["max_abs_error"].max() < 1e-5


def test_a_branch_is_seen_and_not_baked_in(tmp_path):
    quiet(torch.jit.save, quiet(torch.jit.script, Branch()), str(tmp_path / "branch.pt"))
    with pytest.raises(ExportError, match=r"branch\.onnx: If .* is control flow"):
        qnb.export(tmp_path / "branch.pt", shapes={"x": (1, 3)})


def test_a_pickled_module_needs_trust(files):
    with pytest.raises(ExportError, match="pickled PyTorch file"):
        qnb.export(files / "pickled.pt", shapes={"image": (1, 3, 8, 8)})


def test_code_in_a_program_does_not_run(files, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    for place in ("data/sample_inputs/model.pt", "data/constants/opaque_obj_0"):
        bad = tmp_path / "bad.pt2"
        with zipfile.ZipFile(files / "program.pt2") as source, zipfile.ZipFile(bad, "w") as target:
            for name in source.namelist():
                if not name.endswith(place):
                    target.writestr(name, source.read(name))
            target.writestr(f"program/{place}", pickle.dumps(Bomb()))
        with pytest.raises(ExportError):
            qnb.export(bad)
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["scripted.pt", "program.pt2"])
@pytest.mark.parametrize("seed", range(3))
def test_damaged_files(files, tmp_path, name, seed):
    data = bytearray((files / name).read_bytes())
    for place in np.random.default_rng(seed).integers(0, len(data) // 2, 40):
        data[place] ^= 0xFF
    (tmp_path / name).write_bytes(data)
    with pytest.raises(qnb.errors.QnbError) as caught:
        qnb.export(tmp_path / name, shapes={"image": (1, 3, 8, 8)})
    assert caught.value.hint
