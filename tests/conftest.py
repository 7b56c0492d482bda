"""What all tests share: a cache of their own, small models, and the check that nothing is left behind."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import nets
from tests.processes import leftovers, wait_until, workers_under

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; the processes of the tests inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache and a temporary folder of this session; at its end no worker and no intermediate file of ours is left."""
    from qnb.runtime import client

    folder = tmp_path_factory.mktemp("session")
    (folder / "tmp").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QNB_CACHE_DIR", str(folder / "cache"))
        patch.setenv("QNB_STATE_DIR", str(folder / "state"))
        patch.setenv("QNB_PROGRESS", "0")
        patch.delenv("VIRTUAL_ENV", raising=False)  # of another environment than this one, IPython warns
        patch.setenv("TMPDIR", str(folder / "tmp"))
        patch.setattr(tempfile, "tempdir", None)
        yield folder
        client.close_all()
        everything = tmp_path_factory.getbasetemp()
        wait_until(lambda: not workers_under(everything), 3, f"end of the workers {workers_under(everything)}")
        assert leftovers(folder) == []
        if "jupyter_core.utils" in sys.modules:  # its synchronous clients keep an event loop open
            sys.modules["jupyter_core.utils"].ensure_event_loop().close()


@dataclass(frozen=True)
class Digits:
    """A small classifier, trained in place on scikit-learn's digits (1797 real 8x8 images), and its data.

    Attributes
    ----------
    module : torch.nn.Module
        Trained; 1x1x8x8 -> 1x10.
    train, test : ndarray
        (N, 1, 8, 8), in 0..1; never the same digits.
    labels : ndarray
        Classes of `test`.
    model, quantized : Model, Quantized
        Its export; and w8a8.
    contexts : dict
        The compiled w8a8 by part: a Hexagon v75 and a v68.
    """

    module: Any
    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray
    model: Any
    quantized: Any
    contexts: dict[str, Any]


@pytest.fixture(scope="session")
def digits() -> Digits:
    import torch
    from sklearn.datasets import load_digits

    import qnb
    from tests.models import digits_cnn

    data = load_digits()
    images = (data.images[:, None] / 16).astype(np.float32)
    module = digits_cnn().train()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many small steps: threads only wait for each other
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        optimizer = torch.optim.Adam(module.parameters(), 3e-3)
        x, y = torch.tensor(images[:1297]), torch.tensor(data.target[:1297])
        for _ in range(8):
            for batch in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
                optimizer.step()
    torch.set_num_threads(threads)
    module.eval()
    model = qnb.export(
        module, shapes={"image": (1, 1, 8, 8)}, input_names=["image"], output_names=["logits"], name="digits"
    )
    quantized = qnb.calibrate(model, images[:300])
    contexts = {soc: qnb.context(quantized, soc=soc) for soc in ("SM8650", "SM8350")}
    return Digits(module, images[:1297], images[1297:], data.target[1297:], model, quantized, contexts)


@pytest.fixture(scope="session")
def slow(session_folder: Path) -> Any:
    """A float model that takes seconds to compile, and minutes for one inference on the simulator."""
    import qnb

    path = nets.convolutions(session_folder / "slow.onnx", layers=16, channels=32, size=384)
    return qnb.export(path, simplify=False)


@pytest.fixture(scope="session")
def saved(session_folder: Path, digits: Digits, slow: Any) -> Path:
    """Folder with saved results, for processes of their own: ``model``, ``quantized``, ``context``, ``slow``."""
    folder = session_folder / "saved"
    for name, result in {
        "model": digits.model,
        "quantized": digits.quantized,
        "context": digits.contexts["SM8650"],
        "slow": slow,
    }.items():
        result.save(folder / name)
    np.save(folder / "test.npy", digits.test)
    return folder


@pytest.fixture(scope="session")
def walk(digits: Digits, session_folder: Path) -> dict[str, Any]:
    """A result of every kind, from one walk through the steps with the digits classifier; by kind."""
    import qnb

    test, labels = digits.test[:20], digits.labels[:20]
    results = {
        "doctor": qnb.doctor(),
        "model": digits.model,
        "conversion": qnb.convert(digits.quantized),
        "quantized": digits.quantized,
        "sensitivity": qnb.sensitivity(digits.model, test, samples=8),
        "search": qnb.search(digits.model, test, target_sqnr=20, samples=8, points=3, refine=2, labels=labels),
        "context": digits.contexts["SM8650"],
        "contexts": qnb.context(digits.quantized, soc=["SM8650", "SM8350"]),
        "inference": qnb.infer(digits.quantized, test, labels=labels),
        "profile": qnb.profile(digits.quantized, test, runs=5, warmup=1),
        "check": qnb.check(digits.quantized, test, labels=labels, min_sqnr=20),
        "debug": qnb.debug(digits.quantized),
        "comparison": qnb.compare(digits.quantized, data=test, labels=labels, runs=3, warmup=1),
        "estimate": qnb.estimate(digits.quantized, soc=["SM8650", "SM8550", "SM8450"], measured={"SM8550": 1.0}),
        "selection": qnb.select(digits.quantized, data=test, labels=labels),
    }
    given = [r for r in results.values() if r.kind not in ("model", "quantized")]
    return results | {"report": qnb.report(digits.quantized, *given, file=session_folder / "walk" / "report.html")}


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache for one test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("QNB_CACHE_DIR", str(folder))
    return folder
