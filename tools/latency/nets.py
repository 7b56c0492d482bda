"""Networks of the latency zoo that no package offers, with the shapes of their papers and random weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class QuickSRNet(nn.Module):
    """QuickSRNet for 4x super-resolution, with its residual folded into the convolutions (arXiv:2303.04336)."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.Hardtanh(0, 1)]
        for _ in range(depth):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.Hardtanh(0, 1)]
        self.net = nn.Sequential(*layers, nn.Conv2d(channels, 48, 3, padding=1), nn.PixelShuffle(4), nn.Hardtanh(0, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge an image."""
        out: Tensor = self.net(image)
        return out


class _LinearBlock(nn.Module):
    """A convolution of SESR before it is folded: widened to 256 channels, and narrowed again."""

    def __init__(self, i: int, o: int, kernel: int) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(i, 256, kernel, padding=kernel // 2, bias=False), nn.Conv2d(256, o, 1)
        self.residual = i == o

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.narrow(self.wide(x))
        return y + x if self.residual else y


class SESR(nn.Module):
    """SESR-M5 (arXiv:2103.09404) with its linear blocks as trained: the measured one has their 343 thousand parameters."""

    def __init__(self, depth: int = 5, channels: int = 16) -> None:
        super().__init__()
        self.first, self.act = _LinearBlock(3, channels, 5), nn.PReLU(channels)
        block = [nn.Sequential(_LinearBlock(channels, channels, 3), nn.PReLU(channels)) for _ in range(depth)]
        self.middle, self.last = nn.Sequential(*block), _LinearBlock(channels, 48, 5)

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge an image."""
        x = self.act(self.first(image))
        return F.pixel_shuffle(self.last(self.middle(x) + x) + image.repeat(1, 16, 1, 1), 4)


class SRVGG(nn.Module):
    """SRVGGNetCompact of Real-ESRGAN, general x4 v3."""

    def __init__(self, channels: int = 64, depth: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.PReLU(channels)]
        for _ in range(depth):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(channels)]
        self.body = nn.Sequential(*layers, nn.Conv2d(channels, 48, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge an image."""
        return F.pixel_shuffle(self.body(image), 4) + F.interpolate(image, scale_factor=4, mode="nearest")


class _DenseBlock(nn.Module):
    def __init__(self, channels: int = 64, growth: int = 32) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels + i * growth, growth if i < 4 else channels, 3, padding=1) for i in range(5)
        )

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for i, conv in enumerate(self.convs):
            y = conv(torch.cat(found, 1))
            found.append(F.leaky_relu(y, 0.2) if i < 4 else y)
        return found[-1] * 0.2 + x


class _Rrdb(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[_DenseBlock() for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blocks(x) * 0.2 + x
        return out


class RRDBNet(nn.Module):
    """Generator of ESRGAN and Real-ESRGAN x4 (arXiv:1809.00219)."""

    def __init__(self, blocks: int = 23, channels: int = 64) -> None:
        super().__init__()
        self.first, self.body = nn.Conv2d(3, channels, 3, padding=1), nn.Sequential(*[_Rrdb() for _ in range(blocks)])
        self.after, self.up1, self.up2, self.high = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(4))
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge an image."""
        x = self.first(image)
        x = x + self.after(self.body(x))
        for up in (self.up1, self.up2):
            x = F.leaky_relu(up(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        out: Tensor = self.last(F.leaky_relu(self.high(x), 0.2))
        return out


class SRResNet(nn.Module):
    """Generator of SRGAN (arXiv:1609.04802)."""

    def __init__(self, blocks: int = 16, channels: int = 64) -> None:
        super().__init__()

        def conv(to: int = channels) -> nn.Conv2d:
            return nn.Conv2d(channels, to, 3, padding=1)

        self.first, self.act = nn.Conv2d(3, channels, 9, padding=4), nn.PReLU()
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(), nn.BatchNorm2d(channels), nn.PReLU(), conv(), nn.BatchNorm2d(channels))
            for _ in range(blocks)
        )
        self.after = nn.Sequential(conv(), nn.BatchNorm2d(channels))
        ups = [layer for _ in range(2) for layer in (conv(4 * channels), nn.PixelShuffle(2), nn.PReLU())]
        self.up, self.last = nn.Sequential(*ups), nn.Conv2d(channels, 3, 9, padding=4)

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge an image."""
        x = first = self.act(self.first(image))
        for block in self.blocks:
            x = x + block(x)
        out: Tensor = self.last(self.up(self.after(x) + first))
        return out


class DnCNN(nn.Module):
    """DnCNN for grey images (arXiv:1608.03981)."""

    def __init__(self, depth: int = 17, channels: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """Take the noise out."""
        out: Tensor = image - self.net(image)
        return out


class _U2Conv(nn.Sequential):
    def __init__(self, i: int, o: int, dilation: int = 1) -> None:
        super().__init__(nn.Conv2d(i, o, 3, padding=dilation, dilation=dilation), nn.BatchNorm2d(o), nn.ReLU())


def _larger(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


class _Rsu(nn.Module):
    """Residual U-block of U2-Net; with `flat`, dilation in place of pooling."""

    def __init__(self, depth: int, i: int, mid: int, o: int, flat: bool = False) -> None:
        super().__init__()
        self.flat, self.first = flat, _U2Conv(i, o)
        rates = [2**k for k in range(depth - 1)] if flat else [1] * (depth - 1)
        self.down = nn.ModuleList(_U2Conv(o if k == 0 else mid, mid, rates[k]) for k in range(depth - 1))
        self.bottom = _U2Conv(mid, mid, 2 ** (depth - 1) if flat else 2)
        self.up = nn.ModuleList(_U2Conv(2 * mid, o if k == 0 else mid, rates[k]) for k in range(depth - 1))

    def forward(self, x: Tensor) -> Tensor:
        first = x = self.first(x)
        found: list[Tensor] = []
        for k, layer in enumerate(self.down):
            x = layer(x if self.flat or k == 0 else F.max_pool2d(x, 2, ceil_mode=True))
            found.append(x)
        x = self.bottom(x)
        for layer, skip in zip(reversed(self.up), reversed(found), strict=True):
            x = layer(torch.cat([x if self.flat else _larger(x, skip), skip], 1))
        return x + first


class U2Net(nn.Module):
    """U2-Net for saliency (arXiv:2005.09007)."""

    def __init__(self) -> None:
        super().__init__()
        down = [(7, 3, 32, 64), (6, 64, 32, 128), (5, 128, 64, 256), (4, 256, 128, 512)]
        up = [(7, 128, 16, 64), (6, 256, 32, 64), (5, 512, 64, 128), (4, 1024, 128, 256)]
        self.down = nn.ModuleList(_Rsu(*shape) for shape in down)
        self.down.extend([_Rsu(4, 512, 256, 512, flat=True), _Rsu(4, 512, 256, 512, flat=True)])
        self.up = nn.ModuleList([*(_Rsu(*shape) for shape in up), _Rsu(4, 1024, 256, 512, flat=True)])
        self.side = nn.ModuleList(nn.Conv2d(c, 1, 3, padding=1) for c in (64, 64, 128, 256, 512, 512))
        self.out = nn.Conv2d(6, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Mark what stands out."""
        x, found = image, []
        for k, block in enumerate(self.down):
            x = block(x if k == 0 else F.max_pool2d(x, 2, ceil_mode=True))
            found.append(x)
        sides = [x]
        for block, skip in zip(reversed(self.up), reversed(found[:-1]), strict=True):
            x = block(torch.cat([_larger(x, skip), skip], 1))
            sides.append(x)
        maps = [_larger(head(s), image) for head, s in zip(self.side, reversed(sides), strict=True)]
        return torch.sigmoid(self.out(torch.cat(maps, 1)))


class _NormChannels(nn.Module):
    """Layer norm over channels, as NAFNet has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


class _NafBlock(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _NormChannels(c), _NormChannels(c)
        self.a, self.dw = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.attention, self.b = nn.Conv2d(c, c, 1), nn.Conv2d(c, c, 1)
        self.d, self.e = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(c, c, 1)
        self.beta, self.gamma = (nn.Parameter(torch.full((1, c, 1, 1), 0.1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.dw(self.a(self.norm1(x))).chunk(2, 1)
        y = a * b
        x = x + self.b(y * self.attention(y.mean((2, 3), keepdim=True))) * self.beta
        a, b = self.d(self.norm2(x)).chunk(2, 1)
        return x + self.e(a * b) * self.gamma


class NAFNet(nn.Module):
    """NAFNet for restoration (arXiv:2204.04676)."""

    def __init__(self, down: tuple[int, ...], middle: int, up: tuple[int, ...], width: int = 64) -> None:
        super().__init__()
        wide = [width * 2**k for k in range(len(down) + 1)]
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.encoders = nn.ModuleList(nn.Sequential(*[_NafBlock(w) for _ in range(n)]) for w, n in zip(wide, down))  # noqa: B905
        self.downs = nn.ModuleList(nn.Conv2d(w, 2 * w, 2, 2) for w in wide[:-1])
        self.middle = nn.Sequential(*[_NafBlock(wide[-1]) for _ in range(middle)])
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * w, 4 * w, 1, bias=False), nn.PixelShuffle(2)) for w in reversed(wide[:-1])
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(*[_NafBlock(w) for _ in range(n)]) for w, n in zip(reversed(wide[:-1]), up, strict=True)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Restore an image."""
        height, width = image.shape[2:]
        step = 2 ** len(self.downs)
        image = F.pad(image, (0, -width % step, 0, -height % step))
        x, found = self.first(image), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            found.append(x)
            x = down(x)
        x = self.middle(x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(found), strict=True):
            x = decoder(up(x) + skip)
        out: Tensor = (self.last(x) + image)[:, :, :height, :width]
        return out


class _Separable(nn.Sequential):
    def __init__(self, i: int, o: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(i, i, 3, stride, dilation, dilation, groups=i, bias=False), nn.BatchNorm2d(i), nn.ReLU6(),
            nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU6(),
        )  # fmt: skip


class MobileNetV1(nn.Module):
    """MobileNet v1 (arXiv:1704.04861): as YamNet on a spectrogram, or with the four heads of PoseNet."""

    def __init__(self, channels: int, classes: int = 0, heads: tuple[int, ...] = ()) -> None:
        super().__init__()
        plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
        layers: list[nn.Module] = [nn.Conv2d(channels, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
        wide, total = 32, 2
        for o, stride in plan:
            if heads and total * stride > 16:  # output stride 16: dilation in place of the last stride
                layers.append(_Separable(wide, o, 1, 1 if stride == 2 else 2))
            else:
                layers.append(_Separable(wide, o, stride))
                total *= stride
            wide = o
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Conv2d(1024, o, 1) for o in heads)
        self.classifier = nn.Linear(1024, classes) if classes else nn.Identity()

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Classify, or give the maps of each head."""
        x = self.body(image)
        if self.heads:
            return [head(x) for head in self.heads]
        scores: Tensor = torch.sigmoid(self.classifier(x.mean((2, 3))))
        return scores


class _IrSe(nn.Module):
    """Residual unit with squeeze-and-excitation of ArcFace's IR-SE networks."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.short = (
            nn.MaxPool2d(1, stride) if i == o
            else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
        )  # fmt: skip
        self.main = nn.Sequential(
            nn.BatchNorm2d(i), nn.Conv2d(i, o, 3, 1, 1, bias=False), nn.PReLU(o),
            nn.Conv2d(o, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o),
        )  # fmt: skip
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(o, o // 16, 1, bias=False), nn.ReLU(),
            nn.Conv2d(o // 16, o, 1, bias=False), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.main(x)
        out: Tensor = y * self.gate(y) + self.short(x)
        return out


class IrSe100(nn.Module):
    """ArcFace's IR-SE-100 for faces (arXiv:1801.07698)."""

    def __init__(self) -> None:
        super().__init__()
        units: list[nn.Module] = []
        wide = 64
        for o, count in ((64, 3), (128, 13), (256, 30), (512, 3)):
            for k in range(count):
                units.append(_IrSe(wide, o, 2 if k == 0 else 1))
                wide = o
        self.first = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        self.body = nn.Sequential(*units)
        self.last = nn.Sequential(nn.BatchNorm2d(512), nn.Flatten(), nn.Linear(512 * 49, 512), nn.BatchNorm1d(512))

    def forward(self, image: Tensor) -> Tensor:
        """Give the embedding of a face."""
        out: Tensor = self.last(self.body(self.first(image)))
        return out
