"""What the QNN runtime prints, read into plain values; the profiles that it writes are read in `qnb.runtime.profiles`.

Seen with QAIRT 2.47 (onnxruntime-qnn 2.3.0) on Linux; where a newer runtime prints nothing, the values are missing and
never made up. Knows nothing of who runs it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_NOISE = re.compile(r"^LIBNATIVE: No alternate configuration.*\n?", re.MULTILINE)
_STARTING = re.compile(r"^Starting stage: (.+)$", re.MULTILINE)
_COMPLETED = re.compile(r"^Completed stage: (.+) \((\d+) us\)$", re.MULTILINE)
_TOKEN = re.compile(r"_token_\d+$")
_DDR = re.compile(r"^(spill_bytes|fill_bytes|write_total_bytes|read_total_bytes)=(\d+)$", re.MULTILINE)
_ERROR = re.compile(r"\[E:onnxruntime:[^\]]*\]\s*(.*)")
_SUPPORT = re.compile(
    r"Validation (PASSED|FAILED) for \d+ nodes in OrtNodeUnit \(.*?\) :\n(.*?)(?=^\S*\s*\d{4}-\d\d-\d\d |\Z)",
    re.MULTILINE | re.DOTALL,
)
_UNIT_NODE = re.compile(r"Operator type: (\S+) Node name: (.*?) Node index:")


def original_name(node: str) -> str:
    """Name of a node in the model, from the name that ONNX Runtime's layout transformation gave it."""
    return _TOKEN.sub("", node)


def clean(text: str) -> str:
    """Take colours, carriage returns and known noise out of native output."""
    return _NOISE.sub("", _ANSI.sub("", text.replace("\r\n", "\n")))


def stages(log: str) -> dict[str, float]:
    """Compile stages and their milliseconds, summed over graphs, in the order of the log."""
    total: dict[str, float] = {}
    for name, microseconds in _COMPLETED.findall(log):
        total[name] = total.get(name, 0.0) + int(microseconds) / 1000
    return total


def current_stage(log: str) -> str:
    """Name of the compile stage that the log ends in, or ``""``."""
    started = _STARTING.findall(log)
    return started[-1] if len(started) > len(_COMPLETED.findall(log)) else ""


def ddr_traffic(log: str) -> dict[str, int]:
    """Bytes of DDR traffic per inference that the compiler reports: keys ``spill fill write read``; summed over graphs."""
    total: dict[str, int] = {}
    for name, value in _DDR.findall(log):
        key = name.removesuffix("_bytes").removesuffix("_total")
        total[key] = total.get(key, 0) + int(value)
    return total


def errors(log: str) -> list[str]:
    """Messages that ONNX Runtime logged as errors, without their prefix and repetition."""
    found = [re.sub(r"^\S+\.cc:\d+ \S+\s*", "", m).strip() for m in _ERROR.findall(log)]
    return list(dict.fromkeys(m for m in found if m))


@dataclass(frozen=True)
class Refusal:
    """Why the execution provider did not take a unit of nodes (an op, with the Q/DQ nodes around it)."""

    nodes: tuple[str, ...]
    reason: str


def refusals(log: str) -> list[Refusal]:
    """Reasons, from a verbose log, for nodes that the QNN execution provider did not take."""
    found = []
    for verdict, text in _SUPPORT.findall(log):
        if verdict == "FAILED":
            _, _, reason = text.partition("REASON :")
            reason = " ".join(reason.replace("QNN EP.", "QNN EP. ").split())  # as it runs on into the next sentence
            found.append(Refusal(tuple(name for _, name in _UNIT_NODE.findall(text)), reason))
    return list(dict.fromkeys(found))
