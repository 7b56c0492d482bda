"""Every rule on two real models: one that fires it and one, as near to it as can be, that does not.

Oracle: the real compiler says where ops are, which graph is made, what is spilled and what does not fit; the rest is
arithmetic on the graph, written down anew in the tests of `tests.advice.test_figures`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import qnb
from qnb.advice.advise import RULES
from qnb.advice.rules import SEVERITIES
from tests.advice.graphs import Graph

Case = Callable[[], tuple[Any, dict[str, Any]]]


def graph(*shape: int | str) -> Graph:
    return Graph(*shape)


def small_conv(g: Graph | None = None) -> Graph:
    g = g or Graph(1, 16, 8, 8)
    g.conv(16, 16)
    g.op("Relu")
    return g


def one_conv(inputs: int, outputs: int, kernel: int = 3, *, size: int = 14, **options: Any) -> Graph:
    g = Graph(1, inputs, size, size)
    g.conv(inputs, outputs, kernel, **options)
    g.op("Relu")
    return g


def with_op(kind: str, **attributes: Any) -> Graph:
    g = small_conv()
    g.op(kind, **attributes)
    return g


def stepping(inputs: int, kernel: int, stride: int) -> Graph:
    g = Graph(1, inputs, 56, 56)
    g.op("Conv", weights=[g.normal(32, inputs, kernel, kernel)], strides=[stride] * 2, pads=[0] * 4)
    g.op("Relu")
    return g


def between_convolutions(kind: str, **attributes: Any) -> Graph:
    g = with_op(kind, **attributes)
    g.conv(16, 16)
    return g


def shared_bias(path: Any, *, identity: bool) -> Any:
    """Two convolutions whose equal biases are one constant, as PyTorch's older exporter has them; quantized by ORT."""
    from onnxruntime import quantization as ort
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

    g = Graph(1, 8, 8, 8)
    g.weights["bias"] = g.normal(8)
    for number in (1, 2):
        g.weights[f"w{number}"] = g.normal(8, 8, 3, 3) / np.float32(9)
    g.op("Conv", "x", "w1", g.op("Identity", "bias") if identity else "bias", pads=[1] * 4)
    first = g.op("Relu")
    g.op("Conv", first, "w2", g.op("Identity", "bias") if identity else "bias", pads=[1] * 4)
    source = g.save(path / "net.onnx")

    class Data(ort.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"x": g.normal(1, 8, 8, 8)} for _ in range(3)]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    out = path / "quantized.onnx"
    ort.quantize(source, out, get_qnn_qdq_config(source, Data()))
    return qnb.export(out)


def spilling(size: int) -> Any:
    g = Graph(1, 32, size, size)
    for _ in range(3):
        g.conv(32, 32)
        g.op("Relu")
    return g.quantized()


def island(tensors: tuple[str, ...]) -> Any:
    """Three convolutions, of which only what is named is quantized."""
    g = Graph(1, 8, 8, 8)
    for _ in range(3):
        g.conv(8, 8)
        g.op("Relu")
    grid = {
        "bitwidth": 8,
        "dtype": "int",
        "is_symmetric": "False",
        "min": -3.0,
        "max": 3.0,
        "scale": 6 / 255,
        "offset": -128,
    }
    overrides = {"activation_encodings": {n: [grid] for n in tensors}, "param_encodings": {}}
    return qnb.convert(g.export(), overrides=overrides).build


EVERY = ("x", "relu_2_y", "relu_4_y", "relu_6_y", "conv_1_y", "conv_3_y", "conv_5_y")


def mixed(bits: int) -> Any:
    g = Graph(1, 8, 8, 8)
    for _ in range(4):
        g.conv(8, 8)
        g.op("Relu")
    wide = {"activation_encodings": {"relu_4_y": {"bitwidth": bits}}}
    return g.quantized(overrides=wide) if bits != 8 else g.quantized()


def shuffled(kind: str) -> Graph:
    g = small_conv()
    if kind == "transpose":
        g.op("Reshape", weights=[np.array([1, 2, 8, 8, 8])])
        g.op("Transpose", perm=[0, 2, 1, 3, 4])
        g.op("Reshape", weights=[np.array([1, 16, 8, 8])])
    else:
        weight = np.zeros((16, 16, 1, 1), np.float32)
        weight[np.arange(16), np.arange(16).reshape(2, 8).T.reshape(-1)] = 1
        g.op("Conv", weights=[weight])
    g.conv(16, 16)
    return g


