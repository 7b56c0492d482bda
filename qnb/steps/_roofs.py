"""The ceilings of a profile's roofline: the highest rates that were seen on this very machine, and what reached them.

No peak rate of an NPU is published that qnb could ship. So two ops are run that come as near to it as is cheap (see
`qnb.jobs.roofs`), and the model's own ops count as well: whichever went fastest is the ceiling, and is named.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb import cache
from qnb.errors import QnbError
from qnb.runtime import client
from qnb.runtime.locate import Runtime
from qnb.runtime.options import BackendOptions, session_spec
from qnb.steps._deploy import Deployment
from qnb.steps._op_table import UNATTRIBUTED

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["roofs_frame"]

NAME = "highest seen here"
_COLUMNS = [
    "name", "macs_per_cycle", "bytes_per_cycle", "gmacs_per_s", "gb_per_s", "compute_by", "memory_by", "precision", "source",
]  # fmt: skip
_RUNS, _WARMUP = 5, 1
# A simulated NPU is fastest on few pixels, and slow in all; a real one needs enough work to fill it.
_SHAPES = {"simulator": ((64, 384), 14), "device": ((256, 256), 56)}
_RATES = {"macs_per_cycle": "a 1x1 convolution run for this", "bytes_per_cycle": "an addition run for this"}
_BY = {"macs_per_cycle": "compute_by", "bytes_per_cycle": "memory_by"}


def roofs_frame(deployed: Deployment, ops: pd.DataFrame, runtime: Runtime) -> tuple[pd.DataFrame, list[str]]:
    """Give the one row of ceilings for a table of ops, and what its reader must know.

    Where the two ops can't be run, for instance since the build mixes precisions, the fastest ops of the table remain.
    """
    import pandas as pd

    try:
        best: dict[str, tuple[float, str]] = {
            rate: (value, _RATES[rate]) for rate, value in _measured(deployed, runtime).items()
        }
        notes: list[str] = []
    except QnbError as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        best, notes = (
            {},
            [f"ceilings of the roofline: of this model's own ops alone, since {error.what.splitlines()[0]}"],
        )
    inside = ops[~ops["op"].isin(UNATTRIBUTED) & (ops["macs"] > 0) & (ops["bytes"] > 0) & (ops["cycles"] > 0)]
    for rate, amount in (("macs_per_cycle", "macs"), ("bytes_per_cycle", "bytes")):
        if len(inside):
            reached = (inside[amount] / inside["cycles"]).to_numpy(float)
            place = int(np.argmax(reached))
            if reached[place] > best.get(rate, (0.0, ""))[0]:
                best[rate] = (float(reached[place]), str(inside["op"].iloc[place]))
    if not best:
        return pd.DataFrame(columns=_COLUMNS), notes
    timed = ops[(ops["cycles"] > 0) & (ops["time_ms"] > 0)]
    cycles_per_s = 1e3 * float(timed["cycles"].sum() / timed["time_ms"].sum()) if len(timed) else float("nan")
    nothing = (float("nan"), "")
    row: dict[str, Any] = {"name": NAME, "precision": deployed.precision, "source": deployed.source}
    for rate, by in _BY.items():
        row[rate], row[by] = best.get(rate, nothing)
    row["gmacs_per_s"] = row["macs_per_cycle"] * cycles_per_s / 1e9
    row["gb_per_s"] = row["bytes_per_cycle"] * cycles_per_s / 1e9
    return pd.DataFrame([row])[_COLUMNS], notes


def _measured(deployed: Deployment, runtime: Runtime) -> dict[str, float]:
    """Run the two ops as the build runs, or take from the cache what they reached."""
    bits = re.fullmatch(r"w([48])a(8|16)", deployed.precision)
    if not bits and deployed.precision not in ("fp16", "fp32"):
        return {}
    weight_bits, activation_bits = map(int, bits.groups()) if bits else (0, 0)
    options = BackendOptions(soc=deployed.soc, fp16=deployed.precision == "fp16")
    plain = session_spec("", "htp", runtime, options)
    provider = dict(plain.provider_options) | dict(deployed.spec.provider_options)
    channels, size = _SHAPES["device" if deployed.source == "device" else "simulator"]
    arguments = {
        "weight_bits": weight_bits, "activation_bits": activation_bits, "channels": list(channels), "size": size,
        "runs": _RUNS, "warmup": _WARMUP,
    }  # fmt: skip
    entry_key = cache.key(
        arguments=arguments,
        options={k: v for k, v in provider.items() if k != "backend_path"},
        runtime=runtime.version,
        platform=runtime.folder.name,
        source=deployed.source,
    )

    def ask(_: Path) -> dict[str, Any]:
        with cache.scratch() as folder:
            csv = str(folder / "profile.csv")
            profiled = provider | {"profiling_level": "detailed", "profiling_file_path": csv}
            spec = replace(plain, model=str(folder / "roofs.onnx"), provider_options=profiled)
            asked = {**arguments, "spec": spec.plain(), "csv": csv}
            return dict(client.call("measure_roofs", asked, runtime=runtime).values)

    entry = cache.lookup("roofs", entry_key) or cache.store("roofs", entry_key, ask)
    return {rate: float(entry.meta[rate]) for rate in _RATES if rate in entry.meta}
