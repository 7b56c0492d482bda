"""The kernel dies or is interrupted: its workers never outlive it, and a living one goes on.

Oracle: the process table, with real processes and a real Jupyter kernel.
"""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, output_of, python, runs, wait_until, workers_under

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="workers die with SIGKILLed kernels on Linux"
)

PRELUDE = """
import sys, numpy as np, qnb
from pathlib import Path
saved = Path(sys.argv[1])
def ready():
    from qnb.runtime import client
    print("ready", *(w.pid for w in client.workers()), flush=True)
def ready_once_busy():
    import threading, time
    from qnb.runtime import client
    def watch():
        while not any(w.busy for w in client.workers()):
            time.sleep(0.01)
        time.sleep(0.4)
        ready()
    threading.Thread(target=watch, daemon=True).start()
"""
DOING = {
    "nothing": """
        qnb.infer(qnb.load(saved / "context"), np.load(saved / "test.npy")[:1])
        ready()
        import time; time.sleep(600)
    """,
    "compiling": """
        slow = qnb.load(saved / "slow")
        ready_once_busy()
        qnb.context(slow, rebuild=True)
    """,
    "compiling for several": """
        slow = qnb.load(saved / "slow")
        ready_once_busy()
        qnb.context(slow, soc=["SM8650", "SM8550", "SM8450"], rebuild=True)
    """,
    "inferring": """
        slow = qnb.load(saved / "slow")
        qnb.context(slow)
        ready_once_busy()
        qnb.infer(slow, np.zeros((1, 32, 384, 384), "float32"))
    """,
    "holding the lock": """
        from qnb.runtime import client, process
        process.JOBS_MODULE = "tests.robustness._jobs"
        ready_once_busy()
        client.call("spin")
    """,
}


def code(doing: str) -> str:
    return PRELUDE + textwrap.dedent(DOING[doing])


@pytest.mark.parametrize("doing", DOING)
def test_no_worker_outlives_a_killed_kernel(doing: str, saved: Path, tmp_path: Path) -> None:
    with python(code(doing), saved, cache=tmp_path) as kernel:
        assert kernel.stdout is not None
        try:
            line = ""
            while not line.startswith("ready"):
                line = kernel.stdout.readline()
                assert line, "the kernel ended early"
            pids = [int(pid) for pid in line.split()[1:]]
            assert pids
            assert all(runs(pid) for pid in pids)
        finally:
            kernel.kill()
    wait_until(lambda: not any(runs(pid) for pid in pids), 2, f"end of {pids}")
    wait_until(lambda: not workers_under(tmp_path), 2, "end of all workers")


def test_workers_end_with_a_kernel_that_ends_well(saved: Path, tmp_path: Path) -> None:
    output_of(
        PRELUDE + 'qnb.infer(qnb.load(saved / "context"), np.load(saved / "test.npy")[:1])', saved, cache=tmp_path
    )
    assert not workers_under(tmp_path)


def test_an_interrupt_at_any_moment_leaves_no_stray_worker(saved: Path, tmp_path: Path) -> None:
    """Interrupts from the start of a worker to the end of a job, 8 ms apart: each is worded, none loses a process."""
    out = output_of(
        """
        import os, signal, sys, threading, time, psutil, qnb
        from qnb.errors import Interrupted
        from qnb.runtime import client, process
        process.JOBS_MODULE = "tests.robustness._jobs"
        outcomes = []
        for number in range(40):
            client.close_all()
            timer = threading.Timer(0.008 * number, os.kill, (os.getpid(), signal.SIGINT))
            try:
                timer.start()
                try:
                    client.call("nap", {"seconds": 5})
                except Interrupted:
                    outcomes.append("worded")
            except KeyboardInterrupt:
                outcomes.append("bare")
            timer.join()
        children = {c.pid for c in psutil.Process().children() if c.status() != "zombie"}
        print(outcomes.count("worded"), outcomes.count("bare"), children == {w.pid for w in client.workers()}, len(children))
        client.call("nap", {"seconds": 0})
        """,
        cache=tmp_path,
    )
    assert len(out.split()) == 4, out
    worded, bare, known, count = out.split()
    assert (known, int(count) <= 1) == ("True", True)
    assert int(worded) >= 38, out  # the first may come before the call
    assert int(worded) + int(bare) == 40


@pytest.fixture
def kernel(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """A real Jupyter kernel of this Python, with saved results loaded."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import KernelManager

    class Manager(KernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=[*argv, "--HistoryManager.enabled=False"], display_name="test", language="python")

    monkeypatch.setenv("QNB_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    manager = Manager()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        prepare = f"""
            import qnb, numpy as np
            slow, ctx = qnb.load({str(saved / "slow")!r}), qnb.load({str(saved / "context")!r})
            images = np.load({str(saved / "test.npy")!r})
        """
        reply = client.execute_interactive(textwrap.dedent(prepare), timeout=60)
        assert reply["content"]["status"] == "ok", reply["content"]
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def test_a_killed_jupyter_kernel_takes_its_workers_along(kernel: tuple[Any, Any], tmp_path: Path) -> None:
    manager, client = kernel
    client.execute("qnb.context(slow, soc=['SM8650', 'SM8550'])")
    wait_until(lambda: len(workers_under(tmp_path)) == 2, 30, "start of the workers")
    time.sleep(0.5)
    os.kill(manager.provisioner.pid, signal.SIGKILL)
    wait_until(lambda: not workers_under(tmp_path), 2, "end of the workers")


def test_the_stop_button_of_jupyter_stops_an_inference(kernel: tuple[Any, Any], tmp_path: Path) -> None:
    from jupyter_core.utils import ensure_event_loop

    manager, client = kernel
    client.execute_interactive("qnb.context(slow)", timeout=60)
    (worker,) = workers_under(tmp_path)
    struck = 0.0

    def interrupt() -> None:
        nonlocal struck
        time.sleep(1.5)  # a single native call that takes minutes is under way
        struck = time.monotonic()
        manager.interrupt_kernel()
        ensure_event_loop().close()  # that of this thread

    thread = threading.Thread(target=interrupt)
    thread.start()
    shown: list[Any] = []
    reply = client.execute_interactive(
        "qnb.infer(slow, np.zeros((1, 32, 384, 384), 'float32'))", timeout=60, output_hook=shown.append
    )
    thread.join()
    assert time.monotonic() - struck < 5  # uninterrupted, minutes
    assert reply["content"]["status"] == "error"
    assert "interrupted" in str([message["content"] for message in shown])
    assert not runs(worker)
    reply = client.execute_interactive("assert qnb.infer(ctx, images[:3]).samples == 3", timeout=60)
    assert reply["content"]["status"] == "ok", reply["content"]
