"""What is read from a signature and a docstring.

Oracle: `inspect` and the docstrings themselves, over every step that there is.
"""

import importlib
import inspect
import re

import pytest

from qnb.errors import UnknownName
from qnb.faces import examples, face, pages
from qnb.steps import STEPS, SUMMARIES
from qnb.values import Argument
from tests.faces.steplike import brew, mix


@pytest.fixture(params=[*STEPS, *face.verbs()])
def step(request):
    return face.face(request.param)


def test_a_face_has_every_parameter_of_the_function_and_the_same_defaults(step):
    signature = inspect.signature(step.function)
    assert [p.name for p in step.parameters] == list(signature.parameters)
    for parameter in step.parameters:
        default = signature.parameters[parameter.name].default
        assert parameter.default is default
        assert parameter.required == (
            default is inspect.Parameter.empty
            and signature.parameters[parameter.name].kind is not inspect.Parameter.VAR_POSITIONAL
        )


def test_every_parameter_of_a_step_is_documented(step):
    assert [p.name for p in step.parameters if not p.help] == []


def test_the_summary_that_needs_no_import_is_the_docstrings(step):
    assert face.summary(step.name) == step.summary == inspect.getdoc(step.function).splitlines()[0]


def test_steps_are_listed_with_summaries_in_one_order():
    assert list(SUMMARIES) == list(STEPS) == list(face.names())
    for target in STEPS.values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_an_unknown_step_has_near_names():
    with pytest.raises(UnknownName, match="did you mean infer") as caught:
        face.face("infr")
    assert "infr" in caught.value.what


def test_types_choices_and_markers():
    made = face.read("brew", brew).by_name
    assert made["strength"].choices == ("weak", "strong")
    assert made["tools"].choices == ("pot", "pan")
    assert made["tools"].default_text == "pot"
    assert made["shapes"].is_mapping
    assert not made["config"].is_mapping
    assert made["thing"].marker == Argument("model", ("dict",))
    assert made["config"].is_body
    assert made["taste"].needs_python
    assert made["taste"].takes_path is False
    assert made["thing"].takes_path
    assert made["water"].takes_path
    assert made["sugar"].negative == "--no-sugar"
    assert made["cups"].help == made["heat"].help == "How many, and how hot."
    assert made["soc"].item is not None
    assert made["soc"].alone
    assert not made["tools"].alone
    assert [p.metavar for p in made.values()][:5] == ["THING", "WATER", "weak|strong", "NAME=DIMS", "N"]
    assert made["soc"].metavar == "SOC,SOC"


def test_usage_lines():
    assert pages.usage(face.read("brew", brew), "magic") == "%qnn brew THING [WATER] [options]"
    assert pages.usage(face.read("mix", mix), "command") == "qnb mix THINGS … [options]"


def test_examples_are_rewritten_as_lines():
    made = face.read("brew", brew)
    line = examples.rewritten(made.examples[0], made, "magic")
    assert line == 'cup = %qnn brew tea water[:2] --strength strong --shapes x=1x3 --no-stir --soc "A,B C"'
    command = examples.rewritten(made.examples[0], made, "command")
    assert command == 'qnb brew tea water[:2] --strength strong --shapes x=1x3 --no-stir --soc "A,B C" --out cup'
    assert examples.rewritten(made.examples[1], made, "magic") is None  # a dict has no word
    assert examples.rewritten(made.examples[2], made, "magic") is None  # another call
    assert examples.rewritten("x = [", made, "magic") is None


def test_every_step_has_an_example_that_is_a_line(step):
    if step.name in STEPS:
        assert any(examples.rewritten(e, step, "magic") for e in step.examples)


def test_a_page_says_everything_in_text_and_html(step):
    page = pages.step_page(step)
    text, html = str(page), page._repr_html_()
    for parameter in step.parameters:
        flag = parameter.metavar if parameter.place != "option" else parameter.option
        assert flag in text
        for said in (text, re.sub(r"<[^>]+>", "", html)):
            assert pages.plain(parameter.help).split()[0] in said
    assert max(map(len, text.splitlines())) <= 100
    assert "``" not in text
    assert "<style" not in html  # notebooks strip style sheets
    assert re.search(r"color:(?!inherit)", html) is None  # no colour of its own: light and dark pages alike


def test_html_is_escaped():
    page = pages.Page("<b>&", ("``<i>``",), (pages.Section("<u>", (pages.Row("<s>", "<p>", "<q>"),), ("<pre>x",)),))
    shown = page._repr_html_()
    for tag in ("<b>", "<i>", "<u>", "<s>", "<p>", "<q>", "<pre>x"):
        assert tag not in shown
