"""Oracles: examples of AIMET's encoding specification (numbers from there), and round trips."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnb.errors import BadConfig, StorageError, UnknownName
from qnb.quant.encoding_files import FORMATS, EncodingFileWarning, dumps, read, write
from qnb.quant.encodings import Encoding, Encodings, encoding_from_range

ANY = Encoding(8, False, np.array([1.0]), np.array([0]))


def _scales(size):
    return st.lists(st.floats(1e-9, 1e9), min_size=size, max_size=size)


@st.composite
def _encoding(draw, activation):
    bits = draw(st.sampled_from((8, 16) if activation else (4, 8, 16, 32)))
    signed = False if activation else draw(st.booleans())
    size = 1 if activation else draw(st.integers(1, 4))
    axis = None if size == 1 else draw(st.integers(0, 3))
    low = -(1 << (bits - 1)) if signed else 0
    points = st.lists(st.integers(low, low + (1 << bits) - 1), min_size=size, max_size=size)
    return Encoding(bits, signed, np.array(draw(_scales(size))), np.array(draw(points)), axis)


@settings(deadline=None)
@given(
    activations=st.dictionaries(st.text(max_size=8).map("a{}".format), _encoding(activation=True), max_size=3),
    weights=st.dictionaries(st.text(max_size=8).map("w{}".format), _encoding(activation=False), max_size=3),
    layout=st.sampled_from(FORMATS),
)
def test_round_trip_is_exact(activations, weights, layout):
    """Axes are not in files before 2.0.0: there they come from the tensor's default."""
    overrides = read(json.loads(dumps(Encodings(activations, weights), layout)))
    assert set(overrides.tensors) == set(activations) | set(weights)
    for name, encoding in {**activations, **weights}.items():
        default = Encoding(8, False, np.ones(encoding.channels), np.zeros(encoding.channels, int), encoding.axis)
        assert overrides.complete(name, default) == encoding


@pytest.mark.parametrize("layout", FORMATS)
def test_files(tmp_path, layout):
    encodings = Encodings(
        {"x": ANY}, {"w": encoding_from_range([-1, -2], [1, 2], 8, signed=True, symmetric=True, axis=0)}
    )
    path = write(encodings, tmp_path / "encodings.json", layout)
    default = Encoding(8, True, np.ones(2), np.zeros(2, int), 0)
    for source in (path, str(path), path.read_text(), json.loads(path.read_text())):
        assert read(source).complete("w", default) == encodings.weights["w"]
    assert str(path) in read(path).origin
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write(encodings, tmp_path / "file" / "below.json", layout)


def test_specification_1_0_0():
    """A signed (symmetric) 8-bit grid has the offset -128 there, and an unsigned one minus its zero point."""
    tensor = {"enc_type": "PER_TENSOR", "dtype": "INT", "bw": 8, "scale": [0.01]}
    channels = {"enc_type": "PER_CHANNEL", "dtype": "INT", "bw": 8, "scale": [0.01, 0.02]}
    overrides = read(
        {
            "version": "1.0.0",
            "producer": {"package": "aimet-onnx", "version": "2.42.0"},
            "activation_encodings": [
                {"name": "x", **tensor, "is_sym": False, "offset": [-41.0]},
                {"name": "y", **tensor, "is_sym": True, "offset": [-128]},
                {"name": "z", "enc_type": "PER_TENSOR", "dtype": "FLOAT", "bw": 16},
            ],
            "param_encodings": [{"name": "w", **channels, "is_sym": True, "offset": [-128, -128]}],
            "quantizer_args": {"activation_bitwidth": 8},
            "excluded_layers": [],
        }
    )
    assert overrides.complete("x", ANY) == Encoding(8, False, np.array([0.01]), np.array([41]))
    # what AIMET simulates as signed runs unsigned on HTP: the same grid
    assert overrides.complete("y", ANY) == Encoding(8, False, np.array([0.01]), np.array([128]))
    assert overrides.complete("z", ANY) is None
    weight = overrides.complete("w", Encoding(8, True, np.ones(2), np.zeros(2, int), 0))
    assert weight == Encoding(8, True, np.array([0.01, 0.02]), np.array([0, 0]), 0)


