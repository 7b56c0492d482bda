"""Adds a QNN runtime beside the environment's own: a wheel and its matching ONNX Runtime, in a folder of their own.

Imports neither; a worker does, with that folder in front of its path. Knows nothing of models.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from qnb.errors import RuntimeUnavailable, UnknownName
from qnb.files import building
from qnb.progress import Progress, progress
from qnb.runtime.locate import Runtime, find_runtime, runtimes, runtimes_folder

PAIRS: dict[str, str] = {"2.3.0": "1.24.4", "2.7.0": "1.31.1"}
"""Version of the onnxruntime-qnn wheel, and the onnxruntime that it works with; with another, its sessions fail."""


def add(version: str, *, pip: Sequence[str] = ()) -> Runtime:
    """Install a runtime, unless it is there.

    Parameters
    ----------
    version : str
        Version of the onnxruntime-qnn wheel.
    pip : sequence of str
        Further options of ``pip install``, such as an index.

    Returns
    -------
    Runtime
        The runtime; ``qnb.settings.runtime = version`` makes it the default.

    Raises
    ------
    UnknownName
        If it is not a version that qnb was tried with.
    RuntimeUnavailable
        If pip is missing or fails; what pip printed is in the error's log. Nothing is left behind.
    StorageError
        If the folder can't be written.
    """
    if version not in PAIRS:
        raise UnknownName.among("runtime", version, PAIRS, hint=f"qnb was tried with {', '.join(PAIRS)}")
    if any(runtime.version == version for runtime in runtimes()):
        return find_runtime(version)
    folder = runtimes_folder() / version
    with building(folder) as temporary, progress(f"installing runtime {version}") as bar:
        _pip_install(temporary, (f"onnxruntime-qnn=={version}", f"onnxruntime=={PAIRS[version]}"), pip, bar)
    return find_runtime(version)


def _pip_install(target: Path, wheels: Sequence[str], options: Sequence[str], bar: Progress) -> None:
    # Their dependencies (numpy and the like) are the environment's: two numpys in one worker would be one too many.
    asked = [sys.executable, "-m", "pip", "install", "--target", str(target), "--no-deps", "--only-binary", ":all:"]
    lines: list[str] = []
    with subprocess.Popen(
        [*asked, "--no-input", "--disable-pip-version-check", *options, *wheels],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                bar.update(0, text=lines[-1][:60])
        except BaseException:
            process.kill()
            raise
    if process.returncode == 0:
        return
    log = "\n".join(lines)
    if "No module named pip" in log:
        raise RuntimeUnavailable(
            f"{sys.executable} has no pip, which installs runtimes", hint="python -m ensurepip, then try again", log=log
        )
    said = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1] if lines else "nothing")
    raise RuntimeUnavailable(
        f"pip could not install {' and '.join(wheels)}: {said}",
        hint="see whether this machine reaches its package index and whether there is a wheel for this platform",
        log=log,
    )
