"""Oracle: ONNX Runtime on the float model, the simulator on the chosen one, the files' own bytes; SQNR written anew."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import qnb
from qnb.errors import BadInput, CalibrationError, Interrupted, UnknownName, WorkerCrashed
from qnb.steps import _mixed
from qnb.steps._hunt import Hunt
from qnb.steps.search import Search
from tests.hard import hard_digits
from tests.processes import Strike, default_interrupts, interrupt_kernel, kill, wait_until, workers_under
from tests.steps.oracles import on_onnxruntime, split, sqnr_db

SAMPLES = 24


@pytest.fixture(scope="module")
def train() -> np.ndarray:
    return hard_digits().train[:100]


@pytest.fixture(scope="module")
def found(hard_model, train) -> Search:
    return qnb.search(hard_model, train, target_sqnr=30, samples=SAMPLES)


def reference(hard_model: Any, images: np.ndarray) -> np.ndarray:
    return on_onnxruntime(hard_model.path, split(image=images))["logits"]


def on_simulator(hard_model: Any, build: Any, images: np.ndarray) -> float:
    return sqnr_db(reference(hard_model, images), qnb.infer(build, images, backend="htp", reference=False)["logits"])


def chosen(found: Search) -> Any:
    return found.frame[found.frame["chosen"] & (found.frame["source"] == "host")].iloc[0]


@pytest.mark.parametrize(("per_channel", "candidates"), [(True, None), (False, ["w8a8", "w8a16", "fp16"])])
def test_the_hard_net_is_held_on_the_simulator_for_less_than_16_bits_cost(hard_model, train, per_channel, candidates):
    mended = qnb.search(
        hard_model, train, target_sqnr=30, samples=SAMPLES, per_channel=per_channel, candidates=candidates
    )
    naive = qnb.calibrate(hard_model, train, precision="w8a8", per_channel=per_channel)
    assert on_simulator(hard_model, naive, train[:SAMPLES]) < 20
    assert on_simulator(hard_model, mended.best, train[:SAMPLES]) >= 30
    assert chosen(mended)["cost_percent"] < 400  # w16a16 throughout
    rows = mended.frame[mended.frame["chosen"]]
    assert set(rows["source"]) == {"host", "simulator"}
    verified = rows.set_index("source")["sqnr_db"]
    assert verified["simulator"] == pytest.approx(on_simulator(hard_model, mended.best, train[:SAMPLES]), abs=0.01)
    assert abs(verified["simulator"] - verified["host"]) < 3


def test_the_host_figure_is_that_of_the_model_that_is_given(hard_model, train, found):
    value = on_onnxruntime(found.best.path, split(image=train[:SAMPLES]))["logits"]
    assert chosen(found)["sqnr_db"] == pytest.approx(sqnr_db(reference(hard_model, train[:SAMPLES]), value), abs=1.5)


def test_every_cheaper_mix_that_was_measured_misses_the_target(found):
    host = found.frame[found.frame["source"] == "host"]
    cheaper = host[host["cost_percent"] < chosen(found)["cost_percent"] - 1e-9]
    assert len(cheaper)
    simulated = found.frame[found.frame["source"] == "simulator"]
    refused = set(simulated[simulated["sqnr_db"] < 30]["point"])  # held on the host alone
    assert (cheaper[~cheaper["point"].isin(refused)]["sqnr_db"] < 30).all()
    front = host[host["pareto"]]
    assert front["sqnr_db"].is_monotonic_increasing
    assert front["cost_percent"].is_monotonic_increasing


def test_the_overrides_make_the_same_model_again(hard_model, train, found):
    again = qnb.calibrate(hard_model, train, overrides=found.overrides)
    from_file = qnb.calibrate(hard_model, train, overrides=found.files["overrides"])
    columns = ["tensor", "bits", "signed", "axis"]
    for other in (again, from_file):
        assert other.frame[columns].equals(found.best.frame[columns])
    assert json.loads(found.files["overrides"].read_text()) == found.overrides
    images = split(image=train[:4])
    first, second = (on_onnxruntime(q.path, images)["logits"] for q in (again, found.best))
    np.testing.assert_array_equal(first, second)


def test_the_table_of_parts_is_what_the_model_holds(found):
    bits = dict(zip(found.best.frame["tensor"], found.best.frame["bits"], strict=True))
    for row in found.layers.itertuples():
        for tensor in row.tensors.split(", "):
            assert bits[tensor] == (row.weight_bits if tensor.endswith("weight") else row.activation_bits)


def test_size_is_the_bytes_of_the_files_integers(hard_model, train):
    small = qnb.search(hard_model, train, budget=0.8, cost="size", samples=SAMPLES, verify=False, refine=4)
    model = onnx.load(small.best.path)
    stored = {i.name: i for i in model.graph.initializer}
    half = {onnx.TensorProto.INT4: 0.5, onnx.TensorProto.INT8: 1, onnx.TensorProto.INT16: 2, onnx.TensorProto.INT32: 4}
    read = {n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"} & set(stored)
    size = sum(np.prod(stored[name].dims) * half[stored[name].data_type] for name in read)
    assert chosen(small)["weight_kb"] == pytest.approx(size / 1024)
    assert chosen(small)["cost_percent"] <= 80
    assert chosen(small)["weight_bits"] < 8
    host = small.frame[(small.frame["cost_percent"] <= 80) & (small.frame["source"] == "host")]
    assert chosen(small)["sqnr_db"] == host["sqnr_db"].max()


def test_bit_operations_are_those_of_the_layers(hard_model, found):
    macs = int(hard_model.frame["macs"].sum())
    rows = found.frame.set_index("point")
    means = 64  # what computes without a product counts its outputs' bits
    assert rows.loc["w8a8", "bops"] == macs * 64 + means * 8
    assert rows.loc["w4a8", "bops"] == macs * 32 + means * 8
    assert rows.loc["w16a16", "bops"] == macs * 256 + means * 16


def test_a_drop_of_top1_is_held(hard_model):
    data = hard_digits()
    images, labels = data.test[:200], data.labels[:200]
    held = qnb.search(hard_model, images, max_top1_drop=1.0, labels=labels, samples=200)
    best = 100 * np.mean(reference(hard_model, images).argmax(axis=1) == labels)
    logits = qnb.infer(held.best, images, backend="htp", reference=False)["logits"]
    assert 100 * np.mean(logits.argmax(axis=1) == labels) >= best - 1.0
    rows = held.frame[held.frame["chosen"]].set_index("source")
    assert rows.loc["simulator", "top1_percent"] == pytest.approx(100 * np.mean(logits.argmax(axis=1) == labels))
    assert (held.frame["top1_percent"] < best - 1.0).any()  # there is something that does not hold it


def test_a_metric_of_ones_own_is_held(hard_model, train):
    def close(outputs, reference, labels):
        return -float(np.abs(outputs["logits"] - reference["logits"]).max())

    held = qnb.search(hard_model, train, target_metric=-1.0, metric=close, samples=8, verify=False)
    assert chosen(held)["metric"] >= -1.0
    cheaper = held.frame[held.frame["cost_percent"] < chosen(held)["cost_percent"] - 1e-9]
    assert (cheaper["metric"] < -1.0).all()


def test_layers_that_stay_in_float_are_float_on_the_npu(hard_model, train):
    """ONNX Runtime would quantize their weights to 8 bits per tensor in silence: this net then falls below 5 dB."""
    mixed = qnb.search(hard_model, train, target_sqnr=30, candidates="w8a8,w8a16,fp16", samples=SAMPLES)
    assert "fp16" in set(mixed.layers["precision"])
    assert mixed.best.precision == "mixed"
    assert on_simulator(hard_model, mixed.best, train[:SAMPLES]) >= 30


def test_single_tensors_have_bits_of_their_own(hard_model, train):
    fine = qnb.search(hard_model, train, target_sqnr=15, granularity="tensor", samples=SAMPLES)
    coarse = qnb.search(
        hard_model, train, target_sqnr=15, samples=SAMPLES, candidates=["w4a8", "w8a8", "w4a16", "w8a16"]
    )
    assert set(fine.layers["precision"]) <= {"w4", "w8", "a8", "a16"}
    assert on_simulator(hard_model, fine.best, train[:SAMPLES]) >= 15
    assert chosen(fine)["cost_percent"] <= chosen(coarse)["cost_percent"] * 1.05


def test_what_misses_on_the_simulator_is_replaced_by_a_more_accurate_mix(hard_model, train, found, monkeypatch):
    real = Hunt._simulate
    tried = []

    def pessimist(self: Hunt, mix: Any, soc: str) -> None:
        real(self, mix, soc)
        tried.append(mix)
        self.simulated[mix]["sqnr_db"] = self.figures[mix]["sqnr_db"] - 10

    monkeypatch.setattr(Hunt, "_simulate", pessimist)
    finer = qnb.search(hard_model, train, target_sqnr=30, samples=SAMPLES)
    assert len(tried) > 1
    assert chosen(finer)["cost_percent"] > chosen(found)["cost_percent"]
    verified = finer.frame[finer.frame["chosen"] & (finer.frame["source"] == "simulator")]
    assert verified["sqnr_db"].iloc[0] >= 30


def test_it_is_saved_and_opened_again(found, tmp_path):
    again = qnb.load(found.save(tmp_path / "saved"))
    assert isinstance(again, Search)
    assert again.frame.equals(found.frame)
    assert again.layers.equals(found.layers)
    assert again.overrides == found.overrides
    assert again.best.digest == found.best.digest
    assert again.best.path.exists()
    assert len(again.figures()) == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "no goal"),
        ({"target_sqnr": 30, "budget": 0.5}, "target_sqnr and budget"),
        ({"target_sqnr": float("nan")}, "target_sqnr is nan"),
        ({"budget": -1}, "budget is -1"),
        ({"max_top1_drop": 1.0}, "true classes"),
        ({"target_metric": 1.0}, "needs a metric"),
        ({"target_sqnr": 30, "candidates": "fp16"}, "fp16 alone"),
        ({"target_sqnr": 30, "points": 1}, "points is 1"),
    ],
)
def test_goals_that_do_not_fit(hard_model, train, options, match):
    with pytest.raises(BadInput, match=match):
        qnb.search(hard_model, train, samples=4, **options)


def test_unknown_words(hard_model, train):
    with pytest.raises(UnknownName, match="cost"):
        qnb.search(hard_model, train, target_sqnr=30, cost="time")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="w2a8"):
        qnb.search(hard_model, train, target_sqnr=30, candidates=["w2a8"])


def test_a_goal_that_no_mix_holds_says_what_the_best_one_has(hard_model, train):
    with pytest.raises(CalibrationError, match=r"no mix holds at least 90 dB: .* sqnr_db \d+\.\d+"):
        qnb.search(hard_model, train, target_sqnr=90, samples=8)
    # 16 by 16 bits per tensor: 38 dB by what the graph says, 22 dB on the simulator
    with pytest.raises(CalibrationError, match=r"on the simulator: the best has sqnr_db 2\d\.\d+ there"):
        qnb.search(hard_model, train, target_sqnr=30, samples=8, per_channel=False)
    with pytest.raises(CalibrationError, match="no mix is within the budget of 10 %"):
        qnb.search(hard_model, train, budget=0.1, samples=8)


# --- where it runs, and what is left of it -------------------------------------------------------------------------

OPTIONS: dict[str, Any] = {"target_sqnr": 12, "samples": 6, "verify": False, "refine": 4, "points": 4}


@pytest.fixture(scope="module")
def plain(hard_model, train) -> Search:
    return qnb.search(hard_model, train, resume=False, **OPTIONS)


def same(one: Search, other: Search) -> None:
    """Compare points that both have: an executor of other width bisects in other places."""
    columns = ["mix", "weight_bits", "activation_bits", "bops", "cost_percent", "sqnr_db"]
    assert one.overrides == other.overrides
    both = one.frame[columns].merge(other.frame[columns], how="inner")
    assert len(both) >= 8


def test_threads_as_executor(hard_model, train, plain):
    with ThreadPoolExecutor(2) as executor:
        same(plain, qnb.search(hard_model, train, resume=False, executor=executor, **OPTIONS))


def test_processes_as_executor(hard_model, train, plain, cache_folder):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        same(plain, qnb.search(hard_model, train, executor=executor, **OPTIONS))
    mine = {w.pid for w in qnb.runtime.client.workers()}
    wait_until(lambda: set(workers_under(cache_folder)) <= mine, 5, "end of the workers of the executor's processes")


@pytest.mark.slow
def test_a_dask_cluster_as_executor(hard_model, train, plain, cache_folder):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        same(plain, qnb.search(hard_model, train, executor=client.get_executor(), **OPTIONS))
        kept = qnb.sensitivity(hard_model, train, samples=6, executor=client.get_executor())
    assert len(kept.frame) == 8
    mine = {w.pid for w in qnb.runtime.client.workers()}
    wait_until(lambda: set(workers_under(cache_folder)) <= mine, 10, "end of the workers of the cluster")


def test_it_says_how_long_it_will_take(hard_model, train, cache_folder):
    first = qnb.search(hard_model, train, **OPTIONS)
    assert 0 < first.expected_s < 600
    assert qnb.search(hard_model, train, **OPTIONS).expected_s == 0  # all of it was there


LONG: dict[str, Any] = {"target_sqnr": 30, "samples": 1200, "granularity": "layer", "verify": False}


@pytest.mark.parametrize("strike", ["interrupt", "crash"])
def test_what_was_measured_outlives_an_interrupt_and_a_crash(hard_model, cache_folder: Path, strike, monkeypatch):
    """A real SIGINT, or a worker that is killed, in the middle of the work; the same call then does the rest."""
    data = hard_digits().train

    def some_are_there() -> bool:
        return any(path.read_text().count("key") > 5 for path in cache_folder.glob("searches/*/points.jsonl"))

    act, error = (interrupt_kernel, Interrupted) if strike == "interrupt" else (kill, WorkerCrashed)
    with default_interrupts(), Strike(act, after=0.05, when=some_are_there), pytest.raises(error) as caught:
        qnb.search(hard_model, data, **LONG)
    (journal,) = cache_folder.glob("searches/*/points.jsonl")
    kept = len([line for line in journal.read_text().splitlines() if line])
    assert kept > 0
    if strike == "interrupt":
        assert f"{kept} point" in caught.value.what
        assert "resumes" in caught.value.hint
    measured = []
    real = _mixed.measure
    monkeypatch.setattr(_mixed, "measure", lambda *args: measured.append(args[1]["name"]) or real(*args))
    rest = qnb.search(hard_model, data, **LONG)
    assert any(f"{kept} points were there already" in note for note in rest.notes)
    assert len(measured) == len(set(measured)) > 0
    names = {json.loads(line)["key"][:32] for line in journal.read_text().splitlines()[: 2 * kept] if line}
    assert not names & set(measured)
