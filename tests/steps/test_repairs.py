"""What repairs do to the placement. Oracles: the real compiler, asked before and after, and ONNX Runtime's CPU."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn

import qnb
from qnb.errors import UnknownName
from qnb.graph.repairs import REPAIRS
from tests.advice.graphs import Graph
from tests.advice.test_forms import CASES, SHAPE, ints, side_by_side
from tests.steps.oracles import noise, on_onnxruntime

F = np.float32
INEXACT = [("Resize", "anti-aliasing"), ("GridSample", "cubic")]
"""Refused, and without an exact form."""


def taken_apart(g: Graph) -> dict[str, list[str]]:
    """What exporters make of Gelu, LayerNormalization and HardSwish, and other graphs that need a repair; their ops."""
    parts: dict[str, list[str]] = {}
    first = 0

    def part(name: str, last: str) -> None:
        nonlocal first
        g.outputs.append(last)
        parts[name] = [node.name for node in g.nodes[first:]]
        first = len(g.nodes)
        g.last = "x"

    gate = g.op("Add", g.op("Erf", g.op("Div", "x", weights=[F(math.sqrt(2))])), weights=[F(1)])
    part("gelu", g.op("Mul", g.op("Mul", "x", gate), weights=[F(0.5)]))
    d = g.op("Sub", "x", g.op("ReduceMean", "x", weights=[ints(-1)]))
    variance = g.op("ReduceMean", g.op("Pow", d, weights=[F(2)]), weights=[ints(-1)])
    part("layer-norm", g.op("Div", d, g.op("Sqrt", g.op("Add", variance, weights=[F(1e-5)]))))
    clip = g.op("Clip", g.op("Add", "x", weights=[F(3)]), weights=[F(0), F(6)])
    part("hard-swish", g.op("Div", g.op("Mul", "x", clip), weights=[F(6)]))
    rows = g.op("Reshape", "x", weights=[ints(2, 4, 64, 1)])
    part("dft", g.op("DFT", rows, weights=[None, np.int64(2)]))
    six = g.op("Transpose", g.op("Reshape", "x", weights=[ints(2, 4, 2, 4, 2, 4)]), perm=[0, 2, 4, 3, 5, 1])
    part("rank", g.op("Reshape", six, weights=[ints(8, 16, 4)]))
    part("gather-nd", g.op("GatherND", "x", weights=[np.stack(np.mgrid[:2, 3:1:-1, :2, :2], -1).astype(np.int64)]))
    chosen = g.op("Gather", "x", weights=[ints(-1, 0)], axis=1)
    part("negative-indices", chosen)
    return parts


@pytest.fixture(scope="module")
def apart():
    graph = Graph(*SHAPE)
    parts = taken_apart(graph)
    plain, mended = (qnb.export(graph.model(), simplify=False, no_repair=off) for off in (["all"], ()))
    return parts, plain, mended, *(qnb.convert(model) for model in (plain, mended))


@pytest.fixture(scope="module")
def refused():
    model = side_by_side(0).model()
    plain, mended = (qnb.export(model, simplify=False, no_repair=off) for off in (["all"], ()))
    return plain, mended, *(qnb.convert(m).frame for m in (plain, mended))


def test_all_that_is_refused_and_has_an_exact_form_is_repaired(refused):
    *_, before, after = refused
    for number, key in enumerate(CASES):
        old, new = (f[f["op"].str.startswith(f"case{number}/")] for f in (before, after))
        assert "no" in set(old["htp"]), key
        assert ("no" in set(new["htp"])) == (key in INEXACT), (key, new[["op", "reason"]])
    assert (after["htp"] == "no").sum() == len(INEXACT)


def test_in_eight_bits_as_well(refused):
    frame = qnb.convert(qnb.calibrate(refused[1], noise(4, *SHAPE[1:]))).frame
    assert sorted(frame[frame["htp"] != "yes"]["op_type"]) == sorted(op for op, _ in INEXACT)


def test_repaired_ops_compute_the_same(refused):
    plain, mended, *_ = refused
    sample = {"x": noise(*SHAPE)}
    values, repaired = (list(on_onnxruntime(model.path, [sample]).values()) for model in (plain, mended))
    for key, value, now in zip(CASES, values, repaired, strict=True):
        np.testing.assert_allclose(now, value, rtol=1e-5, atol=1e-5, err_msg=str(key))
    assert mended.check["max_abs_error"].max() < 1e-4  # what the export itself saw


@pytest.mark.parametrize("name", ["dft", "gather-nd", "rank"])
def test_what_was_refused_is_taken(apart, name):
    parts, _, mended, before, after = apart
    assert "no" in set(before.frame[before.frame["op"].isin(parts[name])]["htp"])
    assert set(after.frame["htp"]) == {"yes"}
    assert mended.repairs.set_index("repair").loc[name, "places"] >= 1


def test_the_npu_compiles_what_it_takes(apart):
    assert qnb.context(apart[2]).compile_ms > 0  # there are graphs whose ops are all taken, and whose compilation fails


def test_ops_are_one_again_that_the_npu_has(apart):
    *_, before, after = apart
    for kind in ("LayerNorm", "HardSwish"):
        old, new = ((c.qnn_ops["qnn_type"] == kind).sum() for c in (before, after))
        assert new > old, (kind, sorted(set(after.qnn_ops["qnn_type"])))


def test_every_repair_says_what_it_did(apart, refused):
    found = {r for model in (apart[2], refused[1]) for r in model.repairs["repair"]}
    assert found == {r.name for r in REPAIRS} - {"fixed-axes", "identity", "int32", "split", "batch-norm"}
    _, plain, mended, *_ = apart
    assert len(plain.repairs) == 0
    assert "repairs" in mended.tables()
    assert "repairs" not in plain.tables()


def test_a_repair_can_be_left_out(tmp_path):
    graph = Graph(*SHAPE)
    graph.op("Softsign", "x")
    kept = qnb.export(graph.model(), no_repair="activations")
    assert kept.ops == {"Softsign": 1}
    assert qnb.export(graph.model()).ops == {"Abs": 1, "Add": 1, "Div": 1}
    with pytest.raises(UnknownName, match="did you mean activations"):
        qnb.export(graph.model(), no_repair=["activation"])
    kept.save(tmp_path / "kept")
    mended = qnb.export(graph.model())
    mended.save(tmp_path / "mended")
    again = qnb.load(tmp_path / "mended")
    assert again.repairs.equals(mended.repairs)


def test_attention_stays_in_ops_that_the_npu_has():
    """onnxsim 0.8 fuses it into an op of ONNX Runtime's own, if it may."""
    torch = pytest.importorskip("torch")

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.LayerNorm(32)
            self.parts = torch.nn.ModuleList(torch.nn.Linear(32, 32, bias=b) for b in (True, True, True, True))

        def forward(self, x):
            x = self.norm(x)
            q, k, v = (part(x).view(1, -1, 4, 8).transpose(1, 2) for part in self.parts[:3])
            scores = torch.softmax((q @ k.transpose(2, 3)) * 8**-0.5, -1)
            return self.parts[3]((scores @ v).transpose(1, 2).reshape(1, -1, 32))

    model = qnb.export(Block(), shapes={"x": (1, 10, 32)})
    assert not [op for op in model.ops if op.startswith("com.microsoft")]
    assert set(qnb.convert(model).frame["htp"]) == {"yes"}


