"""Alignment of two graphs.

Oracles: ONNX Runtime, which computes the results of ops that are paired (they must be equal, or nearly so where one
graph is quantized); the edits that a test made itself; and for the memory a count of live tensors written down anew.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import qnb
from qnb.graph.align import Op, align, wired
from qnb.graph.fused import joined
from qnb.jobs.reading import graph_ops
from tests.models import BUILDERS, INPUTS
from tests.steps.oracles import noise

KINDS = ["Conv", "Relu", "Add", "QuantizeLinear", "DequantizeLinear", "MatMul", "Transpose", ""]


@st.composite
def graphs(draw: st.DrawFn) -> list[Op]:
    """Ops with names that may repeat, edges that may run anywhere, and signs that may be missing."""
    count = draw(st.integers(0, 12))
    return [
        Op(
            draw(st.sampled_from(["a", "b", "c", *(f"n{i}" for i in range(8))])),
            draw(st.sampled_from(KINDS)),
            draw(st.sampled_from(["", "4", "8x8"])),
            tuple(draw(st.lists(st.integers(0, count - 1), max_size=3))),
            tuple(draw(st.lists(st.sampled_from(["t", "u", "v"]), max_size=1))),
        )
        for _ in range(count)
    ]


@settings(max_examples=300, deadline=None)
@given(graphs(), graphs())
def test_every_op_is_in_exactly_one_pair_in_the_left_order(left: list[Op], right: list[Op]) -> None:
    pairs = align(left, right)
    assert [p.left for p in pairs if p.left is not None] == list(range(len(left)))
    assert sorted(p.right for p in pairs if p.right is not None) == list(range(len(right)))
    assert all(bool(p.by) == (p.left is not None and p.right is not None) for p in pairs)
    heads = joined(left, right, pairs, ([1.0] * len(left), [0.0] * len(right)))
    assert len(heads) == len(pairs)
    assert all(heads[head] == head for head in heads)


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_a_graph_is_aligned_with_itself_op_by_op(ops: list[Op]) -> None:
    ops = [Op(f"{op.name} {i}", op.op_type, op.sign, op.sources) for i, op in enumerate(ops)]
    assert [(p.left, p.right) for p in align(ops, ops)] == [(i, i) for i in range(len(ops))]


def chain(count: int, prefix: str = "op") -> list[Op]:
    """A chain in which no two neighbours are alike, with sizes that come again every 40 ops."""
    kinds = ("Conv", "Relu", "Add", "MatMul", "Sigmoid")
    return [
        Op(f"{prefix}{i}", kinds[i * i % 5], f"{i // 5 % 8}", (i - 1,) if i else (), (f"{prefix}t{i}",))
        for i in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_was_not_edited_is_found_again_without_any_name(data: st.DataObject) -> None:
    count = data.draw(st.integers(20, 60))
    dropped = data.draw(st.integers(0, count - 1))
    left = chain(count)
    kept = [i for i in range(count) if i != dropped]
    right = [Op(f"r{k}", left[i].op_type, left[i].sign, (k - 1,) if k else ()) for k, i in enumerate(kept)]
    found = {p.left: p.right for p in align(left, right) if p.right is not None}
    assert len(found) == len(right)  # all of the right graph is paired, and in order
    wrong = [i for i, k in found.items() if kept[k] != i]
    assert all((left[i].op_type, left[i].sign) == (right[found[i]].op_type, right[found[i]].sign) for i in wrong)
    assert len(wrong) <= 1  # among equal neighbours of the dropped one any may be the missing one


def test_renamed_and_reordered_branches_are_found_by_their_surroundings() -> None:
    def branched(order: Sequence[str], prefix: str) -> list[Op]:
        edges = {"in": [], "a1": ["in"], "a2": ["a1"], "b1": ["in"], "b2": ["b1"], "out": ["a2", "b2"]}
        kinds = {"in": "Conv", "a1": "Conv", "a2": "Sigmoid", "b1": "Conv", "b2": "Tanh", "out": "Add"}
        at = {name: i for i, name in enumerate(order)}
        return [Op(prefix + n, kinds[n], "8", tuple(at[s] for s in edges[n])) for n in order]

    left = branched(["in", "a1", "a2", "b1", "b2", "out"], "left ")
    right = branched(["in", "b1", "b2", "a1", "a2", "out"], "right ")
    for pair in align(left, right):
        assert pair.left is not None
        assert pair.right is not None
        assert left[pair.left].name.removeprefix("left ") == right[pair.right].name.removeprefix("right ")


def test_a_name_does_not_pair_what_cannot_be_the_same_while_there_is_better() -> None:
    left = [Op("Conv_1", "Conv", "8"), Op("Conv_2", "Conv", "16", (0,))]
    right = [Op("Conv_1", "Conv", "4"), Op("Conv_2", "Conv", "8", (0,)), Op("Conv_3", "Conv", "16", (1,))]
    assert [(p.left, p.right) for p in align(left, right)] == [(None, 0), (0, 1), (1, 2)]


@pytest.mark.parametrize("wire", [True, False])
def test_two_thousand_ops_take_seconds(wire: bool) -> None:
    left, right = chain(2000), chain(2100, "renamed")[50:]
    right = [Op(op.name, op.op_type, op.sign, (i - 1,) if i and wire else ()) for i, op in enumerate(right)]
    started = time.perf_counter()
    pairs = align(left, right)
    assert time.perf_counter() - started < 20
    assert sum(p.left is not None and p.right is not None for p in pairs) >= 1900


def test_stretches_too_long_for_a_table_are_aligned_by_their_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qnb.graph.align._MOST_CELLS", 10)
    left = [Op(f"l{i}", kind) for i, kind in enumerate(["Conv", "Relu", "Add", "MatMul", "Tanh"])]
    right = [Op(f"r{i}", kind) for i, kind in enumerate(["Relu", "Add", "Exp", "Tanh"])]
    ours = [(p.left, p.right) for p in align(left, right) if p.left is not None and p.right is not None]
    assert ours == [(1, 0), (2, 1), (4, 3)]


# --- real graphs, whose results ONNX Runtime computes ---------------------------------------------------------------


def listed(path: object) -> tuple[list[Op], dict[str, str]]:
    """Ops of an ONNX file as the job lists them, and the result of each by name."""
    rows = graph_ops(None, {"model": str(path)}, {})[0]["ops"]  # type: ignore[arg-type]
    ops = [Op(row["name"], row["op_type"], row["sign"]) for row in rows]
    results = {row["name"]: row["outputs"][0] for row in rows}
    return wired(ops, [(row["name"], row["inputs"], row["outputs"]) for row in rows]), results


def computed(path: object, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every tensor of a graph."""
    model = onnx.load(str(path))
    there = {o.name for o in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=n) for node in model.graph.node for n in node.output if n and n not in there
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    values = session.run(names, dict(zip([i.name for i in session.get_inputs()], feeds.values(), strict=True)))
    return dict(zip(names, values, strict=True))


