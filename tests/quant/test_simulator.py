"""Oracle: Qualcomm's own compiler and Hexagon simulator, with falling back to the CPU forbidden."""

import importlib.util

import numpy as np
import onnx
import pytest

from qnb.quant.overrides import Override, Overrides
from qnb.quant.qdq import encode, insert_qdq, observed_tensors
from qnb.quant.structure import Structure, prepared

from . import _simulator
from ._nets import NETS, model, ranges, run, samples, sqnr, weights

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_qnn") is None, reason="onnxruntime-qnn has no wheel for this platform"
)


def _compare(net, bits, *, soc_model=57, **choices):
    """Give the SQNR against float of the QDQ graph on ONNX Runtime's CPU, and of the same graph on the simulator."""
    inputs = samples(net, 4)
    encodings = encode(net, ranges(net, inputs), activation_bits=bits, **choices)
    qdq = insert_qdq(net, encodings.activations, encodings.weights)
    onnx.checker.check_model(qdq, full_check=True)
    reference = run(net, inputs)
    return sqnr(reference, run(qdq, inputs)), sqnr(reference, _simulator.run(qdq, inputs, soc_model=soc_model))


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


# --- other widths and granularities ----------------------------------------------------------------------------------

GRIDS = {
    "w4a8": {"bits": 8, "weight_bits": 4},
    "w4a8 per tensor": {"bits": 8, "weight_bits": 4, "per_channel": False},
    "w4a8 blocks": {"bits": 8, "weight_bits": 4, "block_size": 16},
    "w4a16": {"bits": 16, "weight_bits": 4},
    "w4a16 symmetric": {"bits": 16, "weight_bits": 4, "symmetric": True},
    "w4a16 blocks": {"bits": 16, "weight_bits": 4, "block_size": 16},
    "w8a8 symmetric": {"bits": 8, "symmetric": True},
    "w8a16 symmetric": {"bits": 16, "symmetric": True},
    "w16a16": {"bits": 16, "weight_bits": 16},
    "w16a16 per tensor": {"bits": 16, "weight_bits": 16, "per_channel": False},
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("grid", GRIDS)
def test_grids_run_whole_and_as_accurately(name, grid):
    host, simulator = _compare(NETS[name](), **GRIDS[grid])
    # HTP's 16-bit weights with a grid per channel lose something beyond 60 dB
    assert simulator > min(host - 3, 55)


@pytest.mark.slow
@pytest.mark.parametrize("soc_model", [30, 43, 69, 87])
@pytest.mark.parametrize("grid", ["w4a8", "w4a16", "w4a16 blocks", "w16a16"])
def test_grids_run_on_every_generation(grid, soc_model):
    """Hexagon v68, v73, v79, v81; what v68 does not take, the notes say."""
    for build in NETS.values():
        net = build()
        extents = ranges(net, samples(net, 4))
        choices = {k: v for k, v in GRIDS[grid].items() if k != "bits"}
        notes = encode(net, extents, activation_bits=GRIDS[grid]["bits"], **choices).notes
        if soc_model == 30 and any("v73 or newer" in note for note in notes):
            with pytest.raises(RuntimeError, match="Unsupported nodes in QNN EP"):
                _compare(net, soc_model=soc_model, **GRIDS[grid])
            continue
        host, simulator = _compare(net, soc_model=soc_model, **GRIDS[grid])
        assert simulator > min(host - 3, 50)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("grid", ["w4a8", "w16a16"])
def test_ops_run_in_other_widths(name, grid):
    host, simulator = _compare(OPS[name], **GRIDS[grid])
    assert simulator > min(host - 3, 50)


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("bits", [8, 16])
def test_blocks_of_a_matmul(size, bits):
    """With more output channels than 32, from which on sizes that HTP has no kernel for compute garbage."""
    net = model(
        [("MatMul", ["x", "w"], ["y"], {})], {"x": [1, 5, 128]}, {"y": [1, 5, 72]}, {"w": weights(7)(128, 72, fan=128)}
    )
    host, simulator = _compare(net, bits, weight_bits=4, block_size=size)
    assert simulator > host - 3


# --- float among integers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tensor"), [("cnn", "x"), ("cnn", "c2"), ("cnn", "w2"), ("cnn", "w5"), ("transformer", "m0")]
)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_tensor_in_float_runs_whole(name, tensor, bits):
    overrides = Overrides({tensor: Override(keep_float=True)})
    host, simulator = _compare(NETS[name](), bits, overrides=overrides)
    assert simulator > min(host - 3, 50)


@pytest.mark.parametrize("tensor", ["x", "g0", "a0", "g1", "m1"])
def test_a_layer_of_channels_behind_float(tensor):
    """With a grid per channel the compiler makes garbage of the Gemm or MatMul that reads what float made (17 to 29 dB)."""
    overrides = Overrides({tensor: Override(keep_float=True)})
    host, simulator = _compare(NETS["transformer"](), 16, overrides=overrides)
    assert simulator > host - 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_random_mixes_run_whole(seed):
    """Every tensor in 8 or 16 bits or float, every weight in 4, 8, 16 or float, with and without blocks."""
    rng = np.random.default_rng(seed)
    for build in NETS.values():
        net = build()
        tensors = {}
        for name in observed_tensors(net):
            bits = rng.choice([8, 16, 0], p=[0.45, 0.45, 0.1])
            tensors[name] = Override(bits=int(bits) or None, keep_float=bits == 0)
        for name, role in Structure(prepared(net)).roles.items():
            if role.kind in ("weight", "gamma"):
                bits = rng.choice([4, 8, 16, 0], p=[0.3, 0.3, 0.3, 0.1])
                tensors[name] = Override(bits=int(bits) or None, keep_float=bits == 0)
        choices = {"overrides": Overrides(tensors), "block_size": [None, 16][seed % 2], "symmetric": seed % 4 > 1}
        host, simulator = _compare(net, 8, **choices)
        assert simulator > min(host - 3, 40)
