"""Small and real architectures for the tests, built with torch.nn alone: nothing is downloaded.

Weights are random but seeded, and batch-norm statistics are settled on seeded data, so that activations keep sane
ranges through deep nets. Every builder returns a module in eval mode; ``INPUTS`` holds the input shapes of each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = [
    "BUILDERS",
    "INPUTS",
    "digits_cnn",
    "inverted_residuals",
    "lstm",
    "mobilenet_v2",
    "resnet50",
    "resnet_block",
    "small_cnn",
    "two_in_two_out",
    "vit_block",
    "vit_small",
]


def _seeded(build: Callable[[], nn.Module], *shapes: tuple[int, ...], seed: int = 0) -> nn.Module:
    """Build under `seed` without touching the global generator, then settle batch norm on seeded data of `shapes`."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = build()
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d | nn.LayerNorm):  # else all ones: exporters merge equal constants
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.uniform_(norm.bias, -0.5, 0.5)
        norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # the average over the batches below, not a moving one
        if norms:
            module.train()
            module(*(torch.randn(4, *shape[1:]) for shape in shapes))
        for norm in norms:
            norm.momentum = 0.1
    return module.eval()


def small_cnn() -> nn.Module:
    """Give the tutorial's net: 1x3x224x224 -> 1x10, 20 042 parameters."""
    return _seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, 10),
        )
    )


def digits_cnn() -> nn.Module:
    """Give an untrained classifier for scikit-learn's digits: 1x1x8x8 -> 1x10."""
    return _seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        ),
        (1, 1, 8, 8),
    )


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([_conv_bn(inputs, hidden, 1)] if expand != 1 else []),
            _conv_bn(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def inverted_residuals() -> nn.Module:
    """Give three MobileNetV2 blocks (with and without residual, stride 2): 1x16x32x32 -> 1x24x16x16."""
    return _seeded(
        lambda: nn.Sequential(
            _InvertedResidual(16, 16, 1, 1), _InvertedResidual(16, 24, 2, 6), _InvertedResidual(24, 24, 1, 6)
        ),
        (1, 16, 32, 32),
    )


class _MobileNetV2(nn.Module):
    # Table 2 of Sandler et al. 2018: expansion, channels, repeats, stride
    TABLE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()

        def scaled(channels: float) -> int:
            """Round to a multiple of 8, at most 10 % down."""
            value = max(8, int(channels * width + 4) // 8 * 8)
            return value + 8 if value < 0.9 * channels * width else value

        channels, last = scaled(32), scaled(1280) if width > 1 else 1280
        features: list[nn.Module] = [_conv_bn(3, channels, 3, 2)]
        for expand, outputs, repeats, stride in self.TABLE:
            for i in range(repeats):
                features.append(_InvertedResidual(channels, scaled(outputs), stride if i == 0 else 1, expand))
                channels = scaled(outputs)
        features.append(_conv_bn(channels, last, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(nn.functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


def mobilenet_v2(width: float = 1.0, classes: int = 1000) -> nn.Module:
    """Give MobileNetV2 (Sandler et al. 2018): 1x3x224x224 -> 1x1000; 3 504 872 parameters at width 1."""
    return _seeded(lambda: _MobileNetV2(width, classes), (1, 3, 224, 224))


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_bn(inputs, hidden, 1)[:2],
            nn.ReLU(),
            *_conv_bn(hidden, hidden, 3, stride)[:2],
            nn.ReLU(),
            *_conv_bn(hidden, outputs, 1)[:2],
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet_block() -> nn.Module:
    """Give a ResNet-50 bottleneck with a projected shortcut: 1x32x28x28 -> 1x64x14x14."""
    return _seeded(lambda: _Bottleneck(32, 16, 64, 2), (1, 32, 28, 28))


class _ResNet50(nn.Module):
    # Table 1 of He et al. 2016, 50 layers: hidden channels and blocks of each stage
    TABLE = ((64, 3), (128, 4), (256, 6), (512, 3))

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv_bn(3, 64, 7, 2)[:2], nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        stages: list[nn.Module] = []
        channels = 64
        for stage, (hidden, blocks) in enumerate(self.TABLE):
            for i in range(blocks):
                block = _Bottleneck(channels, hidden, 4 * hidden, 2 if stage and not i else 1)
                if i:
                    block.shortcut = nn.Identity()
                stages.append(block)
                channels = 4 * hidden
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


def resnet50(classes: int = 1000) -> nn.Module:
    """Give ResNet-50 (He et al. 2016, stride in the 3x3 convolution): 1x3x224x224 -> 1x1000; 25 557 032 parameters."""
    return _seeded(lambda: _ResNet50(classes), (1, 3, 224, 224))


class _ViTBlock(nn.Module):
    def __init__(self, width: int, heads: int, classes: int) -> None:
        super().__init__()
        self.heads = heads
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.position = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.head = nn.Linear(width, classes)

    def attention(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5, -1)
        return self.project((weights @ v).transpose(1, 2).reshape(n, tokens, width))

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2) + self.position
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x.mean(1))


def vit_block() -> nn.Module:
    """Give a one-block vision transformer, 16 patches, 4 heads: 1x3x32x32 -> 1x10."""
    return _seeded(lambda: _ViTBlock(64, 4, 10))


class _Encoder(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5, -1)
        x = x + self.project((weights @ v).transpose(1, 2).reshape(n, tokens, width))
        return x + self.mlp(self.norm2(x))


class _ViT(nn.Module):
    def __init__(self, width: int, depth: int, heads: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, 197, width) * 0.02)
        self.blocks = nn.Sequential(*(_Encoder(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


def vit_small(classes: int = 1000) -> nn.Module:
    """Give ViT-S/16 (Dosovitskiy et al. 2021; Touvron et al. 2021): 1x3x224x224 -> 1x1000; 22 050 664 parameters."""
    return _seeded(lambda: _ViT(384, 12, 6, classes))


class _LSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 16, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, sequence: Tensor) -> Tensor:
        hidden, _ = self.lstm(sequence)
        return self.head(hidden[:, -1])


def lstm() -> nn.Module:
    """Give an LSTM over 10 steps of 12 features, then a linear layer: 1x10x12 -> 1x5."""
    return _seeded(_LSTM)


class _TwoInTwoOut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.linear = nn.Linear(6, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, image: Tensor, context: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.conv(image))
        mixed = features.mean((2, 3)) + self.linear(context)
        return {"logits": self.head(mixed), "features": features}


def two_in_two_out() -> nn.Module:
    """Give image (1x3x16x16) and context (1x6) -> {"logits": 1x4, "features": 1x8x16x16}."""
    return _seeded(_TwoInTwoOut)


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "small_cnn": small_cnn,
    "digits_cnn": digits_cnn,
    "mobilenet_v2": mobilenet_v2,
    "inverted_residuals": inverted_residuals,
    "resnet_block": resnet_block,
    "vit_block": vit_block,
    "lstm": lstm,
    "two_in_two_out": two_in_two_out,
}

INPUTS: dict[str, dict[str, tuple[int, ...]]] = {
    "small_cnn": {"input": (1, 3, 224, 224)},
    "digits_cnn": {"input": (1, 1, 8, 8)},
    "mobilenet_v2": {"x": (1, 3, 224, 224)},
    "inverted_residuals": {"input": (1, 16, 32, 32)},
    "resnet_block": {"x": (1, 32, 28, 28)},
    "vit_block": {"image": (1, 3, 32, 32)},
    "lstm": {"sequence": (1, 10, 12)},
    "two_in_two_out": {"image": (1, 3, 16, 16), "context": (1, 6)},
}
