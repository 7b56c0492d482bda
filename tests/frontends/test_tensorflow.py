"""Keras models, SavedModels and frozen graphs come in. Oracle: TensorFlow, run by the gate and here once more."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("tensorflow", "tf2onnx")),
    reason='TensorFlow is not installed (1.3 GB): pip install "qnb[tensorflow]"',
)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What qnb.export says of each case, all run in one process of its own: TensorFlow stays out of the tests' one."""
    folder = tmp_path_factory.mktemp("tensorflow")
    done = subprocess.run(
        [sys.executable, "-m", "tests.frontends._tensorflow", str(folder)],
        capture_output=True, text=True, timeout=540, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(Path(folder / "answers.json").read_text())


@pytest.mark.parametrize(
    ("case", "inputs", "outputs"),
    [
        ("keras file", {"image": [1, 16, 16, 3]}, ["scores"]),
        ("h5 file, batch 2", {"image": [2, 16, 16, 3]}, ["scores"]),
        ("saved model", {"image": [1, 16, 16, 3]}, ["output_0"]),
        ("frozen graph", {"image": [1, 16, 16, 3]}, ["Identity"]),
        ("live model", {"image": [1, 16, 16, 3]}, ["scores"]),
        ("live sequential", {"image": [1, 8, 8, 1]}, ["output"]),
        ("two of each", {"a": [1, 4], "b": [1, 4]}, ["d", "s"]),
        ("lstm file", {"seq": [1, 7, 4]}, ["out"]),
        ("gru file", {"seq": [1, 7, 4]}, ["out"]),
        ("lambda file, trusted", {"x": [1, 4]}, ["twice"]),
        ("live custom layer", {"x": [1, 4]}, ["mine"]),
    ],
)
def test_models(answers, case, inputs, outputs):
    answer = answers[case]
    assert "error" not in answer, answer
    assert (answer["inputs"], answer["outputs"]) == (inputs, outputs)
    assert answer["gate_error"] < 1e-5
    assert answer["own_error"] < 1e-5
    assert not {"Loop", "If", "Scan"} & set(answer["ops"])


def test_recurrent_layers(answers):
    assert "LSTM" in answers["lstm file"]["ops"]
    assert any("written out step by step" in note for note in answers["gru file"]["notes"])


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("lambda file", "Python code in a Lambda layer"),
        ("custom layer file", "not one that Keras makes models of"),
        ("py_function", "calls Python from its graph"),
        ("noise", "gives other values for output"),
        ("branch", "a branch on a tensor's value"),
        ("no signature", "has no signature"),
        ("takes memory", "takes more than 2.1 GB of memory"),
        ("writes when loaded", "reads or writes files"),
        ("unknown op", "no ONNX form"),
        ("open shape", "shapes are not fixed"),
        ("weights only", "weights without the model"),
    ],
)
def test_refusals(answers, case, said):
    assert answers[case]["error"] == "ExportError", answers[case]
    assert said in answers[case]["what"]
    assert answers[case]["hint"]
