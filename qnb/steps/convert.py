"""Step ``convert``: ONNX to QNN: the graph as DLC and JSON, and op by op what each backend takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from qnb import cache
from qnb.artifacts import BuildArgument, Context, Model, Quantized
from qnb.defaults import settings
from qnb.errors import BadInput, ConversionError, PlacementError, QnbError
from qnb.graph.origins import PUT_IN
from qnb.progress import progress
from qnb.results import Result
from qnb.runtime import client, logs
from qnb.runtime.locate import Runtime, find_runtime, library, snapdragon_host
from qnb.runtime.options import BackendOptions, SessionSpec, session_spec
from qnb.socs import Soc, find
from qnb.steps._common import StepTimer, as_build, read_config
from qnb.steps.context import htp_options
from qnb.values import BACKENDS, Argument, Backend, join_reasons
from qnb.views import Graph, Node, network_graph

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

OverridesArgument = Annotated[Mapping[str, Any] | str | Path | None, Argument("overrides", ("dict",))]
_TRACE_SINCE = (2, 7)
_TRACE = "qnn_op_trace.json"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Conversion(Result):
    """A model as a QNN graph.

    Attributes
    ----------
    frame : pandas.DataFrame
        The placement: a row for each op of the model, with its QNN ops and, for each backend, ``yes``, ``no`` or
        ``unknown``, and what is known of the reason.
    qnn_ops : pandas.DataFrame
        A row for each op of the QNN graph: name, type, ONNX op, inputs, outputs.
    build : Model or Quantized
        What was converted; where overrides were given, the quantized model that they make.
    """

    kind: ClassVar[str] = "conversion"

    build: Model | Quantized
    qnn_ops: pd.DataFrame

    @property
    def title(self) -> str:
        """How many ops became how many, and how many the NPU takes."""
        taken = int((self.frame["htp"] == "yes").sum())
        return (
            f"{self.build.name} {self.build.precision}: {len(self.frame)} ONNX ops → {len(self.qnn_ops)} QNN ops; "
            f"htp takes {taken} of {len(self.frame)}"
        )

    @property
    def dlc(self) -> tuple[Path, ...]:
        """The DLC files; more than one where ops that QNN does not take cut the graph."""
        return tuple(p for p in self.files.values() if p.suffix == ".dlc")

    def tables(self) -> dict[str, pd.DataFrame]:
        """Placement, and the QNN graph."""
        return {self.title: self.frame, "QNN graph": self.qnn_ops}

    def plot(self) -> Figure:
        """Share of the ops that each backend takes, by op type."""
        from qnb.display import charts

        return charts.placement(self.frame)

    def _graph(self) -> Graph | None:
        model = self.build.float_model
        if model.network is None:
            return None
        nodes = model.nodes()
        for row in self.frame.to_dict("records"):
            node = nodes.setdefault(row["op"], Node(row["op"], row["op_type"]))
            node.backend = next((backend for backend in BACKENDS if row[backend] == "yes"), None)
            node.facts |= {name: row[name] for name in ("qnn_ops", *BACKENDS, "reason") if row[name]}
        return network_graph(self.title, model.network, nodes, colours=("macs", "weight_bytes", "activation_bytes"))


def convert(
    model: BuildArgument,
    *,
    overrides: OverridesArgument = None,
    soc: str | int | None = None,
    runtime: str | None = None,
) -> Conversion:
    """Turn a model into a QNN graph (DLC and JSON), and see which ops each backend takes.

    Parameters
    ----------
    model : Model, Quantized or path
        What to convert.
    overrides : mapping or path, optional
        Quantization overrides (the tutorial's flat file, or AIMET's 0.6.1, 1.0.0, 2.0.0): what they encode is quantized,
        the rest of the graph stays in float.
    soc : str or int, optional
        SoC whose NPU is asked: part, name or QNN id.
    runtime : str, optional
        Version of the runtime.

    Returns
    -------
    Conversion
        Table: the placement, op by op. Files: the DLC and the graph JSON.

    Raises
    ------
    ConversionError
        If the runtime fails on the model.
    BadConfig
        If the overrides don't fit the model.

    Examples
    --------
    >>> conversion = qnb.convert(model)
    """
    timer = StepTimer("convert")
    found_runtime = find_runtime(runtime)
    build = as_build(model)
    if isinstance(build, Context):
        raise BadInput(f"{build.name} is compiled already", hint="give the Model or Quantized: context.parent")
    target = find(soc if soc is not None else settings.soc, qairt=found_runtime.qairt)
    if overrides is not None:
        from qnb.steps.calibrate import apply_overrides

        if isinstance(build, Quantized):
            raise BadInput("overrides for a model that is quantized already", hint="give the float model: .parent")
        build = apply_overrides(build, read_config(overrides, "overrides file"), found_runtime)
    with progress("convert", 4) as bar, client.borrow(found_runtime) as worker:
        bar.step("QNN graph")
        files, dump_notes, log = _dump(worker, build, found_runtime, target)
        placements: dict[Backend, _Placement] = {}
        for backend in ("htp", "cpu", "gpu"):
            bar.step(f"asking {backend}")
            placements[backend] = _place(worker, build, backend, found_runtime, target)
        tensors = _written(worker, build)
    graphs = [json.loads(p.read_text(encoding="utf-8")) for p in files.values() if _is_graph(p)]
    qnn_ops = _qnn_ops(graphs, build.float_model, _traced(files.get(_TRACE)), tensors)
    notes = [
        *(build.notes if overrides else ()),
        *dump_notes,
        *dict.fromkeys(n for p in placements.values() for n in p.notes),
    ]
    if len(graphs) > 1:
        notes.append(f"ops that QNN does not take cut the graph in {len(graphs)} parts, each a DLC of its own")
    if isinstance(build, Quantized):
        notes.append("cpu and gpu are asked for the float parent, which is what they run")
    return Conversion(
        frame=_frame(build.float_model, qnn_ops, placements),
        recipe=timer.recipe(found_runtime.qairt, model=build, soc=target.part, overrides=overrides),
        notes=tuple(notes),
        log="\n".join([log, *(p.log for p in placements.values())]),
        files=files,
        build=build,
        qnn_ops=qnn_ops,
    )


def _is_graph(path: Path) -> bool:
    return path.suffix == ".json" and "tensor_log" not in path.name and path.name != _TRACE


def _dump(
    worker: client.Worker, build: Model | Quantized, runtime: Runtime, soc: Soc
) -> tuple[dict[str, Path], tuple[str, ...], str]:
    """Write DLC and JSON of the QNN graph; give the files, what to say of them, and the log.

    There are ops that the NPU takes and the DLC writer does not (LSTM with QAIRT 2.47): then the NPU's graph, as JSON,
    is all that there is.
    """
    log = ""

    def dump(backend: Literal["ir", "htp"], folder: Path) -> None:
        nonlocal log
        extra = {"dump_json_qnn_graph": "1", "json_qnn_graph_dir": str(folder)}
        options = BackendOptions(soc=soc)
        if backend == "ir":
            extra |= {
                "dump_qnn_ir_dlc": "1",
                "dump_qnn_ir_dlc_dir": str(folder),
                "qnn_ir_backend_path": str(library(runtime, "ir")),
            }
        else:
            options = htp_options(build, options, fp32=False)
        if tuple(map(int, runtime.version.split(".")[:2])) >= _TRACE_SINCE:
            extra |= {"enable_framework_op_trace": "1", "framework_op_trace_dir": str(folder)}
        spec = session_spec(str(build.path), backend, runtime, options, strict=False, extra=extra)
        log += worker.call("dump_graph", {"spec": spec.plain(), "folder": str(folder)}).log
        _name_plainly(folder)

    def fill(folder: Path) -> dict[str, Any]:
        nonlocal log
        try:
            dump("ir", folder)
        except ConversionError as error:
            log += error.log
            try:
                dump("htp", folder)
            except QnbError:
                raise error from None
            said = error.what.splitlines()[-1].strip()
            return {
                "notes": [f"no DLC: the runtime's DLC writer does not take this model ({said}); the graph is the NPU's"]
            }
        return {"notes": []}

    key = cache.key(model=build.digest, soc=soc.soc_model, runtime=runtime.version)
    entry = cache.lookup("graphs", key) or cache.store("graphs", key, fill)
    return {name: entry.folder / name for name in entry.stamps}, tuple(entry.meta["notes"]), log


def _name_plainly(folder: Path) -> None:
    """Rename ``QNNExecutionProvider_QNNExecutionProvider_<hash>_1_0.dlc`` to ``graph.dlc``; ``graph_2.dlc`` for a second."""
    for ending in ("_tensor_log.json", ".dlc", ".json"):
        found = sorted(
            p
            for p in folder.glob(f"QNNExecutionProvider*{ending}")
            if not (ending == ".json" and "tensor_log" in p.name)
        )
        for number, path in enumerate(found, 1):
            path.rename(folder / f"graph{f'_{number}' if number > 1 else ''}{ending}")


@dataclass(frozen=True)
class _Placement:
    """What a backend says of each op: ``yes``, ``no`` or ``unknown``."""

    answers: Mapping[str, str]
    default: str
    reasons: Mapping[str, str]
    notes: Sequence[str] = ()
    log: str = ""


def _place(worker: client.Worker, build: Model | Quantized, backend: Backend, runtime: Runtime, soc: Soc) -> _Placement:
    if backend == "gpu" and not snapdragon_host():
        note = "gpu: unknown, since this host has no Adreno GPU to ask"
        return _Placement({}, "unknown", {}, [note])
    options, run = BackendOptions(), build.float_model
    notes: list[str] = []
    if backend == "htp":
        run = build  # type: ignore[assignment]
        try:
            options = htp_options(build, BackendOptions(soc=soc), fp32=False)
        except PlacementError as error:
            return _Placement({}, "no", {"": error.what}, [error.what])
        precision = build.precision if isinstance(build, Quantized) else "fp16"
        notes.append(f"htp: asked for {soc} ({soc.arch}) in {precision}")
    try:
        assignment, log = _asked(worker, run, session_spec(str(run.path), backend, runtime, options, strict=False,
                                                           verbose=True), runtime)  # fmt: skip
    except QnbError as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return _Placement(
            {}, "unknown", {}, [f"{backend}: could not be asked: {error.what.splitlines()[0]}"], error.log
        )
    assigned = {name: ("yes" if ep.startswith("QNN") else "no") for ep, name, _ in assignment}
    answers = {logs.original_name(name): said for name, said in assigned.items() if not _is_put_in(name)} | {
        name: said for name, said in assigned.items() if name in PUT_IN
    }
    reasons = {logs.original_name(node): r.reason for r in logs.refusals(log) for node in r.nodes}
    # An op that is in no list was folded into a neighbour before nodes were assigned.
    return _Placement(answers, "yes", reasons, notes, log)


def _asked(
    worker: client.Worker, build: Model | Quantized, spec: SessionSpec, runtime: Runtime
) -> tuple[list[list[str]], str]:
    """Ask where each node goes, once: steps that look at the same build share the answer through the cache."""
    key = cache.key(
        model=build.digest,
        options={k: v for k, v in spec.provider_options.items() if k != "backend_path"},
        backend=spec.backend,
        runtime=runtime.version,
        platform=str(runtime.folder.name),
    )

    def fill(_: Path) -> dict[str, Any]:
        answer = worker.call("place", {"spec": spec.plain()})
        return {"assignment": answer.values["assignment"], "log": answer.log}

    entry = cache.lookup("placements", key) or cache.store("placements", key, fill)
    return entry.meta["assignment"], str(entry.meta["log"])


def _traced(path: Path | None) -> dict[str, list[str]]:
    """QNN op to the ONNX nodes it was made of, from the trace that newer runtimes write."""
    if path is None:
        return {}
    trace = json.loads(path.read_text(encoding="utf-8"))
    return {
        mapping["dst_name"]: [logs.original_name(s["name"]) for s in mapping["sources"] if s["type"] == "OP"]
        for subgraph in trace["subgraph_traces"]
        for mapping in subgraph["op_mappings"]
    }


def _is_put_in(name: str) -> bool:
    """Whether the runtime gave this name to an op that it put in: the second ``Transpose`` is ``Transpose_token_1``."""
    return name not in PUT_IN and logs.original_name(name) in PUT_IN


def _written(worker: client.Worker, build: Model | Quantized) -> dict[str, set[str]]:
    """Tensors that the ops write whose names the runtime gives to what it puts in too, quantized ones included."""
    ops = worker.call("graph_ops", {"model": str(build.path)}).values["ops"]
    written = {op["name"]: set(op["outputs"]) for op in ops if op["name"] in PUT_IN}
    for op in ops:
        if op["op_type"] == "QuantizeLinear":
            for tensors in written.values():
                tensors |= set(op["outputs"]) if tensors & set(op["inputs"]) else set()
    return written


def _qnn_ops(
    graphs: Sequence[Mapping[str, Any]], model: Model, traced: Mapping[str, list[str]], written: Mapping[str, set[str]]
) -> pd.DataFrame:
    """Rows of the QNN graph; the ONNX op is taken from the trace, else from the name that the runtime derives from it."""
    import pandas as pd

    ops = sorted(map(str, model.frame["op"]), key=len, reverse=True)

    def onnx_op(name: str, outputs: Sequence[str]) -> str:
        plain = logs.original_name(name)
        said = [op for op in traced.get(name, ()) if op in ops]
        if said:
            return ", ".join(said)
        if plain in PUT_IN:  # the name says nothing: what it writes does
            return plain if written.get(plain, set()) & set(outputs) else ""
        # What one ONNX op is broken into is named after it: node_lstmStridedSlice_3, node_conv_token_1.
        return next((op for op in ops if plain.startswith(op) and not plain[len(op) :][:1].isdigit()), "")

    rows = [
        {
            "qnn_op": name,
            "qnn_type": node["type"],
            "op": onnx_op(name, node["output_names"]),
            "inputs": ", ".join(node["input_names"]),
            "outputs": ", ".join(node["output_names"]),
        }
        for graph in graphs
        for name, node in graph["graph"]["nodes"].items()
    ]
    return pd.DataFrame(rows, columns=["qnn_op", "qnn_type", "op", "inputs", "outputs"])


def _frame(model: Model, qnn_ops: pd.DataFrame, placements: Mapping[Backend, _Placement]) -> pd.DataFrame:
    import pandas as pd

    made = [(t, ops.split(", ")) for t, ops in zip(qnn_ops["qnn_type"], qnn_ops["op"], strict=True)]
    rows = []
    for op, op_type in zip(model.frame["op"], model.frame["op_type"], strict=True):
        types = list(dict.fromkeys(t for t, made_of in made if op in made_of))
        answers: dict[str, str] = {b: placements[b].answers.get(op, placements[b].default) for b in BACKENDS}
        reasons = {b: placements[b].reasons for b in BACKENDS if answers[b] == "no"}
        reason = join_reasons({b: said.get(op) or said.get("") or "not known" for b, said in reasons.items()})
        if not types and not reasons:
            reason = "folded into a neighbour"
        rows.append({"op": op, "op_type": op_type, "qnn_ops": " + ".join(types), **answers, "reason": reason})
    return pd.DataFrame(rows, columns=["op", "op_type", "qnn_ops", "htp", "gpu", "cpu", "reason"])
