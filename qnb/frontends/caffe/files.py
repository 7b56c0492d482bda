"""Which files make up a Caffe network: the prototxt and the caffemodel, given together or found beside each other.

Looks at names and at the first bytes alone, so that it is safe in any process.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qnb.errors import BadInput, ExportError
from qnb.graph.contents import kind_of, refusal

__all__ = ["pair"]

_SUFFIXES = {"caffe": ".prototxt", "caffemodel": ".caffemodel"}


def pair(source: Path | str | Sequence[Path | str], weights: Path | str | None = None) -> tuple[Path, Path | None]:
    """Give the prototxt and the caffemodel of a network, told apart by their contents.

    Parameters
    ----------
    source : path, or two of them
        Either file, or both in any order.
    weights : path, optional
        The other file. By default the one of the same stem beside `source`.

    Returns
    -------
    pathlib.Path
        The prototxt.
    pathlib.Path or None
        The caffemodel; None where there is none of that stem.

    Raises
    ------
    BadInput
        If a file is missing, or two of one kind are given.
    ExportError
        If a file is neither, or a caffemodel stands alone.
    StorageError
        If a file can't be read.
    """
    given = [source] if isinstance(source, str | Path) else list(source)
    given += [weights] if weights is not None else []
    files: dict[str, Path] = {}
    for item in given:
        path = Path(item).expanduser().resolve()
        kind = _kind(path)
        if kind in files:
            what = "descriptions (.prototxt)" if kind == "caffe" else "files of weights (.caffemodel)"
            raise BadInput(
                f"{files[kind].name} and {path.name} are both {what}", hint="pass one .prototxt and one .caffemodel"
            )
        files[kind] = path
    for kind, suffix in _SUFFIXES.items():
        if kind not in files and (beside := next(iter(files.values())).with_suffix(suffix)).is_file():
            files[kind] = beside
    if "caffe" not in files:
        alone = files["caffemodel"]
        raise ExportError(
            f"{alone} holds weights; the network's description, {alone.stem}.prototxt, is not beside it",
            hint=f"pass both: qnb.export('….prototxt', weights='{alone.name}')",
        )
    return files["caffe"], files.get("caffemodel")


def _kind(path: Path) -> str:
    if not path.is_file():
        raise BadInput(f"there is no file {path}", hint="check the path")
    kind = kind_of(path)
    if kind in _SUFFIXES:
        return kind
    for known, suffix in _SUFFIXES.items():
        # short or damaged ones are not told by their contents; the reader says what is wrong with them
        if kind in ("text", "unknown", "empty", "hdf5") and path.name.lower().endswith((suffix, f"{suffix}.h5")):
            return known
    raise refusal(path, kind)
