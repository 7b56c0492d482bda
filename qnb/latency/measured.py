"""The shipped table of device measurements: which chips are in it, and whether a model is.

Origin and licence of the table: ``data/README.md``. Knows nothing of how latencies are estimated.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from qnb.graph.facts import Shape
from qnb.latency.work import Work, fingerprint

__all__ = ["PATHS", "Measurement", "Target", "coefficients", "find", "measurements", "same_size", "targets"]

PATHS = ("qnn_dlc", "onnx", "tflite")
"""How the measured models ran: a DLC or context binary with QNN itself, with ONNX Runtime, with LiteRT."""

_PARAMETERS_OFF = 0.01
"""The table rounds to three digits."""


@dataclass(frozen=True)
class Measurement:
    """One row: a model measured on a device.

    Attributes
    ----------
    model, component : str
        Name in the table; the part of it, where it has several.
    precision : str
        ``float`` (fp16), ``w8a8``, ``w8a16``, or a mixture.
    path : str
        How it ran: one of `PATHS`, or another runtime that the table names.
    device : str
        The device that it was measured on.
    soc_model, arch : int
        QNN's number of its SoC, and its Hexagon architecture (75 is v75).
    ms : float
        Latency of one inference in milliseconds.
    memory_mb : int
        Peak memory in megabytes.
    on_npu : bool
        Whether every layer ran on the NPU.
    layers : int
        Layers on the NPU, as its profiler counts them.
    parameters : str
        Parameters as the table has them, such as ``11.7M``, or ``""``.
    input : str
        Input as the table has it, such as ``224x224``, or ``""``.
    """

    model: str
    component: str
    precision: str
    path: str
    device: str
    soc_model: int
    arch: int
    ms: float
    memory_mb: int
    on_npu: bool
    layers: int
    parameters: str
    input: str


@dataclass(frozen=True)
class Target:
    """A chip of the table; SoCs with one QNN number are one target.

    Attributes
    ----------
    soc_model, arch : int
        QNN's number, and the Hexagon architecture.
    device : str
        What it was measured on.
    rows : int
        Measurements of it.
    """

    soc_model: int
    arch: int
    device: str
    rows: int


@cache
def measurements() -> tuple[Measurement, ...]:
    """All rows."""
    data = (resources.files("qnb") / "data" / "device_latency.csv.gz").read_bytes()
    return tuple(
        Measurement(
            model=row["model"],
            component=row["component"],
            precision=row["precision"],
            path=row["runtime"],
            device=row["device"],
            soc_model=int(row["soc_model"]),
            arch=int(row["htp"]),
            ms=float(row["latency_ms"]),
            memory_mb=int(row["mem_max_mb"]),
            on_npu=row["primary"] == "NPU" and row["layers_other"] == "0",
            layers=int(row["layers_npu"]),
            parameters=row["params"],
            input=row["input"],
        )
        for row in csv.DictReader(gzip.decompress(data).decode("utf-8").splitlines())
    )


@cache
def targets() -> tuple[Target, ...]:
    """The chips, newest architecture first."""
    count: dict[tuple[int, int, str], int] = {}
    for row in measurements():
        key = (row.arch, row.soc_model, row.device)
        count[key] = count.get(key, 0) + 1
    return tuple(Target(soc, arch, device, rows) for (arch, soc, device), rows in sorted(count.items(), reverse=True))


@cache
def coefficients() -> Mapping[str, Any]:
    """The fitted coefficients, as in the file ``data/latency_model.json``."""
    text = (resources.files("qnb") / "data" / "latency_model.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def find(
    name: str, parameters: int, inputs: Sequence[Shape], precision: str, work: Work | None = None
) -> tuple[Measurement, ...]:
    """Find the measurements of this very model.

    A name alone proves nothing: there are many things called ResNet. Either its graph has exactly as many MACs, weights and
    ops as the one that we built of an entry and held against its number of parameters; then its name does not matter. Or
    three things have to agree: the name, without regard to case and punctuation; the number of parameters, within 1 %, as
    the table rounds; and the sizes of the input. The precision has to agree in any case. An entry without parameters or
    input, or with several components, is not found by its name.

    Parameters
    ----------
    name : str
        What the model is called.
    parameters : int
        Parameters of the float model.
    inputs : sequence of shapes
        Shapes of its inputs.
    precision : str
        ``float``, ``w8a8`` or ``w8a16``.
    work : Work, optional
        The work in its graph.
    """
    same = work and _same_graph(work)
    if same:
        model, _, component = same.partition("@")
        return tuple(
            row
            for row in measurements()
            if row.model == model and row.component == (component or row.component) and row.precision == precision
        )
    key = _key(name)
    rows = [row for row in measurements() if _key(row.model) == key]
    if len({row.component for row in rows}) != 1:
        return ()
    return tuple(
        row
        for row in rows
        if row.precision == precision and same_size(row.parameters, parameters) and _same_input(row.input, inputs)
    )


def _same_graph(work: Work) -> str:
    """Name of the model that has this graph, or nothing."""
    mark = list(fingerprint(work))
    names = [name for name, graph in coefficients()["graphs"].items() if graph == mark]
    return names[0] if len(names) == 1 else ""


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def same_size(text: str, parameters: int) -> bool:
    """Whether a number is the one that a text such as ``11.7M`` rounds."""
    found = re.fullmatch(r"([\d.]+)([KM])", text)
    if not found:
        return False
    stated = float(found[1]) * {"K": 1e3, "M": 1e6}[found[2]]
    return math.isclose(stated, parameters, rel_tol=_PARAMETERS_OFF)


def _same_input(text: str, inputs: Sequence[Shape]) -> bool:
    """Whether the sizes in a text such as ``224x224`` or ``128 tokens`` are the last ones of an input, in their order."""
    sizes = tuple(int(size) for size in re.findall(r"\d+", text.split(",")[0].split("(")[0]))
    return bool(sizes) and any(size == sizes for shape in inputs for size in _endings(shape, len(sizes)))


def _endings(shape: Shape, count: int) -> Iterator[Shape]:
    """The last sizes of a shape, and those of an image whose channels are last."""
    yield tuple(shape[-count:])
    yield tuple(shape[-count - 1 : -1])
