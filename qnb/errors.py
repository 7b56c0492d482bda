"""The errors that qnb raises.

Knows nothing of the rest of the package. Every error says what happened, to which file, tensor, op or argument, and
what to do next::

    QnbError
    ├── BadInput               an argument or data that does not fit
    │   ├── UnknownName        a name that is not in a table (with near names)
    │   └── BadConfig          a backend configuration or an overrides file
    ├── ExportError            a source could not become a checked, fixed-shape ONNX model
    ├── ConversionError        an ONNX model could not become a QNN graph
    ├── CalibrationError       ranges could not be gathered or applied
    ├── CompileError           a context binary could not be built
    ├── PlacementError         ops are not on the backend that was asked for
    ├── InferenceError         a loaded model could not be run
    ├── CheckFailed            a quantized model is not as good as was asked
    ├── ArtifactError          a saved or cached file is missing or damaged
    ├── StorageError           a file could not be written (disk full, no permission)
    ├── RuntimeUnavailable     a runtime or backend is not on this machine
    └── WorkerError            the process that runs native code ended early
        ├── WorkerCrashed      it died (signal or exit) while working
        ├── WorkerTimeout      it did not answer in time and was stopped
        ├── WorkerLost         it was found dead before the work began
        └── Interrupted        the user stopped the work
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "ArtifactError",
    "BadConfig",
    "BadInput",
    "CalibrationError",
    "CheckFailed",
    "CompileError",
    "ConversionError",
    "ExportError",
    "InferenceError",
    "Interrupted",
    "PlacementError",
    "QnbError",
    "RuntimeUnavailable",
    "StorageError",
    "UnknownName",
    "WorkerCrashed",
    "WorkerError",
    "WorkerLost",
    "WorkerTimeout",
]


class QnbError(Exception):
    """Base of all errors of qnb.

    Parameters
    ----------
    what : str
        What happened, and to which file, tensor, op or argument.
    hint : str, optional
        What to do next.
    log : str, optional
        The native log that belongs to it; shown by ``%qnn log``.
    """

    def __init__(self, what: str, *, hint: str = "", log: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.log = log

    def __str__(self) -> str:
        return f"{self.what}\n  next: {self.hint}" if self.hint else self.what

    def _render_traceback_(self, *_: object) -> list[str]:
        """IPython's hook: a short message instead of a traceback through our internals."""
        lines = [f"{type(self).__name__}: {self.what}"]
        if self.hint:
            lines.append(f"  next: {self.hint}")
        lines.append("  (full traceback and native log: %qnn log)")
        return lines


class BadInput(QnbError, ValueError):
    """An argument or data that does not fit."""


class UnknownName(BadInput):
    """A name that is not in a table.

    Parameters
    ----------
    what, hint, log : str
        As of every `QnbError`.
    kind, name : str, optional
        What it should have been the name of, and the name.
    """

    def __init__(self, what: str, *, hint: str = "", log: str = "", kind: str = "", name: str = "") -> None:
        super().__init__(what, hint=hint, log=log)
        self.kind, self.name = kind, name

    @classmethod
    def among(cls, kind: str, name: object, known: Iterable[str], hint: str = "") -> UnknownName:
        """Build the error with a did-you-mean from `known`."""
        names = list(known)
        lowered = {n.lower(): n for n in names}
        near = [lowered[n] for n in difflib.get_close_matches(str(name).lower(), lowered, n=3, cutoff=0.5)]
        if near:
            hint = f"did you mean {' or '.join(near)}?" + (f" {hint}" if hint else "")
        elif not hint:
            hint = f"known: {', '.join(names[:20])}"
        return cls(f"unknown {kind} {name!r}", hint=hint, kind=kind, name=str(name))


class BadConfig(BadInput):
    """A backend configuration or an overrides file that can't be used as it is."""


class ExportError(QnbError):
    """A source could not become a checked, fixed-shape ONNX model."""


class ConversionError(QnbError):
    """An ONNX model could not become a QNN graph."""


class CalibrationError(QnbError):
    """Ranges could not be gathered or applied."""


class CheckFailed(QnbError):
    """A quantized model is not as good as was asked: a threshold of `qnb.check` is missed."""


class CompileError(QnbError):
    """A context binary could not be built."""


class PlacementError(QnbError):
    """Ops are not on the backend that was asked for."""


class InferenceError(QnbError):
    """A loaded model could not be run."""


class ArtifactError(QnbError):
    """A saved or cached file is missing or damaged."""


class StorageError(QnbError, OSError):
    """A file could not be written."""

    @classmethod
    def of(cls, error: OSError, path: Path | str) -> StorageError:
        """Word an `OSError` that came up while writing `path`."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space there, or choose another folder (QNB_CACHE_DIR sets the cache's)"
            return cls(f"the disk is full: could not write {path}", hint=hint)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            hint = "choose a folder that you may write to (QNB_CACHE_DIR sets the cache's)"
            return cls(f"no permission to write {path}", hint=hint)
        return cls(
            f"could not write {path}: {error.strerror or error}",
            hint="see whether the folder exists and can be written",
        )


class RuntimeUnavailable(QnbError):
    """A runtime or backend is not on this machine."""


class WorkerError(QnbError):
    """The process that runs native code ended early."""


class WorkerCrashed(WorkerError):
    """The worker died (signal or exit) while working."""


class WorkerTimeout(WorkerError, TimeoutError):
    """The worker did not answer in time and was stopped."""


class WorkerLost(WorkerError):
    """The worker was found dead before the work began."""


class Interrupted(WorkerError, KeyboardInterrupt):
    """The user stopped the work."""
