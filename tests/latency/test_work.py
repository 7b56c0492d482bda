"""The work in a graph.

Oracles: torch's own FLOP counter; sizes worked out by hand; and that two exporters' graphs of one network give the same.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import qnb
from qnb.errors import BadInput
from qnb.latency import work_of
from qnb.latency.features import features
from qnb.latency.work import OpWork, Work


class Block(nn.Module):
    """Convolutions of each kind, then attention with what exporters take apart: layer norm, GELU, swish."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.dw = nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.grouped, self.pw = nn.Conv2d(32, 32, 3, padding=1, groups=4), nn.Conv2d(32, 48, 1)
        self.norm, self.up, self.down = nn.LayerNorm(48), nn.Linear(48, 96), nn.Linear(96, 48)
        self.qkv = nn.ModuleList(nn.Linear(48, 48) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.silu(self.dw(self.stem(x)))
        x = self.pw(nn.functional.hardswish(self.grouped(x))).flatten(2).transpose(1, 2)
        normed = self.norm(x)
        q, k, v = (layer(normed) for layer in self.qkv)
        x = x + torch.softmax(q @ k.transpose(1, 2) / 7.0, -1) @ v
        return x + self.down(nn.functional.gelu(self.up(x)))


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, onnx.ModelProto]:
    """The block through qnb's exporter, and through torch's legacy one at an opset without layer norm and GELU."""
    torch.manual_seed(0)
    module, example = Block().eval(), torch.rand(1, 3, 32, 32)
    path = tmp_path_factory.mktemp("legacy") / "block.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (example,), str(path), opset_version=13, dynamo=False, input_names=["x"])
    new = qnb.export(module, example=example, name="block")
    old = qnb.export(path, name="old-block", no_repair=["all"])
    return {"new": onnx.load(new.path), "old": onnx.load(old.path)}


@pytest.mark.parametrize("which", ["new", "old"])
def test_macs_are_those_of_torchs_counter(exports: dict[str, onnx.ModelProto], which: str) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Block().eval()(torch.rand(1, 3, 32, 32))
    assert 2 * work_of(exports[which]).total("macs") == counter.get_total_flops()


def test_both_exporters_graphs_hold_the_same_work(exports: dict[str, onnx.ModelProto]) -> None:
    old_types = {node.op_type for node in exports["old"].graph.node}
    assert "Erf" in old_types, "the legacy graph is meant to have its GELU taken apart"
    new, old = (work_of(exports[which]).totals for which in ("new", "old"))
    for kind in ("conv", "depthwise", "grouped", "pointwise", "linear", "matmul", "softmax", "norm", "activation"):
        assert new[kind]["macs"] == old[kind]["macs"], kind
        assert new[kind]["outputs"] == old[kind]["outputs"], kind
        # The simplifier makes one product of several that read the same, which fills up fewer channels.
        assert new[kind]["padded_macs"] == pytest.approx(old[kind]["padded_macs"], rel=0.1), kind
    for found in (new, old):
        assert found["norm"]["count"] == 1
        assert found["activation"]["count"] == 3, "silu, hard swish and GELU, each as one"


def test_channels_are_filled_up(exports: dict[str, onnx.ModelProto]) -> None:
    totals = work_of(exports["new"]).totals
    assert totals["conv"]["macs"] == 16 * 16 * 9 * 3 * 32
    assert totals["conv"]["padded_macs"] == 16 * 16 * 9 * 32 * 32
    assert totals["grouped"]["padded_macs"] == 16 * 16 * 9 * 4 * 32 * 32
    assert totals["pointwise"]["padded_macs"] == 16 * 16 * 32 * 64


def _conv(quantized: bool) -> onnx.ModelProto:
    """One convolution, with quantize/dequantize nodes around it or without."""
    weight = np.ones((8, 4, 1, 1), np.int8 if quantized else np.float32)
    constants = [numpy_helper.from_array(weight, "w")]
    nodes, source, kernel, shapes = [], "x", "w", {"y": (1, 8, 5, 5)}
    if quantized:
        constants += [
            numpy_helper.from_array(np.array(0.1, np.float32), "s"),
            numpy_helper.from_array(np.array(0, np.int8), "z"),
        ]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        ]
        source, kernel = "xd", "wd"
    nodes.append(helper.make_node("Conv", [source, kernel], ["y"], name="conv"))
    infos = [helper.make_tensor_value_info("xd", TensorProto.FLOAT, (1, 4, 5, 5))] if quantized else []
    if quantized:
        infos += [
            helper.make_tensor_value_info("xq", TensorProto.INT8, (1, 4, 5, 5)),
            helper.make_tensor_value_info("wd", TensorProto.FLOAT, (8, 4, 1, 1)),
        ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 5, 5))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shapes["y"])],
        constants,
        value_info=infos,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_quantize_and_dequantize_nodes_are_seen_through() -> None:
    plain, quantized = work_of(_conv(False)), work_of(_conv(True))
    assert plain.total("macs") == 5 * 5 * 8 * 4
    assert plain == quantized


def test_the_roofline_takes_what_takes_longer() -> None:
    """Of one convolution: its elements, 4 channels in and 8 out at 25 places, or its MACs with channels filled up to 32."""
    assert features(work_of(_conv(False)))["roofline"] == max(25 * (4 + 8), 25 * 32 * 32 / 128)
    busy = OpWork("c", "Conv", "conv", 256_000, 256_000, 100, 100, 1)
    vector = replace(busy, kind="depthwise")
    free = replace(busy, kind="free")
    assert [features(Work((op,), 0))["roofline"] for op in (busy, vector, free)] == [2000, 16_000, 0]


def test_an_open_shape_is_refused() -> None:
    model = _conv(False)
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(BadInput):
        work_of(model)


def test_an_unknown_op_is_named() -> None:
    model = _conv(False)
    model.graph.node[0].op_type, model.graph.node[0].domain = "Wonder", "made.up"
    assert work_of(model).unknown == ["made.up.Wonder"]
