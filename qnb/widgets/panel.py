"""The panel that all dashboards are: cards with fields, a line, a state and a result; which cards, it does not know."""

from __future__ import annotations

import dataclasses
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import traitlets

from qnb.display import tables as html_tables
from qnb.display.style import png
from qnb.errors import BadInput, QnbError, UnknownName
from qnb.results import Result
from qnb.widgets import view
from qnb.widgets.card import Card, Namespace
from qnb.widgets.main_thread import MainThread
from qnb.widgets.saved import DPI, Saved, Shown, size_of
from qnb.widgets.task import State, Task, failure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Panel", "Pictured", "front", "user_namespace"]

_FRONT = Path(__file__).parent / "front"
_LOG = 20_000
_SAVED_ROWS = 20


def front(*files: str) -> str:
    """Give the text of front-end files, one after the other: a widget's module can't import its neighbours."""
    return "\n".join((_FRONT / name).read_text(encoding="utf-8") for name in files)


def user_namespace() -> Namespace:
    """Give the notebook's variables; a new namespace where there is no notebook."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return {} if shell is None else shell.user_ns


class Pictured:
    """The charts of a result, and which of them is shown."""

    def __init__(self, result: Any) -> None:
        self.charts: list[tuple[str, Callable[[], Figure]]] = view.charts(result)
        self.chosen = 0
        self.png = b""
        self.width = 0
        self.problem = ""

    def draw(self) -> None:
        """Draw the chosen one; what it has no figures for is said."""
        self.png, self.problem = b"", ""
        if not self.charts:
            return
        caption, make = self.charts[self.chosen]
        try:
            figure = make()
        except QnbError as error:
            self.problem = f"no chart “{caption}”: {error.what.splitlines()[0]}"
            return
        self.png, (self.width, _) = png(figure, dpi=DPI), size_of(figure)

    @property
    def caption(self) -> str:
        """Of the chosen one."""
        return self.charts[self.chosen][0] if self.charts else ""


class Panel(anywidget.AnyWidget):
    """Cards that are run one after the other, each in a thread, while other cells run.

    Attributes
    ----------
    title, columns, cards, states, results, pictures, tiles
        What the view shows, as plain values; written here alone.
    """

    _esm: ClassVar[str] = front("common.js", "panel.js")
    _css: ClassVar[str] = front("common.css")

    _independent: ClassVar[bool] = False
    """Whether a card is of use where the one before it failed."""

    _open = False  # an object that could not be made is closed, too

    title = traitlets.Unicode().tag(sync=True)
    columns = traitlets.Int(1).tag(sync=True)
    cards: traitlets.List[Any] = traitlets.List().tag(sync=True)
    states = traitlets.Dict().tag(sync=True)
    results = traitlets.Dict().tag(sync=True)
    pictures = traitlets.Dict().tag(sync=True)
    tiles: traitlets.List[Any] = traitlets.List().tag(sync=True)
    problem = traitlets.Dict().tag(sync=True)

    def __init__(self, title: str, cards: Sequence[Card], namespace: Namespace | None = None, columns: int = 1) -> None:
        super().__init__(title=title, columns=columns)
        self.namespace = user_namespace() if namespace is None else namespace
        self._cards = {card.id: card for card in cards}
        self._states = {card.id: State() for card in cards}
        self._pictured: dict[str, Pictured] = {}
        self._main = MainThread()
        self._saved = Saved()
        self._lock = threading.RLock()
        self._task: Task | None = None
        self._queue: Sequence[Card] = ()
        self._open = True
        self.on_msg(self._heard)
        self._refresh()
        self._tell()

    # --- what others call ---------------------------------------------------------------------------------------------

    def set(self, card: str, **chosen: object) -> None:
        """Choose fields of a card: words, as one would write them on the line.

        Parameters
        ----------
        card : str
            Its step, such as ``calibrate``.
        **chosen : str, bool or list of str
            By parameter; ``target`` is the variable that the result gets.

        Raises
        ------
        UnknownName
            If there is no such card or field.
        BadInput
            If it is no such value.
        """
        found = self._card(card)
        for name, value in chosen.items():
            before = found.target
            found.set(name, value)
            if name == "target":
                self._renamed(found, before)
        self._refresh()

    def line(self, card: str) -> str:
        """Give the ``%qnn`` line that does what the card does."""
        return self._card(card).line

    def state(self, card: str) -> State:
        """Give the state of a card."""
        return self._states[self._card(card).id]

    def result(self, card: str) -> Any:
        """Give what the card's step answered last; None before."""
        return self._card(card).result

    def run(self, *cards: str) -> None:
        """Run cards one after the other, in a thread; other cells run meanwhile. All of them where none is named.

        Raises
        ------
        BadInput
            If one is running, or the panel is closed.
        """
        chosen = [self._card(name) for name in cards] or list(self._cards.values())
        with self._lock:
            if not self._open:
                raise BadInput(f"{self.title} is closed", hint="make a new one")
            if self._task is not None and self._task.is_alive():
                raise BadInput("a step is running", hint="wait for its end, or cancel it")
            self._start(chosen)

    def cancel(self) -> None:
        """Stop what runs; what was finished before is kept."""
        if (task := self._task) is not None:
            self._queue = ()
            task.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs, and draw what is to be drawn.

        Parameters
        ----------
        timeout : float, optional
            Seconds.

        Returns
        -------
        bool
            Whether all is over.
        """
        while (task := self._task) is not None:
            task.join(timeout)
            if task.is_alive():
                return False
            if self._task is task:
                break
        self._main.serve()
        return True

    def choose(self, card: str, chart: int) -> None:
        """Show another chart of a card's result, by number."""
        pictured = self._pictured.get(self._card(card).id)
        if pictured is None or not 0 <= chart < len(pictured.charts):
            raise BadInput(f"{card} has no chart {chart}", hint="run the card first; charts are counted from 0")
        pictured.chosen = chart
        self._main.call(lambda: self._draw(card))

    def close(self) -> None:
        """Stop what runs, give the workers back, and take the view away; results stay in their variables."""
        if self._open:
            self._open = False
            self.cancel()
            if (task := self._task) is not None and task is not threading.current_thread():
                task.join(30)
            self.on_msg(self._heard, remove=True)
            self._saved.close()
        super().close()

    def __repr__(self) -> str:
        states = ", ".join(f"{name} {state.state}" for name, state in self._states.items())
        return f"<{type(self).__name__}: {states}>"

    def _ipython_display_(self) -> None:
        self._saved.show(self._shown(), self.model_id, repr(self))

    # --- what a kind of panel may add ---------------------------------------------------------------------------------

    def _finished(self, card: Card) -> None:
        """Look at a result; called in the thread of the work."""

    def _tiles(self) -> list[dict[str, str]]:
        """Give the figures at the top."""
        return []

    # --- running ------------------------------------------------------------------------------------------------------

    def _start(self, cards: Sequence[Card]) -> None:
        first, *rest = cards
        self._queue = rest
        task = Task(
            lambda: first.run(self.namespace),
            title=first.id,
            line=first.line,
            tell=lambda state: self._told(first, state),
        )
        self._task = task
        task.start()

    def _told(self, card: Card, state: State) -> None:
        with self._lock:
            self._states[card.id] = state
            if state.state == "done":
                try:
                    self._finished(card)
                    self._take(card)
                except Exception as error:
                    self._states[card.id] = failure(error, state.seconds)
            self._tell()
        if state.state in ("done", "failed", "cancelled"):
            if state.state != "done":
                self._log(card.id, state.log)
            self._main.call(lambda: self._draw(card.id))
            with self._lock:
                goes_on = state.state == "done" or (state.state == "failed" and self._independent)
                if goes_on and self._queue and self._open:
                    self._start(self._queue)

    def _take(self, card: Card) -> None:
        """Show the result of a card, but for its chart."""
        result = card.result
        pictured = self._pictured[card.id] = Pictured(result)
        said = {
            "title": getattr(result, "title", ""),
            "notes": [str(note) for note in getattr(result, "notes", ())],
            "tables": view.tables(result),
            "charts": [caption for caption, _ in pictured.charts],
            "log": str(getattr(result, "log", "") or "")[-_LOG:],
        }
        self.results = {**self.results, card.id: said}
        self._refresh()

    def _log(self, card: str, log: str) -> None:
        empty = {"title": "", "notes": [], "tables": [], "charts": []}
        self.results = {**self.results, card: {**self.results.get(card, empty), "log": log[-_LOG:]}}

    def _draw(self, card: str) -> None:
        """Draw the chart of a card; in the main thread."""
        if not self._open:
            return
        pictured = self._pictured.get(card)
        if pictured is not None:
            try:
                pictured.draw()
            except Exception as error:
                pictured.problem = f"no chart: {type(error).__name__}: {error}"
            shown = {
                "png": pictured.png, "crc": zlib.crc32(pictured.png), "alt": f"chart: {pictured.caption}",
                "width": pictured.width,
                "chart": pictured.chosen, "problem": pictured.problem,
            }  # fmt: skip
            self.pictures = {**self.pictures, card: shown}
        if self._saved.wanted:
            self._saved.update(self._shown())

    # --- telling ------------------------------------------------------------------------------------------------------

    def _card(self, name: str) -> Card:
        if name not in self._cards:
            raise UnknownName.among("card", name, self._cards)
        return self._cards[name]

    def _renamed(self, card: Card, before: str) -> None:
        """Let the cards that name a result by its variable name it by the new one."""
        if card.result is not None:
            self.namespace[card.target] = card.result
        for other in self._cards.values():
            for chosen in other.fields.values():
                if chosen.value == before and chosen.parameter.marker is not None:
                    chosen.value = card.target
                elif isinstance(chosen.value, str) and chosen.parameter.place == "many":
                    chosen.value = " ".join(card.target if w == before else w for w in chosen.value.split())

    def _refresh(self) -> None:
        self.cards = [card.plain(self.namespace) for card in self._cards.values()]
        self.tiles = self._tiles()

    def _tell(self) -> None:
        if self._open:
            self.states = {name: state.plain() for name, state in self._states.items()}

    def _heard(self, _: object, message: Mapping[str, Any], __: object) -> None:
        """Do what the view asks for; what goes wrong shows in the card, or at the top where it is no card's."""
        card = message.get("card")
        try:
            self.problem = {}
            match message.get("do"):
                case "set":
                    self.set(str(card), **{str(message["name"]): message["value"]})
                case "run":
                    self.run(*([str(card)] if card else []))
                case "cancel":
                    self.cancel()
                case "choose":
                    self.choose(str(card), int(message["chart"]))
                case "refresh":
                    self._refresh()
                case other:
                    raise BadInput(f"the view asks for {other!r}", hint="reload the page")
        except Exception as error:
            state = failure(error)
            if card in self._states and message.get("do") == "run":
                self._states[card] = state
                self._log(card, state.log)
                self._tell()
            else:
                self.problem = {**(state.error or {}), "card": card}
                self._refresh()

    def _shown(self) -> Shown:
        """What stays of the panel in a saved notebook."""
        shown = Shown(self.title)
        for tile in self.tiles:
            shown.text(
                f"{tile['group']} {tile['name']}: {tile['value']} {tile['unit']} ({tile['source']})".replace("  ", " ")
            )
        for card in self._cards.values():
            state = self._states[card.id]
            if state.state == "idle":
                continue
            seconds = f" in {state.seconds:.1f} s" if state.seconds else ""
            shown.text(f"{card.title}: {state.state}{seconds}" if card.action else card.title, "h4")
            if card.action:
                shown.text(card.line, "code")
            if state.error:
                shown.text(f"{state.error['kind']} {state.error['what']}".strip())
                if state.error["hint"]:
                    shown.text(f"next: {state.error['hint']}")
            elif isinstance(card.result, Result):
                frame = card.result.frame
                left = len(frame) - _SAVED_ROWS
                notes = [f"and {left} rows more"] if left > 0 else []
                title = card.result.title if card.action else ""  # a card without one has the result's title
                shown.parts.append(html_tables.html(frame.iloc[:_SAVED_ROWS], title=title, notes=notes))
            if state.state == "done" and (pictured := self._pictured.get(card.id)) is not None and pictured.png:
                shown.picture(pictured.png, f"{card.title}: {pictured.caption}")
        return shown

    def _done(self, card: Card, result: Any) -> None:
        """Show a result that is there already."""
        card.result = result
        self._states[card.id] = dataclasses.replace(State("done"), log=str(getattr(result, "log", "") or ""))
        self._take(card)
        self._tell()
        self._draw(card.id)
