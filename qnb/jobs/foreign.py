"""Job of export: a file that takes a large library to read becomes ONNX, in a process that ends afterwards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from qnb.errors import ExportError
from qnb.frontends.converted import fixed
from qnb.frontends.ports import Arrays, Converted
from qnb.runtime.worker import JobContext, Reply

_BASE_BYTES = 2 << 30  # TensorFlow and PyTorch together take 0.8 GB before they do anything
_NO_MEMORY = ("OOM when allocating", "ResourceExhausted", "allocate memory", "bad_alloc")
_BYTES_PER_BYTE = 128  # of the file: tf2onnx takes 70 of ResNet-50


def convert_foreign(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Convert a file; args: kind, path_in, path_out, shapes, batch, trust, input_names, output_names; arrays: the example.

    Answers with shapes, notes, log and steps (see `qnb.frontends.converted.Converted`); arrays ``NUMBER/in/NAME`` and
    ``NUMBER/out/NAME`` are the reference pairs.
    """
    sys.modules.pop("torch", None)  # other workers do without it
    limit = None if args["trust"] else _limit_memory(Path(args["path_in"]))
    try:
        made = _convert(args, arrays)
    except (MemoryError, ExportError) as error:
        said = str(error) or "no memory left"
        if limit and (isinstance(error, MemoryError) or any(words in said for words in _NO_MEMORY)):
            raise ExportError(
                f"reading {args['path_in']} takes more than {limit / 1e9:.1f} GB of memory, which is much for its size: "
                f"{said.splitlines()[0]}",
                hint="if you know where the file comes from, pass trust=True, which lifts the limit",
            ) from error
        raise
    out = {
        f"{number}/{side}/{name}": np.asarray(value)
        for number, pair in enumerate(made.pairs)
        for side, values in zip(("in", "out"), pair, strict=True)
        for name, value in values.items()
    }
    answer = {
        "shapes": {name: list(shape) for name, shape in made.shapes.items()},
        "notes": list(made.notes),
        "steps": made.steps,
        "log": made.log,
    }
    return answer, out


def _limit_memory(path: Path) -> int | None:
    """Have this process fail where it takes far more memory than the file's size explains; in bytes, None for no limit."""
    if sys.platform == "win32":
        return None
    import resource

    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    limit = _BASE_BYTES + _BYTES_PER_BYTE * sum(file.stat().st_size for file in files)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return limit


def _convert(args: dict[str, Any], example: Arrays) -> Converted:
    kind, path, out = args["kind"], args["path_in"], args["path_out"]
    given = {"shapes": args["shapes"], "batch": args["batch"], "example": example}
    if kind == "tflite":
        from qnb.frontends import tflite

        return tflite.convert(path, out, **given)
    if kind in ("torchscript", "exported-program", "torch-pickle"):
        return _torch(args, example)
    from qnb.frontends import keras

    if kind in ("keras", "hdf5") and keras.backend() == "torch":
        return _keras_by_torch(args, example)
    from qnb.frontends import tensorflow

    return tensorflow.convert(kind, path, out, **given, trust=args["trust"])


def _torch(args: dict[str, Any], example: Arrays) -> Converted:
    from qnb.frontends import torch as front
    from qnb.frontends.torchscript import load

    front.require()
    values: Any = None
    if example:
        values = tuple(example.values()) if next(iter(example)).startswith("#") else example
    return _exported(load(args["path_in"], args["kind"], trust=args["trust"]), args, values, args["shapes"])


def _keras_by_torch(args: dict[str, Any], example: Arrays) -> Converted:
    from qnb.frontends import keras

    keras.use("torch")
    model = keras.load(args["path_in"], trust=args["trust"])
    ports = keras.ports(model)
    sizes, values, notes = fixed(ports, args["shapes"], args["batch"], example)
    if not values:
        rng = np.random.default_rng(0)
        values = {
            p.name: rng.standard_normal(sizes[p.name]).astype(p.dtype)
            if np.dtype(p.dtype).kind == "f"
            else rng.integers(0, 2, sizes[p.name]).astype(p.dtype)
            for p in ports
        }
    given = {**args, "input_names": [port.name for port in ports], "output_names": None}
    made = _exported(keras.as_module(model), given, tuple(values.values()), None)
    return Converted(made.path, made.shapes, made.pairs, (*notes, *made.notes), log=made.log)


def _exported(module: Any, args: dict[str, Any], example: Any, shapes: Any) -> Converted:
    from qnb.frontends import torch as front

    made = front.to_onnx(
        module,
        args["path_out"],
        example=example,
        shapes=shapes,
        input_names=args["input_names"],
        output_names=args["output_names"],
    )
    sizes = {name: tuple(value.shape) for name, value in made.pairs[0][0].items()}
    return Converted(Path(args["path_out"]), sizes, made.pairs, made.notes, log=made.log)
