"""The timing harness, in a worker process.

Oracle: sleeps and allocations of known length and size, and a core kept busy for a known time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from qnb.runtime import client, process


@pytest.fixture(autouse=True)
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    client.close_all()
    monkeypatch.setattr(process, "JOBS_MODULE", "tests.jobs._timing_jobs")
    yield
    client.close_all()


def ask(job: str, **args: Any) -> client.Answer:
    with client.fresh() as worker:
        return worker.call(job, args)


def test_a_known_sleep_is_timed_run_by_run() -> None:
    asked = [0.2, 0.15, 0.02, 0.05, 0.03, 0.04, 0.02]  # the first two are warm-up
    answer = ask("sleep", seconds=asked, runs=5, warmup=2)
    slept = answer.arrays["latency_ms"]
    assert slept.shape == (5,)
    over = slept - 1000 * np.array(asked[2:])
    assert (over >= 0).all()  # a sleep is never shorter
    assert np.median(over) < 10  # the system wakes it late, not by much; other tests may run beside it


def test_a_sleep_uses_no_cpu_and_no_memory() -> None:
    values = ask("sleep", seconds=[0.05] * 6, runs=5, warmup=1).values
    assert values["cpu_percent"] < 15
    assert 0 <= values["memory_delta_mb"] < 4
    assert values["memory_after_mb"] == pytest.approx(values["memory_before_mb"], abs=4)


def test_a_busy_core_is_one_hundred_percent_of_what_it_got() -> None:
    answer = ask("burn", seconds=0.08, runs=4)
    latency = answer.arrays["latency_ms"]
    assert (latency >= 80).all()
    assert answer.values["cpu_percent"] == pytest.approx(100 * 80 / latency.mean(), rel=0.1)


@pytest.mark.parametrize("keep", [False, True])
def test_a_known_allocation_is_in_the_peak_and_gone_after(keep: bool) -> None:
    values = ask("allocate", load_mb=64, call_mb=32, keep=keep, runs=3).values
    assert values["memory_peak_mb"] - values["memory_before_mb"] == pytest.approx(96, abs=4)
    assert values["memory_delta_mb"] == values["memory_peak_mb"] - values["memory_before_mb"]
    left = 64 if keep else 0
    assert values["memory_after_mb"] - values["memory_before_mb"] == pytest.approx(left, abs=4)


def test_what_an_earlier_peak_took_is_not_counted_again() -> None:
    with client.fresh() as worker:
        first = worker.call("allocate", {"load_mb": 128, "call_mb": 1, "keep": False, "runs": 2}).values
        second = worker.call("allocate", {"load_mb": 16, "call_mb": 1, "keep": False, "runs": 2}).values
    assert first["memory_delta_mb"] == pytest.approx(129, abs=4)
    assert second["memory_delta_mb"] == pytest.approx(17, abs=4)


def test_no_garbage_is_collected_while_the_clock_runs() -> None:
    assert ask("collected", runs=3).values == {"warmup": True, "timed": [False] * 3, "after": True}
