"""Measure which architectures come through `qnb.export` and wholly onto the NPU: ``docs/coverage.csv`` and ``.md``.

``python tools/coverage/run.py [NAME …]`` goes through the architectures of `models.py` that the table has no row of yet,
each in a process of its own with a limit of time and memory; ``--jobs 2`` at once, ``--again`` replaces rows, ``--write``
only writes the page anew. Weights are random; rows stay after an interrupt.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import numpy as np
import psutil
import torch

import qnb
from qnb.errors import CompileError, PlacementError, QnbError
from qnb.graph.repairs import FORM

ROOT = Path(__file__).parents[2]
TABLE, PAGE = ROOT / "docs" / "coverage.csv", ROOT / "docs" / "coverage.md"
MARKS = ("<!-- table: written by tools/coverage/run.py -->", "<!-- end of the table -->")
AGREES = 1e-4
QUIET, LOUD = 0.05, 1e4
"""Standard deviation below which a layer's output is scaled up; values of outputs for which that was no good idea."""
WHY: dict[str, str] = {
    "Keras NASNetMobile": "Keras does not have it on its torch backend",
}
"""What was found out of a failure, where the message alone does not say it."""
NEAR_DB, SAME_DB = 30, 20
_SCORES = "scores of an untrained head are near 0; the NPU's Sigmoid is off by up to 8.5e-4"
_TINY = "values of the untrained network are 1e-5 and less, which 16 bits hardly hold"
FAR: dict[str, str] = {
    **dict.fromkeys(
        ("YOLOv5n", "YOLOv8n", "YOLOv8n-seg", "YOLOv8n-obb", "YOLOv10n", "YOLO11n", "YOLO11n-pose"), _SCORES
    ),
    "Keras EfficientNetB0": _TINY,
    "Keras MobileNetV2": _TINY,
    "Keras InceptionV3": "AveragePool of 3x3 on images of 1x1, as so small an input makes them, is wrong on the NPU",
}
"""What was found out of a low SQNR on the simulator."""
SOC = "SM8650"
COLUMNS = (
    "model", "family", "origin", "input", "exports", "ops", "ops_off_htp", "ops_off_htp_unrepaired", "repairs",
    "max_rel_error", "htp_db", "fp16_db", "compile_s", "estimate_ms", "low_ms", "high_ms", "why",
)  # fmt: skip
LIMIT_S, LIMIT_CPU_S, LIMIT_BYTES = 1200, 480, 8 << 30
LIMIT_MACS = 2e9
"""What has more is not run on the simulator, which would take minutes."""
BEARABLE_S = 4
"""What takes longer to compile is not estimated: that compiles twice more, and harder."""


# --- in a process of its own -----------------------------------------------------------------------------------------


def measure(name: str) -> dict[str, Any]:
    """Export, place, compile and estimate one architecture."""
    entry = models.ENTRIES[name]
    torch.manual_seed(0)
    row: dict[str, Any] = {"model": name, "family": entry.family, "origin": entry.origin, "exports": "no"}
    row["input"] = ", ".join("×".join(map(str, shape)) for shape, _ in entry.inputs.values())
    try:
        source, options, scale = prepared(entry)
        model = qnb.export(source, name=name, **options)
        assert isinstance(model, qnb.Model)
        row |= {"exports": "yes", "ops": len(model.frame)}
        row["input"] = row["input"] or "×".join(map(str, model.inputs[0].shape))
        row["max_rel_error"] = f"{float(model.check['max_abs_error'].max()) / scale:.1e}"
        assert model.repairs is not None
        done = {str(r.repair): int(r.places) for r in model.repairs.itertuples() if r.repair not in FORM}
        row["repairs"] = ", ".join(f"{repair} {places}" for repair, places in done.items())
        placement, context = placed(model)
        row |= placement
        if context is not None:
            row |= simulated(model, context)
        if done:
            row["ops_off_htp_unrepaired"] = unrepaired(source, options)
        if row["ops_off_htp"] == 0 and row["compile_s"] <= BEARABLE_S:
            guess = qnb.estimate(model, soc=SOC, published=False).frame.iloc[0]  # NaN where there would be none
            figures = {"estimate_ms": "latency_ms", "low_ms": "low_ms", "high_ms": "high_ms"}
            row |= {
                column: f"{float(guess[field]):.3g}"
                for column, field in figures.items()
                if guess[field] == guess[field]
            }
    except QnbError as error:
        row["why"] = f"{type(error).__name__}: {error.what}"
    except Exception as error:  # whatever the architecture's own code trips over
        row["why"] = f"{type(error).__name__}: {error}"
    row["why"] = " ".join(row.get("why", "").split())[:400]
    return row


