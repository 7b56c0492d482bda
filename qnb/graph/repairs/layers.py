"""Layers that the NPU does not have, written as layers that it has: products, poolings, paddings, transforms."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qnb.graph.facts import attribute
from qnb.graph.repairs.rewriter import Rewriter

if TYPE_CHECKING:
    import onnx

__all__ = ["batch_norm", "conv_transpose", "dft", "einsum", "pad", "pooling", "reverse_sequence", "split", "trilu"]


def einsum(graph: Rewriter) -> None:
    """Einsum becomes Transpose, Reshape and MatMul; more than two tensors are multiplied one after the other."""
    for node in list(graph.nodes("Einsum")):
        equation = attribute(node, "equation", "").replace(" ", "")
        left, arrow, result = equation.partition("->")
        terms = left.split(",")
        if not arrow:
            result = "".join(sorted(c for c in set(left) - {","} if left.count(c) == 1))
        shapes = [graph.shape(name) for name in node.input]
        if "." in equation or None in shapes or any(len(set(t)) < len(t) for t in terms):
            continue
        size: dict[str, int] = {}
        for term, shape in zip(terms, shapes, strict=True):
            for letter, dim in zip(term, shape or (), strict=True):
                size[letter] = max(dim, size.get(letter, 1))
        if any(size[c] != d for t, s in zip(terms, shapes, strict=True) for c, d in zip(t, s or (), strict=True)):
            continue  # a dimension of 1 that is broadcast
        graph.start(node)
        name, term = node.input[0], terms[0]
        for position in range(1, len(terms)):
            later = set(result).union(*terms[position + 1 :])
            name, term = _multiplied(graph, (name, term), (node.input[position], terms[position]), later, size)
        name, term = _summed(graph, name, term, set(result))
        graph.replace(_ordered(graph, name, term, result))


def _ordered(graph: Rewriter, name: str, term: str, wanted: Sequence[str]) -> str:
    order = [term.index(letter) for letter in wanted]
    return name if order == list(range(len(order))) else graph.op("Transpose", name, perm=order)


def _summed(graph: Rewriter, name: str, term: str, kept: set[str]) -> tuple[str, str]:
    gone = [i for i, letter in enumerate(term) if letter not in kept]
    if gone:
        name = graph.op("ReduceSum", name, graph.constant(gone, np.int64), keepdims=0)
    return name, "".join(c for c in term if c in kept)


def _shaped(graph: Rewriter, name: str, shape: Sequence[int]) -> str:
    return graph.op("Reshape", name, graph.constant(list(shape), np.int64))


def _multiplied(
    graph: Rewriter, one: tuple[str, str], two: tuple[str, str], later: set[str], size: dict[str, int]
) -> tuple[str, str]:
    """Multiply two tensors, and sum over the letters that both have and nobody needs later."""
    (a, left), (b, right) = _summed(graph, *one, later | set(two[1])), _summed(graph, *two, later | set(one[1]))
    both = [c for c in left if c in right]
    batch, inner = [c for c in both if c in later], [c for c in both if c not in later]
    rows, columns = [c for c in left if c not in right], [c for c in right if c not in left]

    def count(letters: Sequence[str]) -> int:
        return int(np.prod([size[c] for c in letters], dtype=np.int64))

    a = _shaped(graph, _ordered(graph, a, left, [*batch, *rows, *inner]), [count(batch), count(rows), count(inner)])
    b = _shaped(
        graph, _ordered(graph, b, right, [*batch, *inner, *columns]), [count(batch), count(inner), count(columns)]
    )
    made = [*batch, *rows, *columns]
    return _shaped(graph, graph.op("MatMul", a, b), [size[c] for c in made]), "".join(made)


# --- pooling ---------------------------------------------------------------------------------------------------------

_MOST_TAPS = 64


def pooling(graph: Rewriter) -> None:
    """LpPool, poolings with gaps between their taps, and MaxPool over three axes become poolings that the NPU has."""
    for node in list(graph.nodes("LpPool", "GlobalLpPool", "MaxPool", "AveragePool")):
        shape = graph.shape(node.input[0])
        kernel = attribute(node, "kernel_shape", [])
        if shape is None or (len(node.output) > 1 and node.output[1]):
            continue
        graph.start(node)
        gaps = any(d != 1 for d in attribute(node, "dilations", []))
        made = ""
        if node.op_type == "GlobalLpPool":
            made = _global_lp(graph, node, len(shape))
        elif attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID") or attribute(node, "ceil_mode", 0):
            made = ""
        elif node.op_type == "LpPool" and not gaps and not any(attribute(node, "pads", [])):
            made = _lp(graph, node, kernel)
        elif gaps and node.op_type == "AveragePool" and not any(attribute(node, "pads", [])):
            made = _spread_average(graph, node, shape[1], kernel)
        elif gaps and node.op_type == "MaxPool":
            made = _taps(graph, node, shape, kernel)
        elif node.op_type == "MaxPool" and len(kernel) == 3:
            made = _max_3d(graph, node, shape, kernel)
        if made:
            graph.replace(made)


def _global_lp(graph: Rewriter, node: onnx.NodeProto, rank: int) -> str:
    if attribute(node, "p", 2) != 2:
        return ""
    return graph.op("ReduceL2", node.input[0], graph.constant(range(2, rank), np.int64), keepdims=1)


def _lp(graph: Rewriter, node: onnx.NodeProto, kernel: Sequence[int]) -> str:
    x = node.input[0]
    if attribute(node, "p", 2) != 2:
        return ""
    mean = graph.op(
        "AveragePool", graph.op("Mul", x, x), kernel_shape=kernel, strides=attribute(node, "strides", [1] * len(kernel))
    )
    return graph.op("Sqrt", graph.op("Mul", mean, graph.like(x, int(np.prod(kernel)))))


def _spread_average(graph: Rewriter, node: onnx.NodeProto, channels: int, kernel: Sequence[int]) -> str:
    weight = np.full((channels, 1, *kernel), 1 / np.prod(kernel))
    return graph.op(
        "Conv",
        node.input[0],
        graph.like(node.input[0], weight),
        group=channels,
        kernel_shape=kernel,
        dilations=attribute(node, "dilations"),
        strides=attribute(node, "strides", [1] * len(kernel)),
    )


def _taps(graph: Rewriter, node: onnx.NodeProto, shape: Sequence[int], kernel: Sequence[int]) -> str:
    """Write a MaxPool with gaps as the largest of shifted slices, one for each of its taps."""
    x, out = node.input[0], graph.shape(node.output[0])
    if out is None or np.prod(kernel) > _MOST_TAPS:
        return ""
    pads, axes = attribute(node, "pads", [0] * 2 * len(kernel)), list(range(2, len(shape)))
    strides = attribute(node, "strides", [1] * len(kernel))
    if any(pads):
        before, after = pads[: len(kernel)], pads[len(kernel) :]
        lowest = graph.like(x, np.finfo(np.float16).min)
        x = graph.op("Pad", x, graph.constant([0, 0, *before, 0, 0, *after], np.int64), lowest)
    made = ""
    for tap in itertools.product(*map(range, kernel)):
        starts = [t * d for t, d in zip(tap, attribute(node, "dilations"), strict=True)]
        ends = [s + (o - 1) * step + 1 for s, o, step in zip(starts, out[2:], strides, strict=True)]
        part = graph.op("Slice", x, *(graph.constant(v, np.int64) for v in (starts, ends, axes, strides)))
        made = graph.op("Max", made, part) if made else part
    return made


def _max_3d(graph: Rewriter, node: onnx.NodeProto, shape: Sequence[int], kernel: Sequence[int]) -> str:
    """Pool over height and width first, then over depth: both of rank 4."""
    out = graph.shape(node.output[0])
    pads, strides = attribute(node, "pads", [0] * 6), attribute(node, "strides", [1] * 3)
    if out is None or len(shape) != 5:
        return ""
    n, c, d, h, w = shape
    flat = _shaped(graph, node.input[0], [n, c * d, h, w])
    pooled = graph.op(
        "MaxPool", flat, kernel_shape=kernel[1:], strides=strides[1:], pads=[pads[1], pads[2], pads[4], pads[5]]
    )
    deep = _shaped(graph, pooled, [n, c, d, out[3] * out[4]])
    deep = graph.op(
        "MaxPool", deep, kernel_shape=[kernel[0], 1], strides=[strides[0], 1], pads=[pads[0], 0, pads[3], 0]
    )
    return _shaped(graph, deep, out)


# --- others ----------------------------------------------------------------------------------------------------------


def conv_transpose(graph: Rewriter) -> None:
    """ConvTranspose with gaps between its weights becomes one whose weights have zeros there."""
    for node in list(graph.nodes("ConvTranspose")):
        gaps = attribute(node, "dilations", [])
        if all(d == 1 for d in gaps) or (weight := graph.value(node.input[1])) is None:
            continue
        size = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], gaps, strict=True)]
        wide = np.zeros((*weight.shape[:2], *size), weight.dtype)
        wide[(slice(None), slice(None), *(slice(None, None, d) for d in gaps))] = weight
        graph.start(node)
        kept = {a.name: attribute(node, a.name) for a in node.attribute if a.name not in ("dilations", "kernel_shape")}
        graph.replace(graph.op("ConvTranspose", node.input[0], graph.constant(wide), *node.input[2:], **kept))


def pad(graph: Rewriter) -> None:
    """Pad that goes round (wrap) becomes Concat of slices, one axis after the other."""
    for node in list(graph.nodes("Pad")):
        shape, pads = graph.shape(node.input[0]), graph.integers(node.input[1])
        if attribute(node, "mode", "constant") != "wrap" or shape is None or pads is None:
            continue
        axes = graph.integers(node.input[3]) if len(node.input) > 3 else list(range(len(shape)))
        if axes is None or min(pads) < 0:
            continue
        axes = [a % len(shape) for a in axes]
        both = list(zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True))
        if any(max(before, after) > shape[axis] for axis, before, after in both):
            continue
        graph.start(node)
        made = node.input[0]

        def part(name: str, axis: int, start: int, end: int) -> str:
            return graph.op("Slice", name, *(graph.constant([v], np.int64) for v in (start, end, axis)))

        for axis, before, after in both:
            parts = [part(made, axis, shape[axis] - before, shape[axis])] if before else []
            parts += [made, *([part(made, axis, 0, after)] if after else [])]
            made = graph.op("Concat", *parts, axis=axis) if len(parts) > 1 else made
        graph.replace(made)


def trilu(graph: Rewriter) -> None:
    """Trilu becomes a product with a mask of ones and zeros."""
    for node in list(graph.nodes("Trilu")):
        x, shape = node.input[0], graph.shape(node.input[0])
        offset = graph.integers(node.input[1]) if len(node.input) > 1 and node.input[1] else [0]
        if shape is None or offset is None or "float" not in graph.dtype(x):
            continue
        ones = np.ones(shape[-2:], np.float32)
        graph.start(node)
        mask = np.triu(ones, offset[0]) if attribute(node, "upper", 1) else np.tril(ones, offset[0])
        graph.replace(graph.op("Mul", x, graph.like(x, mask)))


_ACTIVATIONS = (
    "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Sigmoid", "Softplus", "Tanh",
)  # fmt: skip


def split(graph: Rewriter) -> None:
    """Split behind an activation becomes Slice: in fp16 the NPU gets many of them wrong, without a word."""
    # Seen on the simulator (QNN 2.47, v75): Add or Conv with Add, then Sigmoid, Tanh, Gelu, x · Sigmoid, LeakyRelu,
    # HardSwish or Clip, then a Split in two along the last axis or the channels, at most sizes: outputs are garbage.
    for node in list(graph.nodes("Split")):
        shapes = [graph.shape(name) for name in node.output]
        if not _bent(graph, node.input[0]) or None in shapes or len(shapes) < 2:
            continue
        axis, start = attribute(node, "axis", 0), 0
        graph.start(node)
        parts = []
        for shape in shapes:
            assert shape is not None
            ends = (graph.constant([place], np.int64) for place in (start, start + shape[axis], axis))
            parts.append(graph.op("Slice", node.input[0], *ends))
            start += shape[axis]
        graph.replace(*parts)


def _bent(graph: Rewriter, name: str) -> bool:
    """Say whether a tensor comes out of an activation; Swish may be in two ops."""
    if graph.maker(name, *_ACTIVATIONS):
        return True
    product = graph.maker(name, "Mul")
    return product is not None and any(graph.maker(factor, "Sigmoid", "HardSigmoid") for factor in product.input)


def batch_norm(graph: Rewriter) -> None:
    """BatchNormalization get constants of their own: of shared ones the NPU's provider takes those of the first."""
    # It works the variance into the scale and keeps the result by the scale's name (QNN 2.47). Exporters share constants
    # that are equal, such as the scales of layers that have none.
    seen: set[str] = set()
    for node in list(graph.nodes("BatchNormalization")):
        own: list[str] = []
        graph.start(node)
        for name in node.input[1:]:
            value = graph.value(name) if name in seen else None
            own.append(name if value is None else graph.constant(value))
            seen.add(name)
        if own != list(node.input[1:]):
            made = graph.op("BatchNormalization", node.input[0], *own, epsilon=attribute(node, "epsilon", 1e-5))
            graph.replace(made)


