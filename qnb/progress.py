"""Progress of long work: a bar in notebooks, a line in terminals, nothing for what is quick.

Knows nothing of the work.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from qnb.defaults import settings

_DELAY_S = 1.0
_REFRESH_S = 0.1
_shown = threading.local()


class Progress:
    """A bar that others move; it appears once the work has lasted a second, and may be moved from several threads."""

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self._title = title
        self._total = total
        self._unit = unit
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
            self._draw()

    def step(self, text: str = "") -> None:
        """One more unit is done."""
        with self._lock:
            self._done += 1
            self._text = text or self._text
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


class _Silent(Progress):
    def __init__(self) -> None:
        super().__init__("", None, "")

    def _draw(self) -> None:
        pass


SILENT: Progress = _Silent()


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

    Inside another bar's block of the same thread nothing more is shown.
    """
    visible = settings.progress and (_in_notebook() or sys.stderr.isatty())
    if not visible or getattr(_shown, "now", False):
        yield _Silent()
        return
    _shown.now = True
    bar = Progress(title, total, unit)
    try:
        yield bar
    finally:
        _shown.now = False
        bar.close()
