"""``qnb demo``: the quickstart notebook, executed, as HTML and charts.

Runs what a reader of the notebook would run, in a fresh kernel of this very Python; every figure that is printed is
taken from the executed notebook. Knows nothing of the steps.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import qnb
from qnb.errors import QnbError, RuntimeUnavailable
from qnb.files import storage_errors, write_bytes, write_text

if TYPE_CHECKING:
    from nbclient import NotebookClient
    from nbformat import NotebookNode

NOTEBOOK = "00-quickstart.ipynb"
SUMMARY = "summary"
"""Tag of the cells whose output is printed at the end."""

_NEEDS = {
    "nbclient": "qnb[lab]",
    "nbconvert": "qnb[lab]",
    "ipykernel": "qnb[lab]",
    "torch": "qnb[torch]",
    "onnxscript": "qnb[torch]",
    "sklearn": "scikit-learn",
}
_CELL_TIMEOUT_S = 900
_IMAGE = re.compile(r'src="data:image/png;base64,([^"]+)"')
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
# JupyterLab's template without the scripts that it would load from the network: the page has no formulas to set.
_TEMPLATE = "{% extends 'lab/index.html.j2' %}" + "".join(
    f"{{% block {name} %}}{{% endblock %}}"
    for name in ("html_head_js", "html_head_js_mathjax", "html_head_js_mermaidjs", "jupyter_widgets")
)


def demo(out: Path) -> int:
    """Execute the quickstart, save it, and print its comparison table.

    Parameters
    ----------
    out : path
        Folder for the executed notebook, its HTML and its charts; made if it is not there.

    Returns
    -------
    int
        0.

    Raises
    ------
    RuntimeUnavailable
        If a package that the notebook needs is missing.
    StorageError
        If the folder can't be written.
    QnbError
        If a cell fails; the notebook as far as it came is saved.
    """
    _require()
    import nbformat

    out = Path(out).expanduser()
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.read(find_notebook(), as_version=4)  # type: ignore[no-untyped-call]
    target = out / NOTEBOOK
    start = time.monotonic()
    try:
        execute(notebook)
    finally:
        write_text(target, nbformat.writes(notebook) + "\n")  # type: ignore[no-untyped-call]
    page = write_text(target.with_suffix(".html"), as_html(notebook))
    charts = [write_bytes(out / "charts" / f"{name}.png", content) for name, content in images(notebook)]
    print(f"done in {time.monotonic() - start:.0f} s", file=sys.stderr)
    for text in summaries(notebook):
        print(text, end="\n\n")
    for what, path in (("notebook", target), ("page", page), *(("chart", chart) for chart in charts)):
        print(f"{what:<10}{path}")
    return 0


def find_notebook() -> Path:
    """Find the quickstart: inside the installed package, or beside it in the source tree.

    Raises
    ------
    RuntimeUnavailable
        If it is in neither place.
    """
    package = Path(qnb.__file__).parent
    for folder in (package, package.parent):
        if (path := folder / "notebooks" / NOTEBOOK).exists():
            return path
    raise RuntimeUnavailable(
        f"{NOTEBOOK} is not part of this installation", hint="reinstall qnb, or clone its repository"
    )


def _require() -> None:
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        wanted = " ".join(f"'{requirement}'" for requirement in dict.fromkeys(_NEEDS[name] for name in missing))
        raise RuntimeUnavailable(f"the quickstart needs {', '.join(missing)}", hint=f"pip install {wanted}")


def execute(notebook: NotebookNode) -> None:
    """Execute a notebook in place, in a fresh kernel of this Python; progress goes to stderr.

    Raises
    ------
    QnbError
        If a cell fails, takes too long, or ends the kernel.
    """
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    reporter = _Reporter(notebook)
    with tempfile.TemporaryFile() as noise:
        client = _client(notebook, reporter)
        try:
            # Progress bars of the steps are widgets, which would be blank in a saved notebook.
            _run(client.async_execute(env=os.environ | {"QNB_PROGRESS": "0"}, stderr=noise))
        except KeyboardInterrupt:
            reporter.ends()
            raise
        except CellExecutionError as error:
            said = str(error.evalue).strip() or "(no message)"
            raise reporter.failure(f"{error.ename}: {said}", log=_ANSI.sub("", error.traceback)) from error
        except CellTimeoutError as error:
            raise reporter.failure(f"it did not end within {_CELL_TIMEOUT_S} s") from error
        except DeadKernelError as error:
            raise reporter.failure("the kernel died", log=_read(noise)) from error


def _run(work: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine in a thread's event loop; an interrupt cancels it, so that it shuts its kernel down.

    In the main thread nbclient would answer to SIGINT itself, and end in an assertion of its own.
    """
    loop = asyncio.SelectorEventLoop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            future.result()
        except KeyboardInterrupt:
            future.cancel()
            asyncio.run_coroutine_threadsafe(_others_done(), loop).result()
            raise
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _others_done() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)


