"""What the runtime prints, captured live from it, and how it is read.

Oracle: the raw text of this very session, searched here by other means.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qnb
from qnb.runtime import client, logs
from qnb.runtime.locate import find_runtime
from qnb.runtime.options import BackendOptions, session_spec
from tests import nets
from tests.conftest import Digits


@pytest.fixture(scope="module")
def compiled(digits: Digits) -> Any:
    return qnb.context(digits.quantized, soc="SM8550", rebuild=True)


def test_stages_are_those_that_the_compiler_completed(compiled: Any) -> None:
    lines = [line.strip() for line in compiled.log.splitlines()]
    started = [line.removeprefix("Starting stage: ") for line in lines if line.startswith("Starting stage: ")]
    found = logs.stages(compiled.log)
    assert list(found) == started
    assert len(found) >= 5
    assert all(ms >= 0 for ms in found.values())
    assert 0 < sum(found.values()) < compiled.compile_ms
    assert compiled.stages == found


def test_ddr_traffic_is_what_the_summary_says(compiled: Any) -> None:
    found = logs.ddr_traffic(compiled.log)
    assert set(found) == {"spill", "fill", "write", "read"}
    for key, value in found.items():
        word = key if key in ("spill", "fill") else f"{key}_total"
        assert f"{word}_bytes={value}" in compiled.log
    weights = sum(array.size for array in _weights(compiled.parent))
    assert found["read"] > weights, "weights of a byte each have to be read"


def _weights(quantized: Any) -> Iterator[np.ndarray]:
    import onnx

    for tensor in onnx.load(quantized.path).graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.ndim > 1:
            yield array


def test_the_stage_in_work_is_the_last_that_was_begun(compiled: Any) -> None:
    whole = compiled.log
    assert logs.current_stage(whole) == ""
    for stage in logs.stages(whole):
        begun = whole[: whole.index(f"Starting stage: {stage}") + len(f"Starting stage: {stage}\n")]
        assert logs.current_stage(begun) == stage
    assert logs.current_stage("") == ""


def test_colours_and_noise_are_taken_out(compiled: Any) -> None:
    assert "\x1b" not in compiled.log
    assert "LIBNATIVE" not in compiled.log
    assert logs.clean("\x1b[0;93mword\x1b[m\r\nnext") == "word\nnext"


def test_what_the_runtime_refused_it_says_why(tmp_path: Path) -> None:
    from onnx import helper

    nodes = [helper.make_node("Relu", ["x"], ["r"], name="before"), helper.make_node("Det", ["r"], ["y"], name="odd")]
    path = tmp_path / "odd.onnx"
    model = nets.model(nodes, [nets.value("x", [1, 4, 4])], [nets.value("y", [1])])
    path.write_bytes(model.SerializeToString())
    spec = session_spec(str(path), "cpu", find_runtime(), strict=False, verbose=True)
    answer = client.call("place", {"spec": spec.plain()})
    refused = logs.refusals(answer.log)
    assert [logs.original_name(n) for r in refused for n in r.nodes] == ["odd"]
    assert all(r.reason for r in refused)
    assert all(r.reason.split()[0] in answer.log for r in refused)
    taken = {name: ep for ep, name, _ in answer.values["assignment"]}
    assert taken["odd"] == "CPUExecutionProvider"
    assert taken["before"] == "QNNExecutionProvider"


def test_errors_are_the_runtimes_own_words(tmp_path: Path) -> None:
    path = nets.convolutions(tmp_path / "net.onnx", layers=1, channels=4, size=8)
    options = BackendOptions(soc=qnb.socs.find("SM8650"))
    spec = session_spec(str(path), "htp", find_runtime(), options, extra={"backend_path": str(tmp_path / "none.so")})
    with pytest.raises(qnb.QnbError) as caught:
        client.call("load", {"spec": spec.plain()})
    said = logs.errors(caught.value.log)
    assert said
    assert said[-1] in caught.value.what
    assert not any(word.startswith("[E:") for word in said)
    assert len(said) == len(set(said))
