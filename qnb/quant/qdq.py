"""QDQ: chooses the encodings of a model's tensors and writes them into the graph as QuantizeLinear and DequantizeLinear.

Knows graphs and encodings; nothing of sessions, data or files. The graph it makes is the one that ONNX Runtime's QNN
execution provider turns into integer ops, and that any ONNX runtime can run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import onnx
import onnx.version_converter

from qnb.errors import BadConfig, CalibrationError, UnknownName
from qnb.quant.clipping import separate_clips
from qnb.quant.encodings import BIAS_BITS, Encoding, Encodings, encoding_from_range
from qnb.quant.follow import ACTIVATION_BITS, complete, made_in_float, node_bits, shared_grids
from qnb.quant.forms import WEIGHT_BITS, form_of, refusal, spread
from qnb.quant.overrides import Override, Overrides
from qnb.quant.rewrite import Writer
from qnb.quant.structure import Structure, attribute, fixed_range, prepared

__all__ = ["encode", "insert_qdq", "observed_tensors", "weight_encodings"]

BLOCK_OPSET = 21
_PARAMETER_BITS = {"bias": (BIAS_BITS,), "beta": (8, BIAS_BITS), "constant": ACTIVATION_BITS}


def observed_tensors(model: onnx.ModelProto) -> list[str]:
    """Give the float activations whose range has to be observed, in the order of the graph.

    Left out are those that have no grid of their own: what fuses into the Relu or Clip after it, what takes over its
    producer's grid (Reshape, MaxPool, …), and what has its range by definition (Softmax).

    Parameters
    ----------
    model : onnx.ModelProto
        Float, with fixed shapes.
    """
    return _observed(Structure(prepared(model)))


def weight_encodings(
    model: onnx.ModelProto, *, bits: int = 8, per_channel: bool = True, block_size: int | None = None
) -> dict[str, Encoding]:
    """Make encodings for the weights, from their own smallest and largest values.

    Weights of Conv, ConvTranspose, Gemm and MatMul are symmetric signed per output channel (`per_channel`), per tensor, or
    block-wise; the factors of normalizations are per tensor. Where HTP takes no such form it is the nearest that it does,
    as if the activations had 16 bits: see `qnb.quant.forms`. Biases and constants of elementwise ops follow the
    activations, so they are not here: see `encode`.

    Parameters
    ----------
    model : onnx.ModelProto
    bits : int
        4, 8 or 16.
    per_channel : bool
        Whether each output channel has its own grid.
    block_size : int, optional
        So many input channels of an output channel have one; for 4 bits.
    """
    structure = Structure(prepared(model))
    _check_weights(bits, block_size)
    return {
        name: form_of(structure, name, bits, 16, per_channel=per_channel, block_size=block_size)[0].encoding(
            structure.finite_values(name)
        )
        for name, role in structure.roles.items()
        if role.kind in ("weight", "gamma")
    }


def encode(
    model: onnx.ModelProto,
    ranges: Mapping[str, tuple[float, float]] | None,
    *,
    activation_bits: int = 8,
    weight_bits: int = 8,
    per_channel: bool = True,
    block_size: int | None = None,
    symmetric: bool = False,
    weights: Mapping[str, Encoding] | None = None,
    overrides: Overrides | None = None,
) -> Encodings:
    """Choose the encodings of all tensors of a model, such that HTP takes every one of them.

    Parameters
    ----------
    model : onnx.ModelProto
        Float, with fixed shapes.
    ranges : mapping of str to (float, float), optional
        Real range of each of `observed_tensors`; None to encode what `overrides` say, what follows from it, and no more.
    activation_bits : int
        8 or 16, unsigned.
    weight_bits : int
        4, 8 or 16; see `weight_encodings`.
    per_channel : bool
    block_size : int, optional
        Entries of a weight's input channels that have one scale; for 4-bit weights.
    symmetric : bool
        Whether an activation's real zero is the middle code; where it is never negative the zero stays the lowest, as in
        AIMET's unsigned symmetric grids.
    weights : mapping of str to Encoding, optional
        Grids of weights that were chosen elsewhere.
    overrides : Overrides, optional
        What is to be otherwise; goes before all else.

    Returns
    -------
    Encodings
        Complete: tensors that share a grid, biases (32 bits, scale = input scale x weight scale) and constants included.
        Its notes say where HTP does not take what was asked for, and what stands there instead.

    Raises
    ------
    CalibrationError
        If a range is missing.
    BadConfig
        If bits, a chosen grid or an override do not fit the model or HTP.
    """
    structure = Structure(prepared(model))
    overrides = overrides or Overrides()
    _check_weights(weight_bits, block_size)
    if activation_bits not in ACTIVATION_BITS:
        raise BadConfig(f"activations of {activation_bits} bits", hint="use 8 or 16 bits")
    _check_overrides(overrides, structure)
    activations: dict[str, Encoding] = {}
    for name in dict.fromkeys(structure.root(name) for name in structure.activations):
        said = name in overrides.tensors
        if name in structure.parameters or name in structure.fused or (ranges is None and not said):
            continue
        override = overrides.tensors.get(name, Override())
        bits = override.bits or overrides.activation_bits or activation_bits
        low, high = _extent(structure, name, bits, ranges, overrides)
        default = encoding_from_range(low, high, bits, signed=False, symmetric=symmetric and low < 0)
        if (encoding := overrides.complete(name, default)) is not None:
            activations[name] = encoding
    _apply_to_dependents(structure, activations, overrides)
    reasons: dict[str, list[str]] = defaultdict(list)
    chosen = _weights(structure, activations, weights or {}, overrides, reasons, (weight_bits, per_channel, block_size))
    made = complete(structure, activations, chosen, overrides)
    return Encodings(made.activations, made.weights, _notes(reasons))


def insert_qdq(
    model: onnx.ModelProto, activations: Mapping[str, Encoding], weights: Mapping[str, Encoding]
) -> onnx.ModelProto:
    """Write encodings into a model.

    Each activation is quantized and dequantized where it arises (graph inputs and outputs keep their names and stay
    float); weights are stored as integers behind a DequantizeLinear. A Relu or Clip that its output's grid does as well is
    dropped. Where ops of different activation bits meet, the tensor is converted to the bits of the op that reads it.
    Tensors without an encoding stay float. 16-bit grids below opset 21 use ONNX Runtime's own Q/DQ ops (domain
    com.microsoft), which the QNN execution provider reads as well.

    Parameters
    ----------
    model : onnx.ModelProto
        Float; not changed.
    activations, weights : mapping of str to Encoding
        As from `encode`; what follows from them (shared grids, biases, constants) is added where it is missing.

    Raises
    ------
    BadConfig
        If a name is not one of the model's tensors, or a type can't be expressed.
    CalibrationError
        If a dilated AveragePool would be quantized, which neither ONNX Runtime nor HTP computes.
    """
    if any(encoding.blockwise for encoding in weights.values()):
        model = _with_blocks(model)
    structure = Structure(prepared(model))
    for group, known in ((activations, structure.activations), (weights, structure.parameters)):
        for name in group:
            if name not in known:
                raise UnknownName.among("tensor", name, known)
    written = Writer(structure, complete(structure, activations, weights, Overrides())).write()
    separate_clips(written)
    _refuse_dilated_pools(written.graph)
    return written


def _refuse_dilated_pools(graph: onnx.GraphProto) -> None:
    dequantized = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    quantized = {n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"}
    for node in graph.node:
        dilated = node.op_type == "AveragePool" and any(d > 1 for d in attribute(node, "dilations", []))
        if dilated and node.input[0] in dequantized and node.output[0] in quantized:
            raise CalibrationError(
                f"{node.op_type} {node.name!r} has dilations, with which neither ONNX Runtime nor the NPU averages integers",
                hint="write it as a depthwise convolution whose weights are all 1 / (height x width of the kernel)",
            )


def _with_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give the model in an opset whose DequantizeLinear has blocks; ONNX Runtime's own has none that take 4 bits."""
    if Structure(model).opset >= BLOCK_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, BLOCK_OPSET)
    except Exception as error:  # ConvertError, RuntimeError: whatever the native converter does not know
        raise BadConfig(
            f"block-wise weights need opset {BLOCK_OPSET}, and the model can't be converted to it: {error}",
            hint=f"export the model with opset {BLOCK_OPSET}, or leave block_size out",
        ) from error


