"""What a report card says of a build before anything is run: its graph's memory and precision, and the headline figures.

Knows the builds and the tables of results; nothing of pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb.artifacts import Build, Context, Contexts, Model, Quantized
from qnb.graph.memory import memory, precisions, read_structure
from qnb.results import Result

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HEADLINE", "GraphFacts", "graph_facts", "headline", "is_of", "lineage"]

_NPU_FLOAT_BITS = 16
"""The NPU computes in fp16 what is not quantized."""


@dataclass(frozen=True)
class GraphFacts:
    """A build's graph op by op, in the precision that the build has.

    Attributes
    ----------
    memory : pandas.DataFrame
        op, op_type, live_bytes, read_bytes, written_bytes, weight_bytes.
    precision : pandas.DataFrame
        op, op_type, weights, weight_bits, activations, activation_bits, weight_bytes.
    note : str
        In which precision it was counted.
    """

    memory: pd.DataFrame
    precision: pd.DataFrame
    note: str


def graph_facts(build: Build) -> GraphFacts:
    """Count a build's memory and precision from its graph; nothing is run.

    Raises
    ------
    ArtifactError
        If the model's file is gone or damaged.
    BadInput
        If a shape in it is unknown.
    """
    import pandas as pd

    base = build.parent if isinstance(build, Context) else build
    model = read_structure(base.float_model.path)
    bits: dict[str, int] = {}
    weights: set[str] = set()
    float_bits: int | None = None
    note = f"counted in {base.precision}, as the model's file has it; in fp16 on the NPU it is half"
    if isinstance(base, Quantized):
        bits = {str(t): int(b) for t, b in zip(base.frame["tensor"], base.frame["bits"], strict=True)}
        weights = set(base.frame.loc[base.frame["kind"] == "weight", "tensor"])
        float_bits = _NPU_FLOAT_BITS
        note = f"counted in {base.precision}; what is not quantized in fp16, which is what the NPU computes it in"
    elif build.precision == "fp16":
        float_bits, note = _NPU_FLOAT_BITS, "counted in fp16"
    return GraphFacts(
        pd.DataFrame(memory(model, bits, float_bits=float_bits)),
        pd.DataFrame(precisions(model, bits, weights, float_bits=float_bits)),
        note,
    )


def lineage(build: Build) -> Iterator[Build]:
    """Give a build and all that it was made of."""
    yield build
    if isinstance(build, Context):
        yield from lineage(build.parent)
    elif isinstance(build, Quantized):
        yield build.parent


def is_of(result: Result, build: Build) -> str:
    """Say to which other build a result belongs, as its recipe has it; ``""`` if to this one, or if that is not known."""
    kinds = ("model", "quantized", "context")
    said = [
        text for text in _texts(result.recipe.arguments) if text.partition(" ")[0] in kinds and text.count(" ") >= 2
    ]
    named = [text for text in said if len(text.rpartition(" ")[2]) == 12]
    ours = {b.digest[:12] for b in lineage(build)}
    if not named or any(text.rpartition(" ")[2] in ours for text in named):
        return ""
    return named[0]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


# --- the headline -------------------------------------------------------------------------------------------------

HEADLINE = ["figure", "value", "unit", "source", "detail"]
_TRUST = ("device", "published", "transferred", "estimate", "simulator")


def headline(build: Build, facts: GraphFacts | None, results: Sequence[Result], soc: str) -> pd.DataFrame:
    """Choose the headline figures: the latency nearest to a device's, accuracy, size, memory, work.

    Parameters
    ----------
    build : Model, Quantized or Context
    facts : GraphFacts, optional
    results : sequence of Result
        Those of this build.
    soc : str
        Part that latencies are wanted of.

    Returns
    -------
    pandas.DataFrame
        figure, value, unit, source ("" for what was counted), detail.
    """
    import pandas as pd

    rows = [*_latency(build, results, soc), *_accuracy(build, results), *_size(build, results)]
    if facts is not None and len(facts.memory):
        at = int(facts.memory["live_bytes"].to_numpy().argmax())
        row = facts.memory.iloc[at]
        rows.append(("activations at the peak", float(row["live_bytes"]), "bytes", "", f"counted, at {row['op']}"))
    model = build.float_model
    rows.append(("work", float(model.macs), "MACs", "", f"counted, {len(model.frame):,} ops"))
    rows.append(("weights", float(model.parameters), "parameters", "", "counted"))
    return pd.DataFrame(rows, columns=HEADLINE)


_Row = tuple[str, float, str, str, str]


def _latency(build: Build, results: Iterable[Result], soc: str) -> list[_Row]:
    found: list[tuple[int, _Row]] = []
    for result in results:
        frame = _rows_of(build, result)
        if result.kind in ("profile", "comparison"):
            for row in frame[frame["backend"] == "htp"].to_dict("records"):
                if np.isfinite(row.get("median_ms", np.nan)) and row.get("soc") in (soc, ""):
                    where = f"htp {row['precision']} on {row['soc']}, median"
                    found.append(_ranked(row["source"], ("latency", row["median_ms"], "ms", row["source"], where)))
        elif result.kind == "estimate":
            for row in frame[frame["soc"] == soc].to_dict("records"):
                if np.isfinite(row["latency_ms"]):
                    where = f"{row['precision']} on {row['soc']}{_interval(row)}"
                    found.append(_ranked(row["source"], ("latency", row["latency_ms"], "ms", row["source"], where)))
    return [min(found, key=lambda pair: pair[0])[1]] if found else []


def _rows_of(build: Build, result: Result) -> pd.DataFrame:
    """Give the rows of a result's table that are of this build: a comparison has several."""
    if result.kind != "comparison":
        return result.frame
    label = f"{build.name} {build.precision}"
    return result.frame[[str(b) == label or str(b).startswith(f"{label} ") for b in result.frame["build"]]]


