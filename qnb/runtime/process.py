"""One worker process, seen from the kernel: start it, call jobs in it, and word every way in which it can end.

Knows nothing of other workers, nor of what the jobs do.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

import qnb.errors
from qnb import running
from qnb.defaults import settings
from qnb.errors import Interrupted, QnbError, WorkerCrashed, WorkerLost, WorkerTimeout
from qnb.files import storage_errors
from qnb.runtime import logs
from qnb.runtime.locate import Runtime
from qnb.runtime.protocol import ProtocolError, receive, send
from qnb.runtime.shared import Arena

JOBS_MODULE = "qnb.jobs"
_START_TIMEOUT_S = 60.0
_INTERRUPT_GRACE_S = 0.4
_TICK_S = 0.05
_THREAD_END_S = 2.0
_LOG_EVERY_S = 0.2
_HEADER_ROOM = 64 << 10
_MAX_LOG = 64 << 20
AFTER_INTERRUPT = "earlier results are intact"

OnProgress = Callable[[float, float | None, str], None]
_Message = tuple[dict[str, Any], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Answer:
    """What a job gave back: plain values, arrays, and all that native code printed meanwhile."""

    values: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    log: str = ""


class _Log:
    """The file that takes a worker's output; it has no name where the platform allows that."""

    def __init__(self) -> None:
        handle = tempfile.NamedTemporaryFile(prefix="qnb-worker-", suffix=".log", delete=False)  # noqa: SIM115
        handle.close()
        self._path = Path(handle.name)
        self.writer: IO[bytes] = self._path.open("ab", buffering=0)
        self._reader: IO[bytes] = self._path.open("rb")
        if os.name == "posix":
            self._path.unlink()

    def end(self) -> int:
        return self._reader.seek(0, os.SEEK_END)

    def since(self, start: int) -> str:
        if self.end() == start:  # as a rule; what follows is worth saving on each call
            return ""
        self._reader.seek(start)
        return logs.clean(self._reader.read().decode(errors="replace"))

    def trim(self) -> None:
        if self.end() > _MAX_LOG:
            os.ftruncate(self.writer.fileno(), 0)

    def close(self) -> None:
        self.writer.close()
        self._reader.close()
        self._path.unlink(missing_ok=True)


_Order = Callable[[], "subprocess.Popen[bytes]"]


