"""What ONNX's checker and ONNX Runtime say of a model, before QNN is asked anything.

Native code all of it: for worker processes. Knows nothing of how the model was made.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from qnb.errors import ExportError
from qnb.graph.edit import opset_of, standard
from qnb.graph.facts import op_type, unknown_shapes
from qnb.graph.light import light_copy
from qnb.graph.writing import MAX_FILE_BYTES, weight_bytes

if TYPE_CHECKING:
    import onnx

__all__ = ["MAX_OPSET", "check_graph", "check_ops", "complete_shapes", "short"]

MAX_OPSET = 25
"""The newest opset that onnxruntime 1.24.4 takes."""

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")  # com.microsoft: the ops that ONNX Runtime adds


def check_ops(model: onnx.ModelProto) -> None:
    """Refuse opsets and ops that nobody here knows; local functions must be inlined before.

    Raises
    ------
    ExportError
        If the opset is missing or too new, or an op is not one of its opset.
    """
    from onnx import defs

    version = opset_of(model)
    if version > MAX_OPSET:
        raise ExportError(
            f"opset {version} is newer than ONNX Runtime 1.24.4 takes (at most {MAX_OPSET})",
            hint="export it again with opset_version=20; opsets can't be lowered safely afterwards",
        )
    for node in model.graph.node:
        if node.domain not in _DOMAINS:
            raise ExportError(
                f"op {op_type(node)} {node.name!r} is of the domain {node.domain!r}, which no runtime here knows",
                hint="export with standard ONNX ops, or give the op as a local function of the model",
            )
        if standard(node) and version == 0:
            raise ExportError(
                "the model does not say which opset it uses", hint="export it again with opset_version=20"
            )
        if standard(node) and not defs.has(node.op_type, version, ""):
            raise ExportError(
                f"op {node.op_type} {node.name!r} is not an op of ONNX opset {version}",
                hint="export with standard ONNX ops, or give the op as a local function of the model",
            )


def complete_shapes(model: onnx.ModelProto) -> None:
    """Ask ONNX Runtime for the shapes that ONNX has no rule for (its own ops), and write them into the model.

    Raises
    ------
    ExportError
        If ONNX Runtime does not take the model.
    """
    import onnx

    if all(standard(node) for node in model.graph.node):
        return
    names = [name for name, _ in unknown_shapes(model)]
    if not names or weight_bytes(model) > MAX_FILE_BYTES:
        return
    told = {value.name: value for value in _session(model, names).get_outputs()}
    declared = {value.name: value for value in [*model.graph.value_info, *model.graph.output]}
    for name in names:
        shape, kind = told[name].shape, told[name].type
        if not kind.startswith("tensor(") or not all(isinstance(dim, int) for dim in shape):
            continue
        value = declared.get(name) or model.graph.value_info.add(name=name)
        element = onnx.TensorProto.DataType.Value(kind[7:-1].upper())
        value.CopyFrom(onnx.helper.make_tensor_value_info(name, element, shape))


def check_graph(model: onnx.ModelProto) -> None:
    """Have ONNX's checker and an ONNX Runtime session on the CPU accept the graph.

    Both see the weights as inputs, which takes no time and memory for them; the session sees them where it refuses that.
    Their sizes were checked as the model was read.

    Raises
    ------
    ExportError
        If one refuses it.
    """
    import onnx

    try:
        onnx.checker.check_model(light_copy(model), full_check=True)
    except Exception as error:
        raise ExportError(f"ONNX's checker refuses the model: {short(error)}", hint="export it again") from error
    _session(model)


def _session(model: onnx.ModelProto, also: Collection[str] = ()) -> Any:
    """Create a session that gives the tensors `also` as well; its weights are inputs, unless that is refused."""
    import onnx

    outputs = {value.name for value in model.graph.output}
    more = [onnx.ValueInfoProto(name=name) for name in also if name not in outputs]
    light = light_copy(model)
    light.graph.output.extend(more)
    try:
        return _created(light)
    except ExportError:
        if len(light.graph.input) == len(model.graph.input) or weight_bytes(model) > MAX_FILE_BYTES:
            raise
    whole = onnx.ModelProto()  # an op may want its weights constant
    whole.CopyFrom(model)
    whole.graph.output.extend(more)
    return _created(whole)


def _created(model: onnx.ModelProto) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # only whether it can, and quickly
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(
            f"ONNX Runtime refuses the model: {short(error)}",
            hint="replace the op that it names by standard ONNX ops of the same meaning, then export again",
        ) from error


def short(error: BaseException) -> str:
    """Give the message of a native error on one line, at most 600 characters."""
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return text[:600] or type(error).__name__
