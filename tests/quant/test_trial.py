"""Trial: figures of a grid from counted values.

Oracles: numpy's own arithmetic over the raw values, and ONNX Runtime's QuantizeLinear and DequantizeLinear on them.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from qnb.quant.encodings import Encoding, encoding_from_range
from qnb.quant.observers import Histogram
from qnb.quant.trial import Trial, from_fit

RNG = np.random.default_rng(0)
VALUES = {
    "normal": RNG.standard_normal(200_000),
    "behind a Relu": np.maximum(RNG.standard_normal(200_000), 0),
    "heavy tails": RNG.laplace(size=200_000),
    "one-sided": RNG.random(200_000) - 0.3,
}
GRIDS = {
    "all": (None, None, 8, False),
    "clipped": (-1.5, 2.0, 8, False),
    "symmetric": (-1.0, 2.5, 8, True),
    "16 bits": (None, None, 16, False),
    "clipped, 16 bits": (-0.5, 0.5, 16, False),
}


def through_onnxruntime(values: np.ndarray, grid: Encoding) -> np.ndarray:
    kind = {"uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16}[grid.dtype]
    stored = [
        numpy_helper.from_array(np.float32(grid.scale[0]), "scale"),
        helper.make_tensor("zero", kind, [], [int(grid.zero_point[0])]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "grid", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": values})
    return np.asarray(found)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kind", VALUES)
def test_figures_are_those_of_the_raw_values(kind: str, grid: str):
    x = VALUES[kind].astype(np.float32)
    low, high, bits, symmetric = GRIDS[grid]
    chosen = encoding_from_range(
        x.min() if low is None else low, x.max() if high is None else high, bits, signed=False, symmetric=symmetric
    )
    observer = Histogram()
    observer.update("x", x)
    found = Trial(observer.distribution("x"), observer.extents["x"]).of(chosen)

    noise = through_onnxruntime(x, chosen).astype(np.float64) - x
    mse = np.mean(noise**2)
    assert found.mse == pytest.approx(mse, rel=0.02)
    assert found.sqnr_db == pytest.approx(10 * np.log10(np.mean(x.astype(np.float64) ** 2) / mse), abs=0.1)
    half = chosen.scale[0] / 2
    beyond = np.mean((x > chosen.max[0] + half) | (x < chosen.min[0] - half))
    assert found.clipped_percent == pytest.approx(100 * beyond, abs=0.02)


def test_what_a_check_has_counted_says_the_same():
    x = VALUES["normal"].astype(np.float32)
    own = encoding_from_range(x.min(), x.max(), 8, signed=False, symmetric=False)
    low, high = float(own.min[0]), float(own.max[0])
    span = own.scale[0] * 256
    edges = np.linspace(low - own.scale[0] / 2 - span / 2, low - own.scale[0] / 2 + 1.5 * span, 1025)
    counts, _ = np.histogram(x, edges)
    trial = Trial(from_fit(counts, low, high, 8), (float(x.min()), float(x.max())))
    for grid in (own, encoding_from_range(-2, 2, 8, signed=False, symmetric=False)):
        noise = grid.dequantize(grid.quantize(x)).astype(np.float64) - x
        assert trial.of(grid).mse == pytest.approx(np.mean(noise**2), rel=0.03)


def test_a_tensor_of_zeros_loses_nothing():
    observer = Histogram()
    observer.update("x", np.zeros(100, np.float32))
    found = Trial(observer.distribution("x"), observer.extents["x"]).of(
        encoding_from_range(0, 1, 8, signed=False, symmetric=False)
    )
    assert (found.mse, found.clipped_percent) == (0, 0)
    assert found.sqnr_db == np.inf
