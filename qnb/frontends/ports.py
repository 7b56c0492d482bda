"""The words in which a front-end of foreign files answers: named inputs, values, and what was made.

Knows no framework.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrays", "Converted", "Port"]

Arrays = dict[str, "NDArray[np.generic]"]
"""Values by the name of the tensor."""


@dataclass(frozen=True)
class Port:
    """An input as the source declares it.

    Attributes
    ----------
    name : str
        Its name in the ONNX file.
    dtype : str
        numpy's name of the type.
    shape : tuple of int or None, optional
        None for an open dimension; None as a whole where even the rank is open.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Converted:
    """What a front-end made of a file.

    Attributes
    ----------
    path : pathlib.Path
        The ONNX file.
    shapes : dict of str to tuple of int
        Size of each input.
    pairs : list of (Arrays, Arrays)
        Inputs, and what the source's own runtime makes of them, twice.
    notes : tuple of str
        What was decided without being asked for.
    steps : dict of str to float
        Where the source computes in integers: what one step of each output's grid is worth.
    log : str
        What was said meanwhile, where that is not in the worker's log already.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    pairs: list[tuple[Arrays, Arrays]]
    notes: tuple[str, ...] = ()
    steps: dict[str, float] = field(default_factory=dict)
    log: str = ""
