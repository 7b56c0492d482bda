"""Which QNN runtimes and backends this machine has.

Imports none of them: what needs native code to be known is asked in a worker. Knows nothing of models.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qnb import cache as qnb_cache
from qnb.defaults import settings
from qnb.errors import RuntimeUnavailable, UnknownName
from qnb.values import Backend, Source

_LIBRARIES = {
    "htp": "QnnHtp",
    "gpu": "QnnGpu",
    "cpu": "QnnCpu",
    "ir": "QnnIr",
    "saver": "QnnSaver",
    "system": "QnnSystem",
    "ep": "onnxruntime_providers_qnn",
}


@dataclass(frozen=True)
class Runtime:
    """One ``onnxruntime-qnn`` wheel with its ONNX Runtime.

    Attributes
    ----------
    version : str
        Version of the wheel.
    qairt : str
        Version of Qualcomm's AI runtime inside, such as ``2.47``.
    onnxruntime : str
        Version of the ONNX Runtime beside it.
    folder : Path
        Folder of its libraries.
    site : Path or None
        Folder that a worker puts in front of its import path; None for the environment's own.
    """

    version: str
    qairt: str
    onnxruntime: str
    folder: Path
    site: Path | None = None

    def library(self, name: str) -> Path | None:
        """Path of a backend's library (``htp gpu cpu ir saver system ep``), or None where the wheel has none."""
        stem = _LIBRARIES[name]
        path = self.folder / (f"{stem}.dll" if sys.platform == "win32" else f"lib{stem}.so")
        return path if path.exists() else None


@cache
def snapdragon_host() -> bool:
    """Whether this very machine is a Snapdragon, so that the NPU and GPU backends are devices and not simulators."""
    if platform.machine().lower() not in ("aarch64", "arm64") or sys.platform == "darwin":
        return False
    if sys.platform == "win32":
        return "qualcomm" in platform.processor().lower()
    for path in ("/sys/devices/soc0/family", "/proc/device-tree/compatible"):
        try:
            text = Path(path).read_bytes().decode(errors="replace").lower()
        except OSError:
            continue
        if "snapdragon" in text or "qcom" in text:
            return True
    return False


def source_of(backend: Backend) -> Source:
    """Where a figure measured on a backend of this machine comes from."""
    if snapdragon_host():
        return "device"
    sources: dict[Backend, Source] = {"htp": "simulator", "gpu": "reference", "cpu": "host"}
    return sources[backend]


def _qairt_of(folder: Path) -> str:
    try:
        text = (folder / "build_and_package_info.py").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    match = re.search(r"qnn_version\s*=\s*['\"](\d+\.\d+)", text)
    return match[1] if match else "unknown"


def _from_site(site: Path | None) -> Runtime | None:
    search = [str(site)] if site else None
    found = {d.metadata["Name"].lower(): d.version for d in _distributions(search)}
    if site:
        folder: Path | None = site / "onnxruntime_qnn"
    else:
        spec = importlib.util.find_spec("onnxruntime_qnn")
        folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None or not folder.is_dir() or not {"onnxruntime", "onnxruntime-qnn"} <= set(found):
        return None
    return Runtime(found["onnxruntime-qnn"], _qairt_of(folder), found["onnxruntime"], folder, site)


def _distributions(search: Sequence[str] | None) -> list[importlib.metadata.Distribution]:
    if search:
        return [d for d in importlib.metadata.distributions(path=list(search)) if d.metadata["Name"]]
    found = []
    for name in ("onnxruntime", "onnxruntime-qnn"):
        try:
            found.append(importlib.metadata.distribution(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def runtimes_folder() -> Path:
    """Where ``qnb runtime add`` puts further runtimes."""
    return qnb_cache.root() / "runtimes"


@cache
def _installed() -> Runtime | None:
    return _from_site(None)


def runtimes() -> list[Runtime]:
    """All runtimes of this machine: the environment's own first, then those that were added."""
    base = runtimes_folder()
    # One with a dot in front is being installed, or was when its process was killed.
    folders = [p for p in sorted(base.iterdir()) if p.is_dir() and p.name[0] != "."] if base.is_dir() else []
    added = [_from_site(p) for p in folders]
    return [r for r in (_installed(), *added) if r is not None]


def find_runtime(runtime: Runtime | str | None = None) -> Runtime:
    """Find a runtime by version.

    Parameters
    ----------
    runtime : Runtime or str, optional
        A version such as ``"2.3.0"``, or ``"default"`` for the environment's own; the default is
        ``settings.runtime``.

    Raises
    ------
    RuntimeUnavailable
        If this machine has none.
    UnknownName
        If that version is not there.
    """
    if isinstance(runtime, Runtime):
        return runtime
    wanted = runtime or settings.runtime
    if wanted == "default" and (own := _installed()):
        return own
    known = runtimes()
    if not known:
        raise RuntimeUnavailable(
            f"no QNN runtime is installed for {sys.platform} {platform.machine()}",
            hint="pip install onnxruntime-qnn==2.3.0 onnxruntime==1.24.4 (Linux x86-64 and aarch64, Windows; there is no "
            "wheel for macOS: saved results still open)",
        )
    if wanted == "default":
        return known[0]
    for candidate in known:
        if candidate.version == wanted:
            return candidate
    raise UnknownName.among("runtime", wanted, (r.version for r in known), f"qnb runtime add {wanted} installs it")


def library(runtime: Runtime, backend: str) -> Path:
    """Path of a backend's library.

    Raises
    ------
    RuntimeUnavailable
        If the wheel does not carry it.
    """
    path = runtime.library(backend)
    if path is None:
        hint = "runtime 2.3.0 is the last with the CPU backend" if backend == "cpu" else "reinstall onnxruntime-qnn"
        raise RuntimeUnavailable(f"runtime {runtime.version} has no {backend} backend on this platform", hint=hint)
    return path
