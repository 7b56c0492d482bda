"""Step ``debug``: why a build is slow or does not run on the NPU, and what to do about it, with figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from qnb.advice.advise import COLUMNS, Ignored, ignored
from qnb.advice.rules import SEVERITIES
from qnb.artifacts import Build, Context, Contexts, Model, Quantized
from qnb.defaults import settings
from qnb.errors import BadInput, CheckFailed, QnbError, UnknownName
from qnb.progress import progress
from qnb.results import Result, load
from qnb.runtime import client
from qnb.runtime.locate import Runtime, find_runtime
from qnb.steps._common import StepTimer, as_build
from qnb.steps._looking import Look, looked, noted
from qnb.steps.check import Check
from qnb.steps.profile import Profile
from qnb.steps.profile import profile as run_profile
from qnb.values import Argument
from qnb.views import Chart, Graph, Node, network_graph

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

DebugArgument = Annotated[
    Model | Quantized | Context | Contexts | Profile | str | Path,
    Argument("model", ("Model", "Quantized", "Context", "Contexts", "Profile")),
]
ProfileArgument = Annotated[Profile | str | Path | None, Argument("profile", ("Profile",))]
CheckArgument = Annotated[Check | str | Path | None, Argument("check", ("Check",))]

SLOWEST = 5
_LAYER_COLUMNS = [
    "op", "op_type", "htp", "cycles", "time_ms", "percent", "macs", "weight_bytes", "slowest", "findings", "source",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Debug(Result):
    """What is slow or wrong, and what to do.

    Attributes
    ----------
    frame : pandas.DataFrame
        A row for each finding, the most severe first.
    layers : pandas.DataFrame
        A row for each op, with the time that it took where it was profiled; the five slowest are marked.
    suppressed : int
        How many findings were left out because they were to be ignored.
    fail_on : str
        The least severity that fails; ``""`` where none was asked for.
    network : pandas.DataFrame or None
        How the ops of the float model hang together: `Model.network`.
    """

    kind: ClassVar[str] = "debug"

    name: str
    precision: str
    layers: pd.DataFrame
    suppressed: int = 0
    fail_on: str = ""
    network: pd.DataFrame | None = None

    @property
    def title(self) -> str:
        """How many findings of which severity, and the slowest op."""
        counts = [(s, int((self.frame["severity"] == s).sum())) for s in SEVERITIES]
        said = ", ".join(f"{n} {s}{'s' * (n > 1 and s != 'info')}" for s, n in counts if n) or "nothing found"
        verdict = ["PASS" if self.passed else "FAIL"] if self.fail_on else []
        first = self.layers[self.layers["slowest"] == 1]
        slow = [f"slowest {first['op'].iloc[0]} ({first['percent'].iloc[0]:.0f} %)"] if len(first) else []
        return " · ".join([*verdict, f"{self.name} {self.precision}".strip(), said, *slow])

    @property
    def passed(self) -> bool:
        """Whether there is no finding of the severity that fails, or of a worse one."""
        return not len(self._failing())

    def _failing(self) -> pd.DataFrame:
        worst = SEVERITIES[: SEVERITIES.index(self.fail_on) + 1] if self.fail_on in SEVERITIES else ()
        return self.frame[self.frame["severity"].isin(worst)]

    def require(self) -> None:
        """Do nothing if it passed.

        Raises
        ------
        CheckFailed
            If there are findings as severe as `fail_on`; says which, and what to do about the first.
        """
        failing = self._failing()
        if len(failing):
            ids = ", ".join(dict.fromkeys(failing["id"]))
            raise CheckFailed(
                f"{self.name}: {len(failing)} finding{'s' * (len(failing) > 1)} of severity {self.fail_on} or worse "
                f"({ids})",
                hint=str(failing["remedy"].iloc[0]),
                log=self.log,
            )

    def tables(self) -> dict[str, pd.DataFrame]:
        """Findings, and layers."""
        return {self.title: self.frame, "layers": self.layers} if len(self.layers) else {self.title: self.frame}

    def plot(self) -> Figure:
        """The slowest layers, with what was found of them."""
        from qnb.display import debug_charts

        return debug_charts.bottlenecks(self.layers, self.frame)

    def _charts(self) -> list[Chart]:
        return [Chart("time by op", "bars", "layers", "op", "time_ms")]

    def _graph(self) -> Graph | None:
        if self.network is None or not len(self.layers):
            return None
        figures = ("time_ms", "percent", "cycles", "macs", "weight_bytes")
        nodes = {
            row["op"]: Node(
                row["op"],
                row["op_type"],
                "htp" if row["htp"] == "yes" else None,
                {name: row[name] for name in figures},
                {name: row[name] for name in ("htp", "findings", "source") if row[name]},
            )
            for row in self.layers.to_dict("records")
        }
        return network_graph(self.title, self.network, nodes, colours=("time_ms", "percent", "macs", "weight_bytes"))

    @property
    def _drawable(self) -> bool:
        return bool(len(self.layers))


def debug(
    build: DebugArgument,
    *,
    profile: ProfileArgument = None,
    check: CheckArgument = None,
    ops: bool = True,
    soc: str | int | None = None,
    vtcm_mb: int | None = None,
    ignore: Sequence[str] = (),
    fail_on: Literal["error", "warning", "info"] | None = None,
    runtime: str | None = None,
) -> Debug:
    """Find out why a model is slow, or does not run on the NPU, and what to do about it.

    The NPU's compiler is asked which ops it takes, what graph it makes and what traffic it plans; one inference is
    profiled op by op; and rules with stable ids look at all of it. Each finding has its figures, a remedy, what that
    saves where it can be computed, and the line that does it or shows whether it was done.

    Parameters
    ----------
    build : Model, Quantized, Context, Profile or path
        What to look at. Of a `Profile` alone, what its ops say.
    profile : Profile or path, optional
        A profile of this build, to be used in place of a new one.
    check : Check or path, optional
        A check of this build: its tensors show which activations quantize badly.
    ops : bool
        Whether to run one inference on the NPU or its simulator to time the ops.
    soc : str or int, optional
        SoC that it is compiled for: part, name or QNN id.
    vtcm_mb : int, optional
        Tightly coupled memory that the graph may use, in MiB; at most the part's.
    ignore : sequence of str, optional
        Findings to leave out: an id, or an id and a pattern for ops, such as ``QNB-P003:conv*``; beside those that
        ``qnb.settings.ignore`` names.
    fail_on : {"error", "warning", "info"}, optional
        Fail where there is a finding as severe as that: for build servers.
    runtime : str, optional
        Version of the runtime.

    Returns
    -------
    Debug
        Table: a row for each finding, the most severe first. `.layers` has the time of each op, and marks the slowest.

    Raises
    ------
    UnknownName
        If a rule to ignore is not known.
    BadInput
        If an argument does not fit.

    Examples
    --------
    >>> found = qnb.debug(quantized)
    >>> found = qnb.debug(quantized, ignore=["QNB-P007", "QNB-P002:stem*"])
    """
    timer = StepTimer("debug")
    if fail_on is not None and fail_on not in SEVERITIES:
        raise UnknownName.among("severity", fail_on, SEVERITIES)
    left_out = (*ignored(settings.ignore), *ignored(ignore))
    found_runtime = find_runtime(runtime)
    timed = _loaded(profile, Profile, "profile")
    checked = _loaded(check, Check, "check")
    subject = _subject(build)
    if isinstance(subject, Profile):
        on_htp = subject.frame[subject.frame["backend"] == "htp"]
        timed, look = timed or subject, Look(subject.name, str(on_htp["precision"].iloc[0]) if len(on_htp) else "")
    else:
        look = looked(subject, build, soc, vtcm_mb, found_runtime)
    for what, given in (("profile", timed), ("check", checked)):
        if given is not None and given.name != look.name:
            raise BadInput(
                f"the {what} is of {given.name}, not of {look.name}", hint=f"give qnb.{what}(…) of the same model"
            )
    if timed is None and ops and not isinstance(subject, Profile):
        timed = _timed(subject, look, found_runtime, soc)
    with client.borrow(found_runtime) as worker:
        answer = worker.call(
            "advise", look.arguments(timed.ops if timed else None, checked.tensors if checked else None, left_out)
        )
    return _result(timer, look, timed, answer, left_out, fail_on, found_runtime)


def _subject(value: object) -> Build | Profile:
    if isinstance(value, str | Path):
        folder = Path(value).expanduser()
        if folder.is_dir() and (folder / "result.json").exists():
            value = load(folder)
    return value if isinstance(value, Profile) else as_build(value)


def _loaded(value: Any, kind: type[Any], what: str) -> Any:
    """Find the result that an argument means.

    Raises
    ------
    BadInput
        If it is another kind.
    """
    if isinstance(value, str | Path):
        value = load(value)
    if value is not None and not isinstance(value, kind):
        raise BadInput(f"{what} is a {type(value).__name__}", hint=f"give what qnb.{what}(…) returned, or leave it out")
    return value


def _timed(build: Build, look: Look, runtime: Runtime, soc: str | int | None) -> Profile | None:
    """Profile one inference; where that can't be, a note says why."""
    if look.compiled is not None and look.compiled["error"]:
        noted(look, "no times: the compiler could not finish the graph")
        return None
    room = look.vtcm_mb if look.soc is not None and look.vtcm_mb != look.soc.vtcm_mb else None
    config = {"htp_config": {"vtcm_mb": room}} if room and not isinstance(build, Context) else None
    fallback: Literal["cpu"] | None = None if look.placed or isinstance(build, Context) else "cpu"
    try:
        with progress("profile", 1):
            found = run_profile(
                build, backends=["htp"], soc=None if isinstance(build, Context) else look.soc.part if look.soc else soc,
                runs=1, warmup=0, ops=True, fallback=fallback, runtime=runtime.version, config=config,
            )  # fmt: skip
    except QnbError as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        noted(look, f"no times: {error.what.splitlines()[0]}")
        return None
    if not len(found.ops):
        noted(look, "no times: no op ran on the NPU")
        return None
    if fallback:
        noted(look, "times are of the ops on the NPU alone; the others ran on the host")
    return found


