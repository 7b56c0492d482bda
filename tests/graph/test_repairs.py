"""Each repair on graphs that it is for and on graphs that it must leave alone.

Oracles: ONNX Runtime's CPU on the graph before and after, ONNX's own checker; numpy's FFT.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from qnb.errors import ExportError, UnknownName
from qnb.graph.normalise import normalise
from qnb.graph.repairs import FORM, REPAIRS, chosen, repair
from qnb.graph.repairs.rank import MOST_AXES
from qnb.graph.shapes import infer
from tests.graph._models import save
from tests.graph._repairs import (
    FOR,
    NOT_FOR,
    F,
    Net,
    dft,
    draw,
    gelu,
    hard_sigmoid_times,
    hard_swish,
    ints,
    layer_norm,
    one,
    windows,
)  # fmt: skip


def run(model, feed):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": feed})


def repaired(net, *names, feed=None, atol=2e-6, rtol=1e-5):
    """Repair, and see that the graph is valid and computes the same; give it and the number of places."""
    model = net.model()
    feed = draw(*net.shape) if feed is None else feed
    expected = run(model, feed)
    result = onnx.ModelProto.FromString(model.SerializeToString())
    rows = repair(result, names, infer)
    onnx.checker.check_model(result, full_check=True)
    assert [o.name for o in result.graph.output] == [o.name for o in model.graph.output]
    for want, got in zip(expected, run(result, feed), strict=True):
        assert want.dtype == got.dtype
        np.testing.assert_allclose(got, want, atol=atol, rtol=rtol)
    assert {row["repair"] for row in rows} <= set(names)
    return result, sum(row["places"] for row in rows)


def kinds(model):
    return [node.op_type for node in model.graph.node]


NAMES = [r.name for r in REPAIRS if r.apply is not None]


def cases(which):
    return [pytest.param(name, build, id=f"{name}-{i}") for name in which for i, build in enumerate(which[name])]


def test_every_repair_is_tested_both_ways():
    assert list(FOR) == list(NOT_FOR) == NAMES
    assert {r.name for r in REPAIRS} - set(NAMES) == set(FORM)


@pytest.mark.parametrize(("name", "build"), cases(FOR))
def test_it_computes_the_same_without_what_is_refused(name, build):
    net = build()
    before = kinds(net.model())
    result, places = repaired(net, name, atol=1e-5 if name in ("reductions", "dft", "activations") else 2e-6)
    assert places
    if name == "rank":
        ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in result.graph.value_info}
        computing = [n for n in result.graph.node if n.op_type not in ("Reshape", "Identity")]
        assert all(ranks.get(name, 0) <= MOST_AXES for n in computing for name in (*n.input, *n.output))
    elif name == "batch-norm":
        names = [n for node in result.graph.node for n in node.input[1:]]
        assert len(names) == len(set(names)) == 8
    elif name not in (
        "negative-indices",
        "variadic",
        "pooling",
        "conv-transpose",
        "pad",
        "int32",
        "layer-norm",
        "hard-swish",
    ):
        gone = {"gelu": {"Erf"}, "split": {"Split"}}.get(name, set(before))
        assert not gone & set(kinds(result)), kinds(result)


@pytest.mark.parametrize(("name", "build"), cases(NOT_FOR))
def test_it_leaves_alone_what_it_is_not_for(name, build):
    net = build()
    result, places = repaired(net, name)
    assert places == 0
    assert kinds(result) == kinds(net.model())
    assert len(result.graph.initializer) == len(net.model().graph.initializer)


@pytest.mark.parametrize("order", range(4))
def test_a_gelu_is_one_op(order):
    result, places = repaired(gelu(order), "gelu")
    assert (kinds(result), places) == (["Gelu"], 1)


def test_layer_norm_and_hard_swish_are_one_op():
    assert kinds(repaired(layer_norm(), "layer-norm")[0]) == ["LayerNormalization"]
    assert kinds(repaired(layer_norm(1), "layer-norm")[0]) == ["LayerNormalization"]
    for order, kind in enumerate(["HardSwish", "HardSwish", "HardSigmoid"]):
        assert kinds(repaired(hard_swish(order), "hard-swish")[0]) == [kind]
    assert kinds(repaired(hard_sigmoid_times(), "hard-swish")[0]) == ["HardSwish"]


def test_windows_are_moved_without_six_axes():
    assert kinds(repaired(windows(), "rank")[0]) == ["Reshape", "Transpose", "Reshape"]


def test_erf_is_as_near_as_the_handbook_says():
    x = np.linspace(-5, 5, 4096, dtype=F).reshape(1, 1, 64, 64)
    result, _ = repaired(one("Erf", shape=x.shape), "erf", feed=x, atol=5e-7)
    exact = np.array([math.erf(v) for v in x.ravel().astype(float)]).reshape(x.shape)
    assert np.abs(run(result, x)[0] - exact).max() < 5e-7  # 1.5e-7, and the rounding of fp32


def test_the_matrix_is_that_of_the_fourier_transform():
    net = dft((2, 9, 1), 1)
    x = draw(*net.shape)
    got = run(repaired(net, "dft", feed=x, atol=1e-5)[0], x)[0]
    np.testing.assert_allclose(got[..., 0] + 1j * got[..., 1], np.fft.fft(x[..., 0].astype(float)), atol=1e-5)


@pytest.mark.parametrize("seed", range(30))
def test_any_transposition_of_up_to_eight_axes(seed):
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(6, 9))
    net = Net(*(int(n) for n in rng.integers(1, 4, rank)))
    net.op("Transpose", "x", perm=[int(i) for i in rng.permutation(rank)])
    net.op("Reshape", net.last, ints(-1))
    result, places = repaired(net, "rank")
    assert places
    for node in result.graph.node:
        assert node.op_type != "Transpose" or len(node.attribute[0].ints) <= MOST_AXES


def test_several_repairs_one_after_the_other():
    net = gelu(1)
    net.op("Einsum", net.last, draw(8, 4), equation="ij,jk->ik")
    net.op("Reshape", net.last, ints(1, 2, 1, 2, 1, 2))
    net.op("Softsign")
    net.op("Transpose", net.last, perm=[0, 5, 4, 3, 2, 1])
    result, places = repaired(net, *NAMES)
    assert places >= 4
    assert not {"Erf", "Einsum", "Softsign"} & set(kinds(result))


def test_repairs_are_chosen_by_name():
    everything = [r.name for r in REPAIRS]
    assert chosen(()) == everything
    assert chosen(["gelu", "rank"]) == [n for n in everything if n not in ("gelu", "rank")]
    assert chosen("erf") == [n for n in everything if n != "erf"]
    assert chosen(["all"]) == list(FORM)
    assert chosen(["all", "identity"]) == ["fixed-axes"]
    with pytest.raises(UnknownName, match="layernorm") as caught:
        chosen(["layernorm"])
    assert "layer-norm" in str(caught.value)


def test_graphs_with_control_flow_or_of_old_opsets_are_left_alone():
    def branch(kind):
        value = helper.make_tensor_value_info("o", TensorProto.FLOAT, [2])
        return helper.make_graph([helper.make_node(kind, ["x"], ["o"])], kind, [], [value])

    net = Net(2)
    net.op("Softsign", "x")
    condition = net.op("Cast", net.op("ReduceSum", net.last, keepdims=0), to=TensorProto.BOOL)
    net.op("If", condition, then_branch=branch("Relu"), else_branch=branch("Softsign"))
    assert repaired(net, *NAMES)[1] == 0
    old = Net(2, opset=13)
    old.op("Softsign", "x")
    assert repaired(old, *NAMES)[1] == 0


def test_a_repair_after_which_shapes_do_not_fit_is_named():
    def fails(model):
        raise ExportError("they contradict each other")

    net = Net(2)
    net.op("Softsign", "x")
    with pytest.raises(ExportError, match="after the repair activations: they contradict") as caught:
        repair(net.model(), NAMES, fails)
    assert "no_repair=['activations']" in caught.value.hint


def test_fixed_axes_and_identities_are_repairs_too(tmp_path):
    net = Net("N", 3)
    net.op("Add", "x", net.op("Identity", draw(3)))
    source = save(net.model(), tmp_path / "in.onnx")
    answer = normalise(source, str(tmp_path / "out.onnx"), shapes=None)
    assert [(r["repair"], r["places"]) for r in answer["repairs"]] == [("fixed-axes", 1), ("identity", 1)]
    kept = normalise(source, str(tmp_path / "kept.onnx"), shapes={"x": [1, 3]}, repairs=(), simplify=False)
    assert kept["ops"] == {"Identity": 1, "Add": 1}
    assert kept["repairs"] == []
    with pytest.raises(ExportError, match=r"input 'x': open first dimension \(N\) is not fixed"):
        normalise(source, str(tmp_path / "none.onnx"), shapes=None, repairs=())