def reverse_sequence(graph: Rewriter) -> None:
    """ReverseSequence over the whole axis becomes Slice with step -1."""
    for node in list(graph.nodes("ReverseSequence")):
        shape, lengths = graph.shape(node.input[0]), graph.integers(node.input[1])
        axis = attribute(node, "time_axis", 0)
        if shape is None or lengths is None or any(n != shape[axis] for n in lengths):
            continue
        graph.start(node)
        where = (graph.constant([v], np.int64) for v in (-1, -shape[axis] - 1, axis, -1))
        graph.replace(graph.op("Slice", node.input[0], *where))


def dft(graph: Rewriter) -> None:
    """DFT becomes products with the matrices of its cosines and sines."""
    for node in list(graph.nodes("DFT")):
        x, shape, out = node.input[0], graph.shape(node.input[0]), graph.shape(node.output[0])
        if shape is None or out is None or len(shape) < 2:
            continue
        if graph.opset >= 20:
            given = graph.integers(node.input[2]) if len(node.input) > 2 and node.input[2] else [-2]
        else:
            given = [attribute(node, "axis", 1)]
        inverse, onesided = attribute(node, "inverse", 0), attribute(node, "onesided", 0)
        if (
            given is None
            or (len(node.input) > 1 and node.input[1])
            or (inverse and onesided)
            or shape[-1] not in (1, 2)
        ):
            continue
        axis = given[0] % len(shape)
        if axis == len(shape) - 1:
            continue
        graph.start(node)
        graph.replace(_fourier(graph, x, shape, out[axis], axis, inverse))


