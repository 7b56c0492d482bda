"""Fixed shapes: the sizes of a model's inputs decided, and the shape of every tensor inferred from them.

QNN takes no dynamic shapes. Knows nothing of files and simplification.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from qnb.errors import BadInput, ExportError, UnknownName
from qnb.graph.accept import short
from qnb.graph.edit import standard
from qnb.graph.facts import nbytes, op_type, tensor_specs
from qnb.graph.light import without_weights

if TYPE_CHECKING:
    import onnx

__all__ = ["MAX_TENSOR_BYTES", "check_sizes", "fix_inputs", "infer"]

MAX_TENSOR_BYTES = 1 << 31
"""A tensor above this is taken for a mistake: no phone's NPU holds it, and making it would exhaust this machine."""

_NOT_BATCH = re.compile(r"seq|len|time|token|step|height|width|chan|feat", re.IGNORECASE)

_Dim = int | str | None


def fix_inputs(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]] | None, batch: int) -> list[str]:
    """Give every input a fixed shape, in place; what was declared of other tensors' shapes is dropped.

    An open dimension takes, in this order: its size in `shapes`; the size that its symbol has there for another
    input; `batch`, where it is an input's first one.

    Parameters
    ----------
    model : onnx.ModelProto
        Its constants must not be listed as inputs.
    shapes : mapping of str to sequence of int, optional
        Whole shapes, by input name.
    batch : int
        Size of the batch dimension.

    Returns
    -------
    list of str
        What was decided without being asked for by name.

    Raises
    ------
    BadInput
        If `shapes` names no input, contradicts the file or itself; or `batch` can't be had.
    ExportError
        If dimensions stay open, or an input would be absurdly large.
    """
    inputs = {value.name: _dims(value) for value in model.graph.input}
    given = _checked(shapes or {}, inputs)
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise BadInput(f"batch must be a whole number of at least 1, not {batch!r}", hint="pass batch=1")

    sizes = _symbols(given, inputs)
    notes = _set_batch({name: dims for name, dims in inputs.items() if name not in given}, inputs, sizes, batch)
    missing = {}
    for name, dims in inputs.items():
        if name in given:
            continue
        known = [size for dim in dims or [] if (size := sizes.get(dim) if isinstance(dim, str) else dim) is not None]
        if dims is not None and len(known) == len(dims):
            given[name] = known
        else:
            missing[name] = dims
    if missing:
        raise _left_open(missing, sizes)
    if batch != 1 and all(shape[:1] != [batch] for shape in given.values()):
        fixed = ", ".join(f"{name} {_text(shape)}" for name, shape in given.items())
        raise BadInput(
            f"batch={batch} cannot be had: the model's input shapes are fixed ({fixed})",
            hint="export it again with a dynamic first dimension, or leave batch out",
        )
    for value in model.graph.input:
        _write(value, given[value.name])
    _forget(model, sizes)
    return notes


def _dims(value: onnx.ValueInfoProto) -> list[_Dim] | None:
    """Give the declared dimensions: a size, a symbol, or None; None instead of a list where the rank is open."""
    if value.type.WhichOneof("value") != "tensor_type":
        raise ExportError(
            f"input {value.name!r} is not a tensor (it is a {value.type.WhichOneof('value') or 'value of no type'})",
            hint="QNN takes tensors only: export the model with tensors as inputs",
        )
    tensor = value.type.tensor_type
    if tensor.elem_type == 0:
        raise ExportError(f"input {value.name!r} has no element type", hint="export the model again")
    if not tensor.HasField("shape"):
        return None
    return [dim.dim_value if dim.dim_value > 0 else dim.dim_param or None for dim in tensor.shape.dim]


def _checked(shapes: Mapping[str, Sequence[int]], inputs: dict[str, list[_Dim] | None]) -> dict[str, list[int]]:
    given = {}
    for name, shape in shapes.items():
        if name not in inputs:
            raise UnknownName.among("input", name, inputs)
        try:
            sizes = [int(size) for size in shape]
        except (TypeError, ValueError) as error:
            raise BadInput(f"shapes[{name!r}] = {shape!r} is not a list of sizes", hint=_example(name, [])) from error
        if any(size < 1 for size in sizes) or any(int(size) != size for size in shape):
            raise BadInput(
                f"shapes[{name!r}] = {shape!r}: sizes are whole numbers of at least 1", hint=_example(name, [])
            )
        dims = inputs[name]
        if dims is not None and len(dims) != len(sizes):
            raise BadInput(
                f"shapes[{name!r}] = {sizes} has {len(sizes)} dimensions, the input has {len(dims)}: {_text(dims)}",
                hint=f"give all {len(dims)} sizes",
            )
        for position, (dim, size) in enumerate(zip(dims or [], sizes, strict=False)):
            if isinstance(dim, int) and dim != size:
                raise BadInput(
                    f"shapes[{name!r}] = {sizes}: the file fixes dimension {position} of {name!r} at {dim}",
                    hint="leave it as the file has it, or export the model again with the new size",
                )
        given[name] = sizes
    return given


def _symbols(given: dict[str, list[int]], inputs: dict[str, list[_Dim] | None]) -> dict[str, int]:
    """Read the sizes of symbolic dimensions off the given shapes."""
    sizes: dict[str, int] = {}
    for name, shape in given.items():
        for dim, size in zip(inputs[name] or [], shape, strict=False):
            if isinstance(dim, str) and sizes.setdefault(dim, size) != size:
                raise BadInput(
                    f"shapes gives dimension {dim!r} two sizes, {sizes[dim]} and {size} (the latter in {name!r})",
                    hint=f"give {dim!r} one size in all inputs",
                )
    return sizes


