"""Jobs on weights: make a float model quantizable, choose its weights' codes, and say how good the results are.

All of them read samples from a folder: ``00000.npz`` …, one array an input. Knows nothing of why it is asked.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from qnb import kept
from qnb.errors import BadInput, CalibrationError, UnknownName
from qnb.files import digest, replacing, storage_errors, write_text
from qnb.quant import encoding_files, layerwise
from qnb.quant.correction import correct_biases
from qnb.quant.encodings import Encoding, Encodings
from qnb.quant.equalize import absorb_biases, clip_inputs, equalize
from qnb.quant.folding import fold_batch_norms
from qnb.quant.linear import linears
from qnb.quant.rewrite import IR_VERSION
from qnb.quant.structure import Structure, prepared
from qnb.runtime.session import create
from qnb.runtime.worker import JobContext, Reply

STEPS = ("fold", "equalize", "absorb", "correct")

Rows = list[dict[str, Any]]


def transform(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Change a float model so that it quantizes better; what it computes stays as it is (``correct`` aside).

    args: model, out (paths); steps, a list of

    - ``"fold"``: batch norms into the layers before them;
    - ``"equalize"``: ranges of weights across layers; `replace_clips` (False) as in `equalize`; without samples it passes
      no Clip;
    - ``"absorb"``: high biases into the next layer (needs samples);
    - ``"correct"``: biases for the mean error of rounding (needs `encodings`, the path of an encodings file, and samples, or
      arrays ``mean:<tensor>``, the means of layers' inputs per channel);

    samples (folder, or None), spec (any session's on ONNX Runtime: its model is replaced), folder (for intermediate files).
    Answers with `rows`, what was changed, in the order of the steps.
    """
    rows: Rows = []
    model = onnx.load(args["model"])
    for step in args["steps"]:
        if step not in STEPS:
            raise UnknownName.among("step", step, STEPS)
    samples = _sample_files(args["samples"]) if args.get("samples") else []
    for index, step in enumerate(args["steps"]):
        ctx.progress(index, len(args["steps"]), step)

        def observe(
            model: onnx.ModelProto, names: list[str], index: int = index, step: str = step
        ) -> Iterator[dict[str, NDArray[Any]]]:
            if not samples:
                raise BadInput(
                    f"step {step!r} was asked for without samples", hint="give calibration data, or leave it out"
                )
            run = _opener(args)(_exposing(model, names))
            for number, sample in enumerate(map(kept.load, samples)):
                yield {name: value for name, value in (sample | run(sample)).items() if name in names}
                ctx.progress(index + number / len(samples), len(args["steps"]), step)

        if step == "fold":
            model, made = fold_batch_norms(model)
        elif step == "equalize":
            every = bool(args.get("replace_clips", False))
            clips = [] if every or not samples else clip_inputs(model)
            model, made = equalize(model, _extents(observe(model, clips)) if clips else {}, replace_clips=every)
        elif step == "absorb":
            before = [layer.node.output[0] for layer in linears(Structure(prepared(model)))]
            model, made = absorb_biases(model, _statistics(observe(model, before)))
        else:
            layers = list(linears(Structure(prepared(model))))
            means = {name.removeprefix("mean:"): value for name, value in arrays.items() if name.startswith("mean:")}
            if not means:
                inputs = {layer.node.input[0]: layer.axis for layer in layers}
                found = _statistics(observe(model, list(inputs)), inputs)
                means = {name: mean for name, (mean, _) in found.items()}
            model, made = correct_biases(model, _encodings(args["encodings"], model), means)
        rows += made
    _save(model, args["out"])
    return {"rows": rows}, {}


