"""Imported: a QDQ graph that another tool made, taken apart into encodings and the float model that it stands for.

Knows graphs and encodings; nothing of files, sessions or of who makes such graphs. The graph itself computes the same codes,
and is changed only where HTP would refuse it or get it wrong: integers that go in, come out, are moved or are signed 16-bit
ones, and clips that a grid does not do as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from qnb.errors import ExportError
from qnb.quant.clipping import separate_clips
from qnb.quant.encodings import BIAS_BITS, Encodings
from qnb.quant.stripping import DEQUANTIZE, MOVES, QUANTIZE, Stripped, counterpart, renew_nodes, strip
from qnb.quant.structure import Structure, prepared

__all__ = ["Imported", "is_quantized", "take_apart"]

_DYNAMIC = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "ConvInteger", "MatMulInteger"}
_INTEGER_OPS = _DYNAMIC | {
    "GatherBlockQuantized", "MatMulBnb4", "MatMulIntegerToFloat", "MatMulNBits", "QAttention", "QGemm", "QMoE",
}  # fmt: skip


@dataclass(frozen=True)
class Imported:
    """What a QDQ graph says.

    Attributes
    ----------
    kept : onnx.ModelProto
        The graph, with float inputs and outputs, and Q and DQ around what moves codes.
    float_model : onnx.ModelProto
        The same without quantization: weights as their codes stand for, Relu where a grid stood for one.
    encodings : Encodings
        By the names of `float_model`'s tensors.
    precision : str
        Such as ``w8a8``; ``mixed`` where there are several, or ops in float.
    weights : str
        ``per channel``, ``per tensor`` or ``per block``.
    edge : bool
        Whether inputs or outputs were integers in the graph, and are float in `kept`.
    notes : tuple of str
        What was done otherwise than as it stands in the graph, and what was found.
    """

    kept: onnx.ModelProto
    float_model: onnx.ModelProto
    encodings: Encodings
    precision: str
    weights: str
    edge: bool
    notes: tuple[str, ...]


def is_quantized(model: onnx.ModelProto) -> bool:
    """Say whether the graph holds quantized tensors or integer ops."""
    return any(_is_integer(node) or node.op_type in (QUANTIZE, DEQUANTIZE) for node in model.graph.node)


def take_apart(model: onnx.ModelProto) -> Imported:
    """Read a QDQ graph.

    Parameters
    ----------
    model : onnx.ModelProto
        With constants as initializers and nodes named; not changed.

    Raises
    ------
    ExportError
        If it computes in integer ops instead of Q/DQ, in ranges that are found while it runs, or in types that are no
        integer grids.
    """
    _refuse_integer_ops(model)
    kept, edge = _float_edge(model)
    _dequantize_moves(kept)
    shifted = _unsigned(kept)
    stripped = strip(kept)
    separate_clips(kept)
    structure = Structure(prepared(stripped.model))
    precision, reason = _precision(structure, stripped)
    notes = (*edge, *shifted, *stripped.notes, *([reason] if reason else []))
    weights = _weights(structure, stripped)
    return Imported(kept, stripped.model, stripped.encodings, precision, weights, bool(edge), notes)


def _is_integer(node: onnx.NodeProto) -> bool:
    return node.op_type in _INTEGER_OPS or node.op_type.startswith("QLinear")


def _refuse_integer_ops(model: onnx.ModelProto) -> None:
    node = next((n for n in model.graph.node if _is_integer(n)), None)
    if node is None:
        return
    if node.op_type in _DYNAMIC:
        raise ExportError(
            f"{node.op_type} {node.name!r}: the model finds its ranges while it runs, which HTP does not do",
            hint="quantize it statically: onnxruntime.quantization.quantize_static, or qnb.calibrate on the float model",
        )
    raise ExportError(
        f"{node.op_type} {node.name!r} computes in integers itself; QNN takes float ops between Q and DQ",
        hint="make the model again in QDQ form: quantize_static(…, quant_format=QuantFormat.QDQ)",
    )


def _float_edge(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Let integer inputs and outputs be float: what the model's first or last nodes do outside goes inside."""
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    graph = kept.graph
    producer = {name: node for node in graph.node for name in node.output}
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | {n.name for n in graph.node}
    notes = []
    for value in graph.input:
        readers = [node for node in graph.node if value.name in node.input]
        first = next((n for n in readers if n.op_type == DEQUANTIZE and n.input[0] == value.name), None)
        if first is None or value.type.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
            continue
        codes = _fresh(f"{value.name}_quantized", taken)
        for node in readers:
            node.input[:] = [codes if name == value.name else name for name in node.input]
        graph.node.insert(0, _like(first, QUANTIZE, value.name, codes, taken))
        value.type.tensor_type.elem_type = TensorProto.FLOAT
        notes.append(f"input {value.name!r} took integers: it takes float now, which the graph quantizes itself")
    for value in graph.output:
        last = producer.get(value.name)
        if last is None or last.op_type != QUANTIZE:
            continue
        codes = _fresh(f"{value.name}_quantized", taken)
        for node in graph.node:
            node.input[:] = [codes if name == value.name else name for name in node.input]
        last.output[0] = codes
        graph.node.append(_like(last, DEQUANTIZE, codes, value.name, taken))
        value.type.tensor_type.elem_type = TensorProto.FLOAT
        notes.append(f"output {value.name!r} was integers: it is float now, which the graph dequantizes itself")
    if notes:
        stale = {value.name for value in (*graph.input, *graph.output)}
        known = [value for value in graph.value_info if value.name not in stale]
        graph.ClearField("value_info")
        graph.value_info.extend(known)
    return kept, notes