def padded(*, own: bool) -> Graph:
    g = Graph(1, 16, 8, 8)
    if own:
        g.op("Pad", weights=[np.array([0, 0, 1, 1, 0, 0, 1, 1])])
    g.conv(16, 16, pad=0 if own else None)
    return g


def normalised(*, first: bool) -> Graph:
    """Batch norm before the ReLU, where the export folds it, or after it."""
    g = Graph(1, 16, 8, 8)
    g.conv(16, 16)
    norm = [np.float32(np.random.default_rng(i).uniform(0.5, 1.5, 16)) for i in range(4)]
    for kind in ("BatchNormalization", "Relu") if first else ("Relu", "BatchNormalization"):
        g.op(kind, weights=norm if kind == "BatchNormalization" else ())
    return g


def read_twice(*, twice: bool) -> Graph:
    g = Graph(1, 16, 8, 8)
    made = g.conv(16, 16)
    g.op("Relu")
    g.op("Add", g.last, made if twice else "x")
    return g


def hardswish(scale: float) -> Any:
    g = Graph(1, 8, 8, 8)
    g.conv(8, 8)
    g.op("Mul", weights=[np.float32(scale)])
    g.op("HardSwish")
    return g.quantized()


def uneven(factor: float, *, per_channel: bool) -> Any:
    g = Graph(1, 8, 8, 8)
    g.conv(8, 16)
    g.weights["conv_1_w0"][3] *= np.float32(factor)
    return g.quantized(per_channel=per_channel)


def attention(length: int, precision: str = "w8a8") -> Any:
    g = Graph(1, 4, length)
    g.op("Softmax", axis=-1)
    return g.quantized(precision=precision)


def normal_layer(precision: str) -> Any:
    g = Graph(1, 4, 32)
    g.op("LayerNormalization", weights=[np.ones(32, np.float32), np.zeros(32, np.float32)], axis=-1)
    return g.quantized(precision=precision)


def row(length: int) -> Any:
    g = Graph(1, 1, 1, length)
    g.op("Softmax", axis=-1)
    return g.export()


def classifier(batch: int) -> Any:
    g = Graph(batch, 512)
    g.dense(512, 512)
    return g.quantized()


def opened(path: Any, *, batch: int | str) -> Any:
    g = small_conv(Graph(batch, 16, 8, 8))
    return g.save(path / f"net-{batch}.onnx")


FIRES: dict[str, Callable[..., Any]] = {
    "QNB-G001": lambda _: with_op("Celu").export(),
    "QNB-G002": lambda path: opened(path, batch="N"),
    "QNB-G003": lambda path: shared_bias(path, identity=True),
    "QNB-G004": lambda _: between_convolutions("Softmax", axis=2).quantized(),
    "QNB-G005": lambda _: normalised(first=False).export(simplify=True),
    "QNB-G006": lambda _: read_twice(twice=True).export(),
    "QNB-G007": lambda _: island(("x", "relu_2_y", "relu_6_y")),
    "QNB-G008": lambda _: mixed(16),
    "QNB-P001": lambda _: one_conv(128, 128).quantized(),
    "QNB-P002": lambda _: one_conv(32, 32, 7).quantized(),
    "QNB-P003": lambda _: one_conv(16, 16, dilation=2).quantized(),
    "QNB-P004": lambda _: one_conv(65, 65).quantized(),
    "QNB-P005": lambda _: spilling(512),
    "QNB-P006": lambda _: (row(1 << 19), {"vtcm_mb": 1}),
    "QNB-P007": lambda _: classifier(1),
    "QNB-P008": lambda _: with_op("GlobalAveragePool").export(),
    "QNB-P010": lambda _: with_op("Elu").quantized(),
    "QNB-P011": lambda _: shuffled("transpose").quantized(),
    "QNB-P012": lambda _: padded(own=True).quantized(),
    "QNB-A001": lambda _: hardswish(60.0),
    "QNB-A002": lambda _: uneven(40.0, per_channel=False),
    "QNB-A003": lambda _: normal_layer("w8a8"),
}
"""By rule: what gives a build, or a build and options of `debug`."""

