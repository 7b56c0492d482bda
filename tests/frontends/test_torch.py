"""The PyTorch front-end's behaviour. Oracles: eager torch, ONNX Runtime on the exported file."""

import copy
import logging
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from qnb.errors import BadInput, ExportError, RuntimeUnavailable, StorageError
from qnb.frontends.torch import to_onnx
from qnb.frontends.torch_examples import bind


def check(export):
    """Run the file on the reference inputs and compare; give the input and output names."""
    session = ort.InferenceSession(str(export.path), providers=["CPUExecutionProvider"])
    outputs = [value.name for value in session.get_outputs()]
    for inputs, expected in export.pairs:
        assert list(expected) == outputs
        for name, found in zip(outputs, session.run(None, inputs), strict=True):
            assert found.dtype == expected[name].dtype
            np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-5)
    return [value.name for value in session.get_inputs()], outputs


class Sum(nn.Module):
    def forward(self, left, right):
        return left + right, left - right


class Nested(nn.Module):
    def forward(self, pair, *, scale=None, power: int = 2):
        left, more = pair
        return {"sum": left + more["right"] * scale, "powers": [left**power, left**3]}


class Fields(NamedTuple):
    mean: torch.Tensor
    peak: torch.Tensor


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 8)

    def forward(self, ids, mask):
        return (self.table(ids) * mask[..., None]).mean(1)


class Branches(nn.Module):
    def forward(self, x):
        y = x * 2
        if y.sum() > 0:  # the line to name
            return y
        return -y


class Wrong(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(7, 2)

    def forward(self, x):
        x = x + 1
        return self.fc(x)  # the line that fails


def lambda_module(function):
    """A module whose forward is `function` of one tensor x."""

    class Made(nn.Module):
        def forward(self, x):
            return function(x)

    return Made()


def line_of(text):
    lines = Path(__file__).read_text().splitlines()
    return 1 + next(i for i, line in enumerate(lines) if text in line)


# --- examples and names --------------------------------------------------------------------------------------------


def test_names_come_from_forward_and_outputs_are_numbered(tmp_path):
    shapes = {"left": (2, 3), "right": (1, 3)}
    assert check(to_onnx(Sum(), tmp_path / "m.onnx", shapes=shapes)) == (["left", "right"], ["output_0", "output_1"])


def test_given_names(tmp_path):
    export = to_onnx(
        Sum(),
        tmp_path / "m.onnx",
        example=(np.ones((2, 3)), np.ones((2, 3))),
        input_names=["a", "b"],
        output_names=["s", "d"],
    )
    assert check(export) == (["a", "b"], ["s", "d"])
    export = to_onnx(Sum(), tmp_path / "m.onnx", shapes={"b": (2, 3), "a": (1, 3)}, input_names=["a", "b"])
    assert {name: value.shape for name, value in export.pairs[0][0].items()} == {"a": (1, 3), "b": (2, 3)}


def test_a_single_input_may_be_named_by_its_shape(tmp_path):
    export = to_onnx(nn.Sequential(nn.Linear(3, 2)), tmp_path / "m.onnx", shapes={"image": (1, 3)})
    assert check(export) == (["image"], ["output"])


def test_nested_and_keyword_examples(tmp_path):
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, 2, 3)).astype(np.float32)
    export = to_onnx(
        Nested(), tmp_path / "m.onnx", example={"pair": (left, {"right": right}), "scale": torch.full((3,), 2.0)}
    )
    assert check(export) == (["pair_0", "pair_1_right", "scale"], ["sum", "powers_0", "powers_1"])


def test_named_tuples_name_the_outputs(tmp_path):
    module = lambda_module(lambda x: Fields(x.mean(1), x.amax(1)))
    assert check(to_onnx(module, tmp_path / "m.onnx", shapes=(2, 5))) == (["x"], ["mean", "peak"])


def test_an_output_named_like_an_input_is_renamed_and_said(tmp_path):
    export = to_onnx(lambda_module(lambda x: {"x": x + 1}), tmp_path / "m.onnx", shapes=(2, 5))
    assert check(export) == (["x"], ["x_1"])
    assert export.notes == ("output 'x' is called 'x_1': an input has that name",)


