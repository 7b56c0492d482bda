"""How the two files are read: formats, phases, inputs, names, weights. Oracles: Caffe's rules as its documentation has
them, and OpenCV's reading of the same files.
"""

import numpy as np
import pytest
from google.protobuf import text_format

from qnb.errors import BadInput, ExportError, UnknownName
from qnb.frontends.caffe import pair, to_onnx
from qnb.frontends.caffe.reading import read
from qnb.frontends.caffe.schema import message_class
from tests.frontends.caffe.files import (
    difference,
    feeds_of,
    inputs,
    layer,
    opencv,
    random_weights,
    run,
    write,
    write_weights,
)

CONV = "convolution_param { num_output: 3 kernel_size: 3 }"
SMALL = (
    inputs(data=(1, 2, 6, 6)) + layer("Convolution", "conv", "data", CONV) + layer("ReLU", "relu", "conv", tops="conv")
)


def prototxt(folder, text):
    path = folder / "net.prototxt"
    path.write_text(text)
    return path


def refused(folder, text, weights=None, **options):
    with pytest.raises(ExportError) as caught:
        to_onnx(prototxt(folder, text), weights, **options)
    assert caught.value.hint
    return caught.value.what


# --- inputs ---


@pytest.mark.parametrize(
    "declared",
    [
        "input: 'data' input_dim: 1 input_dim: 2 input_dim: 6 input_dim: 6",
        "input: 'data' input_shape { dim: 1 dim: 2 dim: 6 dim: 6 }",
        "layer { name: 'data' type: 'Input' top: 'data' input_param { shape: { dim: 1 dim: 2 dim: 6 dim: 6 } } }",
        "layer { name: 'd' type: 'MemoryData' top: 'data' top: 'label' memory_data_param "
        "{ batch_size: 1 channels: 2 height: 6 width: 6 } }",
        "layer { name: 'd' type: 'DummyData' top: 'data' dummy_data_param { shape { dim: 1 dim: 2 dim: 6 dim: 6 } } }",
        "layer { name: 'd' type: 'DummyData' top: 'data' dummy_data_param { num: 1 channels: 2 height: 6 width: 6 } }",
    ],
)
def test_inputs_are_declared_in_many_ways(declared, tmp_path):
    net = read(prototxt(tmp_path, declared + "\n" + layer("ReLU", "relu", "data")))
    assert net.inputs == {"data": (1, 2, 6, 6)}


def test_a_data_layers_shape_must_be_given(tmp_path):
    text = "layer { name: 'd' type: 'Data' top: 'data' top: 'label' data_param { source: 'db' } }\n"
    text += layer("ReLU", "relu", "data") + layer("SoftmaxWithLoss", "loss", ["relu", "label"])
    assert "does not say the shape of its input 'data'" in refused(tmp_path, text)
    net = read(tmp_path / "net.prototxt", shapes={"data": (1, 3, 8, 8)})
    assert net.inputs == {"data": (1, 3, 8, 8)}  # the label is gone with the loss
    assert any("loss" in note for note in net.notes)


def test_shapes_and_batch(tmp_path):
    path = prototxt(tmp_path, SMALL.replace("dim: 1", "dim: 10"))
    net = read(path)
    assert net.inputs == {"data": (10, 2, 6, 6)}
    assert "batch of 10" in net.notes[0]
    assert "(1, 2, 6, 6)" in net.notes[0]
    assert read(path, batch=4).inputs == {"data": (4, 2, 6, 6)}
    assert read(path, shapes={"data": (1, 2, 9, 9)}).inputs == {"data": (1, 2, 9, 9)}
    with pytest.raises(UnknownName, match="dat"):
        read(path, shapes={"date": (1,)})
    with pytest.raises(BadInput, match="whole numbers"):
        read(path, shapes={"data": (1, 0)})


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("input: 'data' input_dim: 1 input_dim: 2", "2 input_dim for 1 input"),
        ("input: 'data' input: 'b' input_shape { dim: 1 }", "2 inputs, but 1 input_shape"),
        ("input: 'data' input_shape { dim: 1 dim: 0 }", "1x0, which can't be"),
        ("input: 'data' input_shape { dim: 1 dim: 4000000000000 }", "can't be"),
        ("input: 'data'", "does not say the shape"),
    ],
)
def test_inputs_that_can_not_be(declared, said, tmp_path):
    assert said in refused(tmp_path, declared + "\n" + layer("ReLU", "relu", "data"))


# --- phases ---


