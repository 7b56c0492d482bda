"""The TFLite front-end: tf2onnx reads the file, LiteRT runs it as the reference.

A quantized file becomes a QDQ graph; its reference is given in real values, as the graph computes them once its edges are
float. For worker processes. Knows nothing of QNN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qnb.errors import BadInput, ExportError
from qnb.frontends import tensorflow
from qnb.frontends.converted import check_control_flow, check_known_ops, checked_pairs, fixed, rename
from qnb.frontends.ports import Arrays, Converted, Port
from qnb.graph.writing import save, staged

__all__ = ["convert", "mend"]

_Edge = tuple[str, dict[str, Any]]  # name, and what LiteRT says of the tensor


def convert(
    path: Path | str,
    out: Path | str,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int = 1,
    example: Arrays | None = None,
) -> Converted:
    """Make an ONNX file of a TFLite model; its names are those of its signature, if it has one.

    Parameters
    ----------
    path, out : path
        The model, and the ONNX file to write.
    shapes, batch, example
        See `qnb.export`; an example is in real values, also where the model takes integers.

    Raises
    ------
    ExportError
        If it is damaged, or ops of it have no ONNX form.
    BadInput
        If an argument does not fit it: a TFLite file fixes its shapes.
    RuntimeUnavailable
        If TensorFlow, tf2onnx or LiteRT is not installed.
    """
    tensorflow.require()
    interpreter = _interpreter(Path(path))  # takes a second, TensorFlow takes ten
    inputs, outputs = _edges(interpreter)
    ports = [Port(name, "float32" if _grid(d) else np.dtype(d["dtype"]).name, _shape(d)) for name, d in inputs]
    sizes, values, notes = fixed(ports, shapes, batch, example or {})
    import tf2onnx

    import qnb.frontends.tf2onnx_ops  # noqa: F401  # teaches tf2onnx

    try:
        model, _ = tf2onnx.convert.from_tflite(str(path), opset=tensorflow.OPSET)
    except Exception as error:  # tf2onnx has no errors of its own
        raise ExportError(
            f"tf2onnx can't convert {path}: {type(error).__name__}: {' '.join(str(error).split())[:400]}",
            hint="export the TensorFlow model that it was made of instead",
        ) from error
    check_known_ops(model, "the TFLite ops")
    names = {d["name"]: name for name, d in [*inputs, *outputs]}
    found = {value.name for value in (*model.graph.input, *model.graph.output)}
    if found != set(names):
        raise ExportError(
            f"tf2onnx changed the inputs or outputs: {sorted(found)} instead of {sorted(names)}",
            hint="an input that nothing reads, or an output that is an input, can't be kept: leave it out",
        )
    check_control_flow(model)  # before it runs: a loop may never end
    pairs = checked_pairs(ports, sizes, values, lambda feeds: _run(interpreter, inputs, outputs, feeds))
    # what the interpreter was fed is what the grid holds of it
    pairs = [({name: _on_grid(feeds[name], d) for name, d in inputs}, made) for feeds, made in pairs]
    rename(model, names)
    model = mend(model)
    _float_edges(model, inputs, outputs)
    with staged(out) as target:
        save(model, target)
    steps = {name: grid[0] for name, d in outputs if (grid := _grid(d))}
    return Converted(Path(out), sizes, pairs, tuple(notes), steps)


def _interpreter(path: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite import Interpreter  # deprecated there, but the same
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ExportError(
            f"LiteRT can't read {path}: {' '.join(str(error).split())[:300]}",
            hint="copy or download it again; ops of other libraries (Flex, custom ops) are not converted",
        ) from error
    return interpreter


def _edges(interpreter: Any) -> tuple[list[_Edge], list[_Edge]]:
    """Give inputs and outputs with the names of the only signature, else with their tensors' own."""
    signatures = interpreter.get_signature_list()
    sides = []
    for side, details in (("inputs", interpreter.get_input_details()), ("outputs", interpreter.get_output_details())):
        names = {d["index"]: d["name"].removesuffix(":0").removeprefix("serving_default_") for d in details}
        if len(signatures) == 1:
            runner = interpreter.get_signature_runner(next(iter(signatures)))
            known = runner.get_input_details() if side == "inputs" else runner.get_output_details()
            names |= {d["index"]: name for name, d in known.items() if d["index"] in names}
        sides.append([(names[d["index"]], d) for d in details])
    flat = [name for side in sides for name, _ in side]
    if len(set(flat)) < len(flat):  # one name for an input and an output
        sides = [[(d["name"], d) for _, d in side] for side in sides]
    return sides[0], sides[1]


def _shape(detail: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(size) for size in detail["shape"])


def _grid(detail: Mapping[str, Any]) -> tuple[float, int] | None:
    """Give scale and zero point of an integer edge."""
    scale, zero_point = detail["quantization"]
    return (float(scale), int(zero_point)) if scale and np.dtype(detail["dtype"]).kind in "iu" else None


def _codes(value: Any, detail: Mapping[str, Any]) -> Any:
    grid = _grid(detail)
    if grid is None:
        return value
    limits = np.iinfo(detail["dtype"])
    codes = np.rint(value / np.float32(grid[0])) + grid[1]
    return np.clip(codes, limits.min, limits.max).astype(detail["dtype"])


