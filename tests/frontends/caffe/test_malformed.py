"""Cut, mutated and hostile files. The oracle is the process: one of bounded memory reads them all, in time, and lives."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.frontends.caffe.files import inputs, layer, write
from tests.frontends.caffe.zoo import ssd

ROOT = Path(__file__).parents[3]
LIMIT_S = 10

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of memory are POSIX's")


def answers(good, pairs):
    """Give for each pair of paths what the reader said of it; the good pair comes first."""
    lines = [json.dumps([str(path) for path in pair]) for pair in [good, *pairs]]
    done = subprocess.run(
        [sys.executable, "-m", "tests.frontends.caffe._reader"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(found) == len(pairs)
    assert max(answer["seconds"] for answer in found) < LIMIT_S
    for answer in found:
        assert bool(answer["hint"]) == bool(answer["error"])
    return found


@pytest.fixture
def files(tmp_path):
    return write(tmp_path, ssd(16, 80))


def test_cut_files(files, tmp_path):
    network, weights = files
    pairs = []
    for number, share in enumerate(np.linspace(0.02, 0.98, 25)):
        for path in files:
            content = path.read_bytes()
            cut = tmp_path / f"cut{number}{path.suffix}"
            cut.write_bytes(content[: int(share * len(content))])
            pairs.append((cut, weights) if path is network else (network, cut))
    found = answers(files, pairs)
    assert {answer["error"] for answer in found[1::2]} == {"ExportError"}  # a caffemodel is never whole when cut
    assert sum(answer["error"] == "ExportError" for answer in found[::2]) >= 20  # text may end between two layers


def test_a_hundred_mutated_files(files, tmp_path):
    network, weights = files
    rng = np.random.default_rng(0)
    pairs = []
    for number in range(100):
        path = files[number % 2]
        content = bytearray(path.read_bytes())
        reach = len(content) if path is network else 4000  # where the structure is; the rest are weights
        for _ in range(rng.integers(1, 6)):
            place = int(rng.integers(reach))
            if rng.random() < 0.3:
                del content[place : place + int(rng.integers(1, 40))]
            else:
                content[place] = int(rng.integers(256))
        mutated = tmp_path / f"mutated{number}{path.suffix}"
        mutated.write_bytes(content)
        pairs.append((mutated, weights) if path is network else (network, mutated))
    found = answers(files, pairs)
    assert {answer["error"] for answer in found} <= {"", "ExportError", "BadInput", "UnknownName"}
    assert sum(bool(answer["error"]) for answer in found) > 40


HEAD = inputs(data=(1, 3, 8, 8))
CONV = "convolution_param { num_output: 4294967295 kernel_size: 3 }"
HOSTILE = {
    "nested": "layer { " * 100_000,
    "nested unknown": HEAD + "layer { foo " + "{ a " * 25_000 + "}" * 25_000 + "}",
    "nested lists": "layer: " + "[\n" * 100_000,
    "brackets in an unknown field": HEAD + "foo: " + "[\n" * 20_000 + "]\n" * 20_000,
    "large": "#\n" * (1 << 20),
    "many layers": HEAD + "layer {}\n" * 100_000,
    "one line": HEAD + "layer { pooling_param {" + "".join(f"f{i}: 1 " for i in range(90_000)) + "} }",
    "many fields": HEAD + "layer { pooling_param {" + "".join(f"f{i}: 1\n" for i in range(90_000)) + "} }",
    "many comments": "# {\n" * 250_000,
    "wide": HEAD + layer("Convolution", "c", "data", CONV),
    "huge kernel": HEAD
    + layer("Convolution", "c", "data", "convolution_param { num_output: 4 kernel_size: 4000000000 }"),
    "huge pad": HEAD
    + layer("Convolution", "c", "data", "convolution_param { num_output: 4 kernel_size: 3 pad: 4000000000 }"),
    "huge pool": HEAD + layer("Pooling", "p", "data", "pooling_param { kernel_size: 3000000000 pad: 2999999999 }"),
    "huge product": HEAD + layer("InnerProduct", "c", "data", "inner_product_param { num_output: 4294967295 }"),
    "huge batch norm": inputs(data=(1, 500_000_000)) + layer("BatchNorm", "b", "data"),
    "huge tile": HEAD + layer("Tile", "t", "data", "tile_param { tiles: 2147483647 }"),
    "huge resize": HEAD + layer("Upsample", "u", "data", "upsample_param { scale: 2147483647 }"),
    "many axes": inputs(data=(1,) * 300) + layer("Flatten", "f", "data"),
    "huge boxes": inputs(data=(1, 1, 20_000, 20_000))
    + layer("PriorBox", "p", ["data", "data"], "prior_box_param { min_size: 1 }"),
    "no input": layer("ReLU", "a", "b") + layer("ReLU", "b", "a"),
    "solver": "net: 'train_val.prototxt'\nbase_lr: 0.01\nmax_iter: 1000\n",
    "zeros": "\0" * 1000,
    "open quote": HEAD + "layer { name: 'a",
    "wrong braces": HEAD + "layer { name: 'a' >",
    "both formats": HEAD + "layer { name: 'a' type: 'ReLU' bottom: 'data' top: 'a' }\nlayers { name: 'b' type: RELU }",
    "unknown old type": HEAD + "layers { name: 'b' type: BN bottom: 'data' top: 'b' }",
    "oldest format": HEAD + "layers { layer { name: 'b' type: 'relu' } bottom: 'data' top: 'b' }",
    "number too large": HEAD + layer("Pooling", "p", "data", "pooling_param { kernel_size: 99999999999 }"),
    "negative": HEAD + layer("Pooling", "p", "data", "pooling_param { kernel_size: -3 }"),
    "base 0": HEAD + layer("Log", "l", "data", "log_param { base: 0 }"),
}


def test_hostile_text(files, tmp_path):
    pairs = []
    for number, text in enumerate(HOSTILE.values()):
        path = tmp_path / f"hostile{number}.prototxt"
        path.write_text(text)
        pairs.append((path, files[1]))
    for name, answer in zip(HOSTILE, answers(files, pairs), strict=True):
        assert answer["error"] in ("ExportError", "BadInput"), name
        assert "can't be worked with" not in answer["what"], (name, answer["what"])
        assert len(answer["what"]) < 1000, name


def test_files_that_are_something_else(files, tmp_path):
    network, weights = files
    kinds = {"png": b"\x89PNG\r\n\x1a\n" + bytes(100), "empty": b"", "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(50)}
    pairs = [(network, network), (weights, weights)]
    for name, content in kinds.items():
        path = tmp_path / name
        path.write_bytes(content)
        pairs += [(network, path), (path, weights)]
    assert {answer["error"] for answer in answers(files, pairs)} == {"ExportError"}
