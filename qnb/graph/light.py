"""A graph apart from its weights: native passes copy the whole model as bytes, and most never look at a weight.

Knows nothing of what the passes do, and of files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

__all__ = ["copy_fields", "heavy", "is_heavy", "light_copy", "without_weights"]

_FEW = 1024  # elements: larger constants never steer a shape


def is_heavy(tensor: onnx.TensorProto) -> bool:
    """Say whether a constant, of a model that `qnb.graph.reading.read` gave, is so large that it can't be but weights."""
    return bool(math.prod(tensor.dims) > _FEW)


def heavy(model: onnx.ModelProto) -> set[str]:
    """Name the constants that can't be but weights."""
    return {tensor.name for tensor in model.graph.initializer if is_heavy(tensor)}


def light_copy(model: onnx.ModelProto, aside: Collection[str] | None = None) -> onnx.ModelProto:
    """Copy a model without its weights, or without the constants `aside`; they become inputs of their type and shape."""
    import onnx

    names = heavy(model) if aside is None else aside
    light = onnx.ModelProto()
    copy_fields(model, light, "graph")
    copy_fields(model.graph, light.graph, "initializer")
    for tensor in model.graph.initializer:
        if tensor.name in names:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            light.graph.input.append(value)
        else:
            light.graph.initializer.append(tensor)
    return light


def without_weights(
    model: onnx.ModelProto,
    native: Callable[[onnx.ModelProto], onnx.ModelProto],
    aside: Collection[str] | None = None,
) -> None:
    """Run a native pass on a model with its weights set aside; `model` becomes what the pass gives.

    If the pass fails, `model` is as it was. Above 2 GB a pass could not run at all otherwise.

    Parameters
    ----------
    model : onnx.ModelProto
        Its constants must not be listed as inputs.
    native : callable
        Takes a model and gives a new one.
    aside : collection of str, optional
        Constants to set aside in place of all weights.
    """
    names = heavy(model) if aside is None else aside
    result = native(light_copy(model, names))
    for message in (model, model.graph):
        for field, _ in message.ListFields():
            if field.name not in ("graph", "initializer"):
                message.ClearField(field.name)
    copy_fields(result, model, "graph")
    copy_fields(result.graph, model.graph, "initializer", "input")
    model.graph.input.extend(value for value in result.graph.input if value.name not in names)
    for index in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[index].name not in names:
            del model.graph.initializer[index]
    model.graph.initializer.extend(result.graph.initializer)


def copy_fields(source: Any, target: Any, *leaving: str) -> None:
    """Copy the fields of a message but those left out."""
    for field, value in source.ListFields():
        if field.name in leaving:
            continue
        if hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)
