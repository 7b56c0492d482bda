"""Broken and unfit models: each is refused with a clear error, and the process that met it lives.

The oracle is the process: all run in one, which must come to its end.
"""

import json
import pickle
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qnb.errors import QnbError
from tests.graph._models import build, conv_net, save
from tests.graph._worker import normalise

relu = helper.make_node


def text(content):
    return lambda path: path.write_bytes(content)


def model(make):
    return lambda path: save(make(), path)


def external(path):
    onnx.save_model(conv_net(1), path, save_as_external_data=True, location=f"{path.stem}.bin", size_threshold=0)
    return path.with_suffix(".bin")


def cut_external(path):
    file = external(path)
    file.write_bytes(file.read_bytes()[:50])


def outside(path):
    external(path)
    made = onnx.load(path, load_external_data=False)
    for tensor in made.graph.initializer:
        tensor.external_data[0].value = "../secret.bin"
    save(made, path)


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")


def cyclic():
    nodes = [relu("Add", ["x", "b"], ["a"], name="n1"), relu("Relu", ["a"], ["b"], name="n2")]
    return build(nodes, {"x": [2]}, {"b": [2]})


def wrong_types():
    return build([relu("Add", ["x", "i"], ["y"])], {"x": [2]}, {"y": [2]}, {"i": np.array([1, 2])})


def wrong_shapes():
    return build([relu("MatMul", ["x", "w"], ["y"])], {"x": [2, 3]}, {"y": [2, 4]}, {"w": np.zeros((5, 4), np.float32)})


def loop():
    body = helper.make_graph(
        [relu("Identity", ["c"], ["co"]), relu("Relu", ["v"], ["vo"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [2]),
        ],
        [
            helper.make_tensor_value_info("co", TensorProto.BOOL, []),
            helper.make_tensor_value_info("vo", TensorProto.FLOAT, [2]),
        ],
    )
    made = build([relu("Loop", ["n", "", "x"], ["y"], name="myloop", body=body)], {"x": [2]}, {"y": [2]})
    made.graph.input.append(helper.make_tensor_value_info("n", TensorProto.INT64, []))
    return made


def constant_output():
    return build([relu("Relu", ["w"], ["y"])], {"x": [2]}, {"y": [2]}, {"w": np.ones(2, np.float32)})


def no_outputs():
    made = conv_net(1)
    del made.graph.output[:]
    return made


def no_opset():
    made = conv_net(1)
    del made.opset_import[:]
    return made


def sequence_input():
    made = conv_net(1)
    made.graph.input.append(helper.make_tensor_sequence_value_info("seq", TensorProto.FLOAT, [2]))
    return made


def bad_weight():
    made = conv_net(1)
    made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:-4]
    return made


def few_numbers():
    made = conv_net(1)
    made.graph.initializer[5].ClearField("raw_data")
    made.graph.initializer[5].float_data.extend([1.0, 2.0])
    return made


def huge_inside():
    nodes = [relu("Expand", ["x", "s"], ["h"], name="big"), relu("ReduceSum", ["h"], ["y"], keepdims=0)]
    return build(nodes, {"x": [1, 1]}, {"y": []}, {"s": np.array([200_000, 200_000])})


def huge_constant():
    nodes = [
        relu("ConstantOfShape", ["s"], ["h"], name="big"),
        relu("ReduceSum", ["h"], ["r"], keepdims=0),
        relu("Add", ["x", "r"], ["y"]),
    ]
    return build(nodes, {"x": [1]}, {"y": [1]}, {"s": np.array([200_000, 200_000])})


def overflowing():
    return build(
        [relu("Relu", ["x"], ["h"]), relu("Flatten", ["h"], ["y"], axis=0)], {"x": [2**31, 2**31, 2**31]}, {"y": None}
    )


def short_conv():
    return build([relu("Conv", ["x"], ["y"], name="c")], {"x": [1, 3, 8, 8]}, {"y": [1, 3, 8, 8]})


GOOD = conv_net(1).SerializeToString()
RELU = [relu("Relu", ["x"], ["y"], name="r")]

