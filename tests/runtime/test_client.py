"""Workers: started, lent, kept and ended; and what they say.

Oracle: the process table, and jobs of the tests whose doing is known.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import qnb
from qnb import running
from qnb.errors import BadInput, InferenceError, PlacementError, QnbError, WorkerCrashed
from qnb.runtime import client, process, protocol
from qnb.runtime.locate import find_runtime
from tests.processes import output_of, runs, wait_until


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers that have the jobs of the tests, and an empty pool before and after."""
    client.close_all()
    monkeypatch.setattr(process, "JOBS_MODULE", "tests.runtime._jobs")
    yield
    client.close_all()


def test_a_worker_is_started_once_and_kept(jobs: None) -> None:
    pids = {client.call("about").values["pid"] for _ in range(3)}
    assert pids == {worker.pid for worker in client.workers()}
    assert os.getpid() not in pids
    client.close_all()
    assert not client.workers()
    assert not any(runs(pid) for pid in pids)
    assert client.call("about").values["pid"] not in pids


def test_the_worker_is_alone_in_its_session_and_group(jobs: None) -> None:
    """So that Ctrl-C in a terminal reaches the kernel alone."""
    pid = client.call("about").values["pid"]
    if os.name == "posix":
        assert os.getsid(pid) == pid != os.getsid(0)
        assert os.getpgid(pid) == pid


