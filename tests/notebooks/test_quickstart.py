"""The quickstart as it is stored, and as it runs: in time, in memory, and with results that make sense.

Oracles: nbformat's schema; scikit-learn's digits with their labels; the clock and the kernel's own account of memory.
"""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path

import nbformat
import pytest

from qnb.results import MIME
from qnb.steps import STEPS
from tests.notebooks.execution import MEMORY_LIMIT, ROOT, Execution, run_demo
from tests.processes import workers_under

NOTEBOOK = ROOT / "notebooks" / "00-quickstart.ipynb"
SECONDS_LIMIT = 180


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> tuple[Execution, Path]:
    folder = tmp_path_factory.mktemp("demo")
    done = run_demo(sys.executable, folder / "out", folder / "cache")
    assert done.code == 0, done.stderr
    assert workers_under(folder) == []
    return done, folder / "out"


@pytest.fixture(scope="module")
def cells(executed):
    notebook = nbformat.read(executed[1] / NOTEBOOK.name, as_version=4)
    return {cell.id: cell for cell in notebook.cells}


def reports(cells):
    return [o.data[MIME] for cell in cells.values() for o in cell.get("outputs", ()) if MIME in o.get("data", {})]


def rows(report):
    table = report["tables"][0]
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def test_it_is_stored_clean_and_short():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) < 25
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_it_has_every_step():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    of_another = {"check", "sensitivity", "search"}  # of 03-calibrate.ipynb, whose test asks for them
    of_another |= {"estimate", "select", "debug", "report"}  # of 06-profile.ipynb
    missing = {step for step in STEPS if f"%qnn {step} " not in f"{source} ".replace("\n", " \n")}
    assert missing == of_another
    assert re.search(r"^%%qnn \w+.*\nhtp_config:", source, re.M)


@pytest.mark.slow
def test_it_runs_in_time_and_memory(executed):
    done, _ = executed
    print(f"quickstart: {done.seconds:.0f} s, peak {done.peak / 1e6:.0f} MB")
    assert done.seconds < SECONDS_LIMIT
    assert done.peak < MEMORY_LIMIT


@pytest.mark.slow
def test_every_step_answers_with_a_table_and_a_chart(cells):
    kinds = [report["kind"] for report in reports(cells)]
    assert kinds == [
        "doctor", "model", "conversion", "quantized", "context", "contexts", "inference", "profile", "comparison",
    ]  # fmt: skip
    for cell in cells.values():
        for output in cell.get("outputs", ()):
            assert output.output_type == "execute_result"  # no warnings, no prints, no widgets
            if MIME in output.data:
                assert "data:image/png;base64," in output.data["text/html"]
                assert output.data["text/plain"]


@pytest.mark.slow
def test_figures_say_where_they_come_from(cells):
    by_kind = {report["kind"]: rows(report) for report in reports(cells)}
    for kind in ("profile", "comparison"):
        found = {row["backend"]: (row["precision"], row["source"]) for row in by_kind[kind]}
        assert set(found) == {"htp", "gpu", "cpu"}
        assert all(source for _, source in found.values())
        assert found["htp"][0] == "w8a8"
        assert found["cpu"][0] == "fp32"
    assert {row["soc"] for row in by_kind["contexts"]} == {"SM8650", "SM8550", "SM8450"}


@pytest.mark.slow
def test_quantization_keeps_the_accuracy_on_both_generations(cells):
    table = _rows_of(cells["digits-accuracy"].outputs[0].data["text/html"])
    assert [row["precision"] for row in table] == ["fp32", "w8a8", "w8a8"]
    assert [row["soc"] for row in table[1:]] == ["SM8650", "SM8350"]
    accuracy = [float(row["accuracy"]) for row in table]
    assert accuracy[0] > 0.95
    assert min(accuracy[1:]) > accuracy[0] - 0.01
    assert all(float(row["sqnr_db"]) > 25 for row in table[1:])


def _rows_of(html):
    names = [n for n in re.findall(r"<th>([^<]*)</th>", html.split("<tbody>")[0]) if n.strip()]
    body = re.findall(r"<tr[^>]*>(.*?)</tr>", html.split("<tbody>")[1], re.S)
    return [dict(zip(names, re.findall(r"<td>([^<]*)</td>", row), strict=True)) for row in body]


@pytest.mark.slow
def test_the_printed_table_is_that_of_the_notebook(executed, cells):
    done, out = executed
    assert cells["compare"].outputs[0].data["text/plain"] in done.stdout
    assert cells["digits-accuracy"].outputs[0].data["text/plain"] in done.stdout
    paths = [Path(line.split(maxsplit=1)[1]) for line in done.stdout.splitlines() if str(out) in line]
    assert len(paths) >= 10
    assert all(path.exists() for path in paths)
    for cell in cells.values():
        if cell.cell_type == "code":
            assert cell.id in done.stderr


@pytest.mark.slow
def test_the_charts_are_those_of_the_notebook(executed, cells):
    import matplotlib.image

    charts = sorted((executed[1] / "charts").glob("*.png"))
    assert {"compare.png", "profile.png", "context.png"} <= {chart.name for chart in charts}
    html = cells["compare"].outputs[0].data["text/html"]
    shown = base64.b64decode(re.findall('src="data:image/png;base64,([^"]+)"', html)[0])
    assert (executed[1] / "charts" / "compare.png").read_bytes() == shown
    for chart in charts:
        height, width, _ = matplotlib.image.imread(chart).shape
        assert width > 400
        assert height > 100


@pytest.mark.slow
def test_the_page_needs_no_network(executed):
    page = (executed[1] / "00-quickstart.html").read_text(encoding="utf-8")
    loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"'](?!data:)([^\"']*)", page)
    assert loaded == []
    assert "import(" not in page
    assert "@import" not in page
    assert "max_abs_error" in page
