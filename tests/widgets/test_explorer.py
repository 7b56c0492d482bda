"""The explorer of a calibration without a browser.

Oracles: activations as ONNX Runtime gives them, with numpy's own quantize-dequantize of all of them; `qnb.calibrate`, which
takes the overrides that it writes.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from ipywidgets import Widget

import qnb
from qnb.errors import BadInput, UnknownName
from qnb.widgets import CalibrationExplorer


@pytest.fixture(autouse=True)
def closed():
    yield
    Widget.close_all()


@pytest.fixture
def explorer(digits) -> CalibrationExplorer:
    made = CalibrationExplorer(
        digits.quantized, digits.train[:50], namespace={"model": digits.model, "images": digits.train}
    )
    assert made.wait(60)
    return made


@pytest.fixture(scope="module")
def activations(digits) -> dict[str, np.ndarray]:
    """All values of all activations, in float."""
    model = onnx.load(digits.model.path)
    names = [t for t in digits.quantized.frame.query("kind == 'activation'")["tensor"] if t != "image"]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    runs = [session.run(None, {"image": one[None]}) for one in digits.train[:50]]
    return {name: np.concatenate([run[i].ravel() for run in runs]) for i, name in enumerate(names)}


def figures_of(x: np.ndarray, low: float, high: float, bits: int) -> tuple[float, float]:
    """Quantize and dequantize by numpy alone; give SQNR in dB and the clipped per cent."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / (2**bits - 1))
    zero = round(-low / float(scale))
    codes = np.rint(x.astype(np.float64) / scale) + zero
    real = (np.clip(codes, 0, 2**bits - 1) - zero) * scale
    noise = np.mean((real - x) ** 2)
    clipped = np.mean((codes < 0) | (codes > 2**bits - 1))
    return float(10 * np.log10(np.mean(x.astype(np.float64) ** 2) / noise)), 100 * float(clipped)


def tried(explorer: CalibrationExplorer) -> tuple[float, float]:
    row = explorer.frame.set_index("tensor").loc[explorer.tensor]
    return row["tried_sqnr_db"], row["tried_clipped_percent"]


def test_the_worst_come_first_and_figures_are_those_of_raw_data(explorer, activations):
    frame = explorer.frame
    assert frame["sqnr_db"].is_monotonic_increasing
    assert explorer.tensor == frame["tensor"].iloc[0]
    for row in frame[frame["tensor"] != "image"].itertuples():
        expected, clipped = figures_of(activations[row.tensor], row.low, row.high, 8)
        assert row.sqnr_db == pytest.approx(expected, abs=0.3), row.tensor
        assert row.clipped_percent == pytest.approx(clipped, abs=0.05)


def test_dragging_moves_the_figures(explorer, activations):
    name = next(t for t in explorer.frame["tensor"] if t in activations and activations[t].max() > 1)
    explorer.tensor = name
    x = activations[name]
    for share, bits in ((0.7, 8), (0.4, 8), (0.8, 16)):
        with explorer.hold_trait_notifications():
            explorer.low, explorer.high, explorer.bits = float(x.min()) * share, float(x.max()) * share, bits
        sqnr, clipped = tried(explorer)
        expected = figures_of(x, explorer.low, explorer.high, bits)
        assert sqnr == pytest.approx(expected[0], abs=0.2)
        assert clipped == pytest.approx(expected[1], abs=0.1)
        assert explorer.figures["asked"] == [explorer.low, explorer.high, bits, False]


def test_a_move_takes_a_moment(explorer):
    times = []
    for share in np.linspace(1, 0.5, 30):
        start = time.perf_counter()
        explorer.high = float(explorer.histogram["high"] * share)
        times.append(time.perf_counter() - start)
    assert sorted(times)[15] < 0.02


