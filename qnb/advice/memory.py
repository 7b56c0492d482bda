"""Rules on memory: what goes to DDR, what does not fit into the NPU's own memory, weights that are read for one sample."""

from __future__ import annotations

import math
from collections.abc import Iterator

from qnb.advice.rules import Finding, rule
from qnb.advice.subject import Subject, millions, size
from qnb.graph.facts import attribute

_SPILL_PERCENT = 5.0
_WEIGHT_BYTES = 1 << 20
_REUSE = 100


@rule(
    "QNB-P005", "warning",
    title="spill traffic",
    why="what does not fit into VTCM goes to DDR and comes back, at a fraction of the speed",
    threshold=f"spills and fills of {_SPILL_PERCENT:g} % or more of the planned DDR traffic, by the compiler's own "
    "summary; as the "
    "remedy, what the compiler plans at optimization 3 is asked for",
)  # fmt: skip
def spills(subject: Subject) -> Iterator[Finding]:
    """Spilled bytes, and what the compiler can do about it."""
    if subject.compiled is None or not subject.compiled.ddr:
        return
    ddr, harder = subject.compiled.ddr, subject.compiled.harder
    moved, total = _spilled(ddr), _total(ddr)
    if not moved or 100 * moved / total < _SPILL_PERCENT:
        return
    evidence = (
        f"{size(ddr.get('spill', 0))} spilled and {size(ddr.get('fill', 0))} filled in one inference, "
        f"{100 * moved / total:.3g} % of {size(total)} DDR traffic{_widest(subject)}"
    )
    gain, line = math.nan, "%qnn context model --optimization 3"
    remedy = "smaller activations early in the model (stride, fewer channels), a smaller batch, or fewer bits"
    if harder:
        saved = total - _total(harder)
        evidence += f"; at optimization 3: {size(_spilled(harder))} spilled and filled"
        if saved > 0:
            gain, remedy = 100 * saved / total, "compile with optimization 3"
        else:
            line = "%qnn calibrate model data" if subject.is_float else "%qnn context model"
    yield Finding(
        what="activations are spilled to DDR",
        evidence=evidence,
        remedy=remedy,
        line=line,
        gain_percent=gain,
        gain_of="the planned DDR traffic (compiler)" if gain == gain else "",
    )


def _spilled(ddr: object) -> int:
    return int(ddr.get("spill", 0) + ddr.get("fill", 0))  # type: ignore[attr-defined]


def _total(ddr: object) -> int:
    return int(ddr.get("read", 0) + ddr.get("write", 0))  # type: ignore[attr-defined]


def _widest(subject: Subject) -> str:
    network = subject.network
    if network is None or not network.layers:
        return ""
    name = max(network.producer, key=network.elements)
    node = network.producer[name]
    shape = "x".join(map(str, network.shape(name)))
    held = size(network.elements(name) * subject.bytes_each)
    return f"; the largest tensor is the output of {node.name} ({shape}, {held})"


