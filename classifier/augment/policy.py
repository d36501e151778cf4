"""What is done to training images: the table of policies, and the functions that carry a resolved one out.

Cost for 60,000 grey images of 28 x 28 in batches of 256, one core of an AMD EPYC: flip and shift 0.12 s, with erasing
0.28 s; the symbols' warp 0.4 s; MixUp or CutMix 0.27 s; TrivialAugment 0.5 s; RandAugment 0.6 s a layer.
"""

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor

from classifier.augment import auto, colour, geometry, mix
from classifier.augment.streams import Stream
from classifier.config.sections import AugmentConfig
from classifier.errors import ConfigError
from classifier.runtime import counter_rng

_OFF: dict[str, Any] = {
    "flip": 0.0,
    "rotate": 0.0,
    "scale": 0.0,
    "shear": 0.0,
    "shift": 0.0,
    "crop": 1.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
    "erase": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "randaugment": 0,
    "magnitude": 9,
    "trivial": False,
}
POLICIES: dict[str, dict[str, Any]] = {
    "none": _OFF,
    # Digits and letters: mirrored, many are other symbols or none; so are 6 and 9 when turned far.
    # They come centred, and large shifts cost accuracy (8 x 8 digits, a pixel either way: 98.8 instead of 99.5 %).
    "symbols": _OFF | {"rotate": 10.0, "scale": 0.1, "shear": 8.0, "shift": 0.04},
    # Small centred things, and small photographs: whole pixels are copied, as blur would cost their little detail.
    "objects": _OFF | {"flip": 0.5, "shift": 0.08, "erase": 0.25},
    # Photographs: what matters has any size and place, and light differs. Hue is left alone, as it often is the answer.
    "photos": _OFF | {"flip": 0.5, "crop": 0.35, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
}
# What augment.strength multiplies, and where it ends. A crop's strength is the share of the area that it may cut away.
_STRENGTHS = ("rotate", "scale", "shear", "shift", "brightness", "contrast", "saturation", "hue", "erase")
_LARGEST = dict.fromkeys(_STRENGTHS, 1.0) | {"rotate": 180.0, "scale": 0.9, "shear": 60.0, "shift": 0.5, "hue": 0.5}
_SMALLEST_CROP = 0.05
# Photographs of at most so many pixels a side are treated as objects: to crop and stretch them would blur them.
_SMALL = 40
# Values that are normalised at a time on a CPU.
_AT_ONCE = 1 << 18
# Images of so many pixels a side are cropped one by one on a CPU: a call costs less than it saves.
_WORTH_A_CALL = 64
_COLOUR_ONLY = ("saturation", "hue")
# Random erasing's and the random-resized crop's shapes, as in their papers and torchvision.
_ERASE_AREA, _ERASE_ASPECT, _CROP_ASPECT = (0.02, 0.33), (0.3, 3.3), (3 / 4, 4 / 3)


def resolve(config: AugmentConfig, *, kind: str, channels: int, size: int) -> AugmentConfig:
    """The same settings with the policy named and every strength filled in from its row of the table.

    kind: symbols, objects or photos, as the data set says. ConfigError if colours are to change in grey images.
    """
    policy = config.policy
    if policy == "auto":
        policy = "objects" if kind == "photos" and size <= _SMALL else kind
    grey = dict.fromkeys(_COLOUR_ONLY, 0.0) if channels == 1 else {}
    for name in grey:
        if getattr(config, name):
            raise ConfigError(
                f"augment.{name} is {getattr(config, name):g}, but the images are grey: leave it out, or set "
                "--data.channels 3"
            )
    table = POLICIES[policy] | grey
    missing = {name: value for name, value in table.items() if getattr(config, name) is None}
    config = dataclasses.replace(config, policy=policy, **missing)
    return _scaled(config, config.strength) if config.strength != 1 else config


def _scaled(config: AugmentConfig, factor: float) -> AugmentConfig:
    """The strengths themselves, multiplied; each stays in its range."""
    scaled: dict[str, Any] = {name: getattr(config, name) * factor for name in _STRENGTHS}
    for name, largest in _LARGEST.items():
        scaled[name] = min(scaled[name], largest)
    scaled["magnitude"] = min(round((config.magnitude or 0) * factor), 30)
    scaled["crop"] = max(1 - (1 - (config.crop or 0.0)) * factor, _SMALLEST_CROP)
    return dataclasses.replace(config, strength=1.0, **scaled)


def augment(images_NCHW: Tensor, config: AugmentConfig, *, key: int, positions_N: Tensor) -> Tensor:
    """Randomly changed images, of uint8 ones: uint8 where pixels were moved, cropped and erased alone, else float32 in
    [0, 1]. `mix_batch` and `normalise` take both.

    config: resolved. key: of the seed and epoch (random.key). positions_N: int64 places in the epoch; an image's change
    depends on the key, its place and itself alone. In the order: moves, operations of random choice, light and colour,
    erasing.
    """
    reflect = config.policy == "photos"
    images_NCHW = _moved(images_NCHW, config, key, positions_N, reflect)
    if config.randaugment or config.trivial:
        images_NCHW = _operated(geometry.to_float(images_NCHW), config, key, positions_N, reflect)
    if config.brightness or config.contrast or config.saturation or config.hue:
        images_NCHW = _lit(geometry.to_float(images_NCHW), config, key, positions_N)
    if config.erase:
        on_N, area_N, aspect_N, x_N, y_N = counter_rng.uniforms(
            key, positions_N, *range(Stream.ERASE, Stream.ERASE_Y + 1)
        )
        images_NCHW = mix.erase(
            images_NCHW,
            on_N < config.erase,
            counter_rng.lerp(area_N, *_ERASE_AREA),
            counter_rng.log_lerp(aspect_N, *_ERASE_ASPECT),
            x_N,
            y_N,
        )
    return images_NCHW


def mix_batch(
    images_NCHW: Tensor, labels_N: Tensor, config: AugmentConfig, *, classes: int, key: int, positions_N: Tensor
) -> tuple[Tensor, Tensor]:
    """MixUp, CutMix, or with both on either of them for each image by the toss of a coin, within the batch.

    Float32 images in [0, 1] and their targets_NK, float32; where both are off, the images and labels_N as they are.
    """
    if not config.mixup and not config.cutmix:
        return images_NCHW, labels_N
    kind_N, x_N, y_N = counter_rng.uniforms(key, positions_N, Stream.MIX_KIND, Stream.MIX_X, Stream.MIX_Y)
    paste_N = kind_N < (0.5 if config.mixup and config.cutmix else float(bool(config.cutmix)))
    share_N = torch.ones_like(x_N)
    if config.mixup:
        share_N = counter_rng.beta(key, positions_N, Stream.MIX_SHARE, config.mixup)
    if config.cutmix:
        share_N = torch.where(paste_N, counter_rng.beta(key, positions_N, Stream.MIX_SHARE, config.cutmix), share_N)
    return mix.mixed(geometry.to_float(images_NCHW), mix.one_hot(labels_N, classes), share_N, paste_N, x_N, y_N)


def normalise(images_NCHW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(images - mean) / std, by channel, float32, of images in [0, 1] or uint8 ones.

    A channel that never varies (std 0) is only centred.
    """
    highest = 1 if images_NCHW.is_floating_point() else 255
    scale_C, shift_C = _line(tuple(mean), tuple(std), highest, images_NCHW.device)
    channels, width = len(mean), images_NCHW.shape[-1]
    if channels > 1 and images_NCHW.is_contiguous(memory_format=torch.channels_last):
        # Their channels alternate in each line: so do the numbers, that an operation may run along the line.
        lines_NHD = images_NCHW.permute(0, 2, 3, 1).flatten(2)
        lines_NHD = _scaled_by(lines_NHD, scale_C.repeat(width), shift_C.repeat(width))
        return lines_NHD.unflatten(2, (width, channels)).permute(0, 3, 1, 2)
    return _scaled_by(images_NCHW, scale_C[:, None, None], shift_C[:, None, None])


@functools.lru_cache(maxsize=64)
def _line(mean: tuple[float, ...], std: tuple[float, ...], highest: int, device: torch.device) -> Tensor:
    """What values from 0 to `highest` are multiplied by, and what is added then, by channel: 2 x C. Made once, since a
    GPU is waited for where numbers are sent to it.
    """
    scales = [1 / (s or 1.0) for s in std]
    shifts = [-m * scale for m, scale in zip(mean, scales, strict=True)]
    with torch.inference_mode(False):  # gradients may pass through what is normalised later
        return torch.tensor([[scale / highest for scale in scales], shifts], dtype=torch.float32, device=device)


def _scaled_by(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """values * scale + shift, float32; values: N x ..."""
    if values.is_floating_point():
        return torch.addcmul(shift, values, scale)  # in one pass
    if values.device.type != "cpu" or len(values) == 0:
        return torch.addcmul(shift, values.to(torch.float32), scale)
    scaled = torch.empty_like(values, dtype=torch.float32)
    few = max(1, _AT_ONCE // values[0].numel())
    for part, source in zip(scaled.split(few), values.split(few), strict=True):
        part.copy_(source).mul_(scale).add_(shift)  # while it lies in the processor's cache
    return scaled


def _moved(images_NCHW: Tensor, config: AugmentConfig, key: int, positions_N: Tensor, reflect: bool) -> Tensor:
    height, width = images_NCHW.shape[2:]
    flip, rotate, scale, shear, shift, crop = (
        value or 0.0 for value in (config.flip, config.rotate, config.scale, config.shear, config.shift, config.crop)
    )
    flip_N = counter_rng.uniform(key, positions_N, Stream.FLIP) < flip if flip else None
    if not (rotate or scale or shear or crop < 1):
        right_N = down_N = None
        if shift:
            u_N, v_N = counter_rng.uniforms(key, positions_N, Stream.SHIFT_X, Stream.SHIFT_Y)
            right_N, down_N = _whole(u_N, shift, width), _whole(v_N, shift, height)
        return geometry.copy_moved(images_NCHW, flip_N, right_N, down_N, reflect=reflect)
    window = _window(crop, key, positions_N) if crop < 1 else None
    on_bytes = images_NCHW.dtype == torch.uint8 and images_NCHW.device.type == "cpu" and width >= _WORTH_A_CALL
    if window and on_bytes and not (rotate or scale or shear or shift):
        return geometry.resized_crops(images_NCHW, *window, flip_N)
    turn_N, size_N, slant_N, right_N, down_N = counter_rng.uniforms(
        key, positions_N, *range(Stream.ROTATE, Stream.SHIFT_Y + 1)
    )
    matrix_N23 = geometry.affine(
        height,
        width,
        degrees_N=counter_rng.lerp(turn_N, -rotate, rotate),
        scale_N=counter_rng.lerp(size_N, 1 - scale, 1 + scale),
        shear_x_N=counter_rng.lerp(slant_N, -shear, shear),
        shear_y_N=torch.zeros_like(slant_N),
        right_N=counter_rng.lerp(right_N, -shift, shift),
        down_N=counter_rng.lerp(down_N, -shift, shift),
    )
    if window:
        matrix_N23 = geometry.cropped(matrix_N23, *window, square=height / width)
    if flip_N is not None:
        matrix_N23 = geometry.mirrored(matrix_N23, flip_N)
    return geometry.warp(images_NCHW, matrix_N23, reflect=reflect)


def _window(crop: float, key: int, positions_N: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Area and aspect of a crop's window, and where in the room left it lies; see geometry.cropped."""
    area_N, aspect_N, x_N, y_N = counter_rng.uniforms(key, positions_N, *range(Stream.CROP_AREA, Stream.CROP_Y + 1))
    return counter_rng.lerp(area_N, crop, 1), counter_rng.log_lerp(aspect_N, *_CROP_ASPECT), x_N, y_N


def _whole(u_N: Tensor, shift: float, side: int) -> Tensor:
    """Whole pixels, each as likely as the next: at least one either way, so that a small shift is not lost."""
    most = min(max(1, round(shift * side)), side - 1)
    return (u_N * (2 * most + 1)).to(torch.int64) - most


def _operated(images_NCHW: Tensor, config: AugmentConfig, key: int, positions_N: Tensor, reflect: bool) -> Tensor:
    upright = config.policy == "symbols"
    if config.randaugment:
        images_NCHW = auto.randaugment(
            images_NCHW,
            layers=config.randaugment,
            magnitude=config.magnitude or 0,
            ranges=auto.UPRIGHT if upright else auto.NARROW,
            key=key,
            positions_N=positions_N,
            reflect=reflect,
        )
    if config.trivial:
        ranges = auto.UPRIGHT if upright else auto.WIDE
        images_NCHW = auto.trivialaugment(images_NCHW, ranges=ranges, key=key, positions_N=positions_N, reflect=reflect)
    return images_NCHW


def _lit(images_NCHW: Tensor, config: AugmentConfig, key: int, positions_N: Tensor) -> Tensor:
    strengths = (config.brightness, config.contrast, config.saturation, config.hue)
    numbers = counter_rng.uniforms(key, positions_N, *range(Stream.BRIGHTNESS, Stream.HUE + 1))
    light, contrast, saturation, turn = (
        counter_rng.lerp(u_N, -strength, strength) if strength else None
        for u_N, strength in zip(numbers, strengths, strict=True)
    )
    if light is not None:
        images_NCHW = colour.brightness(images_NCHW, 1 + light)
    if contrast is not None:
        images_NCHW = colour.contrast(images_NCHW, 1 + contrast)
    if saturation is not None:
        images_NCHW = colour.saturation(images_NCHW, 1 + saturation)
    if turn is not None:
        images_NCHW = colour.hue(images_NCHW, turn)
    return images_NCHW
