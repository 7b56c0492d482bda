"""The page of a report card.

Oracles: Python's HTML parser with the content model of HTML (which elements close, which stand alone), the tables that went
in, pandas reading the CSV files back, and for dark pages the filter and contrast formulas of the W3C.
"""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from qnb.display import card, charts, style, tiles
from tests.display import card_frames, frames

VOID = {"meta", "img", "br", "wbr", "link", "hr", "input"}
HOSTILE = [
    '<script>alert("1")</script>',
    "a'b\"c&d",
    "<img src=x onerror=alert(1)>",
    "</style></td>{{ 7*7 }}",
    "naïve ☃\x00\x1b[31m",
]


class Page(HTMLParser):
    """Reads a page strictly: what opens has to close, in order; collects what the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.tables: list[list[list[str]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of {tag} twice"
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            assert self.open[-2] == "tr"
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open[-1:]):
            self.tables[-1][-1][-1] += data
        if self.open[-1:] not in (["script"], ["style"]):
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def made(*tables: card.Table, charts: list[card.Chart] | None = None, title: str = "A card") -> str:
    section = card.Section("Part one", "lead", charts or [], tables, ["a note"])
    other = card.Section("Part one", "", [], [card.Table("ops", frames.layers(3))])
    headline = tiles.tiles(card_frames.headline(6))
    return card.page(
        card.Card(title, "of something", headline, card.named([section, other]), "qnb report 0", ["legend"])
    )


def test_the_page_is_well_formed_and_names_nothing_outside() -> None:
    drawn = card.chart(charts.op_times(frames.ops(20)), "ops")
    text = made(card.Table("ops", frames.ops(200)), charts=[drawn])
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    names = [tag for tag, _ in page.tags]
    assert names[:3] == ["html", "head", "meta"]
    assert names.count("h1") == names.count("title") == names.count("main") == 1
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(set(ids)) == len(ids)
    assert [a["href"] for a in page.all("a")] == [f"#{i}" for i in ids]
    for _, attributes in page.tags:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            assert attributes.get(name, "#")[:1] == "#" or attributes[name].startswith("data:image/")
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"https?:|//\w|@import|url\(", re.sub(r"base64,[\w+/=]+", "", text))
    assert all(a["alt"] for a in page.all("img"))


def test_the_page_forbids_itself_the_network_and_other_scripts() -> None:
    import hashlib

    text = made(card.Table("ops", frames.ops(3)))
    (policy,) = [a["content"] for a in Page(text).all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy


def test_the_figures_of_a_table_are_those_of_the_frame() -> None:
    frame = pd.DataFrame(
        {"name": ["a", "b"], "time_ms": [1.23456, np.nan], "count": [1234567, 8], "sqnr_db": [np.inf, -3.0]}
    )
    page = Page(made(card.Table("figures", frame)))
    assert page.tables[0] == [
        ["name", "time_ms", "count", "sqnr_db"],
        ["a", "1.23", "1,234,567", "exact"],
        ["b", "n/a", "8", "-3"],
    ]


def test_long_tables_are_folded_and_cut_in_the_page_and_say_so() -> None:
    text = made(card.Table("few", frames.layers(5)), card.Table("many", frames.layers(1000)))
    page = Page(text)
    assert [len(rows) - 1 for rows in page.tables] == [5, card.ROWS, 3]
    assert len(page.all("details")) == 1
    assert "the first 100 of 1,000 rows; all in part-one-many.csv" in " ".join(page.texts)
    hidden = Page(made(card.Table("runs", frames.runs(9), in_page=False)))
    assert len(hidden.tables) == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_others_are_text_wherever_they_stand(name: str) -> None:
    frame = pd.DataFrame({"op": [name], name: ["x"], "source": [name]})
    drawn = card.chart(charts.layers(frames.layers(3)), name)
    section = card.named([card.Section(name, name, [drawn], [card.Table(name, frame)], [name])])
    tile = tiles.Tile(name, name, name, name, name)
    page = Page(card.page(card.Card(name, name, [tile], section, "qnb", [name])))
    kinds = {tag for tag, _ in page.tags}
    assert kinds & {"script"} == {"script"}
    assert len(page.all("script")) == 1
    assert all(a["src"].startswith("data:image/") for a in page.all("img"))
    shown = style.clean(name)
    assert page.tables[0][1][0] == shown
    assert [a["alt"] for a in page.all("img")] == [shown]
    said = " ".join(page.texts)
    assert said.count(shown) >= 8
    assert "49" not in said
    assert "\x1b" not in said


def test_a_section_without_a_name_of_letters_has_an_anchor_and_a_file() -> None:
    sections = card.named([card.Section("名前", tables=[card.Table("☃", frames.layers(2))] * 2)] * 2)
    assert [s.anchor for s in sections] == ["part", "part-2"]
    assert len({t.csv for s in sections for t in s.tables}) == 4
    assert all(re.fullmatch(r"[a-z0-9-]+\.csv", t.csv) for s in sections for t in s.tables)


# --- CSV


def test_csv_files_read_back_to_the_digit(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "name": ["plain", 'with "quotes", commas', "two\nlines", "ünïcode ☃"],
            "value": [1 / 3, np.inf, np.nan, -1.2345678901234567e-300],
            "count": [1, 2**53 + 1, -7, 0],
            "flag": [True, False, True, True],
        }
    )
    path = tmp_path / "t.csv"
    path.write_bytes(card.csv_text(frame).encode())
    pd.testing.assert_frame_equal(pd.read_csv(path), frame, check_exact=True)


def test_what_a_spreadsheet_would_run_is_text_in_the_csv() -> None:
    frame = pd.DataFrame({"op": ['=HYPERLINK("x")', "@SUM(A1)", "+1", "-x", "fine"], "value": [-1.0, 2, 3, 4, 5]})
    read = pd.read_csv(io.StringIO(card.csv_text(frame)))
    assert list(read["op"]) == ['\'=HYPERLINK("x")', "'@SUM(A1)", "'+1", "'-x", "fine"]
    assert list(read["value"]) == [-1, 2, 3, 4, 5]


# --- charts in the page


def test_small_charts_are_svg_without_text_or_links_and_large_ones_png() -> None:
    small = card.chart(charts.op_times(frames.ops(10)), "small")
    assert small.image.startswith("data:image/svg+xml;base64,")
    content = base64.b64decode(small.image.partition(",")[2]).decode()
    root = ET.fromstring(content)
    assert {element.tag.rpartition("}")[2] for element in root.iter()} & {
        "text",
        "script",
        "a",
        "foreignObject",
    } == set()
    links = [v for e in root.iter() for k, v in e.attrib.items() if k.endswith("href")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"https?://(?!www\.w3\.org/)", content)
    assert content == base64.b64decode(card.chart(charts.op_times(frames.ops(10)), "").image.partition(",")[2]).decode()
    rng = np.random.default_rng(0)
    runs = frames.runs(3000).assign(latency_ms=rng.gamma(9, 1, 3000))
    large = card.chart(charts.latency_distribution(runs), "large")
    assert large.image.startswith("data:image/png;base64,")
    Image.open(io.BytesIO(base64.b64decode(large.image.partition(",")[2]))).verify()


def filtered(colour: str) -> tuple[float, ...]:
    """What the style sheet makes of a chart's colour on a dark page.

    invert() and hue-rotate() as in Filter Effects Module Level 1, sections 14.6 and 14.7 (matrices in sRGB).
    """
    text = (Path(card.__file__).parent / "card.html.j2").read_text(encoding="utf-8")
    amount = float(re.search(r"invert\(([\d.]+)\) hue-rotate\(180deg\)", text)[1])  # type: ignore[index]
    rgb = np.array(to_rgb(colour)) * (1 - 2 * amount) + amount
    base = np.array([[0.213, 0.715, 0.072]] * 3)
    along = np.array([[0.787, -0.715, -0.072], [-0.213, 0.285, -0.072], [-0.213, -0.715, 0.928]])
    return tuple(np.clip((base - along) @ rgb, 0, 1))  # cos 180° is −1, sin 180° is 0


def test_charts_keep_their_contrast_on_a_dark_page() -> None:
    paper = filtered(style.PAPER)
    assert max(paper) < 0.15
    for ink in (style.INK, style.MUTED):
        assert style.contrast(filtered(ink), paper) >= 4.5  # WCAG 2.2, 1.4.3
    for colour in (*style.BACKEND_COLOURS.values(), style.NEUTRAL, style.PURPLE):
        assert style.contrast(filtered(colour), paper) >= 3.0  # WCAG 2.2, 1.4.11


def test_the_page_has_readable_colours_in_both_schemes() -> None:
    text = made(card.Table("ops", frames.ops(3)))
    for rules in re.findall(r":root\{(--page[^}]+--ink[^}]+)\}", text):
        colours = dict(re.findall(r"--(\w+):(#[0-9a-f]+)", rules))
        for ground in ("page", "paper"):
            for ink in ("ink", "muted", "accent"):
                assert style.contrast(colours[ink], colours[ground]) >= 4.5
    assert "@media screen and (prefers-color-scheme:dark)" in text  # paper stays white
    assert "@media print" in text
