"""Jobs of the step check: each layer's output in float, on ONNX Runtime and on the NPU, reduced to figures where it arises.

A check is open under a key while its samples come in; of activations only sums and histograms are kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from qnb.errors import InferenceError, PlacementError, QnbError, RuntimeUnavailable
from qnb.files import storage_errors
from qnb.jobs.run import sessions
from qnb.quant.deviation import Deviation, Fit, Grid, channel_axis
from qnb.quant.layers import Layer, Layers, Signature, chunks
from qnb.quant.stored import stored_parameters
from qnb.runtime.session import Loaded, create
from qnb.runtime.worker import JobContext, Reply

Arrays = dict[str, NDArray[Any]]

_CHUNK_BYTES = 96 << 20
_CHUNK_LAYERS = 128
_REFUSALS = (PlacementError, InferenceError, RuntimeUnavailable)


@dataclass
class _Graph:
    """A loaded graph of layers: what to feed it, and which of its outputs is which layer's."""

    loaded: Loaded
    feeds: Mapping[str, tuple[str, Grid | None]]
    where: Mapping[str, str]


@dataclass
class _Check:
    layers: list[Layer]
    outputs: list[str]
    specs: Mapping[str, Mapping[str, Any]]
    reference: Loaded | None
    exposed: dict[str, _Graph] = field(default_factory=dict)
    isolated: dict[str, list[_Graph]] = field(default_factory=dict)
    fits: dict[str, Fit] = field(default_factory=dict)
    deviations: dict[tuple[str, str, str], Deviation] = field(default_factory=dict)
    agreement: dict[tuple[str, str], Deviation] = field(default_factory=dict)
    changed: Counter[str] = field(default_factory=Counter)


def check_open(ctx: JobContext, args: dict[str, Any], arrays: Arrays) -> Reply:
    """Begin.

    args: key; specs: sessions by source (``float``, and ``host`` and where there is one the NPU's) whose outputs are
    compared; reference: the float model whose tensors the quantized one's are compared with; quantized: its path;
    graphs: session templates by source for the graphs that are made here, without ``float``; spec: the same on ONNX
    Runtime; folder; layers: whether layers are looked into. arrays: the first sample.
    Answers with the layers, the stored parameters' table, and why a graph is missing.
    """
    ctx.state.setdefault("checks", {}).clear()  # one that was given up must not hold its memory
    folder = Path(args["folder"])
    model, reference = onnx.load(args["quantized"]), onnx.load(args["reference"])
    known = {i.name for i in reference.graph.input} | {name for n in reference.graph.node for name in n.output if name}
    parts = Layers(model, known)
    layers = parts.layers
    wanted = dict.fromkeys([*parts.activations.values(), *(t for la in layers for t in la.outputs.values())])
    if args["layers"]:
        wanted |= dict.fromkeys(n for la in layers for i in la.inputs if (n := parts.float_name(i)) is not None)
    check = _Check(layers, [o.name for o in model.graph.output], args["specs"], None)
    check.reference = _reference(reference, list(wanted), folder, args["spec"])
    quantizers = {f: parts.quantizer(n) for n, f in parts.activations.items()}
    check.fits = {f: Fit(g) for f, q in quantizers.items() if q is not None and (g := _grid(parts, q)) is not None}
    notes: dict[str, str] = {}
    if args["layers"]:
        values = _floats(check.reference, arrays)
        signatures: dict[str, Signature] = {name: (str(v.dtype), v.shape) for name, v in values.items()}
        for number, (source, template) in enumerate(args["graphs"].items()):
            ctx.progress(number, len(args["graphs"]), f"layers on {source}")
            _load_graphs(check, parts, signatures, folder, source, template, notes)
    ctx.state["checks"][args["key"]] = check
    rows, found = stored_parameters(model, reference, parts)
    return {
        "layers": [
            {
                "layer": la.name,
                "op_type": la.op_type,
                "tensor": t,
                "inputs": [parts.float_name(i) or i for i in la.inputs],
            }
            for la in layers
            for t in la.outputs.values()
        ],
        "parameters": rows,
        "notes": notes,
    }, found


