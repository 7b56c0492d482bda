"""Exposing: tensors inside a graph become outputs, at as little cost for what runs the graph as can be.

Knows ONNX files and how ONNX Runtime's CPU optimizer lays tensors out; nothing of sessions or quantization.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import onnx
from onnx import helper

from qnb.files import storage_errors

__all__ = ["blocked_outputs", "segments", "with_outputs"]

_LARGEST_BLOCK = 16  # channels in a block of ONNX Runtime's NCHWc layout: 8 with AVX, 16 with AVX-512


def with_outputs(source: str | Path, model: onnx.ModelProto, names: Sequence[str], out: str | Path) -> None:
    """Write a model file that gives the tensors `names` as well.

    The file's bytes are kept, and the outputs follow: protobuf parsers merge repeated fields of a message that comes in
    parts. So a large model is neither parsed nor written again.

    Parameters
    ----------
    source : path
        The model's file.
    model : onnx.ModelProto
        What is in it; weights in files of their own need not be loaded.
    names : sequence of str
        Tensors of the graph; those that are inputs or outputs already are left out.
    out : path
        The file to write.
    """
    known = {value.name: value for value in model.graph.value_info}
    there = {value.name for value in (*model.graph.output, *model.graph.input)}
    more = onnx.ModelProto()
    more.graph.output.extend(known.get(n) or onnx.ValueInfoProto(name=n) for n in names if n not in there)
    with storage_errors(out):
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
            whole = onnx.load(str(source))  # the other files are named relative to this one's folder
            whole.graph.output.extend(more.graph.output)
            onnx.save(whole, str(out))
            return
        shutil.copyfile(source, out)
        with Path(out).open("ab") as file:
            file.write(more.SerializeToString())


def blocked_outputs(
    model: onnx.ModelProto, wanted: Collection[str], averaged: Collection[str] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """Give outputs in the layout that the optimized graph computes in, where they would be transposed only to be read.

    ONNX Runtime's convolutions work on blocks of channels (NCHWc), and a ReorderOutput before each graph output brings it
    back to NCHW, which costs more than the statistics do. Where the channels fill their blocks, so that nothing is padded,
    the two differ only in the order of the values.

    Parameters
    ----------
    model : onnx.ModelProto
        As ONNX Runtime's optimizer wrote it; changed in place.
    wanted : collection of str
        Outputs of which only the values count and not their order.
    averaged : collection of str
        Those of them whose channel means are asked for besides, since the order of the values no longer tells channels.

    Returns
    -------
    blocked : dict
        Output to the output that stands for it now.
    means : dict
        Output to the one that holds its channels' means, [1, C, 1, 1].
    """
    graph = model.graph
    read = Counter(name for node in graph.node for name in node.input)
    found: dict[str, str] = {}
    means: dict[str, str] = {}
    kept = []
    for node in graph.node:
        name = node.output[0]
        channels = next((a.i for a in node.attribute if a.name == "channels"), 0)
        whole = channels > 0 and channels % _LARGEST_BLOCK == 0
        if node.op_type == "ReorderOutput" and name in wanted and not read[name] and whole:
            found[name] = node.input[0]
            if name in averaged:
                means[name] = f"{name}/mean"
                pooled = f"{name}/pooled"
                kept.append(helper.make_node("GlobalAveragePool", [found[name]], [pooled], pooled, domain=node.domain))
                node.name, node.input[0], node.output[0] = means[name], pooled, means[name]
                kept.append(node)
        else:
            kept.append(node)
    if not found:
        return found, means
    del graph.node[:]
    graph.node.extend(kept)
    outputs = [output for output in graph.output if output.name not in found]
    outputs += [onnx.ValueInfoProto(name=inner) for inner in dict.fromkeys([*found.values(), *means.values()])]
    del graph.output[:]
    graph.output.extend(outputs)
    return found, means


def segments(model: onnx.ModelProto, sizes: Mapping[str, int], limit: int) -> list[onnx.ModelProto]:
    """Cut a graph into parts that run one after the other, each with few bytes of outputs.

    What a part gives can then be read while it is in the processor's cache, and the memory for it be used again by the
    next one.

    Parameters
    ----------
    model : onnx.ModelProto
        In topological order; its weights may be in a file beside it.
    sizes : mapping of str to int
        Bytes of the float32 tensors that are outputs.
    limit : int
        Bytes of outputs after which the next part begins.

    Returns
    -------
    list of onnx.ModelProto
        Outputs that later parts read are among a part's outputs and a later one's inputs.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    types = {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}
    for name in sizes:
        types[name] = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    readable = {name for name, value in types.items() if value.type.tensor_type.elem_type}
    last = {name: number for number, node in enumerate(graph.node) for name in node.input}
    asked = {output.name for output in graph.output}
    groups: list[list[onnx.NodeProto]] = [[]]
    alive: set[str] = set()
    size = 0
    for number, node in enumerate(graph.node):
        groups[-1].append(node)
        alive |= set(node.output)
        size += sum(sizes.get(name, 0) for name in node.output if name in asked)
        alive = {name for name in alive if last.get(name, -1) > number}
        if size >= limit and alive <= readable and number + 1 < len(graph.node):
            groups.append([])
            size = 0
    parts = []
    for number, nodes in enumerate(groups):
        made = {name for node in nodes for name in node.output}
        read = dict.fromkeys(name for node in nodes for name in node.input if name)
        later = {name for group in groups[number + 1 :] for node in group for name in node.input}
        part = onnx.ModelProto(ir_version=model.ir_version)
        part.opset_import.extend(model.opset_import)
        part.graph.name = f"{graph.name}_{number}"
        part.graph.node.extend(nodes)
        part.graph.initializer.extend(weights[name] for name in read if name in weights)
        part.graph.input.extend(types[name] for name in read if name not in weights and name not in made)
        given = [name for node in nodes for name in node.output if name in asked | later]
        if not number:  # what was found to be constant
            given += [name for name in asked if name in weights]
            part.graph.initializer.extend(weights[name] for name in asked if name in weights and name not in read)
        part.graph.output.extend(types.get(name) or onnx.ValueInfoProto(name=name) for name in given)
        parts.append(part)
    return parts
