"""The architectures of the coverage table: real ones, with random weights, each in its smallest published size.

Needs what `requirements.txt` names; only `run.py` imports this. No weights are downloaded: whether an op is taken does not
depend on them. Sizes of inputs are smaller than usual where an architecture allows it, and stand in the table.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "latency"))
from zoo import Yolo as zoo_Yolo
from zoo import hf, nets, nets_scenes, timm, tv

Inputs = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
F32, I32 = torch.float32, torch.int32


@dataclass(frozen=True)
class Entry:
    """One architecture.

    Attributes
    ----------
    family : str
        What it is for.
    origin : str
        The package, or the files of this repository, whose code it is.
    build : callable
        Makes the module with random weights; or gives the path of an ONNX file.
    inputs : mapping of str to (shape, dtype)
        What it takes; empty for a file.
    """

    family: str
    origin: str
    build: Callable[[], Any]
    inputs: Inputs


ENTRIES: dict[str, Entry] = {}


def _add(name: str, family: str, origin: str, build: Callable[[], Any], inputs: Inputs | tuple[int, ...]) -> None:
    if isinstance(inputs, tuple):
        inputs = {"image": (inputs, F32)}
    ENTRIES[name] = Entry(family, origin, build, inputs)


def _square(size: int, channels: int = 3) -> tuple[int, ...]:
    return (1, channels, size, size)


class First(nn.Module):
    """A module of torchvision's dictionaries, or of transformers, with the one output that counts."""

    def __init__(self, inner: nn.Module, key: str | int, **options: Any) -> None:
        super().__init__()
        self.inner, self.key, self.options = inner, key, options

    def forward(self, **inputs: Tensor) -> Any:
        """Give one output."""
        return self.inner(**inputs, **self.options)[self.key]


def _named(names: list[str], cls: Callable[..., nn.Module], *args: Any, **options: Any) -> nn.Module:
    """Make a module whose forward has the given argument names, which the exporter reads off its signature."""
    code = f"def forward(self, {', '.join(names)}): return self.call({', '.join(f'{n}={n}' for n in names)})"
    space: dict[str, Any] = {}
    exec(code, space)
    made: nn.Module = type(cls.__name__, (_Call,), {"forward": space["forward"]})(cls(*args, **options))
    return made


class _Call(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def call(self, **inputs: Tensor) -> Any:
        return self.inner(**inputs)


# --- torchvision -----------------------------------------------------------------------------------------------------

_TORCHVISION: dict[str, tuple[str, int]] = {
    "AlexNet": ("alexnet", 224),
    "VGG-11 (batch norm)": ("vgg11_bn", 224),
    "ResNet-18": ("resnet18", 96),
    "ResNet-50": ("resnet50", 96),
    "ResNeXt-50": ("resnext50_32x4d", 96),
    "SqueezeNet 1.1": ("squeezenet1_1", 96),
    "DenseNet-121": ("densenet121", 64),
    "Inception v3": ("inception_v3", 139),
    "GoogLeNet": ("googlenet", 96),
    "MobileNet v2": ("mobilenet_v2", 96),
    "MobileNet v3 large": ("mobilenet_v3_large", 96),
    "MNASNet 0.5": ("mnasnet0_5", 96),
    "ShuffleNet v2": ("shufflenet_v2_x0_5", 96),
    "EfficientNet-B0": ("efficientnet_b0", 96),
    "RegNetY-400MF": ("regnet_y_400mf", 96),
    "ConvNeXt tiny": ("convnext_tiny", 96),
    "Swin tiny": ("swin_t", 112),
    "Swin v2 tiny": ("swin_v2_t", 128),
    "MaxViT tiny": ("maxvit_t", 224),
}
_MORE: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}
for _name, (_arch, _size) in _TORCHVISION.items():
    _add(_name, "classification", "torchvision", lambda a=_arch: getattr(tv, a)(weights=None, **_MORE.get(a, {})), _square(_size))  # type: ignore[misc]  # noqa: E501  # fmt: skip
