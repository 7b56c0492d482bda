"""The side panel, the launcher's notebooks, the commands, and `%qnn` in editors, in a real JupyterLab with the real routes.

Oracles: what a kernel says of its own settings and variables, JupyterLab's own menus, palette and completer, axe-core,
and Chromium's own account of the requests and the colours.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Page, Request

from qnb.socs import table
from tests import nets
from tests.browser.lab import Lab, opened
from tests.processes import ROOT, wait_until

AXE = ROOT / "extension" / "node_modules" / "axe-core" / "axe.min.js"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark", "contrast": "JupyterLab Dark High Contrast"}
HOSTILE = "<img src=x onerror='window.struck=1'> \u202e{6*7}$HOME.onnx"


class Notebook:
    """A notebook that is open in the page, as its user has it before him."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def _ask(self, script: str, argument: object = None) -> Any:
        return self.page.evaluate(
            f"argument => {{ const panel = window.jupyterapp.shell.currentWidget; {script} }}", argument
        )

    def ready(self) -> None:
        """Wait for its cells and its kernel."""
        self.page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell")
        self.until(lambda: self._ask("return panel.sessionContext?.session?.kernel?.status") == "idle", "its kernel")

    def until(self, condition: Any, what: str, seconds: float = 120) -> None:

        def holds() -> Any:
            self.page.wait_for_timeout(50)  # the page's own events are heard meanwhile
            return condition()

        wait_until(holds, seconds, what)

    def sources(self) -> list[str]:
        return list(self._ask("return panel.content.widgets.map(c => c.model.sharedModel.getSource())"))

    def activate(self, index: int) -> None:
        self._ask("panel.content.activeCellIndex = argument; panel.content.activate()", index)

    def start(self, index: int) -> None:
        """Run a cell, and don't wait for it."""
        self.activate(index)
        self._ask("void window.jupyterapp.commands.execute('notebook:run-cell')")

    def run(self, index: int, seconds: float = 120) -> list[dict[str, Any]]:
        """Run a cell; give its outputs."""
        self.start(index)
        return self.outputs(index, seconds)

    def outputs(self, index: int, seconds: float = 120) -> list[dict[str, Any]]:
        """Wait until a cell has run; give its outputs."""

        def count() -> Any:
            return self._ask("return panel.content.widgets[argument].model.executionState", index)

        def done() -> bool:
            number = self._ask("return panel.content.widgets[argument].model.executionCount", index)
            return number is not None and count() == "idle"

        self.until(done, f"the end of cell {index}", seconds)
        return list(self._ask("return panel.content.widgets[argument].model.outputs.toJSON()", index))


def text_of(outputs: list[dict[str, Any]]) -> str:
    return "".join(str(o.get("text", o.get("data", {}).get("text/plain", ""))) for o in outputs)


def errors_of(outputs: list[dict[str, Any]]) -> list[str]:
    return [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]


def written(server: Lab, name: str, *sources: str) -> str:
    """Put a notebook into the server's root; give its path."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), server.root / name)
    return name


def show_panel(page: Page) -> None:
    page.keyboard.press("Alt+Shift+Q")
    page.wait_for_selector("#qnb-panel:not(.lm-mod-hidden) .qnb-section")


def command(page: Page, name: str, **args: object) -> None:
    """Begin a command; one that asks something ends when it is answered."""
    page.evaluate("([name, args]) => void window.jupyterapp.commands.execute(name, args)", [name, args])


def search(page: Page, words: str) -> None:
    """Open the palette and type into it; again where JupyterLab, not settled yet, took the focus away and closed it."""
    field = page.locator(".lm-CommandPalette-input:focus")

    def holds() -> bool:
        page.keyboard.press("Escape")
        page.keyboard.press("Control+Shift+C")
        page.wait_for_timeout(500)
        if field.count() == 0:
            return False
        page.keyboard.type(words)
        return field.count() == 1 and field.input_value() == words

    wait_until(holds, 60, "the palette takes what is typed")


def pick(page: Page, words: str) -> None:
    """Choose what the palette finds first, by keyboard alone."""
    search(page, words)
    page.wait_for_selector(".lm-CommandPalette-item.lm-mod-active")
    page.keyboard.press("Enter")


def serious(page: Page, where: str) -> list[str]:
    """What axe-core has against a part of the page."""
    page.add_script_tag(path=str(AXE))
    found = page.evaluate("where => axe.run(where, {resultTypes: ['violations']})", where)
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def ask(server: Lab, method: str, path: str, body: object = None) -> None:
    """Ask a route of JupyterLab's own to change something."""
    request = urllib.request.Request(
        f"{server.url}/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"token {server.token}"},
        method=method,
    )
    urllib.request.urlopen(request, timeout=60).close()


