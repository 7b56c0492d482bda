"""Tables as HTML and text, read back with Python's own HTML parser and number parsing."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnb.display import style, tables
from tests.display import frames

nan, inf = math.nan, math.inf


class Parsed(HTMLParser):
    """Collects the cells, the notes, every tag and attribute, and the style sheet."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.rows: list[list[str]] = []
        self.titles: list[str] = []
        self.css = ""
        self.other: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.titles += [value or "" for name, value in attrs if name == "title"]
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1] == "style":
            self.css += data
        elif self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        else:
            self.other.append(data)


HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b", "</style></table>", "{{ x }}", "$x$"]


def test_all_text_is_escaped() -> None:
    frame = pd.DataFrame({"name": HOSTILE, "<b>head</b>": HOSTILE, "source": HOSTILE})
    page = Parsed(tables.html(frame, title=HOSTILE[0], notes=HOSTILE, caption=HOSTILE[1]))
    assert page.tags == {"div", "style", "table", "thead", "tbody", "tr", "th", "td"}
    assert page.attributes <= {"class", "tabindex", "title"}
    assert [row[0] for row in page.rows[1:]] == HOSTILE
    assert page.rows[0][1] == "<b>head</b>"
    assert {HOSTILE[0], HOSTILE[1]} <= set(page.other)


@given(st.lists(st.text(max_size=90), min_size=1, max_size=4))
def test_any_text_survives_as_text(values: list[str]) -> None:
    page = Parsed(tables.html(pd.DataFrame({"v": values}), title=values[0]))
    cells = [row[0] for row in page.rows[1:]]
    for cell, value in zip(cells, map(style.clean, values), strict=True):
        # A name is shortened and in full in its tool tip, a sentence is wrapped by the browser.
        assert cell == value or (cell == style.elide(value, 72) and value in page.titles)


def test_styles_reach_only_inside_the_table() -> None:
    css = Parsed(tables.html(frames.comparison(), title="t")).css
    selectors = [s for block in re.findall(r"([^{}]+)\{", css) for s in block.split(",")]
    assert len(selectors) > 5
    assert all(s.strip().startswith(".qnb-table") for s in selectors)
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b", css)  # colours are the page's own
    for rule in re.findall(r"\{([^}]*)\}", css):
        if "background:var" in rule:
            assert "color:var" in rule.replace("background-color", "")
    assert "max-height" in css


def test_columns_keep_names_units_and_alignment() -> None:
    html = tables.html(frames.comparison(3), title="Comparison", caption="Three backends")
    page = Parsed(html)
    assert page.rows[0] == list(frames.comparison(3).columns)
    assert '<th class="qnb-number">median_ms</th>' in html
    assert "<th>backend</th>" in html
    assert {"Comparison", "Three backends", "3 rows"} <= set(page.other)


def test_sources_are_marked_and_explained() -> None:
    def page(frame: pd.DataFrame) -> str:
        parsed = Parsed(tables.html(frame, title=""))
        return "\n".join([*parsed.other, *(cell for row in parsed.rows for cell in row)])

    def plain(frame: pd.DataFrame) -> str:
        return tables.text(frame, title="")

    for render in (page, plain):
        result = render(frames.comparison(3))
        for source in ("simulator", "reference", "host"):
            assert result.count(f"{source}†") == 2  # its row and the legend
            assert style.SOURCE_NOTES[source].split(" (")[0] in result
        assert style.SOURCE_NOTES["published"] not in result
        assert "†" not in render(frames.comparison(3).assign(source="device"))
        assert "†" not in render(frames.layers(3))


@pytest.mark.parametrize(
    ("column", "values", "cells"),
    [
        ("a_ms", [0.123456, 12.3456, 1234567.8], ["0.123", "12.3", "1,234,568"]),
        ("a_ms", [9.999, 0.0, -0.00123], ["10.0", "0", "-0.00123"]),
        ("a", [1.2e-5, 3.4e15, -1.0], ["1.20e-05", "3.40e+15", "-1.00"]),
        ("size_kb", [3711.0, nan, 13980.0], ["3,711", "n/a", "13,980"]),
        ("count", [1234567, 0, -5], ["1,234,567", "0", "-5"]),
        ("sqnr_db", [31.25, inf, nan], ["31.2", "exact", "n/a"]),
        ("error", [1.5, inf, -inf], ["1.50", "∞", "-∞"]),
        ("cosine", [0.99912, 1.0, 0.9999999], ["0.999120", "1.000000", "1.000000"]),
        ("cached", [True, False, None], ["yes", "no", ""]),
        ("note", ["x", None, nan], ["x", "", ""]),
        ("accuracy", [nan, nan, nan], ["n/a", "n/a", "n/a"]),
        ("mixed", [1, None, 2.5], ["1.00", "n/a", "2.50"]),
        ("shape", [(1, 3), [2], "n"], ["(1, 3)", "[2]", "n"]),
    ],
)
def test_formats(column: str, values: list[Any], cells: list[str]) -> None:
    frame = pd.DataFrame({column: values})
    assert [row[0] for row in Parsed(tables.html(frame, title="")).rows[1:]] == cells
    lines = tables.text(frame, title="").splitlines()
    assert [line.strip() for line in lines[2:5]] == cells


