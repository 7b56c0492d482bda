"""Models of one file or two, whole or not at all. Oracles: onnx's own reader, the folder's contents."""

import hashlib

import numpy as np
import onnx
import pytest

from qnb.errors import StorageError
from qnb.frontends.onnx import as_file
from qnb.graph import writing
from qnb.graph.reading import read
from tests.graph._models import build


def test_an_interrupt_leaves_what_was_there(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_text("old")

    def interrupted():
        with writing.staged(path) as target:
            target.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_a_model_above_the_limit_becomes_two_files(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "MAX_FILE_BYTES", 100)
    weight = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    model = build([node], {"x": [1, 32]}, {"y": [1, 32]}, {"w": weight})
    path, _ = as_file(model, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.onnx", "source.onnx.data"]
    assert model.graph.initializer[0].raw_data == weight.tobytes()  # the caller's object is whole again
    assert not model.graph.initializer[0].external_data
    assert path.stat().st_size < weight.nbytes
    for reader in (onnx.load, read):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(reader(path).graph.initializer[0]), weight)


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not write"), writing.staged(tmp_path / "file" / "m.onnx"):
        pass


def test_a_model_is_written_as_protobuf_writes_it(tmp_path):
    rng = np.random.default_rng(0)
    sizes = (1, 20, 100, 127, 128, 5000, 300_000)  # around which the encoded lengths grow by a byte
    weights = {f"w{size}": rng.standard_normal(size).astype(np.float32) for size in sizes}
    nodes = [
        onnx.helper.make_node("Concat", [*weights], ["y"], axis=0, name="all"),
        onnx.helper.make_node("Neg", ["x"], ["z"]),
    ]
    model = build(nodes, {"x": [2]}, {"y": None, "z": [2]}, weights, producer_name="test", doc_string="é" * 200)
    writing.save(model, tmp_path / "m.onnx")
    assert onnx.load(tmp_path / "m.onnx") == model
    assert (tmp_path / "m.onnx").stat().st_size == model.ByteSize()
    bare = build(nodes[1:], {"x": [2]}, {"z": [2]})
    writing.save(bare, tmp_path / "bare.onnx")
    assert onnx.load(tmp_path / "bare.onnx") == bare


def test_a_models_digest_tells_of_the_weights_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "MAX_FILE_BYTES", 100)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    models = []
    for seed in (0, 1):
        weight = np.random.default_rng(seed).standard_normal((32, 32)).astype(np.float32)
        path = tmp_path / str(seed) / "m.onnx"
        path.parent.mkdir()
        writing.save(build([node], {"x": [1, 32]}, {"y": [1, 32]}, {"w": weight}), path)
        writing.name_weights(path)
        (beside,) = (file for file in path.parent.iterdir() if file != path)
        assert beside.name == f"{hashlib.sha256(beside.read_bytes()).hexdigest()}.data"
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0]), weight)
        models.append(path.read_bytes())
    assert models[0] != models[1]
