"""Networks of the latency zoo that look at scenes: segmentation, depth, key points, detection and re-identification.

With the shapes of their papers and random weights; no package offers them as they were measured.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Conv(nn.Sequential):
    """Convolution, batch norm and activation; the size stays, but for the stride."""

    def __init__(
        self, i: int, o: int, kernel: int = 1, stride: int = 1, dilation: int = 1, act: type[nn.Module] = nn.ReLU
    ) -> None:
        pad = dilation * (kernel - 1) // 2
        super().__init__(nn.Conv2d(i, o, kernel, stride, pad, dilation, bias=False), nn.BatchNorm2d(o), act())


def _sized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+ (arXiv:1802.02611) on MobileNetV2 with output stride 16, given as its layers up to 320 channels."""

    def __init__(self, backbone: nn.Sequential, classes: int = 21) -> None:
        super().__init__()
        for block in list(backbone)[14:17]:  # dilation in place of the last stride
            for layer in block.modules():
                if isinstance(layer, nn.Conv2d) and layer.groups > 1:
                    layer.stride, layer.dilation, layer.padding = (1, 1), (2, 2), (2, 2)
        self.low, self.high = backbone[:4], backbone[4:]
        self.branches = nn.ModuleList([_Conv(320, 256), *(_Conv(320, 256, 3, dilation=r) for r in (6, 12, 18))])
        self.whole, self.joined = _Conv(320, 256), _Conv(1280, 256)
        self.skip = _Conv(24, 48)
        self.last = nn.Sequential(_Conv(304, 256, 3), _Conv(256, 256, 3), nn.Conv2d(256, classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Name the class of each pixel by its scores."""
        low = self.low(image)
        x = self.high(low)
        whole = _sized(self.whole(x.mean((2, 3), keepdim=True)), x)
        x = self.joined(torch.cat([*(branch(x) for branch in self.branches), whole], 1))
        return _sized(self.last(torch.cat([_sized(x, low), self.skip(low)], 1)), image)


class HrNetFace(nn.Module):
    """HRNetV2-W18 for the 29 landmarks of a face (arXiv:1908.07919)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("hrnet_w18", pretrained=False, exportable=True)
        del self.net.incre_modules, self.net.downsamp_modules, self.net.final_layer, self.net.classifier
        self.head = nn.Sequential(nn.Conv2d(270, 270, 1), nn.BatchNorm2d(270), nn.ReLU(), nn.Conv2d(270, 29, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Give the maps of landmarks."""
        n = self.net
        found = n.stages(n.act2(n.bn2(n.conv2(n.act1(n.bn1(n.conv1(image)))))))
        sized = [F.interpolate(x, size=found[0].shape[2:], mode="bilinear", align_corners=False) for x in found[1:]]
        out: Tensor = self.head(torch.cat([found[0], *sized], 1))
        return out


class _Refine(nn.Sequential):
    """Residual unit of RefineNet."""

    def __init__(self, c: int) -> None:
        super().__init__(nn.ReLU(), nn.Conv2d(c, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, c, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x) + x
        return out


class MidasSmall(nn.Module):
    """MiDaS v2.1 small for depth (arXiv:1907.01341), on EfficientNet-Lite3."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("tf_efficientnet_lite3", pretrained=False, exportable=True, features_only=True)
        wide = (64, 128, 256, 512)
        self.narrow = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in zip((32, 48, 136, 384), wide, strict=True)
        )
        self.skips = nn.ModuleList(_Refine(c) for c in wide[:-1])
        self.refine = nn.ModuleList(_Refine(c) for c in wide)
        self.out = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in zip(wide, (64, *wide[:-1]), strict=True))
        self.head, self.depth = nn.Conv2d(64, 32, 3, padding=1), nn.Conv2d(32, 1, 1)
        self.middle = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Give the depth of each pixel."""
        found = [layer(x) for layer, x in zip(self.narrow, self.net(image)[1:], strict=True)]
        x = found[3]
        for k in (3, 2, 1, 0):
            x = self.refine[k](x if k == 3 else x + self.skips[k](found[k]))
            x = self.out[k](F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
        x = F.interpolate(self.head(x), scale_factor=2, mode="bilinear", align_corners=False)
        return torch.relu(self.depth(torch.relu(self.middle(x))))


class _Csp(nn.Module):
    def __init__(self, i: int, o: int, count: int, add: bool) -> None:
        super().__init__()
        half = o // 2
        self.a, self.b, self.join = _silu(i, half), _silu(i, half), _silu(o, o)
        self.units = nn.ModuleList(nn.Sequential(_silu(half, half), _silu(half, half, 3)) for _ in range(count))
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        for unit in self.units:
            a = a + unit(a) if self.add else unit(a)
        out: Tensor = self.join(torch.cat([a, self.b(x)], 1))
        return out


def _silu(i: int, o: int, kernel: int = 1, stride: int = 1) -> _Conv:
    return _Conv(i, o, kernel, stride, act=nn.SiLU)


class YoloX(nn.Module):
    """YOLOX-S (arXiv:2107.08430), with its boxes decoded and the best score of each."""

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        self.stem = _silu(12, 32, 3)
        self.dark2 = nn.Sequential(_silu(32, 64, 3, 2), _Csp(64, 64, 1, add=True))
        self.dark3 = nn.Sequential(_silu(64, 128, 3, 2), _Csp(128, 128, 3, add=True))
        self.dark4 = nn.Sequential(_silu(128, 256, 3, 2), _Csp(256, 256, 3, add=True))
        self.dark5, self.spp = nn.Sequential(_silu(256, 512, 3, 2), _silu(512, 256)), _silu(1024, 512)
        self.deep = _Csp(512, 512, 1, add=False)
        self.lateral, self.top4 = _silu(512, 256), _Csp(512, 256, 1, add=False)
        self.reduce, self.top3 = _silu(256, 128), _Csp(256, 128, 1, add=False)
        self.down3, self.low4 = _silu(128, 128, 3, 2), _Csp(256, 256, 1, add=False)
        self.down4, self.low5 = _silu(256, 256, 3, 2), _Csp(512, 512, 1, add=False)
        self.stems = nn.ModuleList(_silu(c, 128) for c in (128, 256, 512))
        self.towers = nn.ModuleList(
            nn.ModuleList(nn.Sequential(_silu(128, 128, 3), _silu(128, 128, 3)) for _ in range(2)) for _ in range(3)
        )
        self.heads = nn.ModuleList(nn.ModuleList(nn.Conv2d(128, o, 1) for o in (classes, 4, 1)) for _ in range(3))

    def forward(self, image: Tensor) -> Any:
        """Give boxes, their best scores and which class that is of."""
        corners = [image[..., y::2, x::2] for x in (0, 1) for y in (0, 1)]
        x3 = self.dark3(self.dark2(self.stem(torch.cat(corners, 1))))
        x4 = self.dark4(x3)
        x = self.dark5(x4)
        x5 = self.deep(self.spp(torch.cat([x, *(F.max_pool2d(x, k, 1, k // 2) for k in (5, 9, 13))], 1)))
        lateral = self.lateral(x5)
        p4 = self.top4(torch.cat([F.interpolate(lateral, scale_factor=2.0), x4], 1))
        reduced = self.reduce(p4)
        p3 = self.top3(torch.cat([F.interpolate(reduced, scale_factor=2.0), x3], 1))
        n4 = self.low4(torch.cat([self.down3(p3), reduced], 1))
        n5 = self.low5(torch.cat([self.down4(n4), lateral], 1))
        rows = []
        for level, (x, stride) in enumerate(zip((p3, n4, n5), (8, 16, 32), strict=True)):
            x = self.stems[level](x)
            classes, boxes = (tower(x) for tower in self.towers[level])
            head = self.heads[level]
            place = torch.stack(torch.meshgrid(*map(torch.arange, x.shape[:1:-1]), indexing="xy"))[None].float()
            found = head[1](boxes)
            centre, size = (found[:, :2] + place) * stride, found[:, 2:].exp() * stride
            score = head[2](boxes).sigmoid() * head[0](classes).sigmoid()
            rows.append(torch.cat([centre - size / 2, centre + size / 2, score], 1).flatten(2))
        out = torch.cat(rows, 2).permute(0, 2, 1)
        score, which = out[..., 4:].max(-1)
        return out[..., :4], score, which.to(torch.int32)


class _Leaky(_Conv):
    def __init__(self, i: int, o: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(i, o, kernel, stride, act=lambda: nn.LeakyReLU(0.1))  # type: ignore[arg-type]


class _Elan(nn.Module):
    """Block of YOLOv7-tiny: four branches of growing depth, joined."""

    def __init__(self, i: int, half: int, o: int) -> None:
        super().__init__()
        self.a, self.b, self.join = _Leaky(i, half), _Leaky(i, half), _Leaky(4 * half, o)
        self.c, self.d = _Leaky(half, half, 3), _Leaky(half, half, 3)

    def forward(self, x: Tensor) -> Tensor:
        b = self.b(x)
        c = self.c(b)
        out: Tensor = self.join(torch.cat([self.d(c), c, b, self.a(x)], 1))
        return out


class YoloV7Tiny(nn.Module):
    """YOLOv7-tiny (arXiv:2207.02696), with its boxes decoded and the best score of each."""

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        self.stem = nn.Sequential(_Leaky(3, 32, 3, 2), _Leaky(32, 64, 3, 2), _Elan(64, 32, 64))
        self.p3, self.p4, self.p5 = (nn.Sequential(nn.MaxPool2d(2), _Elan(c, c, 2 * c)) for c in (64, 128, 256))
        self.spp = nn.ModuleList(_Leaky(i, 256) for i in (512, 512, 1024, 512))
        self.up4, self.side4, self.top4 = _Leaky(256, 128), _Leaky(256, 128), _Elan(256, 64, 128)
        self.up3, self.side3, self.top3 = _Leaky(128, 64), _Leaky(128, 64), _Elan(128, 32, 64)
        self.down4, self.low4 = _Leaky(64, 128, 3, 2), _Elan(256, 64, 128)
        self.down5, self.low5 = _Leaky(128, 256, 3, 2), _Elan(512, 128, 256)
        self.heads = nn.ModuleList(
            nn.Sequential(_Leaky(c, 2 * c, 3), nn.Conv2d(2 * c, 3 * (5 + classes), 1)) for c in (64, 128, 256)
        )

    def forward(self, image: Tensor) -> Any:
        """Give boxes, their best scores and which class that is of."""
        c3 = self.p3(self.stem(image))
        c4 = self.p4(c3)
        x = self.p5(c4)
        short, deep = self.spp[0](x), self.spp[1](x)
        pooled = [F.max_pool2d(deep, k, 1, k // 2) for k in (13, 9, 5)]
        c5 = self.spp[3](torch.cat([self.spp[2](torch.cat([*pooled, deep], 1)), short], 1))
        t4 = self.top4(torch.cat([self.side4(c4), F.interpolate(self.up4(c5), scale_factor=2.0)], 1))
        t3 = self.top3(torch.cat([self.side3(c3), F.interpolate(self.up3(t4), scale_factor=2.0)], 1))
        l4 = self.low4(torch.cat([self.down4(t3), t4], 1))
        l5 = self.low5(torch.cat([self.down5(l4), c5], 1))
        rows = []
        for x, head, stride in zip((t3, l4, l5), self.heads, (8, 16, 32), strict=True):
            out = head(x).unflatten(1, (3, -1)).permute(0, 1, 3, 4, 2).sigmoid()
            place = torch.stack(torch.meshgrid(*map(torch.arange, x.shape[:1:-1]), indexing="xy"), -1).float()
            centre = (out[..., :2] * 2 - 0.5 + place) * stride
            size = (
                (out[..., 2:4] * 2) ** 2
                * torch.tensor([[12.0, 16], [19, 36], [40, 28]])[None, :, None, None]
                * stride
                / 8
            )
            rows.append(
                torch.cat([centre - size / 2, centre + size / 2, out[..., 4:5] * out[..., 5:]], -1).flatten(1, 3)
            )
        found = torch.cat(rows, 1)
        score, which = found[..., 4:].max(-1)
        return found[..., :4], score, which.to(torch.int32)


class _Light(nn.Sequential):
    """A 1x1 convolution, then a depthwise 3x3 one."""

    def __init__(self, c: int) -> None:
        super().__init__(
            nn.Conv2d(c, c, 1, bias=False), nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False),
            nn.BatchNorm2d(c), nn.ReLU(),
        )  # fmt: skip


class _Scales(nn.Module):
    """Block of OSNet: four streams of one to four light convolutions, weighed by one gate."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        c = o // 4
        self.first = _Conv(i, c)
        self.streams = nn.ModuleList(nn.Sequential(*[_Light(c) for _ in range(n)]) for n in (1, 2, 3, 4))
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c // 16, 1), nn.ReLU(), nn.Conv2d(c // 16, c, 1), nn.Sigmoid()
        )
        self.last = _Conv(c, o, act=nn.Identity)
        self.short = _Conv(i, o, act=nn.Identity) if i != o else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        streams = [stream(y) for stream in self.streams]
        gated = [self.gate(s) * s for s in streams]
        return torch.relu(self.last(gated[0] + gated[1] + gated[2] + gated[3]) + self.short(x))


class OsNet(nn.Module):
    """OSNet x1.0 for telling people apart (arXiv:1905.00953); its classifier has parameters, but gives nothing."""

    def __init__(self) -> None:
        super().__init__()

        def smaller(c: int) -> nn.Module:
            return nn.Sequential(_Conv(c, c), nn.AvgPool2d(2))

        self.body = nn.Sequential(
            _Conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1),
            _Scales(64, 256), _Scales(256, 256), smaller(256),
            _Scales(256, 384), _Scales(384, 384), smaller(384),
            _Scales(384, 512), _Scales(512, 512), _Conv(512, 512),
        )  # fmt: skip
        self.last = nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU())
        self.classifier = nn.Linear(512, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Give what tells a person apart."""
        out: Tensor = self.last(self.body(image).mean((2, 3)))
        return out
