"""Calibration's jobs. Oracle: numpy over activations that ONNX Runtime gives with all optimization off."""

from __future__ import annotations

import signal
import threading

import numpy as np
import onnx
import pytest

import qnb
from qnb import kept
from qnb.errors import BadInput, CalibrationError
from qnb.jobs import calibration as jobs
from qnb.progress import SILENT
from qnb.quant.qdq import observed_tensors
from qnb.runtime import client
from qnb.runtime.worker import JobContext
from qnb.steps._observing import observe_all
from tests.quant._nets import NETS, model, run, samples, weights


def blocks():
    """1x3x24x24 -> 1x10: 32 and 64 channels, which fill blocks of ONNX Runtime's layout, 24, which do not, a residual."""
    w = weights(3)
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        ("Conv", ["x", "w0", "b0"], ["c0"], same),
        ("Relu", ["c0"], ["r0"], {}),
        ("Conv", ["r0", "w1", "b1"], ["c1"], {**same, "group": 32}),
        ("Clip", ["c1", "zero", "six"], ["r1"], {}),
        ("Conv", ["r1", "w2", "b2"], ["c2"], {}),
        ("Add", ["c2", "r0"], ["a2"], {}),
        ("Conv", ["a2", "w3", "b3"], ["c3"], {}),
        ("Sigmoid", ["c3"], ["s3"], {}),
        ("Mul", ["s3", "c3"], ["m3"], {}),
        ("Conv", ["m3", "w4", "b4"], ["c4"], same),
        ("GlobalAveragePool", ["c4"], ["g4"], {}),
        ("Flatten", ["g4"], ["f4"], {}),
        ("Gemm", ["f4", "w5", "b5"], ["y"], {"transB": 1}),
    ]
    parameters = {
        "w0": w(32, 3, 3, 3), "b0": w(32, fan=10), "w1": w(32, 1, 3, 3), "b1": w(32, fan=10), "w2": w(32, 32, 1, 1),
        "b2": w(32, fan=10), "w3": w(24, 32, 1, 1), "b3": w(24, fan=10), "w4": w(64, 24, 3, 3), "b4": w(64, fan=10),
        "w5": w(10, 64), "b5": w(10, fan=10), "zero": np.float32(0), "six": np.float32(6),
    }  # fmt: skip
    return model(nodes, {"x": [1, 3, 24, 24]}, {"y": [1, 10]}, parameters)


MODELS = {**NETS, "blocks": blocks}


def context():
    return JobContext(lambda body: None)


def opened(ctx, folder, net, **more):
    source, out = folder / "model.onnx", folder / "observed.onnx"
    onnx.save(net, source)
    spec = {"model": str(out), "backend": "ort", "provider_options": {}, "config": {}, "strict": True, "verbose": False}
    args = {"key": "k", "model": str(source), "out": str(out), "spec": spec, "histogram": True} | more
    return jobs.observe_open(ctx, args, {})[0]


def observe(ctx, sample):
    """One sample."""
    jobs.observe(ctx, {"key": "k", "count": 1}, {name: value[None] for name, value in sample.items()})


def closed(ctx, *methods):
    return jobs.observe_close(ctx, {"key": "k", "methods": [{"method": m} for m in methods or ("min-max",)]}, {})


