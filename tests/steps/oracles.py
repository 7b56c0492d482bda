"""What the steps are measured against: ONNX Runtime's own CPU provider, driven by the test itself and not through qnb."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def on_onnxruntime(path: Path | str, samples: list[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Run each sample through an ONNX file; outputs by name, along the first axis."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    rows = [dict(zip(names, session.run(names, dict(sample)), strict=True)) for sample in samples]
    return {name: np.concatenate([row[name] for row in rows]) for name in names}


def split(**stacks: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Samples of batch 1 from stacks by input name."""
    count = len(next(iter(stacks.values())))
    return [{name: stack[i : i + 1] for name, stack in stacks.items()} for i in range(count)]


def sqnr_db(reference: np.ndarray, value: np.ndarray) -> float:
    """Signal to quantization noise ratio, written down anew; of equal arrays infinite."""
    r, v = reference.astype(float), value.astype(float)
    noise = np.sum((r - v) ** 2)
    return float(10 * np.log10(np.sum(r * r) / noise)) if noise else float("inf")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def exported(name: str, **options: Any) -> Any:
    """Export one of the small architectures of `tests.models`; give the module and the model."""
    import qnb
    from tests.models import BUILDERS, INPUTS

    module = BUILDERS[name]()
    return module, qnb.export(module, shapes=INPUTS[name], name=name, **options)
