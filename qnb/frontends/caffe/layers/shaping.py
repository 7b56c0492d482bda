"""Layers that join, cut, reorder or resize blobs without computing new values."""

from __future__ import annotations

import numpy as np

from qnb.frontends.caffe.graph import Graph
from qnb.frontends.caffe.layers.registry import axis_of, count, reads
from qnb.frontends.caffe.network import Layer, Shape

_ANY = (1, 10_000)


@reads("Dropout", "Split")
def same(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """What leaves values as they are outside of training; Split has several tops."""
    return bottoms * len(layer.tops)


@reads("Concat", bottoms=_ANY)
def concat(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Along one axis; the others must agree."""
    p = layer.param("concat_param")
    shapes = [graph.shapes[bottom] for bottom in bottoms]
    axis = axis_of(layer, p.concat_dim if p.HasField("concat_dim") else p.axis, len(shapes[0]))
    rest = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(rest) > 1 or len({len(shape) for shape in shapes}) > 1:
        listed = ", ".join("x".join(map(str, shape)) for shape in shapes)
        raise layer.fails(f"its inputs differ beside axis {axis}: {listed}", "see the layers that make them")
    if len(bottoms) == 1:
        return bottoms
    out = (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])
    return [graph.add(layer, "Concat", bottoms, out, axis=axis)]


@reads("Slice")
def cut(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Cut along one axis, at ``slice_point`` or into equal parts."""
    p = layer.param("slice_param")
    shape, parts = graph.shapes[bottoms[0]], len(layer.tops)
    axis = axis_of(layer, p.slice_dim if p.HasField("slice_dim") else p.axis, len(shape))
    size, points = shape[axis], list(p.slice_point)
    if points:
        if len(points) != parts - 1:
            raise layer.fails(f"{len(points)} slice_point for {parts} tops", "give one less than there are tops")
        lengths = [after - before for before, after in zip([0, *points], [*points, size], strict=True)]
    else:
        lengths = [size // parts] * parts
    if sum(lengths) != size or any(length < 1 for length in lengths):
        raise layer.fails(
            f"{size} can't be cut into {parts} parts that way ({points or 'equal parts'})", "see slice_point"
        )
    if parts == 1:
        return bottoms
    sizes = graph.constant(layer, "split", lengths, np.int64)
    shapes = [(*shape[:axis], length, *shape[axis + 1 :]) for length in lengths]
    return graph.add_many(layer, "Split", [bottoms[0], sizes], shapes, axis=axis)


@reads("Flatten")
def flatten(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Axes from ``axis`` to ``end_axis`` become one."""
    p = layer.param("flatten_param")
    shape = graph.shapes[bottoms[0]]
    first, last = (axis_of(layer, axis, len(shape)) for axis in (p.axis, p.end_axis))
    if last < first:
        raise layer.fails(f"axis {p.axis} comes behind end_axis {p.end_axis}", "see flatten_param")
    out = (*shape[:first], count(shape[first : last + 1]), *shape[last + 1 :])
    if first == 1 and last == len(shape) - 1 and len(shape) > 2:
        return [graph.add(layer, "Flatten", bottoms, out, axis=1)]
    return [graph.reshape(layer, bottoms[0], out)]


@reads("Reshape")
def reshape(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Other sizes for some axes: 0 keeps one, -1 is what is left."""
    p = layer.param("reshape_param")
    shape = graph.shapes[bottoms[0]]
    first = axis_of(layer, p.axis, len(shape), end=True)
    last = len(shape) if p.num_axes == -1 else first + p.num_axes
    wanted = list(p.shape.dim)
    if p.num_axes < -1 or last > len(shape) or wanted.count(-1) > 1 or any(size < -1 for size in wanted):
        raise layer.fails(
            f"dims {wanted}, axis {p.axis}, num_axes {p.num_axes} for {len(shape)} axes", "see its parameters"
        )
    sizes = []
    for place, size in enumerate(wanted, first):
        if size == 0 and place >= len(shape):
            raise layer.fails(f"dim 0 keeps a size that its input has not ({len(shape)} axes)", "see its dims")
        sizes.append(shape[place] if size == 0 else size)
    out = [*shape[:first], *sizes, *shape[last:]]
    if -1 in out:
        known = count(tuple(size for size in out if size != -1))
        out[out.index(-1)] = count(shape) // known if known else 0
    if count(tuple(out)) != count(shape):
        raise layer.fails(
            f"{'x'.join(map(str, shape))} can't become {'x'.join(map(str, out))}",
            "its dims were written for another input shape: use 0 or -1 for those that change",
        )
    return [graph.reshape(layer, bottoms[0], out)]


@reads("Permute")
def permute(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Axes in another order; those that are not named follow."""
    shape, order = graph.shapes[bottoms[0]], list(layer.param("permute_param").order)
    order += [axis for axis in range(len(shape)) if axis not in order]
    if sorted(order) != list(range(len(shape))):
        raise layer.fails(f"order {order} of {len(shape)} axes", "name each axis at most once")
    if order == list(range(len(shape))):
        return bottoms
    return [graph.add(layer, "Transpose", bottoms, [shape[axis] for axis in order], perm=order)]


@reads("Crop", bottoms=(2, 2))
def crop(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Cut the first blob to the sizes of the second, from ``axis`` on."""
    p = layer.param("crop_param")
    shape, other = (graph.shapes[bottom] for bottom in bottoms)
    axis = axis_of(layer, p.axis, len(shape))
    offsets = list(p.offset) or [0]
    axes = list(range(axis, len(shape)))
    if len(shape) != len(other) or len(offsets) not in (1, len(axes)):
        raise layer.fails(f"{len(offsets)} offsets for axes {axes} of {len(shape)} and {len(other)}", "see crop_param")
    starts = offsets * (len(axes) if len(offsets) == 1 else 1)
    ends = [start + other[place] for start, place in zip(starts, axes, strict=True)]
    if any(end > shape[place] for end, place in zip(ends, axes, strict=True)):
        raise layer.fails(
            f"{'x'.join(map(str, other))} at offset {starts} reaches out of {'x'.join(map(str, shape))}",
            "see offset, and the input shape that the network was made for",
        )
    out = (*shape[:axis], *other[axis:])
    if out == shape:
        return bottoms[:1]
    bounds = [
        graph.constant(layer, what, v, np.int64) for what, v in (("starts", starts), ("ends", ends), ("axes", axes))
    ]
    return [graph.add(layer, "Slice", [bottoms[0], *bounds], out)]


@reads("Tile")
def tile(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Copies behind each other along one axis."""
    p = layer.param("tile_param")
    shape = graph.shapes[bottoms[0]]
    axis = axis_of(layer, p.axis, len(shape))
    repeats = [p.tiles if place == axis else 1 for place in range(len(shape))]
    if p.tiles == 1:
        return bottoms
    out = [size * times for size, times in zip(shape, repeats, strict=True)]
    return [graph.add(layer, "Tile", [bottoms[0], graph.constant(layer, "repeats", repeats, np.int64)], out)]


@reads("ShuffleChannel")
def shuffle_channel(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """ShuffleNet's: the channels of the groups take turns."""
    group = layer.param("shuffle_channel_param").group
    shape = graph.shapes[bottoms[0]]
    if len(shape) < 2 or not group or shape[1] % group:
        raise layer.fails(f"{shape[1] if len(shape) > 1 else 0} channels don't go into {group} groups", "see group")
    parts = (shape[0], group, shape[1] // group, count(shape[2:]))
    turned = (parts[0], parts[2], parts[1], parts[3])
    split = graph.reshape(layer, bottoms[0], parts)
    return [graph.reshape(layer, graph.add(layer, "Transpose", [split], turned, perm=[0, 2, 1, 3]), shape)]


@reads("Interp")
def interp(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """DeepLab's: bilinear, with the corners aligned."""
    p = layer.param("interp_param")
    shape = _image(layer, graph, bottoms[0])
    if p.pad_beg or p.pad_end:
        raise layer.fails("pad_beg and pad_end are not read", "crop or pad the blob before")
    if p.zoom_factor < 1 or p.shrink_factor < 1:
        raise layer.fails("zoom_factor and shrink_factor are at least 1", "see interp_param")
    if p.height > 0 and p.width > 0:
        sizes = [p.height, p.width]
    else:
        sizes = [(size - 1) // p.shrink_factor + 1 for size in shape[2:]]
        sizes = [size + (size - 1) * (p.zoom_factor - 1) for size in sizes]
    attributes = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    return _resized(layer, graph, bottoms, (*shape[:2], *sizes), **attributes)


@reads("Upsample")
def upsample(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Each pixel repeated ``scale`` times in both directions."""
    scale = layer.param("upsample_param").scale
    shape = _image(layer, graph, bottoms[0])
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return _resized(layer, graph, bottoms, (*shape[:2], *(size * scale for size in shape[2:])), **attributes)


def _image(layer: Layer, graph: Graph, tensor: str) -> Shape:
    shape = graph.shapes[tensor]
    if len(shape) != 4:
        raise layer.fails(f"it takes images, but its input has {len(shape)} axes", "see the layer before it")
    return shape


def _resized(layer: Layer, graph: Graph, bottoms: list[str], out: Shape, **attributes: str) -> list[str]:
    if out == graph.shapes[bottoms[0]]:
        return bottoms
    sizes = graph.constant(layer, "sizes", out, np.int64)
    return [graph.add(layer, "Resize", [bottoms[0], "", "", sizes], out, **attributes)]
