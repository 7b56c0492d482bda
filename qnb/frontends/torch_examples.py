"""Example inputs of a PyTorch module: bound to forward's arguments, named, and varied for a second look.

Knows nothing of ONNX.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb.errors import BadInput, ExportError
from qnb.frontends.torchscript import signature_of

if TYPE_CHECKING:
    import torch

__all__ = ["Call", "Shapes", "bind", "leaves", "to_numpy", "unique"]

Shapes = Sequence[int] | Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Call:
    """One call of forward: its arguments, and the tensors among them by name."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the tensors as numpy arrays."""
        return {name: to_numpy(name, tensor) for name, tensor in self.tensors.items()}

    def copied(self) -> Call:
        """Give the same call on copies of its tensors."""
        return self._with(lambda tensor: tensor.detach().clone())

    def varied(self, seed: int) -> Call:
        """Give a call of the same shapes with other values, which stay in the range of these.

        Floats are shuffled and scaled by factors in [0.5, 1); integers are shuffled (an index stays valid); all-zero
        floats are drawn anew.
        """
        rng = np.random.default_rng(seed)
        return self._with(lambda tensor: _vary(tensor, rng))

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Call:
        new = {id(tensor): change(tensor) for tensor in self.tensors.values()}

        def swapped(value: Any) -> Any:
            return new.get(id(value), value)

        tensors = {name: new[id(tensor)] for name, tensor in self.tensors.items()}
        return Call(_map(self.args, swapped), _map(self.kwargs, swapped), tensors)


def _vary(tensor: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    import torch

    values = tensor.detach().reshape(-1)
    shuffled = values[torch.from_numpy(rng.permutation(values.numel())).to(values.device)]
    if tensor.dtype == torch.bool:
        shuffled = ~shuffled
    elif tensor.is_floating_point():
        drawn = torch.from_numpy(rng.random(values.numel())).to(values)
        shuffled = shuffled * (0.5 + 0.5 * drawn) if bool(values.any()) else drawn
    return shuffled.reshape(tensor.shape)


def bind(
    module: torch.nn.Module, example: Any, shapes: Shapes | None, names: Sequence[str] | None = None, seed: int = 0
) -> Call:
    """Bind `example`, or random float32 tensors of `shapes`, to the arguments of the module's forward.

    Dicts are bound by forward's argument names, or by `names` in their order. The name of a single input need not be
    forward's: it becomes the tensor's.

    Raises
    ------
    BadInput
        If neither or both are given, or they don't fit forward's signature.
    """
    signature = signature_of(module)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    if (example is None) == (shapes is None):
        names = [p.name for p in parameters if p.default is p.empty]
        usage = "(1, 3, 224, 224)" if len(names) < 2 else "{" + ", ".join(f"{n!r}: (1, …)" for n in names) + "}"
        raise BadInput(
            "an export needs example inputs" if example is None else "example and shapes can't both be given",
            hint=f"pass shapes={usage}, or example=… with arrays or tensors that the module takes",
        )
    if shapes is not None:
        example = _random(shapes, seed)
    own_name = ""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(example, Mapping):
        kwargs = dict(example)
        foreign = not kwargs.keys() & signature.parameters.keys()
        if names is not None and foreign and kwargs.keys() == set(names):
            args, kwargs = tuple(kwargs[name] for name in names), {}
        elif foreign and len(kwargs) == 1 and not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            ((own_name, value),) = kwargs.items()
            args, kwargs = (value,), {}
    else:
        args = tuple(example) if isinstance(example, tuple | list) else (example,)
    device = next((p.device for p in module.parameters()), None)
    args, kwargs = _map((args, kwargs), lambda value: _tensor(value, device))
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise BadInput(
            f"the example inputs do not fit forward{signature}: {error}",
            hint="pass a tuple in forward's order, or a dict by its names; a dict as the only argument: example=({…},)",
        ) from error
    tensors: dict[str, torch.Tensor] = {}
    for name, value in bound.arguments.items():
        keyword = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        for path, tensor in leaves(value, "" if keyword else own_name or name):
            tensors[unique(path, tensors)] = tensor
    if not tensors:
        raise BadInput(
            "there is no tensor among the example inputs", hint="pass arrays or tensors that the module takes"
        )
    return Call(bound.args, bound.kwargs, tensors)


def _random(shapes: Shapes, seed: int) -> Any:
    rng = np.random.default_rng(seed)

    def draw(shape: Any) -> np.ndarray:
        try:
            sizes = [int(size) for size in shape]
            whole = all(size == given and size >= 1 for size, given in zip(sizes, shape, strict=True))
        except (TypeError, ValueError):
            whole = False
        if not whole:
            raise BadInput(f"{shape!r} is not a shape", hint="pass whole sizes of at least 1, such as (1, 3, 224, 224)")
        return rng.standard_normal(sizes).astype(np.float32)

    return {name: draw(shape) for name, shape in shapes.items()} if isinstance(shapes, Mapping) else (draw(shapes),)


def _tensor(value: Any, device: Any) -> Any:
    import torch

    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in "fiub":
            raise BadInput(f"an example input has dtype {value.dtype}", hint="pass numbers")
        # numpy makes float64 unless told otherwise; a float64 model is of no use on any backend
        value = torch.from_numpy(np.array(value, np.float32 if value.dtype == np.float64 else None))
    # a tensor passed for two arguments must become two: the exporter would make both read the same input
    return value.detach().to(device).clone() if isinstance(value, torch.Tensor) else value


def _map(value: Any, change: Any) -> Any:
    """Apply `change` to every leaf of nested tuples, lists and dicts."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map(item, change) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(_map(item, change) for item in value)
    if isinstance(value, dict):
        return {key: _map(item, change) for key, item in value.items()}
    return change(value)


def leaves(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors nested in tuples, lists and dicts, each with the path to it as its name."""
    import torch

    if isinstance(value, torch.Tensor):
        yield name or "output", value
        return
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        items = [*zip(value._fields, value, strict=True)]
    elif isinstance(value, tuple | list):
        items = [(str(index) if name else f"output_{index}", item) for index, item in enumerate(value)]
        if not name and len(value) == 1:
            items = [("output", value[0])]
    else:
        return
    for key, item in items:
        yield from leaves(item, f"{name}_{key}" if name else key)


def unique(name: str, taken: Container[str]) -> str:
    """Give `name`, with a number behind it where it is taken."""
    candidate, number = name, 1
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def to_numpy(name: str, tensor: torch.Tensor) -> np.ndarray:
    """Give a tensor as an array.

    Raises
    ------
    ExportError
        If numpy has no such dtype, or it is complex or sparse.
    """
    import torch

    if tensor.dtype == torch.bfloat16 or tensor.is_complex() or tensor.layout is not torch.strided:
        kind = tensor.dtype if tensor.layout is torch.strided else tensor.layout
        raise ExportError(
            f"tensor {name!r} is {kind}, which QNN does not take", hint="pass module.float(), dense and real"
        )
    array: np.ndarray = tensor.detach().cpu().resolve_neg().numpy()
    return array.copy()
