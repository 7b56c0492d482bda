"""Tables of the shape that the steps give, with made-up figures: what charts and tables are tested on."""

from __future__ import annotations

import numpy as np
import pandas as pd

SOURCES = {"htp": "simulator", "gpu": "reference", "cpu": "host"}
LONG = "/a/long/" + "x" * 300 + "/<script>\n\x1b[31m/$x_0$"
STATES = ("ok", "simulator", "unavailable", "missing", "warning", "something else")


def configurations(count: int = 3) -> pd.DataFrame:
    backends = [("htp", "gpu", "cpu")[i % 3] for i in range(count)]
    return pd.DataFrame(
        {
            "build": [f"build {i // 3}" for i in range(count)],
            "backend": backends,
            "soc": "SM8650",
            "precision": [{"htp": "w8a8", "gpu": "fp16", "cpu": "fp32"}[b] for b in backends],
            "source": [SOURCES[b] for b in backends],
        }
    )


def runs(count: int = 90) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return (
        configurations(3)
        .loc[np.arange(count) % 3]
        .assign(latency_ms=rng.gamma(9, 1, count) * ([52, 6, 21] * count)[:count])
    )


def ops(count: int = 40) -> pd.DataFrame:
    times = np.arange(count, 0.0, -1)
    frame = pd.DataFrame({"op": [f"conv_{i}" for i in range(count)], "op_type": "Conv2d", "cycles": times * 1e5})
    frame = frame.assign(time_ms=times, percent=100 * times / (times.sum() + 30), source="simulator")
    rest = {
        "op": "(unattributed)",
        "op_type": "",
        "cycles": 3e6,
        "time_ms": 30.0,
        "percent": 3.0,
        "source": "simulator",
    }
    return pd.concat([frame, pd.DataFrame([rest])], ignore_index=True)


def accuracy(count: int = 3) -> pd.DataFrame:
    return configurations(count).assign(
        output="logits", max_abs_error=0.1, sqnr_db=([31.2, 71.5, np.inf] * count)[:count], cosine=0.999,
        top1_agreement=0.98, accuracy=([0.961, 0.975, np.nan] * count)[:count],
    )  # fmt: skip


def comparison(count: int = 3) -> pd.DataFrame:
    return accuracy(count).assign(
        median_ms=np.linspace(10, 90, count), p95_ms=np.linspace(11, 99, count), throughput_per_s=50.0,
        size_kb=([3711, np.nan, 13980] * count)[:count], note="",
    )  # fmt: skip


def contexts(count: int = 5) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "soc": [f"SM{8350 + 100 * i}" for i in range(count)], "name": "Snapdragon 8", "soc_model": 57, "arch": "v75",
            "precision": "w8a8", "source": "host", "size_kb": np.linspace(3600, 3900, count), "compile_ms": 420.0,
            "graph_prepare_ms": np.linspace(1, 5, count), "ddr_read_kb": np.arange(count), "ddr_spill_kb": np.nan,
            "vtcm_mb": 8, "cached": False, "digest": "ab",
        }
    )  # fmt: skip


def placement(count: int = 60) -> pd.DataFrame:
    frame = pd.DataFrame({"op": [f"n{i}" for i in range(count)], "op_type": [f"Op{i % 4}" for i in range(count)]})
    return frame.assign(
        qnn_ops="", htp=["no" if i == 3 else "yes" for i in range(count)], gpu="unknown", cpu="yes", reason=""
    )


def layers(count: int = 40) -> pd.DataFrame:
    frame = pd.DataFrame(
        {"op": [f"conv_{i}" for i in range(count)], "op_type": "Conv", "macs": np.arange(count) * 10**6}
    )
    return frame.assign(parameters=np.arange(count)[::-1] * 1000)


def encodings(count: int = 20) -> pd.DataFrame:
    bits = [16 if i % 5 == 0 else 8 for i in range(count)]
    frame = pd.DataFrame({"tensor": [f"t_{i}" for i in range(count)], "kind": "activation", "bits": bits})
    return frame.assign(min=-np.linspace(0, 3, count), max=np.linspace(1, 6, count), scale=0.1)


def doctor(count: int = 8) -> pd.DataFrame:
    frame = pd.DataFrame({"kind": "backend", "name": [f"item {i}" for i in range(count)]})
    return frame.assign(
        state=[STATES[i % len(STATES)] for i in range(count)], reason="why it is so", remedy="what to do"
    )
