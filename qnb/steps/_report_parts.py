"""The sections of a report card: from the results of steps, their charts, tables and notes in the order of the workflow.

Knows the kinds of results by name, and takes those that it does not know as they are: any result has tables and charts.
Knows nothing of how the page is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qnb.artifacts import Build, Context, Contexts, Model, Quantized
from qnb.display import charts, graph_charts, perf_charts, soc_charts
from qnb.display.card import Chart, Section, Table, chart
from qnb.errors import QnbError
from qnb.results import Result
from qnb.steps._report_facts import GraphFacts, graph_facts, is_of, lineage

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = [
    "WANTED",
    "charts_of",
    "findings_of",
    "findings_section",
    "model_section",
    "precision_section",
    "provenance",
    "result_section",
]

WANTED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "placement": ("which ops each backend takes", ("conversion",), "qnb.convert(build)"),
    "time": ("latency, and time by op", ("profile",), "qnb.profile(build)"),
    "accuracy": ("where accuracy is lost", ("check", "inference"), "qnb.check(quantized, data)"),
    "comparison": ("backends side by side", ("comparison",), "qnb.compare(build, data=data)"),
    "compile": (
        "size and memory traffic by SoC",
        ("context", "contexts"),
        'qnb.context(build, soc=["SM8650", "SM8750"])',
    ),
    "socs": ("latency on other Snapdragons", ("estimate",), 'qnb.estimate(build, soc=["SM8650", "SM8750"])'),
}
"""What a whole card has: what it shows, the kinds of results that give it, and the line that makes one."""

_ORDER = (
    "selection", "conversion", "profile", "estimate", "debug", "check", "inference", "comparison", "sensitivity", "search",
    "context", "contexts", "doctor",
)  # fmt: skip
_TITLES = {
    "selection": "Choice of a backend",
    "conversion": "Placement",
    "profile": "Time",
    "estimate": "Latency by SoC",
    "debug": "Performance advice",
    "check": "Accuracy, layer by layer",
    "inference": "Accuracy of the outputs",
    "comparison": "Comparison",
    "sensitivity": "Sensitivity",
    "search": "Mixed precision",
    "context": "Compilation",
    "contexts": "Compilation",
    "doctor": "This machine",
}

_Draw = Callable[[], "Figure"]


class Drawer:
    """Draws charts, and remembers why one could not be drawn."""

    def __init__(self) -> None:
        self.charts: list[Chart] = []
        self.notes: list[str] = []

    def add(self, caption: str, draw: _Draw) -> None:
        """Draw one; what it has no figures for is a note, not an end."""
        try:
            self.charts.append(chart(draw(), caption))
        except QnbError as error:
            self.notes.append(f"no chart “{caption}”: {error.what.splitlines()[0]}")


class _Listing(Drawer):
    """Only remembers what could be drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, _Draw]] = []

    def add(self, caption: str, draw: _Draw) -> None:
        self.found.append((caption, draw))


def charts_of(result: Result) -> list[tuple[str, _Draw]]:
    """Give the charts that a card has of a result: caption, and the function that draws it.

    Raises
    ------
    QnbError
        If a build's graph can't be read; a function raises it, too, where the result has no figures for the chart.
    """
    listing = _Listing()
    if isinstance(result, Model | Quantized):
        facts = graph_facts(result)
        if isinstance(result, Model):
            _model_charts(listing, result, facts)
        _precision_charts(listing, result, facts)
    else:
        _result_charts(listing, result, (), None)
    return listing.found


def model_section(build: Build, facts: GraphFacts) -> Section:
    """What the model is: work, weights and memory op by op."""
    model = build.float_model
    drawer = Drawer()
    _model_charts(drawer, model, facts)
    tables = [
        Table("inputs and outputs", model.io()),
        Table("ops", model.frame),
        Table("memory over the graph", facts.memory),
        *([Table("agreement with the source", model.check)] if len(model.check) else []),
    ]
    return Section("Model", model.title, drawer.charts, tables, [*drawer.notes, facts.note, *model.notes])


def _model_charts(drawer: Drawer, model: Model, facts: GraphFacts) -> None:
    drawer.add("Multiply-accumulates and parameters by op, most first", lambda: charts.layers(model.frame))
    drawer.add("Activations alive while each op runs", lambda: graph_charts.memory_over_graph(facts.memory))
    moved = facts.memory.rename(columns={"written_bytes": "activation_bytes"})
    drawer.add("Bytes of weights and activations by op", lambda: graph_charts.weights_and_activations(moved))