# --- choosing ------------------------------------------------------------------------------------------------------


def _weights(
    structure: Structure,
    activations: Mapping[str, Encoding],
    given: Mapping[str, Encoding],
    overrides: Overrides,
    reasons: dict[str, list[str]],
    asked: tuple[int, bool, int | None],
) -> dict[str, Encoding]:
    """Give the grids of weights and of normalizations' factors that are read as integers, and note why they are so."""
    for name in given:
        if name not in structure.parameters:
            raise UnknownName.among("parameter", name, structure.roles)
    bits, per_channel, block_size = asked
    shared, _ = shared_grids(structure, activations, given, overrides)
    found: dict[str, Encoding] = {}
    silent = Override()
    integers = {name for name in structure.roles if not overrides.tensors.get(name, silent).keep_float}
    for name, role in structure.roles.items():
        if role.kind not in ("weight", "gamma"):
            if name in given:
                found[name] = given[name]
            continue
        override = overrides.tensors.get(name, silent)
        readers = [node for node in structure.consumers[name] if node_bits(structure, shared, node, integers)]
        computes = [node_bits(structure, shared, node, integers) or 0 for node in readers]
        if override.keep_float or not computes:
            if name in overrides.tensors and not override.keep_float:
                reasons["stays float: the op that reads it computes in float"].append(name)
            continue
        wanted = override.bits or overrides.param_bits
        form, notes = form_of(
            structure,
            name,
            wanted or bits,
            min(computes),
            per_channel=per_channel or override.channels > 1,
            block_size=override.block_size or block_size,
            after_float=any(made_in_float(structure, shared, node.input[0], integers) for node in readers),
        )
        if name in given and wanted in (None, given[name].bits):
            default, notes = given[name], ()
        else:
            default = form.encoding(structure.finite_values(name))
        if not override.has_grid:  # bits and blocks are in the default, as far as HTP takes them
            override = replace(override, bits=None, block_size=None)
        made = Overrides({name: override}, origin=overrides.origin).complete(name, default)
        assert made is not None
        found[name] = spread(structure, name, made)
        if (name in overrides.tensors or name in given) and (
            reason := refusal(structure, name, found[name], min(computes))
        ):
            source = f"{overrides.origin}: " if name in overrides.tensors else ""
            raise BadConfig(
                f"{source}tensor {name!r}: HTP does not take its grid of {made.bits} bits",
                hint=f"{reason}; leave the grid out to get the nearest that it takes",
            )
        for note in () if override.has_grid else notes:
            reasons[note].append(name)
    return found


