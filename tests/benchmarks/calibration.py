"""What calibration costs against bare forward passes: CPU, wall and memory, each in a process of its own.

``python -m tests.benchmarks.calibration [--models mobilenet_v2 resnet50 vit_small digits] [--samples 64] [--json F]``

The bare side is ONNX Runtime alone, one thread, all graph optimizations, the session's loading left out. ``statistics``
is what qnb's worker does (one thread as well, its loading, search for ranges and all other fixed costs included, the
imports of a first job left out); ``calibrate`` is the whole step, notebook process and worker together, with as many
threads as it takes by default; ``further samples`` is what as many more samples add to the statistics, without the fixed
costs, as the bare figures are. Nothing fails on a slow machine: figures are printed, and written as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

BARE = r"""
import json, sys, time
import numpy as np, onnxruntime as ort
model, data, count = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3])
options = ort.SessionOptions()
options.log_severity_level, options.intra_op_num_threads = 3, 1
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
session.run(None, {name: data[0]})
cpu, wall = time.process_time(), time.perf_counter()
for number in range(count):
    session.run(None, {name: data[number % len(data)]})
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
peak = next(int(x.split()[1]) for x in open("/proc/self/status") if x.startswith("VmHWM")) / 1024
print(json.dumps({"cpu_s": cpu, "wall_s": wall, "peak_mb": peak}))
"""

MODELS: dict[str, tuple[str, tuple[int, ...]]] = {
    "digits": ("digits_cnn", (1, 1, 8, 8)),
    "mobilenet_v2": ("mobilenet_v2", (1, 3, 224, 224)),
    "resnet50": ("resnet50", (1, 3, 224, 224)),
    "vit_small": ("vit_small", (1, 3, 224, 224)),
}
COLUMNS = (
    "model",
    "tool",
    "method",
    "samples",
    "cpu_s",
    "wall_s",
    "ratio_cpu",
    "ratio_wall",
    "peak_mb",
    "above_bare_mb",
)
STORED = 16  # samples on disk, used over and over
METHODS = {
    "min-max": ["min-max"],
    "percentile": ["percentile"],
    "mse": ["mse"],
    "entropy": ["entropy"],
    "all four": ["min-max", "percentile", "mse", "entropy"],
}
FURTHER = ("min-max", "percentile", "mse")


def exported(name: str, folder: Path) -> tuple[Path, Path]:
    """Export a model and make samples for it; give the two files."""
    import shutil

    import qnb
    from tests import models

    builder, shape = MODELS[name]
    model = qnb.export(getattr(models, builder)(), shapes={"image": shape}, input_names=["image"], name=name)
    path, data = folder / f"{name}.onnx", folder / f"{name}.npy"
    shutil.copy(model.path, path)
    np.save(data, np.random.default_rng(0).standard_normal((STORED, *shape)).astype(np.float32))
    return path, data


def stream(data: np.ndarray, count: int) -> Iterator[dict[str, np.ndarray]]:
    """Give samples without ever holding them all."""
    for number in range(count):
        yield {"image": data[number % len(data)]}


def _used(pid: int) -> float:
    import psutil

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) / 1024


def statistics(model: Path, data: np.ndarray, count: int, method: str, most: int | None) -> dict[str, float]:
    """Measure the worker while it observes."""
    from qnb import cache
    from qnb.progress import SILENT
    from qnb.runtime import client
    from qnb.runtime.locate import find_runtime
    from qnb.steps._observing import gather

    runtime = find_runtime()
    orders = [{"method": name} for name in METHODS[method]]
    with cache.scratch() as folder, client.fresh(runtime) as worker:
        out = folder / "observed.onnx"
        _warm_up(worker, runtime, folder)
        cpu, wall = _used(worker.pid), time.perf_counter()
        gather(worker, runtime, model, out, stream(data, count), orders, SILENT, threads=1, most=most)
        cpu, wall = _used(worker.pid) - cpu, time.perf_counter() - wall
        return {"cpu_s": cpu, "wall_s": wall, "peak_mb": _peak_mb(worker.pid)}


def _warm_up(worker: Any, runtime: Any, folder: Path) -> None:
    """Let the worker import what calibration needs, by a calibration of next to nothing."""
    from qnb.runtime.options import session_spec
    from tests import nets

    small, out = nets.convolutions(folder / "small.onnx", layers=1, channels=2, size=8), folder / "small-observed.onnx"
    spec = session_spec(str(out), "ort", runtime).plain()
    worker.call("observe_open", {"key": "w", "model": str(small), "out": str(out), "spec": spec, "histogram": True})


def whole_step(model: Path, data: np.ndarray, count: int, method: str) -> dict[str, float]:
    """Measure ``qnb.calibrate``, in this process and in its worker; the peak is the worker's."""
    import qnb
    from qnb.runtime import client

    float_model = qnb.export(model, simplify=False)
    client.close_all()  # the worker that exported has had memory of its own
    qnb.calibrate(float_model, data[:1], ranges=method)  # imports, and the worker's start
    (worker,) = client.workers()
    cpu, wall = _used(worker.pid) + time.process_time(), time.perf_counter()
    qnb.calibrate(float_model, (sample["image"] for sample in stream(data, count)), ranges=method)
    cpu, wall = _used(worker.pid) + time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_s": cpu, "wall_s": wall, "peak_mb": _peak_mb(worker.pid)}


