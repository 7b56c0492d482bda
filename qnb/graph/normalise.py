"""Any ONNX file to the one form that the rest of qnb works on: checked, of fixed shapes, simplified, opset 20.

Runs in a worker process: the native parts (onnx, onnxsim, ONNX Runtime) may crash or hang on broken models. Knows
nothing of where the model comes from, of QNN and of quantization.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qnb.errors import BadInput, ExportError, QnbError
from qnb.graph import edit, facts
from qnb.graph.accept import MAX_OPSET, check_file, check_ops, complete_shapes, short
from qnb.graph.reading import read
from qnb.graph.repairs import FORM, repair, row
from qnb.graph.shapes import check_sizes, fix_inputs, infer, without_weights
from qnb.graph.writing import MAX_FILE_BYTES, save, staged, weight_bytes

if TYPE_CHECKING:
    import onnx

__all__ = ["IR_VERSION", "OPSET", "normalise"]

OPSET = 20
IR_VERSION = 10
_CONTROL_FLOW = ("If", "Loop", "Scan")


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
        ONNX files; external data is read from beside `path_in`. Weights over 2 GB go to ``path_out + ".data"``.
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
    model = infer(model, strict=False)
    check_sizes(model)  # before constants of such sizes are folded
    simplified = False
    if simplify:
        model, problem = _simplified(model)
        simplified = not problem
        if problem:
            notes.append(f"simplification skipped: {problem}")
    model, problem = _lifted(model, opset)
    if problem:
        notes.append(f"opset stays at {edit.opset_of(model)}: {problem}")
    edit.constants_to_initializers(model, identities="identity" in repairs)
    edit.drop_unused_initializers(model)
    edit.name_nodes(model)
    model.ir_version = IR_VERSION
    model = _inferred(model)
    rows = [row(name, places) for name, places in (("fixed-axes", fixed), ("identity", renamed)) if places]
    model, more = repair(model, repairs, _inferred)
    return model, notes, rows + more, simplified


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    model = infer(model)
    complete_shapes(model)
    return model


def _simplified(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """Run onnxsim; give the model, and the reason where it was left as it is."""
    if weight_bytes(model) > MAX_FILE_BYTES:
        return model, "the model is larger than 2 GB"
    try:
        import onnxsim
    except ImportError:
        return model, "onnxsim is not installed (it has no wheel for some platforms)"
    # newer releases also try to prove their result, which takes its time; the numeric check is done elsewhere
    options: dict[str, Any] = {"certify": False} if "certify" in inspect.signature(onnxsim.simplify).parameters else {}
    options["skipped_optimizers"] = ["fuse_attention"]  # into an op of ONNX Runtime's own, which no NPU takes
    try:
        result, _ = onnxsim.simplify(model, **options)
        if _foreign(result) - _foreign(model):  # fused into others of that kind: only fold constants
            result, _ = onnxsim.simplify(model, perform_optimization=False, **options)
    except Exception as error:  # whatever it trips over, the model itself is still good
        return model, f"onnxsim failed: {short(error)}"
    if _names(result) != _names(model):
        return model, "onnxsim changed the model's inputs or outputs"
    return result, ""


def _foreign(model: onnx.ModelProto) -> set[str]:
    """Give the types of ops that are not ONNX's own."""
    return {facts.op_type(node) for node in model.graph.node if not edit.standard(node)}


def _names(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    return [v.name for v in model.graph.input], [v.name for v in model.graph.output]


def _lifted(model: onnx.ModelProto, opset: int | None) -> tuple[onnx.ModelProto, str]:
    """Lift the opset; give the model, and the reason where it was left as it is."""
    from onnx import version_converter

    if opset is None or edit.opset_of(model) >= opset:
        return model, ""
    names = _names(model)
    try:
        lifted = without_weights(model, lambda light: version_converter.convert_version(light, opset))
    except Exception as error:  # an op without an adapter; the older opset is valid as well
        return model, short(error)
    if _names(lifted) != names:
        return model, "the version converter changed the model's inputs or outputs"
    return lifted, ""


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
    """Write the model, and have what was written checked before it takes its place."""
    with staged(path) as target:
        save(model, target)
        check_file(target)
        names = sorted(file.name for file in target.parent.iterdir())
    return [str(path.parent / name) for name in names]