def test_specification_2_0_0():
    overrides = read(
        {
            "version": "2.0.0",
            "encodings": [
                {"name": "x", "y_scale": 0.01, "y_zero_point": 41, "output_dtype": "uint8"},
                {"name": "w", "y_scale": [0.01, 0.02, 0.03], "axis": 0, "output_dtype": "int8"},
                {
                    "name": "b",
                    "y_scale": [0.01, 0.02, 0.03],
                    "y_zero_point": [0, 0, 0],
                    "axis": 0,
                    "output_dtype": "int32",
                },
            ],
        }
    )
    channels = Encoding(8, True, np.ones(3), np.zeros(3, int), 0)
    assert overrides.complete("x", ANY) == Encoding(8, False, np.array([0.01]), np.array([41]))
    assert overrides.complete("w", channels) == Encoding(8, True, np.array([0.01, 0.02, 0.03]), np.zeros(3, int), 0)
    assert overrides.complete("b", channels).dtype == "int32"


def test_specification_0_4_0_activation():
    """The specification's PyTorch example: min, max, offset and scale agree."""
    entry = {
        "bitwidth": 8, "is_symmetric": "False", "max": 2.6086959838867188, "min": -2.109158515930176,
        "offset": -114.0, "scale": 0.018501389771699905,
    }  # fmt: skip
    made = read({"version": "0.4.0", "activation_encodings": {"20": [entry]}, "param_encodings": {}}).complete(
        "20", ANY
    )
    assert (made.zero_point[0], made.min[0]) == (114, pytest.approx(entry["min"], rel=1e-6))
    assert made.max[0] == pytest.approx(entry["max"], rel=1e-6)


FLAT = {
    "activation_encodings": {"relu": {"bitwidth": 8, "min": 0.0, "max": 6.0, "scale": 0.0235294, "offset": 0}},
    "param_encodings": {"conv.weight": {"bitwidth": 8, "min": -2.5, "max": 2.5, "scale": 0.0196078, "offset": 127}},
    "activation_bitwidth": 8,
    "param_bitwidth": 8,
    "bias_bitwidth": 32,
}


def test_tutorials_flat_file_and_its_offset():
    """A positive offset beside a negative minimum is an unsigned zero point: made from the range, and said."""
    with pytest.warns(EncodingFileWarning, match=r"conv\.weight.*127"):
        overrides = read(FLAT)
    assert (overrides.activation_bits, overrides.param_bits) == (8, 8)
    weight = overrides.complete("conv.weight", ANY)
    assert weight == encoding_from_range(-2.5, 2.5, 8, signed=False, symmetric=False)
    # grid and range agree to the step, and where they do the grid counts
    assert overrides.complete("relu", ANY) == Encoding(8, False, np.array([0.0235294]), np.array([0]))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"bitwidth": 16}, (16, -1.0, 3.0)),
        ({"min": -4.0}, (8, -4.0, 3.0)),
        ({"max": 9.0}, (8, -1.0, 9.0)),
        ({"min": -4.0, "max": 4.0}, (8, -4.0, 4.0)),
        ({}, (8, -1.0, 3.0)),
    ],
)
def test_partial_entries_override_just_that(entry, expected):
    default = encoding_from_range(-1, 3, 8, signed=False, symmetric=False)
    made = read({"activation_encodings": {"x": entry}}).complete("x", default)
    assert made.bits == expected[0]
    np.testing.assert_allclose([made.min[0], made.max[0]], expected[1:], atol=max(default.scale[0], made.scale[0]))


def test_yaml():
    overrides = read("activation_encodings:\n  x:\n    bitwidth: 16\nactivation_bitwidth: 8\n")
    assert overrides.tensors["x"].bits == 16
    assert read("{activation_encodings: {x: {min: -1, max: 2}}}").tensors["x"].has_grid


