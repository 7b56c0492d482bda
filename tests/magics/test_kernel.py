"""A real kernel: completion as a front-end asks for it, and errors as nbclient sees them.

Oracle: the Jupyter protocol's own client and nbclient, which decides whether a cell has failed.
"""

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path_factory.mktemp("kernel")))
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_kernel_completes(kernel):
    reply = kernel.execute_interactive("%load_ext qnb\nimport numpy as np\nimages = np.zeros(3)", timeout=60)
    assert reply["content"]["status"] == "ok"
    for line, expected in {
        "x = %qnn cal": ["calibrate"],
        '%qnn context q --soc "Snapdragon 8 Gen 3': ['"Snapdragon 8 Gen 3"'],
        "import qnb\n%qnn infer net im": ["images"],
    }.items():
        content = kernel.complete(line, len(line), reply=True, timeout=60)["content"]
        assert content["matches"] == expected
        taken = line[content["cursor_start"] : content["cursor_end"]]
        assert expected[0].startswith(taken)
        assert line.endswith(taken)


@pytest.mark.parametrize("line", ["%qnn infr net", "import qnb; qnb.infer(3, 4)"])
def test_an_error_is_short_and_fails_the_cell(line, tmp_path):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("%load_ext qnb"), nbformat.v4.new_code_cell(line)]
    )
    client = NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    with pytest.raises(CellExecutionError):
        client.execute()
    error = notebook.cells[1].outputs[-1]
    assert error.output_type == "error"
    assert error.ename in ("UnknownName", "BadInput")
    text = "\n".join(error.traceback)
    assert error.ename in text
    assert "next:" in text
    assert "/qnb/" not in text
    assert len(text.splitlines()) <= 5


def test_results_and_help_come_as_html_and_text(tmp_path):
    cells = ["%load_ext qnb", "%qnn", "%qnn help calibrate", "%qnn cache"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    for cell in notebook.cells[1:]:
        (output,) = cell.outputs
        assert output.output_type == "execute_result"
        assert {"text/plain", "text/html"} <= set(output.data)
