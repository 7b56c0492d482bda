"""Work that runs: listed, moved and stopped, within this process and from another one.

Oracle: the process table, the clock and the file system; the jobs are real, on Qualcomm's compiler and simulator.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qnb
from qnb import running, state
from qnb.errors import Interrupted, UnknownName
from qnb.progress import SILENT, progress
from qnb.runtime import client
from tests.conftest import Digits
from tests.processes import output_of, python, wait_until

AT_ONCE_S = 4
"""On a machine that others keep busy; half a second is usual. The work itself would take far longer."""

SOCS = ["SM8650", "SM8550", "SM8450", "SM8750"]


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QNB_STATE_DIR", str(tmp_path / "state"))


def files() -> list[Path]:
    folder = state.root() / "running"
    return sorted(folder.iterdir()) if folder.exists() else []


class Canceller:
    """Cancels what is listed once a worker has been busy for a while, from a thread; says when."""

    def __init__(self, cancel: Callable[[str], None], after: float = 0.4) -> None:
        self._cancel = cancel
        self._after = after
        self._given_up = threading.Event()
        self.time = 0.0
        self.entry: dict[str, Any] = {}

    def _run(self) -> None:
        wait_until(lambda: any(w.busy for w in client.workers()) or self._given_up.is_set(), 60, "a busy worker")
        time.sleep(self._after)
        wait_until(lambda: running.listed() or self._given_up.is_set(), 10, "an entry")
        self.entry = running.listed()[0]
        self.time = time.monotonic()
        self._cancel(self.entry["id"])

    def __enter__(self) -> Canceller:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up.set()
        self._thread.join()


def by_file(name: str) -> None:
    """As another process does it, which knows nothing of this one's works."""
    (state.root() / "running" / f"{name}.stop").touch()


@pytest.fixture
def work(request: pytest.FixtureRequest, digits: Digits, slow: Any) -> Callable[[], Any]:
    """Real work that takes far longer than the test waits."""
    many = np.concatenate([digits.test] * 40)
    kinds: dict[str, Callable[[], Any]] = {
        "compile": lambda: qnb.context(slow, rebuild=True),
        "sweep": lambda: qnb.context(slow, soc=SOCS, rebuild=True),
        "infer": lambda: qnb.infer(digits.contexts["SM8650"], many),
    }
    return kinds[request.param]


@pytest.mark.parametrize("cancel", [running.stop, by_file], ids=["from a thread", "by a file"])
@pytest.mark.parametrize("work", ["compile", "sweep", "infer"], indirect=True)
def test_cancelled_work_ends_at_once(
    work: Callable[[], Any], cancel: Callable[[str], None], record_property: Callable[[str, object], None]
) -> None:
    with Canceller(cancel) as canceller, pytest.raises(Interrupted) as caught:
        work()
    took = time.monotonic() - canceller.time
    record_property("ended_after_s", round(took, 3))
    assert took < AT_ONCE_S
    assert caught.value.hint
    assert canceller.entry["pid"] == os.getpid()
    assert not any(w.busy for w in client.workers())
    assert files() == []


def test_a_sweep_in_the_users_own_threads_is_stopped_too(slow: Any) -> None:
    with ThreadPoolExecutor(2) as threads, Canceller(running.stop) as canceller:
        with pytest.raises(Interrupted):
            qnb.context(slow, soc=SOCS, rebuild=True, executor=threads)
        assert time.monotonic() - canceller.time < AT_ONCE_S
        wait_until(lambda: not any(w.busy for w in client.workers()), AT_ONCE_S, "the end of what ran in the threads")


