"""An image of any mode to what a model sees: mode L or RGB, 8 bits, sRGB, on white where it is transparent.

Deep values (16 and 32 bits, floating point) are scaled by the range that the file declares: TIFF's sample values and
bit depth, PNG's significant bits. Colours are converted to sRGB by the file's ICC profile; a corrupted one is ignored.
Large images are converted in bands, so that only their pixels, and the result's, are in memory.
"""

import contextlib
import functools
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

BAND_PIXELS = 1 << 22
MAX_PROFILE_BYTES = 8 << 20
"""Larger ICC profiles are ignored; those of printing presses have 3 MB."""
MAX_SRGB_DIFFERENCE = 2
"""A profile that moves no colour by more grey values than this is sRGB: nothing is converted."""
SIGNIFICANT_BITS = "significant_bits"
"""Key in `Image.info`: the bits that a PNG of 16 bits declares as significant."""
DEPTH = "depth"
"""Key in `Image.info`: the bits per value of a PNG. Of 16 in colour, Pillow reads the upper 8."""
USED_BITS = "used_bits"
"""Key in `Image.info` of results: how many bits of its 16 the values of an image need, if it declares no range."""

# TIFF tags: bits per sample, and the pairs that declare the lowest and the highest value. 0 is white in photometric 0.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _RANGES = 258, 262, ((280, 281), (340, 341))


class ColourError(Exception):
    """Why the values of an image are no colours, in a few words."""


def to_grey_or_rgb(image: Image.Image) -> Image.Image:
    """Return it in mode L or RGB. ColourError if its values have no fixed range (32 bits, floating point)."""
    is_deep = image.mode == "F" or image.mode.startswith("I")
    profile = image.info.get("icc_profile")
    profile = profile if isinstance(profile, bytes) else b""
    low, high, used_bits = _value_range(image) if is_deep else (0, 255, _used_bits_of_colour(image))
    is_flat = image.mode in ("L", "RGB") and not image.has_transparency_data
    if is_flat and not is_converted(profile, image.mode):
        return _with_used_bits(image, used_bits)

    def convert(band: Image.Image) -> Image.Image:
        return _flatten(_to_8_bits(band, low, high) if is_deep else band, profile)

    converted = None
    for top, band in _bands(image):
        part = convert(band)
        if part.height == image.height:
            converted = part
        else:
            converted = converted or Image.new(part.mode, image.size)
            converted.paste(part, (0, top))
    assert converted is not None
    if is_deep and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # Pillow inverts only 8 bits
        converted = converted.point(lambda value: 255 - value)
    return _with_used_bits(converted, used_bits)


def _with_used_bits(image: Image.Image, used_bits: int) -> Image.Image:
    if used_bits:
        image.info[USED_BITS] = used_bits
    return image


def _used_bits_of_colour(image: Image.Image) -> int:
    depth = image.info.get(DEPTH) or _first(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 8))
    if depth != 16 or image.mode not in ("RGB", "RGBA"):
        return 0
    highest = max(int(np.asarray(band)[..., :3].max()) for _, band in _bands(image))
    return 8 + highest.bit_length() if highest else 0


def is_converted(profile: bytes, mode: str) -> bool:
    """Does this ICC profile change the colours of images of this mode: is it neither sRGB nor unusable?"""
    return bool(profile) and _find_transform(profile, mode) is not None


def _flatten(image: Image.Image, profile: bytes) -> Image.Image:
    was_grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    elif image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    converted = _to_srgb(image, profile, was_grey) if profile or image.mode == "LAB" else None
    if converted is not None:
        image = converted
        if alpha is not None:
            image.putalpha(alpha)
    elif image.mode == "CMYK":
        image = image.convert("RGB")
    if alpha is not None:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    return image


def _to_srgb(image: Image.Image, profile: bytes, was_grey: bool) -> Image.Image | None:
    """Return it in mode L or RGB; None if the profile changes nothing."""
    base = image.convert("L" if was_grey else "RGB") if image.mode in ("L", "RGB", "RGBA") else image
    transform = _find_transform(profile, base.mode)
    if transform is None:
        return None
    converted = _apply(base, transform)
    return converted.convert("L") if was_grey else converted