def test_what_was_changed_is_kept_while_another_is_shown(explorer):
    first, second = explorer.frame["tensor"].iloc[:2]
    own = explorer.high
    explorer.high = own / 2
    explorer.tensor = second
    assert not np.isnan(explorer.frame.set_index("tensor").loc[first, "tried_sqnr_db"])
    explorer.tensor = first
    assert explorer.high == own / 2
    explorer._handle_custom_msg({"do": "reset"}, [])
    assert explorer.high == own
    assert explorer.frame["tried_sqnr_db"].isna().all()


def test_symmetric_grids(explorer, activations):
    name = next(t for t in explorer.frame["tensor"] if t in activations and activations[t].min() < -1)
    explorer.tensor = name
    explorer.symmetric = True
    most = float(np.abs([explorer.low, explorer.high]).max())
    x, scale = activations[name].astype(np.float64), np.float32(most / 127)
    real = np.clip(np.rint(x / scale), -128, 127) * scale
    assert tried(explorer)[0] == pytest.approx(10 * np.log10(np.mean(x**2) / np.mean((real - x) ** 2)), abs=0.2)
    assert explorer.overrides.activations[name].symmetric


def test_overrides_are_taken_by_calibrate(explorer, digits, tmp_path):
    first, second = explorer.frame["tensor"].iloc[:2]
    explorer.high = explorer.high * 0.75
    explorer.tensor = second
    explorer.bits = 16
    explorer._handle_custom_msg({"do": "save", "path": str(tmp_path / "o.json")}, [])
    assert "Saved 2 tensors" in explorer.said["done"]
    assert explorer.line == f"tuned = %qnn calibrate model data --overrides {tmp_path / 'o.json'}"
    tuned = qnb.calibrate(digits.model, digits.train[:50], overrides=tmp_path / "o.json").frame.set_index("tensor")
    wanted = explorer.overrides.activations
    assert tuned.loc[first, "max"] == pytest.approx(float(wanted[first].max[0]))
    assert tuned.loc[second, "bits"] == 16
    assert tuned.loc[second, "scale"] == pytest.approx(float(wanted[second].scale[0]))


def test_no_other_file_is_replaced(explorer, tmp_path):
    precious = tmp_path / "thesis.txt"
    precious.write_text("five years")
    with pytest.raises(BadInput, match="no tensor was changed"):
        explorer.save_overrides(tmp_path / "o.json")
    explorer.bits = 16
    explorer._handle_custom_msg({"do": "save", "path": str(precious)}, [])
    assert "no encodings file" in explorer.said["what"]
    assert precious.read_text() == "five years"
    assert explorer.save_overrides(tmp_path / "o.json") == explorer.save_overrides(tmp_path / "o.json")


def test_bad_moves_are_said_and_leave_nothing(explorer):
    explorer.bits = 7
    assert "7 bits" in explorer.said["what"]
    explorer.bits = 8
    explorer.low, before = 1e9, explorer.figures
    assert "not a range" in explorer.said["what"]
    assert explorer.figures == before
    with pytest.raises(UnknownName):
        explorer.tensor = "nowhere"


def test_a_check_has_counted_already(walk, digits):
    explorer = CalibrationExplorer(walk["check"], namespace={})
    by_name = explorer.frame.set_index("tensor")
    measured = walk["check"].tensors.query("kind == 'activation'").set_index("tensor")
    assert set(by_name.index) == set(measured.index)
    assert (by_name["sqnr_db"] - measured["sqnr_db"]).drop("image").abs().max() < 1.5
    assert explorer.line.startswith("tuned = %qnn calibrate MODEL DATA")


def test_what_is_no_calibration(digits):
    with pytest.raises(BadInput, match="no data"):
        CalibrationExplorer(digits.quantized)
    with pytest.raises(BadInput, match="no calibration"):
        CalibrationExplorer(digits.model)


def test_an_error_of_the_data_is_shown(digits, tmp_path: Path):
    explorer = CalibrationExplorer(digits.quantized, digits.train[:2, :, :4], namespace={})
    assert not explorer.wait(60)
    assert explorer.state["state"] == "failed"
    assert explorer.state["error"]["hint"]
