"""Bit widths and granularities: 4, 8 and 16 bits, per tensor, channel and block.

Oracles: ONNX Runtime's kernels and optimizers on the graphs we write, ONNX's own unpacking of 4-bit tensors, AIMET's rule
for the integers of blocks. What HTP does with the graphs is in test_simulator.py.
"""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from qnb.errors import BadConfig, BadInput
from qnb.jobs.quantizing import quantize
from qnb.quant.blocks import LPBQ_LEVELS, block_encoding
from qnb.quant.encoding_files import dumps
from qnb.quant.encodings import Encoding, encoding_from_range
from qnb.quant.overrides import Override, Overrides
from qnb.quant.qdq import encode, insert_qdq, observed_tensors, weight_encodings
from qnb.quant.structure import Structure, prepared
from qnb.runtime.options import SessionSpec

from ._nets import NETS, cnn, model, ranges, run, samples, sqnr, transformer, weights


@pytest.fixture(scope="module", params=NETS)
def case(request):
    net = NETS[request.param]()
    inputs = samples(net, 4)
    return net, inputs, ranges(net, inputs)


def _roles(net, *kinds):
    return {name: role for name, role in Structure(prepared(net)).roles.items() if role.kind in kinds}


def _with_weights(net, made):
    """Give the float net with each weight rounded to its grid."""
    rounded = onnx.ModelProto()
    rounded.CopyFrom(net)
    for tensor in rounded.graph.initializer:
        if tensor.name in made:
            values = made[tensor.name].dequantize(made[tensor.name].quantize(numpy_helper.to_array(tensor)))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return rounded


# --- the graphs, on ONNX Runtime -------------------------------------------------------------------------------------

CHOICES = [
    {"weight_bits": 4},
    {"weight_bits": 4, "per_channel": False},
    {"weight_bits": 4, "block_size": 16},
    {"weight_bits": 8},
    {"weight_bits": 16},
    {"weight_bits": 16, "per_channel": False},
]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_weights_have_just_their_grids_error(case, choices):
    """With 16-bit activations what is lost is what the float net loses with its weights rounded in numpy."""
    net, inputs, extents = case
    made = encode(net, extents, activation_bits=16, **choices)
    rounding = {n: made.weights[n] for n in _roles(net, "weight", "gamma")}
    expected = run(_with_weights(net, rounding), inputs)
    qdq = insert_qdq(net, made.activations, made.weights)
    onnx.checker.check_model(qdq, full_check=True)
    # 4-bit weights take activations beyond the ranges that were observed without, where they are clipped
    assert sqnr(expected, run(qdq, inputs)) > 45
    assert sqnr(expected, run(qdq, inputs, optimize=False)) > 45


@pytest.mark.parametrize("activation_bits", [8, 16])
def test_more_bits_lose_less(case, activation_bits):
    net, inputs, extents = case
    reference = run(net, inputs)
    figures = []
    for bits in (4, 8, 16):
        made = encode(net, extents, activation_bits=activation_bits, weight_bits=bits)
        figures.append(sqnr(reference, run(insert_qdq(net, made.activations, made.weights), inputs)))
    assert figures[0] > 20
    assert figures[1] > figures[0] + 5
    assert figures[2] > figures[1] - 0.5
    if activation_bits == 16:
        assert figures[2] > 75


def test_blocks_lose_less_than_channels():
    net = transformer()
    inputs = samples(net)
    extents = ranges(net, inputs)
    reference = run(net, inputs)

    def figure(**choices):
        made = encode(net, extents, activation_bits=16, weight_bits=4, **choices)
        return sqnr(reference, run(insert_qdq(net, made.activations, made.weights), inputs))

    assert figure(block_size=16) > figure() + 1 > figure(per_channel=False) + 2


