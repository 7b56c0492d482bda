"""Oracles: numpy over all values at once, and ONNX Runtime's min-max calibrator."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnxruntime.quantization.calibrate import MinMaxCalibrater

from qnb.errors import BadInput, CalibrationError
from qnb.quant.observers import BINS, ChannelMeans, Histogram, MinMax, restore
from qnb.quant.ranges import min_max, percentile

from ._nets import cnn, ranges, samples
from ._peer import _Reader

FLOATS = arrays(np.float32, st.integers(1, 300), elements=st.floats(-(2.0**100), 2.0**100, width=32))


def _percentiles(values, p):
    return np.percentile(values.astype(np.float64), [(100 - p) / 2, (100 + p) / 2])


@settings(deadline=None)
@given(pieces=st.lists(FLOATS, min_size=1, max_size=6), p=st.floats(1, 100))
def test_percentile_is_numpys_to_one_bin(pieces, p):
    observer = Histogram()
    for piece in pieces:
        observer.update("t", piece)
    values = np.concatenate(pieces)
    bins = observer.distribution("t")
    assert bins.counts.sum() == values.size
    assert bins.counts.size <= BINS
    expected = _percentiles(values, p)
    np.testing.assert_allclose(percentile(observer, p)["t"], expected, rtol=1e-5, atol=bins.width * 1.001)
    assert observer.extents["t"] == (values.min(), values.max())


@settings(deadline=None)
@given(pieces=st.lists(FLOATS, min_size=2, max_size=6))
def test_histogram_is_numpys_and_merging_changes_nothing(pieces):
    whole, first, second = Histogram(), Histogram(), Histogram()
    for index, piece in enumerate(pieces):
        whole.update("t", piece)
        (first if index % 2 else second).update("t", piece)
    first.merge(second)
    first.merge(Histogram())
    values = np.concatenate(pieces).astype(np.float64)
    for observer in (whole, first):
        bins = observer.distribution("t")
        # a value within 2**-12 of a bin's edge may be next door, so edges are moved out by that much
        slack = bins.width / 2048
        below = np.array([(values < edge + slack).sum() for edge in bins.edges])
        assert (np.cumsum(bins.counts) <= below[1:]).all()
        above = np.array([(values < edge - slack).sum() for edge in bins.edges])
        assert (np.cumsum(bins.counts) >= above[1:]).all()
    assert first.extents == whole.extents


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 1e5])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("p", [90, 99, 99.9, 99.99, 100])
def test_resolution_on_normal_data(scale, relu, p):
    """At least half of the bins are in use, whatever the unit and however the range grew."""
    rng = np.random.default_rng(0)
    observer, seen = Histogram(), []
    for growth in range(1, 8):
        values = (rng.standard_normal((2, 5, 3001)) * scale * growth).astype(np.float32)
        seen.append(np.maximum(values, 0) if relu else values)
        observer.update("t", seen[-1])
    values = np.concatenate(seen).ravel()
    bins = observer.distribution("t")
    assert bins.counts.size > BINS / 2 - 1
    np.testing.assert_allclose(percentile(observer, p)["t"], _percentiles(values, p), atol=bins.width)


def test_zeros_and_empty_arrays():
    for observer in (MinMax(), Histogram()):
        observer.update("t", np.zeros((0, 3), np.float32))
        assert observer.extents == {}
        observer.update("t", np.zeros(5, np.float32))
        assert observer.extents == {"t": (0, 0)}
    assert percentile(observer, 99) == {"t": (0, 0)}
    observer.update("t", np.full(5, 7.0))
    assert percentile(observer, 50)["t"][1] == pytest.approx(7, rel=1e-3)


def test_memory_does_not_grow_with_samples():
    observer = Histogram()
    rng = np.random.default_rng(0)
    for _ in range(50):
        observer.update("t", rng.standard_normal(10_000).astype(np.float32))
    assert [bins.counts.nbytes for bins in observer._bins.values()] == [BINS * 8]
    assert observer.distribution("t").counts.sum() == 500_000


@pytest.mark.parametrize("observer", [MinMax, Histogram])
@pytest.mark.parametrize(
    ("bad", "said"), [(np.nan, "1 NaN and 0 inf"), (np.inf, "0 NaN and 1 inf"), (-np.inf, "1 inf")]
)
def test_what_is_not_finite_names_the_tensor(observer, bad, said):
    values = np.ones((3, 70_000), np.float32)
    values[2, -1] = bad
    with pytest.raises(CalibrationError, match=said) as caught:
        observer().update("layer/relu", values)
    assert "layer/relu" in caught.value.what
    assert caught.value.hint


@pytest.mark.parametrize("p", [0, -1, 100.1, np.nan])
def test_percentile_refuses(p):
    with pytest.raises(BadInput):
        percentile(Histogram(), p)


def test_min_max_is_onnx_runtimes():
    net = cnn()
    inputs = samples(net)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.onnx")
        onnx.save(net, source)
        peer = MinMaxCalibrater(str(source), augmented_model_path=str(Path(folder, "augmented.onnx")))
        peer.augment_graph()
        peer.create_inference_session()
        peer.collect_data(_Reader(inputs))
        theirs = {name: tuple(float(v.item()) for v in data.range_value) for name, data in peer.compute_data().items()}
    ours = ranges(net, inputs, optimize=False)  # as theirs does: fused kernels give other last bits
    assert len(ours) > 10
    assert ours == {name: theirs[name] for name in ours}


def test_min_max_of_a_histogram():
    observer = Histogram()
    observer.update("a", np.array([[-1, 2]], np.float64))
    observer.update("a", np.array([5], np.float16))
    assert min_max(observer) == {"a": (-1, 5)}


# --- states, thinning, means ---------------------------------------------------------------------------------------------


def _random_pieces(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((1, 8, 50, 50)).astype(np.float32) * (1 + k) for k in range(6)]


@pytest.mark.parametrize("make", [MinMax, Histogram, lambda: Histogram(most=3000), lambda: Histogram(900, 2)])
def test_a_state_restores_exactly_and_goes_on_as_if_nothing_had_been(make, tmp_path):
    whole, first = make(), make()
    pieces = _random_pieces()
    for piece in pieces:
        whole.update("a/b:0", piece)
        whole.update("ö", piece[:, :1])
    for piece in pieces[:3]:
        first.update("a/b:0", piece)
        first.update("ö", piece[:, :1])
    np.savez(tmp_path / "s.npz", **first.state())
    with np.load(tmp_path / "s.npz", allow_pickle=False) as file:
        second = restore(dict(file))
    assert type(second) is type(first)
    for piece in pieces[3:]:
        second.update("a/b:0", piece)
        second.update("ö", piece[:, :1])
    expected, found = whole.state(), second.state()
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.parametrize("broken", [{}, {"names": np.zeros(3, np.uint8)}, {"names": np.frombuffer(b'["a"]', np.uint8)}])
def test_what_is_no_state_is_refused(broken):
    with pytest.raises(BadInput, match="no calibration statistics"):
        restore(broken)


@pytest.mark.parametrize("most", [100, 1000, 4096])
def test_over_as_many_samples_as_runs_are_left_out_each_position_is_counted_once(most):
    values = np.random.default_rng(1).standard_normal(20_000).astype(np.float32)
    thin, whole = Histogram(most=most), Histogram()
    step = -(-values.size // most)
    for _ in range(step):
        thin.update("t", values)
    whole.update("t", values)
    np.testing.assert_array_equal(thin.distribution("t").counts, whole.distribution("t").counts)
    assert thin.extents == whole.extents


def test_of_the_first_arrays_more_is_counted():
    values = np.random.default_rng(1).standard_normal(1 << 16).astype(np.float32)
    observer, counted = Histogram(most=1 << 10, dense=3), []
    for _ in range(5):
        before = sum(counted)
        observer.update("t", values)
        counted.append(int(observer.distribution("t").counts.sum()) - before)
    assert counted == [4096, 4096, 4096, 1024, 1024]


def test_what_waits_to_be_counted_is_not_lost_when_the_window_moves():
    """Oracle: numpy's histogram on the very bins."""
    rng = np.random.default_rng(4)
    arrays = [(rng.standard_normal(700) * scale).astype(np.float32) for scale in (1e-3, 5, 0.1, 300, 2, 1e5)]
    observer = Histogram()
    for array in arrays:
        observer.update("t", array)
    found = observer.distribution("t")
    expected, _ = np.histogram(np.concatenate(arrays).astype(np.float64), found.edges)
    assert found.counts.sum() == 700 * 6
    assert np.abs(found.counts - expected).sum() <= 2


