"""Step ``export``: a model of any front-end becomes a checked ONNX model with fixed shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from qnb import cache, frames
from qnb.artifacts import Model, Quantized
from qnb.errors import ExportError, QnbError
from qnb.frontends import quantized
from qnb.graph.compare import agreement
from qnb.graph.repairs import FORM, chosen
from qnb.progress import Progress, progress
from qnb.runtime import client
from qnb.runtime.client import Answer
from qnb.runtime.locate import Runtime, find_runtime
from qnb.runtime.options import session_spec
from qnb.steps._common import StepTimer, random_inputs
from qnb.steps._reading import Asked, Front, Shapes, read
from qnb.values import Argument, TensorSpec
from qnb.views import NETWORK

if TYPE_CHECKING:
    import pandas as pd

SourceArgument = Annotated[Any, Argument("source", ("Module", "ModelProto", "Model", "ExportedProgram"))]

_TOLERANCE = 1e-3
"""Largest error against the source, relative to its largest output, that still counts as the same function; correct
exports of real networks stay below 5e-5."""

_STEPS = 2.5
"""Steps of an integer output's grid that may lie between two runtimes: each rounds once more than real numbers would."""

_UNFUSED = {"session.disable_quant_qdq": "1"}
"""Lets ONNX Runtime compute a QDQ graph as it stands: its own integer kernels round ties otherwise."""


def export(
    source: SourceArgument,
    *,
    weights: str | Path | None = None,
    example: Annotated[Any, Argument("example", ("Tensor", "ndarray", "dict", "tuple"))] = None,
    shapes: Shapes | None = None,
    batch: int = 1,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    simplify: bool = True,
    no_repair: Sequence[str] = (),
    name: str | None = None,
    trust: bool = False,
) -> Model | Quantized:
    """Bring a PyTorch, TensorFlow, Keras, TFLite, Caffe or ONNX model into a checked model with fixed shapes.

    The model is exported, its shapes are fixed, it is simplified and lifted to opset 20, and it is run beside its source
    on two inputs.

    An ONNX file that another tool has quantized (with QuantizeLinear and DequantizeLinear nodes, as ONNX Runtime, AIMET and
    converted TFLite models have them) becomes a `Quantized`: its graph computes what it did, its encodings are read out of
    it, and its parent is the float model without them.

    Parameters
    ----------
    source : torch.nn.Module, torch.export.ExportedProgram, keras.Model, onnx.ModelProto or path
        What to export. A module is exported in eval mode. A path may be that of an ONNX, TFLite, Keras (``.keras``,
        ``.h5``), TorchScript or ``.pt2`` file, of a frozen TensorFlow graph, of a SavedModel's folder, or of a Caffe
        network: its prototxt, its caffemodel, or both as a pair. A model may be quantized.
    weights : path, optional
        Of a Caffe network the caffemodel; by default the file of the same name beside the prototxt.
    example : tensor, array, or tuple or dict of them, optional
        Example inputs: of a module, or give `shapes`; of a TensorFlow model what it is compared with its source on.
    shapes : mapping of str to sequence of int, optional
        Shape of each input by name: ``{"image": (1, 3, 224, 224)}``. For files only where they leave dimensions open;
        for a Caffe network in place of what the prototxt says.
    batch : int
        Size of an open first dimension; if not 1, also the batch of a Caffe network.
    input_names, output_names : sequence of str, optional
        Names for a module's inputs and outputs; by default the parameters of its ``forward`` and the keys of its output.
        Of a Caffe network `output_names` are the blobs that it shall give; by default those that no layer reads.
    simplify : bool
        Whether to simplify the graph with onnxsim. A quantized one is not.
    no_repair : sequence of str
        Repairs to leave out, by name, or ``all``; by default what the NPU would refuse is written with ops that it takes,
        where that computes the same. A quantized model is not repaired.
    name : str, optional
        Name of the model; by default the module's class or the file's name.
    trust : bool
        Whether a file may run code of its own while it is read, and take any amount of memory: Keras's Lambda layers and
        foreign classes, pickled modules.

    Returns
    -------
    Model or Quantized
        Table: a row for each op with shapes, MACs, parameters and bytes. Chart: MACs and parameters by op. Of a model that
        is quantized already: as `qnb.calibrate` gives it, with the method ``imported``.

    Raises
    ------
    ExportError
        If the source can't be exported, has shapes that are open, or the export computes something else; or if it is
        quantized in another form than Q/DQ.
    BadInput
        If an argument does not fit.

    Examples
    --------
    >>> model = qnb.export(net, shapes={"image": (1, 3, 224, 224)})
    """
    timer = StepTimer("export")
    repairs = chosen(no_repair)
    runtime = find_runtime()
    with cache.scratch() as folder, progress("export") as bar, client.borrow(runtime) as worker:
        bar.update(0, text="reading")
        asked = Asked(source, weights, example, shapes, batch, input_names, output_names, trust)
        front = read(asked, folder, worker, runtime)
        work = _Work(folder, bar, worker, runtime, *_open(front, shapes, batch))
        recipe = {
            "source": source,
            "weights": weights,
            "shapes": shapes,
            "batch": batch,
            "simplify": simplify,
            "trust": trust,
        }
        recipe |= {"no_repair": list(no_repair)} if no_repair else {}
        if front.shapes_open and quantized.may_be_quantized(front.path):
            parts = work.import_quantized(front)
            if parts is not None:
                return _quantized(work, front, parts, name or front.name, timer, recipe)
        return _model(work, front, name or front.name, simplify, timer, recipe, repairs)


