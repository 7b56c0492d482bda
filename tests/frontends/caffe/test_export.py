"""Caffe networks through the steps. Oracles: OpenCV's reading of the same files, and the compiler of the context."""

import numpy as np
import pytest

import qnb
from qnb.errors import BadInput, ExportError
from qnb.frontends import recognise
from tests.frontends.caffe.files import difference, layer, opencv, write
from tests.frontends.caffe.zoo import Text, squeezenet, ssd


def small():
    net = Text(16)
    net.conv("conv1", 8, 3, pad=1).norm("conv1").relu("relu1").pool("pool1", "MAX", 3, 2)
    net.conv("conv2", 16, 3, pad=1).relu("relu2").pool("pool2", "AVE", 3, 2, 1)
    return "name: 'SmallNet'\n" + net.dense("fc", 10).text


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("caffe"), small())


@pytest.fixture(scope="module")
def model(files):
    return qnb.export(files[0], weights=files[1])


def test_it_computes_what_opencv_does(model, files):
    x = np.random.default_rng(1).standard_normal((1, 3, 16, 16)).astype(np.float32)
    found = qnb.infer(model, {"data": x}, backend="cpu")
    assert difference(opencv(*files, {"data": x}, ["fc"]), {"fc": found.outputs["fc"]}) < 1e-5
    assert model.name == "SmallNet"
    assert model.opset == 20
    assert any("Caffe itself did not run" in note for note in model.notes)


def test_either_file_or_both(model, files):
    network, weights = files
    for source in (network, weights, (network, weights), [str(weights), str(network)]):
        assert recognise(source) == "caffe"
        assert qnb.export(source).digest == model.digest


def test_it_is_quantized_and_compiled(model):
    samples = np.random.default_rng(0).standard_normal((16, 3, 16, 16)).astype(np.float32)
    quantized = qnb.calibrate(model, samples)
    context = qnb.context(quantized, soc="SM8650")
    on_npu = qnb.infer(context, samples[:2], backend="htp")
    reference = qnb.infer(model, samples[:2], backend="cpu")
    signal, found = reference.outputs["fc"], on_npu.outputs["fc"]
    assert found.shape == signal.shape
    assert (
        10 * np.log10((signal**2).sum() / ((signal - found) ** 2).sum()) > 30
    )  # w8a8 of a small net; its pool's average once was wrong on the NPU alone


def test_an_ssd_stays_on_the_npu(tmp_path):
    write(tmp_path, ssd(16, 80), outputs=["mbox_loc", "conf_flat"])
    model = qnb.export(tmp_path / "net.prototxt", output_names=["mbox_loc", "conf_flat"])
    assert [o.name for o in model.outputs] == ["mbox_loc", "conf_flat"]
    quantized = qnb.calibrate(model, np.random.default_rng(0).standard_normal((4, 3, 80, 80)).astype(np.float32))
    assert qnb.context(quantized, soc="SM8650").files  # a node off the NPU would be a PlacementError


def test_shapes_and_batch(tmp_path):
    network, weights = write(tmp_path, squeezenet(8, 64).replace("dim: 1 ", "dim: 10 "))
    assert qnb.export(network).inputs[0].shape == (10, 3, 64, 64)
    assert qnb.export(network, batch=2).inputs[0].shape == (2, 3, 64, 64)
    assert qnb.export(network, shapes={"data": (1, 3, 80, 80)}).inputs[0].shape == (1, 3, 80, 80)
    assert qnb.export((network, weights), name="squeeze").name == "squeeze"


def test_errors_name_the_layer_and_leave_no_worker_behind(files, tmp_path):
    odd = tmp_path / "odd.prototxt"
    odd.write_text(small() + layer("Proposal", "rois", "fc"))
    with pytest.raises(ExportError, match=r"odd\.prototxt: layer 'rois' \(Proposal, line \d+\)"):
        qnb.export(odd, weights=files[1])
    with pytest.raises(BadInput, match="example and input_names"):
        qnb.export(files[0], example=np.zeros(1))
    with pytest.raises(BadInput, match="weights is for Caffe"):
        qnb.export(b"onnx", weights=files[1])
    (tmp_path / "broken.caffemodel").write_bytes(files[1].read_bytes()[:500])
    with pytest.raises(ExportError, match="damaged or cut short"):
        qnb.export(files[0], weights=tmp_path / "broken.caffemodel")
    assert qnb.export(files[0]).name == "SmallNet"