@pytest.mark.parametrize("opset", [13, 17, 20, 21])
@pytest.mark.parametrize("block_size", [None, 16])
def test_opsets(opset, block_size):
    """4 bits below opset 21 use ONNX Runtime's own ops, which have no blocks of them: those models are converted."""
    axes = {"axes": [1]} if opset < 18 else {}
    nodes = [("MatMul", ["x", "w"], ["m"], {}), ("ReduceMean", ["m"] if axes else ["m", "axes"], ["y"], axes)]
    parameters = {"w": weights()(64, 40, fan=64), **({} if axes else {"axes": np.array([1])})}
    net = model(nodes, {"x": [1, 4, 64]}, {"y": [1, 1, 40]}, parameters, opset=opset)
    inputs = samples(net)
    # ranges of the rounded net, so that nothing is clipped
    rounded = _with_weights(net, weight_encodings(net, bits=4, block_size=block_size))
    made = encode(net, ranges(rounded, inputs), activation_bits=16, weight_bits=4, block_size=block_size)
    assert made.weights["w"].block_size == block_size
    qdq = insert_qdq(net, made.activations, made.weights)
    onnx.checker.check_model(qdq)
    assert qdq.ir_version <= 10
    assert sqnr(run(rounded, inputs), run(qdq, inputs)) > 60


def test_four_bit_codes_are_packed_as_onnx_unpacks_them():
    net = model([("MatMul", ["x", "w"], ["y"], {})], {"x": [1, 7]}, {"y": [1, 3]}, {"w": weights()(7, 3)})
    made = encode(net, {"x": (-1, 1), "y": (-1, 1)}, weight_bits=4)
    qdq = insert_qdq(net, made.activations, made.weights)
    stored = next(i for i in qdq.graph.initializer if i.name == "w_quantized")
    assert stored.data_type == onnx.TensorProto.INT4
    assert len(stored.raw_data) == 11
    codes = made.weights["w"].quantize(numpy_helper.to_array(net.graph.initializer[0]))
    np.testing.assert_array_equal(numpy_helper.to_array(stored).astype(np.int8), codes)
    assert codes.min() < 0


# --- blocks ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    bits=st.sampled_from([4, 8]),
    layout=st.sampled_from([((6, 12), 0, 1), ((12, 6), 1, 0), ((6, 12, 3, 2), 0, 1)]),
    size=st.sampled_from([1, 3, 4, 12]),
    levels=st.sampled_from([None, LPBQ_LEVELS]),
)
def test_blocks_hold_their_values(seed, bits, layout, size, levels):
    shape, axis, block_axis = layout
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(shape) * 2.0 ** rng.uniform(-4, 0, shape)).astype(np.float32)
    grid = block_encoding(values, bits, axis=axis, block_axis=block_axis, block_size=size, levels=levels)
    assert grid.blockwise
    assert (grid.channels, grid.blocks) == (6, 12 // size) == grid.scale.shape
    error = np.abs(grid.dequantize(grid.quantize(values)) - values)
    step = grid.per_block(shape, grid.scale).repeat(size, block_axis)
    if levels is None:
        assert (error <= step * 0.5001).all()
        return
    steps = grid.channel_scale[:, None] * grid.block_scale
    np.testing.assert_array_equal(grid.scale, steps)
    np.testing.assert_array_equal(grid.channel_scale, grid.channel_scale.astype(np.float32))
    # AIMET rounds each block's scale to the next multiple of its channel's
    alone = block_encoding(values, bits, axis=axis, block_axis=block_axis, block_size=size, levels=None)
    rounded = np.clip(np.rint(alone.scale / grid.channel_scale[:, None]), 1, LPBQ_LEVELS)
    theirs = Encoding.lpbq(bits, grid.channel_scale, rounded, axis=axis, block_axis=block_axis, block_size=size)
    their_error = np.abs(theirs.dequantize(theirs.quantize(values)) - values)
    assert np.square(error).sum() <= np.square(their_error).sum() * (1 + 1e-6)


def test_one_block_is_a_channel():
    values = weights()(8, 16)
    grid = block_encoding(values, 4, axis=0, block_axis=1, block_size=16, levels=None)
    channel = encoding_from_range(values.min(1), values.max(1), 4, signed=True, symmetric=True, axis=0)
    np.testing.assert_array_equal(grid.dequantize(grid.quantize(values)), channel.dequantize(channel.quantize(values)))
    assert grid != channel
    assert hash(grid) == hash(block_encoding(values, 4, axis=0, block_axis=1, block_size=16, levels=None))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"block_size": None}, "blocks of None"),
        ({"block_axis": 0}, "along axis 0"),
        ({"axis": None}, "channels along axis None"),
        ({"scale": np.ones(4)}, "shape"),
        ({"zero_point": np.zeros(4)}, "zero points"),
        ({"block_scale": np.zeros((4, 2))}, "block scales"),
        ({"block_scale": np.ones((2, 4))}, "block scales"),
        ({"block_scale": np.array([[1, 2]] * 4)}, "not their channel's"),
    ],
)
def test_what_are_no_blocks(parts, said):
    whole = {"scale": np.ones((4, 2)), "zero_point": np.zeros((4, 2)), "axis": 0, "block_axis": 1, "block_size": 8}
    Encoding(4, True, **whole)
    with pytest.raises(BadInput, match=said) as caught:
        Encoding(4, True, **{**whole, **parts})
    assert caught.value.hint


