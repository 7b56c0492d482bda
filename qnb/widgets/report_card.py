"""The report card as a widget: the charts that `qnb.report` has of a result, one at a time; two results side by side."""

from __future__ import annotations

from pathlib import Path

from qnb.results import Result
from qnb.steps.report import as_result
from qnb.widgets.card import Card
from qnb.widgets.panel import Panel

__all__ = ["ReportCard"]


class ReportCard(Panel):
    """Look through the charts and tables of a result, or of two side by side.

    Parameters
    ----------
    result : Result or path
        What a step answered with, or the folder of a saved one.
    other : Result or path, optional
        A second one, for the right side. A chart that is chosen on one side is shown on the other, too, if it has it.

    Raises
    ------
    BadInput
        If it is no result.

    Examples
    --------
    >>> from qnb.widgets import ReportCard
    >>> card = ReportCard(checked)
    """

    def __init__(self, result: Result | str | Path, other: Result | str | Path | None = None) -> None:
        found = [as_result(value) for value in (result, other) if value is not None]
        cards = [Card(side, r.title, "", {}, action="") for side, r in zip(("left", "right"), found, strict=False)]
        super().__init__("Report card", cards, {}, columns=len(cards))
        for card, value in zip(cards, found, strict=True):
            self._done(card, value)

    def choose(self, card: str, chart: int) -> None:
        """Show another chart, by number; on the other side the one of the same caption."""
        super().choose(card, chart)
        caption = self._pictured[card].caption
        for side, pictured in self._pictured.items():
            captions = [c for c, _ in pictured.charts]
            if side != card and caption in captions:
                super().choose(side, captions.index(caption))
