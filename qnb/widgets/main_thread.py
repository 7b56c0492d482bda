"""Drawing belongs to the main thread: Matplotlib's settings are the whole process's, and a cell may be drawing, too.

Work in threads leaves what is to be drawn here; it is done when the kernel is between two cells, or when somebody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable

__all__ = ["MainThread"]


class MainThread:
    """A queue of calls for the thread that made it, served by the event loop that ran there then, if one did."""

    def __init__(self) -> None:
        self._thread = threading.current_thread()
        self._calls: deque[Callable[[], None]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

    def call(self, function: Callable[[], None]) -> None:
        """Call a function in that thread, soon; at once if this is it. Without a loop somebody has to call `serve`."""
        self._calls.append(function)
        if threading.current_thread() is self._thread:
            self.serve()
        elif self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.serve)

    def serve(self) -> None:
        """Make the calls that wait; from that thread alone."""
        while True:
            try:
                call = self._calls.popleft()
            except IndexError:
                return
            call()
