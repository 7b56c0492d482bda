"""Jobs for a worker of the tests, in place of qnb's own."""

from __future__ import annotations

import time
from typing import Any


def spin(ctx: Any, args: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hold the interpreter's lock in one call of C code that ends in some millennia: no other thread ever runs."""
    return {"sum": sum(range(10**20))}, {}


def nap(ctx: Any, args: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    time.sleep(args["seconds"])
    return {}, {}


JOBS = {"spin": spin, "nap": nap}
