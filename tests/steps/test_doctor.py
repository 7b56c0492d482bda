"""Doctor: each row is looked up anew, by importlib.metadata, the file system and the wheel's own folder."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path

import pytest

import qnb
from qnb.runtime.locate import snapdragon_host

STATES = {"ok", "limited", "missing", "failed"}


def rows(result):
    return {(r.component, r.name): r for r in result.frame.itertuples()}


def test_every_row_has_a_state_and_what_is_not_well_a_reason_and_a_remedy(walk):
    frame = walk["doctor"].frame
    assert list(frame.columns) == ["component", "name", "state", "version", "detail", "remedy"]
    assert set(frame["state"]) <= STATES
    unwell = frame[frame["state"] != "ok"]
    assert (unwell["remedy"].str.len() > 0).all()
    assert (unwell["detail"].str.len() > 0).all()
    assert "ok" in walk["doctor"].title


def test_versions_are_the_installed_ones(walk):
    found = rows(walk["doctor"])
    for name in ("onnxruntime", "onnxruntime-qnn", "onnx", "numpy", "pandas", "torch"):
        assert found["package", name].version == importlib.metadata.version(name)


@pytest.mark.skipif(snapdragon_host(), reason="for hosts that are no Snapdragon")
def test_backends_of_the_default_runtime_on_an_ordinary_host(walk):
    found = rows(walk["doctor"])
    spec = importlib.util.find_spec("onnxruntime_qnn")
    assert spec is not None
    libraries = {p.name for p in Path(spec.submodule_search_locations[0]).iterdir()}
    assert {"libQnnHtp.so", "libQnnCpu.so"} <= libraries
    assert found["backend", "htp (2.3.0)"].state == "ok"
    assert "simulator" in found["backend", "htp (2.3.0)"].detail
    assert found["backend", "cpu (2.3.0)"].state == "ok"
    gpu = found["backend", "gpu (2.3.0)"]
    assert gpu.state == "limited"
    assert "no Adreno" in gpu.detail
    assert "reference" in gpu.detail
    # what the runtime itself printed when it was asked for the GPU
    assert "CANNOT_INITIALIZE" in walk["doctor"].log


def test_the_cache_is_where_it_was_set_to(tmp_path, monkeypatch):
    monkeypatch.setenv("QNB_CACHE_DIR", str(tmp_path / "c"))
    row = rows(qnb.doctor())["cache", str(tmp_path / "c")]
    assert row.state == "ok"
    assert row.detail.startswith("0 entries")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QNB_CACHE_DIR", str(tmp_path / "file"))
    row = rows(qnb.doctor())["cache", str(tmp_path / "file")]
    assert row.state == "failed"
    assert row.remedy


def test_sdk_not_set_missing_and_empty(tmp_path, monkeypatch):
    tools = ("qnn-onnx-converter", "qnn-model-lib-generator", "qnn-context-binary-generator", "qnn-net-run")
    assert not any(map(shutil.which, tools)), "for machines without an SDK"
    monkeypatch.delenv("QAIRT_SDK_ROOT", raising=False)
    monkeypatch.delenv("QNN_SDK_ROOT", raising=False)
    found = rows(qnb.doctor())
    assert found["sdk", "QNN_SDK_ROOT"].state == "missing"
    assert not any(component == "sdk tool" for component, _ in found)

    monkeypatch.setenv("QNN_SDK_ROOT", str(tmp_path / "nowhere"))
    found = rows(qnb.doctor())
    assert found["sdk", "QNN_SDK_ROOT"].state == "failed"
    assert str(tmp_path / "nowhere") in found["sdk", "QNN_SDK_ROOT"].detail

    (tmp_path / "2.47.0").mkdir()
    monkeypatch.setenv("QNN_SDK_ROOT", str(tmp_path / "2.47.0"))
    found = rows(qnb.doctor())
    assert found["sdk", "QNN_SDK_ROOT"].version == "2.47.0"
    for tool in tools:
        assert found["sdk tool", tool].state == "missing"
        assert "bin" in found["sdk tool", tool].detail


def test_a_tool_of_the_sdk_that_does_not_start_is_no_good_tool(tmp_path, monkeypatch):
    """A file under a tool's name, of the wrong kind: what an SDK for another platform looks like."""
    folder = tmp_path / "sdk" / "bin" / "aarch64-android"
    folder.mkdir(parents=True)
    (folder / "qnn-net-run").write_bytes(b"\x7fELF not for this machine")
    (folder / "qnn-net-run").chmod(0o755)
    monkeypatch.setenv("QNN_SDK_ROOT", str(tmp_path / "sdk"))
    row = rows(qnb.doctor())["sdk tool", "qnn-net-run"]
    assert row.state == "failed"
    assert "platform" in row.remedy


def test_one_runtime_alone():
    frame = qnb.doctor(runtime="2.3.0").frame
    assert list(frame[frame["component"] == "runtime"]["name"]) == ["2.3.0"]
    row = rows(qnb.doctor(runtime="9.9"))["runtime", "9.9"]
    assert row.state == "missing"
    assert "qnb runtime add 9.9" in row.remedy


def test_an_unusable_default_soc_is_said_not_raised(monkeypatch):
    monkeypatch.setattr(qnb.settings, "soc", "SDM845")
    row = rows(qnb.doctor())["backend", "htp (2.3.0)"]
    assert row.state == "failed"
    assert "SDM845" in row.detail