def by_another_exporter(name: str, folder: object) -> qnb.Model:
    """The same network through torch's older exporter: other names, other ops, another order."""
    path = f"{folder}/{name}.onnx"
    examples = tuple(torch.zeros(shape) for shape in INPUTS[name].values())
    torch.onnx.export(BUILDERS[name](), examples, path, dynamo=False, opset_version=17, input_names=[*INPUTS[name]])
    return qnb.export(path, simplify=False, name=name)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "share"), [("inverted_residuals", 1.0), ("resnet_block", 1.0), ("vit_block", 0.6)])
def test_ops_that_two_exporters_wrote_are_paired_with_what_computes_the_same(name, share, tmp_path):
    one = qnb.export(BUILDERS[name](), shapes=INPUTS[name], name=name)
    other = by_another_exporter(name, tmp_path)
    (left, ours), (right, theirs) = listed(one.path), listed(other.path)
    assert not {op.name for op in left} & {op.name for op in right}
    feeds = {key: noise(*shape) for key, shape in INPUTS[name].items()}
    values, others = computed(one.path, feeds), computed(other.path, feeds)
    pairs = [p for p in align(left, right) if p.left is not None and p.right is not None]
    assert len(pairs) >= share * len(left)
    for pair in pairs:
        at = pair.right
        if (left[pair.left].op_type, right[at].op_type) == ("Gemm", "MatMul"):
            (at,) = [k for k, op in enumerate(right) if at in op.sources]  # the bias is an op of its own there
        a, b = values[ours[left[pair.left].name]], others[theirs[right[at].name]]
        np.testing.assert_allclose(np.sort(a, axis=None), np.sort(b, axis=None), atol=1e-4)
    work = {"Conv", "Gemm", "MatMul"}
    assert sum(left[p.left].op_type in work for p in pairs) == sum(op.op_type in work for op in left)