def test_blocks_that_do_not_divide():
    with pytest.raises(BadInput, match="blocks of 5"):
        block_encoding(np.ones((4, 12)), 4, axis=0, block_axis=1, block_size=5)
    with pytest.raises(BadInput, match="2 blocks of 8"):
        Encoding.lpbq(4, np.ones(4), np.ones((4, 2)), axis=0, block_axis=1, block_size=8).quantize(np.ones((4, 12)))
    with pytest.raises(BadInput, match="3 channel scales"):
        Encoding.lpbq(4, np.ones(3), np.ones((4, 2)), axis=0, block_axis=1, block_size=8)


# --- what HTP does not take ------------------------------------------------------------------------------------------


def _extents(net):
    return dict.fromkeys(observed_tensors(net), (-3.0, 3.0))


def _forms(net, **choices):
    made = encode(net, _extents(net), **choices)
    return {n: (e.dtype, e.axis, e.block_size) for n, e in made.weights.items() if e.bits < 32}, " | ".join(made.notes)


def test_sixteen_bits_need_an_op_of_sixteen():
    forms, notes = _forms(cnn(), weight_bits=16, activation_bits=8)
    assert {f[0] for n, f in forms.items() if n.startswith("w")} == {"int8"}
    assert "8 bits instead of 16" in notes
    forms, notes = _forms(cnn(), weight_bits=16, activation_bits=16)
    assert {f[0] for n, f in forms.items() if n.startswith("w")} == {"int16"}
    assert "v73 or newer" in notes
    # one op of 16 bits among those of 8
    forms, notes = _forms(cnn(), weight_bits=16, overrides=Overrides({"c2": Override(bits=16)}))
    assert [n for n, f in forms.items() if f[0] == "int16"] == ["w2"]


def test_four_bits_per_tensor_are_channels_of_one_scale_in_convolutions():
    made = encode(cnn(), _extents(cnn()), weight_bits=4, per_channel=False).weights
    assert made["w0"].axis == 0
    assert len(set(made["w0"].scale)) == 1
    assert made["w5"].axis is None  # Gemm takes it per tensor


def test_normalizations_keep_eight_bits():
    forms, notes = _forms(transformer(), weight_bits=4)
    assert forms["g0"] == ("uint8", None, None)
    assert forms["wo"] == ("int4", 1, None)
    assert "g0, g1: 8 bits instead of 4" in notes


def test_blocks_where_they_are_taken():
    forms, notes = _forms(transformer(), weight_bits=4, block_size=16)
    assert forms["wo"] == forms["w1"] == ("int4", 1, 16)
    assert forms["wq"] == ("int4", 1, None)
    assert "wq, wk, wv: per channel instead of block-wise: HTP takes no blocks in Gemm" in notes
    forms, notes = _forms(cnn(), weight_bits=4, activation_bits=16, block_size=16)
    assert forms["w2"] == ("int4", 0, 16)
    assert forms["w3"] == ("int4", 0, None)
    assert "1 x 1 convolutions" in notes
    for choices, said in (
        ({"activation_bits": 8, "block_size": 16}, "16-bit activations only"),
        ({"activation_bits": 16, "block_size": 12}, "multiple of 8"),
        ({"activation_bits": 16, "block_size": 24}, "24 don't divide 16"),
        ({"activation_bits": 16, "block_size": 16, "weight_bits": 8}, "4-bit weights only"),
    ):
        forms, notes = _forms(cnn(), **{"weight_bits": 4, **choices})
        assert forms["w2"][2] is None
        assert said in notes
    for size in (8, 24, 48):
        assert "a power of two from 16 on" in _forms(transformer(), weight_bits=4, block_size=size)[1]


