"""What the estimator looks at: the compiler's figures and sums of a graph's work, none of them negative."""

from __future__ import annotations

from dataclasses import dataclass

from qnb.latency.work import OpWork, Work

__all__ = ["COMPILER", "ESTIMATING_SOCS", "GRAPH", "KINDS", "ROOFLINE", "CompilerCost", "features"]

ESTIMATING_SOCS = (52, 72)
"""SoCs for which the compiler of QAIRT 2.47 gives an estimate, by QNN's number: SA8775P (v73), SA8797 (v81)."""


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
"""Features from the graph alone, by kind of work."""

ROOFLINE = ("constant", "roofline", "weights", "ops")
"""Features from the graph alone, few enough for a precision with few measured models."""

KINDS = ("constant", "macs", "depthwise_macs", "elements", "softmax_and_norms", "weights", "ops")
"""Features from the graph alone, by the coarsest kinds of work."""

_MACS_PER_ELEMENT = 128
"""Padded MACs that the matrix unit does in the time that one element takes to be read or written."""

_VECTOR = 8
"""How much slower depthwise convolutions are, which use the vector units."""


def features(work: Work, cost: CompilerCost | None = None) -> dict[str, float]:
    """Give the features of a model.

    Returns
    -------
    dict of str to float
        ``constant`` is 1; ``ops`` counts those that are not free; ``…_macs`` are multiply-accumulates with channels
        filled up to 32 (of depthwise convolutions as they are). The others are elements: ``weights``; ``products``
        written by convolutions and matrix products; read and written by ``elementwise`` ops and where data is ``moved``;
        written by ``activations``, ``softmax`` and ``norms``; of the graph's ``edge``. ``macs`` are all but those of
        depthwise convolutions, ``elements`` all that ops read and write. ``roofline`` sums, op by op, what
        takes longer: the elements read and written, or the MACs, as the elements that would pass in that time. With a
        cost also `COMPILER`: cycles and bytes.
    """
    costly = [op for op in work.ops if op.kind != "free"]
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
        "macs": work.total("padded_macs", (*_DENSE, "pointwise", "linear", "matmul")),
        "elements": sum(op.inputs + op.outputs for op in costly),
        "softmax_and_norms": work.total("outputs", ("softmax", "norm")),
        "roofline": sum(_longer(op) for op in costly),
    }
    if cost is not None:
        found |= {
            "cycles": cost.cycles,
            "ddr_bytes": cost.input_fill + cost.output_spill,
            "spill_bytes": cost.fill + cost.spill,
        }
    return found


def _longer(op: OpWork) -> float:
    macs = op.macs * _VECTOR if op.kind == "depthwise" else op.padded_macs
    return max(macs / _MACS_PER_ELEMENT, op.inputs + op.outputs)
