"""Encoding files that AIMET wrote (tests/fixtures/make_aimet_encodings.py says how), in each of its versions.

Oracles: AIMET's own QDQ model of the same encodings, run by ONNX Runtime; the outputs of AIMET's simulation; and the keys
and values of the files themselves.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from qnb.errors import BadConfig
from qnb.quant.encoding_files import dumps, read
from qnb.quant.encodings import Encoding, Encodings
from qnb.quant.qdq import encode, insert_qdq

FOLDER = Path(__file__).parents[1] / "fixtures" / "aimet"
NET = onnx.load(FOLDER / "net.onnx")
RANKS = {tensor.name: len(tensor.dims) for tensor in NET.graph.initializer}
RUN = ["w8a8", "w8a16", "w4a8", "tensor", "blocks", "lpbq"]
FILES = sorted(path.stem for path in FOLDER.glob("*.json"))
TOLD = [name for name in FILES if name != "blocks-0.6.1"]

# channel axis and block axis of each weight, as ONNX's ops have them
AXES = {
    "conv.weight": (0, 1), "depth.weight": (0, 1), "matrix": (1, 0), "first.weight": (0, 1), "second.weight": (1, 0),
}  # fmt: skip


def outputs(model):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with np.load(FOLDER / "values.npz") as values:
        return np.stack([session.run(None, {"x": x})[0] for x in values["x"]])


def content(stem):
    return json.loads((FOLDER / f"{stem}.json").read_text())


def grids(stem):
    """What the file says of each tensor, as `Encodings`: defaults say nothing but the axes and the number of channels."""
    overrides = read(FOLDER / f"{stem}.json")
    found: dict[bool, dict[str, Encoding]] = {True: {}, False: {}}
    for name, override in overrides.tensors.items():
        weight = name in RANKS
        axis, block_axis = AXES.get(name, (0, None)) if weight else (None, None)
        tensor = next((t for t in NET.graph.initializer if t.name == name), None)
        count = tensor.dims[axis] if tensor is not None else 1
        if weight and override.channels == 1:
            axis, count = None, 1
        default = Encoding(8, False, np.ones(count), np.zeros(count, int), axis)
        if override.block_size:
            one = np.ones((count, 1))
            default = Encoding(8, True, one, one.astype(int) * 0, axis, block_axis, override.block_size)
        encoding = overrides.complete(name, default)
        assert encoding is not None
        found[weight][name] = encoding
    return Encodings(found[False], found[True])


@pytest.mark.parametrize("version", ["0.6.1", "1.0.0", "2.0.0"])
@pytest.mark.parametrize("name", RUN)
def test_what_qnb_makes_of_them_computes_what_aimets_model_computes(name, version):
    if (name, version) in {("blocks", "0.6.1"), ("lpbq", "0.6.1")}:
        pytest.skip("0.6.1 has no blocks")
    overrides = read(FOLDER / f"{name}-{version}.json")
    encodings = encode(NET, None, overrides=overrides)
    made = insert_qdq(NET, encodings.activations, encodings.weights)
    theirs = onnx.load(FOLDER / f"{name}-qdq.onnx")
    np.testing.assert_array_equal(outputs(made), outputs(theirs))
    with np.load(FOLDER / "values.npz") as values:  # their simulation is in float: it may round to the next code
        step = encodings.activations["y"].scale[0]
        np.testing.assert_allclose(outputs(made), values[name], atol=2.01 * step)


@pytest.mark.parametrize("stem", TOLD)
def test_the_numbers_are_the_files(stem):
    """A parser of a few lines, apart from ours, finds the same scales and zero points."""
    found = grids(stem)
    named = {**found.activations, **found.weights}
    version = stem.rsplit("-", 1)[1]
    said = content(stem)
    if version == "2.0.0":
        entries = {e["name"]: e for e in said["encodings"]}
        for name, entry in entries.items():
            if "per_block_int_scale" in entry:
                step = np.array(entry["per_channel_float_scale"], np.float32).astype(float)
                scale = (step * np.array(entry["per_block_int_scale"])).ravel()
            else:
                scale = np.array(entry["y_scale"]).ravel()
            mine = named[name]
            order = mine.scale.T if mine.blockwise and mine.axis == 1 else mine.scale
            np.testing.assert_array_equal(order.ravel(), scale)
            assert mine.dtype == entry["output_dtype"]
            assert mine.zero_point.ravel()[0] == np.ravel(entry.get("y_zero_point", 0))[0]
    else:
        section = {**_by_name(said["activation_encodings"]), **_by_name(said["param_encodings"])}
        assert set(section) == set(named)
        for name, entry in section.items():
            first = entry[0] if isinstance(entry, list) else entry
            signed = str(first.get("is_sym", first.get("is_symmetric"))) == "True"
            bits = first.get("compressed_bw", first.get("bw", first.get("bitwidth")))
            scale = [e["scale"] for e in entry] if isinstance(entry, list) else entry["scale"]
            if "per_block_int_scale" in first:
                scale = np.array(scale, np.float32).astype(float)[:, None]
                scale = scale * np.array(first["per_block_int_scale"]).reshape(len(scale), -1)
            assert (named[name].bits, named[name].signed) == (bits, signed)
            np.testing.assert_array_equal(named[name].scale.ravel(), np.ravel(scale))
            offset = first["offset"] if isinstance(entry, list) else entry["offset"][0]
            middle = 1 << (bits - 1) if signed else 0
            if "compressed_bw" not in first:
                assert named[name].zero_point.ravel()[0] == -offset - middle


def _by_name(section):
    return section if isinstance(section, dict) else {entry["name"]: entry for entry in section}


@pytest.mark.parametrize("stem", TOLD)
def test_round_trip_through_our_writer(stem):
    """Reading what we write of what AIMET wrote gives the same grids, and the file has AIMET's keys, types and shapes."""
    name, version = stem.rsplit("-", 1)
    before = grids(stem)
    text = dumps(before, version, ranks=RANKS)
    ours, theirs = json.loads(text), content(stem)
    assert _shape(ours) == _shape({key: theirs[key] for key in theirs if key in ours})
    if "lpbq" not in name:  # whose channel scales are float32 with us, as every runtime stores them
        assert _values(ours) == _values({key: theirs[key] for key in theirs if key in ours}, pytest.approx)
    path = FOLDER / f"{stem}.json"
    for tensor, encoding in {**before.activations, **before.weights}.items():
        assert read(text).complete(tensor, encoding) == encoding
        assert read(path).complete(tensor, encoding) == encoding


