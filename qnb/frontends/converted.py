"""What the front-ends of foreign files share: inputs of fixed shapes, two sets of values for them, checks and names.

For worker processes. Knows no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qnb.errors import BadInput, ExportError, QnbError, UnknownName
from qnb.frontends.ports import Arrays, Port
from qnb.graph.edit import name_nodes

if TYPE_CHECKING:
    import onnx

__all__ = ["check_control_flow", "check_known_ops", "checked_pairs", "control_flow", "fixed", "rename"]


def fixed(
    ports: Sequence[Port], shapes: Mapping[str, Sequence[int]] | None, batch: int, example: Arrays
) -> tuple[dict[str, tuple[int, ...]], Arrays, list[str]]:
    """Fix the inputs' shapes as for an ONNX file: from `example`, `shapes`, `batch`.

    Parameters
    ----------
    ports : sequence of Port
        The inputs.
    shapes : mapping of str to sequence of int, optional
        Whole shapes by name.
    batch : int
        Size of an open first dimension.
    example : Arrays
        Values by name, or by position as ``#0``, ``#1``, …; may be empty.

    Returns
    -------
    dict of str to tuple of int
        Shapes by name.
    Arrays
        The example by name, in the inputs' types.
    list of str
        What was decided without being asked for.

    Raises
    ------
    BadInput
        If an argument does not fit the inputs.
    ExportError
        If dimensions stay open.
    """
    from onnx import TensorProto, helper

    from qnb.graph.shapes import fix_inputs

    values = _named(ports, example)
    if values and shapes:
        raise BadInput("example and shapes can't both be given", hint="the example has its shapes: leave shapes out")
    inputs = [
        helper.make_tensor_value_info(
            port.name,
            TensorProto.FLOAT,
            port.shape,
        )
        for port in ports
    ]
    model = helper.make_model(helper.make_graph([], "inputs", inputs, []))
    given = {name: value.shape for name, value in values.items()} or shapes
    if values:
        batch = 1  # the example decides
    notes = fix_inputs(model, {name: list(shape) for name, shape in given.items()} if given else None, batch)
    sizes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in model.graph.input}
    return sizes, values, notes


def _named(ports: Sequence[Port], example: Arrays) -> Arrays:
    if not example:
        return {}
    if set(example) == {f"#{number}" for number in range(len(example))} and len(example) == len(ports):
        example = {port.name: example[f"#{number}"] for number, port in enumerate(ports)}
    names = [port.name for port in ports]
    for name in example:
        if name not in names:
            raise UnknownName.among("input", name, names)
    if missing := [name for name in names if name not in example]:
        raise BadInput(f"the example lacks input {missing[0]!r}", hint=f"give all of {', '.join(names)}, by name")
    kinds = {port.name: np.dtype(port.dtype) for port in ports}
    for name, value in example.items():
        if value.dtype.kind == "f" and kinds[name].kind in "iu":
            raise BadInput(
                f"the example for input {name!r} is {value.dtype}, the model takes {kinds[name]}",
                hint=f"pass an array of {kinds[name]}",
            )
    return {name: example[name].astype(kinds[name]) for name in names}


def checked_pairs(
    ports: Sequence[Port],
    shapes: Mapping[str, tuple[int, ...]],
    example: Arrays,
    run: Callable[[Arrays], Arrays],
) -> list[tuple[Arrays, Arrays]]:
    """Run the source on two sets of inputs: the example and a shuffled one, or two random ones.

    Raises
    ------
    ExportError
        If the source fails on them, or gives other values for the same inputs.
    """
    pairs: list[tuple[Arrays, Arrays]] = []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        if not example:
            feeds = {port.name: _random(port, shapes[port.name], rng) for port in ports}
        elif seed == 0:
            feeds = example
        else:
            feeds = {name: rng.permutation(value.ravel()).reshape(value.shape) for name, value in example.items()}
        try:
            outputs = run(feeds)
            again = run(feeds) if seed == 0 else outputs
        except QnbError:
            raise
        except Exception as error:
            told = ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in feeds.items())
            raise ExportError(
                f"the model fails on inputs of these shapes ({told}): {type(error).__name__}: {_short(error)}",
                hint="pass shapes=… or example=… that it takes",
            ) from error
        for name, value in outputs.items():
            if not np.allclose(value, again[name], rtol=1e-4, atol=1e-5, equal_nan=True):
                raise ExportError(
                    f"the model gives other values for output {name!r} each time, on the same inputs",
                    hint="take randomness (noise, dropout at inference, random sampling) out of it",
                )
        pairs.append((feeds, outputs))
    return pairs


def _random(port: Port, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.generic]:
    dtype = np.dtype(port.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize == 1:  # pixels, or codes
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)  # valid indices


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:400]


def check_known_ops(model: onnx.ModelProto, what: str) -> None:
    """Refuse a graph with ops that ONNX does not have: tf2onnx only logs what it could not convert.

    Raises
    ------
    ExportError
        If there is one; names it and the layer that it is of.
    """
    from onnx import defs

    opsets = {entry.domain: entry.version for entry in model.opset_import}
    odd = [node for node in model.graph.node if not defs.has(node.op_type, opsets.get(node.domain, 1), node.domain)]
    if odd:
        kinds = sorted({node.op_type for node in odd})
        raise ExportError(
            f"{what} {', '.join(kinds[:5])} {'has' if len(kinds) == 1 else 'have'} no ONNX form "
            f"(at {', '.join(repr(node.name) for node in odd[:3])}{' …' if len(odd) > 3 else ''})",
            hint="write that layer with other ops, or do that part outside of the model",
        )


def control_flow(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Give the loops and branches of a graph."""
    return [node for node in model.graph.node if node.op_type in ("If", "Loop", "Scan")]


def check_control_flow(model: onnx.ModelProto) -> None:
    """Refuse loops and branches, which QNN does not take.

    Raises
    ------
    ExportError
        If there are some; names the first.
    """
    if found := control_flow(model):
        node = found[0]
        what = "a branch on a tensor's value" if node.op_type == "If" else "a loop"
        raise ExportError(
            f"{_tidy(node.name)!r} is {what} ({node.op_type}), which QNN does not take",
            hint="compute both sides and choose with tf.where"
            if node.op_type == "If"
            else "make recurrent layers with unroll=True and a fixed length; loops of your own: write the steps out",
        )


_PREFIXES = ("StatefulPartitionedCall/", "PartitionedCall/")


def rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Rename tensors as told; shorten the others' names as far as they stay unique, in place.

    ``StatefulPartitionedCall/net/conv/Relu:0`` becomes ``net/conv/Relu``; of the names of ops that TFLite fused, joined by
    semicolons, the first one stays.
    """
    graph = model.graph
    everything = [value.name for value in (*graph.input, *graph.output)]
    everything += [tensor.name for tensor in graph.initializer]
    everything += [name for node in graph.node for name in (*node.input, *node.output) if name]
    taken = set(names.values())
    new = dict(names)
    for name in everything:
        if name in new:
            continue
        candidate = stem = _tidy(name)
        number = 1
        while candidate in taken:
            candidate, number = f"{stem}_{number}", number + 1
        taken.add(candidate)
        new[name] = candidate
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = new.get(value.name, value.name)
    for tensor in graph.initializer:
        tensor.name = new[tensor.name]
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
        node.name = _tidy(node.name)
    name_nodes(model)


def _tidy(name: str) -> str:
    name = name.partition(";")[0].removesuffix(":0")
    while name.startswith(_PREFIXES):
        name = name.partition("/")[2]
    return name or "tensor"
