"""Parts: a graph cut into what a search gives precisions to, and what a mix of precisions says of each tensor.

Knows graphs and encodings; nothing of sessions, files or how good a mix is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import onnx

from qnb.quant.encodings import BIAS_BITS, Encodings
from qnb.quant.mixes import Assignment, Op, Part, Problem, bits_of
from qnb.quant.overrides import Override, Overrides
from qnb.quant.structure import Structure

__all__ = ["Granularity", "override_entries", "owners", "parts_of", "said"]

Granularity = Literal["layer", "tensor"]


def owners(structure: Structure) -> dict[str, onnx.NodeProto | None]:
    """Give the activations that own a grid, each with the op that computes it (None for an input of the graph).

    What fuses into the Relu or Clip after it has no grid of its own: the op is then the one before that Relu.
    """
    before = {fused.node.output[0]: name for name, fused in structure.fused.items()}
    found: dict[str, onnx.NodeProto | None] = {}
    for name in dict.fromkeys(structure.root(name) for name in structure.activations):
        if name in structure.parameters or name in structure.fused:
            continue
        start = name
        while start in before:
            start = before[start]
        found[name] = structure.producer.get(start)
    return found


def parts_of(
    structure: Structure,
    encoded: Mapping[str, Encodings],
    facts: Sequence[Mapping[str, Any]],
    elements: Mapping[str, int],
    granularity: Granularity,
) -> Problem:
    """Cut a model into parts.

    Parameters
    ----------
    structure : Structure
    encoded : mapping of str to Encodings
        The whole model in each candidate precision: what a tensor may really be is read from it. ``fp16`` among the keys,
        with any encodings, lets layers with weights stay in float.
    facts : sequence of mapping
        ``macs`` of each node, in the graph's order.
    elements : mapping of str to int
        Numbers in each tensor.
    granularity : {"layer", "tensor"}
        A part is an op with its weights and its output, or a single tensor.
    """
    graph = owners(structure)
    weight_reader: dict[str, str] = {}  # a weight that several ops share belongs to the first
    readers: dict[str, int] = {}
    for node in structure.graph.node:
        for name in dict.fromkeys(node.input):
            if name in structure.roles and structure.roles[name].kind in ("weight", "gamma"):
                weight_reader.setdefault(name, node.name)
                readers[name] = readers.get(name, 0) + 1
    integer = {precision: e for precision, e in encoded.items() if precision != "fp16"}
    layers: dict[str, tuple[str, list[str], list[str]]] = {}
    for tensor, made_by in graph.items():
        key = made_by.name if made_by is not None else tensor
        kind = made_by.op_type if made_by is not None else "Input"
        weights = [w for w, reader in weight_reader.items() if made_by is not None and reader == key]
        layers.setdefault(key, (kind, weights, []))[2].append(tensor)
    parts: list[Part] = []
    part_of: dict[str, int] = {}
    for key, (kind, weights, tensors) in layers.items():
        floats = (
            "fp16" in encoded
            and bool(weights)
            and all(structure.roles[w].kind == "weight" and readers[w] == 1 for w in weights)
        )
        for part in _cut(key, kind, weights, tensors, integer, floats, elements, granularity):
            part_of.update(dict.fromkeys((*part.weights, *part.tensors), len(parts)))
            parts.append(part)
    varied = {w for part in parts for w in part.weights}
    bits = {name: e.bits for encodings in integer.values() for name, e in encodings.weights.items()}
    fixed = sum(elements[n] * b // 8 for n, b in bits.items() if n not in varied and b == BIAS_BITS)
    return Problem(tuple(parts), tuple(_ops(structure, facts, elements, weight_reader, part_of)), fixed)


def _cut(
    key: str,
    kind: str,
    weights: list[str],
    tensors: list[str],
    integer: Mapping[str, Encodings],
    floats: bool,
    elements: Mapping[str, int],
    granularity: Granularity,
) -> list[Part]:
    def bits(name: str, encodings: Encodings) -> int | None:
        found = encodings.weights.get(name) or encodings.activations.get(name)
        return found.bits if found is not None else None

    def options(weight: str | None, tensor: str | None) -> tuple[str, ...]:
        names = []
        for encodings in integer.values():
            w = bits(weight, encodings) if weight else None
            a = bits(tensor, encodings) if tensor else None
            names.append((f"w{w}" if w else "") + (f"a{a}" if a else ""))
        return tuple(dict.fromkeys(n for n in names if n))

    if granularity == "layer":
        mine = options(weights[0] if weights else None, tensors[0]) + (("fp16",) if floats else ())
        sizes = sum(elements[w] for w in weights), sum(elements[t] for t in tensors)
        return [Part(key, kind, mine, tuple(weights), tuple(tensors), *sizes)] if mine else []
    found = []
    for name in weights:
        # 16-bit weights are taken with 16-bit activations only, so a tensor alone can't have them
        mine = tuple(o for o in options(name, None) if o != "w16") or options(name, None)
        found.append(Part(name, kind, mine, (name,), (), elements[name], 0))
    found += [Part(name, kind, options(None, name), (), (name,), 0, elements[name]) for name in tensors]
    return [part for part in found if part.options]


def _ops(
    structure: Structure,
    facts: Sequence[Mapping[str, Any]],
    elements: Mapping[str, int],
    weight_reader: Mapping[str, str],
    part_of: Mapping[str, int],
) -> list[Op]:
    dropped = {fused.node.name for fused in structure.fused.values()}
    found = []
    for node, fact in zip(structure.graph.node, facts, strict=True):
        output = next((name for name in node.output if name), "")
        weight = next((part_of[name] for name in node.input if name in weight_reader and name in part_of), None)
        computes = node.name not in dropped and output not in structure.source
        end = output
        while end in structure.fused:
            end = structure.fused[end].node.output[0]
        part = part_of.get(structure.root(end)) if computes else None
        found.append(Op(int(fact["macs"]), elements.get(output, 0), weight, part))
    return found


def elements_of(shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Count the numbers of each tensor."""
    return {name: math.prod(shape) for name, shape in shapes.items()}


def said(part: Part, option: str) -> dict[str, int]:
    """Give the bits of each tensor of a part in a precision; 0 stands for float."""
    weights, activations = bits_of(option)
    found: dict[str, int] = {}
    if part.weights and weights is not None:
        found.update(dict.fromkeys(part.weights, 0 if option == "fp16" else weights))
    if activations is not None:
        found.update(dict.fromkeys(part.tensors, activations))
    return found


def overrides_from(bits: Mapping[str, int]) -> Overrides:
    """Turn bits by tensor (0: float) into overrides."""
    tensors = {name: Override(bits=b) if b else Override(keep_float=True) for name, b in bits.items()}
    return Overrides(tensors, origin="the search")


def override_entries(problem: Problem, mix: Assignment) -> dict[str, Any]:
    """Give a mix as an overrides mapping in the flat form, which `qnb.calibrate` takes.

    An fp16 layer keeps its weights in float, and its output on a 16-bit grid, so that its neighbours stay integer.
    """
    content: dict[str, Any] = {"activation_encodings": {}, "param_encodings": {}}
    for part, option in zip(problem.parts, mix, strict=True):
        for name, bits in said(part, option).items():
            section = content["param_encodings" if name in part.weights else "activation_encodings"]
            section[name] = {"bitwidth": bits} if bits else {"dtype": "float"}
    return content
