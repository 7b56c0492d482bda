"""Sessions inside a worker: load one, prove where its nodes are, run it.

The only module that imports onnxruntime and onnxruntime_qnn; it must never be imported by the kernel process.
"""

from __future__ import annotations

import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime as ort
import psutil

from qnb.errors import InferenceError, PlacementError, RuntimeUnavailable
from qnb.runtime import logs

QNN = "QNNExecutionProvider"
_MEMORY_SHARE = 0.25
_MAX_SESSIONS = 16

_DISABLED_OPTIMIZERS = ["ConstantSharing", "WeightBiasQuantization"]
"""The first gives equal constants of up to 8 values one name, and the QNN provider one batch norm's scale for another's.

The second quantizes, to 8 bits per tensor and in silence, the weights of each layer that a Q/DQ graph leaves in float.
"""

Assignment = list[tuple[str, str, str]]
"""Execution provider, node name and op type of each node, after ONNX Runtime's own rewriting."""


@dataclass
class Loaded:
    """A session with the facts of its loading."""

    session: ort.InferenceSession
    assignment: Assignment
    load_s: float
    rss_bytes: int
    inputs: list[str]
    outputs: list[str]

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Run once; outputs in the model's order.

        Raises
        ------
        InferenceError
            If the runtime refuses or fails.
        """
        try:
            return [np.asarray(o) for o in self.session.run(self.outputs, dict(feeds))]
        except Exception as error:  # onnxruntime's own classes share no base but Exception
            raise InferenceError(
                f"the runtime could not run the model: {_first_line(error)}", hint="see %qnn log"
            ) from error


Take = Callable[[str, np.ndarray], None]
_Form = tuple[tuple[int, ...], np.dtype[Any]]


class Chain:
    """Sessions on the parts of one graph, whose outputs are written to the same memory each time.

    Nothing is allocated or copied from the second run on. Parts share the memory of what only their own reader sees.

    Parameters
    ----------
    parts : sequence of Loaded
        Sessions on ONNX Runtime's CPU, in order; each reads the graph's inputs and what earlier ones gave. Their
        outputs have fixed shapes.
    stated : mapping of str to tuple of int
        Shapes of outputs, for those that the runtime does not tell. Where they are known no run has to find them out,
        which would leave each session with memory for its outputs.
    """

    def __init__(self, parts: Sequence[Loaded], stated: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> None:
        self._parts = parts
        self._bound: list[_BoundPart] | None = None
        told = [{o.name: _told(o, stated) for o in part.session.get_outputs()} for part in parts]
        known = [{name: form for name, form in part.items() if form is not None} for part in told]
        if known == told:
            self._bind(known)

    def run(self, feeds: Mapping[str, np.ndarray], take: Take) -> None:
        """Run once; `take` is called with the name and value of each output, which holds during the call.

        Raises
        ------
        InferenceError
            If the runtime refuses or fails.
        """
        if self._bound:
            for part in self._bound:
                part.run(feeds, take)
            return
        known = dict(feeds)
        crossing = {name for loaded in self._parts for name in loaded.inputs}
        forms: list[dict[str, _Form]] = []
        for loaded in self._parts:
            values = dict(zip(loaded.outputs, loaded.run({n: known[n] for n in loaded.inputs}), strict=True))
            forms.append({name: (value.shape, value.dtype) for name, value in values.items()})
            for name, value in values.items():
                take(name, value)
                if name in crossing:
                    known[name] = value
        self._bind(forms)

    def _bind(self, like: list[dict[str, _Form]]) -> None:
        made = set().union(*like)
        crossing = {name for loaded in self._parts for name in loaded.inputs}
        kept = {n: np.empty(*form) for part in like for n, form in part.items() if n in crossing}
        room = max(sum(_padded(form) for n, form in part.items() if n not in crossing) for part in like)
        memory = np.empty(room, np.uint8)
        self._bound = []
        for loaded, forms in zip(self._parts, like, strict=True):
            outputs, offset = {}, 0
            for name, form in forms.items():
                if name in crossing:
                    outputs[name] = kept[name]
                else:
                    outputs[name] = memory[offset : offset + _nbytes(form)].view(form[1]).reshape(form[0])
                    offset += _padded(form)
            self._bound.append(_BoundPart(loaded, outputs, kept, [n for n in loaded.inputs if n not in made]))


class _BoundPart:
    def __init__(
        self, loaded: Loaded, outputs: dict[str, np.ndarray], kept: Mapping[str, np.ndarray], fed: list[str]
    ) -> None:
        self._loaded, self._outputs, self._fed = loaded, outputs, fed
        self._binding = loaded.session.io_binding()
        for name in loaded.inputs:
            if name not in fed:
                self._binding.bind_cpu_input(name, kept[name])
        for name, value in outputs.items():
            self._binding.bind_output(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)

    def run(self, feeds: Mapping[str, np.ndarray], take: Take) -> None:
        try:
            for name in self._fed:
                self._binding.bind_cpu_input(name, feeds[name])
            self._loaded.session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime's own classes share no base but Exception
            raise InferenceError(
                f"the runtime could not run the model: {_first_line(error)}", hint="see %qnn log"
            ) from error
        for name, value in self._outputs.items():
            take(name, value)


def _told(output: ort.NodeArg, stated: Mapping[str, tuple[int, ...]]) -> _Form | None:
    told = output.shape and all(isinstance(length, int) for length in output.shape)  # [] is also what is not known
    shape = output.shape if told else stated.get(output.name)
    return (tuple(shape), np.dtype(np.float32)) if shape is not None and output.type == "tensor(float)" else None


def _nbytes(form: _Form) -> int:
    return math.prod(form[0]) * form[1].itemsize


def _padded(form: _Form) -> int:
    return -(-_nbytes(form) // 64) * 64


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:500] if str(error).strip() else type(error).__name__


_registered = False


def _qnn_devices() -> Sequence[Any]:
    global _registered
    if not _registered:
        import onnxruntime_qnn

        ort.register_execution_provider_library(QNN, onnxruntime_qnn.get_library_path())
        _registered = True
    return [d for d in ort.get_ep_devices() if d.ep_name == QNN][:1]


def create(spec: Mapping[str, Any]) -> Loaded:
    """Create a session and read back where its nodes are.

    Parameters
    ----------
    spec : mapping
        `SessionSpec.plain()`; ``threads``, how many a run may use, is as many as there are cores where it is missing.

    Raises
    ------
    PlacementError
        If `strict` and a node is not on the backend.
    RuntimeUnavailable
        If the backend can't be started on this machine.
    InferenceError
        If the runtime refuses the model.
    """
    options = _plain_options(spec, spec.get("threads", 0))
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    on_qnn = spec["backend"] != "ort"
    if on_qnn:
        options.add_provider_for_devices(_qnn_devices(), dict(spec["provider_options"]))
    providers = None if on_qnn else ["CPUExecutionProvider"]
    rss = psutil.Process().memory_info().rss
    start = time.perf_counter()
    try:
        session = ort.InferenceSession(
            spec["model"], options, providers=providers, disabled_optimizers=_DISABLED_OPTIMIZERS
        )
    except Exception as error:
        raise InferenceError(
            f"the runtime could not load {Path(spec['model']).name} on {spec['backend']}: {_first_line(error)}",
            hint="see %qnn log for what the runtime printed",
        ) from error
    load_s = time.perf_counter() - start
    assignment: Assignment = [
        (graph.ep_name, node.name, node.op_type)
        for graph in session.get_provider_graph_assignment_info()
        for node in graph.get_nodes()
    ]
    if on_qnn and spec["strict"]:
        require_placement(assignment, spec["backend"])
    return Loaded(
        session,
        assignment,
        load_s,
        max(0, psutil.Process().memory_info().rss - rss),
        [i.name for i in session.get_inputs()],
        [o.name for o in session.get_outputs()],
    )


def optimise(spec: Mapping[str, Any], out: str | Path) -> None:
    """Write a model as ONNX Runtime's optimizer leaves it for this machine's CPU, its weights in a file beside it.

    Parameters
    ----------
    spec : mapping
        `SessionSpec.plain()`, backend ``"ort"``.
    out : path
        The ONNX file to write; to be loaded with `create_optimised`.

    Raises
    ------
    InferenceError
        If the runtime refuses the model.
    """
    options = _plain_options(spec, 1)
    options.log_severity_level = 3  # it warns that the file is for machines like this one
    options.optimized_model_filepath = str(out)
    weights = Path(out).with_suffix(".bin").name
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    options.add_session_config_entry("session.disable_prepacking", "1")
    _on_cpu(spec["model"], options)


def create_optimised(spec: Mapping[str, Any], model: str | Path, threads: int = 0) -> Loaded:
    """Create a session on what `optimise` wrote; its threads sleep between the runs, in which others compute.

    Parameters
    ----------
    spec : mapping
        `SessionSpec.plain()`, backend ``"ort"``.
    model : path
        The file.
    threads : int
        Threads of a run; 0 for as many as there are cores.

    Raises
    ------
    InferenceError
        If the runtime refuses the model.
    """
    options = _plain_options(spec, threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    rss, start = psutil.Process().memory_info().rss, time.perf_counter()
    session = _on_cpu(str(model), options)
    load_s = time.perf_counter() - start
    grown = max(0, psutil.Process().memory_info().rss - rss)
    names = [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]
    return Loaded(session, [], load_s, grown, *names)


def _plain_options(spec: Mapping[str, Any], threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 0 if spec["verbose"] else 2
    options.intra_op_num_threads = threads
    for name, value in spec["config"].items():
        options.add_session_config_entry(name, value)
    return options


def _on_cpu(model: str, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InferenceError(
            f"the runtime could not load {Path(model).name}: {_first_line(error)}",
            hint="see %qnn log for what the runtime printed",
        ) from error


def require_placement(assignment: Assignment, backend: str) -> None:
    """Raise unless every node is on QNN: ONNX Runtime falls back in silence where QNN can't be started."""
    elsewhere = [(name, op) for ep, name, op in assignment if ep != QNN]
    if not elsewhere:
        return
    if len(elsewhere) == len(assignment):
        what = f"no node of the model is on {backend}: all {len(assignment)} fell back to ONNX Runtime's CPU"
    else:
        names = ", ".join(f"{logs.original_name(n)} ({op})" for n, op in elsewhere[:8])
        more = f" and {len(elsewhere) - 8} more" if len(elsewhere) > 8 else ""
        what = f"{len(elsewhere)} of {len(assignment)} nodes are not on {backend}: {names}{more}"
    raise PlacementError(
        what,
        hint="qnb.convert shows op by op what each backend takes; fallback='cpu' lets the rest run on ONNX Runtime's CPU",
    )