@pytest.mark.parametrize(
    ("data", "shape", "axis"), [([2, 8], [8, 6], 1), ([1, 2, 4, 8], [8, 6], 1), ([2, 4, 8], [2, 8, 6], None)]
)
def test_matmul_weights(data, shape, axis):
    """Channels are of a matrix only; blocks of one that is multiplied with data of up to three axes."""
    result = list(np.matmul(np.ones(data), np.ones(shape)).shape)
    net = model([("MatMul", ["x", "w"], ["y"], {})], {"x": data}, {"y": result}, {"w": weights()(*shape)})
    forms, notes = _forms(net, weight_bits=4)
    assert forms["w"] == ("int4", axis, None)
    assert ("per tensor instead of per channel" in notes) == (axis is None)


def test_a_left_operand_has_one_grid():
    net = model([("MatMul", ["w", "x"], ["y"], {})], {"x": [8, 2]}, {"y": [6, 2]}, {"w": weights()(6, 8)})
    assert _forms(net, weight_bits=4)[0]["w"] == ("int4", None, None)


def test_behind_float_a_layer_of_channels_has_one_grid():
    """In 16 bits HTP computes garbage of it (see test_simulator.py)."""
    overrides = Overrides({"a0": Override(keep_float=True)})
    forms, notes = _forms(transformer(), activation_bits=16, overrides=overrides)
    assert forms["w1"] == ("int8", None, None)
    assert forms["w2"] == forms["wo"] == ("int8", 1, None)
    assert "w1: per tensor instead of per channel: behind an op in float" in notes
    assert _forms(transformer(), activation_bits=8, overrides=overrides)[0]["w1"] == ("int8", 1, None)


def test_nothing_is_noted_where_all_is_as_asked():
    for net in NETS.values():
        assert encode(net(), _extents(net()), activation_bits=16).notes == ()


# --- mixed with float ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["w0", "w2", "w5"])
def test_a_layer_in_float_stays_in_float(name):
    """ONNX Runtime's optimizer gives int8 to a float weight between integers: with it and without the result is the same."""
    net = cnn()
    inputs = samples(net)
    made = encode(net, ranges(net, inputs), overrides=Overrides({name: Override(keep_float=True)}))
    assert not {name, name.replace("w", "b")} & set(made.weights)
    qdq = insert_qdq(net, made.activations, made.weights)
    for plain, optimized in zip(run(qdq, inputs, optimize=False), run(qdq, inputs), strict=True):
        step = made.activations["y"].scale[0]  # the kernels' last bits may fall to the other side of a rounding
        np.testing.assert_allclose(optimized["y"], plain["y"], atol=1.01 * step)
    reference = run(net, inputs)
    quantized = encode(net, ranges(net, inputs))
    other = insert_qdq(net, quantized.activations, quantized.weights)
    assert sqnr(reference, run(qdq, inputs)) > sqnr(reference, run(other, inputs)) - 1


def test_float_data_makes_its_reader_float():
    for tensor, floats in (("x", {"w0", "b0"}), ("c2", {"w2", "b2"}), ("r0", {"w0", "b0", "w1", "b1"})):
        made = encode(cnn(), _extents(cnn()), overrides=Overrides({tensor: Override(keep_float=True)}))
        parameters = set(_roles(cnn(), "weight", "bias"))
        assert parameters - set(made.weights) == floats


