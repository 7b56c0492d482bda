"""Reading a prototxt and a caffemodel: formats, phases, inputs, and which weights belong to which layer.

Foreign bytes are parsed here: call it in a worker process. Knows nothing of ONNX and of what layers compute.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qnb.errors import BadInput, ExportError, StorageError, UnknownName
from qnb.frontends.caffe.network import MAX_AXES, MAX_ELEMENTS, Layer, Network, Shape
from qnb.frontends.caffe.schema import V1_TYPES, message_class
from qnb.frontends.caffe.text import Outline, outline

__all__ = ["read"]

_MAX_TEXT_BYTES = 1 << 20  # ResNet-152 has 90 KB; and protobuf's parser of text takes seconds for more
_MAX_WEIGHT_BYTES = (1 << 31) - 1  # protobuf's own limit
_MAX_LINE = 4096
_MAX_LAYERS = 20_000
_TEST = 1  # Phase.TEST

_DROPPED = ("Accuracy", "Silence", "HDF5Output", "MultinomialLogisticLoss", "DetectionEvaluate", "SegAccuracy")
_LOSSES = ("Loss", "SoftmaxWithLoss")


def read(
    network: Path,
    weights: Path | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int = 1,
    stages: Sequence[str] = (),
    level: int | None = None,
) -> Network:
    """Read a network as Caffe would set it up for the phase TEST.

    Layers of other phases and stages, losses and accuracies are gone; what data layers read are inputs.

    Parameters
    ----------
    network : path
        A prototxt, in today's format (``layer``) or the one before (``layers``).
    weights : path, optional
        A binary caffemodel, in either format.
    shapes : mapping of str to sequence of int, optional
        Shapes of inputs, in place of the file's.
    batch : int
        If not 1: the first size of all inputs that `shapes` does not name.
    stages, level
        The state of the net that ``include`` and ``exclude`` rules ask for, beside the file's own.

    Raises
    ------
    ExportError
        If a file is damaged, is something else, or the two don't fit.
    BadInput
        If `shapes` does not fit the network.
    StorageError
        If a file can't be read.
    """
    message, found = _parsed(network)
    trained = _trained(weights) if weights is not None else {}
    state = (
        message.state.level if level is None else level,
        {*message.state.stage, *stages},
    )
    declared: dict[str, Shape | None] = dict(_old_inputs(message, network.name))
    layers: list[Layer] = []
    notes: list[str] = []
    owners: dict[str, Any] = {}
    for index, raw in enumerate(message.layer or message.layers):
        layer = _layer(raw, index, found, bool(message.layer), network.name)
        if not _included(layer, state):
            continue
        if layer.type.endswith(_LOSSES) or layer.type in _DROPPED:
            notes.append(f"{layer} is left out: it is for training and testing")
            continue
        if (data := _data_shapes(layer)) is not None:
            declared |= data
            continue
        _give_weights(layer, trained, owners, weights.name if weights is not None else "")
        if fields := found.strangers.get(layer.line):
            notes.append(f"{layer}: not known and ignored: {', '.join(list(fields)[:10])}")
        layers.append(layer)
    if not layers:
        raise ExportError(
            f"{network.name} holds no layer that computes anything",
            hint="pass the network's description (deploy.prototxt), not a solver's or a mean file",
        )
    wanted = {bottom for layer in layers for bottom in layer.bottoms}
    inputs = {name: shape for name, shape in declared.items() if name in wanted}
    if trained and not any(layer.blobs for layer in layers):
        notes.append(f"none of the layers has weights in {weights.name if weights else ''}")
    return Network(message.name, layers, _sized(inputs, shapes or {}, batch, notes, network.name), notes)


def _parsed(path: Path) -> tuple[Any, Outline]:
    """Parse a prototxt, with the lines of its layers."""
    from google.protobuf import text_format

    content = _bytes(path, _MAX_TEXT_BYTES, "a network's description has some kilobytes: is this the .caffemodel?")
    text = content.decode("utf-8", errors="replace").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        raise ExportError(
            f"{path} is not text: a network's description is",
            hint="pass the .prototxt here, the .caffemodel as weights",
        )
    _check_lengths(text, path.name)
    found = outline(text, path.name)
    count = max(map(len, found.lines.values()))
    if count > _MAX_LAYERS:
        raise ExportError(f"{path.name} has {count:,} layers", hint=f"at most {_MAX_LAYERS:,} are read")
    message = message_class("NetParameter")()
    try:
        text_format.Parse(text, message, allow_unknown_field=True)
    except (text_format.ParseError, ValueError, RecursionError, OverflowError) as error:
        raise ExportError(
            f"{path.name} can't be read as a Caffe network: {_short(error)}",
            hint="mend that line; V1 layer types are written like CONVOLUTION, newer ones like 'Convolution'",
        ) from error
    if message.layer and message.layers:
        raise ExportError(
            f"{path.name} mixes 'layer' and 'layers', the formats of two versions of Caffe",
            hint="write all of them as 'layer', with types like 'Convolution'",
        )
    return message, found


def _check_lengths(text: str, called: str) -> None:
    """Refuse very long lines: protobuf's parser of text copies the line for each of its words."""
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > _MAX_LINE:
            raise ExportError(
                f"{called}, line {number} has {len(line):,} characters",
                hint=f"break it: at most {_MAX_LINE:,} are read",
            )