@pytest.fixture(autouse=True)
def tidy(server: Lab) -> Iterator[None]:
    """No kernel is left to the next test; the page is gone by then."""
    yield
    for session in server.get("api/sessions"):  # type: ignore[attr-defined]
        ask(server, "DELETE", f"api/sessions/{session['id']}")


def test_a_soc_chosen_by_keyboard_is_what_a_running_kernel_builds_for(page: Page, server: Lab) -> None:
    opened(page, server, written(server, "soc.ipynb", "import qnb", "qnb.settings.soc"))
    notebook = Notebook(page)
    notebook.ready()
    notebook.run(0)
    first = text_of(notebook.run(1))
    other = "SM8550" if "SM8650" in first else "SM8650"
    show_panel(page)
    search = page.locator("#qnb-panel input[type=search]")
    search.wait_for()
    for _ in range(12):
        page.keyboard.press("Tab")
        if search.evaluate("node => node === document.activeElement"):
            break
    page.keyboard.type(other)
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#qnb-panel [role=option][aria-selected=true]:has-text('{other}')")
    assert other in text_of(notebook.run(1))
    assert server.get("qnb/socs")["target"] == other  # type: ignore[index]


def test_the_list_of_socs_is_the_table_s_and_can_be_searched(page: Page, server: Lab) -> None:
    opened(page, server)
    show_panel(page)
    usable = [soc for soc in table() if soc.usable]
    page.wait_for_selector("#qnb-panel [role=option]")
    assert page.locator("#qnb-panel [role=option]").count() == len(usable)
    page.fill("#qnb-panel input[type=search]", "v75")
    shown = page.locator("#qnb-panel [role=option] .qnb-soc-part").all_inner_texts()
    assert shown == [soc.part for soc in usable if soc.arch == "v75"]
    page.fill("#qnb-panel input[type=search]", "no such chip")
    page.wait_for_selector("#qnb-panel :text('No SoC has')")


def test_a_compilation_is_seen_and_cancelled_in_the_panel_and_the_kernel_lives(
    page: Page, server: Lab, pictures: Path
) -> None:
    nets.convolutions(server.root / "long.onnx", layers=60, channels=128, size=112)
    line = "%qnn context model --soc SM8650,SM8550,SM8450 --rebuild"
    setup = "import qnb\nkept = 41\n%load_ext qnb\nmodel = qnb.export('long.onnx')"
    path = written(server, "cancel.ipynb", setup, line, "kept + 1")
    opened(page, server, path)
    notebook = Notebook(page)
    notebook.ready()
    notebook.run(0)
    show_panel(page)
    notebook.start(1)
    job = page.locator("#qnb-panel .qnb-jobs > li")
    job.wait_for()
    assert job.locator("code").inner_text() == line
    assert job.locator("progress").count() == 1
    page.screenshot(path=pictures / "panel-job.png")
    job.get_by_role("button", name="Cancel").click()
    outputs = notebook.outputs(1)
    assert errors_of(outputs)[0].startswith("Interrupted")
    assert "by the user" in errors_of(outputs)[0]
    job.wait_for(state="detached")
    assert text_of(notebook.run(2)) == "42"


@pytest.mark.slow
def test_the_launcher_s_quickstart_runs_to_a_finished_report(page: Page, server: Lab, pictures: Path) -> None:
    opened(page, server)
    page.locator(".jp-LauncherCard", has_text="QNN notebook").click()
    page.wait_for_selector(".qnb-choices")
    page.screenshot(path=pictures / "templates.png")
    page.keyboard.press("Enter")
    notebook = Notebook(page)
    notebook.ready()
    sources = notebook.sources()
    assert sum(source.startswith("%qnn ") for source in sources) == 8
    command(page, "notebook:run-all-cells")
    assert errors_of(notebook.outputs(len(sources) - 1, 500)) == []
    wait_until(lambda: (server.root / "qnn-report.html").exists(), 60, "the report")
    for index, source in enumerate(sources):
        if source.startswith("%qnn"):
            assert errors_of(notebook.outputs(index)) == [], source


