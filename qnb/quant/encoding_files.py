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

Grids per block: 1.0.0 adds ``block_size`` (``PER_BLOCK``) and lists the blocks of a channel one after the other; 2.0.0 adds
``block_size``, nests ``y_scale`` as deep as the tensor has axes, and means the blocks' axis by ``axis``. A grid in two
levels (``LPBQ``) has a float per channel (``scale``; 2.0.0: ``per_channel_float_scale``) and an integer per block
(``per_block_int_scale``); in 1.0.0 ``compressed_bw`` are the bits of its codes, and ``bw`` twice as many.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from qnb import keyvalues
from qnb.errors import BadConfig, UnknownName
from qnb.files import write_text
from qnb.quant.encoding_checks import SHAPE_HINT, Place, bits_of, known_keys, listed, name_of
from qnb.quant.encoding_entries import EncodingFileWarning, Kind, entry_0, entry_1, entry_2
from qnb.quant.encodings import BIAS_BITS, Encoding, Encodings
from qnb.quant.overrides import Override, Overrides

__all__ = ["FORMATS", "EncodingFileWarning", "Format", "dumps", "read", "write"]

Format = Literal["flat", "0.6.1", "1.0.0", "2.0.0"]
FORMATS: tuple[Format, ...] = get_args(Format)

_SECTIONS: tuple[tuple[str, Kind], ...] = (("activation_encodings", "activation"), ("param_encodings", "param"))
_BIT_KEYS = {"activation_bitwidth", "param_bitwidth", "bias_bitwidth"}
# what AIMET writes about how a file came to be
_ABOUT = {"version", "producer", "quantizer_args", "excluded_layers"}


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
    top = Place(origin)
    if not isinstance(content, Mapping):
        raise top.error(f"not a mapping but a {type(content).__name__}", SHAPE_HINT)
    layout = _layout_of(content, top)
    found: list[tuple[Place, str, Override]] = []
    if layout == "2.0.0":
        known_keys(content, _ABOUT | {"encodings"}, top)
        for place, name, entry in _listed_entries(content["encodings"], top.at("encodings")):
            found.append((place, name, entry_2(entry, place)))
        return Overrides(_collected(found), origin=origin)
    known_keys(content, {s for s, _ in _SECTIONS} | (_BIT_KEYS if layout == "flat" else _ABOUT), top)
    for section, kind in _SECTIONS:
        body = content.get(section) or {}
        if layout == "1.0.0":
            for place, name, entry in _listed_entries(body, top.at(section)):
                found.append((place, name, entry_1(entry, kind, place)))
        elif isinstance(body, Mapping):
            for name, entry in body.items():
                place = top.at(section).at(str(name), str(name))
                found.append((place, str(name), entry_0(entry, partial=layout == "flat", kind=kind, place=place)))
        else:
            raise top.at(section).error("not a mapping of tensor names", SHAPE_HINT)
    bits = {key: bits_of(content[key], top.at(key)) for key in _BIT_KEYS & set(content)}
    if bits.get("bias_bitwidth", BIAS_BITS) != BIAS_BITS:
        raise top.at("bias_bitwidth").wrong(
            bits["bias_bitwidth"], "HTP adds biases in 32 bits: write 32 or leave the key out"
        )
    return Overrides(_collected(found), bits.get("activation_bitwidth"), bits.get("param_bitwidth"), origin=origin)


def write(
    encodings: Encodings,
    path: str | Path,
    layout: Format = "2.0.0",
    *,
    ranks: Mapping[str, int] | None = None,
) -> Path:
    """Write `encodings` as JSON; return the path.

    Parameters
    ----------
    encodings : Encodings
    path : path
    layout : {"flat", "0.6.1", "1.0.0", "2.0.0"}
    ranks : mapping of str to int, optional
        How many axes each tensor has, as 2.0.0 nests the scales of a grid per block that deep; by default as many as the
        encoding names.

    Raises
    ------
    BadConfig
        If the format can't express them (signed activations before 2.0.0; grids per block before 1.0.0).
    StorageError
        If the file can't be written.
    """
    return write_text(path, dumps(encodings, layout, ranks=ranks))


def dumps(encodings: Encodings, layout: Format = "2.0.0", *, ranks: Mapping[str, int] | None = None) -> str:
    """Give the JSON text of `encodings`; see `write`."""
    if layout not in FORMATS:
        raise UnknownName.among("encoding format", layout, FORMATS)
    content: dict[str, Any]
    if layout == "2.0.0":
        named = {**encodings.activations, **encodings.weights}
        entries = [_as_2(name, e, (ranks or {}).get(name)) for name, e in named.items()]
        content = {"version": layout, "encodings": entries}
    else:
        content = {} if layout == "flat" else {"version": layout}
        for (section, kind), group in zip(_SECTIONS, (encodings.activations, encodings.weights), strict=True):
            written = {name: _as_0_or_1(name, e, kind, layout) for name, e in group.items()}
            content[section] = list(written.values()) if layout == "1.0.0" else written
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


