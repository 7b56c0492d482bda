"""Work that runs: what it is, how far it is, and a way to stop it from this process or from another one.

A work of the top level that lasts is announced in a small file of the user's state folder; a file beside it asks it to
stop. Knows nothing of what the work is.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil

from qnb import state
from qnb.errors import Interrupted, StorageError, UnknownName
from qnb.files import write_text

_LOOK_S = 0.05
_WRITE_EVERY_S = 0.5
_QUICK_S = 0.25  # what is over sooner is not worth a file
_MAX_FILE = 64 << 10
_MAX_FILES = 1000
_MAX_TEXT = 2000
_STALE_S = 60.0
_SAME_BIRTH_S = 10.0  # a process's birth as seen twice, should the clock have been set in between

T = TypeVar("T")


class Work:
    """A piece of work that runs; made by `work` and by `qnb.progress.progress`.

    Attributes
    ----------
    id : str
        Name that no other work has, in whatever process.
    title : str
        What is done.
    line : str
        The line that did it, such as ``%qnn context quantized``; empty if it is not known.
    done : float
        How much is done.
    total : float or None
        Of how much, if that is known.
    text : str
        What is being done just now.
    started : datetime
        Since when, in UTC.
    """

    def __init__(
        self,
        title: str,
        *,
        line: str = "",
        on_change: Callable[[Work], None] | None = None,
        parent: Work | None = None,
    ) -> None:
        self.id = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.title = title
        self.line = line
        self.done = 0.0
        self.total: float | None = None
        self.text = ""
        self.started = datetime.now(UTC)
        self._parent = parent
        self._on_change = on_change
        self._cancelled = threading.Event()
        self._moved = False  # whether a bar moves it: there is one at a time

    def __repr__(self) -> str:
        return f"<Work {self.id}: {self.title}>"

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to stop, or what it is a part of."""
        return self._cancelled.is_set() or (self._parent is not None and self._parent.cancelled)

    def cancel(self) -> None:
        """Ask it to stop; may be called from any thread, and again."""
        if not self._cancelled.is_set():
            self._cancelled.set()
            self._changed()

    def move(self, done: float, total: float | None = None, text: str = "") -> None:
        """Set how much is done (absolute), of how much, and what is being done; empty text leaves what it says."""
        self.done, self.total = float(done), None if total is None else float(total)
        self.text = text or self.text
        self._changed()

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change(self)

    @property
    def within_a_bar(self) -> bool:
        """Whether a bar is moved already for what it is a part of."""
        return self._parent is not None and (self._parent._moved or self._parent.within_a_bar)

    @contextlib.contextmanager
    def taken(self) -> Iterator[bool]:
        """Be the one who moves it for the block; says whether nobody else was."""
        mine = not self._moved
        self._moved = True
        try:
            yield mine
        finally:
            self._moved = not mine


@dataclass
class _Seat:
    """A work as one line of calls sees it: it is told once that it shall stop, so that it can tidy up in peace."""

    work: Work
    told: bool = False


_seat: ContextVar[_Seat | None] = ContextVar("qnb_work", default=None)
_works: dict[str, Work] = {}


def current() -> Work | None:
    """Give the work that this thread is at, if there is one."""
    seat = _seat.get()
    return seat.work if seat else None


def told_to_stop() -> bool:
    """Say, once, that the current work was cancelled."""
    seat = _seat.get()
    if seat is None or seat.told or not seat.work.cancelled:
        return False
    seat.told = True
    return True


def heed() -> None:
    """Stop here if the current work was cancelled; it is said once.

    Raises
    ------
    Interrupted
        If it was.
    """
    if told_to_stop():
        title = next((w.title for w in _line_of(current()) if w.title), "work")
        raise Interrupted(f"{title}: stopped by the user", hint="earlier results are intact")


def _line_of(work: Work | None) -> Iterator[Work]:
    while work is not None:
        yield work
        work = work._parent


@contextlib.contextmanager
def work(title: str, *, line: str = "", on_change: Callable[[Work], None] | None = None) -> Iterator[Work]:
    """Say what runs in the block: it is listed, it can be stopped, and progress bars inside move it.

    Parameters
    ----------
    title : str
        What is done.
    line : str
        The line that does it, such as ``%qnn context quantized``.
    on_change : callable, optional
        Called with the work at each change, from the thread that made it, which may be any and often.

    Yields
    ------
    Work
        Inside another work's block it is a part of that one: stopped with it, and not listed of its own.
    """
    made = Work(title, line=line, on_change=on_change, parent=current())
    if made._parent is None:
        _announcer().add(made)
    try:
        with _known(made), _seated(made):
            yield made
    finally:
        if made._parent is None:
            _announcer().remove(made)


@contextlib.contextmanager
def _known(made: Work) -> Iterator[None]:
    _works[made.id] = made
    try:
        yield
    finally:
        del _works[made.id]


@contextlib.contextmanager
def _seated(at: Work) -> Iterator[None]:
    token = _seat.set(_Seat(at))
    try:
        yield
    finally:
        _seat.reset(token)


# --- in other threads ---------------------------------------------------------------------------------------------


def submit(executor: Executor, function: Callable[..., T], *args: Any) -> Future[T]:
    """Submit a part of the current work: in the threads of this process it is stopped with it.

    In another process, or on another machine, what has begun ends by itself.
    """
    at = current()
    return executor.submit(_under, at.id if at else "", function, *args)


def _under(name: str, function: Callable[..., T], *args: Any) -> T:
    at = _works.get(name)
    if at is None:
        return function(*args)
    with _seated(at):
        heed()
        return function(*args)


