"""qnb beside the quantizers that people use today: what each costs, and how good what it makes is.

``python -m tests.benchmarks.peers --python PEERS/bin/python [--models …] [--precisions …] [--samples 64] [--json F]``

PEERS is an environment made from ``requirements-peers.txt`` beside this file. Same model, same calibration samples, one
thread, each quantization in a fresh process; seconds count from after the imports until the QDQ file is there, memory is the
process's peak (of qnb: its worker's). Quality is output SQNR against the float model on samples that no tool has seen: of
the QDQ file on ONNX Runtime's CPU (host), and compiled for the Hexagon simulator, every node on the NPU. A figure that
can't be had is left out, with the reason. Nothing fails on a slow machine.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

COSTS = (
    "model",
    "precision",
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
QUALITY = ("model", "precision", "tool", "method", "sqnr_host_db", "sqnr_simulator_db", "top1", "note")

PRECISIONS = ("w8a8", "w8a16", "w4a8")
METHODS: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("min-max", "percentile", "entropy"),
    "aimet": ("min-max", "percentile", "tf_enhanced", "min-max+cle"),
    "qnb": ("min-max", "percentile", "mse", "entropy", "balanced", "best"),
}
LARGE = ("resnet50", "vit_small")
"""Models in which choosing weights layer by layer takes many minutes: `best` is left out there."""
WEIGHTS = ("min-max+seqmse", "min-max+cle+seqmse", "min-max+adaround", "min-max+cle+adaround")
"""AIMET's methods that optimize weights: for the hard classifier only, since AdaRound takes minutes to hours for others."""
HARD = "hard_digits"


@dataclass
class Subject:
    """A model with its data.

    Attributes
    ----------
    module : torch.nn.Module
    calibration, test : ndarray of float32, shape [N, 1, …]
    labels : ndarray or None
        Classes of `test`; without them top-1 is the agreement with the float model.
    simulated : int
        How many of `test` run on the simulator, which takes seconds for one of a large model.
    """

    module: Any
    calibration: np.ndarray
    test: np.ndarray
    labels: np.ndarray | None
    simulated: int


def _digits(which: str) -> Callable[[int], Subject]:
    def make(samples: int) -> Subject:
        from tests.hard import hard_digits

        made = hard_digits()
        return Subject(getattr(made, which), made.train[:samples, None], made.test[:, None], made.labels, 100)

    return make


def _random(builder: str, size: int, held_out: int, simulated: int) -> Callable[[int], Subject]:
    def make(samples: int) -> Subject:
        from tests import models

        images = np.random.default_rng(0).standard_normal((samples + held_out, 1, 3, size, size)).astype(np.float32)
        return Subject(getattr(models, builder)(), images[:samples], images[samples:], None, simulated)

    return make


MODELS: dict[str, Callable[[int], Subject]] = {
    "digits": _digits("easy"),
    HARD: _digits("module"),
    "vit_block": _random("vit_block", 32, 64, 32),
    "mobilenet_v2": _random("mobilenet_v2", 224, 16, 8),
    "resnet50": _random("resnet50", 224, 8, 4),
    "vit_small": _random("vit_small", 224, 8, 2),
}


def methods_of(model: str, tool: str, precision: str) -> Iterator[str]:
    """Give the methods of a tool that are measured for a model."""
    yield from (m for m in METHODS[tool] if m != "best" or model not in LARGE)
    if tool == "aimet" and model == HARD:
        yield from (m for m in WEIGHTS if precision == "w4a8" or "adaround" not in m)


# --- one quantization ----------------------------------------------------------------------------------------------


def run_apart(python: str, order: dict[str, Any], *, timeout: float = 3600) -> dict[str, Any]:
    """Carry out `order` in a fresh process with one thread; give its figures, or ``{"failed": reason}``."""
    script = (
        ["-m", "tests.benchmarks.peers", "--child"]
        if order["tool"] == "qnb"
        else [f"{Path(__file__).parent}/peer_run.py"]
    )
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [python, *script, json.dumps(order)],
        capture_output=True,
        text=True,
        env={**os.environ, **one},
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no word"])[-1][:200]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def child(order: dict[str, Any]) -> dict[str, Any]:
    """Quantize with qnb, in this process and in its worker; all of it counts, but imports and the worker's start."""
    import psutil

    import qnb
    from qnb.runtime import client

    def used() -> float:
        times = [psutil.Process(worker.pid).cpu_times() for worker in client.workers()]
        return time.process_time() + sum(t.user + t.system for t in times)

    def peak() -> float:
        status = [Path(f"/proc/{worker.pid}/status").read_text() for worker in client.workers()]
        return max(int(line.split()[1]) / 1024 for text in status for line in text.splitlines() if "VmHWM" in line)

    with np.load(order["samples"]) as stacked:
        samples = dict(stacked)
    model = qnb.export(order["model"], simplify=False)
    client.close_all()  # the worker that exported has had memory of its own
    qnb.calibrate(model, {k: v[0] for k, v in samples.items()})  # imports, and the worker's start
    cpu, wall = used(), time.perf_counter()
    how = {"effort" if order["method"] in ("balanced", "best") else "ranges": order["method"]}
    made = qnb.calibrate(model, samples, precision=order["precision"], **how)
    figures = {
        "cpu_s": used() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_mb": peak(),
        "notes": list(made.notes),
    }
    shutil.copy(made.path, order["out"])
    return figures


# --- how good it is ------------------------------------------------------------------------------------------------


