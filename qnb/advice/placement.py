"""Rules on what runs where: ops that the NPU refuses, shapes that are open, parts of the graph that leave its integers."""

from __future__ import annotations

from collections.abc import Iterator

from qnb.advice.forms import nearest
from qnb.advice.network import CONVOLUTIONS, Network
from qnb.advice.npu import CONVERSIONS, NpuGraph, NpuOp
from qnb.advice.rules import Finding, rule
from qnb.advice.subject import Subject, millions, size
from qnb.values import reason_of

_BIAS_BITS = 32
_SHORT_ISLAND = 2


@rule(
    "QNB-G001", "error",
    title="an op that the NPU does not take",
    why="it runs on the host's CPU, if at all: the graph is cut, and its tensors go to and fro",
    threshold="the runtime refuses the op when it is asked (as `qnb.convert` asks)",
)  # fmt: skip
def off_the_npu(subject: Subject) -> Iterator[Finding]:
    """Ops that are refused, each with the nearest form that is taken."""
    table = subject.placement
    if table is None or not (table["htp"] == "no").any():
        return
    rows = table[table["htp"] == "no"].to_dict("records")
    reasons = {_htp_reason(str(row["reason"])) for row in rows}
    if len(rows) == len(table) and len(reasons) == 1 and "fp16" in next(iter(reasons)):
        yield Finding(
            what="no op runs on this NPU in float",
            evidence=f"all {len(rows)} ops: {next(iter(reasons))}",
            remedy="quantize the model, or choose an SoC that takes fp16",
            line="%qnn calibrate model data",
        )
        return
    for row in rows:
        reason = _htp_reason(str(row["reason"]))
        form = nearest(str(row["op_type"]), reason)
        crossing = _crossing(subject, str(row["op"]))
        if form is None:
            remedy = "leave it out of the model, and compute it before or after in Python"
        else:
            remedy = f"write it as {form.instead}" + ("" if form.exact else " (nearly the same, not exactly)")
        yield Finding(
            op=str(row["op"]),
            op_type=str(row["op_type"]),
            what="the NPU does not take it",
            evidence=f"{reason}; {size(crossing)} go to the host and back in one inference"
            + (f"; {millions(subject.macs(str(row['op'])))} MACs" if subject.macs(str(row["op"])) else ""),
            remedy=remedy,
            line="%qnn convert model",
        )


def _htp_reason(text: str) -> str:
    found = reason_of("htp", text) or text
    return found.split(".")[0] if "are not supported by QNN EP" in found else found


def _crossing(subject: Subject, op: str) -> float:
    network = subject.network
    if network is None or op not in network.by_name:
        return 0.0
    node = network.by_name[op]
    names = [n for n in (*dict.fromkeys(node.input), *node.output) if n and not network.is_constant(n)]
    return float(sum(network.elements(n) for n in names) * subject.bytes_each)


@rule(
    "QNB-G002", "info",
    title="a dimension that is open",
    why="the NPU's graphs have fixed shapes: each size needs a compilation of its own",
    threshold="any open dimension of an input in the file that was given",
)  # fmt: skip
def dynamic_shapes(subject: Subject) -> Iterator[Finding]:
    """Open dimensions in the file, or that the export fixed."""
    remedy = (
        "give the sizes that it is to run with; for several sizes, several models (or one that pads to the largest)"
    )
    for name, shape in _open_inputs(subject.source):
        fixed = "x".join(d if d.isdigit() else "N" for d in shape)
        yield Finding(
            op=name, what="an input without a fixed shape", evidence=f"its shape in the file is {' x '.join(shape)}",
            remedy=remedy, line=f"%qnn export net.onnx --shapes {name}={fixed.replace('N', '1')}",
        )  # fmt: skip
    if subject.source is None:
        for note in subject.notes:
            if "open first dimension" in note:
                yield Finding(
                    what="an input without a fixed shape", evidence=f"the export says: {note}", remedy=remedy,
                    line="%qnn export net.onnx --batch 1",
                )  # fmt: skip


