"""Rules on ops that move data or wait between real work: layouts, unfused ops, channel shuffles, explicit padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qnb.advice.network import CONVOLUTIONS, Network
from qnb.advice.npu import CONVERSIONS, NpuGraph, NpuOp
from qnb.advice.rules import Finding, rule
from qnb.advice.subject import Subject, size
from qnb.graph.facts import attribute

if TYPE_CHECKING:
    import onnx

_SPATIAL = (
    "Conv2d", "DepthWiseConv2d", "TransposeConv2d", "PoolMax2d", "PoolAvg2d", "Batchnorm", "Resize",
    "InstanceNorm", "Prelu",
    "Relu", "ReluMinMax", "DepthToSpace", "SpaceToDepth", "GridSample",
)  # fmt: skip
"""QNN ops that want channels last, or do not mind."""
_SLOW = {"Elu": ("2.1", "2.0"), "Softplus": ("2.1", ""), "Mish": ("2.4", "3.8")}
"""Times the cycles of ReLU, in integers and in fp16; empty where there it costs nothing."""
_EDGE_BYTES, _INNER_BYTES = 64 << 10, 4 << 10


@rule(
    "QNB-G004", "warning",
    title="layout transposes",
    why="convolutions want channels last; an op that needs them elsewhere has the tensor turned before it and back "
    "after it",
    threshold="a Transpose inside the NPU's own graph that no op of the model asks for, from 4 KiB on; at its edge "
    "from 64 KiB on "
    "(info)",
)  # fmt: skip
def layout(subject: Subject) -> Iterator[Finding]:
    """Transposes that the runtime put in, by the op that needs them."""
    for graph in subject.npu:
        by_cause: dict[str, list[NpuOp]] = {}
        edge: list[NpuOp] = []
        for op in graph.ops:
            if op.type != "Transpose" or not op.outputs or subject.type_of(subject.origin(op.name)) == "Transpose":
                continue
            if op.name in graph.at_edge:
                edge.append(op)
            else:
                by_cause.setdefault(_cause(subject, graph, op), []).append(op)
        for cause, ops in by_cause.items():
            if _moved(ops) < _INNER_BYTES:
                continue
            kind = subject.type_of(cause)
            yield Finding(
                op=cause,
                op_type=kind,
                what=f"{len(ops)} transpose{'s' * (len(ops) > 1)} put in for its layout",
                evidence=f"they read and write {size(_moved(ops))}{_cycles(subject, ops)}",
                remedy=_LAYOUT.get(kind, "let it work along the channels, or where the data are not images any more"),
                line="%qnn convert model",
                **_gain(subject, ops),  # type: ignore[arg-type]
            )
        if _moved(edge) >= _EDGE_BYTES:
            yield Finding(
                what=f"{len(edge)} transpose{'s' * (len(edge) > 1)} at the graph's inputs and outputs",
                evidence=f"they read and write {size(_moved(edge))}{_cycles(subject, edge)}",
                remedy="let the model take images with channels last, and begin with a Transpose to channels first: "
                "the two "
                "cancel out (estimated at 14 % fewer cycles in 8 bits, 37 % in fp16, for two convolutions on 224x224x3)",
                line="%qnn convert model",
                severity="info",
                **_gain(subject, edge),  # type: ignore[arg-type]
            )


_LAYOUT = {
    "Softmax": "take the softmax over the channels (axis=1), the axis that is last on the NPU",
    "LogSoftmax": "take it over the channels (axis=1), the axis that is last on the NPU",
    "LayerNormalization": "normalize over the channels, the axis that is last on the NPU",
    "Reshape": "move it to where the tensor is small, or pool before it",
    "Flatten": "pool before it (GlobalAveragePool), so that there is nothing to turn",
    "MatMul": "a 1x1 Conv computes the same on images",
    "Gemm": "a 1x1 Conv computes the same on images",
}


def _cause(subject: Subject, graph: NpuGraph, op: NpuOp) -> str:
    near = [o for o in (*graph.after(op), *graph.before(op)) if o.type not in (*CONVERSIONS, "Transpose")]
    picky = [o for o in near if o.type not in _SPATIAL] or near
    return next((name for o in picky if (name := subject.origin(o.name))), "")


def _moved(ops: list[NpuOp]) -> int:
    return sum(2 * tensor.nbytes for op in ops for tensor in op.outputs)


def _plain(name: str) -> str:
    return name.rpartition("_token_")[0] or name


def _known(subject: Subject, ops: list[NpuOp]) -> float:
    # The profile sums up ops that differ by their token alone, so only names of their own can be told apart.
    return sum(subject.cycles.get(op.name, 0.0) for op in ops if _plain(op.name) != "Transpose")


def _cycles(subject: Subject, ops: list[NpuOp]) -> str:
    known = _known(subject, ops)
    return f"; {known:,.0f} cycles ({subject.cycles_source})" if known else ""


def _gain(subject: Subject, ops: list[NpuOp]) -> dict[str, object]:
    known = _known(subject, ops)
    if not known or not subject.total_cycles:
        return {}
    return {
        "gain_percent": 100 * known / subject.total_cycles,
        "gain_of": f"the graph's cycles ({subject.cycles_source})",
    }


@rule(
    "QNB-G005", "info",
    title="a batch normalization that is not fused",
    why="behind a convolution it costs nothing, since it disappears in its weights; else it reads and writes its tensor",
    threshold="any BatchNormalization that is left after the export, or a Mul and Add of one value for each channel right "
    "after a convolution (estimated at 1 % to 4 % more for four of them behind ReLUs, 75 % in w8a16 for Mul and Add)",
)  # fmt: skip
def unfused_norm(subject: Subject) -> Iterator[Finding]:
    """Batch norms and affine chains that stayed."""
    network = subject.network
    if network is None:
        return
    for node in (*network.of_type("BatchNormalization"), *_affine(network)):
        moved = 2 * network.elements(node.output[0]) * subject.bytes_each
        before = network.producer.get(node.input[0])
        if before is None:
            why = "it reads the model's input"
        elif before.op_type not in (*CONVOLUTIONS, "Gemm"):
            why = f"it follows {before.op_type} {before.name}"
        elif network.only_reader(node.input[0]) is None:
            why = f"the output of {before.name} is read by others as well"
        else:
            why = f"it follows {before.op_type} {before.name}, and was not folded into it"
        yield Finding(
            op=node.name,
            op_type=node.op_type,
            what="a normalization stands by itself",
            evidence=f"{why}; it reads and writes {size(moved)}{subject.said_cycles(node.name)}",
            remedy="put it right behind a convolution that nothing else reads, before the activation: there it is folded",
            line="%qnn export net.onnx",
            gain_percent=subject.own_percent(node.name),
            gain_of=f"the graph's cycles ({subject.cycles_source})",
        )


def _affine(network: Network) -> Iterator[onnx.NodeProto]:
    for node in network.of_type("Mul"):
        before = network.producer.get(node.input[0])
        if before is None or before.op_type not in CONVOLUTIONS or len(network.shape(node.output[0])) != 4:
            continue
        shape = network.shape(node.input[1])
        if network.is_constant(node.input[1]) and len(shape) >= 3 and shape[-2:] == (1, 1) and shape[-3] > 1:
            yield node


@rule(
    "QNB-G006", "info",
    title="an activation that is not fused",
    why="a ReLU that alone reads a convolution disappears in it; else both tensors are kept",
    threshold="a ReLU, Clip or PReLU whose input is made by a convolution or dense op and is also read by another "
    "op, or is an "
    "output",
)  # fmt: skip
def unfused_activation(subject: Subject) -> Iterator[Finding]:
    """Activations that can't disappear in the op before them."""
    network = subject.network
    if network is None:
        return
    for node in network.of_type("Relu", "Clip", "PRelu", "LeakyRelu"):
        before = network.producer.get(node.input[0])
        if (
            before is None
            or before.op_type not in (*CONVOLUTIONS, "Gemm")
            or network.only_reader(node.input[0]) is not None
        ):
            continue
        others = [r.name for r in network.readers[node.input[0]] if r.name != node.name]
        also = ", ".join(others) or "the model's outputs"
        kept = subject.bytes_each * network.elements(node.input[0])
        yield Finding(
            op=node.name,
            op_type=node.op_type,
            what=f"it can't be fused into {before.name}",
            evidence=f"{also} read{'s' * (len(others) == 1)} the output of {before.name} as well, so {size(kept)} "
            f"stay beside the activation's{subject.said_cycles(node.name)}",
            remedy="let the others read what comes after the activation, if the model does as well; train again",
            line="%qnn profile model --backends htp",
            gain_percent=subject.own_percent(node.name),
            gain_of=f"the graph's cycles ({subject.cycles_source})",
        )