def simulated(model: qnb.Model, context: qnb.Context) -> dict[str, str]:
    """Run one input on the simulator and on ONNX Runtime, both in fp16; SQNR in dB of the worst output.

    Nothing for what would take too long.
    """
    if model.frame["macs"].sum() > LIMIT_MACS:
        return {}
    rng = np.random.default_rng(0)
    feeds = {
        s.name: (rng.random(s.shape) if s.dtype.startswith("float") else rng.integers(1, 30, s.shape)).astype(s.dtype)
        for s in model.inputs
    }
    decibels = {}
    for column, build, backend in (("htp_db", context, "htp"), ("fp16_db", model, "gpu")):
        decibels[column] = f"{qnb.infer(build, feeds, backend=backend).frame['sqnr_db'].min():.0f}"
    return decibels


def prepared(entry: models.Entry) -> tuple[Any, dict[str, Any], float]:
    """Build an architecture; give it, how it is to be exported, and the largest value that it gives."""
    source = entry.build()
    if isinstance(source, Path):
        return source, {}, 1.0  # a file's outputs are probabilities
    source.eval()
    settle(source, entry)
    example = drawn(entry)
    scale = largest(source, example) or 1.0
    options: dict[str, Any] = {"example": tuple(example.values())}
    return source, options if entry.origin == "keras.applications" else options | {"input_names": list(example)}, scale


def drawn(entry: models.Entry, batch: int = 0) -> dict[str, torch.Tensor]:
    """Draw inputs, with another size of batch if one is given."""
    sized = {name: ((batch, *shape[1:]) if batch else shape, dtype) for name, (shape, dtype) in entry.inputs.items()}
    return {
        name: torch.rand(shape) if dtype == torch.float32 else torch.randint(1, 30, shape, dtype=dtype)
        for name, (shape, dtype) in sized.items()
    }


