"""Defaults: from Python and from the environment. Oracle: processes of their own, started with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import qnb
from qnb.errors import BadInput, UnknownName
from tests.processes import output_of

SHOW = "import qnb; s = qnb.settings; print(s.soc, s.backend, s.runtime, s.timeout_s, s.progress)"


def test_the_defaults_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QNB_PROGRESS")
    assert output_of(SHOW, cache=tmp_path).split() == ["SM8650", "htp", "default", "1800.0", "True"]
    other = {"QNB_SOC": "57", "QNB_BACKEND": "cpu", "QNB_RUNTIME": "2.3.0", "QNB_TIMEOUT_S": "2.5", "QNB_PROGRESS": "0"}
    assert output_of(SHOW, cache=tmp_path, **other).split() == ["57", "cpu", "2.3.0", "2.5", "False"]


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("backend", "npu", UnknownName),
        ("timeout_s", -1, BadInput),
        ("timeout_s", float("nan"), BadInput),
        ("timeout", 1, UnknownName),
    ],
)
def test_a_wrong_default_is_refused_where_it_is_set(name: str, value: Any, error: type[Exception]) -> None:
    before = repr(qnb.settings)
    with pytest.raises(error, match=name):
        setattr(qnb.settings, name, value)
    assert repr(qnb.settings) == before


def test_a_wrong_environment_says_so(tmp_path: Path) -> None:
    code = "import qnb\ntry:\n    qnb.settings\nexcept qnb.QnbError as e:\n    print(type(e).__name__, e.what)"
    for variable, value in {"QNB_TIMEOUT_S": "soon", "QNB_BACKEND": "npu"}.items():
        out = output_of(code, cache=tmp_path, **{variable: value})
        assert value in out, out