@pytest.mark.slow
@pytest.mark.parametrize("template", ["calibrate", "compare", "profile"])
def test_the_other_templates_run(page: Page, server: Lab, template: str) -> None:
    opened(page, server)
    command(page, "qnb:new-notebook", template=template)
    notebook = Notebook(page)
    notebook.ready()
    sources = notebook.sources()
    command(page, "notebook:run-all-cells")
    assert errors_of(notebook.outputs(len(sources) - 1, 500)) == []


def test_a_cell_is_inserted_by_the_palette_and_runs(page: Page, server: Lab, pictures: Path) -> None:
    nets.convolutions(server.root / "small net.onnx", layers=1, channels=4, size=8)
    opened(page, server, written(server, "insert.ipynb", "import qnb", "'last'"))
    notebook = Notebook(page)
    notebook.ready()
    notebook.activate(0)
    wait_until(
        lambda: page.evaluate("() => window.jupyterapp.commands.hasCommand('qnb:insert-cell')"), 60, "the commands"
    )
    pick(page, "Insert cell: export")
    page.wait_for_selector(".qnb-form")
    assert "SOURCE is missing" in page.inner_text(".qnb-preview")
    page.keyboard.press("Enter")  # is not taken: something is missing
    page.wait_for_selector(".qnb-form .qnb-problem")
    page.get_by_label("SOURCE", exact=True).fill("small net.onnx")
    page.get_by_label("Bind the result to").fill("model")
    page.get_by_text("Run the cell at once").click()
    assert page.inner_text(".qnb-preview code") == '%qnn export "small net.onnx" -o model'
    page.screenshot(path=pictures / "insert-cell.png")
    assert serious(page, ".jp-Dialog") == []
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Insert", exact=True).press("Enter")
    notebook.until(lambda: len(notebook.sources()) == 3, "the new cell")
    assert notebook.sources()[1:] == ['%load_ext qnb\n\n%qnn export "small net.onnx" -o model', "'last'"]
    outputs = notebook.outputs(1)
    assert errors_of(outputs) == []
    assert "Conv" in text_of(outputs) or "small" in text_of(outputs)


def test_the_widgets_event_inserts_a_cell_and_is_said_to_be_handled(page: Page, server: Lab) -> None:
    post = "source => !document.dispatchEvent(new CustomEvent('qnb:insert-cell', {detail: {source}, cancelable: true}))"
    opened(page, server)
    assert page.evaluate(post, "x = 1") is False  # there is no notebook
    command(page, "docmanager:open", path=written(server, "event.ipynb", "'above'", "'below'"))
    notebook = Notebook(page)
    notebook.ready()
    notebook.activate(0)
    assert page.evaluate(post, "%qnn doctor") is True
    notebook.until(lambda: notebook.sources() == ["'above'", "%qnn doctor", "'below'"], "the new cell")
    assert (
        page.evaluate("() => !document.dispatchEvent(new CustomEvent('qnb:insert-cell', {cancelable: true}))") is False
    )


def test_a_model_in_the_file_browser_is_compiled_for_several_socs(page: Page, server: Lab, pictures: Path) -> None:
    nets.convolutions(server.root / HOSTILE, layers=1, channels=4, size=8)
    (server.root / "notes.txt").write_text("no model")
    opened(page, server)
    page.locator(".jp-DirListing-item", has_text="notes.txt").click(button="right")
    labels = page.locator(".lm-Menu-item:not(.lm-mod-hidden) .lm-Menu-itemLabel")
    page.locator(".lm-Menu").wait_for()
    assert "Duplicate" in labels.all_inner_texts()
    assert "Compile for…" not in labels.all_inner_texts()
    page.keyboard.press("Escape")
    page.locator(".jp-DirListing-item", has_text="onerror").click(button="right")
    labels.filter(has_text="Compile for…").click()
    page.wait_for_selector(".qnb-form")
    for part in ("SM8650", "SM8550"):
        page.get_by_label("Search SoCs").last.fill(part)
        page.locator(".qnb-soc-checks label", has_text=part).first.locator("input").check()
    page.get_by_text("Run the cell at once").click()
    page.screenshot(path=pictures / "compile-for.png")
    assert serious(page, ".jp-Dialog") == []
    page.get_by_role("button", name="Insert", exact=True).click()
    notebook = Notebook(page)
    notebook.ready()
    outputs = notebook.outputs(0, 120)
    # The name is a hostile one: nothing in it was evaluated on its way, or there would be no such file.
    assert errors_of(outputs) == []
    assert {"SM8650", "SM8550"} <= set(text_of(outputs).split())
    assert page.evaluate("() => window.struck") is None


