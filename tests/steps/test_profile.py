"""Profile. Oracles: numpy over the runs, the graph that QNN wrote, the process table, and the op trace of runtime 2.7.0."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pandas as pd
import psutil
import pytest

import qnb
from qnb.errors import BadInput
from qnb.runtime import client, install, logs
from qnb.steps._common import random_inputs
from tests.fixtures.make_profiles import split
from tests.models import BUILDERS, INPUTS
from tests.steps.oracles import noise

COLUMNS = [
    "backend", "soc", "precision", "source", "runs", "mean_ms", "median_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms",
    "throughput_per_s", "cpu_percent", "memory_before_mb", "memory_peak_mb", "memory_delta_mb", "memory_after_mb", "load_ms",
]  # fmt: skip
OPS = [
    "op", "op_type", "onnx_ops", "cycles", "time_ms", "percent", "macs", "bytes", "intensity_macs_per_byte", "precision",
    "source",
]  # fmt: skip


@pytest.fixture(scope="module")
def newer():
    """Runtime 2.7.0, installed into this session's cache."""
    return install.add("2.7.0")


def test_a_row_for_each_backend_in_its_own_precision(walk):
    frame = walk["profile"].frame
    assert list(frame.columns) == COLUMNS
    assert list(zip(frame["backend"], frame["precision"], frame["source"], strict=True)) == [
        ("htp", "w8a8", "simulator"),
        ("gpu", "fp16", "reference"),
        ("cpu", "fp32", "host"),
    ]


def test_figures_are_those_of_the_runs(walk):
    runs = walk["profile"].runs
    assert list(runs.columns) == ["backend", "soc", "precision", "source", "latency_ms", "warmup", "outlier"]
    for row in walk["profile"].frame.itertuples():
        latency = runs[runs["backend"] == row.backend]["latency_ms"].to_numpy()
        assert len(latency) == row.runs == 5
        assert (latency > 0).all()
        assert row.mean_ms == pytest.approx(latency.mean())
        assert row.median_ms == row.p50_ms == pytest.approx(np.median(latency))
        for share in (90, 95, 99):
            assert getattr(row, f"p{share}_ms") == pytest.approx(np.percentile(latency, share))
        assert row.throughput_per_s == pytest.approx(1000 / latency.mean())


def test_memory_cpu_and_load_are_measured(walk):
    total = psutil.virtual_memory().total / 2**20
    for row in walk["profile"].frame.itertuples():
        assert 10 < row.memory_before_mb < row.memory_peak_mb < total
        assert 10 < row.memory_after_mb <= row.memory_peak_mb + 1
        assert row.memory_delta_mb == pytest.approx(row.memory_peak_mb - row.memory_before_mb)
        assert 0 <= row.cpu_percent <= 110 * (psutil.cpu_count() or 1)
        assert row.load_ms > 0


def test_ops_are_those_of_the_graph(digits, walk):
    ops = walk["profile"].ops
    assert list(ops.columns) == OPS
    named = set(ops["op"]) & set(digits.model.frame["op"])
    assert len(named) >= 4  # the others were fused
    types = dict(zip(digits.model.frame["op"], digits.model.frame["op_type"], strict=True))
    for row in ops[ops["op"].isin(named)].itertuples():
        assert row.op_type == types[row.op]
    assert ops["cycles"].max() > 0
    latency = walk["profile"].frame["median_ms"][0]
    assert 0.2 * latency < ops["time_ms"].sum() < 20 * latency


def test_more_work_takes_more_cycles():
    import torch

    module = torch.nn.Sequential(
        torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 64, 3, padding=1)
    )
    model = qnb.export(module, shapes={"x": (1, 8, 32, 32)})
    ops = qnb.profile(qnb.calibrate(model, noise(2, 8, 32, 32)), backends="htp", runs=1, warmup=0).ops
    cycles = ops[ops["op_type"] == "Conv"]["cycles"].tolist()
    assert len(cycles) == 2
    assert cycles[1] > cycles[0]


