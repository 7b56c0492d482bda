"""The PyTorch front-end: a module becomes an ONNX file, with reference outputs to check that file against.

Uses torch's dynamo exporter; its chatter goes to the log. Knows nothing of QNN, and runs no ONNX Runtime: the numeric
comparison with the pairs given here is a worker's job.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import logging
import re
import sysconfig
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import qnb
from qnb.errors import BadInput, ExportError, QnbError, RuntimeUnavailable
from qnb.frontends.torch_examples import Call, Shapes, bind, leaves, to_numpy, unique
from qnb.frontends.torchscript import program_of
from qnb.graph.writing import staged

if TYPE_CHECKING:
    import torch

__all__ = ["Pair", "TorchExport", "require", "to_onnx"]

Pair = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
"""Inputs and outputs of one run of the eager module, by name."""

_OPSET = 20


@dataclass(frozen=True)
class TorchExport:
    """What the exporter gave.

    Attributes
    ----------
    path : pathlib.Path
        The ONNX file.
    pairs : list of Pair
        Two runs of the eager module, on different inputs.
    notes : tuple of str
        What was decided without being asked for.
    log : str
        What torch said meanwhile.
    """

    path: Path
    pairs: list[Pair]
    notes: tuple[str, ...]
    log: str


def to_onnx(
    module: torch.nn.Module,
    path: Path | str,
    *,
    example: Any = None,
    shapes: Shapes | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    seed: int = 0,
) -> TorchExport:
    """Export a module in eval mode, with the shapes of the example fixed; its training flags are restored.

    Parameters
    ----------
    module : torch.nn.Module, torch.jit.ScriptModule or torch.export.ExportedProgram
        The model. Not changed.
    path : path
        The ONNX file to write. Its weights go to ``path + ".data"``.
    example : array, tensor, tuple or dict, optional
        What forward is called with: one value, a tuple of positional arguments, or a dict by argument name. An
        ExportedProgram has its own, unless `shapes` are given.
    shapes : sequence of int, or dict of str to sequence of int, optional
        In place of an example: random float32 inputs of these shapes. Names are forward's arguments or `input_names`;
        a single input may be given any name, which becomes its own.
    input_names, output_names : sequence of str, optional
        Names in the ONNX file. Default: forward's argument names; the keys of a returned dict or the fields of a
        named tuple, else ``output`` or ``output_0``, ``output_1``, ….
    seed : int
        Seed of the random inputs.

    Returns
    -------
    TorchExport
        The file, two reference pairs, notes and log.

    Raises
    ------
    BadInput
        If the example or the names don't fit the module.
    ExportError
        If the module fails on the example, is random, branches on a tensor's value, or uses an op without an ONNX form.
    RuntimeUnavailable
        If torch or onnxscript is not installed.
    StorageError
        If the file can't be written.
    """
    torch = require()
    if isinstance(module, torch.export.ExportedProgram):
        args, kwargs = module.example_inputs or ((), {})
        if example is None and shapes is None:
            example = tuple(args) or kwargs or None
        module = module.module()
    module = _unwrapped(module)
    call = _renamed(bind(module, example, shapes, input_names, seed), input_names)
    notes = [
        f"input {name!r} is int64 and stays so" for name, tensor in call.tensors.items() if tensor.dtype == torch.int64
    ]
    with _captured() as log, _evaluating(module):
        try:
            first, named = _run(module, call, None, output_names)
            again, _ = _run(module, call, named, output_names)
            _check_steady(first, again)
            second, _ = _run(module, other := call.varied(seed + 1), named, output_names)
            notes += [f"output {old!r} is called {new!r}: an input has that name" for old, new in named if old != new]
            names = [new for _, new in named]
            _export(torch, module, call, Path(path), names)
        except QnbError as error:
            error.log = error.log or _plain(log.getvalue())
            raise
    pairs = [(call.arrays(), first), (other.arrays(), second)]
    return TorchExport(Path(path), pairs, tuple(notes), _plain(log.getvalue()))


def require() -> Any:
    """Give torch, or say how to install what is missing."""
    try:
        import onnxscript  # noqa: F401
        import torch
    except ImportError as error:
        raise RuntimeUnavailable(
            f"exporting a PyTorch module needs {error.name or 'torch'}, which is not installed",
            hint='pip install "qnb[torch]"',
        ) from error
    return torch


def _unwrapped(module: Any) -> Any:
    """Take the module out of torch.compile's and DataParallel's wrappers."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if type(module).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = module.module
        if inner is None:
            return module
        module = inner


