"""The TensorFlow front-end: SavedModels, frozen graphs and Keras models become an ONNX file, with reference outputs.

Each is brought into one form, a function of tensors with names, which tf2onnx converts and TensorFlow runs. For worker
processes: TensorFlow takes memory and threads, and what it reads may be damaged. Knows nothing of QNN.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qnb.errors import ExportError, RuntimeUnavailable
from qnb.frontends import keras as keras_files
from qnb.frontends.converted import check_control_flow, check_known_ops, checked_pairs, control_flow, fixed, rename
from qnb.frontends.ports import Arrays, Converted, Port
from qnb.frontends.tensorflow_code import check_graph, check_saved_model
from qnb.graph.writing import save, staged

__all__ = ["INSTALL", "OPSET", "convert", "require"]

OPSET = 17
"""The newest opset that tf2onnx writes well; the normalisation lifts it."""

INSTALL = 'pip install "qnb[tensorflow]" (1.3 GB)'
_PASSIVE = ("NoOp", "Assert", "Placeholder", "Const", "CheckNumerics", "Print", "PrintV2")


@dataclass(frozen=True)
class _Source:
    """A model as a function of tensors in the order of `ports`, which returns tensors by name."""

    ports: list[Port]
    function: Callable[[Sequence[Any]], dict[str, Any]]
    unroll: Callable[[], list[str]] | None = None


def require() -> None:
    """Make TensorFlow ready, on the CPU and quiet.

    Raises
    ------
    RuntimeUnavailable
        If it, or tf2onnx, is not installed.
    """
    missing = [name for name in ("tensorflow", "tf2onnx") if not importlib.util.find_spec(name)]
    if missing:
        raise RuntimeUnavailable(
            f"reading TensorFlow models needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} "
            "not installed",
            hint=INSTALL,
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    keras_files.use("tensorflow")


def convert(
    kind: str,
    path: Path | str,
    out: Path | str,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int = 1,
    example: Arrays | None = None,
    trust: bool = False,
) -> Converted:
    """Make an ONNX file of a TensorFlow model.

    Parameters
    ----------
    kind : str
        ``keras``, ``hdf5``, ``tensorflow`` (a SavedModel's folder) or ``graphdef`` (a frozen graph).
    path, out : path
        The model, and the ONNX file to write.
    shapes, batch, example
        See `qnb.export`.
    trust : bool
        Whether the file may run code of its own.

    Raises
    ------
    ExportError
        If it is damaged, would run code, has no signature, or ops of it have no ONNX form.
    BadInput
        If an argument does not fit it.
    RuntimeUnavailable
        If TensorFlow or tf2onnx is not installed.
    """
    require()
    readers = {"tensorflow": _saved_model, "graphdef": _frozen}
    path = Path(path)
    source = _keras(path, trust) if kind in ("keras", "hdf5") else readers[kind](path)
    sizes, values, notes = fixed(source.ports, shapes, batch, example or {})
    model, more = _converted(source, sizes)
    check_control_flow(model)  # before it runs: a loop may never end
    pairs = checked_pairs(source.ports, sizes, values, lambda feeds: _run(source, feeds))
    outputs = list(pairs[0][1])
    _check_edges(model, source.ports, outputs)
    rename(model, {name: name for name in [*sizes, *outputs]})
    with staged(out) as target:
        save(model, target)
    return Converted(Path(out), sizes, pairs, (*notes, *more))


def _run(source: _Source, feeds: Arrays) -> Arrays:
    import tensorflow as tf

    results = source.function([tf.constant(feeds[port.name]) for port in source.ports])
    return {name: np.asarray(value) for name, value in results.items()}


# --- to ONNX -------------------------------------------------------------------------------------------------------


def _converted(source: _Source, sizes: Mapping[str, tuple[int, ...]]) -> tuple[Any, list[str]]:
    """Convert; where control flow comes out, try again in the ways that are known to mend it."""
    first = None
    for shapes, notes in _attempts(source, sizes):
        model = _to_onnx(source, shapes)
        if not control_flow(model):
            return model, notes
        first = first or model
    assert first is not None  # there is always one attempt
    return first, []


def _attempts(
    source: _Source, sizes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[Mapping[str, tuple[int | None, ...]], list[str]]]:
    yield sizes, []
    # tf2onnx knows a recurrent layer by its form, which it has only while the batch is open
    opened: dict[str, tuple[int | None, ...]] = {}
    for port in source.ports:
        first = port.shape[0] if port.shape else None
        opened[port.name] = (first, *sizes[port.name][1:]) if sizes[port.name] else ()
    yield opened, []
    if source.unroll and (names := source.unroll()):
        yield sizes, [f"recurrent layers written out step by step: {', '.join(names)}"]


def _to_onnx(source: _Source, shapes: Mapping[str, tuple[int | None, ...]]) -> Any:
    import tensorflow as tf
    import tf2onnx

    import qnb.frontends.tf2onnx_ops  # noqa: F401  # teaches tf2onnx

    specs = [tf.TensorSpec(shapes[port.name], port.dtype, name=port.name) for port in source.ports]
    function = tf.function(lambda *tensors: source.function(tensors), input_signature=specs)
    try:
        model, storage = tf2onnx.convert.from_function(function, input_signature=specs, opset=OPSET)
    except Exception as error:  # tf2onnx has no errors of its own
        raise ExportError(
            f"tf2onnx can't convert the model: {type(error).__name__}: {' '.join(str(error).split())[:400]}",
            hint="its layers may be newer than tf2onnx: write them with other ops; models over 2 GB are not converted",
        ) from error
    assert storage is None  # only for models whose weights are kept apart
    check_known_ops(model, "the TensorFlow ops")
    return model


def _check_edges(model: Any, ports: Sequence[Port], outputs: Sequence[str]) -> None:
    made = {value.name.removesuffix(":0"): value for value in model.graph.input}
    if missing := [port.name for port in ports if port.name not in made]:
        raise ExportError(
            f"input {missing[0]!r} vanished in the conversion: no output depends on it",
            hint="leave it out of the model, or see why it is not used",
        )
    found = {value.name.removesuffix(":0"): value for value in model.graph.output}
    if sorted(found) != sorted(outputs) or len(made) != len(ports):
        raise ExportError(
            f"tf2onnx changed the inputs or outputs: {list(made)} -> {list(found)} instead of "
            f"{[port.name for port in ports]} -> {list(outputs)}",
            hint="give the model's inputs and outputs names that differ",
        )
    for values, names, own in (
        (model.graph.input, [port.name for port in ports], made),
        (model.graph.output, outputs, found),
    ):
        kept = [type(own[name]).FromString(own[name].SerializeToString()) for name in names]
        del values[:]
        values.extend(kept)


# --- SavedModel ----------------------------------------------------------------------------------------------------


def _saved_model(path: Path) -> _Source:
    import tensorflow as tf

    if path.is_file():
        path = path.parent
    _check_saved_model(path)
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:
        raise ExportError(
            f"TensorFlow can't read the SavedModel {path}: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
            hint="copy the whole folder again (with variables/), or save it again",
        ) from error
    signatures = dict(loaded.signatures)
    if not signatures:
        raise ExportError(
            f"the SavedModel {path} has no signature, so its inputs are not known",
            hint="save it again with tf.saved_model.save(model, folder, signatures=function.get_concrete_function(…)), "
            "or with Keras: model.export(folder)",
        )
    if "serving_default" not in signatures and len(signatures) > 1:
        raise ExportError(
            f"the SavedModel {path} has several signatures ({', '.join(sorted(signatures))}), and none is the default",
            hint="save the one that is wanted as 'serving_default'",
        )
    signature = signatures.get("serving_default") or next(iter(signatures.values()))
    specs = signature.structured_input_signature[1]
    ports = [Port(name, spec.dtype.name, _dims(spec.shape)) for name, spec in sorted(specs.items())]
    if not ports:
        raise ExportError(f"the signature of {path} takes no inputs", hint="QNN needs a graph with inputs")

    def function(tensors: Sequence[Any]) -> dict[str, Any]:
        given = {port.name: tensor for port, tensor in zip(ports, tensors, strict=True)}
        return dict(sorted(signature(**given).items()))  # TensorFlow keeps no order of them

    function.keep = loaded  # type: ignore[attr-defined]  # its variables live as long as it does
    return _Source(ports, function)


def _dims(shape: Any) -> tuple[int | None, ...] | None:
    return None if shape.rank is None else tuple(shape.as_list())


def _check_saved_model(path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((path / "saved_model.pb").read_bytes())
    except Exception as error:  # protobuf's DecodeError, which differs by implementation
        raise ExportError(f"{path / 'saved_model.pb'} is damaged: {error}", hint="copy or save it again") from error
    check_saved_model(model, path)


# --- frozen graphs -------------------------------------------------------------------------------------------------


def _frozen(path: Path) -> _Source:
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError, which differs by implementation
        raise ExportError(f"{path} is a damaged TensorFlow graph: {error}", hint="copy or download it again") from error
    if variables := [node.name for node in graph.node if node.op in ("VariableV2", "VarHandleOp", "Variable")]:
        raise ExportError(
            f"{path} is a graph whose weights are elsewhere (variable {variables[0]!r})",
            hint="freeze it with its checkpoint, or pass the SavedModel's folder",
        )
    inputs = [node.name for node in graph.node if node.op == "Placeholder"]
    read = {name.lstrip("^").partition(":")[0] for node in graph.node for name in node.input}
    outputs = [node.name for node in graph.node if node.name not in read and node.op not in _PASSIVE]
    if not inputs or not outputs:
        raise ExportError(
            f"{path} has no {'inputs (Placeholder)' if not inputs else 'outputs: every op is read by another one'}",
            hint="is it a frozen inference graph?",
        )
    try:
        wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
        pruned = wrapped.prune([f"{name}:0" for name in inputs], [f"{name}:0" for name in outputs])
    except Exception as error:
        raise ExportError(
            f"TensorFlow can't read the graph {path}: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
            hint="an op of it may be older or newer than this TensorFlow, or of a library of its own",
        ) from error
    check_graph(pruned.graph.as_graph_def(), path)
    ports = [
        Port(name, tensor.dtype.name, _dims(tensor.shape)) for name, tensor in zip(inputs, pruned.inputs, strict=True)
    ]

    def function(tensors: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(outputs, pruned(*tensors), strict=True))

    return _Source(ports, function)


# --- Keras ---------------------------------------------------------------------------------------------------------


def _keras(path: Path, trust: bool) -> _Source:
    model = keras_files.load(path, trust=trust)
    return _Source(
        keras_files.ports(model),
        lambda tensors: keras_files.call(model, tensors),
        lambda: keras_files.unroll(model),
    )
