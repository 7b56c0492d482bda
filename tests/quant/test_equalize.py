"""Folding, equalization, absorption: the function stays, the ranges change.

Oracles: ONNX Runtime's float outputs before and after; ``torch.nn.utils.fusion``; the paper's closed form for one pair.
"""

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from qnb.quant.equalize import absorb_biases, clip_inputs, equalize
from qnb.quant.folding import fold_batch_norms
from qnb.quant.qdq import encode, insert_qdq
from tests import models

from ._nets import model, ranges, run, samples, sqnr
from ._nets import weights as seeded


def exported(module, *shapes):
    """Export as it is: no folding, no simplification."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the old exporter, which is the one that keeps batch norms
        torch.onnx.export(
            module,
            tuple(torch.zeros(shape) for shape in shapes),
            file,
            input_names=[f"x{i}" for i in range(len(shapes))],
            dynamo=False,
            opset_version=20,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    net = onnx.load_from_string(file.getvalue())
    return onnx.shape_inference.infer_shapes(net)


def values(net, name):
    return next(numpy_helper.to_array(i) for i in net.graph.initializer if i.name == name)


def close(before, after, inputs, tolerance=1e-4):
    for one, other in zip(run(before, inputs), run(after, inputs), strict=True):
        for name, value in one.items():
            assert np.abs(other[name] - value).max() <= tolerance * np.abs(value).max()


# --- batch norms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1, bias=False),
        nn.Conv2d(4, 8, 3, groups=2),
        nn.ConvTranspose2d(4, 6, 3, stride=2),
        nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False),
    ],
    ids=lambda layer: f"{type(layer).__name__}-{layer.groups}",
)
def test_batch_norms_are_folded_as_torch_fuses_them(layer):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(layer.out_channels)
    for values_ in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(values_, 0.5, 2.0)
    module = nn.Sequential(layer, norm, nn.ReLU()).eval()
    net = exported(module, (1, 4, 9, 9))
    assert "BatchNormalization" in {n.op_type for n in net.graph.node}
    folded, rows = fold_batch_norms(net)
    assert "BatchNormalization" not in {n.op_type for n in folded.graph.node}
    assert rows[0]["channels"] == layer.out_channels
    onnx.checker.check_model(folded, full_check=True)
    transpose = isinstance(layer, nn.ConvTranspose2d)
    if not (transpose and layer.groups > 1):  # torch's own fusion does not take groups there
        fused = nn.utils.fuse_conv_bn_eval(layer.eval(), norm, transpose=transpose)
        conv = next(n for n in folded.graph.node if n.op_type.startswith("Conv"))
        np.testing.assert_allclose(values(folded, conv.input[1]), fused.weight.detach(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(values(folded, conv.input[2]), fused.bias.detach(), rtol=1e-4, atol=1e-5)
    x = np.random.default_rng(0).standard_normal((1, 4, 9, 9)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.tensor(x)).numpy()
    np.testing.assert_allclose(next(iter(run(folded, [{"x0": x}])[0].values())), expected, rtol=1e-4, atol=1e-4)


def test_a_batch_norm_behind_gemm_is_folded():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(6)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    nn.init.uniform_(norm.running_mean, 0.5, 2.0)
    net = exported(nn.Sequential(nn.Linear(5, 6), norm).eval(), (1, 5))
    folded, rows = fold_batch_norms(net)
    assert [n.op_type for n in folded.graph.node] == ["Gemm"]
    assert len(rows) == 1
    close(net, folded, samples(net))


def _with_norm(extra, outputs):
    w = seeded()
    norm = ("BatchNormalization", ["c", "g", "e", "m", "v"], ["n"], {})
    four = {name: np.abs(w(4)) + 0.5 for name in "gemv"}
    return model(
        [("Conv", ["x", "w"], ["c"], {}), norm, *extra], {"x": [1, 3, 5, 5]}, outputs, {"w": w(4, 3, 1, 1), **four}
    )


@pytest.mark.parametrize(
    "net",
    [
        _with_norm([("Add", ["c", "n"], ["y"], {})], {"y": [1, 4, 5, 5]}),
        _with_norm([], {"n": [1, 4, 5, 5], "c": [1, 4, 5, 5]}),
    ],
    ids=["read twice", "an output"],
)
def test_what_another_reads_is_not_folded(net):
    folded, rows = fold_batch_norms(net)
    assert not rows
    assert [n.op_type for n in folded.graph.node] == [n.op_type for n in net.graph.node]


# --- equalization ------------------------------------------------------------------------------------------------------


def test_one_pair_follows_the_papers_equations():
    w = seeded(3)
    net = model(
        [
            ("Conv", ["x", "w1", "b1"], ["c"], {}),
            ("Relu", ["c"], ["r"], {}),
            ("Conv", ["r", "w2"], ["y"], {}),
        ],
        {"x": [1, 3, 5, 5]},
        {"y": [1, 6, 5, 5]},
        {"w1": w(8, 3, 1, 1), "b1": w(8), "w2": w(6, 8, 1, 1)},
    )
    made, rows = equalize(net)
    first, second = values(net, "w1"), values(net, "w2")
    r1, r2 = np.abs(first).max((1, 2, 3)), np.abs(second).max((0, 2, 3))
    s = np.sqrt(r1 * r2) / r2
    np.testing.assert_allclose(values(made, "w1"), first / s[:, None, None, None], rtol=1e-5)
    np.testing.assert_allclose(values(made, "b1"), values(net, "b1") / s, rtol=1e-5)
    np.testing.assert_allclose(values(made, "w2"), second * s[None, :, None, None], rtol=1e-5)
    assert rows[0]["spread_before"] == pytest.approx(r1.max() / r1.min(), rel=1e-5)
    close(net, made, samples(net))


def _chain(*between, channels=8, positions=1, out=5):
    """Conv, `between` from c to r, Gemm over all that is left; the Conv's channels differ a thousandfold."""
    w = seeded(4)
    spread = np.logspace(-1.5, 1.5, channels, dtype=np.float32)[:, None, None, None]
    return model(
        [("Conv", ["x", "w1", "b1"], ["c"], {"pads": [1, 1, 1, 1]}), *between, ("Gemm", ["r", "w2", "b2"], ["y"], {})],
        {"x": [1, 3, 8, 8]},
        {"y": [1, out]},
        {
            "w1": w(channels, 3, 3, 3) * spread, "b1": w(channels), "w2": w(channels * positions, out), "b2": w(out),
            "slope": np.abs(w(channels)).reshape(-1, 1, 1), "zero": np.float32(0), "six": np.float32(6),
            "axes": np.array([2, 3]), "rows": np.array([1, -1]), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        },
        opset=18,
    )  # fmt: skip


