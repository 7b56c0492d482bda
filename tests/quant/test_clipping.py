"""Relu and Clip between the grids of a QDQ graph. Oracles: ONNX Runtime on the graph as it was; the Hexagon simulator."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

import qnb
from qnb.quant.clipping import separate_clips

STEP = 2.3 / 128
SHAPE = (1, 8, 8, 8)


def graph(op, low, high, step, zero_point, dtype, *, grid_before):
    """A quantized convolution, `op`, and the grid behind it; `grid_before`: the convolution's output has it too."""
    rng = np.random.default_rng(0)
    middle = {"int8": 0, "uint8": 128, "uint16": 32768}[np.dtype(dtype).name]
    weight_step, input_step = np.full(8, 0.01, np.float32), np.float32(4 / max(128, middle))
    constants = {
        "W": np.clip(np.round(rng.standard_normal((8, 3, 3, 3)) * 40), -127, 127).astype(np.int8),
        "W_step": weight_step, "W_zero": np.zeros(8, np.int8),
        "b": np.zeros(8, np.int32), "b_step": weight_step * input_step, "b_zero": np.zeros(8, np.int32),
        "x_step": input_step, "x_zero": np.array(middle, dtype),
        "step": np.float32(step), "zero": np.array(zero_point, dtype), "low": np.float32(low), "high": np.float32(high),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_step", "x_zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "x_step", "x_zero"], ["x_d"]),
        helper.make_node("DequantizeLinear", ["W", "W_step", "W_zero"], ["W_d"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "b_step", "b_zero"], ["b_d"], axis=0),
        helper.make_node("Conv", ["x_d", "W_d", "b_d"], ["y"], pads=[1] * 4),
    ]
    source = "y"
    if grid_before:
        nodes += [
            helper.make_node("QuantizeLinear", ["y", "step", "zero"], ["y_q"]),
            helper.make_node("DequantizeLinear", ["y_q", "step", "zero"], ["y_d"]),
        ]
        source = "y_d"
    nodes += [
        helper.make_node(op, [source, "low", "high"] if op == "Clip" else [source], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "step", "zero"], ["r_q"]),
        helper.make_node("DequantizeLinear", ["r_q", "step", "zero"], ["out"]),
    ]
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type}_{number}"
    used = {name for node in nodes for name in node.input}
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, SHAPE)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def computed(model, images):
    """As the graph stands, without kernels that compute in integers."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"x": image[None]})[0] for image in images])


def kinds(model):
    return [n.op_type for n in model.graph.node if n.op_type not in ("QuantizeLinear", "DequantizeLinear")]


IMAGES = np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype(np.float32)
CASES = {
    "relu on a symmetric grid": (("Relu", 0, 0, STEP, 0, np.int8), False, ["Conv", "Relu"]),
    "relu on a grid that begins below 0": (("Relu", 0, 0, 1 / 16, 100, np.uint8), False, ["Conv", "Relu"]),
    "relu in 16 bits": (("Relu", 0, 0, 8 / 32768, 32768, np.uint16), False, ["Conv", "Relu"]),
    "relu6 that the grid ends below": (("Clip", 0, 6, STEP, 0, np.int8), True, ["Conv", "Relu"]),
    "relu6 on a wide grid": (("Clip", 0, 6, 1 / 16, 0, np.int8), True, ["Conv", "Relu", "Min"]),
    "hardtanh": (("Clip", -1, 1, STEP, 0, np.int8), False, ["Conv", "Max", "Min"]),
    "an upper end alone": (("Clip", 0, 1, 1 / 16, 0, np.uint8), False, ["Conv", "Min"]),
    "clip in 16 bits": (("Clip", 0, 1, 8 / 32768, 32768, np.uint16), True, ["Conv", "Relu", "Min"]),
}


@pytest.mark.parametrize(("form", "grid_before", "expected"), CASES.values(), ids=CASES)
def test_the_codes_stay_and_the_simulator_agrees(form, grid_before, expected, tmp_path):
    model = graph(*form, grid_before=grid_before)
    before = computed(model, IMAGES)
    onnx.save(model, tmp_path / "clip.onnx")
    assert separate_clips(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert kinds(model) == expected
    np.testing.assert_array_equal(computed(model, IMAGES), before)

    quantized = qnb.export(tmp_path / "clip.onnx")
    outputs = qnb.infer(quantized, IMAGES, backend="htp", soc="SM8650").outputs["out"].reshape(before.shape)
    # the convolution itself may round otherwise, by a step; as it was, 72 steps and more lay between
    assert np.abs(outputs - before).max() <= 3.01 * form[3]


@pytest.mark.parametrize(
    ("form", "grid_before"),
    [
        (("Relu", 0, 0, 1 / 32, 0, np.uint8), False),
        (("Relu", 0, 0, STEP, 0, np.int8), True),
        (("Clip", 0, 6, 6 / 255, -128, np.int8), False),
    ],
    ids=["the grid clips as well", "a relu between two grids", "relu6 on its own grid"],
)
def test_what_comes_out_right_stays(form, grid_before):
    model = graph(*form, grid_before=grid_before)
    kept = model.SerializeToString()
    assert separate_clips(model) == 0
    assert model.SerializeToString() == kept


def test_bounds_or_steps_that_are_computed_stay():
    model = graph("Clip", 0, 6, STEP, 0, np.int8, grid_before=False)
    (high,) = (tensor for tensor in model.graph.initializer if tensor.name == "high")
    model.graph.initializer.remove(high)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["high"], "constant", value=high))
    assert separate_clips(model) == 0