def test_a_parameter_of_an_integer_and_a_float_op_is_read_as_both():
    w = weights()
    nodes = [
        ("Conv", ["x", "w"], ["c"], {"pads": [1, 1, 1, 1]}),
        ("Conv", ["c", "w"], ["d"], {"pads": [1, 1, 1, 1]}),
        ("Add", ["d", "k"], ["e"], {}),
        ("Mul", ["e", "k"], ["y"], {}),
    ]
    parameters = {"w": w(4, 4, 3, 3), "k": np.float32(0.5)}
    net = model(nodes, {"x": [1, 4, 6, 6]}, {"y": [1, 4, 6, 6]}, parameters)
    inputs = samples(net)
    made = encode(net, ranges(net, inputs), overrides=Overrides({"d": Override(keep_float=True)}))
    qdq = insert_qdq(net, made.activations, made.weights)
    readers = {n.name: list(n.input) for n in qdq.graph.node if n.op_type in ("Conv", "Add", "Mul")}
    assert readers["Conv_0"][1] == "w_dequantized"
    assert readers["Conv_1"][1] == "w"
    assert readers["Add_2"][1] == "k"
    assert readers["Mul_3"][1] == "k_dequantized"
    assert sqnr(run(net, inputs), run(qdq, inputs)) > 30


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_mix_is_a_valid_graph(data):
    net = data.draw(st.sampled_from([cnn, transformer]))()
    tensors = {}
    for name in observed_tensors(net):
        bits = data.draw(st.sampled_from([8, 16, None]), name)
        tensors[name] = Override(bits=bits, keep_float=bits is None)
    for name in _roles(net, "weight", "gamma"):
        bits = data.draw(st.sampled_from([4, 8, 16, None]), name)
        tensors[name] = Override(bits=bits, keep_float=bits is None)
    made = encode(net, _extents(net), overrides=Overrides(tensors), block_size=data.draw(st.sampled_from([None, 16])))
    qdq = insert_qdq(net, made.activations, made.weights)
    onnx.checker.check_model(qdq, full_check=True)
    stored = {i.name: i for i in qdq.graph.initializer}
    producers = {name: n for n in qdq.graph.node for name in n.output}
    quantized = {n.input[0] for n in qdq.graph.node if n.op_type == "QuantizeLinear"}
    for node in qdq.graph.node:
        sources = [producers.get(name) for name in node.input]
        if not any(s is not None and s.op_type == "DequantizeLinear" and s.input[0] in stored for s in sources):
            continue
        if node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            continue
        # an op with integer parameters has integer data, and its result is rounded at once
        floats = [name for name in node.input if name in stored and stored[name].data_type == onnx.TensorProto.FLOAT]
        assert not floats, node.name
        assert all(s.op_type == "DequantizeLinear" for s in sources if s is not None), node.name
        assert set(node.output) <= quantized, node.name


# --- choices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
def test_symmetric_activations(case, bits):
    net, inputs, extents = case
    made = encode(net, extents, activation_bits=bits, symmetric=True)
    middle = 1 << (bits - 1)
    points = {name: int(e.zero_point[0]) for name, e in made.activations.items()}
    assert set(points.values()) == {0, middle}
    for name, (low, high) in extents.items():
        assert points[name] == (middle if low < 0 else 0), name
        grid = made.activations[name]
        assert grid.max[0] >= max(-low if low < 0 else 0, high) * (1 - 1e-6) or bits == 16  # 16-bit Sigmoid is fixed
    reference = run(net, inputs)
    assert sqnr(reference, run(insert_qdq(net, made.activations, made.weights), inputs)) > {8: 25, 16: 33}[bits]


