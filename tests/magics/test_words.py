"""The words of a line. Oracle: `shlex` where a shell agrees; the texts written out where brackets are words too."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnb.errors import BadInput
from qnb.magics import words


@pytest.mark.parametrize(
    "line",
    [
        "",
        "   ",
        "a b",
        "a  --soc 'x y' b",
        '--soc="8 gen 3"',
        'net "a b/c d" x',
        "a '' b",
        "--soc=a,b -o q",
        'SM8650,"8 Gen 3" x',
    ],
)
def test_a_shell_would_agree(line):
    assert words.texts(line) == shlex.split(line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("infer net batch[:8, 0] x", ["infer", "net", "batch[:8, 0]", "x"]),
        ('infer c["Snapdragon 8 Gen 3"]', ["infer", 'c["Snapdragon 8 Gen 3"]']),
        ("c['a]b'][0] d", ["c['a]b'][0]", "d"]),
        (r"export C:\models\net.onnx", ["export", r"C:\models\net.onnx"]),
        ("export it's.onnx", ["export", "it's.onnx"]),
        ("--shapes image=(1, 3, 224, 224) x", ["--shapes", "image=(1, 3, 224, 224)", "x"]),
        ("infer net batch  # the first run", ["infer", "net", "batch"]),
        ("export net#1.onnx", ["export", "net#1.onnx"]),
    ],
)  # fmt: skip
def test_brackets_and_backslashes(line, expected):
    assert words.texts(line) == expected


@pytest.mark.parametrize(("line", "missing"), [("a[1", "]"), ('x "a b', '"'), ("f(g[0]", ")"), ("a['x]", "'")])
def test_what_is_not_closed_is_said(line, missing):
    with pytest.raises(BadInput, match="is not closed") as caught:
        words.texts(line)
    assert caught.value.hint == f"a {missing} is missing"


@given(st.text(max_size=40))
def test_any_line_splits_into_words_that_lie_in_it_in_order(line):
    end = 0
    for word in words.split(line):
        assert end <= word.start < word.end <= len(line)
        assert not line[end : word.start].strip()
        end = word.end
