"""From words to the arguments of a step, by cyclopts: what the magic and the command line have in common.

How the word for an object (a model, data) becomes that object is the caller's: a notebook variable there, a path here.
Nothing here prints or exits. Knows nothing of notebooks and terminals.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from qnb.errors import BadInput, QnbError, UnknownName
from qnb.faces.face import REQUIRED, Face, Parameter
from qnb.faces.pages import plain

if TYPE_CHECKING:
    import cyclopts

Resolve = Callable[[Parameter, str], Any]
"""Turns the word for an object-typed parameter into the object."""

_KINDS: dict[str, Any] = {
    "positional": inspect.Parameter.POSITIONAL_OR_KEYWORD,
    "many": inspect.Parameter.VAR_POSITIONAL,
    "option": inspect.Parameter.KEYWORD_ONLY,
}


def extra(
    name: str, hint: Any, text: str, *, default: Any = None, alias: Sequence[str] = (), **more: Any
) -> inspect.Parameter:
    """Describe an option that a face adds to the step's own."""
    import cyclopts

    marked = Annotated[hint, cyclopts.Parameter(help=text, alias=tuple(alias), negative=(), show_default=False, **more)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=marked)


def callable_for(
    face: Face,
    resolve: Resolve,
    run: Callable[..., Any],
    *,
    extras: Iterable[inspect.Parameter] = (),
    offers: Callable[[Parameter], bool] = lambda parameter: True,
) -> Callable[..., Any]:
    """Make the function that cyclopts reads in the place of a step.

    Parameters
    ----------
    face : Face
        The step.
    resolve : callable
        Turns words into objects.
    run : callable
        Called as ``run(face, args, kwargs)`` with what was given, defaults left out; `kwargs` has the extras too.
    extras : iterable of inspect.Parameter
        Options of the caller's own: see `extra`.
    offers : callable
        Whether a parameter can be given here.
    """

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        return run(face, args, kwargs)

    own = [
        inspect.Parameter(p.name, _KINDS[p.place], annotation=_annotation(p, resolve))
        if p.place == "many"
        else inspect.Parameter(p.name, _KINDS[p.place], default=p.default, annotation=_annotation(p, resolve))
        for p in face.parameters
        if offers(p)
    ]
    stand_in.__signature__ = inspect.Signature([*own, *extras])  # type: ignore[attr-defined]
    stand_in.__name__ = face.name
    stand_in.face = face  # type: ignore[attr-defined]
    stand_in.__doc__ = plain("\n\n".join(t for t in (face.summary, face.description) if t))
    return stand_in


def _annotation(parameter: Parameter, resolve: Resolve) -> Any:
    import cyclopts

    def marked(hint: Any, converter: Callable[..., Any] | None = None) -> Any:
        marks = cyclopts.Parameter(
            help=plain(parameter.help),
            converter=converter,
            negative_iterable=(),
            show_choices=False,  # the metavar shows them
            metavar=parameter.metavar or None,
            show_default=_shown if parameter.default not in (None, False, REQUIRED) else False,
        )
        place = cyclopts.Parameter(group="Arguments") if parameter.place != "option" else None
        return Annotated[hint, cyclopts.Parameter.combine(marks, place)]

    if parameter.marker is not None:
        return marked(str, lambda _, tokens: resolve(parameter, tokens[0].value))
    if parameter.is_mapping:
        read = numbers if parameter.mapped is float else dimensions
        return marked(list[str], lambda _, tokens: read(parameter, [t.value for t in tokens]))
    if parameter.item is not None:
        return marked(list[str], lambda _, tokens: _sequence(parameter, [t.value for t in tokens]))
    if len(parameter.members) > 1 and str in parameter.members:
        return marked(str)
    return marked(parameter.hint)


def _shown(default: Any) -> str:
    return (
        ",".join(map(str, default)) if isinstance(default, list | tuple) else "on" if default is True else str(default)
    )


def _sequence(parameter: Parameter, words: Sequence[str]) -> Any:
    """Several values, repeated or with commas; one alone stays alone where the step takes that."""
    parts = [part.strip() for word in words for part in word.split(",") if part.strip()]
    if parameter.choices:
        for part in parts:
            if part not in parameter.choices:
                raise UnknownName.among(f"value of {parameter.option}:", part, parameter.choices)
    elif parameter.item in (int, float):
        parts = [_number(parameter, part) for part in parts]
    return parts[0] if parameter.alone and len(parts) == 1 else parts


def _number(parameter: Parameter, word: str) -> Any:
    try:
        return parameter.item(word)
    except ValueError:
        raise BadInput(
            f"{parameter.option}: {word!r} is not a number", hint=f"write {parameter.option} 1,2,3"
        ) from None