QUIET: dict[str, list[Callable[..., Any]]] = {
    "QNB-G001": [lambda _: with_op("Elu").export()],
    "QNB-G002": [lambda path: opened(path, batch=1)],
    "QNB-G003": [lambda path: shared_bias(path, identity=False), lambda _: small_conv().quantized()],
    "QNB-G004": [lambda _: between_convolutions("Softmax", axis=1).quantized()],
    "QNB-G005": [lambda _: normalised(first=True).export(simplify=True)],
    "QNB-G006": [lambda _: read_twice(twice=False).export()],
    "QNB-G007": [lambda _: island(EVERY), lambda _: small_conv().export()],
    "QNB-G008": [lambda _: mixed(8), lambda _: small_conv().export()],
    "QNB-P001": [lambda _: one_conv(64, 64).quantized(), lambda _: one_conv(128, 128, group=128).quantized()],
    "QNB-P002": [
        lambda _: stepping(32, 8, 8).quantized(),
        lambda _: stepping(3, 7, 2).quantized(),
        lambda _: one_conv(32, 32, 5).quantized(),
        lambda _: one_conv(32, 32, 7, group=32).quantized(),
    ],
    "QNB-P003": [lambda _: one_conv(16, 16, 5).quantized(), lambda _: one_conv(16, 16, dilation=2).export()],
    "QNB-P004": [lambda _: one_conv(63, 63).quantized()],
    "QNB-P005": [lambda _: spilling(64)],
    "QNB-P006": [lambda _: row(1 << 19), lambda _: (row(1 << 16), {"vtcm_mb": 1})],
    "QNB-P007": [lambda _: one_conv(64, 64).quantized()],
    "QNB-P008": [lambda _: with_op("GlobalAveragePool").quantized()],
    "QNB-P010": [lambda _: with_op("HardSwish").quantized(), lambda _: with_op("Sigmoid").quantized()],
    "QNB-P011": [lambda _: shuffled("conv").quantized()],
    "QNB-P012": [lambda _: padded(own=False).quantized(), lambda _: padded(own=True).export()],
    "QNB-A001": [lambda _: hardswish(1.0), lambda _: with_op("Elu").export()],
    "QNB-A002": [lambda _: uneven(40.0, per_channel=True), lambda _: uneven(1.0, per_channel=False)],
    "QNB-A003": [lambda _: normal_layer("w8a16"), lambda _: attention(64)],
}

MORE: list[tuple[str, Callable[..., Any]]] = [
    ("QNB-P007", lambda _: classifier(4)),
    ("QNB-A003", lambda _: attention(1024)),
    ("QNB-P002", lambda _: one_conv(32, 32, 9, group=32).quantized()),
    ("QNB-P001", lambda _: one_conv(64, 64).export()),
    ("QNB-G002", lambda path: qnb.export(opened(path, batch="N"))),
]
"""Further ways to fire a rule."""


def found(case: Callable[..., Any], path: Any) -> Any:
    made = case(path)
    build, options = made if isinstance(made, tuple) else (made, {})
    return qnb.debug(build, ops=False, **options)


def test_every_rule_has_a_model_that_fires_it_and_one_that_does_not():
    assert sorted(FIRES) == sorted(QUIET) == sorted(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_fires(rule, tmp_path):
    rows = found(FIRES[rule], tmp_path).frame.query("id == @rule")
    assert len(rows)
    for row_ in rows.itertuples():
        assert row_.severity in SEVERITIES
        assert any(c.isdigit() for c in row_.evidence), "evidence is figures"
        assert row_.what
        assert row_.remedy
        assert row_.line.startswith("%qnn ")
        assert np.isnan(row_.gain_percent) == (row_.gain_of == "")


@pytest.mark.parametrize(("rule", "case"), [(rule, case) for rule, cases in QUIET.items() for case in cases])
def test_does_not_fire(rule, case, tmp_path):
    frame = found(case, tmp_path).frame
    assert rule not in set(frame["id"]), frame[frame["id"] == rule].to_string()


@pytest.mark.parametrize(("rule", "case"), MORE)
def test_fires_on_these_too(rule, case, tmp_path):
    assert rule in set(found(case, tmp_path).frame["id"])


def test_the_identity_itself_is_seen_in_the_file(tmp_path):
    g = Graph(1, 8, 8, 8)
    g.weights |= {"bias": g.normal(8), "w": g.normal(8, 8, 3, 3)}
    g.op("Conv", "x", "w", g.op("Identity", "bias"))
    rows = qnb.debug(g.save(tmp_path / "net.onnx"), ops=False).frame.query("id == 'QNB-G003'")
    assert list(rows["op_type"]) == ["Identity"]
    assert onnx.load(tmp_path / "net.onnx").graph.node[0].op_type == "Identity"
