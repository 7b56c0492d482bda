"""Sending calibration samples to the worker that observes them, several at a time.

Knows the calibration jobs; nothing of how their statistics become encodings.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from qnb.errors import QnbError
from qnb.progress import Progress
from qnb.runtime.client import Worker

__all__ = ["observe_all"]

_BYTES = 8 << 20  # of samples in one call
_SAMPLES = 16  # so that the bar moves, and an interrupt costs little
_SAVE_EVERY_S = 20.0  # an interrupt may have to end the worker, and a crash takes it

Sample = Mapping[str, np.ndarray]


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