def _client(notebook: NotebookNode, reporter: _Reporter) -> NotebookClient:
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from traitlets import default

    class ThisPython(KernelSpecManager):
        """Knows one kernel, whatever is registered as "python3" on this machine."""

        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name=f"Python {sys.prefix}", language="python")

    class Manager(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _this_python(self) -> KernelSpecManager:
            return ThisPython()

    return NotebookClient(
        notebook,
        kernel_manager_class=Manager,
        timeout=_CELL_TIMEOUT_S,
        store_widget_state=False,
        on_cell_execute=reporter.begins,
        on_cell_executed=reporter.ends,
    )


def _read(noise: IO[bytes]) -> str:
    noise.seek(0)
    return noise.read().decode(errors="replace")


class _Reporter:
    """Says on stderr which cell runs, and remembers it for a failure's message."""

    def __init__(self, notebook: NotebookNode) -> None:
        self._cells = [cell.id for cell in notebook.cells if cell.cell_type == "code"]
        self._current: Any = None
        self._start = 0.0

    def begins(self, cell: NotebookNode, cell_index: int) -> None:
        self._current, self._start = cell, time.monotonic()
        number = f"[{self._cells.index(cell.id) + 1}/{len(self._cells)}]"
        print(f"{number:>8} {cell.id:<18}", end="", file=sys.stderr, flush=True)

    def ends(self, **_: Any) -> None:
        if self._start:
            print(f"{time.monotonic() - self._start:6.1f} s", file=sys.stderr, flush=True)
        self._start = 0.0

    def failure(self, why: str, log: str = "") -> QnbError:
        self.ends()
        if self._current is None:
            return QnbError(
                f"the quickstart's kernel did not start: {why}", hint="qnb doctor says what is missing", log=log
            )
        source = "\n".join(f"    {line}" for line in self._current.source.splitlines())
        return QnbError(
            f"cell {self._current.id!r} of the quickstart failed\n\n{source}\n\n{why}",
            hint=f"the notebook as far as it came is saved as {NOTEBOOK}; qnb doctor says what this machine lacks",
            log=log,
        )


def as_html(notebook: NotebookNode) -> str:
    """Give an executed notebook as one HTML page that loads nothing from elsewhere."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(raw_template=_TEMPLATE)  # type: ignore[no-untyped-call]
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": "qnb quickstart"}})
    return str(page)


def images(notebook: NotebookNode) -> Iterator[tuple[str, bytes]]:
    """Give the charts of an executed notebook, named by cell."""
    for cell in notebook.cells:
        found = [image for output in cell.get("outputs", ()) for image in _pngs(output.get("data", {}))]
        for number, image in enumerate(found, 1):
            yield (cell.id if number == 1 else f"{cell.id}-{number}"), base64.b64decode(image)


def _pngs(data: Any) -> list[str]:
    return [data["image/png"]] if "image/png" in data else _IMAGE.findall(data.get("text/html", ""))


def summaries(notebook: NotebookNode) -> Iterator[str]:
    """Give, as text, what the cells with the tag `SUMMARY` show."""
    for cell in notebook.cells:
        if SUMMARY in cell.metadata.get("tags", ()):
            yield from (o.data["text/plain"] for o in cell.outputs if o.output_type == "execute_result")
