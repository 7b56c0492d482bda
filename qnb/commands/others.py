"""The commands that are no steps: the demo, and the runtimes.

Only routes words to functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cyclopts


def demo(*, out: Annotated[Path, cyclopts.Parameter(alias="-o")] = Path("qnb-demo")) -> int:
    """Run the quickstart notebook, and show what came out.

    Parameters
    ----------
    out : path
        Folder for the executed notebook, its HTML and the charts.
    """
    from qnb.commands.demo import demo as run

    return int(run(out))


def list_runtimes() -> int:
    """List the runtimes of this machine, and those that can be added."""
    from qnb.runtime.install import PAIRS
    from qnb.runtime.locate import runtimes

    found = runtimes()
    lines = [("runtime", "QAIRT", "onnxruntime", "where")]
    lines += [(r.version, r.qairt, r.onnxruntime, str(r.site or "this environment")) for r in found]
    here = {runtime.version for runtime in found}
    lines += [(v, "", ort, f"not here; qnb runtime add {v} installs it") for v, ort in PAIRS.items() if v not in here]
    for version, qairt, ort, where in lines:
        print(f"{version:<10}{qairt:<8}{ort:<14}{where}")
    return 0


def add_runtime(version: str, /) -> int:
    """Install a runtime beside the environment's own.

    Parameters
    ----------
    version : str
        Version of the onnxruntime-qnn wheel, such as 2.7.0.
    """
    from qnb.runtime.install import add

    runtime = add(version)
    print(f"runtime {runtime.version} (QAIRT {runtime.qairt}, onnxruntime {runtime.onnxruntime}) in {runtime.site}")
    return 0


def register(command: cyclopts.App) -> None:
    """Add them to the command."""
    command.command(demo, help_epilogue="")
    runtimes = cyclopts.App(name="runtime", help="List the runtimes of this machine, or add one.", help_epilogue="")
    runtimes.command(list_runtimes, name="list")
    runtimes.command(add_runtime, name="add")
    command.command(runtimes)
