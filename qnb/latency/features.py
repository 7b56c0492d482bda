"""What the estimator looks at: the compiler's figures and sums of a graph's work, none of them negative."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qnb.latency.work import Work

__all__ = ["COMPILER", "ESTIMATING_SOCS", "GRAPH", "CompilerCost", "features"]

ESTIMATING_SOCS = (52, 72)
"""SoCs for which the compiler of QAIRT 2.47 gives an estimate, by QNN's number: SA8775P (v73), SA8797 (v81)."""

_EVENTS = {
    "cycles": "Simulated (Accelerator exec cycles)",
    "lower": "Simulated (Accelerator exec cycles (lower estimate))",
    "upper": "Simulated (Accelerator exec cycles (upper estimate))",
    "input_fill": "Input Fill",
    "fill": "Intermediate Fill",
    "spill": "Intermediate Spill",
    "output_spill": "Output Spill",
    "missing_ops": "Missing Ops (Number of Ops with no Costs associated)",
}


@dataclass(frozen=True)
class CompilerCost:
    """The compiler's own estimate of a graph, for one SoC.

    Attributes
    ----------
    soc_model : int
        SoC that it was compiled for, by QNN's number.
    cycles, lower, upper : int
        Simulated accelerator cycles of one inference, and their bounds.
    input_fill, output_spill : int
        Bytes that one inference reads from DDR (weights, mostly) and writes to it.
    fill, spill : int
        Bytes of intermediate tensors that do not stay in the tightly coupled memory.
    missing_ops : int
        Ops that the compiler knows no cost of; the cycles are not to be trusted then.
    """

    soc_model: int
    cycles: int
    lower: int
    upper: int
    input_fill: int
    fill: int
    spill: int
    output_spill: int
    missing_ops: int = 0

    @classmethod
    def read(cls, events: Mapping[str, int], soc_model: int) -> CompilerCost | None:
        """Find the estimate among the events of a profile that was written while compiling.

        Parameters
        ----------
        events : mapping of str to int
            Value of each event by its identifier.
        soc_model : int
            What was compiled for.

        Returns
        -------
        CompilerCost or None
            None where the compiler gave no estimate: it does for few SoCs.
        """
        found = {name: events[event] for name, event in _EVENTS.items() if event in events}
        if len(found) < len(_EVENTS) or not found["cycles"]:
            return None
        return cls(soc_model, **found)


COMPILER = ("cycles", "ddr_bytes", "spill_bytes")
"""Features from a compile."""

_DENSE = ("conv", "grouped", "transposed", "recurrent")
_MOVED = ("layout", "copy", "resize", "pool", "reduce")
_PRODUCTS = (*_DENSE, "pointwise", "linear", "depthwise", "matmul")

GRAPH = (
    "constant",
    "ops",
    "conv_macs",
    "pointwise_macs",
    "matmul_macs",
    "depthwise_macs",
    "weights",
    "products",
    "elementwise",
    "activations",
    "softmax",
    "norms",
    "moved",
    "edge",
)
"""Features from the graph alone."""


def features(work: Work, cost: CompilerCost | None = None) -> dict[str, float]:
    """Give the features of a model.

    Returns
    -------
    dict of str to float
        ``constant`` is 1; ``ops`` counts those that are not free; ``…_macs`` are multiply-accumulates with channels
        filled up to 32 (of depthwise convolutions as they are). The others are elements: ``weights``; ``products``
        written by convolutions and matrix products; read and written by ``elementwise`` ops and where data is ``moved``;
        written by ``activations``, ``softmax`` and ``norms``; of the graph's ``edge``. With a cost also `COMPILER`: cycles
        and bytes.
    """
    found: dict[str, float] = {
        "constant": 1,
        "ops": len(work.ops) - work.total("count", ("free",)),
        "conv_macs": work.total("padded_macs", _DENSE),
        "pointwise_macs": work.total("padded_macs", ("pointwise", "linear")),
        "matmul_macs": work.total("padded_macs", ("matmul",)),
        "depthwise_macs": work.total("macs", ("depthwise",)),
        "weights": work.total("weights"),
        "products": work.total("outputs", _PRODUCTS),
        "elementwise": work.total("inputs", ("elementwise",)) + work.total("outputs", ("elementwise",)),
        "activations": work.total("outputs", ("activation",)),
        "softmax": work.total("outputs", ("softmax",)),
        "norms": work.total("outputs", ("norm",)),
        "moved": work.total("inputs", _MOVED) + work.total("outputs", _MOVED),
        "edge": work.edge,
    }
    if cost is not None:
        found |= {
            "cycles": cost.cycles,
            "ddr_bytes": cost.input_fill + cost.output_spill,
            "spill_bytes": cost.fill + cost.spill,
        }
    return found
