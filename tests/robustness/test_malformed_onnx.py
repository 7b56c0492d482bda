"""Malformed models through `qnb.export`: a clear error of ours each time, in a kernel that goes on working.

Oracle: the flaws are planted, so each message must name the right one; ops that only QNN does not know are checked
against ONNX Runtime's CPU. What native code says of the same files is tested in tests/graph.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import qnb
from qnb.errors import ExportError, PlacementError, QnbError
from tests import nets
from tests.conftest import Digits
from tests.nets import model, value

SQUARE = (1, 4)


def _bytes(*nodes: Any, inputs: Any = None, outputs: Any = None, domains: Any = ()) -> bytes:
    made = model(nodes, inputs or [value("x", SQUARE)], outputs or [value("y", SQUARE)], domains=domains)
    return bytes(made.SerializeToString())


def _node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, name=f"the_{op.lower()}", **attributes)


GOOD = _bytes(_node("Relu", ["x"], ["y"]))
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "truncated": (GOOD[: len(GOOD) // 2], "cut short"),
    "garbage": (bytes(range(256)) * 40, "not|damaged"),
    "a web page": (b"<!DOCTYPE html><html><body>404</body></html>", "HTML|not"),
    "a pickle": (pickle.dumps({"weight": [1.0]}), "pickle"),
    "cyclic": (
        _bytes(_node("Add", ["x", "b"], ["a"]), _node("Relu", ["a"], ["b"]), _node("Neg", ["a"], ["y"])),
        "cycl|loop",
    ),
    "wrong types": (
        _bytes(_node("MatMul", ["x", "i"], ["y"]), inputs=[value("x", SQUARE), value("i", (4, 4), TensorProto.STRING)]),
        "the_matmul|type|'i'",
    ),
    "dynamic": (
        _bytes(
            _node("Relu", ["x"], ["y"]), inputs=[value("x", ("n", "h", "w"))], outputs=[value("y", ("n", "h", "w"))]
        ),
        "x",
    ),
    "huge": (
        _bytes(
            _node("Relu", ["x"], ["y"]),
            inputs=[value("x", (1 << 20, 1 << 20))],
            outputs=[value("y", (1 << 20, 1 << 20))],
        ),
        "GiB|TiB|bytes|large",
    ),
    "an unknown op": (_bytes(_node("Frobnicate", ["x"], ["y"])), "Frobnicate"),
    "an unknown domain": (_bytes(_node("Relu", ["x"], ["y"], domain="my.ops"), domains=["my.ops"]), "my.ops"),
    "no output": (bytes(model([_node("Relu", ["x"], ["y"])], [value("x", SQUARE)], []).SerializeToString()), "output"),
}


@pytest.fixture(autouse=True)
def earlier_results_live_on(digits: Digits) -> Any:
    yield
    assert qnb.infer(digits.contexts["SM8650"], digits.test[:2]).frame["sqnr_db"].iloc[0] > 20


@pytest.mark.parametrize("name", BAD)
def test_each_flaw_is_named(name: str, tmp_path: Path) -> None:
    content, said = BAD[name]
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(QnbError, match=f"(?i){said}") as caught:
        qnb.export(path)
    assert type(caught.value) is not QnbError  # an error of a kind, not an accident
    assert caught.value.hint
    assert "bad.onnx" in caught.value.what
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "modle.onnx", "model.onnx"),
        (lambda folder: folder, "folder"),
        (lambda folder: {"weight": np.zeros(3)}, "state_dict|dict"),
        (lambda folder: 7, "int"),
    ],
)
def test_what_is_no_model_file(make: Callable[[Path], Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(GOOD)
    with pytest.raises(QnbError, match=said) as caught:
        qnb.export(make(tmp_path))
    assert caught.value.hint


def test_an_op_that_only_qnn_does_not_know(tmp_path: Path) -> None:
    """Det is ONNX's, ONNX Runtime has it, QNN has not: it exports, is shown, is refused, or runs beside by choice."""
    path = tmp_path / "det.onnx"
    shape = (1, 3, 4, 4)
    nodes = [_node("Relu", ["x"], ["r"]), _node("Det", ["r"], ["d"]), _node("Neg", ["d"], ["y"])]
    path.write_bytes(_bytes(*nodes, inputs=[value("x", shape)], outputs=[value("y", (1, 3))]))
    exported = qnb.export(path)
    placement = qnb.convert(exported).frame.set_index("op_type")
    assert placement.loc["Det", ["htp", "cpu"]].tolist() == ["no", "no"]
    assert "Det" in placement.loc["Det", "reason"]
    assert placement.loc["Relu", "htp"] == "yes"
    sample = np.random.default_rng(0).random(shape).astype(np.float32)
    for backend in ("htp", "cpu"):
        with pytest.raises(PlacementError, match="the_det"):
            qnb.infer(exported, sample, backend=backend)
        beside = qnb.infer(exported, sample, backend=backend, fallback="cpu")
        assert beside.offloaded["op_type"].tolist() == ["Det"]
        np.testing.assert_allclose(beside["y"], -np.linalg.det(np.maximum(sample, 0)), atol=2e-3)


def test_open_dimensions_are_fixed_by_argument(tmp_path: Path) -> None:
    path = nets.convolutions(tmp_path / "net.onnx", layers=1, channels=2, size=8)
    loaded = onnx.load(path)
    for tensor in (*loaded.graph.input, *loaded.graph.output):
        for dim, name in zip(tensor.type.tensor_type.shape.dim, ("n", "", "h", "w"), strict=True):
            if name:
                dim.dim_param = name
    onnx.save(loaded, path)
    with pytest.raises(ExportError, match=r"x.*h.*w") as caught:
        qnb.export(path)
    assert "shapes" in caught.value.hint
    assert qnb.export(path, shapes={"x": (3, 2, 10, 12)}).outputs[0].shape == (3, 2, 10, 12)
