"""Weight optimization over whole nets. Oracles: the nets' float outputs on ONNX Runtime, and nearest rounding."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from qnb.errors import CalibrationError
from qnb.quant.encodings import Encodings, encoding_from_range
from qnb.quant.layerwise import Store, optimise
from qnb.quant.linear import inferred, linears, patches, put
from qnb.quant.qdq import encode, insert_qdq
from qnb.quant.structure import Structure, prepared

from ._nets import NETS, model, ranges, run, samples, sqnr, weights


def load(net):
    session = ort.InferenceSession(net.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda sample: dict(zip(names, session.run(None, sample), strict=True))


def encodings_of(net, inputs, weight_bits, activation_bits=8):
    """Encodings whose weights per channel have `weight_bits`, from smallest and largest."""
    made = encode(net, ranges(net, inputs), activation_bits=activation_bits)
    structure = Structure(prepared(net))
    coarse = {}
    for name, encoding in made.weights.items():
        if structure.roles[name].kind == "weight" and encoding.axis is not None:
            values = structure.values(name)
            others = tuple(i for i in range(values.ndim) if i != encoding.axis)
            coarse[name] = encoding_from_range(
                values.min(others), values.max(others), weight_bits, signed=True, symmetric=True, axis=encoding.axis
            )
        elif encoding.bits != 32:
            coarse[name] = encoding
    return Encodings(made.activations, coarse)


def quantized(net, encodings):
    """Q/DQ of activations, and weights put on their grids: what 4-bit codes give, on any runtime."""
    structure = Structure(prepared(net))
    others = {}
    for name, encoding in encodings.weights.items():
        if structure.roles[name].kind == "weight":
            put(structure, name, encoding.dequantize(encoding.quantize(structure.values(name))))
        else:
            others[name] = encoding
    return insert_qdq(structure.model, encodings.activations, others)


@pytest.mark.parametrize("attributes", [
    {},
    {"pads": [1, 2, 0, 1], "strides": [2, 1]},
    {"dilations": [2, 1], "group": 2},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2], "group": 4},
])  # fmt: skip
def test_patches_times_weights_are_the_convolution(attributes):
    w = weights(1)
    group = attributes.get("group", 1)
    net = model([("Conv", ["x", "w"], ["y"], attributes)], {"x": [1, 4, 9, 7]}, {"y": [1, 8, None, None]},
                {"w": w(8, 4 // group, 3, 2)})  # fmt: skip
    layer = next(linears(Structure(net)))
    x = samples(net, 1)[0]["x"]
    expected = run(net, [{"x": x}])[0]["y"]
    weight = layer.canonical(numpy_helper.to_array(net.graph.initializer[0]))
    rows = patches(layer, x)
    y = np.einsum("rgk,gok->rgo", rows, weight.reshape(group, 8 // group, -1)).reshape(-1, 8)
    np.testing.assert_allclose(y.T.reshape(expected.shape[1:]), expected[0], rtol=1e-4, atol=1e-4)
    some = patches(layer, x, np.array([0.0, 0.5, 0.99]))
    assert some.shape == (3, *rows.shape[1:])
    assert (some[0] == rows[0]).all()


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Gemm", "GemmT", "MatMul"])
def test_canonical_weights_number_channels_as_the_op_does(op):
    """Oracle: torch's weight layouts, one output channel and one input channel at a time."""
    w = weights(2)
    shapes = {"Conv": (6, 2, 3, 3), "ConvTranspose": (4, 3, 3, 3), "Gemm": (4, 6), "GemmT": (6, 4), "MatMul": (4, 6)}
    attributes = {"Conv": {"group": 2}, "ConvTranspose": {"group": 2}, "GemmT": {"transB": 1}}.get(op, {})
    picture = op.startswith("Conv")
    net = model([(op.removesuffix("T") if op == "GemmT" else op, ["x", "w"], ["y"], attributes)],
                {"x": [1, 4, 5, 5] if picture else [1, 4]}, {"y": [1, 6, None, None] if picture else [1, 6]},
                {"w": w(*shapes[op])})  # fmt: skip
    layer = next(linears(Structure(net)))
    values = numpy_helper.to_array(net.graph.initializer[0])
    canonical = layer.canonical(values)
    assert (layer.stored(canonical) == values).all()
    groups, outputs, inputs, _ = canonical.shape
    assert (groups * outputs, groups * inputs) == (layer.outputs, layer.inputs) == (6, 4)
    for channel in range(4):
        x = np.zeros([1, 4, 5, 5] if picture else [1, 4], np.float32)
        x[0, channel] = 1
        reached = np.abs(run(net, [{"x": x}])[0]["y"]).reshape(6, -1).max(1) > 0
        group, index = divmod(channel, inputs)
        expected = np.zeros((groups, outputs), bool)
        expected[group] = np.abs(canonical[group, :, index]).max(-1) > 0
        assert (reached == expected.reshape(-1)).all()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", ["gptq", "adaround", "seqmse"])
def test_whole_nets_gain(name, method):
    net = NETS[name]()
    inputs, fresh = samples(net, 24), samples(net, 8, seed=99)
    encodings = encodings_of(net, inputs, 4)
    reference = run(net, fresh)
    before = sqnr(reference, run(quantized(net, encodings), fresh))
    made, chosen, rows = optimise(net, encodings, inputs, load, method=method, options={"iterations": 400})
    onnx.checker.check_model(made, full_check=True)
    after = sqnr(reference, run(quantized(made, Encodings(encodings.activations, encodings.weights | chosen)), fresh))
    assert after > before + {"cnn": 2, "transformer": 0.7}[name]
    assert {row["weight"] for row in rows} == set(chosen)
    assert all(row["sqnr_after"] > row["sqnr_before"] - 0.5 for row in rows)
    for tensor in made.graph.initializer:
        if tensor.name in chosen:  # on the grid: rounding again changes nothing
            values = numpy_helper.to_array(tensor)
            grid = chosen[tensor.name]
            assert (grid.dequantize(grid.quantize(values)) == values).all()
            assert (grid.bits, grid.axis) == (encodings.weights[tensor.name].bits, encodings.weights[tensor.name].axis)


