"""Which op of one graph is which op of another, though they were renamed, reordered, quantized, fused or edited.

Two sequences of ops in, pairs of positions out: every op in exactly one pair. Knows nothing of files and figures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np

__all__ = ["Op", "Pair", "align", "chained", "targets_of", "wired"]

_K = TypeVar("_K")

_CONVERSIONS = frozenset({"quantize", "dequantize", "cast", "identity"})
"""Families that only hand values on, in another form."""
_LOOKED_THROUGH = _CONVERSIONS | {"bound", "BatchNormalization"}
"""Families that are there in one build and folded in another: surroundings are compared without them."""

_FAMILIES: Mapping[str, str] = {
    "QuantizeLinear": "quantize", "Quantize": "quantize", "DequantizeLinear": "dequantize", "Dequantize": "dequantize",
    "Cast": "cast", "Convert": "cast", "Identity": "identity",
    "Gemm": "matmul", "MatMul": "matmul", "FullyConnected": "matmul", "QLinearMatMul": "matmul",
    "Conv2d": "Conv", "QLinearConv": "Conv", "DepthWiseConv2d": "Conv",
    "Relu": "bound", "Clip": "bound", "Relu6": "bound", "ReluMinMax": "bound",
    "Squeeze": "Reshape", "Unsqueeze": "Reshape", "Flatten": "Reshape",
    "GlobalAveragePool": "mean", "ReduceMean": "mean", "AveragePool": "mean", "PoolAvg2d": "mean",
    "SimplifiedLayerNormalization": "RMSNormalization",
}  # fmt: skip
"""Ops that exporters and converters write for one another."""

_MOST_CELLS = 25_000_000
"""A table of more cells would take over 100 MB: such a stretch is aligned by its equal runs instead."""


@dataclass(frozen=True)
class Op:
    """An op as alignment sees it.

    Attributes
    ----------
    name, op_type : str
    sign : str
        What else must agree, such as its output's shape; ``""`` where it is not known.
    sources : tuple of int
        Positions of the ops whose results it takes, in the order of its inputs.
    tensors : tuple of str
        Names of its results.
    """

    name: str
    op_type: str
    sign: str = ""
    sources: tuple[int, ...] = ()
    tensors: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """Its type, or what stands for all types that mean the same."""
        return _FAMILIES.get(self.op_type, self.op_type)


@dataclass(frozen=True)
class Pair:
    """Positions in both graphs, one of them None where only one side has the op, and what they were found by."""

    left: int | None
    right: int | None
    by: str = ""


def wired(ops: Sequence[Op], nodes: Iterable[tuple[str, Sequence[str], Sequence[str]]]) -> list[Op]:
    """Give ops their sources and tensors from a graph that may hold more nodes than there are ops.

    Parameters
    ----------
    ops : sequence of Op
        What a profile lists.
    nodes : iterable of (name, inputs, outputs)
        The graph's nodes in their order. Those that are not among `ops`, such as folded ones, are looked through.
    """
    place = {op.name: i for i, op in reversed(list(enumerate(ops)))}
    behind: dict[str, tuple[int, ...]] = {}  # tensor -> the ops that it comes from
    found: dict[int, tuple[tuple[int, ...], tuple[str, ...]]] = {}
    for name, inputs, outputs in nodes:
        sources = tuple(dict.fromkeys(s for tensor in inputs for s in behind.get(tensor, ())))
        at = place.get(name)
        if at is not None and at not in found:
            found[at] = (tuple(s for s in sources if s != at), tuple(outputs))
            sources = (at,)
        behind.update(dict.fromkeys(outputs, sources))
    return [replace(op, sources=found[i][0], tensors=found[i][1]) if i in found else op for i, op in enumerate(ops)]


def align(left: Sequence[Op], right: Sequence[Op]) -> list[Pair]:
    """Pair the ops of two graphs.

    Equal names come first, as long as the ops can be the same; then equal names of results, equal surroundings seen from
    the inputs and from the outputs, neighbours of what is paired, and last the order of what is left between two pairs.

    Returns
    -------
    list of Pair
        In the left graph's order, the right one's own ops where they stand in it. Every op is in exactly one pair.
    """
    match = _Match(chained(left), chained(right))
    match.by_key("name", lambda op: (op.name,), lambda a, b: a.family == b.family and _agree(a, b))
    match.by_key("tensor", lambda op: op.tensors, lambda a, b: a.family == b.family and _agree(a, b))
    match.by_surroundings()
    match.by_neighbours()
    match.by_key("name", lambda op: (op.name,), lambda a, b: a.family == b.family)
    match.by_order()
    match.by_neighbours()
    match.by_key("name", lambda op: (op.name,), lambda a, b: True)
    return match.pairs()


def chained(ops: Sequence[Op]) -> list[Op]:
    """Where nothing is known of a graph's edges, each op stands behind the one before it."""
    if any(op.sources for op in ops):
        return list(ops)
    return [replace(op, sources=(i - 1,) if i else ()) for i, op in enumerate(ops)]


