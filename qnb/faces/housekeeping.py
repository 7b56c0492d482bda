"""What the faces offer beside the steps, written like steps: opening and saving results, and a look into the cache.

Knows nothing of notebooks and terminals.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from qnb import cache as qnb_cache
from qnb.errors import BadInput
from qnb.values import Argument

if TYPE_CHECKING:
    import pandas as pd


def load(folder: Annotated[str | Path, Argument("saved")]) -> Any:
    """Open a saved result; no runtime is needed.

    Parameters
    ----------
    folder : path
        A folder that ``save`` or ``--out`` made.

    Returns
    -------
    Result
        The result as it was.

    Examples
    --------
    >>> quantized = qnb.load("results/quantized")
    """
    from qnb import results

    return results.load(folder)


def save(result: Annotated[Any, Argument("python", ("Result",))], folder: str, *, force: bool = False) -> Path:
    """Write a result to a folder that opens again on any machine.

    Parameters
    ----------
    result : result
        What a step answered with.
    folder : path
        Folder to make.
    force : bool
        Replace a result that was saved there before.

    Returns
    -------
    Path
        The folder.
    """
    from qnb.results import Result

    if not isinstance(result, Result):
        raise BadInput(f"a {type(result).__name__} is not a result of qnb", hint="give what a step answered with")
    return result.save(folder, overwrite=force)


def cache(*, clean: bool = False, older_than: float = qnb_cache.MAX_AGE_DAYS) -> CacheReport:
    """See what the cache holds, and clean it.

    Parameters
    ----------
    clean : bool
        Remove what was not used for a while, and the least recently used beyond the cache's size limit.
    older_than : float
        With ``--clean``: days without use after which an entry goes; 0 empties the cache.

    Returns
    -------
    CacheReport
        Table: a row for each kind of entry with number, size and age.
    """
    import pandas as pd

    removed = qnb_cache.clean(max_age_days=older_than) if clean else None
    kinds: dict[str, list[tuple[int, float]]] = {}
    now = time.time()
    for kind, _, size, used in qnb_cache.entries():
        kinds.setdefault(kind, []).append((size, max(0.0, now - used) / 86400))
    rows = []
    for kind, found in kinds.items():
        ages = [age for _, age in found]
        size_mb = sum(size for size, _ in found) / (1 << 20)
        rows.append((kind, len(found), round(size_mb, 2), round(max(ages), 1), round(min(ages), 1)))
    columns = ["kind", "entries", "size_mb", "oldest_days", "newest_days"]
    return CacheReport(pd.DataFrame(rows, columns=columns), str(qnb_cache.root()), removed)


VERBS: dict[str, Callable[..., Any]] = {"load": load, "save": save, "cache": cache}
"""The functions of this module by name; `qnb.faces.face.face` knows them beside the steps."""


@dataclass(frozen=True, repr=False)
class CacheReport:
    """What is in the cache, and what was just removed from it.

    Attributes
    ----------
    frame : pandas.DataFrame
        A row for each kind of entry: kind, entries, size_mb, oldest_days and newest_days (days since the last use).
    folder : str
        The cache's folder.
    removed : tuple of int or None
        Entries removed and bytes freed, if it was cleaned.
    """

    frame: pd.DataFrame
    folder: str
    removed: tuple[int, int] | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was removed."""
        if self.removed is None:
            return ()
        count, size = self.removed
        return (f"removed {count:,} entr{'y' if count == 1 else 'ies'}, freed {size / (1 << 20):,.1f} MiB",)

    def report(self) -> dict[str, Any]:
        """Give it as plain JSON values."""
        removed, freed = self.removed or (0, 0)
        rows = [{str(key): value for key, value in row.items()} for row in self.frame.to_dict("records")]
        return {"folder": self.folder, "rows": rows, "removed_entries": removed, "freed_bytes": freed}

    def __str__(self) -> str:
        from qnb.display import tables

        return tables.text(self.frame, title=f"cache: {self.folder}", notes=self.notes)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from qnb.display import tables

        return tables.html(self.frame, title=f"cache: {self.folder}", notes=self.notes)