@pytest.mark.parametrize("precision", ["fp16", "w8a8", "w8a16", "w4a8"])
def test_the_roofline_has_ceilings_that_were_reached_here(digits, precision):
    build = digits.model if precision == "fp16" else qnb.calibrate(digits.model, digits.train[:8], precision=precision)
    result = qnb.profile(build, backends="htp", runs=1, warmup=0)
    (roof,) = result.roofs.to_dict("records")
    assert (roof["precision"], roof["source"]) == (precision, "simulator")
    ops = result.ops[(result.ops["macs"] > 0) & (result.ops["cycles"] > 0)]
    assert len(ops)
    allowed = np.minimum(roof["macs_per_cycle"], roof["bytes_per_cycle"] * ops["macs"] / ops["bytes"])
    assert (ops["macs"] / ops["cycles"] <= 1.000001 * allowed).all()
    for rate, by, amount in (("macs_per_cycle", "compute_by", "macs"), ("bytes_per_cycle", "memory_by", "bytes")):
        if roof[by] in set(ops["op"]):  # then it is that op's own
            op = ops.set_index("op").loc[roof[by]]
            assert roof[rate] == pytest.approx(op[amount] / op["cycles"])
        else:
            assert roof[by].endswith("run for this")
    clock = result.ops["cycles"].sum() / result.ops[result.ops["cycles"] > 0]["time_ms"].sum()  # cycles a millisecond
    assert roof["gmacs_per_s"] / roof["macs_per_cycle"] == pytest.approx(clock / 1e6)
    assert [len(line.get_xdata()) >= 100 for line in result.plot_roofline().axes[0].lines].count(True) == 1


def test_the_ceilings_are_run_once_for_a_target_and_precision(digits, monkeypatch):
    first = qnb.profile(digits.quantized, backends="htp", runs=1, warmup=0).roofs
    asked = []
    call = client.call
    monkeypatch.setattr(client, "call", lambda job, *a, **k: (asked.append(job), call(job, *a, **k))[1])
    again = qnb.profile(digits.quantized, backends="htp", runs=1, warmup=0)
    assert "profile_ops" in asked
    assert "measure_roofs" not in asked
    assert list(again.roofs.columns) == list(first.columns)
    assert not len(qnb.profile(digits.quantized, backends="htp", runs=1, warmup=0, ops=False).roofs)


def test_a_build_of_several_precisions_has_its_own_ops_as_ceilings(digits):
    mixed = dataclasses.replace(digits.quantized, precision="mixed")
    result = qnb.profile(mixed, backends="htp", runs=1, warmup=0)
    assert {result.roofs["compute_by"][0], result.roofs["memory_by"][0]} <= set(result.ops["op"])


def named(model):
    return dict(zip(model.frame["op"], model.frame["macs"], strict=True))


@pytest.mark.parametrize("precision", ["fp16", "w8a8"])
@pytest.mark.parametrize("name", ["inverted_residuals", "resnet_block", "vit_block", "lstm"])
def test_all_work_of_the_model_is_in_the_table_once(name, precision):
    """Fused by qnb, by ONNX Runtime and by the compiler: batch norms, activations, depthwise convolutions, attention."""
    model = qnb.export(BUILDERS[name](), shapes=INPUTS[name], name=name)
    build = model if precision == "fp16" else qnb.calibrate(model, [random_inputs(model.inputs, i) for i in range(2)])
    result = qnb.profile(build, backends="htp", runs=2, warmup=0)
    ops = result.ops
    assert ops["macs"].sum() == pytest.approx(model.macs)
    behind = {name for names in ops["onnx_ops"] for name in names.split(", ") if name}
    assert {op for op, macs in named(model).items() if macs} <= behind
    graph = {node.name for node in onnx.load(build.path).graph.node}
    assert behind <= graph | set(model.frame["op"])  # a Relu inside of a range has no node in the quantized graph
    inside = ops[~ops["op"].str.startswith("(unattributed")]
    put_in = inside[inside["onnx_ops"] == ""]
    assert set(put_in["op_type"]) <= {"Input", "Output", "Transpose", "Cast", "QuantizeLinear", "DequantizeLinear", ""}
    share = 100 * put_in["cycles"].sum() / inside["cycles"].sum()
    assert f"ops on htp: {share:.1f} % of the cycles are in ops that the runtime put in" in " ".join(result.notes)
    assert share < 35  # tiny models: what is fixed weighs much
    assert (inside["macs"] >= 0).all()
    work = inside[inside["macs"] > 0]
    assert (work["cycles"] > 0).all()
    np.testing.assert_allclose(work["intensity_macs_per_byte"], work["macs"] / work["bytes"])
    wanted = {"fp16"} if precision == "fp16" else {"w8a8", "a8"}  # attention multiplies activations by activations
    assert set(work["precision"]) <= wanted


