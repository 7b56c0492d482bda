"""The profile files that the QNN runtime writes, read row by row without loss.

Seen with QAIRT 2.47 and 2.51 (onnxruntime-qnn 2.3.0 and 2.7.0), which write the same seven columns. Neither quotes
anything: the name of an op may hold commas, quotes and even line ends. Knows nothing of who runs the runtime.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from qnb.errors import ArtifactError

HEADER = "Msg Timestamp,Message,Time,Unit of Measurement,Timing Source,Event Level,Event Identifier"
_COLUMNS = HEADER.count(",") + 1
_OP = re.compile(r"^(?:(.*?)[: ])?(OpId_\d+) \(cycles\)$", re.DOTALL)
"""``node_conv:OpId_16 (cycles)``, ``Input OpId_2 (cycles)``; an op of the compiler's own has no name but its number."""

_MISSING_OP = re.compile(r"^(.*) : OpId_\d+$", re.DOTALL)
_AGAIN = "profile again; the runtime writes the file whole when its session ends"


@dataclass(frozen=True)
class ProfileEvent:
    """One row of the runtime's profile CSV.

    Attributes
    ----------
    line : int
        Where in the file it begins, from 1.
    cells : tuple of str
        The row as it is: seven cells, or fewer where it is of no known form.
    cut : bool
        Whether the file ends within it, so that its last cell can't be trusted.
    """

    line: int
    cells: tuple[str, ...]
    cut: bool = False

    @property
    def message(self) -> str:
        """What kind of row it is: ``FINALIZE``, ``EXECUTE``, ``NODE``, ``BACKEND`` and others."""
        return self._cell(1)

    @property
    def value(self) -> int | None:
        """Its figure; None where there is none, or where it may be cut off."""
        digits = self._cell(2)
        return int(digits) if self.whole and re.fullmatch(r"-?[0-9]{1,19}", digits) else None

    @property
    def unit(self) -> str:
        """Unit that the runtime names; the compiler names ``US`` also where it counts."""
        return self._cell(3)

    @property
    def level(self) -> str:
        """``ROOT`` or ``SUB-EVENT``."""
        return self._cell(5)

    @property
    def identifier(self) -> str:
        """What the figure is of."""
        return self._cell(6)

    @property
    def whole(self) -> bool:
        """Whether it has all its cells, and none of them is cut off."""
        return len(self.cells) == _COLUMNS and not self.cut

    def _cell(self, number: int) -> str:
        return self.cells[number] if number < len(self.cells) else ""

    @property
    def op(self) -> str | None:
        """Name of the QNN op whose cycles it has, or None."""
        match = _OP.match(self.identifier) if self.level == "SUB-EVENT" and self.value is not None else None
        return (match[1] or match[2]) if match else None


@dataclass(frozen=True)
class Execution:
    """One run of one graph in a detailed profile.

    Attributes
    ----------
    cycles : int
        Accelerator cycles of the whole graph; on a host these are the simulator's.
    accelerator_us, qnn_us : int
        Time of the accelerator, and of the QNN call around it.
    ops : tuple of (str, int)
        QNN op and its cycles.
    """

    cycles: int
    accelerator_us: int
    qnn_us: int
    ops: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class CompilerEstimate:
    """What the compiler expects one inference to cost on the device: its own performance estimate.

    It is for an id that the compiler has a cost model of (52, 62, 63, 72, 77), and of all its graphs together.

    Attributes
    ----------
    cycles, lower, upper : int
        Accelerator cycles, and the bounds that the compiler gives.
    input_fill_bytes, fill_bytes, spill_bytes, output_spill_bytes : int
        DDR traffic: inputs and weights read; intermediate tensors read back and written out; outputs written.
    missing_ops : int
        Ops that the compiler has no cost for: they count nothing in `cycles`.
    missing_names : tuple of str
        Their names, as far as the runtime gives them.
    graphs : int
        How many graphs the figures are summed over; more than one where ops between them stay on the CPU.
    time_us : int or None
        The compiler's own time for `cycles`; 2.7.0 gives it, 2.3.0 does not.
    """

    cycles: int
    lower: int
    upper: int
    input_fill_bytes: int
    fill_bytes: int
    spill_bytes: int
    output_spill_bytes: int
    missing_ops: int
    missing_names: tuple[str, ...] = ()
    graphs: int = 1
    time_us: int | None = None