class Threads(ThreadPoolExecutor):
    """Threads whose tasks are parts of a work."""

    def __init__(self, count: int, part: Work) -> None:
        super().__init__(max_workers=count)
        self._part = part

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Submit a task: see `concurrent.futures.Executor.submit`."""
        return super().submit(_under, self._part.id, lambda: fn(*args, **kwargs))


@contextlib.contextmanager
def threads(count: int) -> Iterator[Threads]:
    """Have threads for the block; if it ends early, by an error or an interrupt, they are told to stop."""
    part = Work("", parent=current())
    part._moved = True  # the bar is with the thread that waits for these
    with _known(part), Threads(count, part) as pool:
        try:
            yield pool
        except BaseException:
            part.cancel()  # it reaches this thread alone
            raise


# --- between processes --------------------------------------------------------------------------------------------


def _folder() -> Path:
    return state.root() / "running"


class _Announcer(threading.Thread):
    """Keeps the files of this process's works, and looks for those that ask them to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="qnb-running")
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._any = threading.Event()
        self._works: dict[Work, float] = {}  # and when it is to be written next
        self._written: dict[Work, tuple[Path, str]] = {}
        self.start()

    def add(self, one: Work) -> None:
        with self._lock:
            self._works[one] = time.monotonic() + _QUICK_S
        self._any.set()

    def remove(self, one: Work) -> None:
        with self._lock:
            self._works.pop(one, None)
            if one in self._written:
                file, _ = self._written.pop(one)
                for path in (file, file.with_suffix(".stop")):
                    _remove(path)

    def run(self) -> None:
        while True:
            self._any.wait()
            self._any.clear()
            while self._works:
                for one in list(self._works):
                    self._attend(one)
                time.sleep(_LOOK_S)

    def _attend(self, one: Work) -> None:
        with self._lock:
            due = self._works.get(one)
            if due is None:
                return
            asked = one in self._written and self._written[one][0].with_suffix(".stop").exists()
            if time.monotonic() >= due:
                self._works[one] = time.monotonic() + _WRITE_EVERY_S
                self._write(one)
        if asked:
            with contextlib.suppress(Exception):  # of its `on_change`: it is cancelled all the same
                one.cancel()

    def _write(self, one: Work) -> None:
        text = json.dumps(_entry(one))
        file, before = self._written.get(one, (_folder() / f"{one.id}.json", ""))
        if text == before:
            return
        with contextlib.suppress(StorageError, OSError):  # the work itself does not hang on it
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_text(file, text)
            self._written[one] = (file, text)


_announcing: _Announcer | None = None
_announcing_lock = threading.Lock()


def _announcer() -> _Announcer:
    global _announcing
    with _announcing_lock:
        if _announcing is None or _announcing.pid != os.getpid():  # a forked process has no threads but its own
            _announcing = _Announcer()
    return _announcing


def _entry(one: Work) -> dict[str, Any]:
    return {
        "id": one.id,
        "title": one.title[:_MAX_TEXT],
        "line": one.line[:_MAX_TEXT],
        "pid": os.getpid(),
        "started": one.started.isoformat(timespec="seconds"),
        "done": one.done,
        "total": one.total,
        "text": one.text[:_MAX_TEXT],
        "cancelled": one.cancelled,
        "host": platform.node(),
        "born": _birth(os.getpid()),
    }


def _birth(pid: int) -> float | None:
    """When a process was started, in seconds since 1970; None if there is none."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.Error, ValueError, OverflowError):
        return None


def listed() -> list[dict[str, Any]]:
    """Give what runs on this machine for this user, in whatever process, the oldest first.

    Files of processes that have died are removed.

    Returns
    -------
    list of dict
        ``id``, ``title``, ``line``, ``pid``, ``started`` (ISO 8601, UTC), ``done``, ``total``, ``text``, ``cancelled``.
    """
    found = []
    with contextlib.suppress(OSError), os.scandir(_folder()) as files:
        for path in [Path(f.path) for f in itertools.islice(files, _MAX_FILES)]:
            if path.suffix == ".json":
                found += [_checked(path)]
            elif _age(path) > _STALE_S:  # of a process that died as it wrote, or asked too late
                _remove(path)
    return sorted(filter(None, found), key=lambda entry: (entry["started"], entry["id"]))


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


_TYPES: dict[str, Any] = {
    "id": str, "title": str, "line": str, "pid": int, "started": str, "done": float, "total": float | None, "text": str,
    "cancelled": bool,
}  # fmt: skip


def _checked(path: Path) -> dict[str, Any] | None:
    """Read a file of `_Announcer`, and remove it if its process is gone; None for that, and for what is not ours."""
    try:
        with path.open("rb") as file:
            entry = json.loads(file.read(_MAX_FILE))
        elsewhere = entry["host"] != platform.node()
        born = _birth(entry["pid"])
        if not elsewhere and (born is None or abs(born - entry["born"]) > _SAME_BIRTH_S):
            for old in (path, path.with_suffix(".stop")):
                _remove(old)
            return None
        fits = entry["id"] == path.stem and all(isinstance(entry[name], kind) for name, kind in _TYPES.items())
        return {name: entry[name] for name in _TYPES} if fits and not elsewhere else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def stop(name: str) -> None:
    """Ask a work to stop, in whatever process of this machine it runs.

    Parameters
    ----------
    name : str
        Its id.

    Raises
    ------
    UnknownName
        If nothing of that id runs.
    StorageError
        If the request can't be written.
    """
    if name in _works:
        _works[name].cancel()
        return
    known = [entry["id"] for entry in listed()]
    if name not in known:
        raise UnknownName.among("running work", name, known, hint="it may have ended meanwhile")
    write_text(_folder() / f"{name}.stop", "")


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # somebody else's reader may have been faster
        path.unlink(missing_ok=True)
