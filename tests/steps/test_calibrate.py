"""Calibrate. Oracles: numpy over activations that the test takes from ONNX Runtime itself; the QDQ file as onnx reads it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch.utils.data import DataLoader, TensorDataset

import qnb
from qnb.errors import BadConfig, BadInput, CalibrationError
from qnb.runtime import client
from tests import nets
from tests.steps.oracles import noise, on_onnxruntime, split, sqnr_db


def table(quantized):
    return quantized.frame.set_index("tensor")


def grid(low: float, high: float, bits: int) -> tuple[float, int]:
    """Scale and zero point of an asymmetric unsigned grid (Jacob et al. 2018, section 2.1), zero included."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, round(-low / scale)


@pytest.fixture(scope="module")
def activations(digits, tmp_path_factory):
    """Every float activation of the digits classifier over 40 images, as ONNX Runtime computes it."""
    model = onnx.load(digits.model.path)
    known = {o.name for o in model.graph.output}
    for node in model.graph.node:
        model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in node.output if n not in known)
    path = tmp_path_factory.mktemp("activations") / "all.onnx"
    onnx.save(model, path)
    return on_onnxruntime(path, split(image=digits.train[:40])) | {"image": digits.train[:40]}


@pytest.mark.parametrize(("precision", "bits"), [("w8a8", 8), ("w8a16", 16)])
def test_min_max_grids_are_those_of_the_activations(digits, activations, precision, bits):
    quantized = qnb.calibrate(digits.model, digits.train[:40], precision=precision)
    rows = quantized.frame[quantized.frame["kind"] == "activation"]
    assert {"image", "logits"} <= set(rows["tensor"])
    for row in rows.itertuples():
        values = activations[row.tensor]
        scale, zero_point = grid(float(values.min()), float(values.max()), bits)
        assert row.scale == pytest.approx(scale, rel=1e-4), row.tensor
        assert abs(row.zero_point - zero_point) <= 1, row.tensor
        assert row.bits == bits
        assert row.offset == -row.zero_point
    assert quantized.samples == 40
    assert quantized.precision == precision


def test_weights_are_symmetric_per_channel_or_per_tensor(digits):
    originals = {i.name: numpy_helper.to_array(i) for i in onnx.load(digits.model.path).graph.initializer}
    for per_channel in (True, False):
        quantized = qnb.calibrate(digits.model, digits.train[:8], per_channel=per_channel)
        rows = quantized.frame[quantized.frame["kind"] == "weight"]
        assert len(rows) == 4
        for row in rows.itertuples():
            values = originals[row.tensor]
            channels = max(values.shape[0], row.channels) if per_channel else 1
            assert row.channels == channels
            assert row.signed
            assert row.symmetric
            assert row.max >= np.abs(values).max() * 0.99
        assert quantized.weights == ("per channel" if per_channel else "per tensor")


def test_percentile_cuts_off_what_is_rare():
    """One pixel in ten thousand is a hundred times as bright."""
    model = qnb.export(nets.convolutions(Path(os.environ["QNB_CACHE_DIR"]) / "p.onnx", layers=1, channels=2, size=64))
    data = np.abs(noise(4, 2, 64, 64))
    data[:, 0, 0, 0] = 300.0
    whole = table(qnb.calibrate(model, data)).loc["x"]
    cut = table(qnb.calibrate(model, data, ranges="percentile", percentile=99.9)).loc["x"]
    assert whole["max"] == pytest.approx(300, rel=0.01)
    assert cut["max"] == pytest.approx(np.percentile(data, 99.9), rel=0.1)
    assert "percentile 99.9" in qnb.calibrate(model, data, ranges="percentile", percentile=99.9).title


def test_both_files_say_what_the_table_says(digits):
    model = onnx.load(digits.quantized.path)
    onnx.checker.check_model(model)
    stored = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    scales = {
        node.input[0]: (stored[node.input[1]], stored[node.input[2]])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }
    rows = table(digits.quantized)
    scale, zero_point = scales["image"]
    assert float(scale) == pytest.approx(rows.loc["image", "scale"], rel=1e-6)
    assert int(zero_point) == rows.loc["image", "zero_point"]
    written = json.loads(digits.quantized.files["encodings"].read_text())
    assert written["version"] == "2.0.0"
    assert {e["name"] for e in written["encodings"]} == set(rows.index)
    (image,) = (e for e in written["encodings"] if e["name"] == "image")
    assert image["y_scale"] == pytest.approx(float(scale), rel=1e-6)


