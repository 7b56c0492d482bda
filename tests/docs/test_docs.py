"""The docs say what is there: every step, option, column, command, error and setting; and their examples run.

Oracle: the code itself (signatures, tables as they come out, the command's own list of commands) against the text.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import docstring_parser
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

import qnb
from qnb import errors
from qnb.defaults import Settings, settings
from qnb.faces import face as faces
from qnb.steps import STEPS
from qnb.values import Source

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PRELUDE = "steps/index.md"
PAGES = sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md") if "_build" not in p.parts)

# The tables that each step's page describes, as expressions over the names of the page's own examples.
TABLES = {
    "doctor": ["found.frame"],
    "export": ["model.frame", "model.check", "model.repairs"],
    "convert": ["conversion.frame", "conversion.qnn_ops"],
    "calibrate": ["quantized.frame"],
    "check": ["checked.frame", "checked.outputs", "checked.tensors", "checked.channels", "checked.findings"],
    "sensitivity": ["found.frame", "scored.frame"],
    "search": ["found.frame", "found.layers", "scored.frame"],
    "context": ["*compiled.tables().values()"],
    "infer": ["result.frame", "result.io"],
    "profile": ["*timing.tables().values()", "timing.runs"],
    "estimate": ["guessed.frame", "guessed.costs"],
    "compare": ["backends.frame", "layers.ops"],
    "select": ["choice.frame", "choice.criteria"],
    "debug": ["found.frame", "found.layers"],
    "report": ["card.frame", "card.headline"],
}


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(text: str, *languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", text, re.M | re.S)


def first_cells(text: str, header: str) -> set[str]:
    """Give what stands as code in the first column of the tables with that first header."""
    rows = re.findall(rf"^\| {re.escape(header)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.M)
    return {name for rows in rows for row in rows.splitlines() for name in re.findall("`([^`]+)`", row.split("|")[1])}


@pytest.fixture(scope="module")
def one_shell():
    InteractiveShell.clear_instance()
    main = sys.modules["__main__"]
    shell = InteractiveShell.instance()
    sys.modules["__main__"] = main  # which it takes; processes of a pool that later tests start look there
    shell.history_manager.enabled = False
    run(shell, "%load_ext qnb")
    yield shell
    run(shell, "%unload_ext qnb")
    InteractiveShell.clear_instance()


@pytest.fixture
def shell(one_shell, tmp_path, monkeypatch):
    """A shell in a folder of its own, where nothing but the examples of the first page of the steps has run."""
    monkeypatch.chdir(tmp_path)
    for field in dataclasses.fields(settings):
        monkeypatch.setattr(settings, field.name, getattr(settings, field.name))
    one_shell.reset(new_session=False)
    for source in blocks(read(PRELUDE), "python"):
        run(one_shell, source)
    return one_shell


def run(shell: InteractiveShell, source: str) -> None:
    shell.run_cell(source).raise_error()


def test_every_step_has_a_page_in_the_order_of_the_workflow():
    listed = re.findall(r"^steps/(\w+)$", read("index.md"), re.M)
    assert listed == ["index", *STEPS]
    for step in STEPS:
        assert re.search(rf"autofunction:: qnb\.{step}\b", read(f"steps/{step}.md"))


@pytest.mark.parametrize("step", STEPS)
def test_every_option_is_described(step):
    function = faces.face(step).function
    doc = docstring_parser.parse(inspect.getdoc(function) or "", style=docstring_parser.DocstringStyle.NUMPYDOC)
    described = {name.strip().lstrip("*") for p in doc.params for name in p.arg_name.split(",") if p.description}
    assert described == set(inspect.signature(function).parameters)
    assert doc.examples or ">>>" in (function.__doc__ or "")


def test_the_signature_written_out_for_context_is_the_real_one():
    # Overloads hide it from Sphinx.
    written = re.search(r"autofunction:: qnb\.context(\(.*\))", read("steps/context.md"))
    bare = [p.replace(annotation=p.empty) for p in inspect.signature(qnb.context).parameters.values()]
    assert written is not None
    assert written[1] == str(inspect.Signature(bare))


@pytest.mark.parametrize("step", STEPS)
def test_examples_run_and_every_column_is_described(step, shell):
    text = read(f"steps/{step}.md")
    examples = blocks(text, "python", "ipython")
    assert examples
    for source in examples:
        run(shell, source)
    frames = eval(f"[{', '.join(TABLES[step])}]", shell.user_ns)
    assert first_cells(text, "column") == {str(c) for frame in frames for c in frame.columns}


@pytest.mark.parametrize(
    "page", [p for p in PAGES if not p.startswith("steps/") and p not in ("index.md", "quickstart.md")]
)
def test_examples_of_the_other_pages_run(page, shell):
    for source in blocks(read(page), "python", "ipython"):
        run(shell, source)


def test_every_magic_is_described():
    from qnb.magics.qnn import known

    text = read("magics.md")
    table = {words.split()[1] for words in first_cells(text, "line")}
    assert table == set(known()) - set(STEPS)


def test_every_command_and_output_option_is_described():
    from qnb.commands import app
    from qnb.commands.steps import output_options

    text = read("cli.md")
    command = app()
    own = {f"qnb {name}" for name in command if not name.startswith("-") and name != "runtime"}
    own |= {f"qnb runtime {name}" for name in command["runtime"] if not name.startswith("-")}
    described = {re.sub(r"( [A-Z]+)+$", "", words) for words in first_cells(text, "command")}
    assert {words for words in described if "--" not in words} == own
    for option in output_options():
        assert f"`--{option.name}" in text


@pytest.mark.slow
def test_the_commands_in_the_terminal_page_run(tmp_path):
    from tests.models import small_cnn

    images = np.random.default_rng(0).standard_normal((4, 3, 16, 16), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    exported = qnb.export(small_cnn(), shapes={"image": (1, 3, 16, 16)})
    (tmp_path / "net.onnx").write_bytes(exported.path.read_bytes())
    lines = blocks(read("cli.md"), "console")[0].splitlines()
    assert len(lines) >= 6
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "qnb"
        done = subprocess.run(
            [sys.executable, "-m", "qnb", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert done.stdout


def test_every_error_is_described():
    assert first_cells(read("errors.md"), "error") == set(errors.__all__)


def test_every_source_is_described():
    assert first_cells(read("sources.md"), "source") == set(get_args(Source))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert first_cells(readme, "source") <= set(get_args(Source))
    assert {"device", "simulator", "host", "reference"} <= first_cells(readme, "source")


def test_every_setting_is_described_with_its_default():
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `?([^|`]+)`? \|", read("settings.md"), re.M)
    fields = {f.name: getattr(Settings(), f.name) for f in dataclasses.fields(Settings)}
    assert {name for name, _, _ in rows} == set(fields)
    for name, variable, default in rows:
        assert variable == f"QNB_{name.upper()}"
        if name != "progress":  # the tests turn it off
            assert default.strip() == f"{fields[name]:g}" if name == "timeout_s" else default == fields[name]


def test_every_environment_variable_is_described():
    code = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "qnb").rglob("*.py"))
    read_by_code = set(re.findall(r"\"(QNB_[A-Z_]+)\"", code)) - {"QNB_"}
    assert read_by_code
    assert {v for v in read_by_code if f"`{v}" not in read("settings.md")} == set()


def test_links_of_the_readme_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
            assert (ROOT / target).exists(), f"{name}: {target}"


def test_every_repair_of_export_is_described_as_it_is():
    from qnb.graph.repairs import REPAIRS

    written = re.findall(r"^\| repair \|.*\n\|[-|]+\n((?:\|.*\n)+)", read("steps/export.md"), re.M)
    assert written == ["".join(f"| `{r.name}` | {r.summary} |\n" for r in REPAIRS)]


def test_every_rule_of_debug_is_described_as_it_is():
    from qnb.advice.advise import RULES
    from qnb.advice.forms import FORMS

    text = read("steps/debug.md")
    rules = [f"| `{r.id}` | {r.severity} | {r.title} | {r.why} | {r.threshold} |" for r in RULES.values()]
    written = [line for line in text.splitlines() if line.startswith("| `QNB-")]
    assert written == rules
    for form in FORMS:
        cells = (form.op_type.replace("*", "any"), form.when or "there is none in QNN", form.instead)
        assert f"| {cells[0]} | {cells[1]} | {cells[2]}{'' if form.exact else ' (not exactly the same)'} |" in text