@dataclass
class _Work:
    """What an export works with."""

    folder: Path
    bar: Progress
    worker: client.Worker
    runtime: Runtime
    shapes: Shapes | None
    batch: int

    def import_quantized(self, front: Front) -> Answer | None:
        """Take a quantized file apart; None where it is not quantized."""
        self.bar.update(0, text="reading encodings")
        answer = self.worker.call(
            "import_quantized",
            {
                "path_in": str(front.path),
                "name": front.name,
                "path_out": str(self.folder / "quantized.onnx"),
                "float_out": str(self.folder / "float.onnx"),
                "encodings": str(self.folder / "encodings.json"),
                "shapes": self._sizes(),
                "batch": self.batch,
            },
        )
        return answer if answer.values["quantized"] else None

    def normalise(self, source: Path, out: Path, simplify: bool, repairs: Sequence[str]) -> Answer:
        """Bring an ONNX file into qnb's form."""
        self.bar.update(0, text="checking and simplifying")
        return self.worker.call(
            "normalise",
            {
                "path_in": str(source),
                "path_out": str(out),
                "shapes": self._sizes(),
                "batch": self.batch,
                "simplify": simplify,
                "repairs": list(repairs),
            },
        )

    def _sizes(self) -> dict[str, list[int]] | None:
        return {k: list(map(int, v)) for k, v in self.shapes.items()} if self.shapes else None


def _model(
    work: _Work,
    front: Front,
    name: str,
    simplify: bool,
    timer: StepTimer,
    recipe: Mapping[str, Any],
    repairs: Sequence[str],
) -> Model:
    import pandas as pd

    fixed = work.folder / "model.onnx"
    answer = work.normalise(front.path, fixed, simplify, repairs)
    facts = answer.values
    inputs, outputs = (_specs(facts[key]) for key in ("inputs", "outputs"))
    work.bar.update(0, text="comparing with the source")
    notes = list(front.notes) + list(facts["notes"])
    check, note = _checked(work, front, fixed, inputs, outputs)
    notes += [note] if note else []
    files, digest = _kept(fixed, facts["files"])
    frame = pd.DataFrame(facts["layers"])
    return Model(
        frame=frame,
        recipe=timer.recipe(work.runtime.qairt, **recipe),
        notes=tuple(notes),
        log="\n".join(part for part in (front.log, answer.log) if part),
        files=files,
        name=name,
        digest=digest,
        inputs=inputs,
        outputs=outputs,
        macs=int(frame["macs"].sum()) if len(frame) else 0,
        parameters=int(frame["parameters"].sum()) if len(frame) else 0,
        opset=facts["opset"],
        check=check,
        network=pd.DataFrame(facts["network"], columns=NETWORK),
        repairs=pd.DataFrame(facts["repairs"], columns=["repair", "places", "what"]),
    )