def test_an_executor_in_other_processes_gets_what_can_be_pickled(digits: Digits) -> None:
    import pickle

    class Pickling(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            fn, args, kwargs = pickle.loads(pickle.dumps((fn, args, kwargs)))
            return pool.submit(fn, *args, **kwargs)

    with ThreadPoolExecutor(1) as pool:
        contexts = qnb.context(digits.quantized, soc=["SM8650", "SM8350"], executor=Pickling())
    assert [c.soc.part for c in contexts] == ["SM8650", "SM8350"]


def test_an_error_in_one_of_several_threads_stops_the_others() -> None:
    seen = threading.Event()

    def waits() -> None:
        seen.set()
        while True:
            running.heed()
            time.sleep(0.01)

    def fails() -> None:
        seen.wait()
        raise ZeroDivisionError

    start = time.monotonic()
    with pytest.raises(ZeroDivisionError), running.threads(2) as threads:
        asked = [threads.submit(waits), threads.submit(fails)]
        asked[1].result()
    assert time.monotonic() - start < AT_ONCE_S
    with pytest.raises(Interrupted):
        asked[0].result()
    assert running.current() is None


def test_it_is_said_once_so_that_one_can_tidy_up() -> None:
    with running.work("outer") as work:
        work.cancel()
        with pytest.raises(Interrupted, match="outer"):
            running.heed()
        running.heed()
        with pytest.raises(Interrupted, match="inner"), running.work("inner"):  # but nothing new is begun
            running.heed()
        assert work.cancelled
    running.heed()


def test_a_step_is_listed_with_its_line_while_it_runs(slow: Any) -> None:
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.testing.globalipapp import get_ipython

    from qnb.magics.qnn import QnnMagics

    shell = get_ipython() or InteractiveShell.instance()
    shell.user_ns["slow"] = slow
    with Canceller(running.stop) as canceller, pytest.raises(Interrupted):
        QnnMagics(shell).qnn("context slow --rebuild")
    entry = canceller.entry
    assert (entry["title"], entry["line"]) == ("context", "%qnn context slow --rebuild")
    assert "compile for SM8650" in entry["text"] or entry["text"]  # or the compiler's stage
    assert entry["total"] == 1
    assert not entry["cancelled"]


def test_progress_moves_the_current_work_and_makes_one_where_there_is_none() -> None:
    seen: list[tuple[float, float | None, str]] = []
    with running.work("mine", on_change=lambda w: seen.append((w.done, w.total, w.text))) as work:
        with progress("stage", 3) as bar:
            bar.step("a")
            with progress("inner", 9) as inner:
                assert inner is SILENT
                inner.step("not shown")
            bar.update(2.5)
        with progress("another") as bar:
            bar.update(1, 7, "b")
        assert running.current() is work
    assert seen == [(0, 3, "stage"), (1, 3, "a"), (2.5, 3, "a"), (0, None, "another"), (1, 7, "b")]
    with progress("alone", 2) as bar:
        alone = running.current()
        assert alone is not None
        bar.step()
        assert (alone.title, alone.done, alone.total, alone.text) == ("alone", 1, 2, "")
        alone.cancel()
        with pytest.raises(Interrupted, match="alone"):
            bar.step()
    assert running.current() is None


def test_quick_work_writes_nothing_and_long_work_twice_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[float] = []
    write = running.write_text
    monkeypatch.setattr(running, "write_text", lambda *args: (written.append(time.monotonic()), write(*args))[1])
    for _ in range(200):
        with running.work("quick"):
            pass
    assert written == []
    with running.work("long") as work:
        for number in range(150):
            work.move(number, 150, "moving")
            time.sleep(0.01)
        assert 2 <= len(written) <= 4
        assert np.diff(written).min() > 0.4
        time.sleep(0.8)
        assert running.listed()[0]["done"] == 149, "the last move is written, though nothing came after it"
    assert files() == []


def test_a_work_costs_little() -> None:
    """An inference of a small model takes a millisecond, and is a work each time."""
    taken = []
    for _ in range(1000):
        start = time.perf_counter()
        with running.work("quick"):
            pass
        taken.append(time.perf_counter() - start)
    assert statistics.median(taken) < 1e-3


BUSY = """
import sys, time
from qnb import running
with running.work(sys.argv[1], line="%qnn context x") as work:
    work.move(1, 4, "one of four")
    for _ in range(3000):
        running.heed()
        time.sleep(0.01)
"""


def test_work_of_another_process_is_seen_and_stopped(tmp_path: Path) -> None:
    title = "<script>alert('x')</script> \"\u202eתxe.txt\n"
    with python(BUSY, title, cache=tmp_path / "cache") as process:
        try:
            wait_until(running.listed, 20, "an entry")
            (entry,) = running.listed()
            assert entry["pid"] == process.pid
            assert entry["title"] == title, "verbatim"
            assert (entry["done"], entry["total"], entry["text"]) == (1, 4, "one of four")
            start = time.monotonic()
            running.stop(entry["id"])
            out, _ = process.communicate(timeout=10)
        finally:
            process.kill()
    assert time.monotonic() - start < 2 * AT_ONCE_S, "with the end of a Python process"
    assert process.returncode != 0
    assert "Interrupted" in out
    assert files() == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_the_file_of_a_dead_process_is_cleaned_by_the_reader(tmp_path: Path) -> None:
    with python(BUSY, "to be killed", cache=tmp_path / "cache") as process:
        wait_until(running.listed, 20, "an entry")
        (entry,) = running.listed()
        process.kill()
        process.communicate()
    assert len(files()) == 1
    by_file(entry["id"])
    assert running.listed() == []
    assert files() == []


def test_a_process_that_has_the_number_of_a_dead_one_is_not_taken_for_it() -> None:
    with running.work("mine"):
        wait_until(running.listed, 5, "an entry")
        (file,) = files()
        content = json.loads(file.read_text())
        other = file.with_name("1-other.json")
        other.write_text(json.dumps(content | {"id": "1-other", "born": content["born"] - 3600}))
        elsewhere = file.with_name("1-elsewhere.json")
        elsewhere.write_text(json.dumps(content | {"id": "1-elsewhere", "host": "another machine", "pid": 2**22 + 1}))
        assert [entry["title"] for entry in running.listed()] == ["mine"]
        assert not other.exists()
        assert elsewhere.exists(), "whether it is alive is not known here"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "[" * 5000, '{"host": 1}', "null", json.dumps({"pid": "x", "host": "h"})]
)
def test_what_is_no_entry_is_passed_over(content: str) -> None:
    folder = state.root() / "running"
    folder.mkdir(parents=True)
    (folder / "x.json").write_text(content)
    (folder / "folder.json").mkdir()
    assert running.listed() == []


@pytest.mark.parametrize("name", ["", "nothing", "../../x", "/etc/passwd", "a\x00b"])
def test_stopping_what_does_not_run_is_an_error_and_writes_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="running work"):
        running.stop(name)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_work_goes_on_where_it_can_not_be_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("QNB_STATE_DIR", str(tmp_path / "file"))
    with running.work("hidden"):
        time.sleep(0.5)
    assert running.listed() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_announces_its_own(tmp_path: Path) -> None:
    code = """
    import os, time
    from qnb import running
    with running.work("parent"):
        time.sleep(0.5)
        child = os.fork()
        if child == 0:
            with running.work("part of what was forked"):
                time.sleep(0.5)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(*[e["title"] for e in running.listed()])
    print(*running.listed())
    """
    assert output_of(code, cache=tmp_path / "cache").split() == ["parent"]
