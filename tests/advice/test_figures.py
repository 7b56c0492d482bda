"""The figures in findings. Oracles: the arithmetic of convolutions written down anew, and the compiler's own summary."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

import qnb
from qnb.advice.advise import RULES, advise, ignored
from qnb.advice.subject import Subject
from tests.advice.graphs import Graph
from tests.advice.test_rules import mixed, one_conv, shared_bias, spilling


def rows(build, rule, **options):
    frame = qnb.debug(build, ops=False, **options).frame
    return frame[frame["id"] == rule]


def test_macs_of_a_separable_convolution():
    found = rows(one_conv(128, 256, size=10).quantized(), "QNB-P001").iloc[0]
    standard = 10 * 10 * 128 * 256 * 9
    separable = 10 * 10 * 128 * 9 + 10 * 10 * 128 * 256
    assert f"{standard / 1e6:.3g} M MACs" in found["evidence"]
    assert f"= {separable / 1e6:.3g} M MACs" in found["evidence"]
    assert found["gain_percent"] == pytest.approx(100 * (1 - separable / standard))
    assert found["gain_of"] == "the model's MACs (counted)"


def test_macs_of_a_stack_in_place_of_a_large_kernel():
    found = rows(one_conv(32, 32, 9).quantized(), "QNB-P002").iloc[0]
    assert "4 of 3x3" in found["evidence"]  # each widens the view by 2: 3, 5, 7, 9
    assert found["gain_percent"] == pytest.approx(100 * (1 - 4 * 9 / 81))


def test_products_of_filled_up_channels():
    found = rows(one_conv(65, 65).quantized(), "QNB-P004").iloc[0]
    assert f"{100 * (1 - 65 * 65 / (96 * 96)):.3g} %" in found["evidence"]
    assert found["gain_percent"] == pytest.approx(100 * (1 - 64 * 64 / (65 * 65)))


def test_spilled_bytes_are_the_compilers():
    build = spilling(512)
    found = rows(build, "QNB-P005").iloc[0]
    plain, hard = (dict(qnb.context(build, optimization=level).ddr) for level in (None, 3))
    share = 100 * (plain["spill"] + plain["fill"]) / (plain["read"] + plain["write"])
    assert f"{share:.3g} % of" in found["evidence"]
    assert f"{plain['spill'] / 2**20:.3g} MiB spilled" in found["evidence"]
    saved = 100 * (1 - (hard["read"] + hard["write"]) / (plain["read"] + plain["write"]))
    assert np.isnan(found["gain_percent"]) if saved <= 0 else found["gain_percent"] == pytest.approx(saved)


def test_conversions_between_8_and_16_bits():
    found = rows(mixed(16), "QNB-G008").iloc[0]
    assert found["what"] == "ufixed8 becomes ufixed16 and then ufixed8 again"
    assert f"{(2 + 1) * 8 * 8 * 8 / 1024:.3g} KiB" in found["evidence"]  # 8 channels, 8x8, once in 2 bytes, once in 1


def test_what_ends_a_float_island():
    """A LayerNormalization in 8 bits is computed in float, one in 16 bits not; an LSTM always, its ops not."""

    def norm(precision):
        g = Graph(1, 8, 32)
        g.op("MatMul", weights=[g.normal(32, 32)])
        g.op("LayerNormalization", weights=[np.ones(32, np.float32), np.zeros(32, np.float32)], axis=-1)
        g.op("MatMul", weights=[g.normal(32, 32)])
        return g.quantized(precision=precision)

    def recurrent(*, written_out):
        g = Graph(4, 1, 8)
        if written_out:
            gate = g.op("Sigmoid", g.op("MatMul", "x", weights=[g.normal(8, 8)]))
            g.op("Mul", gate, g.op("Tanh", g.op("MatMul", "x", weights=[g.normal(8, 8)])))
        else:
            g.op("MatMul", weights=[g.normal(8, 8)])
            g.op("LSTM", weights=[g.normal(1, 32, 8), g.normal(1, 32, 8)], hidden_size=8)
            g.op("Relu")
        return g.quantized()

    assert "w8a16" in rows(norm("w8a8"), "QNB-G007")["line"].iloc[0]
    assert len(rows(norm("w8a16"), "QNB-G007")) == 0
    assert "steps out" in rows(recurrent(written_out=False), "QNB-G007")["remedy"].iloc[0]
    assert len(rows(recurrent(written_out=True), "QNB-G007")) == 0


def test_the_bits_of_a_bias_behind_an_identity(tmp_path):
    found = rows(shared_bias(tmp_path, identity=True), "QNB-G003")
    assert set(found["what"]) == {"an Identity stands before a constant", "its bias has 8 bits"}
    assert set(found.loc[found["op_type"] == "Conv", "op"]) == {"conv_2", "conv_5"}


def test_more_than_eight_of_a_kind_are_summed_up():
    g = Graph(1, 16, 8, 8)
    for _ in range(11):
        g.conv(16, 16, dilation=2)
        g.op("Relu")
    found = rows(g.quantized(), "QNB-P003")
    assert len(found) == 9
    assert found["what"].iloc[-1] == "the same of 3 more"
    named = set(found["op"]) | set(found["evidence"].iloc[-1].split(", "))
    assert named - {""} == {f"conv_{n}" for n in range(1, 22, 2)}


def test_what_is_slow_by_the_compilers_own_estimate():
    """The order of costs that the limits rest on, estimated anew for Hexagon v73."""
    from qnb.steps._costing import compiler_cost

    def chain(channels: int, kernel: int = 3, dilation: int = 1, *, separable: bool = False) -> int:
        graph = Graph(1, channels, 28, 28)
        for _ in range(4):
            graph.conv(channels, channels, kernel, dilation=dilation, group=channels if separable else 1)
            graph.op("Relu")
            if separable:
                graph.conv(channels, channels, 1)
                graph.op("Relu")
        return compiler_cost(graph.quantized()).estimate.cycles

    plain = chain(64)
    assert chain(64, separable=True) > plain  # so P001 says nothing below 128 channels
    assert chain(128, separable=True) < chain(128)
    assert chain(64, 5) < 1.5 * plain  # so P002 begins at 7
    assert chain(64, 9) > 3 * plain
    assert chain(64, dilation=2) > 1.4 * chain(64, 5)  # P003


def test_cycles_of_what_is_fused_are_no_ops_own():
    ops = pd.DataFrame(
        {
            "op": ["conv", "norm", "(unattributed: accelerator)"],
            "onnx_ops": ["conv, relu", "norm", ""],
            "cycles": [600.0, 300.0, 100.0],
            "source": "simulator",
        }
    )
    subject = Subject(ops=ops)
    assert subject.cycle_percent("relu") == subject.cycle_percent("conv") == 60
    assert np.isnan(subject.own_percent("relu"))
    assert subject.own_percent("norm") == 30
    assert "600 cycles with what it is fused with, 60 %" in subject.said_cycles("conv")
    assert subject.said_cycles("other") == ""


def test_nothing_is_said_of_nothing():
    assert advise(Subject()) == ([], 0)


def test_rules_are_named_and_explained():
    for name, rule in RULES.items():
        assert re.fullmatch(r"QNB-[GPA]\d{3}", name)
        assert rule.id == name
        assert all(len(text) > 10 and not text.endswith(".") for text in (rule.title, rule.why, rule.threshold))
    assert not [i for i in RULES if i.startswith("QNB-Q")]  # those are the check's


def test_words_of_suppressions():
    assert [str(i) for i in ignored("qnb-p003, QNB-P002:stem*")] == ["QNB-P003", "QNB-P002:stem*"]
    assert ignored(["none"]) == ignored("") == ignored([]) == ()