# label → (how to write the file, options, error class, what the message must say, what the hint must say)
CASES = {
    "missing": (lambda path: None, {}, "ExportError", "no file", "path"),
    "empty": (text(b""), {}, "ExportError", "empty", "again"),
    "cut": (text(GOOD[: len(GOOD) // 2]), {}, "ExportError", "cut short", "again"),
    "cut near the end": (text(GOOD[:-3]), {}, "ExportError", "cut short", "again"),
    "garbage": (text(np.random.default_rng(0).bytes(5000)), {}, "ExportError", "not an ONNX model", ".onnx"),
    "zeros": (text(bytes(5000)), {}, "ExportError", "not an ONNX model", ".onnx"),
    "text": (text(b"hello"), {}, "ExportError", "text", ".onnx"),
    "json": (text(json.dumps({"a": [1] * 50}).encode()), {}, "ExportError", "text", ".onnx"),
    "web page": (text(b"<html><body>Not found</body></html>"), {}, "ExportError", "web page", "fetch"),
    "pickle": (text(pickle.dumps({"a": 1})), {}, "ExportError", "pickle", "pass the object"),
    "torch file": (zipped, {}, "ExportError", "PyTorch", "state_dict"),
    "no nodes": (
        text(onnx.ModelProto(ir_version=8, graph=onnx.GraphProto(name="g")).SerializeToString()),
        {},
        "ExportError",
        "without any op",
        "again",
    ),
    "no outputs": (model(no_outputs), {}, "ExportError", "without outputs", "output_names"),
    "external missing": (lambda path: external(path).unlink(), {}, "ExportError", ".bin", "copy"),
    "external cut": (cut_external, {}, "ExportError", "bytes of", "cut short"),
    "external outside": (outside, {}, "ExportError", "outside its folder", "again"),
    "cycle": (model(cyclic), {}, "ExportError", "cycle", "without cycles"),
    "wrong types": (model(wrong_types), {}, "ExportError", "do not fit", "again"),
    "wrong shapes": (model(wrong_shapes), {}, "ExportError", "do not fit", "sizes"),
    "dangling input": (
        model(lambda: build([relu("Add", ["x", "ghost"], ["y"], name="add")], {"x": [2]}, {"y": [2]})),
        {},
        "ExportError",
        "'ghost'",
        "again",
    ),
    "dangling output": (
        model(lambda: build(RELU, {"x": [2]}, {"y": [2], "ghost": [2]})),
        {},
        "ExportError",
        "'ghost'",
        "again",
    ),
    "written twice": (
        model(lambda: build(RELU * 2, {"x": [2]}, {"y": [2]})),
        {},
        "ExportError",
        "written twice",
        "again",
    ),
    "missing operand": (model(short_conv), {}, "ExportError", "Conv", ""),
    "few numbers": (model(few_numbers), {}, "ExportError", "its shape [4, 5] says", "again"),
    "short weight": (model(bad_weight), {}, "ExportError", "428 bytes instead of 432", "again"),
    "dynamic": (
        model(lambda: build(RELU, {"x": ["N", 3, "H", "W"]}, {"y": None})),
        {},
        "ExportError",
        "'x' is [N, 3, H, W]",
        "shapes={'x': [1, 3, 224, 224]}",
    ),
    "unknown rank": (
        model(lambda: build(RELU, {"x": None}, {"y": None})),
        {},
        "ExportError",
        "unknown rank",
        "shapes={'x'",
    ),
    "open sequence": (
        model(lambda: build(RELU, {"x": ["seq_len", 4]}, {"y": None})),
        {},
        "ExportError",
        "[seq_len, 4]",
        "shapes=",
    ),
    "unknown name": (model(conv_net), {"shapes": {"X1": [1, 3, 8, 8]}}, "UnknownName", "'X1'", "x"),
    "wrong rank": (model(conv_net), {"shapes": {"x": [3, 8, 8]}}, "BadInput", "3 dimensions, the input has 4", ""),
    "contradiction": (
        model(conv_net),
        {"shapes": {"x": [1, 4, 8, 8]}},
        "BadInput",
        "dimension 1 of 'x' at 3",
        "export",
    ),
    "zero size": (model(conv_net), {"shapes": {"x": [0, 3, 8, 8]}}, "BadInput", "at least 1", "shapes="),
    "two sizes": (
        model(lambda: build([relu("Add", ["a", "b"], ["y"])], {"a": ["N", 2], "b": ["N", 2]}, {"y": None})),
        {"shapes": {"a": [1, 2], "b": [2, 2]}},
        "BadInput",
        "two sizes, 1 and 2",
        "'N'",
    ),
    "batch zero": (model(conv_net), {"batch": 0}, "BadInput", "batch", "batch=1"),
    "batch fixed": (model(lambda: conv_net(1)), {"batch": 4}, "BadInput", "x [1, 3, 8, 8]", "dynamic"),
    "huge input": (
        model(lambda: build(RELU, {"x": [100_000, 100_000]}, {"y": None})),
        {},
        "ExportError",
        "37.3 GiB",
        "sizes",
    ),
    "huge batch": (model(conv_net), {"batch": 10**9}, "ExportError", "GiB", "batch"),
    "huge inside": (model(huge_inside), {}, "ExportError", "'h' (output of Expand 'big')", "far too large"),
    "huge constant": (model(huge_constant), {}, "ExportError", "ConstantOfShape 'big'", "far too large"),
    "overflow": (model(overflowing), {}, "ExportError", "GiB", "far too large"),
    "unknown op": (
        model(lambda: build([relu("Frobnicate", ["x"], ["y"])], {"x": [2]}, {"y": [2]})),
        {},
        "ExportError",
        "Frobnicate",
        "",
    ),
    "unknown domain": (
        model(lambda: build([relu("Foo", ["x"], ["y"], domain="my.own")], {"x": [2]}, {"y": [2]})),
        {},
        "ExportError",
        "my.own",
        "standard",
    ),
    "unknown contrib op": (
        model(lambda: build([relu("Foo", ["x"], ["y"], domain="com.microsoft")], {"x": [2]}, {"y": [2]})),
        {},
        "ExportError",
        "Foo",
        "standard",
    ),
    "control flow": (model(loop), {}, "ExportError", "Loop 'myloop' is control flow", "unroll"),
    "data dependent": (
        model(
            lambda: build(
                [relu("NonZero", ["x"], ["i"], name="nz"), relu("Cast", ["i"], ["y"], to=1)], {"x": [2, 3]}, {"y": None}
            )
        ),
        {},
        "ExportError",
        "NonZero 'nz'",
        "data",
    ),
    "float64": (
        model(lambda: build(RELU, {"x": [2]}, {"y": [2]}, dtype=TensorProto.DOUBLE)),
        {},
        "ExportError",
        "float64",
        "float()",
    ),
    "sequence": (model(sequence_input), {}, "ExportError", "'seq' is not a tensor", "tensors"),
    "constant": (model(constant_output), {}, "ExportError", "nothing is left to compute", "numpy"),
    "no opset": (model(no_opset), {}, "ExportError", "opset", "again"),
    "new opset": (model(lambda: conv_net(1, opset=26)), {}, "ExportError", "opset 26 is newer", "opset_version=20"),
    "asked opset": (model(lambda: conv_net(1)), {"opset": 17}, "BadInput", "opset 17", "20"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("malformed")
    jobs = []
    for number, (write, options, *_) in enumerate(CASES.values()):
        path = folder / f"m{number}.onnx"
        write(path)
        jobs.append({"path_in": str(path), "path_out": str(folder / "out" / f"m{number}.onnx"), **options})
    return folder, dict(zip(CASES, normalise(jobs), strict=True))


@pytest.mark.parametrize("label", CASES)
def test_is_refused_with_a_clear_error(answers, label):
    _, _, error, what, hint = CASES[label]
    answer = answers[1][label]
    assert answer.get("error") == error, answer
    assert what in answer["what"]
    assert answer["hint"], "an error says what to do next"
    assert hint in answer["hint"]
    assert answer["seconds"] < 10
    assert "Traceback" not in answer["what"]


def test_nothing_is_left_behind(answers):
    out = answers[0] / "out"
    assert not out.exists() or not list(out.iterdir())


def test_random_damage_never_ends_the_process(tmp_path):
    """Flip, cut or zero bytes: the answer is an error of ours, or, where the damage hit a weight or a name, a model."""
    rng = np.random.default_rng(0)
    jobs = []
    for number in range(150):
        damaged = bytearray(GOOD)
        at = int(rng.integers(len(damaged)))
        if number % 3 == 0:
            damaged[at] ^= 1 << int(rng.integers(8))
        elif number % 3 == 1:
            del damaged[at:]
        else:
            damaged[at : at + 16] = bytes(len(damaged[at : at + 16]))
        (tmp_path / f"{number}.onnx").write_bytes(damaged)
        jobs.append({"path_in": str(tmp_path / f"{number}.onnx"), "path_out": str(tmp_path / "out.onnx")})
    answers = normalise(jobs)
    known = {cls.__name__ for cls in _tree(QnbError)}
    assert {answer["error"] for answer in answers if "error" in answer} <= known
    assert all(answer["error"] == "ExportError" for answer in answers[1::3])


def _tree(cls):
    return {cls}.union(*(_tree(sub) for sub in cls.__subclasses__()))


def test_a_failure_keeps_the_previous_result(tmp_path):
    good, bad = save(conv_net(1), tmp_path / "good.onnx"), save(cyclic(), tmp_path / "bad.onnx")
    out = str(tmp_path / "out.onnx")
    first, second = normalise([{"path_in": good, "path_out": out}, {"path_in": bad, "path_out": out}])
    assert "error" not in first
    assert second["error"] == "ExportError"
    assert numpy_helper.to_array(onnx.load(out).graph.initializer[0]).size
