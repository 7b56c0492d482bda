"""View documents: what a notebook's output, a panel or a file viewer shows of a result, as plain JSON values.

The form is described in docs/formats.md. Knows tables and graphs, nothing of what they are about.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
MAX_ROWS = 10_000
MAX_NODES = 5_000
_MAX_EDGES = 4 * MAX_NODES
_MAX_TEXT = 20_000


@dataclass(frozen=True)
class Table:
    """A table; units are in its columns' names."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    count: int | None = None
    """How many rows there are, if these are not all."""
    help: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, title: str, frame: pd.DataFrame) -> Table:
        """Take over as many rows of a pandas table as are shown."""
        rows = frame.iloc[:MAX_ROWS].astype(object).itertuples(index=False, name=None)
        return cls(title, [str(c) for c in frame.columns], list(rows), len(frame))


@dataclass(frozen=True)
class Chart:
    """What is drawn of a table: columns by name.

    Attributes
    ----------
    table : str
        Title of the table.
    label, value : str
        Columns of the bars' names and lengths, or of the points' x and y.
    low, high : str
        Columns of an interval's ends, if there are such.
    group : str
        Column by which bars or points are told apart.
    source : str
        Column that says where a figure comes from.
    """

    title: str
    type: Literal["bars", "points"]
    table: str
    label: str
    value: str
    low: str = ""
    high: str = ""
    group: str = ""
    source: str = "source"


