"""Results are values: what is saved opens again as it was, and a hostile folder is refused.

Oracles: pandas' and numpy's own comparison with the result that was saved; a witness file that nothing may touch or read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import qnb
from qnb.errors import ArtifactError, BadInput, StorageError
from qnb.files import digest
from qnb.results import KINDS, MIME, Result


def assert_same(loaded: Any, kept: Any, where: str = "") -> None:
    """Compare field by field; files by content, since a loaded result has its own."""
    assert type(loaded) is type(kept), where
    if isinstance(kept, Result):
        for field in dataclasses.fields(kept):
            assert_same(getattr(loaded, field.name), getattr(kept, field.name), f"{where}.{field.name}")
    elif isinstance(kept, pd.DataFrame):
        pd.testing.assert_frame_equal(loaded, kept, check_index_type=False)
    elif isinstance(kept, np.ndarray):
        assert loaded.dtype == kept.dtype, where
        np.testing.assert_array_equal(loaded, kept)
    elif isinstance(kept, Path):
        assert loaded != kept, where
        assert digest(loaded) == digest(kept), where
    elif isinstance(kept, dict):
        assert list(loaded) == list(kept), where
        for key in kept:
            assert_same(loaded[key], kept[key], f"{where}[{key}]")
    elif isinstance(kept, tuple | list):
        assert len(loaded) == len(kept), where
        for number, (a, b) in enumerate(zip(loaded, kept, strict=True)):
            assert_same(a, b, f"{where}[{number}]")
    else:
        assert loaded == kept, where


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_kind_of_result_is_walked(walk):
    assert {r.kind for r in walk.values()} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_result_opens_as_it_was(walk, kind, tmp_path):
    kept = walk[kind]
    assert kept.save(tmp_path / "saved") == tmp_path / "saved"
    loaded = qnb.load(tmp_path / "saved")
    assert_same(loaded, kept)
    assert str(loaded) == str(kept)
    assert loaded.to_html(chart=False) == kept.to_html(chart=False)
    loaded.save(tmp_path / "again")  # and once more, from its own files
    assert_same(qnb.load(tmp_path / "again"), loaded)
    assert not any(p.suffix in (".pkl", ".pickle") for p in (tmp_path / "saved").rglob("*"))
    assert type(kept).load(tmp_path / "saved").title == kept.title


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_shows_itself(walk, kind):
    bundle = walk[kind]._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", MIME}
    assert bundle["text/plain"].startswith(walk[kind].title[:20])
    assert "<table" in bundle["text/html"]
    assert "data:image/png;base64," in bundle["text/html"]
    again = json.loads(json.dumps(bundle[MIME], allow_nan=False))
    assert again["kind"] == kind
    assert len(again["tables"]) == len(walk[kind].tables())


def test_results_are_frozen(walk):
    with pytest.raises(dataclasses.FrozenInstanceError):
        walk["model"].name = "other"


def test_a_loaded_build_is_as_good_as_the_one_that_was_saved(walk, digits, tmp_path):
    walk["context"].save(tmp_path / "context")
    image = digits.test[:2]
    by_folder = qnb.infer(tmp_path / "context", image)["logits"]
    np.testing.assert_array_equal(by_folder, qnb.infer(walk["context"], image)["logits"])
    parent = qnb.load(tmp_path / "context").parent
    assert qnb.context(parent).cached  # the digest is the file's, so the cache knows it


def test_one_kind_is_not_another(walk, tmp_path):
    walk["doctor"].save(tmp_path / "saved")
    with pytest.raises(BadInput, match="holds a doctor"):
        qnb.Model.load(tmp_path / "saved")


# --- what save does not overwrite ----------------------------------------------------------------------------------


def test_save_never_overwrites_what_is_no_saved_result(walk, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("text")
    for target in (folder, tmp_path / "file"):
        for overwrite in (False, True):
            with pytest.raises(BadInput, match="not a saved result"):
                walk["doctor"].save(target, overwrite=overwrite)
    (folder / "result.json").write_text('{"my": "own results"}')
    with pytest.raises(BadInput, match="not a saved result"):
        walk["doctor"].save(folder, overwrite=True)
    assert tree(folder) == {"thesis.tex": b"years of work", "result.json": b'{"my": "own results"}'}


def test_save_overwrites_a_saved_result_only_when_told_to(walk, tmp_path):
    walk["doctor"].save(tmp_path / "saved")
    before = tree(tmp_path)
    with pytest.raises(BadInput, match="overwrite=True"):
        walk["model"].save(tmp_path / "saved")
    assert tree(tmp_path) == before
    walk["model"].save(tmp_path / "saved", overwrite=True)
    assert qnb.load(tmp_path / "saved").kind == "model"
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]


def test_a_save_that_fails_leaves_nothing_and_the_old_one_as_it_was(walk, tmp_path):
    gone = dataclasses.replace(walk["model"], files={"model": tmp_path / "gone.onnx"})
    with pytest.raises(ArtifactError, match=r"gone\.onnx"):
        gone.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []
    walk["doctor"].save(tmp_path / "saved")
    before = tree(tmp_path)
    with pytest.raises(ArtifactError):
        gone.save(tmp_path / "saved", overwrite=True)
    assert tree(tmp_path) == before


def test_save_under_a_file_is_an_error_of_ours(walk, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        walk["doctor"].save(tmp_path / "file" / "saved")


# --- hostile and damaged folders -----------------------------------------------------------------------------------


class _Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def _set(*path: Any, to: Any):
    def change(content: Any, folder: Path) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = to(folder) if callable(to) else to

    return change


def _first_file(content: Any) -> Any:
    return content["fields"]["files"]["$map"][0]


def _files(**tags: Any):
    def change(content: Any, folder: Path) -> None:
        values = {key: value(folder) if callable(value) else value for key, value in tags.items()}
        _first_file(content)[1] = {
            f"${k}" if k in ("file", "array", "frame", "result") else k: v for k, v in values.items()
        }

    return change


def _witness(folder: Path) -> Path:
    return folder.parent / "witness.npy"


CHANGES = {
    "outside: a file above": _files(file="../witness.npy", digest=lambda f: digest(_witness(f))),
    "outside: an absolute path": _files(file=lambda f: str(_witness(f)), digest=lambda f: digest(_witness(f))),
    "outside: in and out": _files(file="files/../../witness.npy", digest=lambda f: digest(_witness(f))),
    "outside: a link": _files(file="link.npy", digest=lambda f: digest(_witness(f))),
    "outside: an array above": _files(array="../witness.npy"),
    "an array that is a pickle": _files(array="bomb.npy"),
    "outside: a table above": _files(frame="../witness.json"),
    "outside: a result above": _files(result="../other"),
    "itself, for ever": _files(result="."),
    "a folder as a file": _files(file="files", digest="0"),
    "a pipe as an array": _files(array="pipe"),
    "no digest": _files(file="frame.json"),
    "a wrong digest": lambda c, f: _first_file(c)[1].update(digest="0" * 64),
    "a missing file": _files(file="files/other.onnx", digest="0"),
    "a file that is a number": _files(file=7, digest="0"),
    "a zero byte in a path": _files(file="a\0b", digest="0"),
    "an unknown tag": _files(object="os:system"),
    "an unknown kind": _set("kind", to="os:system"),
    "a kind that is a list": _set("kind", to=["model"]),
    "a newer format": _set("qnb", to=2),
    "a format that is a word": _set("qnb", to="one"),
    "no format": lambda c, f: c.pop("qnb"),
    "an extra field": _set("fields", "more", to=1),
    "a missing field": lambda c, f: c["fields"].pop("inputs"),
    "fields that are a list": _set("fields", to=[]),
    "a value class of ours that is none": _set("fields", "recipe", to={"$value": "Path", "fields": {}}),
    "a value with strange fields": _set("fields", "recipe", to={"$value": "Recipe", "fields": {"x": 1}}),
    "a frame that is a word": _set("fields", "frame", to="table"),
    "notes that are a word": _set("fields", "notes", to="note"),
    "files that are a list": _set("fields", "files", to=[]),
    "a log that is a number": _set("fields", "log", to=3),
    "an input that is a number": _set("fields", "inputs", to={"$tuple": [3]}),
    "an input with strange fields": _set(
        "fields", "inputs", "$tuple", 0, "fields", to={"name": "x", "dtype": 1, "shape": {"$tuple": []}}
    ),
    "a shape of words": _set("fields", "inputs", "$tuple", 0, "fields", "shape", to={"$tuple": ["1"]}),
    "a name that is none": _set("fields", "name", to=None),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_hostile_folder_is_refused(walk, what, tmp_path):
    folder = walk["model"].save(tmp_path / "saved")
    np.save(tmp_path / "witness.npy", np.arange(3))
    (tmp_path / "witness.json").write_text('[["a", "int64", [1]]]')
    walk["doctor"].save(tmp_path / "other")
    (folder / "link.npy").symlink_to(tmp_path / "witness.npy")
    os.mkfifo(folder / "pipe")
    np.save(folder / "bomb.npy", np.array([_Bomb(tmp_path / "exploded")], dtype=object), allow_pickle=True)
    content = json.loads((folder / "result.json").read_text())
    CHANGES[what](content, folder)
    (folder / "result.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="saved") as caught:
        qnb.load(folder)
    assert caught.value.hint
    assert ("names a file outside of itself" in caught.value.what) == what.startswith("outside")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, '{"qnb": 1}', '{"qnb": 1, "kind": "model"}', "\x00", '"\\ud800"']
)
def test_a_broken_description_is_refused(text, tmp_path):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ArtifactError):
        qnb.load(tmp_path)


def test_a_description_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "result.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactError):
        qnb.load(tmp_path)


@pytest.mark.parametrize("where", ["nowhere", "empty", "file"])
def test_what_is_no_saved_result(where, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("{}")
    with pytest.raises(ArtifactError, match="not a saved result"):
        qnb.load(tmp_path / where)


@pytest.mark.parametrize("member", ["frame.json", "outputs-0.npy", "io.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "garbage", "folder"])
def test_damaged_members_are_refused(walk, member, damage, tmp_path):
    folder = walk["inference"].save(tmp_path / "saved")
    path = folder / member
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"\x00garbage\xff" * 9)
    with pytest.raises(ArtifactError):
        qnb.load(folder)


def test_a_damaged_model_in_a_saved_folder_is_refused(walk, tmp_path):
    folder = walk["quantized"].save(tmp_path / "saved")
    (model,) = (folder / "files").glob("*.onnx")
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(ArtifactError, match="digest"):
        qnb.load(folder)


def test_a_saved_folder_may_be_moved(walk, tmp_path):
    walk["contexts"].save(tmp_path / "saved")
    shutil.move(tmp_path / "saved", tmp_path / "elsewhere")
    loaded = qnb.load(tmp_path / "elsewhere")
    assert all(path.is_relative_to(tmp_path / "elsewhere") for c in loaded for path in c.files.values())
