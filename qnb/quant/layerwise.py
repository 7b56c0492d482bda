"""Layerwise: walks a model from its first layer to its last, and chooses each one's weights on what reaches it.

The float model and the quantized one are cut at the layers and advance side by side, every piece of either runs once
per sample: the cost is linear in the depth. Knows graphs; runs pieces of them through a function that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from qnb.errors import CalibrationError
from qnb.quant.encodings import Encoding, Encodings
from qnb.quant.folding import tidied
from qnb.quant.linear import Linear, add_bias, inferred, linears, patches, put
from qnb.quant.matching import match, settings
from qnb.quant.moments import Moments, quality
from qnb.quant.qdq import insert_qdq
from qnb.quant.structure import Structure, prepared

__all__ = ["Open", "Run", "Store", "optimise"]

Sample = dict[str, NDArray[Any]]

Run = Callable[[Sample], Sample]
"""Runs a model on one sample; gives its outputs by name."""

Open = Callable[[onnx.ModelProto], Run]
"""Loads a model."""


class Store:
    """Where finished layers are kept; this one keeps nothing."""

    def get(self, layer: str) -> dict[str, NDArray[Any]] | None:
        """Give what was kept of a layer."""
        return None

    def put(self, layer: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Keep what was found for a layer."""


def optimise(
    model: onnx.ModelProto,
    encodings: Encodings,
    samples: Sequence[Sample],
    open_model: Open,
    *,
    method: str = "gptq",
    options: Mapping[str, Any] | None = None,
    progress: Callable[[float, int, str], None] = lambda done, total, layer: None,
    store: Store | None = None,
) -> tuple[onnx.ModelProto, dict[str, Encoding], list[dict[str, Any]]]:
    """Choose codes and scales of the weights of all layers, in the order of the graph.

    The output of each layer is matched on the optimization samples: its float output on the float model's activations
    against its quantized weights on what the quantized layers before give (see `qnb.quant.rounding.solve`). Where a layer
    adds a bias, the weights match the output about its mean, and the bias takes up the mean's error (Nagel et al., ICCV
    2019, section 4.2, with measured means).

    Parameters
    ----------
    model : onnx.ModelProto
        Float, fixed shapes; not changed.
    encodings : Encodings
        From `qnb.quant.qdq.encode` for this model. Weights that are signed symmetric there keep bits and axis; others, and
        those of layers that are not known here (ConvTranspose, shared weights), keep their grid and are rounded to nearest.
    samples : sequence of dict of ndarray
        Inputs by name, one sample each.
    open_model : callable
        Loads a float or QDQ model and gives a function that runs it.
    method : {"gptq", "adaround", "seqmse", "nearest"}
    options : mapping, optional
        ``damping``: how much weights are held to the float ones, a share of the mean input power; None (default) to
        choose it layer by layer. ``iterations`` of adaround, 10 000. ``rows``: output positions that a layer is matched
        on, 8192, and more for layers with many inputs. ``correct_bias``, True. ``seed``, 0. ``bytes`` of activations
        held at a time, 512 MiB; fewer samples are used where they don't fit.
    progress : callable
        Told often: layers that are finished (and the part of the one that is not), how many there are, name.
    store : Store, optional
        Keeps each finished layer; what it has already is not worked out again.

    Returns
    -------
    model : onnx.ModelProto
        Float, weights on their grids, biases corrected.
    chosen : dict of str to Encoding
        The grids of those weights; quantizing the model with them rounds nothing.
    rows : list of dict
        One a layer: ``step``, ``layer``, ``weight``, ``bits``, ``samples``, ``rows``, ``damping``; ``sqnr_before`` and
        ``sqnr_after`` of the layer's output in dB, with nearest rounding on the given grid and with the chosen one.
    """
    chosen_options = settings(options or {})
    store = store or Store()
    exact = Structure(prepared(model))
    layers = [layer for layer in linears(exact) if layer.weight in encodings.weights]
    layers = [layer for layer in layers if _fits(layer, encodings.weights[layer.weight])]
    names = {layer.weight for layer in layers}
    for layer in layers:
        if layer.bias is None and layer.node.op_type != "MatMul" and chosen_options["correct_bias"]:
            add_bias(exact, layer, np.zeros(layer.outputs))
    layers = [layer for layer in linears(exact) if layer.weight in names]
    others = {
        name: encoding
        for name, encoding in encodings.weights.items()
        if name in exact.roles and exact.roles[name].kind not in ("weight", "bias", "beta")
    }
    coarse = Structure(insert_qdq(exact.model, encodings.activations, others))
    for name, role in exact.roles.items():
        if role.kind == "weight" and name not in names and name in encodings.weights and name in coarse.parameters:
            put(coarse, name, _rounded(encodings.weights[name], exact.values(name)))
    walks = [_Walk(graph, [layer.node.name for layer in layers], open_model) for graph in (exact, coarse)]
    count = max(1, min(len(samples), int(chosen_options["bytes"] / max(1.0, sum(w.bytes_held for w in walks)))))
    if not samples:
        raise CalibrationError("there is no sample to optimize weights on", hint="give data with at least one sample")
    for walk in walks:
        walk.begin(samples[:count])
    rows: list[dict[str, Any]] = []
    chosen: dict[str, Encoding] = {}
    results: list[tuple[Linear, NDArray[Any], NDArray[Any] | None]] = []
    for index, layer in enumerate(layers):

        def tick(part: float, index: int = index, name: str = layer.node.name) -> None:
            progress(index + part, len(layers), name)

        tick(0.0)
        encoding = encodings.weights[layer.weight]
        found = store.get(layer.node.name)
        if found is None:
            found = _layer(layer, exact, walks, encoding, method, chosen_options, tick)
            store.put(layer.node.name, found)
        made = Encoding(encoding.bits, True, found["scale"], np.zeros(found["scale"].size, np.int64), encoding.axis)
        weights = made.dequantize(found["codes"])
        chosen[layer.weight] = made
        put(coarse, layer.weight, weights)
        shift = found["shift"] if found["shift"].any() else None
        if shift is not None:
            there = next(item for item in linears(coarse) if item.weight == layer.weight)
            add_bias(coarse, there, shift)
        results.append((layer, weights, shift))
        rows.append(
            {
                "step": method,
                "layer": layer.node.name,
                "weight": layer.weight,
                "bits": encoding.bits,
                "samples": count,
                "rows": int(found["rows"]),
                "damping": float(found["damping"]),
                "sqnr_before": float(found["before"]),
                "sqnr_after": float(found["after"]),
            }
        )
        if index + 1 < len(layers):
            for walk in walks:
                walk.advance(tick)
    for layer, weights, shift in results:
        put(exact, layer.weight, weights)
        if shift is not None:
            add_bias(exact, layer, shift)
    return tidied(exact), chosen, rows


