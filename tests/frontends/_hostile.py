"""Reads files as a worker of `qnb.export` does, each in a process of its own; for test_hostile.py.

``python -m tests.frontends._hostile torch|tensorflow`` takes a path per line and answers with a line of JSON for each.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import time
import warnings
from pathlib import Path

LIMIT_S = 60  # by the clock, of a machine that may be busy with other things


def read(path):
    """Recognise a file and bring it to where its graph is known; a program in memory is as far as torch's go here."""
    from qnb.frontends import FOREIGN, recognise
    from qnb.jobs import foreign

    kind = recognise(path)
    if kind not in FOREIGN:
        return kind
    if kind in ("torchscript", "exported-program"):
        import torch

        from qnb.frontends.torchscript import load

        foreign._limit_memory(Path(path))
        model = load(path, kind)
        if isinstance(model, torch.export.ExportedProgram):
            model.module()
        return kind
    out = f"{os.getpid()}.onnx"
    args = {"kind": kind, "path_in": path, "path_out": out, "shapes": None, "batch": 1, "trust": False}
    try:
        foreign.convert_foreign(None, {**args, "input_names": None, "output_names": None}, {})
    finally:
        for left in Path().glob(f"{out}*"):
            left.unlink()
    return kind


def in_child(path, pipe):
    """Read one file and write what came of it; never returns."""
    from qnb.errors import QnbError

    try:
        answer = {"kind": read(path), "error": None, "hint": None}
    except QnbError as error:
        answer = {"error": type(error).__name__, "what": error.what, "hint": error.hint}
    except BaseException as error:
        answer = {"error": f"not one of ours: {type(error).__name__}", "what": str(error)[:500], "hint": None}
    os.write(pipe, json.dumps(answer).encode()[:60_000])
    os._exit(0)


def ask(path):
    """Read one file in a child process; tell what it said, what it took, and how it ended."""
    start, (source, sink) = time.monotonic(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(source)
        in_child(path, sink)
    os.close(sink)
    ready, _, _ = select.select([source], [], [], LIMIT_S)
    text = os.read(source, 65_536) if ready else b""
    if not ready:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    os.close(source)
    answer = json.loads(text) if text else {"error": "crash" if ready else "too long", "hint": f"{status}"}
    took = {"seconds": usage.ru_utime + usage.ru_stime, "wall_s": time.monotonic() - start}
    return {**answer, "path": path, **took, "bytes": usage.ru_maxrss * 1024}


def main():
    warnings.simplefilter("ignore")
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    if sys.argv[1] == "tensorflow":
        libraries = ("ai_edge_litert.interpreter", "keras", "tensorflow", "tf2onnx")
    else:
        libraries = ("torch._export.serde.serialize", "torch.export.pt2_archive._package")
    for library in libraries:  # once, for all children
        importlib.import_module(library)
    for line in sys.stdin:
        print(json.dumps(ask(line.rstrip("\n"))), flush=True)


if __name__ == "__main__":
    main()
