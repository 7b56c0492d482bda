"""Encoding files: reads and writes the formats that QNN's converter and AIMET exchange encodings in.

Knows the formats and their traps; nothing of graphs. Sources: AIMET's encoding format specification (0.6.1, 1.0.0, 2.0.0);
the flat form is the one of Qualcomm's converter tutorials.

========== =====================================================================================================
format     one tensor
========== =====================================================================================================
``flat``   ``{"bitwidth", "min", "max", "scale", "offset"}`` by name, any part may be left out; a list of them per channel
``0.6.1``  a list of ``{"bitwidth", "dtype", "is_symmetric", "min", "max", "scale", "offset"}`` by name, one a channel
``1.0.0``  ``{"name", "enc_type", "dtype", "bw", "is_sym", "scale": [], "offset": []}`` in a list
``2.0.0``  ``{"name", "output_dtype", "y_scale", "y_zero_point", "axis"}`` in one list, in ONNX's terms
========== =====================================================================================================

Before 2.0.0 codes count as unsigned: ``real = scale * (code + offset)`` with code from 0 on, so that offset ≤ 0; a signed
grid is marked as symmetric, and its offset is lower by ``2**(bits-1)`` than its own codes would have it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from qnb import keyvalues
from qnb.errors import BadConfig, UnknownName
from qnb.files import write_text
from qnb.quant.encoding_checks import (
    SHAPE_HINT,
    bits_of,
    blockwise,
    flag,
    is_float,
    known_keys,
    lacking,
    listed,
    mapping,
    name_of,
    numbers,
)
from qnb.quant.encodings import BIAS_BITS, BITS, Encoding, Encodings
from qnb.quant.overrides import Override, Overrides

__all__ = ["FORMATS", "EncodingFileWarning", "Format", "dumps", "read", "write"]

Format = Literal["flat", "0.6.1", "1.0.0", "2.0.0"]
FORMATS: tuple[Format, ...] = get_args(Format)

_Kind = Literal["activation", "param"]
_SECTIONS: tuple[tuple[str, _Kind], ...] = (("activation_encodings", "activation"), ("param_encodings", "param"))
_BIT_KEYS = {"activation_bitwidth", "param_bitwidth", "bias_bitwidth"}
# what AIMET writes about how a file came to be
_ABOUT = {"version", "producer", "quantizer_args", "excluded_layers"}
_ENTRY_KEYS: dict[Format, set[str]] = {
    "flat": {"bitwidth", "min", "max", "scale", "offset", "dtype", "is_symmetric"},
    "0.6.1": {"bitwidth", "min", "max", "scale", "offset", "dtype", "is_symmetric"},
    "1.0.0": {"name", "enc_type", "dtype", "bw", "is_sym", "scale", "offset"},
    "2.0.0": {"name", "output_dtype", "y_scale", "y_zero_point", "axis"},
}
_BLOCKWISE = {"block_size", "per_block_int_scale", "per_channel_float_scale", "compressed_bw", "zero_point_shift"}


class EncodingFileWarning(UserWarning):
    """An encoding file says something that was read otherwise than written."""


def read(source: str | Path | Mapping[str, Any]) -> Overrides:
    """Read encodings in any of `FORMATS`; which one is seen from the content.

    Parameters
    ----------
    source : path, str or mapping
        A JSON or YAML file, such text itself, or what was parsed from it.

    Returns
    -------
    Overrides
        Entries of the flat form may be partial. Axes are open except in 2.0.0, which states them.

    Raises
    ------
    BadConfig
        If anything in it is unknown, missing or contradictory: nothing is passed over.

    Warns
    -----
    EncodingFileWarning
        If a positive offset goes with a negative minimum: QNN's offsets are ≤ 0, so it was meant as an unsigned zero
        point, and the grid is made from min and max.
    """
    content, origin = _load(source)
    if not isinstance(content, Mapping):
        raise BadConfig(f"{origin}: not a mapping but a {type(content).__name__}", hint=SHAPE_HINT)
    layout = _layout_of(content, origin)
    if layout == "2.0.0":
        known_keys(content, _ABOUT | {"encodings"}, origin, "top level")
        entries = listed(content["encodings"], origin, "encodings")
        return Overrides(dict(_collected((_entry_2(e, origin) for e in entries), origin)), origin=origin)
    known_keys(content, {s for s, _ in _SECTIONS} | (_BIT_KEYS if layout == "flat" else _ABOUT), origin, "top level")
    found: list[tuple[str, Override]] = []
    for section, kind in _SECTIONS:
        body = content.get(section) or {}
        if layout == "1.0.0":
            found += [_entry_1(e, kind, origin) for e in listed(body, origin, section)]
        elif isinstance(body, Mapping):
            found += [(str(n), _entry_0(str(n), e, layout, kind, origin)) for n, e in body.items()]
        else:
            raise BadConfig(f"{origin}: {section} is not a mapping of tensor names", hint=SHAPE_HINT)
    bits = {key: bits_of(content[key], origin, "top level", key) for key in _BIT_KEYS & set(content)}
    if bits.get("bias_bitwidth", BIAS_BITS) != BIAS_BITS:
        raise BadConfig(
            f"{origin}: bias_bitwidth is {bits['bias_bitwidth']}",
            hint="HTP adds biases in 32 bits: write 32 or leave the key out",
        )
    return Overrides(
        dict(_collected(found, origin)), bits.get("activation_bitwidth"), bits.get("param_bitwidth"), origin=origin
    )


def write(encodings: Encodings, path: str | Path, layout: Format = "2.0.0") -> Path:
    """Write `encodings` as JSON; return the path.

    Raises
    ------
    BadConfig
        If the format can't express them (signed activations before 2.0.0).
    StorageError
        If the file can't be written.
    """
    return write_text(path, dumps(encodings, layout))


def dumps(encodings: Encodings, layout: Format = "2.0.0") -> str:
    """Give the JSON text of `encodings`; see `write`."""
    if layout not in FORMATS:
        raise UnknownName.among("encoding format", layout, FORMATS)
    content: dict[str, Any]
    if layout == "2.0.0":
        named = {**encodings.activations, **encodings.weights}
        content = {"version": layout, "encodings": [_as_2(name, e) for name, e in named.items()]}
    else:
        content = {} if layout == "flat" else {"version": layout}
        for (section, kind), group in zip(_SECTIONS, (encodings.activations, encodings.weights), strict=True):
            entries = {name: _as_0_or_1(name, e, kind, layout) for name, e in group.items()}
            content[section] = list(entries.values()) if layout == "1.0.0" else entries
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


# --- reading -------------------------------------------------------------------------------------------------------


def _load(source: str | Path | Mapping[str, Any]) -> tuple[Any, str]:
    if not isinstance(source, str | Path):
        return source, "the overrides"
    text, origin = str(source), "the overrides"
    if isinstance(source, Path) or ("\n" not in text and not text.lstrip().startswith(("{", "[")) and ": " not in text):
        path, origin = Path(source), str(source)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise BadConfig(
                f"{path}: {reason}", hint="give the path of a JSON or YAML encoding file, or its text"
            ) from error
    return keyvalues.read(text, origin), origin


def _layout_of(content: Mapping[str, Any], origin: str) -> Format:
    version = content.get("version")
    if version is None:
        if "encodings" in content:
            return "2.0.0"
        bodies = [content[s] for s, _ in _SECTIONS if content.get(s)]
        if any(isinstance(body, list) for body in bodies):
            return "1.0.0"
        entries = [e for body in bodies if isinstance(body, Mapping) for e in body.values()]
        return "0.6.1" if entries and all(isinstance(e, list) for e in entries) else "flat"
    known: dict[str, Format] = {"0": "0.6.1", "1": "1.0.0", "2": "2.0.0"}
    layout = known.get(str(version).split(".")[0])
    if layout is None:
        raise BadConfig(
            f"{origin}: version is {version!r}",
            hint="versions 0.4.0 to 0.6.1, 1.0.0 and 2.0.0 can be read; leave it out for the flat form",
        )
    if (layout == "2.0.0") != ("encodings" in content):
        raise BadConfig(f"{origin}: the sections don't fit version {version}", hint=SHAPE_HINT)
    return layout


def _entry_0(name: str, entry: Any, layout: Format, kind: _Kind, origin: str) -> Override:
    """Read one tensor of the flat form or 0.6.1: a mapping, or a list with one a channel."""
    channels = entry if isinstance(entry, list) else [entry]
    if not channels or (layout == "0.6.1" and not isinstance(entry, list)):
        raise BadConfig(
            f"{origin}: tensor {name!r}: not a list of encodings", hint="0.6.1 has one encoding a channel in a list"
        )
    keys = set()
    for channel in channels:
        known_keys(mapping(channel, origin, name), _ENTRY_KEYS[layout], origin, f"tensor {name!r}")
        keys.add(frozenset(channel))
    if len(keys) > 1:
        raise BadConfig(
            f"{origin}: tensor {name!r}: channels with different keys", hint="say the same of every channel"
        )

    def column(key: str) -> list[Any]:
        return [channel.get(key) for channel in channels]

    first = channels[0]
    for key in ("bitwidth", "dtype", "is_symmetric"):
        if any(value != first.get(key) for value in column(key)):
            raise BadConfig(
                f"{origin}: tensor {name!r}: {key} differs between channels", hint="one tensor has one type"
            )
    if is_float(first.get("dtype", "int"), origin, name):
        return Override(kind, keep_float=True)
    if layout == "0.6.1" and not {"bitwidth", "scale", "offset", "is_symmetric"} <= set(first):
        missing = {"bitwidth", "scale", "offset", "is_symmetric"} - set(first)
        raise lacking(origin, name, missing, "partial entries are for the flat form, which has no version")
    bits = bits_of(first["bitwidth"], origin, name, "bitwidth") if "bitwidth" in first else None
    signed = flag(first["is_symmetric"], origin, name, "is_symmetric") if "is_symmetric" in first else None
    low, high, scale, offset = (
        numbers(column(key), origin, name, key) if key in first else None for key in ("min", "max", "scale", "offset")
    )
    if low is not None and high is not None and (low > high).any():
        raise BadConfig(f"{origin}: tensor {name!r}: min is above max", hint="swap them")
    return _grid(name, kind, bits, signed, low, high, scale, offset, origin)


def _grid(
    name: str,
    kind: _Kind,
    bits: int | None,
    signed: bool | None,
    low: NDArray[np.float64] | None,
    high: NDArray[np.float64] | None,
    scale: NDArray[np.float64] | None,
    offset: NDArray[np.float64] | None,
    origin: str,
) -> Override:
    """Turn the parts of an entry before 2.0.0, whose codes count as unsigned, into an override."""
    ranged = low is not None and high is not None
    if offset is not None and (offset > 0).any():
        if not (ranged and low is not None and (low < 0).any()):
            raise BadConfig(
                f"{origin}: tensor {name!r}: offset is {offset.max():g}, but QNN's offsets are at most 0",
                hint="write the negative of the zero point, or give min and max instead of scale and offset",
            )
        warnings.warn(
            f"{origin}: tensor {name!r}: offset {offset.max():g} > 0 is an unsigned zero point, where QNN's offset is its "
            "negative: the grid is made from min and max instead",
            EncodingFileWarning,
            stacklevel=5,
        )
        scale = offset = None
    if offset is not None and scale is None and not ranged:
        raise BadConfig(
            f"{origin}: tensor {name!r}: offset without scale", hint="give scale and offset, or min and max"
        )
    # one activation grid is as good as the other, and HTP wants activations unsigned
    as_signed = bool(signed) and kind == "param"
    zero_point = None
    if scale is not None and offset is not None:
        if bits is None:
            raise BadConfig(
                f"{origin}: tensor {name!r}: an offset without bitwidth",
                hint="add bitwidth: the zero point depends on it",
            )
        zero_point = (-offset).astype(np.int64) - ((1 << (bits - 1)) if as_signed else 0)
        _agree(name, bits, low, high, scale, offset, origin)
    said = as_signed if signed is not None and kind == "param" else None
    return Override(kind, False, bits, said, low, high, scale, zero_point)


def _agree(
    name: str,
    bits: int,
    low: NDArray[np.float64] | None,
    high: NDArray[np.float64] | None,
    scale: NDArray[np.float64],
    offset: NDArray[np.float64],
    origin: str,
) -> None:
    """Refuse a range that is more than a step away from the grid it stands beside."""
    for key, given, code in (("min", low, 0), ("max", high, (1 << bits) - 1)):
        if given is None:
            continue
        grid = scale * (code + offset)
        worst = int(np.argmax(np.abs(grid - given) / scale))
        if abs(grid[worst] - given[worst]) > 1.01 * scale[worst]:
            raise BadConfig(
                f"{origin}: tensor {name!r}: {key} is {given[worst]:g}, but scale and offset put it at {grid[worst]:g}",
                hint="give either min and max, or scale and offset",
            )


def _entry_1(entry: Any, kind: _Kind, origin: str) -> tuple[str, Override]:
    name = name_of(entry, origin)
    known = _ENTRY_KEYS["1.0.0"]
    if entry.get("enc_type") not in ("PER_TENSOR", "PER_CHANNEL", None) or _BLOCKWISE & set(entry):
        raise blockwise(origin, name)
    known_keys(entry, known, origin, f"tensor {name!r}")
    if "dtype" not in entry or "bw" not in entry:
        raise lacking(origin, name, {"dtype", "bw"} - set(entry))
    if is_float(entry["dtype"], origin, name):
        return name, Override(kind, keep_float=True)
    if missing := known - set(entry):
        raise lacking(origin, name, missing)
    scale, offset = (numbers(entry[key], origin, name, key) for key in ("scale", "offset"))
    if scale.size != offset.size or (entry["enc_type"] == "PER_TENSOR" and scale.size != 1):
        raise BadConfig(
            f"{origin}: tensor {name!r}: {scale.size} scales and {offset.size} offsets, {entry['enc_type']}",
            hint="give one of each a channel; PER_TENSOR has one",
        )
    bits = bits_of(entry["bw"], origin, name, "bw")
    signed = flag(entry["is_sym"], origin, name, "is_sym")
    return name, _grid(name, kind, bits, signed, None, None, scale, offset, origin)


def _entry_2(entry: Any, origin: str) -> tuple[str, Override]:
    name = name_of(entry, origin)
    if _BLOCKWISE & set(entry) or isinstance(entry.get("y_scale"), Mapping):
        raise blockwise(origin, name)
    known_keys(entry, _ENTRY_KEYS["2.0.0"], origin, f"tensor {name!r}")
    if "output_dtype" not in entry:
        raise lacking(origin, name, {"output_dtype"})
    dtype = str(entry["output_dtype"])
    if "float" in dtype:
        if dtype in ("float16", "float32", "bfloat16"):
            return name, Override(keep_float=True)
        raise BadConfig(
            f"{origin}: tensor {name!r}: output_dtype is {dtype}", hint="HTP has no such grid: use an integer type"
        )
    types = {f"{u}int{bits}": (bits, not u) for bits in BITS for u in ("", "u")}
    if dtype not in types:
        raise BadConfig(f"{origin}: tensor {name!r}: output_dtype is {dtype!r}", hint=f"use one of {', '.join(types)}")
    if "y_scale" not in entry:
        raise lacking(origin, name, {"y_scale"})
    bits, signed = types[dtype]
    axis = entry.get("axis")
    if axis is not None and (not isinstance(axis, int) or isinstance(axis, bool)):
        raise BadConfig(f"{origin}: tensor {name!r}: axis is {axis!r}", hint="give an integer")
    scale = numbers(entry["y_scale"], origin, name, "y_scale")
    point = entry.get("y_zero_point")
    zero_point = np.zeros(scale.size) if point is None else numbers(point, origin, name, "y_zero_point")
    if zero_point.size != scale.size or (axis is None and scale.size != 1) or (zero_point % 1).any():
        raise BadConfig(
            f"{origin}: tensor {name!r}: {scale.size} scales, {zero_point.size} zero points, axis {axis}",
            hint="give one scale and one integer zero point a channel, and the channels' axis",
        )
    return name, Override(None, False, bits, signed, None, None, scale, zero_point.astype(np.int64), axis)


def _collected(entries: Any, origin: str) -> Any:
    seen = set()
    for name, override in entries:
        if name in seen:
            raise BadConfig(f"{origin}: tensor {name!r} is there twice", hint="leave one of its entries out")
        seen.add(name)
        if override.scale is not None and not ((override.scale > 0).all()):
            raise BadConfig(
                f"{origin}: tensor {name!r}: a scale is not above 0", hint="leave it out to have it made from the range"
            )
        yield name, override


# --- writing -------------------------------------------------------------------------------------------------------


def _as_2(name: str, encoding: Encoding) -> dict[str, Any]:
    per_channel = encoding.axis is not None
    entry: dict[str, Any] = {"name": name, "output_dtype": encoding.dtype}
    entry["y_scale"] = encoding.scale.tolist() if per_channel else float(encoding.scale[0])
    if encoding.zero_point.any():
        entry["y_zero_point"] = encoding.zero_point.tolist() if per_channel else int(encoding.zero_point[0])
    if per_channel:
        entry["axis"] = encoding.axis
    return entry


def _as_0_or_1(name: str, encoding: Encoding, kind: _Kind, layout: Format) -> Any:
    if encoding.signed and kind == "activation":
        raise BadConfig(
            f"tensor {name!r}: a signed activation can't be told in format {layout}",
            hint="write format 2.0.0, which states types",
        )
    bits = encoding.bits
    offset = encoding.offset - ((1 << (bits - 1)) if encoding.signed else 0)
    if layout == "1.0.0":
        return {
            "name": name,
            "enc_type": "PER_TENSOR" if encoding.axis is None else "PER_CHANNEL",
            "dtype": "INT",
            "bw": bits,
            "is_sym": encoding.signed,
            "scale": encoding.scale.tolist(),
            "offset": offset.tolist(),
        }
    columns = zip(encoding.min.tolist(), encoding.max.tolist(), encoding.scale.tolist(), offset.tolist(), strict=True)
    grids = [{"bitwidth": bits, "min": lo, "max": hi, "scale": scale, "offset": off} for lo, hi, scale, off in columns]
    if layout == "flat" and encoding.axis is None and not encoding.signed:
        return grids[0]
    channels = [{**grid, "dtype": "int", "is_symmetric": str(encoding.signed)} for grid in grids]
    return channels[0] if layout == "flat" and encoding.axis is None else channels