@pytest.mark.parametrize("name", ["inverted_residuals", "resnet_block", "vit_block"])
@pytest.mark.parametrize("renamed", [False, True])
def test_ops_of_a_quantized_graph_are_paired_with_what_they_were_made_of(name, renamed):
    model = qnb.export(BUILDERS[name](), shapes=INPUTS[name], name=name)
    feeds = {key: noise(*shape) for key, shape in INPUTS[name].items()}
    quantized = qnb.calibrate(model, feeds)
    (left, ours), (right, theirs) = listed(model.path), listed(quantized.path)
    if renamed:
        theirs = {f"other {op}": tensor for op, tensor in theirs.items()}
        right = [Op(f"other {op.name}", op.op_type, op.sign, op.sources) for op in right]
    values, others = computed(model.path, feeds), computed(quantized.path, feeds)
    pairs = [p for p in align(left, right) if p.left is not None and p.right is not None]
    for pair in pairs:
        a, b = values[ours[left[pair.left].name]], others[theirs[right[pair.right].name]]
        if (left[pair.left].op_type, right[pair.right].op_type) == ("Conv", "Conv"):
            a, b = np.maximum(a, 0), np.maximum(b, 0)  # its activation may have become its grid's end
            b = np.where(a > b.max(), a, b)
        assert 10 * np.log10(np.sum(a * a) / max(np.sum((a - b) ** 2), 1e-12)) > 8, left[pair.left].name
    there = {op.op_type for op in right}
    missing = [op.name for i, op in enumerate(left) if i not in {p.left for p in pairs} and op.op_type in there]
    assert missing == []


def test_what_one_side_folds_is_read_with_what_it_was_folded_into():
    left = [
        Op("conv", "Conv", "8"), Op("bn", "BatchNormalization", "8", (0,)), Op("relu", "Relu", "8", (1,)),
        Op("sum", "Add", "8", (2, 0)), Op("top", "Conv", "8", (3,)),
    ]  # fmt: skip
    right = [
        Op("q", "QuantizeLinear", "8"), Op("conv", "Conv", "8", (0,)), Op("dq", "DequantizeLinear", "8", (1,)),
        Op("top", "Conv", "8", (2,)),
    ]  # fmt: skip
    pairs = align(left, right)
    heads = joined(left, right, pairs)

    def name(i: int) -> str:
        pair = pairs[i]
        return left[pair.left].name if pair.left is not None else right[pair.right].name  # type: ignore[index]

    read_with = {name(i): name(head) for i, head in enumerate(heads)}
    # The sum of two branches is an op of its own; and the input's quantizer is nobody's part.
    assert read_with == {
        "conv": "conv", "bn": "conv", "relu": "conv", "sum": "sum", "top": "top", "q": "q", "dq": "top",
    }  # fmt: skip


def test_work_that_each_side_counts_under_the_others_name_is_read_as_one():
    left = [Op("gemm", "Gemm", "8"), Op("gelu", "Gelu", "8", (0,)), Op("next", "Gemm", "8", (1,))]
    pairs = align(left, left)
    assert joined(left, left, pairs, ([0, 10, 5], [7, 0, 5])) == [0, 0, 2]
    assert joined(left, left, pairs, ([0, 10, 5], [0, 9, 5])) == [0, 1, 2]
