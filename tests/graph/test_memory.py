"""Memory over the graph and its precision.

Oracles: ONNX's reference evaluator, op by op, whose arrays are let go when nobody will read them any more (sizes are those
of the arrays that came out, lifetimes are counts of readers); and ONNX Runtime's own profile, which writes down the bytes
that each op reads and writes. For quantized graphs: by hand.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from qnb.errors import ArtifactError, BadInput
from qnb.graph.memory import VIEWS, footprint, memory, precisions, read_structure
from tests import nets
from tests.graph._models import build, conv_net


def inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def branches() -> onnx.ModelProto:
    """Skips of different lengths, a split, views, a shared weight, an input that is read late, an output in the middle."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((8, 8, 3, 3)).astype(np.float32), "half": np.array([4, 4])}
    weights |= {"flat": np.array([1, -1]), "v": rng.standard_normal((512, 16)).astype(np.float32)}
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w"], ["a"], name="conv_a", pads=[1] * 4),
        make("Relu", ["a"], ["b"], name="relu"),
        make("Conv", ["b", "w"], ["c"], name="conv_c", pads=[1] * 4),
        make("Split", ["c", "half"], ["d", "e"], name="split", axis=1),
        make("Concat", ["e", "d"], ["f"], name="concat", axis=1),
        make("Add", ["f", "a"], ["g"], name="add"),
        make("Mul", ["g", "g"], ["h"], name="square"),
        make("Reshape", ["h", "flat"], ["i"], name="reshape"),
        make("MatMul", ["i", "v"], ["j"], name="matmul"),
        make("Add", ["j", "late"], ["y"], name="add_late"),
    ]
    shape = [1, 8, 8, 8]
    return inferred(build(nodes, {"x": shape, "late": [1, 16]}, {"b": shape, "y": [1, 16]}, weights))


def many_branches() -> onnx.ModelProto:
    """Sixty ops in a random order of reading: each adds two tensors that came before."""
    rng = np.random.default_rng(3)
    names, nodes = ["x"], []
    for i in range(60):
        first, second = rng.choice(len(names), 2)
        nodes.append(helper.make_node("Add", [names[first], names[second]], [f"t{i}"], name=f"add{i}"))
        if i % 7 == 3:
            nodes.append(helper.make_node("Unsqueeze", [f"t{i}", "zero"], [f"u{i}"], name=f"view{i}"))
            nodes.append(helper.make_node("ReduceSum", [f"u{i}", "zero"], [f"r{i}"], name=f"sum{i}", keepdims=0))
        names.append(f"r{i}" if i % 7 == 3 else f"t{i}")
    return inferred(build(nodes, {"x": [4, 5]}, {names[-1]: [4, 5]}, {"zero": np.array([0])}))


def networks() -> dict[str, onnx.ModelProto]:
    return {"conv": inferred(conv_net(2)), "branches": branches(), "many": many_branches()}


@pytest.fixture(params=["conv", "branches", "many"])
def model(request: pytest.FixtureRequest) -> onnx.ModelProto:
    return networks()[request.param]


def inputs_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        v.name: rng.standard_normal([d.dim_value for d in v.type.tensor_type.shape.dim]).astype(np.float32)
        for v in model.graph.input
    }


def simulated(model: onnx.ModelProto) -> list[int]:
    """Bytes that are held while each op runs: arrays are kept by the name of what allocated them, and let go at count 0."""
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    values: dict[str, np.ndarray] = inputs_of(model)
    owner = {name: name for name in values}
    readers = Counter(name for node in model.graph.node for name in set(node.input))
    readers.update(output.name for output in model.graph.output)
    held = []
    for node in model.graph.node:
        function = helper.make_function(
            "t", "one", list(dict.fromkeys(node.input)), list(node.output), [node], [helper.make_opsetid("", 20)]
        )
        feeds = {name: values.get(name, constants.get(name)) for name in node.input}
        made = ReferenceEvaluator(function).run(None, feeds, attributes={})
        for name, array in zip(node.output, made, strict=True):
            values[name] = array
            owner[name] = owner[node.input[0]] if node.op_type in VIEWS else name
        held.append(sum({owner[name]: values[name].nbytes for name in values}.values()))
        readers.subtract(set(node.input))
        for name in [n for n in values if readers[n] == 0]:
            del values[name]
    return held


def test_what_is_alive_is_what_an_execution_holds(model: onnx.ModelProto) -> None:
    rows = memory(model)
    assert [row["live_bytes"] for row in rows] == simulated(model)
    assert [row["op"] for row in rows] == [node.name for node in model.graph.node]


def test_traffic_is_what_onnx_runtime_writes_down(model: onnx.ModelProto, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")  # what is packed anew counts as no parameter
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, inputs_of(model))
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    seen = {
        e["name"].removesuffix("_kernel_time"): e["args"] for e in events if e["name"].endswith("_kernel_time")
    }  # fmt: skip
    compared = 0
    for row, node in zip(memory(model), model.graph.node, strict=True):
        said: dict[str, Any] = seen[row["op"]]
        assert row["weight_bytes"] == int(said["parameter_size"])
        if row["op_type"] in VIEWS:
            assert row["read_bytes"] == row["written_bytes"] == 0
            continue
        twice = len(node.input) - len(set(node.input))  # which it counts twice
        assert row["read_bytes"] * (1 + twice) == int(said["activation_size"])
        assert row["written_bytes"] == int(said["output_size"])
        compared += 1
    assert compared >= 5


