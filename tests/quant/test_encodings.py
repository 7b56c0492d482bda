"""Oracles: ONNX Runtime's quantization arithmetic, and its QuantizeLinear and DequantizeLinear kernels."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from onnxruntime.quantization.quant_utils import compute_data_quant_params

from qnb.errors import BadInput
from qnb.quant.encodings import MIN_RANGE, Encoding, Encodings, encoding_from_range

from ._nets import model, run

TYPES = {
    (4, False): TensorProto.UINT4,
    (4, True): TensorProto.INT4,
    (8, False): TensorProto.UINT8,
    (8, True): TensorProto.INT8,
    (16, False): TensorProto.UINT16,
    (16, True): TensorProto.INT16,
}
REAL = st.floats(-1e6, 1e6, width=32)


@pytest.mark.parametrize(("bits", "signed"), TYPES)
@given(a=REAL, b=REAL)
def test_asymmetric_is_onnx_runtimes(bits, signed, a, b):
    low, high = sorted((a, b))
    zero_point, scale = compute_data_quant_params(
        np.array([low, high], np.float32), TYPES[bits, signed], False, min_real_range=MIN_RANGE
    )
    made = encoding_from_range(low, high, bits, signed=signed, symmetric=False)
    assert made.scale[0] == pytest.approx(float(scale), rel=1e-5)
    # ONNX Runtime subtracts in float32, so that a tie may round to the other side
    assert abs(int(made.zero_point[0]) - int(zero_point)) <= 1
    assert made.min[0] <= min(low, 0) + made.scale[0] * 0.51
    assert made.max[0] >= max(high, 0) - made.scale[0] * 0.51


@pytest.mark.parametrize("bits", [8, 16])  # of 4 bits it uses the lowest code too, and clips the upper end
@given(a=REAL, b=REAL)
def test_symmetric_signed_is_onnx_runtimes(bits, a, b):
    low, high = sorted((a, b))
    widest = max(abs(low), abs(high))
    zero_point, scale = compute_data_quant_params(np.array([low, high], np.float32), TYPES[bits, True], True)
    made = encoding_from_range(low, high, bits, signed=True, symmetric=True)
    assert made.symmetric
    assert made.zero_point[0] == zero_point == 0
    if widest >= MIN_RANGE:  # below it ONNX Runtime widens one side only, before it makes the range symmetric
        assert made.scale[0] == pytest.approx(float(scale), rel=1e-5)


@given(a=REAL)
def test_symmetric_unsigned_holds_both_ends(a):
    """On purpose unlike ONNX Runtime, which clips the upper end by half a step."""
    made = encoding_from_range(-abs(a), abs(a), 8, signed=False, symmetric=True)
    assert made.zero_point[0] == 128
    assert made.max[0] >= abs(a) * (1 - 1e-9)
    assert made.min[0] <= -abs(a) * (1 - 1e-9)


def test_zero_is_exact_and_degenerate_ranges_have_a_scale():
    for low, high in ((0, 0), (3, 5), (-5, -3), (1e-30, 1e-30)):
        made = encoding_from_range(low, high, 8, signed=False, symmetric=False)
        assert made.dequantize(made.quantize(np.zeros(1)))[0] == 0
        assert made.scale[0] >= MIN_RANGE / 255 * 0.999
    channels = encoding_from_range([-1, 0], [2, 0], 8, signed=True, symmetric=True, axis=0)
    assert (channels.scale.astype(np.float32) > 0).all()


def test_the_tutorials_example():
    """min -2.5, max 2.5 in 8 bits: scale 5/255; QNN's offset is negative."""
    made = encoding_from_range(-2.5, 2.5, 8, signed=False, symmetric=False)
    assert made.scale[0] == pytest.approx(0.0196078431)
    assert made.offset[0] in (-127, -128)
    assert made.offset[0] == -made.zero_point[0]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_quantize_is_onnx_runtimes_kernel(bits, axis):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((4, 6)).astype(np.float32) * 3
    others = None if axis is None else 1 - axis
    grid = encoding_from_range(
        values.min(others) / 2, values.max(others) / 2, bits, signed=False, symmetric=False, axis=axis
    )
    shape = () if axis is None else (-1,)
    parameters = {
        "s": grid.scale.astype(np.float32).reshape(shape),
        "z": grid.zero_point.astype(grid.dtype).reshape(shape),
    }
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"], attributes),
        ("DequantizeLinear", ["q", "s", "z"], ["y"], attributes),
    ]
    net = model(nodes, {"x": [4, 6]}, {"y": [4, 6]}, parameters, opset=21)
    net.graph.output.append(onnx.helper.make_tensor_value_info("q", getattr(TensorProto, grid.dtype.upper()), [4, 6]))
    outputs = run(net, [{"x": values}])[0]
    # the kernel divides in float32, where a tie may fall to the other side
    difference = outputs["q"].astype(int) - grid.quantize(values).astype(int)
    assert np.abs(difference).max() <= 1
    assert np.count_nonzero(difference) <= 1
    np.testing.assert_allclose(outputs["y"], grid.dequantize(outputs["q"]), rtol=1e-6)


