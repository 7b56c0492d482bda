"""Rules on convolutions: kinds, kernels and channel counts that cost more than they need to.

The limits come from the compiler's own estimate for Hexagon v73 and v81; the figures are in the docs of the step debug.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qnb.advice.network import Network
from qnb.advice.rules import Finding, rule
from qnb.advice.subject import Subject, millions
from qnb.graph.facts import attribute

if TYPE_CHECKING:
    import onnx

SEPARABLE_FROM = {"integer": 128, "float": 64}
"""Channels from which on a separable 3x3 convolution was estimated cheaper than a standard one at every size measured."""
LARGE = 7
BLOCK = 32
WASTE_PERCENT = 25.0
_MATTERS_PERCENT = 1.0


@dataclass(frozen=True)
class Convolution:
    """A 2-D convolution with a constant weight."""

    node: onnx.NodeProto
    inputs: int
    outputs: int
    kernel: tuple[int, int]
    dilations: tuple[int, int]
    group: int
    macs: int

    @property
    def depthwise(self) -> bool:
        """Whether each channel is filtered by itself."""
        return self.group > 1 and self.group == self.inputs

    @property
    def size(self) -> str:
        """Kernel as text."""
        return f"{self.kernel[0]}x{self.kernel[1]}"


def convolutions(network: Network) -> Iterator[Convolution]:
    """Give the 2-D convolutions of a model whose shapes are known."""
    for node in network.of_type("Conv"):
        shape = network.shape(node.input[1])
        row = network.layers.get(node.name)
        if len(shape) == 4 and row is not None:
            group = int(attribute(node, "group", 1))
            dilations = attribute(node, "dilations") or [1, 1]
            yield Convolution(
                node, shape[1] * group, shape[0], (shape[2], shape[3]), (dilations[0], dilations[1]), group, row["macs"]
            )


def _found(subject: Subject) -> Iterator[Convolution]:
    if subject.network is not None:
        yield from (c for c in convolutions(subject.network) if subject.matters(c.node.name, _MATTERS_PERCENT))


@rule(
    "QNB-P001", "info",
    title="a standard convolution where a depthwise-separable one would do",
    why="a depthwise convolution and a 1x1 convolution need a fraction of the MACs",
    threshold=f"a kernel of 3x3 or more, ungrouped, from {SEPARABLE_FROM['integer']} channels in and out on "
    f"({SEPARABLE_FROM['float']} in fp16): with fewer, the separable pair was estimated to take longer than the "
    "standard one",
)  # fmt: skip
def separable(subject: Subject) -> Iterator[Finding]:
    """Convolutions that could be separable, with the arithmetic."""
    least = SEPARABLE_FROM["float" if subject.is_float else "integer"]
    for c in _found(subject):
        if c.group != 1 or min(c.kernel) < 3 or min(c.inputs, c.outputs) < least:
            continue
        taps = math.prod(c.kernel)
        places = c.macs // (taps * c.inputs * c.outputs)
        depthwise, pointwise = places * c.inputs * taps, places * c.inputs * c.outputs
        left = depthwise + pointwise
        share = subject.mac_percent(c.node.name)
        yield Finding(
            op=c.node.name,
            op_type="Conv",
            what=f"a standard {c.size} convolution, {c.inputs} to {c.outputs} channels",
            evidence=f"{millions(c.macs)} MACs ({share:.3g} % of the model's); separable {millions(depthwise)} + "
            f"{millions(pointwise)} = {millions(left)} MACs, {c.macs / left:.3g} times "
            f"fewer{subject.said_cycles(c.node.name)}",
            remedy="replace it by a depthwise and a 1x1 convolution, and train again: the function is another one",
            line="%qnn profile model --backends htp",
            gain_percent=share * (1 - left / c.macs),
            gain_of="the model's MACs (counted)",
        )


@rule(
    "QNB-P002", "warning",
    title="a large kernel",
    why="the estimate rises far faster than the MACs: 64 channels at 28x28 in 8 bits take 2.4 k cycles with 3x3, "
    "17.5 k with 7x7 and 81 k with 9x9",
    threshold=f"a kernel of {LARGE}x{LARGE} or more (depthwise: 9x9, where the step is) that 3x3 kernels in a row do "
    "with fewer MACs, and that does "
    "not step from patch to patch; an average pool of "
    "11x11 or more in fp16 (9x9 costs nothing, 11x11 was estimated at 42 M cycles)",
)  # fmt: skip
def large_kernels(subject: Subject) -> Iterator[Finding]:
    """Kernels that the NPU computes dearly, with the stack of 3x3 that sees as far."""
    for c in _found(subject):
        if min(c.kernel) < (9 if c.depthwise else LARGE) or max(c.dilations) > 1 or max(c.inputs, c.outputs) < BLOCK:
            continue
        layers = (max(c.kernel) - 1) // 2
        left = 9 * (1 + (layers - 1) * (1 if c.depthwise else c.outputs / c.inputs)) / math.prod(c.kernel)
        if left >= 1 or min(attribute(c.node, "strides") or [1]) >= min(
            c.kernel
        ):  # a stem, or patches that do not overlap
            continue
        share = subject.mac_percent(c.node.name)
        yield Finding(
            op=c.node.name,
            op_type="Conv",
            what=f"a {'depthwise ' * c.depthwise}{c.size} convolution",
            evidence=f"{millions(c.macs)} MACs ({share:.3g} % of the model's); {layers} of 3x3 in a row see as far with "
            f"{100 * left:.3g} % of them{subject.said_cycles(c.node.name)}",
            remedy=f"{layers} convolutions of 3x3 in a row, or fewer where the model does as well; train again",
            line="%qnn profile model --backends htp",
            gain_percent=share * (1 - left),
            gain_of="the model's MACs (counted)",
        )
    network = subject.network
    for node in network.of_type("AveragePool") if network is not None and subject.is_float else ():
        kernel = attribute(node, "kernel_shape") or [1]
        if min(kernel) >= 11 and network is not None and tuple(kernel) != network.shape(node.input[0])[2:]:
            yield Finding(
                op=node.name,
                op_type="AveragePool",
                what=f"an average pool of {'x'.join(map(str, kernel))} in float",
                evidence=f"{math.prod(kernel) * network.elements(node.output[0]) / 1e6:,.3g} M additions"
                + subject.said_cycles(node.name),
                remedy="quantize the model: in integers this pool was estimated to cost a hundredth; or pool in two steps",
                line="%qnn calibrate model data",
            )


@rule(
    "QNB-P003", "warning",
    title="a dilated convolution in 8 bits",
    why="a network of 3x3 with dilation 2 was estimated at 1.8 times the cycles (v73; 1.2 on v81) of the one with "
    "5x5 kernels, "
    "which see as far and hold it as a special case",
    threshold="3x3 with dilation 2, 8-bit activations (in fp16 the two cost the same); larger dilations: named, without a "
    "form that is cheaper and computes the same",
)  # fmt: skip
def dilated(subject: Subject) -> Iterator[Finding]:
    """Dilated convolutions; for dilation 2 the dense form is exact."""
    if subject.is_float or subject.bytes_each > 1:
        return
    for c in _found(subject):
        if max(c.dilations) == 1 or max(c.kernel) < 3:
            continue
        span = tuple((k - 1) * d + 1 for k, d in zip(c.kernel, c.dilations, strict=True))
        exact = max(span) <= 5
        yield Finding(
            op=c.node.name,
            op_type="Conv",
            what=f"{c.size} with dilation {max(c.dilations)}",
            evidence=f"{millions(c.macs)} MACs ({subject.mac_percent(c.node.name):.3g} % of the model's) over a span of "
            f"{span[0]}x{span[1]}{subject.said_cycles(c.node.name)}",
            remedy=f"write it as a {span[0]}x{span[1]} convolution with zeros between the weights: it computes the same"
            if exact
            else "see whether convolutions without dilation in a row do as well; train again",
            line="%qnn profile model --backends htp",
            severity="warning" if exact else "info",
        )


@rule(
    "QNB-P004", "info",
    title="channel counts that are filled up",
    why=f"the NPU works on blocks of {BLOCK} channels: on v81, 33 channels were estimated to cost what 64 do, and 97 what "
    "128 do; on v73 the steps are at 65 (2.3 times the cycles of 64) and 97, and 33 cost less than 32",
    threshold=f"at least {WASTE_PERCENT:g} % of the products of a convolution are of filled-up channels; odd counts "
    "as such "
    "cost nothing (31 as 32)",
)  # fmt: skip
def filled_channels(subject: Subject) -> Iterator[Finding]:
    """Convolutions whose channels just miss a multiple of the block."""
    for c in _found(subject):
        if c.group != 1 or min(c.inputs, c.outputs) < BLOCK or math.prod(c.kernel) == 1:
            continue
        filled = _filled(c.inputs) * _filled(c.outputs)
        waste = 100 * (1 - c.inputs * c.outputs / filled)
        if waste < WASTE_PERCENT:
            continue
        share = subject.mac_percent(c.node.name)
        yield Finding(
            op=c.node.name,
            op_type="Conv",
            what=f"{c.inputs} to {c.outputs} channels, computed as {_filled(c.inputs)} to {_filled(c.outputs)}",
            evidence=f"{waste:.3g} % of its products are of filled-up channels; {share:.3g} % of the model's MACs"
            + subject.said_cycles(c.node.name),
            remedy=f"take a multiple of {BLOCK}: {_floored(c.inputs)} to {_floored(c.outputs)} for fewer cycles, "
            f"{_filled(c.inputs)} to {_filled(c.outputs)} for more channels at little or no cost; train again",
            line="%qnn profile model --backends htp",
            gain_percent=share * (1 - _floored(c.inputs) * _floored(c.outputs) / (c.inputs * c.outputs)),
            gain_of="the model's MACs (counted), with the lower counts",
        )


def _filled(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK


def _floored(channels: int) -> int:
    return max(BLOCK, channels // BLOCK * BLOCK)
