"""Front-ends: each makes an ONNX file of one kind of source; this module tells which one a source needs.

Told by type, then by contents, then by suffix. Imports no framework, unpickles nothing. Knows nothing of steps.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from qnb.errors import BadInput, ExportError
from qnb.graph.contents import kind_of, refusal

__all__ = ["FOREIGN", "Kind", "recognise"]

Kind = Literal[
    "torch",
    "onnx",
    "caffe",
    "keras-model",
    "keras",
    "hdf5",
    "tensorflow",
    "graphdef",
    "tflite",
    "torchscript",
    "exported-program",
    "torch-pickle",
]

FOREIGN: tuple[Kind, ...] = (
    "keras", "hdf5", "tensorflow", "graphdef", "tflite", "torchscript", "exported-program", "torch-pickle",
)  # fmt: skip
"""Files that a worker converts: they are read by large libraries, and nobody knows what is in them."""

_ACCEPTED = "pass a torch.nn.Module, a Keras model, the path of a model file, or an onnx.ModelProto"
_CAFFE = (".prototxt", ".caffemodel")


def recognise(source: object, *, trust: bool = False) -> Kind:
    """Tell which front-end reads `source`.

    Parameters
    ----------
    source : object
        A ``torch.nn.Module``, ``ScriptModule`` or ``ExportedProgram``, a Keras model, a path, an ``onnx.ModelProto``, the
        bytes of an ONNX or TFLite file, a ``torch.onnx.ONNXProgram``, or the paths of the two files of a Caffe network.
    trust : bool
        Whether a pickled module may be unpickled.

    Returns
    -------
    str
        ``"torch"``, ``"onnx"``, ``"caffe"``, ``"keras-model"`` (an object in memory), or the kind of a file: one of
        :data:`FOREIGN`.

    Raises
    ------
    BadInput
        If it is no model, or there is no such file; says what it is instead.
    ExportError
        If it is a model that this version does not read; says how to get to one that it does.
    """
    if isinstance(source, str | Path):
        return _recognise_file(Path(source).expanduser(), trust)
    if isinstance(source, bytes | bytearray):
        return "tflite" if source[4:8] == b"TFL3" else "onnx"
    if isinstance(source, tuple | list) and len(source) == 2 and all(isinstance(p, str | Path) for p in source):
        return "caffe"
    home = type(source).__module__.partition(".")[0]
    name = type(source).__name__
    if home == "onnx" and name == "ModelProto":
        return "onnx"
    if name == "ONNXProgram" and home == "torch":
        return "onnx"
    if _is_keras_model(source):
        return "keras-model"
    torch = sys.modules.get("torch")  # a torch object can't exist before torch is imported
    if torch is not None:
        _refuse_torch(source, torch)
        if isinstance(source, torch.nn.Module | torch.export.ExportedProgram):
            return "torch"
    if {base.__module__.partition(".")[0] for base in type(source).__mro__} & {"keras", "tensorflow", "tf_keras"}:
        raise BadInput(
            f"the {name} object is no Keras model",
            hint="pass the keras.Model, or the folder that tf.saved_model.save writes with signatures=…",
        )
    if isinstance(source, type):
        raise BadInput(f"{source.__name__} is a class, not a model", hint=_ACCEPTED)
    if callable(source):
        called = getattr(source, "__name__", name)
        raise BadInput(f"{called} is a function, not a model", hint="make it the forward of a torch.nn.Module")
    raise BadInput(f"a model can't be made of a {home + '.' if home != 'builtins' else ''}{name}", hint=_ACCEPTED)


def _refuse_torch(source: object, torch: Any) -> None:
    """Raise for the torch objects that are often taken for a module, and are none."""
    if isinstance(source, type) and issubclass(source, torch.nn.Module):
        raise BadInput(
            f"{source.__name__} is a module's class, not a module", hint=f"make one and pass that: {source.__name__}(…)"
        )
    if isinstance(source, Mapping) and source and all(isinstance(value, torch.Tensor) for value in source.values()):
        raise BadInput(
            f"this is a state_dict ({len(source)} tensors): weights without the model that uses them",
            hint="build the module, call module.load_state_dict(…) with it, and pass the module",
        )
    if isinstance(source, Mapping) and any(key in source for key in ("state_dict", "model_state_dict")):
        raise BadInput(
            "this is a training checkpoint: weights without the model that uses them",
            hint="build the module, call module.load_state_dict(checkpoint['state_dict']), and pass the module",
        )
    if isinstance(source, torch.Tensor):
        raise BadInput("this is a tensor, not a model", hint=_ACCEPTED)


def _is_keras_model(source: object) -> bool:
    """Say whether it is a Model of Keras 3 or tf_keras, on any backend; by name, since importing Keras takes seconds."""
    return any(
        base.__name__ == "Model" and base.__module__.partition(".")[0] in ("keras", "tf_keras")
        for base in type(source).__mro__
    )


def _recognise_file(path: Path, trust: bool) -> Kind:
    if path.is_dir() and (path / "saved_model.pb").is_file():
        return "tensorflow"
    if path.is_dir():
        raise _folder(path)
    if not path.exists():
        raise _missing(path)
    kind = kind_of(path)
    if kind == "onnx":
        return "onnx"
    if kind in ("caffe", "caffemodel"):
        return "caffe"
    if kind in ("text", "unknown", "empty", "hdf5") and path.name.lower().endswith((*_CAFFE, ".caffemodel.h5")):
        return "caffe"  # its front-end says what is wrong with it
    for foreign in FOREIGN:
        if kind == foreign and (trust or kind != "torch-pickle"):
            return foreign
    if kind in ("unknown", "text") and path.suffix.lower() == ".onnx":
        raise ExportError(
            f"{path} is named like an ONNX model, but its contents are not one",
            hint="copy or download it again, or export it again",
        )
    raise refusal(path, kind)


def _folder(path: Path) -> BadInput:
    names = sorted(file.name for file in path.iterdir())
    models = [name for name in names if name.lower().endswith(".onnx")]
    if models:
        hint = f"pass a file in it: {' or '.join(str(path / name) for name in models[:3])}"
    else:
        hint = f"it holds no .onnx file; {_ACCEPTED}"
    return BadInput(f"{path} is a folder, not a model", hint=hint)


def _missing(path: Path) -> BadInput:
    if not path.parent.is_dir():
        return BadInput(f"there is no file {path}: its folder {path.parent} does not exist", hint="check the path")
    names = sorted(file.name for file in path.parent.iterdir())
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(str(path.parent / name) for name in near)}?"
    else:
        models = [name for name in names if name.lower().endswith(".onnx")]
        hint = f"models in that folder: {', '.join(models[:5])}" if models else "check the path; no .onnx file is there"
    return BadInput(f"there is no file {path}", hint=hint)
