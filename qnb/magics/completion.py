"""What Tab offers on a line with ``%qnn``: steps, options, choices, SoCs, variables that fit, and files.

A matcher of IPython's completer (API version 2), so that it works in terminals, in notebooks, and after ``x = ``.
Holds no logic of steps: all is read from their faces.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from qnb.errors import QnbError
from qnb.faces import names
from qnb.faces.face import Face, Parameter
from qnb.magics import qnn, words

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_LINE = re.compile(r"^\s*(?:[^=%]+=\s*)?%{1,2}qnn(?P<rest>\s.*)$", re.DOTALL)
_SUFFIXES: dict[str, tuple[str, ...]] = {
    "model": (".onnx",),
    "source": (".onnx",),
    "data": (".npy", ".npz", ".raw", ".txt", ".png", ".jpg", ".jpeg"),
    "labels": (".npy", ".npz", ".txt", ".csv"),
    "overrides": (".json", ".yaml", ".yml", ".encodings"),
    "config": (".json", ".yaml", ".yml"),
    "saved": (),
}
_LIMIT = 500
Offer = tuple[str, str]
"""What is inserted, and its kind as IPython shows it."""


class Completion:
    """Completes for one shell."""

    def __init__(self, ip: InteractiveShell) -> None:
        self._ip = ip
        self.matcher = self._matcher()

    def _matcher(self) -> Callable[[CompletionContext], Any]:
        def match(context: CompletionContext) -> dict[str, Any]:
            found = _LINE.match(context.text_until_cursor)
            if not found:
                return {"completions": [], "suppress": False}
            fragment, offers = self.offers(found["rest"])
            return {
                "completions": [SimpleCompletion(text=text, type=kind) for text, kind in offers[:_LIMIT]],
                "matched_fragment": fragment,
                "suppress": True,
                "ordered": True,
            }

        marked: Callable[[CompletionContext], Any] = context_matcher(identifier="qnb.qnn", priority=200)(match)
        return marked

    def offers(self, line: str) -> tuple[str, list[Offer]]:
        """Complete the end of a line.

        Parameters
        ----------
        line : str
            What follows ``%qnn``, up to the cursor.

        Returns
        -------
        tuple
            The fragment that is completed, as it stands in the line, and what may take its place.
        """
        found = words.split(line)
        open_word = found[-1] if found and found[-1].end == len(line) else None
        fragment = line[open_word.start :] if open_word else ""
        before = [word.text for word in (found[:-1] if open_word else found)]
        try:
            offers = list(self._offers(before, fragment))
        except QnbError:
            return fragment, []
        # After ``--soc=`` only the value is the fragment.
        if fragment.startswith("--") and "=" in fragment:
            fragment = fragment.partition("=")[2]
        return fragment, offers

    def _offers(self, before: list[str], fragment: str) -> Iterator[Offer]:
        if not before:
            yield from _starting(fragment, ((name, "magic") for name in (*qnn.known(), "--help", "--version")))
            return
        if before[0] == "help":
            yield from _starting(fragment, ((name, "magic") for name in qnn.known()))
            return
        face = qnn.face_of(before[0])
        state = _read(face, before[1:])
        if state.waiting == "--out":
            return
        if fragment.startswith("--") and "=" in fragment:
            option, _, value = fragment.partition("=")
            parameter = next((p for p in face.parameters if p.option == option), None)
            if parameter is not None:
                yield from self._values(parameter, value)
        elif state.parameter is not None:
            yield from self._values(state.parameter, fragment)
        elif fragment.startswith("-"):
            yield from _starting(fragment, _options(face, state.used))
        else:
            if state.positional is not None:
                yield from self._values(state.positional, fragment)
            if not fragment:
                yield from _options(face, state.used)

    def _values(self, parameter: Parameter, fragment: str) -> Iterator[Offer]:
        if parameter.marker is not None:
            namespace = self._ip.user_ns
            hidden: Mapping[str, Any] = getattr(self._ip, "user_ns_hidden", {})
            for name in names.fitting_names(parameter, namespace):
                if name not in hidden or namespace[name] is not hidden[name]:
                    yield from _starting(fragment, [(name, "instance")])
            yield from _items(fragment, namespace)
            if parameter.takes_path:
                yield from _files(fragment, _SUFFIXES.get(parameter.marker.kind))
            return
        # Of a list with commas, the last item is completed.
        head, comma, last = fragment.rpartition(",") if parameter.item is not None else ("", "", fragment)
        taken = head.split(",")
        for text, kind in (offer for offer in _known(parameter) if offer[0] not in taken):
            yield from _starting(last, [(text, kind)], head + comma)
        if parameter.place == "positional" and str in parameter.members:
            yield from _files(fragment, None)


class _State:
    """What a line so far says: options given, the one that waits for its value, and the place that is next."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        self.waiting = ""
        self.parameter: Parameter | None = None
        self.positional: Parameter | None = None


