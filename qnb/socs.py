"""Snapdragon SoCs: which there are, and whether qnb can build for one.

The table is ``data/socs.csv`` (origin in ``data/README.md``). Knows nothing of runtimes.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

from qnb.errors import BadInput, UnknownName


@dataclass(frozen=True)
class Soc:
    """One row of the SoC table.

    Attributes
    ----------
    soc_model : int
        QNN's number of the SoC (option ``soc_model``).
    part : str
        Part number, such as ``SM8650``.
    name : str
        Marketing name, or ``""``.
    arch : str
        Hexagon architecture, such as ``v75``; ``""`` where there is none.
    usable : bool
        Whether it has a Hexagon Tensor Processor that QNN's HTP backend targets.
    vtcm_mb : int or None
        Tightly coupled memory of the NPU in MiB, where known.
    fp16 : bool
        Whether the compiler accepts fp16 graphs for it.
    adreno : str
        GPU, or ``""``.
    qairt : tuple of str
        QAIRT versions whose compiler was seen to know it.
    notes : str
        Peculiarities.
    """

    soc_model: int
    part: str
    name: str
    arch: str
    usable: bool
    vtcm_mb: int | None
    fp16: bool
    adreno: str
    qairt: tuple[str, ...]
    notes: str

    def __str__(self) -> str:
        return f"{self.part} ({self.name})" if self.name else self.part

    @property
    def labels(self) -> tuple[str, ...]:
        """Every way to write it: part, name, id, and a phone part in the name such as ``SM8250``."""
        inner = re.findall(r"\b(?:SM|SC|QC[SM])\d{4}\w*", self.name)
        return tuple(x for x in (self.part, self.name, str(self.soc_model), *inner) if x)


@cache
def table() -> tuple[Soc, ...]:
    """All known SoCs, newest architecture first, in the order of the file."""
    text = (resources.files("qnb") / "data" / "socs.csv").read_text(encoding="utf-8")
    return tuple(
        Soc(
            soc_model=int(row["soc_model"]),
            part=row["part"],
            name=row["name"],
            arch=row["hexagon_arch"] if row["hexagon_arch"] != "none" else "",
            usable=row["htp_usable"] == "yes",
            vtcm_mb=int(row["vtcm_mb"]) if row["vtcm_mb"] else None,
            fp16=row["htp_fp16"] == "yes",
            adreno=row["adreno_gpu"],
            qairt=tuple(re.findall(r"compiled with QAIRT (\d+\.\d+)", row["sources"])),
            notes=row["notes"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def _key(text: object) -> str:
    return re.sub(r"[^a-z0-9+]", "", str(text).lower())


def _near(text: object, usable_only: bool = True) -> list[str]:
    """Parts and names that look like `text`."""
    keys = {_key(label): label for soc in table() if soc.usable or not usable_only for label in soc.labels}
    close = difflib.get_close_matches(_key(text), keys, n=4, cutoff=0.6)
    return [keys[k] for k in close]


def find(soc: str | int | Soc, *, qairt: str | None = None) -> Soc:
    """Find an SoC that qnb can build for.

    Parameters
    ----------
    soc : str, int or Soc
        Part (``"SM8650"``), marketing name (``"Snapdragon 8 Gen 3"``, ``"8 gen 3"``) or QNN id (57, ``"57"``).
    qairt : str, optional
        Version of the runtime that will compile, such as ``"2.47"``, or ``"unknown"``; an SoC newer than that is refused.

    Raises
    ------
    UnknownName
        If there is no such SoC; near names are given.
    BadInput
        If it has no Hexagon Tensor Processor, or is newer than the runtime.
    """
    found = soc if isinstance(soc, Soc) else _lookup(soc)
    if not found.usable:
        same_number = re.findall(r"\d", found.part)[:1]
        near = [s.part for s in table() if s.usable and re.findall(r"\d", s.part)[:1] == same_number][:3]
        why = found.notes.split(";")[0] or "not verified for QNN's HTP backend"
        raise BadInput(
            f"{found} can't be a target: {why}",
            hint=f"choose one with a Hexagon Tensor Processor (v68 or later), for instance {', '.join(near) or 'SM8650'}",
        )
    known_since = min(found.qairt, key=_version, default="")
    if known_since and qairt not in (None, "unknown") and _version(str(qairt)) < _version(known_since):
        raise BadInput(
            f"{found} (Hexagon {found.arch}) is newer than the runtime: QAIRT {qairt} does not know it",
            hint=f"it needs QAIRT {known_since} or later, or choose an older SoC",
        )
    return found


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _lookup(soc: str | int) -> Soc:
    wanted = _key(soc)
    for candidate in table():
        if candidate.soc_model == soc if isinstance(soc, int) else wanted in map(_key, candidate.labels):
            return candidate
    short = [s for s in table() if s.name and _key(s.name).removeprefix("snapdragon") == wanted]
    if short:
        return short[0]
    newest = max(s.soc_model for s in table())
    if wanted.isdigit() and int(wanted) > newest:
        raise BadInput(
            f"SoC id {soc} is newer than every SoC that this qnb was verified with (up to {newest})",
            hint="the compiler takes such an id in silence without knowing the chip; choose a known SoC, or update qnb",
        )
    near = _near(soc)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UnknownName(
        f"unknown SoC {soc!r}",
        hint=f"{hint}Give a part (SM8650), a name (Snapdragon 8 Gen 3) or a QNN id (57); qnb.socs.table() lists them",
        kind="SoC",
        name=str(soc),
    )


def find_all(socs: str | int | Soc | Iterable[str | int | Soc], *, qairt: str | None = None) -> list[Soc]:
    """Find several; a text may name more than one, separated by commas."""
    return [find(s, qairt=qairt) for s in _split(socs)]


def _split(socs: str | int | Soc | Iterable[str | int | Soc]) -> Iterator[str | int | Soc]:
    if isinstance(socs, str):
        yield from (part.strip() for part in socs.split(",") if part.strip())
    elif isinstance(socs, int | Soc):
        yield socs
    else:
        for item in socs:
            yield from _split(item)