def test_eight_bits_lose_nothing():
    net = NETS["cnn"]()
    inputs, fresh = samples(net, 24), samples(net, 8, seed=99)
    encodings = encodings_of(net, inputs, 8)
    reference = run(net, fresh)
    before = sqnr(reference, run(quantized(net, encodings), fresh))
    made, chosen, _ = optimise(net, encodings, inputs, load)
    after = sqnr(reference, run(quantized(made, Encodings(encodings.activations, encodings.weights | chosen)), fresh))
    assert after > before - 0.5


class _Memory(Store):
    def __init__(self):
        self.kept = {}
        self.taken = []

    def get(self, layer):
        self.taken.append(layer in self.kept)
        return self.kept.get(layer)

    def put(self, layer, arrays):
        self.kept[layer] = arrays


def test_a_run_that_was_cut_short_goes_on_to_the_same_end():
    net = NETS["cnn"]()
    inputs = samples(net, 8)
    encodings = encodings_of(net, inputs, 4)
    whole, _, rows = optimise(net, encodings, inputs, load)
    store = _Memory()

    def stop_at_the_third(done, total, layer):
        if done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimise(net, encodings, inputs, load, progress=stop_at_the_third, store=store)
    assert len(store.kept) == 2
    store.taken.clear()
    again, _, rows_again = optimise(net, encodings, inputs, load, store=store)
    assert store.taken == [True, True, *[False] * (len(rows) - 2)]
    assert rows_again == rows
    assert again.graph.initializer == whole.graph.initializer


def test_each_piece_runs_once_a_sample():
    """What makes the cost linear in the depth: together the pieces hold each node once."""
    net = NETS["cnn"]()
    inputs = samples(net, 3)
    encodings = encodings_of(net, inputs, 4)
    ran = []

    def counting(piece):
        loaded = load(piece)

        def once(sample):
            ran.extend(node.name for node in piece.graph.node if node.op_type in ("Conv", "Gemm"))
            return loaded(sample)

        return once

    _, _, rows = optimise(net, encodings, inputs, counting)
    assert max(ran.count(row["layer"]) for row in rows) == 2 * len(inputs)  # float, and quantized


def test_memory_bounds_the_samples():
    net = NETS["cnn"]()
    inputs = samples(net, 12)
    encodings = encodings_of(net, inputs, 4)
    largest = 4 * max(int(np.prod(shape)) for shape in inferred(net).values())  # bytes
    _, _, rows = optimise(net, encodings, inputs, load, options={"bytes": 20 * largest})
    assert 1 <= rows[0]["samples"] < 12
    _, _, rows = optimise(net, encodings, inputs, load, options={"bytes": 1})
    assert rows[0]["samples"] == 1


def test_layers_it_does_not_know_are_passed_over():
    w = weights(5)
    net = model(
        [
            ("ConvTranspose", ["x", "wt"], ["a"], {}),
            ("Relu", ["a"], ["b"], {}),
            ("Conv", ["b", "ws"], ["c"], {}),
            ("Conv", ["c", "ws"], ["d"], {}),
            ("Conv", ["d", "w"], ["y"], {}),
        ],
        {"x": [1, 4, 5, 5]},
        {"y": [1, 6, 7, 7]},
        {"wt": w(4, 4, 3, 3), "ws": w(4, 4, 1, 1), "w": w(6, 4, 1, 1)},
    )
    inputs = samples(net)
    made, chosen, _ = optimise(net, encodings_of(net, inputs, 4), inputs, load)
    assert set(chosen) == {"w"}
    before = {i.name: numpy_helper.to_array(i) for i in net.graph.initializer}
    after = {i.name: numpy_helper.to_array(i) for i in made.graph.initializer}
    assert (after["wt"] == before["wt"]).all()
    assert (after["ws"] == before["ws"]).all()


def test_no_samples_are_refused():
    net = NETS["cnn"]()
    with pytest.raises(CalibrationError, match="no sample"):
        optimise(net, encodings_of(net, samples(net), 4), [], load)


@pytest.mark.slow
def test_the_hard_classifier_survives_four_bits():
    """At most 2 % fewer of the test digits are right than in float, and the logits are far better than after CLE alone."""
    import io
    import warnings

    from qnb.quant.equalize import equalize
    from tests.hard import hard_digits

    hard = hard_digits()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            hard.module, (torch.zeros(1, 1, 8, 8),), file, input_names=["x"], dynamo=False, opset_version=20
        )
    net, _ = equalize(onnx.shape_inference.infer_shapes(onnx.load_from_string(file.getvalue())))
    inputs = [{"x": image[None]} for image in hard.train[:256]]
    fresh = [{"x": image[None]} for image in hard.test]
    encodings = encodings_of(net, inputs, 4)
    made, chosen, _ = optimise(net, encodings, inputs, load)
    reference = run(net, fresh)

    def judged(outputs):
        logits = np.concatenate([next(iter(out.values())) for out in outputs])
        return (logits.argmax(1) == hard.labels).mean(), sqnr(reference, outputs)

    exact = (np.concatenate([next(iter(out.values())) for out in reference]).argmax(1) == hard.labels).mean()
    _, plain = judged(run(quantized(net, encodings), fresh))
    top1, good = judged(run(quantized(made, Encodings(encodings.activations, encodings.weights | chosen)), fresh))
    assert top1 > exact - 0.02
    assert good > plain + 5