def _shape(value):
    """Keys, types and lengths; whole numbers may be written as floats."""
    if isinstance(value, dict):
        return {key: _shape(v) for key, v in value.items()}
    if isinstance(value, list):
        named = all(isinstance(v, dict) and "name" in v for v in value)
        return {v["name"]: _shape(v) for v in value} if named and value else [_shape(v) for v in value]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else value


def _values(value, about=float):
    """Entries by name, and numbers as `about` makes them."""
    if isinstance(value, dict):
        return {key: _values(v, about) for key, v in value.items()}
    if isinstance(value, list):
        named = all(isinstance(v, dict) and "name" in v for v in value)
        return {v["name"]: _values(v, about) for v in value} if named else [_values(v, about) for v in value]
    return about(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def test_blocks_in_0_6_1_are_refused():
    """AIMET writes a list of all blocks there, and not how large they are."""
    with pytest.raises(BadConfig, match=r"'conv\.weight': 16 channels where the tensor has 8") as caught:
        encode(NET, None, overrides=read(FOLDER / "blocks-0.6.1.json"))
    assert "1.0.0 or 2.0.0" in caught.value.hint
    with pytest.raises(BadConfig, match=r"'conv\.weight': a grid per block"):
        dumps(grids("blocks-1.0.0"), "0.6.1")


@pytest.mark.parametrize("stem", ["all-blocks-1.0.0", "all-blocks-2.0.0", "all-lpbq-2.0.0"])
def test_blocks_where_htp_takes_none_are_refused(stem):
    with pytest.raises(BadConfig, match=r"\.json: tensor '.*'.*") as caught:
        encode(NET, None, overrides=read(FOLDER / f"{stem}.json"))
    assert "HTP" in str(caught.value)
