"""What stays of widgets in a saved notebook.

Oracles: a kernel and nbclient, which save it; nbconvert, which shows it without JavaScript; Pillow, which reads pictures.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from PIL import Image

from qnb.widgets.saved import Shown, joined
from tests import nets
from tests.processes import ROOT

HOSTILE = "<script>alert(1)</script>"

CELLS = (
    "import numpy as np, qnb\nfrom qnb.widgets import *\n"
    "images = np.random.default_rng(0).standard_normal((2, 1, 4, 8, 8)).astype('float32')",
    "bench = Workbench('net.onnx', images)\nbench",
    "bench.run('export', 'calibrate')\nbench.wait()",
    "explorer = CalibrationExplorer(quantized, images)\nexplorer.wait()\nexplorer",
    f"card = ReportCard(quantized)\ncard._cards['left'].title = {HOSTILE!r}\ncard",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> nbformat.NotebookNode:
    """As JupyterLab saves it: without the widgets' state."""
    folder = tmp_path_factory.mktemp("saved")
    nets.convolutions(folder / "net.onnx", layers=2, channels=4, size=8)
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": ""}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QNB_CACHE_DIR", str(folder / "cache"))
        patch.setenv("PYTHONPATH", str(ROOT))
        NotebookClient(
            notebook, timeout=300, store_widget_state=False, resources={"metadata": {"path": str(folder)}}
        ).execute()
    nbformat.validate(notebook)
    return notebook


def outputs(notebook: nbformat.NotebookNode, text: str) -> list[dict]:
    (cell,) = (c for c in notebook.cells if c.source.startswith(text))
    return [o.data for o in cell.outputs if "data" in o]


def test_a_table_a_picture_and_the_view(saved):
    for text in ("bench = ", "explorer = ", "card = "):
        table, picture, view = outputs(saved, text)[-3:]
        assert "<table" in table["text/html"]
        with Image.open(io.BytesIO(base64.b64decode(picture["image/png"]))) as image:
            assert image.width > 400
            assert len(image.getcolors(1 << 24)) > 10
        assert "application/vnd.jupyter.widget-view+json" in view


def test_what_ran_in_a_later_cell_is_in_the_first_ones_output(saved):
    table, _, _ = outputs(saved, "bench = ")
    assert "Calibrate: done" in table["text/html"]
    assert "quantized = %qnn calibrate model images" in table["text/html"]


@pytest.mark.filterwarnings("ignore:Alternative text is missing")
def test_it_reads_without_javascript(saved, tmp_path: Path):
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(saved)
    assert page.count("data:image/png;base64,") >= 3
    assert page.count("<table") >= 4
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "model not found" not in page


def test_pictures_are_put_below_each_other():
    def png(width: int, height: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (width, height), "red").save(buffer, format="png")
        return buffer.getvalue()

    with Image.open(io.BytesIO(joined([png(30, 10), png(20, 15)]))) as below:
        assert below.size == (30, 25)


def test_text_is_text():
    shown = Shown(HOSTILE)
    shown.text(HOSTILE, "code")
    assert "<script" not in shown.html
    assert len(re.findall("&lt;script&gt;", shown.html)) == 2


def test_the_front_end_has_no_way_to_make_markup_of_data():
    text = "".join(p.read_text() for p in (ROOT / "qnb" / "widgets" / "front").glob("*.js"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
