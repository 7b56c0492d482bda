"""Profile. Oracles: numpy over the runs, the graph that QNN wrote, and the process table."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

import qnb
from qnb.errors import BadInput
from tests.steps.oracles import noise

COLUMNS = [
    "backend", "soc", "precision", "source", "runs", "mean_ms", "median_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms",
    "throughput_per_s", "cpu_percent", "memory_before_mb", "memory_peak_mb", "memory_delta_mb", "load_ms",
]  # fmt: skip


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
    assert list(runs.columns) == ["backend", "soc", "precision", "source", "latency_ms"]
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
        assert row.memory_delta_mb == pytest.approx(row.memory_peak_mb - row.memory_before_mb)
        assert 0 <= row.cpu_percent <= 110 * (psutil.cpu_count() or 1)
        assert row.load_ms > 0


def test_ops_are_those_of_the_graph(digits, walk):
    ops = walk["profile"].ops
    assert list(ops.columns) == ["op", "op_type", "cycles", "time_ms", "percent", "source"]
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
