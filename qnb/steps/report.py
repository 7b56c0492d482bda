"""Step ``report``: everything that is known of a build as one HTML page and a set of CSV files."""

from __future__ import annotations

import csv
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from qnb.artifacts import Build, BuildArgument, Context, Contexts, Quantized
from qnb.defaults import settings
from qnb.display.card import Card, Section, Table, csv_text, named, page
from qnb.display.style import is_source, source_notes
from qnb.display.tiles import tiles
from qnb.errors import BadInput, QnbError
from qnb.files import building, storage_errors, write_bytes, write_text
from qnb.progress import Progress, progress
from qnb.provenance import versions
from qnb.results import Result, load
from qnb.socs import find
from qnb.steps import _report_parts as parts
from qnb.steps._common import StepTimer, as_build, read_config
from qnb.steps._report_facts import GraphFacts, graph_facts, headline, is_of
from qnb.steps.calibrate import DataArgument
from qnb.steps.context import ConfigArgument
from qnb.steps.infer import LabelsArgument
from qnb.values import Argument

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ResultArgument = Annotated[Result | str | Path, Argument("saved", ("Result",))]
"""A result of any step, or the folder of a saved one."""

_GENERATOR = "qnb report"
_INDEX = "index.csv"
_INDEX_HEAD = ("section", "table", "file", "rows")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Report(Result):
    """A report card.

    Attributes
    ----------
    frame : pandas.DataFrame
        A row for each section: what is in it, the sources of its figures, and what makes it where it is missing.
    headline : pandas.DataFrame
        The figures at the top of the page, each with its source.
    files : mapping of str to Path
        ``html``, and each file of the CSV set by its name.
    """

    kind: ClassVar[str] = "report"

    name: str
    headline: pd.DataFrame

    @property
    def title(self) -> str:
        """What it is of, and how much is in it."""
        made, charts = self.frame["state"] == "made", int(self.frame["charts"].sum())
        missing = f"; {int((~made).sum())} missing" if not made.all() else ""
        return f"{self.name}: report card with {int(made.sum())} sections, {charts} charts{missing}"

    def tables(self) -> dict[str, pd.DataFrame]:
        """Sections, and the headline."""
        return {self.title: self.frame, "headline": self.headline}

    def _facts(self) -> list[tuple[str, Any]]:
        def said(row: dict[Any, Any]) -> str:
            figure = f"{row['value']:,.0f}" if abs(row["value"]) >= 1000 else f"{row['value']:.4g}"
            return f"{figure} {row['unit']}" + (f" ({row['source']})" if row["source"] else "")

        return [(str(row["figure"]), said(row)) for row in self.headline.to_dict("records")]

    def plot(self) -> Figure:
        """The headline figures."""
        from qnb.display.tiles import headline as draw

        return draw(self.headline, title=self.name)


def report(
    build: BuildArgument,
    *results: ResultArgument,
    file: str | Path = "report.html",
    tables: bool = True,
    title: str | None = None,
    soc: str | int | None = None,
    place: bool = True,
    run: bool = False,
    data: DataArgument = None,
    labels: LabelsArgument = None,
    peaks: ConfigArgument = None,
    runtime: str | None = None,
) -> Report:
    """Write all that is known of a build as one HTML page with charts, and as CSV files.

    The page needs nothing beside it: no network, no other file. What the build itself tells is always in it: work, weights,
    memory over the graph, precision. Of the rest there is what results are given; what is missing is listed with the line
    that makes it.

    Parameters
    ----------
    build : Model, Quantized, Context or path
        What the card is of.
    *results : Profile, Check, Comparison, Search, … or path
        Results of steps that were made already.
    file : path
        The page. An earlier card there is replaced, another file is not.
    tables : bool
        Whether to write each table whole as CSV, into a folder beside the page: ``report.html`` has ``report-csv``.
    title : str, optional
        Heading of the page; by default the build's name and precision.
    soc : str or int, optional
        SoC that the card is for: part, name or QNN id.
    place : bool
        Whether to ask the backends which ops they take, if no `Conversion` is given.
    run : bool
        Whether to run what is missing: profile; with `data` also check and compare.
    data : array, dict, iterable, DataLoader, folder or file, optional
        Samples for what is run, as for `check`.
    labels : array, optional
        True class of each sample, for what is run.
    peaks : mapping or path, optional
        Ceilings of the roofline by name, each with ``source`` and any of ``macs_per_cycle``, ``bytes_per_cycle``,
        ``gmacs_per_s``, ``gb_per_s``. Without, the highest rates that the profile saw.
    runtime : str, optional
        Version of the runtime, for what is run.

    Returns
    -------
    Report
        Table: a row for each section of the page. Files: ``html``, and the CSV set.

    Raises
    ------
    BadInput
        If something is no result, or the file is something else than an earlier card.
    StorageError
        If it can't be written; what was there before is untouched.

    Examples
    --------
    >>> card = qnb.report(quantized, timing, checked, file="card.html")
    >>> card.files["html"]
    """
    timer = StepTimer("report")
    page_path = Path(file).expanduser().absolute()
    csv_path = page_path.with_name(f"{page_path.stem}-csv") if tables else None
    _refuse_foreign(page_path, csv_path)
    found, held = _given(build, results)
    if data is not None and not run:
        raise BadInput("data is given, but nothing is run", hint="say run=True to profile, check and compare with it")
    ceilings = _peaks(peaks)
    target = find(soc if soc is not None else _own_soc(found))
    with progress("report", 5 + len(held)) as bar:
        missing = _make_missing(
            found, held, bar, place=place, run=run, data=data, labels=labels, soc=soc, runtime=runtime
        )
        bar.step("graph")
        facts, why = _facts(found)
        sections = _sections(found, held, facts, why, ceilings, bar)
        ours = [r for r in held if not is_of(r, found)]
        top = headline(found, facts, ours, target.part)
        sections.append(_missing_section(held, missing))
        sections.append(parts.provenance(found, held, versions()))
        bar.step("writing")
        sections = named(sections)
        text = page(
            Card(
                title or f"{found.name} {found.precision}",
                f"Report card for {target}, Hexagon {target.arch}; written {_now()}",
                tiles(top), sections, f"{_GENERATOR} {versions()['qnb']}", source_notes(top["source"]),
            )
        )  # fmt: skip
        files = _write(page_path, text, csv_path, sections)
    return Report(
        frame=_frame(sections, held, missing),
        recipe=timer.recipe(
            build=found,
            results=[f"{r.kind}: {r.title}" for r in held],
            file=str(file),
            tables=tables,
            title=title,
            soc=target.part,
            place=place,
            run=run,
        ),
        notes=(f"written to {page_path} ({len(text) / 1e6:.1f} MB)", *([f"tables in {csv_path}"] if csv_path else [])),
        files=files,
        name=f"{found.name} {found.precision}",
        headline=top,
    )