@pytest.mark.parametrize(
    ("rule", "there"),
    [
        ("", True),
        ("include { phase: TEST }", True),
        ("include { phase: TRAIN }", False),
        ("exclude { phase: TRAIN }", True),
        ("exclude { phase: TEST }", False),
        ("include { stage: 'deploy' }", False),
        ("include { not_stage: 'deploy' }", True),
        ("include { min_level: 1 }", False),
        ("include { max_level: 0 }", True),
        ("include { phase: TRAIN } include { phase: TEST }", True),
        ("include { phase: TEST stage: 'deploy' }", False),
    ],
)
def test_layers_are_in_the_net_by_caffes_rules(rule, there, tmp_path):
    path = prototxt(tmp_path, inputs(data=(1, 2)) + layer("ReLU", "a", "data") + layer("TanH", "b", "a", rule))
    assert [found.name for found in read(path).layers] == ["a", "b"][: 1 + there]


def test_stages_and_levels(tmp_path):
    text = (
        inputs(data=(1, 2))
        + layer("ReLU", "a", "data")
        + layer("TanH", "b", "a", "include { stage: 'x' min_level: 2 }")
    )
    path = prototxt(tmp_path, text)
    assert len(read(path, stages=["x"], level=2).layers) == 2
    assert len(read(path, stages=["x"]).layers) == 1
    assert len(read(prototxt(tmp_path, "state { stage: 'x' level: 3 }\n" + text)).layers) == 2


def test_both_kinds_of_rules_are_refused(tmp_path):
    text = inputs(data=(1, 2)) + layer("ReLU", "a", "data", "include { phase: TEST } exclude { phase: TRAIN }")
    assert "include and exclude" in refused(tmp_path, text)


def test_a_file_of_training_gives_the_scores(tmp_path):
    text = """
    layer { name: 'data' type: 'Data' top: 'data' top: 'label' include { phase: TRAIN } data_param { batch_size: 64 } }
    layer { name: 'data' type: 'Data' top: 'data' top: 'label' include { phase: TEST } data_param { batch_size: 50 } }
    layer { name: 'fc' type: 'InnerProduct' bottom: 'data' top: 'fc' param { lr_mult: 1 } inner_product_param {
      num_output: 4 weight_filler { type: 'xavier' } } }
    layer { name: 'accuracy' type: 'Accuracy' bottom: 'fc' bottom: 'label' top: 'accuracy' include { phase: TEST } }
    layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'label' top: 'loss' }
    """
    network, weights = write(tmp_path, text, shapes={"data": (1, 3, 4, 4)})
    made = to_onnx(network, weights, shapes={"data": (1, 3, 4, 4)})
    assert [v.name for v in made.model.graph.input] == ["data"]
    assert [v.name for v in made.model.graph.output] == ["fc"]
    assert sum("left out" in note for note in made.notes) == 2


# --- names and wiring ---


def test_names_are_the_blobs_and_the_layers(tmp_path):
    network, weights = write(tmp_path, SMALL + layer("Dropout", "drop", "conv") + layer("Sigmoid", "out", "drop"))
    graph = to_onnx(network, weights).model.graph
    assert [(n.name, n.op_type, n.input[0], n.output[0]) for n in graph.node] == [
        ("conv", "Conv", "data", "conv.inner"),
        ("relu", "Relu", "conv.inner", "conv"),
        ("out", "Sigmoid", "conv", "out"),
    ]
    assert [t.name for t in graph.initializer] == ["conv.weight", "conv.bias"]


