"""One quantization by one peer, in a fresh process: what `tests.benchmarks.peers` starts, with the peers' own Python.

Knows onnxruntime and aimet-onnx; nothing of qnb, whose environment this is not. Takes one JSON order as its argument and
prints one JSON line: seconds and memory. Time counts from after the imports until the QDQ file is written.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Carry out the order."""
    order = json.loads(sys.argv[1])
    with np.load(order["samples"]) as stacked:
        arrays = dict(stacked)
    samples = [{k: v[i] for k, v in arrays.items()} for i in range(len(next(iter(arrays.values()))))]
    work = {"bare": _bare, "onnxruntime": _onnxruntime, "aimet": _aimet}[order["tool"]](order)
    imported = _peak_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        work(samples, Path(folder))
        seconds = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    print("\n" + json.dumps({**seconds, "peak_mb": _peak_mb(), "imported_mb": imported, **_stages}), flush=True)


_stages: dict[str, float] = {}


def _peak_mb() -> float:
    # not ru_maxrss, which a process takes over from the one that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def _one_thread() -> Any:
    """Import onnxruntime, with sessions that take one thread unless they are told otherwise."""
    import onnxruntime as ort

    make = ort.InferenceSession.__init__

    def patched(self: Any, path: Any = None, sess_options: Any = None, *rest: Any, **named: Any) -> None:
        options = sess_options or ort.SessionOptions()
        options.intra_op_num_threads = 1
        make(self, named.pop("path_or_bytes", path), options, *rest, **named)

    ort.InferenceSession.__init__ = patched
    return ort


Work = Callable[[list[dict[str, np.ndarray]], Path], None]


def _bare(order: dict[str, Any]) -> Work:
    """Float passes, and nothing else: what calibration can't do without."""
    session = _one_thread().InferenceSession(order["model"], providers=["CPUExecutionProvider"])
    with np.load(order["samples"]) as stacked:
        session.run(None, {name: values[0] for name, values in stacked.items()})

    def work(samples: list[dict[str, np.ndarray]], folder: Path) -> None:
        for sample in samples:
            session.run(None, sample)

    return work


def _onnxruntime(order: dict[str, Any]) -> Work:
    _one_thread()
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

    class Reader(CalibrationDataReader):
        def __init__(self, samples: list[dict[str, np.ndarray]]) -> None:
            self._left: Iterator[dict[str, np.ndarray]] = iter(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    def work(samples: list[dict[str, np.ndarray]], folder: Path) -> None:
        # without qnn_preprocess_model, which fails under onnx 1.23 (metadata_props); the models are simplified already
        config = get_qnn_qdq_config(
            Path(order["model"]),
            Reader(samples),
            calibrate_method={
                "min-max": CalibrationMethod.MinMax,
                "percentile": CalibrationMethod.Percentile,
                "entropy": CalibrationMethod.Entropy,
            }[order["method"]],
            activation_type={8: QuantType.QUInt8, 16: QuantType.QUInt16}[order["activation_bits"]],
            weight_type={4: QuantType.QInt4, 8: QuantType.QInt8}[order["weight_bits"]],
            per_channel=True,
        )
        quantize(Path(order["model"]), order["out"], config)

    return work


def _aimet(order: dict[str, Any]) -> Work:
    _one_thread()
    import aimet_onnx
    import onnx
    import torch
    from aimet_onnx.cross_layer_equalization import equalize_model

    torch.set_num_threads(1)
    scheme, *extras = order["method"].split("+")
    scheme = {"min-max": "min_max"}.get(scheme, scheme)

    def work(samples: list[dict[str, np.ndarray]], folder: Path) -> None:
        def stage(name: str, action: Callable[[], Any]) -> Any:
            before = time.process_time()
            result = action()
            _stages[f"{name}_cpu_s"] = time.process_time() - before
            return result

        model = onnx.load(order["model"])
        if "cle" in extras:
            stage("cle", lambda: equalize_model(model))
        sim = aimet_onnx.QuantizationSimModel(
            model,
            param_type=f"int{order['weight_bits']}",
            activation_type=f"int{order['activation_bits']}",
            quant_scheme=scheme,
            config_file="htp_v75",
            path=str(folder),
        )
        if "seqmse" in extras:
            stage("seqmse", lambda: aimet_onnx.apply_seq_mse(sim, samples))
        if "adaround" in extras:
            stage("adaround", lambda: aimet_onnx.apply_adaround(sim, samples, num_iterations=order["iterations"]))
        stage("ranges", lambda: sim.compute_encodings(samples))
        made = sim.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True)
        made.ir_version = min(made.ir_version, 10)  # the newest that the pinned ONNX Runtime writes
        onnx.save(made, order["out"])

    return work


if __name__ == "__main__":
    main()