def _agree(a: Op, b: Op) -> bool:
    return not a.sign or not b.sign or a.sign == b.sign


class _Match:
    """What is paired so far."""

    def __init__(self, left: Sequence[Op], right: Sequence[Op]) -> None:
        self.left, self.right = left, right
        self.to_right: dict[int, int] = {}
        self.to_left: dict[int, int] = {}
        self.how: dict[int, str] = {}
        self.targets = (targets_of(left), targets_of(right))

    def put(self, i: int, j: int, how: str) -> None:
        self.to_right[i], self.to_left[j], self.how[i] = j, i, how

    def by_key(self, how: str, keys: Callable[[Op], Iterable[str]], fit: Callable[[Op, Op], bool]) -> None:
        """Pair the ops that share a key which no other op of their own side has."""
        once = _single((k, j) for j, op in enumerate(self.right) for k in keys(op))
        for key, i in _single((k, i) for i, op in enumerate(self.left) for k in keys(op)).items():
            j = once.get(key)
            if j is None or i in self.to_right or j in self.to_left:
                continue
            if fit(self.left[i], self.right[j]):
                self.put(i, j, how)

    def by_surroundings(self) -> None:
        """Pair the ops that look the same from the inputs and from the outputs, or from one of them, and alone look so."""
        numbers: dict[tuple[object, ...], int] = {}  # of both graphs, so that they can be compared
        sides = list(zip((self.left, self.right), self.targets, strict=True))
        ahead = [_views(ops, [op.sources for op in ops], numbers) for ops, _ in sides]
        back = [_views(ops, targets, numbers) for ops, targets in sides]
        whole = [[(*a, 0, *b) for a, b in zip(one, other, strict=True)] for one, other in zip(ahead, back, strict=True)]
        for views in (whole, ahead, back):
            free = [
                _single((view, k) for k, view in enumerate(side) if k not in taken and self._placed(ops, targets, k))
                for side, taken, (ops, targets) in zip(views, (self.to_right, self.to_left), sides, strict=True)
            ]
            for view, i in free[0].items():
                if (j := free[1].get(view)) is not None:
                    self.put(i, j, "structure")

    @staticmethod
    def _placed(ops: Sequence[Op], targets: Sequence[Sequence[int]], k: int) -> bool:
        """Whether it is known where in its graph an op stands, and it is there in every build."""
        return bool(ops[k].sources or targets[k]) and ops[k].family not in _LOOKED_THROUGH

    def by_neighbours(self) -> None:
        """Pair what stands alone of its kind beside two ops that are a pair, and go on from there."""
        open_ = list(self.to_right.items())
        while open_:
            i, j = open_.pop()
            beside = (
                (self.left[i].sources, self.right[j].sources),
                (self.targets[0][i], self.targets[1][j]),
            )
            for ours, theirs in beside:
                one = _single((_kind(self.left[k]), k) for k in ours if k not in self.to_right)
                other = _single((_kind(self.right[k]), k) for k in theirs if k not in self.to_left)
                for kind in one.keys() & other.keys():
                    self.put(one[kind], other[kind], "structure")
                    open_.append((one[kind], other[kind]))

    def by_order(self) -> None:
        """Pair what is left between two pairs by its order: the alignment of most weight."""
        for ours, theirs in self._stretches():
            for i, j in _in_order([self.left[i] for i in ours], [self.right[j] for j in theirs]):
                self.put(ours[i], theirs[j], "order")

    def _stretches(self) -> Iterator[tuple[list[int], list[int]]]:
        kept = _increasing(sorted(self.to_right.items()))
        edges = [(-1, -1), *kept, (len(self.left), len(self.right))]
        for (i0, j0), (i1, j1) in pairwise(edges):
            ours = [i for i in range(i0 + 1, i1) if i not in self.to_right]
            theirs = [j for j in range(j0 + 1, j1) if j not in self.to_left]
            if ours and theirs:
                yield ours, theirs

    def pairs(self) -> list[Pair]:
        """Give everything in the left order; what only the right has follows what it follows there."""
        after: dict[int, list[int]] = defaultdict(list)  # place in the left graph -> the right's own ops behind it
        last = -1
        for j in range(len(self.right)):
            if j in self.to_left:
                last = self.to_left[j]
            else:
                after[last].append(j)
        found = [Pair(None, j) for j in after[-1]]
        for i in range(len(self.left)):
            found.append(Pair(i, self.to_right.get(i), self.how.get(i, "")))
            found += [Pair(None, j) for j in after[i]]
        return found


