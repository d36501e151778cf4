"""The project's own small nets, for images from 4 pixels up, grey or colour.

Each pools only while the image is large enough, and halves an image of 64 pixels or more at once, so that the cost
stays near that of a small image. `norm` none gives nets without any statistics: each image is on its own.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from classifier.models.head import DroppingLinear


class Cnn(nn.Module):
    """The textbook net: convolution and pooling three times, one dense layer, the head. Logits (N, K)."""

    def __init__(self, *, classes: int, channels: int, size: int, norm: str, dropout: float, width: int = 32) -> None:
        super().__init__()
        self.stem, channels, side = _stem(channels, width // 2, size, norm)
        layers: list[nn.Module] = []
        for out in (width, 2 * width, 4 * width):
            layers.append(ConvNorm(channels, out, norm))
            channels = out
            if side >= 4:
                layers.append(nn.MaxPool2d(2))
                side //= 2
        self.features = nn.Sequential(*layers)
        self.dense = nn.Linear(channels * side * side, 4 * width)
        self.head = _head(4 * width, classes, dropout)
        _initialise(self)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        features_NCHW = self.features(self.stem(images_NCHW))
        return self.head(F.relu(self.dense(features_NCHW.flatten(1))))


class ResNet9(nn.Module):
    """Eight convolutions, two residual blocks and a head: the net of the DAWNBench entries for CIFAR-10. Logits (N, K).

    Source: D. Page, "How to train your ResNet" (2018). The last pooling takes the maximum over all places.
    """

    def __init__(self, *, classes: int, channels: int, size: int, norm: str, dropout: float, width: int) -> None:
        super().__init__()
        self.stem, channels, side = _stem(channels, width, size, norm)
        layers: list[nn.Module] = [ConvNorm(channels, width, norm)]
        for before, after, is_residual in ((1, 2, True), (2, 4, False), (4, 8, True)):
            layers.append(ConvNorm(before * width, after * width, norm))
            if side >= 4:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            if is_residual:
                layers.append(Residual(after * width, norm))
        self.features = nn.Sequential(*layers)
        self.head = _head(8 * width, classes, dropout)
        _initialise(self)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        features_NCHW = self.features(self.stem(images_NCHW))
        return self.head(features_NCHW.amax((2, 3)))


class Plain7(nn.Module):
    """Six convolutions in a row, the maximum over all places, a head; nothing is added or joined. Logits (N, K).

    Made for a CPU: the second convolution halves the image at once, pooling comes before the normalisation, and what
    is wide is small. At 28 pixels and width 32 it costs 16 million multiplications an image.
    """

    def __init__(self, *, classes: int, channels: int, size: int, norm: str, dropout: float, width: int) -> None:
        super().__init__()
        self.stem, channels, side = _stem(channels, width // 2, size, norm)
        layers: list[nn.Module] = [PooledConv(channels, 16, norm, stride=1, pool=1)]
        channels = 16
        for out, shrink in (
            (width, "stride"),
            (2 * width, "pool"),
            (3 * width, ""),
            (3 * width, "pool"),
            (6 * width, ""),
        ):
            smaller = side >= 6 and shrink != ""
            stride, pool = (2 if smaller and shrink == kind else 1 for kind in ("stride", "pool"))
            layers.append(PooledConv(channels, out, norm, stride=stride, pool=pool))
            channels, side = out, (side + 1) // 2 if stride == 2 else side // pool
        self.features = nn.Sequential(*layers)
        self.head = _head(channels, classes, dropout)
        _initialise(self)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(self.stem(images_NCHW)).amax((2, 3)))


class VitTiny(nn.Module):
    """A small vision transformer: up to 8 x 8 patches, learned positions, the mean token. Logits (N, K).

    Two convolutions come before the patches, without which a few thousand images teach it little: on the 8-pixel
    digits, 15 epochs, 98.0 % with them and under 55 % without. Sources: Dosovitskiy et al. (2020), arXiv:2010.11929;
    Xiao et al. (2021), arXiv:2106.14881 (convolutions first); Beyer et al. (2022), arXiv:2205.01580 (the mean token).
    """

    def __init__(
        self,
        *,
        classes: int,
        channels: int,
        size: int,
        norm: str,
        dropout: float,
        width: int = 128,
        depth: int = 6,
    ) -> None:
        super().__init__()
        stem, channels, side = _stem(channels, width // 4, size, norm)
        self.stem = nn.Sequential(*stem, ConvNorm(channels, width // 4, norm), ConvNorm(width // 4, width // 2, norm))
        patch = max(2, round(side / 8))
        grid = math.ceil(side / patch)
        self.padding = grid * patch - side
        self.patches = nn.Conv2d(width // 2, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, grid * grid, width))
        self.blocks = nn.Sequential(*(Block(width, heads=width // 32) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = _head(width, classes, dropout)
        _initialise(self)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
        nn.init.normal_(self.positions, std=0.5)  # as large as the patches, or attention cannot tell places apart

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        features_NCHW = F.pad(self.stem(images_NCHW), (0, self.padding, 0, self.padding))
        tokens_NTD = self.patches(features_NCHW).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(tokens_NTD)).mean(1))


class Block(nn.Module):
    """Attention, then a perceptron, each added to tokens (N, T, D) after its own layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, tokens_NTD: torch.Tensor) -> torch.Tensor:
        joint = self.queries_keys_values(self.norm1(tokens_NTD)).unflatten(2, (3, self.heads, -1))
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        attended_NTD = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens_NTD = tokens_NTD + self.mixed(attended_NTD)
        return tokens_NTD + self.perceptron(self.norm2(tokens_NTD))


