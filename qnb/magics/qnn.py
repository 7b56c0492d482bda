"""The magics ``%qnn`` and ``%%qnn`` themselves."""

from __future__ import annotations

import keyword
import sys
import traceback
from collections import ChainMap
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Annotated, Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, needs_local_scope

from qnb import keyvalues, running
from qnb.errors import BadInput, QnbError, UnknownName
from qnb.faces import face as faces
from qnb.faces import names, pages
from qnb.faces.face import Face, Parameter
from qnb.magics import words
from qnb.values import Argument

if TYPE_CHECKING:
    import inspect

    from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

_OUT = pages.Row("-o NAME, --out NAME", "", "Bind the result to this notebook variable; it is shown all the same.")
_PRE = "max-height:32em;overflow:auto;white-space:pre-wrap;background:none;color:inherit;font-size:12px"


class Text:
    """A text that a notebook shows as it is, and scrolls if it is long."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f'<pre style="{_PRE}">{escape(self.text)}</pre>'


def log(result: Annotated[Any, Argument("python", ("Result", "QnbError"))] = None) -> Text:
    """Show all that native code printed, and after an error the full traceback.

    Parameters
    ----------
    result : result, optional
        What a step answered with; by default the last result or error of this notebook.

    Returns
    -------
    Text
        The log.
    """
    return Text(log_of(result))


def log_of(item: object) -> str:
    """Give an error's traceback and native log, or a result's native log."""
    if isinstance(item, BaseException):
        parts = ["".join(traceback.format_exception(item)).rstrip()]
        native = getattr(item, "log", "")
        parts.append(f"native log:\n{native.rstrip()}" if native else "(native code printed nothing)")
        return "\n\n".join(parts)
    title = getattr(item, "title", type(item).__name__)
    native = str(getattr(item, "log", "")).rstrip()
    return f"{title}\n\n{native or '(native code printed nothing)'}"


@magics_class
class QnnMagics(Magics):
    """Runs the steps of qnb from a notebook's lines and cells."""

    shell: InteractiveShell  # never None in a magic that runs
    _last = "nothing has run yet"

    @line_cell_magic
    @needs_local_scope
    def qnn(self, line: str, cell: str | None = None, local_ns: Mapping[str, Any] | None = None) -> Any:
        """Run a step of qnb: ``%qnn STEP …``; ``%qnn`` alone lists the steps, ``%qnn STEP --help`` explains one."""
        namespace = ChainMap(dict(local_ns or {}), self.shell.user_ns)
        try:
            return self._run(line, cell, namespace)
        except BaseException as error:  # an interrupt has a log too
            self.remember(error)
            raise

    def _run(self, line: str, cell: str | None, namespace: Mapping[str, Any]) -> Any:
        quiet = line.rstrip().endswith(";")
        found = words.texts(line.rstrip().rstrip(";"))
        name, rest = (found[0], found[1:]) if found else ("", [])
        if name in ("", "--help", "-h", "help"):
            return self._help(rest[0]) if rest else overview()
        if name == "--version":
            return Text(version())
        face = face_of(name)
        if "--help" in rest or "-h" in rest:
            return self._help(name)
        args, kwargs = self._arguments(face, rest, cell, namespace)
        target = kwargs.pop("out", None)
        if target is not None and (not target.isidentifier() or keyword.iskeyword(target)):
            raise BadInput(f"{target!r} can't name a variable", hint="letters, digits and _, such as -o quantized")
        with running.work(name, line=f"%qnn {line}".rstrip()):
            result = self._log(*args, **kwargs) if name == "log" else face.function(*args, **kwargs)
        if hasattr(result, "log"):
            self.remember(result)
        if target is not None:
            self.shell.user_ns[target] = result
            return None if quiet else result
        return result

    @staticmethod
    def _help(name: str) -> pages.Page:
        return pages.step_page(face_of(name), [_OUT])

    @staticmethod
    def _arguments(
        face: Face, tokens: Sequence[str], cell: str | None, namespace: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        from qnb.faces.binding import parse

        def resolve(parameter: Parameter, word: str) -> Any:
            return names.resolve(parameter, word, namespace)

        usage = pages.usage(face, "magic")
        if cell is None:
            args, kwargs = parse(face, tokens, resolve, usage=usage, extras=extras())
            return args, kwargs
        parameter = face.body
        if parameter is None:
            raise BadInput(f"{face.name} takes no cell body", hint=f"write it on one line: {usage}")
        content = keyvalues.read(cell, f"the {parameter.name} in the cell's body")
        args, kwargs = parse(face, tokens, resolve, usage=usage, extras=extras())
        if parameter.name in kwargs:
            raise BadInput(f"{parameter.option} is given, and the cell has a body too", hint="use one of the two")
        return args, {**kwargs, parameter.name: content}

    def _log(self, result: object = None) -> Text:
        return Text(self._last) if result is None else log(result)

    def remember(self, item: object) -> None:
        """Keep the log of the last result or error; as text, so that it holds no arrays alive."""
        self._last = log_of(item)

    def remember_cell(self, outcome: ExecutionResult) -> None:
        """Keep the log of what a cell without the magic raised or showed: see IPython's ``post_run_cell``."""
        error = outcome.error_in_exec
        if isinstance(error, QnbError):
            self.remember(error)
        elif (results := sys.modules.get("qnb.results")) and isinstance(outcome.result, results.Result):
            self.remember(outcome.result)


def face_of(name: str) -> Face:
    """Find a face by the word after ``%qnn``.

    Raises
    ------
    UnknownName
        If there is none; near names are given.
    """
    if name == "log":
        return faces.read("log", log)
    if name not in known():
        raise UnknownName.among("step", name, known(), hint="%qnn alone lists them")
    return faces.face(name)


def known() -> tuple[str, ...]:
    """All words that may follow ``%qnn``."""
    return (*faces.names(), *faces.verbs(), "log", "help")


def extras() -> list[inspect.Parameter]:
    """Give the magic's own options."""
    from qnb.faces.binding import extra

    return [extra("out", str | None, _OUT.text, alias=("-o",))]


def version() -> str:
    """Name and version."""
    from qnb import __version__

    return f"qnb {__version__}"


def overview() -> pages.Page:
    """What ``%qnn`` alone shows."""
    from qnb.defaults import settings

    rows = pages.Row
    sections = [
        pages.Section(
            "Beside the steps",
            (
                rows("log [RESULT]", "", faces.first_line(log)),
                rows("load FOLDER", "", faces.summary("load")),
                rows("save RESULT FOLDER", "", faces.summary("save")),
                rows("cache [--clean]", "", faces.summary("cache")),
            ),
        ),
        pages.Section(
            "Defaults, set by %config QNN.soc = …",
            tuple(rows(name, "", str(getattr(settings, name))) for name in ("soc", "backend", "runtime")),
        ),
        pages.Section(
            "For instance",
            code=(
                "model = %qnn export net --shapes image=1x3x224x224\n"
                "quantized = %qnn calibrate model images\n"
                '%qnn context quantized --soc "Snapdragon 8 Gen 3" -o compiled\n'
                "%qnn profile quantized --backends htp,cpu",
            ),
        ),
    ]
    steps = [(name, faces.summary(name)) for name in faces.names()]
    return pages.overview(
        "%qnn STEP …",
        steps,
        sections,
        intro="The workflow for Qualcomm QNN, step by step. Notebook variables are named bare; Tab completes steps, "
        "options, SoCs and variables; `%qnn STEP --help` explains one.",
    )
