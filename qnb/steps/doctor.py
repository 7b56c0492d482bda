"""Step ``doctor``: what this machine has of runtimes, backends and tools, and what to do about the rest."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qnb import cache
from qnb.defaults import settings, target
from qnb.errors import QnbError
from qnb.progress import progress
from qnb.provenance import package_version
from qnb.results import Result
from qnb.runtime import client
from qnb.runtime.locate import Runtime, runtimes, snapdragon_host, source_of
from qnb.runtime.options import BackendOptions, session_spec
from qnb.socs import find
from qnb.steps._common import StepTimer
from qnb.values import BACKENDS, Backend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = ["component", "name", "state", "version", "detail", "remedy"]
_OPTIONAL = {
    "torch": ("exports PyTorch modules", "pip install 'qnb[torch]'"),
    "onnxscript": ("exports PyTorch modules", "pip install 'qnb[torch]'"),
    "onnxsim": ("simplifies graphs; without it that step is skipped", "pip install onnxsim"),
    "jupyterlab": ("the notebook itself", "pip install 'qnb[lab]'"),
}
_TOOLS = (
    "qnn-onnx-converter",
    "qnn-model-lib-generator",
    "qnn-context-binary-generator",
    "qnn-net-run",
    "qairt-converter",
)
_PROBE_TIMEOUT_S = 60.0
_TOOL_TIMEOUT_S = 20.0


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Doctor(Result):
    """What is there, a row each: ``ok``, ``limited``, ``missing`` or ``failed``, with the reason and the remedy."""

    kind: ClassVar[str] = "doctor"

    @property
    def title(self) -> str:
        """How much is well."""
        counts = self.frame["state"].value_counts()
        return "doctor: " + ", ".join(f"{count} {state}" for state, count in counts.items())

    def plot(self) -> Figure:
        """Draw the state of each row."""
        from qnb.display import charts

        return charts.doctor(self.frame)


def doctor(*, runtime: str | None = None) -> Doctor:
    """See which runtimes, backends and tools this machine has, and what to do about the rest.

    Backends are really started, each on a one-op model in a worker process.

    Parameters
    ----------
    runtime : str, optional
        Look at this runtime only.

    Returns
    -------
    Doctor
        Table: a row for each runtime, backend, tool and package, and for the cache; with state, reason and remedy.

    Examples
    --------
    >>> qnb.doctor()
    """
    import pandas as pd

    timer = StepTimer("doctor")
    logs: list[str] = []
    with progress("doctor") as bar:
        rows = []
        for row in (*_host(), _target(), *_runtimes(runtime, logs), *_sdk(), *_packages(), *_cache()):
            rows.append(row)
            bar.update(len(rows), text=f"{row[0]} {row[1]}")
    return Doctor(frame=pd.DataFrame(rows, columns=_COLUMNS), recipe=timer.recipe(), log="\n".join(logs))


_Row = tuple[str, str, str, str, str, str]


def _host() -> Iterator[_Row]:
    what = "a Snapdragon: NPU and GPU are the real ones" if snapdragon_host() else "no Snapdragon: the NPU is simulated"
    yield ("host", platform.machine(), "ok", platform.platform(terse=True), what, "")
    yield ("host", "python", "ok", platform.python_version(), sys.executable, "")
    if sys.platform == "linux":
        yield _libatomic()


def _target() -> _Row:
    """The SoC that steps build for where none is named, and where that comes from."""
    chosen, why = target()
    if why:
        return (
            "target", settings.soc, "failed", "", f"the target that was chosen is not followed: {why}",
            'choose it again in JupyterLab, or set qnb.settings.soc = "SM8650"',
        )  # fmt: skip
    followed = bool(chosen) and settings.soc == chosen
    return (
        "target",
        settings.soc,
        "ok",
        "",
        "chosen for all notebooks" if followed else "of this process's settings",
        "",
    )


def _libatomic() -> _Row:
    """QNN's system library is linked with libatomic, which small images lack; without it the NPU takes no node."""
    try:
        ctypes.CDLL("libatomic.so.1")
    except OSError:
        why = "not there; QNN's system library needs it, and no graph can be compiled"
        return ("host", "libatomic.so.1", "missing", "", why, "apt-get install libatomic1")
    return ("host", "libatomic.so.1", "ok", "", "QNN's system library needs it", "")


def _runtimes(wanted: str | None, logs: list[str]) -> Iterator[_Row]:
    found = [r for r in runtimes() if wanted in (None, "default", r.version)]
    if not found:
        why = f"not installed for {sys.platform} {platform.machine()}"
        pip = "pip install onnxruntime-qnn==2.3.0 onnxruntime==1.24.4 (no wheel exists for macOS)"
        if wanted in (None, "default"):
            yield ("runtime", "onnxruntime-qnn", "missing", "", why, pip)
        else:
            yield (
                "runtime",
                str(wanted),
                "missing",
                "",
                why,
                f"qnb runtime add {wanted} installs it, if there is such a one",
            )
    for each in found:
        yield (
            "runtime",
            each.version,
            "ok",
            f"QAIRT {each.qairt}",
            f"with ONNX Runtime {each.onnxruntime}{', added' if each.site else ''}",
            "",
        )
        for backend in BACKENDS:
            yield _backend(each, backend, logs)