def precision_section(build: Build, facts: GraphFacts) -> Section:
    """How many bits things have, and the encodings."""
    drawer = Drawer()
    _precision_charts(drawer, build, facts)
    tables = [Table("precision along the graph", facts.precision)]
    quantized = _quantized(build)
    lead = f"{build.name} in {build.precision}"
    notes: Sequence[str] = ()
    if quantized is not None:
        tables += [Table("encodings", quantized.frame)]
        tables += [Table("what was tried", quantized.trials)] if quantized.trials is not None else []
        lead, notes = quantized.title, quantized.notes
    return Section("Precision", lead, drawer.charts, tables, [*drawer.notes, *notes])


def _precision_charts(drawer: Drawer, build: Build, facts: GraphFacts) -> None:
    drawer.add(
        "Precision of weights and activations along the graph", lambda: graph_charts.precision_map(facts.precision)
    )
    if (quantized := _quantized(build)) is not None:
        drawer.add("Ranges of the activations", lambda: charts.encodings(quantized.frame))


def _quantized(build: Build) -> Quantized | None:
    return next((b for b in lineage(build) if isinstance(b, Quantized)), None)


def result_section(result: Result, build: Build, others: Sequence[Result], peaks: pd.DataFrame | None) -> Section:
    """Give the section of one result."""
    drawer = Drawer()
    _result_charts(drawer, result, others, peaks)
    first = _findings(result)
    tables = [
        Table(_short(title, result), frame, in_page=frame is not first)  # findings stand at the top of the page
        for title, frame in result.tables().items()
        if len(frame.columns)
    ]
    if result.kind == "profile" and len(result.runs):  # type: ignore[attr-defined]
        tables.append(Table("timed runs", result.runs, in_page=False))  # type: ignore[attr-defined]
    stranger = is_of(result, build)
    notes = [f"this was made of {stranger}, which is not the build of this card"] if stranger else []
    if result.kind == "profile" and len(result.ops):  # type: ignore[attr-defined]
        notes.append(_sum_of_ops(result))
    title = _TITLES.get(result.kind, result.kind.capitalize())
    return Section(
        f"{title} of {_called(stranger)}" if stranger else title, result.title, drawer.charts, tables,
        [*notes, *drawer.notes, *result.notes],
    )  # fmt: skip


def _sum_of_ops(result: Any) -> str:
    """Say what the ops' times add up to."""
    on_htp = result.frame[result.frame["backend"] == "htp"]["median_ms"]
    median = f", {on_htp.iloc[0]:.3g} ms" if len(on_htp) and on_htp.notna().iloc[0] else ""
    return (
        f"the times of the ops add up to a run with the op profiler on, {result.ops['time_ms'].sum():.3g} ms, not to the "
        f"median latency of the timed runs{median}"
    )


def _result_charts(drawer: Drawer, result: Result, others: Sequence[Result], peaks: pd.DataFrame | None) -> None:
    special = _CHARTS.get(result.kind)
    if special is not None:
        special(drawer, result, others, peaks)
        return
    for number, draw in enumerate(_figures(result), 1):
        drawer.add(f"{_TITLES.get(result.kind, result.kind.capitalize())}, chart {number}", draw)


def _short(title: str, result: Result) -> str:
    """The first table of a result has the result's own title, which is the section's lead already."""
    return (
        {"conversion": "placement", "profile": "backends", "check": "layers", "comparison": "builds and backends"}.get(
            result.kind, result.kind
        )
        if title == result.title
        else title
    )


def _figures(result: Result) -> list[_Draw]:
    """Give the charts of a result that has none of its own here; a saved one may lack what a chart needs."""
    try:
        drawn = result.figures()
    except QnbError as error:
        why = error

        def failed() -> Figure:
            raise why

        return [failed]
    return [lambda figure=figure: figure for figure in drawn]  # type: ignore[misc]


def _profile(drawer: Drawer, result: Any, _: Sequence[Result], peaks: pd.DataFrame | None) -> None:
    drawer.add("Latency of each timed run", lambda: charts.latency_distribution(result.runs))
    if not len(result.ops):
        return
    drawer.add("The slowest ops on the NPU", lambda: charts.op_times(result.ops))
    drawer.add("How few ops take how much of the time", lambda: perf_charts.op_time_cumulative(result.ops))
    drawer.add("Time by op type", lambda: perf_charts.time_by_op_type(result.ops))
    roofs = peaks if peaks is not None else result.roofs
    drawer.add("Achieved rate against arithmetic intensity", lambda: perf_charts.roofline(result.ops, roofs))