for _name, _arch in {"ResNet 3D-18": "r3d_18", "ResNet (2+1)D-18": "r2plus1d_18"}.items():
    _add(_name, "video", "torchvision", lambda a=_arch: getattr(tv.video, a)(weights=None), {"video": ((1, 3, 16, 64, 64), F32)})  # type: ignore[misc]  # noqa: E501  # fmt: skip


def _segmenter(arch: str) -> nn.Module:
    return _named(["image"], lambda: _Out(getattr(tv.segmentation, arch)(weights=None, weights_backbone=None)))


class _Out(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.inner(image)["out"]
        return found


for _name, _arch in {
    "DeepLab v3 (MobileNet v3)": "deeplabv3_mobilenet_v3_large",
    "LR-ASPP (MobileNet v3)": "lraspp_mobilenet_v3_large",
    "FCN (ResNet-50)": "fcn_resnet50",
}.items():
    _add(_name, "segmentation", "torchvision", lambda a=_arch: _segmenter(a), _square(128))  # type: ignore[misc]

# --- timm ------------------------------------------------------------------------------------------------------------

_TIMM: dict[str, tuple[str, int]] = {
    "BEiT base": ("beit_base_patch16_224", 224),
    "BoTNet-26": ("botnet26t_256", 256),
    "HaloNet-26": ("halonet26t", 256),
    "LambdaNet-26": ("lambda_resnet26t", 128),
    "CaiT XXS-24": ("cait_xxs24_224", 224),
    "CoaT-Lite tiny": ("coat_lite_tiny", 224),
    "ConViT tiny": ("convit_tiny", 224),
    "ConvMixer-768": ("convmixer_768_32", 64),
    "CrossViT tiny": ("crossvit_tiny_240", 240),
    "CSPDarkNet-53": ("cspdarknet53", 96),
    "DaViT tiny": ("davit_tiny", 224),
    "DeiT tiny": ("deit_tiny_patch16_224", 224),
    "DLA-34": ("dla34", 96),
    "DPN-48b": ("dpn48b", 96),
    "EdgeNeXt XXS": ("edgenext_xx_small", 128),
    "EfficientFormer L1": ("efficientformer_l1", 224),
    "EfficientFormer v2 S0": ("efficientformerv2_s0", 224),
    "EfficientViT-B0 (MIT)": ("efficientvit_b0", 128),
    "EfficientViT-M0 (MSRA)": ("efficientvit_m0", 224),
    "EVA-02 tiny": ("eva02_tiny_patch14_224", 224),
    "FasterNet T0": ("fasternet_t0", 96),
    "FastViT T8": ("fastvit_t8", 128),
    "FocalNet tiny": ("focalnet_tiny_srf", 128),
    "GCViT XXT": ("gcvit_xxtiny", 224),
    "GhostNet": ("ghostnet_100", 96),
    "HardCoReNAS A": ("hardcorenas_a", 96),
    "HGNet v2 B0": ("hgnetv2_b0", 96),
    "Hiera tiny": ("hiera_tiny_224", 224),
    "HRNet-W18 small": ("hrnet_w18_small", 96),
    "InceptionNeXt atto": ("inception_next_atto", 96),
    "Inception-ResNet v2": ("inception_resnet_v2", 139),
    "LCNet 0.5": ("lcnet_050", 96),
    "LeViT-128S": ("levit_128s", 224),
    "MambaOut femto": ("mambaout_femto", 96),
    "MLP-Mixer S/32": ("mixer_s32_224", 224),
    "MobileNet v4 small": ("mobilenetv4_conv_small", 96),
    "MobileOne S0": ("mobileone_s0", 96),
    "MobileViT XXS": ("mobilevit_xxs", 128),
    "MobileViT v2 0.5": ("mobilevitv2_050", 128),
    "MViT v2 tiny": ("mvitv2_tiny", 224),
    "NesT tiny": ("nest_tiny", 224),
    "NextViT small": ("nextvit_small", 128),
    "NFNet (dm, F0, light)": ("nfnet_l0", 96),
    "PiT tiny": ("pit_ti_224", 224),
    "PoolFormer S12": ("poolformer_s12", 96),
    "PVT v2 B0": ("pvt_v2_b0", 128),
    "RepGhost 0.5": ("repghostnet_050", 96),
    "RepVGG-A0": ("repvgg_a0", 96),
    "RepViT M0.9": ("repvit_m0_9", 96),
    "Res2Net-50": ("res2net50_26w_4s", 96),
    "ResMLP-12": ("resmlp_12_224", 224),
    "ResNeSt-14d": ("resnest14d", 96),
    "ReXNet 1.0": ("rexnet_100", 96),
    "SelecSLS-42b": ("selecsls42b", 96),
    "Sequencer2D S": ("sequencer2d_s", 224),
    "SHViT S1": ("shvit_s1", 128),
    "SKNet-18": ("skresnet18", 96),
    "StarNet S1": ("starnet_s1", 96),
    "SwiftFormer XS": ("swiftformer_xs", 128),
    "TinyViT 5M": ("tiny_vit_5m_224", 224),
    "TNT-S": ("tnt_s_patch16_224", 224),
    "TResNet M": ("tresnet_m", 96),
    "Twins-SVT small": ("twins_svt_small", 224),
    "Visformer tiny": ("visformer_tiny", 224),
    "ViT tiny": ("vit_tiny_patch16_224", 224),
    "ViT relpos small": ("vit_relpos_small_patch16_224", 224),
    "VOLO D1": ("volo_d1_224", 224),
    "VoVNet-19b": ("ese_vovnet19b_dw", 96),
    "Xception-41": ("xception41", 96),
    "XCiT nano": ("xcit_nano_12_p16_224", 224),
}
for _name, (_arch, _size) in _TIMM.items():
    _add(_name, "classification", "timm", lambda a=_arch: timm.create_model(a, pretrained=False, exportable=True), _square(_size))  # type: ignore[misc]  # noqa: E501  # fmt: skip

# --- ultralytics, and this repository --------------------------------------------------------------------------------

for _name, _config in {
    "YOLOv5n": "yolov5nu.yaml",
    "YOLOv8n": "yolov8n.yaml",
    "YOLOv10n": "yolov10n.yaml",
    "YOLO11n": "yolo11n.yaml",
    "YOLO12n": "yolo12n.yaml",
}.items():
    _add(_name, "detection", "ultralytics", lambda c=_config: zoo_Yolo(c, 80, "det"), _square(160))  # type: ignore[misc]
_add("YOLOv8n-seg", "segmentation", "ultralytics", lambda: zoo_Yolo("yolov8n-seg.yaml", 80, "seg"), _square(160))
_add("YOLO11n-pose", "pose", "ultralytics", lambda: zoo_Yolo("yolo11n-pose.yaml", 1, "pose"), _square(160))
_add("YOLOv8n-obb", "detection", "ultralytics", lambda: zoo_Yolo("yolov8n-obb.yaml", 15, "obb"), _square(160))

_OWN: dict[str, tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = {
    "QuickSRNet small": ("super-resolution", lambda: nets.QuickSRNet(32, 2), _square(64)),
    "SESR-M5": ("super-resolution", nets.SESR, _square(64)),
    "Real-ESRGAN x4v3": ("super-resolution", nets.SRVGG, _square(64)),
    "SRResNet": ("super-resolution", nets.SRResNet, _square(48)),
    "DnCNN": ("denoising", nets.DnCNN, _square(64, 1)),
    "NAFNet": ("denoising", lambda: nets.NAFNet((1, 1, 1, 2), 1, (1, 1, 1, 1)), _square(64)),
    "U²-Net": ("segmentation", nets.U2Net, _square(128)),
    "OSNet": ("re-identification", nets_scenes.OsNet, (1, 3, 128, 64)),
    "MiDaS small": ("depth", nets_scenes.MidasSmall, _square(128)),
    "YOLOX": ("detection", nets_scenes.YoloX, _square(160)),
    "YOLOv7 tiny": ("detection", nets_scenes.YoloV7Tiny, _square(160)),
    "YAMNet": ("audio", lambda: nets.MobileNetV1(1, classes=521), (1, 1, 96, 64)),
}
for _name, (_family, _build, _shape) in _OWN.items():
    _add(_name, _family, "qnb's tools", _build, _shape)

# --- networks of a few layers that are met everywhere, with torch's own -----------------------------------------------


class Recurrent(nn.Module):
    """A recurrent tagger or key word spotter: layers of one kind, and a linear one."""

    def __init__(self, kind: str, size: int, hidden: int, layers: int, classes: int, both_ways: bool = False) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(size, hidden, layers, batch_first=True, bidirectional=both_ways)
        self.head = nn.Linear(hidden * (1 + both_ways), classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Score each frame."""
        out: Tensor = self.head(self.rnn(frames)[0])
        return out


class Spotter(nn.Module):
    """A convolutional recurrent network for key words (arXiv:1703.05390)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 32, (20, 5), (8, 2))
        self.rnn = nn.GRU(32 * 3, 32, 2, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Score a spectrogram."""
        x = torch.relu(self.conv(spectrogram))
        out: Tensor = self.head(self.rnn(x.permute(0, 3, 1, 2).flatten(2))[0][:, -1])
        return out


class TemporalBlock(nn.Module):
    """A block of a temporal convolutional network (arXiv:1803.01271)."""

    def __init__(self, i: int, o: int, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        self.a, self.b = nn.Conv1d(i, o, 3, dilation=dilation), nn.Conv1d(o, o, 3, dilation=dilation)
        self.skip = nn.Conv1d(i, o, 1) if i != o else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Look at the past."""
        pad = nn.functional.pad
        y = torch.relu(self.b(pad(torch.relu(self.a(pad(x, (self.pad, 0)))), (self.pad, 0))))
        return torch.relu(y + self.skip(x))


def _tcn() -> nn.Module:
    return nn.Sequential(*[TemporalBlock(16 if i == 0 else 32, 32, 2**i) for i in range(6)], nn.Conv1d(32, 10, 1))


def _transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, norm_first=True, activation="gelu")
    return nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(64, 10))


_SEQUENCE = {"frames": ((1, 16, 40), F32)}
_add("LSTM tagger", "sequence", "torch.nn", lambda: Recurrent("LSTM", 40, 64, 2, 10), _SEQUENCE)
_add("BiLSTM tagger", "sequence", "torch.nn", lambda: Recurrent("LSTM", 40, 64, 1, 10, True), _SEQUENCE)
_add("GRU tagger", "sequence", "torch.nn", lambda: Recurrent("GRU", 40, 64, 2, 10), _SEQUENCE)
_add("Elman RNN tagger", "sequence", "torch.nn", lambda: Recurrent("RNN", 40, 64, 2, 10), _SEQUENCE)
_add("CRNN key words", "audio", "torch.nn", Spotter, {"spectrogram": ((1, 1, 40, 100), F32)})
_add("TCN", "sequence", "torch.nn", _tcn, {"frames": ((1, 16, 64), F32)})
_add("Transformer encoder", "sequence", "torch.nn", _transformer, {"frames": ((1, 32, 64), F32)})

# --- transformers ----------------------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """A language model on a whole sequence of tokens, with nothing kept between calls."""

    def __init__(self, inner: nn.Module, **options: Any) -> None:
        super().__init__()
        self.inner, self.options = inner, options

    def forward(self, input_ids: Tensor) -> Any:
        """Give what the model gives first."""
        return self.inner(input_ids=input_ids, return_dict=True, **self.options)[0]


class Pair(nn.Module):
    """An encoder-decoder on whole sequences."""

    def __init__(self, inner: nn.Module, first: str) -> None:
        super().__init__()
        self.inner, self.first = inner, first

    def forward(self, source: Tensor, decoder_input_ids: Tensor) -> Any:
        """Give the decoder's scores."""
        inputs = {self.first: source, "decoder_input_ids": decoder_input_ids}
        return self.inner(**inputs, use_cache=False, return_dict=True)[0]


class Features(nn.Module):
    """A model of images or sound, with its first output or one by name."""

    def __init__(self, inner: nn.Module, argument: str, key: str | int = 0) -> None:
        super().__init__()
        self.inner, self.argument, self.key = inner, argument, key

    def forward(self, features: Tensor) -> Any:
        """Give one output."""
        return self.inner(**{self.argument: features}, return_dict=True)[self.key]


def _config(cls: Any, **options: Any) -> Any:
    made = cls(**options)
    made._attn_implementation = "eager"
    return made


_TEXT = {"input_ids": ((1, 32), I32)}
_SMALL = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
_GATED = _SMALL | {"num_key_value_heads": 2, "vocab_size": 4000}

_ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "BERT mini": ("BertConfig", "BertModel", _SMALL),
    "RoBERTa": ("RobertaConfig", "RobertaModel", _SMALL | {"vocab_size": 4000}),
    "DistilBERT": ("DistilBertConfig", "DistilBertModel", {"dim": 256, "n_layers": 4, "n_heads": 4, "hidden_dim": 1024}),
    "ALBERT": ("AlbertConfig", "AlbertModel", _SMALL),
    "ELECTRA small": ("ElectraConfig", "ElectraModel", {}),
    "MobileBERT": ("MobileBertConfig", "MobileBertModel", {"num_hidden_layers": 6}),
    "SqueezeBERT": ("SqueezeBertConfig", "SqueezeBertModel", _SMALL | {"embedding_size": 256}),
    "DeBERTa v2": ("DebertaV2Config", "DebertaV2Model", _SMALL | {"vocab_size": 4000, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),  # noqa: E501
    "MPNet": ("MPNetConfig", "MPNetModel", _SMALL | {"vocab_size": 4000}),
    "ConvBERT": ("ConvBertConfig", "ConvBertModel", _SMALL | {"vocab_size": 4000}),
    "ModernBERT": ("ModernBertConfig", "ModernBertModel", _SMALL | {"vocab_size": 4000, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}),  # noqa: E501
    "FNet": ("FNetConfig", "FNetModel", {"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 1024, "vocab_size": 4000}),  # noqa: E501
    "ESM-2": ("EsmConfig", "EsmModel", _SMALL | {"vocab_size": 33, "position_embedding_type": "rotary", "pad_token_id": 1, "mask_token_id": 32}),  # noqa: E501
    "CLIP text": ("CLIPTextConfig", "CLIPTextModel", _SMALL | {"vocab_size": 4000, "eos_token_id": 3999, "bos_token_id": 3998, "pad_token_id": 1}),  # noqa: E501
    "T5 encoder": ("T5Config", "T5EncoderModel", {"d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 4, "num_heads": 4, "vocab_size": 4000}),  # noqa: E501
}  # fmt: skip
for _name, (_cfg, _cls, _options) in _ENCODERS.items():
    _add(_name, "text encoder", "transformers", lambda c=_cfg, m=_cls, o=_options: Tokens(getattr(hf, m)(_config(getattr(hf, c), **o))), _TEXT)  # type: ignore[misc]  # noqa: E501  # fmt: skip

_DECODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "GPT-2": ("GPT2Config", "GPT2LMHeadModel", {"n_embd": 256, "n_layer": 4, "n_head": 4, "vocab_size": 4000}),
    "OPT": ("OPTConfig", "OPTForCausalLM", {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "ffn_dim": 1024, "vocab_size": 4000, "word_embed_proj_dim": 256}),  # noqa: E501
    "GPT-NeoX": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _SMALL | {"vocab_size": 4000}),
    "BLOOM": ("BloomConfig", "BloomForCausalLM", {"hidden_size": 256, "n_layer": 4, "n_head": 4, "vocab_size": 4000}),
    "Llama": ("LlamaConfig", "LlamaForCausalLM", _GATED),
    "Mistral": ("MistralConfig", "MistralForCausalLM", _GATED),
    "Qwen 2": ("Qwen2Config", "Qwen2ForCausalLM", _GATED),
    "Qwen 3": ("Qwen3Config", "Qwen3ForCausalLM", _GATED | {"head_dim": 64}),
    "Gemma": ("GemmaConfig", "GemmaForCausalLM", _GATED | {"head_dim": 64}),
    "Phi": ("PhiConfig", "PhiForCausalLM", _SMALL | {"vocab_size": 4000}),
    "StableLM": ("StableLmConfig", "StableLmForCausalLM", _GATED),
    "Mamba": ("MambaConfig", "MambaForCausalLM", {"hidden_size": 128, "num_hidden_layers": 2, "vocab_size": 1000}),
}  # fmt: skip
for _name, (_cfg, _cls, _options) in _DECODERS.items():
    _add(_name, "language model", "transformers", lambda c=_cfg, m=_cls, o=_options: Tokens(getattr(hf, m)(_config(getattr(hf, c), **o)), use_cache=False), _TEXT)  # type: ignore[misc]  # noqa: E501  # fmt: skip

_T5 = {"d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 2, "num_heads": 4, "vocab_size": 4000}
_BART = {
    "d_model": 256, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 1024, "decoder_ffn_dim": 1024, "vocab_size": 4000,
}  # fmt: skip
_IDS = {"source": ((1, 32), I32), "decoder_input_ids": ((1, 16), I32)}
_add("T5", "encoder-decoder", "transformers", lambda: Pair(hf.T5ForConditionalGeneration(_config(hf.T5Config, **_T5)), "input_ids"), _IDS)  # noqa: E501  # fmt: skip
_add("BART", "encoder-decoder", "transformers", lambda: Pair(hf.BartForConditionalGeneration(_config(hf.BartConfig, **_BART)), "input_ids"), _IDS)  # noqa: E501  # fmt: skip
_add("Whisper tiny", "speech", "transformers", lambda: Pair(hf.WhisperForConditionalGeneration(_config(hf.WhisperConfig, encoder_layers=2, decoder_layers=2, d_model=256, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=1024, decoder_ffn_dim=1024, max_source_positions=100, vocab_size=51865)), "input_features"), {"source": ((1, 80, 200), F32), "decoder_input_ids": ((1, 8), I32)})  # noqa: E501  # fmt: skip

_WAV = _SMALL | {"conv_dim": [128] * 7, "num_conv_pos_embeddings": 32}
_VISION: dict[str, tuple[str, str, str, dict[str, Any], str, tuple[int, ...]]] = {
    "Wav2Vec2": ("speech", "Wav2Vec2Config", "Wav2Vec2Model", _WAV, "input_values", (1, 8000)),
    "HuBERT": ("speech", "HubertConfig", "HubertModel", _WAV, "input_values", (1, 8000)),
    "AST": ("audio", "ASTConfig", "ASTModel", _SMALL | {"max_length": 128}, "input_values", (1, 128, 128)),
    "DINOv2": ("image encoder", "Dinov2Config", "Dinov2Model", {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "image_size": 112, "patch_size": 14}, "pixel_values", _square(112)),  # noqa: E501
    "CLIP vision": ("image encoder", "CLIPVisionConfig", "CLIPVisionModel", _SMALL | {"image_size": 112, "patch_size": 16}, "pixel_values", _square(112)),  # noqa: E501
    "SigLIP vision": ("image encoder", "SiglipVisionConfig", "SiglipVisionModel", _SMALL | {"image_size": 112, "patch_size": 16}, "pixel_values", _square(112)),  # noqa: E501
    "SegFormer B0": ("segmentation", "SegformerConfig", "SegformerForSemanticSegmentation", {}, "pixel_values", _square(128)),  # noqa: E501
    "YOLOS tiny": ("detection", "YolosConfig", "YolosForObjectDetection", {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "intermediate_size": 768, "image_size": [128, 128], "num_detection_tokens": 50}, "pixel_values", _square(128)),  # noqa: E501
    "DPT": ("depth", "DPTConfig", "DPTForDepthEstimation", _SMALL | {"image_size": 128, "patch_size": 16, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [48, 96, 192, 384], "fusion_hidden_size": 64}, "pixel_values", _square(128)),  # noqa: E501
    "PatchTST": ("time series", "PatchTSTConfig", "PatchTSTModel", {"num_input_channels": 4, "context_length": 64, "patch_length": 8, "stride": 8, "d_model": 64, "num_attention_heads": 4}, "past_values", (1, 64, 4)),  # noqa: E501
    "MobileViT (HF) segmentation": ("segmentation", "MobileViTConfig", "MobileViTForSemanticSegmentation", {"image_size": 128}, "pixel_values", _square(128)),  # noqa: E501
    "SAM vision encoder": ("segmentation", "SamVisionConfig", "SamVisionModel", {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3, "image_size": 256, "global_attn_indexes": [1, 3]}, "pixel_values", _square(256)),  # noqa: E501
    "Swin2SR": ("super-resolution", "Swin2SRConfig", "Swin2SRForImageSuperResolution", {"image_size": 32, "embed_dim": 60, "depths": [2, 2], "num_heads": [6, 6]}, "pixel_values", _square(32)),  # noqa: E501
}  # fmt: skip
for _name, (_family, _cfg, _cls, _options, _argument, _shape) in _VISION.items():
    _add(_name, _family, "transformers", lambda c=_cfg, m=_cls, o=_options, a=_argument: Features(getattr(hf, m)(_config(getattr(hf, c), **o)), a), {"features": (_shape, F32)})  # type: ignore[misc]  # noqa: E501  # fmt: skip


def _detr() -> nn.Module:
    backbone = hf.ResNetConfig(
        depths=[2, 2, 2, 2], layer_type="basic", hidden_sizes=[64, 128, 256, 512], out_features=["stage4"]
    )
    config = _config(
        hf.DetrConfig, use_timm_backbone=False, backbone_config=backbone, encoder_layers=2, decoder_layers=2, num_queries=50,
    )  # fmt: skip
    return Features(hf.DetrForObjectDetection(config), "pixel_values", "logits")


_add("DETR", "detection", "transformers", _detr, {"features": (_square(128), F32)})

# --- keras.applications, on Keras's torch backend --------------------------------------------------------------------


def _keras(name: str, size: int) -> Any:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    # untrained, a softmax would give all classes the same
    return keras.applications.__dict__[name](weights=None, input_shape=(size, size, 3), classifier_activation=None)


for _name, _arch, _size in (
    ("Keras MobileNet", "MobileNet", 96),
    ("Keras MobileNetV2", "MobileNetV2", 96),
    ("Keras MobileNetV3Small", "MobileNetV3Small", 96),
    ("Keras EfficientNetB0", "EfficientNetB0", 96),
    ("Keras EfficientNetV2B0", "EfficientNetV2B0", 96),
    ("Keras ResNet50V2", "ResNet50V2", 96),
    ("Keras DenseNet121", "DenseNet121", 64),
    ("Keras Xception", "Xception", 96),
    ("Keras InceptionV3", "InceptionV3", 96),
    ("Keras NASNetMobile", "NASNetMobile", 224),
    ("Keras VGG16", "VGG16", 64),
    ("Keras ConvNeXtTiny", "ConvNeXtTiny", 64),
):
    _add(_name, "classification", "keras.applications", lambda a=_arch, s=_size: _keras(a, s), {"image": ((1, _size, _size, 3), F32)})  # type: ignore[misc]  # noqa: E501  # fmt: skip

# --- the light models of the onnx package: files of opset 3 to 9 ------------------------------------------------------


def _light(name: str) -> Path:
    import onnx.backend.test

    return Path(onnx.backend.test.__path__[0]) / "data" / "light" / f"light_{name}.onnx"


for _name in ("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19", "zfnet512"):  # noqa: E501  # fmt: skip
    _add(f"ONNX light {_name}", "classification", "onnx backend tests", lambda n=_name: _light(n), {})  # type: ignore[misc]
