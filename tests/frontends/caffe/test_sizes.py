"""Output sizes and values of convolutions and pools for any parameters. Oracles: OpenCV for what it takes as Caffe does,
and Caffe's loops written out in numpy for averages, whose count OpenCV takes in its own way.
"""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qnb.errors import ExportError
from qnb.frontends.caffe import to_onnx
from tests.frontends.caffe.files import against_opencv, difference, feeds_of, inputs, layer, run

QUICK = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def pooled(x, kernel, stride, pad, average, up=True):
    """Caffe's pooling, window by window."""
    sizes = []
    for n, k, s, p in zip(x.shape[2:], kernel, stride, pad, strict=True):
        room = n + 2 * p - k
        size = (-(-room // s) if up else room // s) + 1
        if any(pad) and (size - 1) * s >= n + p:
            size -= 1
        sizes.append(size)
    out = np.empty((*x.shape[:2], *sizes))
    for i, j in itertools.product(*map(range, sizes)):
        starts = [place * s - p for place, s, p in zip((i, j), stride, pad, strict=True)]
        ends = [min(b + k, n + p) for b, k, n, p in zip(starts, kernel, x.shape[2:], pad, strict=True)]
        count = (ends[0] - starts[0]) * (ends[1] - starts[1])
        window = x[:, :, max(0, starts[0]) : ends[0], max(0, starts[1]) : ends[1]]
        out[:, :, i, j] = window.sum((2, 3)) / count if average else window.max((2, 3))
    return out


@st.composite
def pools(draw):
    size = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    kernel = tuple(draw(st.integers(1, n)) for n in size)
    stride = tuple(draw(st.integers(1, k)) for k in kernel)  # a longer one is undefined in Caffe at some sizes
    pad = tuple(draw(st.integers(0, k - 1)) for k in kernel)
    return size, kernel, stride, pad, draw(st.booleans())


@QUICK
@given(pools(), st.booleans())
def test_pools_are_caffes(parameters, average):
    size, kernel, stride, pad, up = parameters
    param = f"pooling_param {{ pool: {'AVE' if average else 'MAX'} round_mode: {'CEIL' if up else 'FLOOR'} " + " ".join(
        f"{what}_{axis}: {value}"
        for what, pair in (("kernel", kernel), ("stride", stride), ("pad", pad))
        for axis, value in zip("hw", pair, strict=True)
    )
    text = inputs(data=(1, 2, *size)) + layer("Pooling", "top", "data", param + " }")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.prototxt"
        path.write_text(text)
        model = to_onnx(path).model
    feeds = feeds_of(model)
    expected = pooled(feeds["data"], kernel, stride, pad, average, up)
    assert difference({"top": expected}, run(model, feeds)) < 1e-6


@st.composite
def convolutions(draw):
    size = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    group = draw(st.sampled_from([1, 2, 3]))
    channels, outputs = group * draw(st.integers(1, 3)), group * draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.integers(1, 2))
    reach = [dilation * (k - 1) + 1 for k in kernel]
    pad = tuple(
        draw(st.integers(max(0, -(-(r - n) // 2)), max(0, -(-(r - n) // 2)) + 2))
        for r, n in zip(reach, size, strict=True)
    )
    return size, channels, outputs, group, kernel, stride, pad, dilation, draw(st.booleans())


@QUICK
@given(convolutions())
def test_convolutions_are_opencvs(parameters):
    size, channels, outputs, group, kernel, stride, pad, dilation, bias = parameters
    param = f"num_output: {outputs} group: {group} dilation: {dilation} bias_term: {str(bias).lower()} " + " ".join(
        f"{what}_{axis}: {value}"
        for what, pair in (("kernel", kernel), ("stride", stride), ("pad", pad))
        for axis, value in zip("hw", pair, strict=True)
    )
    text = inputs(data=(1, channels, *size)) + layer("Convolution", "c", "data", f"convolution_param {{ {param} }}")
    with tempfile.TemporaryDirectory() as folder:
        error, _ = against_opencv(Path(folder), text)
    assert error < 2e-6


@pytest.mark.parametrize(
    ("kind", "param", "said"),
    [
        ("Pooling", "pooling_param { kernel_size: 1 stride: 3 }", "last window starts behind the image"),
        ("Pooling", "pooling_param { kernel_size: 9 }", "larger than the image"),
        ("Pooling", "pooling_param { kernel_size: 2 pad: 2 }", "pad"),
        ("Pooling", "pooling_param { }", "kernel"),
        ("Pooling", "pooling_param { kernel_size: 2 stride: 0 }", "stride"),
        ("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }", "STOCHASTIC"),
        ("Pooling", "pooling_param { global_pooling: true stride: 2 }", "global_pooling"),
        ("Convolution", "convolution_param { num_output: 4 kernel_size: 9 }", "shape 1x4x-3x-3"),
        ("Convolution", "convolution_param { num_output: 4 }", "kernel"),
        ("Convolution", "convolution_param { num_output: 4 kernel_size: 3 group: 5 }", "group"),
        ("Convolution", "convolution_param { kernel_size: 3 }", "0 out"),
        ("Convolution", "convolution_param { num_output: 4 kernel_size: [1,2,3] }", "3 values"),
        ("Convolution", "convolution_param { num_output: 4 kernel_size: 1 axis: 2 }", "axis 2"),
    ],
)
def test_what_does_not_fit_is_refused(kind, param, said, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(inputs(data=(1, 4, 5, 5)) + layer(kind, "top", "data", param))
    with pytest.raises(ExportError, match=said) as caught:
        to_onnx(path)
    assert "layer 'top'" in caught.value.what
    assert "line 3" in caught.value.what
    assert caught.value.hint
