"""GRU and RNN, which the NPU does not have, step by step: one product for all inputs, one a step for the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qnb.graph.facts import attribute
from qnb.graph.repairs.rewriter import Rewriter

if TYPE_CHECKING:
    import onnx

__all__ = ["MOST_STEPS", "unrolled"]

MOST_STEPS = 256
"""Longer sequences are left as they are: each step becomes about ten ops."""

_GATES = {"GRU": 3, "RNN": 1}
_DEFAULT = {"GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def unrolled(graph: Rewriter) -> None:
    """GRU and RNN of at most 256 steps become their steps."""
    for node in list(graph.nodes(*_GATES)):
        if _plain(graph, node):
            graph.start(node)
            graph.replace(*_layer(graph, node))


def _plain(graph: Rewriter, node: onnx.NodeProto) -> bool:
    """Say whether a layer is one that can be written out: full lengths, usual activations, constant weights."""
    shape = graph.shape(node.input[0])
    given = [*node.input, *[""] * 6][:6]
    directions = 2 if attribute(node, "direction", "forward") == "bidirectional" else 1
    usual = attribute(node, "activations")
    names = [a.decode() if isinstance(a, bytes) else a for a in usual] if usual else _DEFAULT[node.op_type] * directions
    lengths = graph.integers(given[4]) if given[4] else None
    return (
        shape is not None
        and 1 <= shape[0] <= MOST_STEPS
        and all(graph.value(name) is not None for name in (*given[1:3], *filter(None, [given[3]])))
        and (not given[4] or (lengths is not None and all(n == shape[0] for n in lengths)))
        and names == _DEFAULT[node.op_type] * directions
        and not attribute(node, "clip", 0.0)
        and not attribute(node, "layout", 0)
    )


def _layer(graph: Rewriter, node: onnx.NodeProto) -> tuple[str, str]:
    """Write out all directions; give the whole sequence, and the last states."""
    x, wanted = node.input[0], [*node.output, ""][:2]
    shape = graph.shape(x)
    assert shape is not None
    steps, batch, _ = shape
    hidden, direction = attribute(node, "hidden_size"), attribute(node, "direction", "forward")
    ways = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    states = [_one_way(graph, node, number, back, shape) for number, back in enumerate(ways)]

    def stacked(names: Sequence[str], target: Sequence[int]) -> str:
        joined = graph.op("Concat", *names, axis=0) if len(names) > 1 else names[0]
        return graph.op("Reshape", joined, graph.constant(list(target), np.int64))

    whole = last = ""
    if wanted[0]:
        by_step = [state for both in zip(*states, strict=True) for state in both]
        whole = stacked(by_step, [steps, len(ways), batch, hidden])
    if wanted[1]:
        ends = [way[0 if back else -1] for way, back in zip(states, ways, strict=True)]
        last = stacked(ends, [len(ways), batch, hidden])
    return whole, last


def _one_way(graph: Rewriter, node: onnx.NodeProto, number: int, back: bool, shape: Sequence[int]) -> list[str]:
    """Write out one direction; give the state after each step, in the order of the input."""
    gates, hidden = _GATES[node.op_type], attribute(node, "hidden_size")
    steps, batch, size = shape
    given = [*node.input, *[""] * 6][:6]
    weight, recurrence = (np.asarray(graph.value(name))[number] for name in given[1:3])
    bias = graph.value(given[3]) if given[3] else None
    zeros = np.zeros(gates * hidden, weight.dtype)
    of_input, of_state = (zeros, zeros) if bias is None else np.split(bias[number], 2)
    apart = bool(attribute(node, "linear_before_reset", 0)) and gates == 3
    # biases are added once, to all steps at a time, but for the one that the reset gate multiplies
    together = of_input + of_state
    if apart:
        together = np.concatenate([together[: 2 * hidden], of_input[2 * hidden :]])
    flat = graph.op("Reshape", node.input[0], graph.constant([steps * batch, size], np.int64))
    moved = graph.op("Add", graph.op("MatMul", flat, graph.constant(weight.T)), graph.constant(together))
    parts = [moved]
    if gates == 3:  # those of the gates, and those of the candidate
        parts = graph.ops("Split", moved, graph.constant([2 * hidden, hidden], np.int64), outputs=2, axis=1)
    by_step = list(zip(*(_by_step(graph, part, steps, batch) for part in parts), strict=True))
    state = _first(graph, given[5], number, batch, hidden)
    cell = _Cell(graph, recurrence, of_state[-hidden:] if apart else None, hidden)
    found = {}
    for step in reversed(range(steps)) if back else range(steps):
        found[step] = state = (cell.gru if gates == 3 else cell.rnn)(by_step[step], state)
    return [found[step] for step in range(steps)]


def _by_step(graph: Rewriter, name: str, steps: int, batch: int) -> list[str]:
    if steps == 1:
        return [name]
    return graph.ops("Split", name, graph.constant([batch] * steps, np.int64), outputs=steps, axis=0)


def _first(graph: Rewriter, name: str, number: int, batch: int, hidden: int) -> str:
    """Give the first state of a direction; nothing where it is zero."""
    value = graph.value(name) if name else None
    if not name or (value is not None and not value.any()):
        return ""
    one = graph.op("Gather", name, graph.constant(number, np.int64), axis=0)
    return graph.op("Reshape", one, graph.constant([batch, hidden], np.int64))


class _Cell:
    """The ops of one step; weights are the same for all."""

    def __init__(self, graph: Rewriter, recurrence: np.ndarray, bias: np.ndarray | None, hidden: int) -> None:
        self.graph, self.hidden = graph, hidden
        self.apart = bias is not None
        self.bias = graph.constant(bias) if bias is not None else ""
        self.all = graph.constant(recurrence.T)
        self.gates = graph.constant(recurrence[: 2 * hidden].T)
        self.candidate = graph.constant(recurrence[2 * hidden :].T)

    def rnn(self, parts: Sequence[str], state: str) -> str:
        """``tanh(W x + R h + b)``."""
        (moved,) = parts
        if state:
            moved = self.graph.op("Add", moved, self.graph.op("MatMul", state, self.all))
        return self.graph.op("Tanh", moved)

    def gru(self, parts: Sequence[str], state: str) -> str:
        """``h' = n + z (h - n)`` with the gates z and r, and n from ``r h`` (or from ``r (R h + b)``)."""
        op = self.graph.op
        gates, candidate = parts
        if state:
            gates = op("Add", gates, op("MatMul", state, self.gates))
        sizes = self.graph.constant([self.hidden] * 2, np.int64)
        # on HTP in fp16, a Split behind the Sigmoid of a sum is garbage from 32 features on; in front of it, it is not
        halves = self.graph.ops("Split", gates, sizes, outputs=2, axis=1)
        update, reset = (op("Sigmoid", half) for half in halves)
        if self.apart:
            kept = op("Add", op("MatMul", state, self.candidate), self.bias) if state else self.bias
            candidate = op("Add", candidate, op("Mul", reset, kept))
        elif state:
            candidate = op("Add", candidate, op("MatMul", op("Mul", reset, state), self.candidate))
        new = op("Tanh", candidate)
        if not state:
            return op("Sub", new, op("Mul", update, new))
        return op("Add", new, op("Mul", update, op("Sub", state, new)))