@rule(
    "QNB-P010", "warning",
    title="an activation that the NPU computes slowly",
    why="four convolutions (64 channels, 56x56, 8 bits) with Elu or Softplus were estimated at 2.1 times the cycles "
    "of those with "
    "ReLU, with Mish at 2.4; HardSwish, SiLU and GELU at 1.04. In 16 bits SiLU costs 1.8 times, HardSwish 1.1",
    threshold="Elu and Mish; Softplus in integers; SiLU written as x · sigmoid(x) with 16-bit activations",
)  # fmt: skip
def slow_activations(subject: Subject) -> Iterator[Finding]:
    """Activations with a cheaper relative."""
    network = subject.network
    if network is None:
        return
    for node in network.of_type(*_SLOW):
        if node.op_type == "Softplus" and _only_part(network, node):
            continue
        if times := _SLOW[node.op_type][subject.is_float]:
            yield _slow(subject, node, times, "Relu or HardSwish")
    for node in network.of_type("Tanh"):
        before = network.producer.get(node.input[0])
        if before is not None and before.op_type == "Softplus":  # Mish, written out
            yield _slow(subject, node, _SLOW["Mish"][subject.is_float], "HardSwish")
    if subject.bytes_each == 2 and not subject.is_float:
        for node in network.of_type("Sigmoid"):
            if any(r.op_type == "Mul" and node.input[0] in r.input for r in network.readers.get(node.output[0], [])):
                yield _slow(subject, node, "1.8", "HardSwish")


