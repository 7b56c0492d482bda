"""Compile the zoo through qnb's own path and write what the compiler estimates: the inputs of `fit.py`.

``python tools/latency/compile.py [NAME …]`` appends to ``compiler_costs.csv`` what is not there yet, keeps each graph
without its weights in ``graphs/``, and writes the work of all of them, op by op, to ``graph_costs.csv.gz``. A model takes
from seconds to minutes. Weights are random.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import zoo

import qnb
from qnb.artifacts import Model, Quantized
from qnb.errors import QnbError
from qnb.latency.work import rows, work_of
from qnb.runtime.locate import find_runtime
from qnb.steps._costing import COST_MODELS, CostModel, compiler_cost

HERE = Path(__file__).parent
COSTS = HERE / "compiler_costs.csv"
GRAPHS = HERE / "graph_costs.csv.gz"
FIGURES = {
    "cycles": "cycles",
    "lower": "lower",
    "upper": "upper",
    "input_fill": "input_fill_bytes",
    "fill": "fill_bytes",
    "spill": "spill_bytes",
    "output_spill": "output_spill_bytes",
    "missing_ops": "missing_ops",
}
"""Column, and field of what the compiler answers."""
COLUMNS = ("model", "precision", "soc_model", *FIGURES, "qairt", "compile_s")
LIMIT_S = 400


def sample(entry: zoo.Entry, seed: int) -> tuple[torch.Tensor, ...]:
    """Make one random input."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.rand(shape, generator=generator) if dtype == torch.float32 else torch.ones(shape, dtype=dtype)
        for shape, dtype in entry.inputs.values()
    )


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """Move parameters off a constant start, and statistics too: equal constants would be shared, and zero ones dropped."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1 or bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.01)
        for name, buffer in module.named_buffers():
            if "running_mean" in name:
                buffer.add_(torch.randn(buffer.shape, generator=generator) * 0.01)
            elif "running_var" in name:
                buffer.mul_(1 + 0.1 * torch.rand(buffer.shape, generator=generator))
    return module.eval()


def skeleton(path: Path, out: Path) -> None:
    """Keep a graph without the content of its large constants: shapes and ops are all that the work needs."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 256:
            tensor.ClearField("raw_data")
        if len(tensor.float_data) > 64:
            tensor.ClearField("float_data")
    out.parent.mkdir(exist_ok=True)
    onnx.save(model, out)


def estimate(build: Model | Quantized, soc_model: CostModel) -> dict[str, Any]:
    """Ask the compiler, as the step ``estimate`` does."""
    stop = threading.Event()
    limit = threading.Timer(LIMIT_S, stop.set)
    limit.start()
    try:
        cost = compiler_cost(build, soc_model, stop=stop)
    finally:
        limit.cancel()
    figures = {column: getattr(cost.estimate, field) for column, field in FIGURES.items()}
    return figures | {"qairt": find_runtime(None).qairt, "compile_s": round(cost.compile_s, 1)}


def builds(name: str, entry: zoo.Entry, precisions: Iterable[str]) -> Iterable[tuple[str, Model | Quantized]]:
    """Export, and quantize with two random samples."""
    torch.manual_seed(0)
    module = shaken(entry.build())
    model = qnb.export(module, example=sample(entry, 2), input_names=list(entry.inputs), name=name)
    assert isinstance(model, Model)
    skeleton(model.path, HERE / "graphs" / f"{name}.onnx")
    for precision in precisions:
        if precision == "float":
            yield precision, model
        else:
            data = [dict(zip(entry.inputs, (np.asarray(t) for t in sample(entry, s)), strict=True)) for s in (3, 4)]
            yield precision, qnb.calibrate(model, data, precision=precision)  # type: ignore[arg-type]


def done() -> set[tuple[str, str, int]]:
    """What the table has."""
    if not COSTS.exists():
        return set()
    with COSTS.open(newline="") as file:
        return {(row["model"], row["precision"], int(row["soc_model"])) for row in csv.DictReader(file)}


def write_graphs() -> None:
    """Write the work of each graph, op by op: anew for the graphs kept here, as it was for the others."""
    found: dict[str, list[dict[str, Any]]] = {}
    if GRAPHS.exists():
        for row in csv.DictReader(gzip.decompress(GRAPHS.read_bytes()).decode().splitlines()):
            found.setdefault(row["model"], []).append(row)
    for path in (HERE / "graphs").glob("*.onnx"):
        work = work_of(onnx.load(path))
        found[path.stem] = [{"model": path.stem, **row, "edge": work.edge} for row in rows(work)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(next(iter(found.values()))[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for name in sorted(found) for row in found[name])
    with GRAPHS.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.write(text.getvalue().encode())


def main(names: list[str], precisions: tuple[str, ...] = ("float", "w8a8")) -> None:
    """Compile what is missing."""
    for name in names or zoo.ZOO:
        have = done()
        todo = [p for p in precisions if any((name, p, soc) not in have for soc in COST_MODELS)]
        if not todo:
            continue
        try:
            for precision, build in builds(name, zoo.ZOO[name], todo):
                for soc in COST_MODELS:
                    if (name, precision, soc) in have:
                        continue
                    row = {"model": name, "precision": precision, "soc_model": soc} | estimate(build, soc)
                    new = not COSTS.exists()
                    with COSTS.open("a", newline="") as file:
                        writer = csv.DictWriter(file, COLUMNS)
                        if new:
                            writer.writeheader()
                        writer.writerow(row)
                    print(*row.values(), flush=True)
        except (QnbError, KeyboardInterrupt) as error:
            print(name, "failed:", error, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
    write_graphs()
