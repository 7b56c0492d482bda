"""The defaults that steps take where an argument is not given.

Knows nothing of the steps. Set from Python (``qnb.settings.soc = "SM8550"``), from the environment (``QNB_SOC``) or
in a notebook (``%config QNN.soc = "SM8550"``).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, fields
from typing import Any

from qnb.errors import BadInput, UnknownName
from qnb.values import BACKENDS


def _environment(name: str, default: str) -> Any:
    return field(default_factory=lambda: os.environ.get(f"QNB_{name}", default))


@dataclass
class Settings:
    """Defaults of this process.

    Attributes
    ----------
    soc : str
        SoC that the NPU steps build for: part, name or id. ``SM8650`` is the Snapdragon 8 Gen 3.
    backend : str
        Backend of `infer`: ``htp``, ``gpu`` or ``cpu``.
    runtime : str
        Version of the runtime, or ``default`` for the installed one.
    timeout_s : float
        Seconds without a sign of progress after which a call to native code counts as hung and its worker is stopped;
        0 waits for ever.
    progress : bool
        Whether long work shows a progress bar.
    ignore : str
        Findings that `debug` leaves out: ids of rules, with commas, each with a pattern for ops or without
        (``QNB-P007,QNB-P002:stem*``); ``none`` leaves out nothing.
    """

    soc: str = _environment("SOC", "SM8650")
    backend: str = _environment("BACKEND", "htp")
    runtime: str = _environment("RUNTIME", "default")
    timeout_s: float = _environment("TIMEOUT_S", "1800")
    ignore: str = _environment("IGNORE", "none")
    progress: bool = field(default_factory=lambda: os.environ.get("QNB_PROGRESS", "1") != "0")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in {f.name for f in fields(self)}:
            raise UnknownName.among("setting", name, (f.name for f in fields(self)))
        if name == "backend" and value not in BACKENDS:
            raise UnknownName.among("backend", value, BACKENDS)
        if name == "timeout_s":
            given = value
            try:
                value = float(value)
            except (TypeError, ValueError):
                value = math.nan
            if not value >= 0:
                raise BadInput(f"timeout_s is {given!r}", hint="give seconds, or 0 to wait for ever")
        if name == "ignore" and not isinstance(value, str):
            value = ",".join(map(str, value)) or "none"
        object.__setattr__(self, name, value)


settings = Settings()
