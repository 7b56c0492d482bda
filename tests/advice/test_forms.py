"""The nearest supported forms. Oracles: the real compiler, asked op by op, and ONNX Runtime's CPU for what they compute."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import qnb
from qnb.advice.forms import FORMS, nearest
from tests.advice.graphs import Graph
from tests.steps.oracles import noise, on_onnxruntime

SHAPE = (2, 4, 8, 8)
F = np.float32


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def channels(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(F)


Step = Callable[[Graph], str]


def of(kind: str, *weights: np.ndarray, **attributes: object) -> Step:
    return lambda g: g.op(kind, "x", weights=weights, **attributes)


def squares(g: Graph) -> str:
    return g.op("Mul", "x", "x")


def softsign(g: Graph) -> str:
    bottom = g.op("Add", g.op("Abs", "x"), weights=[F(1)])
    return g.op("Div", "x", bottom)


def hyperbolic(kind: str) -> Step:
    def build(g: Graph) -> str:
        both = g.op(kind, g.op("Exp", "x"), g.op("Exp", g.op("Neg", "x")))
        return g.op("Mul", both, weights=[F(0.5)])

    return build


def asinh(g: Graph) -> str:
    a = g.op("Abs", "x")
    root = g.op("Sqrt", g.op("Add", g.op("Mul", a, a), weights=[F(1)]))
    return g.op("Mul", g.op("Sign", "x"), g.op("Log", g.op("Add", a, root)))


def hardmax(g: Graph) -> str:
    best = g.op("Cast", g.op("ArgMax", "x", axis=3, keepdims=1), to=6)
    return g.op("Cast", g.op("Equal", best, weights=[np.arange(8, dtype=np.int32).reshape(1, 1, 1, 8)]), to=1)


def lp_pool(g: Graph) -> str:
    mean = g.op("AveragePool", squares(g), kernel_shape=[3, 3])
    return g.op("Sqrt", g.op("Mul", mean, weights=[F(9)]))


def dilated_average(g: Graph) -> str:
    return g.op("Conv", "x", weights=[np.full((4, 1, 3, 3), 1 / 9, F)], group=4, dilations=[2, 2])


def max_pool_3d(g: Graph) -> str:
    volume = g.op("Reshape", "x", weights=[ints(1, 4, 8, 4, 4)])
    flat = g.op("Reshape", volume, weights=[ints(1, 32, 4, 4)])
    pooled = g.op("MaxPool", flat, kernel_shape=[2, 2], strides=[2, 2])
    deep = g.op("MaxPool", g.op("Reshape", pooled, weights=[ints(1, 4, 8, 4)]), kernel_shape=[2, 1], strides=[2, 1])
    return g.op("Reshape", deep, weights=[ints(1, 4, 4, 2, 2)])


def pool_3d(g: Graph) -> str:
    volume = g.op("Reshape", "x", weights=[ints(1, 4, 8, 4, 4)])
    return g.op("MaxPool", volume, kernel_shape=[2, 2, 2], strides=[2, 2, 2])


KERNEL = channels(4, 4, 3, 3)


def spread_kernel() -> np.ndarray:
    wide = np.zeros((4, 4, 5, 5), F)
    wide[:, :, ::2, ::2] = KERNEL
    return wide


def modulo(g: Graph) -> str:
    whole = g.op("Floor", g.op("Div", "x", weights=[F(0.5)]))
    return g.op("Sub", "x", g.op("Mul", whole, weights=[F(0.5)]))


def three(g: Graph) -> str:
    return g.op("Sum", "x", g.op("Abs", "x"), g.op("Neg", "x"))


def adds(g: Graph) -> str:
    return g.op("Add", g.op("Add", "x", g.op("Abs", "x")), g.op("Neg", "x"))


def product(g: Graph) -> str:
    g.op("Split", "x", weights=[ints(1, 1, 1, 1)], axis=1, outputs=4)
    parts = list(g.nodes[-1].output)
    return g.op("Mul", g.op("Mul", parts[0], parts[1]), g.op("Mul", parts[2], parts[3]))


def after_sum(last: str, first: str = "", *, positive: bool = False) -> Step:
    def build(g: Graph) -> str:
        made = g.op(first, "x") if first else "x"
        made = g.op("Abs", made) if positive else made
        summed = g.op("ReduceSum", made, weights=[ints(2, 3)])
        return g.op(last, summed) if last else summed

    return build


def log_sum(g: Graph) -> str:
    return g.op("ReduceLogSum", g.op("Abs", "x"), weights=[ints(2, 3)])


def wrapped(g: Graph) -> str:
    def part(name: str, axis: int, start: int, end: int) -> str:
        return g.op("Slice", name, weights=[ints(start), ints(end), ints(axis)])

    tall = g.op("Concat", part("x", 2, 7, 8), "x", part("x", 2, 0, 1), axis=2)
    return g.op("Concat", part(tall, 3, 7, 8), tall, part(tall, 3, 0, 1), axis=3)


GRU_W, GRU_R = channels(1, 24, 32, seed=5) / 6, channels(1, 24, 8, seed=6) / 3


def gru(g: Graph) -> str:
    steps = g.op("Reshape", "x", weights=[ints(8, 2, 32)])
    g.op("GRU", steps, weights=[GRU_W, GRU_R], hidden_size=8, outputs=2)
    return g.nodes[-1].output[1]


def gru_written_out(g: Graph) -> str:
    steps = g.op("Reshape", "x", weights=[ints(8, 2, 32)])
    state = ""
    w, r = np.split(GRU_W[0], 3), np.split(GRU_R[0], 3)
    for index in range(8):
        now = g.op(
            "Reshape", g.op("Slice", steps, weights=[ints(index), ints(index + 1), ints(0)]), weights=[ints(2, 32)]
        )

        def gate(number: int, old: str, now: str = now) -> str:
            new = g.op("MatMul", now, weights=[w[number].T.copy()])
            return g.op("Add", new, g.op("MatMul", old, weights=[r[number].T.copy()])) if old else new

        update = g.op("Sigmoid", gate(0, state))
        forgotten = g.op("Mul", g.op("Sigmoid", gate(1, state)), state) if state else ""
        fresh = g.op("Tanh", gate(2, forgotten))
        left = g.op("Sub", fresh, g.op("Mul", update, fresh))
        state = g.op("Add", left, g.op("Mul", update, state)) if state else left
    return g.op("Reshape", state, weights=[ints(1, 2, 8)])


RNN_W, RNN_R = channels(1, 8, 32, seed=7) / 6, channels(1, 8, 8, seed=8) / 3


def rnn(g: Graph) -> str:
    steps = g.op("Reshape", "x", weights=[ints(8, 2, 32)])
    g.op("RNN", steps, weights=[RNN_W, RNN_R], hidden_size=8, outputs=2)
    return g.nodes[-1].output[1]


def rnn_written_out(g: Graph) -> str:
    steps = g.op("Reshape", "x", weights=[ints(8, 2, 32)])
    state = ""
    for index in range(8):
        now = g.op(
            "Reshape", g.op("Slice", steps, weights=[ints(index), ints(index + 1), ints(0)]), weights=[ints(2, 32)]
        )
        new = g.op("MatMul", now, weights=[RNN_W[0].T.copy()])
        state = g.op("Tanh", g.op("Add", new, g.op("MatMul", state, weights=[RNN_R[0].T.copy()])) if state else new)
    return g.op("Reshape", state, weights=[ints(1, 2, 8)])


def soft_shrink(g: Graph) -> str:
    up = g.op("Relu", g.op("Sub", "x", weights=[F(0.5)]))
    down = g.op("Relu", g.op("Sub", g.op("Neg", "x"), weights=[F(0.5)]))
    return g.op("Sub", up, down)


def erf_by_tanh(g: Graph) -> str:
    cube = g.op("Mul", g.op("Mul", "x", "x"), "x")
    inner = g.op("Add", g.op("Mul", "x", weights=[F(1.1283792)]), g.op("Mul", cube, weights=[F(0.1009119)]))
    return g.op("Tanh", inner)


def six_axes(g: Graph) -> str:
    split = g.op("Reshape", "x", weights=[ints(1, 2, 4, 8, 2, 4)])
    return g.op("Reshape", g.op("Softmax", split, axis=5), weights=[ints(2, 4, 8, 8)])


def four_axes(g: Graph) -> str:
    merged = g.op("Reshape", "x", weights=[ints(8, 8, 2, 4)])
    return g.op("Reshape", g.op("Softmax", merged, axis=3), weights=[ints(2, 4, 8, 8)])


def resized(**attributes: object) -> Step:
    return lambda g: g.op("Resize", "x", weights=[None, np.array([1, 1, 0.5, 0.5], F)], mode="linear", **attributes)


MASK = np.triu(np.ones((8, 8), F))
GRID = channels(2, 4, 4, 2) / 3
ALPHA, GAMMA = 1.6732632423543772, 1.0507009873554805
AXES = ints(2, 3)

# Form's index key (op type, when) -> the op as it is refused, and the form.
CASES: dict[tuple[str, str], tuple[Step, Step]] = {
    ("Erf", ""): (of("Erf"), erf_by_tanh),
    ("Softsign", ""): (of("Softsign"), softsign),
    ("Selu", ""): (of("Selu"), lambda g: g.op("Mul", g.op("Elu", "x", alpha=ALPHA), weights=[F(GAMMA)])),
    ("Celu", ""): (
        of("Celu", alpha=2.0),
        lambda g: g.op("Mul", g.op("Elu", g.op("Div", "x", weights=[F(2)])), weights=[F(2)]),
    ),
    ("Sinh", ""): (of("Sinh"), hyperbolic("Sub")),
    ("Cosh", ""): (of("Cosh"), hyperbolic("Add")),
    ("Asinh", ""): (of("Asinh"), asinh),
    ("Hardmax", ""): (of("Hardmax", axis=3), hardmax),
    ("LpPool", ""): (of("LpPool", kernel_shape=[3, 3]), lp_pool),
    ("GlobalLpPool", ""): (of("GlobalLpPool"), of("ReduceL2", AXES)),
    ("MaxPool", "dilations 1"): (
        of("MaxPool", kernel_shape=[3, 3], dilations=[2, 2]),
        of("MaxPool", kernel_shape=[5, 5]),
    ),
    ("AveragePool", "dilations 1"): (of("AveragePool", kernel_shape=[3, 3], dilations=[2, 2]), dilated_average),
    ("MaxPool", "PoolMax3d"): (pool_3d, max_pool_3d),
    ("ConvTranspose", "dilation"): (
        of("ConvTranspose", KERNEL, dilations=[2, 2]),
        lambda g: g.op("ConvTranspose", "x", weights=[spread_kernel()]),
    ),
    ("Einsum", "at least 2 inputs"): (of("Einsum", equation="abcd->abdc"), of("Transpose", perm=[0, 1, 3, 2])),
    ("Mod", "fmod == 0"): (
        lambda g: g.op("Mod", g.op("Abs", "x"), weights=[F(0.5)], fmod=1),
        lambda g: _renamed(g, modulo),
    ),
    ("Sum", "exactly 2 inputs"): (three, adds),
    ("ReduceProd", ""): (of("ReduceProd", ints(1)), product),
    ("ReduceL1", ""): (of("ReduceL1", AXES), after_sum("", "Abs")),
    ("ReduceLogSum", ""): (log_sum, after_sum("Log", positive=True)),
    ("ReduceLogSumExp", ""): (of("ReduceLogSumExp", AXES), after_sum("Log", "Exp")),
    ("ReduceSumSquare", ""): (
        of("ReduceSumSquare", AXES),
        lambda g: g.op("ReduceSum", squares(g), weights=[AXES]),
    ),
    ("Resize", "anti-aliasing"): (resized(antialias=1), of("AveragePool", kernel_shape=[2, 2], strides=[2, 2])),
    ("GridSample", "cubic"): (of("GridSample", GRID, mode="cubic"), of("GridSample", GRID, mode="linear")),
    ("Pad", "Pad mode"): (of("Pad", ints(0, 0, 1, 1, 0, 0, 1, 1), mode="wrap"), wrapped),
    ("Trilu", ""): (of("Trilu"), of("Mul", MASK)),
    ("GRU", ""): (gru, gru_written_out),
    ("RNN", ""): (rnn, rnn_written_out),
    ("ReverseSequence", ""): (
        of("ReverseSequence", ints(2, 2, 2, 2), time_axis=0, batch_axis=1),
        of("Slice", ints(-1), ints(-9), ints(0), ints(-1)),
    ),
    ("Shrink", ""): (of("Shrink", bias=0.5, lambd=0.5), soft_shrink),
    ("*", "Failed to add node"): (six_axes, four_axes),
}  # fmt: skip


def _renamed(g: Graph, form: Step) -> str:
    """Put the form on |x|, as the case's op is: then both have the same sign."""
    g.op("Abs", "x")
    absolute = g.nodes[-1].output[0]
    first = len(g.nodes)
    made = form(g)
    for node in g.nodes[first:]:
        node.input[:] = [absolute if name == "x" else name for name in node.input]
    return made