@dataclass(frozen=True)
class RuntimeProfile:
    """All that a profile file holds.

    Attributes
    ----------
    name : str
        The file's name, for messages.
    events : tuple of ProfileEvent
        Every row, in order.
    """

    name: str
    events: tuple[ProfileEvent, ...]

    @cached_property
    def unknown(self) -> tuple[ProfileEvent, ...]:
        """Rows of which qnb does not know what they say."""
        return tuple(e for e in self.events if not e.cut and not (e.op or _is_known(e)))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know: rows that are cut off, or that nobody here understands."""
        found = []
        if self.events and self.events[-1].cut:
            found.append(f"{self.name}: the last row (line {self.events[-1].line}) is cut off; its figure is not used")
        elif self._unfinished():
            found.append(f"{self.name}: the last inference (from line {self._unfinished()}) is not complete")
        if not self.events:
            found.append(f"{self.name}: the runtime recorded no event")
        if self.unknown:
            lines = ", ".join(str(e.line) for e in self.unknown[:5]) + (", …" if len(self.unknown) > 5 else "")
            found.append(f"{self.name}: {len(self.unknown)} rows are of no kind that qnb knows (lines {lines})")
        return tuple(found)

    def _unfinished(self) -> int:
        """Line of the first row of a run that has begun and not ended, or 0."""
        begun = 0
        for event in self.events:
            if event.identifier in _BEGINS or event.op:
                begun = begun or event.line
            elif event.identifier == _EXECUTED:
                begun = 0
        return begun

    def executions(self) -> list[Execution]:
        """Give each complete run of a graph, in order; a model of several graphs has several for each inference."""
        found: list[Execution] = []
        cycles = accelerator = 0
        ops: list[tuple[str, int]] = []
        for event in self.events:
            value, name = event.value, event.identifier
            if value is None:
                continue
            if (op := event.op) is not None:
                ops.append((op, value))
            elif name == "Accelerator (execute) time (cycles)":
                cycles = value
            elif name == "Accelerator (execute) time":
                accelerator = value
            elif name == _EXECUTED:
                found.append(Execution(cycles, accelerator, value, tuple(ops)))
                cycles = accelerator = 0
                ops = []
        return found

    def compilations(self) -> list[tuple[ProfileEvent, ...]]:
        """Give the rows about the compilation of each graph, once.

        After each graph the runtime writes those of all graphs before it again: 1, then 1 and 2, then 1, 2 and 3.
        """
        blocks: list[list[ProfileEvent]] = []
        inside = False
        for event in self.events:
            if event.identifier == "QNN (finalize) time":
                blocks.append([event])
                inside = True
            elif inside and (event.level == "SUB-EVENT" or event.identifier == _ESTIMATES or not event.whole):
                blocks[-1].append(event)
            else:
                inside = False
        return [tuple(block) for block in _without_repetition(blocks)]

    def stages(self) -> dict[str, float]:
        """Give the compiler's stages and their milliseconds, summed over graphs."""
        total: dict[str, float] = {}
        for block in self.compilations():
            for event in block[1:]:
                if event.identifier == _ESTIMATES:
                    break
                if event.value is not None:
                    total[event.identifier] = total.get(event.identifier, 0.0) + event.value / 1000
        return total

    def estimate(self) -> CompilerEstimate | None:
        """Give the compiler's performance estimate, or None where it made none: most SoC ids have no cost model.

        Raises
        ------
        ArtifactError
            If a row of it is missing.
        """
        parts = [self._estimate_of(b) for b in self.compilations() if any(e.identifier == _ESTIMATES for e in b)]
        if not parts or not any(p.cycles for p in parts):
            return None
        times = [p.time_us for p in parts if p.time_us is not None]
        summed = {name: sum(getattr(p, name) for p in parts) for name in (*_FIGURES, "missing_ops")}
        names = tuple(n for p in parts for n in p.missing_names)
        return CompilerEstimate(
            **summed, missing_names=names, graphs=len(parts), time_us=sum(times) if len(times) == len(parts) else None
        )

    def _estimate_of(self, block: Sequence[ProfileEvent]) -> CompilerEstimate:
        values: dict[str, int] = {}
        names = []
        for event in block:
            if event.value is None:
                continue
            if event.identifier in _ESTIMATE_ROWS:
                field = _ESTIMATE_ROWS[event.identifier]
                values[field] = values.get(field, 0) + event.value  # a part may have several NPUs
            elif match := _MISSING_OP.match(event.identifier):
                names.append(match[1])
        lacking = [n for n, f in _ESTIMATE_ROWS.items() if f not in values and f != "time_us"]
        if lacking:
            raise ArtifactError(
                f"{self.name}, line {block[0].line}: the compiler's estimate lacks {', '.join(lacking)}", hint=_AGAIN
            )
        return CompilerEstimate(**values, missing_names=tuple(names))


