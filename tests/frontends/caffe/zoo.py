"""The classic networks of Caffe's zoo, written as prototxts from their papers' tables; widths can be divided by `slim`."""

from __future__ import annotations

from tests.frontends.caffe.files import inputs, layer


class Text:
    """A prototxt in the making; `last` is the blob that the next layer reads."""

    def __init__(self, size: int, channels: int = 3) -> None:
        self.text = inputs(data=(1, channels, size, size))
        self.last = "data"

    def add(self, kind, name, param="", bottoms=None, top=None):
        self.text += layer(kind, name, bottoms or self.last, param, top or name)
        self.last = top or name
        return self

    def conv(self, name, outputs, kernel, stride=1, pad=0, group=1, bias=True, bottom=None):
        sizes = f"num_output: {outputs} kernel_size: {kernel} stride: {stride} pad: {pad} group: {group}"
        flag = "" if bias else " bias_term: false"
        return self.add("Convolution", name, f"convolution_param {{ {sizes}{flag} }}", bottom)

    def relu(self, name):
        return self.add("ReLU", name, top=self.last)

    def norm(self, name):
        """BatchNorm and Scale, both in place."""
        self.add("BatchNorm", f"{name}_bn", top=self.last)
        return self.add("Scale", f"{name}_scale", "scale_param { bias_term: true }", top=self.last)

    def pool(self, name, kind, kernel, stride, pad=0, bottom=None):
        sizes = f"pool: {kind} kernel_size: {kernel} stride: {stride} pad: {pad}"
        return self.add("Pooling", name, f"pooling_param {{ {sizes} }}", bottom)

    def ave(self, name):
        return self.add("Pooling", name, "pooling_param { pool: AVE global_pooling: true }")

    def lrn(self, name):
        return self.add("LRN", name, "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")

    def dense(self, name, outputs):
        return self.add("InnerProduct", name, f"inner_product_param {{ num_output: {outputs} }}")

    def drop(self, name):
        return self.add("Dropout", name, "dropout_param { dropout_ratio: 0.5 }", top=self.last)


