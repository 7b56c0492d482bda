"""What an ONNX graph costs and what goes in and out: MACs, parameters and bytes of every op.

Reads a model, changes nothing. Knows nothing of hardware: what a MAC takes in time is not said here.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from qnb.errors import BadInput
from qnb.values import TensorSpec

if TYPE_CHECKING:
    import onnx

__all__ = [
    "Shape",
    "attribute",
    "io_specs",
    "item_size",
    "layers",
    "nbytes",
    "network",
    "op_counts",
    "op_type",
    "parameters",
    "tensor_spec",
    "tensor_specs",
    "unknown_shapes",
]

Shape = tuple[int, ...]
_Mac = Callable[["onnx.NodeProto", Callable[[int], Shape], Shape], int]


def op_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Count the ops by type, most frequent first; types of other domains are written ``domain.Type``."""
    return dict(Counter(op_type(node) for node in model.graph.node).most_common())


def op_type(node: onnx.NodeProto) -> str:
    """Give the op's type, with its domain in front unless it is ONNX's own."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Give an attribute of an op in Python's own types, or what stands for it where it is not given."""
    from onnx import helper

    for found in node.attribute:
        if found.name == name:
            value = helper.get_attribute_value(found)
            return value.decode() if isinstance(value, bytes) else value
    return default


def io_specs(model: onnx.ModelProto) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Give the model's inputs and outputs, in their order.

    Raises
    ------
    BadInput
        If one is not a tensor of known, fixed shape.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [_spec(value) for value in model.graph.input if value.name not in constants]
    return inputs, [_spec(value) for value in model.graph.output]


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    found = _known(value)
    if found is None:
        raise BadInput(f"the shape of {value.name!r} is not fixed", hint="normalise the model first (qnb.export)")
    return found


def _known(value: onnx.ValueInfoProto) -> TensorSpec | None:
    """Give name, dtype and shape, or None where any of it is open."""
    if value.type.WhichOneof("value") != "tensor_type":
        return None
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or tensor.elem_type == 0:
        return None
    if any(dim.WhichOneof("value") != "dim_value" for dim in tensor.shape.dim):
        return None
    return TensorSpec(value.name, _dtype(tensor.elem_type), tuple(dim.dim_value for dim in tensor.shape.dim))


@functools.cache
def _dtype(element: int) -> str:
    """Give numpy's name of an ONNX element type."""
    from onnx import helper

    return helper.tensor_dtype_to_np_dtype(element).name


def tensor_specs(model: onnx.ModelProto) -> dict[str, TensorSpec]:
    """Give the specs of every tensor of the graph whose dtype and shape are known, by name; constants too."""
    graph = model.graph
    specs = {}
    for values in (graph.input, graph.value_info, graph.output):
        for value in values:
            if (spec := _known(value)) is not None:
                specs[value.name] = spec
    for tensor in graph.initializer:
        specs[tensor.name] = tensor_spec(tensor)
    return specs


def tensor_spec(tensor: onnx.TensorProto) -> TensorSpec:
    """Give the spec of a constant.

    Raises
    ------
    KeyError
        If ONNX has no such element type.
    """
    return TensorSpec(tensor.name, _dtype(tensor.data_type), tuple(tensor.dims))


def unknown_shapes(model: onnx.ModelProto) -> list[tuple[str, onnx.NodeProto]]:
    """List the op outputs whose dtype or shape is not known, each with its op, in graph order."""
    known = tensor_specs(model)
    return [(name, node) for node in model.graph.node for name in node.output if name and name not in known]


