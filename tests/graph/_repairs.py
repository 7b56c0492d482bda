"""Graphs for the tests of repairs: what each repair is for (`FOR`), and what it must leave alone (`NOT_FOR`)."""

from __future__ import annotations

import itertools

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from qnb.graph.shapes import infer

F = np.float32


def ints(*values):
    return np.array(values, dtype=np.int64)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(F)


class Net:
    """A graph that grows from one input ``x``; each op reads the last tensor unless told otherwise."""

    def __init__(self, *shape, dtype=TensorProto.FLOAT, opset=20):
        self.shape, self.dtype, self.opset = shape, dtype, opset
        self.nodes, self.constants, self.outputs, self.last = [], [], [], "x"

    def const(self, value):
        self.constants.append(numpy_helper.from_array(np.asarray(value), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def op(self, kind, *inputs, outputs=1, **attributes):
        names = [self.const(i) if not isinstance(i, str) else i for i in inputs or [self.last]]
        made = [f"t{len(self.nodes)}_{n}" for n in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, made, name=f"{kind}_{len(self.nodes)}", **attributes))
        self.last = made[0]
        return self.last if outputs == 1 else made

    def model(self):
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", self.dtype, self.shape)],
            [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in self.outputs or [self.last]],
            self.constants,
        )
        for value in graph.output:
            value.ClearField("type")
        model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", self.opset)])
        infer(model)
        return model


def gelu(order=0, *, by=2**0.5, half=0.5, one=1.0, escape=False):
    net = Net(2, 8)
    inner = net.op("Div", "x", F(by)) if order != 3 else net.op("Mul", "x", F(1 / by))
    erf = net.op("Erf", inner)
    gate = net.op("Add", erf, F(one)) if order != 2 else net.op("Add", F(one), erf)
    if order in (0, 3):
        net.op("Mul", net.op("Mul", "x", gate), F(half))
    elif order == 1:
        net.op("Mul", net.op("Mul", "x", F(half)), gate)
    else:
        net.op("Mul", "x", net.op("Mul", F(half), gate))
    if escape:
        net.outputs = [net.last, erf]
    return net


def layer_norm(order=0, *, axis=-1, affine=True, escape=False):
    net = Net(2, 3, 8)
    mean = net.op("ReduceMean", "x", ints(axis))
    d = net.op("Sub", "x", mean)
    square = net.op("Mul", d, d) if order == 1 else net.op("Pow", d, F(2))
    root = net.op("Sqrt", net.op("Add", net.op("ReduceMean", square, ints(axis)), F(1e-5)))
    if order == 1:
        net.op("Mul", net.op("Reciprocal", root), d)
    else:
        net.op("Div", d, root)
    if affine:
        net.op("Mul", net.last, draw(8, seed=1))
        net.op("Add", net.last, draw(8, seed=2))
    if escape:
        net.outputs = [net.last, root]
    return net


def hard_swish(order=0, *, high=6.0, six=6.0):
    net = Net(2, 8)
    clip = net.op("Clip", net.op("Add", "x", F(3)), F(0), F(high))
    if order == 0:
        net.op("Div", net.op("Mul", "x", clip), F(six))
    elif order == 1:
        net.op("Mul", "x", net.op("Div", clip, F(six)))
    elif order == 2:
        net.op("Div", clip, F(six))
    return net


def hard_sigmoid_times():
    net = Net(2, 8)
    net.op("Mul", net.op("HardSigmoid", "x", alpha=1 / 6, beta=0.5), "x")
    return net


def one(kind, *inputs, shape=(2, 4, 8, 8), outputs=1, **attributes):
    net = Net(*shape)
    net.op(kind, "x", *inputs, outputs=outputs, **attributes)
    return net


def many(kind, count):
    net = Net(2, 4)
    net.op(kind, "x", *[draw(2, 4, seed=i) for i in range(count - 1)])
    return net


def einsum(equation, *shapes):
    net = Net(*shapes[0])
    net.op("Einsum", "x", *[draw(*s, seed=i) for i, s in enumerate(shapes[1:], 1)], equation=equation)
    return net


def dft(shape, axis, **attributes):
    net = Net(*shape)
    net.op("DFT", "x", "", np.int64(axis), **attributes)
    return net


