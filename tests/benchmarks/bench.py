"""What qnb adds to the bare runtime: run by ``make bench``; prints ratios, never fails on a slow machine.

Each pair is timed in turn in one run (A B A B …), so that a busy machine slows both alike. The bare side is ONNX Runtime
and the QNN execution provider used directly, in a process of its own without qnb.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

BARE = r"""
import json, os, resource, sys, tempfile, time
import numpy as np, onnxruntime as ort, onnxruntime_qnn
ort.register_execution_provider_library("QNNExecutionProvider", onnxruntime_qnn.get_library_path())
devices = [d for d in ort.get_ep_devices() if d.ep_name == "QNNExecutionProvider"][:1]

def session(path, provider, config=()):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    for name, value in config:
        options.add_session_config_entry(name, value)
    if provider is None:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    options.add_provider_for_devices(devices, provider)
    return ort.InferenceSession(path, options)

loaded = {}
devnull = os.open(os.devnull, os.O_WRONLY)
out = os.fdopen(os.dup(1), "w")
os.dup2(devnull, 1)
for line in sys.stdin:
    order = json.loads(line)
    if order["do"] == "infer":
        key = order["model"]
        if key not in loaded:
            loaded[key] = session(order["model"], order["provider"])
        data = np.load(order["data"])
        begin = time.perf_counter()
        result = loaded[key].run(None, {loaded[key].get_inputs()[0].name: data})
        seconds = time.perf_counter() - begin
    elif order["do"] == "compile":
        with tempfile.TemporaryDirectory() as folder:
            config = [
                ("ep.context_enable", "1"),
                ("ep.context_file_path", folder + "/c.onnx"),
                ("ep.context_embed_mode", "0"),
            ]
            begin = time.perf_counter()
            session(order["model"], order["provider"], config)
            seconds = time.perf_counter() - begin
    else:
        one = session(order["model"], None)
        name = one.get_inputs()[0].name
        data = np.load(order["data"])
        begin = time.perf_counter()
        for sample in data:
            one.run(None, {name: sample[None]})
        seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    out.write(json.dumps({"seconds": seconds, "peak_mb": peak}) + "\n")
    out.flush()
"""


class Bare:
    """ONNX Runtime without qnb, in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, **order: Any) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate()


def in_turn(
    repeat: int, ours: Callable[[], float], theirs: Callable[[], float], prepare: Callable[[], object] = lambda: None
) -> tuple[list[float], list[float]]:
    """Time two things in turn; which goes first alternates."""
    a: list[float] = []
    b: list[float] = []
    for number in range(repeat):
        prepare()
        for mine in (True, False) if number % 2 else (False, True):
            (a if mine else b).append(ours() if mine else theirs())
    return a, b


def report(title: str, ours: list[float], theirs: list[float], note: str = "") -> dict[str, Any]:
    """Print the medians, their spread and the ratio."""
    a, b = statistics.median(ours), statistics.median(theirs)
    paired = statistics.median(x / y for x, y in zip(ours, theirs, strict=True))
    print(
        f"{title:<44} qnb {a * 1e3:9.2f} ms   bare {b * 1e3:9.2f} ms   ratio of medians {a / b:6.3f}   median of pair "
        f"ratios {paired:6.3f}   n={len(ours)}  {note}",
        flush=True,
    )
    return {
        "title": title,
        "qnb_ms": a * 1e3,
        "bare_ms": b * 1e3,
        "ratio": a / b,
        "paired_ratio": paired,
        "n": len(ours),
    }


def children_peak_mb() -> float:
    """Largest resident size that any living worker has had (Linux)."""
    from qnb.runtime import client

    peaks = [0.0]
    for worker in client.workers():
        status = Path(f"/proc/{worker.pid}/status")
        if status.exists():
            peaks += [
                int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM")
            ]
    return max(peaks)


def main() -> None:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qnb-bench-") as folder:
        os.environ["QNB_CACHE_DIR"] = f"{folder}/cache"
        rows = run(arguments.repeat, Path(folder))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


