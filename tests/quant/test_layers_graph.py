"""Layers of a QDQ graph. Oracles: onnx's checker, ONNX Runtime's CPU run by the test on the whole and on single-op graphs,
ONNX Runtime's own quantizer for graphs of another making, and the Hexagon simulator.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from qnb.quant.layers import Layers, chunks
from qnb.quant.qdq import encode, insert_qdq
from qnb.quant.structure import Structure, prepared
from tests.quant import _nets
from tests.quant._simulator import run as simulate


def known(net):
    structure = Structure(prepared(net))
    return set(structure.producer) | set(structure.inputs)


def quantized(net, samples, **options):
    encodings = encode(net, _nets.ranges(net, samples), **options)
    return insert_qdq(net, encodings.activations, encodings.weights)


def floats(net, samples):
    """Every float tensor of the net, by a plain session."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(net)
    outputs = {o.name for o in net.graph.output}
    names = [o for n in net.graph.node for o in n.output if o not in outputs]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return [s | r for s, r in zip(samples, _nets.run(exposed, samples), strict=True)]


def grid(model, place):
    stored = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    _, scale, zero = model.graph.node[place].input
    return stored[scale], stored[zero]


def fed(model, feeds, values):
    """What the isolated graph wants: codes by onnx's formula, in numpy."""
    made = {}
    for name, (tensor, place) in feeds.items():
        made[name] = values[tensor]
        if place is not None:
            scale, zero = grid(model, place)
            limits = np.iinfo(zero.dtype)
            codes = np.rint(values[tensor] / scale) + zero.astype(np.float64)
            made[name] = np.clip(codes, limits.min, limits.max).astype(zero.dtype)
    return made


@pytest.mark.parametrize("name", _nets.NETS)
@pytest.mark.parametrize("bits", [8, 16])
def test_exposed_outputs_are_those_of_the_whole_and_leave_it_as_it_was(name, bits):
    net = _nets.NETS[name]()
    samples = _nets.samples(net, 2)
    model = quantized(net, samples, activation_bits=bits)
    before = model.SerializeToString()
    exposed, where = Layers(model, known(net)).exposed()
    assert model.SerializeToString() == before
    if bits == 8:  # the checker knows no types of ONNX Runtime's own ops
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(exposed, strict_mode=True))
    plain, full = _nets.run(model, samples), _nets.run(exposed, samples)
    for one, all_ in zip(plain, full, strict=True):
        for output, value in one.items():
            np.testing.assert_array_equal(value, all_[output])
        assert set(where.values()) <= set(all_)
    values = floats(net, samples)
    layers = Layers(model, known(net)).layers
    assert len(where) == len({n for la in layers for n in la.outputs})
    for layer in layers:
        for here, there in layer.outputs.items():
            assert full[0][where[here]].shape == values[0][there].shape
            assert _nets.sqnr([{"t": values[0][there]}], [{"t": full[0][where[here]]}]) > 25


@pytest.mark.parametrize("name", _nets.NETS)
def test_isolated_layers_are_what_each_is_alone(name):
    """Oracle: for each layer a graph of its own, cut out of the QDQ model by onnx.utils, fed with the same codes."""
    net = _nets.NETS[name]()
    samples = _nets.samples(net, 1)
    model = quantized(net, samples)
    parts = Layers(model, known(net))
    values = floats(net, samples)[0]
    signatures = {n: (str(v.dtype), v.shape) for n, v in values.items()}
    isolated, feeds, where = parts.isolated(parts.layers, signatures)
    onnx.checker.check_model(isolated, full_check=True)
    produced = {n for node in isolated.graph.node for n in node.output}
    given = {i.name for i in isolated.graph.input}
    assert given == set(feeds)
    assert not given & produced
    assert {la.name for la in parts.layers if la.computes} == {
        la.name for la in parts.layers if set(la.outputs) & set(where)
    }
    inputs = fed(model, feeds, values)
    together = _nets.run(isolated, [inputs])[0]
    typed = onnx.shape_inference.infer_shapes(model)
    for layer in parts.layers:
        for here in layer.outputs:
            if here not in where:
                continue
            place = parts.quantizer(here)
            codes = model.graph.node[place].output[0]
            wanted = {f.quantizer: n for n, f in feeds.items()}
            reads = [n for n in wanted.values() if n in _reached(model, layer)]
            alone = onnx.utils.Extractor(typed).extract_model(reads, [codes])
            session = ort.InferenceSession(alone.SerializeToString(), providers=["CPUExecutionProvider"])
            expected = session.run([codes], {n: inputs[n] for n in reads})[0]
            scale, zero = grid(model, place)
            real = (expected.astype(np.int64) - zero.astype(np.int64)) * scale
            # another fusion may round a half the other way
            assert np.abs(together[where[here]] - real).max() <= scale * 1.001


def _reached(model, layer):
    """Codes from which the layer is computed: the nearest quantized activations before its ops."""
    producers = {o: n for n in model.graph.node for o in n.output}
    found, open_ = set(), [n for i in layer.nodes for n in model.graph.node[i].input]
    while open_:
        name = open_.pop()
        node = producers.get(name)
        if node is None:
            continue
        if node.op_type == "QuantizeLinear":
            found.add(name)
        elif node.op_type == "DequantizeLinear":
            open_.append(node.input[0])
    return found


