"""Tensors of more than five axes, which the NPU does not take: neighbouring axes are merged around the op."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb.graph.facts import attribute
from qnb.graph.repairs.rewriter import Rewriter

if TYPE_CHECKING:
    import onnx

__all__ = ["MOST_AXES", "merged"]

MOST_AXES = 5

_UNARY = (
    "Abs", "Cast", "Ceil", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Log", "Neg", "Not", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Sqrt", "Tanh",
)  # fmt: skip
_WIDE = ("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mul", "Or", "Pow",
         "Sub", "Where")  # fmt: skip
_REDUCE = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
_ONE_AXIS = ("Softmax", "LogSoftmax", "Concat", "Split", "Gather")
_VIEWS = ("Unsqueeze", "Squeeze", "Flatten")

Groups = list[list[int]]


def merged(graph: Rewriter) -> None:
    """Ops on more than five axes work on merged ones; views of so many axes go."""
    wide = graph.wider_than(MOST_AXES)
    for node in list(graph.nodes(*_UNARY, *_WIDE, *_REDUCE, *_ONE_AXIS, *_VIEWS, "Transpose", "Slice")):
        shapes = [graph.shape(name) for name in (*node.input, *node.output) if name]
        if any(shape is None for shape in shapes) or max(map(len, filter(None, shapes)), default=0) <= MOST_AXES:
            continue
        graph.start(node)
        made = _rewritten(graph, node)
        if made:
            graph.replace(*made)
    _joined(graph, wide)


def _joined(graph: Rewriter, wide: set[str]) -> None:
    """Let a Reshape read what the Reshape before it read, where what is between them has too many axes."""
    for node in [*graph.nodes("Reshape"), *(n for n in graph.made() if n.op_type == "Reshape")]:
        target = graph.integers(node.input[1])
        while target is not None and 0 not in target and node.input[0] in wide:
            before = graph.maker(node.input[0], "Reshape")
            if before is None:
                break
            graph.reread(node, 0, before.input[0])


def _rewritten(graph: Rewriter, node: onnx.NodeProto) -> list[str]:
    kind = node.op_type
    if kind in _VIEWS:
        shape = graph.shape(node.output[0])
        return [_shaped(graph, node.input[0], shape)] if shape is not None else []
    if kind == "Transpose":
        return [_transposed(graph, node)]
    if kind in _UNARY or kind in _WIDE:
        return _elementwise(graph, node)
    if kind == "Slice":
        return _sliced(graph, node)
    if kind in _REDUCE:
        return _reduced(graph, node)
    return _along(graph, node)


def _shaped(graph: Rewriter, name: str, shape: Sequence[int]) -> str:
    return graph.op("Reshape", name, graph.constant(list(shape), np.int64))


def _attributes(node: onnx.NodeProto, *without: str) -> dict[str, Any]:
    return {a.name: attribute(node, a.name) for a in node.attribute if a.name not in without}


def _fit(shape: Sequence[int], groups: Groups) -> list[int]:
    return [prod(shape[i] for i in group) for group in groups]


# --- transposition ---------------------------------------------------------------------------------------------------


def _transposed(graph: Rewriter, node: onnx.NodeProto) -> str:
    """Move axes that stay neighbours together; what is still too much is done block by block."""
    name, shape = node.input[0], graph.shape(node.input[0]) or ()
    out = graph.shape(node.output[0]) or ()
    order = [i for i in attribute(node, "perm", list(reversed(range(len(shape))))) if shape[i] != 1]
    # runs of axes that follow each other before and after
    runs: Groups = []
    for axis in order:
        if runs and _next(runs[-1][-1], axis, shape):
            runs[-1].append(axis)
        else:
            runs.append([axis])
    before = sorted(range(len(runs)), key=lambda i: runs[i][0])
    sizes = {run: _fit(shape, [runs[run]])[0] for run in before}
    current = list(before)
    name = _shaped(graph, name, [sizes[run] for run in current]) if len(current) <= MOST_AXES else name
    if len(current) <= MOST_AXES:
        perm = [current.index(run) for run in range(len(runs))]
        if perm != sorted(perm):
            name = graph.op("Transpose", name, perm=perm)
        return _shaped(graph, name, out)
    for target in range(len(runs)):  # bring one run after the other to its place: (head, moved over, run, tail)
        at = current.index(target)
        if at == target:
            continue
        parts = [current[:target], current[target:at], [target], current[at + 1 :]]
        name = _shaped(graph, name, [prod(sizes[run] for run in part) for part in parts])
        name = graph.op("Transpose", name, perm=[0, 2, 1, 3])
        current = [*parts[0], target, *parts[1], *parts[3]]
    return _shaped(graph, name, out)


def _next(one: int, other: int, shape: Sequence[int]) -> bool:
    """Say whether `other` follows `one`, axes of size one left out."""
    return other > one and all(shape[i] == 1 for i in range(one + 1, other))


# --- elementwise -----------------------------------------------------------------------------------------------------


def _elementwise(graph: Rewriter, node: onnx.NodeProto) -> list[str]:
    """Merge neighbours along which all operands are whole, or all that are not have size one."""
    out = graph.shape(node.output[0]) or ()
    operands = list(node.input) if node.op_type in _WIDE else [node.input[0]]
    shapes = [(1,) * (len(out) - len(s)) + tuple(s) for s in ((graph.shape(n) or ()) for n in operands)]
    groups: Groups = []
    kinds: tuple[bool, ...] | None = None
    for axis, size in enumerate(out):
        kind = tuple(s[axis] == 1 for s in shapes) if size != 1 else None
        last = groups[-1] if groups else None
        if last is not None and (kind is None or kinds is None or kind == kinds):
            last.append(axis)
            kinds = kinds if kind is None else kind
        else:
            groups.append([axis])
            kinds = kind
    if len(groups) > MOST_AXES:
        return []
    inputs = [
        name if not prod(s) - 1 and len(graph.shape(name) or ()) <= 1 else _shaped(graph, name, _fit(s, groups))
        for name, s in zip(operands, shapes, strict=True)
    ]
    made = graph.op(node.op_type, *inputs, *list(node.input)[len(operands) :], **_attributes(node))
    return [_shaped(graph, made, out)]


# --- along axes ------------------------------------------------------------------------------------------------------


def _apart(rank: int, axes: Sequence[int]) -> Groups:
    """Group neighbouring axes, those of `axes` and the others apart."""
    return [list(group) for _, group in groupby(range(rank), key=lambda i: i in axes)]


def _along(graph: Rewriter, node: onnx.NodeProto) -> list[str]:
    """Softmax, Concat, Split and Gather on one axis: (what is before, the axis, what is after)."""
    shape = graph.shape(node.input[0]) or ()
    default = {"Softmax": -1, "LogSoftmax": -1}.get(node.op_type, 0)
    axis = attribute(node, "axis", default) % len(shape)
    outs = [graph.shape(name) or () for name in node.output]

    def three(name: str) -> str:
        s = graph.shape(name) or ()
        return _shaped(graph, name, [prod(s[:axis]), s[axis], prod(s[axis + 1 :])])

    kept = _attributes(node, "axis")
    if node.op_type == "Concat":
        return [_shaped(graph, graph.op("Concat", *map(three, node.input), axis=1), outs[0])]
    if node.op_type == "Split":
        made = graph.ops("Split", three(node.input[0]), *node.input[1:], outputs=len(outs), axis=1, **kept)
        return [_shaped(graph, name, out) for name, out in zip(made, outs, strict=True)]
    made_one = graph.op(node.op_type, three(node.input[0]), *node.input[1:], axis=1, **kept)
    return [_shaped(graph, made_one, outs[0])]


def _sliced(graph: Rewriter, node: onnx.NodeProto) -> list[str]:
    shape, out = graph.shape(node.input[0]) or (), graph.shape(node.output[0]) or ()
    given = [graph.integers(name) if name else None for name in [*node.input[1:], "", ""][:4]]
    starts, ends, axes, steps = given
    if starts is None or ends is None:
        return []
    axes = [a % len(shape) for a in axes] if axes is not None else list(range(len(starts)))
    groups = [
        [axis] if axis in axes else group
        for group in _apart(len(shape), axes)
        for axis in (group if group[0] in axes else group[:1])
    ]
    if len(groups) > MOST_AXES:
        return []
    places = [next(i for i, group in enumerate(groups) if group == [axis]) for axis in axes]
    numbers = (starts, ends, places, steps or [1] * len(starts))
    made = graph.op(
        "Slice", _shaped(graph, node.input[0], _fit(shape, groups)), *(graph.constant(v, np.int64) for v in numbers)
    )
    return [_shaped(graph, made, out)]


def _reduced(graph: Rewriter, node: onnx.NodeProto) -> list[str]:
    shape, out = graph.shape(node.input[0]) or (), graph.shape(node.output[0]) or ()
    axes = graph.integers(node.input[1]) if len(node.input) > 1 else attribute(node, "axes")
    if not axes:
        return []
    axes = [a % len(shape) for a in axes]
    groups = _apart(len(shape), axes)
    if len(groups) > MOST_AXES:
        return []
    places = [i for i, group in enumerate(groups) if group[0] in axes]
    made = graph.op(
        node.op_type, _shaped(graph, node.input[0], _fit(shape, groups)), graph.constant(places, np.int64), keepdims=0
    )
    return [_shaped(graph, made, out)]
