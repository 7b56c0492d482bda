"""Oracles: torch.nn.functional.cosine_similarity, the definition of SQNR worked by hand, properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qnb.errors import BadInput
from qnb.graph.compare import agreement


def test_figures_of_a_case_worked_by_hand():
    # Σ r² = 25, Σ (r - v)² = 0.25: 10 log10(100) = 20 dB
    figures = agreement(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
    assert figures["max_abs_error"] == 0.5
    assert figures["sqnr_db"] == pytest.approx(20.0, abs=1e-12)
    assert figures["cosine"] == pytest.approx((9 + 18) / (5 * math.hypot(3, 4.5)))
    assert math.isnan(figures["top1_agreement"])


def test_cosine_is_torchs():
    rng = np.random.default_rng(0)
    r, v = rng.standard_normal((2, 3, 16, 16))
    expected = torch.nn.functional.cosine_similarity(torch.tensor(r).flatten(), torch.tensor(v).flatten(), dim=0)
    assert agreement(r, v)["cosine"] == pytest.approx(expected.item(), abs=1e-12)


def test_sqnr_of_a_uniform_quantizer_gains_six_db_a_bit():
    # Bennett 1948: the noise of a uniform quantizer is step² / 12, so a bit more is 20 log10(2) = 6.02 dB more
    x = np.random.default_rng(0).uniform(-1, 1, 200_000)
    sqnr = [agreement(x, (np.floor(x * 2 ** (b - 1)) + 0.5) / 2 ** (b - 1))["sqnr_db"] for b in (6, 7, 8)]
    assert np.diff(sqnr) == pytest.approx(20 * math.log10(2), abs=0.05)
    assert sqnr[2] == pytest.approx(10 * math.log10((1 / 3) / ((2**-7) ** 2 / 12)), abs=0.05)


def test_equal_arrays_are_exact():
    x = np.random.default_rng(0).standard_normal((4, 10)).astype(np.float32)
    assert agreement(x, x.copy()) == {"max_abs_error": 0.0, "sqnr_db": math.inf, "cosine": 1.0, "top1_agreement": 1.0}


def test_a_zero_reference():
    zero, one = np.zeros(3), np.ones(3)
    assert agreement(zero, zero)["sqnr_db"] == math.inf
    assert agreement(zero, zero)["cosine"] == 1.0
    assert agreement(zero, one)["sqnr_db"] == -math.inf
    assert agreement(zero, one)["cosine"] == 0.0
    assert agreement(one, zero)["sqnr_db"] == 0.0
    assert agreement(one, zero)["cosine"] == 0.0


def test_float64_is_used_throughout():
    # in float32 the sum of squares overflows, and 1e-4 beside 1e4 is lost
    r = np.full(1000, 3e19, np.float32)
    assert agreement(r, r * np.float32(2))["sqnr_db"] == pytest.approx(0, abs=1e-5)
    assert agreement(np.array([16777216], np.int32), np.array([16777217], np.int32))["max_abs_error"] == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_value_never_looks_good(bad):
    r = np.random.default_rng(0).standard_normal((2, 5))
    v = r.copy()
    v[0, r[0].argmax()] = bad  # numpy's argmax would take a NaN for the largest
    figures = agreement(r, v)
    assert not figures["max_abs_error"] < 1e9
    assert not figures["sqnr_db"] > -math.inf
    assert not figures["cosine"] > 0.5
    if np.isnan(bad):
        assert figures["top1_agreement"] == 0.5


def test_top1_counts_samples():
    r = np.array([[1, 2], [2, 1], [0, 5], [7, 0]])
    v = np.array([[1, 3], [1, 2], [0, 1], [9, 0]])
    assert agreement(r, v)["top1_agreement"] == 0.75
    assert math.isnan(agreement(r[:, :1], v[:, :1])["top1_agreement"])
    assert math.isnan(agreement(r[None], v[None])["top1_agreement"])


@pytest.mark.parametrize(
    ("reference", "value", "said"),
    [
        (np.ones((2, 3)), np.ones((3, 2)), r"\(3, 2\).*\(2, 3\)"),
        (np.ones(0), np.ones(0), "empty"),
        (np.ones(2, complex), np.ones(2), "complex"),
        (np.array(["a"]), np.array(["b"]), "dtype"),
    ],
)
def test_what_does_not_fit_is_refused(reference, value, said):
    with pytest.raises(BadInput, match=said) as caught:
        agreement(reference, value)
    assert caught.value.hint


finite = st.floats(-1e6, 1e6, width=32)


@given(arrays(np.float32, 12, elements=finite), arrays(np.float32, 12, elements=finite))
def test_bounds_and_symmetry(r, v):
    figures, mirrored = agreement(r, v), agreement(v, r)
    assert -1 - 1e-9 <= figures["cosine"] <= 1 + 1e-9
    assert figures["cosine"] == pytest.approx(mirrored["cosine"])
    assert figures["max_abs_error"] == mirrored["max_abs_error"] == np.max(np.abs(r.astype(float) - v))
    assert (figures["sqnr_db"] == math.inf) == np.array_equal(r, v)