def layers(model: onnx.ModelProto) -> list[dict[str, Any]]:
    """Give one row per op, in graph order: its MACs, parameters and bytes.

    Multiply-accumulates are those of the usual formulas (as torch's FLOP counter has them, where FLOPs = 2 x MACs):
    Conv: output elements x weight elements per output channel; ConvTranspose: input elements x weight elements per
    input channel; Gemm, MatMul: output elements x contracted length; Einsum: output elements x contracted lengths;
    LSTM, GRU, RNN: steps x batch x elements of W and R. Every other op counts 0. Biases are not counted.

    Parameters are the elements of constants that carry weights. Shapes, axes, indices, bounds and single numbers
    (tensors of rank 0) are arguments of an op, not parameters. A constant that several ops share counts at the first.

    Parameters
    ----------
    model : onnx.ModelProto
        A model with all shapes known (see :func:`qnb.graph.normalise.normalise`).

    Returns
    -------
    list of dict
        ``op``, ``op_type``, ``inputs`` and ``outputs`` (shapes as text, constants left out), ``macs``,
        ``parameters``, ``weight_bytes`` (of the parameters), ``activation_bytes`` (of the outputs).

    Raises
    ------
    BadInput
        If a shape is unknown.
    """
    open_tensors = unknown_shapes(model)
    if open_tensors:
        name, node = open_tensors[0]
        raise BadInput(
            f"the shape of tensor {name!r} (output of {op_type(node)} {node.name!r}) is not known",
            hint="normalise the model first (qnb.export)",
        )
    specs = tensor_specs(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    counted: set[str] = set()
    rows = []
    for node in model.graph.node:
        weights = [specs[name] for name in parameters(node, specs, constants) if name not in counted]
        counted.update(spec.name for spec in weights)
        outputs = [specs[name] for name in node.output if name]
        rows.append(
            {
                "op": node.name,
                "op_type": op_type(node),
                "inputs": _shapes(specs[name] for name in node.input if name and name not in constants),
                "outputs": _shapes(outputs),
                "macs": _macs(node, specs),
                "parameters": sum(math.prod(spec.shape) for spec in weights),
                "weight_bytes": sum(nbytes(spec) for spec in weights),
                "activation_bytes": sum(nbytes(spec) for spec in outputs),
            }
        )
    return rows


def network(model: onnx.ModelProto) -> list[dict[str, Any]]:
    """Give one row per op, in graph order, that says how it hangs together with the others.

    Returns
    -------
    list of dict
        ``op``, ``op_type``, ``takes`` and ``gives`` (names of tensors, constants left out), ``types`` (of what it gives, as
        ``1x3x224x224 float32``; empty where that is not known).
    """
    specs = tensor_specs(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        {
            "op": node.name,
            "op_type": op_type(node),
            "takes": [name for name in node.input if name and name not in constants],
            "gives": (gives := [name for name in node.output if name]),
            "types": [f"{_shapes([specs[name]])} {specs[name].dtype}" if name in specs else "" for name in gives],
        }
        for node in model.graph.node
    ]


def nbytes(spec: TensorSpec) -> int:
    """Give the size of a tensor in bytes (4-bit types: two elements to a byte)."""
    elements = math.prod(spec.shape)
    if spec.dtype in ("int4", "uint4", "float4_e2m1fn"):
        return (elements + 1) // 2
    return elements * item_size(spec.dtype)


def item_size(dtype: str) -> int:
    """Give the bytes of one element."""
    import numpy as np

    try:
        return np.dtype(dtype).itemsize
    except TypeError:  # bfloat16, float8 and their like, which numpy does not know by name
        return 2 if dtype == "bfloat16" else 1


def _shapes(specs: Iterator[TensorSpec] | Sequence[TensorSpec]) -> str:
    return ", ".join("x".join(map(str, spec.shape)) or "scalar" for spec in specs)


# Constant inputs of float type that are arguments of an op rather than weights, by position.
_ARGUMENTS = {"DequantizeLinear": {1, 2}, "QuantizeLinear": {1, 2}, "Resize": {1, 2}}
# Ops whose integer constant is a weight: the position of that weight.
_INTEGER_WEIGHTS = {
    "ConvInteger": {1},
    "DequantizeLinear": {0},
    "Gather": {0},
    "MatMulInteger": {1},
    "QLinearConv": {3, 8},
    "QLinearMatMul": {3},
}


def parameters(node: onnx.NodeProto, specs: dict[str, TensorSpec], constants: set[str]) -> Iterator[str]:
    """Give the constants of an op that carry weights, by name."""
    arguments = _ARGUMENTS.get(node.op_type, set())
    integers = _INTEGER_WEIGHTS.get(node.op_type, set())
    quantized = node.op_type.startswith("QLinear")
    seen: set[str] = set()
    for position, name in enumerate(node.input):
        if name not in constants or name in seen or position in arguments or not specs[name].shape:
            continue
        floating = "float" in specs[name].dtype and not quantized
        if floating or position in integers:
            seen.add(name)
            yield name


# --- multiply-accumulates ------------------------------------------------------------------------------------------


def _macs(node: onnx.NodeProto, specs: dict[str, TensorSpec]) -> int:
    formula = _MACS.get(node.op_type)
    if formula is None or not any(node.output):
        return 0
    output = next(specs[name].shape for name in node.output if name)
    return formula(node, lambda position: specs[node.input[position]].shape, output)


def _conv(weight: int) -> _Mac:
    return lambda _, shape, output: math.prod(output) * math.prod(shape(weight)[1:])


def _conv_transpose(_: onnx.NodeProto, shape: Callable[[int], Shape], __: Shape) -> int:
    return math.prod(shape(0)) * math.prod(shape(1)[1:])


def _matmul(_: onnx.NodeProto, shape: Callable[[int], Shape], output: Shape) -> int:
    return math.prod(output) * shape(0)[-1]


def _gemm(node: onnx.NodeProto, shape: Callable[[int], Shape], output: Shape) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(output) * shape(0)[0 if transposed else 1]


def _recurrent(_: onnx.NodeProto, shape: Callable[[int], Shape], __: Shape) -> int:
    steps_and_batch = math.prod(shape(0)[:2])
    return steps_and_batch * (math.prod(shape(1)) + math.prod(shape(2)))


def _einsum(node: onnx.NodeProto, shape: Callable[[int], Shape], output: Shape) -> int:
    equation = next(a.s.decode() for a in node.attribute if a.name == "equation").replace(" ", "")
    terms, _, result = equation.partition("->")
    letters = terms.replace(".", "").replace(",", "")
    kept = set(result) if "->" in equation else {c for c in letters if letters.count(c) == 1}
    contracted: dict[str, int] = {}
    for position, term in enumerate(terms.split(",")):
        left, _, right = term.partition("...")
        dims = shape(position)
        sizes = [*zip(left, dims, strict=False), *zip(reversed(right), reversed(dims), strict=False)]
        contracted.update((letter, size) for letter, size in sizes if letter not in kept)
    return math.prod(output) * math.prod(contracted.values()) if "," in terms else 0


_MACS: dict[str, _Mac] = {
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearConv": _conv(3),
    "QLinearMatMul": _matmul,
    "RNN": _recurrent,
}
