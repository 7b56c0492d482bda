"""Oracles: ONNX Runtime's outputs of the source file, onnx's own checker, reader and shape inference."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.graph._models import build, conv_net, save
from tests.graph._worker import normalise


def one(model, tmp_path, **options):
    """Normalise one model; give the answer and the result."""
    source = save(model, tmp_path / "in.onnx") if isinstance(model, onnx.ModelProto) else str(model)
    (answer,) = normalise([{"path_in": source, "path_out": str(tmp_path / "out.onnx"), **options}])
    assert "error" not in answer, answer
    return answer, onnx.load(tmp_path / "out.onnx")


def run(model, feeds):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def x(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    """The same net in every opset, brought through in one process."""
    folder = tmp_path_factory.mktemp("opsets")
    versions = {8: 3, 9: 4, 11: 6, 13: 7, 15: 8, 17: 8, 19: 9, 20: 10, 21: 10, 22: 10, 24: 11, 25: 12}
    jobs = []
    for opset, ir in versions.items():
        model = conv_net(opset=opset, ir=ir)
        if ir == 3:  # constants had to be listed as inputs
            model.graph.input.extend(
                helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in model.graph.initializer
            )
        source = save(model, folder / f"{opset}.onnx")
        jobs.append({"path_in": source, "path_out": str(folder / f"{opset}-out.onnx"), "batch": 2})
    return dict(zip(versions, zip(jobs, normalise(jobs), strict=True), strict=True))


@pytest.mark.parametrize("opset", [8, 9, 11, 13, 15, 17, 19, 20, 21, 22, 24, 25])
def test_every_opset_is_lifted_never_lowered(lifted, opset):
    job, answer = lifted[opset]
    assert "error" not in answer, answer
    result = onnx.load(job["path_out"])
    assert answer["opset"] == max(opset, 20) == result.opset_import[0].version
    assert answer["ir_version"] == result.ir_version == 10
    assert answer["inputs"] == [{"name": "x", "dtype": "float32", "shape": [2, 3, 8, 8]}]
    assert answer["outputs"] == [{"name": "y", "dtype": "float32", "shape": [2, 5]}]
    (expected,) = run(onnx.load(job["path_in"]), {"x": x(2, 3, 8, 8)})
    np.testing.assert_allclose(run(result, {"x": x(2, 3, 8, 8)})[0], expected, rtol=1e-4, atol=1e-5)
    assert answer["ops"] == {"Conv": 1, "Relu": 1, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}  # norm is folded
    assert sum(row["macs"] for row in answer["layers"]) == 2 * (4 * 64 * 27 + 4 * 5)


def test_the_result_stands_on_its_own(tmp_path):
    answer, result = one(conv_net(), tmp_path)
    onnx.checker.check_model(result, full_check=True)
    known = {v.name for v in [*result.graph.value_info, *result.graph.output]}
    assert {name for node in result.graph.node for name in node.output} <= known
    for value in [*result.graph.input, *result.graph.value_info, *result.graph.output]:
        assert all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim)
    assert answer["simplified"] is True
    assert answer["notes"] == ["input 'x': open first dimension (N) fixed at batch=1"]
    assert answer["files"] == [str(tmp_path / "out.onnx")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "out.onnx"]


def test_without_onnxsim_it_says_so_and_still_folds_what_it_must(tmp_path):
    nodes = [
        helper.make_node("Constant", [], ["gain"], value=numpy_helper.from_array(x(3), "")),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Identity", ["gain"], ["alias"]),
        helper.make_node("Identity", ["alias"], ["alias2"]),
        helper.make_node("Mul", ["x", "alias2"], ["m"], name="same"),
        helper.make_node("Mul", ["m", "two"], ["y"], name="same"),
    ]
    model = build(nodes, {"x": [1, 3]}, {"y": [1, 3]}, {"unused": x(100)})
    answer, result = one(model, tmp_path, without_onnxsim=True)
    assert answer["simplified"] is False
    assert answer["notes"] == ["simplification skipped: onnxsim is not installed (it has no wheel for some platforms)"]
    assert [node.op_type for node in result.graph.node] == ["Mul", "Mul"]
    assert {t.name for t in result.graph.initializer} == {"gain", "two"}
    np.testing.assert_allclose(run(result, {"x": x(1, 3)})[0], x(1, 3) * x(3) * 2, rtol=1e-6)


def test_simplification_can_be_left_out(tmp_path):
    answer, result = one(conv_net(1), tmp_path, simplify=False)
    assert answer["simplified"] is False
    assert answer["notes"] == []
    assert [node.name for node in result.graph.node] == ["conv", "norm", "relu", "pool", "flat", "fc"]


def test_names_become_unique_and_good_ones_stay(tmp_path):
    names = ["", "a", "a", "Relu_0", "", "a_0"]
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], name=name) for i, name in enumerate(names)]
    _, result = one(build(nodes, {"t0": [2]}, {"t6": [2]}), tmp_path, simplify=False)
    given = [node.name for node in result.graph.node]
    assert len(set(given)) == 6
    assert all(given)
    assert (given[3], given[5]) == ("Relu_0", "a_0")


def test_many_inputs_and_outputs_keep_names_and_order(tmp_path):
    nodes = [
        helper.make_node("Add", ["b", "a"], ["s"]),
        helper.make_node("Mul", ["b", "a"], ["p"]),
        helper.make_node("Identity", ["b"], ["copy"]),
    ]
    model = build(nodes, {"z": [4], "b": [1, 3], "a": [1, 3]}, {"p": [1, 3], "copy": [1, 3], "s": [1, 3]})
    answer, result = one(model, tmp_path)
    assert [v["name"] for v in answer["inputs"]] == [v.name for v in result.graph.input] == ["z", "b", "a"]
    assert [v["name"] for v in answer["outputs"]] == [v.name for v in result.graph.output] == ["p", "copy", "s"]


def test_nodes_out_of_order_are_sorted(tmp_path):
    model = conv_net(1)
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    _, result = one(model, tmp_path, simplify=False)
    assert [node.name for node in result.graph.node] == ["conv", "norm", "relu", "pool", "flat", "fc"]


def test_local_functions_are_inlined(tmp_path):
    function = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    model = build(
        [helper.make_node("Twice", ["x"], ["y"], domain="mine")], {"x": [2]}, {"y": [2]}, functions=[function]
    )
    model.opset_import.append(helper.make_opsetid("mine", 1))
    answer, result = one(model, tmp_path)
    assert answer["ops"] == {"Add": 1}
    assert not result.functions


def test_a_branch_on_a_constant_is_chosen(tmp_path):
    def branch(op):
        return helper.make_graph(
            [helper.make_node(op, ["x"], ["o"])], op, [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, [2])]
        )

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=branch("Neg"))
    answer, _ = one(build([node], {"x": [2]}, {"y": [2]}, {"c": np.array(False)}), tmp_path)
    assert answer["ops"] == {"Neg": 1}


def test_external_data_is_read(tmp_path):
    (tmp_path / "sub").mkdir()
    model = conv_net(1)
    expected = run(model, {"x": x(1, 3, 8, 8)})[0]
    path = tmp_path / "sub" / "big.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="big.bin", size_threshold=0)
    _, result = one(path, tmp_path)
    np.testing.assert_allclose(run(result, {"x": x(1, 3, 8, 8)})[0], expected, rtol=1e-4, atol=1e-5)


def test_contrib_ops_pass(tmp_path):
    nodes = [helper.make_node("Gelu", ["x"], ["h"], domain="com.microsoft"), helper.make_node("Relu", ["h"], ["y"])]
    model = build(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, opset=17, ir=8)
    answer, _ = one(model, tmp_path, batch=3)
    assert answer["outputs"][0]["shape"] == [3, 4]
    assert answer["opset"] == 20


# --- shapes --------------------------------------------------------------------------------------------------------


def test_a_symbol_has_one_size_everywhere(tmp_path):
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"])]
    model = build(nodes, {"a": ["N", 4, "L"], "b": ["N", "L", 6]}, {"y": ["N", 4, 6]})
    answer, _ = one(model, tmp_path, shapes={"a": [2, 4, 9]})
    assert [v["shape"] for v in answer["inputs"]] == [[2, 4, 9], [2, 9, 6]]
    assert answer["outputs"][0]["shape"] == [2, 4, 6]


def test_a_wrong_declared_output_shape_is_corrected(tmp_path):
    model = conv_net("N")
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1  # a common slip of exporters
    answer, _ = one(model, tmp_path, batch=4)
    assert answer["outputs"][0]["shape"] == [4, 5]


def test_unknown_rank_and_unnamed_dimensions(tmp_path):
    model = build([helper.make_node("Add", ["a", "b"], ["y"])], {"a": None, "b": [None, 3]}, {"y": None})
    answer, _ = one(model, tmp_path, shapes={"a": [5, 3]}, batch=5)
    assert [v["shape"] for v in answer["inputs"]] == [[5, 3], [5, 3]]


def test_scalars_stay(tmp_path):
    model = build([helper.make_node("Mul", ["a", "b"], ["y"])], {"a": [], "b": [1, 3]}, {"y": [1, 3]})
    answer, _ = one(model, tmp_path)
    assert answer["inputs"][0]["shape"] == []
