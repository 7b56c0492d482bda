"""What the fit starts from: measured latencies, compiler figures and graph work of the same models, side by side."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qnb.latency import measured
from qnb.latency.features import CompilerCost
from qnb.latency.work import OpWork, Work

HERE = Path(__file__).parent
FEWEST = 10
"""Measured models that a column (a chip with a path) needs to be fitted."""

LAYERS_OFF = 0.25
"""How far the measured graph's number of layers may be from that of the ops here; beyond, it is another graph."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Dataset:
    """The models of one precision.

    Attributes
    ----------
    names, families : tuple of str
        Of the models.
    works : tuple of Work
        The work in their graphs.
    costs : tuple of dict of int to CompilerCost
        The compiler's figures by SoC.
    columns : tuple of str
        ``path:soc_model``.
    target : array of models x columns
        Log milliseconds; NaN where there is no measurement.
    """

    names: tuple[str, ...]
    families: tuple[str, ...]
    works: tuple[Work, ...]
    costs: tuple[dict[int, CompilerCost], ...]
    columns: tuple[str, ...]
    target: Array


def rows(name: str) -> list[dict[str, str]]:
    """Read a table of this folder."""
    path = HERE / name
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return list(csv.DictReader(data.decode().splitlines()))


def graph_works() -> dict[str, Work]:
    """Give the work of each graph."""
    ops: dict[str, list[OpWork]] = defaultdict(list)
    edge: dict[str, int] = {}
    for row in rows("graph_costs.csv.gz"):
        numbers = (int(row[field]) for field in ("macs", "padded_macs", "inputs", "outputs", "weights"))
        ops[row["model"]].append(OpWork("", row["op_type"], row["kind"], *numbers))
        edge[row["model"]] = int(row["edge"])
    return {name: Work(tuple(found), edge[name]) for name, found in ops.items()}


def compiler_costs(precision: str) -> dict[str, dict[int, CompilerCost]]:
    """Give the compiler's figures of each model by SoC."""
    found: dict[str, dict[int, CompilerCost]] = defaultdict(dict)
    fields = ("cycles", "lower", "upper", "input_fill", "fill", "spill", "output_spill", "missing_ops")
    for row in rows("compiler_costs.csv"):
        if row["precision"] == precision:
            soc = int(row["soc_model"])
            found[row["model"]][soc] = CompilerCost(soc, *(int(row[field]) for field in fields))
    return found


def qairt() -> str:
    """Version of QAIRT that the compiler figures were made with."""
    (version,) = {row["qairt"] for row in rows("compiler_costs.csv")}
    return version


@cache
def _layers() -> dict[tuple[str, str], int]:
    """Give layers by model (as listed) and precision, of the path that compiles a graph as a whole."""
    listed = {(row["model"], row["component"]): row for row in rows("models.csv")}
    return {
        (entry["name"], row.precision): row.layers
        for row in measured.measurements()
        if row.path == "qnn_dlc"
        and row.on_npu
        and (entry := listed.get((row.model, row.component)) or listed.get((row.model, "")))
    }


def other_graph(name: str, work: Work, precision: str) -> str:
    """Say why the measured graph is not the one here, or nothing.

    The profiler of the measured one counts layers. A swish is two of them.
    """
    here = len(work.ops) + sum(op.op_type in ("Swish", "Mish") for op in work.ops)
    there = _layers().get((name, precision), here)
    if abs(there / here - 1) <= LAYERS_OFF:
        return ""
    return f"{precision}: measured with {there} layers; here it has {here} ops"


def load(precision: str, missing_ops: int, paths: Sequence[str] = measured.PATHS) -> Dataset:
    """Put together the models of a precision: those measured with this graph, with costs of all ops but `missing_ops`."""
    works, costs = graph_works(), compiler_costs(precision)
    latency: dict[str, dict[str, float]] = defaultdict(dict)
    listed = {(row["model"], row["component"]): row for row in rows("models.csv")}
    for row in measured.measurements():
        entry = listed.get((row.model, row.component)) or listed.get((row.model, ""))
        if entry and row.precision == precision and row.path in paths and row.on_npu:
            latency[entry["name"]][f"{row.path}:{row.soc_model}"] = row.ms
    names = [
        name
        for name in latency
        if name in works
        and name in costs
        and all(c.missing_ops <= missing_ops for c in costs[name].values())
        and not other_graph(name, works[name], precision)
    ]
    count: dict[str, int] = defaultdict(int)
    for name in names:
        for column in latency[name]:
            count[column] += 1
    columns = sorted(column for column in count if count[column] >= FEWEST)
    family = {row["name"]: row["family"] for row in listed.values()}
    return Dataset(
        names=tuple(names),
        families=tuple(family[name] for name in names),
        works=tuple(works[name] for name in names),
        costs=tuple(costs[name] for name in names),
        columns=tuple(columns),
        target=np.log(np.array([[latency[name].get(column, np.nan) for column in columns] for name in names])),
    )
