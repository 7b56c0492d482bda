"""The plain words and values that every layer shares.

Holds no behaviour beyond describing themselves; knows nothing of files, runtimes or notebooks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Backend = Literal["htp", "gpu", "cpu"]
BACKENDS: tuple[Backend, ...] = ("htp", "gpu", "cpu")

Precision = Literal["w8a8", "w8a16", "w4a8", "w4a16", "w16a16"]
RangeMethod = Literal["min-max", "percentile", "mse", "entropy", "auto"]
Effort = Literal["fast", "balanced", "best"]
Rounding = Literal["nearest", "seqmse", "adaround", "gptq"]

Source = Literal["device", "simulator", "host", "reference", "published", "transferred", "estimate"]
"""Where a figure comes from: see docs/sources.md."""


@dataclass(frozen=True)
class Argument:
    """Marks a step's parameter whose value is an object, so that its faces can resolve and complete it.

    Attributes
    ----------
    kind : str
        What it stands for in help texts: ``"model"``, ``"data"``, ``"overrides"`` or ``"config"``.
    accepts : tuple of str
        Names of the classes that fit, for completion of notebook variables.
    """

    kind: str
    accepts: tuple[str, ...] = ()


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and fixed shape of a model's input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{'x'.join(map(str, self.shape))}]"


def join_reasons(reasons: Mapping[str, str]) -> str:
    """Write what each backend says of an op in one cell; what several say alike stands once: ``htp, cpu: …; gpu: …``."""
    backends: dict[str, list[str]] = {}
    for backend, reason in reasons.items():
        backends.setdefault(reason, []).append(backend)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in backends.items())


def reason_of(backend: Backend, joined: str) -> str:
    """Read what a backend says off what `join_reasons` wrote; nothing if it says nothing."""
    for part in re.split(rf"(?:^|; )(?=(?:{'|'.join(BACKENDS)})[,:] )", joined):
        names, colon, reason = part.partition(": ")
        if colon and backend in names.split(", "):
            return reason
    return ""
