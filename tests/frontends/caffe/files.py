"""Caffe files for the tests: prototxt text, random weights of the shapes that the reader asks for, and who runs them.

A wrong shape does not go unseen: OpenCV reads the same files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from qnb.frontends.caffe import to_onnx
from qnb.frontends.caffe.network import Layer
from qnb.frontends.caffe.schema import V1_TYPES, message_class

Weights = dict[str, list[np.ndarray]]


def layer(kind: str, name: str, bottoms: str | Sequence[str], param: str = "", tops: str | Sequence[str] = "") -> str:
    """Write one layer; by default its top has its name."""
    bottoms = [bottoms] if isinstance(bottoms, str) else bottoms
    tops = [tops or name] if isinstance(tops, str) else tops
    lines = [f"  bottom: '{b}'" for b in bottoms] + [f"  top: '{t}'" for t in tops]
    return "\n".join([f"layer {{ name: '{name}' type: '{kind}'", *lines, f"  {param} }}"]) + "\n"


def inputs(**shapes: Sequence[int]) -> str:
    """Declare inputs."""
    dims = {name: " ".join(f"dim: {n}" for n in shape) for name, shape in shapes.items()}
    return "".join(f"input: '{name}'\ninput_shape {{ {sizes} }}\n" for name, sizes in dims.items())


def random_weights(network: Path, seed: int = 0, **options: Any) -> Weights:
    """Make weights of the shapes that the reader asks for, such that values keep their size from layer to layer."""
    rng = np.random.default_rng(seed)
    found: dict[str, dict[int, np.ndarray]] = {}

    def weight(self: Layer, index: int, shape: tuple[int, ...], what: str) -> np.ndarray:
        if what == "weights":
            value = rng.standard_normal(shape) * math.sqrt(2 / max(1, math.prod(shape[1:])))
        elif what == "variance":
            value = rng.uniform(2, 6, shape)
        elif what in ("slopes", "slope"):
            value = rng.uniform(0.1, 0.9, shape)
        elif what.startswith("factor"):
            value = np.full(shape, 2.0)
        else:
            value = rng.standard_normal(shape) * 0.3 + (what == "scale")
        value = np.asarray(value, np.float32)
        return found.setdefault(self.name, {}).setdefault(index, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Layer, "weight", weight)
        to_onnx(network, **options)
    return {name: [blobs[i] for i in sorted(blobs)] for name, blobs in found.items()}


def write_weights(path: Path, weights: Mapping[str, Sequence[np.ndarray]], *, old: bool = False) -> Path:
    """Write a caffemodel; `old`: as ``layers``, with blobs of four sizes."""
    net = message_class("NetParameter")(name="net")
    (net.layers if old else net.layer).add(name="a layer without weights")
    for name, blobs in weights.items():
        made = net.layers.add(name=name) if old else net.layer.add(name=name)
        for values in blobs:
            blob = made.blobs.add()
            values = np.atleast_1d(values)  # OpenCV takes no scalars
            blob.data.append(np.ascontiguousarray(values, "<f4").tobytes())
            if old:
                sizes = (*(1,) * (4 - values.ndim), *values.shape)
                blob.num, blob.channels, blob.height, blob.width = sizes
            else:
                blob.shape.dim.extend(values.shape)
    path.write_bytes(net.SerializeToString())
    return path


def write(folder: Path, text: str, seed: int = 0, **options: Any) -> tuple[Path, Path]:
    """Write a prototxt, and a caffemodel with random weights for it."""
    network = folder / "net.prototxt"
    network.write_text(text)
    return network, write_weights(folder / "net.caffemodel", random_weights(network, seed, **options))


def feeds_of(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Check the model as ONNX does, and run it on ONNX Runtime."""
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    values = dict(zip(names, session.run(names, dict(feeds)), strict=True))
    declared = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in model.graph.output}
    assert {name: value.shape for name, value in values.items()} == declared
    return values


def opencv(
    network: Path, weights: Path, feeds: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    """Run the files on OpenCV's own reader and layers."""
    net = cv2.dnn.readNetFromCaffe(str(network), str(weights))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.enableWinograd(False)
    for name, value in feeds.items():
        net.setInput(value, name)
    return dict(zip(outputs, net.forward(list(outputs)), strict=True))


def difference(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> float:
    """Give the largest error, relative to the largest value of the output (at least 1e-3)."""
    assert expected.keys() == found.keys()
    worst = 0.0
    for name, value in expected.items():
        assert value.shape == found[name].shape, name
        assert np.isfinite(found[name]).all(), name
        worst = max(worst, float(np.abs(value - found[name]).max()) / max(1e-3, float(np.abs(value).max())))
    return worst


def against_opencv(folder: Path, text: str, seed: int = 0) -> tuple[float, onnx.ModelProto]:
    """Give the error against OpenCV over all outputs, and the model."""
    network, weights = write(folder, text, seed)
    model = to_onnx(network, weights).model
    feeds = feeds_of(model, seed)
    found = run(model, feeds)
    return difference(opencv(network, weights, feeds, list(found)), found), model


def as_v1(text: str) -> str:
    """Write a network of today's format in the one before."""
    for old, (_, today) in V1_TYPES.items():
        text = text.replace(f"type: '{today}'", f"type: {old}")
    return text.replace("layer {", "layers {")
