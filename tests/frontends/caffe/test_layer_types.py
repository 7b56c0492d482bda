"""Each layer type beside OpenCV's reading of the same files (readNetFromCaffe), on random weights and inputs."""

import pytest

from tests.frontends.caffe.files import against_opencv, inputs, layer


def one(kind, param="", shape=(2, 6, 11, 13)):
    return inputs(data=shape) + layer(kind, "top", "data", param)


def conv(kind="Convolution", **sizes):
    fields = {"num_output": 8, "kernel_size": 3} | sizes
    fields = {name: value for name, value in fields.items() if value is not None}
    return one(kind, f"convolution_param {{ {' '.join(f'{k}: {v}' for k, v in fields.items())} }}")


def two(kind, param="", shape=(2, 6, 11, 13)):
    return inputs(a=shape, b=shape) + layer(kind, "top", ["a", "b"], param)


def pool(**sizes):
    return one("Pooling", f"pooling_param {{ {' '.join(f'{k}: {v}' for k, v in sizes.items())} }}")


def three(kind, param=""):
    parts = layer("ReLU", "r", "x") + layer("TanH", "t", "y") + layer("Sigmoid", "s", "z")
    return inputs(data=(2, 6, 11, 13)) + layer(kind, "parts", "data", param, ["x", "y", "z"]) + parts


