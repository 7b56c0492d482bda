"""The compiler's own performance estimate, asked for in a worker.

Oracle: the profile that the compiler wrote, its raw text searched here; what must hold of any cost: more work costs more,
8 bits less than 16, the bytes read are at least the weights; and the backend's own placement.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import qnb
from qnb import cache
from qnb.errors import BadInput, CompileError, PlacementError
from qnb.runtime import client
from qnb.runtime.locate import find_runtime
from qnb.runtime.options import BackendOptions, session_spec
from qnb.steps._costing import COST_MODELS, Cost, compiler_cost
from tests import nets
from tests.conftest import Digits
from tests.fixtures.make_profiles import split


def raw_profile(cost_entries: set[Path]) -> str:
    (folder,) = {p for p in (cache.root() / "costs").iterdir() if p.is_dir()} - cost_entries
    return (folder / "profile.csv").read_text()


@pytest.mark.parametrize("soc_model", COST_MODELS)
def test_figures_are_those_that_the_compiler_wrote(soc_model: Any, digits: Digits, cache_folder: Path) -> None:
    found = compiler_cost(digits.quantized, soc_model)
    text = raw_profile(set())

    def figure(identifier: str) -> int:
        (value,) = re.findall(rf",(\d+),\w+,BACKEND,SUB-EVENT,{re.escape(identifier)}$", text, re.MULTILINE)
        return int(value)

    estimate = found.estimate
    assert estimate.cycles == figure("Simulated (Accelerator exec cycles)") > 0
    assert estimate.lower == figure("Simulated (Accelerator exec cycles (lower estimate))")
    assert estimate.upper == figure("Simulated (Accelerator exec cycles (upper estimate))")
    assert estimate.lower < estimate.cycles < estimate.upper
    assert estimate.input_fill_bytes == figure("Input Fill")
    assert estimate.output_spill_bytes == figure("Output Spill")
    assert estimate.missing_ops == len(estimate.missing_names) == 0
    assert (found.soc_model, found.precision, found.cpu_ops) == (soc_model, "w8a8", ())
    assert found.compile_s > 0
    assert found.binary_bytes > 32 * 16 * 64  # its largest layer has so many weights of a byte
    assert estimate.input_fill_bytes > 32 * 16 * 64
    assert sum(found.stages_ms.values()) < 1000 * found.compile_s
    assert not any(p.name.endswith(".bin") for p in (cache.root() / "costs").rglob("*"))


def test_the_second_question_is_answered_from_the_cache(digits: Digits, cache_folder: Path) -> None:
    first = compiler_cost(digits.model)
    assert not first.cached
    workers = len(client.workers())
    second = compiler_cost(digits.model)
    assert second.cached
    assert len(client.workers()) == workers
    assert (second.estimate, second.cpu_ops, second.stages_ms) == (first.estimate, first.cpu_ops, first.stages_ms)
    assert compiler_cost(digits.quantized).estimate != first.estimate


def test_the_cost_is_the_same_each_time_it_is_asked(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = []
    for name in ("one", "two"):
        monkeypatch.setenv("QNB_CACHE_DIR", str(tmp_path / name))
        costs.append(compiler_cost(digits.quantized))
    assert costs[0].estimate == costs[1].estimate
    assert costs[0].binary_bytes == costs[1].binary_bytes


def test_more_work_costs_more_and_fewer_bits_less(tmp_path: Path) -> None:
    import numpy as np

    def cost(channels: int, quantize: bool) -> Cost:
        path = nets.convolutions(tmp_path / f"{channels}.onnx", layers=4, channels=channels, size=32)
        model = qnb.export(path, simplify=False)
        rng = np.random.default_rng(0)
        data = rng.standard_normal((2, *model.inputs[0].shape[1:])).astype(np.float32)
        return compiler_cost(qnb.calibrate(model, data) if quantize else model)

    small, large, quantized = cost(32, False), cost(128, False), cost(128, True)
    assert small.precision == "fp16"
    assert large.estimate.cycles > 2 * small.estimate.cycles
    assert quantized.estimate.cycles < large.estimate.cycles
    assert quantized.estimate.input_fill_bytes < large.estimate.input_fill_bytes


def test_of_a_context_its_parent_is_costed(digits: Digits) -> None:
    assert compiler_cost(digits.contexts["SM8350"]).estimate == compiler_cost(digits.quantized).estimate


def test_ops_that_stay_on_the_cpu_are_named(tmp_path: Path) -> None:
    path = tmp_path / "split.onnx"
    path.write_bytes(split().SerializeToString())
    found = compiler_cost(qnb.export(path, simplify=False))
    assert found.cpu_ops == (("on_the_cpu", "Det"),)
    assert found.ops == 4
    assert found.estimate.graphs == 2


def test_a_model_of_which_the_npu_takes_nothing_has_no_cost(tmp_path: Path) -> None:
    from onnx import helper

    path = tmp_path / "det.onnx"
    node = helper.make_node("Det", ["x"], ["y"], name="odd")
    path.write_bytes(nets.model([node], [nets.value("x", [1, 4, 4])], [nets.value("y", [1])]).SerializeToString())
    with pytest.raises(PlacementError, match=r"no node of .* can be compiled for the NPU") as caught:
        compiler_cost(qnb.export(path, simplify=False))
    assert caught.value.hint


def test_an_id_without_a_cost_model_is_refused(digits: Digits, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no cost model of soc_model 57") as caught:
        compiler_cost(digits.quantized, 57)  # type: ignore[arg-type]
    assert "52" in caught.value.hint
    runtime = find_runtime()
    spec = session_spec(str(digits.quantized.path), "htp", runtime, BackendOptions(soc=qnb.socs.find("SM8650")))
    with pytest.raises(CompileError, match=r"no performance estimate of .* for soc_model 57") as refused:
        client.call("estimate_cost", {"spec": spec.plain(), "csv": str(tmp_path / "profile.csv")})
    assert "52" in refused.value.hint


def test_a_profile_that_lies_there_already_is_not_read_again(digits: Digits, tmp_path: Path) -> None:
    """The runtime appends to a file that it finds."""
    csv = tmp_path / "profile.csv"
    options = BackendOptions(soc=qnb.socs.find(52))
    spec = session_spec(str(digits.quantized.path), "htp", find_runtime(), options).plain()
    first, second = (client.call("estimate_cost", {"spec": spec, "csv": str(csv)}).values for _ in range(2))
    assert (first["cycles"], first["graphs"]) == (second["cycles"], second["graphs"])
    assert first["graphs"] == 1
    assert list(tmp_path.glob("*.bin")) == []
