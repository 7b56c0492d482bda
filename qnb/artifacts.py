"""The artifacts that pass from step to step: Model, Quantized, Context.

Each is a frozen result that names its files and carries their digest, so that it is not hashed again for each call,
and each knows what it was made from. Knows nothing of how they are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from qnb import cache
from qnb.errors import ArtifactError, UnknownName
from qnb.files import is_intact
from qnb.results import Result
from qnb.socs import Soc
from qnb.values import Argument, TensorSpec
from qnb.views import Chart, Graph, Node, network_graph

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class _Artifact(Result):
    name: str
    digest: str

    _digested: ClassVar[str] = "model"

    @property
    def path(self) -> Path:
        """The ONNX file, or the ONNX wrapper of a context binary.

        Raises
        ------
        ArtifactError
            If it is gone, or is not as it was made: native code must never see a damaged file.
        """
        self._file(self._digested, self.digest)
        return self._file("model")

    def _file(self, name: str, digest: str = "") -> Path:
        path = cache.require(self.files[name], f"{self.kind} {self.name}")
        if digest and not is_intact(path, digest):
            raise ArtifactError(
                f"the file of {self.kind} {self.name} is damaged: {path} is not what was made",
                hint="run the step that made it again, or load a saved copy",
            )
        return path


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Model(_Artifact):
    """A checked ONNX model with fixed shapes, in float.

    Attributes
    ----------
    name : str
        Short name.
    digest : str
        SHA-256 of the ONNX file.
    inputs, outputs : tuple of TensorSpec
        In the model's order.
    macs : int
        Multiply-accumulates of one inference.
    parameters : int
        Number of parameters.
    frame : pandas.DataFrame
        A row for each op: shapes, MACs, parameters, bytes.
    check : pandas.DataFrame
        Agreement with the source it was exported from, by output and input set.
    network : pandas.DataFrame or None
        A row for each op: the tensors that it takes and gives (see `qnb.views.NETWORK`).
    repairs : pandas.DataFrame or None
        A row for each repair that changed the graph: its name, the number of places, what it does.
    """

    kind: ClassVar[str] = "model"

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    macs: int
    parameters: int
    opset: int
    check: pd.DataFrame
    network: pd.DataFrame | None = None
    repairs: pd.DataFrame | None = None

    precision: ClassVar[str] = "fp32"

    @property
    def title(self) -> str:
        """Name, size and work."""
        return f"{self.name}: {len(self.frame)} ops, {self.macs / 1e6:,.1f} M MACs, {self.parameters:,} parameters"

    @property
    def float_model(self) -> Model:
        """The float model of the lineage: itself."""
        return self

    @property
    def ops(self) -> dict[str, int]:
        """How many there are of each op type, most first."""
        return {str(k): int(v) for k, v in self.frame["op_type"].value_counts().items()}

    def io(self) -> pd.DataFrame:
        """Inputs and outputs as a table."""
        import pandas as pd

        rows = [("input", s) for s in self.inputs] + [("output", s) for s in self.outputs]
        return pd.DataFrame(
            [{"direction": d, "name": s.name, "dtype": s.dtype, "shape": "×".join(map(str, s.shape))} for d, s in rows]
        )

    def tables(self) -> dict[str, pd.DataFrame]:
        """Ops, inputs and outputs, and the numeric check."""
        found = {self.title: self.frame, "inputs and outputs": self.io()}
        found |= {"agreement with the source": self.check} if len(self.check) else {}
        return found | ({"repairs": self.repairs} if self.repairs is not None and len(self.repairs) else {})

    def plot(self) -> Figure:
        """Where the work and the weights are, by op."""
        from qnb.display import charts

        return charts.layers(self.frame)

    def nodes(self, backend: str | None = None) -> dict[str, Node]:
        """Give a node of a view document for each op, with its work and its bytes."""
        figures = ("macs", "weight_bytes", "activation_bytes")
        rows = self.frame.to_dict("records")
        return {
            row["op"]: Node(
                row["op"],
                row["op_type"],
                backend,
                {name: row[name] for name in figures},
                {name: row[name] for name in ("inputs", "outputs", "parameters")},
            )
            for row in rows
        }

    def _facts(self) -> list[tuple[str, Any]]:
        return [("digest", self.digest), ("opset", self.opset), ("macs", self.macs), ("parameters", self.parameters)]

    def _charts(self) -> list[Chart]:
        return [
            Chart("multiply-accumulates by op", "bars", self.title, "op", "macs"),
            Chart("weights by op", "bars", self.title, "op", "weight_bytes"),
        ]

    def _graph(self) -> Graph | None:
        return _graph_of(self, self.nodes())


def _graph_of(model: Model, nodes: Mapping[str, Node], *colours: str) -> Graph | None:
    if model.network is None:  # it was saved by an earlier qnb
        return None
    return network_graph(
        model.name, model.network, nodes, colours=(*colours, "macs", "weight_bytes", "activation_bytes")
    )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class _Derived(_Artifact):
    """What was made of another artifact, and computes the same."""

    parent: Model | Quantized
    precision: str

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs; float, as in the parent."""
        return self.parent.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs; float, as in the parent."""
        return self.parent.outputs

    @property
    def float_model(self) -> Model:
        """The float model of the lineage."""
        return self.parent.float_model


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Quantized(_Derived):
    """A model with quantize/dequantize nodes, and the encodings that they hold.

    Attributes
    ----------
    parent : Model
        The float model that was quantized.
    precision : str
        Such as ``w8a8``: bits of weights and activations; ``mixed`` where overrides alone say what is quantized.
    method : str
        How ranges were found.
    samples : int
        Calibration samples that the ranges come from.
    weights : str
        ``per channel`` or ``per tensor``.
    frame : pandas.DataFrame
        A row for each encoded tensor.
    trials : pandas.DataFrame
        What was tried to make it more accurate: SQNR of the outputs, and whether it was kept; empty where nothing was.
    files : mapping of str to Path
        ``model``, ``encodings``; where tensors were rescaled ``float``, a float model that computes the same as the parent
        with the tensors that were quantized; and where biases were corrected or weights chosen ``tuned``, the float model
        with these, to which the encodings belong.
    """

    kind: ClassVar[str] = "quantized"

    parent: Model
    method: str
    samples: int
    weights: str
    trials: pd.DataFrame | None = None

    @property
    def complete(self) -> bool:
        """Whether every op is quantized, as far as is known."""
        return self.precision != "mixed"

    @property
    def title(self) -> str:
        """Name, precision, and how the ranges were found."""
        ranges = f"{self.method} over {self.samples} samples" if self.samples else self.method
        return f"{self.name} {self.precision}: {len(self.frame)} encodings; ranges {ranges}; weights {self.weights}"

    def tables(self) -> dict[str, pd.DataFrame]:
        """Encodings, and what was tried."""
        tried = {"what was tried": self.trials} if self.trials is not None else {}
        return {self.title: self.frame} | tried

    def plot(self) -> Figure:
        """Activation ranges by tensor."""
        from qnb.display import charts

        return charts.encodings(self.frame)

    def _facts(self) -> list[tuple[str, Any]]:
        return [
            ("digest", self.digest),
            ("precision", self.precision),
            ("ranges", self.method),
            ("weights", self.weights),
        ]

    def _graph(self) -> Graph | None:
        model, nodes = self.parent, self.parent.nodes()
        if model.network is None:
            return None
        grids = {row["tensor"]: row for row in self.frame.to_dict("records") if row["kind"] == "activation"}
        for op, gives in zip(model.network["op"], model.network["gives"], strict=True):
            found = next((grids[tensor] for tensor in gives if tensor in grids), None)
            if found and op in nodes:
                nodes[op].values["activation_bits"] = found["bits"]
                nodes[op].facts |= {name: found[name] for name in ("min", "max", "scale", "zero_point")}
        return _graph_of(model, nodes, "activation_bits")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Context(_Derived):
    """A graph compiled ahead of time for the NPU of one SoC.

    Attributes
    ----------
    soc : Soc
        What it was compiled for.
    parent : Model or Quantized
        What was compiled.
    size_bytes : int
        Size of the context binary.
    compile_ms : float
        Wall time of the compilation, on this host, also where the result came from the cache.
    stages : mapping of str to float
        Compiler stages and their milliseconds; empty where the runtime prints none.
    ddr : mapping of str to int
        DDR bytes that the compiler plans for one inference: ``read``, ``write``, ``spill``, ``fill``.
    vtcm_mb : int or None
        Tightly coupled memory that the graph may use: what was asked for, else all that the part has.
    cached : bool
        Whether it was found in the cache instead of being compiled.
    """

    kind: ClassVar[str] = "context"
    _digested: ClassVar[str] = "binary"

    soc: Soc
    size_bytes: int
    compile_ms: float
    stages: Mapping[str, float] = field(default_factory=dict)
    ddr: Mapping[str, int] = field(default_factory=dict)
    vtcm_mb: int | None = None
    cached: bool = False

    @property
    def title(self) -> str:
        """Name, SoC, size, and whether it was cached."""
        how = "cached" if self.cached else f"compiled in {self.compile_ms / 1e3:.2f} s"
        return f"{self.name} {self.precision} for {self.soc} {self.soc.arch}: {self.size_bytes / 1024:,.0f} KiB, {how}"

    @property
    def binary(self) -> Path:
        """The context binary itself."""
        return self._file("binary", self.digest)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Size and traffic, and the compile time by stage."""
        return {self.title: self.frame} | _stage_tables([self])

    def plot(self) -> Figure:
        """The compile figures."""
        from qnb.display import charts

        return charts.compile_matrix(self.frame)

    def _facts(self) -> list[tuple[str, Any]]:
        return [
            ("digest", self.digest), ("bytes", self.size_bytes), ("soc", str(self.soc)), ("arch", self.soc.arch),
            ("precision", self.precision), ("vtcm_mb", self.vtcm_mb), ("compile_ms", self.compile_ms),
        ]  # fmt: skip

    def _charts(self) -> list[Chart]:
        return [Chart("compile time by stage", "bars", _STAGES, "stage", f"{self.soc.part}_ms")]

    def _graph(self) -> Graph | None:
        return _graph_of(self.float_model, self.float_model.nodes("htp"))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Contexts(Result, Sequence[Context]):
    """Contexts of one build for several SoCs; index it by number, part or name."""

    kind: ClassVar[str] = "contexts"

    contexts: tuple[Context, ...]

    @property
    def title(self) -> str:
        """What was compiled for how many SoCs."""
        return f"{self.contexts[0].name} {self.contexts[0].precision} for {len(self.contexts)} SoCs"

    def __len__(self) -> int:
        return len(self.contexts)

    def __iter__(self) -> Iterator[Context]:
        return iter(self.contexts)

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, str):
            from qnb.socs import find

            wanted = find(which)
            for context in self.contexts:
                if context.soc == wanted:
                    return context
            raise UnknownName.among("SoC of these contexts", which, (c.soc.part for c in self.contexts))
        return self.contexts[which]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Size and traffic by SoC, and the compile time by stage."""
        return {self.title: self.frame} | _stage_tables(self.contexts)

    def plot(self) -> Figure:
        """SoC by figure."""
        from qnb.display import charts

        return charts.compile_matrix(self.frame)

    def _charts(self) -> list[Chart]:
        figures = {"size of the binary": "size_kb", "compile time": "compile_ms", "DDR read": "ddr_read_kb"}
        return [Chart(title, "bars", self.title, "soc", column) for title, column in figures.items()]

    def _graph(self) -> Graph | None:
        return self.contexts[0]._graph()


_STAGES = "compile time by stage"


def _stage_tables(contexts: Sequence[Context]) -> dict[str, pd.DataFrame]:
    import pandas as pd

    stages = {c.soc.part: dict(c.stages) for c in contexts if c.stages}
    if not stages:
        return {}
    frame = pd.DataFrame({f"{soc}_ms": pd.Series(times) for soc, times in stages.items()})
    frame.insert(0, "stage", frame.index)
    frame["source"] = "host"
    return {_STAGES: frame.reset_index(drop=True)}


Build = Model | Quantized | Context

ModelArgument = Annotated[Model | str | Path, Argument("model", ("Model",))]
"""A `Model`, the folder of a saved one, or an ONNX file."""

BuildArgument = Annotated[
    Model | Quantized | Context | Contexts | str | Path,
    Argument("model", ("Model", "Quantized", "Context", "Contexts")),
]
"""A `Model`, `Quantized` or `Context`, the folder of a saved one, or an ONNX file."""
