"""Oracles: files that the frameworks themselves write (torch, numpy, onnx), and wire formats written out by hand."""

import gzip
import pickle
import warnings
import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from qnb.errors import ExportError, StorageError
from qnb.graph.contents import KINDS, kind_of, refusal
from tests.models import lstm


def field(number: int, content: bytes) -> bytes:
    """One length-delimited protobuf field, shorter than 128 bytes."""
    tag = number << 3 | 2
    head = bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])
    return head + bytes([len(content)]) + content


def relu() -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])


def write_torchscript(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript; people still have such files
        torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.ones(2)), str(path))


def write_npz(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3), b=np.ones(2))


MODEL = relu().SerializeToString()
WRITERS = {
    "onnx": lambda p: p.write_bytes(MODEL),
    "onnx-cut": lambda p: p.write_bytes(MODEL[:-9]),
    "empty": lambda p: p.touch(),
    "torch-pickle": lambda p: torch.save(lstm().state_dict(), p),
    "torch-pickle ": lambda p: torch.save(lstm().state_dict(), p, _use_new_zipfile_serialization=False),
    "pickle": lambda p: p.write_bytes(pickle.dumps({"a": 1})),
    "torchscript": write_torchscript,
    "hdf5": lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "tflite": lambda p: p.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100)),
    # SavedModel: saved_model_schema_version = 1, meta_graphs = 2
    "tensorflow": lambda p: p.write_bytes(b"\x08\x01" + field(2, b"meta")),
    # GraphDef: node = 1 (repeated), versions = 4
    "graphdef": lambda p: p.write_bytes(field(1, b"\x0a\x01x") * 3 + field(4, b"\x08\x01")),
    # NetParameter: name = 1, layer = 100
    "caffemodel": lambda p: p.write_bytes(field(1, b"LeNet") + field(100, b"\x0a\x04conv")),
    "caffe": lambda p: p.write_text('name: "LeNet"\nlayer {\n  name: "data"\n}\n'),
    "caffe ": lambda p: p.write_bytes("# 网络\n".encode("gbk") * 200 + b"layers{\n  name: 'c'\n}\n"),
    "html": lambda p: p.write_text("<!DOCTYPE html>\n<html><body>404</body></html>"),
    "git-lfs": lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
    "npz": write_npz,
    "gzip": lambda p: p.write_bytes(gzip.compress(MODEL)),
    "text": lambda p: p.write_text("hello, this is a text"),
    "unknown": lambda p: p.write_bytes(np.random.default_rng(0).bytes(1000)),
}


@pytest.mark.parametrize("label", WRITERS)
def test_files_are_told_by_their_contents(label, tmp_path):
    path = tmp_path / "model.onnx"  # the suffix says nothing
    WRITERS[label](path)
    assert kind_of(path) == label.strip()


def test_an_exported_program(tmp_path):
    torch.export.save(torch.export.export(torch.nn.ReLU().eval(), (torch.ones(2),)), tmp_path / "m.pt2")
    assert kind_of(tmp_path / "m.pt2") == "exported-program"


def test_other_zips(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "x")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("model.onnx", MODEL)
    assert kind_of(tmp_path / "a.keras") == "keras"
    assert kind_of(tmp_path / "b.zip") == "zip"
    (tmp_path / "c.zip").write_bytes((tmp_path / "b.zip").read_bytes()[:40])
    assert kind_of(tmp_path / "c.zip") == "zip-cut"


def test_a_pickle_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was loaded",))

    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Bomb()))
    torch.save(Bomb(), tmp_path / "a.pt")
    assert kind_of(tmp_path / "a.pkl") == "pickle"
    assert kind_of(tmp_path / "a.pt") == "torch-pickle"


def test_no_cut_and_no_flipped_byte_raises(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "m.onnx"
    for length in range(len(MODEL)):
        path.write_bytes(MODEL[:length])
        assert kind_of(path) in KINDS
    for _ in range(200):
        damaged = bytearray(MODEL)
        damaged[rng.integers(len(MODEL))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        assert kind_of(path) in KINDS


def test_every_refusal_says_what_and_what_next():
    for kind in KINDS.keys() - {"onnx"}:
        error = refusal("m.bin", kind)
        assert isinstance(error, ExportError)
        assert "m.bin is" in error.what
        assert error.hint


def test_a_file_that_can_not_be_read(tmp_path):
    with pytest.raises(StorageError, match="could not read"):
        kind_of(tmp_path / "missing.onnx")