def activations(net, inputs):
    """Every float activation over all samples."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(net)
    exposed.graph.output.extend(net.graph.value_info)
    outputs = run(exposed, inputs, optimize=False)
    names = {*inputs[0], *outputs[0]}
    return {n: np.stack([{**i, **o}[n] for i, o in zip(inputs, outputs, strict=True)]) for n in names}


@pytest.fixture(params=MODELS)
def net(request):
    return MODELS[request.param]()


@pytest.mark.parametrize("segment", [1, 40_000, 1 << 30])
@pytest.mark.parametrize("histogram", [False, True])
def test_ranges_and_means_are_those_of_the_plain_graph(net, histogram, segment, tmp_path, monkeypatch):
    """However the graph is cut, and in whatever layout it computes."""
    monkeypatch.setattr(jobs, "_SEGMENT", segment)
    inputs, ctx = samples(net), context()
    assert opened(ctx, tmp_path, net, histogram=histogram, means=True)["tensors"] == len(observed_tensors(net))
    for sample in inputs:
        observe(ctx, sample)
    answer, arrays = closed(ctx)
    found, values = answer["ranges"]["min-max"], activations(net, inputs)
    assert answer["samples"] == len(inputs)
    assert set(found) == set(observed_tensors(net))
    for name, (low, high) in found.items():
        span = float(np.ptp(values[name]) + abs(values[name]).max())
        assert low == pytest.approx(values[name].min(), abs=1e-5 * span), name
        assert high == pytest.approx(values[name].max(), abs=1e-5 * span), name
    parameters = {i.name for i in net.graph.initializer}
    layers = [n for n in net.graph.node if n.op_type in ("Conv", "Gemm", "MatMul") and n.input[1] in parameters]
    assert {name.removeprefix("mean:") for name in arrays} == {n.input[0] for n in layers}
    for node in layers:
        data = values[node.input[0]]
        data = np.moveaxis(data, 2 if node.op_type == "Conv" else -1, -1)
        mean = data.reshape(-1, data.shape[-1]).mean(0)
        np.testing.assert_allclose(arrays[f"mean:{node.input[0]}"], mean, atol=1e-5 * np.abs(data).max())


def test_every_value_is_counted_where_that_is_asked_for(tmp_path):
    net = blocks()
    inputs, ctx = samples(net), context()
    opened(ctx, tmp_path, net, most=0)
    for sample in inputs:
        observe(ctx, sample)
    observer = ctx.state["calibrations"]["k"].observer
    for name, values in activations(net, inputs).items():
        if name in observer.extents:
            distribution = observer.distribution(name)
            assert distribution.counts.sum() == values.size, name
            near = distribution.width / 100
            below = [(values < edge - near).sum() for edge in distribution.edges[1:]]
            assert (np.cumsum(distribution.counts) >= below).all(), name


def test_samples_in_one_call_or_each_in_its_own(tmp_path):
    net = blocks()
    inputs, answers = samples(net), []
    for count in (1, 3, 8):
        ctx = context()
        opened(ctx, tmp_path, net)
        for start in range(0, len(inputs), count):
            some = inputs[start : start + count]
            jobs.observe(ctx, {"key": "k", "count": len(some)}, {"x": np.stack([s["x"] for s in some])})
        answers.append(closed(ctx, "min-max", "percentile", "mse", "entropy")[0])
    assert answers[0] == answers[1] == answers[2]
    assert set(answers[0]["ranges"]) == {"min-max", "percentile", "mse", "entropy"}


@pytest.mark.parametrize("histogram", [False, True])
def test_going_on_from_saved_statistics_gives_exactly_the_same(net, histogram, tmp_path):
    inputs = samples(net)
    methods = ("min-max", "percentile", "mse") if histogram else ("min-max",)
    ctx = context()
    opened(ctx, tmp_path, net, histogram=histogram, means=True)
    for sample in inputs:
        observe(ctx, sample)
    expected = closed(ctx, *methods)
    ctx = context()
    opened(ctx, tmp_path, net, histogram=histogram, means=True)
    for sample in inputs[:3]:
        observe(ctx, sample)
    assert jobs.observe_save(ctx, {"key": "k", "path": str(tmp_path / "s.npz")}, {})[0]["samples"] == 3
    ctx = context()
    begun = opened(ctx, tmp_path, net, histogram=histogram, means=True, resume=str(tmp_path / "s.npz"))
    assert begun["samples"] == 3
    for sample in inputs[3:]:
        observe(ctx, sample)
    found = closed(ctx, *methods)
    assert found[0] == expected[0]
    for name, value in expected[1].items():
        np.testing.assert_array_equal(found[1][name], value)


def test_statistics_of_another_model_or_kind_are_refused(tmp_path):
    nets = {name: build() for name, build in MODELS.items()}
    ctx = context()
    opened(ctx, tmp_path, nets["cnn"])
    observe(ctx, samples(nets["cnn"])[0])
    jobs.observe_save(ctx, {"key": "k", "path": str(tmp_path / "s.npz")}, {})
    for other in ({"net": nets["transformer"]}, {"histogram": False}, {"means": True}):
        more = {"net": nets["cnn"], "resume": str(tmp_path / "s.npz"), **other}
        with pytest.raises(CalibrationError, match="another model or of other kinds"):
            opened(context(), tmp_path, more.pop("net"), **more)
    (tmp_path / "s.npz").write_bytes(b"PK nothing")
    with pytest.raises(BadInput, match="no calibration statistics"):
        opened(context(), tmp_path, nets["cnn"], resume=str(tmp_path / "s.npz"))


def test_the_first_samples_are_kept_within_their_bounds(tmp_path):
    net = blocks()
    inputs = samples(net)
    size = inputs[0]["x"].nbytes
    for number, (most, room, left) in enumerate([(3, 1 << 30, 3), (5, 2 * size, 2), (0, 1 << 30, 0), (99, 1 << 30, 8)]):
        folder = tmp_path / str(number)
        for index, sample in enumerate(kept.first(inputs, most, room)):
            kept.put(folder, index, sample)
        files = sorted(folder.glob("*")) if folder.exists() else []
        assert [f.name for f in files] == [f"{n:05}.npz" for n in range(left)]
        for file, sample in zip(files, inputs, strict=False):
            with np.load(file, allow_pickle=False) as stored:
                np.testing.assert_array_equal(stored["x"], sample["x"])


def test_a_tensor_that_is_not_finite_is_named(tmp_path):
    net = model([("Relu", ["x"], ["r"], {}), ("Log", ["r"], ["l"], {})], {"x": [1, 4]}, {"l": [1, 4]}, {})
    ctx = context()
    opened(ctx, tmp_path, net)
    with pytest.raises(CalibrationError, match="'l' has 0 NaN and 4 infinite of 4 values"):
        observe(ctx, {"x": -np.ones((1, 4), np.float32)})


def test_what_the_runtime_folds_is_observed_too(tmp_path):
    nodes = [("Add", ["a", "a"], ["b"], {}), ("Add", ["x", "b"], ["y"], {})]
    net = model(nodes, {"x": [1, 4]}, {"y": [1, 4]}, {"a": np.arange(4, dtype=np.float32).reshape(1, 4)})
    ctx = context()
    opened(ctx, tmp_path, net)
    observe(ctx, {"x": np.ones((1, 4), np.float32)})
    assert closed(ctx)[0]["ranges"]["min-max"] == {"x": [1, 1], "b": [0, 6], "y": [1, 7]}


def test_weights_in_a_file_of_their_own(tmp_path):
    net, answers = blocks(), []
    for place in ("inside", "beside"):
        (tmp_path / place).mkdir()
        ctx = context()
        opened(ctx, tmp_path / place, net)
        if place == "beside":
            source = tmp_path / place / "model.onnx"
            onnx.save(net, source, save_as_external_data=True, location="w.bin", size_threshold=0)
            net = blocks()  # onnx.save has emptied it
            spec = {"model": str(source.with_name("o.onnx")), "backend": "ort", "provider_options": {}, "config": {}}
            args = {"key": "k", "model": str(source), "out": spec["model"], "histogram": True}
            jobs.observe_open(ctx, args | {"spec": spec | {"strict": True, "verbose": False}}, {})
        for sample in samples(net):
            observe(ctx, sample)
        answers.append(closed(ctx)[0])
    assert answers[0] == answers[1]


def test_no_sample_is_an_error(tmp_path):
    ctx = context()
    opened(ctx, tmp_path, blocks())
    with pytest.raises(CalibrationError, match="no calibration sample"):
        closed(ctx)


def test_an_interrupt_waits_for_the_end_of_a_sample(tmp_path, monkeypatch):
    net = blocks()
    ctx, inputs = context(), samples(net)
    opened(ctx, tmp_path, net)
    observe(ctx, inputs[0])
    calibration = ctx.state["calibrations"]["k"]
    assert threading.current_thread() is threading.main_thread()
    plain = type(calibration)._reduce

    def interrupted(self, output, value):
        if output == "x":
            signal.raise_signal(signal.SIGINT)
        plain(self, output, value)

    monkeypatch.setattr(type(calibration), "_reduce", interrupted)
    with pytest.raises(KeyboardInterrupt):
        observe(ctx, inputs[1])
    assert calibration.samples == 2
    counts = [calibration.observer.distribution(n).counts.sum() for n in ("x", "y")]
    assert counts == [2 * 3 * 24 * 24, 2 * 10]


# --- from the kernel's side ----------------------------------------------------------------------------------------


def _open_in(worker, folder, net, **more):
    onnx.save(net, folder / "model.onnx")
    out = folder / "observed.onnx"
    spec = {"model": str(out), "backend": "ort", "provider_options": {}, "config": {}, "strict": True, "verbose": False}
    args = {"key": "w", "model": str(folder / "model.onnx"), "out": str(out), "spec": spec, "histogram": True}
    return worker.call("observe_open", args | more).values["samples"]


def _ranges(worker):
    methods = [{"method": m} for m in ("min-max", "percentile")]
    return worker.call("observe_close", {"key": "w", "methods": methods}).values


@pytest.mark.parametrize("error", [ZeroDivisionError, BadInput, KeyboardInterrupt])
def test_what_came_before_the_data_broke_is_kept(error, tmp_path):
    net = blocks()
    inputs, checkpoint = samples(net, count=40), tmp_path / "checkpoint.npz"

    def broken():
        yield from inputs[:21]
        raise error("half way") if error is not BadInput else BadInput("half way", hint="none")

    with client.borrow() as worker:
        _open_in(worker, tmp_path, net)
        assert observe_all(worker, "w", iter(inputs), SILENT) == 40
        expected = _ranges(worker)
        _open_in(worker, tmp_path, net)
        with pytest.raises(error):
            observe_all(worker, "w", broken(), SILENT, checkpoint)
        done = _open_in(worker, tmp_path, net, resume=str(checkpoint))
        assert done == 21
        assert observe_all(worker, "w", iter(inputs), SILENT, checkpoint, done=done) == 40
        assert _ranges(worker) == expected


def test_a_bad_sample_does_not_take_the_good_ones_with_it(tmp_path):
    net = blocks()
    inputs = samples(net, count=20)
    inputs[17]["x"][0, 0, 0, 0] = np.nan
    with client.borrow() as worker:
        _open_in(worker, tmp_path, net)
        with pytest.raises(CalibrationError, match="'x' has 1 NaN"):
            observe_all(worker, "w", iter(inputs), SILENT, tmp_path / "c.npz")
        assert _open_in(worker, tmp_path, net, resume=str(tmp_path / "c.npz")) == 17


def test_the_public_step_goes_through_the_same_statistics(digits):
    """Few samples of a small model: nothing is left out of the counts, so numpy's percentile is the oracle."""
    made = qnb.calibrate(digits.model, digits.train[:20], ranges="percentile", percentile=99.0)
    row = made.frame.set_index("tensor").loc["image"]
    assert row["max"] == pytest.approx(np.percentile(digits.train[:20], 99.5), rel=0.02)
