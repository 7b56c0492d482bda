"""Ops that tf2onnx lacks: importing this module teaches it. For worker processes."""

from __future__ import annotations

import math
from typing import Any

from tf2onnx.handler import tf_op, tfl_op

__all__: list[str] = []


def _constant(ctx: Any, like: Any, value: float) -> str:
    import numpy as np
    from tf2onnx import utils

    dtype = utils.map_onnx_to_numpy_type(ctx.get_dtype(like))
    name: str = ctx.make_const(utils.make_name("const"), np.array(value, dtype)).output[0]
    return name


@tf_op("Erfc")
class Erfc:
    """The complement of the error function, of which Keras makes its GELU: ``1 - Erf(x)``."""

    @classmethod
    def version_9(cls, ctx: Any, node: Any, **_: Any) -> None:
        """Convert for opset 9 and up."""
        x, y = node.input[0], node.output[0]
        shapes, dtypes = [ctx.get_shape(y)], [ctx.get_dtype(y)]
        one = _constant(ctx, y, 1.0)
        ctx.remove_node(node.name)
        erf = ctx.make_node("Erf", [x], shapes=shapes, dtypes=dtypes)
        ctx.make_node("Sub", [one, erf.output[0]], name=node.name, outputs=[y], shapes=shapes, dtypes=dtypes)


@tfl_op(["TFL_GELU"], tf_op="Gelu")
class TflGelu:
    """TFLite's GELU, exact or by tanh, written out: ONNX has the op from opset 20 on only."""

    @classmethod
    def to_tf(cls, ctx: Any, node: Any, **_: Any) -> None:
        """Keep it; what it becomes is decided below."""


@tf_op("Gelu")
class Gelu:
    """``x / 2 * (1 + Erf(x / sqrt 2))``, or the same with tanh."""

    @classmethod
    def version_9(cls, ctx: Any, node: Any, **_: Any) -> None:
        """Convert for opset 9 and up."""
        x, y = node.input[0], node.output[0]
        shape, dtype = ctx.get_shape(y), ctx.get_dtype(y)
        by_tanh = bool(node.get_attr_value("approximate", False))
        name = node.name
        ctx.remove_node(name)

        def make(op: str, inputs: list[str], **more: Any) -> str:
            made: str = ctx.make_node(op, inputs, shapes=[shape], dtypes=[dtype], **more).output[0]
            return made

        def const(value: float) -> str:
            return _constant(ctx, x, value)

        if by_tanh:
            cube = make("Mul", [make("Mul", [x, x]), x])
            inner = make("Add", [x, make("Mul", [cube, const(0.044715)])])
            gate = make("Tanh", [make("Mul", [inner, const(math.sqrt(2 / math.pi))])])
        else:
            gate = make("Erf", [make("Mul", [x, const(math.sqrt(0.5))])])
        half = make("Mul", [x, const(0.5)])
        make("Mul", [half, make("Add", [gate, const(1.0)])], name=name, outputs=[y])