def test_names_are_shown_as_text_and_lead_to_their_files(page: Page, server: Lab, pictures: Path) -> None:
    nets.convolutions(server.root / HOSTILE, layers=1, channels=4, size=8)
    setup = (
        "import numpy as np, qnb\nmodel = qnb.export('net.onnx')\nmodel.save('kept/a model')\n"
        "data = np.random.default_rng(0).standard_normal((4, 4, 8, 8), dtype=np.float32)\n"
        "qnb.calibrate(model, data).save('kept/w8a8')"
    )
    nets.convolutions(server.root / "net.onnx", layers=1, channels=4, size=8)
    opened(page, server, written(server, "save.ipynb", setup))
    notebook = Notebook(page)
    notebook.ready()
    assert errors_of(notebook.run(0)) == []
    show_panel(page)
    entry = page.locator("#qnb-panel .qnb-files li[data-path='kept/a model']")
    entry.wait_for()
    made_of_it = entry.locator("li[data-path='kept/w8a8']")
    assert "4 samples" in made_of_it.locator(".qnb-facts").inner_text()
    shown = page.locator("#qnb-panel .qnb-files .qnb-link").all_inner_texts()
    assert HOSTILE.replace("\u202e", "\\u202e") in shown
    assert page.locator("#qnb-panel img").count() == 0
    assert page.evaluate("() => window.struck") is None
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    entry.get_by_role("button", name="Copy the line").first.click()
    assert page.evaluate("() => navigator.clipboard.readText()") == 'a_model = qnb.load("kept/a model")'
    page.screenshot(path=pictures / "panel-files.png")
    entry.locator(".qnb-link").first.click()
    page.wait_for_selector(".lm-TabBar-tab.jp-mod-current:has-text('result.json')")


def completions(page: Page, line: str) -> list[str]:
    """Type a line into the active cell and press Tab; give what the completer shows."""
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.keyboard.type(line)
    page.keyboard.press("Tab")
    page.wait_for_selector(".jp-Completer:not(.lm-mod-hidden) .jp-Completer-item")
    page.wait_for_timeout(300)
    shown = page.locator(".jp-Completer:not(.lm-mod-hidden) .jp-Completer-item .jp-Completer-match").all_inner_texts()
    page.keyboard.press("Escape")
    return shown


def test_completion_offers_ours_and_the_kernel_s_once(page: Page, server: Lab, pictures: Path) -> None:
    raw = json.dumps({"showDocumentationPanel": True, "providerTimeout": 30_000})
    ask(server, "PUT", "lab/api/settings/@jupyterlab/completer-extension:manager", {"raw": raw})
    path = written(server, "complete.ipynb", "import numpy as np\nimages = np.zeros((1, 4))\n%load_ext qnb", "'x'")
    opened(page, server, path)
    notebook = Notebook(page)
    notebook.ready()
    notebook.run(0)
    notebook.activate(1)
    assert sorted(completions(page, "%qnn con")) == ["context", "convert"]
    parts = completions(page, "%qnn context q --soc SM8")
    assert sorted(parts) == sorted(soc.part for soc in table() if soc.usable and soc.part.startswith("SM8"))
    options = completions(page, "%qnn calibrate images images --p")
    assert sorted(options) == ["--percentile", "--precision", "--preprocess"]
    assert "images" in completions(page, "%qnn calibrate model im")  # the kernel's own
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.type("%qnn calibrate images images --pre")
    page.keyboard.press("Tab")
    page.wait_for_selector(".jp-Completer-docpanel:has-text('w8a8')")
    page.screenshot(path=pictures / "completion.png")