def test_half_the_bits_are_half_the_bytes():
    model = qnb.export(BUILDERS["resnet_block"](), shapes=INPUTS["resnet_block"], name="block")
    half = qnb.profile(model, backends="htp", runs=1, warmup=0).ops
    byte = qnb.profile(qnb.calibrate(model, noise(2, 32, 28, 28)), backends="htp", runs=1, warmup=0).ops

    def traffic(ops):
        """Of the first convolution, and the Relu in it; without the biases, which are 32 bits wide in integers."""
        return ops.loc[ops["onnx_ops"].str.contains("node_relu$") & (ops["macs"] > 0), "bytes"].item()

    biases = 16
    assert traffic(half) - 2 * biases == 2 * (traffic(byte) - 4 * biases)


def test_onnx_ops_are_those_that_the_runtime_traced(newer):
    """Runtime 2.7.0 writes which ONNX nodes each op with matrix work was made of."""
    for name in ("inverted_residuals", "vit_block"):
        model = qnb.export(BUILDERS[name](), shapes=INPUTS[name], name=name)
        quantized = qnb.calibrate(model, [random_inputs(model.inputs, i) for i in range(2)])
        for build in (model, quantized):
            conversion = qnb.convert(build, runtime=newer.version)
            macs = named(model)
            ops = qnb.profile(build, backends="htp", runs=1, warmup=0, runtime=newer.version).ops
            ours = {row.op: set(row.onnx_ops.split(", ")) for row in ops.itertuples()}
            seen = 0
            for row in conversion.qnn_ops.itertuples():
                traced = {op for op in row.op.split(", ") if macs.get(op)}
                label = logs.original_name(row.qnn_op)
                if traced and label in ours and row.qnn_type not in ("Reshape", "Transpose"):
                    assert traced <= ours[label], row
                    seen += 1
            assert seen >= 6


def test_ops_on_the_cpu_are_behind_none_of_the_npus(tmp_path):
    path = tmp_path / "split.onnx"
    path.write_bytes(split().SerializeToString())
    model = qnb.export(path, simplify=False)
    ops = qnb.profile(model, backends="htp", runs=2, fallback="cpu").ops
    assert [n for n in ops["onnx_ops"] if n] == ["before", "beside", "after"]  # two graphs, each op counted once
    assert ops["percent"].sum() == pytest.approx(100)


def test_statistics_are_those_of_the_runs(digits):
    result = qnb.profile(digits.quantized, backends=["htp", "cpu"], runs=70, ops=False)
    for row, main in zip(result.statistics.itertuples(), result.frame.itertuples(), strict=True):
        runs = result.runs[result.runs["backend"] == row.backend]
        steady = runs.loc[~runs["warmup"], "latency_ms"].to_numpy()
        assert (row.backend, row.source) == (main.backend, main.source)
        assert row.runs + row.warmup_runs == 70
        assert row.runs == main.runs == len(steady)
        assert row.outliers == runs["outlier"].sum()
        assert row.mean_ms == main.mean_ms == pytest.approx(steady.mean())  # AI Benchmark's figure
        assert row.mlperf_p90_ms == sorted(steady)[int(0.9 * len(steady))]
        if row.runs >= 64:
            assert row.mlperf_p90_estimate_ms >= row.mlperf_p90_ms
        assert row.median_low_ms <= row.median_ms <= row.median_high_ms
        assert row.mean_low_ms <= row.mean_ms <= row.mean_high_ms
        assert 0 <= row.drift_p_value <= 1
        assert not runs["warmup"].to_numpy()[row.warmup_runs :].any()


