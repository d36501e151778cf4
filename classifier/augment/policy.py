"""Augmentation policies: the table of presets, and the functions that apply a resolved one.

Cost for 60,000 greyscale images of 28 x 28 in batches of 256, on one core of an AMD EPYC: flip and shift 0.12 s, with
erasing 0.28 s; the symbols' warp 0.4 s; MixUp or CutMix 0.27 s; TrivialAugment 0.5 s; RandAugment 0.6 s per layer.
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
    # Digits and letters: flipped, many become another symbol or none, as do 6 and 9 when rotated far.
    # They are centred, and large shifts cost accuracy (8 x 8 digits, shifts of a pixel: 98.8 instead of 99.5 %).
    "symbols": _OFF | {"rotate": 10.0, "scale": 0.1, "shear": 8.0, "shift": 0.04},
    # Small centred objects and small photographs: only whole pixels are moved, since interpolation blurs fine detail.
    "objects": _OFF | {"flip": 0.5, "shift": 0.08, "erase": 0.25},
    # Photographs: objects of any size and position, in varying light. Not hue, which often tells classes apart.
    "photos": _OFF | {"flip": 0.5, "crop": 0.35, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
}
# Settings that augment.strength multiplies, and their maxima. A crop's strength is the area it may cut away.
_STRENGTHS = ("rotate", "scale", "shear", "shift", "brightness", "contrast", "saturation", "hue", "erase")
_MAX_STRENGTHS = dict.fromkeys(_STRENGTHS, 1.0) | {
    "rotate": 180.0,
    "scale": 0.9,
    "shear": 60.0,
    "shift": 0.5,
    "hue": 0.5,
}
_MIN_CROP = 0.05
# Photographs up to this image size are treated as objects: cropping and resizing would blur them.
_MAX_OBJECT_SIZE = 40
# Values normalised per chunk on a CPU.
_CHUNK_VALUES = 1 << 18
# From this image size on, cropping one image per call is faster on a CPU.
_MIN_SIZE_FOR_CROP_CALLS = 64
_COLOUR_ONLY = ("saturation", "hue")
# Areas and aspect ratios of random erasing and random resized crops, as in their papers and torchvision.
_ERASE_AREA, _ERASE_ASPECT, _CROP_ASPECT = (0.02, 0.33), (0.3, 3.3), (3 / 4, 4 / 3)


def resolve(config: AugmentConfig, *, kind: str, channels: int, size: int) -> AugmentConfig:
    """Return the settings with `auto` resolved and every unset strength filled in from the policy's row of the table.

    Where `auto` finds symbols, they are mirrored in no test either, unless augment.flip is set. kind: symbols, objects
    or photos, from the dataset. ConfigError if colours of greyscale images are to be changed.
    """
    policy = config.policy
    if policy == "auto":
        policy = "objects" if kind == "photos" and size <= _MAX_OBJECT_SIZE else kind
        if policy == "symbols" and not config.flip:
            config = dataclasses.replace(config, test_flip=False)
    disabled = dict.fromkeys(_COLOUR_ONLY, 0.0) if channels == 1 else {}
    for name in disabled:
        if getattr(config, name):
            raise ConfigError(
                f"augment.{name} is {getattr(config, name):g}, but the images are greyscale: leave it out, or set "
                "--data.channels 3"
            )
    table = POLICIES[policy] | disabled
    missing = {name: value for name, value in table.items() if getattr(config, name) is None}
    config = dataclasses.replace(config, policy=policy, **missing)
    return _scale_strengths(config, config.strength) if config.strength != 1 else config


def _scale_strengths(config: AugmentConfig, factor: float) -> AugmentConfig:
    """Multiply the strengths by factor, clipped to their ranges."""
    scaled: dict[str, Any] = {name: getattr(config, name) * factor for name in _STRENGTHS}
    for name, largest in _MAX_STRENGTHS.items():
        scaled[name] = min(scaled[name], largest)
    scaled["magnitude"] = min(round((config.magnitude or 0) * factor), 30)
    scaled["crop"] = max(1 - (1 - (config.crop or 0.0)) * factor, _MIN_CROP)
    return dataclasses.replace(config, strength=1.0, **scaled)


def augment(
    images_NCHW: Tensor, config: AugmentConfig, *, key: int, positions_N: Tensor, size: int | None = None
) -> Tensor:
    """Augment uint8 images at random. Returns uint8 if pixels were only copied, cropped and erased, else float32 in
    [0, 1]; `mix_batch` and `normalise` accept both.

    config: resolved. key: of the seed and epoch (counter_rng.key). positions_N: int64 positions in the epoch; the
    result depends only on the key, the image and its position. size: of the returned images, in pixels, if smaller.
    Order: geometry, so that crops have all pixels, resizing, RandAugment or TrivialAugment, colour, erasing.
    """
    reflect = config.policy == "photos"
    images_NCHW = _apply_geometry(images_NCHW, config, key, positions_N, reflect, size)
    if size is not None:
        images_NCHW = geometry.downsize(images_NCHW, size)
    if config.randaugment or config.trivial:
        images_NCHW = _apply_auto_augment(geometry.to_float(images_NCHW), config, key, positions_N, reflect)
    if config.brightness or config.contrast or config.saturation or config.hue:
        images_NCHW = _apply_colour(geometry.to_float(images_NCHW), config, key, positions_N)
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
    images_NCHW: Tensor, targets: Tensor, config: AugmentConfig, *, classes: int, key: int, positions_N: Tensor
) -> tuple[Tensor, Tensor]:
    """Apply MixUp or CutMix within the batch; if both are on, one of them at random for each image.

    targets: labels_N or targets_NK. Returns images in [0, 1] and targets_NK, both float32; if both are off, the images
    and targets unchanged.
    """
    if not config.mixup and not config.cutmix:
        return images_NCHW, targets
    kind_N, x_N, y_N = counter_rng.uniforms(key, positions_N, Stream.MIX_KIND, Stream.MIX_X, Stream.MIX_Y)
    paste_N = kind_N < (0.5 if config.mixup and config.cutmix else float(bool(config.cutmix)))
    share_N = torch.ones_like(x_N)
    if config.mixup:
        share_N = counter_rng.beta(key, positions_N, Stream.MIX_SHARE, config.mixup)
    if config.cutmix:
        share_N = torch.where(paste_N, counter_rng.beta(key, positions_N, Stream.MIX_SHARE, config.cutmix), share_N)
    targets_NK = targets if targets.is_floating_point() else mix.one_hot(targets, classes)
    return mix.mixup_or_cutmix(geometry.to_float(images_NCHW), targets_NK, share_N, paste_N, x_N, y_N)


def normalise(images_NCHW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return (images - mean) / std per channel, float32, of uint8 images or float images in [0, 1].

    A constant channel (std 0) is only centred.
    """
    max_value = 1 if images_NCHW.is_floating_point() else 255
    scale_C, shift_C = _scale_and_shift(tuple(mean), tuple(std), max_value, images_NCHW.device)
    channels, width = len(mean), images_NCHW.shape[-1]
    if channels > 1 and images_NCHW.is_contiguous(memory_format=torch.channels_last):
        # Channels alternate within each image row, so scale and shift are repeated to operate on contiguous rows.
        rows_NHD = images_NCHW.permute(0, 2, 3, 1).flatten(2)
        rows_NHD = _multiply_add(rows_NHD, scale_C.repeat(width), shift_C.repeat(width))
        return rows_NHD.unflatten(2, (width, channels)).permute(0, 3, 1, 2)
    return _multiply_add(images_NCHW, scale_C[:, None, None], shift_C[:, None, None])


