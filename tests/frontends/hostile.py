"""Files made to do harm, and damaged ones, in all formats of the front-ends; for test_hostile.py.

Each function yields paths. What code of a file would do is to make a file ``ran`` in the working folder.
"""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np

CODE = "__import__('pathlib').Path('ran').touch()"
MAGICS = {
    "zip": b"PK\x03\x04",
    "hdf5": b"\x89HDF\r\n\x1a\n",
    "tflite": b"\x1c\0\0\0TFL3",
    "torch": b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
    "graph": b"\x0a\x03\x0a\x01x",
    "savedmodel": b"\x08\x01\x12",
    "onnx": b"\x08\x07\x3a",
    "pickle": b"\x80\x04",
}


class Code:
    """Unpickling it runs code."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def rewritten(source, target, change):
    """Copy a zip archive; `change` takes a member's name and content, and gives it, another one, or None to leave it out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def cut(source, folder, count):
    """The first part of a file, ever longer."""
    content = source.read_bytes()
    for number, share in enumerate(np.linspace(0.01, 0.97, count)):
        path = folder / f"cut{number}-{source.name}"
        path.write_bytes(content[: int(len(content) * share)])
        yield path


def flipped(source, folder, count, seed=0):
    """Some bytes of a file changed: to anything, to extremes, or by a bit."""
    content, rng = source.read_bytes(), np.random.default_rng(seed)
    for number in range(count):
        data = bytearray(content)
        for place in rng.integers(0, len(data) if number % 2 else min(len(data), 600), 1 + number % 12):
            data[place] = (rng.integers(256), 0xFF, data[place] ^ (1 << rng.integers(8)))[number % 3]
        path = folder / f"flipped{number}-{source.name}"
        path.write_bytes(data)
        yield path


def noise(folder, each, kinds=tuple(MAGICS)):
    """A format's first bytes, and then anything."""
    rng = np.random.default_rng(0)
    for kind in kinds:
        for number in range(each):
            path = folder / f"noise{number}.{kind}"
            path.write_bytes(MAGICS[kind] + rng.bytes(int(rng.integers(0, 3000))))
            yield path


def pickles(folder):
    """Pickles that run code, under all names; alone, and in the places where torch keeps pickles."""
    import torch

    for protocol in (0, 2, 3, 4, 5):
        for suffix in ("pt", "keras", "h5", "pb", "onnx", "tflite", "pt2"):
            path = folder / f"code{protocol}.{suffix}"
            path.write_bytes(pickle.dumps(Code(), protocol))
            yield path
    torch.save({"state": Code()}, folder / "new.pt")
    torch.save({"state": Code()}, folder / "old.pt", _use_new_zipfile_serialization=False)
    yield from (folder / "new.pt", folder / "old.pt")


def archives(folder):
    """Zip archives with names that lead elsewhere, absurd sizes, or lies, each as a Keras, TorchScript and ``.pt2`` file."""
    members = {
        "keras": {"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": b""},
        "pt": {"m/data.pkl": b"}.", "m/constants.pkl": b").", "m/code/x.py": b"", "m/version": b"3"},
        "pt2": {"m/archive_format": b"pt2", "m/models/model.json": b"{}", "m/archive_version": b"0"},
    }
    names = ("../ran", "/tmp/../ran", "a/../../ran", "..\\ran", "C:/ran", "m/../../ran")
    for suffix, content in members.items():

        def write(name, more=(), suffix=suffix, content=content):
            path = folder / f"{name}.{suffix}"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for inner, data in [*content.items(), *more]:
                    archive.writestr(inner, data)
            return path

        yield write("bare")
        for number, name in enumerate(names):
            yield write(f"outside{number}", [(name, b"x")])
        first = next(iter(content))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the same name twice
            yield write("bomb", [(first, bytes(200 << 20))])
            yield write("bombs", [(f"m/{number}", bytes(20 << 20)) for number in range(10)])
        yield write("many", [(f"m/{number}", b"") for number in range(30_000)])
        lying = bytearray(write("lying").read_bytes())
        place = lying.rindex(b"PK\x01\x02")
        lying[place + 24 : place + 28] = struct.pack("<I", 0xFFFFFFF0)  # the unpacked size
        (folder / f"lying.{suffix}").write_bytes(lying)
        yield folder / f"lying.{suffix}"


