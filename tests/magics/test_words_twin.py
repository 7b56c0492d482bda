"""The words of a line as the JupyterLab extension splits and writes them.

Oracle: `qnb.magics.words` and IPython's own replacement of names, for the same cases that the extension's tests run on
(``extension/tests/words.json``).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from qnb.magics import words
from tests.processes import ROOT

FILE = ROOT / "extension" / "tests" / "words.json"

LINES = [
    "",
    "   ",
    "a b",
    "calibrate model images[:4] --precision w8a16",
    "a  --soc 'x y' b",
    '--soc="8 gen 3"',
    'SM8650,"8 Gen 3" x',
    "a '' b",
    "infer net batch[:8, 0] x",
    'infer c["Snapdragon 8 Gen 3"]',
    "c['a]b'][0] d",
    r"export C:\models\net.onnx",
    "export it's.onnx",
    "--shapes image=(1, 3, 224, 224) x",
    "infer net batch  # the first run",
    "export net#1.onnx",
    'a[1 "x',
    "f(g[0]",
    "a['x]",
    '"open',
    "a\u00a0b\u3000c\ufeffd\x1ce\x85f",
    "net <script>alert(1)</script>",
    "x={a: 'b c'}",
]
TEXTS = [
    ["net.onnx"],
    ["my net.onnx", "x"],
    [""],
    ["images[:4, 0]"],
    ['c["8 Gen 3"]'],
    ["it's.onnx"],
    ["it's a net.onnx"],
    ["#1.onnx"],
    ["net;"],
    ["what?"],
    ["C:\\models\\"],
    ["a[1"],
    ["{6*7}.onnx", "$HOME"],
    ["{{x}}", "$$a", "$5.onnx"],
    ["{.onnx"],
    ["$net it's {x}", "$net"],
    ["<img src=x onerror=alert(1)>.onnx"],
    ["\u202egnp.onnx"],
]


def lines() -> list[dict[str, Any]]:
    return [
        {"line": line, "words": [[w.text, w.start, w.end, w.waits_for] for w in words.split(line)]} for line in LINES
    ]


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return read


def test_the_extension_is_tested_against_what_python_says(cases: dict[str, Any]) -> None:
    assert cases["lines"] == lines()


def test_what_the_extension_writes_means_itself_to_ipython(cases: dict[str, Any]) -> None:
    assert [case["texts"] for case in cases["written"]] == TEXTS
    said: list[str] = []
    shell = InteractiveShell.instance()
    shell.register_magic_function(said.append, magic_name="qnn")
    shell.user_ns |= {"net": "replaced", "HOME": "replaced", "x": "replaced", "a": "replaced"}
    for case in cases["written"]:
        shell.run_cell(f"%qnn {case['line']}").raise_error()
        assert words.texts(said.pop().rstrip().rstrip(";")) == case["texts"]
