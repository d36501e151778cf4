"""The project's own small networks, for greyscale or colour images from 4 pixels up.

They pool only while the feature map is large enough. Images of 64 pixels or more are downsampled first, so that they
cost little more than small ones. With `norm` none no statistics are shared: each image is processed independently.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from classifier.models.head import DropoutLinear


class Cnn(nn.Module):
    """The textbook CNN: three times convolution and pooling, one dense layer, the head. Logits (N, K)."""

    def __init__(self, *, classes: int, channels: int, size: int, norm: str, dropout: float, width: int = 32) -> None:
        super().__init__()
        self.stem, channels, map_size = _stem(channels, width // 2, size, norm)
        layers: list[nn.Module] = []
        for out in (width, 2 * width, 4 * width):
            layers.append(ConvNorm(channels, out, norm))
            channels = out
            if map_size >= 4:
                layers.append(nn.MaxPool2d(2))
                map_size //= 2
        self.features = nn.Sequential(*layers)
        self.dense = nn.Linear(channels * map_size * map_size, 4 * width)
        self.head = _head(4 * width, classes, dropout)
        _initialise(self)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        features_NCHW = self.features(self.stem(images_NCHW))
        return self.head(F.relu(self.dense(features_NCHW.flatten(1))))


class ResNet9(nn.Module):
    """Eight convolutions, half of them in two residual blocks, and a head, as in DAWNBench for CIFAR-10. Logits (N, K).

    Source: D. Page, "How to train your ResNet" (2018). The last pooling is global max pooling.
    """

    def __init__(self, *, classes: int, channels: int, size: int, norm: str, dropout: float, width: int) -> None:
        super().__init__()
        self.stem, channels, map_size = _stem(channels, width, size, norm)
        layers: list[nn.Module] = [ConvNorm(channels, width, norm)]
        for before, after, is_residual in ((1, 2, True), (2, 4, False), (4, 8, True)):
            layers.append(ConvNorm(before * width, after * width, norm))
            if map_size >= 4:
                layers.append(nn.MaxPool2d(2))
                map_size //= 2
            if is_residual:
                layers.append(Residual(after * width, norm))
        self.features = nn.Sequential(*layers)
        self.head = _head(8 * width, classes, dropout)
        _initialise(self)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        features_NCHW = self.features(self.stem(images_NCHW))
        return self.head(features_NCHW.amax((2, 3)))


class Plain7(nn.Module):
    """Six convolutions in a row, global max pooling and a head; no skip connections. Logits (N, K).

    Made for CPUs: the second convolution already downsamples, pooling comes before normalisation, and wide layers have
    small maps. At 28 pixels and width 32 it costs 16 million multiplications per image.
    """

    def __init__(self, *, classes: int, channels: int, size: int, norm: str, dropout: float, width: int) -> None:
        super().__init__()
        self.stem, channels, map_size = _stem(channels, width // 2, size, norm)
        layers: list[nn.Module] = [PooledConv(channels, 16, norm, stride=1, pool=1)]
        channels = 16
        for out, shrink in (
            (width, "stride"),
            (2 * width, "pool"),
            (3 * width, ""),
            (3 * width, "pool"),
            (6 * width, ""),
        ):
            smaller = map_size >= 6 and shrink != ""
            stride, pool = (2 if smaller and shrink == kind else 1 for kind in ("stride", "pool"))
            layers.append(PooledConv(channels, out, norm, stride=stride, pool=pool))
            channels, map_size = out, (map_size + 1) // 2 if stride == 2 else map_size // pool
        self.features = nn.Sequential(*layers)
        self.head = _head(channels, classes, dropout)
        _initialise(self)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(self.stem(images_NCHW)).amax((2, 3)))


class VitTiny(nn.Module):
    """A small vision transformer: up to 8 x 8 patches, learned positions, mean pooling. Logits (N, K).

    Two convolutions come before the patches; without them it learns little from a few thousand images (8-pixel digits,
    15 epochs: 98.0 % with them, under 55 % without). Sources: Dosovitskiy et al. (2020), arXiv:2010.11929; Xiao et al.
    (2021), arXiv:2106.14881 (early convolutions); Beyer et al. (2022), arXiv:2205.01580 (mean pooling).
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
        stem, channels, map_size = _stem(channels, width // 4, size, norm)
        self.stem = nn.Sequential(*stem, ConvNorm(channels, width // 4, norm), ConvNorm(width // 4, width // 2, norm))
        patch = max(2, round(map_size / 8))
        grid = math.ceil(map_size / patch)
        self.padding = grid * patch - map_size
        self.patches = nn.Conv2d(width // 2, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, grid * grid, width))
        self.blocks = nn.Sequential(*(Block(width, heads=width // 32) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = _head(width, classes, dropout)
        _initialise(self)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
        nn.init.normal_(self.positions, std=0.5)  # as large as the patches', or attention cannot tell positions apart

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        features_NCHW = F.pad(self.stem(images_NCHW), (0, self.padding, 0, self.padding))
        tokens_NTD = self.patches(features_NCHW).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(tokens_NTD)).mean(1))


class Block(nn.Module):
    """A pre-norm transformer block for tokens (N, T, D): self-attention, then an MLP, each with a residual."""

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
    """A 3 x 3 convolution, normalisation, ReLU."""

    def __init__(self, channels: int, out: int, norm: str, stride: int = 1) -> None:
        conv = nn.Conv2d(channels, out, 3, stride, padding=1, bias=norm == "none")
        super().__init__(conv, *_norm(out, norm), nn.ReLU())


class PooledConv(nn.Sequential):
    """A 3 x 3 convolution, max pooling, normalisation, ReLU."""

    def __init__(self, channels: int, out: int, norm: str, *, stride: int, pool: int) -> None:
        conv = nn.Conv2d(channels, out, 3, stride, padding=1, bias=norm == "none")
        pooling = [nn.MaxPool2d(pool)] if pool > 1 else []
        super().__init__(conv, *pooling, *_norm(out, norm), nn.ReLU())


class Residual(nn.Module):
    """x + f(x) with two convolutions in f.

    Without normalisation f is scaled by a gain that starts at 0, so that activations do not grow with depth: SkipInit,
    De & Smith (2020), arXiv:2002.10444.
    """

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.block = nn.Sequential(ConvNorm(width, width, norm), ConvNorm(width, width, norm))
        self.gain = nn.Parameter(torch.zeros(1)) if norm == "none" else None

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        residual_NCHW = self.block(x_NCHW)
        return x_NCHW + (residual_NCHW if self.gain is None else self.gain * residual_NCHW)


def _stem(channels: int, width: int, size: int, norm: str) -> tuple[nn.Sequential, int, int]:
    """Return strided convolutions that leave fewer than 64 pixels, with their output channels and size."""
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
    return DropoutLinear(layer, dropout) if dropout else layer


def _initialise(model: nn.Module) -> None:
    """He normal weights, zero biases, and a zero head: at first all classes are equally likely."""
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
    """1 million parameters. `norm` is for its convolutions; the transformer always has layer norms."""
    return VitTiny(classes=classes, channels=channels, size=size, norm=norm, dropout=dropout)
