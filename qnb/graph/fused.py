"""Which aligned ops are to be read together, since one of two graphs counts their work under one name.

Pairs of positions in, a place for each pair out. Knows nothing of files; of figures only which cycles are none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qnb.graph.align import Op, Pair, chained, targets_of

__all__ = ["joined"]

_FOLDED = frozenset(
    {"bound", "BatchNormalization", "quantize", "dequantize", "cast", "identity", "Reshape", "Transpose", "Add", "Sub",
     "Mul", "Div", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "LeakyRelu", "PRelu", "Elu", "Gelu", "Erf", "Pad"}
)  # fmt: skip
"""Families that compilers and quantizers put into the op beside them."""
_EDGES = frozenset({"Input", "Output"})
"""What the runtime calls the handing over of inputs and outputs: nothing is put into these."""


def joined(
    left: Sequence[Op],
    right: Sequence[Op],
    pairs: Sequence[Pair],
    cycles: tuple[Sequence[float], Sequence[float]] | None = None,
) -> list[int]:
    """Say for each pair which pair it is best read with: one side counts their work under one name.

    That is an op that only one side has and that compilers put into its neighbour (an activation into what makes its
    input, a quantizer likewise, a dequantizer into what takes it); and two neighbours of which the left side gives all
    cycles to one, and the right side to the other.

    Returns
    -------
    list of int
        Place in `pairs`; its own for a pair that stands for itself. Not chained: what is pointed to points to itself.
    """
    parent = list(range(len(pairs)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    sides = (_Side(chained(left), [p.left for p in pairs]), _Side(chained(right), [p.right for p in pairs]))
    for i, pair in enumerate(pairs):
        if pair.left is not None and pair.right is not None:
            continue
        host = sides[0 if pair.right is None else 1].host(i, pairs)
        if host is not None and root(host) != root(i):
            parent[root(i)] = root(host)
    if cycles is not None:
        _join_shifted(sides, pairs, cycles, parent, root)
    return [root(i) for i in range(len(pairs))]


class _Side:
    """One graph with the pairs that its ops are in."""

    def __init__(self, ops: Sequence[Op], places: Sequence[int | None]) -> None:
        self.ops, self.targets, self.at = ops, targets_of(ops), places
        self.place = {at: i for i, at in enumerate(places) if at is not None}

    def beside(self, at: int, family: str) -> Sequence[int]:
        """Ops of which an op of that family may have become a part."""
        return self.targets[at] if family == "dequantize" else self.ops[at].sources

    def host(self, i: int, pairs: Sequence[Pair]) -> int | None:
        """Pair that an op of this side alone was put into on the other side, as far as its kind tells."""
        at = self.at[i]
        assert at is not None
        family = self.ops[at].family
        if family not in _FOLDED or len(self.ops[at].sources) > 1:
            return None
        for _ in self.ops:
            near = self.beside(at, family)
            if len(near) != 1:
                return None
            at = near[0]
            pair = pairs[self.place[at]]
            if pair.left is not None and pair.right is not None:
                return self.place[at] if self.ops[at].op_type not in _EDGES else None
            if self.ops[at].family not in _FOLDED:
                return None
        return None


def _join_shifted(
    sides: tuple[_Side, _Side],
    pairs: Sequence[Pair],
    cycles: tuple[Sequence[float], Sequence[float]],
    parent: list[int],
    root: Callable[[int], int],
) -> None:
    def counted(i: int) -> tuple[bool, ...]:
        """Which sides count cycles under this pair; nothing for an op of one side."""
        pair = pairs[i]
        if pair.left is None or pair.right is None:
            return ()
        return cycles[0][pair.left] > 0, cycles[1][pair.right] > 0

    for side in sides:
        for at, op in enumerate(side.ops):
            one = side.place[at]
            for source in op.sources:
                other = side.place[source]
                if {counted(one), counted(other)} == {(True, False), (False, True)}:
                    a, b = root(other), root(one)
                    parent[b] = a
