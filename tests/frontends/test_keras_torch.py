"""Keras files come in without TensorFlow, through PyTorch. Oracle: what TensorFlow computed when the files were made."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import qnb
from qnb.errors import ExportError, RuntimeUnavailable

FOLDER = Path(__file__).parents[1] / "fixtures" / "tensorflow"


@pytest.mark.skipif(not importlib.util.find_spec("keras"), reason='Keras is not installed: pip install "qnb[keras]"')
@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_files(name, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    model = qnb.export(FOLDER / name, batch=3)
    assert [(spec.name, spec.shape) for spec in (*model.inputs, *model.outputs)] == [
        ("image", (3, 6, 6, 2)),
        ("scores", (3, 4)),
    ]
    kept = np.load(FOLDER / "net.npz")
    found = ort.InferenceSession(str(model.path)).run(None, {"image": kept["inputs"]})[0]
    np.testing.assert_allclose(found, kept["outputs"], atol=1e-5)


@pytest.mark.skipif(bool(importlib.util.find_spec("keras")), reason="Keras is installed")
def test_a_missing_keras_gives_the_line_that_installs_it():
    with pytest.raises(RuntimeUnavailable) as caught:
        qnb.export(FOLDER / "net.keras")
    assert 'pip install "qnb[tensorflow]"' in caught.value.hint
    assert not isinstance(caught.value, ExportError)
