"""Decode intact, ordinary JPEGs with libjpeg-turbo directly, in two thirds of Pillow's time.

These functions return None for every other file: Pillow then reads it, or says what is wrong with it. `decode_fast`
accepts even fewer: files whose decoding time is bounded by their size, in one pass over their bytes, by code that
releases the GIL. Files that may take longer (progressive, many scans) are left to processes that can be killed.
"""

import numpy as np
import simplejpeg

from classifier.data.decoding.image_spec import ImageSpec

_BASELINE, _FRAMES = (b"\xc0", b"\xc1"), {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN = b"\xff\xda"
_MAX_SCANS, _MAX_SEGMENTS = 4, 1000
# An image that is shrunk by this factor or more does not show how its colours were upsampled.
_FAST_UPSAMPLING_FACTOR = 1.5
# Colour space of a JPEG, as simplejpeg calls it, and what it is decoded to.
_MODES = {"Gray": "GRAY", "YCbCr": "RGB", "RGB": "RGB"}


def read(content: bytes, *, max_pixels: int, min_side: int | None, factor: float = 1.5) -> np.ndarray | None:
    """Return its pixels, uint8 H x W x 1 or 3; with `min_side`, shrunk while it is decoded, no side below that.

    Only where that shrinks by at least `factor`: shrinking by less than a third is slower than not shrinking.
    """
    if content.find(b"Exif\0\0", 0, _first_frame(content)) >= 0 or not content.startswith(b"\xff\xd8\xff"):
        return None
    try:
        rows, columns, colours, _ = simplejpeg.decode_jpeg_header(content)
        height, width = int(rows), int(columns)
        if colours not in _MODES or min(width, height) < 2 or width * height > max_pixels:
            return None
        limits = {} if min_side is None else {"min_width": min_side, "min_height": min_side, "min_factor": factor}
        # Most files store colours at half the size: smoothing what is then shrunk again would be wasted work.
        shrinks = min_side is not None and min(height, width) >= _FAST_UPSAMPLING_FACTOR * min_side
        return simplejpeg.decode_jpeg(content, _MODES[colours], fastupsample=shrinks, **limits)
    except ValueError:
        return None


def decode_fast(content: bytes, spec: ImageSpec) -> np.ndarray | None:
    """`decode.decode_bytes` such a file, uint8 channels x size x size: torch resizes it as Pillow would."""
    frame, size = _first_frame(content), spec.size
    if spec.fit == "pad" or content[frame + 1 : frame + 2] not in _BASELINE or content.count(_SCAN) > _MAX_SCANS:
        return None
    pixels_HWC = read(content, max_pixels=spec.max_pixels, min_side=size, factor=2.0)
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
    import torch  # decoding processes, which get the other files, do without
    import torch.nn.functional as F

    pixels_HWC = np.ascontiguousarray(pixels_HWC)
    image_1CHW = torch.from_numpy(pixels_HWC).view(1, *pixels_HWC.shape).permute(0, 3, 1, 2)  # it is channels_last
    image_1CHW = F.interpolate(image_1CHW, (size, size), mode="bicubic", antialias=True)
    return image_1CHW[0].permute(1, 2, 0).numpy()


def _first_frame(content: bytes) -> int:
    """Return the offset of its first frame; its length, if there is none."""
    offset = 2
    for _ in range(_MAX_SEGMENTS):
        if offset + 4 > len(content) or content[offset] != 0xFF:
            break
        if content[offset + 1] in _FRAMES:
            return offset
        offset += 2 + int.from_bytes(content[offset + 2 : offset + 4], "big")
    return len(content)