@pytest.mark.parametrize("theme", THEMES)
def test_lines_are_coloured_and_read_well(page: Page, server: Lab, pictures: Path, theme: str) -> None:
    line = 'timing = %qnn profile quantized images[:4] --soc "Snapdragon 8 Gen 3" --runs=5  # once'
    text = 'text = """\n%qnn in a text is none\n"""\nrest = 7 % qnn'
    path = written(server, f"colours-{theme}.ipynb", line, "%%qnn profile q --runs 3\nhtp_config:\n  vtcm_mb: 4", text)
    opened(page, server, path, theme=THEMES[theme])
    Notebook(page).ready()
    page.wait_for_selector(".qnb-cm-magic")
    parts = page.evaluate(
        "() => [...document.querySelectorAll('[class*=qnb-cm-]')].map(n => [n.className.split('qnb-cm-')[1], n.innerText])"
    )
    roles = [role for role, _ in parts]
    assert roles[:10] == [
        "magic", "step", "argument", "argument", "option", "value", "option", "value", "comment", "magic",
    ]  # fmt: skip
    assert dict(map(tuple, parts[:9]))["comment"] == "# once"
    assert [text for role, text in parts if role == "magic"] == ["%qnn", "%%qnn"]
    page.locator(".jp-Notebook").screenshot(path=pictures / f"highlight-{theme}.png")
    colours = page.evaluate(
        "() => [...document.querySelectorAll('[class*=qnb-cm-]')]"
        ".map(n => getComputedStyle(n.querySelector('span') ?? n).color)"
    )
    assert len(set(colours)) >= 4


@pytest.mark.parametrize("theme", THEMES)
def test_the_panel_is_sound_for_assistive_technology(page: Page, server: Lab, pictures: Path, theme: str) -> None:
    nets.convolutions(server.root / "net.onnx", layers=1, channels=4, size=8)
    opened(page, server, theme=THEMES[theme])
    show_panel(page)
    page.wait_for_selector("#qnb-panel .qnb-doctor li")
    page.wait_for_selector("#qnb-panel .qnb-files li")
    page.set_viewport_size({"width": 900, "height": 1500})
    page.screenshot(path=pictures / f"panel-{theme}.png")
    assert serious(page, "#qnb-panel") == []


def test_it_looks_for_jobs_only_while_it_is_seen_and_asks_nobody_but_the_server(page: Page, server: Lab) -> None:
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    def looks() -> int:
        return sum("/qnb/jobs" in url for url in asked)

    page.on("request", note)
    opened(page, server)
    assert looks() == 0
    start = time.monotonic()
    show_panel(page)
    Notebook(page).until(lambda: looks() >= 4, "the fourth look")
    assert time.monotonic() - start > 5  # two seconds lie between two of them
    page.keyboard.press("Control+B")  # hides the side bar
    wait_until(lambda: not page.locator("#qnb-panel").is_visible(), 60, "the panel is hidden")
    page.wait_for_timeout(500)
    before = looks()
    page.wait_for_timeout(7000)
    assert looks() == before
    strangers = [url for url in asked if not url.startswith((server.url, "data:", "blob:"))]
    assert strangers == []


def test_the_menu_and_the_palette_have_every_command(page: Page, server: Lab) -> None:
    opened(page, server)
    steps = server.get("qnb/steps")["steps"]  # type: ignore[index]
    search(page, "Insert cell:")
    wanted = sorted(f"Insert cell: {step['name']}…" for step in steps)
    labels = page.locator(".lm-CommandPalette-itemLabel")
    wait_until(lambda: sorted(labels.all_inner_texts()) == wanted, 60, "a command for each step")
    page.keyboard.press("Escape")
    page.wait_for_selector(".lm-CommandPalette", state="hidden")
    command(page, "qnb:cancel-job")
    page.wait_for_selector(":text('Nothing runs that could be cancelled.')")
    page.locator(".lm-MenuBar-itemLabel", has_text="QNN").click()
    page.wait_for_selector(".lm-Menu .lm-Menu-itemLabel:text-is('Show the QNN panel')")
    menu = page.locator(".lm-Menu .lm-Menu-itemLabel").all_inner_texts()
    assert [label for label in menu if label] == [
        "New QNN notebook…",
        "Insert cell of a step…",
        "Compile for…",
        "Open a saved result…",
        "Cancel a running job…",
        "Show the QNN panel",
    ]
