"""The ONNX front-end: whatever holds an ONNX model becomes a file, which the normalisation then reads.

Checks nothing of the model itself: that is native work, done in a worker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qnb.graph.writing import save, staged

__all__ = ["as_file"]


def as_file(source: Any, folder: Path | str) -> tuple[Path, str]:
    """Give the file that holds `source`, and a name for the model; an object in memory is written into `folder`.

    Parameters
    ----------
    source : path, onnx.ModelProto, bytes or torch.onnx.ONNXProgram
        What :func:`qnb.frontends.recognise` calls ``"onnx"``.
    folder : path
        Where to write; not touched when `source` is a file already. Weights over 2 GB go to a second file.

    Returns
    -------
    pathlib.Path
        The file.
    str
        The file's name without its suffix, or the graph's name, or ``"model"``.

    Raises
    ------
    StorageError
        If it can't be written.
    """
    if isinstance(source, str | Path):
        path = Path(source).expanduser().resolve()
        return path, path.stem
    suffix = ".tflite" if isinstance(source, bytes | bytearray) and source[4:8] == b"TFL3" else ".onnx"
    path, name = Path(folder) / f"source{suffix}", "model"
    with staged(path) as target:
        if isinstance(source, bytes | bytearray):
            target.write_bytes(source)
        else:
            model = getattr(source, "model_proto", source)
            name = model.graph.name or name
            save(model, target)
    return path, name