def programs(source, folder):
    """``.pt2`` files whose graph, expressions, names or members are code; `source` is an honest one with open sizes."""
    description = next(name for name in zipfile.ZipFile(source).namelist() if name.endswith("models/model.json"))
    honest = json.loads(zipfile.ZipFile(source).read(description))
    root = description.partition("/")[0]

    def write(name, content, more=()):
        path = rewritten(
            source,
            folder / f"{name}.pt2",
            lambda inner, data: content if inner == description else data,
        )
        with zipfile.ZipFile(path, "a") as archive:
            for inner, data in more:
                archive.writestr(f"{root}/{inner}", data)
        return path

    expressions = (
        CODE,
        f"[{CODE}, 3][1]",
        f"Symbol('s0') if {CODE} else 2",
        f"Integer(2).func({CODE})",
        f"S({CODE!r})",
        "eval('3')",
        "().__class__",
        "(lambda: 3)()",
        "10**10**10",
        "PowByNatural(Integer(10), Integer(10**9))",
        "factorial(10**9)",
    )
    for number, text in enumerate(expressions):
        yield write(f"expression{number}", replaced(honest, "expr_str", text))
    yield write("argument", replaced(honest, "forward_arg_names", [f"x={CODE}"]))
    for number, target in enumerate(("torch.ops.aten.from_file.default", "torch.os.system", "os.system", CODE)):
        yield write(f"target{number}", replaced(honest, "target", target))
    for key in ("parameter_name", "name"):
        yield write(key, replaced(honest, key, f'w"), {CODE}, ("'))
    spec = '[1, {"type": "collections.defaultdict", "context": "{\\"default_factory_module\\": \\"os\\"}"}]'
    yield write("spec", replaced(honest, "in_spec", spec))
    yield write("deep", b"[" * 100_000 + b"]" * 100_000)
    yield write("text", b"{}")
    code = json.dumps(honest).encode()
    for place in ("data/aotinductor/model/m.so", "data/constants/opaque_obj_0", "data/constants/custom_obj_0"):
        yield write(place.rpartition("/")[2], code, [(place, pickle.dumps(Code()))])
    for place in ("sample_inputs/model.pt", "weights/weight_0"):
        yield rewritten(
            source,
            folder / f"{place.rpartition('/')[2]}.pt2",
            lambda inner, data, place=place: pickle.dumps(Code()) if inner.endswith(place) else data,
        )
    rng = np.random.default_rng(0)
    for number in range(20):  # fields of other kinds
        value = (None, -1, 1 << 70, "x", [], {}, True, 1e300)[number % 8]
        yield write(f"field{number}", mutated(honest, rng, value))


def replaced(tree, key, value):
    """A tree of plain values as JSON, with every value under a key replaced."""

    def walk(item):
        if isinstance(item, dict):
            return {name: value if name == key else walk(inner) for name, inner in item.items()}
        return [walk(inner) for inner in item] if isinstance(item, list) else item

    found = json.dumps(walk(tree))
    assert found != json.dumps(tree)
    return found


def mutated(tree, rng, value):
    """A tree of plain values as JSON, with a value somewhere in it replaced."""
    tree = json.loads(json.dumps(tree))
    places, waiting = [], [tree]
    while waiting:
        item = waiting.pop()
        for key in item if isinstance(item, dict) else range(len(item)):
            places.append((item, key))
            if isinstance(item[key], dict | list):
                waiting.append(item[key])
    item, key = places[rng.integers(len(places))]
    item[key] = value
    return json.dumps(tree)


def scripts(source, folder):
    """TorchScript archives whose code writes files; `source` is honest, and calls ``torch.relu``."""
    bodies = ('torch.save(x, "ran")', 'ops.aten.save(x, "ran")', 'torch.from_file("ran", True, 4)', "ops.mine.run(x)")
    tricks = ('getattr(torch, "sa" "ve")(x, "ran")', 'getattr(torch, "sa\\x76e")(x, "ran")')
    for number, body in enumerate((*bodies, *tricks)):
        yield rewritten(
            source,
            folder / f"script{number}.pt",
            lambda name, data, body=body: (
                data.replace(b"torch.relu(x)", body.encode()) if name.endswith(".py") else data
            ),
        )


def keras_files(source, folder):
    """``.keras`` files whose configuration names code; `source` is honest."""
    with zipfile.ZipFile(source) as archive:
        honest = json.loads(archive.read("config.json"))
    for key in ("units", "filters"):
        content = replaced(honest, key, 1 << 40)
        yield rewritten(
            source, folder / f"{key}.keras", lambda inner, data, c=content: c if inner == "config.json" else data
        )
    layer = {
        "lambda": {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "l", "function": {}}},
        "fetch": {"module": "keras.utils", "class_name": "get_file", "config": {"fname": "ran", "origin": "file:///"}},
        "module": {"module": "os", "class_name": "system", "config": {"command": "touch ran"}},
        "inside": {"module": "keras.src.utils.io_utils", "class_name": "print_msg", "config": {}},
    }
    for name, entry in layer.items():
        content = json.dumps({**honest, "config": {**honest["config"], "layers": [entry]}})
        yield rewritten(
            source, folder / f"{name}.keras", lambda inner, data, c=content: c if inner == "config.json" else data
        )
    rng = np.random.default_rng(0)
    for number in range(15):
        content = mutated(honest, rng, (None, -1, 1 << 40, "x", [], {}, True, 1e300)[number % 8])
        yield rewritten(
            source,
            folder / f"field{number}.keras",
            lambda inner, data, c=content: c if inner == "config.json" else data,
        )


def large(source, folder):
    """TFLite files whose tensors are said to be large; `source` takes 1 x 12 x 12 x 3."""
    shape = struct.Struct("<4i")
    for number, sizes in enumerate(
        ((1, 1 << 14, 1 << 14, 3), (1, 1 << 30, 1 << 30, 3), (1, -1, 12, 3), (0, 12, 12, 3))
    ):
        path = folder / f"large{number}.tflite"
        path.write_bytes(source.read_bytes().replace(shape.pack(1, 12, 12, 3), shape.pack(*sizes)))
        yield path


def hdf5_files(source, folder):
    """``.h5`` files that link elsewhere, or say that they hold far more than they do."""
    import h5py

    for name in ("link", "soft", "huge", "external"):
        path = folder / f"{name}.h5"
        shutil.copy(source, path)
        with h5py.File(path, "a") as file:
            if name == "link":
                file["elsewhere"] = h5py.ExternalLink("/etc/hostname", "/")
            elif name == "soft":
                file["elsewhere"] = h5py.SoftLink("/model_weights")
            elif name == "huge":
                file.create_dataset("huge", (1 << 20, 1 << 20), "f4", chunks=(1, 1 << 20), compression="gzip")
            else:
                file.create_dataset("outside", (4,), "u1", external=[("/etc/hostname", 0, 4)])
        yield path
