"""The jobs on weights, in worker processes.

Oracles: ONNX Runtime in this process, arithmetic on its outputs, and a worker that is interrupted half way.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qnb import running
from qnb.errors import BadInput, CalibrationError, Interrupted, QnbError, UnknownName
from qnb.quant import encoding_files
from qnb.quant.qdq import encode, insert_qdq
from qnb.runtime import client
from qnb.runtime.locate import find_runtime
from qnb.runtime.options import session_spec
from qnb.runtime.process import Worker
from tests.quant._nets import NETS, model, ranges, run, samples, sqnr, weights


@pytest.fixture
def worker() -> Iterator[Worker]:
    with client.borrow() as borrowed:
        yield borrowed


def _args(folder: Path, net: onnx.ModelProto, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Write a model and its samples; give the arguments that all jobs share."""
    onnx.save(net, folder / "model.onnx")
    (folder / "samples").mkdir(exist_ok=True)
    for index, sample in enumerate(inputs):
        np.savez(folder / "samples" / f"{index:05}.npz", **sample)
    spec = session_spec(str(folder / "model.onnx"), "ort", find_runtime(None)).plain()
    return {
        "model": str(folder / "model.onnx"),
        "out": str(folder / "out.onnx"),
        "samples": str(folder / "samples"),
        "spec": spec,
        "folder": str(folder / "scratch"),
    }


def _with_norms() -> onnx.ModelProto:
    """Conv, BatchNormalization, ReLU6, twice, then Gemm."""
    w = weights(3)
    norm = {f"{k}{i}": np.abs(w(8)) + 0.5 for i in (0, 1) for k in "gmv"} | {f"e{i}": w(8) + 3 for i in (0, 1)}
    nodes: list[Any] = []
    for i, source in ((0, "x"), (1, "r0")):
        nodes += [
            ("Conv", [source, f"w{i}"], [f"c{i}"], {}),
            ("BatchNormalization", [f"c{i}", f"g{i}", f"e{i}", f"m{i}", f"v{i}"], [f"n{i}"], {}),
            ("Clip", [f"n{i}", "zero", "six"], [f"r{i}"], {}),
        ]
    nodes += [("GlobalAveragePool", ["r1"], ["p"], {}), ("Flatten", ["p"], ["f"], {}), ("Gemm", ["f", "w2"], ["y"], {})]
    parameters = {"w0": w(8, 3, 3, 3), "w1": w(8, 8, 1, 1), "w2": w(8, 5), "zero": np.float32(0), "six": np.float32(6)}
    return model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 5]}, {**norm, **parameters})


def test_transform_changes_the_model_and_not_its_function(worker: Worker, tmp_path: Path) -> None:
    net = _with_norms()
    inputs = [{"x": sample["x"] * np.float32(0.2)} for sample in samples(net, 6)]
    args = _args(tmp_path, net, inputs)
    answer = worker.call("transform", {**args, "steps": ["fold", "equalize", "absorb"]})
    made = onnx.load(args["out"])
    assert [n.op_type for n in made.graph.node if n.op_type in ("BatchNormalization", "Clip")] == []
    steps = [row["step"] for row in answer.values["rows"]]
    assert {"fold batch norm", "equalize", "absorb bias"} == set(steps)
    for before, after in zip(run(net, inputs), run(made, inputs), strict=True):
        np.testing.assert_allclose(after["y"], before["y"], rtol=1e-3, atol=1e-4 * np.abs(before["y"]).max())
    assert list((tmp_path / "scratch").glob("*.onnx")) == []


def test_without_samples_no_clip_is_passed(worker: Worker, tmp_path: Path) -> None:
    args = _args(tmp_path, _with_norms(), samples(_with_norms(), 2)) | {"samples": None}
    answer = worker.call("transform", {**args, "steps": ["fold", "equalize"]})
    assert "Clip" in [n.op_type for n in onnx.load(args["out"]).graph.node]
    assert {row["step"] for row in answer.values["rows"]} == {"fold batch norm"}
    with pytest.raises(BadInput, match="without samples"):
        worker.call("transform", {**args, "steps": ["absorb"]})