def _single(entries: Iterable[tuple[_K, int]]) -> dict[_K, int]:
    """Give the keys that come once only, without empty ones."""
    seen: dict[_K, int] = {}
    twice: set[_K] = set()
    for key, at in entries:
        if key in seen:
            twice.add(key)
        seen[key] = at
    return {key: at for key, at in seen.items() if key and key not in twice}


def _kind(op: Op) -> tuple[str, str]:
    return op.family, op.sign


def targets_of(ops: Sequence[Op]) -> list[tuple[int, ...]]:
    """Give for each op the positions of the ops that take its results."""
    found: list[list[int]] = [[] for _ in ops]
    for i, op in enumerate(ops):
        for source in op.sources:
            found[source].append(i)
    return [tuple(f) for f in found]


def _views(
    ops: Sequence[Op], edges: Sequence[Sequence[int]], numbers: dict[tuple[object, ...], int]
) -> list[tuple[int, ...]]:
    """Number each op by its kind and by all that lies behind its edges, looking through what may be folded."""
    views: list[tuple[int, ...]] = [()] * len(ops)
    for i in _from_ends(edges):
        behind = tuple(sorted(v for k in edges[i] for v in views[k]))
        if ops[i].family in _LOOKED_THROUGH:
            views[i] = behind
        else:
            views[i] = (numbers.setdefault((*_kind(ops[i]), behind), len(numbers) + 1),)
    return views


def _from_ends(edges: Sequence[Sequence[int]]) -> list[int]:
    """Order the ops so that all behind an op's edges come before it; what lies on a circle is left out."""
    waits = [len(set(e)) for e in edges]
    readers: list[list[int]] = [[] for _ in edges]
    for i, e in enumerate(edges):
        for k in set(e):
            readers[k].append(i)
    ready = [i for i, n in enumerate(waits) if not n]
    for i in ready:  # grows while it is walked
        for reader in readers[i]:
            waits[reader] -= 1
            if not waits[reader]:
                ready.append(reader)
    return ready


def _increasing(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Give the longest run of pairs, ordered by the left, in which the right grows too."""
    from bisect import bisect_left

    tails: list[int] = []  # smallest right end of a run of each length
    ends: list[int] = []
    before: list[int] = []
    for k, (_, j) in enumerate(pairs):
        at = bisect_left(tails, j)
        tails[at : at + 1] = [j]
        before.append(ends[at - 1] if at else -1)
        ends[at : at + 1] = [k]
    found = []
    k = ends[-1] if ends else -1
    while k >= 0:
        found.append(pairs[k])
        k = before[k]
    return found[::-1]


def _in_order(left: Sequence[Op], right: Sequence[Op]) -> list[tuple[int, int]]:
    """Pair two sequences without crossings so that most weight is paired: 3 for ops of one kind and sign.

    2 where a sign is unknown, 1 where signs differ and only the family is the same.
    """
    if len(left) * len(right) > _MOST_CELLS:
        from difflib import SequenceMatcher

        blocks = SequenceMatcher(None, [*map(_kind, left)], [*map(_kind, right)], autojunk=False).get_matching_blocks()
        return [(b.a + k, b.b + k) for b in blocks for k in range(b.size)]
    codes: dict[str, int] = {"": 0}
    families = [np.array([codes.setdefault(f"family {op.family}", len(codes)) for op in s]) for s in (left, right)]
    signs = [np.array([codes.setdefault(op.sign, len(codes)) for op in s]) for s in (left, right)]
    conversion = np.array([op.family in _CONVERSIONS for op in right])
    best = np.zeros((len(left) + 1, len(right) + 1), dtype=np.int32)

    def weights(i: int) -> np.ndarray:
        unknown = (signs[1] == 0) | (signs[0][i] == 0)
        found = np.where(unknown, 2, np.where(signs[1] == signs[0][i], 3, np.where(conversion, 0, 1)))
        return np.where(families[1] == families[0][i], found, 0)

    for i in range(len(left)):
        row = np.maximum(best[i, 1:], best[i, :-1] + weights(i))
        best[i + 1, 1:] = np.maximum.accumulate(row)
    found = []
    i, j = len(left), len(right)
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            found.append((i, j))
    return found[::-1]
