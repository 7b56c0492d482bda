"""Reading an ONNX file whole, with its external data, or saying plainly why it can't be.

Knows nothing of what is done with the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qnb.errors import ExportError
from qnb.graph.contents import kind_of, refusal
from qnb.graph.facts import nbytes, tensor_spec

if TYPE_CHECKING:
    import onnx

__all__ = ["read"]


def read(path: Path | str) -> onnx.ModelProto:
    """Read an ONNX file and the external data next to it.

    Raises
    ------
    ExportError
        If the file is missing, is not ONNX, is damaged, holds no graph, or external data of it is missing.
    StorageError
        If the file can't be read.
    """
    import onnx

    path = Path(path)
    if not path.is_file():
        raise ExportError(f"there is no file {path}", hint="check the path")
    if (kind := kind_of(path)) != "onnx":
        raise refusal(path, kind)
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError
        raise ExportError(
            f"{path} is a damaged ONNX model: {error}", hint="copy or download it again, or export it again"
        ) from error
    if not model.graph.node:
        raise ExportError(
            f"{path} holds a graph without any op", hint="see whether the export went through; export the model again"
        )
    if not model.graph.output:
        raise ExportError(
            f"{path} holds a graph without outputs", hint="name the outputs when you export it (output_names=…)"
        )
    _load_external(model, path)
    for tensor in model.graph.initializer:
        _check_size(tensor, path)
    return model


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor stored in the graph: initializers and the values of attributes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from tensors(inner)


def _load_external(model: onnx.ModelProto, path: Path) -> None:
    from onnx import TensorProto, checker
    from onnx.external_data_helper import load_external_data_for_tensor

    folder = path.parent
    for tensor in tensors(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entry = {item.key: item.value for item in tensor.external_data}
        location = entry.get("location", "")
        where = f"the weights of {tensor.name!r} in {path.name}"
        if not location or Path(location).is_absolute() or ".." in Path(location).parts:
            raise ExportError(f"{where} point outside its folder ({location!r})", hint="save the model again")
        file = folder / location
        if not file.is_file():
            raise ExportError(
                f"{where} are in the file {location!r}, which is not next to it in {folder}",
                hint=f"copy {location} into {folder}; the two files belong together",
            )
        needed = int(entry.get("offset") or 0) + int(entry.get("length") or 0)
        if file.stat().st_size < needed:
            raise ExportError(
                f"{where} need {needed:,} bytes of {location}, which has {file.stat().st_size:,}",
                hint=f"copy or download {location} again: it was cut short",
            )
        try:
            load_external_data_for_tensor(tensor, str(folder))
        except (OSError, ValueError, checker.ValidationError) as error:
            raise ExportError(f"{where} can't be read from {location}: {error}", hint="save the model again") from error
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _check_size(tensor: onnx.TensorProto, path: Path) -> None:
    """Refuse a constant that holds more or less than its type and shape say."""
    from onnx import numpy_helper

    held = said = 0
    try:
        spec = tensor_spec(tensor)
        if tensor.HasField("raw_data") and spec.dtype in np.sctypeDict:
            held, said = len(tensor.raw_data), nbytes(spec)
        else:  # several values to a byte, or as numbers in one of several fields
            numpy_helper.to_array(tensor)
    except (KeyError, TypeError):
        return  # of a type that nobody knows, which the checker refuses with its name
    except ValueError as error:
        raise _other_size(tensor, path, str(error)) from error
    if held != said:
        raise _other_size(tensor, path, f"{held:,} bytes instead of {said:,}")


def _other_size(tensor: onnx.TensorProto, path: Path, what: str) -> ExportError:
    return ExportError(
        f"the constant {tensor.name!r} in {path.name} holds something else than its shape {list(tensor.dims)} says: {what}",
        hint="copy or download the file again, or export it again",
    )
