"""Files that are no sound model, through ``qnb.export``: refused in the user's words, in a living kernel.

Oracle: the kernel is this process. For models that are sound but not QNN's, ONNX Runtime alone computes what is right.
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
from qnb import cache
from qnb.errors import BadInput, ExportError, PlacementError, QnbError
from tests.nets import convolutions, model, value
from tests.processes import leftovers

node = helper.make_node


def _saved(made: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


def _bytes(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


def _truncated(path: Path) -> Path:
    convolutions(path, layers=2, channels=4, size=8)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def _cyclic(path: Path) -> Path:
    nodes = [node("Add", ["x", "b"], ["a"], name="first"), node("Relu", ["a"], ["b"], name="second")]
    return _saved(model(nodes, [value("x", [2])], [value("b", [2])]), path)


def _wrong_types(path: Path) -> Path:
    nodes = [node("Add", ["x", "whole"], ["y"], name="sum")]
    return _saved(model(nodes, [value("x", [2])], [value("y", [2])], {"whole": np.array([1, 2])}), path)


def _dynamic(path: Path) -> Path:
    return _saved(model([node("Relu", ["x"], ["y"])], [value("x", [1, "height"])], [value("y", [1, "height"])]), path)


def _huge(path: Path) -> Path:
    shape = [1, 2**20, 2**20]
    return _saved(model([node("Relu", ["x"], ["y"])], [value("x", shape)], [value("y", shape)]), path)


def _unknown_op(path: Path) -> Path:
    nodes = [node("Frobnicate", ["x"], ["y"], name="strange", domain="com.example")]
    return _saved(model(nodes, [value("x", [2])], [value("y", [2])], domains=["com.example"]), path)


def _control_flow(path: Path) -> Path:
    def branch(op: str, name: str) -> onnx.GraphProto:
        return helper.make_graph([node(op, ["x"], [name])], name, [], [value(name, [2])])

    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Cast", ["sum"], ["flag"], to=TensorProto.BOOL),
        node("If", ["flag"], ["y"], name="choose", then_branch=branch("Relu", "t"), else_branch=branch("Neg", "e")),
    ]
    return _saved(model(nodes, [value("x", [2])], [value("y", [2])]), path)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _pickle(path: Path) -> Path:
    path.write_bytes(pickle.dumps(_Trap(path.with_suffix(".trapped"))))
    return path


class _Trap:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


def _torch_state_dict(path: Path) -> Path:
    import torch

    torch.save({"weight": torch.zeros(2)}, path)
    return path


MALFORMED: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    # what is written, what the error says, what it says to do next
    "empty": (_bytes(b""), "empty", "again"),
    "garbage": (_bytes(bytes(range(256)) * 9), "not", "again"),
    "text": (_bytes(b"this is no model"), "not", "again"),
    "truncated": (_truncated, "cut short", "again"),
    "cyclic": (_cyclic, "first|second|cycl", ""),
    "wrong types": (_wrong_types, "sum|whole|type", ""),
    "dynamic": (_dynamic, "height", "shapes"),
    "huge": (_huge, "[TG]i?B|bytes", ""),
    "unknown op": (_unknown_op, "Frobnicate|strange|com.example", ""),
    "control flow": (_control_flow, "choose", "branch"),
    "folder": (_folder, "is a folder", ""),
    "missing": (lambda path: path, "no file", ""),
    "pickle": (_pickle, "pickle", "never"),
    "state_dict": (_torch_state_dict, "state_dict", "load_state_dict"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_model_is_refused(kind: str, tmp_path: Path) -> None:
    write, says, next_step = MALFORMED[kind]
    path = write(tmp_path / "the-model.onnx")
    with pytest.raises((ExportError, BadInput), match=says) as caught:
        qnb.export(path)
    assert "the-model" in caught.value.what, "it does not say which file"
    assert caught.value.hint
    assert next_step in caught.value.hint
    assert not path.with_suffix(".trapped").exists()
    assert leftovers(cache.root()) == []


@pytest.mark.parametrize("step", [qnb.convert, qnb.context, qnb.profile, lambda p: qnb.infer(p, np.zeros(2, "f"))])
def test_every_step_that_takes_a_path_refuses_it_alike(step: Callable[[Path], Any], tmp_path: Path) -> None:
    path = _cyclic(tmp_path / "the-model.onnx")
    with pytest.raises(ExportError, match="the-model"):
        step(path)


@pytest.fixture(scope="module")
def with_determinant(tmp_path_factory: pytest.TempPathFactory) -> qnb.Model:
    """A model with an op that ONNX Runtime has and QNN has not: Det, between two that both have."""
    nodes = [
        node("Relu", ["x"], ["r"], name="before"),
        node("Det", ["r"], ["d"], name="determinant"),
        node("Mul", ["d", "two"], ["y"], name="after"),
    ]
    made = model(nodes, [value("x", [1, 4, 4])], [value("y", [1])], {"two": np.array([2], np.float32)})
    return qnb.export(_saved(made, tmp_path_factory.mktemp("det") / "with-det.onnx"))


def test_convert_shows_what_qnn_does_not_take(with_determinant: qnb.Model) -> None:
    placement = qnb.convert(with_determinant).frame.set_index("op")
    assert placement.loc["determinant", "cpu"] == "no"
    assert placement.loc["determinant", "htp"] == "no"
    assert placement.loc["determinant", "gpu"] == "unknown"
    assert placement.loc["before", "cpu"] == "yes"
    assert "htp" in placement.loc["determinant", "reason"]


@pytest.mark.parametrize("backend", ["htp", "cpu"])
def test_an_op_that_qnn_does_not_take_is_an_error_or_the_callers_choice(
    backend: Any, with_determinant: qnb.Model
) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 4)).astype(np.float32)
    with pytest.raises(PlacementError, match="determinant") as caught:
        qnb.infer(with_determinant, x, backend=backend)
    assert "fallback" in caught.value.hint
    assert leftovers(cache.root()) == []
    result = qnb.infer(with_determinant, x, backend=backend, fallback="cpu")
    assert "determinant" in list(result.offloaded["op"])
    assert "before" not in list(result.offloaded["op"])
    np.testing.assert_allclose(result["y"], 2 * np.linalg.det(np.maximum(x, 0)), rtol=2e-2, atol=2e-2)


def test_the_npu_names_the_op_when_it_compiles(with_determinant: qnb.Model) -> None:
    with pytest.raises(PlacementError, match="determinant"):
        qnb.context(with_determinant)


def test_random_damage_to_a_model_never_ends_the_kernel(tmp_path: Path) -> None:
    whole = convolutions(tmp_path / "whole.onnx", layers=2, channels=4, size=8).read_bytes()
    rng = np.random.default_rng(0)
    outcomes = {"refused": 0, "ran": 0}
    for number in range(30):
        content = np.frombuffer(whole, np.uint8).copy()
        # The head holds the graph's structure, the rest weights: any bits are weights.
        where = rng.integers(0, 300 if number % 2 else len(content), 4)
        content[where] ^= rng.integers(1, 256, 4).astype(np.uint8)
        path = tmp_path / "damaged.onnx"
        path.write_bytes(content.tobytes())
        refusal: QnbError | None = None
        try:
            qnb.export(path)
        except QnbError as error:
            refusal = error
        assert type(refusal) is not QnbError, f"not foreseen: {refusal}"
        assert refusal is None or refusal.hint
        outcomes["refused" if refusal else "ran"] += 1
    assert min(outcomes.values()) > 0, outcomes
