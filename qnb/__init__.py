"""qnb: the notebook workbench for Qualcomm QNN.

Every step of the workflow is a function here, a cell in a notebook (``%load_ext qnb``, then ``%qnn STEP``) and a command
in a terminal (``qnb STEP``). Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from qnb import errors as errors
    from qnb import socs as socs
    from qnb.artifacts import Context as Context
    from qnb.artifacts import Contexts as Contexts
    from qnb.artifacts import Model as Model
    from qnb.artifacts import Quantized as Quantized
    from qnb.defaults import settings as settings
    from qnb.errors import QnbError as QnbError
    from qnb.results import Result as Result
    from qnb.results import load as load
    from qnb.steps.calibrate import calibrate as calibrate
    from qnb.steps.check import check as check
    from qnb.steps.compare import compare as compare
    from qnb.steps.context import context as context
    from qnb.steps.convert import convert as convert
    from qnb.steps.debug import debug as debug
    from qnb.steps.doctor import doctor as doctor
    from qnb.steps.estimate import estimate as estimate
    from qnb.steps.export import export as export
    from qnb.steps.infer import infer as infer
    from qnb.steps.profile import profile as profile
    from qnb.steps.report import report as report
    from qnb.steps.search import search as search
    from qnb.steps.select import select as select
    from qnb.steps.sensitivity import sensitivity as sensitivity

_WHERE = {
    "Context": "qnb.artifacts",
    "Contexts": "qnb.artifacts",
    "Model": "qnb.artifacts",
    "QnbError": "qnb.errors",
    "Quantized": "qnb.artifacts",
    "Result": "qnb.results",
    "calibrate": "qnb.steps.calibrate",
    "check": "qnb.steps.check",
    "compare": "qnb.steps.compare",
    "context": "qnb.steps.context",
    "convert": "qnb.steps.convert",
    "debug": "qnb.steps.debug",
    "doctor": "qnb.steps.doctor",
    "errors": "",
    "estimate": "qnb.steps.estimate",
    "export": "qnb.steps.export",
    "infer": "qnb.steps.infer",
    "load": "qnb.results",
    "profile": "qnb.steps.profile",
    "report": "qnb.steps.report",
    "search": "qnb.steps.search",
    "select": "qnb.steps.select",
    "sensitivity": "qnb.steps.sensitivity",
    "settings": "qnb.defaults",
    "socs": "",
}

__all__ = [*sorted(_WHERE), "__version__", "load_ipython_extension", "unload_ipython_extension"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'qnb' has no attribute {name!r}")
    where = _WHERE[name]
    value = getattr(importlib.import_module(where), name) if where else importlib.import_module(f"qnb.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})


def load_ipython_extension(ipython: Any) -> None:
    """Register ``%qnn``: see `qnb.magics`."""
    from qnb import magics

    magics.load_ipython_extension(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Take ``%qnn`` away again."""
    from qnb import magics

    magics.unload_ipython_extension(ipython)


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Where the built JupyterLab extension is, for ``jupyter labextension develop``."""
    return [{"src": "labextension", "dest": "qnb"}]