def recurrent(kind, direction="forward", *, bias=True, state=True, apart=0, wanted="both", steps=5, **more):
    gates, ways, hidden, size, batch = {"GRU": 3, "RNN": 1}[kind], 1 + (direction == "bidirectional"), 4, 6, 2
    net = Net(steps, batch, size)
    inputs = [draw(ways, gates * hidden, size, seed=1), draw(ways, gates * hidden, hidden, seed=2) / 2]
    inputs += [draw(ways, 2 * gates * hidden, seed=3) if bias else ""]
    inputs += ["", draw(ways, batch, hidden, seed=4)] if state else []
    more |= {"linear_before_reset": apart} if kind == "GRU" else {}
    made = net.op(kind, "x", *inputs, outputs=2, hidden_size=hidden, direction=direction, **more)
    net.outputs = {"both": made, "whole": made[:1], "last": made[1:]}[wanted]
    if wanted == "last":
        net.nodes[-1].output[0] = ""
    if wanted == "whole":
        del net.nodes[-1].output[1]
    return net


def gather(indices, axis=1, kind="Gather"):
    net = Net(3, 5)
    net.op(kind, "x", np.array(indices, dtype=np.int64), axis=axis)
    return net


def gather_nd(indices, shape=(2, 3, 4, 5), batch=0):
    net = Net(*shape)
    net.op("GatherND", "x", np.array(indices, dtype=np.int64), batch_dims=batch)
    return net


def widened(reader):
    net = Net(4)
    whole = net.op("Cast", net.op("Abs", "x"), to=TensorProto.INT32)
    wide = net.op("Cast", whole, to=TensorProto.INT64)
    if reader == "Gather":
        net.op("Gather", draw(9, 3), wide)
    else:
        net.op("Cast", net.op("Mul", wide, ints(2**40)), to=TensorProto.FLOAT)
    return net


