"""The modules of tools/latency, which are no package."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from tests.processes import ROOT


def tool(name: str) -> ModuleType:
    folder = str(ROOT / "tools" / "latency")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def dataset(precision: str) -> Any:
    fit = tool("fit")
    return tool("dataset").load(precision, fit.MISSING_OPS, fit.PATHS)
