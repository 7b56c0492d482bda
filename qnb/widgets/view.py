"""A result as plain values for the view: tables as text, charts by caption. Knows nothing of widgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb.display.style import clean, number, source_label, source_notes
from qnb.errors import QnbError
from qnb.results import Result
from qnb.steps._report_parts import charts_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["ROWS", "charts", "table", "tables"]

ROWS = 200
"""A view has at most so many rows of a table."""


def tables(result: Any) -> list[dict[str, Any]]:
    """Give the tables of a result, or of a list of them."""
    if not isinstance(result, Result):
        return []
    return [table(clean(title), frame) for title, frame in result.tables().items() if len(frame.columns)]


def table(title: str, frame: pd.DataFrame) -> dict[str, Any]:
    """Give a table as text, numbers as `qnb.display` writes them."""
    shown = frame.iloc[:ROWS]
    numeric = [shown.dtypes.iloc[k].kind in "iuf" for k in range(shown.shape[1])]
    rows = [
        [_text(value, str(name)) for name, value in zip(shown.columns, row, strict=True)]
        for row in shown.astype(object).itertuples(index=False, name=None)
    ]
    notes = source_notes(frame["source"]) if "source" in frame.columns else []
    if len(frame) > ROWS:
        notes = [f"the first {ROWS} of {len(frame):,} rows", *notes]
    return {
        "title": title,
        "columns": [{"name": clean(c), "numeric": bool(n)} for c, n in zip(frame.columns, numeric, strict=True)],
        "rows": rows,
        "notes": notes,
    }


def _text(value: Any, column: str) -> str:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, bool | np.bool_ | int | float | np.number):
        return number(value.item() if isinstance(value, np.generic) else value)
    try:
        missing = bool(np.isnan(value))
    except (TypeError, ValueError):
        missing = str(value) == "<NA>"
    return "" if missing else source_label(value) if column == "source" else clean(value)


def charts(result: Any) -> list[tuple[str, Callable[[], Figure]]]:
    """Give the charts that a report card has of a result; the result's own where its graph can't be read."""
    if not isinstance(result, Result):
        return []
    try:
        return charts_of(result)
    except QnbError:
        return [(result.title, result.plot)]