def _one(entry, version="1.0.0"):
    return {"version": version, "activation_encodings": [entry], "param_encodings": []}


GOOD_1 = {
    "name": "x",
    "enc_type": "PER_TENSOR",
    "dtype": "INT",
    "bw": 8,
    "is_sym": False,
    "scale": [0.1],
    "offset": [0],
}
GOOD_2 = {"name": "x", "output_dtype": "uint8", "y_scale": 0.1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "not a mapping"),
        ({"activation_encoding": {}}, "activation_encoding"),
        ({"activation_encodings": {"x": {"bitwdth": 8}}}, "did you mean bitwidth"),
        ({"activation_encodings": {"x": {"bitwidth": 7}}}, "bitwidth is 7"),
        ({"activation_encodings": {"x": {"bitwidth": "8"}}}, "bitwidth is '8'"),
        ({"activation_encodings": {"x": {"min": "a"}}}, "min is 'a'"),
        ({"activation_encodings": {"x": {"min": float("nan")}}}, "finite"),
        ({"activation_encodings": {"x": {"min": 2, "max": 1}}}, "min is above max"),
        ({"activation_encodings": {"x": {"scale": -1.0}}}, "not above 0"),
        ({"activation_encodings": {"x": {"scale": 0.1, "offset": 3.5, "bitwidth": 8}}}, "whole numbers"),
        ({"activation_encodings": {"x": {"scale": 0.1, "offset": 3, "bitwidth": 8}}}, "at most 0"),
        ({"activation_encodings": {"x": {"offset": -3, "bitwidth": 8}}}, "without scale"),
        ({"activation_encodings": {"x": {"scale": 0.1, "offset": -3}}}, "without bitwidth"),
        ({"activation_encodings": {"x": {"bitwidth": 8, "min": -1, "max": 9, "scale": 0.1, "offset": -3}}}, "min is -1"),
        ({"activation_encodings": {"x": 3}}, "not an encoding"),
        ({"activation_encodings": [3]}, "without a name|not an encoding"),
        ({"activation_bitwidth": 5}, "activation_bitwidth is 5"),
        ({"bias_bitwidth": 8}, "bias_bitwidth is 8"),
        ({"version": "9.0"}, "version is '9.0'"),
        ({"version": "2.0.0", "activation_encodings": {}}, "don't fit version"),
        ({"version": "0.6.1", "activation_encodings": {"x": {"bitwidth": 8}}}, "not a list"),
        ({"version": "0.6.1", "activation_encodings": {"x": [{"bitwidth": 8}]}}, "no is_symmetric"),
        (_one({**GOOD_1, "enc_type": "PER_BLOCK", "block_size": 4}), "per block"),
        (_one({**GOOD_1, "enc_type": "LPBQ"}), "per block"),
        (_one({**GOOD_1, "bw": 3}), "bw is 3"),
        (_one({**GOOD_1, "is_sym": "maybe"}), "is_sym"),
        (_one({**GOOD_1, "scale": [0.1, 0.2]}), "2 scales and 1 offsets"),
        (_one({**GOOD_1, "offset": [5]}), "at most 0"),
        (_one({k: v for k, v in GOOD_1.items() if k != "offset"}), "no offset"),
        (_one({k: v for k, v in GOOD_1.items() if k != "name"}), "without a name"),
        ({"version": "1.0.0", "activation_encodings": [GOOD_1, GOOD_1]}, "there twice"),
        ({"encodings": [{**GOOD_2, "output_dtype": "float8e4m3fn"}]}, "float8e4m3fn"),
        ({"encodings": [{**GOOD_2, "output_dtype": "uint7"}]}, "uint7"),
        ({"encodings": [{**GOOD_2, "y_scale": [0.1, 0.2]}]}, "axis None"),
        ({"encodings": [{**GOOD_2, "y_scale": {"x": [1]}}]}, r"encodings\[0\]\.y_scale is {'x': \[1\]} \(tensor 'x'\)"),
        ({"encodings": [{**GOOD_2, "axis": "0"}]}, "axis is '0'"),
        ({"encodings": [{**GOOD_2, "y_zero_point": -0.5}]}, "integer zero point"),
        ({"encodings": [{**GOOD_2, "bw": 8}]}, "bw"),
        ("{nonsense", "line 1, column 2"),
    ],
)  # fmt: skip
def test_refusals_say_where(content, said):
    with pytest.raises(BadConfig, match=said) as caught:
        read(content)
    assert caught.value.hint