NETS = {
    "conv": conv(),
    "conv without bias": conv(bias_term="false"),
    "conv stride pad": conv(stride=2, pad=1),
    "conv dilated": conv(dilation=2, pad=2),
    "conv group": conv(group=2),
    "conv depthwise": conv(group=6, num_output=6, pad=1),
    "conv depthwise times 2": conv(group=6, num_output=12, pad=1),
    "conv h w": conv(kernel_size=None, kernel_h=1, kernel_w=5, pad_h=0, pad_w=2, stride_h=2, stride_w=1),
    "conv floors": conv(kernel_size=4, stride=3),
    "deconv": conv("Deconvolution", kernel_size=4, stride=2, pad=1),
    "deconv group": conv("Deconvolution", kernel_size=4, stride=2, pad=1, num_output=6, group=6, bias_term="false"),
    "deconv group 2": conv("Deconvolution", kernel_size=3, stride=2, num_output=4, group=2),
    "depthwise type": one("ConvolutionDepthwise", "convolution_param { num_output: 6 kernel_size: 3 pad: 1 group: 6 }"),
    "max": pool(pool="MAX", kernel_size=3, stride=2),
    "max pad": pool(pool="MAX", kernel_size=3, stride=2, pad=1),
    "max even": pool(pool="MAX", kernel_size=2, stride=2),
    "max h w": pool(pool="MAX", kernel_h=3, kernel_w=2, stride_h=2, stride_w=3, pad_h=1, pad_w=0),
    "max global": pool(pool="MAX", global_pooling="true"),
    "ave": pool(pool="AVE", kernel_size=3, stride=2),
    "ave whole": pool(pool="AVE", kernel_size=4, stride=1),
    "ave global": pool(pool="AVE", global_pooling="true"),
    "inner product": one("InnerProduct", "inner_product_param { num_output: 7 }"),
    "inner product without bias": one("InnerProduct", "inner_product_param { num_output: 7 bias_term: false }"),
    "inner product axis": one("InnerProduct", "inner_product_param { num_output: 7 axis: 2 }"),
    "relu": one("ReLU"),
    "relu leaky": one("ReLU", "relu_param { negative_slope: 0.1 }"),
    "relu6": one("ReLU6"),
    "prelu": one("PReLU"),
    "elu": one("ELU"),
    "sigmoid": one("Sigmoid"),
    "tanh": one("TanH"),
    "abs": one("AbsVal"),
    "bnll": one("BNLL"),
    "power": one("Power", "power_param { power: 2 scale: 0.5 shift: 3 }"),
    "power linear": one("Power", "power_param { scale: 0.5 shift: 3 }"),
    "power 3": one("Power", "power_param { power: 3 scale: 0.1 shift: 9 }"),
    "power root": one("AbsVal") + layer("Power", "p", "top", "power_param { power: 0.5 shift: 1 }"),
    "power inverse": one("AbsVal") + layer("Power", "p", "top", "power_param { power: -1.5 shift: 2 }"),
    "lrn": one("LRN", "lrn_param { local_size: 5 alpha: 0.1 beta: 0.75 }"),
    "lrn within": one("LRN", "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.5 beta: 0.6 }"),
    "batch norm": one("BatchNorm"),
    "batch norm eps": one("BatchNorm", "batch_norm_param { eps: 0.1 }"),
    "batch norm and scale": one("BatchNorm") + layer("Scale", "s", "top", "scale_param { bias_term: true }"),
    "scale": one("Scale"),
    "scale bias": one("Scale", "scale_param { bias_term: true }"),
    "sum": two("Eltwise"),
    "sum coeff": two("Eltwise", "eltwise_param { operation: SUM coeff: 1 coeff: -1 }"),
    "sum coeff both": two("Eltwise", "eltwise_param { coeff: 0.5 coeff: 2 }"),
    "product": two("Eltwise", "eltwise_param { operation: PROD }"),
    "largest": two("Eltwise", "eltwise_param { operation: MAX }"),
    "sum of three": inputs(a=(1, 3, 4, 4), b=(1, 3, 4, 4), c=(1, 3, 4, 4)) + layer("Eltwise", "top", ["a", "b", "c"]),
    "concat": two("Concat"),
    "concat axis": two("Concat", "concat_param { axis: 2 }"),
    "concat minus": two("Concat", "concat_param { axis: -1 }"),
    "slice points": three("Slice", "slice_param { slice_point: 1 slice_point: 4 }"),
    "slice equal": three("Slice", "slice_param { axis: 1 }"),
    "slice axis": three("Slice", "slice_param { axis: 2 slice_point: 2 slice_point: 5 }"),
    "split": three("Split"),
    "flatten": one("Flatten"),
    "flatten some": one("Flatten", "flatten_param { axis: 2 end_axis: 3 }"),
    "reshape": one("Reshape", "reshape_param { shape { dim: 0 dim: 3 dim: 2 dim: -1 } }"),
    "reshape part": one("Reshape", "reshape_param { shape { dim: 3 dim: -1 } axis: 1 num_axes: 1 }"),
    "permute": one("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
    "softmax": one("Softmax"),
    "softmax axis": one("Softmax", "softmax_param { axis: 2 }"),
    "softmax minus": one("Softmax", "softmax_param { axis: -1 }"),
    "dropout": one("Dropout", "dropout_param { dropout_ratio: 0.4 }") + layer("ReLU", "r", "top"),
    "crop": inputs(a=(1, 4, 9, 10), b=(1, 4, 5, 6))
    + layer("Crop", "top", ["a", "b"], "crop_param { axis: 2 offset: 2 offset: 3 }")
    + layer("TanH", "used", "b"),
    "normalize pixels": one("Normalize", "norm_param { across_spatial: false channel_shared: false }"),
    "normalize image": one("Normalize", "norm_param { across_spatial: true channel_shared: true }", (1, 6, 11, 13)),
    "mvn": one("MVN"),
    "mvn across": one("MVN", "mvn_param { across_channels: true }"),
    "mvn mean": one("MVN", "mvn_param { normalize_variance: false }"),
    "interp": one("Interp", "interp_param { height: 22 width: 30 }", (1, 6, 11, 13)),
    "shuffle": one("ShuffleChannel", "shuffle_channel_param { group: 3 }"),
}


@pytest.mark.parametrize("name", NETS)
def test_it_computes_what_opencv_does(name, tmp_path):
    error, model = against_opencv(tmp_path, NETS[name])
    assert error < 2e-6
    assert len(model.graph.node) >= 1
