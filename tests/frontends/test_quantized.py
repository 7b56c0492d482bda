"""Models that other tools have quantized come in as `Quantized`.

Oracles: ONNX Runtime's quantizer (its files, run by plain ONNX Runtime), AIMET's QDQ exports and the encodings that it wrote
of the same simulation, and the float models that they were made from.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import qnb
from qnb.errors import BadInput, ExportError
from qnb.frontends.quantized import may_be_quantized
from qnb.graph.compare import agreement
from qnb.quant.encoding_files import read
from tests.quant import _peer
from tests.steps.oracles import noise

AIMET = Path(__file__).parents[1] / "fixtures" / "aimet"


class _Reader(CalibrationDataReader):
    def __init__(self, samples):
        self._left = iter(samples)

    def get_next(self):
        return next(self._left, None)


def outputs(model, samples):
    """What plain ONNX Runtime computes."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: sample})[0] for sample in samples])


@pytest.fixture(scope="module")
def samples(digits):
    return [{"image": image[None]} for image in digits.train[:24]]


@pytest.fixture(scope="module")
def images(digits):
    return [image[None] for image in digits.test[:16]]


STYLES = {
    "u8": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True},
    "s8": {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8, "per_channel": False},
    "u16": {"activation_type": QuantType.QUInt16, "weight_type": QuantType.QInt8, "per_channel": True},
    "w4": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt4, "per_channel": True},
}
PRECISION = {"u8": "w8a8", "s8": "w8a8", "u16": "w8a16", "w4": "w4a8"}


@pytest.fixture(scope="module")
def made(digits, samples, tmp_path_factory):
    """The digits classifier, quantized by ONNX Runtime in several styles; files by style."""
    folder = tmp_path_factory.mktemp("quantized")
    files = {}
    for style, options in STYLES.items():
        files[style] = folder / f"{style}.onnx"
        extra = {"UseQDQContribOps": style == "u16"}  # opset 20 has no 16 bits; and 4 bits come with opset 21
        quantize_static(
            digits.model.path,
            files[style],
            _Reader(samples),
            quant_format=QuantFormat.QDQ,
            extra_options=extra,
            **options,
        )
    files["qnn"] = folder / "qnn.onnx"
    onnx.save(_peer.quantized(onnx.load(digits.model.path), samples, 16), files["qnn"])
    return files


@pytest.mark.parametrize("style", [*STYLES, "qnn"])
def test_onnxruntimes_files(digits, made, images, style):
    quantized = qnb.export(made[style])
    assert isinstance(quantized, qnb.Quantized)
    assert quantized.precision == PRECISION.get(style, "w8a16")
    assert quantized.complete
    assert (quantized.method, quantized.samples) == ("imported", 0)
    assert quantized.weights == ("per tensor" if style == "s8" else "per channel")
    np.testing.assert_array_equal(outputs(quantized.path, images), outputs(made[style], images))
    # its float model is the one that it was made of, but for the weights' rounding: the Relus are there again
    parent = quantized.parent
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(parent.ops)
    assert [(s.name, s.shape) for s in parent.inputs + parent.outputs] == [
        (s.name, s.shape) for s in digits.model.inputs + digits.model.outputs
    ]
    floor = 10 if style == "w4" else 30
    assert agreement(outputs(digits.model.path, images), outputs(parent.path, images))["sqnr_db"] > floor


@pytest.mark.parametrize("style", [*STYLES, "qnn"])
def test_encodings_are_exactly_those_of_the_graph(made, style):
    """Oracle: the initializers that the graph's own nodes name, tensor by tensor as ONNX Runtime names them."""
    quantized = qnb.export(made[style])
    model = onnx.load(made[style])
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    grids = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            grids[node.input[0].removesuffix("_QuantizeLinear_Input")] = [values[name] for name in node.input[1:]]
        elif node.op_type == "DequantizeLinear" and node.input[0] in values:
            grids[node.input[0].removesuffix("_quantized")] = [values[name] for name in node.input[1:]]
    found = read(quantized.files["encodings"]).tensors
    assert set(found) == set(grids) == set(quantized.frame["tensor"])
    for name, (scale, zero_point) in grids.items():
        np.testing.assert_array_equal(found[name].scale, scale.ravel().astype(float))
        np.testing.assert_array_equal(found[name].zero_point, zero_point.ravel().astype(int))
        assert f"{'' if found[name].signed else 'u'}int{found[name].bits}" == str(zero_point.dtype)
    biases = [name for name in grids if name.endswith(".bias") or grids[name][1].dtype == np.int32]
    assert set(quantized.frame.loc[quantized.frame["kind"] == "bias", "tensor"]) == set(biases)


