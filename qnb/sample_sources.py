"""Where samples come from: arrays, iterables, torch loaders and data sets, folders, files, input lists; item by item.

Knows how to read, not what fits a model: an item is whatever came out, `qnb.samples` checks it. Only the headerless
.raw files and input lists need the model's inputs. torch is never imported: its objects are told by what they can do.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qnb.errors import BadInput, RuntimeUnavailable, UnknownName

if TYPE_CHECKING:
    from qnb.values import TensorSpec

Array = npt.NDArray[Any]

ACCEPTED = (
    "pass an array, a dict of arrays by input name, an iterable of either, a torch DataLoader or Dataset, "
    "a folder or a file of .npy, .npz, .raw or images, or an input_list text file"
)
ARRAYS = (".npy", ".npz")
IMAGES = (".png", ".jpg", ".jpeg")
SUFFIXES = (*ARRAYS, ".raw", *IMAGES)


@dataclass(frozen=True)
class Source:
    """A start of iterations over items.

    Attributes
    ----------
    items : callable
        Starts an iteration over (where it came from, item).
    text : str
        What it is, in a few words.
    whole : bool
        Each item is exactly one sample, never a stack of them.
    length : int or None
        Number of samples, where it is known without a look at the items.
    countable : bool
        The samples can be counted by the items' shapes without reading their data.
    once : bool
        It can be iterated only once.
    """

    items: Callable[[], Iterator[tuple[str, Any]]]
    text: str
    whole: bool = False
    length: int | None = None
    countable: bool = False
    once: bool = False


def source_of(data: object, inputs: Sequence[TensorSpec], *, walk: bool) -> Source:
    """Return the source for what a user passed.

    Parameters
    ----------
    data : object
        See `ACCEPTED`.
    inputs : sequence of TensorSpec
        The model's inputs, in order.
    walk : bool
        A function will be applied to single items: take arrays apart along their first axis, and let image files in.
    """
    if isinstance(data, str | os.PathLike):
        return _path(Path(data), inputs, walk)
    if isinstance(data, Mapping):
        named = {key: as_array(value, f"input {key}") for key, value in data.items()}
        text = "arrays " + ", ".join(f"{key} {_shape(value)}" for key, value in named.items())
        return _in_memory(named, text, walk)
    if is_array(data):
        array = as_array(data)
        return _in_memory(array, f"array {_shape(array)}", walk)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not hasattr(data, "__iter__"):
        return _dataset(data)
    if isinstance(data, Iterable) and not isinstance(data, bytes | bytearray | memoryview):
        return _iterable(data)
    raise BadInput(f"data of type {type(data).__name__} is not understood", hint=ACCEPTED)


def is_array(value: object) -> bool:
    """Say whether `value` is an array or a tensor of some library."""
    return hasattr(value, "__array__") or hasattr(value, "__array_interface__")


def as_array(value: Any, where: str = "the data") -> Array:
    """Return an array, a tensor, an image or nested lists of numbers as a numpy array, copied only if it must be."""
    try:
        if all(hasattr(value, name) for name in ("detach", "cpu", "numpy")):  # a torch tensor, on any device
            tensor = value.detach().cpu()
            return np.asarray(tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy())
        return value if isinstance(value, np.ndarray) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInput(
            f"{where}: a value of type {type(value).__name__} can't become an array: {error}",
            hint="give rows of the same length, and numbers only",
        ) from error


def _shape(array: Array) -> str:
    return f"{array.dtype.name}[{'x'.join(map(str, array.shape))}]"


def _in_memory(item: Array | dict[str, Array], text: str, walk: bool) -> Source:
    """Serve one item that may be a stack, or walk along its first axis."""
    if not walk:
        return Source(lambda: iter([("the data", item)]), text, countable=True)
    columns = item if isinstance(item, dict) else {"": item}
    if not columns or any(array.ndim == 0 for array in columns.values()):
        raise BadInput(f"{text}: there is no first axis to walk along", hint="stack the samples along a first axis")
    lengths = {len(array) for array in columns.values()}
    if len(lengths) > 1:
        raise BadInput(f"{text}: the first axes differ in length", hint="give as many samples for each input")
    length = lengths.pop()

    def items() -> Iterator[tuple[str, Any]]:
        for i in range(length):
            part = {key: array[i] for key, array in columns.items()}
            yield f"index {i}", part if isinstance(item, dict) else part[""]

    return Source(items, text, whole=True, length=length)


def _dataset(data: Any) -> Source:
    """Serve a map-style data set: it has a length and items, and need not end an iteration by itself."""
    length = len(data)
    text = f"{type(data).__name__} of {length:,} items"
    return Source(lambda: ((f"item {i}", data[i]) for i in range(length)), text, whole=True, length=length)


def _iterable(data: Iterable[Any]) -> Source:
    in_memory = isinstance(data, list | tuple)
    text = f"{type(data).__name__} of {len(data):,} items" if in_memory else type(data).__name__  # type: ignore[arg-type]
    return Source(
        lambda: ((f"item {i}", item) for i, item in enumerate(data)),
        text,
        length=_loader_rows(data),
        countable=in_memory,
        once=isinstance(data, Iterator),
    )


def _loader_rows(data: Any) -> int | None:
    """Return how many rows a torch DataLoader's batches hold together, if it collates them in torch's own way."""
    size = getattr(data, "batch_size", None)
    collate = getattr(getattr(data, "collate_fn", None), "__module__", "") or ""
    if not isinstance(size, int) or not collate.startswith("torch."):
        return None
    try:
        rows = len(data.sampler)
    except (AttributeError, TypeError):  # an iterable data set has no length
        return None
    return rows - rows % size if data.drop_last else rows


def _path(path: Path, inputs: Sequence[TensorSpec], walk: bool) -> Source:
    try:
        exists = path.exists()
    except OSError as error:
        raise BadInput(f"could not look for {path}: {error}", hint="see whether the path is right") from error
    if not exists:
        raise _missing(path)
    if path.is_dir():
        return _folder(path, inputs, walk)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        return _input_list(path, inputs)
    _allow([path], walk)
    if suffix in ARRAYS:
        item = read(path, inputs)
        return _in_memory(_by_position(item, inputs), f"file {path.name}", walk)
    return Source(lambda: iter([(path.name, read(path, inputs))]), f"file {path.name}", whole=True, length=1)


def _by_position(item: Any, inputs: Sequence[TensorSpec]) -> Any:
    """Name the arrays of an .npz that was saved without names (arr_0, arr_1, …) by the model's inputs."""
    if isinstance(item, tuple):
        return {spec.name: array for spec, array in zip(inputs, item, strict=False)}
    return item


