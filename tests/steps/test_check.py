"""Check. Oracles: ONNX Runtime's CPU provider, driven by the test on graphs that it exposes itself, and numpy by hand over
the raw activations; the Hexagon simulator through `infer`; and networks that were broken at a known place.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pandas as pd
import pytest

import qnb
from qnb.errors import BadInput, CheckFailed, RuntimeUnavailable, UnknownName, WorkerCrashed
from tests.hard import hard_digits
from tests.steps.oracles import on_onnxruntime, split, sqnr_db

N = 8


@pytest.fixture(scope="module")
def checked(digits):
    return qnb.check(digits.quantized, digits.test[:40], labels=digits.labels[:40], layer_samples=N)


@pytest.fixture(scope="module")
def hard():
    data = hard_digits()
    model = qnb.export(
        data.module, shapes={"image": (1, 1, 8, 8)}, input_names=["image"], output_names=["logits"], name="hard"
    )
    return data, model


@pytest.fixture(scope="module")
def raw(digits, tmp_path_factory):
    """Every float tensor of the digits model on the first samples, by a plain session: (samples, …)."""
    model = onnx.load(digits.model.path)
    there = {o.name for o in model.graph.output}
    names = [n for node in model.graph.node for n in node.output if n not in there]
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    path = tmp_path_factory.mktemp("raw") / "raw.onnx"
    onnx.save(model, path)
    return on_onnxruntime(path, split(image=digits.test[:N])) | {"image": digits.test[:N]}


def rows(checked, source):
    return checked.frame[checked.frame["source"] == source].set_index("tensor")


def findings(checked, rule):
    return checked.findings[checked.findings["id"] == rule]


def broken(digits, tensor):
    """The digits model with one tensor whose grid is far too narrow."""
    row = digits.quantized.frame.set_index("tensor").loc[tensor]
    narrow = {"bitwidth": 8, "min": 0.0, "max": float(row["max"]) / 12}
    return qnb.calibrate(digits.model, digits.train[:100], overrides={"activation_encodings": {tensor: narrow}})


def hidden(digits):
    """A tensor in the middle of the network that has a grid, made by a convolution."""
    nodes = onnx.load(digits.quantized.path).graph.node
    made = [n.output[0] for n in nodes if n.op_type == "Conv"]
    return made[1]


# --- the figures --------------------------------------------------------------------------------------------------


def test_accumulated_figures_are_those_of_the_exposed_graph(digits, checked, raw, tmp_path):
    model = onnx.load(digits.quantized.path)
    names = {o for n in model.graph.node for o in n.output}
    probes = {t: f"{t}_dequantized" for t in rows(checked, "host").index if f"{t}_dequantized" in names}
    assert len(probes) >= 4
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in probes.values())
    onnx.save(model, tmp_path / "probed.onnx")
    found = on_onnxruntime(tmp_path / "probed.onnx", split(image=digits.test[:N]))
    for tensor, probe in probes.items():
        expected = sqnr_db(raw[tensor], found[probe])
        # one code up or down where the runtime fuses otherwise
        assert rows(checked, "host").loc[tensor, "accumulated_sqnr_db"] == pytest.approx(expected, abs=0.2)
        cosine = np.vdot(raw[tensor].astype(float), found[probe].astype(float))
        cosine /= np.linalg.norm(raw[tensor].astype(float)) * np.linalg.norm(found[probe].astype(float))
        assert rows(checked, "host").loc[tensor, "cosine"] == pytest.approx(cosine, abs=1e-4)
        mse = np.mean((raw[tensor].astype(float) - found[probe]) ** 2)
        assert rows(checked, "host").loc[tensor, "mse"] == pytest.approx(mse, rel=0.05)


def test_outputs_are_those_of_infer(digits, checked):
    images, labels = digits.test[:40], digits.labels[:40]
    by_infer = qnb.infer(digits.quantized, images, labels=labels, backend="htp")
    row = checked.outputs.set_index("source").loc["simulator"]
    expected = by_infer.frame.iloc[0]
    for figure in ("sqnr_db", "cosine", "max_abs_error", "top1_agreement", "accuracy"):
        assert row[figure] == pytest.approx(expected[figure], rel=1e-6), figure
    fp32 = on_onnxruntime(digits.model.path, split(image=images))["logits"]
    qdq = on_onnxruntime(digits.quantized.path, split(image=images))["logits"]
    host = checked.outputs.set_index("source").loc["host"]
    assert host["sqnr_db"] == pytest.approx(sqnr_db(fp32, qdq), abs=1e-6)
    assert host["mse"] == pytest.approx(np.mean((fp32.astype(float) - qdq) ** 2), rel=1e-6)
    assert host["fp32_accuracy"] == np.mean(fp32.argmax(1) == labels)
    assert host["top1_drop_percent"] == pytest.approx(
        100 * (np.mean(fp32.argmax(1) == labels) - np.mean(qdq.argmax(1) == labels))
    )


def test_the_last_layer_ends_where_infer_does(digits, checked):
    few = qnb.infer(digits.quantized, digits.test[:N], backend="htp")
    last = rows(checked, "simulator").loc["logits"]
    assert last["accumulated_sqnr_db"] == pytest.approx(few.frame["sqnr_db"][0], rel=1e-6)


def test_a_layer_in_isolation_loses_less_than_the_whole_and_more_than_its_output_alone(checked):
    alone = checked.tensors.set_index("tensor")["sqnr_db"]
    for source in ("host", "simulator"):
        table = rows(checked, source)
        for tensor, row in table.dropna(subset=["isolated_sqnr_db"]).iterrows():
            assert row["isolated_sqnr_db"] <= alone[tensor] + 0.1
            assert row["isolated_sqnr_db"] >= row["accumulated_sqnr_db"] - 1.5
    apart = rows(checked, "host")["isolated_sqnr_db"] - rows(checked, "simulator")["isolated_sqnr_db"]
    assert np.abs(apart).max() < 1.5
    moving = checked.frame[checked.frame["op_type"].isin(["Reshape", "Flatten"])]
    assert moving["isolated_sqnr_db"].isna().all()


def test_tensor_figures_by_hand(digits, checked, raw):
    table = checked.tensors.set_index("tensor")
    grids = digits.quantized.frame.set_index("tensor")
    activations = [t for t in table.index[table["kind"] == "activation"] if t in raw]
    assert set(activations) >= {"image", "logits"}
    for tensor in activations:
        x, row, grid = raw[tensor].astype(np.float64).ravel(), table.loc[tensor], grids.loc[tensor]
        scale, zero = np.float32(grid["scale"]).astype(float), int(grid["zero_point"])
        codes = np.rint(x / scale) + zero
        clipped = np.clip(codes, 0, 255)
        back = (clipped - zero) * scale
        assert row["mse"] == pytest.approx(np.mean((x - back) ** 2), rel=1e-6)
        assert row["sqnr_db"] == pytest.approx(sqnr_db(x, back), abs=1e-4)
        assert row["clipped_percent"] == pytest.approx(100 * np.mean(codes != clipped))
        assert row["codes_used_percent"] == pytest.approx(100 * len(np.unique(clipped)) / min(256, x.size))
        assert (row["observed_min"], row["observed_max"]) == (pytest.approx(x.min()), pytest.approx(x.max()))
        assert (row["grid_min"], row["grid_max"]) == (pytest.approx(grid["min"]), pytest.approx(grid["max"]))
        counts = checked.counts[list(checked.tensors.loc[checked.tensors["kind"] != "bias", "tensor"]).index(tensor)]
        assert counts.sum() == x.size
        # the middle half of the bins is the grid, half a step wider at both ends
        edges = np.linspace(row["grid_min"] - 128.5 * scale, row["grid_max"] + 128.5 * scale, len(counts) + 1)
        expected, _ = np.histogram(np.clip(x, edges[0], edges[-1]), edges)
        assert np.abs(np.cumsum(expected) - np.cumsum(counts)).max() <= 1 + 0.002 * x.size
    assert (table["source"] == "host").all()


def test_weight_figures_by_hand(digits, checked):
    model, quantized = onnx.load(digits.model.path), onnx.load(digits.quantized.path)
    floats = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in quantized.graph.initializer}
    weights = checked.tensors[checked.tensors["kind"] == "weight"]
    assert len(weights) >= 3
    for row in weights.itertuples():
        w, q = floats[row.tensor].astype(float), stored[f"{row.tensor}_quantized"].astype(float)
        scale = stored[f"{row.tensor}_scale"].astype(float)
        axis = int(digits.quantized.frame.set_index("tensor").loc[row.tensor, "axis"])
        shape = [-1 if i == axis else 1 for i in range(w.ndim)]
        assert row.sqnr_db == pytest.approx(sqnr_db(w, q * scale.reshape(shape)), abs=1e-6)
        assert row.grids == scale.size
        channels = checked.channels[checked.channels["tensor"] == row.tensor]
        others = tuple(i for i in range(w.ndim) if i != axis)
        np.testing.assert_allclose(channels["min"], w.min(axis=others))
        np.testing.assert_allclose(channels["max"], w.max(axis=others))


def test_channels_of_activations_by_hand(checked, raw):
    for tensor, table in checked.channels[checked.channels["kind"] == "activation"].groupby("tensor"):
        axis = 1  # images and vectors alike
        others = tuple(i for i in range(raw[tensor].ndim) if i != axis)
        low, high = raw[tensor].min(axis=others), raw[tensor].max(axis=others)
        np.testing.assert_allclose(table["min"], low, rtol=1e-5, atol=1e-6)
        size = np.maximum(high, 0) - np.minimum(low, 0)
        np.testing.assert_allclose(table["range"], size, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(table["ratio"], size / np.median(size[size > 0]), rtol=1e-4, atol=1e-5)


# --- what it finds ------------------------------------------------------------------------------------------------


def test_a_broken_layer_is_named_on_both_and_both_ways(digits):
    tensor = hidden(digits)
    found = qnb.check(broken(digits, tensor), digits.test[:N])
    for source in ("host", "simulator"):
        table = rows(found, source)
        assert table.loc[tensor, "remark"] == "first bad isolated, first bad accumulated", source
        assert (table["remark"].str.contains("first bad isolated")).sum() == 1
    layer = rows(found, "simulator").loc[tensor, "layer"]
    assert found.first_bad == layer
    assert layer in found.title
    first = findings(found, "QNB-Q001").iloc[0]
    assert (first["layer"], first["tensor"], first["severity"]) == (layer, tensor, "error")
    assert "clips" in first["problem"]
    assert "override" in first["remedy"]
    assert list(findings(found, "QNB-Q003")["tensor"]) == [tensor]
    assert tensor in list(findings(found, "QNB-Q006")["tensor"])
    assert found.tensor == tensor  # the one whose histogram is drawn


def test_a_sound_model_has_no_bad_layer(checked):
    assert checked.first_bad == ""
    assert not set(checked.findings["id"]) & {"QNB-Q001", "QNB-Q002", "QNB-Q003", "QNB-Q004", "QNB-Q008"}
    assert set(checked.findings["severity"]) <= {"info", "warning"}


def test_channels_of_different_range_are_found_and_the_remedy_is_the_one_that_helps(hard):
    data, model = hard
    per_tensor = qnb.calibrate(model, data.train[:200], per_channel=False)
    naive = qnb.check(per_tensor, data.test[:60], labels=data.labels[:60])
    uneven = findings(naive, "QNB-Q008")
    assert len(uneven) >= 3
    assert uneven["remedy"].str.contains("per_channel=True").all()
    assert "per_channel=True" in findings(naive, "QNB-Q001")["remedy"].iloc[0]
    assert len(findings(naive, "QNB-Q013")) == 1
    per_channel = qnb.check(qnb.calibrate(model, data.train[:200]), data.test[:60], labels=data.labels[:60])
    assert not len(findings(per_channel, "QNB-Q008"))
    assert "equalize=True" in findings(per_channel, "QNB-Q001")["remedy"].iloc[0]
    assert findings(per_channel, "QNB-Q009")["remedy"].str.contains("equalize=True").all()
    # the remedy is true: it helps, by far
    drop = [c.outputs.set_index("source").loc["simulator", "top1_drop_percent"] for c in (naive, per_channel)]
    assert drop[0] > 30 > 10 > drop[1]


def test_the_remedy_of_an_override_can_be_pasted(digits):
    from qnb.steps._findings import wider

    overrides = wider(hidden(digits)).partition("overrides=")[2]
    model = qnb.calibrate(digits.model, digits.train[:50], overrides=eval(overrides))
    assert model.frame.set_index("tensor").loc[hidden(digits), "bits"] == 16


def test_data_beyond_the_calibration_is_found(digits):
    narrow = qnb.calibrate(digits.model, 0.2 * digits.train[:50])
    found = qnb.check(narrow, digits.test[:N])
    beyond = findings(found, "QNB-Q006")
    assert "image" in list(beyond["tensor"])
    assert beyond["remedy"].str.contains("more samples").all()
    cut = qnb.check(qnb.calibrate(digits.model, digits.train[:50], ranges="percentile", percentile=90), digits.test[:N])
    assert len(findings(cut, "QNB-Q005"))
    assert not len(findings(cut, "QNB-Q006"))


def test_a_grid_far_too_wide_and_outliers_are_found(digits):
    wide = qnb.calibrate(digits.model, np.concatenate([digits.train[:20], 40 * digits.train[20:22]]))
    assert "image" in list(findings(qnb.check(wide, digits.test[:N]), "QNB-Q014")["tensor"])
    spiked = digits.test[:N].copy()
    spiked[0, 0, 0, 0] = 60
    model = qnb.calibrate(digits.model, spiked)
    found = findings(qnb.check(model, spiked), "QNB-Q007")
    assert "image" not in list(found["tensor"]) or 'ranges="mse"' in found["remedy"].iloc[0]


@pytest.mark.parametrize("inputs", [4096, 70_000])
def test_a_sum_that_may_overflow_is_found(inputs):
    """127 x 255 x 70 000 is more than 2**31, 127 x 255 x 4096 is less."""
    import torch

    net = torch.nn.Linear(inputs, 2)
    torch.nn.init.constant_(net.weight, 1e-3)
    data = np.random.default_rng(0).uniform(0, 1, (4, 1, inputs)).astype(np.float32)
    model = qnb.export(net, shapes={"x": (1, inputs)}, input_names=["x"], name="wide")
    checked = qnb.check(qnb.calibrate(model, data), data, layer_samples=2)
    assert (len(findings(checked, "QNB-Q012")) > 0) == (127 * 255 * inputs > 2**31)


def test_dead_channels_and_constants_are_found(digits):
    found = qnb.check(digits.quantized, np.zeros((2, 1, 8, 8), np.float32))
    assert "image" in list(findings(found, "QNB-Q010")["tensor"])


# --- as a gate ----------------------------------------------------------------------------------------------------


def test_the_gate(digits):
    images, labels = digits.test[:20], digits.labels[:20]
    good = qnb.check(digits.quantized, images, labels=labels, min_sqnr=20, max_top1_drop=10, layers=False)
    assert good.passed
    assert good.require() is None
    assert good.title.startswith("PASS · digits w8a8")
    bad = qnb.check(digits.quantized, images, min_sqnr=90, layers=False)
    assert not bad.passed
    assert bad.title.startswith("FAIL")
    (reason,) = bad.reasons
    assert "below min_sqnr 90" in reason
    assert "simulator" in reason
    with pytest.raises(CheckFailed, match="below min_sqnr 90") as error:
        bad.require()
    assert error.value.hint
    assert f"FAIL: {reason}" in str(bad)
    neutral = qnb.check(digits.quantized, images, layers=False)
    assert neutral.passed
    assert not neutral.judged
    assert "PASS" not in neutral.title


def test_a_top1_drop_fails_the_gate(hard):
    data, model = hard
    naive = qnb.calibrate(model, data.train[:100], per_channel=False)
    found = qnb.check(naive, data.test[:60], labels=data.labels[:60], max_top1_drop=0.5, layers=False)
    assert "top-1 accuracy falls by" in found.reasons[0]
    unlabelled = qnb.check(naive, data.test[:60], max_top1_drop=0.5, layers=False)
    assert "top-1 class changes for" in unlabelled.reasons[0]


# --- the variety of models ----------------------------------------------------------------------------------------


def test_several_inputs_and_outputs(two_quantized, two_data):
    found = qnb.check(two_quantized, two_data)
    assert set(found.outputs["output"]) == {"logits", "features"}
    assert {"logits", "features"} <= set(found.frame["tensor"])
    assert found.outputs.groupby("output")["top1_drop_percent"].first().notna()["logits"]
    by_infer = qnb.infer(two_quantized, two_data).frame.set_index("output")["sqnr_db"]
    here = found.outputs[found.outputs["source"] == "simulator"].set_index("output")["sqnr_db"]
    for name in here.index:
        assert here[name] == pytest.approx(by_infer[name], rel=1e-6)


def test_attention_and_recurrence(vit, lstm):
    for (_, model), seed in ((vit, 0), (lstm, 1)):
        rng = np.random.default_rng(seed)
        data = rng.standard_normal((6, *model.inputs[0].shape[1:])).astype(np.float32)
        found = qnb.check(qnb.calibrate(model, data), data, layer_samples=2)
        computing = found.frame.dropna(subset=["isolated_sqnr_db"])
        assert set(computing["source"]) == {"host", "simulator"}
        assert (computing["isolated_sqnr_db"] > 20).all()


def test_mixed_precision_with_tensors_left_in_float(digits):
    tensor = hidden(digits)
    overrides = {"activation_encodings": {tensor: [{"bitwidth": 16, "dtype": "float"}]}}
    mixed = qnb.calibrate(digits.model, digits.train[:50], overrides=overrides)
    found = qnb.check(mixed, digits.test[:4])
    assert tensor not in set(found.tensors["tensor"])
    assert found.outputs["sqnr_db"].min() > 15
    assert "host" in set(found.frame["source"])


def test_16_bit_activations(digits):
    wide = qnb.calibrate(digits.model, digits.train[:50], precision="w8a16")
    found = qnb.check(wide, digits.test[:4])
    activations = found.tensors[found.tensors["kind"] == "activation"]
    assert set(activations["bits"]) == {16}
    assert activations["sqnr_db"].min() > 60
    assert set(found.frame.dropna(subset=["isolated_sqnr_db"])["source"]) == {"host", "simulator"}


def test_a_context_and_a_saved_one(digits, saved):
    found = qnb.check(digits.contexts["SM8350"], digits.test[:4], layers=False)
    assert found.recipe.arguments["soc"] == "SM8350"
    assert qnb.check(saved / "quantized", digits.test[:4], layers=False).outputs["sqnr_db"].notna().all()


def test_without_a_simulator_the_host_stands_alone(digits, monkeypatch):
    import qnb.steps.check as step

    def unavailable(*args, **kwargs):
        raise RuntimeUnavailable("backend htp does not start here")

    monkeypatch.setattr(step, "deploy", unavailable)
    found = qnb.check(digits.quantized, digits.test[:4], min_sqnr=10)
    assert set(found.frame["source"]) == set(found.outputs["source"]) == {"host"}
    assert any("no figures of the NPU: backend htp does not start here" in note for note in found.notes)
    assert found.passed
    assert "(host)" in found.title
    assert found.figures()


def test_a_simulator_that_dies_leaves_the_host(digits, monkeypatch):
    import qnb.steps.check as step

    real = step.Work.run

    def dying(self, deployed, held, total):
        if deployed is not None:
            raise WorkerCrashed("the worker died: SIGSEGV")
        return real(self, deployed, held, total)

    monkeypatch.setattr(step.Work, "run", dying)
    found = qnb.check(digits.quantized, (x for x in digits.test[:4]))
    assert set(found.frame["source"]) == {"host"}
    assert found.samples == 4
    assert any("SIGSEGV" in note for note in found.notes)


def test_samples_are_streamed_once_and_the_layers_see_the_first(digits):
    asked = []

    def stream():
        for index in range(12):
            asked.append(index)
            yield digits.test[index]

    found = qnb.check(digits.quantized, stream(), layer_samples=3)
    assert asked == list(range(12))
    assert found.samples == 12
    few = qnb.check(digits.quantized, digits.test[:3])
    pd.testing.assert_frame_equal(found.frame, few.frame)
    pd.testing.assert_frame_equal(found.tensors, few.tensors)
    assert found.outputs["sqnr_db"][0] != few.outputs["sqnr_db"][0]


# --- the result ---------------------------------------------------------------------------------------------------


def test_histogram_and_channels(digits, checked):
    assert len(checked.figures()) == 4
    assert checked.histogram("logits").get_suptitle().startswith("logits")
    weight = checked.tensors.loc[checked.tensors["kind"] == "weight", "tensor"].iloc[0]
    assert checked.histogram(weight).axes
    assert checked.plot_channels(weight).axes
    with pytest.raises(UnknownName, match="logitz") as error:
        checked.histogram("logitz")
    assert "did you mean logits" in error.value.hint
    with pytest.raises(UnknownName, match="tensor with channels"):
        checked.plot_channels("nothing like it")


def test_a_failed_check_is_saved_too(digits, tmp_path):
    bad = qnb.check(digits.quantized, digits.test[:2], min_sqnr=90, layers=False)
    bad.save(tmp_path / "bad")
    again = qnb.load(tmp_path / "bad")
    assert again.reasons == bad.reasons
    assert not again.passed
    assert again.histogram().axes
    assert dataclasses.replace(again, reasons=()).passed


def test_bad_arguments(digits):
    images = digits.test[:4]
    with pytest.raises(BadInput, match="float model") as error:
        qnb.check(digits.model, images)
    assert "qnb.calibrate" in error.value.hint
    with pytest.raises(BadInput, match="no sample"):
        qnb.check(digits.quantized, iter(()))
    with pytest.raises(BadInput, match="3 labels for 4 samples"):
        qnb.check(digits.quantized, images, labels=np.zeros(3, int), layers=False)
    with pytest.raises(BadInput, match="labels from 0 to 10, but the model has 10 classes"):
        qnb.check(digits.quantized, images, labels=np.array([0, 1, 2, 10]))
    with pytest.raises(UnknownName, match="logitz") as unknown:
        qnb.check(digits.quantized, images, tensor="logitz")
    assert "logits" in unknown.value.hint
    with pytest.raises(BadInput, match="layer_samples is 0"):
        qnb.check(digits.quantized, images, layer_samples=0)
    with pytest.raises(UnknownName):
        qnb.check(digits.quantized, images, soc="SM9999")


def test_a_drop_needs_a_classifier():
    from tests.steps.oracles import exported, noise

    _, model = exported("resnet_block")
    data = noise(2, 32, 28, 28)
    with pytest.raises(BadInput, match="no output is"):
        qnb.check(qnb.calibrate(model, data), data, labels=np.zeros(2, int))
    with pytest.raises(BadInput, match="max_top1_drop"):
        qnb.check(qnb.calibrate(model, data), data, max_top1_drop=1, layers=False)
