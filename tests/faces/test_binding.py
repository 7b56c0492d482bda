"""From words to arguments.

Oracle: the arguments that the same call in Python has, written out.
"""

import pytest

from qnb.errors import BadInput, UnknownName
from qnb.faces import binding, face, pages
from tests.faces.steplike import brew, mix

BREW, MIX = face.read("brew", brew), face.read("mix", mix)


def parse(words, made=BREW):
    def resolve(parameter, word):
        if word == "missing":
            raise UnknownName.among("name", word, ["nothing"])
        return f"<{parameter.name} {word}>"

    extras = [binding.extra("out", str | None, "where to", alias=("-o",))]
    return binding.parse(made, words, resolve, usage=pages.usage(made, "magic"), extras=extras)


@pytest.mark.parametrize(
    ("words", "args", "kwargs"),
    [
        (["t"], ("<thing t>",), {}),
        (["t", "w"], ("<thing t>", "<water w>"), {}),
        (["--cups", "3", "t"], ("<thing t>",), {"cups": 3}),
        (["t", "--heat=-2.5"], ("<thing t>",), {"heat": -2.5}),
        (["t", "--sugar", "--no-stir"], ("<thing t>",), {"sugar": True, "stir": False}),
        (["t", "--strength", "strong"], ("<thing t>",), {"strength": "strong"}),
        (["t", "--shapes", "x=1,3,8,8"], ("<thing t>",), {"shapes": {"x": (1, 3, 8, 8)}}),
        (["t", "--shapes", "x:1x3", "--shapes", "y=()"], ("<thing t>",), {"shapes": {"x": (1, 3), "y": ()}}),
        (["t", "--shapes", "x=(1, 3); y=[2]"], ("<thing t>",), {"shapes": {"x": (1, 3), "y": (2,)}}),
        (["t", "--shapes", "in:0=2x3"], ("<thing t>",), {"shapes": {"in:0": (2, 3)}}),
        (["t", "--soc", "SM8650"], ("<thing t>",), {"soc": "SM8650"}),
        (["t", "--soc", "8 gen 3,57"], ("<thing t>",), {"soc": ["8 gen 3", "57"]}),
        (["t", "--soc", "a", "--soc", "b"], ("<thing t>",), {"soc": ["a", "b"]}),
        (["t", "--tools", "pan"], ("<thing t>",), {"tools": ["pan"]}),
        (["t", "--tools", "pan, pot"], ("<thing t>",), {"tools": ["pan", "pot"]}),
        (["t", "--sizes", "1,2"], ("<thing t>",), {"sizes": [1, 2]}),
        (["t", "--config", "c"], ("<thing t>",), {"config": "<config c>"}),
        (["t", "--taste", "f"], ("<thing t>",), {"taste": "<taste f>"}),
        (["t", "-o", "cup"], ("<thing t>",), {"out": "cup"}),
    ],
)  # fmt: skip
def test_words_become_arguments(words, args, kwargs):
    assert parse(words) == (args, kwargs)


def test_many_arguments_by_place():
    assert parse(["a", "b", "--speed", "2", "c"], MIX) == (("<things a>", "<things b>", "<things c>"), {"speed": 2})
    assert parse([], MIX) == ((), {})


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        ([], BadInput, r"THING is missing \(dict or path\)\n  next: usage: %qnn brew THING \[WATER\] \[options\]"),
        (["t", "--cups"], BadInput, "--cups needs a value"),
        (["t", "--cups", "two"], BadInput, "--cups takes a whole number, not 'two'"),
        (["t", "--heat", "hot"], BadInput, "--heat takes a number, not 'hot'"),
        (["t", "--sugar=perhaps"], BadInput, "--sugar takes on or off"),
        (
            ["t", "--strength", "strng"],
            UnknownName,
            "unknown value of --strength: 'strng'\n  next: did you mean strong",
        ),
        (["t", "--tools", "pot,pann"], UnknownName, "'pann'\n  next: did you mean pan"),
        (["t", "--sizes", "1,b"], BadInput, "'b' is not a number"),
        (["t", "--strenght", "weak"], UnknownName, "'--strenght'\n  next: did you mean --strength"),
        (["t", "--ou", "x"], UnknownName, "did you mean --out"),
        (["t", "w", "more"], BadInput, "too many arguments: more"),
        (["t", "--shapes", "1x3"], BadInput, "'1x3' is not NAME=DIMS"),
        (["t", "--shapes", "x=1xn"], BadInput, "is not NAME=DIMS"),
        (["t", "--shapes", "x=1", "--shapes", "x=2"], BadInput, "comes twice"),
        (["missing"], UnknownName, "unknown name 'missing'"),
    ],
)
def test_words_that_do_not_fit(words, kind, said, capfd):
    with pytest.raises(kind, match=said.replace("--", "-{2}")):
        parse(words)
    assert capfd.readouterr() == ("", "")  # cyclopts prints and exits nowhere
