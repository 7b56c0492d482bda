"""What does not fit is refused by every step in the same words: an error of ours that says what and what next.

Oracle: the call itself: nothing but an error of the tree may come out of it, and the steps work on afterwards.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import qnb
from qnb import cache
from qnb.errors import BadConfig, BadInput, PlacementError, QnbError, UnknownName
from qnb.runtime import client
from tests import nets
from tests.processes import leftovers
from tests.steps.oracles import noise

STEPS = {
    "calibrate": lambda d, data, **more: qnb.calibrate(d.model, data, **more),
    "infer": lambda d, data, **more: qnb.infer(d.quantized, data, **more),
    "profile": lambda d, data, **more: qnb.profile(d.quantized, data, **({"runs": 1, "warmup": 0} | more)),
    "compare": lambda d, data, **more: qnb.compare(d.quantized, data=data, **({"runs": 1, "warmup": 0} | more)),
}
ON_BACKENDS = {
    "context": lambda d, data, **more: qnb.context(d.quantized, **more),
    **{name: STEPS[name] for name in ("infer", "profile", "compare")},
}


@pytest.fixture(params=STEPS)
def step(request, digits):
    return lambda data=digits.test[:2], **more: STEPS[request.param](digits, data, **more)


@pytest.fixture(params=ON_BACKENDS)
def running(request, digits):
    return lambda **more: ON_BACKENDS[request.param](digits, digits.test[:2], **more)


@pytest.fixture(autouse=True)
def _nothing_was_broken(digits):
    before = {w.pid for w in client.workers()}
    yield
    assert before <= {w.pid for w in client.workers()}  # no worker was lost over it
    assert leftovers(cache.root()) == []
    assert qnb.infer(digits.quantized, digits.test[:1]).samples == 1


def _with(value: float):
    def make() -> np.ndarray:
        images = np.zeros((2, 1, 8, 8), np.float32)
        images[0, 0, 3, 4] = value
        return images

    return make


DATA = {
    "channels last": (lambda: noise(2, 8, 8, 1), r"pass array\.transpose"),
    "three channels": (lambda: noise(2, 3, 8, 8), r"\[1, 1, 8, 8\]|\[N, 1, 8, 8\]"),
    "too small": (lambda: noise(2, 1, 7, 8), "shape"),
    "one number": (lambda: 3.0, "not understood"),
    "a number as an array": (lambda: np.float32(3), "shape"),
    "NaN": (_with(np.nan), "1 NaN"),
    "infinite": (_with(-np.inf), "1 infinite"),
    "too large for float32": (lambda: np.full((1, 1, 8, 8), 1e300), "do not fit float32"),
    "complex": (lambda: noise(1, 1, 8, 8).astype(np.complex64), "complex64"),
    "text": (lambda: np.full((1, 1, 8, 8), "a"), "dtype"),
    "objects": (lambda: np.full((1, 1, 8, 8), None), "dtype"),
    "an empty array": (lambda: np.empty((0, 1, 8, 8), np.float32), "no samples"),
    "an empty list": (list, "no samples"),
    "an empty generator": (lambda: iter(()), "no samples"),
    "rows of unequal length": (lambda: [[[1.0], [1.0, 2.0]]], "array"),
    "another input's name": (lambda: {"imgae": noise(1, 1, 8, 8)}, "imgae"),
    "no input at all": (dict, "image|first axis"),
    "one input too many": (lambda: {"image": noise(1, 1, 8, 8), "mask": noise(1, 1)}, "mask"),
    "a missing file": (lambda: "no/such/file.npy", "no file or folder"),
    "an empty path": (lambda: "", "."),
    "numbers without end": (lambda: iter(int, 1), r"shape \[\]"),
    "nothing that holds data": (object, "not understood"),
    "a model as data": (lambda: torch.nn.Linear(2, 2), "not understood"),
    "bytes": (lambda: b"\x00" * 256, "not understood"),
}  # fmt: skip


@pytest.mark.parametrize("what", DATA)
def test_data_that_does_not_fit(step, what):
    make, said = DATA[what]
    with pytest.raises(BadInput, match=said) as caught:
        step(make())
    assert caught.value.hint


def test_a_sample_in_the_middle_is_named(digits):
    images = digits.test[:6].copy()
    images[4, 0, 0, 0] = np.nan
    for name in ("calibrate", "infer", "compare"):
        with pytest.raises(BadInput, match="sample 4"):
            STEPS[name](digits, images)


def test_a_generator_that_fails_is_its_owners_error(digits):
    def broken():
        yield digits.test[0]
        raise RuntimeError("my own bug")

    for name in ("calibrate", "infer", "compare"):
        with pytest.raises(RuntimeError, match="my own bug"):
            STEPS[name](digits, broken())


def test_data_is_needed_where_it_is_not_made_up(digits):
    for name in ("calibrate", "infer"):
        with pytest.raises(BadInput, match="NoneType"):
            STEPS[name](digits, None)


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int64", "bool"])
def test_values_of_another_type_are_taken_where_nothing_is_lost(digits, dtype):
    images = (digits.test[:2] > 0.5).astype(dtype)
    expected = qnb.infer(digits.quantized, images.astype(np.float32))["logits"]
    np.testing.assert_array_equal(qnb.infer(digits.quantized, images)["logits"], expected)


# --- labels --------------------------------------------------------------------------------------------------------

LABELS = {
    "too few": (lambda: [1], "1 labels for 2 samples"),
    "too many": (lambda: [1, 2, 3], "3 labels for 2 samples"),
    "one-hot": (lambda: np.eye(10)[:2], "shape"),
    "fractions": (lambda: [0.5, 1.0], "float64"),
    "text": (lambda: ["a", "b"], "dtype"),
    "a number": (lambda: 3, "shape"),
    "a missing file": (lambda: "no/labels.npy", "could not read labels"),
    "ragged": (lambda: [[1], [1, 2]], "array"),
}  # fmt: skip


@pytest.mark.parametrize("what", LABELS)
@pytest.mark.parametrize("name", ["infer", "compare"])
def test_labels_that_do_not_fit(digits, name, what):
    make, said = LABELS[what]
    with pytest.raises(BadInput, match=said) as caught:
        STEPS[name](digits, digits.test[:2], labels=make())
    assert caught.value.hint


def test_labels_for_a_model_that_is_no_classifier(tmp_path):
    model = qnb.export(nets.convolutions(tmp_path / "net.onnx", layers=1, channels=2, size=4))
    with pytest.raises(BadInput, match="no output is"):
        qnb.infer(model, noise(1, 2, 4, 4), backend="cpu", labels=[0])


def test_labels_that_are_no_class_of_the_model(digits):
    with pytest.raises(BadInput, match="10 classes"):
        qnb.infer(digits.quantized, digits.test[:2], labels=[3, 10])
    with pytest.raises(BadInput, match="10 classes"):
        qnb.infer(digits.quantized, digits.test[:2], labels=[-1, 3])


# --- names and numbers ---------------------------------------------------------------------------------------------


def test_names_that_are_in_no_table_have_near_ones(running, digits):
    with pytest.raises(UnknownName, match="SM865x") as caught:
        running(soc="SM865x")
    assert "SM8650" in caught.value.hint
    for soc, said in (
        (103, "newer"),
        (9999, "newer"),
        ("SDM845", "can't be a target"),
        ("", "unknown SoC|no SoC"),
        (-1, "unknown"),
    ):
        with pytest.raises(BadInput, match=said):
            running(soc=soc)
    with pytest.raises(UnknownName, match="runtime"):
        running(runtime="9.9.9")


@pytest.mark.parametrize("backend", ["hpt", "npu", "HTP", 3])
def test_backends_that_are_none(digits, backend):
    for call in (
        lambda: qnb.infer(digits.quantized, digits.test[:1], backend=backend),
        lambda: qnb.profile(digits.quantized, backends=[backend]),
        lambda: qnb.compare(digits.quantized, backends=backend),
    ):
        with pytest.raises(UnknownName, match="backend"):
            call()


def test_too_many_backends_and_none_at_all(digits):
    with pytest.raises(BadInput, match="one backend"):
        qnb.infer(digits.quantized, digits.test[:1], backend="htp,cpu")
    with pytest.raises(BadInput, match="no backend"):
        qnb.compare(digits.quantized, backends=[])


def test_fallbacks_that_are_none(digits):
    with pytest.raises(UnknownName, match="gpu"):
        qnb.infer(digits.quantized, digits.test[:1], fallback="gpu")
    with pytest.raises(UnknownName, match="fallback"):
        qnb.profile(digits.quantized, fallback="yes", runs=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"precision": "w4a9"}, "w4a9"),
        ({"precision": "int8"}, "int8"),
        ({"precision": 8}, "8"),
        ({"ranges": "minmax"}, "minmax"),
        ({"ranges": "percentile", "percentile": 0}, "percentile"),
        ({"ranges": "percentile", "percentile": 101}, "percentile"),
        ({"ranges": "percentile", "percentile": float("nan")}, "percentile"),
        ({"samples": 0}, "limit"),
        ({"samples": 1.5}, "limit"),
        ({"preprocess": 3}, "preprocess"),
        ({"overrides": 3}, "not a mapping"),
        ({"overrides": {"activation_encodings": {"nope": {"max": 1}}}}, "nope"),
    ],
)
def test_arguments_of_calibrate(digits, arguments, said):
    with pytest.raises(BadInput, match=said) as caught:
        qnb.calibrate(digits.model, digits.test[:2], **arguments)
    assert caught.value.hint


CONFIGS = {
    "an unknown section": ({"htp_confg": {}}, "htp_config"),
    "an unknown key": ({"htp_config": {"perfmode": 1}}, "perfmode"),
    "a wrong value": ({"htp_config": {"performance_mode": "brust"}}, "burst"),
    "a number as text": ({"htp_config": {"vtcm_mb": "8"}}, "whole number"),
    "true as a number": ({"htp_config": {"vtcm_mb": True}}, "whole number"),
    "too much VTCM": ({"htp_config": {"vtcm_mb": 64}}, "at most 8"),
    "no DMA": ({"htp_config": {"enable_dma": False}}, "DMA"),
    "a precision that is none": ({"htp_config": {"precision_mode": "fp64"}}, "fp64"),
    "what can't be honoured": ({"graphs": [{"dlbc": 1}]}, "can't be honoured"),
    "an arch": ({"devices": [{"dsp_arch": "v75"}]}, "soc_model"),
    "an unknown SoC": ({"devices": [{"soc_model": 5000}]}, "newer"),
    "a list that is none": ({"graphs": {}}, "list"),
    "a section that is none": ({"htp_config": []}, "mapping"),
    "a file that names another": ({"backend_extensions": {}}, "config_file_path"),
    "a missing file": ("no/config.json", "could not read"),
    "a list": ([1, 2], "not a mapping"),
}  # fmt: skip


@pytest.mark.parametrize("what", CONFIGS)
def test_configurations_that_can_not_be_honoured(running, what):
    config, said = CONFIGS[what]
    before = copy.deepcopy(config)
    with pytest.raises(BadInput) as caught:
        running(config=config)
    assert said in str(caught.value)
    assert config == before
    assert isinstance(caught.value, BadConfig | UnknownName) or "newer" in caught.value.what


@pytest.mark.parametrize("content", ["{broken", "- just\n- a list", "\x00\x01", "3", ""])
def test_a_configuration_file_that_can_not_be_read(running, content, tmp_path):
    (tmp_path / "backend.json").write_text(content)
    with pytest.raises(BadConfig, match=r"backend\.json"):
        running(config=tmp_path / "backend.json")


def test_keys_of_another_backend_are_checked_when_that_backend_runs(digits):
    config = {"cpu_config": {"num_threads": 4}}
    assert qnb.infer(digits.quantized, digits.test[:1], config=config).samples == 1
    with pytest.raises(BadConfig, match="num_threads can't be honoured"):
        qnb.infer(digits.quantized, digits.test[:1], backend="cpu", config=config)
    with pytest.raises(BadConfig, match="num_threads"):
        qnb.compare(digits.quantized, config=config, runs=1)


# --- builds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [None, 3, [], {}, object(), b"onnx", torch.nn.Linear(2, 2), np.zeros(3)])
def test_what_is_no_build(build):
    for call in (
        lambda: qnb.infer(build, noise(1, 1, 8, 8)),
        lambda: qnb.calibrate(build, noise(1, 1, 8, 8)),
        lambda: qnb.context(build),
        lambda: qnb.convert(build),
        lambda: qnb.profile(build),
        lambda: qnb.compare(build),
    ):
        with pytest.raises(BadInput, match="not a model of qnb") as caught:
            call()
        assert "export" in caught.value.hint


def test_a_path_that_leads_nowhere(tmp_path):
    for path in (tmp_path / "no.onnx", tmp_path):
        with pytest.raises(QnbError) as caught:
            qnb.infer(path, noise(1, 1, 8, 8))
        assert str(tmp_path) in str(caught.value)


def test_a_context_where_it_does_not_belong(digits):
    context = digits.contexts["SM8650"]
    with pytest.raises(BadInput, match="float model is wanted"):
        qnb.calibrate(context, digits.test[:1])
    for backend in ("cpu", "gpu"):
        with pytest.raises(PlacementError, match="can't run on"):
            qnb.profile(context, backends=[backend])
    with pytest.raises(BadInput, match="compiled for"):
        qnb.profile(context, soc="SM8550", runs=1)


def test_a_calibration_that_saw_only_zeros_gives_a_model_that_runs(digits):
    quantized = qnb.calibrate(digits.model, np.zeros((1, 1, 8, 8), np.float32))
    assert np.isfinite(qnb.infer(quantized, digits.test[:2])["logits"]).all()
