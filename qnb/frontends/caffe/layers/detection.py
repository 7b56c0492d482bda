"""SSD's PriorBox, which depends on shapes alone; and what of detectors QNN can't take."""

from __future__ import annotations

import itertools
import math

import numpy as np

from qnb.frontends.caffe.graph import Graph
from qnb.frontends.caffe.layers.registry import reads
from qnb.frontends.caffe.network import Layer

_MAX_BOXES = 1_000_000  # SSD512 has 24 564
_SAME = 1e-6  # SSD takes aspect ratios that are closer for one


@reads("PriorBox", bottoms=(2, 2))
def prior_box(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """The boxes that detections are offsets from, and their variances: 1 x 2 x (4 for each box), a constant."""
    p = layer.param("prior_box_param")
    feature, image = (graph.shapes[bottom] for bottom in bottoms)
    if len(feature) != 4 or len(image) != 4:
        raise layer.fails("it takes a feature map and the image", "see its inputs")
    height, width = feature[2:]
    image_height, image_width = (p.img_h or p.img_size or image[2], p.img_w or p.img_size or image[3])
    step_h = p.step_h or p.step or image_height / height
    step_w = p.step_w or p.step or image_width / width
    sizes = np.array(_sizes(layer), np.float64)
    if height * width * len(sizes) > _MAX_BOXES:
        raise layer.fails(f"{height * width * len(sizes):,} boxes", "see the network's input shape")
    y, x = ((np.arange(n) + p.offset) * step for n, step in ((height, step_h), (width, step_w)))
    boxes = np.empty((height, width, len(sizes), 4))
    for axis, (centre, size, whole) in enumerate(
        ((x[None, :, None], sizes[:, 0], image_width), (y[:, None, None], sizes[:, 1], image_height))
    ):
        boxes[..., axis] = (centre - size / 2) / whole
        boxes[..., axis + 2] = (centre + size / 2) / whole
    if p.clip:
        boxes = boxes.clip(0, 1)
    variance = list(p.variance) or [0.1]
    if len(variance) not in (1, 4) or min(variance) <= 0:
        raise layer.fails(f"variance {variance}", "give one, or four, above 0")
    spread = np.broadcast_to(np.resize(variance, 4), boxes.shape)
    values = np.stack([boxes.ravel(), spread.ravel()])[None]
    name = graph.constant(layer, "boxes", values)
    graph.shapes[name] = values.shape
    return [name]


def _sizes(layer: Layer) -> list[tuple[float, float]]:
    """Give width and height of the boxes at each place, in SSD's order."""
    p = layer.param("prior_box_param")
    smallest, largest = list(p.min_size), list(p.max_size)
    if not smallest or min(smallest) <= 0 or (largest and len(largest) != len(smallest)):
        raise layer.fails("it needs a min_size above 0, and as many max_size or none", "see prior_box_param")
    ratios = [1.0]
    for ratio in p.aspect_ratio:
        if not ratio > 0:
            raise layer.fails(f"aspect_ratio {ratio:g}", "give one above 0")
        if all(abs(ratio - known) >= _SAME for known in ratios):
            ratios += [ratio, 1 / ratio] if p.flip else [ratio]
    boxes = []
    for small, large in itertools.zip_longest(smallest, largest):
        boxes.append((small, small))
        if large is not None:
            if large <= small:
                raise layer.fails(f"max_size {large:g} is not above min_size {small:g}", "see prior_box_param")
            boxes.append((math.sqrt(small * large),) * 2)
        boxes += [(small * math.sqrt(r), small / math.sqrt(r)) for r in ratios if abs(r - 1) >= _SAME]
    return boxes


@reads("DetectionOutput", bottoms=(1, 4))
def detection_output(layer: Layer, graph: Graph, bottoms: list[str]) -> list[str]:
    """Refused: it sorts boxes, and how many it gives depends on the values."""
    fixed = graph.constant_tensors()
    names = [name for name, tensor in zip(layer.bottoms, bottoms, strict=True) if tensor not in fixed]
    raise layer.fails(
        "it decodes and sorts boxes, and how many it gives depends on the image: QNN takes no such op",
        f"end the network before it, and do that part in Python: output_names={names!r} "
        "(the prior boxes: qnb.frontends.caffe.constant_blobs)",
    )
