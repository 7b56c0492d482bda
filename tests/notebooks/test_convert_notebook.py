"""The notebook on placement and repairs, executed in a kernel of its own: its text says what its cells show.

Oracles: nbformat's schema; what the real compiler takes; PyTorch for the network that is mended by hand.
"""

from __future__ import annotations

import nbformat
import pytest

from tests.notebooks.execution import ROOT, executed_in_kernel, outputs, printed, report, rows, stored_clean

NOTEBOOK = ROOT / "notebooks" / "02-convert.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    return executed_in_kernel(NOTEBOOK, tmp_path_factory.mktemp("convert"))


def placement(notebook: nbformat.NotebookNode, text: str) -> list[dict]:
    return rows(report(notebook, text)["tables"][0])


def test_it_is_stored_clean():
    assert stored_clean(NOTEBOOK)


def test_two_ops_are_refused_with_their_reasons(executed):
    refused = {row["op_type"]: row["reason"] for row in placement(executed, "%qnn convert bare") if row["htp"] == "no"}
    assert set(refused) == {"GRU", "Einsum"}
    assert "not supported" in refused["GRU"]
    assert "bth,qh->bqt" in refused["Einsum"]
    assert "2 of 16 nodes are not on htp" in printed(executed, "qnb.context(bare)")


def test_the_repaired_network_is_wholly_on_the_npu_and_right_there(executed):
    assert {row["htp"] for row in placement(executed, "%qnn convert repaired")} == {"yes"}
    exported = report(executed, "--output-names scores -o repaired")
    (repairs,) = (rows(t) for t in exported["tables"] if t["title"] == "repairs")
    assert {"einsum", "recurrent"} <= {row["repair"] for row in repairs}
    (agreement,) = (rows(t) for t in exported["tables"] if t["title"] == "agreement with the source")
    assert all(row["max_abs_error"] < 1e-5 for row in agreement)
    (inferred,) = placement(executed, "%qnn infer compiled")
    assert inferred["source"] == "simulator"
    assert inferred["sqnr_db"] > 35


def test_what_no_repair_knows_is_named_and_mended_by_hand(executed):
    (refused,) = outputs(executed, "refused = qnb.convert(qnb.export(bicubic")
    assert "does not support mode cubic" in refused.data["text/html"]
    (taken,) = outputs(executed, "taken = ")
    assert "<td>no</td>" not in taken.data["text/html"]
    assert taken.data["text/html"].count("<td>yes</td>") == 2


def test_generations_differ(executed):
    said = dict(line.split("  ", 1) for line in printed(executed, "for soc in").splitlines() if "fp16" in line)
    assert said["SM8650"].endswith("2 × yes")
    assert said["SM8350"].endswith("2 × no")
    assert "can't be a target" in said["SM8250"]
    assert "SM8350  int8  2 × yes" in printed(executed, "for soc in")
