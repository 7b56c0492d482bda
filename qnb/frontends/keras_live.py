"""A Keras model in the notebook's memory: traced there, where its classes are, and saved for a worker to convert.

TensorFlow is loaded there already, since the model is. Knows nothing of ONNX.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qnb.errors import ExportError
from qnb.frontends import keras
from qnb.frontends.ports import Arrays

__all__ = ["save_live"]


def save_live(model: Any, folder: Path) -> Callable[[Arrays], Arrays]:
    """Save a Keras model that lives in this process, on TensorFlow's backend, as a SavedModel; give a way to run it.

    It is traced here, since its classes and functions may exist nowhere else; what follows happens in a worker.

    Raises
    ------
    ExportError
        If it can't be traced, or calls Python while it runs.
    """
    import tensorflow as tf

    ports = keras.ports(model)
    specs = [tf.TensorSpec(port.shape, port.dtype, name=port.name) for port in ports]
    holder = tf.Module()
    holder.model = model
    try:
        holder.function = tf.function(lambda *tensors: keras.call(model, tensors), input_signature=specs)
        tf.saved_model.save(holder, str(folder), signatures=holder.function)
    except Exception as error:  # whatever the model's own code raises
        raise ExportError(
            f"the Keras model can't be traced: {type(error).__name__}: {' '.join(str(error).split())[:400]}",
            hint="its call must consist of TensorFlow and Keras ops, and not branch in Python on a tensor's value",
        ) from error

    def run(feeds: Arrays) -> Arrays:
        results = keras.call(model, [tf.constant(feeds[port.name]) for port in ports])
        return {name: np.asarray(value) for name, value in results.items()}

    return run
