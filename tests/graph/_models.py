"""ONNX models built by hand for the tests of this folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shapes = Mapping[str, Sequence[int | str | None] | None]


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: Shapes,
    outputs: Shapes,
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 20,
    ir: int = 10,
    dtype: int = TensorProto.FLOAT,
    **kwargs: Any,
) -> onnx.ModelProto:
    """Build a model; `inputs` and `outputs` map names to declared dimensions, `constants` names to arrays."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, ir_version=ir, opset_imports=opsets, **kwargs)


def conv_net(batch: int | str | None = "N", *, opset: int = 20, ir: int = 10) -> onnx.ModelProto:
    """Give conv, batch norm, relu, global average pool, flatten, gemm: Nx3x8x8 → Nx5."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", "gain", "bias", "mean", "var"], ["n"], name="norm"),
        helper.make_node("Relu", ["n"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "v", "b"], ["y"], name="fc"),
    ]
    constants = {"w": draw(4, 3, 3, 3), "gain": draw(4), "bias": draw(4), "mean": draw(4), "var": draw(4) ** 2 + 0.1}
    constants |= {"v": draw(4, 5), "b": draw(5)}
    return build(nodes, {"x": [batch, 3, 8, 8]}, {"y": [batch, 5]}, constants, opset=opset, ir=ir)


def save(model: onnx.ModelProto, path: Path) -> str:
    """Write without any check."""
    path.write_bytes(model.SerializeToString())
    return str(path)
