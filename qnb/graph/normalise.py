"""Any ONNX file to the one form that the rest of qnb works on: checked, of fixed shapes, simplified, opset 20.

Runs in a worker process: the native parts (onnx, onnxsim, ONNX Runtime) may crash or hang on broken models. Knows
nothing of where the model comes from, of QNN and of quantization.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qnb.errors import BadInput, ExportError, QnbError
from qnb.graph import edit, facts
from qnb.graph.accept import MAX_OPSET, check_graph, check_ops, complete_shapes, short
from qnb.graph.light import heavy, without_weights
from qnb.graph.reading import read
from qnb.graph.repairs import FORM, repair, row
from qnb.graph.shapes import check_sizes, fix_inputs, infer
from qnb.graph.writing import MAX_FILE_BYTES, name_weights, save, staged, weight_bytes

if TYPE_CHECKING:
    import onnx

__all__ = ["IR_VERSION", "OPSET", "normalise"]

OPSET = 20
IR_VERSION = 10
_CONTROL_FLOW = ("If", "Loop", "Scan")
_FOLDED = ("Add", "BatchNormalization", "Div", "Mul", "Sub")
"""Ops that onnxsim may put into a convolution's weights where they have a constant."""


def normalise(
    path_in: str,
    path_out: str,
    *,
    shapes: dict[str, list[int]] | None,
    batch: int = 1,
    simplify: bool = True,
    opset: int | None = OPSET,
    repairs: Collection[str] = FORM,
) -> dict[str, Any]:
    """Read an ONNX model, bring it into qnb's form, check it, and write it.

    Inputs and outputs keep their names and order. All shapes are fixed and known, local functions are inlined,
    constants are initializers, every node has a name of its own.

    Parameters
    ----------
    path_in, path_out : str
        ONNX files; external data is read from beside `path_in`. Weights over 2 GB go to a file beside `path_out` that is
        called by its digest.
    shapes : dict of str to list of int, optional
        Whole shapes of inputs, by name, where the file leaves them open.
    batch : int
        Size for an open first dimension.
    simplify : bool
        Whether to run onnxsim (constant folding, fusing of batch norm and of elementwise chains).
    opset : int, optional
        Opset to lift the model to, at least; a newer one stays. None to leave it as it is.
    repairs : collection of str
        Names of the repairs to do, of :data:`qnb.graph.repairs.REPAIRS`; by default those without which there is no form.

    Returns
    -------
    dict
        Plain values: ``inputs`` and ``outputs`` (lists of name, dtype, shape), ``notes`` (what was decided or skipped),
        ``repairs`` (rows: ``repair``, ``places``, ``what``), ``ops`` (count by type), ``layers`` and ``network`` (see
        :mod:`qnb.graph.facts`), ``opset``, ``ir_version``, ``simplified`` (whether onnxsim did its work) and ``files`` (what
        was written).

    Raises
    ------
    ExportError
        If the file is not a sound ONNX model, shapes stay open, or ONNX Runtime does not take it.
    BadInput
        If an argument does not fit the model.
    StorageError
        If a file can't be read or written.
    """
    if opset is not None and not OPSET <= opset <= MAX_OPSET:
        raise BadInput(f"opset {opset} is not supported", hint=f"pass {OPSET} to {MAX_OPSET}")
    model = read(path_in)
    try:
        model, notes, repaired, simplified = _bring(model, shapes, batch, simplify, opset, repairs)
        _gate(model)
        check_graph(model)
        files = _write(model, Path(path_out))
    except ExportError as error:
        raise ExportError(f"{Path(path_in).name}: {error.what}", hint=error.hint, log=error.log) from error
    except (QnbError, MemoryError):
        raise
    except Exception as error:  # a damaged model can upset any of the libraries anywhere
        raise ExportError(
            f"{Path(path_in).name} can't be worked with: {type(error).__name__}: {short(error)}",
            hint="the model seems to be damaged: copy or export it again",
        ) from error
    inputs, outputs = facts.io_specs(model)
    return {
        "inputs": [asdict(spec) | {"shape": list(spec.shape)} for spec in inputs],
        "outputs": [asdict(spec) | {"shape": list(spec.shape)} for spec in outputs],
        "notes": notes,
        "repairs": repaired,
        "ops": facts.op_counts(model),
        "layers": facts.layers(model),
        "network": facts.network(model),
        "opset": edit.opset_of(model),
        "ir_version": model.ir_version,
        "simplified": simplified,
        "files": files,
    }


def _bring(
    model: onnx.ModelProto,
    shapes: dict[str, list[int]] | None,
    batch: int,
    simplify: bool,
    opset: int | None,
    repairs: Collection[str],
) -> tuple[onnx.ModelProto, list[str], list[dict[str, Any]], bool]:
    """Do the work of `normalise` in memory; give the model, notes, rows of repairs, and whether it was simplified."""
    from onnx import inliner

    if model.functions:
        model = inliner.inline_local_functions(model)
    check_ops(model)
    model.ir_version = IR_VERSION
    edit.sort_nodes(model)
    edit.drop_unused_initializers(model)
    notes = fix_inputs(model, shapes, batch)
    if notes and "fixed-axes" not in repairs:
        raise ExportError(
            f"{notes[0].partition(' fixed at')[0]} is not fixed, and the repair fixed-axes is left out",
            hint="give the whole shape of that input (shapes=…), or leave fixed-axes in",
        )
    fixed = len(notes)
    renamed = edit.identities_on_constants(model) if "identity" in repairs else 0
    check_sizes(model)  # before anything native counts with them
    infer(model, strict=False)
    check_sizes(model)  # before constants of such sizes are folded
    simplified = False
    if simplify:
        problem = _simplify(model)
        simplified = not problem
        if problem:
            notes.append(f"simplification skipped: {problem}")
    if problem := _lift(model, opset):
        notes.append(f"opset stays at {edit.opset_of(model)}: {problem}")
    edit.constants_to_initializers(model, identities="identity" in repairs)
    edit.drop_unused_initializers(model)
    edit.name_nodes(model)
    model.ir_version = IR_VERSION
    _infer(model)
    rows = [row(name, places) for name, places in (("fixed-axes", fixed), ("identity", renamed)) if places]
    rows += repair(model, repairs, _infer)
    return model, notes, rows, simplified