def _quantized(
    work: _Work, front: Front, parts: Answer, name: str, timer: StepTimer, recipe: Mapping[str, Any]
) -> Quantized:
    facts = parts.values
    kept, encodings = work.folder / "quantized.onnx", work.folder / "encodings.json"
    work.bar.update(0, text="comparing with the source")
    notes = [*front.notes, *facts["notes"]]
    # with the same inputs and outputs as its source, it computes the same
    if front.pairs is not None or not facts["edge"]:
        inputs, outputs = (_specs(facts[key]) for key in ("inputs", "outputs"))
        _, note = _checked(work, front, kept, inputs, outputs, _UNFUSED)
        notes += [note] if note else []
    float_front = Front(work.folder / "float.onnx", name, shapes_open=True)
    # not simplified or repaired: the encodings are those of its tensors, by name
    parent = _model(work, float_front, name, False, timer, recipe, FORM)
    files, digest = _kept(kept, facts["files"])
    kept_encodings, _ = cache.put_file(encodings, ".encodings.json")
    return Quantized(
        frame=frames.from_plain(facts["frame"]),
        recipe=timer.recipe(work.runtime.qairt, **recipe),
        notes=tuple(notes),
        log="\n".join(part for part in (front.log, parts.log) if part),
        files=files | {"encodings": kept_encodings},
        name=name,
        digest=digest,
        parent=parent,
        precision=facts["precision"],
        method="imported",
        weights=facts["weights"],
        samples=0,
    )


def _kept(model: Path, written: Sequence[str]) -> tuple[dict[str, Path], str]:
    """Move a model into the cache, with the file of its weights where it has one; give the files and the model's digest."""
    weights = [Path(file) for file in written if Path(file) != model]
    path, digest = cache.put_file(model, ".onnx", move=True, beside=weights)
    files = {"model": path}
    if weights:
        files["weights"] = path.with_name(weights[0].name)
    return files, digest


def _checked(
    work: _Work,
    front: Front,
    fixed: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    config: Mapping[str, str] | None = None,
) -> tuple[pd.DataFrame, str]:
    """Compare what was made with its source on two inputs; or say why that can't be."""
    pairs, note = front.pairs, ""
    if pairs is None:
        pairs, note = _run_source(work, str(front.path), inputs, outputs, config)
    return _compare(work, str(fixed), pairs, outputs, front.steps or {}, config), note


def _open(front: Front, shapes: Shapes | None, batch: int) -> tuple[Shapes | None, int]:
    """Give what is left to fix in the front-end's file."""
    if front.shapes is not None:
        return front.shapes, 1
    return shapes if front.shapes_open else None, batch


def _specs(rows: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(r["name"], r["dtype"], tuple(r["shape"])) for r in rows)


def _run_source(
    work: _Work,
    path: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    config: Mapping[str, str] | None,
) -> tuple[list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]], str]:
    """Run the source file itself on two inputs; or say why that can't be."""
    spec = session_spec(path, "ort", work.runtime, config=config).plain()
    pairs = []
    try:
        for seed in (0, 1):
            feeds = random_inputs(inputs, seed)
            answer = work.worker.call("run", {"spec": spec, "count": 1}, {k: v[None] for k, v in feeds.items()})
            pairs.append((feeds, {name: value[0] for name, value in answer.arrays.items()}))
    except QnbError as error:
        return [], f"not compared with its source, which ONNX Runtime can't run as it is: {error.what.splitlines()[0]}"
    return pairs, ""


def _compare(
    work: _Work,
    path: str,
    pairs: Sequence[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]],
    outputs: Sequence[TensorSpec],
    steps: Mapping[str, float],
    config: Mapping[str, str] | None,
) -> pd.DataFrame:
    import pandas as pd

    spec = session_spec(path, "ort", work.runtime, config=config).plain()
    rows = []
    for number, (feeds, expected) in enumerate(pairs, 1):
        answer = work.worker.call("run", {"spec": spec, "count": 1}, {k: v[None] for k, v in feeds.items()})
        for output in outputs:
            reference, value = expected[output.name], answer.arrays[output.name][0]
            figures = agreement(np.asarray(reference), value)
            scale = float(np.max(np.abs(reference))) if np.size(reference) else 0.0
            allowed = max(_TOLERANCE * max(1.0, scale), _STEPS * steps.get(output.name, 0.0))
            if not figures["max_abs_error"] <= allowed:
                raise ExportError(
                    f"the exported model computes something else than its source: output {output.name!r} differs by up to "
                    f"{figures['max_abs_error']:.3g} (largest value {scale:.3g})",
                    hint="is the model random at inference (dropout, noise), or does it branch on its input's values?",
                )
            rows.append({"input_set": number, "output": output.name, "source": "host", **figures})
    frame = pd.DataFrame(rows)
    return frame.drop(columns="top1_agreement") if len(frame) else frame