class _Spawner(threading.Thread):
    """A thread that lives as long as the process and starts all workers.

    Linux kills a child with the *thread* that started it, and the caller's may be a short-lived one of a pool.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True, name="qnb-spawner")
        self._orders: queue.SimpleQueue[tuple[_Order, Future[subprocess.Popen[bytes]]]] = queue.SimpleQueue()
        self.pid = os.getpid()
        self.start()

    def run(self) -> None:
        while True:
            order, started = self._orders.get()
            try:
                started.set_result(order())
            except BaseException as error:
                started.set_exception(error)

    def do(self, order: _Order) -> subprocess.Popen[bytes]:
        started: Future[subprocess.Popen[bytes]] = Future()
        self._orders.put((order, started))
        try:
            return started.result()
        except KeyboardInterrupt:  # nobody will know of the process that is being started
            process = started.result()
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            raise


_spawner: _Spawner | None = None
_spawner_lock = threading.Lock()


def _spawn(order: _Order) -> subprocess.Popen[bytes]:
    global _spawner
    with _spawner_lock:
        if _spawner is None or _spawner.pid != os.getpid():  # a forked process has no threads but its own
            _spawner = _Spawner()
    return _spawner.do(order)


class Worker:
    """A process that runs jobs for one runtime, one at a time.

    Parameters
    ----------
    runtime : Runtime or None
        The runtime whose site folder the process imports from; None for jobs that need no runtime.
    jobs : str, optional
        Module that has the registry of its jobs; by default `qnb.jobs`.
    """

    def __init__(self, runtime: Runtime | None, jobs: str = "") -> None:
        self.runtime = runtime
        self._jobs = jobs or JOBS_MODULE
        self._ids = itertools.count(1)
        self._working_on: int | None = None
        with storage_errors(tempfile.gettempdir()):
            self._log = _Log()
        self._arena = Arena.create()
        self._inbox: queue.SimpleQueue[_Message | Exception] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[_Message | None] = queue.SimpleQueue()
        try:
            self._process = _spawn(self._start)
        except BaseException:
            self._log.close()
            if self._arena:
                self._arena.close()
            raise
        self._threads = [
            threading.Thread(target=target, daemon=True, name="qnb-worker-io")
            for target in (self._receive_all, self._send_all)
        ]
        try:
            for thread in self._threads:
                thread.start()
            self._wait_for(lambda body: body.get("type") == "ready", 0, _START_TIMEOUT_S, None, "starting")
        except BaseException:
            self.close()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        source_root = str(Path(__file__).resolve().parents[2])
        path = [str(self.runtime.site)] if self.runtime and self.runtime.site else []
        if not any(Path(p or ".").resolve() == Path(source_root) for p in sys.path if "site-packages" in p):
            path.append(source_root)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)}
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # Ctrl-C is for the kernel alone
        shared = [str(self._arena.fd)] if self._arena else []
        process = subprocess.Popen(
            # -P: a file in the user's folder must not stand in for a module of ours.
            [sys.executable, "-P", "-m", "qnb.runtime.worker", self._jobs, *shared],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.writer,
            bufsize=0,
            env=env,
            pass_fds=[self._arena.fd] if self._arena else [],
            start_new_session=os.name == "posix",
            creationflags=flags,
        )
        self._pipe_bytes = min(_widen_pipe(stream) for stream in (process.stdin, process.stdout))
        return process

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    @property
    def busy(self) -> bool:
        """Whether a job was begun and has not been answered."""
        return self._working_on is not None

    def _receive_all(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                self._inbox.put(receive(self._process.stdout))  # type: ignore[arg-type]
        except (EOFError, OSError, ValueError, ProtocolError) as error:
            self._inbox.put(error)

    def _post(self, body: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Send a request: from this thread where the empty pipe holds all of it, which saves a change of threads.

        A worker that does not read must not block the caller, so what is larger is left to the sending thread.
        """
        if self._arena and (table := self._arena.put(arrays)) is not None:
            body, arrays = body | {"shared": table}, {}
        if sum(a.nbytes for a in arrays.values()) + _HEADER_ROOM > self._pipe_bytes:
            self._outbox.put((body, arrays))
            return
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # the receiving thread sees the end as well, and reports it
            send(self._process.stdin, body, arrays)

    def _send_all(self) -> None:
        assert self._process.stdin is not None
        while (message := self._outbox.get()) is not None:
            try:
                send(self._process.stdin, *message)
            except (OSError, ValueError):
                return  # the receiving thread sees the end as well, and reports it

    def call(
        self,
        job: str,
        args: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        *,
        timeout_s: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Answer:
        """Run a job and wait for its answer.

        Parameters
        ----------
        job : str
            A name in the jobs' registry.
        args : mapping, optional
            Plain values.
        arrays : mapping of str to ndarray, optional
            Arrays of a bool, integer or float dtype.
        timeout_s : float, optional
            Seconds without a sign of progress until the job counts as hung; 0 waits for ever; the default is
            ``settings.timeout_s``.
        on_progress : callable, optional
            Called with (done, total, text) from this thread while the job runs; compile stages come as text.

        Raises
        ------
        WorkerLost
            If the process was dead before the job could begin.
        WorkerCrashed
            If it died while working.
        WorkerTimeout
            If it did not answer in time; it is stopped.
        Interrupted
            If the user interrupted, or the current work was cancelled (`qnb.running`); the worker is stopped unless it
            heeds within 0.4 s.
        QnbError
            What the job itself raised.
        """
        if not self.alive:
            raise WorkerLost(f"the worker (pid {self.pid}) was dead: {self._end()}", hint="run the step again")
        self._log.trim()
        start = self._log.end()
        running.heed()
        number = next(self._ids)
        timeout = settings.timeout_s if timeout_s is None else timeout_s
        self._working_on = number
        try:
            self._post({"id": number, "job": job, "args": dict(args or {})}, dict(arrays or {}))
            body, out = self._wait_for(lambda b: b.get("id") == number, start, timeout or None, on_progress, job)
        except KeyboardInterrupt as interrupt:
            log = self._cancel(number, start)
            raise Interrupted(f"{job}: interrupted by the user", hint=AFTER_INTERRUPT, log=log) from interrupt
        self._working_on = None
        log = self._log.since(start)
        if body["type"] == "error":
            raise _worded(body, log)
        return Answer(body["result"], out, log)

    def _wait_for(
        self,
        wanted: Callable[[dict[str, Any]], bool],
        start: int,
        timeout: float | None,
        on_progress: OnProgress | None,
        job: str,
    ) -> _Message:
        heard = looked = time.monotonic()
        while True:
            if running.told_to_stop():
                raise KeyboardInterrupt
            try:
                message = self._inbox.get(timeout=_TICK_S)
            except queue.Empty:
                if timeout and time.monotonic() - heard > timeout:
                    log = self._log_text(start)
                    self.close()
                    raise WorkerTimeout(
                        f"{job}: no answer after {timeout:g} s; the worker was stopped",
                        hint="raise settings.timeout_s (or QNB_TIMEOUT_S) if the work really takes that long",
                        log=log,
                    ) from None
                if on_progress and time.monotonic() - looked > _LOG_EVERY_S:
                    looked = time.monotonic()
                    if stage := logs.current_stage(self._log.since(start)):
                        on_progress(0, None, stage)
                continue
            heard = time.monotonic()
            if isinstance(message, Exception):
                self._raise_crash(job, start)
            elif wanted(message[0]):
                return message
            elif message[0].get("type") == "progress" and on_progress:
                body = message[0]
                on_progress(body["done"], body["total"], body["text"])

    def _raise_crash(self, job: str, start: int) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        log = self._log_text(start)
        end = self._end()
        self.close()
        raise WorkerCrashed(
            f"{job}: the worker process died: {end}",
            hint="native code crashed; this kernel and your results are intact, and the next call starts a new worker. "
            "See %qnn log",
            log=log,
        )

    def _log_text(self, start: int) -> str:
        try:
            return self._log.since(start)
        except ValueError:  # closed
            return ""

    def _end(self) -> str:
        code = self._process.poll()
        if code is None:
            return "it closed its output"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"

    def _cancel(self, number: int, start: int) -> str:
        """Ask the worker to stop, end it where it does not heed, and give its log."""
        deadline = time.monotonic() + _INTERRUPT_GRACE_S
        try:
            self._outbox.put(({"type": "cancel", "id": number}, {}))
            while (left := deadline - time.monotonic()) > 0:
                message = self._inbox.get(timeout=left)
                if isinstance(message, Exception):
                    break
                if message[0].get("id") == number:
                    self._working_on = None
                    return self._log_text(start)
        except (queue.Empty, KeyboardInterrupt):
            pass
        log = self._log_text(start)
        self.close()
        return log

    def close(self) -> None:
        """End the process; safe to call again."""
        self._outbox.put(None)
        if self.alive:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        # A thread that is about to read would find the pipe of the next worker under the same number.
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_THREAD_END_S)
        if not any(thread.is_alive() for thread in self._threads):
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        if self._arena:
            self._arena.close()
        self._log.close()


def _widen_pipe(stream: IO[bytes] | None) -> int:
    """Let a whole image pass in one write (Linux: 64 KiB by default, 1 MiB for anyone who asks); give what it holds."""
    if sys.platform == "linux" and stream is not None:
        import fcntl

        with contextlib.suppress(OSError):
            return fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)
    return 0  # not known


def _worded(body: Mapping[str, Any], log: str) -> QnbError:
    """Build the error that a job raised, with what the runtime itself said of it."""
    kind = getattr(qnb.errors, str(body["error"]), QnbError)
    if not (isinstance(kind, type) and issubclass(kind, QnbError)):
        kind = QnbError
    said = logs.errors(log)
    what = str(body["what"]) + (f"\n  the runtime said: {said[-1]}" if said else "")
    return kind(what, hint=str(body["hint"]), log=log)
