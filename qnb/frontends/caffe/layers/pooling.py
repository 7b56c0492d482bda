"""Pooling: Caffe's sizes (rounded up, the last window clipped) and Caffe's averages, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from qnb.frontends.caffe.graph import Graph
from qnb.frontends.caffe.layers.registry import reads
from qnb.frontends.caffe.network import Layer

_MAX, _AVE = 0, 1
_FLOOR = 1


@reads("Pooling")
def pooling(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """MAX and AVE over windows or over the whole image."""
    p = layer.param("pooling_param")
    shape = graph.shapes[bottoms[0]]
    if len(shape) != 4:
        raise layer.fails(f"it pools images, but its input has {len(shape)} axes", "see the layer before it")
    if p.pool not in (_MAX, _AVE):
        raise layer.fails("its method is STOCHASTIC, which no Qualcomm backend has", "use pool: AVE or MAX")
    if p.global_pooling:
        if any(getattr(p, name) for name in ("pad", "pad_h", "pad_w")) or _pair(p, "stride", 1) != (1, 1):
            raise layer.fails("global_pooling with a pad or a stride", "leave them out; Caffe refuses it too")
        kind = "GlobalMaxPool" if p.pool == _MAX else "GlobalAveragePool"
        return [graph.add(layer, kind, bottoms, (*shape[:2], 1, 1))]
    kernel, stride, pad = _pair(p, "kernel", 0), _pair(p, "stride", 1), _pair(p, "pad", 0)
    if not all(kernel) or not all(stride) or any(q >= k for q, k in zip(pad, kernel, strict=True)):
        raise layer.fails(
            f"kernel {kernel}, stride {stride} and pad {pad} don't fit",
            "kernel and stride are at least 1, and a pad is smaller than the kernel",
        )
    up = not (p.round_mode == _FLOOR or (p.HasField("ceil_mode") and not p.ceil_mode))
    windows = [_windows(layer, *sizes, any(pad), up) for sizes in zip(shape[2:], kernel, stride, pad, strict=True)]
    sizes = (*shape[:2], *windows)
    axes = list(zip(windows, shape[2:], kernel, stride, pad, strict=True))
    attributes: dict[str, Any] = {"kernel_shape": list(kernel), "strides": list(stride)}
    if p.pool == _AVE and pad[0] == pad[1] and all((n + 2 * q - k) // s + 1 == count for count, n, k, s, q in axes):
        return [graph.add(layer, "AveragePool", bottoms, sizes, pads=[*pad, *pad], count_include_pad=1, **attributes)]
    pads = [*pad, *(max(0, (count - 1) * s + k - n - q) for count, n, k, s, q in axes)]
    if p.pool == _MAX:
        return [graph.add(layer, "MaxPool", bottoms, sizes, pads=pads, **attributes)]
    if not any(pad):
        return [graph.add(layer, "AveragePool", bottoms, sizes, pads=pads, count_include_pad=0, **attributes)]
    # Caffe's average counts its padding, but not what a window has beyond that. Four different pads are taken wrongly by
    # ONNX Runtime 1.24.4 when it counts them (also when they stand in a Pad, which it fuses), and by the NPU's 8-bit
    # average when it does not. A depthwise convolution is right everywhere.
    filters = (shape[1], 1, *kernel)
    graph.check(layer, filters)
    weight = graph.constant(layer, "weight", np.full(filters, 1 / (kernel[0] * kernel[1])))
    top = graph.add(layer, "Conv", [bottoms[0], weight], sizes, pads=pads, group=shape[1], **attributes)
    factor = kernel[0] * kernel[1] / np.outer(*(_counts(*axis) for axis in axes))
    if (factor == 1).all():
        return [top]
    return [graph.elementwise(layer, "Mul", top, graph.constant(layer, "count", factor[None, None]))]


def _counts(windows: int, size: int, kernel: int, stride: int, pad: int) -> np.ndarray:
    """Give what each window along an axis counts: its pixels and Caffe's padding."""
    starts = np.arange(windows) * stride - pad
    return np.minimum(starts + kernel, size + pad) - starts


def _windows(layer: Layer, size: int, kernel: int, stride: int, pad: int, clips: bool, up: bool) -> int:
    """Give the number of windows along an axis; `clips`: no window starts in the padding behind the image."""
    room = size + 2 * pad - kernel
    if room < 0:
        raise layer.fails(
            f"its kernel of {kernel} is larger than the image of {size} with a pad of {pad}",
            "see its parameters and the network's input shape",
        )
    count = (-(-room // stride) if up else room // stride) + 1
    if clips and (count - 1) * stride >= size + pad:
        count -= 1
    if (count - 1) * stride >= size + pad:
        raise layer.fails(
            f"its last window starts behind the image (kernel {kernel}, stride {stride}, image {size}), where Caffe's "
            "result is undefined",
            "use a kernel of at least the stride, or round_mode: FLOOR",
        )
    return count


def _pair(p: Any, what: str, default: int) -> tuple[int, int]:
    """Read kernel, stride or pad: one number, or ``…_h`` and ``…_w``."""
    if p.HasField(f"{what}_h") or p.HasField(f"{what}_w"):
        return tuple(getattr(p, f"{what}_{axis}") if p.HasField(f"{what}_{axis}") else default for axis in "hw")  # type: ignore[return-value]
    size = getattr(p, "kernel_size" if what == "kernel" else what)
    return size, size