def test_chosen_weights():
    net = cnn()
    inputs = samples(net)
    extents = ranges(net, inputs)
    mine = {n: e for n, e in weight_encodings(net, bits=4).items() if n in ("w2", "w3")}
    finer = {n: Encoding(4, True, e.scale * 0.8, e.zero_point, e.axis) for n, e in mine.items()}
    made = encode(net, extents, weights=finer)
    assert {n: made.weights[n] for n in finer} == finer
    assert made.weights["w0"].bits == 8
    np.testing.assert_allclose(made.weights["b2"].scale, made.activations["r1"].scale * finer["w2"].scale, rtol=1e-6)
    # what is said by hand goes before: other bits, or float
    said = Overrides({"w2": Override(bits=8), "w3": Override(keep_float=True)})
    made = encode(net, extents, weights=finer, overrides=said)
    assert made.weights["w2"] == encode(net, extents).weights["w2"]
    assert "w3" not in made.weights
    wide = {"w2": weight_encodings(net, bits=16)["w2"]}
    with pytest.raises(BadConfig, match=r"'w2'.*16 bits") as caught:
        encode(net, extents, weights=wide)
    assert "16-bit activations only" in caught.value.hint


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (Encoding(4, True, np.ones(1), np.array([3])), "4-bit weights signed and symmetric"),
        (Encoding(8, True, np.ones(16), np.full(16, 5), 0), "channels without zero points"),
        (Encoding(16, False, np.ones(16), np.full(16, 32768), 0), "16-bit weights"),
        (Encoding.lpbq(4, np.ones(16), np.ones((16, 1)), axis=0, block_axis=1, block_size=16), "along axis 1, in one"),
    ],
)
def test_chosen_grids_that_htp_refuses(grid, said):
    net = cnn()
    with pytest.raises(BadConfig, match="'w2'") as caught:
        encode(net, _extents(net), activation_bits=16, weights={"w2": grid})
    assert said in caught.value.hint


@pytest.mark.parametrize("block_size", [None, 16])
def test_the_job(tmp_path, block_size):
    net = transformer()
    onnx.save(net, tmp_path / "net.onnx")
    extents = {name: list(extent) for name, extent in ranges(net, samples(net)).items()}
    chosen = {n: e for n, e in weight_encodings(net, bits=4, block_size=block_size).items() if n in ("wo", "w1")}
    (tmp_path / "chosen.json").write_text(dumps(type(encode(net, None))({}, chosen)))
    args = {
        "model": str(tmp_path / "net.onnx"),
        "out": str(tmp_path / "out.onnx"),
        "encodings": str(tmp_path / "out.json"),
        "activation_bits": 16,
        "weight_bits": 4,
        "per_channel": True,
        "block_size": block_size,
        "symmetric": True,
        "chosen": str(tmp_path / "chosen.json"),
        "ranges": extents,
        "overrides": None,
        "spec": SessionSpec(str(tmp_path / "out.onnx"), "ort").plain(),
    }
    answer, _ = quantize(None, args, {})
    given = {name: tuple(extent) for name, extent in extents.items()}
    made = encode(net, given, activation_bits=16, weight_bits=4, block_size=block_size, symmetric=True, weights=chosen)
    assert answer["notes"] == list(made.notes)
    assert (tmp_path / "out.json").read_text() == dumps(made)
    written = insert_qdq(net, made.activations, made.weights)
    assert onnx.load(tmp_path / "out.onnx").graph == written.graph
    (tmp_path / "chosen.json").write_text('{"activation_encodings": {"x": {"min": -1, "max": 1}}}')
    with pytest.raises(BadConfig, match="'x' is no weight"):
        quantize(None, args, {})


@pytest.mark.parametrize("per_channel", [True, False])
def test_four_bits_lose_no_more_than_on_onnx_runtimes_scale(per_channel):
    """Oracle: the squared error on the scale of ONNX Runtime's quantizer, 2 max|w| / 15, all 16 codes in use."""
    net = cnn()
    stored = {i.name: numpy_helper.to_array(i).astype(np.float64) for i in net.graph.initializer}
    chosen = {n: e for n, e in weight_encodings(net, bits=4, per_channel=per_channel).items() if e.bits == 4}
    assert chosen
    gains = []
    for name, encoding in chosen.items():
        values = stored[name]
        others = tuple(i for i in range(values.ndim) if i != encoding.axis) if per_channel else None
        theirs = 2 * np.abs(values).max(others, keepdims=True) / 15
        error = np.square(values - np.clip(np.rint(values / theirs), -8, 7) * theirs).sum()
        ours = np.square(values - encoding.dequantize(encoding.quantize(values.astype(np.float32)))).sum()
        assert ours <= error * 1.0001, name
        gains.append(error / ours)
    assert max(gains) > 1.05