BLOCKS_1 = {**GOOD_1, "enc_type": "PER_BLOCK", "is_sym": True, "bw": 4, "block_size": 4}
BLOCKS_1 |= {"scale": [0.1, 0.2, 0.3, 0.4], "offset": [-8] * 4}
LPBQ_1 = {**BLOCKS_1, "enc_type": "LPBQ", "bw": 8, "compressed_bw": 4}
LPBQ_1 |= {"scale": [0.1, 0.2], "offset": [-128] * 2, "per_block_int_scale": [1, 16, 3, 16]}
BLOCKS_2 = {"name": "w", "output_dtype": "int4", "y_scale": [[0.1, 0.2], [0.3, 0.4]], "axis": 1, "block_size": 4}
LPBQ_2 = {"name": "w", "output_dtype": "int4", "per_channel_float_scale": [[0.1], [0.2]], "axis": 1, "block_size": 4}
LPBQ_2 |= {"per_block_int_scale": [[1, 16], [3, 16]]}


def _weight(entry):
    return {"version": "1.0.0", "activation_encodings": [], "param_encodings": [entry]}


def _without(entry, key):
    return {k: v for k, v in entry.items() if k != key}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"encodings": [GOOD_2, {"name": "w", "output_dtype": "int8", "y_scale": "1"}]}, r"encodings\[1\]\.y_scale is '1'"),
        ({"param_encodings": {"x": {}, "a.b/c": [{"min": 1.0}, {"min": "1"}]}}, r"param_encodings\['a\.b/c'\]\[1\]\.min is"),
        ({"param_encodings": {"w": {"bitwidth": 9}}}, r"param_encodings\['w'\]\.bitwidth is 9"),
        ({"version": "0.6.1", "param_encodings": {"w": [{"bitwidth": 8}]}}, r"param_encodings\['w'\]\[0\]: no is_symmetric"),
        (_weight({**GOOD_1, "scale": [0.1, "x"]}), r"param_encodings\[0\]\.scale is \[0\.1, 'x'\] \(tensor 'x'\)"),
        (_weight({**GOOD_1, "zero_point_shift": [0.5]}), r"zero_point_shift.*between two codes"),
        (_weight({**GOOD_1, "enc_type": "PER_ROW"}), r"enc_type is 'PER_ROW'"),
        (_weight({**BLOCKS_1, "scale": [[0.1]]}), r"scale \(tensor 'x'\): nested lists"),
        (_weight(_without(BLOCKS_1, "block_size")), "no block_size"),
        (_weight({**BLOCKS_1, "block_size": 0}), r"block_size is 0"),
        (_weight({**LPBQ_1, "per_block_int_scale": [1, 16, 3]}), "2 scales and 3 block scales"),
        (_weight({**LPBQ_1, "per_block_int_scale": [1, 17, 3, 1]}), r"per_block_int_scale is 17"),
        (_weight({**LPBQ_1, "per_block_int_scale": [1, 0, 3, 1]}), r"per_block_int_scale is 0"),
        (_weight({**LPBQ_1, "is_sym": False}), r"is_sym is False"),
        (_weight({**LPBQ_1, "compressed_bw": 5}), r"compressed_bw is 5"),
        ({"encodings": [_without(BLOCKS_2, "axis")]}, "axis None"),
        ({"encodings": [{**BLOCKS_2, "axis": 2}]}, "along axis 2"),
        ({"encodings": [{**BLOCKS_2, "y_scale": [[0.1, 0.2], [0.3]]}]}, "lists of different lengths"),
        ({"encodings": [_without(BLOCKS_2, "block_size")]}, "no block_size"),
        ({"encodings": [{**BLOCKS_2, "y_scale": [[[1.0] * 2] * 2] * 2}]}, r"scales of shape \[2, 2, 2\]"),
        ({"encodings": [_without(LPBQ_2, "per_block_int_scale")]}, "no per_block_int_scale"),
        ({"encodings": [_without(LPBQ_2, "axis")]}, "no axis"),
        ({"encodings": [{**LPBQ_2, "output_dtype": "uint4"}]}, "output_dtype is 'uint4'"),
        ({"encodings": [{**LPBQ_2, "per_channel_float_scale": [[0.1]]}]}, "1 channel scales for 2 channels"),
        ({"encodings": [{**LPBQ_2, "y_scale": [0.1]}]}, "unknown key 'y_scale'"),
    ],
)  # fmt: skip
def test_refusals_name_the_field(content, said):
    with pytest.raises(BadConfig, match=said) as caught:
        read(content)
    assert caught.value.hint