def _real(codes: Any, detail: Mapping[str, Any]) -> Any:
    grid = _grid(detail)
    return codes if grid is None else (codes.astype(np.float32) - np.float32(grid[1])) * np.float32(grid[0])


def _on_grid(value: Any, detail: Mapping[str, Any]) -> Any:
    return _real(_codes(value, detail), detail)


def _run(interpreter: Any, inputs: list[_Edge], outputs: list[_Edge], feeds: Arrays) -> Arrays:
    for name, detail in inputs:
        if feeds[name].shape != _shape(detail):
            raise BadInput(f"input {name!r} has the shape {_shape(detail)}", hint="leave shapes and batch out")
        interpreter.set_tensor(detail["index"], _codes(feeds[name], detail))
    interpreter.invoke()
    return {name: _real(interpreter.get_tensor(d["index"]).copy(), d) for name, d in outputs}


def _float_edges(model: Any, inputs: list[_Edge], outputs: list[_Edge]) -> None:
    """Let integer inputs and outputs be float, in place: the graph quantizes and dequantizes them itself."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    for edges, values, op_type in (
        (inputs, graph.input, "QuantizeLinear"),
        (outputs, graph.output, "DequantizeLinear"),
    ):
        declared = {value.name: value for value in values}
        for name, detail in edges:
            grid = _grid(detail)
            if grid is None:
                continue
            codes, constants = f"{name}_codes", [f"{name}_scale", f"{name}_zero_point"]
            for node in graph.node:
                node.input[:] = [codes if tensor == name else tensor for tensor in node.input]
                node.output[:] = [codes if tensor == name else tensor for tensor in node.output]
            ends = (name, codes) if op_type == "QuantizeLinear" else (codes, name)
            graph.initializer.append(numpy_helper.from_array(np.array(grid[0], np.float32), constants[0]))
            graph.initializer.append(numpy_helper.from_array(np.array(grid[1], detail["dtype"]), constants[1]))
            made = helper.make_node(op_type, [ends[0], *constants], [ends[1]], name=f"{name}_{op_type}")
            graph.node.insert(0 if op_type == "QuantizeLinear" else len(graph.node), made)
            declared[name].type.tensor_type.elem_type = TensorProto.FLOAT
    known = [v for v in graph.value_info if v.name not in {name for name, _ in (*inputs, *outputs)}]
    del graph.value_info[:]
    graph.value_info.extend(known)


def _dense_layers(model: Any) -> None:
    """Make one Gemm of MatMul and Add, in place: TFLite's dense layer is one op, with no grid in between."""
    import onnx
    from onnx import helper

    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in (*inferred.value_info, *inferred.output)}
    ranks |= {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in [node for node in graph.node if node.op_type == "MatMul"]:
        following = readers.get(node.output[0], [])
        if len(following) != 1 or following[0].op_type != "Add" or node.input[1] not in constants:
            continue
        add = following[0]
        bias = next((name for name in add.input if name in constants and ranks.get(name) == 1), None)
        if bias is None or ranks.get(node.output[0]) != 2 or ranks.get(node.input[1]) != 2:
            continue
        gemm = helper.make_node("Gemm", [*node.input, bias], list(add.output), name=node.name)
        add.CopyFrom(gemm)  # where the Add was, all that it reads is there
        graph.node.remove(node)


def mend(model: Any) -> Any:
    """Give dense layers their bias back, and make valid ONNX of what tf2onnx writes for 16-bit activations.

    There biases of int64 become int32, or float where they are too large for that, and the opset 21.

    Raises
    ------
    ExportError
        If the opset can't be lifted.
    """
    import onnx
    from onnx import TensorProto, numpy_helper, version_converter

    _dense_layers(model)
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        codes = tensors.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if codes is None or codes.data_type != TensorProto.INT64:
            kept.append(node)
            continue
        values = numpy_helper.to_array(codes)
        if np.abs(values).max(initial=0) < 2**31:
            codes.CopyFrom(numpy_helper.from_array(values.astype(np.int32), codes.name))
            zero = tensors.get(node.input[2]) if len(node.input) > 2 else None
            if zero is not None and zero.data_type == TensorProto.INT64:
                zero.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(zero).astype(np.int32), zero.name))
            kept.append(node)
            continue
        value = values.astype(np.float64) * numpy_helper.to_array(tensors[node.input[1]])
        graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), node.output[0]))
    sixteen = any(
        value.type.tensor_type.elem_type in (TensorProto.INT16, TensorProto.UINT16) for value in graph.input
    ) or any(tensor.data_type in (TensorProto.INT16, TensorProto.UINT16) for tensor in tensors.values())
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(kept)
    if not sixteen:
        return model
    try:
        lifted = version_converter.convert_version(model, 21)
    except Exception as error:
        raise ExportError(
            f"the 16-bit model can't be lifted to opset 21: {' '.join(str(error).split())[:300]}",
            hint="quantize it with 8 bits, or export the float model and use qnb.calibrate",
        ) from error
    assert isinstance(lifted, onnx.ModelProto)
    return lifted
