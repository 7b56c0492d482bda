"""All rules at once: a subject in, rows out, the most severe first; and what the user does not want to hear of left out."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qnb.advice import convolutions, memory, movement, numbers, placement
from qnb.advice.rules import REGISTRY, SEVERITIES, Finding, Rule
from qnb.advice.subject import Subject
from qnb.errors import BadInput, UnknownName

__all__ = ["COLUMNS", "RULES", "Ignored", "advise", "ignored"]

COLUMNS = [
    "id", "severity", "op", "op_type", "what", "evidence", "remedy", "gain_percent", "gain_of", "line", "source",
]  # fmt: skip
_MODULES = (placement, movement, convolutions, memory, numbers)
RULES: dict[str, Rule] = dict(sorted(REGISTRY.items()))
"""All rules by id."""

_MOST_OF_A_KIND = 8


@dataclass(frozen=True)
class Ignored:
    """A suppression: a rule, and the ops that it means.

    Attributes
    ----------
    id : str
        The rule.
    ops : str
        A glob over the names of ops; ``*`` for all.
    """

    id: str
    ops: str = "*"

    def __str__(self) -> str:
        return self.id if self.ops == "*" else f"{self.id}:{self.ops}"

    def covers(self, id: str, op: str) -> bool:  # noqa: A002
        """Whether a finding is meant."""
        return id == self.id and fnmatch.fnmatchcase(op, self.ops)


def ignored(words: str | Iterable[str]) -> tuple[Ignored, ...]:
    """Read suppressions such as ``QNB-P003`` or ``QNB-P003:conv*``.

    Parameters
    ----------
    words : str or iterable of str
        One, several, or a text with commas; ``none`` and empty text stand for none.

    Raises
    ------
    UnknownName
        If there is no such rule; near ids are given.
    BadInput
        If it is not text.
    """
    texts = [words] if isinstance(words, str) else list(words)
    found = []
    for text in texts:
        if not isinstance(text, str):
            raise BadInput(f"ignore: {text!r} is not text", hint="write ids such as QNB-P003, or QNB-P003:conv*")
        for word in filter(None, (part.strip() for part in text.split(","))):
            if word == "none":
                continue
            name, _, ops = word.partition(":")
            if name.upper() not in RULES:
                raise UnknownName.among("rule", name, RULES)
            found.append(Ignored(name.upper(), ops.strip() or "*"))
    return tuple(dict.fromkeys(found))


def advise(subject: Subject, ignore: Sequence[Ignored] = ()) -> tuple[list[dict[str, Any]], int]:
    """Apply all rules.

    Parameters
    ----------
    subject : Subject
        What is known.
    ignore : sequence of Ignored
        What is left out.

    Returns
    -------
    rows : list of dict
        `COLUMNS`, the most severe first, then the largest gain. Of one rule at most eight, and then how many more.
    suppressed : int
        How many findings were left out.
    """
    rows, suppressed = [], 0
    for rule in RULES.values():
        found = list(rule.check(subject))
        kept = [f for f in found if not any(i.covers(rule.id, f.op) for i in ignore)]
        suppressed += len(found) - len(kept)
        rows += _capped(rule, kept)
    rows.sort(key=lambda row: (SEVERITIES.index(row["severity"]), row["id"]))
    return rows, suppressed


def _capped(rule: Rule, found: list[Finding]) -> list[dict[str, Any]]:
    """Put the largest gains first, and say of the rest only how many there are."""
    found = sorted(found, key=lambda f: (SEVERITIES.index(f.severity or rule.severity), -_or_zero(f.gain_percent)))
    rows = [_row(rule, f) for f in found[:_MOST_OF_A_KIND]]
    if more := found[_MOST_OF_A_KIND:]:
        names = ", ".join(f.op for f in more[:20]) + (" …" if len(more) > 20 else "")
        gains = [f.gain_percent for f in more if f.gain_percent == f.gain_percent and f.gain_of == more[0].gain_of]
        rest = _row(rule, more[0])
        adds_up = "model's" in more[0].gain_of or "graph's" in more[0].gain_of
        rows.append(
            rest
            | {
                "op": "",
                "what": f"the same of {len(more)} more",
                "evidence": names,
                "gain_percent": sum(gains) if gains and adds_up else float("nan"),
            }
        )
    return rows


def _or_zero(value: float) -> float:
    return value if value == value else 0.0


def _row(rule: Rule, finding: Finding) -> dict[str, Any]:
    known = finding.gain_percent == finding.gain_percent
    return {
        "id": rule.id,
        "severity": finding.severity or rule.severity,
        "op": finding.op,
        "op_type": finding.op_type,
        "what": finding.what,
        "evidence": finding.evidence,
        "remedy": finding.remedy,
        "gain_percent": float(finding.gain_percent),
        "gain_of": finding.gain_of if known else "",
        "line": finding.line,
        "source": finding.source,
    }