class SessionStore:
    """The sessions that a worker keeps loaded, least recently used first out."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._last: tuple[tuple[Mapping[str, Any], int, int], Loaded] | None = None
        self._budget = int(psutil.virtual_memory().total * _MEMORY_SHARE)

    def get(self, spec: Mapping[str, Any]) -> tuple[Loaded, bool]:
        """Return the session, and whether it was loaded already."""
        try:
            status = os.stat(spec["model"])  # noqa: PTH116 - on each call, so the quickest way
        except OSError as error:
            raise InferenceError(
                f"the model file is gone: {spec['model']}", hint="run the step that made it"
            ) from error
        asked = (spec, status.st_size, status.st_mtime_ns)
        if self._last is not None and self._last[0] == asked:
            return self._last[1], True
        key = f"{sorted(spec.items())} {asked[1:]}"
        known = key in self._loaded
        if known:
            self._loaded.move_to_end(key)
        else:
            self._evict()
            self._loaded[key] = create(spec)
        self._last = (asked, self._loaded[key])
        return self._loaded[key], known

    def _evict(self) -> None:
        while self._loaded and (
            len(self._loaded) >= _MAX_SESSIONS or sum(x.rss_bytes for x in self._loaded.values()) > self._budget
        ):
            self._loaded.popitem(last=False)


def probe(spec: Mapping[str, Any]) -> None:
    """Load a model only to see whether its backend starts.

    Raises
    ------
    RuntimeUnavailable
        If it does not.
    """
    try:
        create(spec)
    except (PlacementError, InferenceError) as error:
        raise RuntimeUnavailable(f"backend {spec['backend']} does not start here", hint=error.hint) from error