FLAT = ("Flatten", ["p"], ["r"], {})
PASSED = {
    "pooled": _chain(("Relu", ["c"], ["q"], {}), ("GlobalAveragePool", ["q"], ["p"], {}), FLAT),
    "prelu": _chain(("PRelu", ["c", "slope"], ["p"], {}), FLAT, positions=64),
    "flattened": _chain(
        ("MaxPool", ["c"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}), FLAT, positions=16
    ),
    "reshaped": _chain(
        ("AveragePool", ["c"], ["p"], {"kernel_shape": [4, 4], "strides": [4, 4]}),
        ("Reshape", ["p", "rows"], ["r"], {}),
        positions=4,
    ),
    "mean": _chain(("LeakyRelu", ["c"], ["p"], {}), ("ReduceMean", ["p", "axes"], ["r"], {"keepdims": 0})),
    "padded": _chain(("Pad", ["c", "pads"], ["p"], {}), FLAT, positions=100),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSED)
def test_scales_pass_ops_that_commute_with_them(name):
    net = PASSED[name]
    made, rows = equalize(net)
    assert rows[0]["spread_before"] > 100
    assert rows[0]["spread_after"] < rows[0]["spread_before"] / 5
    close(net, made, samples(net))


BARRED = {
    "sigmoid": _chain(("Sigmoid", ["c"], ["p"], {}), FLAT, positions=64),
    "softmax": _chain(("Softmax", ["c"], ["p"], {"axis": 1}), FLAT, positions=64),
    "clip": _chain(("Clip", ["c", "zero", "six"], ["p"], {}), FLAT, positions=64),
    "transposed": _chain(("Transpose", ["c"], ["p"], {"perm": [0, 2, 3, 1]}), FLAT, positions=64),
    "another reader": _chain(
        ("GlobalAveragePool", ["c"], ["q"], {}), ("Exp", ["q"], ["e"], {}), ("Mul", ["q", "e"], ["p"], {}), FLAT
    ),
}


@pytest.mark.parametrize("name", BARRED)
def test_scales_stop_at_ops_that_do_not(name):
    net = BARRED[name]
    made, rows = equalize(net)
    assert not rows
    close(net, made, samples(net), 0)


def test_a_clip_that_never_clips_becomes_relu():
    net = BARRED["clip"]
    assert clip_inputs(net) == ["c"]
    quiet = [{"x": sample["x"] * 1e-3} for sample in samples(net)]
    highest = max(float(out["c"].max()) for out in run(_exposed(net, "c"), quiet))
    assert not equalize(net, {"c": (0.0, 6.5)})[1]
    made, rows = equalize(net, {"c": (-1.0, 6.0)})
    assert highest < 6
    assert rows
    assert "Clip" not in {n.op_type for n in made.graph.node}
    onnx.checker.check_model(made, full_check=True)
    close(net, made, quiet)


def test_clips_are_replaced_in_any_case_when_told_so():
    made, rows = equalize(BARRED["clip"], replace_clips=True)
    assert rows
    assert "Clip" not in {n.op_type for n in made.graph.node}


def _exposed(net, *names):
    copy = onnx.ModelProto()
    copy.CopyFrom(net)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