@dataclass
class Node:
    """An op of a graph; `values` are figures that it may be coloured by, with units in their names."""

    name: str
    type: str
    backend: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Ops, and which tensor goes from where to where."""

    title: str
    nodes: Sequence[Node]
    edges: Sequence[tuple[int, int, str, str | None]]
    colours: Sequence[str] = ()


NETWORK = ["op", "op_type", "takes", "gives", "types"]
"""Columns of a network: an op each; names of the tensors that it takes (constants left out) and gives, and of the latter
size and dtype as text."""


def network_graph(
    title: str,
    network: pd.DataFrame,
    about: Mapping[str, Node],
    *,
    colours: Sequence[str] = (),
    fused: Mapping[str, str] | None = None,
) -> Graph:
    """Make a graph of a network.

    Parameters
    ----------
    title : str
    network : pandas.DataFrame
        See `NETWORK`.
    about : mapping of str to Node
        What is known of ops, by name; those that are not in it are drawn plainly.
    colours : sequence of str
        Names of node values that the graph may be coloured by.
    fused : mapping of str to str, optional
        Ops that are drawn as one node with another: name of the op to that of the node in `about`.
    """
    fused = fused or {}
    ops = zip(*(network[column] for column in NETWORK), strict=True)
    return graph_of(title, ((fused.get(op, op), *rest) for op, *rest in ops), about, colours=colours)


def graph_of(
    title: str, ops: Iterable[Sequence[Any]], about: Mapping[str, Node] | None = None, *, colours: Sequence[str] = ()
) -> Graph:
    """Make a graph of ops, each ``(name, type, names it takes, names it gives, types of these)``; equal names are one node.

    The tensors that no op gives, and those that none takes, get a node of their own, as the inputs and outputs are.
    """
    about = about or {}
    nodes: list[Node] = []
    ids: dict[str, int] = {}
    makers: dict[str, int] = {}
    kinds: dict[str, str | None] = {}
    taken: list[tuple[str, int]] = []
    for name, op_type, takes, gives, types in ops:
        if name not in ids:
            ids[name] = len(nodes)
            nodes.append(about.get(name) or Node(name, op_type))
        taken += [(tensor, ids[name]) for tensor in takes]
        for tensor, kind in zip(gives, types, strict=True):
            makers[tensor], kinds[tensor] = ids[name], kind or None
    edges: dict[tuple[int, int, str], str | None] = {}
    for tensor, to in taken:
        if tensor not in makers:
            makers[tensor] = len(nodes)
            nodes.append(Node(tensor, "Input"))
        if makers[tensor] != to:
            edges[makers[tensor], to, tensor] = kinds.get(tensor)
    read = {tensor for tensor, _ in taken}
    for tensor in [tensor for tensor in makers if tensor not in read]:
        edges[makers[tensor], len(nodes), tensor] = kinds[tensor]
        nodes.append(Node(tensor, "Output"))
    return Graph(title, nodes, [(*ends, kind) for ends, kind in edges.items()], colours)


def document(
    kind: str,
    title: str,
    *,
    notes: Iterable[str] = (),
    recipe: Mapping[str, Any] | None = None,
    facts: Iterable[tuple[str, Any]] = (),
    tables: Iterable[Table] = (),
    charts: Iterable[Chart] = (),
    graph: Graph | None = None,
) -> dict[str, Any]:
    """Give a view document; what is too long to be shown is cut, and a note says so."""
    said = list(notes)
    tables = list(tables)
    made: dict[str, Any] = {"format": FORMAT, "kind": kind, "title": title, "notes": said, "recipe": recipe}
    if known := [[name, value] for name, value in facts]:
        made["facts"] = known
    made["tables"] = [_table(table, said) for table in tables]
    drawn = [found for chart in charts if (found := _chart(chart, tables)) is not None]
    if drawn:
        made["charts"] = drawn
    if graph is not None and graph.nodes:
        made["graph"] = _graph(graph, said)
    plain: dict[str, Any] = json_safe(made)
    return plain


def _table(table: Table, notes: list[str]) -> dict[str, Any]:
    count = len(table.rows) if table.count is None else table.count
    if count > MAX_ROWS:
        notes.append(f"{table.title}: the first {MAX_ROWS:,} of {count:,} rows")
    plain = {"title": table.title, "columns": list(table.columns), "rows": [list(r) for r in table.rows[:MAX_ROWS]]}
    return plain | ({"help": dict(table.help)} if table.help else {})


def _chart(chart: Chart, tables: Sequence[Table]) -> dict[str, Any] | None:
    """Point to the table by its place; None where there is nothing to draw in it."""
    place = next((i for i, table in enumerate(tables) if table.title == chart.table), None)
    if place is None:
        return None
    columns, rows = list(tables[place].columns), tables[place].rows
    if not {chart.label, chart.value} <= set(columns):
        return None
    index = columns.index(chart.value)
    if not any(_is_figure(row[index]) for row in rows):
        return None
    optional = {name: getattr(chart, name) for name in ("low", "high", "group", "source")}
    return {
        "title": chart.title, "type": chart.type, "table": place, "label": chart.label, "value": chart.value,
        **{name: column for name, column in optional.items() if column in columns},
    }  # fmt: skip


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(float(value))


def _graph(graph: Graph, notes: list[str]) -> dict[str, Any]:
    if len(graph.nodes) > MAX_NODES:
        notes.append(f"the graph shows the first {MAX_NODES:,} of {len(graph.nodes):,} ops")
    nodes = graph.nodes[:MAX_NODES]
    edges = [list(edge) for edge in graph.edges if edge[0] < len(nodes) and edge[1] < len(nodes)]
    if len(edges) > _MAX_EDGES:
        notes.append(f"the graph shows the first {_MAX_EDGES:,} of {len(edges):,} edges")
    return {
        "title": graph.title,
        "colours": [c for c in graph.colours if any(_is_figure(node.values.get(c)) for node in nodes)],
        "nodes": [_node(number, node) for number, node in enumerate(nodes)],
        "edges": edges[:_MAX_EDGES],
    }


def _node(number: int, node: Node) -> dict[str, Any]:
    plain = {"id": number, "name": node.name, "type": node.type, "backend": node.backend}
    scope = node.name.rpartition("/")[0].strip("/")  # exporters write the module's path in front
    return plain | ({"group": scope} if scope else {}) | {"values": node.values, "facts": node.facts}


def json_safe(value: Any) -> Any:
    """Plain JSON values; NaN and what is missing become null, infinities text, which JSON proper has no words for."""
    kind = type(value)
    if kind is str:
        return value if len(value) <= _MAX_TEXT else f"{value[:_MAX_TEXT]}…"
    if kind is float:
        return value if value - value == 0 else None if value != value else str(value)
    if kind is int or kind is bool or value is None:
        return value
    if kind is list or kind is tuple:
        return [json_safe(v) for v in value]
    if isinstance(value, float | str):  # numpy's, or a class of its own
        return json_safe(float(value) if isinstance(value, float) else str(value))
    if isinstance(value, Mapping):
        return {str(k): json_safe(v) for k, v in value.items()}
    if isinstance(value, np.generic):
        return json_safe(value.item())
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    return str(value)
