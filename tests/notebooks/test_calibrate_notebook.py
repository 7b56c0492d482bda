"""The notebook on calibration, executed in a kernel of its own: it shows what its text says.

Oracles: nbformat's schema; scikit-learn's digits with their labels; the Hexagon simulator.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tests.notebooks.execution import ROOT, executed_in_kernel, outputs, report, rows, stored_clean

NOTEBOOK = ROOT / "notebooks" / "03-calibrate.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    return executed_in_kernel(NOTEBOOK, tmp_path_factory.mktemp("calibrate"))


def test_it_is_stored_clean():
    assert stored_clean(NOTEBOOK)


def test_it_has_the_steps_that_the_quickstart_leaves_out():
    source = NOTEBOOK.read_text(encoding="utf-8")
    assert [step for step in ("check", "sensitivity", "search") if f"%qnn {step} " not in source] == []


def test_nothing_went_wrong(executed):
    for cell in executed.cells:
        assert not [o for o in cell.get("outputs", ()) if o.output_type == "error"]


def test_the_network_falls_and_check_names_the_layer(executed):
    (infer,) = rows(report(executed, "%qnn infer per_tensor")["tables"][0])
    assert infer["source"] == "simulator"
    assert infer["accuracy"] < 0.5
    broken = report(executed, "%qnn check per_tensor")
    assert "first bad layer" in broken["title"]
    (findings,) = (rows(t) for t in broken["tables"] if t["title"] == "findings")
    assert any("per_channel=True" in row["remedy"] for row in findings)


def test_it_is_mended_and_passes_the_gate(executed):
    sound = report(executed, "%qnn check balanced")
    (output,) = (r for t in sound["tables"] if t["title"] == "outputs" for r in rows(t) if r["source"] == "simulator")
    assert output["sqnr_db"] > 30
    assert output["accuracy"] > 0.95
    (verdict,) = outputs(executed, "verdict.require()")
    assert "PASS" in verdict.data["text/plain"]


def test_the_mix_that_was_searched_holds_its_target_on_the_simulator(executed):
    found = rows(report(executed, "%qnn search")["tables"][0])
    assert any(row["source"] == "simulator" and row["sqnr_db"] >= 36 for row in found)


def test_every_picture_is_there(executed):
    drawn = [c for c in executed.cells for o in c.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(drawn) >= 4
    assert not list(Path().glob("hard*"))
