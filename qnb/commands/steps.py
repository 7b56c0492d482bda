"""The steps as commands, made when they are named: ``qnb.commands.steps.calibrate_command`` is what cyclopts runs for it.

Knows no step by name.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from qnb.commands import FILE, WrongWords
from qnb.errors import BadInput, UnknownName
from qnb.faces import binding
from qnb.faces import face as faces
from qnb.faces.face import Face, Parameter


def __getattr__(name: str) -> Callable[..., Any]:
    step = name.removesuffix("_command")
    if step == name or step not in (*faces.names(), *faces.verbs()):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return command(faces.face(step))


def command(face: Face) -> Callable[..., Any]:
    """Make a command of a face."""
    options = output_options()
    if face.name in faces.verbs():  # they print; only steps make something to keep
        options = tuple(option for option in options if option.name in ("json", "csv"))
    return binding.callable_for(face, resolve, run, extras=options, offers=lambda parameter: not parameter.needs_python)


@cache
def output_options() -> tuple[inspect.Parameter, ...]:
    """Give the options that every command has."""
    import cyclopts

    group = cyclopts.Group("Output", sort_key=5)
    extra = binding.extra
    return (
        extra(
            "out",
            str | None,
            "Save the result to this folder; qnb load opens it.",
            alias=("-o",),
            group=group,
            metavar="FOLDER",
        ),
        extra("force", bool, "Replace a result that was saved there before.", default=False, group=group),
        extra("json", bool, "Print the tables and the recipe as JSON.", default=False, group=group),
        extra("csv", bool, "Print the first table as CSV (RFC 4180).", default=False, group=group),
        extra("log", bool, "Print what native code printed, to stderr.", default=False, group=group),
    )


def resolve(parameter: Parameter, word: str) -> str:
    """Find the file or folder that a word means.

    Raises
    ------
    UnknownName
        If there is none; near names are given.
    """
    path = Path(word).expanduser()
    if not path.exists():
        hint = f"{parameter.metavar} is a path here" + (f" ({parameter.type_text})" if parameter.type_text else "")
        raise UnknownName.among(FILE, word, binding.neighbours(word), hint=hint)
    return str(path)


def run(face: Face, args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    """Run a step and write its result out."""
    out, force, as_json, as_csv, log = (kwargs.pop(name, None) for name in ("out", "force", "json", "csv", "log"))
    if as_json and as_csv:
        raise WrongWords("--json and --csv exclude each other", hint="give one of the two")
    if out is not None:
        _refuse_early(Path(out).expanduser(), bool(force))
    try:
        result = face.function(*args, **kwargs)
    except Exception as error:
        if log and getattr(error, "log", ""):
            sys.stderr.write(f"{error.log.rstrip()}\n")  # type: ignore[attr-defined]
        raise
    if log and getattr(result, "log", ""):
        sys.stderr.write(f"{result.log.rstrip()}\n")
    if as_json:
        print(json.dumps(result.report(), ensure_ascii=False, indent=1))
    elif as_csv:
        write_csv(result.frame)
    else:
        print(result)
    if out is not None:
        folder = result.save(out, overwrite=bool(force))
        sys.stderr.write(f"saved: {folder}\n")
    if face.name in faces.names() and (require := getattr(result, "require", None)) is not None:
        require()  # a result that judges: the process fails where it does
    return 0


def _refuse_early(folder: Path, force: bool) -> None:
    """Say that the folder is taken before the work, not after it; `save` itself looks again."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() and not (force and (folder / "result.json").exists()):
        saved = (folder / "result.json").exists()
        what = f"{folder} holds a saved result" if saved else f"{folder} exists and is not a saved result"
        raise BadInput(what, hint="--force replaces it" if saved else "choose another folder")


def write_csv(frame: Any) -> None:
    """Print a table as CSV: UTF-8, lines ended by CR LF, quotes where needed, whatever this platform's habits."""
    text = frame.to_csv(index=False, lineterminator="\r\n")
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
