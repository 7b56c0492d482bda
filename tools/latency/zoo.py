"""Architectures with random weights that match entries of the table of device measurements.

Needs torchvision, timm, transformers and ultralytics; only `compile.py` imports this. A network's speed does not depend on
its weights, so none are downloaded. That an architecture is the measured one is checked by its number of parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# The compiled ops of torchvision need its own build of torch; its architectures do not. So the registration of shapes
# for ops that are not there is skipped.
_register = torch.library.register_fake
torch.library.register_fake = lambda op, *a, **k: (  # type: ignore[assignment]
    (lambda f: f) if str(op).startswith("torchvision::") else _register(op, *a, **k)
)
import torchvision.models as tv  # noqa: E402

torch.library.register_fake = _register
import nets  # noqa: E402
import nets_scenes  # noqa: E402
import timm  # noqa: E402
import transformers as hf  # noqa: E402

torch.backends.mha.set_fastpath_enabled(False)
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """One architecture.

    Attributes
    ----------
    model, component : str
        Its entry in the table of device measurements.
    build : callable
        Makes the module, with random weights.
    inputs : dict of str to (shape, dtype)
        What it takes.
    """

    model: str
    build: Callable[[], nn.Module]
    inputs: dict[str, tuple[Shape, torch.dtype]]
    component: str = ""


ZOO: dict[str, Entry] = {}


def _add(model: str, build: Callable[[], nn.Module], inputs: Any, component: str = "") -> None:
    if isinstance(inputs, tuple):
        inputs = {"image": (inputs, torch.float32)}
    name = f"{model}@{component}" if component else model
    ZOO[name] = Entry(model, build, inputs, component)


class Picked(nn.Module):
    """A module of which one output is kept: by key of a mapping, by attribute or by place."""

    def __init__(self, inner: nn.Module, key: str | int = 0, **call: Any) -> None:
        super().__init__()
        self.inner, self.key, self.call = inner, key, call

    def forward(self, *inputs: Tensor) -> Any:
        """Run it."""
        return self.inner(*inputs, **self.call)[self.key]


# --- image classification and video ---------------------------------------------------------------------------------


def _square(size: int = 224) -> Shape:
    return (1, 3, size, size)


_TORCHVISION: dict[str, tuple[str, int, dict[str, Any]]] = {
    "convnext_base": ("convnext_base", 224, {}),
    "densenet121": ("densenet121", 224, {}),
    "efficientnet_b0": ("efficientnet_b0", 224, {}),
    "efficientnet_v2_s": ("efficientnet_v2_s", 384, {}),
    "googlenet": ("googlenet", 224, {"aux_logits": False, "init_weights": False}),
    "mobilenet_v2": ("mobilenet_v2", 224, {}),
    "mobilenet_v3_large": ("mobilenet_v3_large", 224, {}),
    "regnet": ("regnet_x_3_2gf", 224, {}),
    "resnet18": ("resnet18", 224, {}),
    "resnet50": ("resnet50", 224, {}),
    "resnext101": ("resnext101_32x8d", 224, {}),
    "shufflenet_v2": ("shufflenet_v2_x0_5", 224, {}),
    "squeezenet1_1": ("squeezenet1_1", 224, {}),
    "swin_base": ("swin_b", 224, {}),
    "swin_small": ("swin_s", 224, {}),
    "swin_tiny": ("swin_t", 224, {}),
    "vit": ("vit_b_16", 224, {}),
    "wideresnet50": ("wide_resnet50_2", 224, {}),
}
for _name, (_arch, _size, _more) in _TORCHVISION.items():
    _add(_name, lambda a=_arch, m=_more: getattr(tv, a)(weights=None, **m), _square(_size))  # type: ignore[misc]
for _name, _arch in {"resnet_3d": "r3d_18", "resnet_mixed": "mc3_18", "resnet_2plus1d": "r2plus1d_18"}.items():
    _add(
        _name,
        lambda a=_arch: getattr(tv.video, a)(weights=None),  # type: ignore[misc]
        {"video": ((1, 3, 16, 112, 112), torch.float32)},
    )

_TIMM: dict[str, tuple[str, int]] = {
    "beit": ("beit_base_patch16_224", 224),
    "convnext_v2_base": ("convnextv2_base", 224),
    "dla102x": ("dla102x", 224),
    "efficientformer": ("efficientformer_l1", 224),
    "efficientnet_lite4": ("efficientnet_lite4", 300),
    "efficientvit_b2_cls": ("efficientvit_b2", 224),
    "efficientvit_l2_cls": ("efficientvit_l2", 224),
    "inception_v4": ("inception_v4", 299),
    "levit": ("levit_128s", 224),
    "mobile_vit": ("mobilevit_s", 224),
    "nasnet": ("nasnetalarge", 224),
    "repvit": ("repvit_m2_3", 224),
    "sequencer2d": ("sequencer2d_s", 224),
    "swinv2_base": ("swinv2_base_window8_256", 256),
}
for _name, (_arch, _size) in _TIMM.items():
    _add(_name, lambda a=_arch: timm.create_model(a, pretrained=False, exportable=True), _square(_size))  # type: ignore[misc]


class HrNetPose(nn.Module):
    """HRNet-W32 with the one-layer head for key points (arXiv:1902.09212)."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = timm.create_model("hrnet_w32", pretrained=False, exportable=True), nn.Conv2d(32, 17, 1)
        del self.net.incre_modules, self.net.downsamp_modules, self.net.final_layer, self.net.classifier

    def forward(self, image: Tensor) -> Tensor:
        """Give the maps of key points."""
        n = self.net
        x = n.act2(n.bn2(n.conv2(n.act1(n.bn1(n.conv1(image))))))
        out: Tensor = self.head(n.stages(x)[0])
        return out