def _estimate(drawer: Drawer, result: Any, others: Sequence[Result], _: Any) -> None:
    measured = _measured(others)
    drawer.add("Latency by SoC: estimates with their interval, and measurements",
               lambda: soc_charts.latency_by_soc(result.frame, measured))  # fmt: skip


def _measured(results: Iterable[Result]) -> pd.DataFrame | None:
    """Give the NPU's latencies that profiles and comparisons measured on a device."""
    import pandas as pd

    frames = [r.frame for r in results if r.kind in ("profile", "comparison")]
    rows = [
        f[(f["backend"] == "htp") & (f["source"] == "device")][["soc", "precision", "source", "median_ms"]]
        for f in frames
    ]
    found = pd.concat(rows, ignore_index=True) if rows else None
    return found if found is not None and len(found) else None


def _comparison(drawer: Drawer, result: Any, _: Any, __: Any) -> None:
    drawer.add("Latency, agreement, accuracy and size", lambda: charts.comparison(result.frame))
    drawer.add("Accuracy against latency", lambda: soc_charts.accuracy_against_latency(result.frame))
    drawer.add("Latency of each timed run", lambda: charts.latency_distribution(result.runs))
    for draw in _figures(result)[1:]:
        drawer.add("What differs between the two builds, op by op", draw)


def _check(drawer: Drawer, result: Any, _: Any, __: Any) -> None:
    drawer.add("SQNR layer by layer" if len(result.frame) else "The tensors that lose most", result.plot)
    if len(result.frame):
        drawer.add("The tensors that lose most by themselves", result.plot_tensors)
    drawer.add(f"Values of {result.tensor} on their grid", result.histogram)
    if len(result.channels):
        drawer.add("Ranges of the channels that differ most", result.plot_channels)


def _search(drawer: Drawer, result: Any, _: Any, __: Any) -> None:
    drawer.add("Accuracy against cost of each mix that was measured", result.plot)
    drawer.add("The precision of each part in the chosen mix", result.plot_layers)


def _one(caption: str) -> Callable[[Drawer, Any, Any, Any], None]:
    return lambda drawer, result, _, __: drawer.add(caption, result.plot)


_CHARTS: Mapping[str, Callable[[Drawer, Any, Sequence[Result], Any], None]] = {
    "profile": _profile,
    "estimate": _estimate,
    "comparison": _comparison,
    "check": _check,
    "search": _search,
    "sensitivity": _one("The harm that each part does when it alone is quantized"),
    "selection": _one("What speaks for each backend, the best first"),
    "debug": _one("The slowest ops, and what was found of them"),
    "conversion": _one("Ops that each backend takes"),
    "inference": _one("Agreement of the outputs with fp32"),
    "context": _one("Contexts: size, compile time and memory traffic"),
    "contexts": _one("Contexts: size, compile time and memory traffic"),
    "doctor": _one("What this machine has"),
}


def ordered(results: Iterable[Result]) -> list[Result]:
    """Sort results in the order of the card; kinds that it does not know come last."""
    return sorted(results, key=lambda r: _ORDER.index(r.kind) if r.kind in _ORDER else len(_ORDER))


# --- findings and provenance --------------------------------------------------------------------------------------

_SEVERITIES = {"error": 0, "warning": 1, "info": 2}


def _findings(result: Result) -> pd.DataFrame | None:
    """Give a result's table of findings: one of its own, or its frame if that is one."""
    import pandas as pd

    found = getattr(result, "findings", result.frame)
    return found if isinstance(found, pd.DataFrame) and {"id", "severity"} <= set(map(str, found.columns)) else None


