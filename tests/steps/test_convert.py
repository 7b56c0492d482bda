"""Convert. Oracles: the DLC's own ZIP directory, the graph JSON that QNN writes, and what then really runs."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import onnx
import pytest
from onnx import helper

import qnb
from qnb.errors import BadConfig, BadInput
from tests import nets
from tests.steps.oracles import noise, sqnr_db


def test_the_dlc_is_a_stored_zip_with_the_models_members(walk):
    (dlc,) = walk["conversion"].dlc
    with zipfile.ZipFile(dlc) as archive:
        members = {info.filename: info for info in archive.infolist()}
    assert {"model", "model.params", "model.params.bin"} <= set(members)
    assert {info.compress_type for info in members.values()} == {zipfile.ZIP_STORED}
    assert dlc.read_bytes()[:4] == b"PK\x03\x04"


def test_the_weights_are_in_the_dlc(digits, walk):
    (dlc,) = walk["conversion"].dlc
    with zipfile.ZipFile(dlc) as archive:
        size = archive.getinfo("model.params.bin").file_size
    assert size >= digits.model.parameters * 0.9  # a byte each; batch norm was folded


def test_the_graph_json_is_qnns_and_the_table_is_made_of_it(walk):
    graph = json.loads(walk["conversion"].files["graph.json"].read_text())["graph"]
    ops = walk["conversion"].qnn_ops
    assert dict(zip(ops["qnn_op"], ops["qnn_type"], strict=True)) == {n: v["type"] for n, v in graph["nodes"].items()}
    assert sum(ops["qnn_type"] == "Conv2d") == 2
    assert sum(ops["qnn_type"] == "FullyConnected") == 2


def test_a_quantized_model_is_wholly_on_the_npu_and_its_float_parent_on_the_cpu(digits, walk):
    frame = walk["conversion"].frame
    assert list(frame["op"]) == list(digits.model.frame["op"])
    assert set(frame["htp"]) == {"yes"}
    assert set(frame["cpu"]) == {"yes"}
    assert set(frame["gpu"]) <= {"unknown", "yes"}
    conv = frame[frame["op_type"] == "Conv"]
    assert conv["qnn_ops"].str.contains("Conv2d").all()
    assert any("cpu and gpu are asked for the float parent" in note for note in walk["conversion"].notes)


def test_an_lstm_has_no_dlc_but_its_graph_is_shown(lstm):
    result = qnb.convert(lstm[1])
    assert result.dlc == ()
    assert any(note.startswith("no DLC") for note in result.notes)
    assert set(result.frame["htp"]) == {"yes"}
    assert sum(result.qnn_ops["qnn_type"] == "Lstm") == 10  # a step each
    assert set(result.qnn_ops[result.qnn_ops["qnn_type"] == "Lstm"]["op"]) == set(
        result.frame[result.frame["op_type"] == "LSTM"]["op"]
    )


@pytest.fixture(scope="module")
def partly(tmp_path_factory):
    """A model with one op that ONNX Runtime has and QNN has not."""
    path = tmp_path_factory.mktemp("partly") / "partly.onnx"
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="relu"),
        helper.make_node("Det", ["a"], ["b"], name="determinant"),
        helper.make_node("Neg", ["b"], ["y"], name="negative"),
    ]
    onnx.save(nets.model(nodes, [nets.value("x", (2, 4, 4))], [nets.value("y", (2,))]), path)
    return qnb.export(path)


def test_an_op_that_qnn_has_not_is_named_with_what_is_known_of_the_reason(partly):
    frame = qnb.convert(partly).frame.set_index("op")
    assert frame.loc["determinant", "htp"] == frame.loc["determinant", "cpu"] == "no"
    reason = frame.loc["determinant", "reason"]
    assert reason.startswith("htp, cpu: Operators of type `Det` are not supported by QNN EP. Det node")
    assert reason.count("Operators") == 1
    assert frame.loc["relu", "cpu"] == "yes"


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "w8a8"])
def test_a_change_of_layout_that_was_put_in_is_no_op_of_the_model(tmp_path, quantized):
    """The runtime names it Transpose, as the model's own op is named: which is which, the tensors tell."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((4, 4, 3, 3)).astype(np.float32) for name in ("w1", "w2")}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first", pads=[1] * 4),
        helper.make_node("Conv", ["a", "w2"], ["b"], name="second", pads=[1] * 4),
        helper.make_node("Softmax", ["b"], ["c"], name="softmax", axis=-1),
        helper.make_node("Transpose", ["c"], ["y"], name="Transpose", perm=[3, 1, 0, 2]),
    ]
    graph = nets.model(nodes, [nets.value("x", (1, 4, 8, 8))], [nets.value("y", (8, 4, 1, 8))], weights)
    path = tmp_path / "named.onnx"
    onnx.save(graph, path)
    build = qnb.export(path)
    if quantized:
        build = qnb.calibrate(build, noise(4, 4, 8, 8)[:, None])
    conversion = qnb.convert(build)
    found = conversion.qnn_ops[conversion.qnn_ops["qnn_type"] == "Transpose"]
    assert len(found) > 1
    own = found[found["op"] == "Transpose"]
    assert len(own) == 1
    assert own["outputs"].iloc[0].startswith("y")
    assert set(found["op"]) == {"Transpose", ""}


