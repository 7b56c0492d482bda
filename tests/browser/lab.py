"""A real JupyterLab on loopback with the extension that was built from this tree, and Chromium to look at it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Playwright

from tests.processes import ROOT, wait_until

BUILT = ROOT / "qnb" / "labextension"
ENABLED = ROOT / "jupyter-config" / "jupyter_server_config.d"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_S = 60.0


def missing() -> str:
    """What stands in the way of browser tests here, in words; empty if nothing does."""
    if CHROMIUM is None:
        return "there is no Chromium here: tools/system.sh says how to get it"
    if not (BUILT / "package.json").exists():
        return "the extension is not built: make extension"
    return ""


@dataclass
class Lab:
    """A running server. Its root is an empty folder at first; what tests put there is seen in the file browser."""

    url: str
    token: str
    root: Path
    log: Path
    pid: int

    def address(self, path: str = "", app: str = "lab") -> str:
        """Where the page is: a file's page if a path below the root is given."""
        tree = f"/tree/{path}" if path else ""
        return f"{self.url}/{app}{tree}?token={self.token}&reset"

    def get(self, path: str) -> object:
        """Answer of a route, as JSON."""
        request = urllib.request.Request(f"{self.url}/{path}", headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())


@dataclass
class Watched:
    """What a page said on its console and where it failed."""

    errors: list[str] = field(default_factory=list)

    def attach(self, page: Page) -> None:
        """Listen to a page."""
        page.on("console", self._console)
        page.on("pageerror", self._thrown)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _thrown(self, error: Error) -> None:
        self.errors.append(error.stack or str(error))


@contextlib.contextmanager
def lab(
    folder: Path, cache: Path, command: list[str] | None = None, env: dict[str, str] | None = None
) -> Iterator[Lab]:
    """Run a server.

    Parameters
    ----------
    folder : Path
        Where its root, its settings and its log are put.
    cache : Path
        qnb's cache, for its kernels.
    command : list of str, optional
        What is started; the default is this Python's JupyterLab with the tree's own extension.
    env : dict of str, optional
        Environment of a `command` that brings its own extension.
    """
    root, token, port = folder / "root", secrets.token_hex(16), _free_port()
    root.mkdir(parents=True)
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    if env is None:
        linked = folder / "jupyter" / "labextensions"
        linked.mkdir(parents=True)
        (linked / "qnb").symlink_to(BUILT, target_is_directory=True)
        (folder / "config").mkdir()
        (folder / "config" / ENABLED.name).symlink_to(ENABLED, target_is_directory=True)
        env = {"JUPYTER_PATH": str(linked.parent), "PYTHONPATH": str(ROOT)}
    options = [
        f"--ServerApp.port={port}",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={root}",
        f"--IdentityProvider.token={token}",
        "--ServerApp.open_browser=False",
        "--ServerApp.allow_root=True",
        "--LabApp.expose_app_in_browser=True",
    ]
    log = folder / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [*(command or [sys.executable, "-m", "jupyterlab"]), *options],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "QNB_CACHE_DIR": str(cache),
                "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
                "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
                "JUPYTER_CONFIG_DIR": str(folder / "config"),
                **env,
            },
            start_new_session=True,
        )
        made = Lab(f"http://127.0.0.1:{port}", token, root, log, process.pid)
        try:
            wait_until(lambda: process.poll() is not None or _answers(made), START_S, "JupyterLab is up")
            assert process.poll() is None, log.read_text()
            yield made
        finally:
            _end(process)


def _answers(server: Lab) -> bool:
    with contextlib.suppress(OSError):
        return bool(server.get("api/status"))
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)  # it ends its kernels
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(playwright: Playwright) -> Browser:
    """Start the system's Chromium."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))


def opened(page: Page, server: Lab, path: str = "", *, theme: str = "") -> None:
    """Open JupyterLab, or a file in it, and wait until it is ready; then take a theme, where one is named."""
    page.goto(server.address(path))
    page.wait_for_function("() => window.jupyterapp?.restored.then(() => true)", timeout=60_000)
    page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=60_000)  # earlier it may not be there yet
    if theme:
        themed(page, theme)


def themed(page: Page, theme: str) -> None:
    """Take a theme; the server keeps it for the pages that follow."""
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme, timeout=60_000)
    # JupyterLab removes its cover twice, and throws, where the next theme is taken before it is off.
    page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=60_000)
