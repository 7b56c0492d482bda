"""JSON and YAML that people write. Oracle: the json module and PyYAML for what is right; the place of a planted mistake."""

import json

import pytest
import yaml

from qnb import keyvalues
from qnb.errors import BadConfig

GOOD = {"htp_config": {"vtcm_mb": 8, "list": [1, 2.5, True, None, "x"]}, "b": "text: with colon"}


@pytest.mark.parametrize("text", [json.dumps(GOOD), json.dumps(GOOD, indent=2), yaml.safe_dump(GOOD)])
def test_json_and_yaml_read_alike(text):
    assert keyvalues.read(text, "config") == GOOD


def test_numbers_in_scientific_notation_are_numbers_in_yaml_too():
    assert keyvalues.read("scale: 1e-3\nother: -2E5\nname: e5", "overrides") == {
        "scale": 1e-3,
        "other": -2e5,
        "name": "e5",
    }
    assert yaml.safe_load("scale: 1e-3") == {"scale": "1e-3"}  # why this has a test


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('{"a": 1,\n "b" 2}', 2, 6),
        ('{"a": 1,\n "a": 2}', 2, 2),
        ("a: 1\nb: [1, 2\nc: 3", 3, 2),
        ("a: 1\nb:\n  x: 1\n  x: 2", 4, 3),
        ("a: 1\n\tb: 2", 2, 1),
    ],
)  # fmt: skip
def test_a_mistake_is_shown_where_it_is(text, line, column):
    with pytest.raises(BadConfig, match=f"line {line}, column {column}: ") as caught:
        keyvalues.read(text, "config")
    shown = caught.value.what.splitlines()
    assert shown[1] == "    " + text.splitlines()[line - 1]
    assert shown[2] == "    " + " " * (column - 1) + "^"


@pytest.mark.parametrize("text", ["", "\n", "[1, 2]", "- a\n- b", "just words"])
def test_what_is_no_mapping_is_refused(text):
    with pytest.raises(BadConfig, match="must be keys and values"):
        keyvalues.read(text, "config")


def test_yaml_makes_no_objects():
    with pytest.raises(BadConfig):
        keyvalues.read("a: !!python/object/apply:os.getcwd []", "config")