def _read(face: Face, before: Iterable[str]) -> _State:
    state = _State()
    flags = {flag: p for p in face.parameters for flag in (p.option, p.negative) if flag}
    filled = 0
    for word in before:
        option = word.partition("=")[0]
        if state.waiting:
            state.waiting, state.parameter = "", None
        elif option in ("-o", "--out"):
            state.used.add("--out")
            state.waiting = "" if "=" in word else "--out"
        elif option in flags:
            parameter = flags[option]
            state.used |= {parameter.option, parameter.negative}
            if not parameter.negative and "=" not in word:
                state.waiting, state.parameter = option, parameter
        elif not word.startswith("-"):
            filled += 1
    places = [p for p in face.positionals if p.option not in state.used]
    if filled < len(places):
        state.positional = places[filled]
    elif places and places[-1].place == "many":
        state.positional = places[-1]
    return state


def _options(face: Face, used: set[str]) -> Iterator[Offer]:
    for parameter in face.parameters:
        if parameter.place != "option" or (parameter.option in used and not (parameter.is_mapping or parameter.item)):
            continue
        yield (parameter.negative if parameter.default is True else parameter.option), "param"
    yield from ((option, "param") for option in ("--out", "--help") if option not in used)


def _known(parameter: Parameter) -> Iterator[Offer]:
    """The values that are known of a plain parameter."""
    yield from ((choice, "constant") for choice in parameter.choices)
    if parameter.name == "soc":
        yield from ((label, "constant") for label in _socs())
    elif parameter.name == "runtime":
        from qnb.runtime.locate import runtimes

        yield from ((runtime.version, "constant") for runtime in runtimes())
    elif parameter.name == "performance_mode":
        from qnb.runtime.options import PERFORMANCE_MODES

        yield from ((mode, "constant") for mode in PERFORMANCE_MODES)


@cache
def _socs() -> tuple[str, ...]:
    from qnb.socs import table

    usable = [soc for soc in table() if soc.usable]
    return tuple(dict.fromkeys([*(s.part for s in usable), *(s.name for s in usable if s.name)]))


def _starting(fragment: str, offers: Iterable[Offer], head: str = "") -> Iterator[Offer]:
    """Offer what begins with the fragment, whatever its case; quoted where it has spaces."""
    bare = fragment.lstrip("\"'").lower()
    quote = fragment[:1] if fragment[:1] in ("'", '"') else ""
    for text, kind in offers:
        if text.lower().startswith(bare):
            mark = quote or ('"' if " " in text else "")
            yield f"{head}{mark}{text}{mark}", kind


def _items(fragment: str, namespace: Mapping[str, Any]) -> Iterator[Offer]:
    """Keys of a mapping, or SoCs of compiled contexts, after an opened bracket: ``contexts["``."""
    match = re.fullmatch(r"(?P<root>[A-Za-z_]\w*)\[(?P<key>[^\]]*)", fragment)
    if not match or match["root"] not in namespace:
        return
    value = namespace[match["root"]]
    keys = list(value) if isinstance(value, Mapping) else [c.soc.part for c in getattr(value, "contexts", ())]
    typed = match["key"].lstrip("\"'")
    mark = match["key"][:1] or '"'
    for key in keys:
        if isinstance(key, str) and key.startswith(typed):
            yield f"{match['root']}[{mark}{key}{mark}]", "instance"


def _files(fragment: str, suffixes: tuple[str, ...] | None) -> Iterator[Offer]:
    """Folders, and files of fitting suffix."""
    typed = fragment.lstrip("\"'")
    head, slash, start = typed.rpartition("/")
    folder = Path(head + slash).expanduser() if slash else Path()
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith(start) or (entry.name.startswith(".") and not start.startswith(".")):
            continue
        if entry.is_dir():
            kind, end = "path", "/"
        elif suffixes is None or entry.name.lower().endswith(suffixes or ("\0",)):
            kind, end = "path", ""
        else:
            continue
        text = f"{head}{slash}{entry.name}{end}"
        yield from _starting(fragment, [(text, kind)])
