"""From a Caffe network to an ONNX graph: which layers are needed, each read in turn, then folded, pruned and named.

Knows nothing of QNN. Reads foreign files: call it in a worker process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qnb.errors import BadInput, ExportError, QnbError, UnknownName
from qnb.frontends.caffe.folding import fold
from qnb.frontends.caffe.graph import Graph
from qnb.frontends.caffe.layers import READERS
from qnb.frontends.caffe.network import Layer, Network
from qnb.frontends.caffe.reading import near_files, read

if TYPE_CHECKING:
    import onnx

__all__ = ["CaffeModel", "constant_blobs", "to_onnx"]


@dataclass(frozen=True)
class CaffeModel:
    """What was made of a network.

    Attributes
    ----------
    model : onnx.ModelProto
        Opset 20, fixed shapes, inputs and outputs named as the blobs.
    name : str
        As the prototxt calls it; may be empty.
    notes : tuple of str
        What was left out or decided without being asked for.
    """

    model: onnx.ModelProto
    name: str
    notes: tuple[str, ...]


def to_onnx(
    network: Path | str,
    weights: Path | str | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int = 1,
    outputs: Sequence[str] | None = None,
    stages: Sequence[str] = (),
    level: int | None = None,
) -> CaffeModel:
    """Make an ONNX model of a Caffe network in its phase TEST.

    Parameters
    ----------
    network : path
        The prototxt.
    weights : path, optional
        The caffemodel; not needed where no layer has weights.
    shapes : mapping of str to sequence of int, optional
        Shapes of inputs by name, in place of the file's; needed where only a data layer knew them.
    batch : int
        If not 1: the first size of the other inputs.
    outputs : sequence of str, optional
        Names of the blobs to give. Layers that they don't need are left out. Default: those that no layer reads.
    stages, level
        State of the net for its ``include`` and ``exclude`` rules.

    Returns
    -------
    CaffeModel

    Raises
    ------
    ExportError
        If a file is damaged, the files don't fit, or a layer can't be read; names the layer, its type and line.
    BadInput
        If an argument does not fit.
    StorageError
        If a file can't be read.
    """
    path = Path(network)
    try:
        net = read(
            path, Path(weights) if weights is not None else None, shapes=shapes, batch=batch, stages=stages, level=level
        )
        _check_wiring(net)
        names = _outputs(net, outputs)
        graph = _built(net, names)
        final = _finished(graph, names, net.notes, asked=outputs is not None)
        model = graph.model(net.name or path.stem, final)
    except ExportError as error:
        if weights is None and "was given" in error.what and (near := near_files(path, ".caffemodel")):
            error = ExportError(error.what, hint=f"pass weights='{near[0]}' or another of that folder")
        what = error.what if path.name in error.what else f"{path.name}: {error.what}"
        raise ExportError(what, hint=error.hint) from error
    except (QnbError, MemoryError):
        raise
    except Exception as error:  # a damaged file can hold anything
        raise ExportError(
            f"{path.name} can't be worked with: {type(error).__name__}: {str(error)[:300]}",
            hint="one of the two files seems to be damaged: copy or download them again",
        ) from error
    return CaffeModel(model, net.name, tuple(net.notes))


def constant_blobs(network: Path | str, *, shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, np.ndarray]:
    """Give the blobs that depend on no input: the prior boxes of an SSD, which its decoding needs.

    Parameters
    ----------
    network : path
        The prototxt; weights are not needed.
    shapes : mapping of str to sequence of int, optional
        Shapes of inputs, as for the export.

    Returns
    -------
    dict of str to ndarray
        float32, by the name of the blob. Prior boxes are 1 x 2 x (4 for each box): corners, then variances.

    Raises
    ------
    ExportError, BadInput, StorageError
        As `to_onnx`.

    Examples
    --------
    >>> priors = constant_blobs("deploy.prototxt")["mbox_priorbox"]
    """
    from onnx.reference import ReferenceEvaluator

    path = Path(network)
    net = read(path, shapes=shapes)
    boxes: dict[str, None] = {}
    for layer in net.layers:
        layer.shapes_only = True
        if layer.type == "PriorBox" or (layer.bottoms and boxes.keys() >= set(layer.bottoms)):
            boxes |= dict.fromkeys(layer.tops)
    wanted = list(boxes)
    if not wanted:
        return {}
    graph = _built(net, wanted)
    graph.inputs = []
    graph.prune(graph.blobs[name] for name in wanted)
    names = graph.name_tensors(wanted)
    values = ReferenceEvaluator(graph.model("constants", names)).run(None, {})
    return dict(zip(wanted, map(np.asarray, values), strict=True))


# --- which layers ---------------------------------------------------------------------------------------------------


def _outputs(net: Network, asked: Sequence[str] | None) -> list[str]:
    """Give the outputs' names: those asked for, or the blobs that no layer reads after they were written."""
    unread: dict[str, None] = {}
    made: dict[str, None] = {}
    for layer in net.layers:
        for bottom in layer.bottoms:
            unread.pop(bottom, None)
        unread |= dict.fromkeys(layer.tops)
        made |= dict.fromkeys(layer.tops)
    if asked is None:
        return list(unread)
    if isinstance(asked, str) or not asked or len(set(asked)) != len(asked):
        raise BadInput(
            f"output_names={asked!r} are no names of blobs, each once", hint=f"for instance {list(unread)[:3]!r}"
        )
    for name in asked:
        if name not in made:
            raise UnknownName.among("blob", name, made)
    return list(asked)