def _notes(reasons: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Say each reason once, with the tensors that it is about."""

    def about(names: list[str]) -> str:
        shown = ", ".join(names[:3])
        return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown

    return tuple(f"{about(names)}: {reason}" for reason, names in reasons.items())


def _check_weights(bits: int, block_size: int | None) -> None:
    if bits not in WEIGHT_BITS:
        raise BadConfig(f"weights of {bits} bits", hint=f"use {', '.join(map(str, WEIGHT_BITS))} bits")
    if block_size is not None and block_size < 1:
        raise BadConfig(f"blocks of {block_size}", hint="give how many input channels have one scale, such as 32")


def _observed(structure: Structure) -> list[str]:
    def needs(name: str) -> bool:
        producer = structure.producer.get(name)
        fixed = producer is not None and fixed_range(producer, ACTIVATION_BITS[0]) is not None
        return structure.root(name) == name and name not in structure.fused and not fixed

    return [name for name in structure.activations if needs(name)]


def _check_overrides(overrides: Overrides, structure: Structure) -> None:
    """Refuse what is said of tensors that are not there, are of the other kind, or have bits that HTP doesn't take."""
    activations, roles = set(structure.activations), structure.roles
    for name, override in overrides.tensors.items():
        where = f"{overrides.origin}: tensor {name!r}"
        if name not in activations and name not in roles:
            unknown = UnknownName.among("tensor", name, [*structure.activations, *roles])
            raise BadConfig(f"{overrides.origin}: {unknown.what}", hint=unknown.hint)
        kind = "activation" if name in activations else "param"
        if override.kind not in (None, kind):
            raise BadConfig(f"{where} is no {override.kind}", hint=f"move it to {kind}_encodings")
        allowed = ACTIVATION_BITS if name in activations else _PARAMETER_BITS.get(roles[name].kind, WEIGHT_BITS)
        if override.bits is not None and override.bits not in allowed:
            raise BadConfig(f"{where}: {override.bits} bits", hint=f"use {' or '.join(map(str, allowed))} bits for it")
        if override.channels > 1 and (name in activations or roles[name].kind in ("gamma", "beta", "constant")):
            raise BadConfig(
                f"{where}: a grid per channel", hint="HTP takes one grid for this tensor: give one encoding"
            )
    if overrides.activation_bits not in (None, *ACTIVATION_BITS) or overrides.param_bits not in (None, *WEIGHT_BITS):
        raise BadConfig(
            f"{overrides.origin}: activation_bitwidth {overrides.activation_bits}, param_bitwidth {overrides.param_bits}",
            hint="activations take 8 or 16 bits, parameters 4, 8 or 16",
        )


_UNIT = (-1.0, 1.0)  # stands in for a range where all of it is overridden


def _extent(
    structure: Structure,
    name: str,
    bits: int,
    ranges: Mapping[str, tuple[float, float]] | None,
    overrides: Overrides,
) -> tuple[float, float]:
    """Give the real range of an activation: its fixed one, or the observed one."""
    producer = structure.producer.get(name)
    extent = (fixed_range(producer, bits) if producer is not None else None) or (ranges or {}).get(name)
    if extent is not None:
        return extent
    if ranges is None:
        override = overrides.tensors[name]
        if override.has_grid or override.keep_float:
            return _UNIT
        raise BadConfig(
            f"{overrides.origin}: tensor {name!r} has neither min and max nor scale and offset",
            hint="add them, or calibrate with data, which fills in what is left open",
        )
    raise CalibrationError(
        f"no range for tensor {name!r}", hint="observe all of observed_tensors(model) on at least one sample"
    )


def _apply_to_dependents(structure: Structure, activations: dict[str, Encoding], overrides: Overrides) -> None:
    """Apply what is said of activations without a grid of their own: to the grid they share, or by not fusing them."""
    for name, override in overrides.tensors.items():
        if name not in structure.activations or name in activations:
            continue
        root = structure.root(name)
        if root != name:
            if root not in activations:
                if override.keep_float:
                    continue
                if override.has_grid and root not in overrides.tensors and root not in structure.parameters:
                    bits = override.bits or overrides.activation_bits or ACTIVATION_BITS[0]
                    default = encoding_from_range(*_UNIT, bits, signed=False, symmetric=False)
                    if (made := overrides.complete(name, default)) is not None:
                        activations[name] = made
                    continue
                raise BadConfig(
                    f"{overrides.origin}: tensor {name!r} takes its grid from {root!r}, which has none or one of its own",
                    hint=f"say it of {root!r}",
                )
            made = overrides.complete(name, activations[root])
            if made is not None:
                activations[name] = made
            if root not in overrides.tensors:  # else _shared sees whether the two agree
                del activations[root]
                if made is not None:
                    activations[root] = made
        elif name in structure.fused and not override.keep_float:
            if not override.has_grid or override.bits is None:
                into = structure.fused[name].node
                raise BadConfig(
                    f"{overrides.origin}: tensor {name!r} has no grid of its own: it fuses into {into.name!r}",
                    hint=f"say it of {into.output[0]!r}, or give bits, min and max to keep the two apart",
                )
            default = encoding_from_range(*_UNIT, override.bits, signed=False, symmetric=False)
            if (made := overrides.complete(name, default)) is not None:
                activations[name] = made
