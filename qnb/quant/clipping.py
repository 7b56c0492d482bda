"""Clipping: Relu and Clip in a QDQ graph, in the forms that HTP computes.

Seen with QNN 2.47, on the simulator: the execution provider drops a Relu or Clip between a convolution and its Q whether or
not the grid clips as well, and a Clip between DQ and Q may come out as if it were not there. Relu, Max and Min between two
grids come out as on ONNX Runtime. On one grid all of these give the same codes, since rounding keeps order:
Q(clip(x, a, b)) = clip(Q(x), Q(a), Q(b)).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from qnb.quant.stripping import DEQUANTIZE, QUANTIZE, counterpart, renew_nodes
from qnb.quant.structure import fresh

__all__ = ["separate_clips"]


class _Grid(NamedTuple):
    """The grid of a QuantizeLinear per tensor."""

    scale: float
    zero_point: int
    dtype: np.dtype[Any]

    def value(self, code: int) -> float:
        return self.scale * (code - self.zero_point)

    @property
    def ends(self) -> tuple[float, float]:
        info = np.iinfo(self.dtype)
        return self.value(info.min), self.value(info.max)

    def code(self, value: float) -> int:
        info = np.iinfo(self.dtype)
        return int(np.clip(np.round(value / self.scale) + self.zero_point, info.min, info.max))


def separate_clips(model: onnx.ModelProto) -> int:
    """Give Relu and Clip whose grid does not clip as they do a grid in front, and write Clip as Max, Min or Relu, in place.

    Parameters
    ----------
    model : onnx.ModelProto
        With Q/DQ, constants as initializers, nodes in order. Codes stay what they were.

    Returns
    -------
    int
        How many were changed.
    """
    return _Separator(model).run()


class _Separator:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.outputs = {value.name for value in model.graph.output}
        self.taken = {n.name for n in model.graph.node} | set(self.tensors) | set(self.makers) | set(self.readers)

    def run(self) -> int:
        nodes: list[onnx.NodeProto] = []
        changed = 0
        for node in self.graph.node:
            stages = self._stages(node)
            changed += bool(stages)
            nodes += stages or [node]
        if changed:
            renew_nodes(self.graph, nodes)
        return changed

    def _stages(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Give what stands for the node; nothing where it may stay."""
        following = self.readers.get(node.output[0], []) if node.op_type in ("Relu", "Clip") else []
        if node.output[0] in self.outputs or not following or any(n.op_type != QUANTIZE for n in following):
            return []
        quantizer = following[0]
        grid, bounds = self._grid(quantizer), self._bounds(node)
        if grid is None or bounds is None:
            return []
        slack = grid.scale / 2
        low, high = grid.ends[0] < bounds[0] - slack, grid.ends[1] > bounds[1] + slack
        maker = self.makers.get(node.input[0])
        behind_grid = maker is not None and maker.op_type == DEQUANTIZE
        if not (low or high) or (node.op_type == "Relu" and behind_grid):
            return []
        made: list[onnx.NodeProto] = []
        source = node.input[0] if behind_grid else self._requantized(node.input[0], quantizer, made)
        kinds = [("Relu" if bounds[0] == 0 else "Max", bounds[0])] * low + [("Min", bounds[1])] * high
        for number, (kind, bound) in enumerate(kinds):
            if number:
                source = self._requantized(source, quantizer, made)
            last = number == len(kinds) - 1
            target = node.output[0] if last else self._fresh(f"{node.output[0]}_{kind}")
            operands = [source] if kind == "Relu" else [source, self._constant(bound, grid, quantizer, made)]
            name = node.name if last else self._fresh(f"{node.name}_{kind}")
            made.append(helper.make_node(kind, operands, [target], name))
            source = target
        return made

    def _grid(self, quantizer: onnx.NodeProto) -> _Grid | None:
        scale = self.tensors.get(quantizer.input[1])
        zero = self.tensors.get(quantizer.input[2]) if len(quantizer.input) > 2 else None
        if scale is None or zero is None or np.prod(scale.dims, dtype=int) != 1:
            return None
        code = numpy_helper.to_array(zero)
        if code.dtype.kind not in "iu":  # 4 bits are no type of NumPy's
            return None
        return _Grid(float(numpy_helper.to_array(scale).item()), int(code.item()), code.dtype)

    def _bounds(self, node: onnx.NodeProto) -> tuple[float, float] | None:
        if node.op_type == "Relu":
            return 0.0, np.inf
        ends = [-np.inf, np.inf]
        for index, name in enumerate(node.input[1:3]):
            if name:
                if name not in self.tensors:
                    return None
                ends[index] = float(numpy_helper.to_array(self.tensors[name]).item())
        return ends[0], ends[1]

    def _requantized(self, source: str, like: onnx.NodeProto, made: list[onnx.NodeProto]) -> str:
        """Put a tensor on the grid of a QuantizeLinear; give its name behind that."""
        codes, real = self._fresh(f"{source}_before"), self._fresh(f"{source}_before_real")
        for op_type, name, target in ((QUANTIZE, source, codes), (DEQUANTIZE, codes, real)):
            made.append(self._on_grid(op_type, name, target, like))
        return real

    def _constant(self, value: float, grid: _Grid, like: onnx.NodeProto, made: list[onnx.NodeProto]) -> str:
        codes, real = self._fresh(f"{like.input[0]}_bound"), self._fresh(f"{like.input[0]}_bound_real")
        self.graph.initializer.append(numpy_helper.from_array(np.array([grid.code(value)], grid.dtype), codes))
        made.append(self._on_grid(DEQUANTIZE, codes, real, like))
        return real

    def _on_grid(self, op_type: str, source: str, target: str, like: onnx.NodeProto) -> onnx.NodeProto:
        return counterpart(like, op_type, source, target, self._fresh(f"{target}_{op_type}"))

    def _fresh(self, name: str) -> str:
        name = fresh(name, self.taken)
        self.taken.add(name)
        return name
