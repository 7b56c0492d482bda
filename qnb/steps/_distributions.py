"""How the activations of a float model are distributed over samples: the statistics that calibrate makes its ranges of.

Knows the calibration jobs; nothing of grids.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np

from qnb import cache
from qnb.artifacts import Model
from qnb.errors import BadInput
from qnb.progress import progress
from qnb.quant.observers import Distribution, Histogram, restore
from qnb.runtime import client
from qnb.runtime.locate import find_runtime
from qnb.runtime.options import session_spec
from qnb.samples import samples as sample_stream
from qnb.steps._observing import observe_all

__all__ = ["distributions"]


def distributions(
    model: Model, data: object, *, samples: int | None = None, runtime: str | None = None
) -> dict[str, tuple[Distribution, tuple[float, float]]]:
    """Count the values of each activation of a float model.

    Parameters
    ----------
    model : Model
    data : array, dict, iterable, DataLoader, folder or file
        As for `qnb.calibrate`.
    samples : int, optional
        Use at most so many.
    runtime : str, optional
        Version of the runtime.

    Returns
    -------
    dict
        By tensor, in the graph's order: its distribution, all values counted; and its smallest and largest value.

    Raises
    ------
    BadInput
        If a sample does not fit the model, or there is none.
    Interrupted
        If the work was stopped.
    """
    found_runtime = find_runtime(runtime)
    stream = sample_stream(data, model.inputs, limit=samples)
    key = uuid.uuid4().hex
    with (
        cache.scratch() as folder,
        client.borrow(found_runtime) as worker,
        progress("count values", stream.count, unit="sample") as bar,
    ):
        out, state = folder / "observed.onnx", folder / "state.npz"
        spec = session_spec(str(out), "ort", found_runtime).plain()
        asked = {"key": key, "model": str(model.path), "out": str(out), "spec": spec, "histogram": True, "most": 0}
        worker.call("observe_open", asked)
        if not observe_all(worker, key, stream, bar):
            raise BadInput("there is no sample to count", hint="give one sample at least")
        worker.call("observe_save", {"key": key, "path": str(state)})
        observer = _read(state)
        worker.call("observe_close", {"key": key, "methods": []})
    return {name: (observer.distribution(name), extent) for name, extent in observer.extents.items()}


def _read(path: Path) -> Histogram:
    with np.load(path, allow_pickle=False) as arrays:
        observer = restore({name: arrays[name] for name in arrays.files})
    assert isinstance(observer, Histogram)
    return observer
