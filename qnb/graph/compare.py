"""How well two tensors agree: the figures by which every build is judged against its reference.

Knows nothing of models or backends: two arrays in, four numbers out.
"""

from __future__ import annotations

import numpy as np

from qnb.errors import BadInput

__all__ = ["agreement"]


def agreement(reference: np.ndarray, value: np.ndarray) -> dict[str, float]:
    """Say how far `value` is from `reference`, in float64.

    Parameters
    ----------
    reference, value : numpy.ndarray
        Two tensors of one shape, of any real dtype. For `top1_agreement`, N samples by C classes.

    Returns
    -------
    dict
        ``max_abs_error``
            The largest of abs(r - v), in the tensor's own unit.
        ``sqnr_db``
            Signal to quantization noise ratio, 10 log10(Σ r² / Σ (r - v)²), in dB (Gray and Neuhoff, *Quantization*,
            IEEE Transactions on Information Theory, 1998). +inf when equal; -inf when only the reference is all zero.
        ``cosine``
            Σ r v / (‖r‖ ‖v‖); 1 when both are all zero, 0 when only one is.
        ``top1_agreement``
            Share of the N samples whose largest class is the same (the first one of a tie), for shape (N, C) with
            C ≥ 2; else NaN. A sample with a NaN never agrees.

        NaN in `value` gives NaN for the first three: a broken result never looks like a good one.

    Raises
    ------
    BadInput
        If the shapes differ, or an array is empty, complex or not numeric.
    """
    reference, value = np.asarray(reference), np.asarray(value)
    for array in (reference, value):
        if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
            raise BadInput(f"cannot compare values of dtype {array.dtype}", hint="pass real numbers")
    if reference.shape != value.shape:
        raise BadInput(
            f"cannot compare shape {value.shape} with the reference's {reference.shape}",
            hint="compare outputs of the same name, model and batch size",
        )
    if reference.size == 0:
        raise BadInput(f"cannot compare empty arrays (shape {reference.shape})", hint="pass at least one sample")
    r, v = reference.astype(np.float64), value.astype(np.float64)
    with np.errstate(all="ignore"):  # infinities and NaN are answers here, not accidents
        equal = np.array_equal(r, v)
        error = np.zeros(1) if equal else (r - v).ravel()
        signal, noise = float(np.dot(r.ravel(), r.ravel())), float(np.dot(error, error))
        lengths = np.sqrt(signal) * np.linalg.norm(v)
        figures = {
            "max_abs_error": float(np.max(np.abs(error))),
            "sqnr_db": float("inf") if equal else float(10 * np.log10(np.float64(signal) / noise)),
            "cosine": 1.0 if equal else float(np.dot(r.ravel(), v.ravel()) / lengths) if lengths != 0 else 0.0,
        }
    return figures | {"top1_agreement": _top1(r, v)}


def _top1(r: np.ndarray, v: np.ndarray) -> float:
    if r.ndim != 2 or r.shape[1] < 2:
        return float("nan")
    sound = ~(np.isnan(r).any(axis=1) | np.isnan(v).any(axis=1))
    return float(np.mean((r.argmax(axis=1) == v.argmax(axis=1)) & sound))