def _needed(net: Network, outputs: Iterable[str]) -> list[Layer]:
    """Give the layers that the outputs depend on, in order."""
    wanted, layers = set(outputs), []
    for layer in reversed(net.layers):
        if wanted.intersection(layer.tops):
            wanted.difference_update(layer.tops)
            wanted.update(layer.bottoms)
            layers.append(layer)
    return layers[::-1]


def _check_wiring(net: Network) -> None:
    """See that each layer reads what one before it wrote, and writes over nothing but its own input."""
    made: dict[str, Layer | None] = dict.fromkeys(net.inputs)
    for index, layer in enumerate(net.layers):
        for bottom in layer.bottoms:
            if bottom not in made:
                later = [other for other in net.layers[index:] if bottom in other.tops]
                why = f"only {later[0]} makes it, which comes later" if later else "no layer makes it"
                raise layer.fails(
                    f"it reads the blob {bottom!r}, but {why}",
                    "a network has no cycles and its layers stand in order; is the layer that makes it excluded in the "
                    "phase TEST, or an input missing?",
                )
        for top in layer.tops:
            if top in made and top not in layer.bottoms:
                first = made[top] or f"the input {top!r}"
                raise layer.fails(f"it writes the blob {top!r}, which {first} wrote before", "give one another name")
        made |= dict.fromkeys(layer.tops, layer)


# --- the graph ------------------------------------------------------------------------------------------------------


def _built(net: Network, outputs: Sequence[str]) -> Graph:
    """Read the layers that the outputs need, one by one."""
    graph = Graph()
    for name, shape in net.inputs.items():
        graph.input(name, shape)
    for layer in _needed(net, outputs):
        tops = _read(layer, graph, net)
        graph.blobs |= dict(zip(layer.tops, tops, strict=False))
        for missing in layer.tops[len(tops) :]:
            graph.blobs.pop(missing, None)
    return graph


def _read(layer: Layer, graph: Graph, net: Network) -> list[str]:
    reader = READERS.get(layer.type)
    if reader is None:
        raise _unknown(layer, net)
    least, most = reader.bottoms
    if not least <= len(layer.bottoms) <= most or not layer.tops:
        raise layer.fails(
            f"{len(layer.bottoms)} bottoms and {len(layer.tops)} tops, but it takes {least}"
            f"{f' to {most}' if most != least else ''} and gives at least one",
            "see its bottom and top lines",
        )
    for bottom in layer.bottoms:
        if bottom not in graph.blobs:
            raise layer.fails(
                f"it reads {bottom!r}, a second output of a layer that is read with its first one alone",
                "the mask of a MAX pooling, for instance, has no op on QNN: end the network before (output_names=…)",
            )
    tops = reader.function(layer, graph, [graph.blobs[bottom] for bottom in layer.bottoms])
    if len(tops) > len(layer.tops):
        raise layer.fails(f"{len(layer.tops)} tops, but it gives {len(tops)}", "see its top lines")
    return tops


def _unknown(layer: Layer, net: Network) -> ExportError:
    before = [other.name for other in net.layers if set(other.tops) & set(layer.bottoms) and other is not layer]
    after = [other.name for other in net.layers if set(other.bottoms) & set(layer.tops) and other is not layer]
    near = [name for name in READERS if name.lower() == layer.type.lower()]
    return layer.fails(
        f"layers of the type {layer.type!r} can't be read; it stands between "
        f"{', '.join(before[-3:]) or 'the input'} and {', '.join(after[:3]) or 'the output'}",
        f"did you mean {near[0]!r}?"
        if near
        else f"end the network before it (output_names={list(layer.bottoms)!r}) and do the rest in Python, or write it with "
        "other layers",
    )


def _finished(graph: Graph, outputs: Sequence[str], notes: list[str], *, asked: bool) -> list[str]:
    """Fold, prune and name; give the names of the outputs."""
    kept = [name for name in outputs if name in graph.blobs]
    if asked and len(kept) < len(outputs):
        raise ExportError(
            f"the blob {next(name for name in outputs if name not in kept)!r} is a second output that can't be given",
            hint="leave it out of output_names",
        )
    fixed = graph.constant_tensors()
    for name in [name for name in kept if graph.blobs[name] in fixed]:
        kept.remove(name)
        notes.append(
            f"output {name!r} is left out: it depends on no input; qnb.frontends.caffe.constant_blobs gives its values"
        )
    if not kept:
        raise ExportError("nothing is left to compute: every output is a constant", hint="see output_names")
    wanted = {graph.blobs[name] for name in kept}
    fold(graph, wanted)
    graph.prune(wanted)
    read_tensors = {tensor for op in graph.ops for tensor in op.inputs} | wanted
    for name in [name for name in graph.inputs if name not in read_tensors]:
        graph.inputs.remove(name)
        notes.append(f"input {name!r} is left out: no value of it is used")
    if not graph.ops:
        raise ExportError("nothing is left to compute: its outputs are its inputs", hint="see output_names")
    return graph.name_tensors(kept)