def _now() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"


# --- what goes in -------------------------------------------------------------------------------------------------


def _given(build: object, results: Sequence[object]) -> tuple[Build, list[Result]]:
    """Find the build and the results that are meant; a build's own figures are results too."""
    held = [as_result(r) for r in results]
    if isinstance(build, str | Path) and (Path(build).expanduser() / "result.json").is_file():
        build = load(build)
    if isinstance(build, Contexts):
        held.insert(0, build)
        build = build.contexts[0].parent
    found = as_build(build)
    if isinstance(found, Context):
        held.insert(0, found)
    known = [r for r in held if r.kind not in ("model", "quantized", "report")]
    return found, parts.ordered(dict.fromkeys(known))


def as_result(value: object) -> Result:
    """Take a result, or the folder of a saved one.

    Raises
    ------
    BadInput
        If it is neither.
    """
    if isinstance(value, str | Path):
        return load(value)
    if isinstance(value, Result):
        return value
    raise BadInput(
        f"a {type(value).__module__}.{type(value).__qualname__} is not a result of a step",
        hint="give what a step answered with, such as qnb.profile(build), or the folder of a saved one",
    )


def _own_soc(build: Build) -> str:
    return build.soc.part if isinstance(build, Context) else settings.soc


def _peaks(peaks: Any) -> pd.DataFrame | None:
    """Read the ceilings of the roofline as a table.

    Raises
    ------
    BadInput
        If one is not figures by their unit.
    """
    import pandas as pd

    given = read_config(peaks, "peaks")
    if not given:
        return None
    units = {"macs_per_cycle", "bytes_per_cycle", "gmacs_per_s", "gb_per_s"}
    rows = []
    for name, entry in given.items():
        if not isinstance(entry, Mapping) or not units & set(entry) or set(entry) - units - {"source"}:
            raise BadInput(
                f"peaks: {name!r} has to have {', '.join(sorted(units))}, one of them at least, and source",
                hint='such as peaks={"HMX int8": {"macs_per_cycle": 16384, "source": "published"}}',
            )
        rows.append({"name": name, "source": "", **entry})
    return pd.DataFrame(rows)


def _make_missing(
    build: Build, held: list[Result], bar: Progress, *, place: bool, run: bool, data: Any, labels: Any, soc: Any,
    runtime: str | None,
) -> dict[str, str]:  # fmt: skip
    """Make what is missing and was asked for; add it to `held`; say of the rest why it was not made."""
    from qnb.steps.check import check
    from qnb.steps.compare import compare
    from qnb.steps.convert import convert
    from qnb.steps.profile import profile

    plain = build.parent if isinstance(build, Context) else build
    wanted: dict[str, tuple[bool, Callable[[], Result]]] = {
        "placement": (place, lambda: convert(plain, soc=soc or _own_soc(build), runtime=runtime)),
        "time": (run, lambda: profile(build, data, soc=soc, runtime=runtime)),
        "accuracy": (
            run and data is not None and isinstance(plain, Quantized),
            lambda: check(build, data, labels=labels, soc=soc, runtime=runtime),
        ),
        "comparison": (
            run and data is not None, lambda: compare(build, data=data, labels=labels, soc=soc, runtime=runtime)
        ),
    }  # fmt: skip
    failed: dict[str, str] = {}
    for name, (asked, make) in wanted.items():
        bar.step(name)
        if not asked or any(r.kind in parts.WANTED[name][1] for r in held):
            continue
        try:
            held.append(make())
        except QnbError as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            failed[name] = error.what.splitlines()[0]
    held[:] = parts.ordered(held)
    return failed


