"""Archives made to do harm are refused before they are read. Oracle: archives that Python's zipfile and h5py write."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from qnb.errors import ExportError
from qnb.frontends.archives import check_config, check_hdf5, check_zip, keras_config

LAYER = {"module": "keras.layers", "class_name": "Dense", "config": {"name": "dense"}}


def write(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_an_honest_archive_passes(tmp_path):
    weights = np.random.default_rng(0).bytes(100_000)
    path = write(tmp_path / "m.keras", {"config.json": json.dumps(LAYER), "model.weights.h5": weights})
    assert check_zip(path) == ["config.json", "model.weights.h5"]
    assert keras_config(path) == LAYER
    check_config(path, {"config": {"layers": [LAYER]}}, trust=False)


def test_a_bomb(tmp_path):
    path = write(tmp_path / "m.keras", {"config.json": b"0" * (64 << 20)})
    with pytest.raises(ExportError, match="unpack to 67,108,864"):
        check_zip(path)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "C:/evil", "..\\evil"])
def test_names_that_point_outside(tmp_path, name):
    with pytest.raises(ExportError, match="points outside"):
        check_zip(write(tmp_path / "m.keras", {name: "x"}))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"module": "keras.layers", "class_name": "Lambda", "config": {"name": "twice"}}, "Lambda 'twice'"),
        ({"class_name": "__lambda__", "config": {"value": "4wEAAAA="}}, "Python code"),
        ({"module": "os", "class_name": "function", "config": "system"}, "of the module 'os'"),
        ({"module": None, "class_name": "Mine", "config": {}, "registered_name": "Custom>Mine"}, "the class Mine"),
    ],
)
def test_code_and_foreign_classes(tmp_path, entry, said):
    config = {"config": {"layers": [LAYER, {"config": {"inner": [entry]}}]}}
    with pytest.raises(ExportError, match=said) as caught:
        check_config(tmp_path / "m.keras", config, trust=False)
    assert "trust=True" in caught.value.hint
    check_config(tmp_path / "m.keras", config, trust=True)


def test_deep_nesting_ends_plainly(tmp_path):
    path = write(tmp_path / "m.keras", {"config.json": "[" * 200_000 + "]" * 200_000}, zipfile.ZIP_STORED)
    with pytest.raises(ExportError, match="damaged Keras file"):
        keras_config(path)


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason='h5py comes with Keras: pip install "qnb[keras]"')
    good, link, large = (tmp_path / name for name in ("good.h5", "link.h5", "large.h5"))
    with h5py.File(good, "w") as file:
        file["layers/dense"] = np.ones((20, 20))
    with h5py.File(link, "w") as file:
        file["layers"] = h5py.ExternalLink("good.h5", "/layers")
    with h5py.File(large, "w") as file:
        file.create_dataset("kernel", (1 << 20, 1 << 14), "f4")  # 64 GB of zeros, none of them stored
    with h5py.File(good) as file:
        check_hdf5(file, good)
    for path, said in ((link, "links to something elsewhere"), (large, "far more values")):
        with h5py.File(path) as file, pytest.raises(ExportError, match=said):
            check_hdf5(file, path)
