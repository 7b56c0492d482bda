"""What the compiler expects a build to cost on a device: its own performance estimate, from the cache or a worker.

Knows nothing of what is made of it: seconds on a phone, advice, a report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from qnb import cache
from qnb.artifacts import Build, Context, Model, Quantized
from qnb.errors import BadInput
from qnb.runtime import client
from qnb.runtime.locate import Runtime, find_runtime
from qnb.runtime.options import BackendOptions, session_spec
from qnb.runtime.profiles import CompilerEstimate
from qnb.socs import find
from qnb.steps.context import htp_options

CostModel = Literal[52, 72]
COST_MODELS: tuple[CostModel, ...] = (52, 72)
"""Ids that the compiler has a cost model of, one for each Hexagon arch: SA8775P (v73), SA8797 (v81)."""

_EDGE = ("QuantizeLinear", "DequantizeLinear")
_FIELDS = tuple(CompilerEstimate.__dataclass_fields__)


@dataclass(frozen=True)
class Cost:
    """The compiler's estimate of a build, and the compilation that gave it.

    Attributes
    ----------
    estimate : CompilerEstimate
        Cycles and DDR traffic of one inference.
    soc_model : int
        The id that it is for.
    precision : str
        What is computed in: ``w8a8``, ``fp16``.
    compile_s : float
        Seconds of the compilation, on this host.
    binary_bytes : int
        Size of the context binary.
    ops : int
        Nodes of the graph, after ONNX Runtime's rewriting.
    cpu_ops : tuple of (str, str)
        Name and op type of each node that the NPU did not take; the estimate is without them, and without the quantizing
        of inputs and outputs.
    stages_ms : mapping of str to float
        The compiler's stages.
    notes : tuple of str
        What a reader must know.
    cached : bool
        Whether it was known already.
    """

    estimate: CompilerEstimate
    soc_model: int
    precision: str
    compile_s: float
    binary_bytes: int
    ops: int
    cpu_ops: tuple[tuple[str, str], ...]
    stages_ms: Mapping[str, float]
    notes: tuple[str, ...]
    cached: bool


def compiler_cost(
    build: Build,
    soc_model: CostModel = 52,
    *,
    runtime: Runtime | str | None = None,
) -> Cost:
    """Ask the compiler what a build costs; a question that was asked before is answered from the cache.

    Parameters
    ----------
    build : Model, Quantized or Context
        Of a `Context` the build that it was compiled from. A float model is compiled in fp16.
    soc_model : {52, 72}
        Id whose cost model is asked: Hexagon v73 or v81.
    runtime : Runtime or str, optional
        The runtime, or its version.

    Raises
    ------
    BadInput
        If there is no cost model of that id.
    PlacementError
        If the NPU takes no op at all.
    CompileError
        If the compiler fails.
    """
    if soc_model not in COST_MODELS:
        raise BadInput(
            f"the compiler has no cost model of soc_model {soc_model!r}",
            hint="take 52 (SA8775P, Hexagon v73) or 72 (SA8797, Hexagon v81)",
        )
    found = find_runtime(runtime)
    parent: Model | Quantized = build.parent if isinstance(build, Context) else build
    options = htp_options(parent, BackendOptions(soc=find(soc_model, qairt=found.qairt)), fp32=False)
    precision = parent.precision if isinstance(parent, Quantized) else "fp16"
    # what is measured on devices takes and gives integers: the quantizing at the edge is not the NPU's
    extra = {"offload_graph_io_quantization": "1"} if isinstance(parent, Quantized) else {}
    spec = session_spec(str(parent.path), "htp", found, replace(options, optimization=3), extra=extra, strict=False)
    entry_key = cache.key(
        model=parent.digest,
        options={k: v for k, v in spec.provider_options.items() if k != "backend_path"},
        runtime=found.version,
        platform=found.folder.name,
    )
    entry = cache.lookup("costs", entry_key)
    cached = entry is not None

    def ask(folder: Path) -> dict[str, Any]:
        arguments = {"spec": spec.plain(), "csv": str(folder / "profile.csv")}
        with client.borrow(found) as worker:
            return dict(worker.call("estimate_cost", arguments).values)

    values = dict((entry or cache.store("costs", entry_key, ask)).meta)
    values["missing_names"] = tuple(values["missing_names"])
    return Cost(
        estimate=CompilerEstimate(**{name: values[name] for name in _FIELDS}),
        soc_model=soc_model,
        precision=precision,
        compile_s=values["compile_s"],
        binary_bytes=values["binary_bytes"],
        ops=values["ops"],
        cpu_ops=tuple((name, op) for name, op in values["cpu_ops"] if op not in _EDGE),
        stages_ms=values["stages_ms"],
        notes=tuple(values["notes"]),
        cached=cached,
    )
