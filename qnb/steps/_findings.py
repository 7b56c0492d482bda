"""Findings of the step check: what is wrong, where, by how much, and the option that mends it; and which layer is bad.

Tables in, tables out; knows nothing of how the figures were measured. Ids are stable: a rule that goes leaves a gap.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "RULES", "Evidence", "entries", "findings", "mark"]

Severity = Literal["error", "warning", "info"]
COLUMNS = ["id", "severity", "layer", "tensor", "source", "problem", "remedy"]

RULES: dict[str, str] = {
    "QNB-Q001": "first bad layer: in isolation, with exact inputs, it loses far more than the others",
    "QNB-Q002": "a further layer that is bad in isolation",
    "QNB-Q003": "the layer where the errors that add up along the network take their first sudden step",
    "QNB-Q004": "the NPU computes a layer less exactly than ONNX Runtime does",
    "QNB-Q005": "the range method or an override cuts off values",
    "QNB-Q006": "values beyond the grid: the calibration data did not cover the check's",
    "QNB-Q007": "a few outliers stretch the grid: nearly all values share a small part of it",
    "QNB-Q008": "the channels of a weight on one grid have very different ranges",
    "QNB-Q009": "the channels of an activation have very different ranges",
    "QNB-Q010": "a constant tensor, or channels that are always zero",
    "QNB-Q012": "a 32-bit sum of products may overflow",
    "QNB-Q013": "the top-1 class changes",
    "QNB-Q014": "the grid is far wider than the values",
}

_LEAST_DB, _FINE_DB, _BELOW_DB = 15.0, 30.0, 10.0
_STEP_DB = 6.0
_DISAGREE_DB = 3.0
_MATTERS_DB = 45.0
_MOST_OF_A_KIND = 8
_CLIPPED_PERCENT = 0.01
_CORE_PERCENT = 25.0
_DISPARITY = 8.0
_FIXED = ("Softmax", "Sigmoid", "Tanh", "LogSoftmax")


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was measured: the tables of the step, and how the model was quantized.

    Attributes
    ----------
    layers, tensors, channels, outputs : pandas.DataFrame
        As the step gives them; `tensors` also with ``reads`` and ``code_sum``.
    inputs : mapping of str to sequence of str
        Tensors that a layer reads, by the tensor that it gives.
    method, weights, precision : str
        Of the `Quantized`.
    samples : int
        Calibration samples.
    """

    layers: pd.DataFrame
    tensors: pd.DataFrame
    channels: pd.DataFrame
    outputs: pd.DataFrame
    inputs: Mapping[str, Iterable[str]]
    method: str
    weights: str
    precision: str
    samples: int
    rows: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def uneven(self) -> dict[str, str]:
        """Tensors whose channels have very different ranges, and how different."""
        found = {}
        for name, rows in self.channels.groupby("tensor", sort=False):
            sizes = rows["range"].to_numpy(dtype=float)
            live = sizes[sizes > 0]
            if live.size < 2:
                continue
            ratio = float(live.max() / np.median(live))
            spread = float(np.quantile(live, 0.95) / np.quantile(live, 0.05))
            if ratio >= _DISPARITY or spread >= 4 * _DISPARITY:
                widest = rows["channel"].iloc[int(np.argmax(sizes))]
                found[str(name)] = (
                    f"channel {widest} is {ratio:.3g} times as wide as the median one; the 95th percentile of the widths is "
                    f"{spread:.3g} times the 5th"
                )
        return found

    def add(
        self,
        rule: str,
        severity: Severity,
        problem: str,
        remedy: str,
        *,
        layer: str = "",
        tensor: str = "",
        source: str = "",
    ) -> None:
        """Add a finding."""
        values = (rule, severity, layer, tensor, source, problem, remedy)
        self.rows.append(dict(zip(COLUMNS, values, strict=True)))

    @property
    def primary(self) -> str:
        """Source whose figures decide: the NPU's, where there are some."""
        sources = list(dict.fromkeys(self.layers["source"])) or list(dict.fromkeys(self.outputs["source"]))
        return next((s for s in sources if s != "host"), "host")


def entries(frame: pd.DataFrame) -> list[Any]:
    """Give the rows as named tuples; their fields are whatever the columns are."""
    return list(frame.itertuples())


def bad_below(isolated: np.ndarray) -> float:
    """Give the SQNR in isolation (dB) below which a layer is bad: 10 below the network's median, but within 15 to 30."""
    finite = isolated[np.isfinite(isolated)]
    usual = float(np.median(finite)) if finite.size else _LEAST_DB
    return max(_LEAST_DB, min(usual - _BELOW_DB, _FINE_DB))