def _fourier(graph: Rewriter, x: str, shape: Sequence[int], frequencies: int, axis: int, inverse: int) -> str:
    """Multiply real and imaginary parts with matrices of their own: interleaved, the compiler fails on the Reshapes."""
    length, rank = shape[axis], len(shape) - 1
    angle = 2 * np.pi * np.outer(np.arange(length), np.arange(frequencies)) / length
    norm = length if inverse else 1
    cosine = graph.like(x, np.cos(angle) / norm)
    sine = graph.like(x, np.sin(angle) / norm * (1 if inverse else -1))
    order = [*(i for i in range(rank) if i != axis), axis]

    def moved(name: str, perm: list[int]) -> str:
        return name if perm == list(range(rank)) else graph.op("Transpose", name, perm=perm)

    parts = [
        moved(graph.op("Gather", x, graph.constant(part, np.int64), axis=rank), order) for part in range(shape[-1])
    ]
    made = [graph.op("MatMul", parts[0], matrix) for matrix in (cosine, sine)]
    if len(parts) == 2:
        made = [
            graph.op("Sub", made[0], graph.op("MatMul", parts[1], sine)),
            graph.op("Add", made[1], graph.op("MatMul", parts[1], cosine)),
        ]
    last = graph.constant([rank], np.int64)
    back = [order.index(i) for i in range(rank)]
    return graph.op("Concat", *(graph.op("Unsqueeze", moved(name, back), last) for name in made), axis=rank)
