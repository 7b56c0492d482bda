"""The worker dies, hangs or is interrupted in the middle of real native work.

Oracle: the operating system. SIGKILL, SIGSTOP and SIGINT are the real ones, and the process table says who lives.
"""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import qnb
from qnb import cache
from qnb.errors import Interrupted, QnbError, WorkerCrashed, WorkerLost, WorkerTimeout
from qnb.runtime import client
from tests.conftest import Digits
from tests.processes import Strike, default_interrupts, freeze, interrupt_kernel, kill, leftovers, runs, wait_until

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")


@pytest.fixture
def work(request: pytest.FixtureRequest, digits: Digits, slow: Any) -> Callable[[], Any]:
    """Real work of a kind that takes far longer than the test waits."""
    many = np.concatenate([digits.test] * 40)
    kinds: dict[str, Callable[[], Any]] = {
        "compile": lambda: qnb.context(slow, rebuild=True),
        "compile for several": lambda: qnb.context(slow, soc=["SM8650", "SM8550", "SM8450", "SM8750"], rebuild=True),
        "infer": lambda: qnb.infer(digits.contexts["SM8650"], many),
        "infer natively": lambda: qnb.infer(slow, np.zeros((1, 32, 384, 384), np.float32)),
        "profile": lambda: qnb.profile(digits.quantized, runs=1_000_000, backends=["htp"]),
        "calibrate": lambda: qnb.calibrate(digits.model, itertools.cycle(digits.train[:, None])),
    }
    if request.param == "infer natively":
        qnb.context(slow)  # what is struck below is a single call of native code that takes minutes
    return kinds[request.param]


@pytest.fixture(autouse=True)
def afterwards(digits: Digits) -> Any:
    """What must hold after every blow: earlier results as they were, the next call works, nothing left."""
    before = qnb.infer(digits.contexts["SM8650"], digits.test[:5])
    yield
    again = qnb.infer(digits.contexts["SM8650"], digits.test[:5])
    np.testing.assert_array_equal(again.outputs["logits"], before.outputs["logits"])
    assert not any(worker.busy for worker in client.workers())
    assert leftovers(cache.root()) == []


@pytest.mark.parametrize("work", ["compile", "compile for several", "infer", "profile", "calibrate"], indirect=True)
def test_a_killed_worker_is_an_error_with_its_log(work: Callable[[], Any]) -> None:
    with Strike(kill) as strike, pytest.raises(WorkerCrashed, match="SIGKILL") as caught:
        work()
    assert time.monotonic() - strike.time < 5
    assert caught.value.hint
    assert "%qnn log" in "".join(caught.value._render_traceback_())
    assert not runs(strike.pid)


def test_the_log_of_a_killed_compiler_says_how_far_it_was(slow: Any) -> None:
    stage = "Starting stage: Graph Optimizations"
    with Strike(kill, after=0, said=stage), pytest.raises(WorkerCrashed) as caught:
        qnb.context(slow, rebuild=True)
    assert stage in caught.value.log


@pytest.mark.parametrize("work", ["compile", "infer natively", "profile"], indirect=True)
def test_a_hang_ends_with_the_timeout(work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qnb.settings, "timeout_s", 1.0)
    with Strike(freeze) as strike, pytest.raises(WorkerTimeout, match="no answer after 1 s") as caught:
        work()
    assert time.monotonic() - strike.time < 6
    assert "timeout_s" in caught.value.hint
    assert isinstance(caught.value, TimeoutError)
    assert not runs(strike.pid)
    monkeypatch.undo()


def test_work_that_makes_progress_is_no_hang(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qnb.settings, "timeout_s", 0.5)
    result = qnb.profile(digits.quantized, runs=1000, backends=["htp"], ops=False)
    assert result.runs["latency_ms"].sum() > 500, "the work was not long enough to prove anything"


@pytest.mark.parametrize(
    "work", ["compile", "compile for several", "infer", "infer natively", "profile", "calibrate"], indirect=True
)
def test_an_interrupt_stops_the_work_at_once(work: Callable[[], Any]) -> None:
    with default_interrupts(), Strike(interrupt_kernel) as strike, pytest.raises(Interrupted) as caught:
        work()
    assert time.monotonic() - strike.time < 5
    assert isinstance(caught.value, KeyboardInterrupt)
    assert isinstance(caught.value, QnbError)
    assert caught.value.hint


def test_a_worker_that_died_between_calls_is_replaced(digits: Digits) -> None:
    qnb.infer(digits.contexts["SM8650"], digits.test[:1])
    for worker in client.workers():
        kill(worker.pid)
        wait_until(lambda worker=worker: not worker.alive, 2, "end of the worker")
    assert qnb.infer(digits.contexts["SM8650"], digits.test[:1]).samples == 1


def test_a_call_to_a_dead_worker_says_so() -> None:
    with client.borrow() as worker:
        kill(worker.pid)
        wait_until(lambda: not worker.alive, 2, "end of the worker")
        with pytest.raises(WorkerLost, match="SIGKILL"):
            worker.call("probe")


def test_an_error_in_one_of_several_compilations_stops_the_others(slow: Any) -> None:
    killed: list[int] = []

    def kill_one(pid: int) -> None:
        killed.append(pid)
        kill(pid)

    start = time.monotonic()
    with Strike(kill_one, after=0.5), pytest.raises(WorkerCrashed):
        qnb.context(slow, soc=["SM8650", "SM8550", "SM8450", "SM8750"], rebuild=True)
    assert len(killed) == 1
    assert time.monotonic() - start < 10, "the other compilations went on"