def mark(layers: pd.DataFrame, tensors: pd.DataFrame, inputs: Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """Fill in the columns ``drop_db`` and ``remark`` of the table of layers.

    ``drop_db`` is how far a layer's accumulated SQNR lies below that of the worst of its inputs. A layer is bad in
    isolation if its SQNR there is below `bad_below`; accumulated, if it is below that and drops by 6 dB or more.
    """
    layers = layers.copy()
    layers["drop_db"] = np.full(len(layers), np.nan)
    remarks = {index: list[str]() for index in layers.index}
    quantized = dict(zip(tensors["tensor"], tensors["sqnr_db"], strict=True))
    for _, rows in layers.groupby("source", sort=False):
        sqnr = dict(zip(rows["tensor"], rows["accumulated_sqnr_db"], strict=True))
        limit = bad_below(rows["isolated_sqnr_db"].to_numpy(dtype=float))
        seen: set[str] = set()
        for row in entries(rows):
            before = [float(sqnr.get(i, quantized.get(i, np.nan))) for i in inputs.get(row.tensor, ())]  # type: ignore[arg-type]
            before = [v for v in before if not np.isnan(v)]
            drop = min(before) - row.accumulated_sqnr_db if before else np.nan
            layers.loc[row.Index, "drop_db"] = drop
            kinds = ["isolated"] * (row.isolated_sqnr_db < limit)
            kinds += ["accumulated"] * (row.accumulated_sqnr_db < limit and drop >= _STEP_DB)
            for kind in kinds:
                remarks[row.Index].append(f"{'bad' if kind in seen else 'first bad'} {kind}")
                seen.add(kind)
    layers["remark"] = [", ".join(r) for r in remarks.values()]
    return layers


def findings(evidence: Evidence) -> pd.DataFrame:
    """Apply all rules; the most severe first, then in the order of the graph."""
    import pandas as pd

    _bad_layers(evidence)
    _disagreement(evidence)
    _activations(evidence)
    _weights(evidence)
    _channels(evidence)
    _top1(evidence)
    order = {"error": 0, "warning": 1, "info": 2}
    rows = sorted(_capped(evidence.rows), key=lambda row: (order[row["severity"]], row["id"]))
    return pd.DataFrame(rows, columns=COLUMNS)


def _capped(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the first of each kind, and say how many more there are."""
    kept: list[dict[str, Any]] = []
    for rule in RULES:
        of_kind = [row for row in rows if row["id"] == rule]
        kept += of_kind[:_MOST_OF_A_KIND]
        if more := of_kind[_MOST_OF_A_KIND:]:
            names = ", ".join(row["tensor"] or row["layer"] for row in more[:20])
            kept.append(more[0] | {"layer": "", "tensor": "", "problem": f"the same of {len(more)} more: {names}"})
    return kept


# --- the remedies -------------------------------------------------------------------------------------------------


def wider(tensor: str) -> str:
    """The option that gives one activation 16 bits."""
    encodings = {"activation_encodings": {tensor: {"bitwidth": 16}}}
    return f"give it 16 bits: calibrate with overrides={json.dumps(encodings, ensure_ascii=False)}"


_PER_CHANNEL = "a scale for each channel: calibrate with per_channel=True"
_EQUALIZE = "make the channels alike: calibrate with equalize=True"
_MSE = 'cut the outliers off: calibrate with ranges="mse"'
_MIN_MAX = 'clip nothing: calibrate with ranges="min-max"'
_ROUNDING = 'round the weights better: calibrate with rounding="adaround"'
_EQUALIZE_AND_ROUND = (
    'make the channels alike and round the weights better: calibrate with equalize=True, rounding="adaround"'
)
_WIDE = 'precision="w8a16"'


def _remedy(evidence: Evidence, layer: str, tensor: str) -> tuple[str, str]:
    """Find what makes a layer bad: its weight, the grid of its output or of an input; and what mends that."""
    table = evidence.tensors
    output = table[(table["tensor"] == tensor) & (table["kind"] == "activation")]
    weight = table[(table["layer"] == layer) & (table["kind"] == "weight")]
    at_output = float(output["sqnr_db"].iloc[0]) if len(output) else np.inf
    at_weight = float(weight["sqnr_db"].min()) if len(weight) else np.inf
    uneven = evidence.uneven.keys()
    if len(weight) and weight["bits"].min() <= 4 and at_weight <= at_output:
        why = f"its weight has {weight['bits'].min():.0f} bits and is stored to {at_weight:.1f} dB"
        return why, _EQUALIZE_AND_ROUND if uneven & {tensor, *evidence.inputs.get(tensor, ())} else _ROUNDING
    for row in entries(weight):
        if row.tensor in uneven and row.grids == 1 and at_weight <= at_output + _BELOW_DB:
            return f"one grid for all channels of {row.tensor}, whose ranges differ a lot", _PER_CHANNEL
    inputs = table[table["tensor"].isin(list(evidence.inputs.get(tensor, ()))) & (table["kind"] == "activation")]
    for row, what in [(r, "output") for r in entries(output)] + [(r, f"input {r.tensor}") for r in entries(inputs)]:
        why = f"the grid of its {what} holds {row.sqnr_db:.1f} dB"
        if row.sqnr_db >= _FINE_DB:
            continue
        if row.clipped_percent >= 0.1:
            return f"{why} and clips {row.clipped_percent:.3g} % of the values", _uncut(evidence)
        if row.core_percent < _CORE_PERCENT:
            return f"{why}: 99.9 % of the values lie in {row.core_percent:.3g} % of it", _MSE
        return why, wider(row.tensor)
    if at_weight < _FINE_DB:
        return f"its weight is stored to {at_weight:.1f} dB", _ROUNDING
    for name in (*inputs["tensor"], *output["tensor"]):
        if name in uneven:
            return f"one grid for all channels of {name}, whose ranges differ a lot", _EQUALIZE
    return "no single tensor explains it", wider(tensor)


def _uncut(evidence: Evidence) -> str:
    if evidence.method.startswith("min-max"):
        return "calibrate with more samples, such as these; if an override sets this grid, widen it"
    return f"{_MIN_MAX} or a higher percentile; if an override sets this grid, widen it"


# --- the rules ----------------------------------------------------------------------------------------------------


def _bad_layers(evidence: Evidence) -> None:
    rows = evidence.layers[evidence.layers["source"] == evidence.primary]
    limit = bad_below(rows["isolated_sqnr_db"].to_numpy(dtype=float)) if len(rows) else 0.0
    for row in entries(rows):
        where = {"layer": row.layer, "tensor": row.tensor, "source": row.source}
        if "bad isolated" in row.remark:
            why, remedy = _remedy(evidence, row.layer, row.tensor)
            first = "first bad isolated" in row.remark
            problem = f"{row.isolated_sqnr_db:.1f} dB in isolation, where {limit:.0f} would be in line; {why}"
            evidence.add("QNB-Q001" if first else "QNB-Q002", "error" if first else "warning", problem, remedy, **where)
        if "first bad accumulated" in row.remark:
            why, remedy = _remedy(evidence, row.layer, row.tensor)
            problem = (
                f"the accumulated SQNR falls by {row.drop_db:.1f} dB to {row.accumulated_sqnr_db:.1f} dB here; {why}"
            )
            evidence.add("QNB-Q003", "error", problem, remedy, **where)


def _disagreement(evidence: Evidence) -> None:
    rows = evidence.layers
    host = rows[rows["source"] == "host"].set_index("tensor")["isolated_sqnr_db"]
    for row in entries(rows[rows["source"] != "host"]):
        expected = float(host.get(row.tensor, np.nan))
        if min(expected, _MATTERS_DB) - row.isolated_sqnr_db > _DISAGREE_DB:
            evidence.add(
                "QNB-Q004",
                "warning",
                f"{row.op_type}: {row.isolated_sqnr_db:.1f} dB in isolation, {expected:.1f} dB on ONNX Runtime: the NPU "
                "computes this op otherwise",
                wider(row.tensor),
                layer=row.layer,
                tensor=row.tensor,
                source=row.source,
            )


def _activations(evidence: Evidence) -> None:
    types = dict(zip(evidence.layers["tensor"], evidence.layers["op_type"], strict=True))
    makers = dict(zip(evidence.layers["tensor"], evidence.layers["layer"], strict=True))
    rows = evidence.tensors[evidence.tensors["kind"] == "activation"]
    for row in entries(rows.sort_values("clipped_percent", ascending=False, kind="stable")):
        where = {"layer": makers.get(row.tensor, ""), "tensor": row.tensor, "source": "host"}
        fixed = types.get(row.tensor, "").startswith(_FIXED)
        observed = f"{row.observed_min:.4g} … {row.observed_max:.4g}"
        grid = f"{row.grid_min:.4g} … {row.grid_max:.4g}"
        if row.observed_min == row.observed_max:
            evidence.add(
                "QNB-Q010", "info", f"always {row.observed_min:.4g} over these samples",
                "fold it into the model, or give data that moves it", **where,
            )  # fmt: skip
            continue
        if row.clipped_percent > _CLIPPED_PERCENT:
            chosen = not evidence.method.startswith("min-max")
            share = f"{row.clipped_percent:.3g} % of the values are clipped: they reach {observed}, the grid {grid}"
            severity: Severity = (
                "error" if row.clipped_percent >= 5 else "warning" if row.clipped_percent >= 0.1 else "info"
            )
            evidence.add("QNB-Q005" if chosen else "QNB-Q006", severity, share, _uncut(evidence), **where)
        if fixed:
            continue
        if row.core_percent < _CORE_PERCENT and row.sqnr_db < _MATTERS_DB and row.range_use_percent >= 50:
            problem = f"99.9 % of the values share {row.core_percent:.3g} % of the grid {grid}"
            evidence.add("QNB-Q007", "warning", problem, _MSE, **where)
        if row.range_use_percent < 50 and row.sqnr_db < _MATTERS_DB:
            problem = f"the values ({observed}) take {row.range_use_percent:.3g} % of the grid {grid}"
            remedy = "calibrate with data like this; if an override sets this grid, narrow it"
            evidence.add("QNB-Q014", "warning", problem, remedy, **where)


def _weights(evidence: Evidence) -> None:
    bits = dict(zip(evidence.tensors["tensor"], evidence.tensors["bits"], strict=True))
    for row in entries(evidence.tensors[evidence.tensors["kind"] == "weight"]):
        if row.code_sum > 0 and bits.get(row.reads) == 8:  # how HTP adds up products of 16 bits is not known to us
            worst = row.code_sum * 255 / (1 << 31)
            if worst >= 1:
                evidence.add(
                    "QNB-Q012", "warning", f"the worst input would make a sum of {worst:.2g} times what 32 bits hold",
                    "watch QNB-Q004 for this layer; split it, or prune it",
                    layer=row.layer, tensor=row.tensor, source="host",
                )  # fmt: skip


def _channels(evidence: Evidence) -> None:
    grids = dict(zip(evidence.tensors["tensor"], evidence.tensors["grids"], strict=True))
    sqnr = dict(zip(evidence.tensors["tensor"], evidence.tensors["sqnr_db"], strict=True))
    readers = dict(zip(evidence.tensors["tensor"], evidence.tensors["layer"], strict=True))
    makers = dict(zip(evidence.layers["tensor"], evidence.layers["layer"], strict=True))
    for (name, kind), rows in evidence.channels.groupby(["tensor", "kind"], sort=False):
        tensor = str(name)
        sizes = rows["range"].to_numpy(dtype=float)
        live = sizes[sizes > 0]
        dead = int(sizes.size - live.size)
        layer = str(readers.get(tensor, "") if kind == "weight" else makers.get(tensor, ""))
        where = {"layer": layer, "tensor": tensor, "source": "host"}
        if dead >= max(1, sizes.size / 10) and live.size:
            evidence.add(
                "QNB-Q010", "info", f"{dead} of {sizes.size} channels are always zero",
                "prune them, or give data that moves them", **where,
            )  # fmt: skip
        said = evidence.uneven.get(tensor)
        if said is None or sqnr.get(tensor, np.inf) >= _MATTERS_DB:
            continue
        if kind == "weight" and grids.get(tensor) == 1:
            remedy = _PER_CHANNEL if evidence.weights == "per tensor" else _EQUALIZE
            evidence.add("QNB-Q008", "warning", said, remedy, **where)
        if kind == "activation":
            evidence.add("QNB-Q009", "warning", said, _EQUALIZE, **where)


def _severity(percent: float, warns_at: float) -> Severity:
    return "error" if percent >= 5 else "warning" if percent >= warns_at else "info"


def _top1(evidence: Evidence) -> None:
    rows = evidence.outputs[evidence.outputs["source"] == evidence.primary]
    for row in entries(rows):
        if row.top1_drop_percent > 0:
            severity: Severity = (
                "error" if row.top1_drop_percent >= 5 else "warning" if row.top1_drop_percent >= 1 else "info"
            )
            effort = "balanced" if evidence.precision == "w8a8" else "best"
            evidence.add(
                "QNB-Q013", severity, f"the top-1 figure falls by {row.top1_drop_percent:.3g} % at {row.output}",
                f'mend what else is found; or calibrate with effort="{effort}", or {_WIDE}',
                tensor=row.output, source=row.source,
            )  # fmt: skip
