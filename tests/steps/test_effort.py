"""What calibrate does beyond plain ranges. Oracles: ONNX Runtime driven by the test, and the Hexagon simulator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import qnb
from qnb.errors import BadInput, CalibrationError, Interrupted, UnknownName
from qnb.steps import _observing
from tests.hard import hard_digits
from tests.processes import Strike, default_interrupts, interrupt_kernel
from tests.steps.oracles import on_onnxruntime, split, sqnr_db


@pytest.fixture(scope="module")
def hard():
    return hard_digits()


@pytest.fixture(scope="module")
def model(hard_model):
    return hard_model


@pytest.fixture(scope="module")
def made(hard, model):
    """By effort and precision."""
    wanted = [("fast", "w8a8"), ("balanced", "w8a8"), ("fast", "w4a8"), ("best", "w4a8")]
    return {
        (effort, precision): qnb.calibrate(model, hard.train[:256], effort=effort, precision=precision)
        for effort, precision in wanted
    }


def on_host(path, hard):
    return on_onnxruntime(path, split(image=hard.test[:200]))["logits"]


def test_balanced_mends_what_a_plain_calibration_breaks(hard, made):
    figures = {
        effort: qnb.infer(made[effort, "w8a8"], hard.test[:200], labels=hard.labels[:200]).frame.iloc[0]
        for effort in ("fast", "balanced")
    }
    fp32 = np.mean(on_host(made["fast", "w8a8"].parent.path, hard).argmax(1) == hard.labels[:200])
    assert figures["fast"]["source"] == "simulator"
    assert figures["balanced"]["sqnr_db"] > figures["fast"]["sqnr_db"] + 15
    assert figures["balanced"]["accuracy"] >= fp32 - 0.005


def test_best_makes_four_bits_usable(hard, made):
    fp32 = np.mean(on_host(made["fast", "w4a8"].parent.path, hard).argmax(1) == hard.labels[:200])
    figures = {
        effort: qnb.infer(made[effort, "w4a8"], hard.test[:200], labels=hard.labels[:200]).frame.iloc[0]
        for effort in ("fast", "best")
    }
    assert figures["fast"]["accuracy"] < 0.6
    assert figures["best"]["accuracy"] >= fp32 - 0.02
    assert set(made["best", "w4a8"].frame.query("kind == 'weight'")["bits"]) == {4}


def test_what_was_tried_is_told_as_it_was_measured(hard, model, made):
    trials = made["best", "w4a8"].trials
    assert (trials.groupby("step")["kept"].sum() == 1).all()
    assert set(trials["source"]) == {"host"}
    assert made["fast", "w8a8"].trials is None
    assert "what was tried" in made["best", "w4a8"].tables()
    scored = split(image=hard.train[96:128])  # of 128 that are kept the last
    expected = on_onnxruntime(model.path, scored)["logits"]
    ran = on_onnxruntime(made["best", "w4a8"].path, scored)["logits"]
    assert sqnr_db(expected, ran) == pytest.approx(trials[trials["kept"]]["sqnr_db"].iloc[-1], abs=0.05)


def test_the_rescaled_float_model_computes_the_same(hard, model, made):
    files = made["balanced", "w8a8"].files
    assert sqnr_db(on_host(model.path, hard), on_host(files["float"], hard)) > 90
    assert files["float"] != model.path
    assert "float" not in made["fast", "w8a8"].files


@pytest.mark.parametrize("precision", ["w8a16", "w4a16"])
def test_other_bits_run_whole_on_the_npu(hard, model, precision):
    quantized = qnb.calibrate(model, hard.train[:64], precision=precision, equalize=True, rounding="gptq")
    ran = qnb.infer(quantized, hard.test[:50])  # a node that is not on the NPU would be an error
    assert sqnr_db(on_host(quantized.path, hard)[:50], ran["logits"]) > 25
    kinds = quantized.frame.groupby("kind")["bits"].agg(set)
    assert kinds["weight"] == {int(precision[1])}
    assert kinds["activation"] == {int(precision[3:])}


@pytest.mark.parametrize("ranges", ["percentile", "mse", "entropy"])
def test_every_range_method_stays_within_what_was_seen(hard, model, ranges):
    wide = qnb.calibrate(model, hard.train[:64]).frame.set_index("tensor")
    made = qnb.calibrate(model, hard.train[:64], ranges=ranges)
    rows = made.frame[made.frame["kind"] == "activation"].set_index("tensor")
    assert made.method.startswith(ranges)
    assert (rows["max"] <= wide.loc[rows.index, "max"] * 1.01 + 1e-6).all()
    assert (rows["max"] < wide.loc[rows.index, "max"] * 0.999).any()


def test_what_is_left_out_is_left_out(hard, model):
    made = qnb.calibrate(model, hard.train[:32], effort="balanced", equalize=False, absorb_bias=False, ranges="mse")
    assert "float" not in made.files
    assert set(made.trials["step"]) == {"bias correction", "rounding"}


def test_with_overrides_tensors_keep_their_scale(hard, model):
    said = {"activation_encodings": {"image": {"min": 0.0, "max": 0.5}}}
    made = qnb.calibrate(model, hard.train[:32], effort="balanced", overrides=said)
    assert "float" not in made.files
    assert made.frame.set_index("tensor").loc["image", "max"] == pytest.approx(0.5, rel=0.01)


def test_an_input_may_have_any_name(hard):
    """Numpy's own writer of many arrays takes some names for its arguments."""
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3))
    model = qnb.export(net, shapes={"file": (1, 1, 8, 8)}, input_names=["file"], name="named")
    made = qnb.calibrate(model, {"file": hard.train[:8]}, effort="balanced")
    assert "file" in set(made.frame["tensor"])


