"""Samples: what comes out is compared with numpy's own slicing, saving and torch's own collation of the same data."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qnb.errors import BadInput, UnknownName
from qnb.samples import samples
from qnb.values import TensorSpec
from tests._samples import RNG, X4, A, B, X, collect, fails, floats

# --- arrays


@pytest.mark.parametrize(
    ("shape", "count"), [((1, 3, 4, 5), 1), ((7, 3, 4, 5), 7), ((7, 1, 3, 4, 5), 7), ((3, 4, 5), 1)]
)
def test_an_array_is_split_along_its_leading_dimension(shape: tuple[int, ...], count: int) -> None:
    data = floats(*shape)
    result = collect(data, X)
    assert samples(data, [X]).count == count
    np.testing.assert_array_equal(np.concatenate([s["x"] for s in result]), data.reshape(count, 3, 4, 5))


@given(
    batch=st.integers(1, 5),
    rest=st.lists(st.integers(1, 4), max_size=3),
    stacks=st.integers(1, 5),
    extra=st.booleans(),
)
def test_splitting_is_the_inverse_of_stacking(batch: int, rest: list[int], stacks: int, extra: bool) -> None:
    spec = TensorSpec("x", "float32", (batch, *rest))
    data = np.arange(stacks * np.prod(spec.shape), dtype=np.float32).reshape(stacks, *spec.shape)
    given_ = data if extra else data.reshape(stacks * batch, *rest)
    np.testing.assert_array_equal(np.stack([s["x"] for s in collect(given_, spec)]), data)


@given(batch=st.integers(2, 6), rows=st.integers(1, 40))
def test_a_remainder_is_an_error(batch: int, rows: int) -> None:
    spec = TensorSpec("x", "float32", (batch, 3))
    if rows % batch:
        assert f"{rows} rows, a remainder of {rows % batch}" in fails(np.zeros((rows, 3), np.float32), spec)
    else:
        assert len(collect(np.zeros((rows, 3), np.float32), spec)) == rows // batch


def test_inputs_without_a_common_batch_are_split_only_on_an_extra_dimension() -> None:
    x, state = TensorSpec("x", "float32", (1, 4)), TensorSpec("state", "float32", (2, 1, 3))
    data = {"x": floats(5, 1, 4), "state": floats(5, 2, 1, 3)}
    result = collect(data, x, state)
    np.testing.assert_array_equal(np.stack([s["state"] for s in result]), data["state"])
    assert "'state'" not in (message := fails({"x": floats(1, 4), "state": floats(4, 1, 3)}, x, state))
    assert "[4, 1, 3]" in message


def test_scalar_and_noncontiguous_inputs() -> None:
    assert [s["t"].item() for s in collect(np.arange(3), TensorSpec("t", "int64", ()))] == [0, 1, 2]
    data = np.asfortranarray(floats(6, 3, 4, 5))[::2]
    np.testing.assert_array_equal(np.concatenate([s["x"] for s in collect(data, X)]), data)


def test_dicts_are_matched_by_name_and_must_agree_in_length() -> None:
    data = {"b": np.arange(12).reshape(3, 2, 2), "a": floats(3, 3)}
    result = collect(data, A, B)
    np.testing.assert_array_equal(result[2]["b"][0], data["b"][2])
    assert "a 3, b 2" in fails({"a": floats(3, 3), "b": np.zeros((2, 2, 2))}, A, B)


def test_names_that_are_missing_or_unknown() -> None:
    assert "no value for input b" in fails({"a": floats(1, 3)}, A, B)
    with pytest.raises(UnknownName, match="did you mean pixels"):
        list(samples({"pixel": floats(1, 3)}, [TensorSpec("pixels", "float32", (1, 3))]))
    assert "no value for input b" in fails(floats(1, 3), A, B)


# --- iterables, torch


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_iterables_of_arrays_dicts_and_tuples(kind: Any) -> None:
    a, b = floats(4, 1, 3), RNG.integers(-9, 9, (4, 1, 2, 2))
    for items in (
        [{"b": y, "a": x} for x, y in zip(a, b, strict=True)],
        list(zip(a, b, strict=True)),
        [(x, y, "a label") for x, y in zip(a, b, strict=True)],
        [[x, y] for x, y in zip(a, b, strict=True)],
        [((x, y), 3) for x, y in zip(a, b, strict=True)],
        [({"a": x, "b": y}, 3) for x, y in zip(a, b, strict=True)],
    ):
        result = collect(kind(items), A, B)
        np.testing.assert_array_equal(np.stack([s["a"] for s in result]), a)
        np.testing.assert_array_equal(np.stack([s["b"] for s in result]), b)


def test_nested_lists_of_numbers_are_arrays() -> None:
    result = collect([[1, 2, 3], [[4, 5, 6]]], A)
    np.testing.assert_array_equal(np.concatenate([s["a"] for s in result]), [[1, 2, 3], [4, 5, 6]])
    assert "can't become an array" in fails([[[1, 2], [3]]], A)


def test_stacks_of_different_length_in_one_list_are_counted_without_reading() -> None:
    data = [floats(4, 3), floats(8, 3), floats(2, 4, 3)]
    assert samples(data, [X4]).count == 5
    assert len(collect(data, X4)) == 5


def test_a_generator_is_consumed_once_and_limit_takes_no_item_too_many() -> None:
    taken = []

    def generate() -> Iterator[np.ndarray]:
        for i in range(100):
            taken.append(i)
            yield np.full((1, 3), i, np.float32)

    stream = samples(generate(), [A], limit=3)
    assert stream.count is None
    assert [s["a"][0, 0] for s in stream] == [0, 1, 2]
    assert taken == [0, 1, 2]
    with pytest.raises(BadInput, match="only once"):
        iter(stream)


def test_a_list_can_be_iterated_again() -> None:
    stream = samples([floats(1, 3)] * 2, [A])
    assert len(list(stream)) == len(list(stream)) == 2


def test_limit_inside_a_stack() -> None:
    stream = samples(floats(9, 3), [A], limit=4)
    assert stream.count == len(list(stream)) == 4


@pytest.mark.parametrize("limit", [0, -1, 2.5, True, "3"])
def test_bad_limits(limit: Any) -> None:
    assert "limit" in fails(floats(1, 3), A, limit=limit)


def test_only_one_sample_is_alive_at_a_time() -> None:
    class Traced(np.ndarray):
        """A plain ndarray does not take weak references in every numpy version; a subclass does."""

    references: list[weakref.ref[Any]] = []

    def generate() -> Iterator[np.ndarray]:
        for _ in range(20):
            array = np.zeros((1, 3)).view(Traced)
            references.append(weakref.ref(array))
            yield array
            del array

    for _ in samples(generate(), [A]):
        gc.collect()
        assert sum(r() is not None for r in references) <= 1
    assert len(references) == 20


def test_torch_loaders_and_datasets() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

    images, labels = torch.randn(10, 3, 4, 5), torch.arange(10)
    data = TensorDataset(images, labels)
    for source in (
        data,
        DataLoader(data),
        DataLoader(data, batch_size=4),
        DataLoader(images, batch_size=3),
        images,
        images.clone().requires_grad_(),
        list(images),
    ):
        assert samples(source, [X]).count == 10
        result = collect(source, X)
        np.testing.assert_array_equal(np.concatenate([s["x"] for s in result]), images.numpy())
    assert len(collect(DataLoader(data, batch_size=4, drop_last=True), X)) == 8

    class Endless(Dataset):  # does not end an iteration by IndexError: only its length counts
        def __len__(self) -> int:
            return 3

        def __getitem__(self, i: int) -> dict[str, Any]:
            return {"x": torch.full((3, 4, 5), i, dtype=torch.bfloat16)}

    assert [s["x"].flat[0] for s in collect(Endless(), X)] == [0, 1, 2]

    class Stream(IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            return iter(images)

    assert samples(DataLoader(Stream(), batch_size=5), [X]).count is None
    assert len(collect(DataLoader(Stream(), batch_size=5), X)) == 10

    static = TensorSpec("x", "float32", (4, 3, 4, 5))
    assert "a remainder of 2" in fails(DataLoader(data, batch_size=4), static)
    assert len(collect(DataLoader(data, batch_size=4, drop_last=True), static)) == 2
    pairs = DataLoader(TensorDataset(torch.randn(4, 3), torch.arange(16).reshape(4, 2, 2), labels[:4]), batch_size=2)
    np.testing.assert_array_equal(
        np.concatenate([s["b"] for s in collect(pairs, A, B)]), np.arange(16).reshape(4, 2, 2)
    )


# --- preprocess


def test_preprocess_walks_arrays_along_their_first_axis() -> None:
    images = RNG.integers(0, 255, (6, 4, 5, 3), dtype=np.uint8)
    seen = []

    def prepare(image: np.ndarray) -> np.ndarray:
        seen.append(image.shape)
        return image.transpose(2, 0, 1) / 255.0

    result = collect(images, X, preprocess=prepare, limit=4)
    assert seen == [(4, 5, 3)] * 4
    expected = (images[:4].transpose(0, 3, 1, 2) / 255.0).astype(np.float32)
    np.testing.assert_array_equal(np.concatenate([s["x"] for s in result]), expected)
    pairs = collect({"u": images[:, 0, :3, 0], "v": images}, A, preprocess=lambda d: d["u"] + d["v"].max())
    assert len(pairs) == 6


def test_preprocess_of_iterables_gets_the_items_as_they_are() -> None:
    result = collect([(3, "cat"), (4, "dog")], A, preprocess=lambda item: np.full(3, item[0]))
    assert [s["a"][0, 0] for s in result] == [3, 4]


def test_a_failing_preprocess_names_the_item_and_keeps_the_cause() -> None:
    def broken(item: Any) -> Any:
        if item[0] == 2:
            raise KeyError("mean")
        return item

    with pytest.raises(BadInput, match="failed on item 1: KeyError") as caught:
        list(samples([np.ones(3), np.full(3, 2.0)], [A], preprocess=broken))
    assert isinstance(caught.value.__cause__, KeyError)
    assert "can't be called" in fails(floats(1, 3), A, preprocess=3)
    assert "one sample was due, 2 came" in fails(floats(2, 3), A, preprocess=lambda a: np.stack([a, a]))


# --- checks on values


@pytest.mark.parametrize(
    ("shape", "spec", "advice"),
    [
        ((1, 4, 5, 3), X, "NHWC: pass array.transpose(0, 3, 1, 2)"),
        ((9, 4, 5, 3), X, "NHWC: pass array.transpose(0, 3, 1, 2)"),
        ((4, 5, 3), X, "HWC: pass array.transpose(2, 0, 1)"),
        ((2, 3, 4, 5), TensorSpec("x", "float32", (1, 4, 5, 3)), "NCHW: pass array.transpose(0, 2, 3, 1)"),
        ((1, 5, 4, 3), X, "array.transpose(0, 3, 2, 1)"),
        ((1, 3, 4, 6), X, "it takes [1, 3, 4, 5] or [N, 3, 4, 5]"),
        ((7,), X4, "with N a multiple of 4"),
    ],
)
def test_a_wrong_shape_says_what_was_expected_and_suggests_a_transpose(
    shape: tuple[int, ...], spec: TensorSpec, advice: str
) -> None:
    message = fails(floats(*shape), spec)
    assert str(list(shape)) in message
    assert str(spec) in message
    assert advice in message


@given(st.permutations(range(4)))
def test_a_suggested_transpose_makes_the_array_fit(order: list[int]) -> None:
    spec = TensorSpec("x", "float32", (2, 3, 4, 5))
    data = np.zeros(spec.shape, np.float32).transpose(order)
    if data.shape != spec.shape:
        advice = fails(data, spec).rsplit("array.transpose", 1)[1]
        axes = tuple(int(a) for a in advice.strip("()").split(","))
        assert len(collect(data.transpose(axes), spec)) >= 1


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint8", "bool", ">f4"])
def test_dtypes_that_lose_nothing_are_cast(dtype: str) -> None:
    data = np.array([[0, 1, 1]]).astype(dtype)
    np.testing.assert_array_equal(collect(data, A)[0]["a"], [[0, 1, 1]])
    np.testing.assert_array_equal(collect(data, TensorSpec("a", "int32", (1, 3)))[0]["a"], [[0, 1, 1]])
    np.testing.assert_array_equal(collect(data, TensorSpec("a", "bool", (1, 3)))[0]["a"], [[False, True, True]])


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (["a", "b", "c"], "float32", "can't be used"),
        (np.array([1, 2, 3], dtype=object), "float32", "dtype object"),
        ([1j, 2, 3], "float32", "dtype complex128"),
        (np.array(["2020-01-01"] * 3, dtype="datetime64[D]"), "int32", "can't be used"),
        ([1.5, 2, 3], "int32", "fractions"),
        ([0, 1, 256], "uint8", "from 0 to 256 do not fit uint8"),
        ([0, 1, -1], "uint8", "keep them within 0 to 255"),
        (np.array([0, 1, 2**63], dtype=np.uint64), "int64", "do not fit int64"),
        ([0.0, 1.0, 2.0**63], "int64", "do not fit int64"),
        ([0, 1, 2], "bool", "do not fit bool"),
        ([0, 1, 1e300], "float32", "values up to 1e+300 do not fit float32"),
        ([0, 1, 70000], "float16", "ends at 6.55e+04"),
    ],
)
def test_values_that_do_not_fit_the_dtype(values: Any, dtype: str, expected: str) -> None:
    message = fails([np.asarray(values).reshape(1, 3)], TensorSpec("a", dtype, (1, 3)))
    assert expected in message
    assert "sample 0 (item 0), input a" in message


@settings(max_examples=200)
@given(hnp.arrays(st.sampled_from([np.int64, np.uint64, np.float64, np.float32, np.int8]), (1, 3)), st.data())
def test_a_cast_to_an_integer_is_exact_or_refused(array: np.ndarray, data: st.DataObject) -> None:
    spec = TensorSpec("a", data.draw(st.sampled_from(["int8", "uint8", "int32", "int64", "uint64"])), (1, 3))
    try:
        (sample,) = samples(array, [spec])
    except BadInput:
        info = np.iinfo(spec.dtype)  # python's own numbers are the oracle
        exact = [float(v).is_integer() and info.min <= int(v) <= info.max for v in array.ravel() if np.isfinite(v)]
        assert len(exact) < 3 or not all(exact)
    else:
        assert [int(v) for v in array.ravel()] == [int(v) for v in sample["a"].ravel()]


def test_nan_and_infinities_are_counted_and_located() -> None:
    data = floats(5, 3)
    data[3] = [1, np.nan, np.inf]
    message = fails({"a": data}, A)
    assert "sample 3" in message
    assert "1 NaN and 1 infinite of 3 values, the first at [0, 1]" in message
    assert len(collect(data, A, limit=3)) == 3


@pytest.mark.parametrize("empty", [[], (), iter([]), np.zeros((0, 3)), {"a": np.zeros((0, 3))}])
def test_empty_data(empty: Any) -> None:
    assert "no samples" in fails(empty, A)


@pytest.mark.parametrize("wrong", [3, None, b"bytes", object()])
def test_data_of_no_known_kind(wrong: Any) -> None:
    assert "pass an array, a dict" in fails(wrong, A)


def test_describe_says_source_count_and_inputs() -> None:
    stream = samples(floats(9, 3), [A], limit=4)
    assert stream.describe() == "array float32[9x3], 4 samples for a: float32[1x3]"
    assert "at most 2 samples" in samples(iter([]), [A], limit=2).describe()
    assert "through sqrt" in samples(floats(9, 3), [A], preprocess=np.sqrt).describe()
    assert "describe" not in repr(stream)
    assert "4 samples" in repr(stream)
