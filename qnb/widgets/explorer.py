"""The explorer of a calibration: how a tensor's values lie on its grid, and what another range or bit width would do.

Figures are those of `qnb.quant.trial`, from counted values; none is made here or in the view.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import traitlets

from qnb.artifacts import Quantized
from qnb.display import tables as html_tables
from qnb.display.style import clean, number, png, source_notes
from qnb.errors import BadInput, QnbError, UnknownName
from qnb.faces import face as faces
from qnb.faces import lines
from qnb.quant import encoding_files
from qnb.quant.encodings import Encodings
from qnb.steps._common import as_measured
from qnb.steps._distributions import distributions
from qnb.steps.check import Check
from qnb.widgets.card import Namespace, free_name, held_as, name_of
from qnb.widgets.main_thread import MainThread
from qnb.widgets.panel import front, user_namespace
from qnb.widgets.saved import DPI, Saved, Shown
from qnb.widgets.task import State, Task, failure
from qnb.widgets.tensors import BITS, Choice, Tensor, around, checked, counted, rows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["CalibrationExplorer"]

_SAVED_ROWS = 20


class CalibrationExplorer(anywidget.AnyWidget):
    """Pick a tensor, drag the ends of its range, change its bits, and see MSE, SQNR and what is clipped move.

    Values are counted once, in a worker process, while other cells run. What was changed is saved as an encodings file for
    ``calibrate(overrides=…)``.

    Parameters
    ----------
    subject : Quantized or Check
        Whose activations; a `Check` has counted them already, around each grid.
    data : array, dict, DataLoader, folder or file
        Samples, for a `Quantized`.
    samples : int, optional
        Use at most so many.
    namespace : mapping, optional
        Where variables are; by default the notebook's.

    Attributes
    ----------
    tensor : str
        The one that is shown.
    low, high : float
        Ends of its range, in the tensor's own unit.
    bits : int
        8 or 16.
    symmetric : bool
        Whether zero is in the middle of the grid.

    Raises
    ------
    BadInput
        If it is neither, or there is no data.

    Examples
    --------
    >>> from qnb.widgets import CalibrationExplorer
    >>> explorer = CalibrationExplorer(quantized, images)
    """

    _esm: ClassVar[str] = front("common.js", "explorer.js")
    _css: ClassVar[str] = front("common.css", "explorer.css")

    _open = False  # an object that could not be made is closed, too

    tensors: traitlets.List[Any] = traitlets.List().tag(sync=True)
    tensor = traitlets.Unicode().tag(sync=True)
    low = traitlets.Float(0.0).tag(sync=True)
    high = traitlets.Float(1.0).tag(sync=True)
    bits = traitlets.Int(8).tag(sync=True)
    symmetric = traitlets.Bool(False).tag(sync=True)
    bit_widths = traitlets.List(list(BITS)).tag(sync=True)
    histogram = traitlets.Dict().tag(sync=True)
    figures = traitlets.Dict().tag(sync=True)
    notes: traitlets.List[Any] = traitlets.List().tag(sync=True)
    path = traitlets.Unicode("overrides.encodings.json").tag(sync=True)
    said = traitlets.Dict().tag(sync=True)
    line = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(
        self, subject: Quantized | Check, data: Any = None, *, samples: int | None = None,
        namespace: Namespace | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(subject, Quantized | Check):
            raise BadInput(
                f"a {type(subject).__name__} has no calibration to look into",
                hint="give a quantized model and its data, or what qnb.check answered",
            )
        if isinstance(subject, Quantized) and data is None:
            raise BadInput("there is no data to count values of", hint="CalibrationExplorer(quantized, images)")
        super().__init__()
        self._namespace = user_namespace() if namespace is None else namespace
        self._found: dict[str, Tensor] = {}
        self._edits: dict[str, Choice] = {}
        self._quiet = False
        self._main = MainThread()
        self._saved = Saved()
        self._task: Task | None = None
        self._words = self._named(subject, data)
        self._open = True
        self.on_msg(self._heard)
        if isinstance(subject, Check):
            self._take(checked(subject))
            self.state = State("done").plain()
        else:
            self._task = Task(
                lambda: self._count(subject, data, samples), title="count values", line="", tell=self._told
            )
            self._task.start()

    # --- what others call ---------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the values are counted.

        Parameters
        ----------
        timeout : float, optional
            Seconds.

        Returns
        -------
        bool
            Whether they are.
        """
        if self._task is not None:
            self._task.join(timeout)
            if self._task.is_alive():
                return False
        self._main.serve()
        return bool(self._found)

    def cancel(self) -> None:
        """Stop counting."""
        if self._task is not None:
            self._task.cancel()

    def reset(self, tensor: str | None = None) -> None:
        """Give a tensor, by default the one that is shown, the grid back that it has."""
        name = tensor or self.tensor
        self._tensor(name)
        self._edits.pop(name, None)
        self._list()
        if name == self.tensor:
            self._show(name)

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each tensor, the worst first: its grid, and what was tried where something was.

        ``mse`` is in the squared unit of the tensor; ``source`` says where values were counted.
        """
        import pandas as pd

        rows = []
        for tensor in self._ordered():
            edit = self._edits.get(tensor.name)
            tried = tensor.trial.of(edit.encoding(tensor.encoding.signed)) if edit else None
            chosen = edit or tensor.choice
            rows.append(
                {
                    "tensor": tensor.name,
                    "bits": chosen.bits,
                    "low": chosen.low,
                    "high": chosen.high,
                    "sqnr_db": tensor.now.sqnr_db,
                    "mse": tensor.now.mse,
                    "clipped_percent": tensor.now.clipped_percent,
                    "tried_sqnr_db": tried.sqnr_db if tried else math.nan,
                    "tried_mse": tried.mse if tried else math.nan,
                    "tried_clipped_percent": tried.clipped_percent if tried else math.nan,
                    "source": "host",
                }
            )
        return pd.DataFrame(rows)

    @property
    def overrides(self) -> Encodings:
        """The encodings that were changed."""
        found = {name: edit.encoding(self._found[name].encoding.signed) for name, edit in self._edits.items()}
        return Encodings(activations=found)

    def save_overrides(self, path: str | Path | None = None) -> Path:
        """Write what was changed as an encodings file (AIMET's 2.0.0), which ``calibrate(overrides=…)`` takes.

        Parameters
        ----------
        path : path, optional
            By default `path`. An encodings file there is replaced, another file is not.

        Raises
        ------
        BadInput
            If nothing was changed, or something else is there.
        StorageError
            If it can't be written.
        """
        if not self._edits:
            raise BadInput("no tensor was changed", hint="drag an end of a range, or choose other bits, first")
        target = Path(path or self.path).expanduser()
        if target.exists():
            try:
                encoding_files.read(target)
            except QnbError:
                raise BadInput(f"{target} exists and is no encodings file", hint="choose another name") from None
        encoding_files.write(self.overrides, target)
        self.path = str(path or self.path)
        self._refresh_line()
        return target

    def plot(self) -> Figure:
        """Draw the histogram of the tensor that is shown, on the grid that is chosen."""
        import pandas as pd

        from qnb.display import check_charts

        tensor, chosen = self._tensor(self.tensor), self._choice
        encoding = chosen.encoding(tensor.encoding.signed)
        tried = tensor.trial.of(encoding)
        row = {
            "tensor": tensor.name, "kind": "activation", "bits": encoding.bits, "grids": 1,
            "grid_min": float(encoding.min[0]), "grid_max": float(encoding.max[0]), "sqnr_db": tried.sqnr_db,
            "clipped_percent": tried.clipped_percent,
            "codes_used_percent": math.nan,
        }  # fmt: skip
        return check_charts.histogram(pd.DataFrame([row]), around(tensor, encoding))

    def close(self) -> None:
        """Stop counting, and take the view away."""
        if self._open:
            self._open = False
            self.cancel()
            if self._task is not None:
                self._task.join(30)
            self.on_msg(self._heard, remove=True)
            self.unobserve_all()
            self._saved.close()
        super().close()

    def __repr__(self) -> str:
        return f"<CalibrationExplorer: {len(self._found)} tensors, {len(self._edits)} changed>"

    def _ipython_display_(self) -> None:
        self._saved.show(self._shown(), self.model_id, repr(self))

    # --- counting -----------------------------------------------------------------------------------------------------

    def _count(self, subject: Quantized, data: Any, samples: int | None) -> None:
        self._take(counted(subject, distributions(as_measured(subject), data, samples=samples)))

    def _told(self, state: State) -> None:
        self.state = state.plain()
        if state.state == "done":
            self._main.call(self._keep)

    def _take(self, found: Mapping[str, Tensor]) -> None:
        if not found:
            raise BadInput(
                "no activation has one grid for the whole tensor", hint="quantize the model with qnb.calibrate"
            )
        self._found = dict(found)
        self._list()
        self.tensor = self._ordered()[0].name
        self._refresh_line()

    def _ordered(self) -> list[Tensor]:
        return sorted(self._found.values(), key=lambda tensor: tensor.now.sqnr_db)

    def _tensor(self, name: str) -> Tensor:
        if name not in self._found:
            raise UnknownName.among("tensor", name, self._found)
        return self._found[name]

    # --- trying -------------------------------------------------------------------------------------------------------

    @property
    def _choice(self) -> Choice:
        return Choice(self.low, self.high, self.bits, self.symmetric)

    @traitlets.validate("tensor")
    def _known(self, proposal: Mapping[str, Any]) -> str:
        return self._tensor(str(proposal["value"])).name

    @traitlets.observe("tensor")
    def _picked(self, change: Mapping[str, Any]) -> None:
        self._show(str(change["new"]))

    def _show(self, name: str) -> None:
        """Show a tensor with the grid that was chosen for it, or else its own."""
        tensor = self._tensor(name)
        chosen = self._edits.get(name, tensor.choice)
        with self._at_once():
            self.low, self.high, self.bits, self.symmetric = chosen.low, chosen.high, chosen.bits, chosen.symmetric
            counts = tensor.distribution.counts
            self.histogram = {
                "start": tensor.distribution.start, "width": tensor.distribution.width, "counts": counts.tolist(),
                "low": tensor.extent[0], "high": tensor.extent[1], "own": [tensor.choice.low, tensor.choice.high],
            }  # fmt: skip
        self.notes = [f"{int(counts.sum()):,} values in {counts.size:,} bins", *source_notes(["host"])]
        self._try()

    @contextlib.contextmanager
    def _at_once(self) -> Iterator[None]:
        self._quiet = True
        try:
            with self.hold_sync():
                yield
        finally:
            self._quiet = False

    @traitlets.observe("low", "high", "bits", "symmetric")
    def _moved(self, _: object) -> None:
        if self._quiet or self.tensor not in self._found:
            return
        tensor = self._found[self.tensor]
        changed = self._choice != tensor.choice
        before = self.tensor in self._edits
        try:
            if changed:
                self._choice.encoding(tensor.encoding.signed)
                if self.bits not in BITS:
                    raise BadInput(
                        f"{self.bits} bits", hint=f"the NPU takes {' or '.join(map(str, BITS))} of an activation"
                    )
                self._edits[self.tensor] = self._choice
            else:
                self._edits.pop(self.tensor, None)
        except QnbError as error:
            self.said = failure(error).error or {}
            return
        if changed != before:
            self._list()
        self._try()

    def _try(self) -> None:
        """Bring the figures up to date."""
        tensor, chosen = self._found[self.tensor], self._choice
        grid = chosen.encoding(tensor.encoding.signed)
        self.said = {}
        self.figures = {
            "asked": [chosen.low, chosen.high, chosen.bits, chosen.symmetric],
            "grid": [float(grid.min[0]), float(grid.max[0]), float(grid.scale[0])],
            "rows": rows(tensor.now, tensor.encoding, tensor.trial.of(grid), grid),
        }

    def _list(self) -> None:
        self.tensors = [
            {
                "name": tensor.name,
                "text": f"{number(tensor.now.sqnr_db)} dB",
                "bits": tensor.encoding.bits,
                "changed": tensor.name in self._edits,
            }
            for tensor in self._ordered()
        ]

    # --- the line, and what stays -------------------------------------------------------------------------------------

    def _named(self, subject: Quantized | Check, data: Any) -> dict[str, str]:
        words = {"model": "", "data": "" if data is None else held_as(data, "data", self._namespace)}
        if isinstance(subject, Quantized):
            words["model"] = name_of(subject.parent, self._namespace)
            own = name_of(subject, self._namespace)
            words["model"] = words["model"] or (f"{own}.parent" if own else "")
        if subject.precision in faces.face("calibrate").by_name["precision"].choices:
            words["precision"] = subject.precision
        return words

    @traitlets.observe("path")
    def _refresh_line(self, _: object = None) -> None:
        said = {"model": "MODEL", "data": "DATA", "overrides": self.path}
        words = said | {name: word for name, word in self._words.items() if word}
        try:
            self.line = lines.line(faces.face("calibrate"), words, free_name("tuned", self._namespace))
        except QnbError as error:
            self.said = failure(error).error or {}

    def _heard(self, _: object, message: Mapping[str, Any], __: object) -> None:
        try:
            match message.get("do"):
                case "reset":
                    self.reset()
                case "cancel":
                    self.cancel()
                case "save":
                    target = self.save_overrides(str(message.get("path") or self.path))
                    self.said = {"done": f"Saved {len(self._edits)} tensor{'s'[: len(self._edits) != 1]} to {target}"}
                case "keep":
                    self._main.call(self._keep)
                case other:
                    raise BadInput(f"the view asks for {other!r}", hint="reload the page")
        except Exception as error:
            self.said = failure(error).error or {}

    def _keep(self) -> None:
        """Bring what the saved notebook shows up to date; in the main thread."""
        if self._saved.wanted:
            self._saved.update(self._shown())

    def _shown(self) -> Shown:
        shown = Shown("Calibration explorer")
        if not self._found:
            shown.text("values are being counted")
            return shown
        frame = self.frame
        notes = [f"and {len(frame) - _SAVED_ROWS} tensors more"] if len(frame) > _SAVED_ROWS else []
        shown.parts.append(
            html_tables.html(frame.iloc[:_SAVED_ROWS], title="Activations, the worst first", notes=notes)
        )
        shown.text(self.line, "code")
        shown.picture(png(self.plot(), dpi=DPI), f"Histogram of {clean(self.tensor)} on its grid")
        return shown
