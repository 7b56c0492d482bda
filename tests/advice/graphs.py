"""Small ONNX graphs, op by op, for the rules' tests; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Graph:
    """A graph that grows: each op reads the last tensor unless told otherwise.

    Parameters
    ----------
    *shape : int
        Of the input ``x``.
    """

    def __init__(self, *shape: int | str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.inputs = [helper.make_tensor_value_info("x", 1, shape)]
        self.outputs: list[str] = []
        self.last = "x"
        self.rng = np.random.default_rng(0)
        self.prefix = ""

    def op(self, kind: str, *args: str, weights: Any = (), outputs: int = 1, **attributes: Any) -> str:
        """Add an op named like ``conv_3``; its constants follow what it reads."""
        name = f"{self.prefix}{kind.lower()}_{len(self.nodes) + 1}"
        inputs = list(args) or [self.last]
        for number, weight in enumerate(weights):
            if weight is None:
                inputs.append("")
                continue
            self.weights[f"{name}_w{number}"] = np.asarray(weight)
            inputs.append(f"{name}_w{number}")
        made = [f"{name}_y{n}" if outputs > 1 else f"{name}_y" for n in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, made, name=name, **attributes))
        self.last = made[0]
        return self.last

    def conv(
        self, inputs: int, outputs: int, kernel: int = 3, *, group: int = 1, dilation: int = 1, pad: int | None = None
    ) -> str:
        """Add a convolution that keeps height and width."""
        shape = (outputs, inputs // group, kernel, kernel)
        weight = self.normal(*shape) / np.sqrt(np.prod(shape[1:], dtype=np.float32))
        pads = [dilation * (kernel - 1) // 2 if pad is None else pad] * 4
        return self.op(
            "Conv", weights=[weight, 0.1 * self.normal(outputs)], group=group, dilations=[dilation] * 2, pads=pads
        )

    def dense(self, inputs: int, outputs: int) -> str:
        """Add a dense layer."""
        return self.op("Gemm", weights=[self.normal(inputs, outputs) / np.float32(inputs**0.5), self.normal(outputs)])

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)

    def model(self) -> onnx.ModelProto:
        """Give the model; its outputs are `outputs`, or else the last tensor."""
        graph = helper.make_graph(
            self.nodes,
            "g",
            self.inputs,
            [helper.make_tensor_value_info(name, 1, None) for name in self.outputs or [self.last]],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return onnx.shape_inference.infer_shapes(made)

    def save(self, path: Path) -> Path:
        onnx.save(self.model(), path)
        return path

    def export(self, **options: Any) -> Any:
        """Export it as qnb does, but with the ops as they are."""
        import qnb

        return qnb.export(self.model(), **{"simplify": False, "no_repair": ["all"], "name": "net"} | options)

    def quantized(self, **options: Any) -> Any:
        """Export and quantize it, with noise as data."""
        import qnb

        model = self.export()
        data = {s.name: np.random.default_rng(1).standard_normal((2 * s.shape[0], *s.shape[1:])) for s in model.inputs}
        return qnb.calibrate(model, {k: v.astype(np.float32) for k, v in data.items()}, **options)