def _set_batch(
    asked: dict[str, list[_Dim] | None], inputs: dict[str, list[_Dim] | None], sizes: dict[str, int], batch: int
) -> list[str]:
    """Give the open first dimensions of `asked` the batch size, in `inputs` or `sizes`; say which in notes.

    A symbol that is named like a length, or is an inner dimension of some input, is no batch.
    """
    inner = {dim for dims in inputs.values() for dim in (dims or [])[1:] if isinstance(dim, str)}
    notes = []
    for name, dims in asked.items():
        if not dims or isinstance(dims[0], int) or dims[0] in sizes or dims[0] in inner:
            continue
        if dims[0] is None:
            inputs[name] = [batch, *dims[1:]]
        elif _NOT_BATCH.search(dims[0]):
            continue
        else:
            sizes[dims[0]] = batch
        symbol = f" ({dims[0]})" if dims[0] else ""
        notes.append(f"input {name!r}: open first dimension{symbol} fixed at batch={batch}")
    return notes


def _left_open(missing: dict[str, list[_Dim] | None], sizes: dict[str, int]) -> ExportError:
    shown = "; ".join(
        f"{name!r} is {_text(dims) if dims is not None else 'of unknown rank'}" for name, dims in missing.items()
    )
    examples = ", ".join(f"{name!r}: {_guess(dims, sizes)}" for name, dims in missing.items())
    return ExportError(
        f"input shapes are not fixed: {shown}",
        hint=f"QNN takes fixed shapes only: pass sizes that fit, for example shapes={{{examples}}} (or --shapes)",
    )


def _guess(dims: list[_Dim] | None, sizes: dict[str, int]) -> list[int]:
    if dims is None:
        return [1, 3, 224, 224]
    common = [1, 3, 224, 224] if len(dims) == 4 else [1, *[128] * len(dims)]
    return [dim if isinstance(dim, int) else sizes.get(dim or "", common[i]) for i, dim in enumerate(dims)]


def _example(name: str, dims: list[_Dim]) -> str:
    return f"for example shapes={{{name!r}: {_guess(dims or None, {})}}}"


def _text(dims: Sequence[_Dim]) -> str:
    return f"[{', '.join(str(dim) if dim is not None else '?' for dim in dims)}]"


def _write(value: onnx.ValueInfoProto, shape: Sequence[int]) -> None:
    tensor = value.type.tensor_type
    tensor.ClearField("shape")
    tensor.shape.SetInParent()  # a scalar has a shape without dimensions
    for size in shape:
        tensor.shape.dim.add().dim_value = size


def _forget(model: onnx.ModelProto, sizes: dict[str, int]) -> None:
    """Drop declared shapes that inference finds better; ops that it does not know keep theirs, with sizes filled in."""
    foreign = {name for node in model.graph.node if not standard(node) for name in node.output}
    kept = [value for value in model.graph.value_info if value.name in foreign]
    model.graph.ClearField("value_info")
    model.graph.value_info.extend(kept)
    for value in [*model.graph.value_info, *model.graph.output]:
        if value.type.WhichOneof("value") != "tensor_type":
            continue
        if value.name not in foreign:
            value.type.tensor_type.ClearField("shape")
            continue
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]


def infer(model: onnx.ModelProto, *, strict: bool = True) -> None:
    """Infer the shape of every tensor from those of the inputs, in place.

    Raises
    ------
    ExportError
        If types or shapes contradict each other, or an op is not known.
    """
    from onnx import shape_inference

    def native(light: onnx.ModelProto) -> onnx.ModelProto:
        return shape_inference.infer_shapes(light, check_type=strict, strict_mode=strict, data_prop=True)

    try:
        without_weights(model, native)
    except Exception as error:  # the native side raises several unrelated types
        raise ExportError(
            f"the graph's types or shapes do not fit together: {short(error)}",
            hint="see whether the given sizes suit the model (a Reshape may hold others); else export it again",
        ) from error


def check_sizes(model: onnx.ModelProto) -> None:
    """Refuse inputs and op outputs too large to exist, as far as their shapes are known.

    Raises
    ------
    ExportError
        If one would take over 2 GiB, or its size is beyond counting.
    """
    specs = tensor_specs(model)
    tensors = {value.name: f"input {value.name!r}" for value in model.graph.input}
    for node in model.graph.node:
        tensors |= {name: f"tensor {name!r} (output of {op_type(node)} {node.name!r})" for name in node.output}
    for name, what in tensors.items():
        if (spec := specs.get(name)) is not None:
            size = nbytes(spec)
            if size > MAX_TENSOR_BYTES or any(dim < 0 for dim in spec.shape):
                raise _too_large(what, spec.shape, size)


def _too_large(what: str, shape: Sequence[int], size: int) -> ExportError:
    amount = f"{size / 2**30:,.1f} GiB" if size > 0 else "more than can be counted"
    limit = f"{MAX_TENSOR_BYTES / 2**30:.0f} GiB"
    return ExportError(
        f"{what} of shape {_text(shape)} would take {amount}, more than the {limit} that a tensor may have",
        hint="check the sizes of the inputs (shapes=…, batch=…): one of them is far too large",
    )