def settle(source: torch.nn.Module, entry: models.Entry) -> None:
    """Bring values into the range of trained networks; fresh weights leave many deep ones with values that fp16 has not.

    Batch norms get the statistics of four inputs; layers whose output has hardly any variance are scaled to a variance of 1
    (Mishkin and Matas, All you need is a good init, 2016).
    """

    def scaled(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        if not layer.weight.any():  # a head that begins at 0
            torch.nn.init.kaiming_normal_(layer.weight)
            output = layer.forward(*inputs)
        deviation = output.std()
        if deviation > QUIET or not deviation > 0:
            return output
        layer.weight.div_(deviation)
        return torch.Tensor(layer.forward(*inputs))

    before = copy.deepcopy(source.state_dict())
    norms = [m for m in source.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    layers = [m for m in source.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [layer.register_forward_hook(scaled) for layer in layers]
    try:
        with torch.no_grad():
            source(*drawn(entry, 4).values())
    except Exception:  # an architecture of one fixed batch, or with one value per channel
        source.load_state_dict(before)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        norm.eval()
    if largest(source, drawn(entry)) > LOUD:  # through an exponential
        source.load_state_dict(before)


def largest(source: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> float:
    """Give the largest value of the outputs."""
    with torch.no_grad():
        outputs = torch.utils._pytree.tree_leaves(source(*inputs.values()))
    return max(float(t.abs().max()) for t in outputs if isinstance(t, torch.Tensor))


def placed(model: Any) -> tuple[dict[str, Any], qnb.Context | None]:
    """Compile in fp16 with every op on the NPU; or say which ops are not."""
    try:
        context = qnb.context(model, soc=SOC)
        return {"ops_off_htp": 0, "compile_s": round(context.compile_ms / 1e3, 1)}, context
    except PlacementError:
        frame = qnb.convert(model, soc=SOC).frame
        off = frame[frame["htp"] != "yes"]
        reasons = {str(r.op_type): str(r.reason).removeprefix("htp: ").split("; ")[0] for r in off.itertuples()}
        return {"ops_off_htp": len(off), "why": "; ".join(f"{kind}: {why}" for kind, why in reasons.items())}, None


def unrepaired(source: Any, options: dict[str, Any]) -> int | str:
    """Say how many ops are off the NPU without repairs."""
    try:
        return int(placed(qnb.export(source, no_repair=["all"], **options))[0]["ops_off_htp"])
    except CompileError:
        return "does not compile"


# --- the parent ------------------------------------------------------------------------------------------------------


@dataclass
class Child:
    """One architecture in a forked process of its own: libraries are imported once, before."""

    name: str
    folder: Path
    pid: int
    started: float

    @classmethod
    def start(cls, name: str) -> Child:
        """Fork; the child writes its row and ends."""
        folder = Path(tempfile.mkdtemp(prefix="qnb-coverage-"))
        pid = os.fork()
        if pid:
            return cls(name, folder, pid, time.monotonic())
        status = 1
        try:
            log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ["QNB_CACHE_DIR"] = str(folder / "cache")
            row = measure(name)
            (folder / "row.json").write_text(json.dumps(row))
            status = 0
        finally:
            _end(psutil.Process().children(recursive=True))
            os._exit(status)

    def answer(self) -> dict[str, Any] | None:
        """Give the row when it is there, or why there is none; None while it works."""
        done, status = os.waitpid(self.pid, os.WNOHANG)
        row: dict[str, Any] = {"model": self.name, "exports": "no"}
        if not done:
            row["why"] = self._over()
            if not row["why"]:
                return None
        elif (self.folder / "row.json").exists():
            row = json.loads((self.folder / "row.json").read_text())
        else:
            row["why"] = f"the process ended with {status}: {(self.folder / 'log').read_text()[-300:]}"
        shutil.rmtree(self.folder, ignore_errors=True)
        return row

    def _over(self) -> str:
        """Say which limit it is over, having ended it; or nothing."""
        family = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        used = computed = 0.0
        for process in family:
            with contextlib.suppress(psutil.Error):
                used += process.memory_info().rss
                computed += sum(process.cpu_times()[:2])
        if computed > LIMIT_CPU_S or time.monotonic() - self.started > LIMIT_S:
            why = f"not done after {min(computed, LIMIT_CPU_S):.0f} s of computing"
        elif used > LIMIT_BYTES:
            why = f"takes more than {LIMIT_BYTES >> 30} GiB"
        else:
            return ""
        _end(family)
        os.waitpid(self.pid, 0)
        return why


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def rows() -> dict[str, dict[str, str]]:
    """What the table has."""
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="", encoding="utf-8") as file:
        return {row["model"]: dict.fromkeys(COLUMNS, "") | row for row in csv.DictReader(file)}


def save(row: dict[str, Any]) -> None:
    """Put a row into the table."""
    found = rows() | {row["model"]: {k: str(row.get(k, "")) for k in COLUMNS}}
    temporary = TABLE.with_suffix(".part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found.values())
    temporary.replace(TABLE)


def write_page() -> None:
    """Write the sums and the tables into the page, between its marks."""
    found = sorted(rows().values(), key=lambda row: (row["family"], row["model"].lower()))
    whole = [row for row in found if row["ops_off_htp"] == "0"]
    before = [row for row in whole if row["ops_off_htp_unrepaired"] in ("", "0")]
    close = [row for row in found if row["max_rel_error"] and float(row["max_rel_error"]) <= AGREES]
    lines = [
        f"{len(found)} architectures; {sum(row['exports'] == 'yes' for row in found)} export; **{len(whole)} "
        f"({100 * len(whole) / len(found):.1f} %) are wholly on the NPU in fp16**, {len(before)} would be without repairs; "
        f"{len(close)} agree with their source within {AGREES:g} of the largest output."
    ]
    if left := [entry for entry in models.ENTRIES if entry not in rows()]:
        lines += ["", f"Not measured yet, {len(left)} of {len(models.ENTRIES)}: {', '.join(left)}."]
    lines += ["", "## What does not come through", ""]
    lines += table(("architecture", "why"), [(name(row), why(row)) for row in found if row not in whole])
    ran = [row for row in found if row["htp_db"]]
    far = [row for row in ran if is_far(row)]
    lines += ["", "## What the NPU's arithmetic makes of it", ""]
    lines += [
        f"{len(ran)} of them ran on the simulator in fp16, on one input: {len(ran) - len(far)} are at {NEAR_DB} dB or more, "
        f"or within {SAME_DB} dB of fp16 on ONNX Runtime."
    ]
    reasons = [(name(r), noise(r), FAR.get(r["model"], "not known")) for r in far]
    reasons += [(name(r), "does not run", why(r)) for r in whole if r["why"]]
    if reasons:
        lines += ["", *table(("architecture", "fp16_db", "why"), reasons)]
    unlike = [row for row in found if row["max_rel_error"] and row not in close]
    if unlike:
        lines += [
            "",
            f"Errors above {AGREES:g}, all of fp32 rounding in networks that make much of small differences: ",
        ]
        lines[-1] += ", ".join(f"{name(row)} {error(row)}" for row in unlike) + "."
    lines += ["", "## What repairs do", ""]
    lines += table(
        ("architecture", "repairs: places", "ops off the NPU without them", "with them"),
        [(name(r), r["repairs"], r["ops_off_htp_unrepaired"], r["ops_off_htp"]) for r in found if r["repairs"]],
    )
    for family, members in itertools.groupby(found, key=lambda row: row["family"]):
        lines += ["", f"## {family[0].upper()}{family[1:]}", ""]
        lines += table(
            ("architecture", "input", "ops", "ops off the NPU", "error", "fp16_db", "compile_s", "estimate_ms"),
            [
                (name(r), r["input"], r["ops"], r["ops_off_htp"], error(r), noise(r), r["compile_s"], estimated(r))
                for r in members
            ],
        )
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    tail = rest.partition(MARKS[1])[2]
    written = "\n".join([head + MARKS[0], "", *lines, "", MARKS[1] + tail])
    PAGE.write_text(written, encoding="utf-8")


def table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Write a table of Markdown; a word where it has no rows."""
    if not cells:
        return ["None."]
    head, *body = (f"| {' | '.join(row)} |" for row in (header, *cells))
    return [head, "|---" * len(header) + "|", *body]


def name(row: dict[str, str]) -> str:
    """Give an architecture's name, and whose code it is."""
    return f"{row['model']} ({row['origin']})"


def error(row: dict[str, str]) -> str:
    """Give the error against the source, in a form that is not broken at its sign."""
    return row["max_rel_error"].replace("e-0", "e\N{NON-BREAKING HYPHEN}")


def noise(row: dict[str, str]) -> str:
    """Give the SQNR on the simulator, and that of ONNX Runtime in fp16."""
    return f"{row['htp_db']} ({row['fp16_db']})" if row["htp_db"] else ""


def is_far(row: dict[str, str]) -> bool:
    """Say whether the simulator is farther from fp32 than 16 bits explain."""
    simulator, host = float(row["htp_db"]), float(row["fp16_db"])
    return simulator < NEAR_DB and host - simulator > SAME_DB


def why(row: dict[str, str]) -> str:
    """Say why an architecture does not come through: what was found out, or else the message."""
    return WHY.get(row["model"], row["why"].replace("|", "/"))


def estimated(row: dict[str, str]) -> str:
    """Give the latency with its interval, if there is one."""
    return f"{row['estimate_ms']} ({row['low_ms']}–{row['high_ms']})" if row["estimate_ms"] else ""


def main() -> None:
    """Go through what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    if asked.write:
        write_page()
        return
    have = rows()
    todo = [n for n in asked.names or models.ENTRIES if asked.again or n not in have]
    running: list[Child] = []
    try:
        while todo or running:
            while todo and len(running) < asked.jobs:
                running.append(Child.start(todo.pop(0)))
            time.sleep(0.2)
            for child in running[:]:
                if (row := child.answer()) is not None:
                    running.remove(child)
                    save(row)
                    shown = {k: v for k, v in row.items() if k not in ("family", "origin") and v not in ("", None)}
                    print(f"{time.monotonic() - child.started:4.0f} s", shown, flush=True)
    finally:
        for child in running:
            _end([psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)])
    write_page()


if __name__ == "__main__":
    main()
