"""What the runtime prints and writes, captured live from it, and how it is read.

Oracle: the raw text of this very session, searched here by other means; arithmetic on its own totals.
"""

from __future__ import annotations

import csv
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


@pytest.fixture(scope="module")
def profiled(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A profile that the runtime has just written, of three inferences."""
    path = tmp_path_factory.mktemp("profile") / "profile.csv"
    context = digits.contexts["SM8650"]
    extra = {"profiling_level": "detailed", "profiling_file_path": str(path)}
    spec = session_spec(str(context.path), "htp", find_runtime(), BackendOptions(soc=context.soc), extra=extra)
    client.call("profile_ops", {"spec": spec.plain(), "csv": str(path), "runs": 3}, {"image": digits.test[:1]})
    return path, 3


def test_a_profile_has_one_block_for_each_inference(profiled: tuple[Path, int]) -> None:
    path, runs = profiled
    found = logs.executions(logs.read_profile(path))
    assert len(found) == runs
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    identifiers = [row["Event Identifier"] for row in rows]
    assert identifiers.count("QNN (execute) time") == runs
    cycles = [int(r["Time"]) for r in rows if r["Event Identifier"] == "Accelerator (execute) time (cycles)"]
    assert [e.cycles for e in found] == cycles
    ops = [r for r in rows if "OpId_" in r["Event Identifier"] and r["Event Identifier"].endswith("(cycles)")]
    assert sum(len(e.ops) for e in found) == len(ops)
    assert sum(v for e in found for _, v in e.ops) == sum(int(r["Time"]) for r in ops)


def test_ops_take_no_more_than_the_graph(profiled: tuple[Path, int], digits: Digits) -> None:
    path, _ = profiled
    for execution in logs.executions(logs.read_profile(path)):
        assert 0 < sum(value for _, value in execution.ops) <= execution.cycles * 1.01
        assert 0 < execution.accelerator_us <= execution.qnn_us
        names = {logs.original_name(name) for name, _ in execution.ops}
        assert set(digits.model.frame.loc[digits.model.frame["op_type"] == "Conv", "op"]) <= names


@pytest.mark.parametrize("cut", [0, 1, 100, 2000, -1, -50])
def test_a_profile_that_was_cut_off_gives_what_it_holds(cut: int, profiled: tuple[Path, int], tmp_path: Path) -> None:
    path, runs = profiled
    part = tmp_path / "part.csv"
    part.write_bytes(path.read_bytes()[:cut])
    assert len(logs.executions(logs.read_profile(part))) <= runs