def test_the_simulator_runs_it_as_it_runs_others(digits, made):
    quantized = qnb.export(made["qnn"])
    ours = qnb.infer(quantized, digits.test[:8], backend="htp")
    assert (ours.frame["sqnr_db"] > 20).all()
    context = qnb.context(quantized)
    assert context.precision == "w8a16"


def test_a_path_does_where_a_build_does(digits, made):
    result = qnb.infer(made["u8"], digits.test[:4], backend="htp")
    assert result["logits"].shape[0] == 4
    with pytest.raises(BadInput, match="is a quantized, but a float model is wanted"):
        qnb.calibrate(made["u8"], digits.train[:4])


def test_it_saves_and_opens_again(made, images, tmp_path):
    quantized = qnb.export(onnx.load(made["u8"]))
    quantized.save(tmp_path / "saved")
    again = qnb.load(tmp_path / "saved")
    assert again.precision == "w8a8"
    np.testing.assert_array_equal(outputs(again.path, images), outputs(made["u8"], images))


def test_our_own_files_come_back(digits):
    """What qnb writes itself is read as it was meant."""
    again = qnb.export(digits.quantized.path)
    assert (again.precision, again.weights) == ("w8a8", "per channel")
    ours, theirs = (q.frame.set_index("tensor").sort_index() for q in (digits.quantized, again))
    assert set(theirs.index) == set(ours.index)
    np.testing.assert_allclose(theirs["scale"], ours["scale"], rtol=1e-6)
    assert (theirs[["bits", "signed", "zero_point"]] == ours[["bits", "signed", "zero_point"]]).all(axis=None)


@pytest.mark.parametrize("name", ["w8a8", "w8a16", "w4a8", "tensor", "blocks", "lpbq"])
def test_aimets_files(name):
    quantized = qnb.export(AIMET / f"{name}-qdq.onnx")
    with np.load(AIMET / "values.npz") as values:
        inputs = values["x"]
    theirs = outputs(AIMET / f"{name}-qdq.onnx", inputs)
    np.testing.assert_array_equal(outputs(quantized.path, inputs), theirs)
    assert quantized.precision == {"tensor": "w8a8", "blocks": "mixed", "lpbq": "mixed"}.get(name, name)
    # the encodings that AIMET wrote of the same simulation; float32 is what a graph stores
    said = json.loads((AIMET / f"{name}-2.0.0.json").read_text())["encodings"]
    found = read(quantized.files["encodings"]).tensors
    for entry in said:
        scale = np.array(entry.get("y_scale", 0), np.float32).ravel()
        if "per_block_int_scale" in entry:
            scale = np.array(entry["per_channel_float_scale"], np.float32) * np.array(entry["per_block_int_scale"])
        mine = found[entry["name"]].scale
        order = mine.T if mine.ndim == 2 and found[entry["name"]].axis == 1 else mine
        np.testing.assert_allclose(order.ravel(), np.ravel(scale), rtol=1e-7)


