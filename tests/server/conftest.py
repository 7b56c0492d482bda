"""A real Jupyter Server in a process of its own, with a token, on the loopback interface."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Digits
from tests.processes import ROOT, wait_until

pytest.importorskip("jupyter_server")

TOKEN = "a-token-of-the-tests"
MAX_MB = 64
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Reply:
    status: int
    body: Any
    type: str


@dataclass(frozen=True)
class Server:
    """A running server: where it is, its files, its state, and its process."""

    url: str
    root: Path
    state: Path
    log: Path
    process: subprocess.Popen[bytes]

    def ask(self, method: str, route: str, body: Any = None, token: str = TOKEN, **query: str) -> Reply:
        """Send a request; an error of HTTP is a reply too."""
        address = f"{self.url}lab/{route}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"token {token}"} if token else {}
        request = urllib.request.Request(address, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return _reply(answer.status, answer.read(), answer.headers.get("Content-Type", ""))
        except urllib.error.HTTPError as error:
            with error:
                return _reply(error.code, error.read(), error.headers.get("Content-Type", ""))

    def view(self, path: str) -> Reply:
        return self.ask("GET", "qnb/view", path=path)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None and self.ask("GET", "qnb/socs").status == 200


def _reply(status: int, content: bytes, kind: str) -> Reply:
    text = content.decode()
    return Reply(status, json.loads(text) if "json" in kind and text else text, kind)


@pytest.fixture(scope="session")
def server(session_folder: Path, digits: Digits) -> Iterator[Server]:
    folder = session_folder / "server"
    root, state, log = folder / "root", folder / "state", folder / "log"
    for each in (root, state, folder / "home"):
        each.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "QNB_STATE_DIR": str(state),
        **{f"JUPYTER_{name}_DIR": str(folder / "home" / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")},
    }
    command = [
        sys.executable, "-m", "jupyter_server", "--ServerApp.jpserver_extensions={'qnb.server': True}",
        f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={root}", f"--ServerApp.port={port}",
        "--ServerApp.ip=127.0.0.1", "--ServerApp.base_url=/lab/", "--no-browser", "--allow-root",
        "--ServerApp.open_browser=False", "--ServerApp.port_retries=0",
        f"--QnbServer.max_file_mb={MAX_MB}", f"--QnbServer.timeout_s={TIMEOUT_S}",
    ]  # fmt: skip
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=folder) as process,
    ):
        found = Server(f"http://127.0.0.1:{port}/", root, state, log, process)

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return found.ask("GET", "qnb/jobs").status == 200
            except OSError:
                return False

        try:
            wait_until(answers, 60, "a server that answers")
            yield found
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def folder(server: Server, request: pytest.FixtureRequest) -> Path:
    """A folder of one test under the server's root."""
    made = server.root / "".join(c if c.isalnum() else "-" for c in request.node.name)[:80]
    made.mkdir(exist_ok=True)
    return made