def test_a_float_model_is_refused_by_an_npu_without_fp16(digits):
    result = qnb.convert(digits.model, soc="SM7325")
    assert set(result.frame["htp"]) == {"no"}
    assert result.frame["reason"].str.contains("fp16").all()
    assert set(qnb.convert(digits.model, soc="SM8650").frame["htp"]) == {"yes"}


def test_the_second_time_gives_the_same_files(digits, walk):
    again = qnb.convert(digits.quantized)
    assert again.files == walk["conversion"].files
    assert str(again) == str(walk["conversion"])


FLAT = {
    "activation_encodings": {"image": {"bitwidth": 8, "min": -2.5, "max": 2.5, "scale": 5 / 255, "offset": 127}},
    "param_encodings": {},
    "activation_bitwidth": 8,
    "param_bitwidth": 8,
    "bias_bitwidth": 32,
}


def test_overrides_quantize_what_they_encode_and_no_more(two):
    _, model = two
    result = qnb.convert(model, overrides={"activation_encodings": {"image": {"bitwidth": 8, "min": -3, "max": 3}}})
    assert result.build.kind == "quantized"
    assert result.build.precision == "mixed"
    assert not result.build.complete
    assert "image" in set(result.build.frame["tensor"])
    assert "logits" not in set(result.build.frame["tensor"])
    data = {"image": noise(2, 3, 16, 16) / 2, "context": noise(2, 6)}
    ran = qnb.infer(result.build, data)
    assert ran.frame.set_index("output").loc["logits", "sqnr_db"] > 30


def test_a_positive_offset_is_read_as_an_unsigned_zero_point_and_said(digits):
    result = qnb.convert(digits.model, overrides=FLAT)
    assert any("unsigned zero point" in note for note in result.notes)
    row = result.build.frame.set_index("tensor").loc["image"]
    assert row["min"] == pytest.approx(-2.5, abs=row["scale"])
    assert row["max"] == pytest.approx(2.5, abs=row["scale"])
    assert row["offset"] == -row["zero_point"]
    assert row["zero_point"] in (127, 128)


def test_overrides_from_a_file(digits, tmp_path):
    path = tmp_path / "overrides.json"
    path.write_text(json.dumps(FLAT))
    assert (
        qnb.convert(digits.model, overrides=path).build.digest == qnb.convert(digits.model, overrides=FLAT).build.digest
    )


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"activation_encodings": {"imagee": {"bitwidth": 8, "min": -1, "max": 1}}}, "imagee"),
        ({"activation_encodings": {"image": {"bits": 8}}}, "bits"),
        ({"activation_encoding": {}}, "activation_encoding"),
        ({"activation_encodings": {"image": {"bitwidth": 8, "min": 1, "max": -1}}}, "image"),
        ({"bias_bitwidth": 8}, "bias_bitwidth"),
        ([1], "not a mapping"),
        ("no-such-file.json", "no-such-file.json"),
    ],
)
def test_overrides_that_do_not_fit(digits, overrides, said):
    with pytest.raises((BadConfig, BadInput), match=said):
        qnb.convert(digits.model, overrides=overrides)


def test_what_can_not_be_converted(digits):
    with pytest.raises(BadInput, match="compiled already"):
        qnb.convert(digits.contexts["SM8650"])
    with pytest.raises(BadInput, match="quantized already"):
        qnb.convert(digits.quantized, overrides=FLAT)


def test_a_mixed_model_computes_what_its_parent_does(digits):
    mixed = qnb.convert(
        digits.model, overrides={"activation_encodings": {"image": {"bitwidth": 16, "min": 0, "max": 1}}}
    )
    ran, fp32 = (qnb.infer(b, digits.test[:20], backend=w) for b, w in ((mixed.build, "htp"), (digits.model, "cpu")))
    assert sqnr_db(fp32["logits"], ran["logits"]) > 40
    assert np.array_equal(ran["logits"].argmax(1), fp32["logits"].argmax(1))
