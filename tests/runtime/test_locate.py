"""What is there of runtimes and backends, and what is said where there is none.

Oracle: the installed wheels' own metadata and files; environments that really lack them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import site
import sys
from pathlib import Path

import numpy as np
import pytest

import qnb
from qnb.errors import RuntimeUnavailable, UnknownName
from qnb.runtime import locate
from tests.conftest import Digits
from tests.processes import output_of


def test_the_installed_runtime_is_found_without_importing_it(tmp_path: Path) -> None:
    runtime = locate.find_runtime()
    assert runtime.version == importlib.metadata.version("onnxruntime-qnn")
    assert runtime.onnxruntime == importlib.metadata.version("onnxruntime")
    spec = importlib.util.find_spec("onnxruntime_qnn")
    assert spec is not None
    assert spec.origin is not None
    assert runtime.folder == Path(spec.origin).parent
    assert runtime.library("htp") is not None
    assert locate.find_runtime(runtime.version) == runtime
    code = "import sys; from qnb.runtime import locate; locate.find_runtime(); print('onnxruntime' in sys.modules)"
    assert output_of(code, cache=tmp_path).split() == ["False"]


@pytest.mark.parametrize("name", ["htp", "cpu", "ir", "ep"])
def test_the_libraries_are_those_of_the_wheel(name: str) -> None:
    path = locate.find_runtime().library(name)
    assert path is not None
    assert path in {Path(str(f.locate())).resolve() for f in importlib.metadata.files("onnxruntime-qnn") or ()}


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(UnknownName, match=r"'2\.2\.0'") as caught:
        locate.find_runtime("2.2.0")
    assert "qnb runtime add" in caught.value.hint


def test_a_library_that_the_wheel_lacks(tmp_path: Path) -> None:
    empty = locate.Runtime("2.7.0", "2.51", "1.31.1", tmp_path)
    with pytest.raises(RuntimeUnavailable, match=r"2\.7\.0 has no cpu backend") as caught:
        locate.library(empty, "cpu")
    assert "2.3.0" in caught.value.hint


@pytest.fixture(scope="module")
def bare_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of this environment's packages but the runtimes: a folder of links."""
    if sys.platform == "win32":
        pytest.skip("links need a privilege on Windows")
    folder = tmp_path_factory.mktemp("bare")
    for place in site.getsitepackages():
        for entry in Path(place).iterdir():
            if not entry.name.lower().startswith(("onnxruntime", "qnb", "__editable__", "distutils-precedence")):
                (folder / entry.name).symlink_to(entry)
    return folder


BARE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import qnb
from qnb.errors import RuntimeUnavailable
"""


def test_without_a_runtime_every_step_says_so_and_saved_results_open(
    bare_site: Path, saved: Path, tmp_path: Path
) -> None:
    code = (
        BARE
        + """
quantized = qnb.load(sys.argv[2] + "/quantized")
context = qnb.load(sys.argv[2] + "/context")
assert "encodings" in str(quantized) and "KiB" in str(context)
assert quantized.to_html() and context.plot()
model, x = quantized.parent, __import__("numpy").zeros((1, 1, 8, 8), "float32")
calls = dict(
    export=lambda: qnb.export(model.path), convert=lambda: qnb.convert(model), calibrate=lambda: qnb.calibrate(model, x),
    context=lambda: qnb.context(quantized), infer=lambda: qnb.infer(context, x), profile=lambda: qnb.profile(quantized),
    compare=lambda: qnb.compare(quantized),
)
for name, call in calls.items():
    try:
        call()
    except RuntimeUnavailable as error:
        assert "no QNN runtime" in error.what, error.what
        assert "pip install onnxruntime-qnn" in error.hint, error.hint
        print(name)
frame = qnb.doctor().frame.set_index("component")
print(frame.loc["runtime", "state"], "pip" in frame.loc["runtime", "remedy"], "backend" in frame.index)
"""
    )
    out = output_of(code, bare_site, saved, cache=tmp_path, prefix=(sys.executable, "-S", "-c", RERUN))
    *steps, doctor = out.splitlines()
    assert steps == ["export", "convert", "calibrate", "context", "infer", "profile", "compare"]
    assert doctor.split() == ["missing", "True", "False"]


RERUN = """
import os, sys
# Runs the command that follows without the environment's own packages.
command = sys.argv[1:]
os.execv(command[0], [command[0], "-S", *command[1:]])
"""


def test_a_runtime_of_which_half_is_missing_is_none(bare_site: Path, tmp_path: Path) -> None:
    """The wheel is there, and the ONNX Runtime that it needs is not."""
    folder = tmp_path / "half"
    folder.mkdir()
    for place in site.getsitepackages():
        for entry in Path(place).glob("onnxruntime_qnn*"):
            (folder / entry.name).symlink_to(entry)
    code = (
        BARE
        + """
sys.path.insert(0, sys.argv[2])
from qnb.runtime import locate
assert locate.runtimes() == []
print(__import__("importlib.util").util.find_spec("onnxruntime_qnn") is not None)
"""
    )
    out = output_of(code, bare_site, folder, cache=tmp_path, prefix=(sys.executable, "-S", "-c", RERUN))
    assert out.split() == ["True"]


def test_a_runtime_that_is_being_installed_is_not_offered(cache_folder: Path) -> None:
    base = locate.runtimes_folder()
    source = locate.find_runtime().folder.parent
    for name in ("9.9.9", ".9.9.8.abc.part"):
        (base / name).mkdir(parents=True)
        for entry in source.glob("onnxruntime*"):
            (base / name / entry.name).symlink_to(entry)
    (base / "junk").mkdir()
    (base / "file").write_text("")
    found = locate.runtimes()
    assert [r.site for r in found] == [None, base / "9.9.9"]


def test_an_added_runtime_serves(cache_folder: Path, digits: Digits) -> None:
    """One in a folder of its own; here the same wheels again."""
    site_folder = locate.runtimes_folder() / "2.3.0-again"
    site_folder.mkdir(parents=True)
    for entry in locate.find_runtime().folder.parent.glob("onnxruntime*"):
        (site_folder / entry.name).symlink_to(entry)
    (added,) = [r for r in locate.runtimes() if r.site]
    from qnb.runtime import client

    with client.borrow(added) as worker:
        from qnb.runtime.options import session_spec

        spec = session_spec(str(digits.model.path), "cpu", added)
        assert str(site_folder) in spec.provider_options["backend_path"]
        answer = worker.call("run", {"spec": spec.plain(), "count": 1}, {"image": digits.test[None, :1]})
    expected = qnb.infer(digits.model, digits.test[:1], backend="cpu")
    np.testing.assert_array_equal(answer.arrays["logits"][0], expected["logits"])


@pytest.mark.skipif(locate.snapdragon_host(), reason="for hosts without an Adreno")
def test_the_gpu_of_an_ordinary_host(digits: Digits) -> None:
    result = qnb.infer(digits.model, digits.test[:4], backend="gpu")
    assert set(result.frame["source"]) == {"reference"}
    assert set(result.frame["precision"]) == {"fp16"}
    assert any("no Adreno" in note for note in result.notes)
    from qnb.runtime import client
    from qnb.runtime.options import session_spec

    spec = session_spec(str(digits.model.path), "gpu", locate.find_runtime())
    with pytest.raises(RuntimeUnavailable, match="gpu does not start here"):
        client.call("probe", {"spec": spec.plain()})
