"""What rules look at: graphs and tables, each as far as it is there.

Also sizes and shares that several rules need. Knows nothing of where they come from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from qnb.advice.network import Network
from qnb.advice.npu import NpuGraph

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Compiled", "Subject"]

UNATTRIBUTED = "(unattributed"


@dataclass(frozen=True)
class Compiled:
    """What the compiler said.

    Attributes
    ----------
    ddr : mapping of str to int
        Bytes for one inference: ``read``, ``write``, ``spill``, ``fill``; empty where it says none.
    error : str
        Why it failed, or ``""``.
    harder : mapping of str to int
        The same figures at optimization level 3, where that was tried.
    """

    ddr: Mapping[str, int] = field(default_factory=dict)
    error: str = ""
    harder: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A build and what is known of it.

    Attributes
    ----------
    precision : str
        What the NPU computes in: ``w8a8``, ``fp16`` and so on; ``""`` where not known.
    network : Network or None
        The float model.
    quantized : Network or None
        The graph with Q/DQ nodes.
    source : Network or None
        The file as it was given, before any export.
    notes : sequence of str
        What the export noted.
    placement, ops, encodings, tensors : pandas.DataFrame or None
        Tables of `qnb.convert`, of a profile's ops, of a `Quantized`, and of a check's tensors.
    npu : sequence of NpuGraph
        The NPU's own graphs.
    compiled : Compiled or None
        What the compiler said.
    part : str
        SoC.
    vtcm_mb : int or None
        Tightly coupled memory that the graph may use.
    takes_fp16 : bool
        Whether the SoC takes float graphs.
    """

    precision: str = ""
    network: Network | None = None
    quantized: Network | None = None
    source: Network | None = None
    notes: Sequence[str] = ()
    placement: pd.DataFrame | None = None
    ops: pd.DataFrame | None = None
    encodings: pd.DataFrame | None = None
    tensors: pd.DataFrame | None = None
    npu: Sequence[NpuGraph] = ()
    compiled: Compiled | None = None
    part: str = ""
    vtcm_mb: int | None = None
    takes_fp16: bool = True

    @property
    def is_float(self) -> bool:
        """Whether the NPU computes the model in float."""
        return self.precision in ("fp16", "fp32")

    @property
    def bytes_each(self) -> int:
        """Bytes of one activation on the NPU."""
        found = re.fullmatch(r"w\d+a(\d+)", self.precision)
        if found:
            return int(found[1]) // 8
        return 4 if self.precision == "fp32" else 2 if self.precision == "fp16" else 1

    @property
    def weight_bits(self) -> int:
        """Bits of one weight on the NPU, for a model quantized throughout."""
        found = re.fullmatch(r"w(\d+)a\d+", self.precision)
        return int(found[1]) if found else 32 if self.precision == "fp32" else 16 if self.precision == "fp16" else 8

    @cached_property
    def bits(self) -> dict[str, int]:
        """Bits of each encoded tensor."""
        if self.encodings is None:
            return {}
        return dict(zip(self.encodings["tensor"], self.encodings["bits"].astype(int), strict=True))

    @cached_property
    def cycles(self) -> dict[str, float]:
        """Cycles by op: by the profile's own name, and by each ONNX op behind it; what is fused is counted for each."""
        if self.ops is None or not len(self.ops):
            return {}
        found: dict[str, float] = {}
        for row in self.ops.to_dict("records"):
            value = float(row["cycles"])
            if np.isfinite(value) and not str(row["op"]).startswith(UNATTRIBUTED):
                names = [n for n in str(row.get("onnx_ops") or "").split(", ") if n]
                for name in dict.fromkeys((str(row["op"]), *names)):
                    found[name] = found.get(name, 0.0) + value
        return found

    @cached_property
    def fused(self) -> set[str]:
        """ONNX ops that share an op of the profile with others."""
        if self.ops is None or "onnx_ops" not in self.ops.columns:
            return set()
        together = [str(names).split(", ") for names in self.ops["onnx_ops"].fillna("")]
        return {name for names in together if len(names) > 1 for name in names}

    @cached_property
    def total_cycles(self) -> float:
        """Cycles of the whole graph."""
        if self.ops is None or not len(self.ops):
            return 0.0
        return float(np.nansum(self.ops["cycles"].to_numpy(dtype=float)))

    @property
    def cycles_source(self) -> str:
        """Where the cycles come from."""
        if self.ops is None or not len(self.ops):
            return ""
        return str(self.ops["source"].iloc[0])

    def macs(self, op: str) -> int:
        """MACs of an op."""
        row = self.network.layers.get(op) if self.network else None
        return int(row["macs"]) if row else 0

    def mac_percent(self, op: str) -> float:
        """MACs of an op in per cent of the model's."""
        total = self.network.macs if self.network else 0
        return 100 * self.macs(op) / total if total else 0.0

    def cycle_percent(self, op: str) -> float:
        """Cycles of an op in per cent of the graph's; NaN where it was not profiled."""
        if op not in self.cycles or not self.total_cycles:
            return float("nan")
        return 100 * self.cycles[op] / self.total_cycles

    def own_percent(self, op: str) -> float:
        """Cycles that would go with an op, in per cent of the graph's; NaN where they are counted with others'."""
        known = op not in self.fused and self.cycles.get(op, 0.0) > 0
        return self.cycle_percent(op) if known else float("nan")

    def matters(self, op: str, percent: float = 1.0) -> bool:
        """Whether an op has at least that share of the MACs, or of the cycles."""
        cycles = self.cycle_percent(op)
        return self.mac_percent(op) >= percent or (np.isfinite(cycles) and bool(cycles >= percent))

    def said_cycles(self, op: str) -> str:
        """The profile's figure for an op as a clause, or ``""``."""
        share = self.cycle_percent(op)
        if not np.isfinite(share):
            return ""
        if not self.cycles[op]:
            return f"; its cycles are counted with a neighbour's that it was fused with ({self.cycles_source})"
        fused = " with what it is fused with" if op in self.fused else ""
        return f"; {self.cycles[op]:,.0f} cycles{fused}, {share:.3g} % of the graph's ({self.cycles_source})"

    def origin(self, name: str) -> str:
        """ONNX op that an op of the NPU's graph was made of, by its name; ``""`` where there is none."""
        plain = re.sub(r"_token_\d+$", "", name)
        # What one ONNX op is broken into is named after it: node_lstmStridedSlice_3, node_conv_token_1.
        return next((op for op in self._names if plain.startswith(op) and not plain[len(op) :][:1].isdigit()), "")

    @cached_property
    def _names(self) -> list[str]:
        return sorted(self.network.by_name if self.network else (), key=len, reverse=True)

    def type_of(self, op: str) -> str:
        """Type of an ONNX op by name."""
        from qnb.graph.facts import op_type

        node = self.network.by_name.get(op) if self.network else None
        return op_type(node) if node is not None else ""


def size(value: float) -> str:
    """Bytes in words: 1.5 MiB."""
    for power, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= power:
            return f"{value / power:,.3g} {unit}"
    return f"{value:,.0f} bytes"


def millions(value: float) -> str:
    """MACs in words: 12.5 M."""
    return f"{value / 1e6:,.3g} M"
