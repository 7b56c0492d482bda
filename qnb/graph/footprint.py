"""How much memory a graph's tensors need: the largest one, the weights, and the most that is alive at one time.

Knows nothing of hardware: what a compiler tiles, computes in place or keeps in fast memory is not seen here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Footprint", "footprint"]


@dataclass(frozen=True)
class Footprint:
    """Sizes in bytes.

    Attributes
    ----------
    largest : str
        Name of the largest tensor, an activation or a constant.
    largest_bytes : int
    constant_bytes : int
        All constants.
    live_bytes : int
        The most that activations take at one time, in the order of the graph: each from the op that makes it to the last
        that reads it, inputs from the start and outputs to the end.
    """

    largest: str
    largest_bytes: int
    constant_bytes: int
    live_bytes: int


def footprint(
    ops: Sequence[Mapping[str, Any]],
    elements: Mapping[str, int],
    *,
    inputs: Collection[str],
    outputs: Collection[str],
    constants: Collection[str],
    bits: Callable[[str], float],
) -> Footprint:
    """Add up what a graph's tensors take.

    Parameters
    ----------
    ops : sequence of mapping
        With ``inputs`` and ``outputs``, names of tensors, in the order in which they run.
    elements : mapping of str to int
        Size of each tensor. What is not in it counts as nothing.
    inputs, outputs, constants : collection of str
        Names of the graph's own.
    bits : callable
        Bits that an element of a tensor takes, by name.
    """
    size = {name: int(-(-count * bits(name) // 8)) for name, count in elements.items()}
    last = {name: at for at, op in enumerate(ops) for name in op["inputs"]}
    last |= dict.fromkeys(outputs, len(ops))
    live = most = sum(size.get(name, 0) for name in inputs)
    for at, op in enumerate(ops):
        live += sum(size.get(name, 0) for name in op["outputs"])
        most = max(most, live)
        ended = {name for name in (*op["inputs"], *op["outputs"]) if last.get(name, at) == at}
        live -= sum(size.get(name, 0) for name in ended)
    largest = max(size, key=lambda name: size[name], default="")
    return Footprint(largest, size.get(largest, 0), sum(size.get(name, 0) for name in constants), most)
