"""The tables of a profile that are about the NPU: its ops, and what the compiler planned for them.

Knows nothing of the other backends, and of how often anything was run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb import cache
from qnb.artifacts import Build, Context, Quantized
from qnb.errors import ArtifactError
from qnb.runtime import client
from qnb.runtime.locate import Runtime
from qnb.steps._deploy import Deployment

if TYPE_CHECKING:
    import pandas as pd

_RUNS, _WARMUP = 3, 1
_COLUMNS = [
    "op",
    "op_type",
    "onnx_ops",
    "cycles",
    "time_ms",
    "percent",
    "macs",
    "bytes",
    "intensity_macs_per_byte",
    "precision",
    "source",
]
ON_ACCELERATOR = "(unattributed: accelerator)"
ON_HOST = "(unattributed: runtime and host)"
UNATTRIBUTED = (ON_ACCELERATOR, ON_HOST)


def profile_ops(
    deployed: Deployment, sample: Mapping[str, np.ndarray], runtime: Runtime
) -> tuple[pd.DataFrame, list[str], str]:
    """Profile each op on the NPU; give the table, what its reader must know, and the log."""
    with cache.scratch() as folder:
        path = str(folder / "profile.csv")
        options = dict(deployed.spec.provider_options) | {"profiling_level": "detailed", "profiling_file_path": path}
        spec = replace(deployed.spec, provider_options=options)
        arguments: dict[str, Any] = {"spec": spec.plain(), "csv": path, "runs": _RUNS, "warmup": _WARMUP}
        try:
            arguments |= _facts(deployed)
            unknown = []
        except ArtifactError as error:
            unknown = [f"ops on htp: what is behind them is not known, since {error.what}"]
        answer = client.call("profile_ops", arguments, sample, runtime=runtime)
    frame = _frame(deployed, answer.values)
    return frame, [*answer.values["notes"], *(unknown or _notes(frame))], answer.log


def _facts(deployed: Deployment) -> dict[str, Any]:
    """Give the files of what was compiled and of its float model, and how wide the tensors are."""
    build: Build = deployed.build
    parent = build.parent if isinstance(build, Context) else build
    found: dict[str, Any] = {
        "model": str(parent.float_model.path),
        "build": str(parent.path),
        "bits": {},
        "biases": [],
        "float_bits": 32 if deployed.precision == "fp32" else 16,
    }
    if isinstance(parent, Quantized):
        if "float" in parent.files:  # the graph whose tensors were quantized
            found["model"] = str(cache.require(parent.files["float"], f"{parent.kind} {parent.name}"))
        table = parent.frame
        found["bits"] = dict(zip(map(str, table["tensor"]), map(int, table["bits"]), strict=True))
        found["biases"] = [str(t) for t in table.loc[table["kind"] == "bias", "tensor"]]
    return found


def _frame(deployed: Deployment, values: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of the ops; an op's time is its share of the accelerator's, and what is left is said, not spread."""
    import pandas as pd

    if not values["ops"]:
        return pd.DataFrame(columns=_COLUMNS)
    nan = float("nan")
    ms_per_cycle = values["accelerator_ms"] / values["cycles"] if values["cycles"] else 0.0
    rows = [
        {
            "op": entry["op"],
            "op_type": entry.get("op_type", ""),
            "onnx_ops": ", ".join(entry.get("nodes", ())),
            "cycles": entry["cycles"],
            "time_ms": entry["cycles"] * ms_per_cycle,
            "macs": entry.get("macs", nan),
            "bytes": entry.get("nbytes", nan),
            "precision": entry.get("precision", ""),
        }
        for entry in values["ops"]
    ]
    left = {"op": ON_ACCELERATOR, "cycles": values["left"], "time_ms": values["left"] * ms_per_cycle}
    rows.append(left)
    rows.append({"op": ON_HOST, "cycles": nan, "time_ms": values["host_ms"]})
    frame = pd.DataFrame(rows)
    for column in ("op_type", "onnx_ops", "precision"):
        frame[column] = frame[column].fillna("")
    total = frame["time_ms"].sum()
    frame["percent"] = 100 * frame["time_ms"] / total if total else nan
    frame["intensity_macs_per_byte"] = (frame["macs"] / frame["bytes"]).where(frame["bytes"] > 0)
    frame["source"] = deployed.source
    return frame[_COLUMNS]


def _notes(frame: pd.DataFrame) -> list[str]:
    """Say which share of the cycles is in ops that no ONNX op is behind."""
    ops = frame[~frame["op"].isin(UNATTRIBUTED)]
    total = ops["cycles"].sum()
    if not total:
        return []
    put_in = ops[(ops["onnx_ops"] == "") & (ops["cycles"] > 0)]
    if not len(put_in):
        return []
    share = 100 * put_in["cycles"].sum() / total
    kinds = ", ".join(dict.fromkeys(kind or "unnamed" for kind in put_in.sort_values("cycles")["op_type"][::-1]))
    return [
        f"ops on htp: {share:.1f} % of the cycles are in ops that the runtime put in, behind which is no ONNX op: {kinds}"
    ]


def stages_frame(context: Context) -> pd.DataFrame:
    """Give the compiler's stages as a table; empty where the runtime does not report them."""
    import pandas as pd

    total = sum(context.stages.values())
    rows = [
        {"stage": stage, "time_ms": ms, "percent": 100 * ms / total if total else float("nan"), "source": "host"}
        for stage, ms in context.stages.items()
    ]
    return pd.DataFrame(rows, columns=["stage", "time_ms", "percent", "source"])


_TRAFFIC = {
    "read": "DDR read, all",
    "write": "DDR written, all",
    "spill": "DDR written: intermediate tensors spilled from VTCM",
    "fill": "DDR read: intermediate tensors filled back into VTCM",
}


def traffic_frame(context: Context) -> pd.DataFrame:
    """Give what one inference moves through DDR, as the compiler plans it, and the VTCM that it may use."""
    import pandas as pd

    rows = [
        {"what": text, "size_kb": context.ddr[kind] / 1024, "source": "estimate"}
        for kind, text in _TRAFFIC.items()
        if kind in context.ddr
    ]
    if context.vtcm_mb is not None:
        rows.append({"what": "VTCM that the graph may use", "size_kb": context.vtcm_mb * 1024.0, "source": "published"})
    return pd.DataFrame(rows, columns=["what", "size_kb", "source"])
