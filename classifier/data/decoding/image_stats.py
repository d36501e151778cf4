"""What an audit must know of one picture: its size and format, how sharp it is, and a small grey copy."""

import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from classifier.data.decoding import decode

SIDE = 64
"""Of the grey copy, a square into which the whole picture is squeezed, in pixels."""
SHARP_SIDE = 256
"""Sharpness is measured where the shorter side has so many pixels at most."""
ENDINGS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "PNG": ("png",),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "BMP": ("bmp",),
    "TIFF": ("tif", "tiff"),
    "PPM": ("ppm", "pgm", "pbm", "pnm"),
    "AVIF": ("avif",),
    "JPEG2000": ("jp2",),
}


@dataclass(frozen=True, eq=False)
class ImageStats:
    """width, height: upright, in pixels. sharpness: the variance of the Laplacian over that of the grey values; a blur
    lowers it. thumb: uint8 SIDE x SIDE, grey."""

    width: int
    height: int
    format: str
    frames: int
    sharpness: float
    thumb: np.ndarray

    _HEAD: ClassVar[struct.Struct] = struct.Struct("<III12sd")
    LENGTH: ClassVar[int] = _HEAD.size + SIDE * SIDE

    def pack(self) -> bytes:
        """LENGTH bytes."""
        head = self._HEAD.pack(self.width, self.height, self.frames, self.format.encode()[:12], self.sharpness)
        return head + self.thumb.tobytes()

    @classmethod
    def unpack(cls, content: bytes) -> "ImageStats":
        width, height, frames, name, sharpness = cls._HEAD.unpack_from(content)
        thumb = np.frombuffer(content, np.uint8, offset=cls._HEAD.size).reshape(SIDE, SIDE)
        return cls(width, height, name.rstrip(b"\0").decode(), frames, sharpness, thumb)

    def fits(self, name: str) -> bool:
        """Does the name end as its format does?"""
        ending = name.rpartition(".")[2].lower()
        return ending in ENDINGS.get(self.format, (ending,)) or "." not in name.rpartition("/")[2]


def compute_image_stats(content: bytes, *, max_pixels: int) -> ImageStats:
    """A look at a file's bytes. DecodeError if they cannot be used."""
    image = decode.opened(content, max_pixels=max_pixels, least=SHARP_SIDE)
    width, height, name, frames = decode.described(content)
    grey = image.convert("L")
    scale = SHARP_SIDE / min(grey.size)
    if scale < 1:
        grey = grey.resize((round(grey.width * scale), round(grey.height * scale)), Image.Resampling.BOX)
    thumb = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX if scale <= 4 else Image.Resampling.BILINEAR))
    return ImageStats(width, height, name, frames, sharpness(np.asarray(grey)), thumb)


def sharpness(grey_HW: np.ndarray) -> float:
    """See Glance; 0 for a picture of one colour."""
    if min(grey_HW.shape) < 3:
        return 0.0
    values = grey_HW.astype(np.float32)
    inner = values[1:-1, 1:-1]
    laplacian = 4 * inner - values[:-2, 1:-1] - values[2:, 1:-1] - values[1:-1, :-2] - values[1:-1, 2:]
    variance = float(values.var())
    return float(laplacian.var()) / variance if variance > 0 else 0.0
