"""Tables of the shape that the steps give for the charts of a report card, with made-up figures."""

from __future__ import annotations

import numpy as np
import pandas as pd

TYPES = ("Conv", "Gemm", "Relu", "Add", "MaxPool")


def profiled(count: int = 40) -> pd.DataFrame:
    """Ops with MACs and bytes, every third without MACs, and a row that belongs to no op."""
    rng = np.random.default_rng(0)
    cycles = rng.lognormal(10, 1.2, count)
    macs = np.where(np.arange(count) % 3 == 2, 0.0, cycles * rng.lognormal(3, 1, count))
    moved = cycles * rng.lognormal(1, 1, count)
    frame = pd.DataFrame(
        {
            "op": [f"op_{i}" for i in range(count)], "op_type": [TYPES[i % 5] for i in range(count)], "onnx_ops": "",
            "cycles": cycles, "time_ms": cycles / 1e6, "percent": 1.0, "macs": macs, "bytes": moved,
            "intensity_macs_per_byte": macs / moved, "precision": "int8", "source": "simulator",
        }
    )  # fmt: skip
    rest = pd.DataFrame(
        [{"op": "(unattributed: accelerator)", "op_type": "", "cycles": 5e4, "time_ms": 0.05, "source": "simulator"}]
    )
    return pd.concat([frame, rest], ignore_index=True) if count else frame


def peaks() -> pd.DataFrame:
    return pd.DataFrame([{"name": "made up", "macs_per_cycle": 8192.0, "bytes_per_cycle": 64.0, "source": "estimate"}])


def memory(count: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"op": [f"op_{i}" for i in range(count)], "op_type": [TYPES[i % 5] for i in range(count)]})
    live = (rng.gamma(2, 1, count) * 2e6).astype(int)
    return frame.assign(
        live_bytes=live, read_bytes=live // 2, written_bytes=live // 3, weight_bytes=np.arange(count) * 1000,
        activation_bytes=live // 3,
    )  # fmt: skip


def precision(count: int = 40) -> pd.DataFrame:
    weights = [("int8", "int4", "", "fp16")[i % 4] for i in range(count)]
    activations = [("int8", "int16")[i % 5 == 4] for i in range(count)]

    def bits(word: str) -> float:
        return float(word.strip("intfp")) if word else np.nan

    frame = pd.DataFrame({"op": [f"op_{i}" for i in range(count)], "op_type": "Conv"})
    return frame.assign(
        weights=weights, activations=activations, weight_bits=[bits(w) for w in weights],
        activation_bits=[bits(a) for a in activations], weight_bytes=[100 * bool(w) for w in weights],
    )  # fmt: skip


def estimates(count: int = 8) -> pd.DataFrame:
    """Every fourth SoC has no figure; of the others one is published, one transferred, one estimated."""
    rng = np.random.default_rng(2)
    latency = rng.lognormal(0.5, 0.4, count)
    source = np.array([("estimate", "published", "transferred", "none")[i % 4] for i in range(count)])
    some = np.isin(source, ["estimate", "transferred"])
    return pd.DataFrame(
        {
            "soc": [f"SM{8000 + i}" for i in range(count)], "name": [f"Snapdragon {i}" for i in range(count)],
            "hexagon_arch": "v75", "precision": "w8a8", "path": "onnx",
            "latency_ms": np.where(source == "none", np.nan, latency),
            "low_ms": np.where(some, 0.8 * latency, np.nan), "high_ms": np.where(some, 1.3 * latency, np.nan),
            "peak_memory_mb": np.nan, "source": source, "why": "its generation is in no table",
        }
    )  # fmt: skip


def builds(count: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    backends = [("htp", "gpu", "cpu")[i % 3] for i in range(count)]
    source = {"htp": "simulator", "gpu": "reference", "cpu": "host"}
    return pd.DataFrame(
        {
            "build": [f"build {i}" for i in range(count)], "backend": backends, "soc": "SM8650", "precision": "w8a8",
            "source": [source[b] for b in backends], "median_ms": rng.lognormal(2, 0.5, count),
            "sqnr_db": rng.normal(35, 8, count), "accuracy": np.nan, "top1_agreement": np.nan,
        }
    )  # fmt: skip


def headline(count: int = 6) -> pd.DataFrame:
    rows = [
        ("latency", 4.2, "ms", "simulator", "htp w8a8"), ("SQNR against fp32", np.inf, "dB", "host", "check"),
        ("size", 90112, "bytes", "host", "context binary"), ("activations at the peak", 3072, "bytes", "", "counted"),
        ("work", 337536, "MACs", "", "counted"), ("accuracy", np.nan, "%", "device", ""),
    ]  # fmt: skip
    made = [rows[i % len(rows)] for i in range(count)]
    return pd.DataFrame(made, columns=["figure", "value", "unit", "source", "detail"])
