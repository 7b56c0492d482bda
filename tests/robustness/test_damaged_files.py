"""Damaged files of ours: what the digest is for, and what native code does where it is passed by.

Oracle: 200 files with seeded random damage, a real runtime that reads them, and a process that must live.
"""

from __future__ import annotations

import collections
import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import qnb
from qnb import cache
from qnb.errors import ArtifactError, QnbError, WorkerError
from qnb.runtime import client
from qnb.runtime.locate import find_runtime
from qnb.runtime.options import BackendOptions, session_spec
from tests.conftest import Digits
from tests.processes import leftovers

COUNT = 200


def damaged(content: bytes, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Give `count` variants, none equal to `content`: bits flipped, the end cut off, a stretch zeroed."""
    rng = np.random.default_rng(seed)
    while count:
        kind = ("flipped", "cut", "zeroed")[count % 3]
        array = np.frombuffer(content, np.uint8).copy()
        start = int(rng.integers(len(array)) if rng.random() < 0.7 else rng.integers(min(1024, len(array))))
        if kind == "flipped":
            where = rng.integers(start, min(len(array), start + 4096), int(rng.integers(1, 65)))
            array[where] ^= (1 << rng.integers(8, size=len(where))).astype(np.uint8)
        elif kind == "cut":
            array = array[:start]
        else:
            array[start : start + int(rng.integers(1, 4096))] = 0
        if array.tobytes() != content:
            yield kind, array.tobytes()
            count -= 1


@pytest.fixture
def context(digits: Digits, tmp_path: Path) -> qnb.Context:
    """The digits' context, saved and opened again, so that its files may be spoilt."""
    opened = qnb.load(digits.contexts["SM8650"].save(tmp_path / "context"))
    assert isinstance(opened, qnb.Context)
    return opened


def test_damaged_context_binaries_are_refused_before_native_code_sees_them(
    context: qnb.Context, digits: Digits
) -> None:
    x, whole = digits.test[:2], context.binary.read_bytes()
    expected = qnb.infer(context, x).outputs["logits"]
    binary = context.binary
    for _, content in damaged(whole, COUNT):
        binary.write_bytes(content)
        with pytest.raises(ArtifactError, match="is damaged") as caught:
            qnb.infer(context, x)
        assert str(binary) in caught.value.what
        assert caught.value.hint
    for step in (qnb.profile, qnb.compare):
        with pytest.raises(ArtifactError):
            step(context)
    with pytest.raises(ArtifactError, match="digest differs"):
        qnb.load(binary.parents[1])
    binary.write_bytes(whole)
    np.testing.assert_array_equal(qnb.infer(context, x).outputs["logits"], expected)


def test_native_code_never_takes_the_kernel_along(
    context: qnb.Context, digits: Digits, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    """Going below the digest check: each of the 200 is refused, ends its worker, or runs; and no kernel ever dies."""
    runtime, options = find_runtime(), BackendOptions(soc=context.soc)
    x = digits.test[None, :1]
    outcomes: collections.Counter[str] = collections.Counter()
    lock = threading.Lock()

    def attempt(number: int, content: bytes) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(context.path, folder)
        (folder / context.binary.name).write_bytes(content)
        spec = session_spec(str(folder / context.path.name), "htp", runtime, options)
        outcome, hint = "ran", "none needed"
        try:
            client.call("run", {"spec": spec.plain(), "count": 1}, {"image": x}, timeout_s=20)
        except WorkerError as error:
            outcome, hint = type(error).__name__, error.hint
        except QnbError as error:
            outcome, hint = f"refused with {type(error).__name__}", error.hint
        assert hint
        with lock:
            outcomes[outcome] += 1
        shutil.rmtree(folder)

    with ThreadPoolExecutor(2) as threads:
        variants = damaged(context.binary.read_bytes(), COUNT)
        for future in [threads.submit(attempt, i, content) for i, (_, content) in enumerate(variants)]:
            future.result()
    print(dict(outcomes))
    for outcome, count in outcomes.items():
        record_property(outcome, count)
    assert sum(outcomes.values()) == COUNT
    assert outcomes["refused with InferenceError"], "native code took all of them: the damage did not reach it"
    assert qnb.infer(context, digits.test[:2]).samples == 2


@pytest.mark.parametrize("spoil", ["binary", "wrapper", "record", "missing file"])
def test_a_damaged_cache_entry_is_made_anew(spoil: str, digits: Digits, cache_folder: Path) -> None:
    made = qnb.context(digits.quantized)
    assert qnb.context(digits.quantized).cached
    victim = {
        "binary": made.binary,
        "wrapper": made.path,
        "record": made.path.parent / "entry.json",
        "missing file": made.binary,
    }[spoil]
    if spoil == "missing file":
        victim.unlink()
    else:
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 255
        victim.write_bytes(content)
    again = qnb.context(digits.quantized)
    assert not again.cached
    assert qnb.infer(again, digits.test[:2]).samples == 2
    assert leftovers(cache_folder) == []


def test_a_damaged_model_is_refused_and_mended_by_its_step(digits: Digits, cache_folder: Path) -> None:
    model = qnb.export(digits.model.path, name="again")
    quantized = qnb.calibrate(model, digits.train[:20])
    for file in (model.path, quantized.path):
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for build in (model, quantized):
        for step in (qnb.context, qnb.convert, qnb.profile, lambda b: qnb.infer(b, digits.test[:1])):
            with pytest.raises(ArtifactError, match="is damaged"):
                step(build)
    with pytest.raises(ArtifactError):
        qnb.calibrate(model, digits.train[:2])
    again = qnb.export(digits.model.path, name="again")
    assert again.digest == model.digest
    assert qnb.infer(model, digits.test[:2], backend="cpu").samples == 2, "same content, same file: it is whole again"


def test_a_file_that_was_cleaned_away_is_named(digits: Digits, cache_folder: Path) -> None:
    made = qnb.context(digits.quantized)
    shutil.rmtree(cache_folder)
    with pytest.raises(ArtifactError, match="is gone") as caught:
        qnb.infer(made, digits.test[:1])
    assert "run the step" in caught.value.hint
    with pytest.raises(ArtifactError, match="is gone"):
        made.save(cache_folder.parent / "saved")
    assert not (cache_folder.parent / "saved").exists()


def test_an_entry_that_another_process_made_meanwhile_stays(cache_folder: Path) -> None:
    def build(name: str) -> dict[str, str]:
        return {"by": name}

    def slower(folder: Path) -> dict[str, str]:
        cache.store("kind", "key", lambda _: build("the faster"))
        return build("the slower")

    assert cache.store("kind", "key", slower).meta == {"by": "the faster"}
    content = json.loads((cache_folder / "kind" / "key" / "entry.json").read_text())
    assert content["values"] == {"by": "the faster"}
    assert leftovers(cache_folder) == []
