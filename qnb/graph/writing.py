"""Writing a model that may be several files (the graph, its weights) so that nobody sees half of it.

Knows nothing of what is in the files.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qnb.files import digest, storage_errors
from qnb.graph.facts import nbytes, tensor_spec
from qnb.graph.light import copy_fields

if TYPE_CHECKING:
    import onnx

__all__ = ["MAX_FILE_BYTES", "name_weights", "save", "staged", "weight_bytes"]

MAX_FILE_BYTES = 2_000_000_000
"""Above this the weights go to a file of their own (``model.onnx.data``): protobuf ends at 2 GiB."""


@contextlib.contextmanager
def staged(path: Path | str) -> Iterator[Path]:
    """Give a path of the same name in a temporary folder beside; at the end its files move to their place.

    After an error, or an interrupt, nothing is left and what was at `path` is as it was.

    Raises
    ------
    StorageError
        If the files can't be written.
    """
    path = Path(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
        try:
            yield folder / path.name
            for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):  # the weights first
                file.chmod(0o644)
                file.replace(path.parent / file.name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def weight_bytes(model: onnx.ModelProto) -> int:
    """Give the size of the model's constants in bytes."""
    return sum(nbytes(tensor_spec(tensor)) for tensor in model.graph.initializer)  # protobuf can't count above 2 GB


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write the model as one file, or with its weights in a second one where one can't hold it.

    Saving to two files moves the weights out of `model` while it lasts; they are there again afterwards.
    """
    import onnx

    if weight_bytes(model) <= MAX_FILE_BYTES:
        with path.open("wb") as file:
            file.writelines(_encoded(model))
        return
    onnx.save_model(model, path, save_as_external_data=True, location=f"{path.name}.data")
    onnx.load_external_data_for_model(model, str(path.parent))


def name_weights(path: Path) -> None:
    """Call the weights that `save` wrote beside a model by their digest, so that the model's own tells of both."""
    import onnx

    data = path.with_name(f"{path.name}.data")
    if not data.exists():
        return
    named = data.with_name(f"{digest(data)}.data")
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = named.name
    path.write_bytes(model.SerializeToString())
    data.rename(named)


def _encoded(model: onnx.ModelProto) -> Iterator[bytes]:
    """Give what ``model.SerializeToString()`` would, a constant at a time: as a whole it takes several copies of itself.

    Source: protobuf's encoding, https://protobuf.dev/programming-guides/encoding/.
    """
    import onnx

    rest, graph = onnx.ModelProto(), onnx.GraphProto()
    copy_fields(model, rest, "graph")
    copy_fields(model.graph, graph, "initializer")
    yield rest.SerializeToString()
    sizes = [tensor.ByteSize() for tensor in model.graph.initializer]
    heads = [_head(onnx.GraphProto.INITIALIZER_FIELD_NUMBER, size) for size in sizes]
    yield _head(onnx.ModelProto.GRAPH_FIELD_NUMBER, graph.ByteSize() + sum(sizes) + sum(map(len, heads)))
    yield graph.SerializeToString()
    for head, tensor in zip(heads, model.graph.initializer, strict=True):
        yield head
        yield tensor.SerializeToString()


def _head(field: int, size: int) -> bytes:
    """Encode what stands before a message within another: its field, and its length in bytes."""
    numbers = bytearray()
    for number in (field << 3 | 2, size):
        while number > 127:
            numbers.append(number & 127 | 128)
            number >>= 7
        numbers.append(number)
    return bytes(numbers)