_EXECUTED = "QNN (execute) time"
_ESTIMATES = "Performance Estimates"
_BEGINS = {"Number of HVX threads used", "Accelerator (execute) time (cycles)", "Accelerator (execute) time"}
_STAGES = {
    "Graph Preparation Initializing",
    "Graph Optimizations",
    "Post Graph Optimization",
    "Graph Sequencing for Target",
    "VTCM Allocation",
    "Parallelization Optimization",
    "Finalizing Graph Sequence",
    "Completion",
}
_ESTIMATE_ROWS = {
    "Simulated (Accelerator exec cycles)": "cycles",
    "Simulated (Accelerator exec cycles (lower estimate))": "lower",
    "Simulated (Accelerator exec cycles (upper estimate))": "upper",
    "Simulated (Accelerator exec time us)": "time_us",
    "Input Fill": "input_fill_bytes",
    "Intermediate Fill": "fill_bytes",
    "Intermediate Spill": "spill_bytes",
    "Output Spill": "output_spill_bytes",
    "Missing Ops (Number of Ops with no Costs associated)": "missing_ops",
}
_FIGURES = ("cycles", "lower", "upper", "input_fill_bytes", "fill_bytes", "spill_bytes", "output_spill_bytes")
_KNOWN = (
    _BEGINS
    | _STAGES
    | set(_ESTIMATE_ROWS)
    | {
        _EXECUTED,
        _ESTIMATES,
        "QNN (finalize) time",
        "QNN (load binary) time",
        "RPC (load binary) time",
        "QNN accelerator (load binary) time",
        "Accelerator (load binary) time",
        "RPC (execute) time",
        "QNN accelerator (execute) time",
        "Accelerator (execute excluding wait) time",
        "Num times yield occured",
        "Time for initial VTCM acquire",
        "Time for HVX + HMX power on and acquire",
        "Mode",
        "Bandwidth Stats",
        "HTP ID",
        "Inter HTP Fill",
        "Inter HTP Spill",
        "Simulated (Accelerator exec time us (lower estimate))",
        "Simulated (Accelerator exec time us (upper estimate))",
    }
)


def _is_known(event: ProfileEvent) -> bool:
    return event.value is not None and (event.identifier in _KNOWN or _MISSING_OP.match(event.identifier) is not None)


def _without_repetition(blocks: Sequence[Sequence[ProfileEvent]]) -> list[Sequence[ProfileEvent]]:
    """Of 1, 1 2, 1 2 3, … take the last round; of anything else take all."""
    texts = [[e.cells for e in block] for block in blocks]
    rounds = next((n for n in range(1, len(blocks) + 1) if n * (n + 1) // 2 == len(blocks)), 0)
    expected = [texts[len(blocks) - rounds + i] for n in range(1, rounds + 1) for i in range(n)] if rounds else []
    return list(blocks[len(blocks) - rounds :]) if rounds > 1 and expected == texts else list(blocks)


def read_profile(path: Path | str) -> RuntimeProfile:
    """Read a profile CSV that the runtime wrote (``profiling_file_path``).

    Every row is kept: what is of no known form is an event with the cells that it has.

    Parameters
    ----------
    path : path
        The file.

    Raises
    ------
    ArtifactError
        If it can't be read, is empty, or does not begin as the runtime's profiles do.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8", errors="backslashreplace")
    except OSError as error:
        raise ArtifactError(f"could not read the profile {path}: {error.strerror or error}", hint=_AGAIN) from error
    if not text:
        raise ArtifactError(f"{path}, line 1: the profile is empty", hint=_AGAIN)
    first, *lines = [line.removesuffix("\r") for line in text.split("\n")]
    if not lines or first != HEADER:
        if not lines and HEADER.startswith(first):
            raise ArtifactError(f"{path}, line 1: the profile is cut off in its header", hint=_AGAIN)
        raise ArtifactError(
            f"{path}, line 1: this is no profile of the QNN runtime: it begins with {first[:60]!r}",
            hint="give the CSV that profiling_file_path names, as runtime 2.3.0 or 2.7.0 writes it",
        )
    ends_whole = not lines or lines[-1] == ""
    rows = [ProfileEvent(n, tuple(line.split(",", _COLUMNS - 1))) for n, line in enumerate(lines, start=2)]
    if not ends_whole:
        rows[-1] = replace(rows[-1], cut=True)
    return RuntimeProfile(path.name, tuple(_with_whole_names(rows if not ends_whole else rows[:-1])))


def _with_whole_names(rows: Sequence[ProfileEvent]) -> list[ProfileEvent]:
    """Put the rows together that are one, because the name of an op holds line ends."""
    found: list[ProfileEvent] = []
    for row in rows:
        found.append(row)
        if len(row.cells) == _COLUMNS or row.cut:
            continue
        start = len(found) - 1
        while start and len(found[start].cells) < _COLUMNS:
            start -= 1
        first, rest = found[start], found[start + 1 :]
        name = "\n".join([first.identifier, *(",".join(r.cells) for r in rest)])
        joined = replace(first, cells=(*first.cells[: _COLUMNS - 1], name))
        if first.message == "NODE" and first.op is None and joined.op is not None:
            found[start:] = [joined]
    return found