def _reference(model: onnx.ModelProto, wanted: Sequence[str], folder: Path, spec: Mapping[str, Any]) -> Loaded:
    """Load the float model with the wanted tensors as its outputs."""
    inputs = {i.name for i in model.graph.input}
    there = {o.name for o in model.graph.output}
    for name in wanted:
        if name not in inputs | there:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    loaded = create({**spec, "model": _saved(model, folder / "reference.onnx")})
    loaded.outputs = [name for name in wanted if name not in inputs] or loaded.outputs
    return loaded


def _saved(model: onnx.ModelProto, path: Path) -> str:
    with storage_errors(path):
        onnx.save(model, str(path))
    return str(path)


def _grid(parts: Layers, place: int) -> Grid | None:
    """Read a grid off the QuantizeLinear at that place; None where that is not one grid."""
    stored = {i.name: i for i in parts.graph.initializer}
    _, scale, *zero = parts.graph.node[place].input
    if scale not in stored or (zero and zero[0] not in stored):
        return None
    scales = numpy_helper.to_array(stored[scale])
    if scales.size != 1:
        return None
    kind = parts.code_type(place)
    name_of = _SMALL.get(kind) or np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).name
    signed, bits = not name_of.startswith("u"), int(name_of.lstrip("uint"))
    zero_point = int(numpy_helper.to_array(stored[zero[0]]).astype(np.int64).item()) if zero else 0
    return Grid(float(scales.astype(np.float64).item()), zero_point, bits, signed)


_SMALL: dict[int, str] = {onnx.TensorProto.UINT4: "uint4", onnx.TensorProto.INT4: "int4"}


def _load_graphs(
    check: _Check,
    parts: Layers,
    signatures: Mapping[str, Signature],
    folder: Path,
    source: str,
    template: Mapping[str, Any],
    notes: dict[str, str],
) -> None:
    """Load the exposed graph and the isolated ones; what is refused leaves a note."""
    exposed, where = parts.exposed()
    try:
        loaded = create({**template, "model": _saved(exposed, folder / f"exposed-{source}.onnx")})
        check.exposed[source] = _Graph(loaded, {}, where)
    except _REFUSALS as error:
        notes[f"{source}: errors along the network are missing"] = error.what
    sizes = {
        name: math.prod(signatures[f][1]) * np.dtype(signatures[f][0]).itemsize
        for la in check.layers
        for name in (*la.inputs, *la.outputs)
        if (f := parts.float_name(name) or "") in signatures
    }
    check.isolated[source] = []
    refused: dict[str, list[str]] = {}
    open_ = chunks(
        [la for la in check.layers if la.computes], sizes, most_bytes=_CHUNK_BYTES, most_layers=_CHUNK_LAYERS
    )
    while open_:
        chosen = open_.pop(0)
        model, feeds, given = parts.isolated(chosen, signatures)
        if not given:
            continue
        path = folder / f"layers-{source}-{len(check.isolated[source])}-{len(open_)}.onnx"
        try:
            loaded = create({**template, "model": _saved(model, path)})
        except _REFUSALS as error:
            if len(chosen) > 1:  # find out which one it is
                half = len(chosen) // 2
                open_[:0] = [chosen[:half], chosen[half:]]
            else:
                refused.setdefault(error.what.rpartition(":")[2].strip(), []).append(chosen[0].name)
            continue
        grids = {
            i: (f.tensor, _grid(parts, f.quantizer) if f.quantizer is not None else None) for i, f in feeds.items()
        }
        check.isolated[source].append(_Graph(loaded, grids, given))
    for why, names in refused.items():
        notes[f"{source}: not run in isolation: {', '.join(names)}"] = why


