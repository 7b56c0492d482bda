"""QDQ: chooses the encodings of a model's tensors and writes them into the graph as QuantizeLinear and DequantizeLinear.

Knows graphs and encodings; nothing of sessions, data or files. The graph it makes is the one that ONNX Runtime's QNN
execution provider turns into integer ops, and that any ONNX runtime can run.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from qnb.errors import BadConfig, CalibrationError, UnknownName
from qnb.quant.encodings import BIAS_BITS, Encoding, Encodings, encoding_from_range
from qnb.quant.follow import ACTIVATION_BITS, complete
from qnb.quant.overrides import Override, Overrides
from qnb.quant.rewrite import Writer
from qnb.quant.structure import Structure, fixed_range, prepared

__all__ = ["encode", "insert_qdq", "observed_tensors", "weight_encodings"]

WEIGHT_BITS = (8,)
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


def weight_encodings(model: onnx.ModelProto, *, bits: int = 8, per_channel: bool = True) -> dict[str, Encoding]:
    """Make encodings for the weights, from their own smallest and largest values.

    Weights of Conv, ConvTranspose and Gemm are symmetric signed per output channel (`per_channel`) or per tensor; those of
    MatMul per tensor in any case, as HTP asks; the factors of normalizations are asymmetric unsigned per tensor, the
    only form that HTP takes. Biases and constants of elementwise ops follow the activations, so they are not here: see
    `encode`.

    Parameters
    ----------
    model : onnx.ModelProto
    bits : int
        8.
    per_channel : bool
        Whether each output channel has its own grid.
    """
    structure = Structure(prepared(model))
    found = {name: _weight_default(structure, name, bits, per_channel) for name in structure.roles}
    return {name: encoding for name, encoding in found.items() if encoding is not None}


def encode(
    model: onnx.ModelProto,
    ranges: Mapping[str, tuple[float, float]] | None,
    *,
    activation_bits: int = 8,
    weight_bits: int = 8,
    per_channel: bool = True,
    overrides: Overrides | None = None,
) -> Encodings:
    """Choose the encodings of all tensors of a model.

    Parameters
    ----------
    model : onnx.ModelProto
        Float, with fixed shapes.
    ranges : mapping of str to (float, float), optional
        Real range of each of `observed_tensors`; None to encode what `overrides` say, what follows from it, and no more.
    activation_bits : int
        8 or 16, asymmetric unsigned.
    weight_bits : int
        8; see `weight_encodings`.
    per_channel : bool
    overrides : Overrides, optional
        What is to be otherwise.

    Returns
    -------
    Encodings
        Complete: tensors that share a grid, biases (32 bits, scale = input scale x weight scale) and constants included.

    Raises
    ------
    CalibrationError
        If a range is missing.
    BadConfig
        If an override does not fit the model.
    """
    structure = Structure(prepared(model))
    overrides = overrides or Overrides()
    _check_overrides(overrides, structure)
    activations: dict[str, Encoding] = {}
    for name in dict.fromkeys(structure.root(name) for name in structure.activations):
        said = name in overrides.tensors
        if name in structure.parameters or name in structure.fused or (ranges is None and not said):
            continue
        override = overrides.tensors.get(name, Override())
        bits = override.bits or overrides.activation_bits or activation_bits
        extent = _extent(structure, name, bits, ranges, overrides)
        default = encoding_from_range(*extent, bits, signed=False, symmetric=False)
        if (encoding := overrides.complete(name, default)) is not None:
            activations[name] = encoding
    _apply_to_dependents(structure, activations, overrides)
    weights: dict[str, Encoding] = {}
    for name in structure.roles:
        said = name in overrides.tensors
        if ranges is None and not said and not _read_as_integers(structure, activations, name):
            continue
        channels = per_channel or (said and overrides.tensors[name].channels > 1)
        weight = _weight_default(structure, name, overrides.param_bits or weight_bits, channels)
        if weight is not None and (encoding := overrides.complete(name, weight)) is not None:
            weights[name] = encoding
    return complete(structure, activations, weights, overrides)


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
    """
    structure = Structure(prepared(model))
    for group, known in ((activations, structure.activations), (weights, structure.parameters)):
        for name in group:
            if name not in known:
                raise UnknownName.among("tensor", name, known)
    return Writer(structure, complete(structure, activations, weights, Overrides())).write()


# --- choosing ------------------------------------------------------------------------------------------------------


def _read_as_integers(structure: Structure, activations: Mapping[str, Encoding], name: str) -> bool:
    """Whether every op that reads the parameter computes on grids; HTP takes no integer weight in a float op."""

    def has_grid(tensor: str) -> bool:
        while tensor in structure.fused and tensor not in activations:
            tensor = structure.fused[tensor].node.output[0]
        return structure.root(tensor) in activations

    readers = [node for node in structure.graph.node if name in node.input]
    return all(has_grid(t) for node in readers for t in (*structure.data_inputs(node)[:1], node.output[0]))


def _observed(structure: Structure) -> list[str]:
    def needs(name: str) -> bool:
        producer = structure.producer.get(name)
        fixed = producer is not None and fixed_range(producer, ACTIVATION_BITS[0]) is not None
        return structure.root(name) == name and name not in structure.fused and not fixed

    return [name for name in structure.activations if needs(name)]


def _weight_default(structure: Structure, name: str, bits: int, per_channel: bool) -> Encoding | None:
    role = structure.roles[name]
    if role.kind not in ("weight", "gamma"):
        return None
    if bits not in WEIGHT_BITS:
        raise BadConfig(f"weights of {bits} bits", hint=f"qnb quantizes weights to {WEIGHT_BITS[0]} bits")
    values = structure.finite_values(name)
    if role.kind == "gamma":
        return encoding_from_range(values.min(), values.max(), bits, signed=False, symmetric=False)
    axis = role.axis if per_channel and values.ndim > 1 else None
    others = tuple(i for i in range(values.ndim) if i != axis) if axis is not None else None
    return encoding_from_range(values.min(others), values.max(others), bits, signed=True, symmetric=True, axis=axis)


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
            hint="activations take 8 or 16 bits, parameters 8",
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
