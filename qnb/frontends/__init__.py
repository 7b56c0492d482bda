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

__all__ = ["Kind", "recognise"]

Kind = Literal["torch", "onnx", "caffe"]

_ACCEPTED = "pass a torch.nn.Module, the path of an .onnx file, or an onnx.ModelProto"
_CAFFE = (".prototxt", ".caffemodel")


def recognise(source: object) -> Kind:
    """Tell which front-end reads `source`.

    Parameters
    ----------
    source : object
        A ``torch.nn.Module``, a path, an ``onnx.ModelProto``, its bytes, a ``torch.onnx.ONNXProgram``, or the paths of
        the two files of a Caffe network.

    Returns
    -------
    str
        ``"torch"``, ``"onnx"`` or ``"caffe"``.

    Raises
    ------
    BadInput
        If it is no model, or there is no such file; says what it is instead.
    ExportError
        If it is a model that this version does not read; says how to get to one that it does.
    """
    if isinstance(source, str | Path):
        return _recognise_file(Path(source).expanduser())
    if isinstance(source, bytes | bytearray):
        return "onnx"
    if isinstance(source, tuple | list) and len(source) == 2 and all(isinstance(p, str | Path) for p in source):
        return "caffe"
    home = type(source).__module__.partition(".")[0]
    name = type(source).__name__
    if home == "onnx" and name == "ModelProto":
        return "onnx"
    if name == "ONNXProgram" and home == "torch":
        return "onnx"
    torch = sys.modules.get("torch")  # a torch object can't exist before torch is imported
    if torch is not None:
        _refuse_torch(source, torch)
        if isinstance(source, torch.nn.Module):
            return "torch"
    if {base.__module__.partition(".")[0] for base in type(source).__mro__} & {"keras", "tensorflow", "tf_keras"}:
        raise refusal(f"the {name} object", "keras")
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
    if isinstance(source, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        raise refusal(f"{type(source).__name__} (an object in memory)", "torchscript")
    if isinstance(source, torch.export.ExportedProgram):
        raise refusal("ExportedProgram (an object in memory)", "exported-program")
    if isinstance(source, torch.Tensor):
        raise BadInput("this is a tensor, not a model", hint=_ACCEPTED)


def _recognise_file(path: Path) -> Kind:
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
    if kind in ("unknown", "text") and path.suffix.lower() == ".onnx":
        raise ExportError(
            f"{path} is named like an ONNX model, but its contents are not one",
            hint="copy or download it again, or export it again",
        )
    raise refusal(path, kind)


def _folder(path: Path) -> BadInput | ExportError:
    names = sorted(file.name for file in path.iterdir())
    if "saved_model.pb" in names:
        return refusal(path, "tensorflow")
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