def _folder(folder: Path, inputs: Sequence[TensorSpec], walk: bool) -> Source:
    try:
        files = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    except OSError as error:
        raise BadInput(f"could not list the folder {folder}: {error}", hint="see whether you may read it") from error
    if not files:
        hint = f"it needs files of {', '.join(SUFFIXES)}; subfolders and hidden files are not read"
        raise BadInput(f"the folder {folder} has no samples", hint=hint)
    _allow(files, walk)
    files.sort(key=lambda p: natural_key(p.name))
    kinds = {p.suffix.lower() for p in files}
    whole = walk or not kinds & set(ARRAYS)
    return Source(
        lambda: ((p.name, read(p, inputs)) for p in files),
        f"folder {folder.name}: {len(files):,} files ({', '.join(sorted(kinds))})",
        whole=whole,
        length=len(files) if whole else None,
        countable=kinds == {".npy"},  # its header tells the shape
    )


def natural_key(name: str) -> tuple[list[Any], str]:
    """Return a sort key by which img2 comes before img10."""
    parts: list[Any] = re.split(r"(\d+)", name.casefold())
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def _allow(files: Iterable[Path], walk: bool) -> None:
    image = next((p for p in files if p.suffix.lower() in IMAGES), None)
    if image is not None and not walk:
        raise BadInput(
            f"{image}: an image needs a function that makes the model's input of it",
            hint="pass preprocess=f, where f takes a PIL image (RGB) and returns an array",
        )