def _renamed(call: Call, names: Sequence[str] | None) -> Call:
    if names is None:
        return call
    _check_names("input", names, list(call.tensors))
    return Call(call.args, call.kwargs, dict(zip(names, call.tensors.values(), strict=True)))


def _check_names(kind: str, names: Sequence[str], own: Sequence[str]) -> None:
    if isinstance(names, str) or len(names) != len(own) or len(set(names)) != len(names) or not all(names):
        raise BadInput(
            f"{kind}_names={names!r} does not fit: the module has {len(own)} {kind}{'s' if len(own) != 1 else ''} "
            f"({', '.join(own)})",
            hint="pass a list with one name for each, all different",
        )


# --- running the eager module --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Put the module in eval mode for the block, and give every part its own flag back."""
    flags = [(part, part.training) for part in module.modules() if hasattr(part, "training")]  # a frozen one has none
    if flags:
        with contextlib.suppress(NotImplementedError):  # an exported program is what it was when it was exported
            module.eval()
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training


_Names = list[tuple[str, str]]


def _run(
    module: torch.nn.Module, call: Call, named: _Names | None, names: Sequence[str] | None
) -> tuple[dict[str, np.ndarray], _Names]:
    """Run the module; give its outputs by name, and their (own, final) names."""
    import torch

    fresh = call.copied()  # forward may write into its inputs
    try:
        with torch.no_grad():
            result = module(*fresh.args, **fresh.kwargs)
    except Exception as error:
        shown = ", ".join(f"{name} {str(t.dtype)[6:]}{list(t.shape)}" for name, t in call.tensors.items())
        raise ExportError(
            f"the module fails on the example inputs ({shown}): {type(error).__name__}: {_short(error)}{_at(error)}",
            hint=_eager_hint(module),
        ) from error
    found = [*leaves(result, "")]
    if not found:
        raise ExportError(
            f"forward returns {type(result).__name__}, which holds no tensor",
            hint="return tensors, or tuples, lists or dicts of them",
        )
    if named is None:
        own = [name for name, _ in found]
        if names is not None:
            _check_names("output", names, own)
        named = []
        for name in names or own:
            named.append((name, unique(name, call.tensors.keys() | {final for _, final in named})))
    return {final: to_numpy(final, tensor) for (_, final), (_, tensor) in zip(named, found, strict=True)}, named


def _eager_hint(module: torch.nn.Module) -> str:
    odd = {str(p.dtype) for p in module.parameters() if p.is_floating_point() and str(p.dtype) != "torch.float32"}
    if odd:
        return f"the module's weights are {', '.join(sorted(odd))}: pass module.float()"
    return "pass shapes=… or example=… that it takes (indices and masks: example= with integers or bools)"


def _check_steady(first: dict[str, np.ndarray], again: dict[str, np.ndarray]) -> None:
    for name, value in first.items():
        if value.shape != again[name].shape or not np.allclose(
            value, again[name], rtol=1e-4, atol=1e-5, equal_nan=True
        ):
            raise ExportError(
                f"the module gives other values for output {name!r} each time, on the same inputs",
                hint="take randomness and counters out of forward; F.dropout needs training=self.training",
            )


# --- the exporter --------------------------------------------------------------------------------------------------


