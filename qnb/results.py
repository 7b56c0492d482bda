"""What every step answers with: a frozen value that shows itself, saves itself and opens again anywhere.

A saved result is a folder: ``result.json`` (fields as plain values), tables and arrays, the native log and the files
that belong to it, each with its digest. Opening one needs no runtime, and unpickles nothing. Knows nothing of steps.
"""

from __future__ import annotations

import dataclasses
import html
import importlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from qnb import frames, views
from qnb.cache import require
from qnb.errors import ArtifactError, BadInput
from qnb.files import building, digest, is_intact, storage_errors
from qnb.provenance import Recipe
from qnb.socs import Soc
from qnb.values import TensorSpec

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FORMAT = 1
MIME = "application/vnd.qnb.report+json"
_RESULT_FILE = "result.json"
_VALUES = {cls.__name__: cls for cls in (Recipe, Soc, TensorSpec)}
KINDS = {
    "model": "qnb.artifacts:Model",
    "quantized": "qnb.artifacts:Quantized",
    "context": "qnb.artifacts:Context",
    "contexts": "qnb.artifacts:Contexts",
    "doctor": "qnb.steps.doctor:Doctor",
    "conversion": "qnb.steps.convert:Conversion",
    "inference": "qnb.steps.infer:Inference",
    "profile": "qnb.steps.profile:Profile",
    "check": "qnb.steps.check:Check",
    "sensitivity": "qnb.steps.sensitivity:Sensitivity",
    "search": "qnb.steps.search:Search",
    "comparison": "qnb.steps.compare:Comparison",
    "estimate": "qnb.steps.estimate:Estimate",
    "selection": "qnb.steps.select:Selection",
    "debug": "qnb.steps.debug:Debug",
    "report": "qnb.steps.report:Report",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """Base of all results.

    Attributes
    ----------
    frame : pandas.DataFrame
        The table. Units are in the column names; measured figures have a column ``source``.
    recipe : Recipe
        What was asked, and with which versions it was done.
    notes : tuple of str
        What the reader should know beside the table.
    log : str
        All that native code printed.
    files : mapping of str to Path
        Files that belong to the result, by name.
    """

    kind: ClassVar[str] = ""

    frame: pd.DataFrame
    recipe: Recipe
    notes: tuple[str, ...] = ()
    log: str = field(default="", repr=False)
    files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """One line that says what it is."""
        return self.kind

    def plot(self) -> Figure:
        """Draw the result's chart."""
        raise NotImplementedError(f"{type(self).__name__} has no chart")  # pragma: no cover - every result has one

    def figures(self) -> list[Figure]:
        """All charts; the first is that of `plot`."""
        return [self.plot()]

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by title; the first is `frame`."""
        return {self.title: self.frame}

    @property
    def _drawable(self) -> bool:
        return bool(len(self.frame))

    def __str__(self) -> str:
        from qnb.display import tables

        parts = [
            tables.text(frame, title=title, notes=self.notes if index == 0 else ())
            for index, (title, frame) in enumerate(self.tables().items())
        ]
        return "\n\n".join(parts)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.title}>"

    def to_html(self, *, chart: bool = True) -> str:
        """Give an HTML fragment with the tables and, unless told otherwise, the chart as an inline PNG."""
        from qnb.display import tables

        parts = [
            tables.html(frame, title=title, notes=self.notes if index == 0 else ())
            for index, (title, frame) in enumerate(self.tables().items())
        ]
        for figure in self.figures() if chart and self._drawable else ():
            alt = html.escape(f"chart: {self.title}", quote=True)
            parts.append(f'<img alt="{alt}" style="max-width:100%" src="data:image/png;base64,{_png(figure)}">')
        return "\n".join(parts)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/plain": str(self), "text/html": self.to_html(), MIME: self.report()}

    def report(self) -> dict[str, Any]:
        """Give the view document: tables, recipe, and what is drawn of them, as plain JSON values (docs/formats.md)."""
        return views.document(
            self.kind,
            self.title,
            notes=self.notes,
            recipe=dataclasses.asdict(self.recipe),
            facts=self._facts(),
            tables=[views.Table.of(title, frame) for title, frame in self.tables().items()],
            charts=self._charts(),
            graph=self._graph(),
        )

    def _facts(self) -> list[tuple[str, Any]]:
        """What the view document says above its tables."""
        return []

    def _charts(self) -> list[views.Chart]:
        """What the view document draws of the tables; what they don't hold is left out."""
        return []

    def _graph(self) -> views.Graph | None:
        """The graph of the view document, if the result keeps one."""
        return None

    def save(self, folder: Path | str, *, overwrite: bool = False) -> Path:
        """Write the result to a folder that `qnb.load` opens again, on any machine.

        Parameters
        ----------
        folder : path
            Folder to make.
        overwrite : bool
            Whether an earlier result at that place is replaced.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        BadInput
            If something is there already that is not a saved result, or is one and `overwrite` is off.
        StorageError
            If it can't be written; what was there before is untouched.
        """
        folder = Path(folder).expanduser()
        with storage_errors(folder):
            taken = folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
            if taken and not _is_saved(folder):
                raise BadInput(f"{folder} exists and is not a saved result", hint="choose another folder")
            if taken and not overwrite:
                raise BadInput(f"{folder} holds a saved result", hint="choose another folder, or say overwrite=True")
        with building(folder) as temporary:
            self._write(temporary)
        return folder

    def _write(self, folder: Path) -> None:
        writer = _Writer(folder)
        fields = {f.name: writer.encode(getattr(self, f.name), f.name) for f in dataclasses.fields(self)}
        content = {"qnb": FORMAT, "kind": self.kind, "title": self.title, "fields": fields}
        (folder / _RESULT_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Open a saved result of this class: see `load`."""
        result = load(folder)
        if not isinstance(result, cls):
            raise BadInput(f"{folder} holds a {result.kind}", hint=f"qnb.load opens it; {cls.__name__} is another kind")
        return result


def _is_saved(folder: Path) -> bool:
    try:
        content = json.loads((folder / _RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"qnb", "kind", "fields"} <= content.keys()


def _png(figure: Figure) -> str:
    import base64
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


class _Writer:
    """Turns field values into JSON with tags, and writes what does not fit there into files of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def encode(self, value: Any, name: str) -> Any:
        import pandas as pd

        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, str | bool | int | float):
            return value
        if isinstance(value, Path):
            copy = self._copy(require(value, f"the result ({name})"))
            return {"$file": copy, "digest": digest(self.folder / copy)}
        if isinstance(value, Result):
            (self.folder / name).mkdir()
            value._write(self.folder / name)
            return {"$result": name}
        if isinstance(value, pd.DataFrame):
            (self.folder / f"{name}.json").write_text(json.dumps(frames.to_plain(value)), encoding="utf-8")
            return {"$frame": f"{name}.json"}
        if isinstance(value, np.ndarray):
            np.save(self.folder / f"{name}.npy", value, allow_pickle=False)
            return {"$array": f"{name}.npy"}
        if type(value).__name__ in _VALUES and dataclasses.is_dataclass(value):
            fields = {
                f.name: self.encode(getattr(value, f.name), f"{name}-{f.name}") for f in dataclasses.fields(value)
            }
            return {"$value": type(value).__name__, "fields": fields}
        if isinstance(value, Mapping):
            return {"$map": [[str(k), self.encode(v, f"{name}-{i}")] for i, (k, v) in enumerate(value.items())]}
        if isinstance(value, list | tuple):
            items = [self.encode(v, f"{name}-{i}") for i, v in enumerate(value)]
            return {"$tuple": items} if isinstance(value, tuple) else items
        raise TypeError(f"{name}: a {type(value).__name__} can't be saved")

    def _copy(self, source: Path) -> str:
        target = self.folder / "files" / source.name
        target.parent.mkdir(exist_ok=True)
        if target.exists():  # two files of one name: keep both apart
            target = self.folder / "files" / f"{len(list(target.parent.iterdir()))}-{source.name}"
        shutil.copyfile(source, target)
        return f"files/{target.name}"


class _Reader:
    """Turns tagged JSON back into values; believes nothing that the folder says of places outside of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str) -> Path:
        """Path of a regular file in the folder."""
        path = self._inside(name)
        if not path.is_file():  # a pipe would be waited for
            raise ArtifactError(f"{path} is not a file", hint="do not trust this folder")
        return path

    def _inside(self, name: str) -> Path:
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise ArtifactError(
                f"{self.folder} names a file outside of itself: {name}", hint="do not trust this folder"
            )
        if not path.exists():
            raise ArtifactError(f"{self.folder} lacks {name}", hint="copy the whole folder, or save the result again")
        return path

    def decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.decode(v) for v in value]
        if not isinstance(value, dict):
            return value
        if "$file" in value:
            path = self.file(value["$file"])
            if not is_intact(path, value["digest"]):
                raise ArtifactError(f"{path} is not the file that was saved: its digest differs", hint="save it again")
            return path
        if "$result" in value:
            return load(self._inside(value["$result"]))
        if "$frame" in value:
            return frames.from_plain(json.loads(self.file(value["$frame"]).read_text(encoding="utf-8")))
        if "$array" in value:
            return np.load(self.file(value["$array"]), allow_pickle=False)
        if "$value" in value:
            return _checked(_VALUES[value["$value"]](**{k: self.decode(v) for k, v in value["fields"].items()}))
        if "$map" in value:
            return {k: self.decode(v) for k, v in value["$map"]}
        if "$tuple" in value:
            return tuple(self.decode(v) for v in value["$tuple"])
        raise ValueError(f"unknown tag {sorted(value)}")


def load(folder: Path | str) -> Result:
    """Open a saved result.

    Parameters
    ----------
    folder : path
        A folder that `Result.save` made.

    Raises
    ------
    ArtifactError
        If the folder is not a saved result, or is damaged.
    """
    folder = Path(folder).expanduser()
    reader = _Reader(folder)
    try:
        if not (folder / _RESULT_FILE).exists():
            raise ArtifactError(f"{folder} is not a saved result", hint="give a folder that .save(…) made")
        content = json.loads(reader.file(_RESULT_FILE).read_text(encoding="utf-8"))
        if content["qnb"] > FORMAT:
            raise ArtifactError(f"{folder} was saved by a newer qnb", hint="update qnb: pip install -U qnb")
        if content["kind"] not in KINDS:
            raise ArtifactError(
                f"{folder} holds a {content['kind']!r}, which this qnb does not know", hint="update qnb"
            )
        module, _, name = KINDS[content["kind"]].partition(":")
        fields = {key: reader.decode(value) for key, value in content["fields"].items()}
        result = _checked(getattr(importlib.import_module(module), name)(**fields))
    except _DAMAGED as error:
        raise ArtifactError(
            f"{folder} is damaged: {type(error).__name__}: {error}", hint="save the result again"
        ) from error
    assert isinstance(result, Result)
    return result


_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, EOFError, OSError, MemoryError, RecursionError)


def _checked(made: Any) -> Any:
    """See whether the fields of a dataclass are of the types that it declares: a folder can say anything.

    Raises
    ------
    TypeError
        If one is not.
    """
    wrong = [f.name for f in dataclasses.fields(made) if not _fits(getattr(made, f.name), str(f.type))]
    if wrong:
        raise TypeError(f"{type(made).__name__}: {', '.join(wrong)}: not of the right type")
    return made


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value is what a field's annotation, as it is written, asks for."""
    outer, _, inner = annotation.removesuffix("]").partition("[")
    if inner and outer == "tuple":
        return isinstance(value, tuple) and all(_fits(v, inner.removesuffix(", ...")) for v in value)
    if inner and outer == "Mapping":
        return isinstance(value, Mapping) and all(_fits(v, inner.partition(", ")[2]) for v in value.values())
    names = {name.rpartition(".")[2] for name in annotation.split(" | ")}
    classes = {cls.__name__ for cls in type(value).__mro__}
    also = {"Any", *(["None"] if value is None else []), *(["float"] if isinstance(value, int) else [])}
    return not names.isdisjoint(classes | also)