def optimise(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Choose the codes and scales of a model's weights layer by layer: `qnb.quant.layerwise.optimise`.

    args: model, out (the float model with its weights on their grids), encodings (path of the model's encodings, as
    `quantize` writes them), chosen (path to write: the grids of the chosen weights), samples (folder), held_out (how many of
    the last are not used), method, options (mapping or None), spec (any session's on ONNX Runtime: its model is replaced),
    folder. Each finished layer is kept in `folder`, and taken up again by a run with the same arguments; what others left
    there is dropped. Answers with `rows`, one a layer.
    """
    folder = Path(args["folder"])
    files = _sample_files(args["samples"])
    files = files[: len(files) - args.get("held_out", 0)]
    about = json.dumps([args["method"], args["options"] or {}, [file.name for file in files]], sort_keys=True)
    parts = [digest(path) for path in (args["model"], args["encodings"], *files)]
    store = _Layers(folder, hashlib.sha256("\n".join([about, *parts]).encode()).hexdigest())
    model = onnx.load(args["model"])
    model, chosen, rows = layerwise.optimise(
        model,
        _encodings(args["encodings"], model),
        [kept.load(file) for file in files],
        _opener(args),
        method=args["method"],
        options=args["options"],
        progress=lambda done, total, layer: ctx.progress(done, total, layer),
        store=store,
    )
    _save(model, args["out"])
    write_text(args["chosen"], encoding_files.dumps(Encodings(weights=chosen)))
    return {"rows": rows}, {}


def score(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Say how near quantized models come to the float one, on ONNX Runtime's CPU.

    args: model (float), candidates (paths of QDQ models with the same inputs and outputs), samples (folder), last (use
    so many of the last), spec (any session's on ONNX Runtime: its model is replaced). Answers with, for each candidate
    in turn, `sqnr_db`: that of its worst float output over all samples together (a pooled figure would hide a small
    output behind a large one), and
    `outputs`: the SQNR of each output by name. A candidate that gives NaN has -inf.
    """
    reference = create({**args["spec"], "model": args["model"]})
    sessions = [create({**args["spec"], "model": path}) for path in args["candidates"]]
    files = _sample_files(args["samples"])[-args.get("last", 0) :]
    signal: dict[str, float] = {}
    noise: list[dict[str, float]] = [{} for _ in sessions]
    for number, sample in enumerate(map(kept.load, files)):
        expected = dict(zip(reference.outputs, reference.run(sample), strict=True))
        expected = {name: value.astype(np.float64) for name, value in expected.items() if value.dtype.kind == "f"}
        for name, value in expected.items():
            signal[name] = signal.get(name, 0.0) + float(np.square(value).sum())
        for session, sums in zip(sessions, noise, strict=True):
            results = dict(zip(session.outputs, session.run(sample), strict=True))
            for name, value in expected.items():
                sums[name] = sums.get(name, 0.0) + float(np.square(results[name].astype(np.float64) - value).sum())
        ctx.progress(number + 1, len(files), "score")
    if not signal:
        raise BadInput("the model has no float output to score", hint="score it with a metric of your own")
    outputs = [{name: _decibels(signal[name], sums[name]) for name in signal} for sums in noise]
    return {"sqnr_db": [min(each.values()) for each in outputs], "outputs": outputs}, {}


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal > 0 and np.isfinite(noise) else float("-inf")


# --- samples and statistics ----------------------------------------------------------------------------------------


def _sample_files(folder: str) -> list[Path]:
    files = kept.files(Path(folder))
    if not files:
        raise CalibrationError(f"no samples are in {folder}", hint="give data with at least one sample")
    return files


def _extents(values: Iterator[dict[str, NDArray[Any]]]) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    for sample in values:
        for name, value in sample.items():
            low, high = found.get(name, (np.inf, -np.inf))
            found[name] = min(low, float(value.min())), max(high, float(value.max()))
    return found


def _statistics(
    values: Iterator[dict[str, NDArray[Any]]], axes: Mapping[str, int] | None = None
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Give mean and standard deviation of each tensor per channel, which is on axis 1 unless `axes` says otherwise."""
    sums: dict[str, tuple[NDArray[np.float64], NDArray[np.float64], int]] = {}
    for sample in values:
        for name, value in sample.items():
            axis = (axes or {}).get(name, 1)
            if value.ndim < 2:
                continue
            rows = np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis]).astype(np.float64)
            first, second, count = sums.get(name, (np.zeros(rows.shape[1]), np.zeros(rows.shape[1]), 0))
            sums[name] = first + rows.sum(axis=0), second + np.square(rows).sum(axis=0), count + rows.shape[0]
    return {
        name: (first / count, np.sqrt(np.maximum(second / count - np.square(first / count), 0)))
        for name, (first, second, count) in sums.items()
    }


# --- models and encodings ------------------------------------------------------------------------------------------


def _opener(args: Mapping[str, Any]) -> Callable[[onnx.ModelProto], layerwise.Run]:
    """Give a function that loads models as the spec in `args` says."""
    folder = Path(args["folder"])

    def open_model(model: onnx.ModelProto) -> layerwise.Run:
        path = folder / "piece.onnx"
        try:
            with storage_errors(path):
                folder.mkdir(parents=True, exist_ok=True)
                onnx.save(model, path)
            loaded = create({**args["spec"], "model": str(path)})
        finally:
            path.unlink(missing_ok=True)
        return lambda sample: dict(
            zip(loaded.outputs, loaded.run({name: sample[name] for name in loaded.inputs}), strict=True)
        )

    return open_model


def _exposing(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Give a copy with more of its tensors as outputs."""
    copy = prepared(model)
    there = {value.name for value in (*copy.graph.input, *copy.graph.output)}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in there)
    return copy


def _encodings(path: str, model: onnx.ModelProto) -> Encodings:
    """Read a file of complete encodings."""
    parameters = Structure(prepared(model)).parameters
    activations: dict[str, Encoding] = {}
    weights: dict[str, Encoding] = {}
    for name, said in encoding_files.read(Path(path)).tensors.items():
        if said.bits is None or said.signed is None or said.scale is None or said.zero_point is None:
            continue
        made = Encoding(
            said.bits,
            said.signed,
            said.scale,
            said.zero_point,
            said.axis,
            said.block_axis,
            said.block_size,
            said.block_scale,
        )
        (weights if name in parameters else activations)[name] = made
    return Encodings(activations, weights)


def _save(model: onnx.ModelProto, path: str) -> None:
    model.ir_version = min(model.ir_version, IR_VERSION)
    with replacing(path) as temporary:
        onnx.save(model, str(temporary))


class _Layers(layerwise.Store):
    """Finished layers, a file each, and a mark of what they were worked out from."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.folder = folder / "layers"
        marked = self.folder / "made-from"
        with storage_errors(folder):
            if not marked.is_file() or marked.read_text() != mark:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(parents=True)
                write_text(marked, mark)

    def get(self, layer: str) -> dict[str, NDArray[Any]] | None:
        path = self._path(layer)
        if not path.is_file():
            return None
        return kept.load(path)

    def put(self, layer: str, arrays: dict[str, NDArray[Any]]) -> None:
        with replacing(self._path(layer)) as temporary:
            kept.save(temporary, arrays)

    def _path(self, layer: str) -> Path:
        return self.folder / f"{hashlib.sha256(layer.encode()).hexdigest()[:24]}.npz"
