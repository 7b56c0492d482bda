"""TFLite files come in, float and quantized.

Oracle: LiteRT, whose outputs are stored beside the files by tests/fixtures/make_tflite.py; the conversion itself needs
TensorFlow, and is tested where that is installed.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import qnb
from qnb.errors import BadInput, ExportError, RuntimeUnavailable

FOLDER = Path(__file__).parents[1] / "fixtures" / "tflite"
PRECISION = {"int8": "w8a8", "uint8": "w8a8", "int16x8": "w8a16"}
needs_tensorflow = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("tensorflow", "tf2onnx")),
    reason='TensorFlow is not installed (1.3 GB): pip install "qnb[tensorflow]"',
)


def steps_off(path, style):
    """How many steps of the output's grid lie between a model and LiteRT, at most."""
    kept = np.load(FOLDER / f"{style}.npz")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    found = np.stack([session.run(None, {name: image})[0] for image in kept["inputs"]])
    return float(np.abs(found - kept["outputs"]).max() / kept["step"])


@pytest.mark.parametrize("style", PRECISION)
def test_what_is_converted_becomes_a_quantized_with_its_encodings(style):
    quantized = qnb.export(FOLDER / f"{style}.onnx")
    assert isinstance(quantized, qnb.Quantized)
    assert quantized.precision == PRECISION[style]
    assert quantized.weights == "per channel"
    assert quantized.parent.inputs[0].dtype == "float32"
    assert steps_off(quantized.path, style) <= 1.01


@pytest.mark.parametrize(("style", "steps"), [("int8", 1), ("uint8", 1), ("int16x8", 20)])
def test_the_simulator_comes_as_near_as_integers_do(style, steps):
    """The softmax of HTP rounds otherwise; the step in 16 bits is 3e-5."""
    kept = np.load(FOLDER / f"{style}.npz")
    quantized = qnb.export(FOLDER / f"{style}.onnx")
    outputs = qnb.infer(quantized, kept["inputs"], backend="htp", soc="SM8650").outputs["output_0"]
    assert np.abs(outputs.reshape(kept["outputs"].shape) - kept["outputs"]).max() <= (steps + 0.01) * kept["step"]


@needs_tensorflow
@pytest.mark.parametrize("style", PRECISION)
def test_quantized_files(style):
    quantized = qnb.export(FOLDER / f"{style}.tflite")
    assert quantized.precision == PRECISION[style]
    assert steps_off(quantized.path, style) <= 1.01


@needs_tensorflow
def test_a_float_file_and_its_bytes():
    for source in (FOLDER / "float.tflite", (FOLDER / "float.tflite").read_bytes()):
        model = qnb.export(source)
        assert [(spec.name, spec.shape) for spec in model.inputs] == [("image", (1, 12, 12, 3))]
        assert model.check["max_abs_error"].max() < 1e-6


@needs_tensorflow
def test_arguments_that_do_not_fit():
    with pytest.raises(BadInput, match="fixes dimension"):
        qnb.export(FOLDER / "float.tflite", shapes={"image": (1, 24, 24, 3)})
    with pytest.raises(BadInput, match="input_names"):
        qnb.export(FOLDER / "float.tflite", input_names=["x"])


@needs_tensorflow
@pytest.mark.parametrize("cut", [64, 1000, 4000])
def test_damaged_files(tmp_path, cut):
    (tmp_path / "m.tflite").write_bytes((FOLDER / "float.tflite").read_bytes()[:cut])
    with pytest.raises(qnb.errors.QnbError) as caught:
        qnb.export(tmp_path / "m.tflite")
    assert caught.value.hint


def test_a_missing_tensorflow_gives_the_line_that_installs_it(tmp_path, monkeypatch):
    if importlib.util.find_spec("tensorflow"):
        pytest.skip("TensorFlow is installed")
    shutil.copy(FOLDER / "float.tflite", tmp_path / "m.tflite")
    with pytest.raises(RuntimeUnavailable) as caught:
        qnb.export(tmp_path / "m.tflite")
    assert 'pip install "qnb[tensorflow]"' in caught.value.hint
    assert not isinstance(caught.value, ExportError)
