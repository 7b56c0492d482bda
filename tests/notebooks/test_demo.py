"""``qnb demo`` when something is missing or fails; on small notebooks of the tests' own."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading

import nbformat
import pytest

from qnb.commands import demo as module
from qnb.commands import main
from qnb.commands.demo import demo
from qnb.errors import QnbError, RuntimeUnavailable, StorageError
from tests.processes import default_interrupts, interrupt_kernel, runs, wait_until


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Put a notebook of these cells in the quickstart's place."""

    def put(*sources):
        made = nbformat.v4.new_notebook()
        for number, source in enumerate(sources):
            cell = nbformat.v4.new_code_cell(source, metadata={"tags": [module.SUMMARY]})
            cell["id"] = f"cell-{number}"
            made.cells.append(cell)
        path = tmp_path / "small.ipynb"
        nbformat.write(made, path)
        monkeypatch.setattr(module, "find_notebook", lambda: path)

    return put


def test_the_kernel_is_this_python_whatever_is_registered(notebook, tmp_path, monkeypatch, capsys):
    kernels = tmp_path / "jupyter" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    notebook("import sys; sys.executable")
    assert demo(tmp_path / "out") == 0
    assert capsys.readouterr().out.startswith(repr(sys.executable))


def test_a_failing_cell_is_named_and_the_rest_is_kept(notebook, tmp_path, capsys):
    notebook("1 + 1", "import qnb\nqnb.socs.find('SM8651')", "'never run'")
    code = main(["demo", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert code == 1
    assert "cell 'cell-1'" in said
    assert "qnb.socs.find('SM8651')" in said
    assert "did you mean SM8650" in said
    kept = nbformat.read(tmp_path / "out" / module.NOTEBOOK, as_version=4)
    assert kept.cells[0].outputs[0].data["text/plain"] == "2"
    assert kept.cells[2].outputs == []


def test_a_kernel_that_dies_is_said(notebook, tmp_path):
    notebook("import os\nos._exit(3)")
    with pytest.raises(QnbError, match="the kernel died") as caught:
        demo(tmp_path / "out")
    assert "os._exit(3)" in caught.value.what


def test_a_cell_that_hangs_is_said(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CELL_TIMEOUT_S", 1)
    notebook("import time\ntime.sleep(60)")
    with pytest.raises(QnbError, match="did not end within 1 s"):
        demo(tmp_path / "out")


def test_an_interrupt_ends_the_kernel(notebook, tmp_path, capsys):
    pid = tmp_path / "pid"
    notebook(f"import os, pathlib, time\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(60)")

    def strike():
        wait_until(lambda: pid.exists() and pid.read_text(), 30, "the cell begins")
        interrupt_kernel(0)

    striker = threading.Thread(target=strike)
    with default_interrupts():
        striker.start()
        code = main(["demo", "--out", str(tmp_path / "out")])
    striker.join()
    assert code == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
    wait_until(lambda: not runs(int(pid.read_text())), 3, "the kernel ends")


def test_missing_packages_come_with_the_line_that_installs_them(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in ("torch", "sklearn") else real(name, *a)
    )
    with pytest.raises(RuntimeUnavailable, match="torch, sklearn") as caught:
        demo(tmp_path / "out")
    assert caught.value.hint == "pip install 'qnb[torch]' 'scikit-learn'"


def test_a_file_in_the_folders_place(notebook, tmp_path):
    notebook("1")
    (tmp_path / "out").write_text("mine")
    with pytest.raises(StorageError, match="out"):
        demo(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_the_quickstart_is_found_in_a_wheel_and_in_the_source_tree(tmp_path, monkeypatch):
    assert module.find_notebook().name == module.NOTEBOOK
    package = tmp_path / "site" / "qnb"
    (package / "notebooks").mkdir(parents=True)
    monkeypatch.setattr(module.qnb, "__file__", str(package / "__init__.py"))
    with pytest.raises(RuntimeUnavailable, match="not part of this installation"):
        module.find_notebook()
    (package / "notebooks" / module.NOTEBOOK).write_text("{}")
    assert module.find_notebook() == package / "notebooks" / module.NOTEBOOK


def test_a_figure_is_shown_and_saved_without_pyplot(notebook, tmp_path):
    notebook(
        "import pandas as pd\nfrom qnb.display import charts\n"
        "runs = pd.DataFrame({'backend': 'cpu', 'soc': '', 'source': 'host', 'latency_ms': [1.0, 2.0]})\n"
        "charts.latency_distribution(runs)"
    )
    assert demo(tmp_path / "out") == 0
    assert (tmp_path / "out" / "charts" / "cell-0.png").read_bytes().startswith(b"\x89PNG")
