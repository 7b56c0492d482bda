"""Jobs that make files: context binaries, QNN graphs, fp16 models; and that ask each backend what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qnb.errors import CompileError, ConversionError, InferenceError
from qnb.files import native_writes, replacing
from qnb.runtime.session import create
from qnb.runtime.worker import JobContext, Reply


def compile_context(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Compile a context binary; args: spec, folder. Answers with the file names and the wall time."""
    folder = Path(args["folder"])
    wrapper = folder / "context.onnx"
    spec = args["spec"]
    spec["config"] = {
        **spec["config"],
        "ep.context_enable": "1",
        "ep.context_file_path": str(wrapper),
        "ep.context_embed_mode": "0",
    }
    with native_writes(folder, _twice_the_size_of(spec["model"])):
        try:
            loaded = create(spec)
        except InferenceError as error:
            raise CompileError(error.what.replace("could not load", "could not compile"), hint=error.hint) from error
        binaries = sorted(folder.glob("*.bin"))
        if not wrapper.exists() or len(binaries) != 1:
            raise CompileError(
                "the compiler ended without an error but wrote no context binary",
                hint="see %qnn log; an unsupported option is the usual cause",
            )
    return {"wrapper": wrapper.name, "binary": binaries[0].name, "compile_ms": loaded.load_s * 1e3}, {}


def dump_graph(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Write the QNN graph as DLC and JSON; args: spec with the dump options, folder. Answers with the node assignment."""
    with native_writes(args["folder"], _twice_the_size_of(args["spec"]["model"])):
        try:
            loaded = create(args["spec"])
        except InferenceError as error:
            raise ConversionError(error.what.replace("could not load", "could not convert"), hint=error.hint) from error
    return {"assignment": [list(row) for row in loaded.assignment]}, {}


def _twice_the_size_of(model: str) -> int:
    """Room that a compiled or converted model may need, roughly: weights unpacked, and the graph."""
    return 2 * Path(model).stat().st_size


def place(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Ask a backend which nodes it takes; args: spec (verbose, not strict). The reasons are in the log."""
    return {"assignment": [list(row) for row in create(args["spec"]).assignment]}, {}


def cast_fp16(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Cast a float model to fp16 inside, float at its edge; args: model, out."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    cast = convert_float_to_float16(onnx.load(args["model"]), keep_io_types=True, disable_shape_infer=True)
    with replacing(args["out"]) as temporary:
        onnx.save(cast, str(temporary))
    return {}, {}