def _floats(reference: Loaded, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Run the float model: all its wanted tensors, and its inputs."""
    return {**arrays, **dict(zip(reference.outputs, reference.run(arrays), strict=True))}


def check_sample(ctx: JobContext, args: dict[str, Any], arrays: Arrays) -> Reply:
    """Take in one sample; args: key, inner: whether layers and tensors are looked at, too; arrays: the inputs.

    Answers with the largest class of each classifying output, as ``source:output`` (int64, −1 where there is a NaN).
    """
    check = _open(ctx, args["key"])
    results: dict[str, Arrays] = {}
    for source, spec in check.specs.items():
        loaded, _ = sessions(ctx).get(spec)
        results[source] = dict(zip(loaded.outputs, loaded.run(arrays), strict=True))
    expected = results["float"]
    for source, found in results.items():
        if source != "float":
            for name in expected:
                check.agreement.setdefault((source, name), Deviation()).update(expected[name], found[name])
    if args["inner"]:
        _inner(check, arrays, results)
    classes = {
        f"{s}:{n}": c for s, found in results.items() for n, v in found.items() if (c := _classes(v)) is not None
    }
    return {}, classes


def _classes(value: NDArray[Any]) -> NDArray[np.int64] | None:
    if value.ndim != 2 or value.shape[1] < 2:
        return None
    broken = np.isnan(value).any(axis=1) if value.dtype.kind == "f" else np.zeros(len(value), dtype=bool)
    return np.where(broken, -1, value.argmax(axis=1)).astype(np.int64)


def _inner(check: _Check, arrays: Mapping[str, NDArray[Any]], results: Mapping[str, Arrays]) -> None:
    assert check.reference is not None
    floats = _floats(check.reference, arrays)
    for name, fit in check.fits.items():
        if floats[name].dtype.kind == "f":
            fit.update(floats[name], channel_axis(floats[name].shape))
    named = {qdq: f for layer in check.layers for qdq, f in layer.outputs.items()}

    def take_in(source: str, kind: str, graph: _Graph, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        found = dict(zip(graph.loaded.outputs, graph.loaded.run(feeds), strict=True))
        for qdq, given in graph.where.items():
            deviation = check.deviations.setdefault((source, kind, named[qdq]), Deviation())
            deviation.update(floats[named[qdq]], found[given])
        return found

    for source, graph in check.exposed.items():
        found = take_in(source, "accumulated", graph, arrays)
        # with more outputs the compiler may fuse otherwise: the figures would be another graph's
        plain = results.get(source, {})
        check.changed[source] += sum(
            not np.array_equal(plain[n], found[n], equal_nan=True) for n in plain if n in found
        )
    for source, graphs in check.isolated.items():
        for graph in graphs:
            feeds = {
                name: floats[fed] if grid is None else grid.quantize(floats[fed])
                for name, (fed, grid) in graph.feeds.items()
            }
            take_in(source, "isolated", graph, feeds)


def check_close(ctx: JobContext, args: dict[str, Any], arrays: Arrays) -> Reply:
    """End; args: key.

    Answers with ``outputs`` and ``layers`` (rows of figures), ``tensors`` (rows, activations) and ``changed`` (sources on
    which further outputs changed the network's own); arrays: ``counts`` (tensors × bins), and the channels' extremes as
    ``min:<tensor>`` and ``max:<tensor>``.
    """
    check = _open(ctx, args["key"])
    del ctx.state["checks"][args["key"]]
    found: Arrays = {}
    tensors = []
    for name, fit in check.fits.items():
        row: dict[str, Any] = {"tensor": name, "bits": fit.grid.bits, "grids": 1, "scale": fit.grid.scale}
        tensors.append(row | fit.figures())
        if fit.channel_min is not None and fit.channel_max is not None:
            found |= {f"min:{name}": fit.channel_min, f"max:{name}": fit.channel_max}
    if check.fits:
        found["counts"] = np.stack([fit.counts for fit in check.fits.values()])
    return {
        "outputs": [{"output": n, "source": s, **d.figures()} for (s, n), d in check.agreement.items()],
        "layers": [{"source": s, "kind": k, "tensor": t, **d.figures()} for (s, k, t), d in check.deviations.items()],
        "tensors": tensors,
        "changed": [source for source, count in check.changed.items() if count],
    }, found


def _open(ctx: JobContext, key: str) -> _Check:
    check = ctx.state.get("checks", {}).get(key)
    if check is None:
        raise QnbError("the check is not open in this worker", hint="run the step again")
    assert isinstance(check, _Check)
    return check
