"""TorchScript and ``torch.export``: archives become modules, and what is scripted becomes a program for torch's exporter.

Loading is for worker processes: an archive may be damaged or hostile. Knows nothing of ONNX.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qnb.errors import ExportError
from qnb.frontends.archives import check_zip
from qnb.frontends.torch_archives import check_program, check_script

if TYPE_CHECKING:
    import torch

__all__ = ["load", "program_of", "signature_of"]

_TRUST = "pass trust=True if you know where the file comes from"


def load(path: Path | str, kind: str, *, trust: bool = False) -> Any:
    """Read a TorchScript archive, a ``torch.export`` archive or a pickled module.

    Parameters
    ----------
    path : path
        The file.
    kind : str
        ``torchscript``, ``exported-program`` or ``torch-pickle``.
    trust : bool
        Whether the file may run code of its own: pickles hold such code.

    Returns
    -------
    torch.jit.ScriptModule, torch.export.ExportedProgram or torch.nn.Module
        The model, on the CPU.

    Raises
    ------
    ExportError
        If it is damaged, of a newer torch, holds no module, or would run code and is not trusted.
    """
    import torch

    path = Path(path)
    members = check_zip(path) if kind != "torch-pickle" or _is_zip(path) else []
    try:
        if kind == "torchscript":
            if not trust:
                check_script(path, members)
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        if kind == "exported-program":
            if not trust:
                check_program(path, members)
                os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # torch itself would fall back to unpickling
            return torch.export.load(str(path))
        loaded = torch.load(path, map_location="cpu", weights_only=not trust)
    except ExportError:
        raise
    except Exception as error:  # torch names damage in many ways
        raise ExportError(f"torch can't read {path}: {_first(error)}", hint=_hint(error)) from error
    if not isinstance(loaded, torch.nn.Module):
        raise ExportError(
            f"{path} holds a {type(loaded).__name__}, not a module",
            hint="a state_dict is weights without the model: build the module, load them into it, and pass the module",
        )
    return loaded


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _hint(error: Exception) -> str:
    text = str(error)
    if "weights_only" in text or "WeightsUnpickler" in text or "Unsupported global" in text:
        return f"it holds pickled objects, which run code when read; {_TRUST}"
    if isinstance(error, AttributeError | ModuleNotFoundError):
        return "its classes are not importable here: load it where they are defined, and pass the module"
    return "copy or download it again; a file of a newer torch needs that torch here"


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:300]}"


def signature_of(module: Any) -> inspect.Signature:
    """Give the signature of forward, which a scripted module keeps as a schema."""
    schema = getattr(module.forward, "schema", None)
    if schema is None:
        return inspect.signature(module.forward)
    parameters = [
        inspect.Parameter(
            argument.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=argument.default_value if argument.has_default_value() else inspect.Parameter.empty,
        )
        for argument in schema.arguments[1:]
    ]
    return inspect.Signature(parameters)


def program_of(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Turn a scripted module into an ExportedProgram whose inputs are the tensors of the call, in their order.

    Control flow stays control flow, so that a branch on a tensor is seen as such later on, and not baked in.

    Raises
    ------
    ExportError
        If this torch has no way to do so, or an op has no counterpart.
    """
    import torch
    from torch.utils import _pytree

    from qnb.frontends.torch_examples import leaves

    try:
        from torch._export.converter import TS2EPConverter
    except ImportError as error:  # it is no public part of torch
        raise ExportError(
            "this torch no longer converts TorchScript", hint="pass the original torch.nn.Module instead"
        ) from error

    given, structure = _pytree.tree_flatten((args, kwargs))
    places = [index for index, value in enumerate(given) if isinstance(value, torch.Tensor)]

    class Flat(torch.nn.Module):
        """Tensors in, tensors out: tracing knows nothing else."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *tensors: torch.Tensor) -> Any:
            values = list(given)
            for place, tensor in zip(places, tensors, strict=True):
                values[place] = tensor
            own, named = _pytree.tree_unflatten(values, structure)
            return tuple(tensor for _, tensor in leaves(self.inner(*own, **named), ""))

    tensors = tuple(given[place] for place in places)
    traced = torch.jit.trace(Flat(), tensors, check_trace=False)  # type: ignore[no-untyped-call]
    return TS2EPConverter(traced, tensors, {}).convert()