def dimensions(parameter: Parameter, words: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Read dimensions by name: ``image=1,3,224,224`` or ``image:1x3x224x224``, several apart by spaces or semicolons.

    Raises
    ------
    BadInput
        If a word is not of that form, or a name comes twice.
    """
    found: dict[str, tuple[int, ...]] = {}
    for word in (w for text in words for w in re.split(r"[;\s]+", re.sub(r",\s+", ",", text)) if w):
        match = re.fullmatch(r"(.+)[=:]\(?\[?(\d+(?:[x×,]\d+)*|)[x×,]?\]?\)?", word)
        if not match or match[1] in found:
            why = "comes twice" if match else "is not NAME=DIMS"
            raise BadInput(
                f"{parameter.option}: {word!r} {why}",
                hint=f"write {parameter.option} image=1x3x224x224, once for each input",
            )
        found[match[1]] = tuple(int(n) for n in re.split("[x×,]", match[2]) if n)
    return found


def numbers(parameter: Parameter, words: Iterable[str]) -> dict[str, float]:
    """Read numbers by name: ``SM8550=3.2``, several apart by commas or spaces.

    Raises
    ------
    BadInput
        If a word is not of that form, or a name comes twice.
    """
    found: dict[str, float] = {}
    for word in (w for text in words for w in re.split(r"[,;\s]+", text) if w):
        name, _, number = word.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = None
        if not name or value is None or name in found:
            why = "comes twice" if name in found else "is not NAME=NUMBER"
            raise BadInput(f"{parameter.option}: {word!r} {why}", hint=f"write {parameter.option} SM8550=3.2")
        found[name] = value
    return found


def app(name: str, function: Callable[..., Any]) -> cyclopts.App:
    """Give a cyclopts app of one function, which neither prints nor exits."""
    import cyclopts

    return cyclopts.App(
        name=name,
        default_command=function,
        version_flags=(),
        help_flags=(),
        help_format="plaintext",
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
    )


def parse(
    face: Face,
    tokens: Sequence[str],
    resolve: Resolve,
    *,
    usage: str,
    extras: Iterable[inspect.Parameter] = (),
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Turn words into arguments.

    Parameters
    ----------
    face : Face
        The step.
    tokens : sequence of str
        The words, without the step's name.
    resolve : callable
        Turns words into objects.
    usage : str
        The usage line, for messages.
    extras : iterable of inspect.Parameter
        Options of the caller's own.

    Returns
    -------
    tuple
        Arguments by place, and by name; defaults are left out.

    Raises
    ------
    BadInput
        If the words don't fit; an unknown option comes with near names.
    """
    import cyclopts

    options = list(extras)
    function = callable_for(face, resolve, lambda _face, args, kwargs: (args, kwargs), extras=options)
    try:
        command, bound, _ = app(face.name, function).parse_args(list(tokens), print_error=False, exit_on_error=False)
    except cyclopts.CycloptsError as error:
        names = [flag for o in options for flag in option_names(o)]
        raise worded(error, face, usage=usage, more_options=names) from error
    args, kwargs = command(*bound.args, **bound.kwargs)
    return args, kwargs


def option_names(option: inspect.Parameter) -> list[str]:
    """All ways to write an extra option."""
    marker = option.annotation.__metadata__[0]
    return [f"--{option.name.replace('_', '-')}", *marker.alias]


def worded(error: cyclopts.CycloptsError, face: Face, *, usage: str, more_options: Sequence[str] = ()) -> QnbError:
    """Say in our own words what cyclopts found wrong."""
    from cyclopts import exceptions as ex

    if isinstance(error.__cause__, QnbError):
        return error.__cause__
    hint = f"usage: {usage}"
    parameter = face.by_name.get(error.argument.field_info.name) if error.argument is not None else None
    if isinstance(error, ex.UnknownOptionError):
        known = [flag for p in face.parameters for flag in (p.option, p.negative) if flag]
        return UnknownName.among(
            f"option of {face.name}:", error.token.keyword or error.token.value, [*known, *more_options], hint=hint
        )
    if isinstance(error, ex.UnusedCliTokensError):
        extra_words = " ".join(error.unused_tokens or ())
        return BadInput(f"{face.name}: too many arguments: {extra_words}", hint=hint)
    if isinstance(error, ex.MissingArgumentError):
        if parameter is not None and error.keyword is None and parameter.required:
            about = f" ({plain(parameter.type_text)})" if parameter.type_text else ""
            return BadInput(f"{face.name}: {parameter.metavar} is missing{about}", hint=hint)
        flag = error.keyword or (parameter.option if parameter else "an option")
        return BadInput(f"{face.name}: {flag} needs a value", hint=hint)
    if isinstance(error, ex.CoercionError) and parameter is not None:
        value = error.token.value if error.token is not None else "its value"
        if parameter.choices:
            return UnknownName.among(f"value of {parameter.option}:", value, parameter.choices)
        what = {int: "a whole number", float: "a number", bool: "on or off"}
        wanted = next((what[m] for m in parameter.members if m in what), plain(parameter.type_text) or "that")
        return BadInput(f"{face.name}: {parameter.option} takes {wanted}, not {value!r}", hint=hint)
    return BadInput(f"{face.name}: {' '.join(str(error).split())}", hint=hint)


def neighbours(path: str) -> list[str]:
    """Give the files beside a path, as one would write them, for a did-you-mean."""
    try:
        return sorted(str(p) for p in Path(path).expanduser().parent.iterdir())[:1000]
    except OSError:
        return []
