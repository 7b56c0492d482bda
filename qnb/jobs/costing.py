"""The job that asks the compiler what a model costs on the device."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from qnb.errors import CompileError, InferenceError, PlacementError
from qnb.files import native_writes
from qnb.runtime.logs import original_name
from qnb.runtime.profiles import RuntimeProfile, read_profile
from qnb.runtime.session import QNN, Loaded, create
from qnb.runtime.worker import JobContext, Reply

_OPTIONS = {"profiling_level": "detailed", "htp_graph_finalization_optimization_mode": "3"}
"""With these the compiler writes its performance estimate, for the ids that it has a cost model of."""


def estimate_cost(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Compile for an id that the compiler has a cost model of, and give its estimate; nothing is run.

    args: ``spec`` (`SessionSpec.plain` for htp, with soc_model 52 or 72; not strict where ops may stay on the CPU) and
    ``csv``, where the compiler's profile is kept. Answers with the fields of `CompilerEstimate`, and ``compile_s``,
    ``binary_bytes``, ``ops`` (how many nodes there are after ONNX Runtime's rewriting), ``cpu_ops`` (``[name, op type]``
    of each that stayed on the CPU), ``stages_ms`` and ``notes``.
    """
    spec, csv = args["spec"], Path(args["csv"])
    model = Path(spec["model"])
    csv.unlink(missing_ok=True)  # the runtime would append to it
    with tempfile.TemporaryDirectory(dir=csv.parent) as made:
        wrapper = Path(made) / "context.onnx"
        spec["config"] = {
            **spec["config"],
            "ep.context_enable": "1",
            "ep.context_file_path": str(wrapper),
            "ep.context_embed_mode": "0",
        }
        spec["provider_options"] = {**spec["provider_options"], **_OPTIONS, "profiling_file_path": str(csv)}
        with native_writes(made, 2 * model.stat().st_size):
            loaded = _compiled(spec, model)
            binary_bytes = sum(p.stat().st_size for p in Path(made).glob("*.bin"))
        on_cpu = [[original_name(name), op] for ep, name, op in loaded.assignment if ep != QNN]
        nodes, compile_s = len(loaded.assignment), loaded.load_s
        del loaded  # the runtime completes the file when the session ends
    profile = _written(csv, model, nodes, len(on_cpu))
    found = profile.estimate()
    if found is None:
        raise CompileError(
            f"the compiler gives no performance estimate of {model.name} for soc_model "
            f"{spec['provider_options'].get('soc_model', '(none)')}",
            hint="it has a cost model of few ids: take 52 (v73) or 72 (v81), and scale to the part that you mean",
        )
    return {
        **dataclasses.asdict(found),
        "missing_names": list(found.missing_names),
        "compile_s": compile_s,
        "binary_bytes": binary_bytes,
        "ops": nodes,
        "cpu_ops": on_cpu,
        "stages_ms": profile.stages(),
        "notes": list(profile.notes),
    }, {}


def _compiled(spec: dict[str, Any], model: Path) -> Loaded:
    try:
        return create(spec)
    except InferenceError as error:
        raise CompileError(error.what.replace("could not load", "could not compile"), hint=error.hint) from error


def _written(csv: Path, model: Path, nodes: int, on_cpu: int) -> RuntimeProfile:
    if not csv.exists() and on_cpu == nodes:
        raise PlacementError(
            f"no node of {model.name} can be compiled for the NPU, so there is no cost to estimate",
            hint="qnb.convert shows op by op what the NPU takes",
        )
    return read_profile(csv)
