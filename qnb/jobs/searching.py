"""Jobs of a search for precisions: what a model's parts may be, and how good its output is with some of them quantized.

Model, ranges, samples and float outputs lie in a folder and are loaded once a worker; a measurement is then encodings, Q/DQ
and a session on ONNX Runtime's CPU. Knows nothing of why a mix is measured.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from qnb import kept
from qnb.errors import BadConfig
from qnb.files import storage_errors
from qnb.graph.compare import agreement
from qnb.graph.facts import layers, tensor_specs
from qnb.quant import parts
from qnb.quant.encodings import Encodings
from qnb.quant.mixes import FP16_BITS, bits_of
from qnb.quant.qdq import encode, insert_qdq
from qnb.quant.structure import Structure, prepared
from qnb.runtime.session import Loaded, create
from qnb.runtime.worker import JobContext, Reply


@dataclass
class _Bench:
    """What all measurements of one search share."""

    folder: Path
    model: onnx.ModelProto
    ranges: dict[str, tuple[float, float]]
    samples: list[dict[str, np.ndarray]]
    reference: dict[str, np.ndarray]


def search_open(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Begin a search.

    args: folder (holds ranges.json and samples/00000.npz …), model, spec (of the float
    model), candidates, granularity, per_channel. Writes reference.npz; answers with the parts and ops as plain values;
    arrays: the float model's outputs.
    """
    folder = Path(args["folder"])
    model = onnx.load(args["model"])
    ranges = _ranges(folder)
    structure = Structure(prepared(model))
    encoded: dict[str, Encodings] = {}
    for candidate in args["candidates"]:
        weights, activations = bits_of(candidate)
        if candidate == "fp16":
            encoded[candidate] = Encodings()
            continue
        encoded[candidate] = encode(
            model, ranges, activation_bits=activations or 8, weight_bits=weights or 8, per_channel=args["per_channel"]
        )
    if not any(c != "fp16" for c in encoded):
        raise BadConfig("fp16 alone leaves nothing to search", hint=f"add integers, such as w8a{FP16_BITS} and w8a8")
    specs = tensor_specs(structure.model)
    elements = parts.elements_of({name: spec.shape for name, spec in specs.items()})
    problem = parts.parts_of(structure, encoded, layers(structure.model), elements, args["granularity"])
    loaded = create(args["spec"])
    samples = _samples(folder)
    reference = _run(ctx, loaded, samples)
    kept.save(folder / "reference.npz", reference)
    return {
        "parts": [dataclasses.asdict(part) for part in problem.parts],
        "ops": [dataclasses.asdict(op) for op in problem.ops],
        "fixed_bytes": problem.fixed_bytes,
    }, reference


def search_measure(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Measure one candidate.

    args: name (of its own), folder, model, spec (its ``model`` is filled in here), bits (of each tensor that is
    spoken of; 0: float), alone (whether all else is float), activation_bits, weight_bits (of what is not spoken of),
    per_channel, outputs (whether they are wanted). Answers with the SQNR of the worst output.
    """
    bench = _bench(ctx, args)
    bits: Mapping[str, int] = args["bits"]
    encodings = encode(
        bench.model,
        bench.ranges,
        activation_bits=args["activation_bits"],
        weight_bits=args["weight_bits"],
        per_channel=args["per_channel"],
        overrides=parts.overrides_from(bits),
    )
    if args["alone"]:
        quantized = _alone(bench.model, encodings, bits)
    else:
        quantized = insert_qdq(bench.model, encodings.activations, encodings.weights)
    path = bench.folder / f"candidate-{args['name']}.onnx"
    try:
        with storage_errors(path):
            onnx.save(quantized, str(path))
        outputs = _run(ctx, create({**args["spec"], "model": str(path)}), bench.samples)
    finally:
        path.unlink(missing_ok=True)
    sqnr = min(agreement(bench.reference[name], value)["sqnr_db"] for name, value in outputs.items())
    return {"sqnr_db": sqnr}, outputs if args["outputs"] else {}


def _alone(model: onnx.ModelProto, encodings: Encodings, names: Mapping[str, int]) -> onnx.ModelProto:
    """Quantize some tensors and nothing else, whether HTP takes that or not: weights are rounded where they stand."""
    rounded = prepared(model)
    for tensor in rounded.graph.initializer:
        if tensor.name in names and tensor.name in encodings.weights:
            grid = encodings.weights[tensor.name]
            values = grid.dequantize(grid.quantize(numpy_helper.to_array(tensor)))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return insert_qdq(rounded, {name: e for name, e in encodings.activations.items() if name in names}, {})


def _bench(ctx: JobContext, args: Mapping[str, Any]) -> _Bench:
    folder = Path(args["folder"])
    known = ctx.state.get("search")
    if isinstance(known, _Bench) and known.folder == folder:
        return known
    made = _Bench(
        folder,
        onnx.load(args["model"]),
        _ranges(folder),
        _samples(folder),
        kept.load(folder / "reference.npz"),
    )
    ctx.state["search"] = made  # one at a time: an earlier search's samples must not stay in memory
    return made


def _ranges(folder: Path) -> dict[str, tuple[float, float]]:
    content = json.loads((folder / "ranges.json").read_text(encoding="utf-8"))
    return {name: (lo, hi) for name, (lo, hi) in content.items()}


def _samples(folder: Path) -> list[dict[str, np.ndarray]]:
    return [kept.load(path) for path in kept.files(folder / "samples")]


def _run(ctx: JobContext, loaded: Loaded, samples: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Run all samples; outputs by name, samples along the first axis."""
    rows = []
    for index, sample in enumerate(samples):
        rows.append(loaded.run(sample))
        ctx.progress(index + 1, len(samples))
    return {name: np.concatenate([np.atleast_1d(row[i]) for row in rows]) for i, name in enumerate(loaded.outputs)}
