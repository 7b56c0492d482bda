"""What a model file is, told from its contents alone, and what to say of those that are not ONNX.

Reads a few kilobytes at most and skips over the rest; executes and unpickles nothing. Knows no framework.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import IO

from qnb.errors import ExportError, StorageError

__all__ = ["KINDS", "kind_of", "refusal"]

_READ = "qnb.export reads it: pass what that gives"

KINDS: dict[str, tuple[str, str]] = {
    "onnx": ("an ONNX model", ""),
    "onnx-cut": ("an ONNX model that was cut short", "copy or download it again: bytes are missing at its end"),
    "empty": ("empty (0 bytes)", "write or download it again"),
    "torch-pickle": (
        "a pickled PyTorch file (a module or a state_dict)",
        "unpickling runs code, so qnb does it with trust=True only: build the module in your notebook, load its "
        "weights with module.load_state_dict(torch.load(path, weights_only=True)), and pass the module",
    ),
    "pickle": ("a Python pickle", "unpickling runs code, so qnb never does it: load it yourself and pass the object"),
    "torchscript": ("a TorchScript archive", _READ),
    "exported-program": ("a torch.export archive (ExportedProgram)", _READ),
    "keras": ("a Keras model", _READ),
    "hdf5": ("an HDF5 file (a Keras model or weights)", _READ),
    "tensorflow": ("a TensorFlow SavedModel", _READ),
    "graphdef": ("a frozen TensorFlow graph (GraphDef)", _READ),
    "tflite": ("a TensorFlow Lite model", _READ),
    "caffe": (
        "the description of a Caffe network (.prototxt)",
        "pass it to qnb.export, with weights='….caffemodel' or that file of the same name beside it",
    ),
    "caffemodel": (
        "the weights of a Caffe network (.caffemodel)",
        "pass it to qnb.export together with its .prototxt: qnb.export('….prototxt', weights='….caffemodel')",
    ),
    "html": ("a web page", "it looks like a download that went wrong: fetch the file itself, not the page about it"),
    "git-lfs": ("a Git LFS pointer, not the file itself", "run git lfs pull in its repository"),
    "npz": ("an archive of numpy arrays", "that is data, not a model: pass it as calibration data or input"),
    "zip-cut": ("a zip archive that is damaged", "Keras and PyTorch files are zip archives: copy or download it again"),
    "zip": ("a zip archive", "unpack it and pass the model inside"),
    "gzip": ("gzip-compressed", "unpack it first"),
    "text": ("a text file", "pass a model file (.onnx)"),
    "unknown": ("not an ONNX model, and nothing else that is known", "pass an .onnx file or a torch.nn.Module"),
}
"""What each kind of file is, in words, and what to do about it."""


def refusal(path: Path | str, kind: str) -> ExportError:
    """Word the error for a file that can't be read as ONNX."""
    what, hint = KINDS[kind]
    return ExportError(f"{path} is {what}", hint=hint)


def kind_of(path: Path | str) -> str:
    """Tell what a file is: a key of :data:`KINDS`.

    Raises
    ------
    StorageError
        If the file can't be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
            if not head:
                return "empty"
            kind = _by_magic(head, path) or _by_fields(file, path.stat().st_size)
            file.seek(0)
            return kind or _by_text(file.read(_TEXT_BYTES))
    except OSError as error:
        raise StorageError(
            f"could not read {path}: {error.strerror or error}", hint="see whether the file is yours to read"
        ) from error


def _by_magic(head: bytes, path: Path) -> str | None:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _in_zip(path)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head[4:8] == b"TFL3":
        return "tflite"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"version https://git-lfs"):
        return "git-lfs"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        # torch's format before 1.6: a pickled long, its magic number, comes first
        return "torch-pickle" if b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in head[:32] else "pickle"
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "html"
    return None


def _in_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):  # damage is also told as a version, or as bad UTF-8
        return "zip-cut"
    ends = {name.rsplit("/", 1)[-1] for name in names}
    if "serialized_exported_program.json" in ends or "archive_format" in ends:
        return "exported-program"
    if "constants.pkl" in ends and "data.pkl" in ends:
        return "torchscript"
    if "data.pkl" in ends:
        return "torch-pickle"
    if "config.json" in ends and "model.weights.h5" in ends:
        return "keras"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"


_TEXT_BYTES = 1 << 16  # a prototxt may begin with a long comment
_PROTOTXT = re.compile(r"^\s*(layers?\s*\{|input_dim\s*:|input_shape\s*\{)", re.MULTILINE)


def _by_text(head: bytes) -> str:
    text = head.decode("utf-8", errors="replace")
    if "\0" in text:
        return "unknown"
    if _PROTOTXT.search(text):
        return "caffe"  # comments in it may be in any encoding
    return "unknown" if "\ufffd" in text[:-3] else "text"


# --- protobuf files have no magic bytes: they are told by their top-level fields ------------------------------------

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def _by_fields(file: IO[bytes], size: int) -> str | None:
    """Tell the message from its fields: ModelProto, SavedModel, GraphDef or Caffe's NetParameter."""
    fields, complete = _fields(file, size)
    present = set(fields)
    if (1, _VARINT) in present and present & {(7, _BYTES), (8, _BYTES)}:
        return "onnx" if complete else "onnx-cut"
    if not complete:
        return None
    if present == {(1, _VARINT), (2, _BYTES)}:
        return "tensorflow"  # SavedModel: schema version, meta graphs
    if (100, _BYTES) in present or (fields.count((1, _BYTES)) == 1 and (2, _BYTES) in present):
        return "caffemodel"  # NetParameter: name, then layer = 100, or layers = 2 in its first version
    if (1, _BYTES) in present and present <= {(1, _BYTES), (2, _BYTES), (3, _VARINT), (4, _BYTES)}:
        return "graphdef"  # GraphDef: nodes, library, version, versions
    return "onnx" if (1, _VARINT) in present and present <= _MODEL_FIELDS else None


# ModelProto without a graph: ir_version, producer's name and version, domain, model_version, doc_string and the rest
_MODEL_FIELDS = {(1, _VARINT), (2, _BYTES), (3, _BYTES), (4, _BYTES), (5, _VARINT), (6, _BYTES), (14, _BYTES)}


def _fields(file: IO[bytes], size: int, limit: int = 4096) -> tuple[list[tuple[int, int]], bool]:
    """List the (field number, wire type) of a protobuf message, and say whether it ends where the file does."""
    file.seek(0)
    found: list[tuple[int, int]] = []
    while file.tell() < size and len(found) < limit:
        tag = _varint(file)
        if tag is None or tag >> 3 == 0:
            return found, False
        wire = tag & 7
        skip = {_VARINT: 0, _FIXED64: 8, _FIXED32: 4}.get(wire)
        length = _varint(file) if wire in (_VARINT, _BYTES) else 0
        if length is None or (skip is None and wire != _BYTES):
            return found, False
        found.append((tag >> 3, wire))
        if file.tell() + (length if wire == _BYTES else skip or 0) > size:
            return found, False
        file.seek(length if wire == _BYTES else skip or 0, os.SEEK_CUR)
    return found, True


def _varint(file: IO[bytes]) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None
