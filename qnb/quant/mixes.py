"""Mixes: the parts of a model, the precisions that each may have, and what a choice among them costs.

Knows numbers alone; nothing of graphs, and not which mix is good.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from qnb.errors import BadInput, UnknownName

__all__ = [
    "CANDIDATES", "FP16_BITS", "Assignment", "CostName", "Op", "Part", "Problem", "bits_of", "check_candidates", "replaced",
]  # fmt: skip

CostName = Literal["bops", "size"]
Assignment = tuple[str, ...]
"""A precision for each part, in the parts' order."""

CANDIDATES = ("w4a8", "w8a8", "w4a16", "w8a16", "w16a16", "fp16")
FP16_BITS = 16


def bits_of(precision: str) -> tuple[int | None, int | None]:
    """Give bits of weights and activations: ``w4a8`` (4, 8), ``w4`` (4, None), ``a16`` (None, 16), ``fp16`` (16, 16)."""
    if precision == "fp16":
        return FP16_BITS, FP16_BITS
    match = re.fullmatch(r"(?:w(\d+))?(?:a(\d+))?", precision)
    if not match or not precision:
        raise UnknownName.among("precision", precision, CANDIDATES)
    return (int(match[1]) if match[1] else None), (int(match[2]) if match[2] else None)


def check_candidates(candidates: str | Sequence[str]) -> tuple[str, ...]:
    """Check names of precisions; one text may hold several, apart by commas.

    Raises
    ------
    BadInput
        If one is unknown, or there is none.
    """
    names = [c.strip() for c in candidates.split(",")] if isinstance(candidates, str) else list(candidates)
    for name in names:
        if name not in CANDIDATES:
            raise UnknownName.among("precision", name, CANDIDATES)
    if not names:
        raise BadInput("no precision is named", hint=f"choose among {', '.join(CANDIDATES)}")
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class Part:
    """What gets one precision: a layer (its weights and its output), or a single tensor.

    Attributes
    ----------
    name : str
        The op's, or the tensor's.
    op_type : str
    options : tuple of str
        Precisions that it may have.
    weights, tensors : tuple of str
        Parameters and activations that follow its precision.
    weight_elements, activation_elements : int
        How many numbers these hold.
    """

    name: str
    op_type: str
    options: tuple[str, ...]
    weights: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    weight_elements: int = 0
    activation_elements: int = 0


@dataclass(frozen=True)
class Op:
    """An op of the cost model.

    Attributes
    ----------
    macs : int
        Multiply-accumulates of one inference.
    elements : int
        Numbers in its output.
    weights : int or None
        Index of the part that its weights belong to; None where it has none.
    output : int or None
        Index of the part whose activation bits it computes in; None where it moves values and computes nothing.
    """

    macs: int
    elements: int
    weights: int | None
    output: int | None


@dataclass(frozen=True)
class Problem:
    """The parts of a model, what each may be, and what a mix costs.

    Costs:

    ``bops``
        Bit operations, Σ MACs x weight bits x activation bits (Baskin et al., "UNIQ: Uniform Noise Injection for
        Non-Uniform Quantization of Neural Networks", ACM TOCS 2021; van Baalen et al., "Bayesian Bits: Unifying
        Quantization and Pruning", NeurIPS 2020). An op computes in the bits of its output, and a product of two
        activations counts these bits twice. An op without MACs counts one operation an output element: its bits.
        fp16 counts 16 by 16. It is a measure to choose by, not a time: no chip is asked.
    ``size``
        Bytes of the weights; 4-bit weights take half a byte, fp16 two.
    """

    parts: tuple[Part, ...]
    ops: tuple[Op, ...]
    fixed_bytes: int = 0
    """Bytes that no precision changes: biases."""

    def uniform(self, precision: str) -> Assignment:
        """Give every part this precision, or where it can't have it, the next more accurate one that it may have."""
        weights, activations = bits_of(precision)

        def nearest(part: Part) -> str:
            if precision in part.options:
                return precision

            def distance(option: str) -> tuple[bool, int, int]:
                w, a = bits_of(option)
                off = [(w, weights), (a, activations)]
                below = any(h is not None and n is not None and h < n for h, n in off)
                return below, sum(abs(h - n) for h, n in off if h is not None and n is not None), -(w or 0)

            return min(part.options, key=distance)

        return tuple(nearest(part) for part in self.parts)

    def cost(self, mix: Assignment, name: CostName) -> float:
        """Give the cost of a mix: bit operations of an inference, or bytes of weights."""
        return self.bops(mix) if name == "bops" else self.weight_bytes(mix)

    def bops(self, mix: Assignment) -> float:
        """Bit operations of one inference."""
        return float(sum(_op_bops(op, mix) for op in self.ops))

    def weight_bytes(self, mix: Assignment) -> float:
        """Bytes of weights, biases included."""
        bits = sum(p.weight_elements * (bits_of(o)[0] or 0) for p, o in zip(self.parts, mix, strict=True))
        return bits / 8 + self.fixed_bytes

    def activation_bytes(self, mix: Assignment) -> float:
        """Bytes of all activations of one inference together."""
        return sum(p.activation_elements * (bits_of(o)[1] or 0) for p, o in zip(self.parts, mix, strict=True)) / 8

    def average_bits(self, mix: Assignment) -> tuple[float, float]:
        """Give the mean bits of a weight, and of an activation; NaN where there is none."""
        weights = sum(p.weight_elements for p in self.parts)
        activations = sum(p.activation_elements for p in self.parts)
        nan = float("nan")
        return (
            8 * (self.weight_bytes(mix) - self.fixed_bytes) / weights if weights else nan,
            8 * self.activation_bytes(mix) / activations if activations else nan,
        )

    @cached_property
    def _ops_of(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the ops whose cost each part has a say in."""
        found: list[list[int]] = [[] for _ in self.parts]
        for index, op in enumerate(self.ops):
            for part in {op.weights, op.output} - {None}:
                found[part].append(index)  # type: ignore[index]
        return tuple(map(tuple, found))

    def neighbours(self, part: int) -> set[int]:
        """Parts whose savings depend on the precision of this one, itself included."""
        return {part} | {
            p for i in self._ops_of[part] for p in (self.ops[i].weights, self.ops[i].output) if p is not None
        }

    def saving(self, mix: Assignment, part: int, option: str, name: CostName) -> float:
        """Say how much cheaper a mix gets by giving one part another precision."""
        if name == "size":
            bits = (bits_of(mix[part])[0] or 0) - (bits_of(option)[0] or 0)
            return self.parts[part].weight_elements * bits / 8
        other = replaced(mix, part, option)
        ops = [self.ops[i] for i in self._ops_of[part]]
        return float(sum(_op_bops(op, mix) - _op_bops(op, other) for op in ops))


def _op_bops(op: Op, mix: Assignment) -> int:
    if op.output is None:
        return 0
    activation = bits_of(mix[op.output])[1] or 0
    if not op.macs:
        return op.elements * activation
    weight = bits_of(mix[op.weights])[0] if op.weights is not None else activation
    return op.macs * (weight or activation) * activation


def replaced(mix: Assignment, part: int, option: str) -> Assignment:
    """Give the mix with another precision for one part."""
    return (*mix[:part], option, *mix[part + 1 :])