def _ranked(source: str, row: _Row) -> tuple[int, _Row]:
    return (_TRUST.index(source) if source in _TRUST else len(_TRUST)), row


def _interval(row: dict[Any, Any]) -> str:
    low, high = row.get("low_ms", np.nan), row.get("high_ms", np.nan)
    return f", 80 %: {low:.3g} to {high:.3g} ms" if np.isfinite(low) and np.isfinite(high) else ""


def _accuracy(build: Build, results: Iterable[Result]) -> list[_Row]:
    """Agreement with fp32 on the NPU, and the accuracy on labels: of the first result that has them."""
    rows: list[_Row] = []
    for result in sorted(results, key=lambda r: r.kind != "check"):
        if result.kind == "check":
            table = result.outputs  # type: ignore[attr-defined]
        elif result.kind in ("comparison", "inference"):
            table = _rows_of(build, result)
            table = table[table["backend"] == "htp"]
        else:
            continue
        on_npu = table[table["source"] != "host"]
        table = on_npu if len(on_npu) else table
        for column, name, unit, scale in (
            ("accuracy", "accuracy on labels", "%", 100.0),
            ("sqnr_db", "SQNR against fp32", "dB", 1.0),
            ("top1_agreement", "top-1 agreement with fp32", "%", 100.0),
        ):
            known = table[table[column].notna()] if column in table.columns else table.iloc[:0]
            if len(known) and name not in [row[0] for row in rows]:
                worst = known.iloc[int(known[column].to_numpy(dtype=float).argmin())]
                detail = f"{result.kind}, at {worst['output']}" if "output" in known.columns else result.kind
                rows.append((name, scale * float(worst[column]), unit, str(worst["source"]), detail))
    return rows[:2]


def _size(build: Build, results: Iterable[Result]) -> list[_Row]:
    contexts = [build] if isinstance(build, Context) else []
    for result in results:
        contexts += list(result) if isinstance(result, Contexts) else [result] if isinstance(result, Context) else []
    if contexts:
        largest = max(contexts, key=lambda c: c.size_bytes)
        return [
            (
                "size",
                float(largest.size_bytes),
                "bytes",
                "host",
                f"context binary {largest.precision} for {largest.soc.part}",
            )
        ]
    assert isinstance(build, Model | Quantized)
    return [("size", float(build.path.stat().st_size), "bytes", "", f"ONNX file, {build.precision}")]
