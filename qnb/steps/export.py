"""Step ``export``: a model of any front-end becomes a checked ONNX model with fixed shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from qnb import cache, frontends
from qnb.artifacts import Model
from qnb.errors import BadInput, ExportError, QnbError
from qnb.graph.compare import agreement
from qnb.progress import progress
from qnb.runtime import client
from qnb.runtime.locate import find_runtime
from qnb.runtime.options import session_spec
from qnb.steps._common import StepTimer, random_inputs
from qnb.values import Argument, TensorSpec

if TYPE_CHECKING:
    import pandas as pd

SourceArgument = Annotated[Any, Argument("source", ("Module", "ModelProto"))]
Shapes = Mapping[str, Sequence[int]]

_TOLERANCE = 1e-3
"""Largest error against the source, relative to its largest output, that still counts as the same function; correct
exports of real networks stay below 5e-5."""


def export(
    source: SourceArgument,
    *,
    example: Annotated[Any, Argument("example", ("Tensor", "ndarray", "dict", "tuple"))] = None,
    shapes: Shapes | None = None,
    batch: int = 1,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    simplify: bool = True,
    name: str | None = None,
) -> Model:
    """Bring a PyTorch module or an ONNX file into a checked model with fixed shapes.

    The model is exported, its shapes are fixed, it is simplified and lifted to opset 20, and it is run beside its source
    on two inputs.

    Parameters
    ----------
    source : torch.nn.Module, onnx.ModelProto or path
        What to export. A module is exported in eval mode.
    example : tensor, array, or tuple or dict of them, optional
        Example inputs of a module. Or give `shapes`.
    shapes : mapping of str to sequence of int, optional
        Shape of each input by name: ``{"image": (1, 3, 224, 224)}``. For an ONNX file only where it leaves dimensions open.
    batch : int
        Size of an open first dimension.
    input_names, output_names : sequence of str, optional
        Names for a module's inputs and outputs; by default the parameters of its ``forward`` and the keys of its output.
    simplify : bool
        Whether to simplify the graph with onnxsim.
    name : str, optional
        Name of the model; by default the module's class or the file's name.

    Returns
    -------
    Model
        Table: a row for each op with shapes, MACs, parameters and bytes. Chart: MACs and parameters by op.

    Raises
    ------
    ExportError
        If the source can't be exported, has shapes that are open, or the export computes something else.
    BadInput
        If an argument does not fit.

    Examples
    --------
    >>> model = qnb.export(net, shapes={"image": (1, 3, 224, 224)})
    """
    timer = StepTimer("export")
    runtime = find_runtime()
    with cache.scratch() as folder, progress("export") as bar, client.borrow(runtime) as worker:
        bar.update(0, text="reading")
        front = _read(source, folder, example, shapes, input_names, output_names)
        fixed = folder / "model.onnx"
        bar.update(0, text="checking and simplifying")
        answer = worker.call(
            "normalise",
            {
                "path_in": str(front.path),
                "path_out": str(fixed),
                "shapes": {k: list(map(int, v)) for k, v in shapes.items()} if front.shapes_open and shapes else None,
                "batch": batch,
                "simplify": simplify,
            },
        )
        facts = answer.values
        inputs, outputs = (_specs(facts[key]) for key in ("inputs", "outputs"))
        bar.update(0, text="comparing with the source")
        pairs = front.pairs
        notes = list(front.notes) + list(facts["notes"])
        if pairs is None:
            pairs, note = _run_source(worker, runtime, front.path, inputs, outputs)
            notes += [note] if note else []
        check = _compare(worker, runtime, fixed, pairs, outputs)
        path, digest = cache.put_file(fixed, ".onnx")
    import pandas as pd

    frame = pd.DataFrame(facts["layers"])
    return Model(
        frame=frame,
        recipe=timer.recipe(runtime.qairt, source=source, shapes=shapes, batch=batch, simplify=simplify),
        notes=tuple(notes),
        log="\n".join(part for part in (front.log, answer.log) if part),
        files={"model": path},
        name=name or front.name,
        digest=digest,
        inputs=inputs,
        outputs=outputs,
        macs=int(frame["macs"].sum()) if len(frame) else 0,
        parameters=int(frame["parameters"].sum()) if len(frame) else 0,
        opset=facts["opset"],
        check=check,
    )


@dataclass
class _Front:
    """What a front-end gives: an ONNX file, and, where it can, what the source computes on two inputs."""

    path: Path
    name: str
    shapes_open: bool
    pairs: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] | None = None
    log: str = ""
    notes: Sequence[str] = ()


def _read(
    source: Any,
    folder: Path,
    example: Any,
    shapes: Shapes | None,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
) -> _Front:
    if frontends.recognise(source) == "torch":
        from qnb.frontends import torch as front

        exported = front.to_onnx(
            source,
            folder / "exported.onnx",
            example=example,
            shapes=shapes,
            input_names=input_names,
            output_names=output_names,
        )
        name = type(source).__name__
        return _Front(
            exported.path, name, shapes_open=False, pairs=exported.pairs, log=exported.log, notes=exported.notes
        )
    if example is not None or input_names or output_names:
        raise BadInput(
            "example, input_names and output_names are for modules; an ONNX model has its inputs and names",
            hint="leave them out; shapes fixes dimensions that the file leaves open",
        )
    from qnb.frontends import onnx as front_onnx

    path, name = front_onnx.as_file(source, folder)
    return _Front(path, name, shapes_open=True)


def _specs(rows: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(r["name"], r["dtype"], tuple(r["shape"])) for r in rows)


def _run_source(
    worker: client.Worker, runtime: Any, path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> tuple[list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]], str]:
    """Run the source file itself on two inputs; or say why that can't be."""
    spec = session_spec(str(path), "ort", runtime).plain()
    pairs = []
    try:
        for seed in (0, 1):
            feeds = random_inputs(inputs, seed)
            answer = worker.call("run", {"spec": spec, "count": 1}, {k: v[None] for k, v in feeds.items()})
            pairs.append((feeds, {name: value[0] for name, value in answer.arrays.items()}))
    except QnbError as error:
        return [], f"not compared with its source, which ONNX Runtime can't run as it is: {error.what.splitlines()[0]}"
    return pairs, ""


def _compare(
    worker: client.Worker,
    runtime: Any,
    path: Path,
    pairs: Sequence[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]],
    outputs: Sequence[TensorSpec],
) -> pd.DataFrame:
    import pandas as pd

    spec = session_spec(str(path), "ort", runtime).plain()
    rows = []
    for number, (feeds, expected) in enumerate(pairs, 1):
        answer = worker.call("run", {"spec": spec, "count": 1}, {k: v[None] for k, v in feeds.items()})
        for output in outputs:
            reference, value = expected[output.name], answer.arrays[output.name][0]
            figures = agreement(np.asarray(reference), value)
            scale = float(np.max(np.abs(reference))) if np.size(reference) else 0.0
            if not figures["max_abs_error"] <= _TOLERANCE * max(1.0, scale):
                raise ExportError(
                    f"the exported model computes something else than its source: output {output.name!r} differs by up to "
                    f"{figures['max_abs_error']:.3g} (largest value {scale:.3g})",
                    hint="is the model random at inference (dropout, noise), or does it branch on its input's values?",
                )
            rows.append({"input_set": number, "output": output.name, "source": "host", **figures})
    frame = pd.DataFrame(rows)
    return frame.drop(columns="top1_agreement") if len(frame) else frame
