"""The defaults that steps take where an argument is not given.

Knows nothing of the steps. Set from Python (``qnb.settings.soc = "SM8550"``), from the environment (``QNB_SOC``) or
in a notebook (``%config QNN.soc = "SM8550"``); where the SoC is set by none of these, it is the target that the user chose
last, which a small file keeps for all notebooks.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from qnb import state
from qnb.errors import BadInput, QnbError, UnknownName
from qnb.files import write_text
from qnb.values import BACKENDS

DEFAULT_SOC = "SM8650"
_MAX_TARGET_FILE = 4096


def _environment(name: str, default: str) -> Any:
    return field(default_factory=lambda: os.environ.get(f"QNB_{name}", default))


@dataclass
class Settings:
    """Defaults of this process.

    Attributes
    ----------
    soc : str
        SoC that the NPU steps build for: part, name or id. If nothing else was said, the user's target (`target`), or
        ``SM8650``, the Snapdragon 8 Gen 3.
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

    soc: str = _environment("SOC", "")
    backend: str = _environment("BACKEND", "htp")
    runtime: str = _environment("RUNTIME", "default")
    timeout_s: float = _environment("TIMEOUT_S", "1800")
    ignore: str = _environment("IGNORE", "none")
    progress: bool = field(default_factory=lambda: os.environ.get("QNB_PROGRESS", "1") != "0")

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        return (target()[0] or DEFAULT_SOC) if name == "soc" and not value else value

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


def _target_file() -> Path:
    return state.root() / "target.json"


def target() -> tuple[str, str]:
    """Give the SoC that the user chose last for all notebooks, and why it is not followed if that is so.

    Returns
    -------
    tuple of str
        Its part, ``""`` if none was chosen or the file can't be used; and the reason, ``""`` if all is well.
    """
    path = _target_file()
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_TARGET_FILE))
        named = content["soc"]
        if not isinstance(named, str):
            raise TypeError
    except FileNotFoundError:
        return "", ""
    except OSError as error:
        return "", f"{path} can't be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", f"{path} is damaged"
    from qnb.socs import find

    try:
        return find(named).part, ""
    except QnbError as error:
        return "", f"{path}: {error.what}"


def set_target(soc: str) -> str:
    """Keep an SoC as the target of all notebooks in which nothing else is said; give its part.

    Raises
    ------
    UnknownName, BadInput
        If qnb can't build for it.
    StorageError
        If it can't be written.
    """
    from qnb.socs import find

    part = find(soc).part
    write_text(_target_file(), json.dumps({"soc": part}) + "\n")
    return part


settings = Settings()
