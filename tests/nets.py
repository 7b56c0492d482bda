"""ONNX models made node by node for the tests that need one of a certain shape, size or flaw; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def value(name: str, shape: Sequence[int | str] | None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """Put a model together; nothing is checked, so that it may be wrong."""
    initializers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "net", list(inputs), list(outputs), initializers)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def convolutions(path: Path, *, layers: int, channels: int, size: int, seed: int = 0) -> Path:
    """Write 3x3 convolutions with ReLU in a row, (1, channels, size, size) in and out; more take longer to compile."""
    rng = np.random.default_rng(seed)
    nodes, weights = [], {}
    for i in range(layers):
        weights[f"w{i}"] = (rng.standard_normal((channels, channels, 3, 3)) / (3 * channels**0.5)).astype(np.float32)
        last = "y" if i == layers - 1 else f"r{i}"
        nodes += [
            helper.make_node(
                "Conv", ["x" if i == 0 else f"r{i - 1}", f"w{i}"], [f"c{i}"], name=f"conv{i}", pads=[1] * 4
            ),
            helper.make_node("Relu", [f"c{i}"], [last], name=f"relu{i}"),
        ]
    shape = (1, channels, size, size)
    onnx.save(model(nodes, [value("x", shape)], [value("y", shape)], weights), path)
    return path
