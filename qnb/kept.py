"""Arrays kept on disk between the kernel and its workers: the first samples of a stream, and what is found layer by layer.

Samples lie in a folder as ``00000.npz`` …, one array an input. Knows numpy and files; nothing of sessions and models.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qnb.files import replacing, storage_errors

__all__ = ["files", "first", "keeping", "load", "put", "save"]

Sample = Mapping[str, NDArray[Any]]


def save(path: Path, arrays: Sample) -> None:
    """Write a .npz; unlike `numpy.savez` it takes any name, ``file`` too."""
    with storage_errors(path), zipfile.ZipFile(path, "w") as archive:
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(value), allow_pickle=False)


def load(path: Path) -> dict[str, NDArray[Any]]:
    """Read what `save` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def put(folder: Path, number: int, sample: Sample) -> None:
    """Keep a sample."""
    with replacing(folder / f"{number:05}.npz") as part:
        save(part, sample)


def files(folder: Path) -> list[Path]:
    """Give the samples that are kept, in their order."""
    return sorted(folder.glob("*.npz"))


def first(samples: Iterable[Sample], most: int, room: int) -> list[Sample]:
    """Take the first samples of a stream, at most so many, until they fill so many bytes."""
    taken: list[Sample] = []
    for sample in islice(samples, most):
        taken.append({name: np.array(value) for name, value in sample.items()})
        room -= sum(value.nbytes for value in sample.values())
        if room <= 0:
            break
    return taken


def keeping(samples: Iterable[Sample], folder: Path, most: int) -> Iterator[Sample]:
    """Pass samples on, and keep the first ones."""
    for number, sample in enumerate(samples):
        if number < most:
            put(folder, number, sample)
        yield sample