def test_arrays_come_back_as_they_went(jobs: None) -> None:
    rng = np.random.default_rng(0)
    sent = {
        "large": rng.standard_normal((3, 512, 512)).astype(np.float32),  # more than a pipe holds, both ways
        "empty": np.zeros((0, 4), np.int8),
        "scalar": np.array(3.5),
        "bool": np.array([[True], [False]]),
    }
    answer = client.call("echo", {"text": "ünïcode", "none": None, "nested": [1, {"a": 2.5}]}, sent)
    assert answer.values == {"text": "ünïcode", "none": None, "nested": [1, {"a": 2.5}]}
    for name, array in sent.items():
        assert (answer.arrays[name].dtype, answer.arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(answer.arrays[name], array)


def test_what_is_printed_is_the_log_of_that_call_alone(jobs: None) -> None:
    first = client.call("say", {"python": "from Python", "native": "from C", "error": "to stderr"})
    assert {"from Python", "from C", "to stderr"} <= set(first.log.splitlines())
    second = client.call("say", {"python": "again", "native": "", "error": ""})
    assert "again" in second.log
    assert "from" not in second.log
    assert client.call("echo").log == ""


def test_nothing_is_printed_into_the_notebook(jobs: None, capfd: pytest.CaptureFixture[str]) -> None:
    client.call("say", {"python": "a", "native": "b", "error": "c"})
    assert capfd.readouterr() == ("", "")


def test_errors_of_ours_keep_their_class_and_others_are_said_not_to_be_foreseen(jobs: None) -> None:
    for name, cls in {"BadInput": BadInput, "PlacementError": PlacementError, "InferenceError": InferenceError}.items():
        with pytest.raises(cls, match="what happened") as caught:
            client.call("fail", {"error": name})
        assert caught.value.hint == "what next"
        assert "said before" in caught.value.log
    with pytest.raises(QnbError, match="ZeroDivisionError") as caught:
        client.call("fail", {"error": "ZeroDivisionError"})
    assert type(caught.value) is QnbError
    assert "Traceback" in caught.value.log
    with pytest.raises(QnbError, match="no-such-job"):
        client.call("no-such-job")
    with pytest.raises(QnbError, match="can't be sent"):
        client.call("fail", {"error": "unsendable"})
    assert len(client.workers()) == 1, "none of these ended the worker"


def test_a_worker_that_ends_itself_is_a_crash_with_its_exit_code(jobs: None) -> None:
    with pytest.raises(WorkerCrashed, match="exit code 3") as caught:
        client.call("fail", {"error": "exit"})
    assert "said before" in caught.value.log
    with pytest.raises(WorkerCrashed, match="SIGSEGV" if os.name == "posix" else "exit code"):
        client.call("fail", {"error": "segfault"})
    assert client.call("echo").values == {}


def test_garbage_on_the_line_is_a_crash(jobs: None) -> None:
    with pytest.raises(WorkerCrashed):
        client.call("fail", {"error": "garbage"}, timeout_s=20)
    assert client.call("echo").values == {}


def test_progress_comes_while_the_job_runs(jobs: None) -> None:
    seen: list[tuple[float, float | None, str]] = []
    thread: list[threading.Thread] = []

    def on_progress(done: float, total: float | None, text: str) -> None:
        seen.append((done, total, text))
        thread.append(threading.current_thread())

    client.call("count", {"to": 20, "pause": 0.02}, on_progress=on_progress)
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert seen[0][1:] == (20, "counting")
    assert 2 <= len(seen) <= 6, "at most ten a second"
    assert set(thread) == {threading.current_thread()}


def test_threads_get_workers_of_their_own_and_give_them_back(jobs: None) -> None:
    with ThreadPoolExecutor(3) as threads:
        start = time.monotonic()
        pids = set(threads.map(lambda _: client.call("count", {"to": 1, "pause": 1.0}).values["pid"], range(3)))
        took = time.monotonic() - start
    assert len(pids) == 3
    assert took < 2.9, "one after the other"
    assert {worker.pid for worker in client.workers()} == pids
    assert all(runs(pid) for pid in pids), "they must outlive the thread that asked for them"
    assert client.call("about").values["pid"] in pids
    assert len(client.workers()) == 3


def test_cancelling_the_work_from_another_thread_interrupts(jobs: None) -> None:
    with running.work("counting") as work:
        timer = threading.Timer(0.3, work.cancel)
        timer.start()
        start = time.monotonic()
        with pytest.raises(qnb.errors.Interrupted):
            client.call("count", {"to": 100, "pause": 0.1})
    assert time.monotonic() - start < 5  # uncancelled, 10 s
    timer.join()
    # A job in Python heeds at once and its worker lives on; on a busy machine it may be too late, and is ended.
    assert not any(worker.busy for worker in client.workers())


def test_a_worker_does_not_import_torch(jobs: None) -> None:
    """It would cost a second and 230 MB; onnxsim and ONNX Runtime's quantization import it where they can."""
    assert client.call("about").values["torch"] == "blocked"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_workers_of_its_own(tmp_path: Path) -> None:
    out = output_of(
        """
        import os, qnb
        from qnb.runtime import client, process, protocol
        process.JOBS_MODULE = "tests.runtime._jobs"
        pid = client.call("about").values["pid"]
        child = os.fork()
        if child == 0:
            assert client.workers() == []
            assert client.call("about").values["pid"] != pid
            client.close_all()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(client.call("about").values["pid"] == pid)
        """,
        cache=tmp_path,
        PYTHONWARNINGS="ignore",
    )
    assert out.split()[-1] == "True"


def test_a_file_in_the_users_folder_does_not_stand_in_for_a_module(tmp_path: Path) -> None:
    for name in ("msgpack.py", "numpy.py", "secrets.py", "qnb.py"):
        (tmp_path / name).write_text("raise SystemExit('taken over')")
    code = "import qnb\nfrom qnb.runtime import client\nclient.call('probe', {'spec': {}})"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "taken over" not in done.stdout + done.stderr


def test_no_file_descriptor_and_no_thread_is_lost(jobs: None) -> None:
    def cycle() -> None:
        client.call("echo")
        client.close_all()

    cycle()
    process = psutil.Process()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "qnb-worker-io"], 5, "end of the threads")
    before = process.num_fds() if os.name == "posix" else process.num_handles()
    for _ in range(5):
        cycle()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "qnb-worker-io"], 5, "end of the threads")
    after = process.num_fds() if os.name == "posix" else process.num_handles()
    assert after <= before


def test_a_runtime_is_what_a_worker_is_started_for() -> None:
    with client.borrow() as worker:
        assert worker.runtime == find_runtime()


@pytest.mark.skipif(os.name == "nt", reason="file numbers are POSIX's")
def test_a_thread_of_a_closed_worker_still_finds_its_own_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it may take the answers of the next worker, whose pipe has the same number: seen on a busy machine."""
    found: list[bool] = []

    class Late:
        """A stream whose reads begin late, with the file number that it had before."""

        def __init__(self, stream: Any) -> None:
            self.number = stream.fileno()
            self.pipe = os.fstat(self.number).st_ino

        def readinto(self, view: memoryview) -> int:
            time.sleep(0.3)
            with contextlib.suppress(OSError):
                found.append(os.fstat(self.number).st_ino == self.pipe)
                return os.readv(self.number, [view])
            found.append(False)
            return 0

    monkeypatch.setattr(process, "receive", lambda stream: protocol.receive(Late(stream)))
    worker = process.Worker(None, "tests.runtime._jobs")
    worker.close()
    wait_until(lambda: not any(thread.is_alive() for thread in worker._threads), 10, "the threads end")
    assert len(found) > 2
    assert all(found)
