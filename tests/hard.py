"""The hard digits classifier: accurate in float, and made so that it falls to chance when it is quantized naively.

Its depthwise channels have very different ranges (the trouble that cross-layer equalization was invented for: Nagel et
al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, figure 2). They come from a
rescaling of the trained net that leaves its function unchanged: ReLU(s x) = s ReLU(x) for s > 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import nn

__all__ = ["HardDigits", "hard_digits"]


@dataclass(frozen=True)
class HardDigits:
    """The net, and its data.

    Attributes
    ----------
    module : torch.nn.Module
        Trained, batch norm folded, rescaled; 1x1x8x8 -> 1x10.
    easy : torch.nn.Module
        The same function before rescaling.
    train, test : ndarray
        (1297, 1, 8, 8) and (500, 1, 8, 8) float32, in 0..1; never the same digits.
    labels : ndarray
        Classes of `test`.
    """

    module: nn.Sequential
    easy: nn.Sequential
    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray


def _conv(inputs: int, outputs: int, kernel: int, groups: int = 1, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def _net() -> nn.Sequential:
    return nn.Sequential(
        *_conv(1, 32, 3),
        *_conv(32, 32, 3, groups=32),
        *_conv(32, 64, 1),
        *_conv(64, 64, 3, groups=64, stride=2),
        *_conv(64, 64, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def _train(net: nn.Module, images: np.ndarray, labels: np.ndarray) -> None:
    epochs, batch = 20, 64
    x, y = torch.tensor(images), torch.tensor(labels)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, epochs * -(-len(x) // batch))
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[chosen]), y[chosen], label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()


def _rescale(net: nn.Sequential, spread: float) -> None:
    """Multiply the output channels of each convolution by random factors, and divide the next layer's inputs by them."""
    layers = [m for m in net if isinstance(m, nn.Conv2d)]
    generator = torch.Generator().manual_seed(1)
    for first, second in pairwise(layers):
        factor = torch.exp((torch.rand(first.out_channels, generator=generator) * 2 - 1) * np.log(spread))
        first.weight.mul_(factor[:, None, None, None])
        first.bias.mul_(factor)
        second.weight.div_(factor[:, None, None, None] if second.groups > 1 else factor[None, :, None, None])


@cache
def hard_digits(spread: float = 7.0) -> HardDigits:
    """Train the net on scikit-learn's digits (some seconds) and rescale its channels by up to `spread`, up and down."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images[:, None] / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], data.target[order]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # many small steps: threads only wait for each other
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _net().train()
        _train(net, images[:1297], labels[:1297])
    torch.set_num_threads(threads)
    net.eval()

    def folded() -> nn.Sequential:
        layers: list[nn.Module] = []
        for layer in net:
            if isinstance(layer, nn.BatchNorm2d):
                layers[-1] = nn.utils.fuse_conv_bn_eval(layers[-1], layer)
            else:
                layers.append(layer)
        return nn.Sequential(*layers).eval()

    easy, hard = folded(), folded()
    with torch.no_grad():
        _rescale(hard, spread)
    return HardDigits(hard, easy, images[:1297], images[1297:], labels[1297:])
