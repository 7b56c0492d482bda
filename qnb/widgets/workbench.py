"""The workbench: the whole workflow as one panel, from a model to its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qnb import socs
from qnb.artifacts import Context, Contexts, Model, Quantized
from qnb.defaults import settings
from qnb.widgets.card import Card, Namespace, held_as
from qnb.widgets.panel import Panel

__all__ = ["Workbench", "soc_options"]

_FOLLOW = {
    "calibrate": {"model": "export"},
    "estimate": {"build": "calibrate"},
    "context": {"build": "calibrate"},
    "infer": {"build": "calibrate"},
    "profile": {"build": "calibrate"},
    "report": {"build": "calibrate"},
}
"""Which field takes the result of which card, unless something else is chosen."""


def soc_options(chosen: Sequence[str]) -> list[tuple[str, str]]:
    """Give the SoCs to choose from: those that are chosen first, then the newest."""
    ordered = sorted((soc for soc in socs.table() if soc.usable), key=lambda soc: soc.part not in chosen)
    return [(soc.part, " · ".join(filter(None, (soc.part, soc.name, soc.arch)))) for soc in ordered]


class Workbench(Panel):
    """Take a model from its source to a report: export, calibrate, choose SoCs, compile, run, report.

    Every step shows the ``%qnn`` line that does the same; its result is in the variable that the line names. Work runs in
    a thread, so that other cells run meanwhile, and can be stopped.

    Parameters
    ----------
    model : torch module, path, Model or Quantized, optional
        What to begin with.
    data : array, dict, DataLoader, folder or file, optional
        Samples to calibrate with and to run.
    labels : array, optional
        True class of each sample.
    socs : sequence of str, optional
        Parts or names; by default that of ``settings.soc``.
    namespace : mapping, optional
        Where variables are; by default the notebook's.

    Examples
    --------
    >>> from qnb.widgets import Workbench
    >>> bench = Workbench(model, images)
    """

    def __init__(
        self,
        model: Any = None,
        data: Any = None,
        *,
        labels: Any = None,
        socs: Sequence[str] | None = None,
        namespace: Namespace | None = None,
    ) -> None:
        super().__init__("Workbench", _cards(socs), namespace)
        cards = self._cards
        if data is not None:
            word = held_as(data, "data", self.namespace)
            for name in ("calibrate", "infer", "profile"):
                cards[name].fields["data"].value = word
        if labels is not None:
            cards["infer"].fields["labels"].value = held_as(labels, "labels", self.namespace)
        if isinstance(model, Quantized):
            self._given("calibrate", model)
            self._given("export", model.parent)
        elif isinstance(model, Model):
            self._given("export", model)
        elif model is not None:
            cards["export"].fields["source"].value = held_as(model, "net", self.namespace)
        self._refresh()

    def _given(self, name: str, value: Model | Quantized) -> None:
        card = self._cards[name]
        before, card.target = card.target, held_as(value, card.target, self.namespace)
        self._renamed(card, before)
        self._done(card, value)

    def set(self, card: str, **chosen: object) -> None:
        """Choose fields of a card; SoCs that are chosen are compiled for, and the first of them is run on.

        Parameters
        ----------
        card : str
            Its step, such as ``calibrate``.
        **chosen : str, bool or list of str
            By parameter, as one would write it on the line; ``target`` is the variable that the result gets.

        Raises
        ------
        UnknownName
            If there is no such card or field.
        BadInput
            If it is no such value.
        """
        super().set(card, **chosen)
        if card == "estimate" and "soc" in chosen:
            self._take_socs()
            self._refresh()

    def _take_socs(self) -> None:
        chosen = self._cards["estimate"].fields["soc"].value
        assert isinstance(chosen, list)
        for name in ("context", "infer", "profile", "report"):
            self._cards[name].fields["soc"].value = (
                ",".join(chosen) if name == "context" else chosen[0] if chosen else ""
            )

    def _finished(self, card: Card) -> None:
        report = self._cards["report"].fields["results"]
        if "results" not in self._cards["report"].edited and card.id != "report":
            shown = [c for c in self._cards.values() if c.id not in ("export", "calibrate", "report")]
            report.value = " ".join(c.target for c in shown if c.result is not None)
        if isinstance(card.result, Context | Contexts) and "build" not in self._cards["infer"].edited:
            one = len(card.result) == 1 if isinstance(card.result, Contexts) else True
            self._cards["infer"].fields["build"].value = card.target if one else self._cards["calibrate"].target


def _cards(chosen: Sequence[str] | None) -> list[Card]:
    parts = [socs.find(soc).part for soc in (chosen or [settings.soc])]
    cards = [
        Card.of("export", "Model", "model", ("source", "shapes", "input_names", "output_names")),
        Card.of(
            "calibrate", "Calibrate", "quantized",
            ("model", "data", "precision", "effort", "ranges", "overrides", "samples"),
        ),
        Card.of("estimate", "SoCs", "estimated", ("build", "soc"), action="Estimate"),
        Card.of("context", "Compile", "compiled", ("build", "soc", "optimization", "vtcm_mb"), action="Compile"),
        Card.of("infer", "Run: outputs", "inferred", ("build", "data", "backend", "labels", "samples", "soc")),
        Card.of("profile", "Run: time", "timing", ("build", "data", "backends", "runs", "soc")),
        Card.of("report", "Report", "card", ("build", "results", "file", "soc")),
    ]  # fmt: skip
    by_name = {card.id: card for card in cards}
    for name, fields in _FOLLOW.items():
        for field, source in fields.items():
            by_name[name].fields[field].value = by_name[source].target
    soc = by_name["estimate"].fields["soc"]
    soc.value, soc.options = parts, soc_options(parts)
    by_name["context"].fields["soc"].value = ",".join(parts)
    for name in ("infer", "profile", "report"):
        by_name[name].fields["soc"].value = parts[0]
    return cards
