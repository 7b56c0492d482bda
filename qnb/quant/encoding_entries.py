"""One tensor's entry of an encoding file, read: what stands there becomes an `Override`.

Knows each format's entry (see `qnb.quant.encoding_files` for the table); nothing of whole files or of graphs.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qnb.quant.encoding_checks import Place, bits_of, flag, is_float, known_keys, mapping, numbers, whole
from qnb.quant.encodings import BITS
from qnb.quant.overrides import Override

__all__ = ["EncodingFileWarning", "Kind", "entry_0", "entry_1", "entry_2"]

Kind = Literal["activation", "param"]
Floats = NDArray[np.float64]

_KEYS_0 = {"bitwidth", "min", "max", "scale", "offset", "dtype", "is_symmetric"}
_REQUIRED_0 = {"bitwidth", "scale", "offset", "is_symmetric"}
_KEYS_1 = {"name", "enc_type", "dtype", "bw", "is_sym", "scale", "offset"}
_BLOCK_KEYS_1 = {"PER_BLOCK": {"block_size"}, "LPBQ": {"block_size", "compressed_bw", "per_block_int_scale"}}
_KEYS_2 = {"name", "output_dtype", "y_scale", "y_zero_point", "axis", "block_size"}
_KEYS_LPBQ_2 = {"name", "output_dtype", "per_channel_float_scale", "per_block_int_scale", "axis", "block_size"}
_SHIFT_HINT = "HTP's zero points are codes: export the encodings without a shift"


class EncodingFileWarning(UserWarning):
    """An encoding file says something that was read otherwise than written."""


def entry_0(entry: Any, *, partial: bool, kind: Kind, place: Place) -> Override:
    """Read one tensor of the flat form (`partial`) or of 0.6.1: a mapping, or a list with one a channel."""
    channels = entry if isinstance(entry, list) else [entry]
    if not channels or (not partial and not isinstance(entry, list)):
        raise place.error("not a list of encodings", "0.6.1 has one encoding a channel in a list")
    places = [place.at(number) if isinstance(entry, list) else place for number in range(len(channels))]
    for channel, there in zip(channels, places, strict=True):
        known_keys(mapping(channel, there), _KEYS_0, there)
        if set(channel) != set(channels[0]):
            raise there.error("channels with different keys", "say the same of every channel")
    first, there = channels[0], places[0]
    for key in ("bitwidth", "dtype", "is_symmetric"):
        if any(channel.get(key) != first.get(key) for channel in channels):
            raise place.error(f"{key} differs between channels", "one tensor has one type")
    if is_float(first.get("dtype", "int"), there.at("dtype")):
        return Override(kind, keep_float=True)
    if not partial and (missing := _REQUIRED_0 - set(first)):
        raise there.lacking(missing, "partial entries are for the flat form, which has no version")
    bits = bits_of(first["bitwidth"], there.at("bitwidth")) if "bitwidth" in first else None
    signed = flag(first["is_symmetric"], there.at("is_symmetric")) if "is_symmetric" in first else None

    def column(key: str) -> Floats | None:
        if key not in first:
            return None
        values = [numbers(c[key], p.at(key), integers=key == "offset") for c, p in zip(channels, places, strict=True)]
        if wide := next((p for p, value in zip(places, values, strict=True) if value.shape != (1,)), None):
            raise wide.at(key).error("several values", "give one encoding a channel, in a list")
        return np.concatenate(values)

    low, high, scale, offset = (column(key) for key in ("min", "max", "scale", "offset"))
    if low is not None and high is not None and (low > high).any():
        raise places[int(np.argmax(low > high))].error("min is above max", "swap them")
    return _grid(kind, bits, signed, low, high, scale, offset, place)


def entry_1(entry: Mapping[str, Any], kind: Kind, place: Place) -> Override:
    """Read one entry of 1.0.0."""
    form = entry.get("enc_type")
    blocks = _BLOCK_KEYS_1.get(str(form), set())
    if form not in ("PER_TENSOR", "PER_CHANNEL", "PER_BLOCK", "LPBQ", None):
        raise place.at("enc_type").wrong(form, "use PER_TENSOR, PER_CHANNEL, PER_BLOCK or LPBQ")
    if "zero_point_shift" in entry:
        raise place.at("zero_point_shift").error("a zero point between two codes", _SHIFT_HINT)
    known_keys(entry, _KEYS_1 | blocks, place)
    if missing := {"dtype", "bw"} - set(entry):
        raise place.lacking(missing)
    if is_float(entry["dtype"], place.at("dtype")):
        return Override(kind, keep_float=True)
    if blocks and kind == "activation":
        raise place.error("a grid per block, of an activation", "HTP takes one grid for an activation")
    if missing := (_KEYS_1 | blocks) - set(entry):
        raise place.lacking(missing)
    bits = bits_of(entry["bw"], place.at("bw"))
    signed = flag(entry["is_sym"], place.at("is_sym"))
    scale = _one_axis(entry["scale"], place.at("scale"))
    offset = _one_axis(entry["offset"], place.at("offset"), integers=True)
    if scale.size != offset.size or (form == "PER_TENSOR" and scale.size != 1):
        raise place.error(
            f"{scale.size} scales and {offset.size} offsets, {form}",
            "give one of each a channel (PER_BLOCK: a block); PER_TENSOR has one",
        )
    if form == "LPBQ":
        return _lpbq_1(entry, bits, signed, scale, place)
    made = _grid(kind, bits, signed, None, None, scale, offset, place)
    if not blocks:
        return made
    # the blocks of a channel stand one after the other; how many channels there are is for the tensor to say
    size = whole(entry["block_size"], place.at("block_size"))
    return Override(kind, False, bits, made.signed, None, None, made.scale, made.zero_point, block_size=size)


def _lpbq_1(entry: Mapping[str, Any], bits: int, signed: bool, scale: Floats, place: Place) -> Override:
    """Read a block-wise grid in two levels; here `bits` and the offset are those of the weight once it is unfolded."""
    compressed = bits_of(entry["compressed_bw"], place.at("compressed_bw"))
    size = whole(entry["block_size"], place.at("block_size"))
    levels = _one_axis(entry["per_block_int_scale"], place.at("per_block_int_scale"), integers=True)
    if not signed:
        raise place.at("is_sym").wrong(entry["is_sym"], "LPBQ grids are symmetric: write true")
    if levels.size % scale.size:
        raise place.error(
            f"{scale.size} scales and {levels.size} block scales", "give as many block scales for each channel"
        )
    _check_levels(levels, bits - compressed, place.at("per_block_int_scale"))
    shaped = levels.reshape(scale.size, -1).astype(np.int64)
    return _lpbq("param", compressed, scale, shaped, size, None, None)


def _check_levels(levels: Floats, bits: int, place: Place) -> None:
    outside = levels[(levels < 1) | (levels > 1 << bits)]
    if outside.size:
        raise place.wrong(int(outside[0]), f"give whole numbers from 1 to {1 << bits}")


def _lpbq(
    kind: Kind | None,
    bits: int,
    channel_scale: Floats,
    levels: NDArray[np.int64],
    size: int,
    axis: int | None,
    block_axis: int | None,
) -> Override:
    # float32, as every runtime stores it, so that channel scale times integer is exact
    steps = channel_scale.astype(np.float32).astype(np.float64)
    zero = np.zeros(levels.shape, dtype=np.int64)
    grid = steps.reshape(-1, 1) * levels
    return Override(kind, False, bits, True, None, None, grid, zero, axis, size, block_axis, levels)


def entry_2(entry: Mapping[str, Any], place: Place) -> Override:
    """Read one entry of 2.0.0."""
    lpbq = bool({"per_channel_float_scale", "per_block_int_scale"} & set(entry))
    known = _KEYS_LPBQ_2 if lpbq else _KEYS_2
    known_keys(entry, known, place)
    if "output_dtype" not in entry:
        raise place.lacking({"output_dtype"})
    dtype = str(entry["output_dtype"])
    if "float" in dtype:
        if dtype in ("float16", "float32", "bfloat16"):
            return Override(keep_float=True)
        raise place.at("output_dtype").wrong(dtype, "HTP has no such grid: use an integer type")
    types = {f"{u}int{bits}": (bits, not u) for bits in BITS for u in ("", "u")}
    if dtype not in types:
        raise place.at("output_dtype").wrong(dtype, f"use one of {', '.join(types)}")
    bits, signed = types[dtype]
    if missing := (known if lpbq else {"y_scale"}) - set(entry):
        raise place.lacking(missing)
    axis = entry.get("axis")
    if axis is not None and (not isinstance(axis, int) or isinstance(axis, bool)):
        raise place.at("axis").wrong(axis, "give an integer")
    size = whole(entry["block_size"], place.at("block_size")) if entry.get("block_size") is not None else None
    if lpbq:
        return _lpbq_2(entry, bits, signed, axis, size, place)
    scale = numbers(entry["y_scale"], place.at("y_scale"))
    point = entry.get("y_zero_point")
    zero_point = np.zeros(scale.shape) if point is None else numbers(point, place.at("y_zero_point"))
    if zero_point.size == scale.size:
        zero_point = zero_point.reshape(scale.shape)
    if zero_point.shape != scale.shape or (axis is None and scale.size != 1) or (zero_point % 1).any():
        raise place.error(
            f"{scale.size} scales, {zero_point.size} zero points, axis {axis}",
            "give one scale and one integer zero point a channel, and the channels' axis",
        )
    zeros = zero_point.astype(np.int64)
    if size is None:
        if sum(n > 1 for n in scale.shape) > 1:
            raise place.at("y_scale").error(
                f"scales along {scale.ndim} axes, and no block_size", "add block_size, or give one scale a channel"
            )
        return Override(None, False, bits, signed, None, None, scale.reshape(-1), zeros.reshape(-1), axis)
    channel_axis, block_axis = _axes(scale.shape, axis, place.at("y_scale"))
    grid, zeros = (_channels_first(v, channel_axis, block_axis) for v in (scale, zeros))
    return Override(None, False, bits, signed, None, None, grid, zeros, channel_axis, size, block_axis)


def _lpbq_2(
    entry: Mapping[str, Any], bits: int, signed: bool, axis: int | None, size: int | None, place: Place
) -> Override:
    levels = numbers(entry["per_block_int_scale"], place.at("per_block_int_scale"), integers=True)
    scale = numbers(entry["per_channel_float_scale"], place.at("per_channel_float_scale"))
    if not signed:
        raise place.at("output_dtype").wrong(entry["output_dtype"], "LPBQ grids are symmetric: use a signed type")
    if size is None:
        raise place.at("block_size").wrong(size, "give a whole number from 1 on")
    channel_axis, block_axis = _axes(levels.shape, axis, place.at("per_block_int_scale"))
    _check_levels(levels, bits, place.at("per_block_int_scale"))
    shaped = _channels_first(levels, channel_axis, block_axis).astype(np.int64)
    if scale.size != shaped.shape[0]:
        raise place.error(
            f"{scale.size} channel scales for {shaped.shape[0]} channels of block scales", "give one scale a channel"
        )
    return _lpbq(None, bits, scale.reshape(-1), shaped, size, channel_axis, block_axis)


def _axes(shape: tuple[int, ...], axis: int | None, place: Place) -> tuple[int, int]:
    """Tell channel axis and block axis from the shape of block-wise scales, which has the tensor's rank."""
    if axis is None or not -len(shape) <= axis < len(shape):
        raise place.error(
            f"blocks along axis {axis} of scales of shape {list(shape)}",
            "give the blocks' axis, and scales nested as deep as the tensor has axes",
        )
    block_axis = axis % len(shape)
    others = [i for i in range(len(shape)) if i != block_axis]
    wide = [i for i in others if shape[i] > 1]
    if len(wide) > 1 or not others:
        raise place.error(
            f"scales of shape {list(shape)}, with blocks along axis {block_axis}",
            "QNN's blocks run along one axis and have a scale per channel of one other axis",
        )
    # with a single channel: output channels come first, but in a weight that is stored transposed
    return (wide or others)[0], block_axis


