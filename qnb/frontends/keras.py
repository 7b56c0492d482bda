"""The Keras side: files checked and loaded, a model's inputs and outputs by name, a module of a model on torch's backend.

Works on either backend. Knows nothing of ONNX, nor of how TensorFlow's graphs become it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qnb.errors import ExportError, RuntimeUnavailable
from qnb.frontends.archives import check_config, check_hdf5, keras_config
from qnb.frontends.ports import Port

__all__ = ["as_module", "backend", "backend_of", "call", "load", "ports", "unroll", "use"]


def backend() -> str:
    """Give the backend to load files with: what ``KERAS_BACKEND`` says, else ``tensorflow``, else ``torch``.

    Raises
    ------
    RuntimeUnavailable
        If neither is there, or Keras is not.
    """
    needs = {"tensorflow": ("tensorflow", "tf2onnx"), "torch": ("keras", "torch", "onnxscript")}
    asked = os.environ.get("KERAS_BACKEND")
    for name in [asked, *needs] if asked in needs else needs:
        if all(importlib.util.find_spec(module) for module in needs[name]):
            return name
    raise RuntimeUnavailable(
        "reading a Keras model needs Keras with TensorFlow or PyTorch, which are not installed",
        hint='pip install "qnb[tensorflow]" (1.3 GB), or "qnb[keras]", which reads it through PyTorch',
    )


def backend_of(model: Any) -> str:
    """Give the backend that a model in memory computes with."""
    import sys

    if any(base.__module__.startswith("tf_keras") for base in type(model).__mro__):
        return "tensorflow"
    return str(sys.modules["keras"].backend.backend())


def load(path: Path | str, *, trust: bool = False) -> Any:
    """Read a ``.keras`` or ``.h5`` file into a model, after a look at what is in it.

    Parameters
    ----------
    path : path
        The file.
    trust : bool
        Whether it may run code of its own: Lambda layers, classes that are not Keras's.

    Raises
    ------
    ExportError
        If it holds code and is not trusted, holds weights only, is damaged or hostile.
    """
    path = Path(path)
    if zipfile.is_zipfile(path):
        check_config(path, keras_config(path), trust=trust)
        _check_weights(path, "model.weights.h5")
    else:
        config = _check_weights(path)
        if config is None:
            raise ExportError(
                f"{path} holds weights without the model that uses them",
                hint="build the model, call model.load_weights(…), and pass the model or what model.save writes",
            )
        check_config(path, config, trust=trust)
    import keras

    name = path
    if path.suffix.lower() not in (".keras", ".h5", ".hdf5"):  # Keras goes by the suffix
        raise ExportError(
            f"Keras reads {path} only under a name that ends in .keras or .h5", hint="rename the file accordingly"
        )
    try:
        return keras.saving.load_model(name, compile=False, safe_mode=not trust)
    except Exception as error:  # whatever Keras trips over
        raise ExportError(
            f"Keras can't read {path}: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
            hint="load it where it was made, and pass the model itself; or save it again with a current Keras",
        ) from error


def _check_weights(path: Path, member: str | None = None) -> Any:
    """Check an HDF5 file, or that in a zip archive; give the configuration that is in it, if any."""
    import json

    import h5py

    damage = (OSError, KeyError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
    try:
        with contextlib.ExitStack() as stack:
            source: Any = path
            if member:
                source = stack.enter_context(stack.enter_context(zipfile.ZipFile(path)).open(member))
            file = stack.enter_context(h5py.File(source, "r"))
            check_hdf5(file, path)
            text = file.attrs.get("model_config")
            return None if text is None else json.loads(text)
    except damage as error:
        raise ExportError(
            f"{path} is a damaged {'Keras' if member else 'HDF5'} file: {error}", hint="copy or download it again"
        ) from error


def _nest(model: Any) -> Any:
    if type(model).__module__.startswith("keras") or any(
        b.__module__.startswith("keras.") for b in type(model).__mro__
    ):
        import keras

        return keras.tree
    import tensorflow

    return tensorflow.nest  # tf_keras


def _inputs(model: Any) -> Any:
    try:
        return model.input
    except (AttributeError, ValueError) as error:
        inputs = getattr(model, "inputs", None)  # of a Sequential that was never called
        if not inputs:
            raise ExportError(
                f"the Keras model {getattr(model, 'name', '')!r} does not know its inputs",
                hint="begin a Sequential with keras.Input(shape), or make a functional model: keras.Model(inputs, outputs)",
            ) from error
        return inputs[0] if len(inputs) == 1 else inputs


def ports(model: Any) -> list[Port]:
    """Give a model's inputs, in the order of `call`; the keys of a dict are their names, else Keras's own.

    Raises
    ------
    ExportError
        If the model was never built.
    """
    inputs = _inputs(model)
    tensors = _nest(model).flatten(inputs)
    if isinstance(inputs, Mapping) and len(inputs) == len(tensors):
        names = [str(key) for key in _nest(model).flatten({key: key for key in inputs})]
    else:
        names = [str(tensor.name).partition(":")[0] for tensor in tensors]
    return [
        Port(name, _dtype(tensor), tuple(tensor.shape)) for name, tensor in zip(_unique(names), tensors, strict=True)
    ]


def _dtype(tensor: Any) -> str:
    return str(getattr(tensor.dtype, "name", tensor.dtype))


def _unique(names: Sequence[str]) -> list[str]:
    return list(names) if len(set(names)) == len(names) else [f"{name}_{k}" for k, name in enumerate(names)]


def call(model: Any, tensors: Sequence[Any]) -> dict[str, Any]:
    """Call a model for inference; give its outputs by name: keys of a dict, or the layers that they come from."""
    nest = _nest(model)
    result = model(nest.pack_sequence_as(_inputs(model), list(tensors)), training=False)
    if isinstance(result, Mapping) and all(not isinstance(value, Mapping | list | tuple) for value in result.values()):
        return {str(key): value for key, value in result.items()}
    values = nest.flatten(result)
    names = list(getattr(model, "output_names", None) or ())
    if len(names) != len(values) or len(set(names)) != len(names):
        names = ["output"] if len(values) == 1 else [f"output_{number}" for number in range(len(values))]
    return dict(zip(names, values, strict=True))


def unroll(model: Any) -> list[str]:
    """Have recurrent layers of a known length written out step by step; give their names."""
    changed = []
    layers = list(model._flatten_layers()) if hasattr(model, "_flatten_layers") else list(model.layers)
    for layer in layers:
        if getattr(layer, "unroll", None) is False:
            with contextlib.suppress(AttributeError, ValueError):
                layer.unroll = True
                changed.append(str(layer.name))
    return changed


def as_module(model: Any) -> Any:
    """Wrap a model of torch's backend as a module that takes tensors in the order of `ports` and returns a dict."""
    import torch

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
            return call(self.model, tensors)

    return Wrapped()


def use(name: str) -> None:
    """Have Keras use a backend, in a process that has not imported it yet."""
    os.environ["KERAS_BACKEND"] = name