def _only_part(network: Network, node: onnx.NodeProto) -> bool:
    return any(reader.op_type == "Tanh" for reader in network.readers.get(node.output[0], []))


def _slow(subject: Subject, node: onnx.NodeProto, times: str, instead: str) -> Finding:
    assert subject.network is not None
    elements = subject.network.elements(node.output[0])
    return Finding(
        op=node.name,
        op_type=node.op_type,
        what="a slow activation",
        evidence=f"{elements:,} values; estimated at {times} times the cycles of ReLU for convolutions with it"
        + subject.said_cycles(node.name),
        remedy=f"train with {instead} in its place",
        line="%qnn profile model --backends htp",
        source="estimate",
    )


@rule(
    "QNB-P011", "warning",
    title="a channel shuffle",
    why="four shuffles among five 3x3 convolutions (64 channels, 56x56) took the estimate from 194 k to 764 k "
    "cycles on v73 and "
    "from 135 k to 6.7 M on v81; a 1x1 convolution that does the same, to 205 k and 141 k",
    threshold="Reshape, Transpose and Reshape that only reorder channels, in integers (in fp16 they cost nothing)",
)  # fmt: skip
def shuffles(subject: Subject) -> Iterator[Finding]:
    """Reorderings of channels that a convolution does for less."""
    network = subject.network
    for node in network.of_type("Transpose") if network is not None and not subject.is_float else ():
        assert network is not None
        before = network.producer.get(node.input[0])
        after = network.only_reader(node.output[0])
        if before is None or before.op_type != "Reshape" or after is None or after.op_type != "Reshape":
            continue
        first, last, inner = (
            network.shape(before.input[0]),
            network.shape(after.output[0]),
            network.shape(node.input[0]),
        )
        perm = attribute(node, "perm") or []
        if (
            len(first) == 4
            and first == last
            and len(inner) in (4, 5)
            and perm[:3] == [0, 2, 1]
            and inner[1] * inner[2] == first[1]
        ):
            yield Finding(
                op=node.name,
                op_type="Transpose",
                what=f"a shuffle of {first[1]} channels in {inner[1]} groups",
                evidence=f"it moves {size(2 * network.elements(node.output[0]) * subject.bytes_each)}"
                + subject.said_cycles(node.name),
                remedy="a 1x1 Conv whose weight is the permutation (one 1 a row) computes the same",
                line="%qnn profile model --backends htp",
                gain_percent=subject.own_percent(node.name),
                gain_of=f"the graph's cycles ({subject.cycles_source})",
            )


@rule(
    "QNB-P012", "warning",
    title="padding in an op of its own",
    why="a convolution pads for nothing; four Pads before convolutions (64 channels, 56x56) were estimated at 1.8 "
    "times the "
    "cycles on v73, 2.7 on v81, in 8 bits",
    threshold="a Pad with zeros whose only reader is a convolution without dilation; integers (in fp16 the compiler "
    "folds it)",
)  # fmt: skip
def padding(subject: Subject) -> Iterator[Finding]:
    """Pads that belong into the convolution."""
    network = subject.network
    for node in network.of_type("Pad") if network is not None and not subject.is_float else ():
        assert network is not None
        after = network.only_reader(node.output[0])
        mode = attribute(node, "mode", "constant")
        value = network.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if after is None or after.op_type != "Conv" or mode != "constant" or (value is not None and value.any()):
            continue
        yield Finding(
            op=node.name,
            op_type="Pad",
            what=f"zeros are put around the input of {after.name} by an op of its own",
            evidence="it writes "
            f"{size(network.elements(node.output[0]) * subject.bytes_each)}{subject.said_cycles(node.name)}",
            remedy=f"give {after.name} the padding (pads=…)",
            line="%qnn export net.onnx",
            gain_percent=subject.own_percent(node.name),
            gain_of=f"the graph's cycles ({subject.cycles_source})",
        )
