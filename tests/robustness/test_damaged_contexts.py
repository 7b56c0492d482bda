"""Context binaries with flipped, cut or zeroed bytes: never a dead kernel, never a result from a damaged file in silence.

Oracle: the damage is ours, so what has to be refused is known; the process table and the outputs of the intact binary
say whether the kernel and earlier results live on.
"""

from __future__ import annotations

import collections
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qnb
from qnb.errors import ArtifactError, InferenceError, QnbError, WorkerCrashed, WorkerTimeout
from qnb.runtime import client
from qnb.runtime.locate import find_runtime
from qnb.runtime.options import BackendOptions, session_spec
from qnb.steps._common import random_inputs
from tests.conftest import Digits

COUNT = 200


def _flipped(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = np.frombuffer(content, np.uint8).copy()
    where = rng.integers(0, len(damaged), int(rng.integers(1, 65)))
    damaged[where] ^= rng.integers(1, 256, len(where)).astype(np.uint8)
    return damaged.tobytes()


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(0, len(content)))]


def _zeroed(content: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(0, len(content)))
    length = int(rng.integers(1, 4096))
    return content[:start] + bytes(min(length, len(content) - start)) + content[start + length :]


DAMAGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (_flipped, _cut, _zeroed)


def _damaged(content: bytes) -> Iterator[bytes]:
    """Give `COUNT` damaged copies, the three kinds in turn; zeroing what was zero is no damage."""
    rng = np.random.default_rng(20)
    for number in range(COUNT):
        made = content
        while made == content:
            made = DAMAGES[number % 3](content, rng)
        yield made


def test_two_hundred_damaged_binaries_below_the_digest_check(digits: Digits, tmp_path: Path) -> None:
    """What would happen if native code saw them: an error, a hang, a worker's death or a run; the kernel lives in any case."""
    context = digits.contexts["SM8650"]
    content = context.binary.read_bytes()
    shutil.copyfile(context.path, tmp_path / context.path.name)
    target = tmp_path / context.binary.name
    feeds = {name: array[None] for name, array in random_inputs(context.inputs).items()}
    outcomes: collections.Counter[str] = collections.Counter()
    for damaged in _damaged(content):
        target.write_bytes(damaged)
        spec = session_spec(str(tmp_path / context.path.name), "htp", find_runtime(), BackendOptions(soc=context.soc))
        # The number in the key makes every session a new one, also where size and time stamp are the same.
        numbered = spec.plain() | {"config": {"qnb.test": str(outcomes.total())}}
        try:
            client.call("run", {"spec": numbered, "count": 1}, feeds, timeout_s=8)
            outcomes["ran"] += 1
        except (InferenceError, WorkerCrashed, WorkerTimeout) as error:
            outcomes[type(error).__name__] += bool(error.what and error.hint)
    print(dict(outcomes))
    assert outcomes.total() == COUNT
    assert outcomes["InferenceError"] > 0  # a cut binary can't load
    again = qnb.infer(context, digits.test[:3])
    assert again.frame["sqnr_db"].iloc[0] > 20


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__.strip("_"))
def test_a_damaged_binary_never_reaches_native_code(digits: Digits, tmp_path: Path, damage: Any) -> None:
    context = digits.contexts["SM8350"]
    opened = qnb.load(context.save(tmp_path / "saved"))
    assert isinstance(opened, qnb.Context)
    before = qnb.infer(opened, digits.test[:2])
    intact = opened.binary.read_bytes()
    opened.binary.write_bytes(damage(intact, np.random.default_rng(1)))
    uses = (lambda: qnb.infer(opened, digits.test[:2]), lambda: qnb.profile(opened, runs=1), lambda: opened.binary)
    for use in uses:
        with pytest.raises(ArtifactError, match="damaged") as caught:
            use()
        assert "again" in caught.value.hint
    with pytest.raises(ArtifactError, match="digest"):
        qnb.load(tmp_path / "saved")
    opened.files["binary"].write_bytes(intact)
    after = qnb.infer(opened, digits.test[:2])
    np.testing.assert_array_equal(after.outputs["logits"], before.outputs["logits"])


def test_a_damaged_cache_entry_is_made_again(digits: Digits, cache_folder: Path) -> None:
    context = qnb.context(digits.quantized, soc="SM8550")
    intact = context.binary.read_bytes()
    context.files["binary"].write_bytes(_flipped(intact, np.random.default_rng(2)))
    again = qnb.context(digits.quantized, soc="SM8550")
    assert not again.cached
    assert qnb.infer(again, digits.test[:2]).frame["sqnr_db"].iloc[0] > 20


def test_a_missing_file_is_named(digits: Digits, tmp_path: Path) -> None:
    opened = qnb.load(digits.quantized.save(tmp_path / "saved"))
    assert isinstance(opened, qnb.Quantized)
    opened.files["model"].unlink()
    with pytest.raises(QnbError, match="is gone") as caught:
        qnb.infer(opened, digits.test[:1])
    assert str(opened.files["model"]) in str(caught.value)