def _result(
    timer: StepTimer,
    look: Look,
    profile: Profile | None,
    answer: client.Answer,
    left_out: Sequence[Ignored],
    fail_on: str | None,
    runtime: Runtime,
) -> Debug:
    import pandas as pd

    found = pd.DataFrame(answer.values["rows"], columns=COLUMNS)
    found["gain_percent"] = found["gain_percent"].astype(float)
    notes = list(look.notes)
    if answer.values["suppressed"]:
        notes.append(
            f"{answer.values['suppressed']} finding{'s' * (answer.values['suppressed'] > 1)} suppressed by "
            f"{', '.join(str(i) for i in left_out)}"
        )
    layers = _layers(look, profile, found)
    if not (layers["slowest"] > 0).any():
        notes.append("nothing was timed: the layers have no cycles")
    return Debug(
        frame=found,
        recipe=timer.recipe(
            runtime.qairt,
            build=look.quantized or look.model,
            soc=look.soc.part if look.soc else None,
            vtcm_mb=look.vtcm_mb,
            ignore=[str(i) for i in left_out] or None,
            fail_on=fail_on,
        ),
        notes=tuple(dict.fromkeys(notes)),
        log=look.log + (profile.log if profile is not None else "") + answer.log,
        name=look.name,
        precision=look.precision,
        layers=layers,
        suppressed=int(answer.values["suppressed"]),
        fail_on=fail_on or "",
        network=look.model.network if look.model else profile.network if profile else None,
    )