def _channels_first(values: NDArray[Any], channel_axis: int, block_axis: int) -> NDArray[Any]:
    """Give nested values of a block-wise grid as shape [channels, blocks]."""
    count = values.shape[channel_axis]
    return np.moveaxis(values, (channel_axis, block_axis), (0, 1)).reshape(count, -1)


def _one_axis(value: Any, place: Place, *, integers: bool = False) -> Floats:
    values = numbers(value, place, integers=integers)
    if values.ndim == 1:
        return values
    raise place.error("nested lists", "1.0.0 has one flat list, a channel's blocks one after the other")


def _grid(
    kind: Kind,
    bits: int | None,
    signed: bool | None,
    low: Floats | None,
    high: Floats | None,
    scale: Floats | None,
    offset: Floats | None,
    place: Place,
) -> Override:
    """Turn the parts of an entry before 2.0.0, whose codes count as unsigned, into an override."""
    if offset is not None and (offset > 0).any():
        if low is None or high is None or not (low < 0).any():
            raise place.at("offset").error(
                f"{offset.max():g}, but QNN's offsets are at most 0",
                "write the negative of the zero point, or give min and max instead of scale and offset",
            )
        warnings.warn(
            f"{place.origin}: {place.path}: offset {offset.max():g} > 0 is an unsigned zero point, where QNN's offset is "
            "its negative: the grid is made from min and max instead",
            EncodingFileWarning,
            stacklevel=5,
        )
        scale = offset = None
    if offset is not None and scale is None and (low is None or high is None):
        raise place.error("offset without scale", "give scale and offset, or min and max")
    # one activation grid is as good as the other, and HTP wants activations unsigned
    as_signed = bool(signed) and kind == "param"
    zero_point = None
    if scale is not None and offset is not None:
        if bits is None:
            raise place.error("an offset without bitwidth", "add bitwidth: the zero point depends on it")
        zero_point = (-offset).astype(np.int64) - ((1 << (bits - 1)) if as_signed else 0)
        _agree(bits, low, high, scale, offset, place)
    said = as_signed if signed is not None and kind == "param" else None
    return Override(kind, False, bits, said, low, high, scale, zero_point)


def _agree(bits: int, low: Floats | None, high: Floats | None, scale: Floats, offset: Floats, place: Place) -> None:
    """Refuse a range that is more than a step away from the grid it stands beside."""
    for key, given, code in (("min", low, 0), ("max", high, (1 << bits) - 1)):
        if given is None:
            continue
        grid = scale * (code + offset)
        worst = int(np.argmax(np.abs(grid - given) / scale))
        if abs(grid[worst] - given[worst]) > 1.01 * scale[worst]:
            raise place.error(
                f"{key} is {given[worst]:g}, but scale and offset put it at {grid[worst]:g}",
                "give either min and max, or scale and offset",
            )
