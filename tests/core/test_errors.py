"""Errors on their way: to another process, and to a notebook. The tree and the names: tests/test_exports.py.

Oracle: pickle, which executors use; IPython's own display of an exception.
"""

from __future__ import annotations

import pickle
import sys

import pytest

from qnb import errors


@pytest.mark.parametrize("name", errors.__all__)
def test_an_error_comes_whole_out_of_another_process(name: str) -> None:
    error = getattr(errors, name)("the disk of x.bin is full", hint="free some space", log="native words")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.what, copy.hint, copy.log) == (type(error), error.what, error.hint, error.log)
    assert str(copy) == str(error)


@pytest.mark.parametrize("name", errors.__all__)
def test_a_notebook_shows_it_in_few_lines(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # the shell takes its place
    shell = InteractiveShell.instance()
    try:
        shell.history_manager.enabled = False
        error = getattr(errors, name)("the disk of x.bin is full", hint="free some space")
        shell.showtraceback((type(error), error, None))
        shown = capsys.readouterr().out.strip().splitlines()
        assert shown[:2] == [f"{name}: the disk of x.bin is full", "  next: free some space"]
        assert len(shown) <= 3
    finally:
        InteractiveShell.clear_instance()
