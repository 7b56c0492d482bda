"""Native passes on a model without its weights. Oracles: onnx itself on the whole model; onnxsim's foldings, counted."""

import numpy as np
import onnx
import pytest
from onnx import helper, shape_inference

from qnb.graph.light import is_heavy, light_copy, without_weights
from tests.graph._models import build, save
from tests.graph._worker import normalise

SIDE = 16
"""Of channels: 3 x 3 kernels of so many are heavy, their biases are not."""


def draw(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def net(*after, before=(), data="x", **constants):
    """Give a convolution with ops around it."""
    nodes = [*before, helper.make_node("Conv", [data, "w", "b"], ["c"], name="conv", pads=[1] * 4), *after]
    weights = {"w": draw(SIDE, SIDE, 3, 3), "b": draw(SIDE)} | constants
    return build(nodes, {"x": [1, SIDE, 8, 8]}, {"y": [1, SIDE, 8, 8]}, weights)


RELU = helper.make_node("Relu", ["c"], ["y"])


def test_only_weights_are_set_aside():
    model = net(RELU)
    light = light_copy(model)
    assert [tensor.name for tensor in light.graph.initializer] == ["b"]
    assert [value.name for value in light.graph.input] == ["x", "w"]
    assert light.ByteSize() < 1000 < model.ByteSize()
    assert [is_heavy(tensor) for tensor in model.graph.initializer] == [True, False]


def test_a_pass_gives_what_it_gives_on_the_whole_model():
    model = net(RELU)
    model.metadata_props.add(key="a", value="b")
    whole = shape_inference.infer_shapes(model, strict_mode=True)
    without_weights(model, shape_inference.infer_shapes)
    assert model == whole


def test_a_failed_pass_leaves_the_model_as_it_was():
    model = net(RELU)
    kept = model.SerializeToString()

    def fails(light):
        del light.graph.node[:]
        raise RuntimeError("it broke")

    with pytest.raises(RuntimeError, match="it broke"):
        without_weights(model, fails)
    assert model.SerializeToString() == kept


GAIN = draw(1, SIDE, 1, 1)
NORM = {name: np.abs(draw(SIDE)) + 0.1 for name in ("scale", "shift", "mean", "var")}
FOLDABLE = {
    "batch norm after": (net(helper.make_node("BatchNormalization", ["c", *NORM], ["y"]), **NORM), ["Conv"]),
    "sum of constants after": (net(helper.make_node("Add", ["c", "k"], ["y"]), k=GAIN), None),
    "a constant image": (
        net(helper.make_node("Mul", ["c", "x"], ["y"]), data="image", image=draw(1, SIDE, 8, 8)),
        ["Mul"],
    ),
    "an image made of constants": (
        net(
            helper.make_node("Mul", ["c", "x"], ["y"]),
            before=[helper.make_node("Neg", ["image"], ["inverse"])],
            data="inverse",
            image=draw(1, SIDE, 8, 8),
        ),
        ["Mul"],
    ),
}


@pytest.mark.parametrize(("model", "expected"), FOLDABLE.values(), ids=[*FOLDABLE])
def test_what_folds_into_heavy_weights_still_does(tmp_path, model, expected):
    import onnxsim

    onnxsims, _ = onnxsim.simplify(model)
    path = save(model, tmp_path / "m.onnx")
    (answer,) = normalise([{"path_in": path, "path_out": str(tmp_path / "out.onnx"), "shapes": None}])
    ops = [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node]
    assert answer["simplified"]
    assert ops == [node.op_type for node in onnxsims.graph.node]
    assert expected is None or ops == expected
