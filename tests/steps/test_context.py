"""Context. Oracles: the files on disk, the table of SoCs, the compiler's own log, and what the simulator then computes."""

from __future__ import annotations

import hashlib
import multiprocessing
import sys
from concurrent.futures import Executor, Future, ProcessPoolExecutor

import numpy as np
import pytest

import qnb
from qnb.errors import BadConfig, BadInput, PlacementError, UnknownName
from qnb.runtime import client
from qnb.runtime.locate import find_runtime
from qnb.socs import find
from tests.processes import wait_until, workers_under


def test_size_digest_and_target_are_those_of_the_file(digits):
    for part, context in digits.contexts.items():
        content = context.binary.read_bytes()
        assert context.size_bytes == len(content)
        assert context.digest == hashlib.sha256(content).hexdigest()
        row = context.frame.iloc[0]
        assert row["size_kb"] == len(content) / 1024
        assert (row["soc"], row["arch"], row["soc_model"]) == (part, find(part).arch, find(part).soc_model)
        assert row["vtcm_mb"] == find(part).vtcm_mb
        assert row["precision"] == "w8a8"
        assert row["digest"] == context.digest[:12]


@pytest.mark.skipif(find_runtime().version != "2.3.0", reason="later runtimes print no such figures")
def test_compile_stages_and_ddr_traffic_are_read_from_what_the_compiler_printed(digits):
    for context in digits.contexts.values():
        assert len(context.stages) >= 3
        for stage in context.stages:
            assert f"Completed stage: {stage} (" in context.log
        assert 0 < sum(context.stages.values()) <= context.compile_ms
        assert set(context.ddr) == {"read", "write", "spill", "fill"}
        assert f"read_total_bytes={context.ddr['read']}" in context.log
        assert context.ddr["read"] >= digits.model.parameters * 0.9  # every weight is read at least once
        assert "DDR traffic is what the compiler plans for one inference" in context.notes
        assert list(context.tables()) == [context.title, "compile time by stage"]
    assert context.frame["ddr_read_kb"][0] == context.ddr["read"] / 1024
    assert context.frame[["source", "ddr_source"]].to_numpy().tolist() == [["host", "estimate"]]


def test_rebuild_compiles_again(digits, cache_folder):
    assert not qnb.context(digits.quantized).cached
    assert qnb.context(digits.quantized).cached
    assert not qnb.context(digits.quantized, rebuild=True).cached


def test_a_damaged_cache_entry_is_compiled_anew(digits, cache_folder):
    first = qnb.context(digits.quantized)
    first.files["binary"].write_bytes(b"damaged")
    again = qnb.context(digits.quantized)
    assert not again.cached
    assert qnb.infer(again, digits.test[:2]).frame["sqnr_db"][0] > 20


def test_options_are_part_of_what_is_cached(digits):
    base = qnb.context(digits.quantized)
    small = qnb.context(digits.quantized, vtcm_mb=2)
    assert small.vtcm_mb == small.frame["vtcm_mb"][0] == 2
    assert small.files["binary"] != base.files["binary"]
    quick = qnb.context(digits.quantized, optimization=1)
    assert quick.files["binary"] not in (base.files["binary"], small.files["binary"])
    said = qnb.context(digits.quantized, config={"graphs": [{"vtcm_mb": 2}], "devices": [{"soc_model": 57}]})
    assert said.cached
    assert said.digest == small.digest


@pytest.mark.parametrize("soc", ["SM8650", 57, "57", "Snapdragon 8 Gen 3", "8 gen 3", "sm8650"])
def test_an_soc_has_many_names(digits, soc):
    context = qnb.context(digits.quantized, soc=soc)
    assert context.soc.part == "SM8650"
    assert context.cached


def test_several_socs_and_how_they_are_found_again(digits):
    many = qnb.context(digits.quantized, soc="SM8650, SM8550,30")
    assert [c.soc.part for c in many] == ["SM8650", "SM8550", "SM8350"]
    assert list(many.frame["soc"]) == ["SM8650", "SM8550", "SM8350"]
    assert many["SM8550"] is many["Snapdragon 8 Gen 2"] is many[1]
    assert len(many) == 3
    assert len(qnb.context(digits.quantized, soc=["SM8650"])) == 1
    with pytest.raises(UnknownName, match="SM8450"):
        many["SM8450"]
    with pytest.raises(UnknownName, match="nonsense"):
        many["nonsense"]
    with pytest.raises(BadInput, match="one is wanted"):
        qnb.infer(many, digits.test)
    np.testing.assert_array_equal(
        qnb.infer(many["SM8350"], digits.test[:4])["logits"], qnb.infer(digits.contexts["SM8350"], digits.test[:4])["logits"]
    )  # fmt: skip


