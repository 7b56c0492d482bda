"""The classic networks, with random weights. Oracles: OpenCV on the same files; the papers' counts of parameters."""

from collections import Counter

import numpy as np
import pytest

from qnb.errors import ExportError
from qnb.frontends.caffe import constant_blobs, to_onnx
from tests.frontends.caffe.files import against_opencv, as_v1, difference, feeds_of, opencv, run, write
from tests.frontends.caffe.zoo import ZOO, alexnet, googlenet, squeezenet, ssd, vgg16


@pytest.mark.parametrize("name", ZOO)
def test_it_computes_what_opencv_does(name, tmp_path):
    *text, softmax = ZOO[name]().split("layer {")
    assert "Softmax" in softmax  # it would hide errors where one class wins by far
    error, model = against_opencv(tmp_path, "layer {".join(text))
    assert error < 5e-6
    ops = Counter(node.op_type for node in model.graph.node)
    assert not ops.keys() & {"BatchNormalization", "Identity", "Dropout"}  # all of it is folded or gone


@pytest.mark.parametrize("name", ["alexnet", "squeezenet"])
def test_with_its_softmax(name, tmp_path):
    error, model = against_opencv(tmp_path, ZOO[name]())
    assert error < 5e-6
    assert [o.name for o in model.graph.output] == ["prob"]


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        # Krizhevsky 2012: 60 M; the layers' own sizes: 60 965 224. Simonyan 2014, D: 138 M. Iandola 2016: 1.25 M
        (alexnet(1).replace("num_output: 100 ", "num_output: 1000 "), 60_965_224),
        (vgg16(1, 224).replace("num_output: 100 ", "num_output: 1000 "), 138_357_544),
        (squeezenet(1, 224).replace("num_output: 100 ", "num_output: 1000 "), 1_248_424),
    ],
    ids=["alexnet", "vgg16", "squeezenet"],
)
def test_parameters_are_the_published_ones(text, parameters, tmp_path, monkeypatch):
    from qnb.frontends.caffe.network import Layer

    asked = []
    monkeypatch.setattr(
        Layer,
        "weight",
        lambda self, index, shape, what: asked.append(shape) or np.broadcast_to(np.float32(0), shape),
    )
    (tmp_path / "net.prototxt").write_text(text)
    to_onnx_without_writing(tmp_path / "net.prototxt")
    assert sum(np.prod(shape) for shape in asked) == parameters


def to_onnx_without_writing(path):
    from qnb.frontends.caffe import convert
    from qnb.frontends.caffe.reading import read

    net = read(path)
    convert._built(net, convert._outputs(net, None))


def test_the_older_format_gives_the_same_model(tmp_path):
    text = googlenet(8, 64)
    network, weights = write(tmp_path, text)
    (tmp_path / "v1").mkdir()
    old, old_weights = write(tmp_path / "v1", as_v1(text))
    assert to_onnx(old, old_weights).model == to_onnx(network, weights).model


def test_an_ssd_is_cut_before_its_detections(tmp_path):
    network, weights = write(tmp_path, ssd(), outputs=["mbox_loc", "conf_flat"])
    made = to_onnx(network, weights)
    assert [o.name for o in made.model.graph.output] == ["mbox_loc", "conf_flat"]
    assert any("mbox_prior" in note and "constant_blobs" in note for note in made.notes)
    feeds = feeds_of(made.model)
    found = run(made.model, feeds)
    names = ["mbox_loc", "conf_flat", "mbox_prior"]
    expected = opencv(network, weights, feeds, names)
    priors = constant_blobs(network)
    assert set(priors) == {"norm4_prior", "fc7_prior", "mbox_prior"}
    assert difference(expected, found | {"mbox_prior": priors["mbox_prior"]}) < 5e-6


def test_detection_output_is_refused_with_the_way_out(tmp_path):
    network, weights = write(tmp_path, ssd(detection=True), outputs=["mbox_loc", "conf_flat"])
    with pytest.raises(ExportError, match=r"layer 'detection_out' \(DetectionOutput, line \d+\)") as caught:
        to_onnx(network, weights)
    assert "output_names=['mbox_loc', 'conf_flat']" in caught.value.hint
    assert to_onnx(network, weights, outputs=["mbox_loc", "conf_flat"]).model.graph.output[1].name == "conf_flat"
