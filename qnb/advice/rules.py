"""What a rule is: an id that never changes, what it means, and a function that finds it; and what it finds.

Ids: QNB-G… graph and placement, QNB-P… performance, QNB-A… accuracy of quantized values; a rule that goes leaves a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from qnb.advice.subject import Subject

__all__ = ["REGISTRY", "SEVERITIES", "Finding", "Rule", "Severity", "rule"]

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a rule found.

    Attributes
    ----------
    op, op_type : str
        Where; empty for the whole model.
    what : str
        What is wrong, in a few words.
    evidence : str
        The figures that show it, with units.
    remedy : str
        What to do.
    line : str
        The ``%qnn`` line that does it, or that shows whether a change to the model did it.
    gain_percent : float
        What the remedy saves, in per cent of `gain_of`; NaN where it can't be computed.
    gain_of : str
        Of what, and how that is known.
    source : str
        Where the figures of the evidence come from.
    severity : str, optional
        Other than the rule's own.
    """

    what: str
    evidence: str
    remedy: str
    op: str = ""
    op_type: str = ""
    line: str = ""
    gain_percent: float = math.nan
    gain_of: str = ""
    source: str = "host"
    severity: Severity | None = None


Check = Callable[[Subject], Iterable[Finding]]


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes
    ----------
    id : str
        Its stable id.
    severity : str
        ``error``: it does not run on the NPU; ``warning``: it costs much; ``info``: worth knowing.
    title : str
        What it finds.
    why : str
        Why that is bad.
    threshold : str
        When it fires, and where the limit comes from.
    check : callable
        The function.
    """

    id: str
    severity: Severity
    title: str
    why: str
    threshold: str
    check: Check


REGISTRY: dict[str, Rule] = {}


def rule(id: str, severity: Severity, *, title: str, why: str, threshold: str) -> Callable[[Check], Check]:  # noqa: A002
    """Register a function as a rule."""

    def registered(check: Check) -> Check:
        assert id not in REGISTRY, id
        REGISTRY[id] = Rule(id, severity, title, why, threshold, check)
        return check

    return registered