def test_the_peak_of_a_chain_of_convolutions(tmp_path: Path) -> None:
    path = nets.convolutions(tmp_path / "net.onnx", layers=500, channels=4, size=8)
    rows = memory(inferred(onnx.load(path)))
    assert len(rows) == 1000
    assert {row["live_bytes"] for row in rows} == {2 * 4 * 4 * 8 * 8}  # one tensor in, one out


# --- quantized ----------------------------------------------------------------------------------------------------


def test_a_quantized_graph_by_hand() -> None:
    model = inferred(conv_net(1))
    bits = {"x": 8, "w": 4, "r": 8, "p": 16, "y": 8, "v": 8, "b": 32}
    rows = {row["op"]: row for row in memory(model, bits, float_bits=16)}
    inside, elements = 3 * 8 * 8, 4 * 8 * 8
    # Convolution, batch norm and ReLU are one op: the first writes what the last one gives, in 8 bits.
    assert rows["conv"]["read_bytes"] == inside
    assert rows["conv"]["written_bytes"] == elements
    assert rows["conv"]["live_bytes"] == inside + elements
    assert rows["conv"]["weight_bytes"] == 4 * 3 * 3 * 3 // 2
    assert rows["norm"]["written_bytes"] == rows["relu"]["read_bytes"] == rows["relu"]["written_bytes"] == 0
    assert rows["norm"]["live_bytes"] == rows["relu"]["live_bytes"] == elements
    assert rows["pool"]["written_bytes"] == 2 * 4
    assert rows["flat"] == {
        "op": "flat", "op_type": "Flatten", "live_bytes": 8, "read_bytes": 0, "written_bytes": 0, "weight_bytes": 0,
    }  # fmt: skip
    assert rows["fc"]["live_bytes"] == 8 + 5
    assert rows["fc"]["weight_bytes"] == 4 * 5 + 4 * 5


def test_precision_by_hand() -> None:
    model = inferred(conv_net(1))
    bits = {"x": 8, "w": 4, "r": 8, "p": 16, "y": 8, "v": 8, "b": 32}
    rows = {row["op"]: row for row in precisions(model, bits, {"w", "v"}, float_bits=16)}
    assert [rows[op]["weights"] for op in ("conv", "relu", "fc")] == ["int4", "", "int8"]
    assert [rows[op]["activations"] for op in ("conv", "relu", "pool", "flat", "fc")] == [
        "int8", "int8", "int16", "int16", "int8",
    ]  # fmt: skip
    assert np.isnan(rows["relu"]["weight_bits"])
    assert rows["conv"]["weight_bytes"] == 54
    plain = precisions(model)
    assert [row["activations"] for row in plain] == ["fp32"] * 6
    assert [row["weights"] for row in plain] == ["fp32", "", "", "", "", "fp32"]


def test_what_is_not_quantized_has_the_bits_that_are_said() -> None:
    rows = memory(branches(), {"x": 8, "w": 8, "a": 8}, float_bits=16)
    by_op = {row["op"]: row for row in rows}
    assert by_op["relu"]["written_bytes"] == 2 * 512
    assert by_op["add_late"]["read_bytes"] == 2 * 16 + 2 * 16


def test_a_graph_that_reads_from_outside_of_a_branch() -> None:
    inner = helper.make_graph(
        [helper.make_node("Add", ["kept", "kept"], ["z"])], "then", [], [helper.make_tensor_value_info("z", 1, [4])]
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["kept"], name="relu"),
        helper.make_node("Neg", ["x"], ["n"], name="neg"),
        helper.make_node("If", ["yes"], ["y"], name="if", then_branch=inner, else_branch=inner),
    ]
    model = build(nodes, {"x": [4]}, {"y": [4], "n": [4]}, {"yes": np.array(True)})
    rows = memory(inferred(model))
    assert rows[1]["live_bytes"] == 3 * 16  # `kept` waits for the branch
    assert rows[2]["read_bytes"] == 16


def test_an_unknown_shape_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="shape of tensor 'c' of Conv 'conv' is not known") as caught:
        memory(conv_net(1))
    assert "qnb.export" in caught.value.hint
    with pytest.raises(ArtifactError, match="can't be read"):
        read_structure(tmp_path / "none.onnx")


def test_the_footprint_is_that_of_the_arrays():
    """A shared weight counts once, here as everywhere."""
    model = branches()
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = footprint(model)
    assert found.constant_bytes == sum(array.nbytes for array in arrays.values())
    assert (found.largest, found.largest_bytes) == ("v", arrays["v"].nbytes)
    assert found.live_bytes == max(row["live_bytes"] for row in memory(model))
    assert footprint(model, float_bits=16).largest_bytes == arrays["v"].nbytes // 2
