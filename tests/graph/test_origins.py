"""Which ONNX ops are behind a runtime's ops.

Oracle: graphs whose work is counted by hand here; and for what a real compiler makes of real networks, the trace of ops that
onnxruntime-qnn 2.7.0 writes itself (`tests/steps/test_profile.py`).
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from qnb.graph.origins import Origin, Precisions, origins


def build(nodes, inputs, outputs, constants=None):
    """Build a model; `inputs` name → shape, `constants` name → array."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    return shape_inference.infer_shapes(made)


def zeros(*shape):
    return np.zeros(shape, np.float32)


def node(kind, inputs, output, name, **attributes):
    return helper.make_node(kind, inputs, [output], name=name, **attributes)


@pytest.fixture
def net():
    """x 1x4x8x8 → conv (8 channels, 3x3) → relu → dw (depthwise) → add (with relu's output) → gap → flat → fc (8 → 5)."""
    nodes = [
        node("Conv", ["x", "w", "b"], "c", "conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], "r", "relu"),
        node("Conv", ["r", "dw"], "d", "dw", pads=[1, 1, 1, 1], group=8),
        node("Add", ["d", "r"], "a", "add"),
        node("GlobalAveragePool", ["a"], "p", "gap"),
        node("Flatten", ["p"], "f", "flat"),
        node("Gemm", ["f", "fw", "fb"], "y", "fc", transB=1),
    ]
    weights = {"w": zeros(8, 4, 3, 3), "b": zeros(8), "dw": zeros(8, 1, 3, 3), "fw": zeros(5, 8), "fb": zeros(5)}
    return build(nodes, {"x": [1, 4, 8, 8]}, ["y"], weights)


X, C = 4 * 64, 8 * 64  # elements of the input, and of what the convolutions give
CONV, DW, FC = C * 36, C * 9, 40  # multiply-accumulates


def test_each_op_by_its_own_name(net):
    ops = ("Input", "conv", "relu", "dw", "add", "gap", "flat", "fc", "Output")
    found = origins(dict.fromkeys(ops, 10), net)
    assert list(found) == list(ops)
    assert [found[op].macs for op in ops] == [0, CONV, 0, DW, 0, 0, 0, FC, 0]
    assert [found[op].nodes for op in ops] == [(), *((op,) for op in ops[1:-1]), ()]
    two = 2  # bytes of fp16
    expected = {
        "conv": (X + C + 8 * 36 + 8) * two,
        "relu": 2 * C * two,
        "dw": (2 * C + 72) * two,
        "add": 3 * C * two,
        "gap": (C + 8) * two,
        "flat": 16 * two,
        "fc": (8 + 5 + 40 + 5) * two,
        "Input": X * 4,  # the model's ends stay in fp32
        "Output": 5 * 4,
    }
    assert {op: found[op].nbytes for op in expected} == expected
    assert {o.precision for o in found.values()} == {"fp16"}


def test_work_is_where_the_cycles_are(net):
    """The compiler counts Conv and Relu at the Relu; the Conv has none."""
    found = origins({"conv": 0, "relu": 50, "dw": 0, "add": 70, "gap": 5, "fc": 3}, net)
    assert found["conv"] == Origin(("conv",), "Conv", 0, 0, "fp16")
    assert found["relu"] == Origin(("conv", "relu"), "Conv", CONV, (X + C + 8 * 36 + 8) * 2, "fp16")
    assert found["add"] == Origin(("dw", "add"), "Conv", DW, (2 * C + 72) * 2, "fp16")
    assert found["fc"].nodes == ("fc",)
    assert sum(o.macs for o in found.values()) == CONV + DW + FC


def test_a_rest_of_cycles_at_what_was_fused_does_not_keep_the_work(net):
    found = origins({"conv": 2, "relu": 1000, "dw": 300, "add": 900, "gap": 5, "fc": 3}, net)
    assert (found["conv"].macs, found["relu"].macs) == (0, CONV)
    assert found["dw"].macs == DW  # a third of the Add's: they are not fused


def test_what_no_op_is_named_after_was_folded_into_its_neighbour(net):
    """A quantized Conv has its Relu inside."""
    found = origins({"conv": 40, "dw": 30, "add": 7, "gap": 5, "fc": 3}, net)
    assert found["conv"].nodes == ("conv", "relu")
    assert found["conv"].op_type == "Conv"
    assert found["conv"].nbytes == (X + C + 8 * 36 + 8) * 2
    behind = [n for o in found.values() for n in o.nodes]
    assert sorted(behind) == sorted(n.name for n in net.graph.node)  # each behind one op, and none lost


def test_what_the_runtime_runs_elsewhere_is_behind_nothing(net):
    found = origins({"conv": 40, "relu": 3, "dw": 30, "gap": 5, "fc": 3}, net, elsewhere=["add"])
    assert not any("add" in o.nodes for o in found.values())


def test_one_op_that_became_several_is_spread_by_cycles(net):
    parts = {"conv_part_1": 30, "convSlice_2": 10, "conv:tail": 0, "relu": 5, "dw": 1, "add": 1, "gap": 1, "fc": 1}
    found = origins(parts, net)
    assert [found[p].nodes for p in list(parts)[:3]] == [("conv",)] * 3
    assert [found[p].macs for p in list(parts)[:3]] == [0.75 * CONV, 0.25 * CONV, 0]
    assert sum(o.macs for o in found.values()) == CONV + DW + FC


def test_names_that_begin_alike_are_told_apart():
    names = ("op", "op_1", "op_11", "op_1_2")
    tensors = ("x", "t1", "t2", "t3", "y")
    nodes = [node("Relu", [tensors[i]], tensors[i + 1], name) for i, name in enumerate(names)]
    model = build(nodes, {"x": [1, 2]}, ["y"])
    ops = {"op_2": "op", "op_1": "op_1", "op_11Reshape": "op_11", "op_1_3": "op_1", "op_1_2_4": "op_1_2", "opera": ""}
    found = origins(dict.fromkeys(ops, 1), model)
    assert {op: ", ".join(o.nodes) for op, o in found.items()} == ops


def test_an_op_may_be_named_after_a_tensor(net):
    found = origins({"conv": 1, "relu": 1, "dw": 1, "add": 1, "gap": 1, "pReshape": 1, "fc": 1}, net)
    assert found["pReshape"].nodes == ("gap", "flat")


@pytest.mark.parametrize("name", ["Transpose", "Transpose_token_3", "Cast", "OpId_281", "Input", "Output", ""])
def test_what_the_runtime_put_in_has_nothing_behind_it(net, name):
    found = origins({name: 5, "conv": 1}, net)[name]
    assert found.nodes == ()
    assert found.macs == 0
    assert np.isnan(found.nbytes) or name in ("Input", "Output")


# --- widths --------------------------------------------------------------------------------------------------------


def test_bytes_are_those_of_the_width_on_the_npu(net):
    bits = {"x": 8, "r": 16, "d": 8, "a": 8, "p": 8, "y": 8, "w": 4, "b": 32, "dw": 8, "fw": 8, "fb": 32}
    precisions = Precisions(bits, 16, frozenset({"b", "fb"}))
    found = origins({"conv": 9, "dw": 9, "add": 9, "gap": 9, "flat": 0, "fc": 9}, net, precisions=precisions)
    assert found["conv"].nbytes == X + 2 * C + 8 * 36 / 2 + 8 * 4
    assert found["dw"].nbytes == 2 * C + C + 72
    assert found["fc"].nbytes == 8 + 5 + 40 + 5 * 4  # what Flatten gives is as wide as what it reads
    assert {op: o.precision for op, o in found.items()} == {
        "conv": "w4a16", "dw": "w8a16", "add": "a16", "gap": "a8", "flat": "a8", "fc": "w8a8",
    }  # fmt: skip


def test_what_has_no_encoding_is_in_float(net):
    ops = dict.fromkeys(("conv", "relu", "dw", "add", "gap", "fc"), 9)
    found = origins(ops, net, precisions=Precisions({"x": 8, "w": 8}, 16))
    assert found["dw"].nbytes == (2 * C + 72) * 2
    assert found["dw"].precision == "fp16"
    assert origins(ops, net, precisions=Precisions({}, 32))["dw"].nbytes == (2 * C + 72) * 4


def test_a_table_is_read_by_the_row():
    nodes = [node("Gather", ["table", "ids"], "y", "embed")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT32, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(zeros(1000, 16), "table")],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    found = origins({"embed": 1}, shape_inference.infer_shapes(made))["embed"]
    assert found.nbytes == 3 * 4 + 2 * (3 * 16 * 2)


def test_nodes_that_quantize_are_onnx_ops_too(net):
    quantized = build(
        [
            node("QuantizeLinear", ["x", "s", "z"], "x_quantized", "x_quantized_QuantizeLinear"),
            node("DequantizeLinear", ["x_quantized", "s", "z"], "x_dequantized", "x_DQ"),
            node("Relu", ["x_dequantized"], "y", "other"),
        ],
        {"x": [1, 4, 8, 8]},
        ["y"],
        {"s": np.float32(1), "z": np.uint8(0)},
    )
    found = origins({"x_quantized_QuantizeLinear": 3, "x_DQ": 1, "x_DQ_2": 1}, net, quantized, Precisions({"x": 8}))
    at_edge, inside = found["x_quantized_QuantizeLinear"], found["x_DQ"]
    assert (at_edge.nodes, at_edge.op_type) == (("x_quantized_QuantizeLinear",), "QuantizeLinear")
    assert at_edge.nbytes == X * (4 + 1)  # fp32 at the model's edge
    assert inside.nbytes == X * (1 + 2)  # fp16 inside
    assert (at_edge.precision, at_edge.macs) == ("a8", 0)
    assert found["x_DQ_2"].nodes == ("x_DQ",)