@given(st.floats(-1e300, 1e300))
def test_numbers_keep_three_significant_digits(value: float) -> None:
    written = style.number(value)
    read = float(written.replace(",", "").replace("−", "-"))
    assert read == pytest.approx(value, rel=0.00501, abs=0)
    assert len(written) <= 19


@given(st.integers())
def test_integers_are_written_in_full(value: int) -> None:
    assert int(style.number(value).replace(",", "").replace("−", "-")) == value


@pytest.mark.parametrize("render", [tables.html, tables.text])
def test_empty_tables_say_so(render: Any) -> None:
    result = render(frames.comparison(3).iloc[:0], title="Nothing")
    assert "no rows" in result
    assert "median_ms" in result
    assert render(pd.DataFrame(), title="Nothing")


def test_long_tables_are_cut_and_say_so() -> None:
    frame = pd.DataFrame({"i": range(1234)})
    page = Parsed(tables.html(frame, title=""))
    assert len(page.rows) == 1001
    assert "the first 1,000 of 1,234 rows" in page.other
    assert "the first 60 of 1,234 rows" in tables.text(frame, title="")
    assert "200 rows" in Parsed(tables.html(frame.iloc[:200], title="")).other


def test_an_index_that_says_something_becomes_columns() -> None:
    frame = pd.DataFrame({"v": [1, 2]}, index=pd.Index(["a", "b"], name="tensor"))
    assert Parsed(tables.html(frame, title="")).rows == [["tensor", "v"], ["a", "1"], ["b", "2"]]
    many = pd.DataFrame({"v": [1]}, index=pd.MultiIndex.from_tuples([("x", 2)], names=["p", None]))
    assert Parsed(tables.html(many, title="")).rows == [["p", "index 1", "v"], ["x", "2", "1"]]
    filtered = pd.DataFrame({"v": [1, 2, 3]}).iloc[[2]]
    assert Parsed(tables.html(filtered, title="")).rows == [["v"], ["3"]]


def test_text_fits_the_terminal_and_loses_no_column() -> None:
    frame = frames.comparison(3).assign(build="mobilenet_v2_" + "x" * 90, note="y" * 200)
    result = tables.text(frame, title="Comparison", notes=["word " * 60])
    assert max(map(len, result.splitlines())) <= tables.WIDTH
    for column in frame.columns:
        assert re.search(rf"(?m)(^| ){column}( |$)", result)
    heads = [line for line in result.splitlines() if "build" in line.split()[:1]]
    assert len(heads) > 1
    assert all("backend" in line for line in heads)  # the columns that tell the rows apart lead each block


def test_sentences_are_wrapped_not_shortened() -> None:
    why = "no Adreno GPU on this host: the gpu column is the fp16 reference on ONNX Runtime's CPU, and says so in each row"
    frame = frames.doctor(3).assign(
        reason=why, remedy="run on a Snapdragon host (Windows on Snapdragon, Linux aarch64)"
    )
    result = tables.text(frame, title="Doctor")
    assert max(map(len, result.splitlines())) <= tables.WIDTH
    assert "…" not in result
    start = result.index("reason")
    column = result.splitlines()[2].index("reason")
    assert start > 0
    body = [line[column : result.splitlines()[2].index("remedy")].strip() for line in result.splitlines()[4:]]
    assert why in " ".join(body)
    html = tables.html(frame, title="Doctor")
    assert Parsed(html).rows[1][3] == why
    assert 'class="qnb-prose"' in html


@settings(max_examples=60)
@given(
    st.dictionaries(st.text(min_size=1, max_size=50), st.integers(0, 2), min_size=1, max_size=12),
    st.integers(0, 4),
    st.data(),
)
def test_text_never_exceeds_the_width(columns: dict[str, int], rows: int, data: st.DataObject) -> None:
    kinds = [st.floats(width=32), st.text(max_size=200), st.integers(-(2**62), 2**62)]
    frame = pd.DataFrame({c: data.draw(st.lists(kinds[k], min_size=rows, max_size=rows)) for c, k in columns.items()})
    result = tables.text(frame, title="t")
    assert max(map(len, result.splitlines())) <= tables.WIDTH
    assert not set(result) & {chr(c) for c in (*range(10), *range(11, 32), 127)}