def test_the_simulator_takes_both_graphs_and_its_result_stays_the_same():
    net = _nets.cnn()
    samples = _nets.samples(net, 2)
    model = quantized(net, samples)
    parts = Layers(model, known(net))
    exposed, where = parts.exposed()
    plain, full = simulate(model, samples), simulate(exposed, samples)
    for one, all_ in zip(plain, full, strict=True):
        np.testing.assert_array_equal(one["y"], all_["y"])
    values = floats(net, samples)
    signatures = {n: (str(v.dtype), v.shape) for n, v in values[0].items()}
    isolated, feeds, given = parts.isolated(parts.layers, signatures)
    alone = simulate(isolated, [fed(model, feeds, v) for v in values])
    for layer in parts.layers:
        for here, there in layer.outputs.items():
            expected = [{"t": v[there]} for v in values]
            assert _nets.sqnr(expected, [{"t": f[where[here]]} for f in full]) > 30
            if here in given:
                assert _nets.sqnr(expected, [{"t": f[given[here]]} for f in alone]) > 35


def test_graphs_of_onnx_runtime_are_read_too(tmp_path):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self, samples):
            self._left = iter(samples)

        def get_next(self):
            return next(self._left, None)

    net = _nets.cnn()
    samples = _nets.samples(net, 3)
    onnx.save(net, tmp_path / "net.onnx")
    quantize_static(
        tmp_path / "net.onnx", tmp_path / "q.onnx", Reader(samples), quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True,
    )  # fmt: skip
    model = onnx.load(tmp_path / "q.onnx")
    parts = Layers(model, known(net))
    assert {t for la in parts.layers for t in la.outputs.values()} >= {"r0", "r1", "c2", "a2", "p4", "y"}
    values = floats(net, samples)[0]
    isolated, feeds, where = parts.isolated(parts.layers, {n: (str(v.dtype), v.shape) for n, v in values.items()})
    found = _nets.run(isolated, [fed(model, feeds, values)])[0]
    for layer in parts.layers:
        for here, there in layer.outputs.items():
            if here in where:
                assert _nets.sqnr([{"t": values[there]}], [{"t": found[where[here]]}]) > 30, layer


def test_what_stays_float_is_a_layer_too():
    net = _nets.cnn()
    samples = _nets.samples(net, 1)
    encodings = encode(net, _nets.ranges(net, samples))
    kept = {n: e for n, e in encodings.activations.items() if n not in ("s4", "c4", "g3")}
    weights = {n: e for n, e in encodings.weights.items() if n not in ("w4", "b4")}
    model = insert_qdq(net, kept, weights)
    parts = Layers(model, known(net))
    values = floats(net, samples)[0]
    isolated, feeds, where = parts.isolated(parts.layers, {n: (str(v.dtype), v.shape) for n, v in values.items()})
    onnx.checker.check_model(isolated, full_check=True)
    found = _nets.run(isolated, [fed(model, feeds, values)])[0]
    assert any(f.quantizer is None for f in feeds.values())
    for layer in parts.layers:
        for here, there in layer.outputs.items():
            if here in where:
                assert _nets.sqnr([{"t": values[there]}], [{"t": found[where[here]]}]) > 30, layer
    assert [la.op_type for la in parts.layers if "c4" in la.outputs.values()] == ["Conv"] or any(
        "Conv" in la.op_type and "+" in la.op_type for la in parts.layers
    )


def test_a_kept_activation_belongs_to_its_op():
    """A Relu behind a grid that does not clip by itself: before it, the grid would seem to cut off half of the values."""
    nodes = [("Conv", ["x", "w"], ["c"], {}), ("Relu", ["c"], ["y"], {})]
    weight = np.ones((4, 3, 1, 1), np.float32)
    net = _nets.model(nodes, {"x": [1, 3, 4, 4]}, {"y": [1, 4, 4, 4]}, {"w": weight})
    from qnb.quant.encodings import encoding_from_range

    wide = encoding_from_range(-8, 8, 8, signed=False, symmetric=True)
    encodings = encode(net, {"x": (-3.0, 3.0), "y": (0.0, 8.0)})
    model = insert_qdq(net, dict(encodings.activations) | {"y": wide}, encodings.weights)
    (layer,) = Layers(model, known(net)).layers
    assert layer.op_type == "Conv+Relu"
    assert list(layer.outputs.values()) == ["y"]


def test_chunks_keep_order_and_size():
    net = _nets.cnn()
    model = quantized(net, _nets.samples(net, 1))
    layers = Layers(model, known(net)).layers
    sizes = {n: 100 for la in layers for n in (*la.inputs, *la.outputs)}
    parts = chunks(layers, sizes, most_bytes=500, most_layers=3)
    assert [la for part in parts for la in part] == layers
    for part in parts:
        size = sum(100 for la in part for _ in (*la.inputs, *la.outputs))
        assert len(part) == 1 or (size <= 500 and len(part) <= 3)
    assert len(chunks(layers, sizes, most_bytes=1, most_layers=99)) == len(layers)
    assert chunks([], {}, most_bytes=1, most_layers=1) == []


def test_names_that_collide_are_kept_apart():
    nodes = [("Relu", ["x"], ["x_out"], {}), ("Sigmoid", ["x_out"], ["y"], {})]
    net = _nets.model(nodes, {"x": [1, 4]}, {"y": [1, 4]}, {})
    model = quantized(net, _nets.samples(net, 2))
    parts = Layers(model, known(net))
    exposed, _ = parts.exposed()
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(exposed, strict_mode=True))
    isolated, _, _ = parts.isolated(parts.layers, dict.fromkeys(("x", "x_out", "y"), ("float32", (1, 4))))
    onnx.checker.check_model(isolated, full_check=True)
    assert isolated.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
