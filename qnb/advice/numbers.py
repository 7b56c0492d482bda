"""Rules on values: activations, weights and ops whose values do not sit well on the grid that they have."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qnb.advice.network import CONVOLUTIONS
from qnb.advice.rules import Finding, rule
from qnb.advice.subject import Subject
from qnb.graph.facts import attribute

_LOBES = {"HardSwish": 0.375, "Gelu": 0.17, "Mish": 0.309, "Elu": 1.0, "Selu": 1.758}
"""How deep an activation's negative part reaches: found on its curve."""
_SILU_LOBE = 0.278
_CODES = 8
_BAD_DB = 30.0
_DISPARITY = 8.0
_SPREAD = 32.0


@rule(
    "QNB-A001", "warning",
    title="an activation that quantizes badly",
    why="HardSwish, SiLU, GELU and their like carry much of their meaning in a shallow negative part, which a grid "
    "stretched by "
    "large positive values rounds away",
    threshold=f"8 bits, and the negative part is less than {_CODES} codes deep (computed from its scale); or, where "
    "a check is given, "
    f"any activation that its grid holds with less than {_BAD_DB:g} dB",
)  # fmt: skip
def bad_activations(subject: Subject) -> Iterator[Finding]:
    """Activations on grids too coarse for them."""
    said: set[str] = set()
    table = subject.tensors
    if table is not None and len(table):
        rows = table[(table["kind"] == "activation") & (table["sqnr_db"] < _BAD_DB)]
        for row in rows.sort_values("sqnr_db").to_dict("records"):
            said.add(str(row["tensor"]))
            maker = _maker(subject, str(row["tensor"])) or str(row["layer"])
            yield _bad(
                subject, str(row["tensor"]), maker,
                f"the grid alone leaves it {row['sqnr_db']:.1f} dB ({row['bits']:.0f} bits; 99.9 % of its values take "
                f"{row['core_percent']:.3g} % of the grid)",
            )  # fmt: skip
    if subject.encodings is None or subject.network is None:
        return
    by_tensor = {str(r["tensor"]): r for r in subject.encodings.to_dict("records")}
    for op, tensor, depth in _lobed(subject):
        grid = by_tensor.get(tensor)
        if grid is None or tensor in said or int(grid["bits"]) > 8:
            continue
        codes = depth / float(grid["scale"])
        if codes < _CODES:
            yield _bad(
                subject, tensor, op,
                f"its negative part, {depth:g} deep, has {codes:.2g} of 256 codes (scale {float(grid['scale']):.3g})",
            )  # fmt: skip


def _lobed(subject: Subject) -> Iterator[tuple[str, str, float]]:
    network = subject.network
    assert network is not None
    for node in network.of_type(*_LOBES):
        yield node.name, node.output[0], _LOBES[node.op_type]
    for node in network.of_type("Mul"):
        for gate, value in ((0, 1), (1, 0)):
            before = network.producer.get(node.input[gate])
            if (
                before is not None
                and before.op_type in ("Sigmoid", "HardSigmoid")
                and before.input[0] == node.input[value]
            ):
                yield node.name, node.output[0], _SILU_LOBE if before.op_type == "Sigmoid" else _LOBES["HardSwish"]
                break


def _maker(subject: Subject, tensor: str) -> str:
    node = subject.network.producer.get(tensor) if subject.network else None
    return node.name if node is not None else ""


def _bad(subject: Subject, tensor: str, op: str, evidence: str) -> Finding:
    return Finding(
        op=op,
        op_type=subject.type_of(op),
        what=f"{tensor} is rounded coarsely",
        evidence=evidence,
        remedy="16 bits for its activation (or for all), ranges that clip what is rare, or ReLU in its place",
        line="%qnn search model data --target-sqnr 30",
    )


@rule(
    "QNB-A002", "warning",
    title="per-tensor weights with a wide channel spread",
    why="one grid for all channels is as coarse as the widest channel needs, and the narrow ones lose their bits",
    threshold=f"one scale for a weight whose widest channel is {_DISPARITY:g} times the median one, or whose 95th "
    "percentile of widths is "
    f"{_SPREAD:g} times the 5th (the limits of the check's QNB-Q008)",
)  # fmt: skip
def uneven_weights(subject: Subject) -> Iterator[Finding]:
    """Weights on one grid that would need several."""
    network = subject.network
    if network is None or subject.encodings is None:
        return
    grids = dict(zip(subject.encodings["tensor"], subject.encodings["channels"].astype(int), strict=True))
    for node in network.of_type(*CONVOLUTIONS, "Gemm", "MatMul"):
        name = network.weight(node)
        value = network.array(name) if name else None
        if value is None or value.ndim < 2 or grids.get(name, 0) != 1 or subject.bits.get(name, 32) > 8:
            continue
        axis = _channel_axis(node.op_type, bool(attribute(node, "transB", 0)), value.ndim)
        widths = np.abs(np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)).max(axis=1)
        live = widths[widths > 0]
        if live.size < 2:
            continue
        ratio, spread = live.max() / np.median(live), np.quantile(live, 0.95) / np.quantile(live, 0.05)
        if ratio < _DISPARITY and spread < _SPREAD:
            continue
        narrow = float(np.quantile(live, 0.05))
        codes = 127 * narrow / float(live.max())
        yield Finding(
            op=node.name,
            op_type=node.op_type,
            what=f"{name} has one scale for {value.shape[axis]} channels of very different widths",
            evidence=f"the widest channel is {ratio:.3g} times the median one; the narrowest twentieth has "
            f"{codes:.2g} of 127 codes or fewer",
            remedy="a scale for each channel",
            line="%qnn calibrate model data --per-channel",
        )


def _channel_axis(op_type: str, transposed: bool, rank: int) -> int:
    if op_type == "Conv":
        return 0
    if op_type == "ConvTranspose":
        return 1
    return 0 if op_type == "Gemm" and transposed else rank - 1


@rule(
    "QNB-A003", "warning",
    title="softmax or layer normalization in 8 bits",
    why="a softmax over many values gives small ones, and all below 1/512 become zero; a normalization squares its values",
    threshold="a LayerNormalization with an 8-bit input; a softmax in 8 bits over more than 256 values (their mean "
    "is below one code)",
)  # fmt: skip
def narrow_norms(subject: Subject) -> Iterator[Finding]:
    """Ops that want 16 bits."""
    network = subject.network
    if network is None or subject.encodings is None:
        return
    for node in network.of_type("LayerNormalization", "InstanceNormalization", "GroupNormalization"):
        if subject.bits.get(node.input[0], 32) <= 8:
            yield _wider(
                subject, node.name, node.input[0], f"its input {node.input[0]} has {subject.bits[node.input[0]]} bits"
            )
    for node in network.of_type("Softmax"):
        length = network.shape(node.input[0])[int(attribute(node, "axis", -1))] if network.shape(node.input[0]) else 0
        if length > 256 and subject.bits.get(node.output[0], 32) <= 8:
            evidence = (
                f"{length} values that add up to 1 on a grid of 256 codes: their mean is {256 / length:.2g} of a code"
            )
            yield _wider(subject, node.name, node.output[0], evidence)


def _wider(subject: Subject, op: str, tensor: str, evidence: str) -> Finding:
    return Finding(
        op=op,
        op_type=subject.type_of(op),
        what="8 bits are few for it",
        evidence=evidence,
        remedy=f"16 bits for {tensor}, or for all activations",
        line="%qnn calibrate model data --precision w8a16",
    )