def _dequantize_moves(model: onnx.ModelProto) -> None:
    """Put DQ before and Q after ops that move codes, in place: QNN's provider takes an op on a grid in no other form.

    TFLite models have such ops, and tools that save a Q and a DQ. On one grid the codes come out the same.
    """
    graph = model.graph
    makers = {node.output[0]: node for node in graph.node if node.op_type == QUANTIZE}
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | {n.name for n in graph.node}
    nodes = []
    for node in graph.node:
        grids = [makers[name] for name in node.input if name in makers]
        if node.op_type not in MOVES or not grids:
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if name in makers:
                node.input[index] = _fresh(f"{name}_real", taken)
                nodes.append(_like(makers[name], DEQUANTIZE, name, node.input[index], taken))
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name and (node.op_type != "MaxPool" or index == 0):  # its second output is indices
                node.output[index] = _fresh(f"{name}_real", taken)
                makers[name] = _like(grids[0], QUANTIZE, node.output[index], name, taken)
                nodes.append(makers[name])
    if len(nodes) > len(graph.node):
        renew_nodes(graph, nodes)


def _unsigned(model: onnx.ModelProto) -> list[str]:
    """Count the codes of 16-bit activations from 0 and not from -32768, in place: HTP hardly takes signed ones."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    types = {value.name: value.type.tensor_type for value in graph.value_info}
    shifted = set()
    for node in graph.node:
        codes = {QUANTIZE: node.output, DEQUANTIZE: node.input}.get(node.op_type)
        zero = tensors.get(node.input[2]) if codes is not None and len(node.input) > 2 else None
        if codes is None or zero is None or codes[0] in tensors or zero.data_type != TensorProto.INT16:
            continue
        node.input[2] = name = f"{zero.name}_unsigned"
        if name not in tensors:
            values = numpy_helper.to_array(zero).astype(np.int32) + 2**15
            tensors[name] = numpy_helper.from_array(values.astype(np.uint16), name)
            graph.initializer.append(tensors[name])
        shifted.add(codes[0])
        if codes[0] in types:
            types[codes[0]].elem_type = TensorProto.UINT16
    count = f"{len(shifted)} activations had signed 16-bit codes: the same grids, counted from 0, are what HTP takes"
    return [count] if shifted else []


def _like(node: onnx.NodeProto, op_type: str, source: str, target: str, taken: set[str]) -> onnx.NodeProto:
    return counterpart(node, op_type, source, target, _fresh(f"{target}_{op_type}", taken))


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _precision(structure: Structure, stripped: Stripped) -> tuple[str, str]:
    """Give the bits of weights and activations, and why they are called mixed."""
    grids = stripped.encodings.activations
    weights = _weight_bits(structure, stripped)
    activations = sorted({encoding.bits for encoding in grids.values()})

    def has_grid(name: str) -> bool:
        while name in structure.fused and name not in grids:
            name = structure.fused[name].node.output[0]
        return name in grids or structure.root(name) in grids or structure.root(name) in structure.parameters

    inner = [name for name in structure.activations if not has_grid(name)]
    if inner:
        some = ", ".join(repr(name) for name in inner[:3]) + (" …" if len(inner) > 3 else "")
        return "mixed", f"{len(inner)} of {len(structure.activations)} float tensors have no grid: {some}"
    if len(weights) == 1 and len(activations) == 1:
        return f"w{weights[0]}a{activations[0]}", ""
    if not weights and len(activations) == 1:  # nothing to multiply with
        return f"w{activations[0]}a{activations[0]}", ""
    bits = f"weights of {_and(weights)} bits, activations of {_and(activations)}"
    return "mixed", bits if activations else "no activation has a grid"


def _weight_bits(structure: Structure, stripped: Stripped) -> list[int]:
    grids = stripped.encodings.weights
    named = [grids[n] for n, role in structure.roles.items() if role.kind == "weight" and n in grids]
    return sorted({encoding.bits for encoding in named if encoding.bits != BIAS_BITS})


def _and(bits: list[int]) -> str:
    return " and ".join(map(str, bits)) or "no"


def _weights(structure: Structure, stripped: Stripped) -> str:
    grids = stripped.encodings.weights
    named = [grids[n] for n, role in structure.roles.items() if role.kind == "weight" and n in grids]
    if any(encoding.blockwise for encoding in named):
        return "per block"
    return "per channel" if any(encoding.axis is not None for encoding in named) else "per tensor"
