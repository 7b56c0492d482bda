"""Long work in a thread of its own: it tells how far it is, and can be stopped.

Knows nothing of the work, and of how it is shown.
"""

from __future__ import annotations

import contextvars
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qnb import running
from qnb.errors import Interrupted, QnbError

__all__ = ["State", "Task", "failure"]

_TELL_EVERY_S = 0.1


@dataclass(frozen=True)
class State:
    """Where a step is.

    Attributes
    ----------
    state : {"idle", "running", "done", "failed", "cancelled"}
    done, total, text
        How far it is, and what it does just now.
    seconds : float
        How long it took, or takes by now.
    error : dict, optional
        ``kind``, ``what``, ``hint``.
    log : str
        The native log, and after an error that is no `QnbError` the traceback.
    """

    state: str = "idle"
    done: float = 0.0
    total: float | None = None
    text: str = ""
    seconds: float = 0.0
    error: dict[str, str] | None = None
    log: str = ""

    def plain(self) -> dict[str, Any]:
        """Give it as plain values, without the log."""
        return {
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "text": self.text,
            "seconds": round(self.seconds, 1),
            "error": self.error,
        }


def failure(error: BaseException, seconds: float = 0.0) -> State:
    """Give the state after an error: none is lost."""
    if isinstance(error, Interrupted):
        said = {"kind": "", "what": "Stopped. What was finished before is kept.", "hint": error.hint}
        return State("cancelled", seconds=seconds, error=said, log=error.log)
    if isinstance(error, QnbError):
        said = {"kind": type(error).__name__, "what": error.what, "hint": error.hint}
        return State("failed", seconds=seconds, error=said, log=error.log)
    said = {"kind": type(error).__name__, "what": str(error) or type(error).__name__, "hint": "see the log below"}
    return State("failed", seconds=seconds, error=said, log="".join(traceback.format_exception(error)))


class Task(threading.Thread):
    """Runs a function as a work that is listed and can be stopped.

    Parameters
    ----------
    function : callable
        What is to be done.
    title, line : str
        See `qnb.running.work`.
    tell : callable
        Called with the state at each change, ten times a second at most, and at the end; from any thread.
    """

    def __init__(self, function: Callable[[], Any], *, title: str, line: str, tell: Callable[[State], None]) -> None:
        super().__init__(name=f"qnb-task-{title}", daemon=True)
        self._function = function
        self._title, self._line = title, line
        self._tell = tell
        self._told = 0.0
        self._start = time.monotonic()
        self._work: running.Work | None = None
        self._cancelled = False
        self._context = contextvars.Context()  # a work that runs where this is made is none of ours

    def run(self) -> None:
        """Do it."""
        self._context.run(self._run)

    def _run(self) -> None:
        self._tell(State("running"))
        try:
            # the outer one holds the bar, so that none is drawn: what is inside is told to the widget
            with running.work(self._title, line=self._line) as outer, outer.taken():
                self._work = outer
                if self._cancelled:
                    outer.cancel()
                with running.work(self._title, on_change=self._changed):
                    running.heed()
                    result = self._function()
            log = str(getattr(result, "log", "") or "")
            end = State("done", seconds=time.monotonic() - self._start, log=log)
        except BaseException as error:  # it has nowhere else to go
            end = failure(error, time.monotonic() - self._start)
        self._work = None
        self._tell(end)

    def cancel(self) -> None:
        """Ask it to stop."""
        self._cancelled = True
        if (work := self._work) is not None:
            work.cancel()

    def _changed(self, work: running.Work) -> None:
        now = time.monotonic()
        if (outer := self._work) is not None:
            outer.move(work.done, work.total, work.text)
        if now - self._told >= _TELL_EVERY_S:
            self._told = now
            text = "stopping …" if work.cancelled else work.text
            self._tell(State("running", work.done, work.total, text, now - self._start))
