"""Step ``calibrate``: ranges over calibration data, and a quantized model with its encodings."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from qnb import cache, frames, kept
from qnb.artifacts import Model, ModelArgument, Quantized
from qnb.errors import BadInput, Interrupted, QnbError, UnknownName
from qnb.files import digest
from qnb.progress import SILENT, progress
from qnb.runtime import client
from qnb.runtime.locate import Runtime, find_runtime
from qnb.samples import SampleStream
from qnb.samples import samples as sample_stream
from qnb.steps._common import StepTimer, as_model, read_config
from qnb.steps._tuning import KEPT_BYTES, PLANS, Candidate, Plan, Tuner
from qnb.steps.convert import OverridesArgument
from qnb.values import Argument, Effort, Precision, RangeMethod, Rounding

DataArgument = Annotated[
    Any, Argument("data", ("ndarray", "Tensor", "dict", "list", "tuple", "DataLoader", "Dataset", "generator"))
]
PreprocessArgument = Annotated[Callable[..., Any] | None, Argument("python", ("function",))]

PRECISIONS = ("w8a8", "w8a16", "w4a8", "w4a16", "w16a16")
METHODS = ("min-max", "percentile", "mse", "entropy")
ROUNDINGS = ("nearest", "seqmse", "adaround", "gptq")


def calibrate(
    model: ModelArgument,
    data: DataArgument,
    *,
    precision: Precision = "w8a8",
    effort: Effort = "fast",
    ranges: RangeMethod | None = None,
    percentile: float = 99.99,
    per_channel: bool = True,
    block_size: int | None = None,
    symmetric: bool = False,
    equalize: bool | None = None,
    absorb_bias: bool | None = None,
    correct_bias: bool | None = None,
    rounding: Rounding | None = None,
    samples: int | None = None,
    preprocess: PreprocessArgument = None,
    overrides: OverridesArgument = None,
    resume: bool = False,
    runtime: str | None = None,
) -> Quantized:
    """Quantize a model with ranges gathered over calibration data.

    Samples run once through the float model; what is kept of them are statistics, so that memory depends on the
    model and not on how much data there is. ``fast`` does no more. ``balanced`` also tries what makes a model easier to
    quantize, and keeps each thing only where the outputs of the quantized model are measured to be better for it;
    ``best`` also chooses the weights' codes layer by layer. Each of these can be asked for, or left out, by itself.

    Parameters
    ----------
    model : Model or path
        A float model.
    data : array, dict, iterable, DataLoader, folder or file
        Calibration inputs: arrays or dicts of them by input name, batches of a torch DataLoader, a folder of .npy, .npz,
        .raw or images, or an ``input_list`` file.
    precision : {"w8a8", "w8a16", "w4a8", "w4a16", "w16a16"}
        Bits of weights and activations. (A float model runs in fp16 as it is: compile it without calibrating.)
    effort : {"fast", "balanced", "best"}
        How much to try: one pass over the data; seconds more; or a second more for each layer, in large models several.
    ranges : {"min-max", "percentile", "mse", "entropy", "auto"}, optional
        ``min-max`` clips nothing (the choice of ``fast``); ``percentile`` cuts off what is rare; ``mse`` clips where that
        makes the squared error least, ``entropy`` where it changes the distribution least; ``auto`` takes the one with
        the best outputs.
    percentile : float
        Per cent of each activation's values that ``percentile`` keeps.
    per_channel : bool
        Whether each output channel of a weight has its own scale.
    block_size : int, optional
        Give each block of so many input channels of a weight its own scale, where the NPU takes that.
    symmetric : bool
        Whether the grids of activations have their zero in the middle.
    equalize : bool, optional
        Cross-layer equalization: move factors from loud channels to the weights that read them.
    absorb_bias : bool, optional
        Move high biases into the next layer.
    correct_bias : bool, optional
        Take away the mean error that rounded weights leave.
    rounding : {"nearest", "seqmse", "adaround", "gptq"}, optional
        How the codes of weights are chosen: the nearest ones; the scale with the least error of the layer's output; or,
        layer by layer on the samples, the codes with the least error of the output.
    samples : int, optional
        Use at most so many.
    preprocess : callable, optional
        Turns an image or a file's array into the model's input.
    overrides : mapping or path, optional
        Encodings to set by hand: the tutorial's flat file, or AIMET's 0.6.1, 1.0.0, 2.0.0. Tensors are then not rescaled,
        unless that is asked for by name.
    resume : bool
        Go on with the statistics that an interrupted call on the same model and data has left.
    runtime : str, optional
        Version of the runtime.

    Returns
    -------
    Quantized
        Table: a row for each encoded tensor; and what was tried. Files: the QDQ model, the encodings (AIMET's 2.0.0),
        and the float models that they belong to where weights were changed.

    Raises
    ------
    BadInput
        If a sample does not fit the model, or holds NaN.
    CalibrationError
        If a range can't be found.
    BadConfig
        If the overrides don't fit the model.
    Interrupted
        If the user interrupted; the statistics so far are kept for ``resume``.

    Examples
    --------
    >>> quantized = qnb.calibrate(model, images, precision="w8a16")
    >>> quantized = qnb.calibrate(model, images, effort="balanced")
    """
    timer = StepTimer("calibrate")
    if str(precision) == "fp16":
        raise BadInput(
            "fp16 needs no calibration",
            hint="the float model itself runs in fp16 on the NPU: qnb.context(model), qnb.infer(model, data); "
            "for fp16 in some layers: qnb.search(model, data, candidates=['w8a8', 'fp16'], …)",
        )
    for what, value, known in (
        ("precision", precision, PRECISIONS),
        ("effort", effort, PLANS),
        ("range method", ranges, (None, *METHODS, "auto")),
        ("rounding", rounding, (None, *ROUNDINGS)),
    ):
        if value not in known:
            raise UnknownName.among(what, value, [name for name in known if name])
    if not 50 < percentile <= 100:
        raise BadInput(f"percentile is {percentile}", hint="give per cent above 50 and up to 100, for instance 99.99")
    found_runtime = find_runtime(runtime)
    float_model = as_model(model)
    stream = sample_stream(data, float_model.inputs, preprocess=preprocess, limit=samples)
    said = read_config(overrides, "overrides file")
    keep_scale = False if said else None
    plan = PLANS[effort].with_choices(
        ranges, keep_scale if equalize is None else equalize, keep_scale if absorb_bias is None else absorb_bias,
        correct_bias, rounding,
    )  # fmt: skip
    bits = _bits(precision)
    with (
        cache.scratch() as folder,
        client.borrow(found_runtime) as worker,
        progress("calibrate", stream.count, unit="sample") as bar,
    ):
        tuner = Tuner(
            worker,
            found_runtime,
            folder,
            float_model.path,
            bits
            | {"per_channel": per_channel, "block_size": block_size, "symmetric": symmetric, "overrides": said or None},
            {"bits": bits["activation_bits"], "percentile": percentile},
            bar,
        )
        method, current, best, count = _calibrated(tuner, plan, stream, resume, float_model)
        files, made_digest = _kept_files(best, current, float_model)
        trials = tuner.trials
    return Quantized(
        frame=frames.from_plain(best.values["frame"]),
        recipe=timer.recipe(
            found_runtime.qairt,
            model=float_model,
            data=stream.describe(),
            precision=precision,
            effort=effort,
            ranges=f"percentile {percentile:g}" if method == "percentile" else method,
            per_channel=per_channel,
            block_size=block_size,
            symmetric=symmetric,
            equalize=plan.equalize,
            absorb_bias=plan.absorb_bias,
            correct_bias=plan.correct_bias,
            rounding=plan.rounding or "auto",
            overrides=overrides,
        ),
        notes=tuple(best.values["notes"]),
        log="".join(tuner.log),
        files=files,
        name=float_model.name,
        digest=made_digest,
        parent=float_model,
        precision=precision,
        method=f"percentile {percentile:g}" if method == "percentile" else method,
        weights=f"per block of {block_size}" if block_size else "per channel" if per_channel else "per tensor",
        samples=count,
        trials=trials,
    )


def _bits(precision: str) -> dict[str, int]:
    found = re.fullmatch(r"w(\d+)a(\d+)", precision)
    assert found is not None
    return {"weight_bits": int(found[1]), "activation_bits": int(found[2])}


def _calibrated(
    tuner: Tuner, plan: Plan, stream: SampleStream, resume: bool, model: Model
) -> tuple[str, Path, Candidate, int]:
    """Go through what the plan says; give the range method, the rescaled float model, the result, and the sample count."""
    incoming: Iterator[Mapping[str, np.ndarray]] = iter(stream)
    first = kept.first(incoming, plan.kept, KEPT_BYTES) if plan.needs_samples else []
    if first:
        tuner.keep(first, rounds=plan.rounding != "nearest")
        layers = int((model.frame["parameters"] > 0).sum())
        tuner.tell_expected(plan, first, stream.count, model.parameters, layers)
    current = tuner.rescaled(plan, first) if first and plan.rescales else tuner.model
    methods = METHODS if plan.ranges == "auto" else (plan.ranges,)
    means = plan.correct_bias is not False
    checkpoint = _checkpoint(current, plan, stream)
    with _keeping_what_came(checkpoint, resume):
        seen = tuner.observe(
            current, itertools.chain(first, incoming), methods, means=means, checkpoint=checkpoint, resume=resume
        )
    checkpoint.unlink(missing_ok=True)
    method, plain = tuner.with_ranges(current, seen.ranges)
    corrected = tuner.corrected(plan, plain, seen.ranges[method], seen.means)
    return method, current, tuner.rounded(plan, plain, corrected, seen.ranges[method], model.parameters), seen.samples


def _checkpoint(current: Path, plan: Plan, stream: SampleStream) -> Path:
    """Path of the statistics of an interrupted calibration of this very file with this data."""
    name = cache.key(model=digest(current), data=stream.describe(), plan=str(plan))
    return cache.root() / "calibrations" / f"{name}.npz"


@contextmanager
def _keeping_what_came(checkpoint: Path, resume: bool) -> Iterator[None]:
    """Tell whoever stopped or broke the work how to go on from where it was."""
    if not resume:
        checkpoint.unlink(missing_ok=True)
    hint = "what came so far is kept: the same call with resume=True goes on from there"
    try:
        yield
    except QnbError as error:
        if checkpoint.exists():
            error.hint = f"{error.hint}; {hint}" if error.hint else hint
        raise
    except KeyboardInterrupt as interrupt:
        raise Interrupted("calibrate: interrupted by the user", hint=hint if checkpoint.exists() else "") from interrupt
    except Exception as error:  # of the data itself
        if checkpoint.exists():
            error.add_note(hint)
        raise


def _kept_files(best: Candidate, current: Path, model: Model) -> tuple[dict[str, Path], str]:
    """Put the files of the chosen model into the cache."""
    kept, made_digest = cache.put_file(best.path, ".onnx")
    files = {"model": kept, "encodings": cache.put_file(best.encodings, ".encodings.json")[0]}
    if current != model.path:
        files["float"] = cache.put_file(current, ".onnx")[0]
    if best.model != current:
        files["tuned"] = cache.put_file(best.model, ".onnx")[0]
    return files, made_digest


def apply_overrides(model: Model, overrides: Mapping[str, Any], runtime: Runtime) -> Quantized:
    """Quantize what the overrides encode and nothing else: see `qnb.convert`."""
    timer = StepTimer("convert")
    options = {"weight_bits": 8, "activation_bits": 8, "per_channel": True, "overrides": dict(overrides)}
    with cache.scratch() as folder, client.borrow(runtime) as worker:
        tuner = Tuner(worker, runtime, folder, model.path, options, {}, SILENT)
        made = tuner.quantize(model.path, None)
        files, made_digest = _kept_files(made, model.path, model)
    return Quantized(
        frame=frames.from_plain(made.values["frame"]),
        recipe=timer.recipe(runtime.qairt, model=model),
        notes=tuple(made.values["notes"]),
        log="".join(tuner.log),
        files=files,
        name=model.name,
        digest=made_digest,
        parent=model,
        precision="mixed",
        method="overrides",
        weights="per channel",
        samples=0,
    )