def _child(order: dict[str, Any]) -> dict[str, float]:
    data = np.load(order["data"])
    if order["what"] == "calibrate":
        return whole_step(Path(order["model"]), data, order["samples"], order["method"])
    return statistics(Path(order["model"]), data, order["samples"], order["method"], order.get("most"))


def _apart(order: dict[str, Any]) -> dict[str, float]:
    """Carry out `order` in a fresh process."""
    if order["what"] == "bare":
        command = [sys.executable, "-c", BARE, order["model"], order["data"], str(order["samples"])]
    else:
        command = [sys.executable, "-m", "tests.benchmarks.calibration", "--child", json.dumps(order)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measured(name: str, folder: Path, samples: int, *, repeat: int = 3) -> list[dict[str, Any]]:
    """Measure one model: rows of `COLUMNS`; of several runs in turn, the median of each figure."""
    model, data = exported(name, folder)
    plain = {"model": str(model), "data": str(data), "samples": samples}
    orders = {("onnxruntime", "bare"): plain | {"what": "bare"}}
    for method in METHODS:
        orders["qnb statistics", method] = plain | {"what": "statistics", "method": method}
    orders["qnb statistics", "all four, every value counted"] = plain | {
        "what": "statistics",
        "method": "all four",
        "most": 0,
    }
    for method in ("min-max", "percentile"):
        orders["qnb calibrate", method] = plain | {"what": "calibrate", "method": method}
    runs: dict[tuple[str, str], list[dict[str, float]]] = {key: [] for key in orders}
    runs |= {("further samples", method): [] for method in FURTHER}
    for _ in range(repeat):
        for key, order in orders.items():
            runs[key].append(_apart(order))
        for method in FURTHER:
            once = runs["qnb statistics", method][-1]
            thrice = _apart(orders["qnb statistics", method] | {"samples": 3 * samples})
            added = {key: (thrice[key] - once[key]) / 2 for key in ("cpu_s", "wall_s")}
            runs["further samples", method].append(added | {"peak_mb": thrice["peak_mb"]})
    rows = []
    for (tool, method), figures in runs.items():
        bare = runs["onnxruntime", "bare"]
        row: dict[str, Any] = {"model": name, "tool": tool, "method": method, "samples": samples}
        row |= {key: float(np.median([run[key] for run in figures])) for key in ("cpu_s", "wall_s")}
        # each run against the bare one of its own round: a busy machine slows both
        for key in ("cpu", "wall"):
            pairs = zip(figures, bare, strict=True)
            row[f"ratio_{key}"] = float(np.median([mine[f"{key}_s"] / its[f"{key}_s"] for mine, its in pairs]))
        row["peak_mb"] = max(run["peak_mb"] for run in figures)
        row["above_bare_mb"] = row["peak_mb"] - max(run["peak_mb"] for run in bare)
        rows.append(row)
        show(row)
    return rows


def long_run(name: str, folder: Path, samples: int) -> dict[str, Any]:
    """Measure the memory of a histogram over many samples."""
    model, data = exported(name, folder)
    order = {"model": str(model), "data": str(data), "samples": samples, "what": "statistics", "method": "all four"}
    row = {"model": name, "tool": "qnb statistics", "method": "all four", "samples": samples} | _apart(order)
    show(row)
    return row


def show(row: dict[str, Any]) -> None:
    """Print a row of the table."""
    cells = [row.get(column, "") for column in COLUMNS]
    widths = (13, 16, 24, 8, 8, 8, 10, 11, 8, 14)
    print(
        "  ".join(f"{c:{w}.2f}" if isinstance(c, float) else f"{c!s:{w}}" for c, w in zip(cells, widths, strict=True)),
        flush=True,
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--long", type=int, default=6400, help="samples of the run for memory, with the first model; 0: none"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(_child(json.loads(arguments.child))))
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="qnb-bench-") as folder:
        os.environ["QNB_CACHE_DIR"] = f"{folder}/cache"
        show(dict(zip(COLUMNS, COLUMNS, strict=True)))
        for name in arguments.models:
            rows += measured(name, Path(folder), arguments.samples, repeat=arguments.repeat)
        if arguments.long:
            rows.append(long_run(arguments.models[0], Path(folder), arguments.long))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
