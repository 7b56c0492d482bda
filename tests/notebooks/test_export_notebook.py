"""The notebook on front-ends, executed in a kernel of its own: one network comes through each of them unchanged.

Oracles: nbformat's schema; PyTorch's logits of the network that all the others are made of; scikit-learn's labels.
"""

from __future__ import annotations

import importlib.util

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from tests.notebooks.execution import ROOT, executed_in_kernel, outputs, printed, report, rows, stored_clean

NOTEBOOK = ROOT / "notebooks" / "01-export.ipynb"
SOURCES = ["PyTorch module", "TorchScript", ".pt2", "ONNX", "Caffe"]
OF_TENSORFLOW = ["Keras model", ".keras", ".h5", "SavedModel", ".pb", ".tflite", ".tflite, int8"]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    return executed_in_kernel(NOTEBOOK, tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def summary(executed: nbformat.NotebookNode) -> pd.DataFrame:
    (shown,) = outputs(executed, "summary = ")
    page = BeautifulSoup(shown.data["text/html"], "html.parser")
    names = [cell.text for cell in page.select("thead th")][1:]
    cells = [[cell.text for cell in row.select("td")] for row in page.select("tbody tr")]
    return pd.DataFrame(cells, columns=names).set_index("from").astype({"max difference": float, "accuracy": float})


def test_it_is_stored_clean():
    assert stored_clean(NOTEBOOK)


def test_every_source_gives_the_same_network(summary):
    there = importlib.util.find_spec("tensorflow") is not None
    assert list(summary.index) == SOURCES + (OF_TENSORFLOW if there else [])
    floats = summary[summary["precision"] == "fp32"]
    assert (floats["max difference"] < 1e-4).all()
    assert floats["accuracy"].nunique() == 1
    assert floats["accuracy"].iloc[0] > 0.9
    assert (floats["source"] == "host").all()


@pytest.mark.skipif(not importlib.util.find_spec("tensorflow"), reason='needs pip install "qnb[tensorflow]" (1.3 GB)')
def test_the_quantized_file_runs_on_the_npus_arithmetic(summary):
    row = summary.loc[".tflite, int8"]
    assert (row["precision"], row["source"]) == ("w8a8", "simulator")
    assert row["max difference"] > 1e-3
    assert abs(row["accuracy"] - summary["accuracy"].iloc[0]) <= 0.02


def test_what_does_not_go_in_is_said_in_a_sentence(executed):
    assert "branches on a tensor's value" in printed(executed, "class Moody")
    assert "trust=True" in printed(executed, "pickled.pt")


def test_an_open_dimension_is_fixed(executed):
    repairs = next(t for t in report(executed, "%qnn export digits.onnx")["tables"] if t["title"] == "repairs")
    assert [row["repair"] for row in rows(repairs)] == ["fixed-axes"]
