"""The ``qnb`` command: the steps in a terminal.

Turns words and paths into a step's arguments, and writes its result out. Knows no step by name, and must hold no logic
of any.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qnb.errors import BadInput, QnbError, UnknownName

if TYPE_CHECKING:
    import cyclopts


class WrongWords(BadInput):
    """Words that do not fit together; the exit code says so."""


FAILED, USAGE, INTERRUPTED = 1, 2, 130
FILE = "file or folder"
"""What an argument that is a path names."""

_EPILOGUE = (
    "Objects are paths here: an ONNX file, the folder of a saved result, data files and folders, JSON or YAML files.\n\n"
    "For instance:  qnb export net.onnx --out model  ·  qnb calibrate model images --out quantized  ·  "
    "qnb profile quantized --csv"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after ``qnb``; by default this process's.

    Returns
    -------
    int
        Exit code: 0 done, 1 a step failed, 2 the words do not fit, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without our dashes and arrows must not end in an error
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as error:  # also our own Interrupted
        _complain(error if isinstance(error, QnbError) else "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has had enough (| head); Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except QnbError as error:
        if os.environ.get("QNB_TRACEBACK", "0") != "0":
            raise
        _complain(error)
        return USAGE if isinstance(error, WrongWords) or _is_option_value(error, words) else FAILED


def _is_option_value(error: QnbError, words: Sequence[str]) -> bool:
    """Whether a name that a step does not know is what an option was given: ``--soc SM9999``."""
    if not isinstance(error, UnknownName) or not error.name or error.kind == FILE:
        return False
    given = [word.partition("=")[2] for word in words if word.startswith("-")]
    given += [word for flag, word in pairwise(words) if flag.startswith("-")]
    return any(error.name in re.split(r"[,:;=\s]+", word) or error.name == word for word in given)


def _run(words: list[str]) -> int:
    import cyclopts

    from qnb import running
    from qnb.defaults import settings
    from qnb.faces import face as faces

    settings.progress = settings.progress and sys.stderr.isatty()
    if words == ["--version"]:
        from qnb import __version__

        print(f"qnb {__version__}")
        return 0
    command = app(words[0] if words else "")
    try:
        function, bound, _ = command.parse_args(words, print_error=False, exit_on_error=False)
    except cyclopts.CycloptsError as error:
        if isinstance(error.__cause__, UnknownName) and error.__cause__.kind == FILE:
            raise error.__cause__ from None  # the words fit; a file is missing
        _complain(_worded(error, words))
        return USAGE
    is_step = bool(words) and words[0] in faces.names()
    with running.work(words[0], line=shlex.join(["qnb", *words])) if is_step else contextlib.nullcontext():
        outcome = function(*bound.args, **bound.kwargs)
    return outcome if isinstance(outcome, int) else 0


def _worded(error: cyclopts.CycloptsError, words: Sequence[str]) -> QnbError:
    from cyclopts.exceptions import UnknownCommandError, UnknownOptionError

    from qnb.commands import steps
    from qnb.faces import binding, pages

    face = getattr(error.target, "face", None)
    if face is not None:
        own = [flag for option in steps.output_options() for flag in binding.option_names(option)]
        return binding.worded(error, face, usage=pages.usage(face, "command"), more_options=own)
    if isinstance(error, UnknownCommandError) and not (error.unused_tokens or words)[0].startswith("-"):
        known = [name for name in _registered(words) if not name.startswith("-")]
        unknown = (error.unused_tokens or words)[0]
        return UnknownName.among("command", unknown, known, hint="qnb --help lists them")
    if isinstance(error, UnknownOptionError | UnknownCommandError) and not error.command_chain:
        unknown = next((word for word in words if word.startswith("-")), words[0])
        return UnknownName.among("option", unknown, ["--help", "--version"], hint="qnb --help shows what there is")
    return BadInput(" ".join(str(error).split()), hint=f"see qnb {' '.join([*(error.command_chain or ()), '--help'])}")


def _registered(words: Sequence[str]) -> list[str]:
    command = app()
    for word in words[:-1]:
        if word not in command:
            break
        command = command[word]
    return list(command)


def _complain(error: QnbError | str) -> None:
    if isinstance(error, QnbError):
        error = f"{type(error).__name__}: {error}"
    tint = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    kind, colon, rest = error.partition(":")
    sys.stderr.write(f"\x1b[31m{kind}\x1b[39m{colon}{rest}\n" if tint else f"{error}\n")


def app(named: str = "") -> cyclopts.App:
    """Give the cyclopts app.

    Parameters
    ----------
    named : str
        The command that the words begin with. Only if it is a step is a step's module imported, that one.
    """
    import cyclopts

    from qnb import __version__
    from qnb.commands import others
    from qnb.faces import face as faces
    from qnb.faces import pages

    command = cyclopts.App(
        name="qnb",
        help="The notebook workbench for Qualcomm QNN, in a terminal: every step of the workflow is a command.",
        help_epilogue=_EPILOGUE,
        help_format="plaintext",
        version=f"qnb {__version__}",
        result_action="return_value",
        default_parameter=cyclopts.Parameter(negative_iterable=()),
        group_commands=cyclopts.Group("Beside the steps", sort_key=2),
        group_arguments=cyclopts.Group("Arguments", sort_key=0),
        group_parameters=cyclopts.Group("Options", sort_key=1),
    )
    flags = cyclopts.Group("Help", sort_key=9)
    for flag in ("--help", "--version"):
        command[flag].group = (flags,)
    steps = cyclopts.Group("Steps", sort_key=1)
    for position, name in enumerate((*faces.names(), "load", "cache")):
        about: dict[str, Any] = {"help": faces.summary(name), "help_epilogue": "", "sort_key": position}
        if name == named:
            face = faces.face(name)
            about |= {"help": pages.plain(f"{face.summary}\n\n{face.description}".rstrip())}
            about |= {"usage": f"Usage: {pages.usage(face, 'command')}"}
        if name in faces.names():
            about["group"] = steps
        command.command(f"qnb.commands.steps:{name}_command", name=name, **about)
    others.register(command)
    command.register_install_completion_command(help="Install completion for this shell (bash, zsh, fish, PowerShell).")
    return command
