"""Damaged and hostile files: an error of ours, in time, in bounded memory, and no code of theirs runs.

Oracle: the processes that read them. Each is watched for how it ends, how long it takes, how much memory it takes at most,
and whether a file appears that only code of the model's file would make.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.frontends import hostile
from tests.processes import ROOT

FIXTURES = ROOT / "tests" / "fixtures"
LIMIT_S, LIMIT_BYTES = 10, 2 << 30  # of the processor; by the clock, the reader itself ends what takes a minute
OURS = {"ExportError", "BadInput", "RuntimeUnavailable", "StorageError", "UnknownName"}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the reading processes are forked")
needs_tensorflow = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("tensorflow", "tf2onnx", "ai_edge_litert")),
    reason='TensorFlow is not installed (1.3 GB): pip install "qnb[tensorflow]"',
)


def answers(library, paths, folder):
    """Have each file read by a process of its own, and see that none of them did what it must not do."""
    run = folder / "run"
    run.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.frontends._hostile", library],
        input="".join(f"{path}\n" for path in paths),
        capture_output=True, text=True, timeout=540, cwd=run, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) == len(paths), done.stderr[-3000:]
    assert list(run.iterdir()) == []
    assert not (folder / "ran").exists()
    assert [answer for answer in found if answer["seconds"] > LIMIT_S] == []
    assert [answer for answer in found if answer["bytes"] > LIMIT_BYTES] == []
    # a crash is told as such: it ends the worker, not the notebook
    assert [a for a in found if a["error"] not in (*OURS, "crash", None)] == []
    assert [a for a in found if a["error"] in OURS and not a["hint"]] == []
    return {Path(answer["path"]).name: answer for answer in found}


@pytest.fixture(scope="module")
def torch_files(tmp_path_factory):
    """An honest TorchScript file and an honest program with an open size."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, x):
            return self.linear(torch.relu(x))

    folder = tmp_path_factory.mktemp("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Net().eval()), str(folder / "net.pt"))
    sizes = [{0: torch.export.Dim("rows")}]
    torch.export.save(torch.export.export(Net().eval(), (torch.ones(2, 3),), dynamic_shapes=sizes), folder / "net.pt2")
    return folder


def test_files_for_torch(torch_files, tmp_path):
    script, program = torch_files / "net.pt", torch_files / "net.pt2"
    surely = [
        *hostile.pickles(tmp_path),
        *hostile.archives(tmp_path),
        *hostile.scripts(script, tmp_path),
        *hostile.programs(program, tmp_path),
        *hostile.cut(script, tmp_path, 6),
        *hostile.cut(program, tmp_path, 6),
    ]
    maybe = [
        *hostile.noise(tmp_path, 5, ("zip", "torch", "onnx", "pickle")),
        *hostile.flipped(script, tmp_path, 15),
        *hostile.flipped(program, tmp_path, 15),
    ]
    found = answers("torch", [script, program, *surely, *maybe], tmp_path)
    assert found["net.pt"]["error"] is found["net.pt2"]["error"] is None
    read = [path.name for path in surely if found[path.name]["error"] is None]
    assert [name for name in read if not name.startswith("field")] == []


@needs_tensorflow
def test_files_for_tensorflow(tmp_path):
    tensorflow, tflite = FIXTURES / "tensorflow", FIXTURES / "tflite"
    honest = [tensorflow / name for name in ("net.keras", "net.h5", "net.pb", "saved", "saved_v1")]
    honest += [tflite / f"{style}.tflite" for style in ("float", "int8")]
    surely = [tensorflow / name for name in ("writes.pb", "saves.pb", "loops.pb", "grows.pb", "writes_when_loaded")]
    surely += [
        *(path for path in hostile.archives(tmp_path) if path.suffix == ".keras"),
        *hostile.large(honest[5], tmp_path),
        *hostile.keras_files(honest[0], tmp_path),
        *hostile.hdf5_files(honest[1], tmp_path),
        *(path for source in (*honest[:3], honest[6]) for path in hostile.cut(source, tmp_path, 5)),
    ]
    maybe = [
        *hostile.noise(tmp_path, 5, ("hdf5", "tflite", "graph", "savedmodel")),
        *(path for source in (*honest[:3], honest[5]) for path in hostile.flipped(source, tmp_path, 12)),
        *hostile.flipped(honest[6], tmp_path, 20, seed=1),
    ]
    for number, path in enumerate(hostile.flipped(honest[3] / "saved_model.pb", tmp_path, 12)):
        shutil.copytree(honest[3], tmp_path / f"saved{number}")
        maybe.append(path.rename(tmp_path / f"saved{number}" / "saved_model.pb").parent)
    found = answers("tensorflow", [*honest, *surely, *maybe], tmp_path)
    assert [path.name for path in honest if found[path.name]["error"]] == []
    read = [path.name for path in surely if found[path.name]["error"] is None]
    assert [name for name in read if not name.startswith("field")] == []


def test_what_is_refused_would_have_run(torch_files, tmp_path):
    """The other tests can fail: torch itself runs what is in such a program, and the file appears that they look for."""
    program = next(
        path for path in hostile.programs(torch_files / "net.pt2", tmp_path) if path.name == "expression1.pt2"
    )
    code = f"import torch; torch.export.load({str(program)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False, timeout=300)
    assert (tmp_path / "ran").exists()