def _backend(runtime: Runtime, backend: Backend, logs: list[str]) -> _Row:
    name = f"{backend} ({runtime.version})"
    path = runtime.library(backend)
    if path is None:
        why = "dropped from the wheel after 2.3.0" if backend == "cpu" else "not in this wheel"
        return (
            "backend",
            name,
            "missing",
            "",
            why,
            "use runtime 2.3.0" if backend == "cpu" else "reinstall onnxruntime-qnn",
        )
    try:
        soc = find(settings.soc)
        with cache.scratch() as folder:
            model = folder / "probe.onnx"
            model.write_bytes(_one_relu())
            spec = session_spec(str(model), backend, runtime, BackendOptions(soc=soc, fp16=soc.fp16))
            answer = client.call("probe", {"spec": spec.plain()}, runtime=runtime, timeout_s=_PROBE_TIMEOUT_S)
    except QnbError as error:
        logs.append(error.log)
        if backend == "gpu" and not snapdragon_host():
            return (
                "backend",
                name,
                "limited",
                "",
                "no Adreno GPU on this host; its column is an fp16 reference on ONNX Runtime's CPU",
                "run on a Snapdragon (Windows on Arm, Linux aarch64)",
            )
        said = error.what.splitlines()[-1].strip()
        return ("backend", name, "failed", "", said, error.hint)
    logs.append(answer.log)
    details = {
        "simulator": f"Hexagon simulator and offline compiler; compiles for {soc}",
        "device": "this machine's own",
        "host": "QNN's CPU backend on this host's CPU",
        "reference": "",
    }
    return ("backend", name, "ok", "", details[source_of(backend)], "")


def _one_relu() -> bytes:
    import onnx
    from onnx import TensorProto, helper

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4])

    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="relu")], "probe", [value("x")], [value("y")]
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    return bytes(model.SerializeToString())


def _sdk() -> Iterator[_Row]:
    root = os.environ.get("QNN_SDK_ROOT") or os.environ.get("QAIRT_SDK_ROOT")
    if not root:
        yield (
            "sdk",
            "QNN_SDK_ROOT",
            "missing",
            "",
            "not set; nothing here needs it: the runtime's wheel carries compiler, simulator and DLC writer",
            "set it to an installed QAIRT SDK to have its tools as well",
        )
        return
    folder = Path(root)
    if not folder.is_dir():
        yield ("sdk", "QNN_SDK_ROOT", "failed", "", f"no such folder: {root}", "set it to the SDK's folder")
        return
    yield ("sdk", "QNN_SDK_ROOT", "ok", folder.name, root, "")
    bins = sorted(folder.glob("bin/*"))
    for tool in _TOOLS:
        path = shutil.which(tool, path=os.pathsep.join(map(str, bins))) or shutil.which(tool)
        if path is None:
            yield (
                "sdk tool",
                tool,
                "missing",
                "",
                f"not in {root}/bin nor on PATH",
                "add the SDK's bin folder to PATH",
            )
            continue
        yield ("sdk tool", tool, *_starts(path))


def _starts(path: str) -> tuple[str, str, str, str]:
    try:
        done = subprocess.run(
            [path, "--help"], capture_output=True, text=True, timeout=_TOOL_TIMEOUT_S, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return ("failed", "", f"{path}: {error}", "see that the SDK is for this platform, and source its envsetup.sh")
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        return (
            "failed",
            "",
            f"{path} --help: {said[-1] if said else f'exit code {done.returncode}'}",
            "source bin/envsetup.sh",
        )
    return ("ok", "", path, "")


def _packages() -> Iterator[_Row]:
    for name in ("qnb", "onnxruntime", "onnxruntime-qnn", "onnx", "numpy", "pandas", "matplotlib", "ipython"):
        version = package_version(name)
        yield (
            "package",
            name,
            "ok" if version else "missing",
            version or "",
            "",
            "" if version else f"pip install {name}",
        )
    for name, (use, remedy) in _OPTIONAL.items():
        version = package_version(name)
        yield ("package", name, "ok" if version else "missing", version or "", use, "" if version else remedy)


def _cache() -> Iterator[_Row]:
    root = cache.root()
    try:
        with cache.scratch():
            pass
    except QnbError as error:
        yield ("cache", str(root), "failed", "", error.what, error.hint)
        return
    found = list(cache.entries())
    used = sum(size for _, _, size, _ in found)
    free = shutil.disk_usage(root).free
    detail = f"{len(found)} entries, {used / 2**20:,.0f} MiB; {free / 2**30:,.0f} GiB free"
    yield ("cache", str(root), "ok", "", detail, "")
