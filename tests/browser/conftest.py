"""Fixtures of the browser tests. Where CI is set, they fail instead of skipping."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.lab import Lab, Watched, lab, launch, missing

# Others may be at work on the machine; nothing waits longer than it has to.
WAIT_MS = 90_000


@pytest.fixture(scope="session")
def ready() -> None:
    if lacking := missing():
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)


@pytest.fixture(scope="session")
def server(ready: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    with lab(folder, folder / "cache") as running:
        yield running


@pytest.fixture(scope="session")
def browser(ready: None) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = launch(playwright)
        expect.set_options(timeout=WAIT_MS)
        yield started
        started.close()


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def page(browser: Browser, watched: Watched) -> Iterator[Page]:
    """A page of its own; an error on its console fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    made = context.new_page()
    made.set_default_timeout(WAIT_MS)
    watched.attach(made)
    yield made
    context.close()
    assert watched.errors == []


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where screenshots are written, for looking at."""
    folder = Path(os.environ.get("QNB_PICTURES", "build/pictures")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
