"""Decode intact, ordinary JPEGs with libjpeg-turbo directly, in two thirds of Pillow's time.

`read` and `decode_fast` return None for every other file: Pillow then reads it, or says what is wrong with it.
`decode_fast` accepts even fewer: files whose decoding time is bounded by their size, in one pass over their bytes, by
code that releases the GIL. Files that may take longer (progressive, many scans) are left to processes that can be
killed.
"""

import sys
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from classifier.data.decoding import colours, orientation
from classifier.data.decoding.image_spec import ImageSpec

_BASELINE, _FRAMES = (b"\xc0", b"\xc1"), {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN = b"\xff\xda"
_MAX_FAST_SCANS, _MAX_SEGMENTS = 4, 1000
_EXIF, _XMP, _PROFILE, _MPO = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0", b"MPF\0"
_NUMBER_OF_IMAGES = 0xB001
# Segments without which the pixels are the same: APP1 to APP13 and APP15, and comments.
_METADATA = {*range(0xE1, 0xEE), 0xEF, 0xFE}
# An image that is shrunk by this factor or more does not show how its colours were upsampled.
_FAST_UPSAMPLING_FACTOR = 1.5
# Colour space of a JPEG, as simplejpeg calls it, and what it is decoded to.
_MODES = {"Gray": "GRAY", "YCbCr": "RGB", "RGB": "RGB"}


@dataclass(frozen=True)
class Head:
    """What a JPEG says before its first frame. size: width and height as stored; None where there is no frame."""

    frame: int
    """Offset of the first frame; the file's length, if there is none."""
    size: tuple[int, int] | None
    exif: bytes
    xmp: bytes
    profile: bytes
    """ICC profile."""
    images: int
    """More than one in an MPO, which begins with an ordinary JPEG."""
    pixel_segments: tuple[slice, ...]
    """Those without which the pixels would be others."""


def is_jpeg(content: bytes) -> bool:
    return content.startswith(b"\xff\xd8\xff")


def count_scans(content: bytes) -> int:
    """Return how many scans a decoder may have to make. Its own data escape the marker; a thumbnail may have more."""
    return content.count(_SCAN)


def read_head(content: bytes) -> Head:
    """Read the segments of a JPEG up to its first frame."""
    offset, size, exif, xmp, kept = 2, None, [], b"", []
    profile: dict[int, bytes] = {}
    images, total = 1, 0
    for _ in range(_MAX_SEGMENTS):
        if offset + 4 > len(content) or content[offset] != 0xFF:
            offset = len(content)
            break
        marker, start = content[offset + 1], offset + 4
        if marker in _FRAMES:
            height, width = (int.from_bytes(content[at : at + 2], "big") for at in (offset + 5, offset + 7))
            size = (width, height)
            break
        end = offset + 2 + int.from_bytes(content[offset + 2 : start], "big")
        if marker not in _METADATA:
            kept.append(slice(offset, end))
        elif marker == 0xE1 and content.startswith(_EXIF, start):
            exif.append(content[start + len(_EXIF) : end])
        elif marker == 0xE1 and content.startswith(_XMP, start):
            xmp = content[start + len(_XMP) : end]
        elif marker == 0xE2 and content.startswith(_PROFILE, start) and end >= start + 14:
            profile[content[start + 12]], total = content[start + 14 : end], content[start + 13]
        elif marker == 0xE2 and content.startswith(_MPO, start):
            images = orientation.find_in_exif(content[start + len(_MPO) : end], _NUMBER_OF_IMAGES) or 1
        offset = end
    else:
        offset = len(content)
    whole = b"".join(profile[n] for n in sorted(profile)) if len(profile) == total else b""
    return Head(min(offset, len(content)), size, b"".join(exif), xmp, whole, images, tuple(kept))


def without_metadata(content: bytes, head: Head) -> bytes:
    """Return a JPEG of the same pixels: Pillow copies, and parses, whatever metadata it finds."""
    return b"".join([content[:2], *(content[part] for part in head.pixel_segments), content[head.frame :]])


def read(
    content: bytes, head: Head, *, max_pixels: int, min_side: int | None, factor: float = 1.5
) -> np.ndarray | None:
    """Return the pixels of a JPEG, uint8 H x W x 1 or 3; with `min_side`, shrunk while it is decoded, no side below it.

    Only where that shrinks by at least `factor`: shrinking by less than a third is slower than not shrinking.
    """
    if content.find(_EXIF, 0, head.frame) >= 0 or (orientation.find_in_xmp(head.xmp) or 1) != 1:
        return None
    try:
        rows, columns, colour_space, _ = simplejpeg.decode_jpeg_header(content)
        height, width = int(rows), int(columns)
        if colour_space not in _MODES or min(width, height) < 2 or width * height > max_pixels:
            return None
        if colours.is_converted(head.profile, "L" if colour_space == "Gray" else "RGB"):
            return None
        limits = {} if min_side is None else {"min_width": min_side, "min_height": min_side, "min_factor": factor}
        # Most files store colours at half the size: smoothing what is then shrunk again would be wasted work.
        shrinks = min_side is not None and min(height, width) >= _FAST_UPSAMPLING_FACTOR * min_side
        return simplejpeg.decode_jpeg(content, _MODES[colour_space], fastupsample=shrinks, **limits)
    except ValueError:
        return None


def decode_fast(content: bytes, spec: ImageSpec) -> np.ndarray | None:
    """`decode.decode_bytes` such a file, uint8 channels x size x size; it is resized as Pillow would."""
    if spec.fit == "pad" or not is_jpeg(content):
        return None
    head, size = read_head(content), spec.size
    if content[head.frame + 1 : head.frame + 2] not in _BASELINE or count_scans(content) > _MAX_FAST_SCANS:
        return None
    pixels_HWC = read(content, head, max_pixels=spec.max_pixels, min_side=size, factor=2.0)
    if pixels_HWC is None or pixels_HWC.shape[2] > spec.channels:
        return None
    height, width = pixels_HWC.shape[:2]
    if spec.fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels_HWC = pixels_HWC[top : top + side, left : left + side]
    if pixels_HWC.shape[:2] != (size, size):
        pixels_HWC = _resize(pixels_HWC, size)
    return np.broadcast_to(pixels_HWC.transpose(2, 0, 1), spec.shape)


def _resize(pixels_HWC: np.ndarray, size: int) -> np.ndarray:
    """Resize by torch, which is faster; by Pillow where torch is not loaded, with differences of one grey value."""
    pixels_HWC = np.ascontiguousarray(pixels_HWC)
    if sys.modules.get("torch") is None:  # nobody trains in this process, and importing torch takes seconds
        image = Image.fromarray(pixels_HWC[..., 0] if pixels_HWC.shape[2] == 1 else pixels_HWC)
        resized = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
        return resized.reshape(size, size, -1)
    import torch
    import torch.nn.functional as F

    image_1CHW = torch.from_numpy(pixels_HWC).view(1, *pixels_HWC.shape).permute(0, 3, 1, 2)  # it is channels_last
    image_1CHW = F.interpolate(image_1CHW, (size, size), mode="bicubic", antialias=True)
    return image_1CHW[0].permute(1, 2, 0).numpy()
