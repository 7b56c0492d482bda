"""The notebook of the dashboards, executed in a kernel of its own: each widget leaves its table and its picture.

Oracles: nbformat's schema; nbconvert, which shows the saved notebook without JavaScript.
"""

from __future__ import annotations

import nbformat
import pytest
from nbconvert import HTMLExporter

from tests.notebooks.execution import ROOT, executed_in_kernel, stored_clean

NOTEBOOK = ROOT / "notebooks" / "05-dashboards.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    return executed_in_kernel(NOTEBOOK, tmp_path_factory.mktemp("dashboards"), store_widget_state=False)


def shown(notebook: nbformat.NotebookNode, text: str) -> list[dict]:
    (cell,) = (c for c in notebook.cells if c.cell_type == "code" and c.source.startswith(text))
    return [o.data for o in cell.outputs if "data" in o]


def test_it_is_stored_clean():
    assert stored_clean(NOTEBOOK)


@pytest.mark.parametrize("widget", ["bench = ", "explorer = ", "board = ", "card = "])
def test_each_widget_leaves_a_table_and_a_picture(executed, widget):
    table, picture, _ = shown(executed, widget)[-3:]
    assert "<table" in table["text/html"]
    assert len(picture["image/png"]) > 10_000


def test_every_step_is_done(executed):
    table = shown(executed, "bench = ")[0]["text/html"]
    for card in ("Model", "Calibrate", "SoCs", "Compile", "Run: outputs", "Run: time", "Report"):
        assert f"<h4>{card}: done" in table
    assert "simulator†" in table
    board = shown(executed, "board = ")[0]["text/html"]
    assert "htp w8a8 latency: " in board


def test_more_bits_are_better(executed):
    (frame,) = (d["text/plain"] for d in shown(executed, "explorer.bits"))
    first = frame.splitlines()[1].split()
    assert first[2] == "16"
    assert float(first[4]) > float(first[3]) + 20


@pytest.mark.filterwarnings("ignore:Alternative text is missing")
def test_it_reads_without_javascript(executed):
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(executed)
    assert page.count("data:image/png;base64,") >= 4
    assert "<script" not in page