def timed(work: Callable[[], object]) -> float:
    """Give the seconds that something takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def exports(repeat: int) -> list[dict[str, Any]]:
    """Export a ResNet-50 beside torch's own exporter, as torch does it by default (weights in a file beside the graph)."""
    import torch

    import qnb
    from qnb.frontends import torch as frontend
    from qnb.steps import export as step
    from tests.models import resnet50

    net = resnet50().eval()
    checks: list[float] = []

    def clocked(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                checks[-1] += time.perf_counter() - begin

        return call

    def by_qnb() -> float:
        checks.append(0.0)
        check = mock.patch.object(step, "_checked", clocked(step._checked))
        source = mock.patch.object(frontend, "_run", clocked(frontend._run))  # what the check compares with
        with check, source:
            return timed(lambda: qnb.export(net, shapes={"image": (1, 3, 224, 224)}))

    def by_torch() -> float:
        image = torch.randn(1, 3, 224, 224)
        with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(None), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about itself
            path = f"{out}/model.onnx"
            return timed(lambda: torch.onnx.export(net, (image,), path, dynamo=True, opset_version=20, verbose=False))

    in_turn(1, by_qnb, by_torch)
    checks.clear()
    ours, theirs = in_turn(repeat, by_qnb, by_torch)
    note = f"worker's peak {children_peak_mb():.0f} MB"
    bare = [whole - check for whole, check in zip(ours, checks, strict=True)]
    return [
        report("export of ResNet-50, without numeric check", bare, theirs, f"bare: torch.onnx.export; {note}"),
        report("the same, with the numeric check", ours, theirs),
    ]


def run(repeat: int, folder: Path) -> list[dict[str, Any]]:
    """Compare with torch's exporter and the bare runtime: export, infer, context, calibrate."""
    import qnb
    from qnb.runtime import client
    from qnb.runtime.locate import find_runtime
    from qnb.runtime.options import BackendOptions, session_spec
    from qnb.socs import find
    from tests.models import mobilenet_v2

    runtime = find_runtime()
    rng = np.random.default_rng(0)
    images = rng.standard_normal((32, 3, 224, 224)).astype(np.float32)
    model = qnb.export(mobilenet_v2().eval(), shapes={"image": (1, 3, 224, 224)}, input_names=["image"])
    made_with = f"runtime {runtime.version}, QAIRT {runtime.qairt}, ONNX Runtime {runtime.onnxruntime}"
    print(f"{model.title}; {made_with}; {os.cpu_count()} cores")
    one = images[:1]
    np.save(folder / "one.npy", one)
    np.save(folder / "many.npy", images)
    bare = Bare()
    rows = exports(max(3, repeat // 3))

    spec = session_spec(str(model.path), "cpu", runtime).plain()
    provider = spec["provider_options"]
    feed = {"image": one[None]}

    def through_worker() -> float:
        with client.borrow(runtime) as worker:
            return timed(lambda: worker.call("run", {"spec": spec, "count": 1}, feed))

    def alone() -> float:
        return bare(do="infer", model=str(model.path), provider=provider, data=str(folder / "one.npy"))["seconds"]

    inside: list[float] = []
    around: list[float] = []

    def both_ways() -> None:
        with client.borrow(runtime) as worker:
            begin = time.perf_counter()
            answer = worker.call("run", {"spec": spec, "count": 1}, feed)
            around.append(time.perf_counter() - begin)
            inside.append(answer.values["run_ms"] / 1e3)

    # several processes: the QNN CPU backend is up to 8 % faster in one than in the next, for as long as it lives
    for _ in range(4):
        client.close_all()
        for _ in range(3):
            both_ways()
        del inside[-3:], around[-3:]
        for _ in range(repeat):
            both_ways()
    rows.append(report("run in a worker, against the session's own run", around, inside, "4 processes"))
    in_turn(3, through_worker, alone)
    rows.append(report("the same, against another process", *in_turn(3 * repeat, through_worker, alone)))

    def whole_step() -> float:
        return timed(lambda: qnb.infer(model, one, backend="cpu", reference=False))

    rows.append(report("qnb.infer (whole step), the same", *in_turn(2 * repeat, whole_step, alone), "tables included"))

    quantized = qnb.calibrate(model, images[:8])
    options = BackendOptions(soc=find("SM8650"))
    htp = session_spec(str(quantized.path), "htp", runtime, options).provider_options

    def compiled() -> float:
        return timed(lambda: qnb.context(quantized, soc="SM8650", rebuild=True))

    def compiled_alone() -> float:
        return bare(do="compile", model=str(quantized.path), provider=dict(htp))["seconds"]

    in_turn(2, compiled, compiled_alone)
    rows.append(report("context, w8a8 MobileNetV2, warm worker", *in_turn(repeat, compiled, compiled_alone)))
    cold = in_turn(max(3, repeat // 3), compiled, compiled_alone, client.close_all)
    rows.append(report("context, the same, cold start", *cold, "starts a worker each time"))
    cached = [timed(lambda: qnb.context(quantized, soc="SM8650")) for _ in range(2 * repeat)]
    size = qnb.context(quantized, soc="SM8650").size_bytes / 2**20
    median, worst = statistics.median(cached) * 1e3, max(cached) * 1e3
    print(f"context, cached ({size:.1f} MiB): median {median:.2f} ms, worst {worst:.2f} ms")
    rows.append({"title": "context, cached", "qnb_ms": statistics.median(cached) * 1e3, "size_mib": size})

    def forward() -> float:
        return bare(do="forward", model=str(model.path), data=str(folder / "many.npy"))["seconds"]

    for ranges in ("min-max", "percentile"):
        a, b = in_turn(
            max(3, repeat // 3),
            lambda r=ranges: timed(lambda: qnb.calibrate(model, images, ranges=r)),
            forward,  # type: ignore[misc]
        )
        note = f"32 samples, wall; workers' peak {children_peak_mb():.0f} MB"
        rows.append(report(f"calibrate {ranges} against fp32 passes", a, b, note))
    bare.close()
    return rows


if __name__ == "__main__":
    main()
