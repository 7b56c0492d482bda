"""Where a result comes from: its recipe, and the versions of what made it.

Knows nothing of particular steps.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from qnb import __version__

PACKAGES = ("qnb", "onnxruntime", "onnxruntime-qnn", "onnx", "onnxsim", "numpy", "pandas", "torch", "onnxscript")


@cache
def package_version(name: str) -> str | None:
    """Version of an installed package, or None; the package is not imported."""
    if name == "qnb":  # also where it runs from its source tree
        return __version__
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result."""
    found = {name: package_version(name) for name in PACKAGES}
    return {"python": platform.python_version()} | {n: v for n, v in found.items() if v}


@dataclass(frozen=True)
class Recipe:
    """What was asked of a step, and with what it was done.

    Attributes
    ----------
    step : str
        Name of the step.
    arguments : mapping
        Its arguments as plain values; models and data by name and digest.
    versions : mapping of str to str
        Python, the packages, and the QAIRT version where a runtime took part.
    seconds : float
        Wall time of the step.
    created : str
        ISO time stamp in UTC.
    """

    step: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=versions)
    seconds: float = 0.0
    created: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
