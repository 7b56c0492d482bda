"""Functions written like steps, for the machinery that must know no step by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from qnb.values import Argument

Thing = Annotated[dict | str | Path, Argument("model", ("dict",))]
Settings = Annotated[Mapping[str, Any] | str | Path | None, Argument("config", ("dict",))]


def brew(
    thing: Thing,
    water: Annotated[Any, Argument("data", ("ndarray",))] = None,
    *,
    strength: Literal["weak", "strong"] = "weak",
    shapes: Mapping[str, Sequence[int]] | None = None,
    cups: int = 1,
    heat: float | None = None,
    sugar: bool = False,
    stir: bool = True,
    soc: str | int | Sequence[str | int] | None = None,
    tools: Sequence[Literal["pot", "pan"]] = ("pot",),
    sizes: Sequence[int] | None = None,
    config: Settings = None,
    taste: Annotated[Callable[..., Any] | None, Argument("python", ("function",))] = None,
) -> str:
    """Brew something hot.

    It is brewed in a ``pot``, as a rule.

    Parameters
    ----------
    thing : dict or path
        What to brew.
    water : array, optional
        How much water.
    strength : {"weak", "strong"}
        How strong.
    shapes : mapping of str to sequence of int, optional
        Shapes by name.
    cups, heat : number
        How many, and how hot.
    sugar : bool
        With `sugar`.

    Returns
    -------
    str
        A cup.

    Raises
    ------
    BadInput
        If it is cold.

    Examples
    --------
    >>> cup = qnb.brew(tea, water[:2], strength="strong", shapes={"x": (1, 3)}, stir=False, soc=["A", "B C"])
    >>> qnb.brew({"a": 1})
    >>> cup.drink()
    """
    raise NotImplementedError


def mix(*things: Thing, speed: int = 1) -> str:
    """Mix many."""
    raise NotImplementedError
