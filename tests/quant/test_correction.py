"""Bias correction. Oracle: the mean error of the layer's output, measured on ONNX Runtime."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qnb.quant.correction import correct_biases
from qnb.quant.encodings import Encodings, encoding_from_range
from qnb.quant.qdq import weight_encodings

from ._nets import model, run, weights


def _coarse(net, name="w", bits=4):
    """A grid that clips half of the range away, so that its error has a mean."""
    values = numpy_helper.to_array(next(i for i in net.graph.initializer if i.name == name))
    return {name: encoding_from_range(-1, float(values.max()) * 0.5, bits, signed=True, symmetric=True)}


def _with(net, encodings):
    copy = onnx.ModelProto()
    copy.CopyFrom(net)
    for tensor in copy.graph.initializer:
        if tensor.name in encodings:
            encoding = encodings[tensor.name]
            values = encoding.dequantize(encoding.quantize(numpy_helper.to_array(tensor)))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return copy


w = weights(2)
NETS = {
    "conv": model(
        [("Conv", ["x", "w", "b"], ["y"], {})],
        {"x": [1, 4, 9, 9]},
        {"y": [1, 6, 7, 7]},
        {"w": w(6, 4, 3, 3), "b": w(6)},
    ),
    "padded, strided, dilated": model(
        [("Conv", ["x", "w"], ["y"], {"pads": [2, 1, 0, 3], "strides": [2, 1], "dilations": [1, 2]})],
        {"x": [1, 4, 9, 9]},
        {"y": [1, 6, 5, 9]},
        {"w": w(6, 4, 3, 3)},
    ),
    "same": model(
        [("Conv", ["x", "w"], ["y"], {"auto_pad": "SAME_LOWER", "strides": [2, 2]})],
        {"x": [1, 4, 9, 9]},
        {"y": [1, 6, 5, 5]},
        {"w": w(6, 4, 2, 2)},
    ),
    "depthwise": model(
        [("Conv", ["x", "w", "b"], ["y"], {"group": 4, "pads": [1, 1, 1, 1]})],
        {"x": [1, 4, 9, 9]},
        {"y": [1, 8, 9, 9]},
        {"w": w(8, 1, 3, 3), "b": w(8)},
    ),
    "gemm": model([("Gemm", ["x", "w"], ["y"], {})], {"x": [1, 12]}, {"y": [1, 5]}, {"w": w(12, 5)}),
}


@pytest.mark.parametrize("name", NETS)
def test_the_mean_error_of_each_channel_goes(name):
    net = NETS[name]
    shape = [d.dim_value for d in net.graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(0)
    level = rng.uniform(0.2, 2.0, shape[1]).astype(np.float32).reshape(1, -1, *[1] * (len(shape) - 2))
    # constant over the picture, so that borders are the only place where padding counts
    inputs = [{"x": np.broadcast_to(level * f, shape).astype(np.float32).copy()} for f in (0.5, 1.0, 1.5)]
    encodings = _coarse(net)
    mean = np.mean([i["x"].mean(axis=tuple(range(2, len(shape)))) for i in inputs], axis=0)[0]
    corrected, rows = correct_biases(net, Encodings(weights=encodings), {"x": mean})
    assert rows[0]["step"] == "correct bias"

    def drift(candidate):
        axes = (0, 1, *range(3, len(shape) + 1))
        reference = np.stack([out["y"] for out in run(net, inputs)])
        return np.abs(np.mean(np.stack([out["y"] for out in run(candidate, inputs)]) - reference, axis=axes)).max()

    assert drift(_with(net, encodings)) > 0.01
    assert drift(_with(corrected, encodings)) < 1e-5


def test_what_has_no_means_or_no_grid_is_left_alone():
    net = NETS["gemm"]
    for encodings, means in (({}, {"x": np.ones(12)}), (_coarse(net), {}), (_coarse(net), {"x": np.ones(3)})):
        made, rows = correct_biases(net, encodings, means)
        assert not rows
        assert made.graph.initializer == net.graph.initializer


def test_it_knows_all_weights_of_a_net():
    net = NETS["conv"]
    _, rows = correct_biases(net, weight_encodings(net), {"x": np.ones(4)})
    assert rows[0]["largest"] < 0.05  # 8 bits: rounding errors that nearly cancel out
