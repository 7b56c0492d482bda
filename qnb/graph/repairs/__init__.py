"""Repairs: rewritings that make a graph acceptable to the NPU and change nothing of what it computes.

Each has a name, and can be left out. Driven by what the real compiler refuses; knows nothing of the compiler itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qnb.errors import ExportError, UnknownName
from qnb.graph.edit import opset_of
from qnb.graph.repairs import elementwise, fusing, indices, layers, rank, recurrent
from qnb.graph.repairs.rewriter import Rewriter

if TYPE_CHECKING:
    import onnx

__all__ = ["FORM", "REPAIRS", "Repair", "chosen", "repair", "row"]


@dataclass(frozen=True)
class Repair:
    """One rewriting.

    Attributes
    ----------
    name : str
        By which it is left out.
    summary : str
        What it does, in a sentence.
    apply : callable, optional
        Does it; None for what is done while the graph is brought into form.
    """

    name: str
    summary: str
    apply: Callable[[Rewriter], None] | None = None


def _by(name: str, apply: Callable[[Rewriter], None]) -> Repair:
    """Give a repair whose summary is what its function says of itself."""
    return Repair(name, (apply.__doc__ or "").partition("\n")[0].removesuffix("."), apply)


REPAIRS: tuple[Repair, ...] = (
    Repair("fixed-axes", "An open first dimension of an input is fixed at the batch size"),
    Repair("identity", "Constants shared through Identity are read directly, so that quantizers see constants"),
    _by("gelu", fusing.gelu),
    _by("layer-norm", fusing.layer_norm),
    _by("hard-swish", fusing.hard_swish),
    _by("erf", elementwise.erf),
    _by("activations", elementwise.activations),
    _by("reductions", elementwise.reductions),
    _by("variadic", elementwise.variadic),
    _by("mod", elementwise.mod),
    _by("einsum", layers.einsum),
    _by("dft", layers.dft),
    _by("pooling", layers.pooling),
    _by("conv-transpose", layers.conv_transpose),
    _by("pad", layers.pad),
    _by("trilu", layers.trilu),
    _by("reverse-sequence", layers.reverse_sequence),
    _by("split", layers.split),
    _by("batch-norm", layers.batch_norm),
    _by("recurrent", recurrent.unrolled),
    _by("gather-nd", indices.gather_nd),
    _by("negative-indices", indices.negative),
    _by("int32", indices.narrow),
    _by("rank", rank.merged),
)
"""In the order in which they are done."""

FORM = tuple(one.name for one in REPAIRS if one.apply is None)
"""Those without which there is no model to work with, unless the model is whole already."""

_OPSET = 18
"""The oldest whose ops the repairs write."""

_BY_NAME = {one.name: one for one in REPAIRS}


def chosen(without: Sequence[str]) -> list[str]:
    """Give the names of all repairs but those that are to be left out.

    Raises
    ------
    UnknownName
        If there is no repair of such a name.
    """
    names = [without] if isinstance(without, str) else list(without)
    for name in names:
        if name not in _BY_NAME and name != "all":
            raise UnknownName.among("repair", name, [*_BY_NAME, "all"])
    everything = "all" in names  # but what gives the graph its form
    return [name for name in _BY_NAME if name not in names and (not everything or name in FORM)]


def row(name: str, places: int) -> dict[str, Any]:
    """Give the row of a report for a repair that changed so many places."""
    return {"repair": name, "places": places, "what": _BY_NAME[name].summary}


def repair(
    model: onnx.ModelProto, names: Collection[str], infer: Callable[[onnx.ModelProto], None]
) -> list[dict[str, Any]]:
    """Do the repairs of these names, in place.

    Parameters
    ----------
    model : onnx.ModelProto
        With constants as initializers, in topological order and with shapes inferred; it computes the same afterwards.
    names : collection of str
        Repairs to do.
    infer : callable
        Infers shapes anew, in place.

    Returns
    -------
    list of dict
        A row for each repair that changed something: ``repair``, ``places``, ``what``.

    Raises
    ------
    ExportError
        If shapes do not fit together any more; says after which repair.
    """
    rows: list[dict[str, Any]] = []
    control_flow = any(a.HasField("g") or a.graphs for node in model.graph.node for a in node.attribute)
    if control_flow or opset_of(model) < _OPSET:  # refused anyway; too old to be lifted
        return rows
    for one in REPAIRS:
        if one.apply is None or one.name not in names:
            continue
        graph = Rewriter(model)
        one.apply(graph)
        if not (places := graph.finish()):
            continue
        try:
            infer(model)
        except ExportError as error:
            raise ExportError(
                f"after the repair {one.name}: {error.what}",
                hint=f"it should not have changed this graph: report it, and leave it out (no_repair=[{one.name!r}])",
            ) from error
        rows.append(row(one.name, places))
    return rows
