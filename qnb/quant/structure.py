"""Structure: what quantization has to know of an ONNX graph — which tensors carry a grid of their own, which share one,
which disappear into their consumer, and what each parameter is for.

Knows ONNX's ops and how QNN's HTP runs them; nothing of ranges or of how grids are computed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from qnb.errors import CalibrationError

__all__ = ["Role", "Structure", "attribute", "prepared"]

_SHARING = {
    "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "MaxPool", "Reshape",
    "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Ops that only move values (or pick or interpolate among them): the output has its data input's grid.

Concat, Min and Max are not among them: HTP takes their inputs on grids of their own, and computes them as ONNX Runtime does.
Giving all of a Concat one grid changed neither its accuracy on the simulator (to 0.1 dB, with inputs up to 16 times apart)
nor the compiler's estimate of its cycles, and would coarsen what other readers of an input see.
"""

_FIRST_INPUT_ONLY = _SHARING | {"Clip", "Pad"}
"""Ops whose further inputs are shapes, indices or bounds, never data."""

_LEFT_ALONE = {"Cast", "QuantizeLinear", "DequantizeLinear"}

_WEIGHT_AXIS = {"Conv": 0, "ConvTranspose": 1}

_NORMALIZATIONS = {"LayerNormalization", "InstanceNormalization", "BatchNormalization", "GroupNormalization"}


class Role(NamedTuple):
    """What a parameter is for.

    ``weight`` is multiplied with data by an `op` and may have a grid per channel (`axis`) where HTP takes it. ``bias`` is
    added in the 32-bit accumulator of `node`. ``gamma`` scales a normalization. ``beta`` is added by the LayerNormalization
    `node`: as a 32-bit bias it costs 2 to 4 dB on HTP with 8-bit activations, and with 16 bits of its own the QNN 2.47
    compiler makes garbage of a fully connected layer behind it (both seen on the simulator, v68 to v81), so it is a
    constant in the first case and a bias in the second. ``constant`` is the operand of an elementwise op, or a table
    that values are gathered from, and is quantized as an activation.
    """

    kind: Literal["weight", "gamma", "beta", "bias", "constant"]
    axis: int | None = None
    node: str = ""
    op: str = ""


