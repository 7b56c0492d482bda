"""A Caffe network as it was read: layers with their parameters and weights, before anything is made of them.

Knows nothing of files and of ONNX.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qnb.errors import ExportError
from qnb.frontends.caffe.schema import message_class

__all__ = ["MAX_AXES", "MAX_ELEMENTS", "Layer", "Network", "Shape", "dims_of"]

Shape = tuple[int, ...]

MAX_ELEMENTS = 1 << 29
"""A blob above this (2 GiB of float32) is taken for a mistake."""

MAX_AXES = 32
"""Caffe's own limit."""

_ABSURD = 1e30  # no trained weight comes near; floats with their bytes reversed soon do


@dataclass
class Layer:
    """One layer.

    Attributes
    ----------
    name, type : str
        As in the file; the type in today's spelling (``InnerProduct``).
    bottoms, tops : tuple of str
        The blobs that it reads and writes.
    message : protobuf message
        Its parameters: a ``LayerParameter`` or a ``V1LayerParameter``.
    line : int
        Where it stands in the prototxt; 0 where that is not known.
    blobs : list of protobuf message
        Its weights, as ``BlobProto``.
    weights_file : str
        The file that they were looked for in; empty where none was given.
    shapes_only : bool
        Whether nobody will look at values: all weights are zeros then.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Any
    line: int = 0
    blobs: Sequence[Any] = ()
    weights_file: str = ""
    shapes_only: bool = False

    def __str__(self) -> str:
        return f"layer {self.name!r} ({self.type}{f', line {self.line}' if self.line else ''})"

    def param(self, name: str) -> Any:
        """Give a block of parameters, for instance ``convolution_param``; with Caffe's defaults where it is missing."""
        if hasattr(self.message, name):
            return getattr(self.message, name)
        return getattr(message_class("LayerParameter")(), name)  # a newer layer type in the older format

    def fails(self, what: str, hint: str) -> ExportError:
        """Word an error of this layer."""
        return ExportError(f"{self}: {what}", hint=hint)

    def weight(self, index: int, shape: Shape, what: str) -> np.ndarray:
        """Give a blob of weights as float32, once its count and shape are known to fit.

        Raises
        ------
        ExportError
            If it is missing, has another shape, or holds values that can't be weights.
        """
        if self.shapes_only:
            return np.broadcast_to(np.float32(0), shape)
        if index >= len(self.blobs):
            raise self._missing(what)
        blob = self.blobs[index]
        wanted = math.prod(shape)
        values = _values(blob)
        stored = dims_of(blob)
        if values.size != wanted or (stored is not None and _trimmed(stored) != _trimmed(shape)):
            has = "x".join(map(str, stored)) if stored else f"{values.size} values"
            raise self.fails(
                f"its {what} should be {'x'.join(map(str, shape)) or 'one value'}, but {self.weights_file} has {has}",
                hint="the two files are not of one network: pass the .caffemodel that was trained with this prototxt",
            )
        if not np.isfinite(values).all() or (values.size and float(np.abs(values).max()) > _ABSURD):
            raise self.fails(
                f"infinities, NaN or values beyond {_ABSURD:g} are among its {what}",
                hint=f"{self.weights_file} is damaged, or was written with another byte order: download it again",
            )
        return values.astype(np.float32, copy=False).reshape(shape)

    def _missing(self, what: str) -> ExportError:
        if not self.weights_file:
            return self.fails(f"no file with its {what} was given", hint="pass weights='….caffemodel'")
        if not self.blobs:
            return self.fails(
                f"{self.weights_file} has no {what} for a layer of that name",
                hint="the two files are not of one network: pass the .caffemodel that was trained with this prototxt",
            )
        return self.fails(
            f"its {what} is missing: {self.weights_file} has {len(self.blobs)} blob{'s' * (len(self.blobs) > 1)} for it",
            hint="see bias_term and the like: prototxt and .caffemodel must be of one network",
        )


@dataclass
class Network:
    """A network.

    Attributes
    ----------
    name : str
        As the file calls it; may be empty.
    layers : list of Layer
        In the order in which they run; those of other phases and data layers are gone.
    inputs : dict of str to Shape
        Its inputs.
    notes : list of str
        What was decided without being asked for.
    """

    name: str
    layers: list[Layer]
    inputs: dict[str, Shape]
    notes: list[str] = field(default_factory=list)


def dims_of(blob: Any) -> Shape | None:
    """Give a blob's shape, also in the old form of four sizes; None where it says none."""
    if any(blob.HasField(name) for name in ("num", "channels", "height", "width")):
        return (blob.num, blob.channels, blob.height, blob.width)
    return tuple(blob.shape.dim) if blob.HasField("shape") else None


def _trimmed(shape: Sequence[int]) -> Shape:
    """Leave out leading ones: the old form always had four sizes."""
    sizes = list(shape)
    while sizes and sizes[0] == 1:
        del sizes[0]
    return tuple(sizes)


def _values(blob: Any) -> np.ndarray:
    """Give the numbers of a blob: float32, float64, or NVIDIA's float16."""
    for chunks, dtype in ((blob.data, "<f4"), (blob.double_data, "<f8")):
        if len(chunks):
            return _numbers(chunks[0] if len(chunks) == 1 else b"".join(chunks), dtype)
    if blob.raw_data:
        return _numbers(blob.raw_data, {0: "<f8", 1: "<f4", 2: "<f2"}.get(blob.raw_data_type, "<f4"))
    plain = message_class("UnpackedBlob").FromString(blob.SerializeToString())
    return np.array(plain.data or plain.double_data, np.float32)


def _numbers(content: bytes, dtype: str) -> np.ndarray:
    size = np.dtype(dtype).itemsize
    return np.frombuffer(content, dtype, len(content) // size)