@functools.lru_cache(maxsize=16)
def _find_transform(profile: bytes, mode: str) -> Any:
    """Return the transform from this profile to sRGB; None if it is sRGB, corrupted, or of other colours."""
    from PIL import ImageCms

    if len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        source = ImageCms.createProfile("LAB") if mode == "LAB" else ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode in ("L", "RGB"):
            probe = _colour_probe().convert(mode)
            before, after = (np.asarray(one.convert("RGB"), np.int16) for one in (probe, _apply(probe, transform)))
            if np.abs(after - before).max() <= MAX_SRGB_DIFFERENCE:
                return None
    except MemoryError:
        raise
    except Exception:  # a corrupted profile can make its reader fail in any way
        return None
    return transform


def _apply(image: Image.Image, transform: Any) -> Image.Image:
    from PIL import ImageCms

    result = ImageCms.applyTransform(image, transform)
    assert result is not None
    return result


@functools.cache
def _colour_probe() -> Image.Image:
    """All colours of 16 steps per channel."""
    steps = np.linspace(0, 255, 16).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(64, 64, 3))


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield the image in horizontal bands of at most BAND_PIXELS, each with its first line."""
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        yield top, image if rows >= image.height else image.crop(box)


def _to_8_bits(band: Image.Image, low: float, high: float) -> Image.Image:
    values = np.asarray(band)
    transparent = band.info.get("transparency")
    if band.mode == "F":
        scaled = np.rint((values.astype(np.float64) - low) * (255 / (high - low)))
    else:
        span = int(high) - int(low)
        scaled = ((values.astype(np.int64) - int(low)) * 255 + span // 2) // span
    scaled = scaled.astype(np.uint8)
    if isinstance(transparent, int):
        scaled[values == transparent] = 255
    return Image.fromarray(scaled)


def _value_range(image: Image.Image) -> tuple[float, float, int]:
    """Return the values of black and white, and how many bits the values need if they are of undeclared depth."""
    extremes = [
        (float(values.min()), float(values.max())) for values in (np.asarray(band) for _, band in _bands(image))
    ]
    lowest, highest = min(low for low, _ in extremes), max(high for _, high in extremes)
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ColourError("its floating-point values are not finite")
    for low, high in _declared_ranges(image):
        if low <= lowest and highest <= high:
            return low, high, 0
    if image.mode == "F":
        if lowest < 0 or highest > 1:
            raise ColourError("its floating-point values have no fixed range")
        return 0, 1, 0
    if lowest < 0 or highest > 65535:
        raise ColourError("its 32-bit values have no fixed range")
    return 0, 65535, 0 if SIGNIFICANT_BITS in image.info else int(highest).bit_length()


def _declared_ranges(image: Image.Image) -> Iterator[tuple[float, float]]:
    tags = getattr(image, "tag_v2", {})
    for low_tag, high_tag in _RANGES:
        with contextlib.suppress(TypeError, ValueError, IndexError, OverflowError, ZeroDivisionError):
            low, high = (float(_first(tags.get(tag, 0))) for tag in (low_tag, high_tag))
            if math.isfinite(low) and math.isfinite(high) and low < high and (image.mode == "F" or high - low >= 1):
                yield low, high
    bits = _first(tags.get(_BITS_PER_SAMPLE, 16))
    if image.mode != "F" and bits in range(9, 16):
        yield 0, 2**bits - 1
    bits = image.info.get(SIGNIFICANT_BITS, 16)
    if bits < 16 and _has_low_bits(image, 16 - bits):
        yield 0, 2**bits - 1


def _has_low_bits(image: Image.Image, count: int) -> bool:
    """Does any value use its lowest `count` bits? As PNG wants it, values of fewer significant bits are shifted up."""
    return any(bool((np.asarray(band) & (2**count - 1)).any()) for _, band in _bands(image))


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value