def _fits(layer: Linear, encoding: Encoding) -> bool:
    per_row = encoding.axis is None or (layer.node.op_type == "Conv" and encoding.axis == 0)
    if layer.node.op_type in ("Gemm", "MatMul"):
        per_row = encoding.axis in (None, 0 if layer.outputs_first else 1)
    plain = encoding.signed and encoding.symmetric and not encoding.blockwise
    return layer.node.op_type != "ConvTranspose" and per_row and plain


def _rounded(encoding: Encoding, values: NDArray[Any]) -> NDArray[np.float32]:
    return encoding.dequantize(encoding.quantize(values))


def _layer(
    layer: Linear,
    exact: Structure,
    walks: Sequence[_Walk],
    encoding: Encoding,
    method: str,
    options: Mapping[str, Any],
    tick: Callable[[float], None],
) -> dict[str, NDArray[Any]]:
    """Give what there is to keep of a layer: stored codes, scale, shift of the bias, and figures."""
    canonical = layer.canonical(exact.finite_values(layer.weight).astype(np.float64))
    weight = canonical.reshape(*canonical.shape[:2], -1)
    seen, held = Moments(weight), Moments(weight)
    generator = np.random.default_rng(options["seed"])
    wanted = max(int(options["rows"]), 4 * weight.shape[-1])
    share = -(-wanted // len(walks[0].held))
    for index, (exact_input, coarse_input) in enumerate(zip(walks[0].arrives(), walks[1].arrives(), strict=True)):
        where = np.sort(generator.random(share))
        x, quantized = patches(layer, exact_input, where), patches(layer, coarse_input, where)
        assert x is not None
        assert quantized is not None
        (held if index % 4 == 3 else seen).add(x, quantized)
        tick(0.0)
    biased = layer.bias is not None and bool(options["correct_bias"])
    solution, shift, damping = match(
        weight,
        seen,
        held,
        encoding.bits,
        method,
        common=encoding.axis is None,
        biased=biased,
        damping=options["damping"],
        iterations=options["iterations"],
        tick=tick,
    )
    moments = seen.with_(held)
    plain = layer.canonical(_rounded(encoding, exact.values(layer.weight)).astype(np.float64)).reshape(weight.shape)
    return {
        "codes": layer.stored(solution.codes.reshape(canonical.shape)).astype(
            np.int16 if encoding.bits > 8 else np.int8
        ),
        "scale": solution.scale.reshape(-1)[: 1 if encoding.axis is None else None],
        "shift": shift.reshape(-1),
        "rows": np.array(moments.rows),
        "damping": np.array(damping),
        "before": np.array(quality(moments, weight, plain)),
        "after": np.array(quality(moments, weight, solution.weights, shift)),
    }


@dataclass(frozen=True)
class _Piece:
    nodes: list[onnx.NodeProto]
    inputs: list[str]
    outputs: list[str]


class _Walk:
    """One model, cut before each layer; holds of every sample the tensors that are still to be read."""

    def __init__(self, structure: Structure, layers: Sequence[str], open_model: Open) -> None:
        self.structure = structure
        self.open = open_model
        self.held: list[Sample] = []
        self._next = 0
        self._layers = [node for node in structure.graph.node if node.name in set(layers)]
        self._pieces = list(self._cut([node.name for node in self._layers]))
        shapes = inferred(structure.model)
        sizes = [
            sum(4.0 * float(np.prod(shapes.get(name, ()))) for name in (*piece.inputs, *piece.outputs))
            for piece in self._pieces
        ]
        self.bytes_held = max(sizes, default=0.0)

    def begin(self, samples: Sequence[Sample]) -> None:
        """Take the samples up to the first layer."""
        self.held = [dict(sample) for sample in samples]
        self.advance()

    def arrives(self) -> Iterator[NDArray[Any]]:
        """Give what the next layer reads, sample by sample."""
        name = self._layers[self._next - 1].input[0]
        return (sample[name] for sample in self.held)

    def advance(self, tick: Callable[[float], None] = lambda part: None) -> None:
        """Run the piece that begins with the layer just done, up to the next."""
        piece = self._pieces[self._next]
        self._next += 1
        needed = {name for later in self._pieces[self._next :] for name in later.inputs}
        if self._next <= len(self._layers):
            needed.add(self._layers[self._next - 1].input[0])
        if piece.outputs:
            run = self.open(self._model(piece))
            for sample in self.held:
                sample.update(run({name: sample[name] for name in piece.inputs}))
                tick(0.99)
        for sample in self.held:
            for name in set(sample) - needed:
                del sample[name]

    def _cut(self, layers: Sequence[str]) -> Iterator[_Piece]:
        begins = set(layers)
        runs: list[list[onnx.NodeProto]] = [[]]
        for node in self.structure.graph.node:
            if node.name in begins:
                runs.append([])
            runs[-1].append(node)
        reads = [{name for node in nodes for name in node.input if name} for nodes in runs]
        for index, nodes in enumerate(runs):
            made = [name for node in nodes for name in node.output if name]
            later = set().union(*reads[index + 1 :])
            outside = reads[index] - set(made) - set(self.structure.parameters)
            yield _Piece(nodes, sorted(outside), [name for name in made if name in later])

    def _model(self, piece: _Piece) -> onnx.ModelProto:
        first = self.held[0]
        used = {name for node in piece.nodes for name in node.input}
        graph = helper.make_graph(
            piece.nodes,
            "piece",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(first[name].dtype), first[name].shape
                )
                for name in piece.inputs
            ],
            [onnx.ValueInfoProto(name=name) for name in piece.outputs],
            [tensor for tensor in self.structure.graph.initializer if tensor.name in used],
        )
        model = helper.make_model(graph, opset_imports=list(self.structure.model.opset_import))
        model.ir_version = self.structure.model.ir_version
        return model