_ROWS = ("Softmax", "LogSoftmax", "LayerNormalization", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")


@rule(
    "QNB-P006", "warning",
    title="an op without room in VTCM",
    why="an op that needs a whole row at once can't be cut along it: beyond half of VTCM it spills, and then does "
    "not compile",
    threshold="one row of a softmax, normalization or reduction takes a quarter of VTCM or more (a softmax over "
    "fp16 spills from a "
    "half on and fails at the whole; in 8 bits it fails at a quarter); an error where the compiler failed",
)  # fmt: skip
def no_room(subject: Subject) -> Iterator[Finding]:
    """Ops whose rows are too long for VTCM, and compilations that failed for it."""
    network, failed = subject.network, subject.compiled.error if subject.compiled else ""
    found = False
    room = (subject.vtcm_mb or 0) << 20
    for node in network.of_type(*_ROWS) if network is not None and room else ():
        assert network is not None
        row = _row_elements(subject, node) * subject.bytes_each
        if row < room / 4:
            continue
        found = True
        shape = "x".join(map(str, network.shape(node.input[0])))
        yield Finding(
            op=node.name,
            op_type=node.op_type,
            what="one row of it hardly fits into VTCM" if not failed else "it does not fit into VTCM",
            evidence=f"a row of {shape} takes {size(row)} at {8 * subject.bytes_each} bits, VTCM has {subject.vtcm_mb} MiB"
            + (f"; the compiler: {failed}" if failed else ""),
            remedy="make the row shorter (pool or split before it), or choose an SoC with more VTCM",
            line="%qnn context model --soc SM8650",
            severity="error" if failed else "warning",
        )
    if failed and not found:
        yield Finding(
            what="the compiler could not finish the graph",
            evidence=f"{failed}{_widest(subject)}",
            remedy="allow it more VTCM, make the largest tensors smaller, or cut the model in two",
            line="%qnn context model",
            severity="error",
        )


def _row_elements(subject: Subject, node: object) -> int:
    network = subject.network
    assert network is not None
    shape = network.shape(node.input[0])  # type: ignore[attr-defined]
    if not shape:
        return 0
    kind = node.op_type  # type: ignore[attr-defined]
    if kind.startswith("Reduce"):
        axes = network.array(node.input[1]) if len(node.input) > 1 else None  # type: ignore[attr-defined]
        return math.prod(shape[int(a)] for a in axes.reshape(-1)) if axes is not None else math.prod(shape)
    axis = int(attribute(node, "axis", -1))  # type: ignore[arg-type]
    return math.prod(shape[axis:]) if kind == "LayerNormalization" else shape[axis]


@rule(
    "QNB-P007", "info",
    title="batch 1, where throughput counts; or a larger batch, where latency does",
    why="a batch reads the weights once: four dense layers of 1024 (8 bits) were estimated at 141 k cycles for 1 "
    "sample and 154 k "
    "for 32; four 3x3 convolutions (64 channels, 28x28) at 82 k for 1 and 226 k for 8. One sample alone is ready "
    "soonest with "
    "batch 1",
    threshold=f"batch 1 and fewer than {_REUSE} MACs for each weight (said once); any batch above 1",
)  # fmt: skip
def batch(subject: Subject) -> Iterator[Finding]:
    """Whether another batch would suit."""
    network = subject.network
    if network is None or not network.layers:
        return
    inputs = [v.name for v in network.model.graph.input if not network.is_constant(v.name)]
    sizes = {network.shape(name)[0] for name in inputs if network.shape(name)}
    if len(sizes) != 1:
        return
    size_now = sizes.pop()
    weights = sum(row["weight_bytes"] for row in network.layers.values()) * subject.weight_bits // 32
    parameters = sum(row["parameters"] for row in network.layers.values())
    reuse = network.macs / parameters if parameters else math.inf
    if size_now > 1:
        yield Finding(
            what=f"batch {size_now}", evidence=f"{millions(network.macs)} MACs in one run, "
            f"{millions(network.macs / size_now)} a sample",
            remedy="for the shortest latency of one sample export with batch 1; for throughput leave it",
            line="%qnn export net.onnx --batch 1",
        )  # fmt: skip
    elif reuse < _REUSE and weights >= _WEIGHT_BYTES // 4:
        yield Finding(
            what="batch 1: each weight is read for one sample",
            evidence=f"{size(weights)} of weights for {millions(network.macs)} MACs: {reuse:.3g} MACs for each weight",
            remedy="where throughput counts and samples come together, export with a batch such as 8",
            line="%qnn export net.onnx --batch 8",
            gain_percent=100 * (1 - 1 / 8),
            gain_of="the weights' traffic for each sample (counted, batch 8)",
        )


@rule(
    "QNB-P008", "warning",
    title="a dense layer in float",
    why="it is bound by reading its weights: in fp16 four dense layers of 1024 were estimated at 278 k cycles, in "
    "w8a8 at 141 k",
    threshold=f"a dense layer with {_WEIGHT_BYTES >> 20} MiB of fp16 weights or 5 % of the model's MACs, in a model "
    "that runs in float; the "
    "whole model where it has convolutions (3x3, 64 channels, 28x28: 16.8 k cycles a layer in fp16, 2.4 k in w8a8)",
)  # fmt: skip
def float_weights(subject: Subject) -> Iterator[Finding]:
    """Dense layers, and models, that run in float."""
    network = subject.network
    if network is None or not subject.is_float:
        return
    heavy = 0
    for node in network.of_type("Gemm", "MatMul"):
        name = network.weight(node)
        weights = network.elements(name) * 2 if name else 0
        if weights < _WEIGHT_BYTES and not (weights and subject.mac_percent(node.name) >= 5):
            continue
        yield Finding(
            op=node.name,
            op_type=node.op_type,
            what=f"{size(weights)} of weights in float",
            evidence=f"{millions(subject.macs(node.name))} MACs read {size(weights)} of weights in fp16; in 8 bits "
            f"{size(weights / 2)}{subject.said_cycles(node.name)}",
            remedy="quantize it to 8 bits, its weights to 4 where the accuracy allows it",
            line="%qnn calibrate model data",
            gain_percent=50.0,
            gain_of="this layer's weight bytes (counted)",
        )
    for node in network.of_type("Conv"):
        heavy += subject.macs(node.name)
    if heavy:
        yield Finding(
            what="convolutions run in float",
            evidence=f"{millions(heavy)} MACs of convolutions, {100 * heavy / network.macs:.3g} % of the model's, in fp16",
            remedy="quantize the model: integers are what the NPU is made for",
            line="%qnn calibrate model data",
        )
