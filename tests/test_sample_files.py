"""Samples from files: what comes out is compared with what numpy and Pillow wrote."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnb.errors import RuntimeUnavailable
from qnb.sample_sources import natural_key
from qnb.samples import samples
from tests._samples import RNG, A, B, X, collect, fails, floats


def test_folders_of_numpy_files_in_natural_order(tmp_path: Path) -> None:
    for i in (10, 2, 1):
        np.save(tmp_path / f"img{i}.npy", np.full((1, 3), i, np.float32))
    (tmp_path / "labels.csv").write_text("not a sample")
    (tmp_path / ".hidden.npy").write_text("not a sample")
    assert [s["a"][0, 0] for s in collect(tmp_path, A)] == [1, 2, 10]
    assert samples(tmp_path, [A]).count == 3
    np.save(tmp_path / "img3.npy", floats(5, 3))
    assert samples(str(tmp_path), [A]).count == len(collect(tmp_path, A)) == 8


@given(st.lists(st.tuples(st.text("ab", max_size=3), st.integers(0, 10**12)), max_size=8))
def test_natural_order_follows_the_numbers(parts: list[tuple[str, int]]) -> None:
    names = [f"{text}{number}" for text, number in parts]
    assert sorted(names, key=natural_key) == [f"{t}{n}" for t, n in sorted(parts)]


def test_npz_by_name_and_by_position(tmp_path: Path) -> None:
    a, b = floats(3, 3), RNG.integers(0, 9, (3, 2, 2))
    np.savez(tmp_path / "named.npz", b=b, a=a)
    np.savez_compressed(tmp_path / "bare.npz", a, b)
    for name in ("named.npz", "bare.npz"):
        result = collect(tmp_path / name, A, B)
        np.testing.assert_array_equal(np.concatenate([s["a"] for s in result]), a)
        np.testing.assert_array_equal(np.concatenate([s["b"] for s in result]), b)
    assert len(collect(tmp_path, A, B)) == 6


def test_a_large_npy_file_is_mapped_and_its_samples_are_not(tmp_path: Path) -> None:
    data = floats(50, 3)
    np.save(tmp_path / "x.npy", data)
    kept = collect(tmp_path / "x.npy", A)
    (tmp_path / "x.npy").unlink()
    np.testing.assert_array_equal(np.concatenate([s["a"] for s in kept]), data)
    assert all(s["a"].flags.owndata and s["a"].flags.writeable for s in kept)


def test_raw_files_are_float32_of_exactly_one_sample(tmp_path: Path) -> None:
    data = floats(4, 1, 2, 2)
    for i, array in enumerate(data):
        np.round(array * 9).tofile(tmp_path / f"{i}.raw")
    result = collect(tmp_path, B)
    np.testing.assert_array_equal(np.stack([s["b"] for s in result]), np.round(data * 9))
    assert len(collect(tmp_path / "0.raw", B)) == 1
    np.zeros(8, np.float32).tofile(tmp_path / "0.raw")
    message = fails(tmp_path, B)
    assert "32 bytes" in message
    assert "16" in message
    assert "2 samples" in message
    np.zeros(4, np.uint8).tofile(tmp_path / "0.raw")
    assert "1 byte(s) an element" in fails(tmp_path, B)
    assert "input_list" in fails(tmp_path / "1.raw", A, B)


def test_input_lists(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    a, b = floats(3, 3), RNG.integers(0, 99, (3, 2, 2))
    lines = ["# inputs of the model", "%out"]
    for i in range(3):
        a[i].tofile(folder / f"a{i}.raw")
        np.save(folder / f"b{i}.npy", b[i])
        order = [f"b:=data/b{i}.npy", f"a:=data/a{i}.raw"] if i else [f"data/a{i}.raw", f"data/b{i}.npy"]
        lines += ["  ".join(order), ""]
    (tmp_path / "input_list.txt").write_text("\r\n".join(lines), encoding="utf-8-sig", newline="")
    result = collect(tmp_path / "input_list.txt", A, B)
    assert samples(tmp_path / "input_list.txt", [A, B]).count == 3
    np.testing.assert_array_equal(np.concatenate([s["a"] for s in result]), a)
    np.testing.assert_array_equal(np.concatenate([s["b"] for s in result]), b)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a:=a.raw b.npy", "with and without a name"),
        ("a.raw", "1 files for 2 inputs"),
        ("a:=a.raw", "no file for input b"),
        ("a:=a.raw a:=a.raw b:=b.npy", "two files for input a"),
        ("aa:=a.raw b:=b.npy", "did you mean a"),
        ("a:=a.raw b:=c.txt", "neither .raw nor .npy"),
        ("a:=a.raw b:=bb.npy", "did you mean b.npy"),
        ("# nothing", "names no files"),
    ],
)
def test_bad_input_lists_name_the_line(tmp_path: Path, line: str, expected: str) -> None:
    np.zeros(3, np.float32).tofile(tmp_path / "a.raw")
    np.save(tmp_path / "b.npy", np.zeros((1, 2, 2)))
    (tmp_path / "list.txt").write_text(f"# first\n{line}\n")
    message = fails(tmp_path / "list.txt", A, B)
    assert expected in message
    assert "line 2" in message or "nothing" in line


def test_an_input_list_entry_is_one_sample(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", floats(2, 3))
    (tmp_path / "list.txt").write_text("a.npy\n")
    assert "one sample was due, 2 came" in fails(tmp_path / "list.txt", A)


def test_images_go_through_preprocess(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = RNG.integers(0, 255, (3, 4, 5, 3), dtype=np.uint8)
    for i, array in enumerate(pixels):
        image.fromarray(array).save(tmp_path / f"{i}.png")
    stream = samples(tmp_path, [X], preprocess=lambda im: np.asarray(im).transpose(2, 0, 1) / 255)
    assert stream.count == 3
    expected = (pixels.transpose(0, 3, 1, 2) / 255).astype(np.float32)
    np.testing.assert_array_equal(np.concatenate([s["x"] for s in stream]), expected)
    assert "preprocess" in fails(tmp_path, X)
    (tmp_path / "1.png").write_bytes(b"not an image")
    assert "1.png" in fails(tmp_path, X, preprocess=lambda im: np.asarray(im).transpose(2, 0, 1))


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_pillow(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "PIL":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    (tmp_path / "a.png").write_bytes(b"")
    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(RuntimeUnavailable, match=r"qnb\[images\]"):
        list(samples(tmp_path, [X], preprocess=np.asarray))


def test_damaged_and_hostile_files(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", floats(8, 3))
    whole = (tmp_path / "whole.npy").read_bytes()
    np.savez(tmp_path / "whole.npz", a=floats(8, 3))
    zipped = (tmp_path / "whole.npz").read_bytes()
    bad = tmp_path / "bad"
    bad.mkdir()
    for name, content in {
        "empty.npy": b"",
        "cut.npy": whole[:-7],
        "header.npy": whole[:20],
        "garbage.npy": b"\x93NUMPY\x01\x00" + bytes(200),
        "cut.npz": zipped[: len(zipped) // 2],
        "text.npz": b"hello",
        "empty.npz": b"",
    }.items():
        path = bad / name
        path.write_bytes(content)
        assert name in fails(path, A)

    class Boom:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("a pickle was loaded",))

    np.save(bad / "pickle.npy", np.array([Boom()], dtype=object), allow_pickle=True)
    np.savez(bad / "pickle.npz", a=np.array([Boom()], dtype=object))
    for name in ("pickle.npy", "pickle.npz"):
        assert "never loaded" in fails(bad / name, A)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    np.save(tmp_path / "calibration.npy", floats(1, 3))
    assert "did you mean calibration.npy" in fails(tmp_path / "calibratoin.npy", A)
    assert "has no samples" in fails(tmp_path.parent / tmp_path.name / ".." / _empty(tmp_path), A)
    (tmp_path / "model.onnx").write_bytes(bytes(range(256)))
    assert "as an input list" in fails(tmp_path / "model.onnx", A)


def _empty(tmp_path: Path) -> str:
    (tmp_path / "nothing").mkdir()
    return f"{tmp_path.name}/nothing"
