"""Typed options of a session, and what they become in the runtime's own words.

Option names are those of ONNX Runtime's QNN execution provider (its documentation: QNN-ExecutionProvider.md in
onnxruntime/onnxruntime-qnn). Knows nothing of workers and steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from qnb.errors import BadConfig, UnknownName
from qnb.runtime.locate import Runtime, library
from qnb.socs import Soc
from qnb.values import Backend

PERFORMANCE_MODES = (
    "burst",
    "sustained_high_performance",
    "high_performance",
    "balanced",
    "low_balanced",
    "high_power_saver",
    "power_saver",
    "low_power_saver",
    "extreme_power_saver",
    "default",
)

SessionBackend = Literal["htp", "gpu", "cpu", "ir", "ort"]
"""A QNN backend, or ``ort``: ONNX Runtime's own CPU provider, our fp32 reference."""


@dataclass(frozen=True)
class BackendOptions:
    """What can be set of a backend; None leaves the runtime's default.

    Attributes
    ----------
    soc : Soc or None
        Target of the NPU's compiler.
    fp16 : bool
        Run float graphs on the NPU in fp16.
    performance_mode : str or None
        One of `PERFORMANCE_MODES`.
    vtcm_mb : int or None
        Tightly coupled memory that the graph may use, in MiB; at most the SoC's.
    optimization : int or None
        How long the compiler may look for a better graph: 1 to 3.
    device_id : int or None
        Index of the NPU or GPU.
    rpc_control_latency_us : int or None
        Control latency of the link to the NPU, in microseconds.
    """

    soc: Soc | None = None
    fp16: bool = False
    performance_mode: str | None = None
    vtcm_mb: int | None = None
    optimization: int | None = None
    device_id: int | None = None
    rpc_control_latency_us: int | None = None

    def __post_init__(self) -> None:
        if self.performance_mode is not None and self.performance_mode not in PERFORMANCE_MODES:
            raise UnknownName.among("performance mode", self.performance_mode, PERFORMANCE_MODES)
        if self.optimization is not None and self.optimization not in (1, 2, 3):
            raise BadConfig(
                f"optimization level {self.optimization!r}", hint="give 1, 2 or 3 (3 takes longest to compile)"
            )
        if self.vtcm_mb is not None:
            self._check_vtcm(self.vtcm_mb)

    def _check_vtcm(self, asked: int) -> None:
        if asked < 1:
            raise BadConfig(f"vtcm_mb is {asked}", hint="give at least 1, or leave it out for all that the part has")
        if self.soc and self.soc.vtcm_mb and asked > self.soc.vtcm_mb:
            raise BadConfig(
                f"vtcm_mb is {asked}, but {self.soc} has {self.soc.vtcm_mb} MiB of VTCM",
                hint=f"give at most {self.soc.vtcm_mb}; the compiler would take more in silence, and the chip would not",
            )

    def provider_options(self, runtime: Runtime, backend: Backend | Literal["ir"]) -> dict[str, str]:
        """Give the QNN execution provider's options.

        Raises
        ------
        RuntimeUnavailable
            If the runtime has no such backend.
        """
        # By default the nodes at the graph's edge go to ONNX Runtime's CPU.
        options = {"backend_path": str(library(runtime, backend)), "offload_graph_io_quantization": "0"}
        if backend in ("htp", "ir") and self.soc:
            # Never htp_arch: 2.3.0 given 79 builds for v68 in silence. Never without: a session then gets the target of
            # one that the process had before. The precision of float graphs follows from it, whatever the next option says.
            options["soc_model"] = str(self.soc.soc_model)
        if backend == "htp":
            options["enable_htp_fp16_precision"] = "1" if self.fp16 else "0"
            options |= self._given(
                htp_performance_mode=self.performance_mode,
                vtcm_mb=self.vtcm_mb,
                htp_graph_finalization_optimization_mode=self.optimization,
                rpc_control_latency=self.rpc_control_latency_us,
            )
        if backend in ("htp", "gpu"):
            options |= self._given(device_id=self.device_id)
        return options

    @staticmethod
    def _given(**options: object) -> dict[str, str]:
        return {name: str(value) for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class SessionSpec:
    """All that makes one session: what a worker needs to load it, and the key under which it keeps it."""

    model: str
    backend: SessionBackend
    provider_options: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    strict: bool = True
    verbose: bool = False

    def plain(self) -> dict[str, Any]:
        """Give it as plain values for a message."""
        return {
            "model": self.model,
            "backend": self.backend,
            "provider_options": dict(self.provider_options),
            "config": dict(self.config),
            "strict": self.strict,
            "verbose": self.verbose,
        }


def session_spec(
    model: str,
    backend: SessionBackend,
    runtime: Runtime,
    options: BackendOptions | None = None,
    *,
    strict: bool = True,
    verbose: bool = False,
    extra: Mapping[str, str] | None = None,
    config: Mapping[str, str] | None = None,
) -> SessionSpec:
    """Describe a session.

    Parameters
    ----------
    model : str
        Path of an ONNX file, or of the ONNX wrapper of a context binary.
    backend : {"htp", "gpu", "cpu", "ir", "ort"}
        Where every node has to be.
    runtime : Runtime
        Runtime whose libraries are used.
    options : BackendOptions, optional
        Its options.
    strict : bool
        Whether a node elsewhere is an error.
    verbose : bool
        Whether the runtime logs why it takes or refuses each node.
    extra, config : mapping of str to str, optional
        Further provider options and session configuration entries.
    """
    provider: dict[str, str] = {}
    if backend != "ort":
        provider = (options or BackendOptions()).provider_options(runtime, backend) | dict(extra or {})
    return SessionSpec(model, backend, provider, dict(config or {}), strict, verbose)


# --- backend configuration files -----------------------------------------------------------------------------------

_NO_OPTION = "the runtime's execution provider has no option for it"
_Rule = str | tuple[str, str]
"""Name of the field that a key sets, or ``("refused", reason)``."""


def _refused(reason: str) -> tuple[str, str]:
    return ("refused", reason)


_SECTIONS: dict[str, dict[str, _Rule]] = {
    "htp_config": {
        "device_id": "device_id",
        "performance_mode": "performance_mode",
        "precision_mode": "precision",
        "vtcm_mb": "vtcm_mb",
        "enable_dma": "dma",
    },
    "gpu_config": {
        "device_id": "device_id",
        "performance_mode": _refused(_NO_OPTION),
        "precision_mode": _refused(_NO_OPTION + "; on a GPU the model's own precision decides"),
        "enable_transform_optimization": _refused(_NO_OPTION),
    },
    "cpu_config": {
        "num_threads": _refused(_NO_OPTION + "; QNN's CPU backend chooses its threads itself"),
        "performance_mode": _refused(_NO_OPTION),
        "enable_fast_math": _refused(_NO_OPTION),
    },
}
_GRAPH_KEYS: dict[str, _Rule] = {
    "graph_names": "ignored",
    "vtcm_mb": "vtcm_mb",
    "O": "optimization",
    "fp16_relaxed_precision": "fp16",
    "hvx_threads": _refused(_NO_OPTION),
    "dlbc": _refused(_NO_OPTION),
}
_DEVICE_KEYS: dict[str, _Rule] = {
    "device_id": "device_id",
    "soc_model": "soc",
    "soc_id": "soc",
    "dsp_arch": _refused("runtime 2.3.0 builds for another architecture in silence; give soc_model instead"),
    "cores": "cores",
}
_CORE_KEYS: dict[str, _Rule] = {
    "core_id": "ignored",
    "perf_profile": "performance_mode",
    "rpc_control_latency": "rpc_control_latency_us",
}
_OUTER = ("graphs", "devices", "context", "memory", "groupContext")
_FLOAT_PRECISIONS = ("fp16", "float16")
_INTEGER_PRECISIONS = ("int8", "int16", "w8a8", "w8a16", "quantized", "default")


def configured(options: BackendOptions, config: Mapping[str, Any], backend: Backend) -> BackendOptions:
    """Apply a backend configuration.

    Two shapes are read: the tutorial's (sections ``htp_config``, ``gpu_config``, ``cpu_config``; only the one of
    `backend` is applied), and the inner part of Qualcomm's backend-extension files (``graphs``, ``devices``).

    Parameters
    ----------
    options : BackendOptions
        What is set already.
    config : mapping
        The configuration as plain values.
    backend : {"htp", "gpu", "cpu"}
        Backend that is going to run.

    Raises
    ------
    BadConfig
        If a key is unknown, can't be honoured by the runtime, or has a value that does not fit.
    """
    known = (*_SECTIONS, *_OUTER)
    for key in config:
        if key == "backend_extensions":
            raise BadConfig(
                "backend_extensions names another file",
                hint="give the file that its config_file_path names (the one with graphs and devices)",
            )
        if key not in known:
            raise _unknown_key(key, known, "")
    for section, keys in _SECTIONS.items():
        values = _mapping(config.get(section, {}), section)
        for key in values:
            if key not in keys:
                raise _unknown_key(key, keys, f"{section}.")
        if section == f"{backend}_config":
            options = _apply(options, values, keys, section)
    for key in ("context", "memory", "groupContext"):
        if config.get(key):
            raise BadConfig(f"{key}: {_NO_OPTION}", hint=f"leave {key} out")
    if backend != "htp":
        return options
    for number, graph in enumerate(_list(config.get("graphs", []), "graphs")):
        options = _apply(options, graph, _GRAPH_KEYS, f"graphs[{number}]")
    for number, device in enumerate(_list(config.get("devices", []), "devices")):
        options = _apply(options, device, _DEVICE_KEYS, f"devices[{number}]")
        for core, values in enumerate(_list(device.get("cores", []), "cores")):
            options = _apply(options, values, _CORE_KEYS, f"devices[{number}].cores[{core}]")
    return options


def _unknown_key(key: str, known: Any, where: str) -> BadConfig:
    near = UnknownName.among("key", where + str(key), [where + k for k in known])
    return BadConfig(near.what + " in the backend configuration", hint=near.hint)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadConfig(f"{where} is {value!r}", hint=f"{where} has to be a mapping of keys to values")
    return value


def _list(value: Any, where: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        raise BadConfig(f"{where} is {value!r}", hint=f"{where} has to be a list of mappings")
    return [_mapping(item, f"{where}[{i}]") for i, item in enumerate(value)]


def _apply(options: BackendOptions, values: Mapping[str, Any], keys: Mapping[str, _Rule], where: str) -> BackendOptions:
    for key, value in values.items():
        if key not in keys:
            raise _unknown_key(key, keys, f"{where}.")
        rule = keys[key]
        if isinstance(rule, tuple):
            raise BadConfig(f"{where}.{key} can't be honoured: {rule[1]}", hint=f"leave {key} out")
        options = _set(options, rule, value, f"{where}.{key}")
    return options


def _set(options: BackendOptions, name: str, value: Any, where: str) -> BackendOptions:
    if name in ("ignored", "cores"):
        return options
    if name == "dma":
        if value is not True:
            raise BadConfig(f"{where} is {value!r}", hint="the NPU always moves data by DMA; leave it out or say true")
        return options
    if name == "soc":
        from qnb.socs import find

        return replace(options, soc=find(value))
    if name == "precision":
        if value in _FLOAT_PRECISIONS:
            return replace(options, fp16=True)
        if value in _INTEGER_PRECISIONS:
            return options  # the encodings of the quantized model decide
        raise UnknownName.among("precision_mode", value, (*_FLOAT_PRECISIONS, *_INTEGER_PRECISIONS))
    if name == "fp16":
        if not isinstance(value, bool | int):
            raise BadConfig(f"{where} is {value!r}", hint="give true or false")
        return replace(options, fp16=bool(value))
    if name == "performance_mode":
        if not isinstance(value, str):
            raise BadConfig(f"{where} is {value!r}", hint=f"give one of {', '.join(PERFORMANCE_MODES)}")
        return replace(options, performance_mode=value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadConfig(f"{where} is {value!r}", hint="give a whole number, 0 or more")
    changed: dict[str, Any] = {name: value}
    return replace(options, **changed)
