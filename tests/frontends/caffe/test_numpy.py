"""What OpenCV has no layer for, or computes in its own way. Oracle: Caffe's formulas, in numpy, on random data."""

import numpy as np
import pytest

from qnb.frontends.caffe import to_onnx
from tests.frontends.caffe.files import difference, feeds_of, inputs, layer, random_weights, run, write_weights

SHAPE = (2, 6, 5, 7)


def computed(folder, text):
    """Give inputs, weights by layer, and what the model made of `text` computes."""
    network = folder / "net.prototxt"
    network.write_text(text)
    weights = random_weights(network)
    model = to_onnx(network, write_weights(folder / "net.caffemodel", weights)).model
    feeds = feeds_of(model)
    return feeds, weights, run(model, feeds)


def top_k(x, k):
    order = np.argsort(-x, axis=-1, kind="stable")[..., :k]
    return order.astype(np.float32), np.take_along_axis(x, order, -1)


def within(x, size=3):
    """The mean of squares in a window, which counts the padding."""
    padded = np.pad(x**2, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sum(padded[:, :, i : i + x.shape[2], j : j + x.shape[3]] for i in range(size) for j in range(size)) / size**2


ONE = {
    "exp": ("Exp", "exp_param { base: 2 scale: 0.5 shift: 1 }", lambda x: 2 ** (1 + 0.5 * x)),
    "exp e": ("Exp", "", np.exp),
    "swish": ("Swish", "swish_param { beta: 2 }", lambda x: x / (1 + np.exp(-2 * x))),
    "clip": ("Clip", "clip_param { min: -0.5 max: 0.25 }", lambda x: x.clip(-0.5, 0.25)),
    "threshold": ("Threshold", "threshold_param { threshold: 0.3 }", lambda x: (x > 0.3).astype(np.float32)),
    "power 0": ("Power", "power_param { power: 0 }", np.ones_like),
    "scale 0": ("Power", "power_param { power: 2 scale: 0 shift: 3 }", lambda x: np.full_like(x, 9)),
    "lrn k": (
        "LRN",
        "lrn_param { local_size: 3 alpha: 0.3 beta: 0.75 k: 2 }",
        lambda x: (
            x / (2 + 0.1 * sum(np.pad(x**2, ((0, 0), (1, 1), (0, 0), (0, 0)))[:, i : i + 6] for i in range(3))) ** 0.75
        ),
    ),
    "lrn of defaults": (
        "LRN",
        "",
        lambda x: (
            x / (1 + 0.2 * sum(np.pad(x**2, ((0, 0), (2, 2), (0, 0), (0, 0)))[:, i : i + 6] for i in range(5))) ** 0.75
        ),
    ),
    "lrn within": (
        "LRN",
        "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.5 beta: 0.75 }",
        lambda x: x * (1 + 0.5 * within(x)) ** -0.75,
    ),
    "reduce": ("Reduction", "reduction_param { axis: 1 coeff: 2 }", lambda x: 2 * x.sum((1, 2, 3))),
    "reduce abs": ("Reduction", "reduction_param { operation: ASUM axis: 2 }", lambda x: abs(x).sum((2, 3))),
    "reduce squares": ("Reduction", "reduction_param { operation: SUMSQ axis: -1 }", lambda x: (x**2).sum(3)),
    "reduce mean": ("Reduction", "reduction_param { operation: MEAN axis: 1 }", lambda x: x.mean((1, 2, 3))),
    "argmax axis": ("ArgMax", "argmax_param { axis: 1 }", lambda x: x.argmax(1)[:, None].astype(np.float32)),
    "argmax": ("ArgMax", "", lambda x: x.reshape(2, 1, -1).argmax(2)[:, :, None].astype(np.float32)),
    "argmax 3": ("ArgMax", "argmax_param { top_k: 3 }", lambda x: top_k(x.reshape(2, 1, -1), 3)[0]),
    "argmax values": (
        "ArgMax",
        "argmax_param { top_k: 2 out_max_val: true }",
        lambda x: np.concatenate(top_k(x.reshape(2, 1, -1), 2), 1),
    ),
    "argmax value of axis": (
        "ArgMax",
        "argmax_param { top_k: 2 out_max_val: true axis: -1 }",
        lambda x: top_k(x, 2)[1],
    ),
    "tile": ("Tile", "tile_param { axis: 2 tiles: 3 }", lambda x: np.tile(x, (1, 1, 3, 1))),
    "upsample": ("Upsample", "upsample_param { scale: 2 }", lambda x: x.repeat(2, 2).repeat(2, 3)),
    "reshape keeps": ("Reshape", "reshape_param { shape { dim: 1 } axis: 1 num_axes: 0 }", lambda x: x[:, None]),
    "reshape behind": ("Reshape", "reshape_param { shape { dim: 1 } axis: -1 }", lambda x: x[..., None]),
}


@pytest.mark.parametrize("name", ONE)
def test_layers_with_one_input(name, tmp_path):
    kind, param, formula = ONE[name]
    feeds, _, found = computed(tmp_path, inputs(data=SHAPE) + layer(kind, "top", "data", param))
    assert difference({"top": np.asarray(formula(feeds["data"].astype(np.float64)))}, found) < 3e-6


@pytest.mark.parametrize(("param", "base"), [("", np.e), ("log_param { base: 10 scale: 2 shift: 1 }", 10)])
def test_log(param, base, tmp_path):
    text = inputs(data=SHAPE) + layer("AbsVal", "abs", "data") + layer("Log", "top", "abs", param)
    feeds, _, found = computed(tmp_path, text)
    x = abs(feeds["data"].astype(np.float64))
    assert difference({"top": np.log(2 * x + 1 if param else x) / np.log(base)}, found) < 3e-6


def test_inner_product_with_transposed_weights(tmp_path):
    param = "inner_product_param { num_output: 4 transpose: true axis: -2 }"
    feeds, weights, found = computed(tmp_path, inputs(data=SHAPE) + layer("InnerProduct", "top", "data", param))
    matrix, bias = weights["top"]
    assert matrix.shape == (35, 4)
    assert difference({"top": feeds["data"].reshape(2, 6, 35) @ matrix + bias}, found) < 3e-6


@pytest.mark.parametrize(
    ("kind", "param", "shape", "view"),
    [
        ("Scale", "scale_param { axis: 1 num_axes: 2 bias_term: true }", (6, 5), (6, 5, 1)),
        ("Scale", "scale_param { axis: 2 num_axes: -1 }", (5, 7), (5, 7)),
        ("Scale", "scale_param { num_axes: 0 }", (), ()),
        ("Bias", "", (6,), (6, 1, 1)),
        ("Bias", "bias_param { axis: -1 }", (7,), (7,)),
    ],
)
def test_trained_scales_and_biases(kind, param, shape, view, tmp_path):
    feeds, weights, found = computed(tmp_path, inputs(data=SHAPE) + layer(kind, "top", "data", param))
    first, *rest = (value.reshape(view) for value in weights["top"])
    assert weights["top"][0].shape == shape
    expected = feeds["data"] + first if kind == "Bias" else feeds["data"] * first + (rest[0] if rest else 0)
    assert difference({"top": expected}, found) < 1e-6


@pytest.mark.parametrize("kind", ["Scale", "Bias"])
def test_scales_and_biases_of_a_second_input(kind, tmp_path):
    text = inputs(a=SHAPE, b=(6, 5)) + layer(kind, "top", ["a", "b"], f"{kind.lower()}_param {{ axis: 1 }}")
    feeds, _, found = computed(tmp_path, text)
    other = feeds["b"][..., None]
    assert difference({"top": feeds["a"] * other if kind == "Scale" else feeds["a"] + other}, found) < 1e-6


def test_axpy(tmp_path):
    text = inputs(a=(2, 6, 1, 1), x=SHAPE, y=SHAPE) + layer("Axpy", "top", ["a", "x", "y"])
    feeds, _, found = computed(tmp_path, text)
    assert difference({"top": feeds["a"] * feeds["x"] + feeds["y"]}, found) < 1e-6


def test_one_slope_for_all_channels(tmp_path):
    text = inputs(data=SHAPE) + layer("PReLU", "top", "data", "prelu_param { channel_shared: true }")
    feeds, weights, found = computed(tmp_path, text)
    x = feeds["data"]
    assert difference({"top": np.where(x > 0, x, x * weights["top"][0])}, found) < 1e-6


def test_a_convolution_is_applied_to_each_of_its_inputs(tmp_path):
    text = inputs(a=SHAPE, b=SHAPE) + layer(
        "Convolution", "c", ["a", "b"], "convolution_param { num_output: 3 kernel_size: 1 }", ["x", "y"]
    )
    feeds, weights, found = computed(tmp_path, text)
    kernel, bias = weights["c"]
    expected = {
        top: np.einsum("nchw,oc->nohw", feeds[bottom], kernel[:, :, 0, 0]) + bias[:, None, None]
        for top, bottom in (("x", "a"), ("y", "b"))
    }
    assert difference(expected, found) < 3e-6


def test_batch_norm_alone_before_and_behind_other_layers(tmp_path):
    # before anything, behind a deconvolution with groups, behind an inner product; and one whose input is read twice
    text = inputs(data=(1, 6, 5, 5))
    text += layer("BatchNorm", "bn0", "data") + layer("Bias", "bias0", "bn0")
    text += layer(
        "Deconvolution", "up", "bias0", "convolution_param { num_output: 4 group: 2 kernel_size: 2 stride: 2 }"
    )
    text += layer("BatchNorm", "bn1", "up") + layer("Scale", "scale1", "bn1") + layer("TanH", "tanh", "up")
    text += layer("Deconvolution", "up2", "bias0", "convolution_param { num_output: 4 group: 2 kernel_size: 1 }")
    text += layer("BatchNorm", "bn2", "up2", tops="up2") + layer(
        "Scale", "s2", "up2", "scale_param { bias_term: true }"
    )
    text += layer("InnerProduct", "fc", "s2", "inner_product_param { num_output: 4 bias_term: false }")
    text += layer("BatchNorm", "bn3", "fc")
    feeds, w, found = computed(tmp_path, text)

    def bn(x, name):
        mean, variance, factor = w[name]
        shape = (-1, *(1,) * (x.ndim - 2))
        return (x - (mean / factor).reshape(shape)) / np.sqrt((variance / factor).reshape(shape) + 1e-5)

    def grouped(x, name):
        kernel, bias = w[name]
        parts = [np.einsum("nchw,coyx->nohywx", x[:, 3 * g : 3 * g + 3], kernel[3 * g : 3 * g + 3]) for g in range(2)]
        joined = np.concatenate(parts, 1)
        n, o, h, ky, wide, kx = joined.shape
        return joined.reshape(n, o, h * ky, wide * kx) + bias[:, None, None]

    x = bn(feeds["data"].astype(np.float64), "bn0") + w["bias0"][0][:, None, None]
    up = grouped(x, "up")
    s2 = bn(grouped(x, "up2"), "bn2") * w["s2"][0][:, None, None] + w["s2"][1][:, None, None]
    expected = {
        "scale1": bn(up, "bn1") * w["scale1"][0][:, None, None],
        "tanh": np.tanh(up),
        "bn3": bn(s2.reshape(1, -1) @ w["fc"][0].T.astype(np.float64), "bn3"),
    }
    assert difference(expected, found) < 1e-5