def test_int32_biases_keep_their_bits():
    grid = Encoding(32, True, np.array([1e-7]), np.array([0]))
    values = np.array([100.0000001, -3.25], np.float32)
    assert grid.quantize(values).dtype == np.int32
    np.testing.assert_allclose(grid.dequantize(grid.quantize(values)), values, rtol=1e-7)


@pytest.mark.parametrize(
    ("bits", "scale", "zero_point", "axis", "said"),
    [
        (7, [1.0], [0], None, "7 bits"),
        (8, [1.0, 2.0], [0, 0], None, "no axis"),
        (8, [1.0, 2.0], [0], 0, "zero points"),
        (8, [0.0], [0], None, "positive float32"),
        (8, [1e-50], [0], None, "positive float32"),
        (8, [np.nan], [0], None, "positive float32"),
        (8, [np.inf], [0], None, "positive float32"),
        (8, [1.0], [256], None, "uint8"),
        (8, [1.0], [-1], None, "uint8"),
    ],
)
def test_what_is_no_grid_is_refused(bits, scale, zero_point, axis, said):
    with pytest.raises(BadInput, match=said) as caught:
        Encoding(bits, False, np.array(scale), np.array(zero_point), axis)
    assert caught.value.hint


@pytest.mark.parametrize(("low", "high"), [(1, -1), (np.nan, 1), (0, np.inf)])
def test_what_is_no_range_is_refused(low, high):
    with pytest.raises(BadInput, match="not a range"):
        encoding_from_range(low, high, 8, signed=False, symmetric=False)


def test_encodings_are_values():
    a, b = (encoding_from_range([-1, -2], [1, 2], 8, signed=True, symmetric=True, axis=0) for _ in range(2))
    assert a == b
    assert len({a, b}) == 1
    assert a != encoding_from_range([-1, -2], [1, 2], 8, signed=True, symmetric=True, axis=1)
    with pytest.raises(ValueError, match="read-only"):
        a.scale[0] = 3


def test_frame():
    table = Encodings(
        {"x": encoding_from_range(-1, 3, 8, signed=False, symmetric=False)},
        {
            "w": encoding_from_range([-1, -2], [1, 2], 8, signed=True, symmetric=True, axis=0),
            "b": Encoding(32, True, np.array([0.5, 0.25]), np.array([0, 0]), 0),
        },
    ).frame
    assert list(table.columns) == [
        "tensor", "kind", "bits", "signed", "symmetric", "axis", "channels", "block_size",
        "min", "max", "scale", "zero_point", "offset",
    ]  # fmt: skip
    assert list(table["kind"]) == ["activation", "weight", "bias"]
    assert table["axis"].isna().tolist() == [True, False, False]
    assert table.loc[0, "offset"] == -table.loc[0, "zero_point"] == -64
    assert table.loc[1, "scale"] == pytest.approx(2 / 127)
    assert Encodings().frame.empty
