"""The job that looks at a build with all rules; models and graphs are read here, so that the kernel process need not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from qnb import frames
from qnb.advice.advise import advise as apply
from qnb.advice.advise import ignored
from qnb.advice.network import Network
from qnb.advice.npu import NpuGraph
from qnb.advice.subject import Compiled, Subject
from qnb.graph.reading import read
from qnb.runtime.worker import JobContext, Reply

_TABLES = ("placement", "ops", "encodings", "tensors")


def advise(ctx: JobContext, args: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reply:
    """Apply the rules; args: paths (network, quantized, source), graphs (paths), tables, facts, compiled, ignore.

    Answers with rows, and how many were suppressed.
    """
    paths = args["paths"]
    networks: dict[str, Any] = {name: Network(read(path)) if path else None for name, path in paths.items()}
    tables: dict[str, Any] = {
        name: frames.from_plain(args["tables"][name]) if args["tables"].get(name) else None for name in _TABLES
    }
    graphs = [NpuGraph(json.loads(Path(path).read_text(encoding="utf-8"))) for path in args["graphs"]]
    compiled = Compiled(**args["compiled"]) if args["compiled"] is not None else None
    subject = Subject(**networks, **tables, **args["facts"], npu=graphs, compiled=compiled)
    rows, suppressed = apply(subject, ignored(args["ignore"]))
    return {"rows": rows, "suppressed": suppressed}, {}