def _layers(look: Look, profile: Profile | None, found: pd.DataFrame) -> pd.DataFrame:
    """Give a row for each op of the profile, and for each op off the NPU; without a profile for each op of the model."""
    import pandas as pd

    own = look.model.frame.set_index("op") if look.model is not None else pd.DataFrame()
    answers = dict(zip(look.placement["op"], look.placement["htp"], strict=True)) if look.placement is not None else {}
    ids: dict[str, list[str]] = {}
    for row in found.to_dict("records"):
        for name in str(row["op"]).split(", "):
            ids.setdefault(name, []).append(str(row["id"]))
    rows = []
    timed = profile.ops.to_dict("records") if profile is not None else []
    for op in timed:
        names = [n for n in str(op.get("onnx_ops") or op["op"]).split(", ") if n in own.index]
        rows.append(_layer(str(op["op"]), str(op["op_type"]), names, own, answers, ids) | _times(op))
    for name in own.index if not timed else [n for n in own.index if answers.get(n) == "no"]:
        rows.append(_layer(name, str(own.loc[name, "op_type"]), [name], own, answers, ids))
    layers = pd.DataFrame(rows, columns=_LAYER_COLUMNS)
    for column in ("cycles", "time_ms", "percent"):
        layers[column] = layers[column].astype(float)
    layers["slowest"] = 0
    real = layers["cycles"].notna() & (layers["cycles"] > 0) & ~layers["op"].astype(str).str.startswith("(unattributed")
    for rank, index in enumerate(layers.loc[real, "cycles"].nlargest(SLOWEST).index, 1):
        layers.loc[index, "slowest"] = rank
    return layers


def _times(op: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: op[name] for name in ("cycles", "time_ms", "percent", "source")}


def _layer(
    op: str, op_type: str, names: Sequence[str], own: pd.DataFrame, answers: dict[str, str], ids: dict[str, list[str]]
) -> dict[str, Any]:
    nan = float("nan")
    told = [answers[n] for n in names if n in answers]
    return {
        "op": op,
        "op_type": op_type,
        "htp": "no" if "no" in told else "yes" if op and not op.startswith("(") else "",
        "cycles": nan,
        "time_ms": nan,
        "percent": nan,
        "macs": int(np.sum([own.loc[n, "macs"] for n in names])) if names else 0,
        "weight_bytes": int(np.sum([own.loc[n, "weight_bytes"] for n in names])) if names else 0,
        "slowest": 0,
        "findings": ", ".join(dict.fromkeys(i for n in (op, *names) for i in ids.get(n, ()))),
        "source": "host",
    }
