"""Adding runtimes, really: the wheel is installed and a worker runs on it.

Oracle: the ONNX Runtime in the worker, which says its own version.
"""

import subprocess
import sys

import pytest

from qnb.errors import RuntimeUnavailable, UnknownName
from qnb.runtime import install
from qnb.runtime.locate import find_runtime, library, runtimes_folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QNB_CACHE_DIR", str(tmp_path))


def test_an_added_runtime_runs_beside_the_environments_own():
    own = find_runtime()
    added = install.add("2.7.0")
    assert added == find_runtime("2.7.0")
    assert added.site == runtimes_folder() / "2.7.0"
    assert added.qairt == "2.51"
    assert library(added, "htp").is_relative_to(added.site)
    assert find_runtime() == own
    code = "import onnxruntime, onnxruntime_qnn; print(onnxruntime.__version__, onnxruntime_qnn.__file__)"
    said = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(added.site)}, capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith(install.PAIRS["2.7.0"])
    assert str(added.site) in said
    assert install.add("2.7.0") == added  # a second time it is found


def test_a_failing_pip_is_an_error_and_leaves_nothing():
    with pytest.raises(RuntimeUnavailable, match=r"pip could not install onnxruntime-qnn==2\.7\.0") as caught:
        install.add("2.7.0", pip=["--isolated", "--no-index"])
    assert "No matching distribution" in caught.value.log
    assert list(runtimes_folder().iterdir()) == []


def test_a_python_without_pip_is_told_what_to_do(tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    scripts = "Scripts" if sys.platform == "win32" else "bin"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / scripts / "python"))
    with pytest.raises(RuntimeUnavailable, match="has no pip") as caught:
        install.add("2.7.0")
    assert "ensurepip" in caught.value.hint


def test_an_unknown_version_is_refused():
    with pytest.raises(UnknownName, match=r"did you mean 2\.7\.0"):
        install.add("2.7.1")
