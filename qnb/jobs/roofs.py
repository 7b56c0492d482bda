"""The job that finds out how fast the NPU, or its simulator, goes at best: two ops made for it, run and profiled.

A 1x1 convolution has many MACs for each byte, an addition of two tensors has none at all. What they reach can be reached;
that is all that it says. Knows nothing of peaks that a data sheet may promise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qnb.jobs.profiling import profile_ops
from qnb.runtime.worker import JobContext, Reply

_CONV, _ADD = "roof_conv", "roof_add"


def measure_roofs(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Run a 1x1 convolution and an addition with the runtime's detailed profile, and give their rates.

    args: ``spec`` (its model is written here), ``csv`` as for `profile_ops`, ``weight_bits`` and ``activation_bits`` (both 0
    for float), ``channels`` (in, out), ``size``, ``runs``, ``warmup``. Answers with ``macs_per_cycle`` of the one and
    ``bytes_per_cycle`` of the other; without either, if the runtime names no such op or gives it no cycles.
    """
    import onnx

    inside, outside = args["channels"]
    size, bits = args["size"], args["activation_bits"]
    onnx.save(_network(inside, outside, size, args["weight_bits"], bits), args["spec"]["model"])
    kind = {0: np.float32, 8: np.uint8, 16: np.uint16}[bits]
    rng = np.random.default_rng(0)
    sample = {name: rng.integers(0, 200, (1, inside, size, size)).astype(kind) for name in ("a", "b")}
    wanted = {name: args[name] for name in ("spec", "csv", "runs", "warmup")}
    ops = {str(e["op"]): float(e["cycles"]) for e in profile_ops(ctx, wanted, sample)[0]["ops"]}
    pixels = size * size
    width = bits // 8 or 2  # float is fp16 there
    done = {
        "macs_per_cycle": (_CONV, inside * outside * pixels),
        "bytes_per_cycle": (_ADD, 3 * inside * pixels * width),
    }
    found = {}
    for rate, (name, amount) in done.items():
        cycles = sum(value for op, value in ops.items() if op.startswith(name))
        if cycles > 0:
            found[rate] = amount / cycles
    return found, {}


def _network(inside: int, outside: int, size: int, weight_bits: int, bits: int) -> Any:
    """Make the graph; with integers at its edge, since quantizing there costs the simulator more than all the rest."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = rng.standard_normal((outside, inside, 1, 1)).astype(np.float32) / inside**0.5
    held: dict[str, np.ndarray] = {}
    nodes = []

    def put(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    if bits:
        element = TensorProto.UINT8 if bits == 8 else TensorProto.UINT16
        whole = np.uint8 if bits == 8 else np.uint16
        held |= {"scale": np.array(8 / 2**bits, np.float32), "zero": np.array(2 ** (bits - 1), whole)}
        step = np.abs(weights).max(axis=(1, 2, 3)) / (2 ** (weight_bits - 1) - 1)
        held["w_scale"] = step
        codes = np.round(weights / step[:, None, None, None]).astype(np.int8)
        stored = numpy_helper.from_array(codes, "w_codes")
        zeros = numpy_helper.from_array(np.zeros(outside, np.int8), "w_zero")
        if weight_bits == 4:
            stored, zeros = (
                helper.make_tensor(name, TensorProto.INT4, list(values.shape), values.ravel())
                for name, values in (("w_codes", codes), ("w_zero", np.zeros(outside, np.int8)))
            )
        a, b = (put("DequantizeLinear", [name, "scale", "zero"], f"{name}_real") for name in ("a", "b"))
        w = put("DequantizeLinear", ["w_codes", "w_scale", "w_zero"], "w", axis=0)
        y = put("QuantizeLinear", [put("Conv", [a, w], _CONV), "scale", "zero"], "y")
        z = put("QuantizeLinear", [put("Add", [a, b], _ADD), "scale", "zero"], "z")
        constants = [stored, zeros]
    else:
        element = TensorProto.FLOAT
        held["w"] = weights
        y, z = put("Conv", ["a", "w"], _CONV), put("Add", ["a", "b"], _ADD)
        constants = []
    constants += [numpy_helper.from_array(v, name) for name, v in held.items()]
    shapes = {"a": inside, "b": inside, y: outside, z: inside}
    values = [helper.make_tensor_value_info(n, element, [1, c, size, size]) for n, c in shapes.items()]
    graph = helper.make_graph(nodes, "roofs", values[:2], values[2:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