def _alike(found: pd.DataFrame, step: str) -> pd.DataFrame:
    """Give the findings of a step the columns that those of all steps have in the card."""
    import pandas as pd

    def words(*columns: str) -> pd.Series:
        """The first of these columns that says something, row by row."""
        chosen = pd.Series("", index=found.index, dtype=object)
        for column in columns:
            if column in found:
                chosen = chosen.where(chosen != "", found[column].fillna("").astype(str))
        return chosen

    gains = found["gain_percent"] if "gain_percent" in found else pd.Series(float("nan"), index=found.index)
    of = words("gain_of")
    gain = [f"{g:.3g} % of {what}".removesuffix(" of ") if g == g else "" for g, what in zip(gains, of, strict=True)]
    return pd.DataFrame(
        {
            "step": step, "id": words("id"), "severity": words("severity"), "where": words("op", "layer", "tensor"),
            "what": words("what", "problem"), "evidence": words("evidence"), "remedy": words("remedy"), "gain": gain,
            "line": words("line"), "source": words("source"),
        }
    )  # fmt: skip


def findings_of(results: Iterable[Result]) -> pd.DataFrame:
    """Put the findings of all results together, the most severe first."""
    import pandas as pd

    frames = []
    for result in results:
        found = _findings(result)
        if found is not None and len(found):
            frames.append(_alike(found, result.recipe.step))
    if not frames:
        return pd.DataFrame(columns=["step", "id", "severity"])
    whole = pd.concat(frames, ignore_index=True)
    rank = whole["severity"].map(_SEVERITIES).fillna(len(_SEVERITIES))
    return whole.loc[rank.sort_values(kind="stable").index].reset_index(drop=True)


def findings_section(results: Sequence[Result], build: Build) -> Section:
    """What the steps found, and what mends it; what they found of another build stands by itself."""
    ours = findings_of(r for r in results if not is_of(r, build))
    strangers = {id(r): name for r in results if (name := is_of(r, build))}
    tables = [Table("findings", ours, folded=False)] if len(ours) else []
    for name in dict.fromkeys(strangers.values()):
        theirs = findings_of(r for r in results if strangers.get(id(r)) == name)
        tables += [Table(f"findings of {_called(name)}", theirs, folded=True)] if len(theirs) else []
    if len(ours):
        counts = {str(s): int(n) for s, n in ours["severity"].value_counts().items()}
        lead = ", ".join(f"{counts[s]} {s}{'s'[: counts[s] != 1 and s != 'info']}" for s in _SEVERITIES if s in counts)
    else:
        looked = [r.recipe.step for r in results if r.kind in ("check", "debug") and id(r) not in strangers]
        lead = (
            f"{' and '.join(dict.fromkeys(looked))} found nothing" if looked else "no result that looks for any is here"
        )
    return Section("Findings", lead, tables=tables)


def _called(stranger: str) -> str:
    """Name of another build, of what `is_of` says: kind, name and the start of its digest."""
    return stranger.partition(" ")[2].rpartition(" ")[0]


def provenance(build: Build, results: Sequence[Result], own: Mapping[str, str]) -> Section:
    """What all this was made of, with which versions and when."""
    import pandas as pd

    made = [
        {"artifact": b.kind, "name": b.name, "precision": b.precision, "sha256": b.digest, "created": b.recipe.created}
        for b in lineage(build)
    ]
    contexts = [c for r in results for c in (r if isinstance(r, Contexts) else [r]) if isinstance(c, Context)]
    made += [
        {"artifact": f"context {c.soc.part}", "name": c.name, "precision": c.precision, "sha256": c.digest,
         "created": c.recipe.created}
        for c in contexts
        if c.digest != build.digest
    ]  # fmt: skip
    steps = [
        {"step": r.recipe.step, "result": r.title, "created": r.recipe.created, "time_s": round(r.recipe.seconds, 2),
         "arguments": "; ".join(f"{k} = {v}" for k, v in r.recipe.arguments.items())}
        for r in (*reversed(list(lineage(build))), *results)
    ]  # fmt: skip
    versions: dict[str, set[str]] = {}
    for recipe in (*(b.recipe for b in lineage(build)), *(r.recipe for r in results)):
        for name, version in recipe.versions.items():
            versions.setdefault(name, set()).add(version)
    for name, version in own.items():
        versions.setdefault(name, set()).add(version)
    mixed = [name for name, found in versions.items() if len(found) > 1]
    notes = [f"results of several versions of {', '.join(mixed)} are in this card"] if mixed else []
    rows = [{"package": name, "version": ", ".join(sorted(found))} for name, found in versions.items()]
    tables = [
        Table("artifacts", pd.DataFrame(made)),
        Table("steps", pd.DataFrame(steps), folded=False),
        Table("versions", pd.DataFrame(rows)),
    ]
    return Section("Provenance", "What this card was made of", tables=tables, notes=notes)