def _layout_of(content: Mapping[str, Any], top: Place) -> Format:
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
        raise top.at("version").wrong(
            version, "versions 0.4.0 to 0.6.1, 1.0.0 and 2.0.0 can be read; leave it out for the flat form"
        )
    if (layout == "2.0.0") != ("encodings" in content):
        raise top.error(f"the sections don't fit version {version}", SHAPE_HINT)
    return layout


def _listed_entries(body: Any, place: Place) -> Iterator[tuple[Place, str, Mapping[str, Any]]]:
    for number, entry in enumerate(listed(body, place)):
        name = name_of(entry, place.at(number))
        yield place.at(number, name), name, entry


def _collected(found: list[tuple[Place, str, Override]]) -> dict[str, Override]:
    tensors: dict[str, Override] = {}
    for place, name, override in found:
        if name in tensors:
            raise place.error("the tensor is there twice", "leave one of its entries out")
        tensors[name] = override
        if override.scale is not None and not (override.scale > 0).all():
            raise place.error("a scale is not above 0", "leave it out to have it made from the range")
    return tensors


# --- writing -------------------------------------------------------------------------------------------------------


def _as_2(name: str, encoding: Encoding, rank: int | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "output_dtype": encoding.dtype}
    if encoding.blockwise:
        return entry | _blocks_2(encoding, rank)
    per_channel = encoding.axis is not None
    entry["y_scale"] = encoding.scale.tolist() if per_channel else float(encoding.scale[0])
    if encoding.zero_point.any():
        entry["y_zero_point"] = encoding.zero_point.tolist() if per_channel else int(encoding.zero_point[0])
    if per_channel:
        entry["axis"] = encoding.axis
    return entry


def _blocks_2(encoding: Encoding, rank: int | None) -> dict[str, Any]:
    assert encoding.axis is not None
    assert encoding.block_axis is not None
    axes = encoding.axis, encoding.block_axis

    def nested(values: NDArray[Any]) -> Any:
        """Nest values of shape [C, B] (or [C, 1]) as deep as the tensor has axes."""
        rest = (1,) * ((rank or max(axes) + 1) - 2)
        return np.moveaxis(values.reshape(values.shape + rest), (0, 1), axes).tolist()

    entry: dict[str, Any]
    if encoding.block_scale is not None:
        entry = {
            "per_channel_float_scale": nested(encoding.channel_scale.reshape(-1, 1)),
            "per_block_int_scale": nested(encoding.block_scale),
        }
    else:
        entry = {"y_scale": nested(encoding.scale)}
        if encoding.zero_point.any():
            entry["y_zero_point"] = nested(encoding.zero_point)
    return entry | {"axis": encoding.block_axis, "block_size": encoding.block_size}


def _as_0_or_1(name: str, encoding: Encoding, kind: Kind, layout: Format) -> Any:
    if encoding.signed and kind == "activation":
        raise BadConfig(
            f"tensor {name!r}: a signed activation can't be told in format {layout}",
            hint="write format 2.0.0, which states types",
        )
    bits = encoding.bits
    offset = encoding.offset - ((1 << (bits - 1)) if encoding.signed else 0)
    if layout == "1.0.0":
        return _as_1(name, encoding, offset)
    if encoding.blockwise:
        raise BadConfig(
            f"tensor {name!r}: a grid per block can't be told in format {layout}", hint="write format 1.0.0 or 2.0.0"
        )
    columns = zip(encoding.min.tolist(), encoding.max.tolist(), encoding.scale.tolist(), offset.tolist(), strict=True)
    grids = [{"bitwidth": bits, "min": lo, "max": hi, "scale": scale, "offset": off} for lo, hi, scale, off in columns]
    if layout == "flat" and encoding.axis is None and not encoding.signed:
        return grids[0]
    channels = [{**grid, "dtype": "int", "is_symmetric": str(encoding.signed)} for grid in grids]
    return channels[0] if layout == "flat" and encoding.axis is None else channels


def _as_1(name: str, encoding: Encoding, offset: NDArray[np.int64]) -> dict[str, Any]:
    form = "PER_BLOCK" if encoding.blockwise else "PER_TENSOR" if encoding.axis is None else "PER_CHANNEL"
    entry: dict[str, Any] = {
        "name": name,
        "enc_type": form,
        "dtype": "INT",
        "bw": encoding.bits,
        "is_sym": encoding.signed,
        "scale": encoding.scale.reshape(-1).tolist(),
        "offset": offset.reshape(-1).tolist(),
    }
    if encoding.blockwise:
        entry["block_size"] = encoding.block_size
    if encoding.block_scale is None:
        return entry
    unfolded = 2 * encoding.bits
    return entry | {
        "enc_type": "LPBQ",
        "bw": unfolded,
        "compressed_bw": encoding.bits,
        "scale": encoding.channel_scale.tolist(),
        "offset": [-(1 << (unfolded - 1))] * encoding.channels,
        "per_block_int_scale": encoding.block_scale.reshape(-1).tolist(),
    }