def outputs(path: Path, backend: str, samples: np.ndarray) -> np.ndarray:
    """Give the first output for each sample, shape [N, …]."""
    from qnb.runtime import client
    from qnb.runtime.locate import find_runtime
    from qnb.runtime.options import BackendOptions, session_spec
    from qnb.socs import find

    runtime = find_runtime()
    options = BackendOptions(soc=find("SM8650")) if backend == "htp" else None
    spec = session_spec(str(path), backend, runtime, options).plain()  # type: ignore[arg-type]
    with client.borrow(runtime) as worker:
        answer = worker.call("run", {"spec": spec, "count": len(samples)}, {"image": samples})
    return np.asarray(next(iter(answer.arrays.values()))).reshape(len(samples), -1)


def quality(path: Path, subject: Subject, reference: np.ndarray, *, simulator: bool) -> dict[str, Any]:
    """Compare a QDQ file with the float model's outputs on the held-out samples."""
    from qnb.errors import QnbError
    from qnb.graph.compare import agreement

    figures: dict[str, Any] = {}
    for backend, key, count in (("ort", "host", len(subject.test)), ("htp", "simulator", subject.simulated)):
        if backend == "htp" and not simulator:
            continue
        try:
            found = outputs(path, backend, subject.test[:count])
        except QnbError as error:
            figures["note"] = f"{key}: {error.what.splitlines()[0][:120]}"
            continue
        against = agreement(reference[:count], found)
        figures[f"sqnr_{key}_db"] = against["sqnr_db"]
        if backend == "ort":
            right = found.argmax(1) == subject.labels if subject.labels is not None else None
            figures["top1"] = float(right.mean()) if right is not None else against["top1_agreement"]
    return figures


# --- the tables ----------------------------------------------------------------------------------------------------


def show(row: dict[str, Any], columns: tuple[str, ...]) -> None:
    """Print a row."""
    cells = ("" if (value := row.get(column)) is None else value for column in columns)
    widths = (13, 10, 12, 22) + (13,) * len(columns)
    texts = (f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells)
    print("  ".join(f"{text:{width}}" for text, width in zip(texts, widths, strict=False)), flush=True)


def measured(name: str, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one model with all tools; rows that have the columns of both tables."""
    import qnb

    subject = MODELS[name](options.samples)
    shape = subject.test.shape[1:]
    model = qnb.export(subject.module, shapes={"image": shape}, input_names=["image"], name=name)
    source, data = folder / f"{name}.onnx", folder / f"{name}.npz"
    shutil.copy(model.path, source)
    np.savez(data, image=subject.calibration)
    reference = outputs(source, "ort", subject.test)
    plain = {"model": str(source), "samples": str(data), "iterations": options.iterations}
    bare = run_apart(sys.executable, plain | {"tool": "bare"})
    rows = [{"model": name, "tool": "bare", "method": "float passes", "samples": options.samples, **bare}]
    show(rows[0], COSTS)
    for precision in options.precisions:
        weights, activations = (int(bits) for bits in precision[1:].split("a"))
        for tool in options.tools:
            python = options.python if tool != "qnb" else sys.executable
            for method in methods_of(name, tool, precision):
                out = folder / f"{name}-{precision}-{tool}-{method}.onnx"
                order = plain | {"tool": tool, "method": method, "precision": precision, "out": str(out)}
                order |= {"weight_bits": weights, "activation_bits": activations}
                row = {
                    "model": name,
                    "precision": precision,
                    "tool": tool,
                    "method": method,
                    "samples": options.samples,
                }
                rows.append(row | run_apart(python, order))
                if "failed" in rows[-1]:
                    rows[-1]["note"] = rows[-1].pop("failed")
                else:
                    _against(rows[-1], bare)
                    rows[-1] |= quality(out, subject, reference, simulator=options.simulator)
                show(rows[-1], COSTS)
                show(rows[-1], QUALITY)
    return rows


def _against(row: dict[str, Any], bare: dict[str, Any]) -> None:
    for key in ("cpu", "wall"):
        row[f"ratio_{key}"] = row[f"{key}_s"] / bare[f"{key}_s"]
    row["above_bare_mb"] = row["peak_mb"] - bare["peak_mb"]


@functools.cache
def has(python: str, package: str) -> bool:
    """Say whether that Python has a package."""
    found = [python, "-c", f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"]
    return subprocess.run(found, check=False, capture_output=True).returncode == 0


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="Python of the environment that has the peers")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--tools", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=10_000, help="of AdaRound; 10 000 is AIMET's default")
    parser.add_argument("--no-simulator", dest="simulator", action="store_false")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print("\n" + json.dumps(child(json.loads(options.child))))
        return
    if "aimet" in options.tools and not has(options.python, "aimet_onnx"):
        options.tools.remove("aimet")
        print(f"aimet-onnx is not installed for {options.python}: its rows are left out (see requirements-peers.txt)")
    rows = []
    with tempfile.TemporaryDirectory(prefix="qnb-peers-") as folder:
        os.environ["QNB_CACHE_DIR"] = f"{folder}/cache"
        os.environ["QNB_PROGRESS"] = "0"
        show(dict(zip(COSTS, COSTS, strict=True)), COSTS)
        show(dict(zip(QUALITY, QUALITY, strict=True)), QUALITY)
        for name in options.models:
            rows += measured(name, Path(folder), options)
            if options.json:  # what is there is kept if the rest is interrupted
                options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