def _trained(path: Path) -> dict[str, Any]:
    """Parse a caffemodel: the layers that have weights, by name."""
    from google.protobuf.message import DecodeError

    content = _bytes(path, _MAX_WEIGHT_BYTES, "protobuf files end at 2 GiB")
    if content.startswith(b"\x89HDF"):
        raise ExportError(
            f"{path} holds its weights as HDF5",
            hint="save them as a binary .caffemodel: snapshot_format: BINARYPROTO, or net.save('net.caffemodel')",
        )
    if not content:
        raise ExportError(f"{path} is empty (0 bytes)", hint="copy or download it again")
    try:
        message = message_class("NetParameter").FromString(content)
    except DecodeError as error:
        raise ExportError(
            f"{path} is not a .caffemodel, or is damaged or cut short: {error}", hint="copy or download it again"
        ) from error
    layers = [*message.layers, *message.layer]
    if not layers:
        raise ExportError(
            f"{path} holds no layers",
            hint="pass the .caffemodel that training wrote; a .solverstate or a mean file is something else",
        )
    return {layer.name: layer for layer in layers if len(layer.blobs)}


def _bytes(path: Path, limit: int, hint: str) -> bytes:
    try:
        size = path.stat().st_size
        if size > limit:
            raise ExportError(f"{path} has {size:,} bytes, more than the {limit:,} that are read", hint=hint)
        return path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"could not read {path}: {error.strerror or error}", hint="see whether the file is there and yours to read"
        ) from error


def _layer(raw: Any, index: int, found: Outline, new: bool, called: str) -> Layer:
    """Give a layer of either format."""
    lines = found.lines["layer" if new else "layers"]
    line = lines[index] if index < len(lines) else 0
    kind = raw.type
    if not new:
        if raw.HasField("layer"):
            raise ExportError(
                f"{called}, line {line}: 'layers {{ layer {{ … }} }}' is Caffe's format of 2013 (V0)",
                hint="bring it up to date with Caffe's tool upgrade_net_proto_text",
            )
        kind = dict(V1_TYPES.values())[raw.type]
    layer = Layer(raw.name, kind, tuple(raw.bottom), tuple(raw.top), raw, line)
    if not kind:
        raise layer.fails("it has no type", "give it a type")
    if not raw.name:
        layer.name = raw.top[0] if len(raw.top) else f"{kind}_{index}"
    return layer


# --- phases ---------------------------------------------------------------------------------------------------------


def _included(layer: Layer, state: tuple[int, set[str]]) -> bool:
    """Say whether the net has the layer in the phase TEST, as Caffe's rules have it."""
    include, exclude = layer.message.include, layer.message.exclude
    if len(include) and len(exclude):
        raise layer.fails("it has both include and exclude rules", "keep one kind; Caffe refuses both")
    if len(include):
        return any(_meets(rule, *state) for rule in include)
    return not any(_meets(rule, *state) for rule in exclude)


def _meets(rule: Any, level: int, stages: set[str]) -> bool:
    return not (
        (rule.HasField("phase") and rule.phase != _TEST)
        or (rule.HasField("min_level") and level < rule.min_level)
        or (rule.HasField("max_level") and level > rule.max_level)
        or not stages.issuperset(rule.stage)
        or not stages.isdisjoint(rule.not_stage)
    )


# --- inputs ---------------------------------------------------------------------------------------------------------


def _old_inputs(message: Any, called: str) -> dict[str, Shape | None]:
    """Give the inputs that are declared beside the layers: ``input`` with ``input_dim`` or ``input_shape``."""
    names, dims = list(message.input), list(message.input_dim)
    if len(message.input_shape):
        if len(message.input_shape) != len(names):
            raise ExportError(
                f"{called}: {len(names)} inputs, but {len(message.input_shape)} input_shape blocks",
                hint="give one for each input",
            )
        return {name: tuple(shape.dim) for name, shape in zip(names, message.input_shape, strict=True)}
    if not dims:
        return dict.fromkeys(names)
    if len(dims) != 4 * len(names):
        raise ExportError(
            f"{called}: {len(dims)} input_dim for {len(names)} input{'s' * (len(names) != 1)}",
            hint="give four for each input: batch, channels, height, width",
        )
    return {name: tuple(dims[4 * i : 4 * i + 4]) for i, name in enumerate(names)}


