"""Executes notebooks: in a kernel, to look at what cells show; or, as ``qnb demo``, in a process whose memory is watched."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

from qnb.results import MIME

ROOT = Path(__file__).parents[2]
MEMORY_LIMIT = 1800 * 10**6
"""What the quickstart may take, so that it runs on Binder."""


def executed_in_kernel(notebook: Path, folder: Path, **options: Any) -> nbformat.NotebookNode:
    """Execute a notebook with a folder as its own, and a cache in it; `options` are nbclient's."""
    node = nbformat.read(notebook, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QNB_CACHE_DIR", str(folder / "cache"))
        patch.setenv("PYTHONPATH", str(ROOT))
        NotebookClient(node, timeout=600, resources={"metadata": {"path": str(folder)}}, **options).execute()
    return node


def outputs(notebook: nbformat.NotebookNode, text: str) -> list[nbformat.NotebookNode]:
    """Give what the cell with this text shows."""
    (cell,) = (c for c in notebook.cells if c.cell_type == "code" and text in c.source)
    return [o for o in cell.outputs if "data" in o]


def printed(notebook: nbformat.NotebookNode, text: str) -> str:
    """Give what the cell with this text prints."""
    (cell,) = (c for c in notebook.cells if c.cell_type == "code" and text in c.source)
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")


def report(notebook: nbformat.NotebookNode, text: str) -> dict[str, Any]:
    """Give the report that the cell with this text shows."""
    (found,) = (o.data[MIME] for o in outputs(notebook, text) if MIME in o.data)
    return dict(found)


def rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Give a report's table, a dict for each row."""
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def stored_clean(notebook: Path) -> bool:
    """Say whether a notebook is valid and has no outputs."""
    node = nbformat.read(notebook, as_version=4)
    nbformat.validate(node)
    return all(not c.outputs and c.execution_count is None for c in node.cells if c.cell_type == "code")


@dataclass(frozen=True)
class Execution:
    """What came of it; `peak` in bytes: resident memory, pages that are shared counted once for each process."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    peak: int


def run_demo(python: Path | str, out: Path, cache: Path, *, timeout: float = 600) -> Execution:
    """Run it with the Python of an environment."""
    return _run([str(python), "-m", "qnb", "demo", "--out", str(out)], ROOT, out, cache, timeout)


def run_notebook(notebook: Path, folder: Path, cache: Path, *, timeout: float = 600) -> Execution:
    """Execute a copy of a notebook in a folder, in place; what it writes lands there too.

    The memory is that of the kernel and its workers, without the process that has them execute.
    """
    copy = Path(shutil.copy(notebook, folder))
    command = [sys.executable, "-m", "nbconvert", "--execute", "--inplace", "--to", "notebook", copy.name]
    return _run(command, folder, folder / "execution", cache, timeout, below=True)


def _run(command: list[str], folder: Path, out: Path, cache: Path, timeout: float, below: bool = False) -> Execution:
    logs = [out.with_suffix(f".{name}") for name in ("stdout", "stderr")]
    start = time.monotonic()
    with logs[0].open("w") as stdout, logs[1].open("w") as stderr:
        process = psutil.Popen(
            command, stdout=stdout, stderr=stderr, env={**os.environ, "QNB_CACHE_DIR": str(cache)}, cwd=folder
        )
        peak = 0
        try:
            while process.poll() is None:
                assert time.monotonic() - start < timeout, f"not within {timeout} s: {logs[1].read_text()}"
                peak = max(peak, _resident(process, below))
                time.sleep(0.1)
        finally:
            _end(process)
    said = [log.read_text(encoding="utf-8") for log in logs]
    return Execution(process.returncode, *said, time.monotonic() - start, peak)


def _resident(process: psutil.Process, below: bool) -> int:
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in (*([] if below else [process]), *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += each.memory_info().rss
    return total


def _end(process: psutil.Popen) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