def test_what_the_compiler_did_and_planned_is_told(digits, walk):
    context = digits.contexts["SM8650"]
    result = qnb.profile(context, runs=1, warmup=0, ops=False)
    assert dict(zip(result.stages["stage"], result.stages["time_ms"], strict=True)) == context.stages
    assert result.stages["percent"].sum() == pytest.approx(100)
    assert set(result.stages["source"]) == {"host"}
    sizes = result.traffic["size_kb"].tolist()
    assert sizes[:4] == [context.ddr[kind] / 1024 for kind in ("read", "write", "spill", "fill")]
    assert sizes[4] == context.vtcm_mb * 1024
    assert list(walk["profile"].tables())[1:] == [
        "statistics of the runs", "ops on htp", "compiler stages", "DDR traffic and VTCM",
        "ceilings of the roofline",
    ]  # fmt: skip
    assert not len(qnb.profile(digits.quantized, backends="cpu", runs=1).stages)


def test_a_profile_whose_model_was_cleaned_from_the_cache_still_has_its_cycles(tmp_path, cache_folder):
    model = qnb.export(BUILDERS["two_in_two_out"](), shapes=INPUTS["two_in_two_out"], name="two")
    context = qnb.context(model)
    model.path.unlink()
    result = qnb.profile(context, runs=1, warmup=0)
    assert result.ops["cycles"].max() > 0
    assert set(result.ops["onnx_ops"]) == {""}
    assert "what is behind them is not known, since the file of model two is gone" in " ".join(result.notes)
    assert "put in" not in " ".join(result.notes)


def test_it_comes_back_as_it_was_saved(walk, tmp_path):
    saved = qnb.load(walk["profile"].save(tmp_path / "profile"))
    for name in ("frame", "statistics", "runs", "ops", "stages", "traffic", "roofs"):
        pd.testing.assert_frame_equal(getattr(saved, name), getattr(walk["profile"], name))


def test_one_saved_before_there_were_statistics_still_opens(walk):
    old = walk["profile"]
    bare = dataclasses.replace(
        old,
        runs=old.runs.drop(columns=["warmup", "outlier"]),
        statistics=None,
        stages=None,
        traffic=None,
        roofs=None,
    )
    assert list(bare.tables())[1:] == ["ops on htp"]
    assert "no ceiling is drawn" in bare.plot_roofline().get_supxlabel()
    assert bare.plot().axes


def test_one_backend_without_ops(digits):
    result = qnb.profile(digits.model, backends=["cpu"], runs=2, warmup=0)
    assert list(result.frame["backend"]) == ["cpu"]
    assert len(result.ops) == 0
    with pytest.raises(BadInput, match="no ops"):
        result.plot_ops()
    assert len(qnb.profile(digits.quantized, backends=["htp"], runs=1, ops=False).ops) == 0


def test_a_context_is_profiled_on_its_npu(digits):
    result = qnb.profile(digits.contexts["SM8350"], runs=2, warmup=0)
    assert list(result.frame["backend"]) == ["htp"]
    assert list(result.frame["soc"]) == ["SM8350"]
    assert set(result.ops["source"]) == {"simulator"}


def test_several_inputs_are_made_up_where_none_are_given(two_quantized, two_data):
    made_up = qnb.profile(two_quantized, backends=["cpu"], runs=2)
    given = qnb.profile(two_quantized, two_data, backends=["cpu"], runs=2)
    assert len(made_up.runs) == len(given.runs) == 2


@pytest.mark.parametrize("arguments", [{"runs": 0}, {"warmup": -1}, {"runs": -3}, {"backends": []}])
def test_counts_that_make_no_sense(digits, arguments):
    with pytest.raises(BadInput):
        qnb.profile(digits.quantized, **arguments)
