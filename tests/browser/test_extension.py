"""The extension in JupyterLab: listed, active, and silent on the console.

Oracle: JupyterLab's own list of extensions, in a real browser.
"""

from __future__ import annotations

import json

from playwright.sync_api import Page

import qnb
from tests.browser.lab import Lab, opened
from tests.processes import ROOT


def test_it_is_listed_and_active_without_a_word_on_the_console(page: Page, server: Lab) -> None:
    opened(page, server)
    listed = page.evaluate(
        "() => JSON.parse(document.getElementById('jupyter-config-data').textContent).federated_extensions"
    )
    assert "qnb" in [each["name"] for each in listed]
    ours = page.evaluate("() => window.jupyterapp.listPlugins().filter(id => id.startsWith('qnb:'))")
    assert ours
    for plugin in ours:
        assert page.evaluate("id => window.jupyterapp.isPluginActivated(id)", plugin), plugin


def test_both_halves_have_one_version() -> None:
    package = json.loads((ROOT / "extension" / "package.json").read_text())
    lock = json.loads((ROOT / "extension" / "package-lock.json").read_text())
    assert package["version"] == lock["version"] == lock["packages"][""]["version"] == qnb.__version__