def read(path: Path, inputs: Sequence[TensorSpec], spec: TensorSpec | None = None) -> Any:
    """Read one file: an array from .npy or .raw, a dict (or, without names, a tuple) from .npz, a PIL image.

    Parameters
    ----------
    path : Path
    inputs : sequence of TensorSpec
        The model's inputs.
    spec : TensorSpec, optional
        The input that the file is for; needed for .raw if the model has several.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".raw":
            return _read_raw(path, inputs, spec)
        return _read_image(path) if suffix in IMAGES else _read_numpy(path)
    except (BadInput, RuntimeUnavailable):
        raise
    except Exception as error:  # the readers' errors on damaged files are of many kinds
        hint = "see whether the file is whole; arrays of Python objects (pickles) are never loaded"
        raise BadInput(f"could not read {path}: {error}", hint=hint) from error


def _read_numpy(path: Path) -> Any:
    with path.open("rb") as file:  # opened here: numpy leaves a damaged archive open
        if file.read(2) != b"PK":
            return np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a large stack is read sample by sample
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    unnamed = [f"arr_{i}" for i in range(len(arrays))]  # the names that np.savez gives to positional arrays
    return tuple(arrays[name] for name in unnamed) if set(arrays) == set(unnamed) else arrays


def _read_raw(path: Path, inputs: Sequence[TensorSpec], spec: TensorSpec | None) -> Array:
    if spec is None:
        if len(inputs) != 1:
            names = ", ".join(i.name for i in inputs)
            hint = "write an input_list file (a line: name:=path name:=path), or save each sample as .npz"
            raise BadInput(f"{path}: a .raw file holds one input, the model has {len(inputs)} ({names})", hint=hint)
        spec = inputs[0]
    elements = int(np.prod(spec.shape, dtype=np.int64))
    size = path.stat().st_size
    if size != 4 * elements:
        hint = "write it with array.astype('float32').tofile(path): float32 in C order, without a header"
        if size and size % (4 * elements) == 0:
            hint = f"it would hold {size // (4 * elements)} samples: write one file a sample"
        elif size % elements == 0:
            hint = f"it would fit {size // elements} byte(s) an element: {hint}"
        raise BadInput(f"{path} has {size:,} bytes, but input {spec} needs {4 * elements:,} (float32)", hint=hint)
    return np.fromfile(path, dtype="<f4").reshape(spec.shape)


def _read_image(path: Path) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise RuntimeUnavailable(
            f"{path}: reading images needs Pillow, which is not installed", hint="pip install 'qnb[images]'"
        ) from error
    with Image.open(path) as image:
        return image.convert("RGB")


def _input_list(path: Path, inputs: Sequence[TensorSpec]) -> Source:
    """Read a qnn-net-run input list: an inference a line, ``path path`` in input order or ``name:=path name:=path``."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        hint = f"an input list is a text file; otherwise {ACCEPTED}"
        raise BadInput(f"could not read {path} as an input list: {error}", hint=hint) from error
    entries = [
        (f"{path.name}, line {number}", _entry(line, f"{path}, line {number}", path.parent, inputs))
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith(("#", "%"))
    ]
    if not entries:
        raise BadInput(f"the input list {path} names no files", hint="write one inference a line, e.g. x:=x_0.raw")

    def items() -> Iterator[tuple[str, Any]]:
        for where, files in entries:
            yield where, {spec.name: read(file, inputs, spec) for spec, file in files}

    return Source(items, f"input list {path.name}", whole=True, length=len(entries))


def _entry(line: str, where: str, folder: Path, inputs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, Path]]:
    words = line.split()
    named = [word.partition(":=") for word in words if ":=" in word]
    known = {spec.name: spec for spec in inputs}
    if named and len(named) != len(words):
        raise BadInput(f"{where}: files with and without a name", hint="write name:=path for all inputs or for none")
    if not named and len(words) != len(inputs):
        hint = f"the model's inputs are {', '.join(known)}; a path can't hold spaces here"
        raise BadInput(f"{where}: {len(words)} files for {len(inputs)} inputs", hint=hint)
    pairs = [(name, file) for name, _, file in named] or list(zip(known, words, strict=True))
    names = [name for name, _ in pairs]
    for name in names:
        if name not in known:
            raise UnknownName.among(f"input ({where})", name, known)
    if sorted(names) != sorted(known):
        missing, twice = sorted(set(known) - set(names)), sorted({n for n in names if names.count(n) > 1})
        what = f"no file for input {', '.join(missing)}" if missing else f"two files for input {', '.join(twice)}"
        raise BadInput(f"{where}: {what}", hint="name each of the model's inputs once")
    files = [(known[name], folder / file) for name, file in pairs]
    for _, file in files:
        if file.suffix.lower() not in (".raw", ".npy"):
            raise BadInput(
                f"{where}: {file.name} is neither .raw nor .npy", hint="an input list takes .raw and .npy files"
            )
        if not file.is_file():
            raise _missing(file, where)
    return files


def _missing(path: Path, where: str = "") -> BadInput:
    try:
        siblings = [p.name for p in path.parent.iterdir()]
    except OSError:
        siblings = []
    near = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else "see whether the path is right; it is relative to "
    hint += "" if near else ("the list's folder" if where else f"the working folder {Path.cwd()}")
    return BadInput(f"{where}{': ' if where else ''}there is no file or folder {path}", hint=hint)
