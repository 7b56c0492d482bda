"""Tab, through IPython's own completer with Jedi on.

Oracle: the SoC table, the steps' table, and the names that the notebook has.
"""

import numpy as np
import pytest
from IPython.core.completer import provisionalcompleter

from qnb.socs import table
from qnb.steps import STEPS

# The old way is announced to end; ipykernel can still be told to take it.
pytestmark = pytest.mark.filterwarnings("ignore:.Completer.complete. is pending:PendingDeprecationWarning")


@pytest.fixture
def complete(ip):
    """Complete at the end of a line in both of IPython's ways; give the fragment and the offers."""

    def complete(line):
        fragment, old = ip.complete("", line, len(line))
        with provisionalcompleter():
            new = list(ip.Completer.completions(line, len(line)))
        assert [c.text for c in new] == old
        assert all(line[c.start : c.end] == fragment for c in new)
        return fragment, old

    assert ip.Completer.use_jedi
    return complete


@pytest.fixture
def names(notebook):
    """A notebook with a value of each kind."""
    notebook.run_cell("q = %qnn calibrate model images")
    notebook.run_cell("contexts = %qnn context q --soc SM8650,SM8550")
    notebook.user_ns |= {"number": 3, "flat": {"a": 1}, "halve": lambda x: x / 2, "labels": np.zeros(6, int)}
    return notebook


@pytest.mark.parametrize("start", ["%qnn ", "x = %qnn ", "  %qnn ", "%%qnn ", "a, b = %qnn ", "c[0] = %qnn "])
def test_steps_after_the_magic(complete, start):
    fragment, offers = complete(start)
    assert fragment == ""
    assert offers[: len(STEPS)] == list(STEPS)
    assert complete(start + "co")[1] == ["convert", "context", "compare"]


def test_other_lines_are_left_alone(ip):
    for line in ("import o", "qnn ", "x = 3 % qnn "):
        assert not set(ip.complete("", line, len(line))[1]) & set(STEPS)


def test_options_that_are_not_given_yet(complete):
    offers = complete("%qnn calibrate m d --")[1]
    assert {"--precision", "--ranges", "--no-per-channel", "--samples", "--overrides", "--out", "--help"} <= set(offers)
    assert "--per-channel" not in offers
    offers = complete("%qnn calibrate m d --precision w8a8 --samples=3 --no-per-channel -o q --")[1]
    assert not {"--precision", "--samples", "--per-channel", "--no-per-channel", "--out"} & set(offers)
    assert complete("%qnn calibrate m d --prec")[1] == ["--precision"]


def test_choices(complete):
    assert complete("%qnn calibrate m d --precision ")[1] == ["w8a8", "w8a16", "w4a8", "w4a16", "w16a16"]
    assert complete("%qnn infer m d --backend=")[1] == ["htp", "gpu", "cpu"]
    assert complete("%qnn profile m --backends htp,") == ("htp,", ["htp,gpu", "htp,cpu"])


def test_socs_by_part_and_by_name_in_quotes(complete):
    usable = [soc for soc in table() if soc.usable]
    offers = complete("%qnn context q --soc ")[1]
    assert {soc.part for soc in usable} <= set(offers)
    assert {f'"{soc.name}"' for soc in usable if " " in soc.name} <= set(offers)
    assert not {soc.part for soc in table() if not soc.usable} & set(offers)
    assert complete("%qnn context q --soc snapdragon")[1][0].startswith('"Snapdragon')
    assert complete('%qnn context q --soc "Snapdragon 8 Gen 3') == ('"Snapdragon 8 Gen 3', ['"Snapdragon 8 Gen 3"'])
    assert complete("%qnn context q --soc SM8650,SM855")[1] == ["SM8650,SM8550"]


def test_variables_that_fit(complete, names):
    assert complete("%qnn calibrate ")[1][0] == "model"
    assert "q" not in complete("%qnn calibrate ")[1]
    assert complete("%qnn infer ")[1][:3] == ["contexts", "model", "q"]
    assert complete("%qnn infer q ")[1][:3] == ["flat", "images", "labels"]
    assert complete("y = %qnn infer q im") == ("im", ["images"])
    assert complete("%qnn infer q images --labels ")[1][:2] == ["images", "labels"]
    assert complete("%qnn infer q images --config ")[1] == ["flat"]
    assert complete("%qnn infer q images --preprocess ")[1] == ["halve"]
    assert complete("%qnn compare model ")[1][:3] == ["contexts", "model", "q"]
    assert {"contexts", "model", "q"} <= set(complete("%qnn save ")[1])


def test_contexts_by_soc(complete, names):
    assert complete("%qnn infer contexts[") == ("contexts[", ['contexts["SM8650"]', 'contexts["SM8550"]'])
    assert complete("%qnn infer contexts['SM85")[1] == ["contexts['SM8550']"]


def test_files_of_fitting_kind(complete, tmp_path):
    for name in ("net.onnx", "data.npy", "my data.npz", "note.md", ".hidden.onnx"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner.onnx").touch()
    files = [o for o in complete("%qnn export ")[1] if not o.startswith("-")]
    assert files == ["folder/", "net.onnx"]
    assert complete("%qnn export folder/")[1] == ["folder/inner.onnx"]
    assert complete("%qnn calibrate net.onnx my")[1] == ['"my data.npz"']
    assert complete('%qnn calibrate net.onnx "my d')[1] == ['"my data.npz"']
