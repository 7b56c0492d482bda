"""The notebook from a slow network to a fast one, executed in a process of its own: what its text says holds.

Oracles: nbformat's schema; arithmetic on the layers' sizes; PyTorch's own figures of both forms of a layer; scikit-learn's
labels; Python's HTML parser; the clock and the operating system's account of memory. The rest is one step's figures against
another's: after each change the compiler has to say fewer cycles.
"""

from __future__ import annotations

import csv
import html
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest

from qnb.results import MIME
from tests.notebooks.execution import MEMORY_LIMIT, ROOT, Execution, rows, run_notebook, stored_clean
from tests.processes import workers_under

NOTEBOOK = ROOT / "notebooks" / "06-profile.ipynb"
SECONDS_LIMIT = 400  # of a busy machine; two quiet cores take less than 150
STEPS = ["selu", "elu", "relu", "start", "shuffled", "small", "fast"]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Execution, Path]:
    folder = tmp_path_factory.mktemp("profile")
    done = run_notebook(NOTEBOOK, folder, folder / "cache")
    assert done.code == 0, done.stderr
    assert workers_under(folder) == []
    return done, folder


@pytest.fixture(scope="module")
def cells(executed) -> list[nbformat.NotebookNode]:
    return [c for c in nbformat.read(executed[1] / NOTEBOOK.name, as_version=4).cells if c.cell_type == "code"]


def report(cells: list[nbformat.NotebookNode], text: str) -> dict[str, Any]:
    (cell,) = (c for c in cells if c.source.startswith(text))
    (found,) = (o.data[MIME] for o in cell.outputs if MIME in o.get("data", {}))
    return found


def estimates(cells: list[nbformat.NotebookNode]) -> dict[str, tuple[Row, Row]]:
    """Give of each step its row of the SM8650, and cycles by generation."""
    found = {}
    for name in STEPS:
        latency, costs = report(cells, f"%qnn estimate {name} --soc")["tables"][:2]
        (row,) = (r for r in rows(latency) if r["soc"] == "SM8650")
        found[name] = row, {r["hexagon_arch"]: r for r in rows(costs)}
    return found


def findings(cells: list[nbformat.NotebookNode], name: str) -> list[Row]:
    (cell,) = (c for c in cells if c.source.startswith(f"%qnn debug {name}"))
    if name != "selu":  # the others show the short list alone
        (shown,) = (o.data["text/html"] for o in cell.outputs if "text/html" in o.get("data", {}))
        body = re.findall(r"<tr[^>]*>(.*?)</tr>", shown.split("<tbody>")[1], re.S)
        names = ("severity", "id", "op", "what", "evidence", "remedy")
        texts = [[html.unescape(t) for t in re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)] for row in body]
        return [dict(zip(names, row, strict=True)) for row in texts]
    return rows(report(cells, f"%qnn debug {name}")["tables"][0])


def test_it_is_stored_clean():
    assert stored_clean(NOTEBOOK)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert all(not c.metadata for c in notebook.cells)


def test_it_has_the_steps_that_the_quickstart_leaves_out():
    source = NOTEBOOK.read_text(encoding="utf-8")
    assert [step for step in ("estimate", "select", "debug", "report") if f"%qnn {step} " not in source] == []


@pytest.mark.slow
def test_it_runs_in_time_and_memory(executed):
    done, _ = executed
    print(f"06-profile: {done.seconds:.0f} s, peak {done.peak / 1e6:.0f} MB")
    assert done.seconds < SECONDS_LIMIT
    assert done.peak < MEMORY_LIMIT


@pytest.mark.slow
def test_every_result_has_its_chart_and_nothing_else_is_said(cells):
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr" or "Warning" not in output.text
            if MIME in output.get("data", {}) and "no estimate" not in output.data["text/plain"]:
                assert "data:image/png;base64," in output.data["text/html"]
    assert sum("image/png" in o.get("data", {}) for c in cells for o in c.outputs) >= 2


@pytest.mark.slow
def test_every_change_takes_cycles_away(cells):
    cycles = [costs["v73"]["cycles"] for _, costs in estimates(cells).values()]
    assert all(after < before for before, after in pairwise(cycles)), cycles
    assert cycles[-1] < cycles[3] / 2


@pytest.mark.slow
def test_there_is_no_latency_where_it_would_be_a_guess(cells):
    found = estimates(cells)
    (selu, refused), (elu, unpriced), (relu, priced) = (found[name] for name in STEPS[:3])
    assert (selu["source"], elu["source"], relu["source"]) == ("none", "none", "estimate")
    assert selu["latency_ms"] is None
    assert elu["latency_ms"] is None
    assert "left to the CPU" in selu["why"]
    assert "knows no cost" in elu["why"]
    for arch in ("v73", "v81"):
        assert unpriced[arch]["ops_without_cost"] > 3 > priced[arch]["ops_without_cost"]
        assert unpriced[arch]["ddr_read_bytes"] < refused[arch]["ddr_read_bytes"] / 2
        assert unpriced[arch]["ddr_write_bytes"] < refused[arch]["ddr_write_bytes"] / 2


@pytest.mark.slow
def test_integers_show_the_shuffle_and_its_change_mends_it(cells):
    found = estimates(cells)
    v81 = {name: costs["v81"]["cycles"] for name, (_, costs) in found.items()}
    wide = {name: row["high_ms"] / row["low_ms"] for name, (row, _) in found.items() if row["latency_ms"]}
    assert found["start"][1]["v73"]["cycles"] < found["relu"][1]["v73"]["cycles"] / 2
    assert v81["start"] > v81["relu"]
    assert v81["shuffled"] < v81["start"] / 3
    assert wide["start"] > 1.5 * max(wide["relu"], wide["shuffled"])