# --- what breaks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "near"),
    [
        ("precision", "w8a9", "w8a8"),
        ("effort", "fats", "fast"),
        ("ranges", "mes", "mse"),
        ("rounding", "adarund", "adaround"),
    ],
)
def test_unknown_words_get_near_ones(hard, model, option, value, near):
    with pytest.raises(UnknownName, match=value) as caught:
        qnb.calibrate(model, hard.train[:4], **{option: value})
    assert near in caught.value.hint


def test_fp16_is_what_a_float_model_runs_in(hard, model):
    with pytest.raises(BadInput, match="fp16") as caught:
        qnb.calibrate(model, hard.train[:4], precision="fp16")
    assert "qnb.context(model)" in caught.value.hint
    assert qnb.infer(model, hard.test[:2]).frame["precision"][0] == "fp16"


@pytest.mark.parametrize("effort", ["fast", "balanced"])
@pytest.mark.parametrize("data", [np.zeros((3, 1, 8, 8), np.float32), np.full((1, 1, 8, 8), 0.3, np.float32)])
def test_constants_and_a_single_sample_do(model, data, effort):
    made = qnb.calibrate(model, data, effort=effort)
    assert made.samples == len(data)
    onnx.checker.check_model(str(made.path))


@pytest.mark.parametrize("effort", ["fast", "balanced"])
def test_nan_names_the_tensor_or_the_sample(hard, model, effort):
    data = hard.train[:8].copy()
    data[5, 0, 2, 2] = np.nan
    with pytest.raises((BadInput, CalibrationError), match=r"image.*NaN|NaN.*image"):
        qnb.calibrate(model, data, effort=effort)


@pytest.mark.parametrize("effort", ["fast", "balanced"])
def test_data_that_breaks_half_way_can_be_gone_on_with(hard, model, effort):
    def breaking():
        for number, image in enumerate(hard.train[:200]):
            if number == 160:
                raise OSError("the disk was unplugged")
            yield image

    with pytest.raises(Exception, match="unplugged") as caught:
        qnb.calibrate(model, breaking(), effort=effort, ranges="mse")
    told = [*getattr(caught.value, "__notes__", ()), getattr(caught.value, "hint", "")]
    assert any("resume=True" in text for text in told), told
    seen = []

    def whole():
        for number, image in enumerate(hard.train[:200]):
            seen.append(number)
            yield image

    resumed = qnb.calibrate(model, whole(), effort=effort, ranges="mse", resume=True)
    assert resumed.samples == 200
    expected = qnb.calibrate(model, hard.train[:200], effort=effort, ranges="mse")
    assert resumed.digest == expected.digest


def test_an_interrupt_keeps_the_statistics(hard, model, monkeypatch):
    monkeypatch.setattr(_observing, "_SAVE_EVERY_S", 0.1)  # a slow machine may have to end the worker
    many = np.repeat(hard.train, 400, axis=0)
    with default_interrupts(), Strike(interrupt_kernel, after=0.5), pytest.raises(Interrupted) as caught:
        qnb.calibrate(model, many, ranges="mse")
    assert "resume=True" in caught.value.hint
