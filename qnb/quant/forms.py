"""Forms: which integer grids Hexagon's HTP multiplies with, parameter by parameter, and the nearest to what was asked for.

Knows graphs and what HTP takes; nothing of values, ranges or files. What stands here was seen with QNN 2.47 on the
Hexagon simulator (v68, v69, v73, v75, v79, v81), by comparing each op's result with ONNX Runtime's on the same graph:

========== ================================================================================================================
weights    taken
========== ================================================================================================================
4 bits     symmetric signed, per channel; per tensor as well in Gemm and MatMul. With a zero point it computes garbage, and
           unsigned it is refused or inaccurate
8 bits     per tensor with any zero point, per channel symmetric
16 bits    where the op computes in 16 bits, from Hexagon v73 on: symmetric signed, or per tensor unsigned (not in Gemm)
channels   of a Conv, ConvTranspose and Gemm, and of a MatMul's right operand of two axes; of no other MatMul
           Behind an op in float, LayerNormalization or Gelu, a Gemm or MatMul with channels computes garbage in 16 bits
blocks     4 bits. MatMul, right operand of two axes, data of at most three: in two levels, a power of two from 16 on.
           Conv of 1 x 1, one group, in 16 bits from v73 on: one level, a multiple of 8. Gemm computes garbage, and so does
           a MatMul of one level; other convolutions are refused
gamma      per tensor, 8 bits unsigned; 16 bits in an op of 16 bits, signed in LayerNormalization (from v73 on)
========== ================================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnb.quant.blocks import LPBQ_LEVELS, block_encoding
from qnb.quant.encodings import MIN_RANGE, Encoding, encoding_from_range
from qnb.quant.structure import Structure, attribute

__all__ = ["GAMMA_BITS", "WEIGHT_BITS", "Form", "form_of", "refusal", "spread"]

WEIGHT_BITS = (4, 8, 16)
GAMMA_BITS = (8, 16)
SMALLEST_BLOCK = 16
"""Of a MatMul. Smaller blocks, and those that are no power of two, compute garbage from 33 output channels on."""

_CLIPPED_TO = tuple(1 - 0.05 * step for step in range(11))

_NEWER = "16-bit weights need Hexagon v73 or newer"
_NEWER_BLOCKS = "block-wise convolutions need Hexagon v73 or newer"


@dataclass(frozen=True)
class Form:
    """The kind of grid of one parameter.

    Parameters
    ----------
    bits : int
    signed, symmetric : bool
    axis : int, optional
        The channel axis.
    uniform : bool
        Whether all channels have the same scale: the form of a weight per tensor where HTP takes channels only.
    block_axis, block_size, levels : int, optional
        As in `qnb.quant.blocks.block_encoding`.
    """

    bits: int
    signed: bool = True
    symmetric: bool = True
    axis: int | None = None
    uniform: bool = False
    block_axis: int | None = None
    block_size: int | None = None
    levels: int | None = None

    def encoding(self, values: NDArray[Any]) -> Encoding:
        """Make the grid of `values`: per tensor, channel or block; from their smallest and largest, or of least error."""
        if self.block_size is not None and self.block_axis is not None and self.axis is not None:
            return block_encoding(
                values,
                self.bits,
                axis=self.axis,
                block_axis=self.block_axis,
                block_size=self.block_size,
                levels=self.levels,
            )
        if self.bits == 4 and self.signed and self.symmetric:
            return self._least_error(values)
        others = None
        if self.axis is not None and not self.uniform:
            others = tuple(i for i in range(values.ndim) if i != self.axis)
        low, high = values.min(others), values.max(others)
        if self.axis is not None and self.uniform:
            low, high = (np.full(values.shape[self.axis], end) for end in (low, high))
        return encoding_from_range(low, high, self.bits, signed=self.signed, symmetric=self.symmetric, axis=self.axis)

    def _least_error(self, values: NDArray[Any]) -> Encoding:
        """Make the 4-bit grid that rounds and clips with the least squared error.

        With 16 codes it pays to clip: Banner et al., "Post training 4-bit quantization of convolutional networks for
        rapid-deployment", NeurIPS 2019, section 3.1; here by trying clipping values from the largest magnitude down to half
        of it, all 16 codes in use.
        """
        split = self.axis is not None and not self.uniform
        channels_first = np.moveaxis(values, self.axis, 0) if split and self.axis is not None else values[None]
        rows = channels_first.reshape(len(channels_first), -1)
        peak = np.maximum(np.abs(rows).max(axis=1, keepdims=True), MIN_RANGE / 2)
        best, least = peak / 7.5, np.full(peak.shape, np.inf)
        for share in _CLIPPED_TO:
            scale = (peak * share / 7.5).astype(rows.dtype)
            wrong = rows - np.clip(np.rint(rows / scale), -8, 7) * scale
            error = np.einsum("ij,ij->i", wrong, wrong)[:, None]
            best, least = np.where(error < least, scale, best), np.minimum(error, least)
        chosen = best.reshape(-1).astype(np.float64)
        if self.axis is not None and self.uniform:
            chosen = np.full(values.shape[self.axis], chosen[0])
        return Encoding(4, True, chosen, np.zeros(chosen.size, np.int64), self.axis)


def form_of(
    structure: Structure,
    name: str,
    bits: int,
    computes: int,
    *,
    per_channel: bool,
    block_size: int | None,
    after_float: bool = False,
) -> tuple[Form, tuple[str, ...]]:
    """Give the form nearest to what is asked for that HTP takes for the weight or gamma `name`.

    Parameters
    ----------
    structure : Structure
    name : str
    bits : int
        4, 8 or 16.
    computes : int
        Bits of the activations of the ops that read it; the fewest of them.
    per_channel : bool
    block_size : int, optional
        Entries of an input channel axis that have one scale.
    after_float : bool
        Whether the data that is read was computed in float.

    Returns
    -------
    Form
    tuple of str
        Why it is otherwise than asked for, or what it asks of the chip.
    """
    role = structure.roles[name]
    notes: list[str] = []
    if bits == 16 and computes != 16:
        bits = 8
        notes.append("8 bits instead of 16: the op computes in 8 bits, and HTP multiplies 16 only with 16")
    if role.kind == "gamma":
        if bits == 4:
            bits = 8
            notes.append("8 bits instead of 4: HTP takes no normalization's factors in 4")
        if bits == 16 and role.op == "LayerNormalization":
            return Form(16), (*notes, _NEWER)
        return Form(bits, signed=False, symmetric=False), tuple(notes)
    if bits == 16:
        notes.append(_NEWER)
    if block_size is not None:
        form, reason = _blocks(structure, name, bits, computes, block_size)
        if form is not None:
            return form, (*notes, *([reason] if reason else []))
        notes.append(f"per {'channel' if role.axis is not None else 'tensor'} instead of block-wise: {reason}")
    wanted = per_channel or block_size is not None
    if wanted and after_float and computes == 16 and role.axis is not None and role.op in ("Gemm", "MatMul"):
        wanted = False
        notes.append("per tensor instead of per channel: behind an op in float HTP computes garbage of it in 16 bits")
    if len(structure.parameters[name].dims) < 2 or role.axis is None:
        if wanted and role.axis is None and role.op == "MatMul" and block_size is None:
            notes.append("per tensor instead of per channel: HTP takes channels of a MatMul's right matrix only")
        return Form(bits), tuple(notes)
    if bits == 4 and not wanted and role.op in ("Conv", "ConvTranspose"):
        return Form(bits, axis=role.axis, uniform=True), tuple(notes)  # refused per tensor
    return Form(bits, axis=role.axis if wanted else None), tuple(notes)


def _blocks(structure: Structure, name: str, bits: int, computes: int, size: int) -> tuple[Form | None, str]:
    """Give the block-wise form of a weight with what it asks for, or None with the reason why there is none."""
    role = structure.roles[name]
    dims = list(structure.parameters[name].dims)
    if bits != 4:
        return None, "HTP takes blocks of 4-bit weights only"
    if role.op == "MatMul":
        ranks = [structure.rank(node.input[0]) for node in structure.consumers[name]]
        if role.axis is None or any(rank is None or rank > 3 for rank in ranks):
            return None, "HTP takes blocks in a MatMul of data with up to three axes and a matrix of two"
        if size < SMALLEST_BLOCK or size & (size - 1):
            return None, f"HTP takes blocks of a power of two from {SMALLEST_BLOCK} on in MatMul"
        block_axis, levels, asks = 0, LPBQ_LEVELS, ""
    elif role.op == "Conv":
        groups = {attribute(node, "group", 1) for node in structure.consumers[name]}
        if groups != {1} or any(n != 1 for n in dims[2:]) or len(dims) != 4:
            return None, "HTP takes blocks in 1 x 1 convolutions of one group only"
        if computes != 16:
            return None, "HTP takes blocks in convolutions with 16-bit activations only"
        if size % 8:
            return None, "HTP takes blocks of a multiple of 8 in convolutions"
        block_axis, levels, asks = 1, None, _NEWER_BLOCKS
    else:
        return None, f"HTP takes no blocks in {role.op}"
    if dims[block_axis] % size:
        return None, f"blocks of {size} don't divide {dims[block_axis]} input channels"
    return Form(4, axis=role.axis, block_axis=block_axis, block_size=size, levels=levels), asks


def refusal(structure: Structure, name: str, encoding: Encoding, computes: int) -> str:
    """Say why HTP does not take `encoding` for the weight or gamma `name`; empty where it does."""
    role = structure.roles[name]
    bits, channels = encoding.bits, encoding.axis is not None
    if bits == 16 and computes != 16:
        return "HTP multiplies 16-bit weights with 16-bit activations only"
    if role.kind == "gamma":
        taken = bits in GAMMA_BITS and not channels
        return "" if taken else "HTP takes a normalization's factors per tensor, in 8 or 16 bits"
    if encoding.blockwise:
        form, reason = _blocks(structure, name, bits, computes, encoding.block_size or 0)
        if form is None:
            return reason
        two = encoding.block_scale is not None
        if (form.axis, form.block_axis, form.levels is not None) != (encoding.axis, encoding.block_axis, two):
            return f"HTP takes blocks of {role.op} along axis {form.block_axis}, in {'two levels' if form.levels else 'one'}"
        return "" if encoding.symmetric and encoding.signed else "HTP takes no zero points in blocks"
    if channels and role.axis is None:
        return "HTP takes one grid for this tensor"
    if bits == 4 and not (encoding.signed and encoding.symmetric):
        return "HTP takes 4-bit weights signed and symmetric only"
    if (channels or (bits == 16 and encoding.signed)) and not encoding.symmetric:
        return f"HTP takes {'channels' if channels else '16-bit weights'} without zero points only"
    if bits == 16 and not encoding.signed and (channels or role.op == "Gemm"):
        return "HTP takes 16-bit weights signed here"
    return ""


def spread(structure: Structure, name: str, encoding: Encoding) -> Encoding:
    """Give a 4-bit grid of a convolution's weight per tensor as one per channel with the same scale; others as they are."""
    role = structure.roles[name]
    if encoding.bits != 4 or encoding.axis is not None or role.axis is None or role.op not in ("Conv", "ConvTranspose"):
        return encoding
    channels = structure.parameters[name].dims[role.axis]
    return replace(
        encoding,
        scale=np.repeat(encoding.scale, channels),
        zero_point=np.repeat(encoding.zero_point, channels),
        axis=role.axis,
    )