def _encoded(args: dict[str, Any], net: onnx.ModelProto, inputs: list[dict[str, Any]], bits: int) -> dict[str, Any]:
    path = Path(args["model"]).with_name("encodings.json")
    encodings = encode(net, ranges(net, inputs), weight_bits=bits)
    ranks = {tensor.name: len(tensor.dims) for tensor in net.graph.initializer}
    path.write_text(encoding_files.dumps(encodings, ranks=ranks))
    return {**args, "encodings": str(path), "chosen": str(path.with_name("chosen.json")), "options": None}


def test_correct_takes_means_from_samples_or_from_the_caller(worker: Worker, tmp_path: Path) -> None:
    net = model(
        [("Conv", ["x", "w", "b"], ["y"], {})], {"x": [1, 3, 8, 8]}, {"y": [1, 6, 6, 6]},
        {"w": weights(1)(6, 3, 3, 3), "b": np.zeros(6, np.float32)},
    )  # fmt: skip
    inputs = [{"x": sample["x"] + 2} for sample in samples(net, 4)]
    args = _encoded(_args(tmp_path, net, inputs), net, inputs, 4) | {"steps": ["correct"]}
    worker.call("transform", args)
    own = onnx.load(args["out"]).graph.initializer
    mean = np.mean([sample["x"] for sample in inputs], axis=(0, 1, 3, 4))
    worker.call("transform", {**args, "samples": None}, {"mean:x": mean})
    given = onnx.load(args["out"]).graph.initializer
    biases = [numpy_helper.to_array(next(t for t in group if t.name == "b")) for group in (own, given)]
    assert np.abs(biases[0]).max() > 0
    np.testing.assert_allclose(biases[0], biases[1], rtol=1e-4, atol=1e-6)


def _quantized(args: dict[str, Any], net: onnx.ModelProto, inputs: list[dict[str, Any]], path: str) -> onnx.ModelProto:
    """The float model at `path` quantized to w4a8 with the chosen grids, if there are any."""
    float_net = onnx.load(path)
    grids = {}
    if Path(args["chosen"]).is_file():
        read = encoding_files.read(args["chosen"])
        grids = {
            name: made for name, e in encode(net, ranges(net, inputs), weight_bits=4).weights.items()
            if name in read.tensors and (made := read.complete(name, e)) is not None
        }  # fmt: skip
    encodings = encode(float_net, ranges(net, inputs), weight_bits=4, weights=grids)
    return insert_qdq(float_net, encodings.activations, encodings.weights)


def test_optimise_then_quantize_then_score(worker: Worker, tmp_path: Path) -> None:
    net = NETS["cnn"]()
    inputs = samples(net, 12)
    args = _encoded(_args(tmp_path, net, inputs), net, inputs, 4)
    plain = _quantized(args, net, inputs, args["model"])
    answer = worker.call("optimise", {**args, "method": "gptq"})
    layers = [n.name for n in net.graph.node if n.op_type in ("Conv", "Gemm")]
    assert [row["layer"] for row in answer.values["rows"]] == layers
    better = _quantized(args, net, inputs, args["out"])
    four = [t for t in better.graph.initializer if t.data_type == onnx.TensorProto.INT4 and len(t.dims) > 1]
    assert len(four) == len(layers)
    paths = []
    for name, made in (("plain", plain), ("better", better)):
        onnx.save(made, tmp_path / f"{name}.onnx")
        paths.append(str(tmp_path / f"{name}.onnx"))
    scored = worker.call("score", {**args, "candidates": paths}).values
    reference = run(net, inputs)
    for made, figure in zip((plain, better), scored["sqnr_db"], strict=True):
        assert figure == pytest.approx(sqnr(reference, run(made, inputs)), abs=0.5)
    assert scored["sqnr_db"][1] > scored["sqnr_db"][0] + 2