@dataclass(frozen=True)
class Fused:
    """A Relu or Clip that disappears into the op before it, because that op's output grid clips just as well."""

    node: onnx.NodeProto
    low: float
    high: float


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Give the value of a node's attribute, or `default`."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a copy in which every parameter is an initializer with a single role and every node has a name of its own.

    Constant nodes become initializers, Identity on an initializer is folded (exporters share equal parameters that way;
    quantizers that don't see through it treat biases as activations), and an initializer that is used in two roles, such
    as one bias of two convolutions, is copied for the second. The same model always gives the same names.

    Raises
    ------
    CalibrationError
        If the model is quantized already, or has control flow.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    nested = next((n for n in graph.node if any(a.HasField("g") or a.graphs for a in n.attribute)), None)
    if nested is not None:
        raise CalibrationError(
            f"the model branches: {nested.op_type} {nested.name!r} holds a graph of its own",
            hint="QNN takes no control flow: export the model without it",
        )
    already = next((n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")), None)
    if already is not None:
        raise CalibrationError(
            f"the model is quantized already: it holds {already.op_type} {already.name!r}",
            hint="calibrate the float model that it was made from",
        )
    _drop_parameters_from_inputs(graph)
    _name_nodes(graph)
    _fold_constants(graph)
    _separate_roles(graph)
    _order_silu(graph)
    return result


class Structure:
    """The facts of one prepared graph.

    Parameters
    ----------
    model : onnx.ModelProto
        From `prepared`; its tensors' types are inferred where it does not state them (native code, so call it where a crash
        is survived).
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.parameters = {i.name: i for i in self.graph.initializer}
        self.inputs = [i.name for i in self.graph.input]
        self.outputs = {o.name for o in self.graph.output}
        self.producer = {name: node for node in self.graph.node for name in node.output if name}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.graph.node:
            for name in dict.fromkeys(_inputs(node)):
                self.consumers[name].append(node)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return int(next(o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")))

    def values(self, name: str) -> NDArray[Any]:
        """Give a parameter's values."""
        return numpy_helper.to_array(self.parameters[name])

    def finite_values(self, name: str) -> NDArray[Any]:
        """Give the values of a parameter that is to be quantized.

        Raises
        ------
        CalibrationError
            If there are none, or NaN or infinities among them.
        """
        values = self.values(name)
        if values.size and np.isfinite(values).all():
            return values
        what = "holds NaN or infinities" if values.size else "is empty"
        raise CalibrationError(
            f"parameter {name!r} {what}", hint="check the trained weights; write masks with a large finite number"
        )

    @cached_property
    def roles(self) -> dict[str, Role]:
        """Role of each float parameter that is quantized."""
        return {
            node.input[index]: role
            for node in self.graph.node
            for index, role in _roles(node, self.parameters)
            if self.parameters[node.input[index]].data_type == onnx.TensorProto.FLOAT
        }

    @cached_property
    def activations(self) -> list[str]:
        """Float tensors that are computed and touched by an op that can be quantized, in the order of the graph."""
        names = [*self.inputs, *(name for node in self.graph.node for name in node.output if name)]
        return [name for name in names if name in self._float_tensors and self._touched(name)]

    @cached_property
    def source(self) -> dict[str, str]:
        """Tensor to the one (possibly a parameter) whose grid it takes over, one op before it."""
        return {
            output: node.input[0]
            for node in self.graph.node
            if self._shares(node)
            for output in node.output
            if output and output in self._float_tensors
        }

    def root(self, name: str) -> str:
        """Give the tensor that the grid of `name` comes from (itself where it shares none)."""
        while name in self.source:
            name = self.source[name]
        return name

    @cached_property
    def fused(self) -> dict[str, Fused]:
        """Tensor to the Relu or Clip that is its only consumer and clips it."""
        found = {}
        for node in self.graph.node:
            bounds = self._clip_bounds(node)
            if bounds is None or node.input[0] not in self.producer or node.input[0] in self.outputs:
                continue
            before = self.producer[node.input[0]]
            clips = (
                before.op_type not in _LEFT_ALONE and node.input[0] not in self.source and not fixed_range(before, 16)
            )
            if len(self.consumers[node.input[0]]) == 1 and clips:
                found[node.input[0]] = Fused(node, *bounds)
        return found

    def data_inputs(self, node: onnx.NodeProto) -> list[str]:
        """Give a node's inputs that hold data, as opposed to shapes, indices and bounds."""
        names = _inputs(node)[:1] if node.op_type in _FIRST_INPUT_ONLY else _inputs(node)
        return [name for name in names if name in self._float_tensors]

    def _touched(self, name: str) -> bool:
        producer = self.producer.get(name)
        if producer is not None and producer.op_type not in _LEFT_ALONE:
            return True
        return any(n.op_type not in _LEFT_ALONE and name in self.data_inputs(n) for n in self.consumers[name])

    def _shares(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "Pad":
            mode = attribute(node, "mode", b"constant")
            fill = node.input[2] if len(node.input) > 2 else ""
            zero = not fill or (fill in self.parameters and not self.values(fill).any())
            return mode != b"constant" or zero
        if node.op_type == "Resize":  # cubic overshoots
            return bool(attribute(node, "mode", b"nearest") != b"cubic")
        return node.op_type in _SHARING

    def _clip_bounds(self, node: onnx.NodeProto) -> tuple[float, float] | None:
        """Give the constant bounds of a Relu or Clip, None for any other node."""
        if node.op_type == "Relu":
            return 0.0, np.inf
        if node.op_type != "Clip":
            return None
        bounds = []
        for index, key, default in ((1, "min", -np.inf), (2, "max", np.inf)):
            name = node.input[index] if len(node.input) > index else ""
            if name and name not in self.parameters:
                return None
            bounds.append(float(self.values(name).item()) if name else float(attribute(node, key, default)))
        return bounds[0], bounds[1]

    def rank(self, name: str) -> int | None:
        """Give the number of a tensor's axes; None where it is not known."""
        if name in self.parameters:
            return len(self.parameters[name].dims)
        kind = self._stated[name].type.tensor_type if name in self._stated else None
        return len(kind.shape.dim) if kind is not None and kind.HasField("shape") else None

    @cached_property
    def _stated(self) -> dict[str, onnx.ValueInfoProto]:
        stated = [*self.graph.input, *self.graph.value_info, *self.graph.output]
        if not set(self.producer) <= {value.name for value in stated}:
            stated += _inferred(self.model)
        return {value.name: value for value in reversed(stated)}

    @cached_property
    def _float_tensors(self) -> set[str]:
        types = {name: value.type.tensor_type.elem_type for name, value in self._stated.items()}
        types |= {i.name: i.data_type for i in self.graph.initializer}
        return {name for name, kind in types.items() if kind == onnx.TensorProto.FLOAT}


def fixed_range(node: onnx.NodeProto, bits: int) -> tuple[float, float] | None:
    """Give the range that the output of `node` has by definition, or that HTP asks for; None where it is to be observed.

    Softmax's output fills 0 … 1. HTP takes 16-bit Sigmoid and Tanh only with a scale of 2**-16 and 2**-15, as ONNX Runtime's
    ``get_qnn_qdq_config`` sets them.
    """
    if node.op_type == "Softmax":
        return 0.0, 1.0
    if bits == 16 and node.op_type == "Sigmoid":
        return 0.0, 65535 / 65536
    if bits == 16 and node.op_type == "Tanh":
        return -1.0, 32767 / 32768
    return None


def _inputs(node: onnx.NodeProto) -> list[str]:
    return [name for name in node.input if name]


def _roles(node: onnx.NodeProto, parameters: dict[str, onnx.TensorProto]) -> Iterator[tuple[int, Role]]:
    """Give the inputs of `node` that are parameters, each with its role."""
    if node.op_type in _LEFT_ALONE:
        return
    constant = [i for i, name in enumerate(node.input) if name in parameters]
    for index in constant:
        if index > 0 and node.op_type in _FIRST_INPUT_ONLY:
            continue
        role = Role("constant")
        if node.op_type in _WEIGHT_AXIS or node.op_type == "Gemm":
            axis = _WEIGHT_AXIS.get(node.op_type, 0 if attribute(node, "transB", 0) else 1)
            role = {1: Role("weight", axis, op=node.op_type), 2: Role("bias", node=node.name)}.get(index, role)
        elif node.op_type == "MatMul":
            # HTP takes channels of a matrix on the right only
            matrix = index == 1 and len(parameters[node.input[1]].dims) == 2
            role = Role("weight", 1 if matrix else None, op=node.op_type)
        elif node.op_type in _NORMALIZATIONS and index > 0:
            role = Role("gamma", op=node.op_type) if index == 1 else Role("bias", node=node.name)
            if index == 2 and node.op_type == "LayerNormalization":
                role = Role("beta", node=node.name)
        yield index, role


def _drop_parameters_from_inputs(graph: onnx.GraphProto) -> None:
    """Leave only what is fed among the inputs: up to IR 3 parameters stood there as well."""
    parameters = {i.name for i in graph.initializer}
    fed = [i for i in graph.input if i.name not in parameters]
    del graph.input[:]
    graph.input.extend(fed)


def _name_nodes(graph: onnx.GraphProto) -> None:
    counts = Counter(node.name for node in graph.node)
    taken = {name for name, count in counts.items() if name and count == 1}
    for index, node in enumerate(graph.node):
        if node.name not in taken or counts[node.name] > 1:
            node.name = fresh(node.name or f"{node.op_type}_{index}", taken)
            taken.add(node.name)


def fresh(name: str, taken: set[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def _fold_constants(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes into initializers, and let consumers of Identity on an initializer use that initializer."""
    outputs = {o.name for o in graph.output}
    parameters = {i.name for i in graph.initializer}
    alias: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = alias.get(name, name)
        if node.op_type == "Constant" and (value := _constant(node)) is not None and node.output[0] not in outputs:
            graph.initializer.append(value)
            parameters.add(value.name)
        elif node.op_type == "Identity" and node.input[0] in parameters and node.output[0] not in outputs:
            alias[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    value = node.attribute[0]
    if value.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value.t)
        tensor.name = node.output[0]
        return tensor
    numbers = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if value.name not in numbers:
        return None
    return numpy_helper.from_array(
        np.array(helper.get_attribute_value(value), dtype=numbers[value.name]), node.output[0]
    )


def _separate_roles(graph: onnx.GraphProto) -> None:
    parameters = {i.name: i for i in graph.initializer}
    taken = set(parameters) | {name for node in graph.node for name in (*node.input, *node.output)}
    names: dict[str, dict[Role, str]] = defaultdict(dict)
    for node in graph.node:
        for index, role in list(_roles(node, parameters)):
            name = node.input[index]
            by_role = names[name]
            if role not in by_role:
                by_role[role] = name
                if len(by_role) > 1:
                    copy = graph.initializer.add()
                    copy.CopyFrom(parameters[name])
                    by_role[role] = copy.name = fresh(name, taken)
                    taken.add(copy.name)
            node.input[index] = by_role[role]


def _order_silu(graph: onnx.GraphProto) -> None:
    """Write ``x * sigmoid(x)`` as ``sigmoid(x) * x``.

    QNN 2.47 compiles the first order, which is PyTorch's, to garbage (3 dB SQNR) where x is a convolution's 16-bit output;
    seen on the simulator for Hexagon v68 to v81, with other quantizers' graphs as well.
    """
    sigmoids = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Sigmoid"}
    for node in graph.node:
        if node.op_type == "Mul" and sigmoids.get(node.input[1]) == node.input[0]:
            node.input[0], node.input[1] = node.input[1], node.input[0]


def _inferred(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Infer the types of a model's tensors, on a copy that leaves the large parameters' data behind."""
    small = 1 << 10  # shapes, axes and the like, whose values inference needs
    skeleton = onnx.ModelProto(ir_version=model.ir_version)
    skeleton.opset_import.extend(model.opset_import)
    skeleton.functions.extend(model.functions)
    graph = skeleton.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= small:
            graph.initializer.append(tensor)
        elif tensor.name not in {i.name for i in graph.input}:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return list(onnx.shape_inference.infer_shapes(skeleton).graph.value_info)