_add("hrnet_pose", HrNetPose, (1, 3, 256, 192))

# --- restoration, segmentation, small nets ---------------------------------------------------------------------------

_add("quicksrnetsmall", lambda: nets.QuickSRNet(32, 2), _square(128))
_add("quicksrnetlarge", lambda: nets.QuickSRNet(64, 11), _square(128))
_add("sesr_m5", nets.SESR, _square(128))
_add("real_esrgan_general_x4v3", nets.SRVGG, _square(128))
_add("real_esrgan_x4plus", nets.RRDBNet, _square(128))
_add("srgan", nets.SRResNet, _square(128))
_add("dncnn", nets.DnCNN, (1, 1, 256, 256))
_add("u2net_segmentation", nets.U2Net, _square(320))
_add("nafnet_denoise", lambda: nets.NAFNet((2, 2, 4, 8), 12, (2, 2, 2, 2)), _square(256))
_add("nafnet_deblur", lambda: nets.NAFNet((1, 1, 1, 28), 1, (1, 1, 1, 1)), (1, 3, 360, 640))
_add("cavaface", nets.IrSe100, _square(112))
_add("yamnet", lambda: nets.MobileNetV1(1, classes=521), (1, 1, 96, 64))
_add("posenet_mobilenet", lambda: nets.MobileNetV1(3, heads=(17, 34, 32, 32)), (1, 3, 513, 257))

_add(
    "deeplabv3_plus_mobilenet",
    lambda: nets_scenes.DeepLabV3Plus(tv.mobilenet_v2(weights=None).features[:-1]),
    _square(513),
)
_add("hrnet_face", nets_scenes.HrNetFace, _square(256))
_add("midas", nets_scenes.MidasSmall, _square(256))
_add("osnet", nets_scenes.OsNet, (1, 3, 256, 128))
_add("yolov7", nets_scenes.YoloV7Tiny, _square(640))
_add("yolox", nets_scenes.YoloX, _square(640))

# --- detection with ultralytics --------------------------------------------------------------------------------------


class Yolo(nn.Module):
    """A network of ultralytics with what a deployment adds: the best score of each box."""

    def __init__(self, config: str, classes: int, task: str) -> None:
        super().__init__()
        from ultralytics.nn import tasks

        kinds = {"det": "DetectionModel", "seg": "SegmentationModel", "pose": "PoseModel", "obb": "OBBModel"}
        self.inner, self.classes = getattr(tasks, kinds[task])(config, nc=classes, verbose=False), classes
        self.inner.eval().fuse(verbose=False)
        self.inner.model[-1].export, self.inner.model[-1].format = True, "onnx"

    def forward(self, image: Tensor) -> Any:
        """Give boxes, best scores, and what else the head gives."""
        out = self.inner(image)
        rows, rest = (out[0], out[1:]) if isinstance(out, tuple | list) else (out, ())
        if rows.shape[1] > rows.shape[2]:  # an end-to-end head: its rows are chosen already
            return rows, *rest
        rows = rows.permute(0, 2, 1)
        more = (rows[..., 4 + self.classes :],) if rows.shape[2] > 4 + self.classes else ()
        return rows[..., :4], rows[..., 4 : 4 + self.classes].amax(-1), *more, *rest