def _open_inputs(network: Network | None) -> Iterator[tuple[str, list[str]]]:
    if network is None:
        return
    for value in network.model.graph.input:
        dims = value.type.tensor_type.shape.dim
        shape = [str(d.dim_value) if d.WhichOneof("value") == "dim_value" else d.dim_param or "?" for d in dims]
        if not network.is_constant(value.name) and not all(d.isdigit() for d in shape):
            yield value.name, shape


@rule(
    "QNB-G003", "warning",
    title="a bias that is not stored in 32 bits, or a constant behind an Identity",
    why="quantizers take such a constant for an activation and give it 8 bits: it is stored far too coarsely, and the NPU "
    "adds it in an op of its own",
    threshold="any bias of fewer than 32 bits in a quantized graph; any Identity on a constant",
)  # fmt: skip
def shared_constants(subject: Subject) -> Iterator[Finding]:
    """Identity on an initializer, and what it has done to a quantized model."""
    seen: set[str] = set()
    for network in (n for n in (subject.source, subject.quantized, subject.network) if n is not None):
        for node in network.of_type("Identity"):
            stored = _constant(network, node.input[0])
            if stored and node.name not in seen:
                seen.add(node.name)
                readers = ", ".join(r.name for r in network.readers.get(node.output[0], []))
                yield Finding(
                    op=node.name, op_type="Identity", what="an Identity stands before a constant",
                    evidence=f"{stored} has {network.elements(stored)} values and is read through it by {readers}",
                    remedy="export it through qnb, which puts the constant in its place, before anything quantizes it",
                    line="%qnn export net.onnx",
                )  # fmt: skip
    graph = subject.quantized
    for node in graph.nodes if graph is not None else ():
        if node.op_type not in (*CONVOLUTIONS, "Gemm") or len(node.input) < 3 or graph is None:
            continue
        stored = _stored(graph, node.input[2])
        spec = graph.specs.get(stored)
        bits = int("".join(c for c in spec.dtype if c.isdigit()) or 32) if spec else _BIAS_BITS
        if bits < _BIAS_BITS:
            yield Finding(
                op=node.name, op_type=node.op_type, what=f"its bias has {bits} bits",
                evidence=f"{stored} is {spec.dtype if spec else ''}; a bias is added to sums of 32 bits"
                + subject.said_cycles(node.name),
                remedy="quantize the float model anew: qnb stores biases in 32 bits",
                line="%qnn calibrate model data",
            )  # fmt: skip


def _constant(network: Network, name: str) -> str:
    """Name of the constant that a tensor is, stored or dequantized; ``""`` where it is none."""
    maker = network.producer.get(name)
    if maker is not None and maker.op_type == "DequantizeLinear":
        name = maker.input[0]
    return name if network.is_constant(name) else ""


def _stored(graph: Network, name: str) -> str:
    """Tensor of codes behind a dequantized constant, Identity passed over."""
    seen = 0
    while name in graph.producer and seen < 4:
        node = graph.producer[name]
        if node.op_type not in ("DequantizeLinear", "QuantizeLinear", "Identity"):
            return ""
        if node.op_type == "DequantizeLinear" and node.input[0] in graph.specs:
            return str(node.input[0])
        name, seen = node.input[0], seen + 1
    return ""


