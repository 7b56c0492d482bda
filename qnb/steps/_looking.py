"""What the runtime and the compiler say of a build, gathered for the rules of the step debug.

Knows nothing of the rules but what they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qnb import cache, frames
from qnb.advice.advise import Ignored
from qnb.artifacts import Build, Context, Model, Quantized
from qnb.defaults import settings
from qnb.errors import BadInput, QnbError
from qnb.runtime import client, logs
from qnb.runtime.locate import Runtime
from qnb.runtime.options import BackendOptions, session_spec
from qnb.socs import Soc, find
from qnb.steps.context import htp_options
from qnb.steps.convert import convert

if TYPE_CHECKING:
    import pandas as pd

_HARDEST = 3


@dataclass
class Look:
    """What the runtime and the files say of a build."""

    name: str
    precision: str
    model: Model | None = None
    quantized: Quantized | None = None
    source: str = ""
    placement: pd.DataFrame | None = None
    graphs: tuple[str, ...] = ()
    compiled: dict[str, Any] | None = None
    soc: Soc | None = None
    vtcm_mb: int | None = None
    notes: tuple[str, ...] = ()
    log: str = ""

    @property
    def placed(self) -> bool:
        """Whether the NPU takes every op."""
        return self.placement is not None and bool((self.placement["htp"] == "yes").all())

    def arguments(
        self, ops: pd.DataFrame | None, tensors: pd.DataFrame | None, left_out: Sequence[Ignored]
    ) -> dict[str, Any]:
        """Arguments of the job."""
        encodings = self.quantized.frame if self.quantized is not None else None
        tables = {
            "placement": self.placement,
            "ops": ops if ops is not None and len(ops) else None,
            "encodings": encodings,
            "tensors": tensors,
        }
        return {
            "paths": {
                "network": str(self.model.path) if self.model else "",
                "quantized": str(self.quantized.path) if self.quantized else "",
                "source": self.source,
            },
            "graphs": list(self.graphs),
            "tables": {name: None if table is None else frames.to_plain(table) for name, table in tables.items()},
            "facts": {
                "precision": self.precision,
                "part": self.soc.part if self.soc else "",
                "vtcm_mb": self.vtcm_mb,
                "takes_fp16": self.soc.fp16 if self.soc else True,
                "notes": list(self.model.notes) if self.model else [],
            },
            "compiled": self.compiled,
            "ignore": [str(i) for i in left_out],
        }


def looked(build: Build, given: object, soc: str | int | None, vtcm_mb: int | None, runtime: Runtime) -> Look:
    """Ask the compiler about a build.

    Raises
    ------
    BadInput
        If a context was compiled for another SoC, or with other memory.
    """
    parent: Model | Quantized = build.parent if isinstance(build, Context) else build
    target = find(soc if soc is not None else settings.soc, qairt=runtime.qairt)
    if isinstance(build, Context):
        if soc is not None and target.soc_model != build.soc.soc_model:
            raise BadInput(f"{build.name} was compiled for {build.soc}, not for {target}", hint="give context.parent")
        target, vtcm_mb = build.soc, vtcm_mb if vtcm_mb is not None else build.vtcm_mb
    quantized = parent if isinstance(parent, Quantized) else None
    placed = convert(parent, soc=target.part, runtime=runtime.version if runtime.version else None)
    precision = build.precision if isinstance(build, Context) else parent.precision
    look = Look(
        name=build.name,
        precision="fp16" if precision == "fp32" and not isinstance(build, Context) else precision,
        model=parent.float_model,
        quantized=quantized,
        source=_onnx_file(given),
        placement=placed.frame,
        soc=target,
        vtcm_mb=vtcm_mb or target.vtcm_mb,
        log=placed.log,
    )
    try:
        options = htp_options(parent, BackendOptions(soc=target, vtcm_mb=vtcm_mb), fp32=False)
    except QnbError as error:
        return noted(look, error.what)
    entry = _graph_of(parent, options, runtime, look)
    look.graphs = tuple(str(entry.folder / name) for name in entry.stamps)
    look.compiled = {"ddr": entry.meta["ddr"], "error": entry.meta["error"], "harder": {}}
    look.log += entry.meta["log"]
    if look.compiled["ddr"].get("spill", 0):
        harder = _graph_of(parent, replace(options, optimization=_HARDEST), runtime, look)
        look.compiled["harder"] = harder.meta["ddr"]
    return look


def noted(look: Look, note: str) -> Look:
    """Add a note."""
    look.notes = (*look.notes, note)
    return look


def _onnx_file(given: object) -> str:
    if isinstance(given, str | Path):
        path = Path(given).expanduser()
        return str(path) if path.is_file() else ""
    return ""


def _graph_of(build: Model | Quantized, options: BackendOptions, runtime: Runtime, look: Look) -> cache.Entry:
    """Have the NPU's graph made and written as JSON; keep it with what the compiler printed, also where it failed."""
    spec = session_spec(str(build.path), "htp", runtime, options, strict=False)
    key = cache.key(
        model=build.digest,
        options={k: v for k, v in spec.provider_options.items() if k != "backend_path"},
        runtime=runtime.version,
        platform=str(runtime.folder.name),
    )

    def fill(folder: Path) -> dict[str, Any]:
        dump = {"dump_json_qnn_graph": "1", "json_qnn_graph_dir": str(folder)}
        asked = session_spec(str(build.path), "htp", runtime, options, strict=False, extra=dump)
        error, log = "", ""
        try:
            log = client.call("dump_graph", {"spec": asked.plain(), "folder": str(folder)}, runtime=runtime).log
        except QnbError as failure:
            error, log = failure.what.splitlines()[-1].removeprefix("  ").strip(), failure.log
        for path in folder.iterdir():
            if path.suffix != ".json" or "tensor_log" in path.name:
                path.unlink()
        return {"ddr": logs.ddr_traffic(log), "error": error, "log": log}

    return cache.lookup("npu-graphs", key) or cache.store("npu-graphs", key, fill)
