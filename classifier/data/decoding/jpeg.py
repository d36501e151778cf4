"""Sound JPEGs that lie as they should, by libjpeg-turbo's own interface, in two thirds of Pillow's time.

None is the answer for every other file: Pillow reads it, or says what is wrong with it. `fast` takes even fewer: those
whose time is bounded by their size, in one pass over their bytes, by code that leaves Python's lock. What may take
longer (progressive files, many scans) is for processes that may be ended.
"""

import numpy as np
import simplejpeg

_BASELINE, _FRAMES = (b"\xc0", b"\xc1"), {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN = b"\xff\xda"
_MOST_SCANS, _MOST_SEGMENTS = 4, 1000
# A picture that is shrunk to this part of its side shows nothing of how its colours were enlarged.
_SHRUNK = 1.5
# Colours of a JPEG, in simplejpeg's words, and what they are decoded to.
_MODES = {"Gray": "GRAY", "YCbCr": "RGB", "RGB": "RGB"}


def read(content: bytes, *, max_pixels: int, least: int | None, factor: float = 1.5) -> np.ndarray | None:
    """Its pixels, uint8 H x W x 1 or 3; with `least`, shrunk while it is decoded, no side below that.

    Only where that shrinks by `factor` at least: by less than a third it is slower than not at all.
    """
    if content.find(b"Exif\0\0", 0, _frame(content)) >= 0 or not content.startswith(b"\xff\xd8\xff"):
        return None
    try:
        high, wide, colours, _ = simplejpeg.decode_jpeg_header(content)
        height, width = int(high), int(wide)
        if colours not in _MODES or min(width, height) < 2 or width * height > max_pixels:
            return None
        ends = {} if least is None else {"min_width": least, "min_height": least, "min_factor": factor}
        # Colours lie at half the size in most files: to smooth what is then shrunk again would be lost work.
        shrinks = least is not None and min(height, width) >= _SHRUNK * least
        return simplejpeg.decode_jpeg(content, _MODES[colours], fastupsample=shrinks, **ends)
    except ValueError:
        return None


def fast(content: bytes, *, size: int, channels: int, fit: str, max_pixels: int) -> np.ndarray | None:
    """decode.loaded of such a file's bytes, uint8 channels x size x size: torch resizes it as Pillow would."""
    frame = _frame(content)
    if fit == "pad" or content[frame + 1 : frame + 2] not in _BASELINE or content.count(_SCAN) > _MOST_SCANS:
        return None
    pixels_HWC = read(content, max_pixels=max_pixels, least=size, factor=2.0)
    if pixels_HWC is None or pixels_HWC.shape[2] > channels:
        return None
    height, width = pixels_HWC.shape[:2]
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels_HWC = pixels_HWC[top : top + side, left : left + side]
    if pixels_HWC.shape[:2] != (size, size):
        pixels_HWC = _resized(pixels_HWC, size)
    return np.broadcast_to(pixels_HWC.transpose(2, 0, 1), (channels, size, size))


def _resized(pixels_HWC: np.ndarray, size: int) -> np.ndarray:
    import torch  # a process that only decodes what is left needs none
    import torch.nn.functional as F

    pixels_HWC = np.ascontiguousarray(pixels_HWC)
    image_1CHW = torch.from_numpy(pixels_HWC).view(1, *pixels_HWC.shape).permute(0, 3, 1, 2)  # it is channels_last
    image_1CHW = F.interpolate(image_1CHW, (size, size), mode="bicubic", antialias=True)
    return image_1CHW[0].permute(1, 2, 0).numpy()


def _frame(content: bytes) -> int:
    """Where its first frame begins; its length, if there is none."""
    place = 2
    for _ in range(_MOST_SEGMENTS):
        if place + 4 > len(content) or content[place] != 0xFF:
            break
        if content[place + 1] in _FRAMES:
            return place
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return len(content)
