"""Which function reads which layer type, and small checks that several of them need."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from qnb.frontends.caffe.graph import Graph
from qnb.frontends.caffe.network import Layer, Shape

__all__ = ["READERS", "Function", "Reader", "axis_of", "count", "reads"]

Function = Callable[[Layer, Graph, list[str]], list[str]]
"""Adds the ops of a layer to the graph, which reads these tensors; gives the tensors of its tops."""


@dataclass(frozen=True)
class Reader:
    """How one layer type is read.

    Attributes
    ----------
    function : Function
    bottoms : tuple of int
        The least and the most of them.
    """

    function: Function
    bottoms: tuple[int, int]


READERS: dict[str, Reader] = {}
"""By layer type."""


def reads(*types: str, bottoms: tuple[int, int] = (1, 1)) -> Callable[[Function], Function]:
    """Register the function for these layer types."""

    def register(function: Function) -> Function:
        for name in types:
            READERS[name] = Reader(function, bottoms)
        return function

    return register


def axis_of(layer: Layer, axis: int, rank: int, *, end: bool = False) -> int:
    """Give an axis counted from the front; `end` lets it point behind the last one.

    Raises
    ------
    ExportError
        If the blob has no such axis.
    """
    place = axis + rank + end if axis < 0 else axis
    if not 0 <= place < rank + end:
        raise layer.fails(f"axis {axis} of a blob with {rank} axes", "see axis in its parameters")
    return place


def count(shape: Shape) -> int:
    """Give the number of elements."""
    return math.prod(shape)
