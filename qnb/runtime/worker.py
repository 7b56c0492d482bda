"""The worker process: ``python -m qnb.runtime.worker JOBS_MODULE [SHARED_MEMORY_FD]``.

Owns every session of native code. Reads requests from its standard input, runs one job at a time and writes replies to
its standard output; whatever native code prints goes to standard error, which the client keeps as the log. It ends when
its input ends, so that it never outlives its kernel. Knows nothing of the jobs, which it imports by name.
"""

from __future__ import annotations

import _thread
import ctypes
import importlib
import io
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from qnb.errors import QnbError
from qnb.runtime.protocol import ProtocolError, receive, send
from qnb.runtime.shared import Arena

Reply = tuple[dict[str, Any], dict[str, np.ndarray]]
Job = Callable[["JobContext", dict[str, Any], dict[str, np.ndarray]], Reply]
_PROGRESS_INTERVAL_S = 0.1


class JobContext:
    """What a job has besides its arguments.

    Attributes
    ----------
    state : dict
        Values that live as long as the worker: loaded sessions, half-done calibrations.
    """

    def __init__(self, send_progress: Callable[[dict[str, Any]], None]) -> None:
        self.state: dict[str, Any] = {}
        self._send_progress = send_progress
        self._last = 0.0

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Tell the client how far the job is; cheap enough to call for each sample."""
        now = time.monotonic()
        if now - self._last >= _PROGRESS_INTERVAL_S:
            self._last = now
            self._send_progress({"done": done, "total": total, "text": text})


class _Worker:
    def __init__(
        self, requests: io.RawIOBase, replies: io.RawIOBase, jobs: dict[str, Job], arena: Arena | None = None
    ) -> None:
        self._arena = arena
        self._requests = requests
        self._replies = replies
        self._jobs = jobs
        self._inbox: queue.SimpleQueue[tuple[dict[str, Any], dict[str, np.ndarray]]] = queue.SimpleQueue()
        self._working_on: int | None = None
        self._writing = False
        self._interrupted = False
        self._context = JobContext(lambda body: self._write({"type": "progress", **body}))

    def run(self) -> None:
        signal.signal(signal.SIGINT, self._on_interrupt)
        threading.Thread(target=self._read, daemon=True).start()
        self._write({"type": "ready", "pid": os.getpid()})
        while True:
            try:
                body, arrays = self._inbox.get()
                self._answer(body, arrays)
            except KeyboardInterrupt:  # it came too late: the work was done
                continue

    def _read(self) -> None:
        """Take requests while the main thread works; the end of the input ends the process at once."""
        try:
            while True:
                body, arrays = receive(self._requests)
                if body.get("type") == "cancel":
                    if body.get("id") == self._working_on:
                        _interrupt_main_thread()
                else:
                    self._inbox.put((body, arrays))
        except (EOFError, OSError):
            os._exit(0)
        except ProtocolError:
            traceback.print_exc()
            os._exit(2)

    def _on_interrupt(self, *_: object) -> None:
        if self._writing:  # never leave half a message behind
            self._interrupted = True
        elif self._working_on is not None:
            raise KeyboardInterrupt

    def _write(self, body: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        self._writing = True
        try:
            send(self._replies, body, arrays)
        except OSError:
            os._exit(0)  # nobody is listening any more
        finally:
            self._writing = False
        if self._interrupted:
            self._interrupted = False
            if self._working_on is not None:
                raise KeyboardInterrupt

    def _answer(self, body: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        reply: dict[str, Any]
        out: dict[str, np.ndarray] = {}
        try:
            self._working_on = body["id"]
            if self._arena and "shared" in body:
                arrays = self._arena.get(body["shared"])
            result, out = self._jobs[body["job"]](self._context, body["args"], arrays)
            self._working_on = None
            reply = {"type": "result", "result": result}
        except KeyboardInterrupt:
            reply = {"type": "error", "error": "Interrupted", "what": "interrupted", "hint": ""}
        except QnbError as error:
            reply = {"type": "error", "error": type(error).__name__, "what": error.what, "hint": error.hint}
        except MemoryError:
            traceback.print_exc()
            what = "the worker ran out of memory"
            reply = {"type": "error", "error": "QnbError", "what": what, "hint": "use a smaller batch or model"}
        except Exception as error:
            traceback.print_exc()
            what = f"{body.get('job')}: {type(error).__name__}: {error}"
            reply = {"type": "error", "error": "QnbError", "what": what, "hint": "see the log; this should not happen"}
        self._working_on = None
        _flush_native_output()
        try:
            self._write({"id": body.get("id"), **reply}, out)
        except (TypeError, ValueError, OverflowError) as error:  # nothing was written yet: the header is packed first
            what = f"{body.get('job')}: its answer can't be sent: {error}"
            reply = {"type": "error", "error": "QnbError", "what": what, "hint": "see the log; this should not happen"}
            self._write({"id": body.get("id"), **reply})


def _interrupt_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):  # a real signal also wakes the main thread from a sleep
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _libc() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None) if os.name == "posix" else ctypes.CDLL("msvcrt")
    except OSError:
        return None


def _flush_native_output() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if _LIBC is not None:
        _LIBC.fflush(None)


_LIBC = _libc()


def _die_with_parent() -> None:
    """Ask Linux to kill this process with its parent, for native code that never lets the reading thread run."""
    if sys.platform == "linux" and _LIBC is not None:
        pr_set_pdeathsig = 1  # linux/prctl.h
        _LIBC.prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)


def _private_streams() -> tuple[io.RawIOBase, io.RawIOBase]:
    """Keep standard input and output for messages, and leave native code the log for all that it prints."""
    requests, replies = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    if sys.platform == "win32":
        import msvcrt

        for fd in (requests, replies):
            msvcrt.setmode(fd, os.O_BINARY)
    return io.FileIO(requests, "rb"), io.FileIO(replies, "wb")


def main() -> None:
    """Serve jobs until the input ends."""
    _die_with_parent()
    requests, replies = _private_streams()
    # onnxsim and onnxruntime.quantization import torch where it is installed: 1.2 s and 230 MB for nothing.
    sys.modules["torch"] = None  # type: ignore[assignment]
    registry: dict[str, Job] = importlib.import_module(sys.argv[1]).JOBS
    arena = Arena(int(sys.argv[2])) if len(sys.argv) > 2 else None
    _Worker(requests, replies, registry, arena).run()


if __name__ == "__main__":
    main()