def test_a_bad_field_is_named_with_its_file(tmp_path):
    (tmp_path / "bad.json").write_text(
        json.dumps({"version": "2.0.0", "encodings": [GOOD_2, {**BLOCKS_2, "axis": True}]})
    )
    with pytest.raises(BadConfig, match=r"bad\.json: encodings\[1\]\.axis is True \(tensor 'w'\)"):
        read(tmp_path / "bad.json")


def test_blocks_lie_along_the_axes_of_the_tensor():
    """One list of blocks says nothing of axes; the same numbers make the same grid in both versions."""
    one, zero = np.ones((2, 2)), np.zeros((2, 2), int)
    rows = Encoding(4, True, one, zero, 0, 1, 4)
    for first, second in ((BLOCKS_1, BLOCKS_2), (LPBQ_1, LPBQ_2)):
        flat = read(_weight({**first, "name": "w"})).complete("w", rows)
        nested = read({"encodings": [second]}).complete("w", rows)
        assert flat == nested
        assert (flat.axis, flat.block_axis, flat.block_size, flat.bits) == (0, 1, 4, 4)
        turned = read(_weight({**first, "name": "w"})).complete("w", Encoding(4, True, one, zero, 1, 0, 4))
        np.testing.assert_array_equal(turned.scale, flat.scale)
        with pytest.raises(BadConfig, match="blocks along axis 1"):
            read({"encodings": [second]}).complete("w", Encoding(4, True, one, zero, 1, 0, 4))
    with pytest.raises(BadConfig, match="'w': 4 scales for 3 channels"):
        read(_weight({**BLOCKS_1, "name": "w"})).complete(
            "w", Encoding(4, True, one[[0, 0, 0]], zero[[0, 0, 0]], 0, 1, 4)
        )


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(BadConfig, match=r"nowhere\.json"):
        read(tmp_path / "nowhere.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(BadConfig, match=r"binary\.json"):
        read(tmp_path / "binary.json")


def test_zero_point_out_of_its_type_is_refused_when_completed():
    overrides = read({"encodings": [{**GOOD_2, "y_zero_point": 300}]})
    with pytest.raises(BadConfig, match=r"'x'.*uint8"):
        overrides.complete("x", ANY)


def test_writing_refuses_what_a_format_cannot_say():
    signed = Encodings({"x": Encoding(8, True, np.array([1.0]), np.array([3]))})
    assert "int8" in dumps(signed)
    with pytest.raises(BadConfig, match="signed activation"):
        dumps(signed, "1.0.0")
    with pytest.raises(UnknownName, match=r"1\.0"):
        dumps(signed, "1.0")