class Halves(nn.Module):
    """A sum, an activation, and a split in two."""

    def __init__(self, activation):
        super().__init__()
        self.activation = activation

    def forward(self, x, y):
        first, second = self.activation(x + y).chunk(2, dim=-1)
        return first, second


def on_the_simulator(model):
    """SQNR in dB of each output, in fp16."""
    rng = np.random.default_rng(0)
    feeds = {s.name: rng.standard_normal((4, *s.shape[1:])).astype(np.float32) for s in model.inputs}
    return qnb.infer(model, feeds, backend="htp", soc="SM8650").frame["sqnr_db"].to_numpy()


@pytest.mark.parametrize(
    "activation", [torch.sigmoid, nn.functional.silu, nn.functional.gelu], ids=lambda f: f.__name__
)
def test_a_split_behind_an_activation_is_right_on_the_simulator(activation):
    export = functools.partial(qnb.export, Halves(activation), shapes={"x": (1, 64), "y": (1, 64)})
    assert on_the_simulator(export(no_repair=["split"])).max() < 20, "QNN 2.47 gets this right: the repair may go"
    assert on_the_simulator(export()).min() > 35


class Norms(nn.Module):
    """Two batch norms without a scale and a shift, which exporters give the same constants."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(8, affine=False) for _ in range(2))
        for number, norm in enumerate(self.norms):
            norm.running_var.fill_(4**number)

    def forward(self, x, y):
        first, second = self.norms
        return second(torch.relu(first(x)) + y)


def test_batch_norms_of_shared_constants_are_right_on_the_simulator():
    export = functools.partial(qnb.export, Norms().eval(), shapes={"x": (1, 8, 8, 8), "y": (1, 8, 8, 8)})
    assert on_the_simulator(export(no_repair=["batch-norm"])).max() < 20, "QNN 2.47 gets this right: the repair may go"
    assert on_the_simulator(export()).min() > 50


@pytest.mark.parametrize("layer", [nn.GRU, nn.RNN])
@pytest.mark.parametrize("hidden", [8, 32, 48])
def test_unrolled_layers_are_right_on_the_simulator(layer, hidden):
    torch.manual_seed(0)
    model = qnb.export(Tagger(layer, hidden), shapes={"x": (1, 3, 16)})
    assert on_the_simulator(model).min() > 30


class Tagger(nn.Module):
    """A recurrent layer whose states are the output."""

    def __init__(self, layer, hidden):
        super().__init__()
        self.layer = layer(16, hidden, batch_first=True)

    def forward(self, x):
        return self.layer(x)[0]
