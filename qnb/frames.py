"""Tables as plain values, for messages and files. Knows nothing of what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def to_plain(frame: pd.DataFrame) -> list[list[Any]]:
    """Give a table as columns of ``[name, dtype, values]``; what is missing becomes None."""
    columns = []
    for name in frame.columns:
        column = frame[name]
        values = [None if gap else value for value, gap in zip(column.tolist(), column.isna(), strict=True)]
        columns.append([str(name), str(column.dtype), values])
    return columns


def from_plain(columns: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """Make a table of what `to_plain` gave.

    Raises
    ------
    ValueError, TypeError
        If it is not of that form.
    """
    import pandas as pd

    return pd.DataFrame({name: pd.Series(values, dtype=dtype) for name, dtype, values in columns})