def _facts(build: Build) -> tuple[GraphFacts | None, str]:
    try:
        return graph_facts(build), ""
    except QnbError as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return None, error.what.splitlines()[0]


# --- what comes out -----------------------------------------------------------------------------------------------


def _sections(
    build: Build, held: Sequence[Result], facts: GraphFacts | None, why: str, peaks: pd.DataFrame | None, bar: Progress
) -> list[Section]:
    sections = [parts.findings_section(held, build)]
    if facts is not None:
        sections += [parts.model_section(build, facts), parts.precision_section(build, facts)]
    else:
        sections.append(Section("Model", build.float_model.title, notes=[f"its graph could not be read: {why}"]))
    for result in held:
        bar.step(result.kind)
        sections.append(parts.result_section(result, build, held, peaks))
    return sections


def _missing(held: Sequence[Result], failed: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Give what is not in the card, why, and the line that makes it."""
    there = {r.kind for r in held}
    for name, (what, kinds, line) in parts.WANTED.items():
        if not there & set(kinds):
            yield what, failed.get(name, "no such result was given"), line


def _missing_section(held: Sequence[Result], failed: Mapping[str, str]) -> Section:
    import pandas as pd

    rows = list(_missing(held, failed))
    if not rows:
        return Section("Not in this card", "Nothing is missing")
    table = pd.DataFrame(rows, columns=["missing", "why", "made by"])
    lead = "Make these, and give them to qnb.report as well"
    return Section("Not in this card", lead, tables=[Table("missing", table, folded=False)])


def _frame(sections: Sequence[Section], held: Sequence[Result], failed: Mapping[str, str]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {
            "section": section.title,
            "state": "made",
            "charts": len(section.charts),
            "tables": len(section.tables),
            "rows": sum(len(table.frame) for table in section.tables),
            "sources": ", ".join(_sources(section.tables)),
            "remark": section.lead,
        }
        for section in sections
    ]
    rows += [
        {"section": what, "state": "missing", "charts": 0, "tables": 0, "rows": 0, "sources": "",
         "remark": f"{why}: {line}"}
        for what, why, line in _missing(held, failed)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _sources(tables: Sequence[Table]) -> list[str]:
    found = [str(s) for t in tables for c in t.frame.columns if is_source(c) for s in t.frame[c].dropna().unique() if s]
    return list(dict.fromkeys(found))


def _refuse_foreign(page_path: Path, folder: Path | None) -> None:
    """Never replace what is no card of ours.

    Raises
    ------
    BadInput
        If something else is there.
    """
    with storage_errors(page_path):
        if page_path.exists() and not _is_card(page_path):
            raise BadInput(f"{page_path} exists and is no report card", hint='choose another name: file="card.html"')
        if folder is not None and folder.exists() and not _is_csv_set(folder):
            raise BadInput(
                f"{folder} exists and is no CSV set of a report card", hint="choose another file, or say tables=False"
            )


def _is_card(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return f'<meta name="generator" content="{_GENERATOR} '.encode() in file.read(2048)


def _is_csv_set(folder: Path) -> bool:
    """Whether a folder is empty, or has an index of ours and nothing that the index does not name."""
    if not folder.is_dir():
        return False
    names = {p.name for p in folder.iterdir()}
    if not names:
        return True
    try:
        with (folder / _INDEX).open(encoding="utf-8", newline="") as file:
            head, *rows = list(csv.reader(file))
    except (OSError, ValueError, csv.Error):
        return False
    return tuple(head) == _INDEX_HEAD and names <= {_INDEX, *(row[2] for row in rows if len(row) > 2)}


def _write(page_path: Path, text: str, folder: Path | None, sections: Sequence[Section]) -> dict[str, Path]:
    files = {"html": page_path}
    if folder is not None:
        import pandas as pd

        with building(folder) as temporary:
            rows = []
            for section in sections:
                for table in section.tables:
                    write_bytes(temporary / table.csv, csv_text(table.frame).encode())
                    rows.append((section.title, table.title, table.csv, len(table.frame)))
                    files[table.csv] = folder / table.csv
            write_bytes(temporary / _INDEX, csv_text(pd.DataFrame(rows, columns=list(_INDEX_HEAD))).encode())
            files[_INDEX] = folder / _INDEX
    write_text(page_path, text)
    return files
