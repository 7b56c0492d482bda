"""The tables of the step check, made of what its jobs answered. Knows column names; nothing of sessions or graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TENSORS", "Tables", "tables_of"]

_LAYERS = [
    "layer", "op_type", "tensor", "source", "isolated_sqnr_db", "accumulated_sqnr_db", "drop_db", "remark", "cosine", "mse",
]  # fmt: skip
TENSORS = [
    "tensor", "kind", "layer", "source", "bits", "grids", "sqnr_db", "cosine", "mse", "clipped_percent",
    "codes_used_percent", "range_use_percent", "core_percent", "observed_min", "observed_max", "grid_min", "grid_max",
]  # fmt: skip
_INNER = ["scale", "reads", "code_sum"]
"""What the findings need beside, and nobody else."""
_OUTPUTS = [
    "output", "source", "sqnr_db", "cosine", "mse", "max_abs_error", "top1_agreement", "accuracy", "fp32_accuracy",
    "top1_drop_percent",
]  # fmt: skip
_CHANNELS = ["tensor", "kind", "channel", "min", "max", "range", "ratio"]


@dataclass(frozen=True)
class Tables:
    """Layers, tensors, channels, outputs; histograms of all tensors but biases; what each tensor's layer reads."""

    layers: pd.DataFrame
    tensors: pd.DataFrame
    channels: pd.DataFrame
    outputs: pd.DataFrame
    counts: np.ndarray
    inputs: Mapping[str, Sequence[str]]


def tables_of(
    opened: Mapping[str, Any],
    closed: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    classes: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    *,
    limit: int | None,
) -> Tables:
    """Put the jobs' answers into tables.

    Raises
    ------
    BadInput
        If the labels don't fit the outputs.
    """
    inputs = {row["tensor"]: row["inputs"] for row in opened["layers"]}
    tensors = _tensors(opened, closed)
    return Tables(
        _layers(opened, closed),
        tensors,
        _channels(tensors, arrays),
        _outputs(closed["outputs"], classes, labels, limit),
        _counts(tensors, arrays),
        inputs,
    )


def _layers(opened: Mapping[str, Any], closed: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    figures = {(row["source"], row["kind"], row["tensor"]): row for row in closed["layers"]}
    sources = list(dict.fromkeys(row["source"] for row in closed["layers"]))
    nothing = dict.fromkeys(("sqnr_db", "cosine", "mse"), float("nan"))
    rows = []
    for layer in opened["layers"]:
        for source in sources:
            row = {name: layer[name] for name in ("layer", "op_type", "tensor")} | {"source": source}
            for kind in ("isolated", "accumulated"):
                found = figures.get((source, kind, layer["tensor"]), nothing)
                row |= {f"{kind}_sqnr_db": found["sqnr_db"], "cosine": found["cosine"], "mse": found["mse"]}
            rows.append(row)
    return pd.DataFrame(rows, columns=_LAYERS)


def _tensors(opened: Mapping[str, Any], closed: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    makers = {row["tensor"]: row["layer"] for row in opened["layers"]}
    rows = [row | {"kind": "activation", "layer": makers.get(row["tensor"], "")} for row in closed["tensors"]]
    rows += opened["parameters"]
    frame = pd.DataFrame(rows).reindex(columns=[*TENSORS, *_INNER]).assign(source="host")
    return frame.fillna({"reads": "", "code_sum": 0})


def _counts(tensors: pd.DataFrame, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    parts = [arrays["counts"]] if "counts" in arrays else []
    parts += [arrays[f"counts:{name}"][None] for name in tensors.loc[tensors["kind"] == "weight", "tensor"]]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros((0, 0), dtype=np.int64)


def _channels(tensors: pd.DataFrame, arrays: Mapping[str, np.ndarray]) -> pd.DataFrame:
    import pandas as pd

    frames = []
    for name, kind in zip(tensors["tensor"], tensors["kind"], strict=True):
        if f"min:{name}" not in arrays:
            continue
        low, high = (arrays[f"{end}:{name}"].astype(float) for end in ("min", "max"))
        # the range that a grid of the channel's own would have: it always holds zero
        size = np.maximum(high, 0) - np.minimum(low, 0)
        live = size[size > 0]
        ratio = size / np.median(live) if live.size else np.full(size.shape, np.nan)
        frames.append(
            pd.DataFrame(
                {"tensor": name, "kind": kind, "channel": np.arange(len(low)), "min": low, "max": high, "range": size,
                 "ratio": ratio}
            )
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=_CHANNELS)


def _outputs(
    rows: Sequence[Mapping[str, Any]], classes: Mapping[str, np.ndarray], labels: np.ndarray | None, limit: int | None
) -> pd.DataFrame:
    import pandas as pd

    nan = float("nan")
    # labels are the first classifying output's, as for infer
    classifier = next((r["output"] for r in rows if f"float:{r['output']}" in classes), None)
    found = []
    for row in rows:
        made = dict(row) | {"top1_agreement": nan, "accuracy": nan, "fp32_accuracy": nan, "top1_drop_percent": nan}
        exact, quantized = (classes.get(f"{s}:{row['output']}") for s in ("float", row["source"]))
        if exact is not None and quantized is not None:
            agreed = float(np.mean((exact == quantized) & (exact >= 0)))
            made |= {"top1_agreement": agreed, "top1_drop_percent": 100 * (1 - agreed)}
            if labels is not None and row["output"] == classifier:
                true = _one_each(labels, len(exact), limit)
                before, after = float(np.mean(exact == true)), float(np.mean(quantized == true))
                made |= {"accuracy": after, "fp32_accuracy": before, "top1_drop_percent": 100 * (before - after)}
        found.append(made)
    return pd.DataFrame(found, columns=_OUTPUTS)


def _one_each(labels: np.ndarray, count: int, limit: int | None) -> np.ndarray:
    hint = "give one whole number, the index of the true class, for each sample"
    if len(labels) < count or (limit is None and len(labels) > count):
        raise BadInput(f"{len(labels)} labels for {count} samples", hint=hint)
    return labels[:count]