def test_score_judges_by_the_worst_output(worker: Worker, tmp_path: Path) -> None:
    w = weights(2)

    def net(noise: float) -> onnx.ModelProto:
        head = w2 + np.float32(noise)
        return model(
            [("Gemm", ["x", "a"], ["large"], {}), ("Gemm", ["x", "b"], ["small"], {})],
            {"x": [1, 6]}, {"large": [1, 4], "small": [1, 4]}, {"a": w1, "b": head},
        )  # fmt: skip

    w1, w2 = w(6, 4) * 1000, w(6, 4)
    inputs = samples(net(0), 5)
    args = _args(tmp_path, net(0), inputs)
    onnx.save(net(0.1), tmp_path / "candidate.onnx")
    scored = worker.call("score", {**args, "candidates": [str(tmp_path / "candidate.onnx"), args["model"]]}).values
    small = [np.stack([out["small"] for out in run(net(noise), inputs)]) for noise in (0, 0.1)]
    expected = 10 * np.log10((small[0] ** 2).sum() / ((small[1] - small[0]) ** 2).sum())
    assert scored["sqnr_db"] == [pytest.approx(expected, abs=0.01), float("inf")]
    assert scored["outputs"][0]["large"] == float("inf")


def test_an_interrupt_keeps_the_finished_layers(worker: Worker, tmp_path: Path) -> None:
    net = NETS["cnn"]()
    inputs = samples(net, 8)
    args = _encoded(_args(tmp_path, net, inputs), net, inputs, 4) | {
        "method": "adaround",
        "options": {"iterations": 400},
    }
    with running.work("optimise") as work:

        def watch(done: float, total: float | None, text: str) -> None:
            if done >= 2:
                work.cancel()

        with pytest.raises((Interrupted, QnbError)):
            worker.call("optimise", args, on_progress=watch)
    layers = tmp_path / "scratch" / "layers"
    kept = {path.name: path.stat().st_mtime_ns for path in layers.glob("*.npz")}
    assert 2 <= len(kept) < 6
    assert not Path(args["out"]).exists()
    with client.borrow() as another:
        answer = another.call("optimise", args)
    assert len(answer.values["rows"]) == 6
    assert {name: (layers / name).stat().st_mtime_ns for name in kept} == kept  # taken up, not made again
    with client.borrow() as another:
        another.call("optimise", {**args, "options": {"iterations": 401}})
    assert {name: (layers / name).stat().st_mtime_ns for name in kept} != kept  # other options: made again


def test_what_is_wrong_is_said(worker: Worker, tmp_path: Path) -> None:
    net = NETS["cnn"]()
    args = _encoded(_args(tmp_path, net, samples(net, 1)), net, samples(net, 1), 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnknownName, match="equalise"):
        worker.call("transform", {**args, "steps": ["equalise"]})
    with pytest.raises(UnknownName, match="gtpq"):
        worker.call("optimise", {**args, "method": "gtpq"})
    for job in ("optimise", "score"):
        with pytest.raises(CalibrationError, match="no samples"):
            worker.call(job, {**args, "samples": str(tmp_path / "empty"), "method": "gptq", "candidates": []})


@pytest.mark.slow
def test_hard_digits_at_four_bits_on_the_simulator(worker: Worker, tmp_path: Path) -> None:
    """Oracle: the Hexagon simulator; top-1 within 2 % of float, where without these jobs it is near chance."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime_qnn")
    from tests.hard import hard_digits
    from tests.quant import _simulator

    hard = hard_digits()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            hard.module, (torch.zeros(1, 1, 8, 8),), file, input_names=["x"], output_names=["y"], dynamo=False,
            opset_version=20,
        )  # fmt: skip
    net = onnx.shape_inference.infer_shapes(onnx.load_from_string(file.getvalue()))
    net.ir_version = 10
    inputs = [{"x": image[None]} for image in hard.train[:256]]
    test = [{"x": image[None]} for image in hard.test]
    args = _args(tmp_path, net, inputs)
    worker.call("transform", {**args, "steps": ["fold", "equalize"], "out": str(tmp_path / "equal.onnx")})
    equal = onnx.load(tmp_path / "equal.onnx")
    args = _encoded({**args, "model": str(tmp_path / "equal.onnx")}, equal, inputs, 4)
    worker.call("optimise", {**args, "method": "gptq"})
    reference = run(net, test)

    def judged(outputs: list[dict[str, Any]]) -> float:
        return float((np.concatenate([out["y"] for out in outputs]).argmax(1) == hard.labels).mean())

    outputs = _simulator.run(_quantized(args, equal, inputs, args["out"]), test)
    assert judged(outputs) > judged(reference) - 0.02
    assert sqnr(reference, outputs) > 18