def _infer(model: onnx.ModelProto) -> None:
    infer(model)
    complete_shapes(model)


def _simplify(model: onnx.ModelProto) -> str:
    """Run onnxsim; give the reason where the model was left as it is."""
    if weight_bytes(model) > MAX_FILE_BYTES:
        return "the model is larger than 2 GB"
    try:
        import onnxsim
    except ImportError:
        return "onnxsim is not installed (it has no wheel for some platforms)"
    # newer releases also try to prove their result, which takes its time; the numeric check is done elsewhere
    options: dict[str, Any] = {"certify": False} if "certify" in inspect.signature(onnxsim.simplify).parameters else {}
    options["skipped_optimizers"] = ["fuse_attention"]  # into an op of ONNX Runtime's own, which no NPU takes

    def native(light: onnx.ModelProto) -> onnx.ModelProto:
        result, _ = onnxsim.simplify(light, **options)
        if _foreign(result) - _foreign(light):  # fused into others of that kind: only fold constants
            result, _ = onnxsim.simplify(light, perform_optimization=False, **options)
        return _same_edge(light, result)

    try:
        without_weights(model, native, _kernels(model))
    except Exception as error:  # whatever it trips over, the model itself is still good
        return f"onnxsim failed: {short(error)}"
    return ""


def _foreign(model: onnx.ModelProto) -> set[str]:
    """Give the types of ops that are not ONNX's own."""
    return {facts.op_type(node) for node in model.graph.node if not edit.standard(node)}


def _kernels(model: onnx.ModelProto) -> set[str]:
    """Name the weights into which nothing folds: those of convolutions that no constant is added to or scales."""
    constants = {tensor.name for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    computed = {value.name for value in model.graph.input}
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        names = edit.reads(node)
        if names & computed:
            computed.update(node.output)
        for name in names:
            readers[name].append(node)

    def folds(node: onnx.NodeProto | None) -> bool:
        return node is not None and node.op_type in _FOLDED and not constants.isdisjoint(node.input)

    def stays(weight: str, node: onnx.NodeProto) -> bool:
        if node.op_type != "Conv" or node.input[0] not in computed or node.input[1] != weight:
            return False
        return not any(map(folds, [makers.get(node.input[0]), *readers[node.output[0]]]))

    return {name for name in heavy(model) if readers[name] and all(stays(name, node) for node in readers[name])}


def _same_edge(model: onnx.ModelProto, result: onnx.ModelProto) -> onnx.ModelProto:
    """Give what a pass made of a model, if inputs and outputs kept their names and order."""
    for kind in ("input", "output"):
        if [v.name for v in getattr(model.graph, kind)] != [v.name for v in getattr(result.graph, kind)]:
            raise ValueError(f"the model's {kind}s would change")
    return result


def _lift(model: onnx.ModelProto, opset: int | None) -> str:
    """Lift the opset; give the reason where it was left as it is."""
    from onnx import version_converter

    if opset is None or edit.opset_of(model) >= opset:
        return ""
    try:
        without_weights(model, lambda light: _same_edge(light, version_converter.convert_version(light, opset)))
    except Exception as error:  # an op without an adapter; the older opset is valid as well
        return short(error)
    return ""


def _gate(model: onnx.ModelProto) -> None:
    """Refuse what QNN can't take in any case; each refusal says what to do."""
    import onnx

    nodes = list(model.graph.node)
    if not nodes:
        raise ExportError(
            "nothing is left to compute: every output is a constant",
            hint="see whether the inputs reach the outputs; a step through numpy cuts them off",
        )
    for node in nodes:
        if node.op_type in _CONTROL_FLOW and edit.standard(node):
            raise ExportError(
                f"{node.op_type} {node.name!r} is control flow, which QNN does not take",
                hint="unroll the loop or choose the branch before exporting (Keras GRU: unroll=True)",
            )
    doubles = [v.name for v in model.graph.input if v.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE]
    if doubles:
        raise ExportError(
            f"input {doubles[0]!r} is float64, which no Qualcomm backend takes",
            hint="make the model float32 before exporting it (PyTorch: module.float() and float32 examples)",
        )
    open_tensors = facts.unknown_shapes(model)
    if open_tensors:
        name, node = open_tensors[0]
        raise ExportError(
            f"the shape of tensor {name!r} (output of {facts.op_type(node)} {node.name!r}) is not known before the "
            f"model runs ({len(open_tensors)} such tensor{'s' if len(open_tensors) > 1 else ''})",
            hint=_open_hint(node),
        )
    check_sizes(model)


_DATA_DEPENDENT = ("NonZero", "Unique", "NonMaxSuppression", "Compress", "Where", "Range", "Expand", "ConstantOfShape")


def _open_hint(node: onnx.NodeProto) -> str:
    if node.op_type in _DATA_DEPENDENT:
        return "its size depends on the data: leave that part out of the model and do it in Python afterwards"
    return (
        "give all input shapes (shapes=…); if it stays so, a size depends on the data: leave that part out of the model"
    )


def _write(model: onnx.ModelProto, path: Path) -> list[str]:
    with staged(path) as target:
        save(model, target)
        name_weights(target)
        names = sorted(file.name for file in target.parent.iterdir())
    return [str(path.parent / name) for name in names]
