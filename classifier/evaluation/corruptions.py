"""Common image corruptions: noise, blur, weather and digital artefacts, in five severities.

The kinds and strengths of ImageNet-C, and those of CIFAR-10-C for images of up to 64 pixels (Hendrycks and Dietterich
2019), on batches; blur radii scale with the image size. Fog and snow are generated instead of overlaid from
photographs, so scores are close to, but not comparable with, the published benchmark. The same seed gives the same
images.
"""

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

MAX_SMALL_SIZE = 64
SEVERITIES = 5
GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "fog", "brightness"),
    "digital": ("contrast", "elastic", "pixelate", "jpeg"),
}
# Strengths by kind: for images of up to MAX_SMALL_SIZE pixels, and for larger ones.
_STRENGTHS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "gaussian_noise": ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": ((500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse_noise": ((0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": ((0.6, 0.8, 1.0, 1.3, 1.6), (3, 4, 6, 8, 10)),
    "motion_blur": ((2, 3, 3.5, 4, 5), (6, 9, 13, 17, 22)),
    "zoom_blur": ((1.06, 1.11, 1.16, 1.21, 1.26), (1.11, 1.16, 1.21, 1.26, 1.33)),
    "snow": ((0.1, 0.2, 0.3, 0.4, 0.5), (0.15, 0.3, 0.4, 0.5, 0.6)),
    "fog": ((0.2, 0.5, 0.75, 1.0, 1.5), (1.5, 2.0, 2.5, 2.7, 3.0)),
    "brightness": ((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic": ((0.4, 0.6, 0.8, 1.0, 1.3), (2.0, 3.0, 4.5, 6.0, 8.0)),
    "pixelate": ((0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}


def corrupt(images_NCHW: Tensor, kind: str, severity: int, *, seed: int = 0) -> Tensor:
    """Return the uint8 images with a corruption of severity 1 to 5."""
    size = images_NCHW.shape[-1]
    strength = _STRENGTHS[kind][size > MAX_SMALL_SIZE][severity - 1]
    generator = torch.Generator().manual_seed(seed)
    clean_NCHW = images_NCHW.float() / 255
    return (255 * _CORRUPTIONS[kind](clean_NCHW, strength, generator)).round().clamp(0, 255).to(torch.uint8)


def _gaussian_noise(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    return images + strength * torch.randn(images.shape, generator=generator)


def _shot_noise(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    return torch.poisson(images * strength, generator=generator) / strength


def _impulse_noise(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    u = torch.rand(images.shape, generator=generator)
    return torch.where(u < strength / 2, 0.0, torch.where(u > 1 - strength / 2, 1.0, images))


def _defocus_blur(images: Tensor, strength: float, _: torch.Generator) -> Tensor:
    radius = strength if images.shape[-1] <= MAX_SMALL_SIZE else strength * images.shape[-1] / 224
    reach = max(1, math.ceil(radius))
    along = torch.arange(-reach, reach + 1.0)
    disk = (radius + 0.5 - (along[:, None] ** 2 + along**2).sqrt()).clamp(0, 1)
    return _convolve(images, disk / disk.sum())


def _motion_blur(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    length = strength if images.shape[-1] <= MAX_SMALL_SIZE else strength * images.shape[-1] / 224
    angle = math.pi * (torch.rand((), generator=generator).item() - 0.5) / 2
    reach = max(1, math.ceil(length / 2))
    along = torch.arange(-reach, reach + 1.0)
    distance = (along[:, None] * math.cos(angle) - along * math.sin(angle)).abs()
    on_line = (1 - distance).clamp(min=0) * ((along[:, None] ** 2 + along**2).sqrt() <= reach)
    return _convolve(images, on_line / on_line.sum())


def _zoom_blur(images: Tensor, strength: float, _: torch.Generator) -> Tensor:
    height, width = images.shape[-2:]
    total = images.clone()
    steps = np.linspace(1.0, strength, 10)[1:]
    for step in steps:
        high, wide = math.ceil(height / step), math.ceil(width / step)
        top, left = (height - high) // 2, (width - wide) // 2
        part = images[..., top : top + high, left : left + wide]
        total += F.interpolate(part, (height, width), mode="bilinear")
    return total / (len(steps) + 1)


def _snow(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    flakes = torch.rand((count, 1, height, width), generator=generator)
    flakes = (flakes > 1 - 0.12 * strength).float()
    flakes = _motion_blur(flakes, max(2.0, 0.04 * width), generator) * 2.5
    grey = images.mean(1, keepdim=True)
    washed = 0.85 * images + 0.15 * torch.maximum(images, grey * 1.5 + 0.5)
    return washed + (0.4 + strength) * flakes.clamp(0, 1)


def _fog(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    highest = images.amax((1, 2, 3), keepdim=True)
    fog = _plasma_fractal(len(images), images.shape[-1], generator)
    return (images + strength * fog) * highest / (highest + strength)


def _brightness(images: Tensor, strength: float, _: torch.Generator) -> Tensor:
    value = images.amax(1, keepdim=True)  # of HSV
    return images * ((value + strength).clamp(max=1) / value.clamp(min=1e-3)) + (value < 1e-3) * strength


def _contrast(images: Tensor, strength: float, _: torch.Generator) -> Tensor:
    mean = images.mean((2, 3), keepdim=True)
    return (images - mean) * strength + mean


def _elastic(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    amplitude = strength if width <= MAX_SMALL_SIZE else strength * width / 224
    coarse = torch.randn((count, 2, max(3, height // 8), max(3, width // 8)), generator=generator)
    shift = F.interpolate(coarse, (height, width), mode="bicubic") * amplitude
    grid = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), [count, 1, height, width], align_corners=False)
    scale = torch.tensor([2 / width, 2 / height])
    return F.grid_sample(
        images, grid + shift.permute(0, 2, 3, 1) * scale, padding_mode="reflection", align_corners=False
    )


def _pixelate(images: Tensor, strength: float, _: torch.Generator) -> Tensor:
    height, width = images.shape[-2:]
    small = F.interpolate(images, (max(1, int(height * strength)), max(1, int(width * strength))), mode="area")
    return F.interpolate(small, (height, width), mode="nearest")


def _jpeg(images: Tensor, strength: int, _: torch.Generator) -> Tensor:
    compressed = []
    for image in (255 * images).round().clamp(0, 255).to(torch.uint8):
        pixels = image.permute(1, 2, 0).numpy()
        stream = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(stream, "JPEG", quality=strength)
        decoded = np.asarray(Image.open(stream), np.float32) / 255
        compressed.append(torch.from_numpy(decoded.reshape(pixels.shape)).permute(2, 0, 1))
    return torch.stack(compressed)


def _convolve(images: Tensor, kernel: Tensor) -> Tensor:
    reach = kernel.shape[-1] // 2
    reach_in = min(reach, images.shape[-1] - 1)
    kernel = kernel[reach - reach_in : reach + reach_in + 1, reach - reach_in : reach + reach_in + 1]
    padded = F.pad(images, (reach_in,) * 4, mode="reflect")
    channels = images.shape[1]
    return F.conv2d(padded, (kernel / kernel.sum()).expand(channels, 1, *kernel.shape), groups=channels)


def _plasma_fractal(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Return clouds in [0, 1]: noise at every scale, with half the amplitude of the next coarser scale."""
    total, weight, cells = torch.zeros(count, 1, size, size), 1.0, 2
    while cells <= size:
        noise = torch.rand((count, 1, cells, cells), generator=generator)
        total += weight * F.interpolate(noise, (size, size), mode="bicubic")
        weight, cells = weight / 2, 2 * cells
    low, high = total.amin((1, 2, 3), keepdim=True), total.amax((1, 2, 3), keepdim=True)
    return (total - low) / (high - low).clamp(min=1e-6)


_CORRUPTIONS: dict[str, Callable[[Tensor, Any, torch.Generator], Tensor]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic": _elastic,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}
