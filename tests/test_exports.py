"""The public names: what is offered is there, and nothing else. Oracle: the list below, and the source's own syntax tree."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

import qnb
from qnb import errors
from qnb.steps import STEPS
from tests.processes import ROOT

PUBLIC = {
    "Context", "Contexts", "Model", "QnbError", "Quantized", "Result", "__version__", "calibrate", "check", "compare",
    "context", "convert", "debug", "doctor", "errors", "estimate", "export", "infer", "load", "load_ipython_extension",
    "profile", "report", "search", "select", "sensitivity", "settings", "socs", "unload_ipython_extension",
}  # fmt: skip


def test_public_names():
    assert set(qnb.__all__) == PUBLIC
    assert len(qnb.__all__) == len(PUBLIC)
    assert set(dir(qnb)) >= PUBLIC
    assert all(getattr(qnb, name) is not None for name in PUBLIC)
    assert set(STEPS) <= PUBLIC


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'infr'"):
        qnb.infr  # noqa: B018


def test_type_checkers_see_what_is_loaded_lazily():
    tree = ast.parse((ROOT / "qnb" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == PUBLIC - {"__version__", "load_ipython_extension", "unload_ipython_extension"}
    for name, place in seen.items():
        value = getattr(qnb, name)
        module = getattr(value, "__module__", None) or getattr(value, "__name__", "")
        assert place in (f"{module}.{name}", module) or name == "settings"


def test_a_step_is_exported_under_its_name():
    for name, place in STEPS.items():
        function = getattr(qnb, name)
        assert f"{function.__module__}:{function.__qualname__}" == place


def _classes() -> dict[str, type]:
    return {n: c for n, c in vars(errors).items() if inspect.isclass(c) and c.__module__ == errors.__name__}


def test_error_names():
    assert set(errors.__all__) == set(_classes())
    assert errors.__all__ == sorted(errors.__all__)


def test_the_tree_of_errors_is_as_it_is_drawn():
    drawn: dict[str, str] = {}
    path = ["QnbError"]
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^    ((?:│   |    )*)[├└]── (\w+)  +\S", line):
            depth = len(match[1]) // 4 + 1
            path[depth:] = [match[2]]
            drawn[match[2]] = path[depth - 1]
    real = {
        name: next(b.__name__ for b in c.__mro__[1:] if b.__name__ in _classes())
        for name, c in _classes().items()
        if name != "QnbError"
    }
    assert drawn == real


def test_errors_are_also_what_python_would_raise():
    builtin = {
        errors.BadInput: ValueError,
        errors.StorageError: OSError,
        errors.WorkerTimeout: TimeoutError,
        errors.Interrupted: KeyboardInterrupt,
    }
    for ours, pythons in builtin.items():
        assert issubclass(ours, pythons)
        assert issubclass(ours, errors.QnbError)


def test_an_error_says_what_and_what_next_and_no_traceback_through_us_is_shown():
    error = errors.BadInput("3 channels", hint="give 1", log="native")
    assert str(error) == "3 channels\n  next: give 1"
    assert error._render_traceback_()[:2] == ["BadInput: 3 channels", "  next: give 1"]
    assert str(errors.QnbError("alone")) == "alone"


def test_near_names_are_given():
    assert "did you mean SM8650" in errors.UnknownName.among("SoC", "SM865", ["SM8650", "QCS1"]).hint
    assert errors.UnknownName.among("SoC", "zzz", ["SM8650", "QCS1"]).hint == "known: SM8650, QCS1"
