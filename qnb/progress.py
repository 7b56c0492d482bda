"""Progress of long work: a bar in notebooks, a line in terminals, nothing for what is quick.

It moves the work that runs (`qnb.running`), and stops it where that was asked for. Knows nothing of what the work is.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from qnb import running
from qnb.defaults import settings
from qnb.running import Work

_DELAY_S = 1.0
_REFRESH_S = 0.1


class Progress:
    """A bar that others move; it appears once the work has lasted a second, and may be moved from several threads.

    Moving it raises `Interrupted` if the work was cancelled.
    """

    def __init__(self, title: str, total: int | None, unit: str, *, work: Work | None, visible: bool) -> None:
        self._title = title
        self._total = total
        self._unit = unit
        self._work = work
        self._visible = visible
        self._done = 0.0
        self._text = ""
        self._lock = threading.Lock()
        self._start = self._drawn = time.monotonic()
        self._bar: Any = None

    def update(self, done: float, total: float | None = None, text: str = "") -> None:
        """Set how much is done (absolute), of how much, and what is being done."""
        with self._lock:
            self._done = done
            self._total = int(total) if total and self._total is None else self._total
            self._text = text or self._text
            self._show()
        running.heed()

    def step(self, text: str = "") -> None:
        """One more unit is done."""
        with self._lock:
            self._done += 1
            self._text = text or self._text
            self._show()
        running.heed()

    def _show(self) -> None:
        if self._work is not None:
            self._work.move(self._done, self._total, self._text)
        if self._visible:
            self._draw()

    def _draw(self) -> None:
        now = time.monotonic()
        if now - self._start < _DELAY_S or now - self._drawn < _REFRESH_S:
            return
        self._drawn = now
        if self._bar is None:
            layout = None if self._total else "{desc}: {elapsed} {postfix}"
            self._bar = _tqdm()(total=self._total, desc=self._title, unit=self._unit, leave=False, bar_format=layout)
        self._bar.n = self._done
        self._bar.set_postfix_str(self._text, refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


SILENT = Progress("", None, "", work=None, visible=False)


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _tqdm() -> Any:
    if _in_notebook():
        from tqdm.notebook import tqdm as notebook_tqdm

        return notebook_tqdm
    from tqdm import tqdm

    return tqdm


@contextlib.contextmanager
def progress(title: str, total: int | None = None, unit: str = "it") -> Iterator[Progress]:
    """Show a bar while the block runs; nothing where nobody looks (no notebook, no terminal).

    It moves the current work, and is a work of its own where there is none. Inside another bar's block nothing more is
    shown or moved.
    """
    visible = settings.progress and (_in_notebook() or sys.stderr.isatty())
    with contextlib.ExitStack() as stack:
        at = running.current() or stack.enter_context(running.work(title))
        if not stack.enter_context(at.taken()):
            yield SILENT
            return
        bar = Progress(title, total, unit, work=at, visible=visible and not at.within_a_bar)
        at.move(0, total, "" if at.title == title else title)
        try:
            yield bar
        finally:
            bar.close()
