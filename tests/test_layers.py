"""Who may import whom, and that native code stays out of the kernel process.

Oracle: the syntax trees of all modules, and sys.modules of a process that has walked through every step.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import nets
from tests.processes import ROOT, output_of

PACKAGE = ROOT / "qnb"

LAYERS: tuple[set[str], ...] = (
    {"__main__"},
    {"magics", "commands", "widgets", "server"},
    {"faces"},
    {"steps"},
    {"artifacts"},
    {"results"},
    {"display", "jobs"},
    {"frontends"},
    {"latency", "advice"},
    {"quant", "graph"},
    {"runtime"},
    {"samples"},
    {"sample_sources"},
    {"cache", "progress", "keyvalues", "kept", "provenance", "frames", "views"},
    {"running", "defaults"},
    {"files"},
    {"values", "state", "socs"},
    {"errors"},
)
"""Upper imports lower; those beside each other know nothing of each other."""

ONLY: dict[str, set[str]] = {
    "display": {"errors"},
    "results": {"display", "cache", "files", "frames", "provenance", "socs", "values", "views", "errors"},
    "artifacts": {"results", "display", "cache", "files", "socs", "values", "views", "errors"},
    "frontends": {"graph", "errors"},
    "quant": {"files", "keyvalues", "errors"},
    "latency": {"graph", "errors"},
    "graph": {"files", "values", "errors"},
    "advice": {"graph", "values", "errors"},
    "samples": {"sample_sources", "values", "errors"},
}
"""Where the order of the layers would still allow too much."""

NATIVE: dict[str, set[str]] = {
    "onnxruntime": {"runtime/session.py", "jobs/build.py", "graph/accept.py"},
    "onnxruntime_qnn": {"runtime/session.py"},
    "onnxsim": {"graph/normalise.py"},
    "torch": {
        "frontends/torch.py",
        "frontends/torch_examples.py",
        "frontends/torchscript.py",
        "frontends/keras.py",
    },
    "tensorflow": {"frontends/tensorflow.py", "frontends/tflite.py", "frontends/keras.py", "frontends/keras_live.py"},
    "tf2onnx": {"frontends/tensorflow.py", "frontends/tflite.py", "frontends/tf2onnx_ops.py"},
    "keras": {"frontends/keras.py"},
    "onnxscript": {"frontends/torch.py"},
    "ai_edge_litert": {"frontends/tflite.py"},
}
"""The modules that touch what is native, or heavy; all but torch's in worker processes alone."""

IN_WORKERS = (
    "qnb.server.parsing",
    "qnb.server.views_onnx",
    "qnb.server.views_qnn",
    "qnb.jobs",
    "qnb.runtime.worker",
    "qnb.runtime.session",
    "qnb.graph.accept",
    "qnb.graph.normalise",
    "qnb.graph.shapes",
    "qnb.frontends.converted",
    "qnb.frontends.tensorflow",
    "qnb.frontends.tf2onnx_ops",
    "qnb.frontends.tflite",
)
PUBLIC_API = {"commands/demo.py", "frontends/torch.py"}
"""``import qnb`` itself: the demo as any user would, and the front-end for the path of our own frames."""


@dataclass(frozen=True)
class Import:
    file: str
    line: int
    target: str

    @property
    def importer(self) -> str:
        return self.file.partition("/")[0].removesuffix(".py")

    @property
    def unit(self) -> str:
        return self.target.split(".")[1]

    def __str__(self) -> str:
        return f"qnb/{self.file}:{self.line} imports {self.target}"


def imports() -> Iterator[Import]:
    """Every import of every module, wherever in it and for whatever purpose; ``from qnb import x`` counts as ``qnb.x``."""
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (Import(file, node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"qnb/{file}:{node.lineno}: a relative import"
                for alias in node.names:
                    yield Import(file, node.lineno, f"{node.module}.{alias.name}")


IMPORTS = list(imports())
INSIDE = [i for i in IMPORTS if i.target.startswith("qnb.") and i.file != "__init__.py"]


def rank(unit: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if unit in layer)


def test_every_part_has_its_layer():
    parts = {p.stem for p in PACKAGE.glob("*.py")} | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert parts - {"__init__"} == set().union(*LAYERS)
    assert len(IMPORTS) > 400  # the walk found them


def test_upper_layers_import_lower_ones_and_never_the_other_way():
    known = [i for i in INSIDE if i.unit != "__version__"]
    upward = [str(i) for i in known if i.unit != i.importer and rank(i.unit) <= rank(i.importer)]
    assert upward == []


@pytest.mark.parametrize("part", ONLY)
def test_parts_that_must_not_know_much(part):
    found = {i.unit for i in INSIDE if i.importer == part} - {part}
    assert found <= ONLY[part]


@pytest.mark.parametrize("library", NATIVE)
def test_native_libraries_are_imported_in_few_places(library):
    assert {i.file for i in IMPORTS if i.target.split(".")[0] == library} == NATIVE[library]


def test_what_runs_in_workers_is_imported_by_what_runs_in_workers():
    def in_worker(name: str) -> bool:
        return any(name == module or name.startswith(f"{module}.") for module in IN_WORKERS)

    wrong = [str(i) for i in INSIDE if in_worker(i.target) and not in_worker("qnb." + i.file[:-3].replace("/", "."))]
    assert wrong == []


def test_only_few_import_the_package_as_a_user_does():
    assert {i.file for i in IMPORTS if i.target == "qnb"} == PUBLIC_API


def test_importing_the_package_imports_nothing_else():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    first = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    named = {n.names[0].name if isinstance(n, ast.Import) else str(n.module) for n in first}
    assert named - {"__future__"} <= sys.stdlib_module_names


WALK = """
import sys
from pathlib import Path
import numpy as np
import qnb

data = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype("float32")
qnb.doctor()
model = qnb.export(sys.argv[1])
qnb.convert(model)
quantized = qnb.calibrate(model, data)
context = qnb.context(quantized, soc=["SM8650", "SM8350"])[0]
for backend in ("htp", "gpu", "cpu"):
    qnb.infer(quantized, data, backend=backend)
qnb.profile(quantized, runs=1, warmup=0)
qnb.debug(quantized, ops=False)
comparison = qnb.compare(quantized, context, data=data, runs=1, warmup=0)
str(comparison), comparison.to_html()
loaded = sys.modules
print(*sorted(n for n in loaded if n.split(".")[0] in ("onnxruntime", "onnxruntime_qnn", "onnxsim", "torch", "sklearn")))
print(*sorted(n for n in loaded if n.startswith(("qnb.jobs", "qnb.runtime.worker", "qnb.runtime.session"))))
maps = Path("/proc/self/maps").read_text() if sys.platform == "linux" else ""
print(*sorted({line.split("/")[-1] for line in maps.splitlines() if "libQnn" in line or "onnxruntime" in line}))
"""


def test_the_kernel_process_never_loads_native_code(tmp_path: Path):
    path = nets.convolutions(tmp_path / "net.onnx", layers=2, channels=4, size=8)
    assert output_of(WALK, path, cache=tmp_path / "cache").split() == []