_YOLO: dict[str, tuple[str, int, str]] = {
    "yolov8_det": ("yolov8n.yaml", 80, "det"),
    "yolov8_seg": ("yolov8n-seg.yaml", 80, "seg"),
    "yolov8_obb": ("yolov8n-obb.yaml", 15, "obb"),
    "lpdm": ("yolov8n.yaml", 1, "det"),
    "fastsam_s": ("yolov8s-seg.yaml", 1, "seg"),
    "fastsam_x": ("yolov8x-seg.yaml", 1, "seg"),
    "yolov11_det": ("yolo11n.yaml", 80, "det"),
    "yolov11_seg": ("yolo11n-seg.yaml", 80, "seg"),
    "yolov11_pose": ("yolo11n-pose.yaml", 1, "pose"),
}
for _name, _args in _YOLO.items():
    _add(_name, lambda a=_args: Yolo(*a), _square(640))  # type: ignore[misc]


# --- transformers ----------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """A text encoder that is given its mask as the number to add: what a deployment does, and free of integer ops."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Give what the model gives first."""
        bias = (1.0 - attention_mask.float())[:, None, None, :] * -1e4
        bias = bias.expand(-1, -1, attention_mask.shape[1], -1)
        out: Tensor = self.inner(input_ids=input_ids, attention_mask=bias, return_dict=True)[0]
        return out


def _tokens(length: int) -> dict[str, tuple[Shape, torch.dtype]]:
    return {"input_ids": ((1, length), torch.int32), "attention_mask": ((1, length), torch.int32)}


def _hf(name: str, config: Callable[[], Any], kind: Any, inputs: Any, key: str | int = 0, component: str = "") -> None:
    def build() -> nn.Module:
        settings = config()
        settings._attn_implementation = "eager"
        return Encoder(kind(settings)) if "input_ids" in inputs else Picked(kind(settings), key, return_dict=True)

    _add(name, build, inputs, component)


_hf("bert_base_uncased_hf", hf.BertConfig, hf.BertForMaskedLM, _tokens(384))
_hf(
    "albert_base_v2_hf",
    lambda: hf.AlbertConfig(hidden_size=768, num_attention_heads=12, intermediate_size=3072),
    hf.AlbertForMaskedLM,
    _tokens(384),
)
_hf("distil_bert_base_uncased_hf", hf.DistilBertConfig, hf.DistilBertForMaskedLM, _tokens(384))
_hf("mobile_bert_uncased_google", hf.MobileBertConfig, hf.MobileBertForMaskedLM, _tokens(384))
_hf(
    "minilm_v2",
    lambda: hf.BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
    hf.BertModel,
    _tokens(128),
)
_hf(
    "segformer_base",
    lambda: hf.SegformerConfig(num_labels=150, decoder_hidden_size=256),
    hf.SegformerForSemanticSegmentation,
    _square(512),
)


def _depth() -> Any:
    backbone = hf.Dinov2Config(
        hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=518, patch_size=14,
        out_features=["stage9", "stage10", "stage11", "stage12"], apply_layernorm=True, reshape_hidden_states=False,
    )  # fmt: skip
    return hf.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=384,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
    )


_hf("depth_anything", _depth, hf.DepthAnythingForDepthEstimation, _square(518))
_hf(
    "siglip2",
    lambda: hf.SiglipVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=224,
        patch_size=16,
    ),
    hf.SiglipVisionModel,
    _square(224),
    "pooler_output",
    "image_encoder",
)


def _detr(depths: list[int]) -> Any:
    backbone = hf.ResNetConfig(depths=depths, out_features=["stage4"])
    return hf.DetrConfig(use_timm_backbone=False, backbone_config=backbone)


_hf("detr_resnet50", lambda: _detr([3, 4, 6, 3]), hf.DetrForObjectDetection, _square(480), "logits")
_hf("detr_resnet101", lambda: _detr([3, 4, 23, 3]), hf.DetrForObjectDetection, _square(480), "logits")
_hf("video_mae", lambda: hf.VideoMAEConfig(num_labels=400), hf.VideoMAEForVideoClassification,
    {"video": ((1, 16, 3, 224, 224), torch.float32)})  # fmt: skip


class Clip(nn.Module):
    """CLIP, both of its encoders."""

    def __init__(self) -> None:
        super().__init__()
        config = hf.CLIPConfig(vision_config={"patch_size": 16, "image_size": 224})
        config._attn_implementation = "eager"
        self.inner = hf.CLIPModel(config)

    def forward(self, image: Tensor, text: Tensor) -> Any:
        """Score a text for an image."""
        return self.inner(input_ids=text, pixel_values=image, return_dict=True)["logits_per_image"]


_add("openai_clip", Clip, {"image": (_square(224), torch.float32), "text": ((1, 77), torch.int32)})
