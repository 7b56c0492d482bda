"""Files for the viewers' tests: a deep net, a net with hostile names, a document of ten thousand rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.nets import model, value

HOSTILE = "<img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>"
LEFTWARD = "a‮evil\nname"


def deep(path: Path, ops: int = 2000) -> tuple[Path, int]:
    """Write a net of residual blocks, every sixth of them with four branches; return its path and how many ops it has."""
    nodes: list[onnx.NodeProto] = []

    def op(kind: str, *inputs: str) -> str:
        name = f"/block{len(nodes) // 7}/{kind.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [f"{name}/out"], name=name))
        return f"{name}/out"

    last, block = "x", 0
    while len(nodes) < ops - 14:
        start, block = last, block + 1
        if block % 6 == 0:
            ends = [op("Relu", start), op("Sigmoid", op("Neg", start)), op("Tanh", op("Abs", op("Exp", start))), start]
            last = op("Sum", *ends)
        else:
            for kind in ("Relu", "Sigmoid", "Neg", "Tanh", "Relu"):
                last = op(kind, last)
            last = op("Add", last, start)
    while len(nodes) < ops:
        last = op("Relu", last)
    nodes[-1].output[0] = "y"
    onnx.save(model(nodes, [value("x", (1, 8))], [value("y", (1, 8))]), path)
    return path, len(nodes)


def hostile(path: Path) -> Path:
    """Write a net whose ops and tensors have markup and direction characters for names."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], [HOSTILE], name=HOSTILE),
        helper.make_node("Relu", [HOSTILE], ["y"], name=LEFTWARD),
    ]
    weights = {"w": np.ones((4, 4), np.float32)}
    onnx.save(model(nodes, [value("x", (1, 4))], [value("y", (1, 4))], weights), path)
    return path


def large(rows: int) -> dict[str, Any]:
    """Return a document of many rows, with a chart of two sources and intervals."""
    places = [{"soc": f"SM{8000 + k}", "ms": 1.0 + k, "source": s} for k, s in enumerate(_SOURCES)]
    return {
        "format": 2,
        "kind": "profile",
        "title": "ten thousand ops",
        "notes": [],
        "recipe": None,
        "tables": [
            {
                "title": "ops",
                "columns": ["op", "op_type", "time_ms", "source"],
                "rows": [
                    [f"op_{k}", ("Conv", "Relu")[k % 2], round((k * 7919) % 10007 / 1000, 3), "host"]
                    for k in range(rows)
                ],
                "help": {"time_ms": "Median of the runs, in milliseconds."},
            },
            {
                "title": "SoCs",
                "columns": ["soc", "latency_ms", "low_ms", "high_ms", "source"],
                "rows": [[p["soc"], p["ms"], 0.7 * p["ms"], 1.4 * p["ms"], p["source"]] for p in places],
            },
        ],
        "charts": [
            {"title": "Latency", "type": kind, "table": 1, "label": "soc", "value": "latency_ms", "low": "low_ms",
             "high": "high_ms", "source": "source"}
            for kind in ("bars", "points")
        ],
    }  # fmt: skip


_SOURCES = ("device", "simulator", "host", "reference", "published", "transferred", "estimate")