@rule(
    "QNB-G007", "warning",
    title="a float island: ops in float between integer ones",
    why="at its shores values are converted, and inside the NPU computes several times slower than in 8 bits",
    threshold="ops whose output is float in a graph that has integer ops, by the NPU's own graph",
)  # fmt: skip
def float_islands(subject: Subject) -> Iterator[Finding]:
    """Connected groups of float ops in an integer graph."""
    for graph in subject.npu:
        work = [op for op in graph.ops if op.type not in CONVERSIONS and op.outputs]
        if not any(op.outputs[0].kind in ("ufixed", "sfixed") for op in work):
            continue
        floats = {op.name: op for op in work if op.outputs[0].kind == "float" and op.type != "Transpose"}
        for island in _groups(graph, floats):
            ops = list(dict.fromkeys(filter(None, (subject.origin(op.name) for op in island))))
            shores = [c for op in island for c in (*graph.before(op), *graph.after(op)) if c.type in CONVERSIONS]
            moved = sum(t.nbytes for c in {c.name: c for c in shores}.values() for t in c.outputs)
            share = sum(subject.mac_percent(op) for op in ops)
            recurrent = any(subject.type_of(op) == "LSTM" for op in ops)
            yield Finding(
                op=", ".join(ops) or island[0].name,
                op_type=subject.type_of(ops[0]) if ops else island[0].type,
                what=f"{len(island)} op{'s' * (len(island) > 1)} of the NPU's graph in {island[0].outputs[0].dtype}, "
                "others in integers",
                evidence=f"{share:.3g} % of the MACs; {len({c.name for c in shores})} conversions at its shores make "
                f"{size(moved)}",
                remedy="its encodings do not change that: write its steps out (MatMul, Add, Sigmoid, Tanh, Mul)"
                if recurrent
                else "give these tensors encodings; a LayerNormalization that has them in 8 bits, 16 bits",
                line="%qnn convert model" if recurrent else "%qnn calibrate model data --precision w8a16",
            )


def _groups(graph: NpuGraph, members: dict[str, NpuOp]) -> Iterator[list[NpuOp]]:
    left = dict(members)
    while left:
        waiting, group = [left.popitem()[1]], []
        while waiting:
            op = waiting.pop()
            group.append(op)
            near = [n for n in (*graph.before(op), *graph.after(op)) if n.name in left]
            waiting += [left.pop(n.name) for n in {n.name: n for n in near}.values()]
        yield group


@rule(
    "QNB-G008", "warning",
    title="Q/DQ ping-pong: converted, and soon converted back",
    why="each conversion reads and writes the whole tensor and computes nothing",
    threshold=f"a conversion inside the graph, at most {_SHORT_ISLAND} ops before the one that undoes it",
)  # fmt: skip
def ping_pong(subject: Subject) -> Iterator[Finding]:
    """Conversions that come in pairs around next to nothing."""
    for graph in subject.npu:
        for op in graph.ops:
            if op.type not in CONVERSIONS or op.name in graph.at_edge or not op.inputs or not op.outputs:
                continue
            back, between = _way_back(graph, op)
            if back is None:
                continue
            names = list(dict.fromkeys(filter(None, (subject.origin(o.name) for o in between))))
            inner = ", ".join(names) or "nothing"
            moved = op.outputs[0].nbytes + back.outputs[0].nbytes
            yield Finding(
                op=names[0] if names else op.name,
                op_type=subject.type_of(names[0]) if names else op.type,
                what=f"{op.inputs[0].dtype} becomes {op.outputs[0].dtype} and then {back.outputs[0].dtype} again",
                evidence=f"between the two conversions: {inner}; they write {size(moved)}",
                remedy=f"give {inner if names else 'the tensor'} the precision of its neighbours",
                line="%qnn calibrate model data",
            )


def _way_back(graph: NpuGraph, op: NpuOp) -> tuple[NpuOp | None, list[NpuOp]]:
    """Follow a conversion's only reader; give the conversion that undoes it, and the ops between."""
    between: list[NpuOp] = []
    at = op
    for _ in range(_SHORT_ISLAND + 1):
        readers = graph.after(at)
        if len(readers) != 1 or not readers[0].outputs:
            return None, []
        at = readers[0]
        if at.type in CONVERSIONS:
            same = at.name not in graph.at_edge and at.outputs[0].dtype == op.inputs[0].dtype
            return (at, between) if same else (None, [])
        between.append(at)
    return None, []