def test_a_residual_addition_is_scaled_on_both_sides():
    w = seeded(6)
    spread = np.logspace(-1, 1, 8, dtype=np.float32)[:, None, None, None]
    net = model(
        [
            ("Conv", ["x", "w0"], ["a"], {}),
            ("Conv", ["a", "w1", "b1"], ["c1"], {}),
            ("Relu", ["c1"], ["r1"], {}),
            ("Conv", ["r1", "w2", "b2"], ["b"], {}),
            ("Add", ["a", "b"], ["s"], {}),
            ("Conv", ["s", "w3"], ["y"], {}),
        ],
        {"x": [1, 3, 6, 6]},
        {"y": [1, 4, 6, 6]},
        {
            "w0": w(8, 3, 1, 1) * spread, "w1": w(8, 8, 1, 1), "b1": w(8), "w2": w(8, 8, 1, 1) * spread, "b2": w(8),
            "w3": w(4, 8, 1, 1),
        },
    )  # fmt: skip
    made, rows = equalize(net)
    joined = next(row for row in rows if ", " in row["layer"])
    assert {"Conv_0, Conv_3", "Conv_1, Conv_5"} == {joined["layer"], joined["into"]}
    assert joined["spread_after"] < joined["spread_before"] / 5
    close(net, made, samples(net))


@pytest.mark.parametrize("name", ["digits_cnn", "inverted_residuals", "resnet_block", "vit_block", "two_in_two_out"])
def test_known_nets_keep_their_function(name):
    net = exported(models.BUILDERS[name](), *models.INPUTS[name].values())
    inputs = samples(net, 3)
    folded, _ = fold_batch_norms(net)
    made, _ = equalize(folded)
    onnx.checker.check_model(made, full_check=True)
    close(net, made, inputs)


def test_a_dead_channel_is_left_alone():
    net = _chain(("GlobalAveragePool", ["c"], ["p"], {}), FLAT)
    dead = values(net, "w1").copy()
    dead[2] = 0
    next(i for i in net.graph.initializer if i.name == "w1").CopyFrom(numpy_helper.from_array(dead, "w1"))
    made, rows = equalize(net)
    assert rows
    assert np.isfinite(values(made, "b1")).all()
    assert values(made, "b1")[2] == values(net, "b1")[2]
    close(net, made, samples(net))


def test_weights_that_two_layers_share_are_left_alone():
    w = seeded(7)
    net = model(
        [
            ("Conv", ["x", "w"], ["a"], {}),
            ("Relu", ["a"], ["b"], {}),
            ("Conv", ["b", "w"], ["y"], {}),
        ],
        {"x": [1, 4, 5, 5]},
        {"y": [1, 4, 5, 5]},
        {"w": w(4, 4, 1, 1)},
    )
    assert not equalize(net)[1]


def test_it_mends_what_naive_quantization_breaks():
    net = PASSED["pooled"]
    inputs = samples(net, 16)
    reference = run(net, inputs)

    def quantized(float_net):
        encodings = encode(float_net, ranges(float_net, inputs), per_channel=False)
        return sqnr(reference, run(insert_qdq(float_net, encodings.activations, encodings.weights), inputs))

    assert quantized(equalize(net)[0]) > quantized(net) + 4


# --- absorption ----------------------------------------------------------------------------------------------------------


def _biased(pads):
    w = seeded(8)
    return model(
        [
            ("Conv", ["x", "w1", "b1"], ["c"], {}),
            ("Relu", ["c"], ["r"], {}),
            ("Conv", ["r", "w2", "b2"], ["y"], {"pads": pads}),
        ],
        {"x": [1, 3, 6, 6]},
        {"y": [1, 4, 4 + 2 * pads[0], 4 + 2 * pads[0]]},
        {
            "w1": w(6, 3, 1, 1), "b1": np.array([30, 0, 20, -5, 10, 1], np.float32), "w2": w(4, 6, 3, 3), "b2": w(4),
        },
    )  # fmt: skip


def _statistics(net, inputs):
    seen = np.concatenate([out["c"].reshape(6, -1) for out in run(_exposed(net, "c"), inputs)], axis=1)
    return {"c": (seen.mean(axis=1), seen.std(axis=1))}


def test_high_biases_move_on_and_the_function_stays():
    net = _biased([0, 0, 0, 0])
    inputs = samples(net, 4)
    statistics = _statistics(net, inputs)
    made, rows = absorb_biases(net, statistics)
    expected = np.maximum(0, statistics["c"][0] - 3 * statistics["c"][1])
    assert 3 <= rows[0]["channels"] == (expected > 0).sum() < 6
    assert rows[0]["largest"] > 15
    np.testing.assert_allclose(values(net, "b1") - values(made, "b1"), expected, rtol=1e-4, atol=1e-5)
    close(net, made, inputs)


def test_a_layer_that_pads_absorbs_nothing():
    net = _biased([1, 1, 1, 1])
    made, rows = absorb_biases(net, _statistics(net, samples(net, 4)))
    assert not rows
    close(net, made, samples(net), 0)