def _export(torch: Any, module: torch.nn.Module, call: Call, path: Path, output_names: list[str]) -> None:
    fresh = call.copied()
    with staged(path) as target:
        try:
            scripted = isinstance(module, torch.jit.ScriptModule)
            program = torch.onnx.export(
                program_of(module, fresh.args, fresh.kwargs) if scripted else module,
                () if scripted else fresh.args,
                str(target),
                kwargs={} if scripted else fresh.kwargs,
                input_names=list(call.tensors),
                output_names=output_names,
                dynamo=True,
                opset_version=_OPSET,
                external_data=True,  # which spares it the copying of the weights into one message
                verbose=False,
            )
        except (OSError, ExportError):
            raise  # the disk's fault, worded by `staged`
        except Exception as error:
            raise _worded(error) from error
        made = [value.name for value in program.model.graph.inputs]
    if made != list(call.tensors):
        raise ExportError(
            f"torch's exporter changed the inputs: {made} instead of {list(call.tensors)}",
            hint="see whether each argument of forward is used as a tensor",
        )


def _worded(error: BaseException) -> ExportError:
    """Word the exporter's error: the line that branches on a tensor, the op without an ONNX form, or its gist."""
    chain = _chain(error)
    text = "\n".join(str(link) for link in chain)
    if any("DataDependent" in type(link).__name__ for link in chain) or "data-dependent" in text.lower():
        return ExportError(
            f"forward branches on a tensor's value, which a fixed graph can't do{_at(*chain)}",
            hint="compute both sides and choose with torch.where, use torch.cond, or decide outside of the model",
        )
    if op := re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", text):
        return ExportError(
            f"the op {op[1]} has no ONNX form{_at(*chain)}",
            hint="write it with other torch ops, or do that part outside of the model",
        )
    root = chain[-1]
    return ExportError(
        f"torch could not export the module: {type(root).__name__}: {_short(root)}{_at(*chain)}",
        hint="torch.export's rules for forward: https://docs.pytorch.org/docs/stable/export.html",
    )


def _chain(error: BaseException) -> list[BaseException]:
    links = [error]
    while (cause := links[-1].__cause__) is not None and cause not in links:
        links.append(cause)
    return links


def _at(*errors: BaseException) -> str:
    """Give the user's own line of code that the errors point to, as text to append; nothing if there is none."""
    for error in reversed(errors):
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if _is_users(frame.filename):
                return _line(frame.filename, frame.lineno or 0)
    for error in reversed(errors):
        for file, line in reversed(re.findall(r'File "([^"]+)", line (\d+), in', str(error))):
            if _is_users(file):
                return _line(file, int(line))
    return ""


_LIBRARY = re.compile(
    r"[\\/](site|dist)-packages[\\/](torch|onnxscript|onnx_ir)[\\/]|^<(?!ipython)"
    rf"|^{re.escape(str(Path(qnb.__file__).parent))}[\\/]|^{re.escape(sysconfig.get_path('stdlib'))}[\\/](?!site-packages)"
)


def _is_users(file: str) -> bool:
    return not _LIBRARY.search(file)


def _line(file: str, line: int) -> str:
    code = linecache.getline(file, line).strip()
    where = f"line {line} of the cell" if "ipykernel_" in file or "<ipython" in file else f"{file}:{line}"
    return f"\n  at {where}: {code}" if code else f"\n  at {where}"


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in _plain(str(error)).splitlines() if line.strip()]
    return " ".join(lines[:2])[:400]


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# --- torch's chatter -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _captured() -> Iterator[io.StringIO]:
    """Gather what torch prints, logs and warns of during the block; nothing of it reaches the user's screen."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.addFilter(lambda record: bool(record.getMessage()))  # torch's structured trace logs empty messages
    roots = ("torch", "onnxscript", "onnx_ir")
    # torch gives handlers of their own to loggers below its root
    known = [logging.getLogger(name) for name in [*logging.root.manager.loggerDict] if name.split(".")[0] in roots]
    loggers = [logger for logger in known if logger.handlers or logger.name in roots]
    saved = [(logger, logger.handlers[:], logger.propagate) for logger in loggers]

    def write(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        text.write(f"{category.__name__}: {message}\n")

    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            warnings.simplefilter("always")
            warnings.showwarning = write
            yield text
    finally:
        for logger, handlers, propagate in saved:
            logger.handlers, logger.propagate = handlers, propagate