@pytest.mark.slow
def test_integers_alone_gain_little_and_then_the_latency_falls_with_every_change(cells):
    found = [row for row, _ in estimates(cells).values()][2:]
    assert [row["precision"] for row in found] == ["fp16"] + ["w8a8"] * 4
    assert all(row["low_ms"] < row["latency_ms"] < row["high_ms"] for row in found)
    floats, *integers = (row["latency_ms"] for row in found)
    assert integers[0] == pytest.approx(floats, rel=0.1)
    assert all(after < before for before, after in pairwise(integers)), integers


@pytest.mark.slow
def test_what_is_found_is_gone_once_it_is_changed(cells):
    ids = {name: {row["id"] for row in findings(cells, name)} for name in ("selu", "elu", "start", "fast")}
    assert {"QNB-G001", "QNB-P002", "QNB-P004", "QNB-P008"} <= ids["selu"]
    assert "QNB-G001" not in ids["elu"]
    assert "QNB-P010" in ids["elu"]
    assert ids["start"].isdisjoint({"QNB-G001", "QNB-P008", "QNB-P010"})
    assert {"QNB-P002", "QNB-P004", "QNB-P011"} <= ids["start"]
    assert "QNB-P011" not in ids["selu"] | ids["elu"]
    assert ids["fast"].isdisjoint({"QNB-P002", "QNB-P004", "QNB-P011"})
    assert {row["severity"] for row in findings(cells, "fast")} == {"info"}


@pytest.mark.slow
def test_the_figures_of_the_large_kernel_are_those_of_its_sizes(cells):
    (large,) = (row for row in findings(cells, "start") if row["id"] == "QNB-P002")
    macs = 9 * 9 * 72 * 72 * 32 * 32
    assert large["evidence"].startswith(f"{macs / 1e6:.3g} M MACs")
    assert f"4 of 3x3 in a row see as far with {100 * 4 * 9 / 81:.3g} % of them" in large["evidence"]


@pytest.mark.slow
def test_what_is_said_to_compute_the_same_does(cells):
    said = [o.text for c in cells for o in c.outputs if o.output_type == "stream" and "largest difference" in o.text]
    differences = [float(value) for text in said for value in re.findall(r"largest difference: (\S+)", text)]
    assert len(differences) == 2
    assert max(differences) < 1e-4


@pytest.mark.slow
def test_accuracy_is_kept(cells):
    (last,) = (c for c in cells if c.source.startswith('record("64 channels"'))
    plain = last.outputs[0].data["text/html"]
    body = re.findall(r"<tr[^>]*>(.*?)</tr>", plain.split("<tbody>")[1], re.S)
    top1 = [float(re.findall(r"<td>([^<]*)</td>", row)[-1]) for row in body]
    assert len(top1) == len(STEPS)
    assert min(top1) > 80
    assert top1[-1] > top1[0] - 5
    sides = rows(report(cells, "%qnn compare start fast")["tables"][0])
    assert [row["source"] for row in sides] == ["simulator"] * 2
    assert min(row["accuracy"] for row in sides) > 0.75


@pytest.mark.slow
def test_the_simulator_finds_the_large_kernel_dear_and_the_whole_cheaper(cells):
    ops = rows(report(cells, "%qnn compare before after")["tables"][1])
    assert {row["source"] for row in ops if row["cycles_left"] or row["cycles_right"]} == {"simulator"}
    left, right = (sum(row[f"cycles_{side}"] or 0 for row in ops) for side in ("left", "right"))
    assert right < left
    assert any(row["state"] == "right only" and row["op_type_right"] == "Conv" for row in ops)
    dearest = max(ops, key=lambda row: row["cycles_left"] or 0)
    assert dearest["cycles_left"] > left / 3
    assert (dearest["macs_left"] or 0) >= 9 * 9 * 72 * 72 * 32 * 32


@pytest.mark.slow
def test_the_npu_is_chosen_and_never_by_the_simulators_time(cells):
    ranked = rows(report(cells, "%qnn select fast")["tables"][0])
    assert (ranked[0]["backend"], ranked[0]["precision"], ranked[0]["latency_source"]) == ("htp", "w8a8", "estimate")
    assert {row["latency_source"] for row in ranked} <= {"estimate", "none"}


@pytest.mark.slow
def test_the_card_holds_before_and_after(executed, cells):
    card = executed[1] / "card.html"
    text = card.read_text(encoding="utf-8")
    heads = [html.unescape(re.sub("<[^>]*>", "", h)) for h in re.findall(r"<h2[^>]*>(.*?)</h2>", text, re.S)]
    ours = ["Time", "Latency by SoC", "Performance advice"]
    whole = [
        "Findings",
        "Model",
        "Precision",
        "Choice of a backend",
        "Placement",
        "Comparison",
        "Comparison",
        "Provenance",
    ]
    assert sorted(heads) == sorted([*whole, "Not in this card", *ours, *(f"{head} of relu" for head in ours)])
    assert text.count('<img src="data:image/') >= 20
    assert re.findall(r'(?:src|href)="https?:', text) == []
    (latency,) = (row for row in rows(report(cells, "%qnn report fast")["tables"][1]) if row["figure"] == "latency")
    estimated = estimates(cells)["fast"][0]
    assert latency["value"] == pytest.approx(estimated["latency_ms"])
    assert latency["source"] == "estimate"
    with (executed[1] / "card-csv" / "index.csv").open(encoding="utf-8", newline="") as file:
        listed = [row["file"] for row in csv.DictReader(file)]
    assert len(listed) > 20
    assert all((executed[1] / "card-csv" / name).stat().st_size for name in listed)
