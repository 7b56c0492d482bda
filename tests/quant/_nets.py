"""Two small float nets of seeded weights, and how to gather their ranges. Built with onnx alone."""

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from qnb.quant.observers import MinMax
from qnb.quant.qdq import observed_tensors

Sample = dict[str, NDArray[np.float32]]


def model(nodes, inputs, outputs, parameters, *, opset=20):
    """Build, check and infer a model of IR 10; `inputs` and `outputs` are shapes by name."""
    graph = helper.make_graph(
        [
            helper.make_node(op, list(ins), list(outs), name=f"{op}_{i}", **attributes)
            for i, (op, ins, outs, attributes) in enumerate(nodes)
        ],
        "net",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in parameters.items()],
    )
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)])
    onnx.checker.check_model(made)
    return onnx.shape_inference.infer_shapes(made, strict_mode=True)


def weights(seed=0):
    """Give a function of a shape to random float32 values whose channels differ in size by up to 8."""
    rng = np.random.default_rng(seed)

    def make(*shape, fan=None):
        values = rng.standard_normal(shape) / np.sqrt(fan or max(1, int(np.prod(shape[1:]))))
        spread = 2.0 ** rng.uniform(-3, 0, (shape[0],) + (1,) * (len(shape) - 1))
        return (values * spread).astype(np.float32)

    return make


def cnn():
    """1x3x16x16 -> 1x10: convolution, depthwise, residual Add, Concat, pools, Clip, Sigmoid gate, Gemm."""
    w = weights()
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        ("Conv", ["x", "w0", "b0"], ["c0"], same),
        ("Relu", ["c0"], ["r0"], {}),
        ("Conv", ["r0", "w1", "b1"], ["c1"], {**same, "group": 16}),
        ("Clip", ["c1", "zero", "six"], ["r1"], {}),
        ("Conv", ["r1", "w2", "b2"], ["c2"], {}),
        ("Add", ["c2", "r0"], ["a2"], {}),
        ("MaxPool", ["a2"], ["m2"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", ["m2", "w3", "b3"], ["c3"], same),
        ("Relu", ["c3"], ["r3"], {}),
        ("Concat", ["m2", "r3"], ["k3"], {"axis": 1}),
        ("GlobalAveragePool", ["k3"], ["g3"], {}),
        ("Conv", ["g3", "w4", "b4"], ["c4"], {}),
        ("Sigmoid", ["c4"], ["s4"], {}),
        ("Mul", ["k3", "s4"], ["p4"], {}),
        ("GlobalAveragePool", ["p4"], ["g4"], {}),
        ("Flatten", ["g4"], ["f4"], {}),
        ("Gemm", ["f4", "w5", "b5"], ["y"], {"transB": 1}),
    ]
    parameters = {
        "w0": w(16, 3, 3, 3), "b0": w(16, fan=10), "w1": w(16, 1, 3, 3), "b1": w(16, fan=10), "w2": w(16, 16, 1, 1),
        "b2": w(16, fan=10), "w3": w(16, 16, 3, 3), "b3": w(16, fan=10), "w4": w(32, 32, 1, 1), "b4": w(32, fan=1),
        "w5": w(10, 32), "b5": w(10, fan=10), "zero": np.float32(0), "six": np.float32(6),
    }  # fmt: skip
    return model(nodes, {"x": [1, 3, 16, 16]}, {"y": [1, 10]}, parameters)


def transformer():
    """1x16x32 -> 1x16x32: one block with LayerNormalization, attention, Gelu; MatMul and Gemm, as exporters leave them."""
    w = weights(1)
    split = np.array([1, 16, 4, 8])
    nodes = [
        ("LayerNormalization", ["x", "g0", "e0"], ["n0"], {}),
        ("Reshape", ["n0", "rows"], ["n1"], {}),
        *[("Gemm", ["n1", f"w{i}", f"b{i}"], [f"h{i}"], {}) for i in "qkv"],
        *[("Reshape", [f"h{i}", "split"], [f"i{i}"], {}) for i in "qkv"],
        ("Transpose", ["iq"], ["q"], {"perm": [0, 2, 1, 3]}),
        ("Transpose", ["ik"], ["k"], {"perm": [0, 2, 3, 1]}),
        ("Transpose", ["iv"], ["v"], {"perm": [0, 2, 1, 3]}),
        ("MatMul", ["q", "k"], ["s0"], {}),
        ("Mul", ["s0", "scale"], ["s1"], {}),
        ("Softmax", ["s1"], ["s2"], {"axis": -1}),
        ("MatMul", ["s2", "v"], ["o0"], {}),
        ("Transpose", ["o0"], ["o1"], {"perm": [0, 2, 1, 3]}),
        ("Reshape", ["o1", "join"], ["o2"], {}),
        ("MatMul", ["o2", "wo"], ["o3"], {}),
        ("Add", ["o3", "bo"], ["o4"], {}),
        ("Add", ["x", "o4"], ["a0"], {}),
        ("LayerNormalization", ["a0", "g1", "e1"], ["n2"], {}),
        ("MatMul", ["n2", "w1"], ["m0"], {}),
        ("Add", ["m0", "b1"], ["m1"], {}),
        ("Gelu", ["m1"], ["m2"], {}),
        ("MatMul", ["m2", "w2"], ["m3"], {}),
        ("Add", ["m3", "b2"], ["m4"], {}),
        ("Add", ["a0", "m4"], ["y"], {}),
    ]  # fmt: skip
    parameters = {
        "rows": np.array([16, 32]), "split": split, "join": np.array([1, 16, 32]), "scale": np.float32(8**-0.5),
        **{f"w{i}": w(32, 32) for i in "qkvo"}, **{f"b{i}": w(32, fan=10) for i in "qkvo"},
        "g0": 1 + w(32, fan=10), "e0": w(32, fan=10), "g1": 1 + w(32, fan=10), "e1": w(32, fan=10),
        "w1": w(32, 64, fan=32), "b1": w(64, fan=10), "w2": w(64, 32, fan=64), "b2": w(32, fan=10),
    }  # fmt: skip
    return model(nodes, {"x": [1, 16, 32]}, {"y": [1, 16, 32]}, parameters)


NETS = {"cnn": cnn, "transformer": transformer}


def samples(net, count=8, seed=3):
    """Give seeded normal inputs."""
    rng = np.random.default_rng(seed)
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in net.graph.input}
    return [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(count)
    ]


def run(net, inputs, *, optimize=True):
    """Give the outputs for each sample on ONNX Runtime's CPU, by name."""
    options = ort.SessionOptions()
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(net.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return [dict(zip(names, session.run(None, sample), strict=True)) for sample in inputs]


def ranges(net, inputs, *, optimize=True):
    """Give the smallest and largest value of each tensor that is to be observed."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(net)
    known = {v.name: v for v in net.graph.value_info}
    wanted = observed_tensors(net)
    exposed.graph.output.extend(known[name] for name in wanted if name in known)
    observer = MinMax()
    for sample, outputs in zip(inputs, run(exposed, inputs, optimize=optimize), strict=True):
        for name, value in {**sample, **outputs}.items():
            if name in wanted:
                observer.update(name, value)
    return observer.extents


def sqnr(reference, values):
    """Signal to quantization noise of all outputs of all samples together, in dB."""
    a, b = (
        np.concatenate([v.ravel() for out in outs for v in out.values()]).astype(np.float64)
        for outs in (reference, values)
    )
    return float(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()))
