"""The jobs of the viewer's worker process: each reads one file, or one saved result, and answers with its view document.

Runs in a process of its own, whose memory is bounded and which is ended when it takes too long: what is read here is not
to be trusted. Nothing is unpickled, executed or loaded into a backend. Knows nothing of Jupyter.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qnb.errors import ArtifactError, QnbError
from qnb.files import digest
from qnb.runtime.worker import JobContext, Reply

_ROOM = 2 << 30
"""Address space beside what a file may need, in bytes: Python with numpy, pandas and their libraries."""


def view(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Read a file or a saved result; args: path, kind (of `READERS`), max_bytes. Answers with ``document``."""
    _bound_memory(_ROOM + 5 * args["max_bytes"])
    path = Path(args["path"])
    try:
        document = READERS[args["kind"]](path)
    except QnbError:
        raise
    except MemoryError:
        raise ArtifactError(
            f"{path.name} needs more memory than is given to a viewer", hint="open it in a notebook: qnb.export(path)"
        ) from None
    except Exception as error:  # whatever a parser meets in a file that somebody damaged on purpose
        raise ArtifactError(f"{path.name} is damaged: {type(error).__name__}: {error}", hint="copy it again") from error
    if args["kind"] != "result":
        size, sha256 = path.stat().st_size, digest(path)
        said = [fact for fact in document.get("facts", []) if fact[1] not in (size, sha256)]
        document["facts"] = [["file", path.name], ["bytes", size], ["sha256", sha256], *said]
    return {"document": document}, {}


def _bound_memory(most: int) -> None:
    if sys.platform == "linux":  # elsewhere the limit is not heeded; there the size of the file is the bound
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _onnx(path: Path) -> dict[str, Any]:
    from qnb.server.views_onnx import view_onnx

    return view_onnx(path)


def _dlc(path: Path) -> dict[str, Any]:
    from qnb.server.views_qnn import view_dlc

    return view_dlc(path)


def _binary(path: Path) -> dict[str, Any]:
    from qnb.server.views_qnn import view_binary

    return view_binary(path)


def _json(path: Path) -> dict[str, Any]:
    from qnb.server.views_qnn import view_json

    return view_json(path)


def _result(path: Path) -> dict[str, Any]:
    from qnb.results import load

    return load(path).report()


READERS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "onnx": _onnx, "dlc": _dlc, "binary": _binary, "json": _json, "result": _result,
}  # fmt: skip
JOBS = {"view": view}
