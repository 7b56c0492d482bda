"""Oracle: Qualcomm's own compiler and Hexagon simulator, with falling back to the CPU forbidden."""

import importlib.util

import numpy as np
import onnx
import pytest

from qnb.quant.overrides import Override, Overrides
from qnb.quant.qdq import encode, insert_qdq

from . import _simulator
from ._nets import NETS, model, ranges, run, samples, sqnr, weights

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_qnn") is None, reason="onnxruntime-qnn has no wheel for this platform"
)


def _compare(net, bits, **choices):
    """Give the SQNR against float of the QDQ graph on ONNX Runtime's CPU, and of the same graph on the simulator."""
    inputs = samples(net, 4)
    encodings = encode(net, ranges(net, inputs), activation_bits=bits, **choices)
    qdq = insert_qdq(net, encodings.activations, encodings.weights)
    onnx.checker.check_model(qdq, full_check=True)
    reference = run(net, inputs)
    return sqnr(reference, run(qdq, inputs)), sqnr(reference, _simulator.run(qdq, inputs))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("per_channel", [True, False])
def test_nets_run_whole_and_as_accurately(name, bits, per_channel):
    host, simulator = _compare(NETS[name](), bits, per_channel=per_channel)
    assert simulator > {8: 20, 16: 33}[bits]
    assert simulator > host - 3


_w = weights(5)
_CONV = {"w": _w(8, 8, 3, 3), "b": _w(8)}
_SHAPE = [1, 8, 8, 8]


def _after_conv(*nodes, shape=_SHAPE, **parameters):
    first = ("Conv", ["x", "w", "b"], ["c"], {"pads": [1, 1, 1, 1]})
    return model([first, *nodes], {"x": _SHAPE}, {"y": shape}, {**_CONV, **parameters})


_ROW = np.abs(_w(8)) + 0.5
OPS = {
    # x * sigmoid(x) in PyTorch's order: the compiler makes garbage of it in 16 bits unless it is turned round
    "silu": _after_conv(("Sigmoid", ["c"], ["s"], {}), ("Mul", ["c", "s"], ["y"], {})),
    "tanh": _after_conv(("Tanh", ["c"], ["y"], {})),
    "hard-swish": _after_conv(("HardSwish", ["c"], ["y"], {})),
    "prelu": _after_conv(("PRelu", ["c", "a"], ["y"], {}), a=_ROW.reshape(8, 1, 1)),
    "clip": _after_conv(("Clip", ["c", "lo", "hi"], ["y"], {}), lo=np.float32(-1), hi=np.float32(1)),
    "batch-norm": _after_conv(
        ("Relu", ["c"], ["r"], {}),
        ("BatchNormalization", ["r", "g", "e", "m", "v"], ["n"], {}),
        ("Relu", ["n"], ["y"], {}),
        g=_ROW, e=_w(8), m=_w(8), v=_ROW,
    ),
    "instance-norm": _after_conv(("InstanceNormalization", ["c", "g", "e"], ["y"], {}), g=_ROW, e=_w(8)),
    "constants": _after_conv(
        ("Sub", ["k", "c"], ["d"], {}), ("Div", ["d", "k"], ["e"], {}), ("Mul", ["e", "e"], ["y"], {}), k=np.float32(1.5)
    ),
    "average-pool": _after_conv(("AveragePool", ["c"], ["y"], {"kernel_shape": [2, 2]}), shape=[1, 8, 7, 7]),
    "split": _after_conv(
        ("Split", ["c"], ["p", "q"], {"axis": 1, "num_outputs": 2}), ("Add", ["p", "q"], ["y"], {}), shape=[1, 4, 8, 8]
    ),
    "pad-0": _after_conv(("Pad", ["c", "p"], ["y"], {}), shape=[1, 8, 10, 10], p=np.array([0, 0, 1, 1, 0, 0, 1, 1])),
    "pad-2": _after_conv(
        ("Pad", ["c", "p", "v"], ["y"], {}),
        shape=[1, 8, 10, 10], p=np.array([0, 0, 1, 1, 0, 0, 1, 1]), v=np.float32(2),
    ),
    "resize": _after_conv(
        ("Resize", ["c", "", "s"], ["y"], {"mode": "linear"}), shape=[1, 8, 16, 16], s=np.array([1, 1, 2, 2], np.float32)
    ),
    "depth-to-space": _after_conv(("DepthToSpace", ["c"], ["y"], {"blocksize": 2}), shape=[1, 2, 16, 16]),
    "transposed": model(
        [("ConvTranspose", ["x", "w", "b"], ["y"], {"strides": [2, 2]})],
        {"x": _SHAPE}, {"y": [1, 5, 17, 17]}, {"w": _w(8, 5, 3, 3), "b": _w(5)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("bits", [8, 16])
def test_ops_run_whole_and_as_accurately(name, bits):
    host, simulator = _compare(OPS[name], bits)
    assert simulator > {8: 25, 16: 35}[bits]
    assert simulator > host - 3


@pytest.mark.parametrize("changes", [{"c2": 16}, {"r0": 16, "a2": 16}, {"x": 16}])
def test_mixed_bits_run_whole(changes):
    overrides = Overrides({name: Override(bits=bits) for name, bits in changes.items()})
    host, simulator = _compare(NETS["cnn"](), 8, overrides=overrides)
    assert simulator > host - 3


def test_a_relu_that_its_grid_does_not_replace_runs():
    overrides = Overrides({"r0": Override(low=np.array([-1.0]))})
    host, simulator = _compare(NETS["cnn"](), 8, overrides=overrides)
    assert simulator > host - 3
