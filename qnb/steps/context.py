"""Step ``context``: ahead-of-time compilation for the NPU of one or several SoCs, cached by content."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, overload

from qnb import cache, running
from qnb.artifacts import BuildArgument, Context, Contexts, Model, Quantized
from qnb.defaults import settings
from qnb.errors import BadInput, Interrupted, PlacementError
from qnb.progress import Progress, progress
from qnb.runtime import client, logs
from qnb.runtime.locate import Runtime, find_runtime
from qnb.runtime.options import BackendOptions, configured, session_spec
from qnb.socs import find, find_all
from qnb.steps._common import StepTimer, as_build, read_config
from qnb.values import Argument

if TYPE_CHECKING:
    import pandas as pd

ConfigArgument = Annotated[Mapping[str, Any] | str | Path | None, Argument("config", ("dict",))]
ExecutorArgument = Annotated[Executor | None, Argument("python")]
_POLL_S = 0.2
FP32_SOC = "SM8350"
"""The SoC whose simulator computes float graphs in fp32; those of all others compute them in fp16, or refuse them."""

FP32_NOTE = "fp32 on the NPU exists in the simulator only: no Hexagon NPU runs it"


@overload
def context(
    build: BuildArgument,
    *,
    soc: str | int | None = ...,
    config: ConfigArgument = ...,
    optimization: int | None = ...,
    vtcm_mb: int | None = ...,
    fp32: bool = ...,
    rebuild: bool = ...,
    runtime: str | None = ...,
    executor: ExecutorArgument = ...,
) -> Context: ...


@overload
def context(
    build: BuildArgument,
    *,
    soc: list[str | int] | list[str] | list[int] | tuple[str | int, ...],
    config: ConfigArgument = ...,
    optimization: int | None = ...,
    vtcm_mb: int | None = ...,
    fp32: bool = ...,
    rebuild: bool = ...,
    runtime: str | None = ...,
    executor: ExecutorArgument = ...,
) -> Contexts: ...


def context(
    build: BuildArgument,
    *,
    soc: str | int | Sequence[str | int] | None = None,
    config: ConfigArgument = None,
    optimization: int | None = None,
    vtcm_mb: int | None = None,
    fp32: bool = False,
    rebuild: bool = False,
    runtime: str | None = None,
    executor: ExecutorArgument = None,
) -> Context | Contexts:
    """Compile a model ahead of time for the NPU of one or several Snapdragons.

    Qualcomm's own offline compiler runs in a worker process. A build that was compiled before, with the same options and
    runtime, comes from the cache.

    Parameters
    ----------
    build : Model, Quantized or path
        What to compile. A float model becomes an fp16 graph, where the SoC takes it.
    soc : str, int or sequence of them, optional
        Part (``SM8650``), name (``Snapdragon 8 Gen 3``) or QNN id (57); several, or one text with commas, give a `Contexts`.
    config : mapping or path, optional
        Backend configuration: the tutorial's ``htp_config``, or ``graphs`` and ``devices`` of a backend-extension file.
    optimization : int, optional
        1 to 3: how long the compiler may look for a better graph.
    vtcm_mb : int, optional
        Tightly coupled memory that the graph may use, in MiB; at most the part's.
    fp32 : bool
        Compile a float model in fp32, for the simulator of SM8350 (Hexagon v68); no Hexagon NPU runs it.
    rebuild : bool
        Compile even if the cache has it.
    runtime : str, optional
        Version of the runtime.
    executor : concurrent.futures.Executor, optional
        Where several SoCs are compiled; by default threads, one a core, each with a worker of its own.

    Returns
    -------
    Context or Contexts
        Tables: a row for each SoC with size, compile time and the DDR traffic that the compiler plans; and the compile
        time by stage.

    Raises
    ------
    UnknownName, BadInput
        If an SoC is unknown, has no usable NPU, or is newer than the runtime.
    PlacementError
        If an op can't be compiled for the NPU, or the SoC takes no fp16.
    CompileError
        If the compiler fails.

    Examples
    --------
    >>> ctx = qnb.context(quantized, soc="Snapdragon 8 Gen 3")
    >>> many = qnb.context(quantized, soc=["SM8650", "SM8550", "SM8450"])
    """
    timer = StepTimer("context")
    found_runtime = find_runtime(runtime)
    parent = as_build(build)
    if isinstance(parent, Context):
        raise BadInput(
            f"{parent.name} is compiled already, for {parent.soc}", hint="give the Model or Quantized: .parent"
        )
    options = configured(BackendOptions(optimization=optimization), read_config(config, "config"), "htp")
    wanted = soc if soc is not None else (options.soc or default_soc(fp32))
    socs = list(dict.fromkeys(find_all(wanted, qairt=found_runtime.qairt)))
    if not socs:
        raise BadInput("no SoC is named", hint='for instance soc="SM8650"')
    several = len(socs) > 1 or not isinstance(wanted, str | int | type(socs[0]))
    vtcm = vtcm_mb if vtcm_mb is not None else options.vtcm_mb
    jobs = [htp_options(parent, replace(options, soc=one, vtcm_mb=vtcm), fp32) for one in socs]
    with progress(f"compile for {len(socs)} SoCs" if several else f"compile for {socs[0].part}", len(socs)) as bar:
        compiled = _compile_all(parent, jobs, found_runtime, rebuild, executor, bar, timer)
    if not several:
        return compiled[0]
    import pandas as pd

    return Contexts(
        frame=pd.concat([c.frame for c in compiled], ignore_index=True),
        recipe=timer.recipe(found_runtime.qairt, build=parent, soc=[s.part for s in socs], config=config),
        notes=tuple(dict.fromkeys(n for c in compiled for n in c.notes)),
        log="\n".join(c.log for c in compiled),
        contexts=tuple(compiled),
    )


def default_soc(fp32: bool) -> str:
    """Give the SoC to build for where none is named."""
    return FP32_SOC if fp32 else settings.soc


def htp_options(parent: Model | Quantized, options: BackendOptions, fp32: bool) -> BackendOptions:
    """Settle the NPU's precision for a build.

    Raises
    ------
    PlacementError
        If it is a float model, or has ops left in float, and the SoC takes no fp16; or fp32 is asked of one in fp16.
    BadInput
        If fp32 is asked for a quantized model.
    """
    if fp32:
        _check_fp32(parent, options)
    if fp32 or (isinstance(parent, Quantized) and parent.complete):
        return replace(options, fp16=False)
    if options.soc is not None and not options.soc.fp16:
        what = "has ops left in float" if isinstance(parent, Quantized) else "is a float model"
        raise PlacementError(
            f"{parent.name} {what}, and the NPU of {options.soc} ({options.soc.arch}) takes no fp16",
            hint="quantize it first: qnb.calibrate(model, data); or choose an SoC that takes fp16, such as SM8650",
        )
    return replace(options, fp16=True)


def _check_fp32(parent: Model | Quantized, options: BackendOptions) -> None:
    if isinstance(parent, Quantized):
        raise BadInput(
            f"fp32 is for float models, and {parent.name} is quantized", hint="give its float model: .parent"
        )
    if options.soc is not None and options.soc != find(FP32_SOC):
        raise PlacementError(
            f"the simulator of {options.soc} computes float graphs in fp16, not in fp32",
            hint=f'leave soc out, or say soc="{FP32_SOC}", the one that computes them in fp32; or run it on the cpu backend',
        )


def _compile_all(
    parent: Model | Quantized,
    jobs: Sequence[BackendOptions],
    runtime: Runtime,
    rebuild: bool,
    executor: Executor | None,
    bar: Progress,
    timer: StepTimer,
) -> list[Context]:
    if len(jobs) == 1:
        return [compile_one(parent, jobs[0], runtime, rebuild=rebuild, bar=bar, timer=timer)]
    # Some parts share an id, and so a binary: it is compiled once, and then found in the cache.
    by_id = {options.soc.soc_model: options for options in reversed(jobs) if options.soc}
    made = {c.soc: c for c in _compile_apart(parent, list(by_id.values()), runtime, rebuild, executor, bar)}
    return [made.get(job.soc) or compile_one(parent, job, runtime) for job in jobs if job.soc]


def _compile_apart(
    parent: Model | Quantized,
    jobs: Sequence[BackendOptions],
    runtime: Runtime,
    rebuild: bool,
    executor: Executor | None,
    bar: Progress,
) -> list[Context]:
    if executor is not None:
        submitted = [running.submit(executor, _compile_job, parent, options, runtime, rebuild) for options in jobs]
        return _gathered(submitted, bar)
    with running.threads(min(len(jobs), os.cpu_count() or 1)) as threads:
        return _gathered([threads.submit(_compile_job, parent, options, runtime, rebuild) for options in jobs], bar)


def _gathered(futures: Sequence[Future[Context]], bar: Progress) -> list[Context]:
    """Wait for all, in their order; after an error or an interrupt, what has not begun does not begin."""
    pending = set(futures)
    try:
        while pending:
            done, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            for future in done:
                bar.step(future.result().soc.part)
            running.heed()
        return [future.result() for future in futures]
    except BaseException as error:
        for future in pending:
            future.cancel()
        if isinstance(error, KeyboardInterrupt) and not isinstance(error, Interrupted):
            raise Interrupted(
                "context: interrupted by the user", hint="SoCs that were done are in the cache"
            ) from error
        raise


def _compile_job(parent: Model | Quantized, options: BackendOptions, runtime: Runtime, rebuild: bool) -> Context:
    return compile_one(parent, options, runtime, rebuild=rebuild)


def compile_one(
    parent: Model | Quantized,
    options: BackendOptions,
    runtime: Runtime,
    *,
    rebuild: bool = False,
    bar: Progress | None = None,
    timer: StepTimer | None = None,
) -> Context:
    """Compile for one SoC, or find it in the cache."""
    timer = timer or StepTimer("context")
    assert options.soc is not None
    spec = session_spec(str(parent.path), "htp", runtime, options)
    key = cache.key(
        model=parent.digest,
        options={k: v for k, v in spec.provider_options.items() if k != "backend_path"},
        runtime=runtime.version,
        platform=str(runtime.folder.name),
    )
    entry = None if rebuild else cache.lookup("contexts", key)
    cached = entry is not None

    def build(folder: Path) -> dict[str, Any]:
        with client.borrow(runtime) as worker:
            answer = worker.call(
                "compile_context",
                {"spec": spec.plain(), "folder": str(folder)},
                on_progress=(lambda _d, _t, text: bar.update(0, text=text)) if bar else None,
            )
        return answer.values | {
            "stages": logs.stages(answer.log),
            "ddr": logs.ddr_traffic(answer.log),
            "log": answer.log,
        }

    entry = entry or cache.store("contexts", key, build)
    return _context(parent, options, entry, cached, runtime, timer)


def _context(
    parent: Model | Quantized,
    options: BackendOptions,
    entry: cache.Entry,
    cached: bool,
    runtime: Runtime,
    timer: StepTimer,
) -> Context:
    meta = entry.meta
    soc = options.soc
    assert soc is not None
    binary = entry.folder / meta["binary"]
    stamp = entry.stamps[meta["binary"]]
    precision = parent.precision if isinstance(parent, Quantized) else ("fp16" if options.fp16 else "fp32")
    vtcm_mb = options.vtcm_mb or soc.vtcm_mb
    notes = ["DDR traffic is what the compiler plans for one inference"]
    if not meta["stages"]:
        notes = [f"runtime {runtime.version} does not report compile stages and DDR traffic"]
    if precision == "fp32":
        notes.append(FP32_NOTE)
    return Context(
        frame=_frame(soc, precision, stamp, meta, vtcm_mb, cached),
        recipe=timer.recipe(runtime.qairt, build=parent, soc=soc.part),
        notes=tuple(notes),
        log=meta["log"],
        files={"model": entry.folder / meta["wrapper"], "binary": binary},
        name=parent.name,
        digest=stamp["digest"],
        soc=soc,
        parent=parent,
        precision=precision,
        size_bytes=stamp["size"],
        compile_ms=meta["compile_ms"],
        stages=meta["stages"],
        ddr=meta["ddr"],
        vtcm_mb=vtcm_mb,
        cached=cached,
    )


def _frame(
    soc: Any, precision: str, stamp: Mapping[str, Any], meta: Mapping[str, Any], vtcm_mb: int | None, cached: bool
) -> pd.DataFrame:
    import pandas as pd

    nan = float("nan")
    row: dict[str, Any] = {
        "soc": soc.part,
        "name": soc.name,
        "soc_model": soc.soc_model,
        "arch": soc.arch,
        "precision": precision,
        "source": "host",
        "size_kb": stamp["size"] / 1024,
        "compile_ms": meta["compile_ms"],
    }
    row |= {
        f"ddr_{kind}_kb": meta["ddr"][kind] / 1024 if kind in meta["ddr"] else nan
        for kind in ("read", "write", "spill", "fill")
    }
    row["ddr_source"] = "estimate" if meta["ddr"] else ""
    row |= {"vtcm_mb": vtcm_mb if vtcm_mb is not None else nan, "cached": cached, "digest": stamp["digest"][:12]}
    return pd.DataFrame([row])
