"""How `export` reads what it is given: each front-end's answer in one form, and where it runs.

Knows the front-ends and the worker's jobs; nothing of what becomes of the ONNX file afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qnb import frontends
from qnb.errors import BadInput
from qnb.runtime import client
from qnb.runtime.locate import Runtime

__all__ = ["Asked", "Front", "Shapes", "read"]

Shapes = Mapping[str, Sequence[int]]
Pair = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
"""Inputs and outputs of one run, by name."""


@dataclass(frozen=True)
class Asked:
    """What `export` was asked to read, and how: its arguments."""

    source: Any
    weights: str | Path | None
    example: Any
    shapes: Shapes | None
    batch: int
    input_names: Sequence[str] | None
    output_names: Sequence[str] | None
    trust: bool


@dataclass
class Front:
    """What a front-end gives: an ONNX file, and, where it can, what the source computes on two inputs.

    Attributes
    ----------
    path : pathlib.Path
        The ONNX file.
    name : str
        Name of the model.
    shapes_open : bool
        Whether it may leave dimensions open, which the arguments of `export` fix.
    pairs : list of pairs of dict of str to numpy.ndarray, optional
        Inputs and outputs of the source.
    log, notes
        What was said meanwhile, and what was decided without being asked for.
    shapes : mapping of str to sequence of int, optional
        Of all inputs, where the front-end has decided them but the file leaves them open.
    steps : mapping of str to float, optional
        Where the source computes in integers: what one step of an output's grid is worth.
    """

    path: Path
    name: str
    shapes_open: bool
    pairs: list[Pair] | None = None
    log: str = ""
    notes: Sequence[str] = ()
    shapes: Shapes | None = None
    steps: Mapping[str, float] | None = None


def read(asked: Asked, folder: Path, worker: client.Worker, runtime: Runtime) -> Front:
    """Have the source's front-end make an ONNX file of it.

    Raises
    ------
    BadInput
        If the source is no model, or an argument does not fit it.
    ExportError
        If it can't be read.
    """
    kind = frontends.recognise(asked.source, trust=asked.trust)
    if asked.weights is not None and kind != "caffe":
        raise BadInput(
            "weights is for Caffe networks, whose weights are a file of their own",
            hint="leave it out, or pass a .prototxt",
        )
    if kind == "torch":
        return _read_torch(asked, folder)
    if kind == "caffe":
        return _read_caffe(asked, folder, worker)
    if kind == "keras-model":
        return _read_keras_model(asked, folder, runtime)
    from qnb.frontends import onnx as front_onnx

    if kind in frontends.FOREIGN:
        path, _ = front_onnx.as_file(asked.source, folder)
        return _read_foreign(asked, kind, path, folder, runtime)
    if asked.example is not None or asked.input_names or asked.output_names:
        raise BadInput(
            "example, input_names and output_names are for modules; an ONNX model has its inputs and names",
            hint="leave them out; shapes fixes dimensions that the file leaves open",
        )
    path, name = front_onnx.as_file(asked.source, folder)
    return Front(path, name, shapes_open=True)


def _read_torch(asked: Asked, folder: Path) -> Front:
    from qnb.frontends import torch as front

    exported = front.to_onnx(
        asked.source,
        folder / "exported.onnx",
        example=asked.example,
        shapes=asked.shapes,
        input_names=asked.input_names,
        output_names=asked.output_names,
    )
    return Front(
        exported.path,
        type(asked.source).__name__,
        shapes_open=False,
        pairs=exported.pairs,
        log=exported.log,
        notes=exported.notes,
        shapes={name: value.shape for name, value in exported.pairs[0][0].items()},
    )


def _read_caffe(asked: Asked, folder: Path, worker: client.Worker) -> Front:
    if asked.example is not None or asked.input_names:
        raise BadInput(
            "example and input_names are for modules; a Caffe network has its inputs and names",
            hint="leave them out; shapes={'data': (1, 3, 224, 224)} sets the shape of an input",
        )
    from qnb.frontends.caffe.files import pair

    network, weights = pair(asked.source, asked.weights)
    path = folder / "caffe.onnx"
    answer = worker.call(
        "import_caffe",
        {
            "network": str(network),
            "weights": str(weights) if weights else None,
            "path_out": str(path),
            "shapes": {name: list(map(int, shape)) for name, shape in (asked.shapes or {}).items()},
            "batch": asked.batch,
            "outputs": list(asked.output_names) if asked.output_names else None,
        },
    )
    notes = [*answer.values["notes"], "the comparison is with the network as it was read; Caffe itself did not run"]
    name = answer.values["name"] or (weights or network).stem
    return Front(path, name, shapes_open=False, log=answer.log, notes=notes)


def _read_keras_model(asked: Asked, folder: Path, runtime: Runtime) -> Front:
    """Read a Keras model in memory: traced here, where its classes are; converted elsewhere, compared with itself."""
    from qnb.frontends import keras, keras_live

    name = str(getattr(asked.source, "name", "model"))
    if keras.backend_of(asked.source) != "tensorflow":
        path = folder / f"{name}.keras"
        asked.source.save(path)
        return _read_foreign(asked, "keras", path, folder, runtime)
    run = keras_live.save_live(asked.source, folder / name)
    front = _read_foreign(asked, "tensorflow", folder / name, folder, runtime)
    front.pairs = [(feeds, run(feeds)) for feeds, _ in front.pairs or []]
    return front


def _read_foreign(asked: Asked, kind: str, path: Path, folder: Path, runtime: Runtime) -> Front:
    """Have a file of another framework converted, in a worker that does nothing else and ends afterwards."""
    shapes: Any = asked.shapes  # a module's may be one shape without a name
    if kind not in ("torchscript", "exported-program", "torch-pickle"):
        if asked.input_names or asked.output_names:
            raise BadInput(
                "input_names and output_names are for PyTorch; this model has its inputs' and outputs' names",
                hint="leave them out",
            )
        if shapes is not None and not isinstance(shapes, Mapping):
            raise BadInput(f"shapes={shapes!r} names no input", hint="pass shapes={'NAME': (1, …)}")
    if isinstance(shapes, Mapping):
        shapes = {name: list(map(int, shape)) for name, shape in shapes.items()}
    elif shapes is not None:
        shapes = list(map(int, shapes))
    name = path.name if path.is_dir() else path.stem
    out = folder / "converted" / f"{name}.onnx"  # its name is in messages
    args = {
        "kind": kind,
        "path_in": str(path),
        "path_out": str(out),
        "shapes": shapes,
        "batch": asked.batch,
        "trust": asked.trust,
        "input_names": list(asked.input_names) if asked.input_names else None,
        "output_names": list(asked.output_names) if asked.output_names else None,
    }
    with client.fresh(runtime) as worker:
        answer = worker.call("convert_foreign", args, _example(asked.example))
    facts = answer.values
    return Front(
        out,
        name,
        shapes_open=True,
        pairs=_pairs(answer.arrays),
        log="\n".join(part for part in (facts["log"], answer.log) if part),
        notes=facts["notes"],
        shapes=facts["shapes"],
        steps=facts["steps"],
    )


def _pairs(arrays: Mapping[str, np.ndarray]) -> list[Pair]:
    """Sort what the job answers, ``NUMBER/in/NAME`` and ``NUMBER/out/NAME``."""
    pairs: list[Pair] = [({}, {}), ({}, {})]
    for key, value in arrays.items():
        number, side, name = key.split("/", 2)
        pairs[int(number)][side == "out"][name] = value
    return pairs


def _example(example: Any) -> dict[str, np.ndarray]:
    """Give an example's arrays by name, or by position as ``#0``, ``#1``, …."""
    if example is None:
        return {}
    if not isinstance(example, Mapping):
        values = example if isinstance(example, tuple | list) else (example,)
        example = {f"#{number}": value for number, value in enumerate(values)}
    arrays = {}
    for name, value in example.items():
        try:
            array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        except (TypeError, ValueError) as error:
            raise BadInput(f"the example {name} is no array: {error}", hint="pass arrays or tensors") from error
        if array.dtype.kind not in "fiub":
            raise BadInput(
                f"the example {name} is a {type(value).__name__}, not numbers", hint="pass arrays or tensors"
            )
        arrays[str(name)] = array
    return arrays
