"""Oracles: torch's FLOP counter (FLOPs = 2 x MACs) and parameter counts of the same op; numpy's einsum_path."""

import re

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, shape_inference
from torch.utils.flop_counter import FlopCounterMode

from qnb.errors import BadInput
from qnb.graph.facts import io_specs, layers, nbytes, op_counts, tensor_specs, unknown_shapes
from qnb.values import TensorSpec


def model(nodes, inputs, outputs, constants=None, *, infer=True, dtype=TensorProto.FLOAT):
    """Build an opset-20 model; `inputs` name → shape, `outputs` names, `constants` name → array."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, ir_version=10, opset_imports=opsets)
    return shape_inference.infer_shapes(made, data_prop=True) if infer else made


def zeros(*shape):
    return np.zeros(shape, np.float32)


def torch_macs(call):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("channels", "out", "groups", "kernel", "stride", "padding", "dilation", "size"),
    [
        (3, 32, 1, 3, 1, 1, 1, (1, 3, 24, 20)),
        (16, 16, 16, 3, 2, 1, 1, (1, 16, 15, 15)),
        (8, 12, 4, 5, 2, 0, 2, (2, 8, 17, 19)),
        (4, 6, 1, 3, 1, 1, 1, (1, 4, 30)),
        (2, 3, 1, 3, 1, 1, 1, (1, 2, 5, 6, 7)),
    ],
)
def test_conv(channels, out, groups, kernel, stride, padding, dilation, size):
    kind = {3: torch.nn.Conv1d, 4: torch.nn.Conv2d, 5: torch.nn.Conv3d}[len(size)]
    conv = kind(channels, out, kernel, stride, padding, dilation, groups)
    n = len(size) - 2
    node = helper.make_node(
        "Conv",
        ["x", "w", "b"],
        ["y"],
        name="conv",
        strides=[stride] * n,
        pads=[padding] * 2 * n,
        dilations=[dilation] * n,
        group=groups,
    )
    constants = {"w": conv.weight.detach().numpy(), "b": conv.bias.detach().numpy()}
    (row,) = layers(model([node], {"x": size}, ["y"], constants))
    result = conv(torch.zeros(size))
    assert row["macs"] == torch_macs(lambda: conv(torch.zeros(size)))
    assert row["parameters"] == sum(p.numel() for p in conv.parameters())
    assert row["weight_bytes"] == 4 * row["parameters"]
    assert row["activation_bytes"] == result.numel() * result.element_size()
    assert row["outputs"] == "x".join(map(str, result.shape))
    assert row["inputs"] == "x".join(map(str, size))


@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (1, 2), (4, 2)])
def test_transposed_conv(groups, stride):
    conv = torch.nn.ConvTranspose2d(8, 12, 3, stride, 1, groups=groups)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[stride] * 2, pads=[1] * 4, group=groups)
    (row,) = layers(model([node], {"x": (1, 8, 9, 7)}, ["y"], {"w": conv.weight.detach().numpy()}))
    assert row["macs"] == torch_macs(lambda: conv(torch.zeros(1, 8, 9, 7)))
    assert row["parameters"] == conv.weight.numel()


@pytest.mark.parametrize(("a", "b"), [((5, 7), (7, 3)), ((2, 4, 5, 7), (2, 4, 7, 3)), ((2, 5, 7), (7, 3))])
def test_matmul_of_activations(a, b):
    (row,) = layers(model([helper.make_node("MatMul", ["a", "b"], ["y"])], {"a": a, "b": b}, ["y"]))
    assert row["macs"] == torch_macs(lambda: torch.zeros(a) @ torch.zeros(b))
    assert row["parameters"] == 0
    assert row["inputs"] == f"{'x'.join(map(str, a))}, {'x'.join(map(str, b))}"


def test_matmul_of_vectors():
    rows = layers(model([helper.make_node("MatMul", ["a", "b"], ["y"])], {"a": (7,), "b": (7,)}, ["y"]))
    assert rows[0]["macs"] == 7
    assert rows[0]["outputs"] == "scalar"


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm(trans_a, trans_b):
    linear = torch.nn.Linear(7, 3)
    weight = linear.weight.detach().numpy() if trans_b else linear.weight.detach().numpy().T.copy()
    node = helper.make_node("Gemm", ["a", "w", "c"], ["y"], transA=trans_a, transB=trans_b)
    shape = (7, 5) if trans_a else (5, 7)
    (row,) = layers(model([node], {"a": shape}, ["y"], {"w": weight, "c": linear.bias.detach().numpy()}))
    assert row["macs"] == torch_macs(lambda: linear(torch.zeros(5, 7)))
    assert row["parameters"] == sum(p.numel() for p in linear.parameters())


@pytest.mark.parametrize(("op", "cell", "gates"), [("LSTM", torch.nn.LSTMCell, 4), ("GRU", torch.nn.GRUCell, 3)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent(op, cell, gates, directions):
    steps, batch, inputs, hidden = 10, 2, 12, 16
    one = cell(inputs, hidden)
    state = (torch.zeros(batch, hidden), torch.zeros(batch, hidden))

    def by_torch():  # cell by cell and written out in matmuls, since torch does not count its fused kernels
        for _ in range(steps * directions):
            torch.zeros(batch, inputs) @ one.weight_ih.T
            state[0] @ one.weight_hh.T

    direction = "bidirectional" if directions == 2 else "forward"
    node = helper.make_node(op, ["x", "w", "r", "b"], ["y"], hidden_size=hidden, direction=direction)
    constants = {
        "w": zeros(directions, gates * hidden, inputs),
        "r": zeros(directions, gates * hidden, hidden),
        "b": zeros(directions, 2 * gates * hidden),
    }
    (row,) = layers(model([node], {"x": (steps, batch, inputs)}, ["y"], constants))
    assert row["macs"] == torch_macs(by_torch)
    assert row["parameters"] == directions * sum(p.numel() for p in one.parameters())


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bij,bjk->bik", [(2, 5, 7), (2, 7, 3)]),
        ("...ij,...jk->...ik", [(2, 4, 5, 7), (2, 4, 7, 3)]),
        ("ij,jk", [(5, 7), (7, 3)]),
        ("bhqd,bhkd->bhqk", [(1, 4, 6, 8), (1, 4, 9, 8)]),
        ("ab,ab->", [(3, 4), (3, 4)]),
    ],
)
def test_einsum(equation, shapes):
    made = model(
        [helper.make_node("Einsum", ["a", "b"], ["y"], equation=equation)], dict(zip("ab", shapes, strict=True)), ["y"]
    )
    _, told = np.einsum_path(equation, *(np.zeros(s) for s in shapes), optimize=False)
    flops = float(re.search(r"Naive FLOP count:\s+([\d.e+]+)", told)[1])
    # numpy counts two per inner step (multiply, add), and prints four digits
    assert layers(made)[0]["macs"] == pytest.approx(flops / 2, rel=1e-3)


def test_einsum_of_one_operand_only_moves_data():
    made = model([helper.make_node("Einsum", ["a"], ["y"], equation="ij->ji")], {"a": (3, 4)}, ["y"])
    assert layers(made)[0]["macs"] == 0


def test_a_shared_weight_counts_once_at_its_first_use():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    rows = layers(model(nodes, {"x": (1, 4)}, ["y"], {"w": zeros(4, 4)}))
    assert [row["parameters"] for row in rows] == [16, 0]
    assert [row["macs"] for row in rows] == [16, 16]


def test_arguments_are_no_parameters():
    nodes = [
        helper.make_node("Clip", ["x", "lo", "hi"], ["a"]),
        helper.make_node("Mul", ["a", "half"], ["b"]),
        helper.make_node("Reshape", ["b", "shape"], ["c"]),
        helper.make_node("Mul", ["c", "gain"], ["d"]),
        helper.make_node("Resize", ["d", "", "scales"], ["y"]),
    ]
    constants = {
        "lo": np.float32(0),
        "hi": np.float32(6),
        "half": np.float32(0.5),
        "shape": np.array([1, 8]),
        "gain": zeros(8),
        "scales": np.float32([1, 2]),
    }
    rows = layers(model(nodes, {"x": (1, 2, 4)}, ["y"], constants))
    assert [row["parameters"] for row in rows] == [0, 0, 0, 8, 0]
    assert [row["op_type"] for row in rows] == ["Clip", "Mul", "Reshape", "Mul", "Resize"]
    assert rows[4]["outputs"] == "1x16"
    assert rows[3]["inputs"] == "1x8"


def test_an_embedding_and_quantized_weights_are_parameters():
    nodes = [
        helper.make_node("DequantizeLinear", ["wq", "s", "z"], ["w"]),
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("MatMul", ["e", "w"], ["y"]),
    ]
    constants = {
        "wq": np.zeros((8, 4), np.int8),
        "s": np.float32(0.1),
        "z": np.int8(0),
        "table": zeros(50, 8),
        "ids": np.array([1, 2]),
    }
    rows = layers(model(nodes, {}, ["y"], constants))
    assert [(row["parameters"], row["weight_bytes"]) for row in rows] == [(32, 32), (400, 1600), (0, 0)]


def test_specs_keep_names_order_and_types():
    nodes = [helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT16), helper.make_node("Relu", ["a"], ["z"])]
    made = model(nodes, {"b": (1, 2), "a": (3,)}, ["z", "y"], {"unused": zeros(2)}, infer=False)
    made.graph.input.append(helper.make_tensor_value_info("unused", TensorProto.FLOAT, [2]))
    made.graph.output[1].type.tensor_type.elem_type = TensorProto.FLOAT16
    inputs, outputs = io_specs(shape_inference.infer_shapes(made))
    assert inputs == [TensorSpec("b", "float32", (1, 2)), TensorSpec("a", "float32", (3,))]
    assert outputs == [TensorSpec("z", "float32", (3,)), TensorSpec("y", "float16", (1, 2))]


def test_unknown_shapes_are_named():
    nodes = [helper.make_node("Relu", ["x"], ["h"], name="first"), helper.make_node("NonZero", ["h"], ["y"], name="nz")]
    made = model(nodes, {"x": (2, 3)}, ["y"])
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    assert [(name, node.name) for name, node in unknown_shapes(made)] == [("y", "nz")]
    with pytest.raises(BadInput, match=r"'y' \(output of NonZero 'nz'\)"):
        layers(made)
    with pytest.raises(BadInput, match="'y'"):
        io_specs(made)


def test_counts_name_other_domains():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gelu", ["b"], ["y"], domain="com.microsoft"),
    ]
    assert op_counts(model(nodes, {"x": (1,)}, ["y"])) == {"Relu": 2, "com.microsoft.Gelu": 1}


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float32", 24), ("bfloat16", 12), ("float8_e4m3fn", 6), ("int4", 3), ("bool", 6), ("int64", 48)],
)
def test_bytes(dtype, expected):
    assert nbytes(TensorSpec("t", dtype, (2, 3))) == expected


def test_every_known_tensor_is_listed():
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (2, 4)}, ["y"], {"w": zeros(4, 3)})
    assert {name: spec.shape for name, spec in tensor_specs(made).items()} == {"x": (2, 4), "w": (4, 3), "y": (2, 3)}