class ConvNorm(nn.Sequential):
    """A 3 x 3 convolution, the normalisation, ReLU."""

    def __init__(self, channels: int, out: int, norm: str, stride: int = 1) -> None:
        conv = nn.Conv2d(channels, out, 3, stride, padding=1, bias=norm == "none")
        super().__init__(conv, *_norm(out, norm), nn.ReLU())


class PooledConv(nn.Sequential):
    """A 3 x 3 convolution, max pooling, the normalisation, ReLU."""

    def __init__(self, channels: int, out: int, norm: str, *, stride: int, pool: int) -> None:
        conv = nn.Conv2d(channels, out, 3, stride, padding=1, bias=norm == "none")
        pooling = [nn.MaxPool2d(pool)] if pool > 1 else []
        super().__init__(conv, *pooling, *_norm(out, norm), nn.ReLU())


class Residual(nn.Module):
    """x + f(x) with two convolutions in f.

    Without normalisation f has a gain that begins at 0, so that signals do not grow with depth: SkipInit,
    De & Smith (2020), arXiv:2002.10444.
    """

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.block = nn.Sequential(ConvNorm(width, width, norm), ConvNorm(width, width, norm))
        self.gain = nn.Parameter(torch.zeros(1)) if norm == "none" else None

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        added_NCHW = self.block(x_NCHW)
        return x_NCHW + (added_NCHW if self.gain is None else self.gain * added_NCHW)


def _stem(channels: int, width: int, size: int, norm: str) -> tuple[nn.Sequential, int, int]:
    """Strided convolutions until fewer than 64 pixels are left; with the channels and the side that come out."""
    layers = []
    while size >= 64:
        layers.append(ConvNorm(channels, width, norm, stride=2))
        channels, size = width, (size + 1) // 2
    return nn.Sequential(*layers), channels, size


def _norm(width: int, norm: str) -> list[nn.Module]:
    if norm == "none":
        return []
    if norm == "batch":
        return [nn.BatchNorm2d(width)]
    groups = next(count for count in range(max(1, width // 16), 0, -1) if width % count == 0)
    return [nn.GroupNorm(groups, width)]


def _head(width: int, classes: int, dropout: float) -> nn.Linear:
    layer = nn.Linear(width, classes)
    return DroppingLinear(layer, dropout) if dropout else layer


def _initialise(model: nn.Module) -> None:
    """He's normal weights, no biases, and a head that begins by calling all classes alike likely."""
    *_, head = (m for m in model.modules() if isinstance(m, nn.Linear))
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.zeros_(head.weight)


def cnn(*, classes: int, channels: int, size: int, norm: str, dropout: float) -> nn.Module:
    """0.2 million parameters at 28 pixels."""
    return Cnn(classes=classes, channels=channels, size=size, norm=norm, dropout=dropout)


def plain7_32(*, classes: int, channels: int, size: int, norm: str, dropout: float) -> nn.Module:
    """0.3 million parameters."""
    return Plain7(classes=classes, channels=channels, size=size, norm=norm, dropout=dropout, width=32)


def plain7_40(*, classes: int, channels: int, size: int, norm: str, dropout: float) -> nn.Module:
    """0.5 million parameters."""
    return Plain7(classes=classes, channels=channels, size=size, norm=norm, dropout=dropout, width=40)


def resnet9_16(*, classes: int, channels: int, size: int, norm: str, dropout: float) -> nn.Module:
    """0.4 million parameters."""
    return ResNet9(classes=classes, channels=channels, size=size, norm=norm, dropout=dropout, width=16)


def resnet9_32(*, classes: int, channels: int, size: int, norm: str, dropout: float) -> nn.Module:
    """1.6 million parameters."""
    return ResNet9(classes=classes, channels=channels, size=size, norm=norm, dropout=dropout, width=32)


def resnet9_64(*, classes: int, channels: int, size: int, norm: str, dropout: float) -> nn.Module:
    """6.6 million parameters."""
    return ResNet9(classes=classes, channels=channels, size=size, norm=norm, dropout=dropout, width=64)


def vit_tiny(*, classes: int, channels: int, size: int, norm: str, dropout: float) -> nn.Module:
    """1 million parameters. `norm` is for its convolutions; the transformer has layer norms in any case."""
    return VitTiny(classes=classes, channels=channels, size=size, norm=norm, dropout=dropout)
