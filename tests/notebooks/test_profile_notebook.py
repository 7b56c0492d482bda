"""The notebook on profiling, executed in a kernel of its own: it shows what its text says.

Oracles: nbformat's schema, Qualcomm's compiler and simulator, and the order in which the text says that figures fall.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from qnb.results import MIME
from tests.notebooks.execution import ROOT

NOTEBOOK = ROOT / "notebooks" / "06-profile.ipynb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def executed(folder: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QNB_CACHE_DIR", str(folder / "cache"))
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def report(notebook: nbformat.NotebookNode, text: str) -> dict:
    (cell,) = (c for c in notebook.cells if c.cell_type == "code" and text in c.source)
    (found,) = (o.data[MIME] for o in cell.outputs if MIME in o.get("data", {}))
    return found


def rows(table: dict) -> list[dict]:
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def cycles(notebook: nbformat.NotebookNode, text: str) -> dict[str, float]:
    costs = rows(report(notebook, text)["tables"][1])
    return {row["hexagon_arch"]: row["cycles"] for row in costs}


def findings(notebook: nbformat.NotebookNode, text: str) -> str:
    """The table of findings that the cell, or the one after it, shows."""
    code = [c for c in notebook.cells if c.cell_type == "code"]
    (at,) = (i for i, c in enumerate(code) if text in c.source)
    shown = [o.data["text/html"] for c in code[at : at + 2] for o in c.outputs if "text/html" in o.get("data", {})]
    return "".join(shown)


def test_it_is_stored_clean() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not c.outputs and c.execution_count is None for c in notebook.cells if c.cell_type == "code")


def test_it_has_the_steps_that_the_other_notebooks_leave_out() -> None:
    source = NOTEBOOK.read_text(encoding="utf-8")
    assert [step for step in ("estimate", "debug", "select", "report") if f"%qnn {step} " not in source] == []


def test_nothing_went_wrong(executed: nbformat.NotebookNode) -> None:
    for cell in executed.cells:
        assert not [o for o in cell.get("outputs", ()) if o.output_type == "error"]


def test_what_is_wrong_is_named_before_and_gone_after(executed: nbformat.NotebookNode) -> None:
    for name, rules in {
        "selu": ["QNB-G001"],
        "elu": ["QNB-P008", "QNB-P010"],
        "start": ["QNB-P002", "QNB-P004", "QNB-P011"],
    }.items():
        shown = findings(executed, f"%qnn debug {name}")
        assert [rule for rule in rules if rule not in shown] == []
    after = findings(executed, "%qnn debug fast")
    assert "QNB-" in after
    assert not re.search(r">\s*(error|warning)\s*<", after)


def test_each_change_lowers_what_the_text_says(executed: nbformat.NotebookNode) -> None:
    start, shuffled, small, fast = (
        cycles(executed, f"%qnn estimate {name} --soc") for name in ("start", "shuffled", "small", "fast")
    )
    floats = cycles(executed, "%qnn estimate relu")
    assert start["v73"] < floats["v73"] / 2
    assert start["v81"] > floats["v81"]
    assert shuffled["v81"] < start["v81"] / 2
    for arch in ("v73", "v81"):
        assert small[arch] < shuffled[arch]
        assert fast[arch] < small[arch]


def test_where_a_latency_would_be_a_guess_there_is_none(executed: nbformat.NotebookNode) -> None:
    for name in ("selu", "elu"):
        table = rows(report(executed, f"%qnn estimate {name}")["tables"][0])
        assert {row["source"] for row in table} == {"none"}
    before, after = (
        {row["soc"]: row for row in rows(report(executed, f"%qnn estimate {name} --soc")["tables"][0])}
        for name in ("start", "fast")
    )
    for soc in ("SM8550", "SM8650", "SM8750"):
        assert after[soc]["source"] == "estimate"
        assert after[soc]["latency_ms"] < before[soc]["latency_ms"]
        assert math.isfinite(after[soc]["low_ms"])


def test_the_card_is_written_whole(executed: nbformat.NotebookNode, folder: Path) -> None:
    made = rows(report(executed, "%qnn report")["tables"][0])
    assert {"Findings", "Time", "Latency by SoC", "Comparison", "Choice of a backend"} <= {
        row["section"] for row in made
    }
    page = (folder / "card.html").read_text(encoding="utf-8")
    assert page.count("<section") >= 10
    assert (folder / "card-csv" / "index.csv").is_file()
    assert not list(Path().glob("card*"))
