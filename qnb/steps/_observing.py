"""Gathering ranges: calibration samples are sent, several at a time, to the worker that observes them.

Knows the calibration jobs; nothing of how their statistics become encodings.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qnb.errors import QnbError
from qnb.progress import Progress
from qnb.runtime.client import Worker
from qnb.runtime.locate import Runtime
from qnb.runtime.options import session_spec

__all__ = ["Observed", "Ranges", "gather", "observe_all"]

_BYTES = 8 << 20  # of samples in one call
_SAMPLES = 16  # so that the bar moves, and an interrupt costs little
_SAVE_EVERY_S = 20.0  # an interrupt may have to end the worker, and a crash takes it

Sample = Mapping[str, np.ndarray]
Ranges = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Observed:
    """What came of it.

    Attributes
    ----------
    ranges : dict
        By method, then by tensor.
    means : dict of str to ndarray
        ``mean:<tensor>``: of the channels.
    samples : int
    """

    ranges: dict[str, Ranges]
    means: dict[str, np.ndarray]
    samples: int
    log: str


def gather(
    worker: Worker,
    runtime: Runtime,
    model: Path,
    out: Path,
    samples: Iterable[Sample],
    methods: Sequence[Mapping[str, Any]],
    bar: Progress,
    *,
    means: bool = False,
    checkpoint: Path | None = None,
    resume: bool = False,
    threads: int = 0,
    most: int | None = None,
) -> Observed:
    """Run samples through a float model, and find its tensors' ranges.

    Parameters
    ----------
    out : path
        A file to write; others are written beside it.
    methods : sequence of mapping
        ``method``, and ``bits`` and ``percentile`` where they matter.
    means : bool
        Whether the channels' means are wanted.
    checkpoint : path, optional
        See `observe_all`.
    resume : bool
        Whether to go on from `checkpoint` if it is there.
    threads : int
        Of a run; 0 for as many as there are cores.
    most : int, optional
        Values of one array that are counted, 0 for all; the default is what the methods need.
    """
    key = uuid.uuid4().hex
    named = [order["method"] for order in methods]
    if most is None and named == ["entropy"]:
        most = 0  # thinned counts move the ends that entropy finds: 0.6 dB less on a ResNet-50; all the others' hardly
    opened = worker.call(
        "observe_open",
        {
            "key": key,
            "model": str(model),
            "out": str(out),
            "spec": session_spec(str(out), "ort", runtime).plain(),
            "histogram": named != ["min-max"],
            "means": means,
            **({} if most is None else {"most": most}),
            "threads": threads,
            "resume": str(checkpoint) if resume and checkpoint and checkpoint.exists() else None,
        },
    )
    count = observe_all(worker, key, samples, bar, checkpoint, done=opened.values["samples"])
    closed = worker.call("observe_close", {"key": key, "methods": [dict(order) for order in methods]})
    return Observed(closed.values["ranges"], closed.arrays, count, opened.log + closed.log)


def observe_all(
    worker: Worker,
    key: str,
    stream: Iterable[Sample],
    bar: Progress,
    checkpoint: Path | str | None = None,
    *,
    done: int = 0,
) -> int:
    """Send all samples of a stream to an open calibration.

    Parameters
    ----------
    worker : Worker
        Where ``observe_open`` was called.
    key : str
        The calibration's.
    stream : iterable of dict of ndarray
        The samples by input name.
    bar : Progress
        Moved with each sample.
    checkpoint : path, optional
        Where the statistics are written if the stream raises, the work fails or the user interrupts, and now and then
        before, so that another calibration can go on from there (``resume`` of ``observe_open``).
    done : int
        Samples at the front of the stream that the calibration has had already; they are skipped.

    Returns
    -------
    int
        Samples of the stream, those that were skipped included.

    Raises
    ------
    BaseException
        Whatever stopped it; what had come before is in `checkpoint` then.
    """
    count, saved, sending = done, time.monotonic(), False
    waiting: list[Sample] = []

    def send() -> None:
        nonlocal count, saved, sending
        before, sent = count, list(waiting)
        waiting.clear()
        stacked = {name: np.stack([sample[name] for sample in sent]) for name in sent[0]}
        sending = True
        worker.call(
            "observe",
            {"key": key, "count": len(sent)},
            stacked,
            on_progress=lambda part, total, text: bar.update(before + part),
        )
        sending = False
        count = before + len(sent)
        bar.update(count)
        if checkpoint is not None and time.monotonic() - saved > _SAVE_EVERY_S:
            worker.call("observe_save", {"key": key, "path": str(checkpoint)})
            saved = time.monotonic()

    bar.update(done)
    try:
        size = 0
        for sample in itertools.islice(stream, done, None):
            # the arrays may be views of what the stream writes over next
            waiting.append({name: np.array(value) for name, value in sample.items()})
            size += sum(value.nbytes for value in sample.values())
            if len(waiting) == _SAMPLES or size * (len(waiting) + 1) > _BYTES * len(waiting):
                send()
                size = 0
        if waiting:
            send()
    except BaseException:
        # what stopped the work is what the caller has to hear of, not that this failed too
        if checkpoint is not None:
            with contextlib.suppress(QnbError):
                if waiting and not sending:
                    send()
            with contextlib.suppress(QnbError):
                worker.call("observe_save", {"key": key, "path": str(checkpoint)})
        raise
    return count
