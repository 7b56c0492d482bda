"""The environment that Binder makes from ``binder/`` runs the quickstart in the memory that Binder gives.

conda is not needed: its Python is replaced by this one, and its ``pytorch-cpu`` by the wheel of the pinned torch. All
else is done as conda does it: the pip section goes into a requirements file beside environment.yml.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.notebooks.execution import MEMORY_LIMIT, ROOT, run_demo

BINDER = ROOT / "binder"
INSTEAD_OF_CONDA = {"python": None, "pip": None, "pytorch-cpu": "torch=={torch}"}


def pinned(name: str) -> str:
    match = re.search(rf"^{name}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M | re.I)
    assert match is not None
    return match[1]


def dependencies() -> tuple[list[str], list[str]]:
    """Give what conda installs, and what pip installs."""
    listed = yaml.safe_load((BINDER / "environment.yml").read_text())["dependencies"]
    return [d for d in listed if isinstance(d, str)], next(d["pip"] for d in listed if isinstance(d, dict))


def call(*words: str | Path, **kwargs: object) -> None:
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False, **kwargs)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("binder") / "prefix"
    call(sys.executable, "-m", "venv", prefix)
    python = prefix / ("Scripts" if os.name == "nt" else "bin") / "python"
    conda, pip = dependencies()
    wheels = [INSTEAD_OF_CONDA[re.split("[=<> ]", d)[0]] for d in conda]
    requirements = BINDER / "test.requirements.txt"
    quiet = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    try:
        call(python, *quiet, *(w.format(torch=pinned("torch")) for w in wheels if w))
        requirements.write_text("\n".join(pip) + "\n")
        call(python, *quiet, "-U", "-r", requirements, cwd=BINDER)
    finally:
        requirements.unlink(missing_ok=True)
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    call("bash", BINDER / "postBuild", cwd=ROOT, env={**os.environ, "PATH": path})
    yield python
    shutil.rmtree(prefix)  # over a gigabyte


def test_conda_is_asked_for_the_torch_of_the_constraints():
    conda, _ = dependencies()
    assert f"pytorch-cpu={'.'.join(pinned('torch').split('.')[:2])}" in conda


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(os.name == "nt", reason="Binder is Linux")
def test_the_quickstart_runs_in_it(environment, tmp_path):
    done = run_demo(environment, tmp_path / "out", tmp_path / "cache")
    print(f"quickstart on Binder: {done.seconds:.0f} s, peak {done.peak / 1e6:.0f} MB")
    assert done.code == 0, done.stderr
    assert done.peak < MEMORY_LIMIT
    assert (tmp_path / "out" / "00-quickstart.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Binder is Linux")
def test_jupyterlab_opens_with_the_quickstart(environment, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "HOME": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token=t"]
    log = tmp_path / "server.log"
    with log.open("w") as said:
        server = subprocess.Popen(
            [str(environment), "-m", "jupyterlab", *options], cwd=ROOT, env=env, stdout=said, stderr=said
        )
    try:
        opened = _opened(f"http://127.0.0.1:{port}/?token=t", server, log)
        assert opened.url.partition("?")[0].endswith("/lab/tree/notebooks/00-quickstart.ipynb")
        assert b"jupyter-config-data" in opened.read()
    finally:
        server.kill()
        server.wait(20)


def _opened(url: str, server: subprocess.Popen[bytes], log: Path) -> Any:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            return urllib.request.urlopen(url, timeout=30)
        except urllib.error.URLError:
            time.sleep(0.2)