_DATA = (
    "AnnotatedData",
    "Data",
    "HDF5Data",
    "ImageData",
    "ImageSegData",
    "VideoData",
    "WindowData",
)
"""Layers that read files: their blobs are inputs of a shape that only the data tells."""


def _data_shapes(layer: Layer) -> dict[str, Shape | None] | None:
    """Give the inputs that a data layer stands for; None for another layer."""
    shapes: list[Shape | None]
    if layer.type == "Input":
        shapes = [tuple(shape.dim) for shape in layer.param("input_param").shape]
    elif layer.type == "MemoryData":
        p = layer.param("memory_data_param")
        shapes = [(p.batch_size, p.channels, p.height, p.width), (p.batch_size,)]
    elif layer.type == "DummyData":
        p = layer.param("dummy_data_param")
        shapes = [tuple(shape.dim) for shape in p.shape] or [
            tuple(sizes) for sizes in zip(p.num, p.channels, p.height, p.width, strict=False)
        ]
    elif layer.type in _DATA or (layer.type == "Python" and not layer.bottoms):
        shapes = [None] * len(layer.tops)
    else:
        return None
    if len(shapes) == 1:
        shapes *= len(layer.tops)
    return {top: shapes[index] if index < len(shapes) else None for index, top in enumerate(layer.tops)}


def _sized(
    inputs: dict[str, Shape | None], given: Mapping[str, Sequence[int]], batch: int, notes: list[str], called: str
) -> dict[str, Shape]:
    """Decide the inputs' shapes: the caller's, or the file's with the batch that was asked for."""
    for name in given:
        if name not in inputs:
            raise UnknownName.among(
                "input", name, inputs, hint=f"the inputs of {called}: {', '.join(inputs) or 'none'}"
            )
    sized: dict[str, Shape] = {}
    for name, shape in inputs.items():
        if name in given:
            shape = tuple(given[name])
            if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in shape):
                raise BadInput(
                    f"shapes[{name!r}] = {list(shape)!r}: sizes are whole numbers of at least 1",
                    hint=f"for instance shapes={{{name!r}: (1, 3, 224, 224)}}",
                )
        elif shape is None:
            raise ExportError(
                f"{called} does not say the shape of its input {name!r}",
                hint=f"give it, for instance shapes={{{name!r}: (1, 3, 224, 224)}}",
            )
        elif batch != 1 and shape:
            shape = (batch, *shape[1:])
        elif shape and shape[0] > 1:
            notes.append(
                f"input {name!r} has a batch of {shape[0]}, as {called} says; "
                f"shapes={{{name!r}: {(1, *shape[1:])}}} makes it one"
            )
        if not 1 <= len(shape) <= MAX_AXES or min(shape) < 1 or math.prod(shape) > MAX_ELEMENTS:
            raise ExportError(
                f"{called}: input {name!r} has the shape {'x'.join(map(str, shape[:MAX_AXES])) or '(none)'}, which can't be",
                hint=f"give it, for instance shapes={{{name!r}: (1, 3, 224, 224)}}",
            )
        sized[name] = shape
    return sized


# --- weights --------------------------------------------------------------------------------------------------------


def _give_weights(layer: Layer, trained: Mapping[str, Any], owners: dict[str, Any], called: str) -> None:
    """Find the layer's weights by its name, as Caffe does; or those of the layer that it shares them with by `param`."""
    layer.weights_file = called
    layer.blobs = list(trained[layer.name].blobs) if layer.name in trained else []
    shared = [spec if isinstance(spec, str) else spec.name for spec in layer.message.param]
    if not layer.blobs and shared and all(name in owners for name in shared):
        layer.blobs = [owners[name] for name in shared]
    for name, blob in zip(shared, layer.blobs, strict=False):
        if name:
            owners.setdefault(name, blob)


def near_files(path: Path, suffix: str) -> list[Path]:
    """Give the files of that suffix beside `path`, those of the most similar names first."""
    names = sorted(file.name for file in path.parent.glob(f"*{suffix}"))
    near = difflib.get_close_matches(path.stem, names, n=3, cutoff=0.3)
    return [path.parent / name for name in [*near, *(name for name in names if name not in near)]]


def _short(error: BaseException) -> str:
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return (f"line {text}" if text[:1].isdigit() else text)[:300]