def side_by_side(which: int) -> Graph:
    """All ops, or all forms, as branches of one graph; their nodes are named by the case's number."""
    graph = Graph(*SHAPE)
    for number, steps in enumerate(CASES.values()):
        graph.prefix = f"case{number}/"
        graph.outputs.append(steps[which](graph))
    return graph


@pytest.fixture(scope="module")
def both():
    return [side_by_side(which).export() for which in (0, 1)]


@pytest.fixture(scope="module")
def placed(both):
    """Placement: of the ops in fp16, and of the forms in fp16 and in 8 bits."""
    quantized = qnb.calibrate(both[1], noise(4, *SHAPE[1:]))
    ops, forms, quantized_forms = (qnb.convert(build).frame for build in (*both, quantized))
    return ops, {"fp16": forms, "w8a8": quantized_forms}


def branch(frame, number: int):
    return frame[frame["op"].str.startswith(f"case{number}/")]


def test_every_form_has_a_case():
    assert list(CASES) == [(form.op_type, form.when) for form in FORMS]


@pytest.mark.parametrize("precision", ["fp16", "w8a8"])
@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{op}-{when}" for op, when in CASES])
def test_the_npu_refuses_the_op_and_takes_the_form(placed, number, precision):
    ops, forms = branch(placed[0], number), branch(placed[1][precision], number)
    refused = ops[ops["htp"] == "no"]
    assert len(refused)
    assert any(nearest(row.op_type, row.reason) is FORMS[number] for row in refused.itertuples())
    assert len(forms)
    assert set(forms["htp"]) == {"yes"}, forms[["op", "htp", "reason"]]


def test_exact_forms_compute_the_same(both):
    sample = {"x": noise(*SHAPE)}
    ops, forms = (list(on_onnxruntime(model.path, [sample]).values()) for model in both)
    for (key, form), op_value, form_value in zip(zip(CASES, FORMS, strict=True), ops, forms, strict=True):
        assert op_value.shape == form_value.shape, key
        if form.exact:
            np.testing.assert_allclose(form_value, op_value, rtol=2e-4, atol=2e-5, err_msg=str(key))
        else:
            assert not np.allclose(form_value, op_value, rtol=1e-5, atol=1e-6), f"{key} is exact"
    np.testing.assert_allclose(forms[0], ops[0], atol=4e-4)  # the tanh that stands for erf


def test_an_op_without_a_form():
    assert nearest("Det", "Operators of type `Det` are not supported") is None