def test_relu6_comes_back_as_such(tmp_path):
    """MobileNet's clipping at 6 is in the grids only; without it the float model would be another."""
    weight = noise(8, 3, 3, 3)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("Clip", ["c", "low", "high"], ["y"], "clip"),
    ]
    graph = helper.make_graph(
        nodes,
        "relu6",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 6, 6])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.float32(0), "low"),
            numpy_helper.from_array(np.float32(6), "high"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    inputs = [3 * noise(1, 3, 8, 8, seed=seed) for seed in range(4)]
    onnx.save(_peer.quantized(model, [{"x": x} for x in inputs], 8), tmp_path / "q.onnx")
    assert "Clip" not in [node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node]
    parent = qnb.export(tmp_path / "q.onnx").parent
    assert parent.ops == {"Conv": 1, "Clip": 1}
    assert agreement(outputs(model, inputs), outputs(parent.path, inputs))["sqnr_db"] > 35


def _integer_edge(source: Path, target: Path):
    """Take the first Q and the last DQ out, as converters of integer TFLite models do: integers go in and come out."""
    model = onnx.load(source)
    graph = model.graph
    first = next(n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == graph.input[0].name)
    last = next(n for n in graph.node if n.op_type == "DequantizeLinear" and n.output[0] == graph.output[0].name)
    codes_in, codes_out = first.output[0], last.input[0]
    grids = [
        tuple(numpy_helper.to_array(next(t for t in graph.initializer if t.name == n)) for n in node.input[1:])
        for node in (first, last)
    ]
    graph.node.remove(first)
    graph.node.remove(last)
    graph.input[0].name, graph.output[0].name = codes_in, codes_out
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(model, target)
    return grids


def test_integer_inputs_and_outputs_become_float(made, images, tmp_path):
    (scale, zero), (out_scale, out_zero) = _integer_edge(made["u8"], tmp_path / "edge.onnx")
    quantized = qnb.export(tmp_path / "edge.onnx")
    assert [s.dtype for s in (*quantized.inputs, *quantized.outputs)] == ["float32", "float32"]
    assert sum("integers" in note for note in quantized.notes) == 2
    codes = [np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8) for x in images]
    theirs = (outputs(tmp_path / "edge.onnx", codes).astype(np.float32) - out_zero) * out_scale
    np.testing.assert_array_equal(outputs(quantized.path, images), theirs)


def test_other_forms_are_refused_with_the_way_out(digits, samples, tmp_path):
    quantize_static(digits.model.path, tmp_path / "qop.onnx", _Reader(samples), quant_format=QuantFormat.QOperator)
    with pytest.raises(ExportError, match=r"qop: QLinearConv '.*' computes in integers") as caught:
        qnb.export(tmp_path / "qop.onnx")
    assert "QuantFormat.QDQ" in caught.value.hint
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(digits.model.path, tmp_path / "dynamic.onnx")
    with pytest.raises(ExportError, match="finds its ranges while it runs") as caught:
        qnb.export(tmp_path / "dynamic.onnx")
    assert "quantize_static" in caught.value.hint


def test_some_ops_in_float_make_it_mixed(digits, samples, tmp_path):
    target = tmp_path / "part.onnx"
    nodes = [n.name for n in onnx.load(digits.model.path).graph.node if n.op_type == "Conv"]
    quantize_static(digits.model.path, target, _Reader(samples), nodes_to_quantize=nodes[:1], per_channel=True)
    quantized = qnb.export(target)
    assert quantized.precision == "mixed"
    assert not quantized.complete
    assert any("float tensors have no grid" in note for note in quantized.notes)


def test_grids_that_are_no_constants_are_refused(made, tmp_path):
    model = onnx.load(made["u8"])
    node = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
    model.graph.node.insert(0, helper.make_node("Abs", [node.input[1]], ["scale_now"], "abs"))
    node.input[1] = "scale_now"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="takes its scale or zero point from another op"):
        qnb.export(tmp_path / "m.onnx")


def test_recognising_reads_ops_only(digits, made, tmp_path):
    assert may_be_quantized(made["u8"])
    assert may_be_quantized(made["u16"])
    assert not may_be_quantized(digits.model.path)
    model = onnx.load(digits.model.path)
    model.graph.name = model.doc_string = "QuantizeLinear"
    model.graph.initializer.append(numpy_helper.from_array(np.frombuffer(b"DequantizeLinear", np.uint8), "words"))
    onnx.save(model, tmp_path / "words.onnx")
    assert not may_be_quantized(tmp_path / "words.onnx")
    assert isinstance(qnb.export(tmp_path / "words.onnx"), qnb.Model)
    damaged = made["u8"].read_bytes()
    for cut in (1, 10, len(damaged) // 2):  # whatever it says of it, it ends
        (tmp_path / "cut.onnx").write_bytes(damaged[:cut])
        may_be_quantized(tmp_path / "cut.onnx")