def test_encodings_that_were_written_can_be_read_as_overrides(digits):
    again = qnb.calibrate(digits.model, digits.train[:2], overrides=digits.quantized.files["encodings"])
    assert again.digest == digits.quantized.digest


# --- every kind of data gives the same -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(digits):
    return digits.train[:12]


def _loader(images, folder):
    return DataLoader(TensorDataset(torch.tensor(images), torch.zeros(len(images))), batch_size=5)


def _npy_folder(images, folder):
    for number, image in enumerate(images):
        np.save(folder / f"{number}.npy", image)
    return folder


def _raw_folder(images, folder):
    for number, image in enumerate(images):
        image.tofile(folder / f"{number}.raw")
    return folder


def _input_list(images, folder):
    _raw_folder(images, folder)
    (folder / "input_list.txt").write_text("\n".join(f"image:={n}.raw" for n in range(len(images))))
    return folder / "input_list.txt"


def _npz(images, folder):
    np.savez(folder / "data.npz", image=images)
    return folder / "data.npz"


KINDS = {
    "dict": lambda images, folder: {"image": images},
    "list": lambda images, folder: list(images),
    "generator": lambda images, folder: (image for image in images),
    "tensor": lambda images, folder: torch.tensor(images),
    "float64": lambda images, folder: images.astype(np.float64),
    "Dataset": lambda images, folder: TensorDataset(torch.tensor(images)),
    "DataLoader": _loader,
    "folder of .npy": _npy_folder,
    "folder of .raw": _raw_folder,
    "input_list": _input_list,
    ".npz": _npz,
}


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_every_kind_gives_the_encodings_that_arrays_give(digits, images, kind, tmp_path):
    expected = qnb.calibrate(digits.model, images)
    made = qnb.calibrate(digits.model, KINDS[kind](images, tmp_path))
    assert made.digest == expected.digest
    assert made.samples == len(images)


def test_images_through_a_function(digits, images, tmp_path):
    from PIL import Image

    codes = (images[:, 0] * 16).astype(np.uint8)
    for number, image in enumerate(codes):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    made = qnb.calibrate(
        digits.model, tmp_path, preprocess=lambda image: np.asarray(image.convert("L"), np.float32)[None] / 16
    )
    assert made.digest == qnb.calibrate(digits.model, codes[:, None].astype(np.float32) / 16).digest


def test_a_generator_is_consumed_once_item_by_item_and_no_further_than_asked(digits, images):
    taken = []

    def stream():
        for number, image in enumerate(images):
            taken.append(number)
            yield image

    assert qnb.calibrate(digits.model, stream(), samples=5).samples == 5
    assert taken == [0, 1, 2, 3, 4]
    taken.clear()
    assert qnb.calibrate(digits.model, stream()).samples == 12
    assert taken == list(range(12))


def test_several_inputs_and_outputs(two, two_data, two_quantized):
    rows = table(two_quantized)
    for name, values in two_data.items():
        assert rows.loc[name, "scale"] == pytest.approx(grid(values.min(), values.max(), 8)[0], rel=1e-4)
    pairs = list(zip(two_data["image"][:, None], two_data["context"][:, None], strict=True))
    assert qnb.calibrate(two[1], pairs).digest == two_quantized.digest
    loader = DataLoader(TensorDataset(*map(torch.tensor, two_data.values())), batch_size=4)
    assert qnb.calibrate(two[1], loader).digest == two_quantized.digest


# --- overrides -----------------------------------------------------------------------------------------------------


def test_the_tutorials_flat_file_with_its_positive_offset(digits, images, tmp_path):
    flat = {
        "activation_encodings": {"image": {"bitwidth": 8, "min": -2.5, "max": 2.5, "scale": 5 / 255, "offset": 127}},
        "param_encodings": {},
        "activation_bitwidth": 8,
        "param_bitwidth": 8,
        "bias_bitwidth": 32,
    }
    (tmp_path / "overrides.json").write_text(json.dumps(flat))
    made = qnb.calibrate(digits.model, images, overrides=tmp_path / "overrides.json")
    row = table(made).loc["image"]
    assert row["scale"] == pytest.approx(5 / 255, rel=1e-6)
    assert (row["min"], row["max"]) == (pytest.approx(-2.5, abs=0.02), pytest.approx(2.5, abs=0.02))
    assert any("unsigned zero point" in note for note in made.notes)
    assert any("unsigned zero point" in note for note in [str(made)])
    others = made.frame[made.frame["tensor"] == "logits"]
    assert others["scale"].item() == table(qnb.calibrate(digits.model, images)).loc["logits", "scale"]