def test_parts_that_share_an_id_share_a_binary(digits, cache_folder):
    one, other, third = qnb.context(digits.quantized, soc=["SM8350", "SM8350P", "SM8650"])
    assert one.soc.soc_model == other.soc.soc_model == 30
    assert one.digest == other.digest
    assert (one.soc.part, other.soc.part, third.soc.part) == ("SM8350", "SM8350P", "SM8650")


class _Counting(Executor):
    """Runs at once what it is given, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def submit(self, function, /, *args, **kwargs):
        self.count += 1
        future: Future = Future()
        future.set_result(function(*args, **kwargs))
        return future


def test_any_executor_is_used(digits, cache_folder):
    executor = _Counting()
    qnb.context(digits.quantized, soc=["SM8650", "SM8350"], executor=executor)
    assert executor.count == 2


@pytest.mark.filterwarnings("default")  # of the children, which import what this process has
def test_processes_of_their_own_as_executor(digits, cache_folder):
    socs = ["SM8650", "SM8550", "SM8350"]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        many = qnb.context(digits.quantized, soc=socs, executor=executor)
        assert [c.soc.part for c in many] == socs
        assert not any(c.cached for c in many)
        assert all(c.binary.is_relative_to(cache_folder) for c in many)
        with pytest.raises(PlacementError, match="fp16"):
            qnb.context(digits.model, soc=["SM8650", "SM7325"], executor=executor)
    assert qnb.context(digits.quantized, soc="SM8550").cached
    if sys.platform == "linux":
        mine = {w.pid for w in client.workers()}
        wait_until(
            lambda: set(workers_under(cache_folder)) <= mine, 5, "end of the workers of the executor's processes"
        )


def test_a_float_model_becomes_fp16_where_the_npu_takes_it(digits):
    context = qnb.context(digits.model)
    assert context.precision == "fp16"
    ran = qnb.infer(context, digits.test[:20])
    assert ran.frame["precision"][0] == "fp16"
    with pytest.raises(PlacementError, match="takes no fp16") as caught:
        qnb.context(digits.model, soc="SM7325")
    assert "calibrate" in caught.value.hint


def test_fp32_on_the_npu_is_said_to_be_the_simulators_alone(digits):
    context = qnb.context(digits.model, fp32=True)
    assert (context.precision, context.soc.part) == ("fp32", "SM8350")
    ran = qnb.infer(context, digits.test[:10])
    assert ran.frame["sqnr_db"][0] > 110  # 24 bits of mantissa
    for result in (context, ran):
        assert any("simulator only" in note for note in result.notes)
    for soc in ("SM8650", "SM7325"):
        with pytest.raises(PlacementError, match="not in fp32"):
            qnb.context(digits.model, fp32=True, soc=soc)
    with pytest.raises(BadInput, match="for float models"):
        qnb.context(digits.quantized, fp32=True)


@pytest.mark.parametrize("soc", ["SM8850", "SM8750", "SM8650", "SM8550", "SM8450", "SA8295"])  # v81 to v68
def test_what_is_called_fp16_is_computed_in_fp16(digits, soc):
    """Whatever the worker computed before: 11 bits of mantissa are 50 to 80 dB, 24 bits are over 110."""
    qnb.infer(digits.model, digits.test[:2], fp32=True)
    ran = qnb.infer(digits.model, digits.test[:10], soc=soc)
    assert ran.frame["precision"][0] == "fp16"
    assert 50 < ran.frame["sqnr_db"][0] < 80


def test_what_can_not_be_compiled(digits):
    with pytest.raises(BadInput, match="compiled already"):
        qnb.context(digits.contexts["SM8650"])
    with pytest.raises(BadConfig, match="has 8 MiB"):
        qnb.context(digits.quantized, vtcm_mb=64)
    with pytest.raises(BadConfig, match="optimization"):
        qnb.context(digits.quantized, optimization=9)
    with pytest.raises(BadInput, match="newer"):
        qnb.context(digits.quantized, soc=103)
    with pytest.raises(BadInput, match="can't be a target"):
        qnb.context(digits.quantized, soc=["SM8650", "SDM845"])
    with pytest.raises(BadInput, match="no SoC"):
        qnb.context(digits.quantized, soc=[])