def test_one_tensor_for_two_arguments_stays_two_inputs(tmp_path):
    example = torch.arange(6.0).reshape(2, 3)
    export = to_onnx(Sum(), tmp_path / "m.onnx", example=(example, example))
    session = ort.InferenceSession(str(export.path), providers=["CPUExecutionProvider"])
    left, right = np.ones((2, 3), np.float32), np.full((2, 3), 5, np.float32)
    total, difference = session.run(None, {"left": left, "right": right})
    np.testing.assert_array_equal(total, left + right)
    np.testing.assert_array_equal(difference, left - right)
    check(export)
    assert not np.array_equal(export.pairs[1][0]["left"], export.pairs[1][0]["right"])


def test_integer_and_bool_inputs_stay(tmp_path):
    ids = np.array([[0, 49, 3, 3, 7, 1]])
    export = to_onnx(Embedding(), tmp_path / "m.onnx", example=(ids, np.array([[True, False] * 3])))
    assert check(export)[0] == ["ids", "mask"]
    assert export.notes == ("input 'ids' is int64 and stays so",)
    first, second = (inputs for inputs, _ in export.pairs)
    assert sorted(first["ids"].flat) == sorted(second["ids"].flat)  # shuffled: still valid indices
    assert not np.array_equal(first["ids"], second["ids"])
    assert second["mask"].dtype == bool


def test_float64_arrays_become_float32(tmp_path):
    export = to_onnx(nn.Linear(3, 2), tmp_path / "m.onnx", example=np.random.default_rng(0).random((1, 3)))
    assert export.pairs[0][0]["input"].dtype == np.float32


def test_random_examples_are_the_same_each_time():
    state = torch.get_rng_state()
    one, two = (bind(nn.ReLU(), None, (2, 3)) for _ in range(2))
    assert torch.equal(one.tensors["input"], two.tensors["input"])
    assert torch.equal(one.varied(1).tensors["input"], two.varied(1).tensors["input"])
    assert torch.equal(state, torch.get_rng_state())


def test_variations_stay_in_range():
    rng = np.random.default_rng(0)
    example = {"left": rng.uniform(1, 2, (4, 5)), "right": np.zeros((4, 5))}
    call = bind(Sum(), example, None)
    other = call.varied(7).arrays()
    assert 0.5 <= other["left"].min() <= other["left"].max() <= 2  # a logarithm of it stays defined
    assert other["right"].any()
    assert not call.arrays()["right"].any()


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({}, "needs example inputs", "shapes={'left': (1, …), 'right': (1, …)}"),
        ({"shapes": (1, 3), "example": np.ones(3)}, "both", "shapes="),
        ({"shapes": (1, 3)}, "missing a required argument: 'right'", "tuple"),
        ({"shapes": {"left": (1, 3), "rigth": (1, 3)}}, "rigth|missing", "names"),
        ({"shapes": {"left": (1, 3), "right": (0, 3)}}, r"\(0, 3\) is not a shape", "at least 1"),
        ({"shapes": {"left": (1, 3), "right": ("N", 3)}}, "not a shape", "whole sizes"),
        ({"example": ("a", "b")}, "no tensor", "arrays"),
        ({"example": (np.array(["a"]), np.ones(3))}, "dtype", "numbers"),
        (
            {"shapes": {"left": (1,), "right": (1,)}, "input_names": ["a"]},
            "has 2 inputs .left, right.",
            "one name for each",
        ),
        ({"shapes": {"left": (1,), "right": (1,)}, "output_names": ["a", "a"]}, "output_names", "different"),
    ],
)
def test_examples_that_do_not_fit(tmp_path, options, said, hint):
    with pytest.raises(BadInput, match=said) as caught:
        to_onnx(Sum(), tmp_path / "m.onnx", **options)
    assert hint in caught.value.hint
    assert not list(tmp_path.iterdir())


# --- what must not change ------------------------------------------------------------------------------------------


def test_the_module_is_left_as_it_was(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU()).train()
    module[1].eval()  # frozen batch norm, as people do
    before = copy.deepcopy(module.state_dict())
    check(to_onnx(module, tmp_path / "m.onnx", shapes=(2, 3, 8, 8)))
    assert [part.training for part in module] == [True, False, True, True]
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(p.requires_grad for p in module.parameters())


def test_flags_come_back_after_an_error(tmp_path):
    module = Branches().train()
    with pytest.raises(ExportError):
        to_onnx(module, tmp_path / "m.onnx", shapes=(2, 3))
    assert module.training