@pytest.mark.parametrize("said", [{"max": 2.0}, {"min": -1.0}, {"min": -1.0, "max": 2.0}, {"bitwidth": 16}])
def test_partial_overrides_take_the_rest_from_the_data(digits, images, said):
    plain = table(qnb.calibrate(digits.model, images)).loc["image"]
    made = table(qnb.calibrate(digits.model, images, overrides={"activation_encodings": {"image": said}})).loc["image"]
    low, high = said.get("min", plain["min"]), said.get("max", plain["max"])
    bits = said.get("bitwidth", 8)
    assert made["bits"] == bits
    assert made["scale"] == pytest.approx(grid(low, high, bits)[0], rel=1e-4)


def test_mixed_precision_runs_whole_on_the_npu(digits, images):
    plain = qnb.calibrate(digits.model, digits.train[:100])
    first = next(r.tensor for r in plain.frame.itertuples() if r.kind == "activation" and r.tensor != "image")
    wide = {"activation_encodings": {"image": {"bitwidth": 16}, first: {"bitwidth": 16}}}
    mixed = qnb.calibrate(digits.model, digits.train[:100], overrides=wide)
    bits = table(mixed)["bits"]
    assert bits["image"] == bits[first] == 16
    assert bits["logits"] == 8
    context = qnb.context(mixed)  # a node that is not on the NPU would be an error here
    ran = qnb.infer(context, digits.test[:100])
    expected = on_onnxruntime(mixed.path, split(image=digits.test[:100]))["logits"]
    assert sqnr_db(expected, ran["logits"]) > 30
    assert ran.frame["sqnr_db"][0] > 25


def test_overrides_that_name_nothing_of_the_model(digits, images):
    with pytest.raises(BadConfig, match="imgae") as caught:
        qnb.calibrate(digits.model, images, overrides={"activation_encodings": {"imgae": {"max": 1}}})
    assert "image" in caught.value.hint


def test_what_is_quantized_already(digits, images):
    with pytest.raises(BadInput, match="float_model"):
        qnb.calibrate(digits.quantized, images)


def test_a_dilated_average_is_refused_by_name(tmp_path):
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="relu"),
        helper.make_node("AveragePool", ["a"], ["b"], name="pool", kernel_shape=[2, 2], dilations=[2, 2]),
        helper.make_node("Relu", ["b"], ["y"], name="last"),
    ]
    model = nets.model(nodes, [nets.value("x", (1, 4, 8, 8))], [nets.value("y", (1, 4, 6, 6))])
    model.opset_import[0].version = 19  # the first with dilations
    onnx.save(model, tmp_path / "dilated.onnx")
    with pytest.raises(CalibrationError, match=r"'pool' has dilations") as caught:
        qnb.calibrate(
            qnb.export(tmp_path / "dilated.onnx", no_repair=["pooling"]), np.ones((2, 1, 4, 8, 8), np.float32)
        )
    assert "depthwise convolution" in caught.value.hint


# --- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is Linux'")
@pytest.mark.parametrize("ranges", ["min-max", "percentile"])
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path, ranges):
    """200 samples have 800 MB of inputs and activations between them; the worker's peak moves by a few MB."""
    model = qnb.export(nets.convolutions(tmp_path / "wide.onnx", layers=3, channels=16, size=128), simplify=False)

    def peak_mb(count: int) -> float:
        with client.borrow() as worker:
            pid = worker.pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): resets VmHWM
        images = (noise(1, 16, 128, 128, seed=n) for n in range(count))
        assert qnb.calibrate(model, images, ranges=ranges).samples == count
        with client.borrow() as worker:
            assert worker.pid == pid
        (line,) = (x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024

    few = max(peak_mb(8) for _ in range(2))
    assert peak_mb(200) - few < 12


def test_a_bias_too_large_for_its_grid_widens_that_of_the_weights():
    """A bias has 32 bits, and its step is input's times weight's: here 5 would be beyond 2**31 of them."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    torch.nn.init.uniform_(net[1].weight, -1e-5, 1e-5)
    torch.nn.init.constant_(net[1].bias, 5.0)
    data = np.random.default_rng(0).uniform(-1e-3, 1e-3, (12, 1, 1, 8, 8)).astype(np.float32)
    model = qnb.export(net, shapes={"image": (1, 1, 8, 8)}, input_names=["image"], name="beyond")
    quantized = qnb.calibrate(model, data)
    grids = quantized.frame.set_index("kind")
    step = grids.loc["activation", "scale"].iloc[0] * grids.loc["weight", "scale"]
    assert 5 / step < 2**31
    np.testing.assert_allclose(qnb.infer(quantized, data[:2], backend="htp")["output"], 5, rtol=1e-3)