def test_the_same_files_give_the_same_bytes(tmp_path):
    network, weights = write(tmp_path, SMALL)
    first, second = (to_onnx(network, weights).model.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_layers_in_place_on_an_input_and_two_names_for_a_blob(tmp_path):
    text = inputs(data=(1, 4)) + layer("Power", "half", "data", "power_param { scale: 0.5 }", tops="data")
    text += layer("TanH", "t", "data") + layer("Split", "s", "t", "", ["x", "y"]) + layer("Dropout", "d", "data")
    model = to_onnx(prototxt(tmp_path, text)).model
    feeds = feeds_of(model)
    half = feeds["data"] / 2
    assert difference({"x": np.tanh(half), "y": np.tanh(half), "d": half}, run(model, feeds)) < 1e-6


def test_outputs_can_be_named(tmp_path):
    text = SMALL + layer("NoSuchLayer", "odd", "conv")
    network = prototxt(tmp_path, text)
    weights = write_weights(tmp_path / "net.caffemodel", random_weights(network, outputs=["conv"]))
    model = to_onnx(network, weights, outputs=["conv"]).model
    feeds = feeds_of(model)
    (tmp_path / "known.prototxt").write_text(SMALL)
    assert (
        difference(opencv(tmp_path / "known.prototxt", weights, feeds, ["relu"]), {"relu": run(model, feeds)["conv"]})
        < 1e-6
    )
    with pytest.raises(UnknownName, match="cnv") as caught:
        to_onnx(network, weights, outputs=["cnv"])
    assert "conv" in caught.value.hint
    with pytest.raises(BadInput, match="names of blobs"):
        to_onnx(network, weights, outputs=["conv", "conv"])


def test_an_unknown_layer_is_named_with_its_neighbours(tmp_path):
    text = SMALL + layer("ROIPooling", "roi", "conv") + layer("ReLU", "after", "roi")
    what = refused(tmp_path, text, write(tmp_path, SMALL)[1])
    assert "layer 'roi' (ROIPooling, line 11)" in what
    assert "between conv, relu and after" in what


def test_wrong_spelling_of_a_type(tmp_path):
    with pytest.raises(ExportError) as caught:
        to_onnx(prototxt(tmp_path, inputs(data=(1, 2)) + layer("Relu", "r", "data")))
    assert "did you mean 'ReLU'" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (layer("ReLU", "a", "nowhere"), "reads the blob 'nowhere', but no layer makes it"),
        (layer("Eltwise", "a", ["data", "b"]) + layer("ReLU", "b", "a"), "only layer 'b' (ReLU, line 8) makes it"),
        (layer("ReLU", "a", "data") + layer("TanH", "b", "data", tops="a"), "which layer 'a' (ReLU, line 3) wrote"),
        (layer("ReLU", "a", ["data", "data"]), "2 bottoms and 1 tops"),
        (layer("Eltwise", "a", "data"), "1 bottoms"),
        (
            layer("Pooling", "p", "data", "pooling_param { kernel_size: 2 }", ["p", "mask"])
            + layer("ReLU", "r", "mask"),
            "mask",
        ),
        (layer("", "a", "data"), "has no type"),
        (layer("Dropout", "a", "data"), "outputs are its inputs"),
        (layer("Silence", "a", "data", tops=[]), "no layer that computes"),
        (layer("Reshape", "a", "data", "reshape_param { shape { dim: 0 dim: 7 } }"), "can't become 1x7"),
        (layer("Concat", "a", "data", "concat_param { axis: 4 }"), "axis 4 of a blob with 4 axes"),
        (layer("BatchNorm", "a", "data", "batch_norm_param { use_global_stats: false }"), "statistics of each batch"),
        (layer("Slice", "a", "data", "slice_param { slice_point: 9 }", ["x", "y"]), "can't be cut"),
        (layer("Tile", "a", "data", "tile_param { tiles: 2000000000 }"), "shape 1x8000000000x6x6"),
        (layer("Permute", "a", "data", "permute_param { order: 1 order: 1 }"), "order"),
        (layer("Python", "a", "data", "python_param { module: 'os' layer: 'system' }"), "'Python' can't be read"),
    ],
)
def test_nets_that_make_no_sense(text, said, tmp_path):
    assert said in refused(tmp_path, inputs(data=(1, 4, 6, 6)) + text)


# --- weights ---


def test_weights_must_be_there_and_fit(tmp_path):
    network, weights = write(tmp_path, SMALL)
    assert "no file with its weights was given" in refused(tmp_path, SMALL)
    kernel, bias = random_weights(network)["conv"]
    for blobs, said in [
        ({"other": [kernel, bias]}, "no weights for a layer of that name"),
        ({"conv": [kernel]}, "its bias is missing: net.caffemodel has 1 blob"),
        ({"conv": [kernel[:2], bias]}, "should be 3x2x3x3, but net.caffemodel has 2x2x3x3"),
        ({"conv": [kernel.transpose(1, 0, 2, 3), bias]}, "has 2x3x3x3"),
        ({"conv": [kernel * np.nan, bias]}, "NaN"),
        ({"conv": [kernel.astype("f4").byteswap(), bias]}, "beyond 1e+30 are among its weights"),
    ]:
        assert said in refused(tmp_path, SMALL, write_weights(weights, blobs))