def windows(shape=(1, 16, 16, 8), size=4, keep=False):
    """The window partition of Swin: six axes, moved, and merged again."""
    net = Net(*shape)
    b, h, w, c = shape
    net.op("Reshape", "x", ints(b, h // size, size, w // size, size, c))
    net.op("Transpose", net.last, perm=[0, 1, 3, 2, 4, 5])
    if keep:
        return net
    net.op("Reshape", net.last, ints(-1, size * size, c))
    return net


def halves(*activation, axis=1, swish=False, shape=(2, 8)):
    net = Net(*shape)
    net.op("Add", "x", F(0.5))
    if swish:
        net.op("Mul", net.last, net.op("Sigmoid", net.last))
    for kind in activation:
        net.op(kind, net.last)
    sizes = ints(shape[axis] - 3, 3)
    net.outputs = net.op("Split", net.last, sizes, outputs=2, axis=axis)
    return net


def norms(*, shared=("scale",), shape=(2, 3, 4)):
    net = Net(*shape)
    common = {name: net.const(draw(3, seed=number)) for number, name in enumerate(shared)}
    for number in range(2):
        own = [common.get(name, draw(3, seed=10 * number + 5)) for name in ("scale", "shift", "mean")]
        net.op("BatchNormalization", net.last, *own, np.abs(draw(3, seed=20 + number)) + F(0.5), epsilon=1e-3)
    return net


def six_axes(kind, *inputs, **attributes):
    net = Net(2, 3, 4, 5, 2, 3)
    net.op(kind, "x", *inputs, **attributes)
    net.op("Reshape", net.last, ints(-1))
    return net


FOR = {
    "gelu": [lambda order=order: gelu(order) for order in range(4)],
    "layer-norm": [
        layer_norm,
        lambda: layer_norm(1),
        lambda: layer_norm(axis=2),
        lambda: layer_norm(affine=False),
    ],
    "hard-swish": [hard_swish, lambda: hard_swish(1), lambda: hard_swish(2), hard_sigmoid_times],
    "erf": [lambda: one("Erf")],
    "activations": [
        lambda kind=kind, more=more: one(kind, **more)
        for kind, more in (
            ("Softsign", {}), ("Selu", {}), ("Selu", {"alpha": 1.5, "gamma": 2.0}), ("Celu", {"alpha": 2.0}), ("Sinh", {}),
            ("Cosh", {}), ("Asinh", {}), ("Hardmax", {"axis": 1}), ("Hardmax", {}), ("Shrink", {"lambd": 0.4, "bias": 0.4}),
        )
    ],
    "reductions": [
        *(
            lambda kind=kind, keep=keep: one(kind, ints(-1, 2), keepdims=keep)
            for kind in ("ReduceL1", "ReduceLogSumExp", "ReduceSumSquare")
            for keep in (0, 1)
        ),
        lambda: one("ReduceL1"),
        lambda: one("ReduceProd", ints(1)),
        lambda: one("ReduceProd", ints(-3), keepdims=0),
    ],
    "variadic": [lambda k=k, n=n: many(k, n) for k in ("Sum", "Mean", "Max", "Min") for n in (1, 3, 4)]
    + [lambda: many("Sum", 2), lambda: many("Mean", 2)],
    "mod": [lambda: one("Mod", F(0.7), fmod=1), lambda: one("Mod", draw(8, seed=5), fmod=1)],
    "einsum": [
        lambda case=case: einsum(*case)
        for case in (
            ("bqd,bkd->bqk", (2, 3, 4), (2, 5, 4)), ("bhqk,bkhd->bqhd", (2, 3, 4, 5), (2, 5, 3, 6)),
            ("ij,jk", (3, 4), (4, 5)),
            ("abcd->abdc", (2, 3, 4, 5)), ("abc->b", (2, 3, 4)), ("i,j->ij", (3,), (4,)), ("bi,bi->b", (2, 3), (2, 3)),
            ("abc,cd,de->abe", (2, 3, 4), (4, 5), (5, 6)), ("bhwc,hkc->bhwk", (2, 3, 4, 5), (3, 6, 5)),
            ("bchw,bcn->bnhw", (1, 4, 3, 3), (1, 4, 2)), ("abc,bd->acd", (2, 3, 4), (3, 5)),
            ("ni,nj,nk->nijk", (2, 3), (2, 4), (2, 5)), ("b i , b i -> b", (2, 3), (2, 3)),
        )
    ],
    "dft": [
        lambda: dft((2, 8, 1), 1),
        lambda: dft((2, 8, 1), 1, onesided=1),
        lambda: dft((2, 7, 2), 1),
        lambda: dft((2, 7, 2), -2, inverse=1),
        lambda: dft((3, 6, 5, 2), 1),
    ],
    "pooling": [
        lambda: one("LpPool", kernel_shape=[3, 3], strides=[2, 2]),
        lambda: one("GlobalLpPool"),
        lambda: one("AveragePool", kernel_shape=[3, 2], dilations=[2, 3]),
        lambda: one("MaxPool", kernel_shape=[3, 3], dilations=[2, 2], strides=[1, 2], pads=[2, 1, 0, 2]),
        lambda: one("MaxPool", shape=(1, 3, 6, 8, 8), kernel_shape=[3, 2, 3], strides=[2, 2, 1], pads=[1, 0, 1, 0, 1, 1]),
    ],
    "conv-transpose": [
        lambda: one("ConvTranspose", draw(4, 5, 3, 3), draw(5), dilations=[2, 3], strides=[2, 1], pads=[1, 0, 1, 2]),
        lambda: one("ConvTranspose", draw(4, 1, 2, 3), dilations=[2, 1], group=4),
    ],
    "pad": [lambda: one("Pad", ints(0, 0, 1, 2, 0, 1, 0, 3), mode="wrap")],
    "trilu": [
        lambda: one("Trilu"),
        lambda: one("Trilu", np.int64(-2), upper=0),
        lambda: one("Trilu", np.int64(1), shape=(3, 5)),
    ],
    "reverse-sequence": [lambda: one("ReverseSequence", ints(8, 8), shape=(8, 2, 4), time_axis=0, batch_axis=1)],
    "split": [
        *(lambda kind=kind: halves(kind) for kind in ("Sigmoid", "Tanh", "Gelu", "LeakyRelu", "HardSwish", "Relu")),
        lambda: halves(swish=True),
        lambda: halves("Tanh", axis=2, shape=(1, 2, 7)),
        lambda: halves("Tanh", axis=-2, shape=(1, 7, 2)),
    ],
    "batch-norm": [norms, lambda: norms(shared=("scale", "shift", "mean"))],
    "recurrent": [
        *(
            lambda way=way, bias=bias, state=state, apart=apart: recurrent("GRU", way, bias=bias, state=state, apart=apart)
            for way, bias, state, apart in itertools.product(
                ("forward", "reverse", "bidirectional"), (True, False), (True, False), (0, 1)
            )
        ),
        *(lambda way=way: recurrent("RNN", way) for way in ("forward", "reverse", "bidirectional")),
        *(lambda wanted=wanted: recurrent("GRU", "bidirectional", wanted=wanted) for wanted in ("whole", "last")),
        lambda: recurrent("GRU", steps=1, state=False),
    ],
    "gather-nd": [
        lambda: gather_nd([[0, 1], [1, -1], [-2, 0]]),
        lambda: gather_nd([[[0, 2, 1, 4]], [[1, 0, 3, -5]]]),
        lambda: gather_nd([[1], [0], [1]]),
        lambda: gather_nd([[[0, 3], [2, 1], [1, -1]]] * 2, batch=1),
    ],
    "negative-indices": [
        lambda: gather([-1, 0, -5]),
        lambda: gather(-2, axis=-1),
        lambda: gather([[-1, 0], [2, -3]], kind="GatherElements"),
    ],
    "int32": [lambda: widened("Gather")],
    "rank": [
        windows,
        lambda: windows(keep=True),
        *(lambda kind=kind: six_axes(kind) for kind in ("Relu", "Tanh", "Softmax")),
        lambda: six_axes("Add", draw(4, 1, 2, 3)),
        lambda: six_axes("Mul", draw(2, 3, 1, 1, 1, 1)),
        lambda: six_axes("Add", F(2)),
        lambda: six_axes("Clip", F(-1), F(0.5)),
        lambda: six_axes("Softmax", axis=2),
        lambda: six_axes("ReduceSum", ints(1, -1)),
        lambda: six_axes("ReduceMean", ints(2), keepdims=0),
        lambda: six_axes("Slice", ints(1, 0), ints(3, -1), ints(2, -1)),
        lambda: six_axes("Gather", ints(2, 0, 0), axis=1),
        lambda: six_axes("Gather", np.int64(1), axis=3),
        lambda: six_axes("Concat", draw(2, 3, 1, 5, 2, 3), axis=2),
        lambda: six_axes("Transpose", perm=[5, 3, 1, 0, 2, 4]),
        lambda: six_axes("Transpose", perm=[5, 4, 3, 2, 1, 0]),
    ],
}  # fmt: skip

NOT_FOR = {
    "gelu": [lambda: gelu(by=1.5), lambda: gelu(half=0.4), lambda: gelu(one=2.0), lambda: gelu(escape=True)],
    "layer-norm": [lambda: layer_norm(axis=1, affine=False), lambda: layer_norm(escape=True)],
    "hard-swish": [lambda: hard_swish(high=5.0), lambda: hard_swish(six=5.0), lambda: one("HardSigmoid")],
    "erf": [lambda: one("Tanh")],
    "activations": [lambda: one("Shrink", lambd=0.5, bias=0.1), lambda: one("Elu")],
    "reductions": [
        lambda: one("ReduceSum", ints(1)),
        lambda: one("ReduceProd"),
        lambda: one("ReduceL1", ints(), noop_with_empty_axes=1),
    ],
    "variadic": [lambda: many("Max", 2), lambda: many("Min", 2)],
    "mod": [lambda: one("Floor")],
    "einsum": [lambda: einsum("ii->i", (3, 3)), lambda: einsum("...i,ij->...j", (2, 3), (3, 4))],
    "dft": [lambda: one("Sin")],
    "pooling": [
        lambda: one("MaxPool", kernel_shape=[3, 3]),
        lambda: one("AveragePool", kernel_shape=[2, 2], dilations=[2, 2], pads=[1, 1, 1, 1]),
        lambda: one("LpPool", kernel_shape=[2, 2], p=1),
    ],
    "conv-transpose": [lambda: one("ConvTranspose", draw(4, 5, 3, 3), strides=[2, 2])],
    "pad": [lambda: one("Pad", ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")],
    "trilu": [lambda: one("Relu")],
    "reverse-sequence": [lambda: one("ReverseSequence", ints(8, 3), shape=(8, 2, 4), time_axis=0, batch_axis=1)],
    "split": [halves, lambda: halves("Exp")],
    "batch-norm": [lambda: norms(shared=())],
    "recurrent": [
        lambda: recurrent("GRU", activations=["Sigmoid", "Relu"]),
        lambda: recurrent("RNN", clip=0.5),
        lambda: recurrent("RNN", steps=257),
    ],
    "gather-nd": [lambda: gather_nd([[[0, 3]], [[2, 1]]], batch=1), lambda: one("Relu")],
    "negative-indices": [lambda: gather([0, 4])],
    "int32": [lambda: widened("Mul")],
    "rank": [lambda: one("Transpose", perm=[0, 2, 3, 1]), lambda: one("Softmax", axis=2)],
}  # fmt: skip

GONE = {"gelu": {"Erf"}, "einsum": {"Einsum"}, "dft": {"DFT"}, "recurrent": {"GRU", "RNN"}} | dict.fromkeys(
    ("erf", "activations", "reductions", "mod", "trilu", "reverse-sequence", "gather-nd"), frozenset()
)
"""Ops that are not there afterwards; for others, all that were there."""