def test_extremes_are_those_of_all_values_though_few_are_counted():
    values = np.zeros(100_000, np.float32)
    values[[70_777, 75_555]] = -3, 9
    observer = Histogram(most=1000)
    observer.update("t", values)
    assert observer.extents == {"t": (-3, 9)}
    assert observer.distribution("t").counts.sum() == 15 * 64 + 100_000 % 6400


def test_a_thinned_percentile_is_near_that_of_all_values():
    """Neighbours resemble each other, as in a feature map; oracle: numpy over all values."""
    rng = np.random.default_rng(2)
    thin, seen = Histogram(most=1 << 12), []
    for _ in range(40):
        rough = rng.standard_normal((8, 8, 8))
        smooth = np.repeat(np.repeat(rough, 8, 1), 8, 2) + 0.3 * rng.standard_normal((8, 64, 64))
        seen.append(smooth.astype(np.float32))
        thin.update("t", seen[-1])
    values = np.concatenate([s.ravel() for s in seen])
    expected = _percentiles(values, 99.9)
    np.testing.assert_allclose(percentile(thin, 99.9)["t"], expected, rtol=0.08)


def test_a_known_low_saves_reading_and_changes_nothing():
    values = np.maximum(np.random.default_rng(3).standard_normal(1000), 0).astype(np.float32)
    plain, told = Histogram(), Histogram()
    plain.update("t", values)
    told.update("t", values, low=0.0)
    assert plain.extents == told.extents
    np.testing.assert_array_equal(plain.state()["counts"], told.state()["counts"])
    with pytest.raises(CalibrationError, match="1 NaN"):
        told.update("t", np.array([1, np.nan], np.float32), low=0.0)


def test_channel_means_are_numpys(tmp_path):
    means, again = ChannelMeans(), ChannelMeans()
    pieces = _random_pieces(4)
    for piece in pieces:
        means.update("conv", piece, 1)
        means.update("gemm", piece.reshape(-1, 50), -1)
    np.savez(tmp_path / "m.npz", **means.state())
    with np.load(tmp_path / "m.npz") as file:
        again.load(dict(file))
    stacked = np.concatenate(pieces).astype(np.float64)
    for found in (means.means, again.means):
        np.testing.assert_allclose(found["conv"], stacked.mean((0, 2, 3)), atol=1e-5)
        np.testing.assert_allclose(found["gemm"], stacked.mean((0, 1, 2)), atol=1e-5)