@functools.lru_cache(maxsize=64)
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], max_value: int, device: torch.device) -> Tensor:
    """Return the scale and shift (2 x C) that normalise values in [0, max_value]. Cached, since copying them to a GPU
    synchronises with it.
    """
    scales = [1 / (s or 1.0) for s in std]
    shifts = [-m * scale for m, scale in zip(mean, scales, strict=True)]
    with torch.inference_mode(False):  # normalised images may need gradients later
        return torch.tensor([[scale / max_value for scale in scales], shifts], dtype=torch.float32, device=device)


def _multiply_add(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return values * scale + shift, float32; values: N x ..."""
    if values.is_floating_point():
        return torch.addcmul(shift, values, scale)  # a single pass
    if values.device.type != "cpu" or len(values) == 0:
        return torch.addcmul(shift, values.to(torch.float32), scale)
    scaled = torch.empty_like(values, dtype=torch.float32)
    rows = max(1, _CHUNK_VALUES // values[0].numel())
    for target, source in zip(scaled.split(rows), values.split(rows), strict=True):
        target.copy_(source).mul_(scale).add_(shift)  # while the chunk is in the processor's cache
    return scaled


def _apply_geometry(
    images_NCHW: Tensor, config: AugmentConfig, key: int, positions_N: Tensor, reflect: bool, size: int | None
) -> Tensor:
    height, width = images_NCHW.shape[2:]
    flip, rotate, scale, shear, shift, crop = (
        value or 0.0 for value in (config.flip, config.rotate, config.scale, config.shear, config.shift, config.crop)
    )
    flip_N = counter_rng.uniform(key, positions_N, Stream.FLIP) < flip if flip else None
    if not (rotate or scale or shear or crop < 1):
        right_N = down_N = None
        if shift:
            u_N, v_N = counter_rng.uniforms(key, positions_N, Stream.SHIFT_X, Stream.SHIFT_Y)
            right_N, down_N = _to_whole_pixels(u_N, shift, width), _to_whole_pixels(v_N, shift, height)
        return geometry.flip_and_shift(images_NCHW, flip_N, right_N, down_N, reflect=reflect)
    window = _draw_crop_windows(crop, key, positions_N) if crop < 1 else None
    is_croppable = (
        images_NCHW.dtype == torch.uint8 and images_NCHW.device.type == "cpu" and width >= _MIN_SIZE_FOR_CROP_CALLS
    )
    if window and is_croppable and not (rotate or scale or shear or shift):
        return geometry.resized_crops(images_NCHW, *window, flip_N, size)
    rotate_N, scale_N, shear_N, right_N, down_N = counter_rng.uniforms(
        key, positions_N, *range(Stream.ROTATE, Stream.SHIFT_Y + 1)
    )
    matrix_N23 = geometry.affine_matrix(
        height,
        width,
        degrees_N=counter_rng.lerp(rotate_N, -rotate, rotate),
        scale_N=counter_rng.lerp(scale_N, 1 - scale, 1 + scale),
        shear_x_N=counter_rng.lerp(shear_N, -shear, shear),
        shear_y_N=torch.zeros_like(shear_N),
        right_N=counter_rng.lerp(right_N, -shift, shift),
        down_N=counter_rng.lerp(down_N, -shift, shift),
    )
    if window:
        matrix_N23 = geometry.crop_matrix(matrix_N23, *window, square=height / width)
    if flip_N is not None:
        matrix_N23 = geometry.flip_matrix(matrix_N23, flip_N)
    return geometry.warp(images_NCHW, matrix_N23, reflect=reflect)


def _draw_crop_windows(crop: float, key: int, positions_N: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw area, aspect and position of the crop windows, as geometry.crop_matrix takes them."""
    area_N, aspect_N, x_N, y_N = counter_rng.uniforms(key, positions_N, *range(Stream.CROP_AREA, Stream.CROP_Y + 1))
    return counter_rng.lerp(area_N, crop, 1), counter_rng.log_lerp(aspect_N, *_CROP_ASPECT), x_N, y_N


def _to_whole_pixels(u_N: Tensor, shift: float, length: int) -> Tensor:
    """Return shifts by whole pixels, uniformly distributed; up to 1 pixel at least, so that small shifts count."""
    max_pixels = min(max(1, round(shift * length)), length - 1)
    return (u_N * (2 * max_pixels + 1)).to(torch.int64) - max_pixels


def _apply_auto_augment(
    images_NCHW: Tensor, config: AugmentConfig, key: int, positions_N: Tensor, reflect: bool
) -> Tensor:
    is_upright = config.policy == "symbols"
    if config.randaugment:
        images_NCHW = auto.randaugment(
            images_NCHW,
            layers=config.randaugment,
            magnitude=config.magnitude or 0,
            ranges=auto.UPRIGHT if is_upright else auto.NARROW,
            key=key,
            positions_N=positions_N,
            reflect=reflect,
        )
    if config.trivial:
        ranges = auto.UPRIGHT if is_upright else auto.WIDE
        images_NCHW = auto.trivialaugment(images_NCHW, ranges=ranges, key=key, positions_N=positions_N, reflect=reflect)
    return images_NCHW


def _apply_colour(images_NCHW: Tensor, config: AugmentConfig, key: int, positions_N: Tensor) -> Tensor:
    strengths = (config.brightness, config.contrast, config.saturation, config.hue)
    uniforms = counter_rng.uniforms(key, positions_N, *range(Stream.BRIGHTNESS, Stream.HUE + 1))
    brightness_N, contrast_N, saturation_N, hue_N = (
        counter_rng.lerp(u_N, -strength, strength) if strength else None
        for u_N, strength in zip(uniforms, strengths, strict=True)
    )
    if brightness_N is not None:
        images_NCHW = colour.brightness(images_NCHW, 1 + brightness_N)
    if contrast_N is not None:
        images_NCHW = colour.contrast(images_NCHW, 1 + contrast_N)
    if saturation_N is not None:
        images_NCHW = colour.saturation(images_NCHW, 1 + saturation_N)
    if hue_N is not None:
        images_NCHW = colour.hue(images_NCHW, hue_N)
    return images_NCHW