def test_the_forms_that_weights_are_stored_in(tmp_path):
    network, weights = write(tmp_path, SMALL)
    kernel, bias = random_weights(network)["conv"]
    expected = to_onnx(network, weights).model

    def stored(fill):
        net = message_class("NetParameter")()
        made = net.layer.add(name="conv")
        for values in (kernel, bias):
            blob = made.blobs.add()
            blob.shape.dim.extend(values.shape)
            fill(blob, values)
        weights.write_bytes(net.SerializeToString())
        return to_onnx(network, weights).model

    def unpacked(blob, values):
        floats = b"".join(b"\x2d" + value.tobytes() for value in values.ravel())  # field 5, four bytes each
        blob.MergeFromString(floats)

    def in_parts(blob, values):
        content = values.astype("<f4").tobytes()
        blob.data.extend([content[:8], content[8:]])

    def half(blob, values):
        blob.raw_data_type, blob.raw_data = 2, values.astype("<f2").tobytes()

    assert stored(unpacked) == expected
    assert stored(in_parts) == expected
    assert stored(lambda blob, values: blob.double_data.append(values.astype("<f8").tobytes())) == expected
    feeds = feeds_of(expected)
    assert 0 < difference(run(expected, feeds), run(stored(half), feeds)) < 2e-3


def test_shared_weights(tmp_path):
    param = "param { name: 'w' } param { name: 'b' } " + CONV
    text = inputs(x=(1, 2, 5, 5), y=(1, 2, 5, 5)) + layer("Convolution", "one", "x", param)
    text += layer("Convolution", "two", "y", param)
    network = prototxt(tmp_path, text)
    weights = write_weights(tmp_path / "w.caffemodel", {"one": random_weights(network)["one"]})
    model = to_onnx(network, weights).model
    feeds = dict.fromkeys("xy", feeds_of(model)["x"])
    found = run(model, feeds)
    assert np.array_equal(found["one"], found["two"])


def test_what_is_not_known_is_ignored_and_said(tmp_path):
    text = inputs(data=(1, 2, 6, 6)) + layer(
        "Pooling", "p", "data", "pooling_param { kernel_size: 2 shiny: 3 } foo { bar: 1 }"
    )
    made = to_onnx(prototxt(tmp_path, text))
    assert any("pooling_param.shiny" in note for note in made.notes)
    known = text.replace("shiny: 3", "engine: CAFFE").replace("foo { bar: 1 }", "param { lr_mult: 1 }")
    assert not to_onnx(prototxt(tmp_path, known)).notes


def test_forks_names_for_rounding(tmp_path):
    text = inputs(data=(1, 2, 6, 6)) + layer("Pooling", "p", "data", "pooling_param { kernel_size: 3 stride: 2 ROUND }")
    sizes = {
        rounding: to_onnx(prototxt(tmp_path, text.replace("ROUND", rounding))).model.graph.output[0].type
        for rounding in ("", "ceil_mode: false", "round_mode: FLOOR")
    }
    assert [t.tensor_type.shape.dim[2].dim_value for t in sizes.values()] == [3, 2, 2]


def test_the_schema_agrees_with_opencvs_on_every_default(tmp_path):
    # text without any parameter: both readers fall back to their defaults (of LRN's alpha OpenCV has another one)
    text = inputs(data=(1, 6, 9, 9)) + layer("BatchNorm", "b", "data") + layer("ELU", "c", "b")
    text += layer("Flatten", "d", "c") + layer("Softmax", "e", "d")
    network, weights = write(tmp_path, text)
    model = to_onnx(network, weights).model
    feeds = feeds_of(model)
    assert difference(opencv(network, weights, feeds, ["e"]), run(model, feeds)) < 2e-6


def test_the_message_classes_write_what_text_format_reads():
    net = message_class("NetParameter")(name="n")
    text_format.Parse("layer { type: 'Pooling' pooling_param { pool: AVE } } layers { type: TANH }", net)
    assert net.layer[0].pooling_param.pool == 1
    assert net.layers[0].type == 23


# --- which file is which ---


def test_the_pair_is_found(tmp_path):
    network, weights = write(tmp_path, SMALL)
    other = weights.rename(tmp_path / "other.bin")
    assert pair(network, other) == pair([other, network]) == pair(other, network) == (network, other)
    assert pair(network) == (network, None)
    other.rename(weights)
    assert pair(network) == pair(str(weights)) == (network, weights)
    network.rename(tmp_path / "deploy.prototxt")
    with pytest.raises(ExportError, match=r"net\.prototxt, is not beside it"):
        pair(weights)
    with pytest.raises(BadInput, match="both descriptions"):
        pair(tmp_path / "deploy.prototxt", tmp_path / "deploy.prototxt")
    with pytest.raises(BadInput, match="no file"):
        pair(tmp_path / "deploy.prototxt", tmp_path / "none.caffemodel")
    with pytest.raises(ExportError) as caught:
        to_onnx(*pair(tmp_path / "deploy.prototxt"))
    assert str(weights) in caught.value.hint