def test_inputs_written_in_place_do_not_reach_the_example(tmp_path):
    example = torch.ones(2, 3)
    export = to_onnx(lambda_module(lambda x: x.add_(1) * 2), tmp_path / "m.onnx", example=example)
    assert torch.equal(example, torch.ones(2, 3))
    assert (export.pairs[0][1]["output"] == 4).all()


def test_lstm_still_runs_and_trains_afterwards(tmp_path):
    module = nn.LSTM(4, 5, batch_first=True)
    check(to_onnx(module, tmp_path / "m.onnx", shapes=(1, 6, 4)))
    module(torch.ones(1, 6, 4))[0].sum().backward()
    assert module.weight_ih_l0.grad is not None


def test_wrappers_are_taken_off(tmp_path):
    assert check(to_onnx(nn.DataParallel(nn.Linear(3, 2)), tmp_path / "m.onnx", shapes=(1, 3))) == (
        ["input"],
        ["output"],
    )


# --- errors --------------------------------------------------------------------------------------------------------


def test_a_branch_on_a_tensor_names_the_line(tmp_path):
    with pytest.raises(ExportError) as caught:
        to_onnx(Branches(), tmp_path / "m.onnx", shapes=(2, 3))
    line = line_of("if y.sum() > 0:  # the line to name")
    assert f"{__file__}:{line}: if y.sum() > 0:" in caught.value.what
    assert "torch.where" in caught.value.hint
    assert caught.value.log
    assert not list(tmp_path.iterdir())


def test_a_failing_module_names_the_line(tmp_path):
    with pytest.raises(ExportError, match=r"x float32\[3, 4\]") as caught:
        to_onnx(Wrong(), tmp_path / "m.onnx", shapes=(3, 4))
    assert f":{line_of('return self.fc(x)  # the line that fails')}: return self.fc(x)" in caught.value.what


@pytest.mark.parametrize(
    ("module", "said", "hint"),
    [
        (lambda_module(lambda x: torch.special.bessel_j0(x)), "bessel_j0 has no ONNX form", "other torch ops"),
        (lambda_module(lambda x: nn.functional.dropout(x)), "other values .* each time", "training=self.training"),
        (lambda_module(lambda x: 3), "returns int", "return tensors"),
        (Wrong().half(), "dtype", "module.float()"),
        (lambda_module(lambda x: x.to(torch.bfloat16)), "bfloat16", "module.float()"),
        (lambda_module(lambda x: torch.fft.rfft(x)), "complex", "real"),
    ],
)
def test_what_can_not_be_exported(tmp_path, module, said, hint):
    with pytest.raises(ExportError, match=said) as caught:
        to_onnx(module, tmp_path / "m.onnx", shapes=(3, 7))
    assert hint in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_without_torch_it_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(RuntimeUnavailable, match="onnxscript") as caught:
        to_onnx(nn.ReLU(), tmp_path / "m.onnx", shapes=(1,))
    assert 'pip install "qnb[torch]"' in caught.value.hint


def test_a_place_that_can_not_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        to_onnx(nn.ReLU(), tmp_path / "file" / "m.onnx", shapes=(1,))


# --- chatter -------------------------------------------------------------------------------------------------------


def test_chatter_goes_to_the_log(tmp_path):
    """In a process of its own: torch's handlers hold on to the stderr of their first import."""
    code = f"""
from tests.models import lstm
from qnb.frontends.torch import to_onnx
from qnb.frontends.torch_examples import bind
log = to_onnx(lstm(), {str(tmp_path / "m.onnx")!r}, shapes=(1, 10, 12)).log
assert "FutureWarning" in log or "torchvision" in log or "UserWarning" in log, log
assert "\\n\\n" not in log
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_logging_is_put_back(tmp_path):
    def state():
        loggers = [
            logging.getLogger(name) for name in sorted(logging.root.manager.loggerDict) if name.startswith("torch")
        ]
        return {logger.name: (logger.handlers[:], logger.propagate) for logger in loggers}

    to_onnx(nn.ReLU(), tmp_path / "m.onnx", shapes=(1,))  # torch makes further loggers as it goes
    before = state()
    to_onnx(nn.ReLU(), tmp_path / "m.onnx", shapes=(1,))
    assert {name: state()[name] for name in before} == before


def test_the_file_is_of_opset_20_with_its_weights_beside(tmp_path):
    export = to_onnx(nn.Linear(300, 300), tmp_path / "m.onnx", shapes=(1, 300))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert onnx.load(export.path).opset_import[0].version == 20
