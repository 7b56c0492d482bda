"""The line of what was chosen. Oracle: the magic's own words and binding, which give the choices back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnb.errors import BadInput, UnknownName
from qnb.faces import face as faces
from qnb.faces import lines
from qnb.faces.binding import parse
from qnb.magics import words


def read(line: str) -> tuple[str, tuple, dict]:
    """Take a line apart as the magic does, objects staying words."""
    step, *tokens = words.texts(line.partition("%qnn ")[2])
    args, kwargs = parse(faces.face(step), tokens, lambda _, word: word, usage="")
    return step, args, kwargs


def test_a_line_is_what_one_would_write():
    face = faces.face("calibrate")
    chosen = {"model": "model", "data": "images", "precision": "w8a16", "effort": "fast", "per_channel": False}
    assert (
        lines.line(face, chosen, "quantized")
        == "quantized = %qnn calibrate model images --precision w8a16 --no-per-channel"
    )


def test_several_words_and_dimensions():
    export = {"source": "net", "shapes": "image=1x3x8x8 mask=1x8", "input_names": "image,mask"}
    assert read(lines.line(faces.face("export"), export)) == (
        "export", ("net",), {"shapes": {"image": (1, 3, 8, 8), "mask": (1, 8)}, "input_names": ["image", "mask"]},
    )  # fmt: skip
    profile = {"build": "quantized", "backends": ["htp", "cpu"], "runs": "7"}
    assert read(lines.line(faces.face("profile"), profile)) == (
        "profile", ("quantized",), {"backends": ["htp", "cpu"], "runs": 7},
    )  # fmt: skip
    compare = {"builds": "model quantized", "data": "images", "backends": ["htp", "gpu", "cpu"]}
    assert lines.line(faces.face("compare"), compare) == "%qnn compare model quantized --data images"


HARD = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=20)


@given(HARD.filter(lambda t: t.strip() and not ('"' in t and "'" in t) and not set("[({\\") & set(t) and t[0] != "-"))
def test_any_path_survives(text):
    word = text.strip()
    _, args, _ = read(lines.line(faces.face("convert"), {"model": word}))
    assert args == (word,)


def test_what_does_not_fit_is_said():
    face = faces.face("calibrate")
    with pytest.raises(UnknownName, match="precison"):
        lines.tokens(face, {"precison": "w8a8"})
    with pytest.raises(BadInput, match="MODEL is missing"):
        lines.tokens(face, {"data": "images"})
    with pytest.raises(BadInput, match="takes a value"):
        lines.tokens(face, {"model": "m", "data": "d", "precision": True})
