"""What runs where: for a build and a backend, the session, its precision, and what its figures stand for.

The table that this module is::

                 htp                            cpu                          gpu
    Model        fp16 where the SoC takes it    fp32 on QNN's CPU backend    fp16: Adreno, or the reference elsewhere
    Quantized    integer                        its float parent, fp32       its float parent, fp16
    Context      as compiled                    refused                      refused

Knows nothing of what is done with the session.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from qnb import cache
from qnb.artifacts import Build, Context, Model, Quantized
from qnb.errors import BadInput, PlacementError, UnknownName
from qnb.runtime import client
from qnb.runtime.locate import Runtime, snapdragon_host, source_of
from qnb.runtime.options import BackendOptions, SessionSpec, session_spec
from qnb.socs import Soc, find
from qnb.steps.context import FP32_NOTE, compile_one, default_soc, htp_options
from qnb.values import BACKENDS, Backend, Source

Fallback = Literal["cpu"]

_REFERENCE_NOTE = "gpu: this host has no Adreno GPU; its row is for the accuracy of fp16, never for a GPU's speed"


@dataclass(frozen=True)
class Deployment:
    """A build on a backend.

    Attributes
    ----------
    spec : SessionSpec
        The session to load.
    precision : str
        What is computed in: ``w8a8``, ``fp16``, ``fp32``.
    source : str
        What its figures stand for.
    soc : Soc or None
        Target of the NPU.
    notes : tuple of str
        What the reader of its figures must know.
    size_bytes : int
        Size of what is loaded: the context binary, or the ONNX file.
    context : Context or None
        What was compiled for the NPU; None where ops may fall back.
    """

    build: Build
    backend: Backend
    spec: SessionSpec
    precision: str
    source: Source
    soc: Soc | None
    notes: tuple[str, ...]
    size_bytes: int
    context: Context | None = None

    @property
    def label(self) -> dict[str, str]:
        """Columns that name it in a table."""
        return {
            "backend": self.backend,
            "soc": self.soc.part if self.soc else "",
            "precision": self.precision,
            "source": self.source,
        }


def check_backends(backends: object) -> tuple[Backend, ...]:
    """Check names of backends; one name stands for itself."""
    names: list[Any]
    if isinstance(backends, str):
        names = [b.strip() for b in backends.split(",")]
    else:
        names = list(backends) if isinstance(backends, Iterable) else [backends]
    for name in names:
        if name not in BACKENDS:
            raise UnknownName.among("backend", name, BACKENDS)
    if not names:
        raise BadInput("no backend is named", hint=f"choose among {', '.join(BACKENDS)}")
    return tuple(dict.fromkeys(names))


def deploy(
    build: Build,
    backend: Backend,
    runtime: Runtime,
    *,
    soc: str | int | Soc | None = None,
    options: BackendOptions | None = None,
    fallback: Fallback | None = None,
    fp32: bool = False,
) -> Deployment:
    """Prepare a build for a backend: compile it, cast it, or take its float parent, as the table above says.

    Raises
    ------
    PlacementError
        If the backend does not take it.
    BadInput
        If an argument does not fit.
    """
    if fallback not in (None, "cpu"):
        raise UnknownName.among("fallback", fallback, ["cpu"])
    options = options or BackendOptions()
    if backend == "htp":
        wanted = find(soc, qairt=runtime.qairt) if soc is not None else options.soc
        return _on_htp(build, runtime, wanted, options, fallback, fp32)
    if isinstance(build, Context):
        raise PlacementError(
            f"{build.name} is a context binary for the NPU of {build.soc}; it can't run on {backend}",
            hint=f"run what it was compiled from: qnb.infer(context.parent, …, backend={backend!r})",
        )
    if backend == "cpu":
        return _on_cpu(build, runtime, options, fallback)
    return _on_gpu(build, runtime, options, fallback)


def _on_htp(
    build: Build, runtime: Runtime, soc: Soc | None, options: BackendOptions, fallback: Fallback | None, fp32: bool
) -> Deployment:
    source = source_of("htp")
    if isinstance(build, Context):
        if soc is not None and soc.soc_model != build.soc.soc_model:
            raise BadInput(
                f"{build.name} was compiled for {build.soc}, not for {soc}",
                hint=f'compile it for that one: qnb.context(context.parent, soc="{soc.part}")',
            )
        spec = session_spec(str(build.path), "htp", runtime, replace(options, soc=build.soc))
        notes = (FP32_NOTE,) if build.precision == "fp32" else ()
        return Deployment(build, "htp", spec, build.precision, source, build.soc, notes, build.size_bytes, build)
    soc = soc or find(default_soc(fp32), qairt=runtime.qairt)
    options = htp_options(build, replace(options, soc=soc), fp32)
    if fallback:
        spec = session_spec(str(build.path), "htp", runtime, options, strict=False)
        precision = build.precision if isinstance(build, Quantized) else ("fp16" if options.fp16 else "fp32")
        return Deployment(build, "htp", spec, precision, source, soc, (), build.path.stat().st_size)
    compiled = compile_one(build, options, runtime)
    deployed = _on_htp(compiled, runtime, None, options, None, False)
    return replace(deployed, build=build)


def _on_cpu(
    build: Model | Quantized, runtime: Runtime, options: BackendOptions, fallback: Fallback | None
) -> Deployment:
    run, precision = build, "fp32"
    notes: tuple[str, ...] = ()
    if isinstance(build, Quantized):
        if fallback:
            precision = build.precision
            notes = (
                "cpu: the quantized graph itself, for debugging: most of its nodes run on ONNX Runtime's CPU, and QNN's CPU "
                "backend was seen to compute some quantized ops wrongly, so look at the SQNR",
            )
        else:
            run = build.parent
            notes = (f"cpu: the float parent of {build.name} in fp32, the precision of this backend",)
    spec = session_spec(str(run.path), "cpu", runtime, options, strict=fallback is None)
    return Deployment(build, "cpu", spec, precision, source_of("cpu"), None, notes, run.path.stat().st_size)


def _on_gpu(
    build: Model | Quantized, runtime: Runtime, options: BackendOptions, fallback: Fallback | None
) -> Deployment:
    model = build.float_model
    notes = (f"gpu: the float parent of {build.name} in fp16",) if isinstance(build, Quantized) else ()
    cast = _cast_fp16(model, runtime)
    size = Path(cast).stat().st_size
    if snapdragon_host():
        spec = session_spec(cast, "gpu", runtime, options, strict=fallback is None)
        return Deployment(build, "gpu", spec, "fp16", "device", None, notes, size)
    spec = session_spec(cast, "ort", runtime)
    return Deployment(build, "gpu", spec, "fp16", "reference", None, (*notes, _REFERENCE_NOTE), size)


def _cast_fp16(model: Model, runtime: Runtime) -> str:
    key = cache.key(model=model.digest, runtime=runtime.version)
    entry = cache.lookup("fp16", key)
    if entry is None:
        entry = cache.store(
            "fp16",
            key,
            lambda folder: (
                client.call(
                    "cast_fp16", {"model": str(model.path), "out": str(folder / "fp16.onnx")}, runtime=runtime
                ).values
            ),
        )
    return str(entry.folder / "fp16.onnx")
