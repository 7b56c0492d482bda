"""The SoC table and its look-up.

Oracle: the table's own file, read here by the csv module, and what the SoCs are publicly called.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

import qnb
from qnb import socs
from qnb.errors import BadInput, UnknownName
from tests.conftest import Digits

TABLE = Path(qnb.__file__).parent / "data" / "socs.csv"
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
USABLE = [row for row in ROWS if row["htp_usable"] == "yes"]


def test_the_table_holds_every_row() -> None:
    assert [(s.soc_model, s.part, s.name) for s in socs.table()] == [
        (int(r["soc_model"]), r["part"], r["name"]) for r in ROWS
    ]
    assert len(ROWS) > 50


@pytest.mark.parametrize("row", USABLE, ids=lambda row: row["part"])
def test_every_usable_part_is_found_by_part_name_and_id(row: dict[str, str]) -> None:
    found = socs.find(row["part"])
    assert (found.soc_model, found.arch) == (int(row["soc_model"]), row["hexagon_arch"])
    assert socs.find(row["part"].lower()) == found
    assert socs.find(int(row["soc_model"])).soc_model == found.soc_model
    assert socs.find(row["soc_model"]).soc_model == found.soc_model
    if row["name"]:
        assert socs.find(row["name"]).soc_model == found.soc_model


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("Snapdragon 8 Gen 3", "SM8650"),
        ("snapdragon 8 gen 3", "SM8650"),
        ("8 Gen 3", "SM8650"),
        ("8gen3", "SM8650"),
        ("8 Elite", "SM8750"),
        (57, "SM8650"),
        ("57", "SM8650"),
        (" sm8650 ", "SM8650"),
        ("Snapdragon 888", "SM8350"),
        ("X Elite", "SC8380XP"),
    ],
)
def test_the_ways_to_write_it(text: str | int, part: str) -> None:
    assert socs.find(text).part == part


@pytest.mark.parametrize(
    ("text", "near"),
    [("SM8651", "SM8650"), ("Snapdragon 8 Gen 33", "Snapdragon 8 Gen 3"), ("SM865", "SM8650"), ("QCS655O", "QCS")],
)
def test_an_unknown_soc_is_refused_with_near_names(text: str, near: str) -> None:
    with pytest.raises(UnknownName, match=re.escape(text)) as caught:
        socs.find(text)
    assert near in caught.value.hint


@pytest.mark.parametrize("text", ["", "Exynos", -1, 0, "v75", "SM8650;rm", "💥"])
def test_nonsense_is_refused(text: str | int) -> None:
    with pytest.raises(UnknownName) as caught:
        socs.find(text)
    assert "SM8650" in caught.value.hint


@pytest.mark.parametrize("soc", [103, "113", 99999])
def test_an_id_newer_than_all_that_is_known_is_refused(soc: str | int) -> None:
    with pytest.raises(BadInput, match=rf"{soc} is newer") as caught:
        socs.find(soc)
    assert not isinstance(caught.value, UnknownName)
    assert "known SoC" in caught.value.hint


@pytest.mark.parametrize("row", [r for r in ROWS if r["htp_usable"] != "yes"], ids=lambda row: row["part"])
def test_parts_without_the_processor_are_refused(row: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="can't be a target") as caught:
        socs.find(row["part"])
    assert re.search(r"v68 or later.*\w\w\d{4}", caught.value.hint)


@pytest.mark.parametrize("soc", ["SDM845", 2, "Snapdragon 845"])
def test_older_phones_by_any_name(soc: str | int) -> None:
    with pytest.raises(BadInput, match="can't be a target"):
        socs.find(soc)


def test_an_soc_newer_than_the_runtime_is_refused() -> None:
    newest = next(s for s in socs.table() if s.usable and s.qairt)
    assert socs.find(newest, qairt=newest.qairt[-1]) == newest
    with pytest.raises(BadInput, match="newer than the runtime") as caught:
        socs.find(newest, qairt="2.10")
    assert newest.qairt[0] in caught.value.hint


def test_several_in_one_text() -> None:
    found = socs.find_all("SM8650, Snapdragon 8 Gen 2,36")
    assert [s.part for s in found] == ["SM8650", "SM8550", "SM8450"]
    assert socs.find_all(["SM8650,SM8550", 36]) == found
    assert socs.find_all("SM8650") == [socs.find("SM8650")]
    assert socs.find_all(socs.find("SM8650")) == [socs.find("SM8650")]
    assert socs.find_all(" , ") == []
    with pytest.raises(UnknownName, match="SM9999"):
        socs.find_all("SM8650,SM9999")


@pytest.mark.parametrize("step", ["context", "infer", "convert", "profile"])
@pytest.mark.parametrize("soc", ["SM8651", 103, "SDM845"])
def test_every_step_refuses_them(step: str, soc: str | int, digits: Digits) -> None:
    quantized = digits.quantized
    calls = {
        "context": lambda: qnb.context(quantized, soc=[soc, "SM8650"]),
        "infer": lambda: qnb.infer(quantized, digits.test[:1], soc=soc),
        "convert": lambda: qnb.convert(quantized, soc=soc),
        "profile": lambda: qnb.profile(quantized, soc=soc, runs=1, backends=["htp"]),
    }
    with pytest.raises(BadInput, match=str(soc)):
        calls[step]()


def test_the_default_soc_is_a_setting(monkeypatch: pytest.MonkeyPatch, digits: Digits) -> None:
    monkeypatch.setattr(qnb.settings, "soc", "SM8350")
    assert qnb.context(digits.quantized).soc.part == "SM8350"