def alexnet(slim=8, size=227):
    """Krizhevsky, Sutskever, Hinton 2012, in Caffe's variant: groups, LRN, overlapping pools."""
    net = Text(size)
    net.conv("conv1", 96 // slim, 11, 4).relu("relu1").lrn("norm1").pool("pool1", "MAX", 3, 2)
    net.conv("conv2", 256 // slim, 5, pad=2, group=2).relu("relu2").lrn("norm2").pool("pool2", "MAX", 3, 2)
    net.conv("conv3", 384 // slim, 3, pad=1).relu("relu3").conv("conv4", 384 // slim, 3, pad=1, group=2).relu("relu4")
    net.conv("conv5", 256 // slim, 3, pad=1, group=2).relu("relu5").pool("pool5", "MAX", 3, 2)
    net.dense("fc6", 4096 // slim).relu("relu6").drop("drop6").dense("fc7", 4096 // slim).relu("relu7").drop("drop7")
    return net.dense("fc8", 100).add("Softmax", "prob").text


def vgg16(slim=8, size=64):
    """Simonyan, Zisserman 2014, configuration D."""
    net = Text(size)
    for block, (width, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], 1):
        for number in range(1, count + 1):
            net.conv(f"conv{block}_{number}", width // slim, 3, pad=1).relu(f"relu{block}_{number}")
        net.pool(f"pool{block}", "MAX", 2, 2)
    for number in (6, 7):
        net.dense(f"fc{number}", 4096 // slim).relu(f"relu{number}").drop(f"drop{number}")
    return net.dense("fc8", 100).add("Softmax", "prob").text


INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(slim=4, size=224):
    """Szegedy et al. 2014, table 1; names with slashes as in Caffe's file, pools that round up."""
    net = Text(size)
    net.conv("conv1/7x7_s2", 64 // slim, 7, 2, 3).relu("conv1/relu").pool("pool1/3x3_s2", "MAX", 3, 2).lrn(
        "pool1/norm1"
    )
    net.conv("conv2/3x3_reduce", 64 // slim, 1).relu("conv2/relu_reduce").conv("conv2/3x3", 192 // slim, 3, pad=1)
    net.relu("conv2/relu").lrn("conv2/norm2").pool("pool2/3x3_s2", "MAX", 3, 2)
    for name, widths in INCEPTIONS.items():
        one, reduce3, three, reduce5, five, proj = (width // slim for width in widths)
        path, source = f"inception_{name}", net.last
        net.conv(f"{path}/1x1", one, 1).relu(f"{path}/relu_1x1")
        net.conv(f"{path}/3x3_reduce", reduce3, 1, bottom=source).relu(f"{path}/relu_3x3_reduce")
        net.conv(f"{path}/3x3", three, 3, pad=1).relu(f"{path}/relu_3x3")
        net.conv(f"{path}/5x5_reduce", reduce5, 1, bottom=source).relu(f"{path}/relu_5x5_reduce")
        net.conv(f"{path}/5x5", five, 5, pad=2).relu(f"{path}/relu_5x5")
        net.pool(f"{path}/pool", "MAX", 3, 1, 1, bottom=source).conv(f"{path}/pool_proj", proj, 1)
        net.relu(f"{path}/relu_pool_proj")
        net.add("Concat", f"{path}/output", bottoms=[f"{path}/{part}" for part in ("1x1", "3x3", "5x5", "pool_proj")])
        if name in ("3b", "4e"):
            net.pool(f"pool{int(name[0])}/3x3_s2", "MAX", 3, 2)
    net.pool("pool5/7x7_s1", "AVE", size // 32, 1).drop("pool5/drop").dense("loss3/classifier", 100)
    return net.add("Softmax", "prob").text


def resnet50(slim=8, size=64):
    """He et al. 2015, table 1; the stride stands in the first 1x1 of a block, as in their Caffe files."""
    net = Text(size)
    net.conv("conv1", 64 // slim, 7, 2, 3).norm("conv1").relu("conv1_relu").pool("pool1", "MAX", 3, 2)
    for stage, count in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True):
        width = 64 * 2 ** (stage - 2) // slim
        for number in range(count):
            path, source, stride = f"res{stage}{'abcdef'[number]}", net.last, 2 if stage > 2 and number == 0 else 1
            if number == 0:
                net.conv(f"{path}_branch1", 4 * width, 1, stride, bias=False).norm(f"{path}_branch1")
            shortcut = net.last
            net.conv(f"{path}_2a", width, 1, stride, bias=False, bottom=source).norm(f"{path}_2a").relu(
                f"{path}_2a_relu"
            )
            net.conv(f"{path}_2b", width, 3, pad=1, bias=False).norm(f"{path}_2b").relu(f"{path}_2b_relu")
            net.conv(f"{path}_2c", 4 * width, 1, bias=False).norm(f"{path}_2c")
            net.add("Eltwise", path, bottoms=[shortcut, net.last]).relu(f"{path}_relu")
    return net.ave("pool5").dense("fc", 100).add("Softmax", "prob").text


def mobilenet_v1(slim=4, size=96):
    """Howard et al. 2017, table 1."""
    net = Text(size)
    net.conv("conv1", 32 // slim, 3, 2, 1, bias=False).norm("conv1").relu("relu1")
    width = 32 // slim
    rows = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for number, (outputs, stride) in enumerate(rows, 2):
        net.conv(f"conv{number}/dw", width, 3, stride, 1, group=width, bias=False).norm(f"{number}/dw").relu(
            f"{number}/r1"
        )
        width = outputs // slim
        net.conv(f"conv{number}/sep", width, 1, bias=False).norm(f"{number}/sep").relu(f"{number}/r2")
    return net.ave("pool").conv("fc7", 100, 1).add("Softmax", "prob").text


def mobilenet_v2(slim=4, size=96):
    """Sandler et al. 2018, table 2: expansion, depthwise, projection without ReLU, shortcuts."""
    net = Text(size)
    net.conv("conv1", 32 // slim, 3, 2, 1, bias=False).norm("conv1").relu("relu1")
    width, rows = (
        32 // slim,
        [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2)],
    )
    for stage, (times, outputs, count, stride) in enumerate([*rows, (6, 320, 1, 1)], 2):
        for number in range(count):
            path, source, wide = f"b{stage}_{number}", net.last, width * times
            step = stride if number == 0 else 1
            net.conv(f"{path}/expand", wide, 1, bias=False).norm(f"{path}/expand").relu(f"{path}/r1")
            net.conv(f"{path}/dw", wide, 3, step, 1, group=wide, bias=False).norm(f"{path}/dw").relu(f"{path}/r2")
            net.conv(f"{path}/linear", outputs // slim, 1, bias=False).norm(f"{path}/linear")
            if step == 1 and width == outputs // slim:
                net.add("Eltwise", f"{path}/add", bottoms=[source, net.last])
            width = outputs // slim
    net.conv("conv6", 1280 // slim, 1, bias=False).norm("conv6").relu("relu6")
    return net.ave("pool").conv("fc7", 100, 1).add("Softmax", "prob").text


def squeezenet(slim=1, size=127):
    """Iandola et al. 2016, version 1.0, table 1."""
    net = Text(size)
    net.conv("conv1", 96 // slim, 7, 2).relu("relu_conv1").pool("pool1", "MAX", 3, 2)
    for number, width in enumerate((16, 16, 32, 32, 48, 48, 64, 64), 2):
        path = f"fire{number}"
        net.conv(f"{path}/squeeze1x1", width // slim, 1).relu(f"{path}/relu_s")
        source = net.last
        net.conv(f"{path}/expand1x1", 4 * width // slim, 1).relu(f"{path}/relu_e1")
        net.conv(f"{path}/expand3x3", 4 * width // slim, 3, pad=1, bottom=source).relu(f"{path}/relu_e3")
        net.add("Concat", f"{path}/concat", bottoms=[f"{path}/expand1x1", f"{path}/expand3x3"])
        if number in (4, 8):
            net.pool(f"pool{number}", "MAX", 3, 2)
    return net.drop("drop9").conv("conv10", 100, 1).relu("relu_conv10").ave("pool10").add("Softmax", "prob").text


def ssd(slim=8, size=150, *, detection=False):
    """Liu et al. 2016, cut to two feature maps: Normalize, Permute, Flatten, PriorBox, Concat, Reshape, Softmax."""
    net, classes = Text(size), 21
    for block, (width, count) in enumerate([(64, 2), (128, 2), (256, 3)], 1):
        for number in range(1, count + 1):
            net.conv(f"conv{block}_{number}", width // slim, 3, pad=1).relu(f"relu{block}_{number}")
        net.pool(f"pool{block}", "MAX", 2, 2)
    net.conv("conv4_3", 512 // slim, 3, pad=1).relu("relu4_3")
    net.pool("pool4", "MAX", 2, 2).conv("fc7", 1024 // slim, 3, pad=1).relu("relu7")
    scale = "scale_filler { type: 'constant' value: 20 }"
    net.add("Normalize", "norm4", f"norm_param {{ across_spatial: false {scale} channel_shared: false }}", "conv4_3")
    priors = {
        "norm4": "min_size: 15 max_size: 30 aspect_ratio: 2 flip: true clip: false step: 8 offset: 0.5",
        "fc7": "min_size: 30 max_size: 60 aspect_ratio: 2 aspect_ratio: 3 flip: true clip: true",
    }
    for source, count in (("norm4", 4), ("fc7", 6)):
        for what, outputs in (("loc", 4 * count), ("conf", classes * count)):
            path = f"{source}_mbox_{what}"
            net.conv(path, outputs, 3, pad=1, bottom=source)
            net.add("Permute", f"{path}_perm", "permute_param { order: 0 order: 2 order: 3 order: 1 }")
            net.add("Flatten", f"{path}_flat", "flatten_param { axis: 1 }")
        variance = "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2"
        net.add("PriorBox", f"{source}_prior", f"prior_box_param {{ {priors[source]} {variance} }}", [source, "data"])
    for what, ends in (("loc", "mbox_loc_flat"), ("conf", "mbox_conf_flat")):
        net.add("Concat", f"mbox_{what}", "concat_param { axis: 1 }", [f"norm4_{ends}", f"fc7_{ends}"])
    net.add("Reshape", "conf_reshape", f"reshape_param {{ shape {{ dim: 0 dim: -1 dim: {classes} }} }}")
    net.add("Softmax", "conf_softmax", "softmax_param { axis: 2 }").add(
        "Flatten", "conf_flat", "flatten_param { axis: 1 }"
    )
    net.add("Concat", "mbox_prior", "concat_param { axis: 2 }", ["norm4_prior", "fc7_prior"])
    if detection:
        nms = f"num_classes: {classes} nms_param {{ nms_threshold: 0.45 top_k: 400 }} keep_top_k: 200 code_type: CENTER_SIZE"
        net.add(
            "DetectionOutput",
            "detection_out",
            f"detection_output_param {{ {nms} }}",
            ["mbox_loc", "conf_flat", "mbox_prior"],
        )
    return net.text


ZOO = {
    "alexnet": alexnet,
    "vgg16": vgg16,
    "googlenet": googlenet,
    "resnet50": resnet50,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "squeezenet": squeezenet,
}
