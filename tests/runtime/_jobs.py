"""Jobs whose doing is known, for a worker of the tests."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any

import numpy as np

from qnb import errors

Reply = tuple[dict[str, Any], dict[str, np.ndarray]]


def about(ctx: Any, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    torch = "blocked" if sys.modules.get("torch", 0) is None else "free"
    return {"pid": os.getpid(), "torch": torch}, {}


def echo(ctx: Any, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    return args, arrays


def say(ctx: Any, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    print(args["python"])
    print(args["error"], file=sys.stderr)
    libc = ctypes.CDLL(None) if os.name == "posix" else ctypes.CDLL("msvcrt")
    libc.puts(args["native"].encode())  # buffered by the C library
    return {}, {}


def fail(ctx: Any, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    print("said before", flush=True)
    match args["error"]:
        case "ZeroDivisionError":
            return {"never": 1 / 0}, {}
        case "unsendable":
            return {"value": object()}, {}
        case "exit":
            os._exit(3)
        case "segfault":
            ctypes.string_at(0)
        case "garbage":
            import gc
            import io

            for file in gc.get_objects():
                if isinstance(file, io.FileIO) and file.mode == "wb":  # the replies
                    file.write(b"this is no message")
            time.sleep(60)
    raise getattr(errors, args["error"])("what happened", hint="what next")


def count(ctx: Any, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    for number in range(args["to"]):
        time.sleep(args["pause"])
        ctx.progress(number + 1, args["to"], "counting")
    return {"pid": os.getpid()}, {}


JOBS = {job.__name__: job for job in (about, echo, say, fail, count)}
