"""What a person has — arrays, a data loader, a folder, an input list — as a stream of named inputs for a model.

Knows the model only by its input specs; nothing of steps, runtimes or quantization. Items come from
`qnb.sample_sources`; here they are named, split, checked and cast. Of what need not be in memory, only the sample at
hand (or the one file or batch that is being split) is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb.errors import BadInput, UnknownName
from qnb.sample_sources import Array, Source, as_array, is_array, source_of

if TYPE_CHECKING:
    from qnb.values import TensorSpec

__all__ = ["SampleStream", "samples"]


def samples(
    data: Any,
    inputs: Sequence[TensorSpec],
    *,
    preprocess: Callable[[Any], Any] | None = None,
    limit: int | None = None,
) -> SampleStream:
    """Turn data into a stream of samples that fit a model.

    Parameters
    ----------
    data : object
        One of

        - an array of an input's shape, or with one more leading dimension, or with a longer batch dimension: (N, …) is
          split in N / batch samples (models with one input);
        - a dict of such arrays by input name;
        - an iterable of arrays, dicts, or tuples in the order of the inputs, each one sample or a stack of them.
          What follows the inputs in a tuple (labels) is left out;
        - a torch DataLoader or Dataset, whose items may be (x, y), ((x1, x2), y) or dicts;
        - a folder of .npy, .npz, .raw, .png or .jpg files, in natural order, or one such file;
        - an ``input_list`` text file as for qnn-net-run: an inference a line, ``path path`` in the order of the inputs
          or ``name:=path name:=path``, relative to the file's folder, ``#`` and ``%`` for comments.

        A .raw file is headerless float32 in C order, one sample of one input. Nothing is unpickled.
    inputs : sequence of TensorSpec
        The model's inputs, in order; they count as batched if they agree in their first dimension.
    preprocess : callable, optional
        Called with each item as it comes: a PIL image (RGB), a file's arrays, an element of an iterable or data set;
        of an array or a dict of arrays, and of a single .npy or .npz file, one slice along the first axis. Returns an
        array, a dict, or a tuple; its batch dimension may be left out if that is 1.
    limit : int, optional
        Stop after that many samples; no further item is taken from the source.

    Returns
    -------
    SampleStream

    Raises
    ------
    BadInput
        The data is of no kind above, has no samples, or does not fit; here as far as it can be seen without reading,
        else while iterating. The message says which sample and input, and what to do.
    UnknownName
        An input name that the model does not have.
    RuntimeUnavailable
        Images without Pillow.
    """
    if limit is not None and (not isinstance(limit, int | np.integer) or isinstance(limit, bool) or limit < 1):
        raise BadInput(f"limit={limit!r} is not a positive whole number", hint="give how many samples to use, or None")
    if preprocess is not None and not callable(preprocess):
        raise BadInput(f"preprocess={preprocess!r} can't be called", hint="pass a function that returns an array")
    source = source_of(data, inputs, walk=preprocess is not None)
    return SampleStream(source, inputs, preprocess=preprocess, limit=None if limit is None else int(limit))


class SampleStream:
    """An iterable of samples: dicts of arrays by input name, each of exactly the input's shape and dtype.

    The arrays may share memory with the data that they come from. A stream over a generator can be iterated once.
    """

    def __init__(
        self,
        source: Source,
        inputs: Sequence[TensorSpec],
        *,
        preprocess: Callable[[Any], Any] | None = None,
        limit: int | None = None,
    ) -> None:
        self.inputs = tuple(inputs)
        self.limit = limit
        self._source = source
        self._preprocess = preprocess
        self._used = False
        firsts = {spec.shape[:1] for spec in self.inputs}
        self._batch = next(iter(firsts))[0] if len(firsts) == 1 and firsts != {()} else 0

    def __iter__(self) -> Iterator[dict[str, Array]]:
        if self._source.once:
            if self._used:
                hint = "make the data a list, or call samples() again with a new generator"
                raise BadInput(f"{self._source.text}: it can be iterated only once, and was", hint=hint)
            self._used = True
        return self._samples()

    @cached_property
    def count(self) -> int | None:
        """Number of samples, None if it is not known before they are read."""
        source, total = self._source, None
        if source.whole or (source.length is not None and self._batch == 1 and self._preprocess is None):
            total = source.length
        elif source.countable and self._preprocess is None:
            total = 0
            for where, item in source.items():
                total += self._split(item, where)[0]
                if self.limit is not None and total >= self.limit:
                    break
        return total if total is None or self.limit is None else min(total, self.limit)

    def describe(self) -> str:
        """Say in a line what the stream is made of."""
        parts = [self._source.text]
        if self._preprocess is not None:
            parts.append(f"through {getattr(self._preprocess, '__name__', type(self._preprocess).__name__)}")
        if self.count is not None:
            parts.append(f"{self.count:,} sample{'s'[: self.count != 1]}")
        elif self.limit is not None:
            parts.append(f"at most {self.limit:,} samples")
        return f"{', '.join(parts)} for {', '.join(map(str, self.inputs))}"

    def __repr__(self) -> str:
        return f"<SampleStream: {self.describe()}>"

    def _samples(self) -> Iterator[dict[str, Array]]:
        done = 0
        for where, item in self._source.items():
            length, stacks = self._split(self._prepared(item, where), where)
            for i in range(length):
                place = f"sample {done} ({where})"
                yield {spec.name: _cast(stacks[spec.name][i, ...], spec, place) for spec in self.inputs}
                done += 1
                if done == self.limit:
                    return
        if not done:
            raise BadInput(f"{self._source.text}: there are no samples in it", hint="give at least one sample")

    def _prepared(self, item: Any, where: str) -> Any:
        if self._preprocess is None:
            return item
        try:
            return self._preprocess(item)
        except Exception as error:
            raise BadInput(
                f"the preprocess function failed on {where}: {type(error).__name__}: {error}",
                hint=f"try it alone on that item, which is of type {type(item).__name__}",
            ) from error

    def _split(self, item: Any, where: str) -> tuple[int, dict[str, Array]]:
        """Name an item's arrays and give each a leading dimension of samples, without touching their values.

        Returns
        -------
        length : int
            Number of samples in the item.
        stacks : dict of ndarray
            For each input, (length, *shape).
        """
        named = self._named(item, where)
        stacks = {spec.name: self._stack(named[spec.name], spec, where) for spec in self.inputs}
        lengths = {name: len(stack) for name, stack in stacks.items()}
        length = next(iter(lengths.values()))
        if set(lengths.values()) != {length}:
            listed = ", ".join(f"{name} {n}" for name, n in lengths.items())
            raise BadInput(f"{where}: the inputs differ in number of samples: {listed}", hint="give as many for each")
        if self._source.whole and length != 1:
            raise BadInput(f"{where}: one sample was due, {length} came", hint="return or store one sample an item")
        return length, stacks

    def _named(self, item: Any, where: str) -> dict[str, Array]:
        known = {spec.name: spec for spec in self.inputs}
        while isinstance(item, list | tuple) and item and _holds_inputs(item[0]):
            item = item[0]  # ((x1, x2), y) and ({"x1": …}, y)
        if isinstance(item, Mapping):
            for name in item:
                if name not in known:
                    raise UnknownName.among(f"input ({where})", name, known, f"the model has {', '.join(known)}")
            values = dict(item)
        elif isinstance(item, tuple) or (isinstance(item, list) and any(map(is_array, item))):
            values = dict(zip(known, item, strict=False))  # what follows the inputs are labels
        else:
            values = dict(zip(known, [item], strict=False))
        missing = [name for name in known if name not in values]
        if missing:
            hint = f"give a dict or a tuple with all of {', '.join(known)}"
            raise BadInput(f"{where}: no value for input {', '.join(missing)}", hint=hint)
        return {name: as_array(value, f"{where}, input {name}") for name, value in values.items()}

    def _stack(self, array: Array, spec: TensorSpec, where: str) -> Array:
        shape, want, batch = array.shape, spec.shape, self._batch
        if shape == want or (batch == 1 and shape == want[1:]):
            return array.reshape(1, *want)
        if len(shape) == len(want) + 1 and shape[1:] == want:
            return array
        if batch and len(shape) == len(want) and shape[1:] == want[1:]:
            if left := shape[0] % batch:
                hint = f"give a multiple of {batch} (DataLoader: drop_last=True), or export with another batch size"
                raise BadInput(f"{where}: input {spec} got {shape[0]} rows, a remainder of {left}", hint=hint)
            return array.reshape(shape[0] // batch, *want)
        raise BadInput(
            f"{where}: input {spec} got an array of shape {list(shape)}", hint=_shape_hint(shape, want, batch)
        )


def _holds_inputs(first: Any) -> bool:
    """Say whether the first element of a tuple is itself the collection of the inputs."""
    return isinstance(first, Mapping) or (isinstance(first, list | tuple) and any(map(is_array, first)))


def _shape_hint(shape: tuple[int, ...], want: tuple[int, ...], batch: int) -> str:
    """Suggest the transposition that would make `shape` fit, channels-last to channels-first before any other."""
    axes = range(len(shape))
    # Of the samples' own dimensions, those that do not count samples.
    targets = [want, want[1:]] if batch == 1 else [want]
    leading = 1 if batch or len(shape) > len(want) else 0
    if 1 < len(shape) <= 6:
        last_to_front = [(*axes[:k], axes[-1], *axes[k:-1]) for k in (1, 0)]
        front_to_last = [(*axes[:k], *axes[k + 1 :], axes[k]) for k in (1, 0)]
        for order in (*last_to_front, *front_to_last, *itertools.permutations(axes)):
            moved = tuple(shape[a] for a in order)
            stacked = order[0] == 0 and leading and (moved[1:] == want or (batch and moved[1:] == want[1:]))
            if order != tuple(axes) and (moved in targets or stacked):
                named = {(0, 3, 1, 2): "NHWC", (2, 0, 1): "HWC", (0, 2, 3, 1): "NCHW", (1, 2, 0): "CHW"}.get(order)
                return f"{f'it looks like {named}: ' if named else ''}pass array.transpose{order}"
    forms = [str(list(want))]
    if batch:
        forms.append(f"[N, {', '.join(map(str, want[1:]))}]" + (f" with N a multiple of {batch}" if batch > 1 else ""))
    return f"it takes {' or '.join(forms)}"


def _cast(array: Array, spec: TensorSpec, place: str) -> Array:
    """Return `array` in the input's dtype, C-contiguous, if no value is lost by it."""
    target, kind = np.dtype(spec.dtype), array.dtype.kind
    if kind not in "biuf":
        hint = f"convert it to {target.name} first"
        raise BadInput(f"{place}, input {spec}: dtype {array.dtype.name} can't be used", hint=hint)
    if kind == "f":
        _require_finite(array, spec, place)
    if target.kind in "iub" and array.size:
        if kind == "f" and not (array == np.trunc(array)).all():
            hint = f"round the data, or see whether it is meant for this input ({target.name})"
            raise BadInput(f"{place}, input {spec}: values with fractions for an integer input", hint=hint)
        low, high = (0, 1) if target.kind == "b" else (np.iinfo(target).min, np.iinfo(target).max)
        if int(array.min()) < low or int(array.max()) > high:
            what = f"values from {int(array.min())} to {int(array.max())} do not fit {target.name}"
            raise BadInput(f"{place}, input {spec}: {what}", hint=f"keep them within {low} to {high}")
    with np.errstate(over="ignore"):
        # Not being a plain ndarray, a file's mapping is copied: no sample hangs on an open file.
        cast = array.astype(target, order="C", subok=False, copy=False)
    if target.kind == "f" and cast.dtype != array.dtype and not np.isfinite(cast).all():
        largest = float(np.abs(array.astype(np.float64)).max())
        hint = f"scale the data: {target.name} ends at {float(np.finfo(target).max):.3g}"
        raise BadInput(f"{place}, input {spec}: values up to {largest:.3g} do not fit {target.name}", hint=hint)
    return cast


def _require_finite(array: Array, spec: TensorSpec, place: str) -> None:
    finite = np.isfinite(array)
    if finite.all():
        return
    nans = int(np.isnan(array).sum())
    infinite = int(array.size - finite.sum()) - nans
    found = " and ".join(f"{n:,} {what}" for n, what in ((nans, "NaN"), (infinite, "infinite")) if n)
    first = [int(i) for i in np.argwhere(~finite)[0]]
    raise BadInput(
        f"{place}, input {spec}: {found} of {array.size:,} values, the first at {first}",
        hint="clean the data or leave this sample out",
    )
