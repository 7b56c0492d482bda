"""The dashboard of backends: htp, gpu and cpu side by side, and Snapdragons that are not at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qnb import socs as soc_table
from qnb.artifacts import Quantized
from qnb.defaults import settings
from qnb.display.style import number, source_label
from qnb.steps._findings import entries
from qnb.values import BACKENDS
from qnb.widgets.card import Card, Namespace, held_as
from qnb.widgets.panel import Panel
from qnb.widgets.workbench import soc_options

__all__ = ["BackendDashboard"]


class BackendDashboard(Panel):
    """See latency, accuracy and placement of the three backends, and estimates for other SoCs; each with its source.

    Parameters
    ----------
    model : Model or path, optional
        A float model: fp16 on htp and gpu, fp32 on cpu.
    quantized : Quantized, optional
        The same model in integers.
    data : array, dict, DataLoader, folder or file, optional
        Samples to run; without, accuracy is not measured.
    labels : array, optional
        True class of each sample.
    socs : sequence of str, optional
        Parts or names to estimate for; by default that of ``settings.soc``.
    namespace : mapping, optional
        Where variables are; by default the notebook's.

    Examples
    --------
    >>> from qnb.widgets import BackendDashboard
    >>> board = BackendDashboard(model, quantized, images, socs=["SM8650", "SM8750"])
    """

    _independent = True

    def __init__(
        self,
        model: Any = None,
        quantized: Quantized | None = None,
        data: Any = None,
        *,
        labels: Any = None,
        socs: Sequence[str] | None = None,
        namespace: Namespace | None = None,
    ) -> None:
        cards = [
            Card.of(
                "compare", "Latency and accuracy", "comparison",
                ("builds", "data", "labels", "backends", "soc", "runs", "samples"), action="Measure",
            ),
            Card.of("convert", "Placement", "conversion", ("model", "soc"), action="Ask the backends"),
            Card.of("estimate", "Other Snapdragons", "estimated", ("build", "soc"), action="Estimate"),
        ]  # fmt: skip
        super().__init__("Backends side by side", cards, namespace)
        words = [
            held_as(value, wanted, self.namespace)
            for value, wanted in ((model, "model"), (quantized, "quantized"))
            if value is not None
        ]
        parts = [soc_table.find(soc).part for soc in (socs or [settings.soc])]
        compare, convert, estimate = (card.fields for card in cards)
        compare["builds"].value = " ".join(words)
        convert["model"].value = estimate["build"].value = words[-1] if words else ""
        compare["soc"].value = convert["soc"].value = parts[0]
        estimate["soc"].value, estimate["soc"].options = parts, soc_options(parts)
        for name, value in (("data", data), ("labels", labels)):
            if value is not None:
                compare[name].value = held_as(value, name, self.namespace)
        self._refresh()

    def _tiles(self) -> list[dict[str, str]]:
        """Give each backend's figures, as the tables have them."""
        compared, converted, estimated = (self._cards[name].result for name in ("compare", "convert", "estimate"))
        tiles = []
        for backend in BACKENDS:
            if compared is not None:
                rows = compared.frame[compared.frame["backend"] == backend]
                for row in entries(rows.drop_duplicates("precision")):
                    figures = (
                        ("latency", row.median_ms, "ms"),
                        ("SQNR", row.sqnr_db, "dB"),
                        ("accuracy", row.accuracy, ""),
                    )
                    tiles += [
                        _tile(backend, f"{row.precision} {what}", value, unit, row.source)
                        for what, value, unit in figures
                        if value == value
                    ]
            if converted is not None:
                said = converted.frame[backend].value_counts()
                text = ", ".join(f"{count} {word}" for word, count in said.items())
                tiles.append({"group": backend, "name": "takes the op", "value": text, "unit": "", "source": "counted"})
        if estimated is not None:
            for row in entries(estimated.frame):
                tiles.append(_tile("Snapdragons, htp", f"{row.soc} latency", row.latency_ms, "ms", row.source))
        return tiles


def _tile(group: str, name: str, value: float, unit: str, source: str) -> dict[str, str]:
    known = value == value
    said = {"value": number(value) if known else "no figure", "unit": unit if known else ""}
    return {"group": group, "name": name, **said, "source": source_label(source)}
