"""Statistics of one image for audits: size, format, sharpness and a small grey thumbnail."""

import struct
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xxhash
from PIL import Image

from classifier.data.decoding import image_file
from classifier.data.decoding.image_file import Admit, admit_all

SIDE = 64
"""Of the thumbnail, a grey square into which the whole image is squeezed, in pixels."""
SHARP_SIDE = 256
"""Sharpness is measured after shrinking the shorter side to this, in pixels."""
HASHED_LINES = 256
"""Lines that are copied at a time."""
ENDINGS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "MPO": ("jpg", "jpeg", "jpe", "jfif", "mpo"),
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
    """Statistics of one image. width, height: upright, in pixels. thumb: uint8 SIDE x SIDE, grey.

    sharpness: the variance of the Laplacian over that of the grey values; blur lowers it.
    """

    width: int
    height: int
    format: str
    frames: int
    sharpness: float
    thumb: np.ndarray
    used_bits: int = 0
    """How many bits of its 16 the image needs; 0 if it has 8, or declares how many it uses."""
    pixels_hash: bytes = bytes(16)
    """Equal for images with the same pixels, in whatever format they are saved."""

    _HEAD: ClassVar[struct.Struct] = struct.Struct("<III12sdB16s")
    LENGTH: ClassVar[int] = _HEAD.size + SIDE * SIDE

    def pack(self) -> bytes:
        """Return the LENGTH bytes that `unpack` reads."""
        name = self.format.encode()[:12]
        head = self._HEAD.pack(
            self.width, self.height, self.frames, name, self.sharpness, self.used_bits, self.pixels_hash
        )
        return head + self.thumb.tobytes()

    @classmethod
    def unpack(cls, content: bytes) -> "ImageStats":
        width, height, frames, name, sharpness, used_bits, pixels_hash = cls._HEAD.unpack_from(content)
        thumb = np.frombuffer(content, np.uint8, offset=cls._HEAD.size).reshape(SIDE, SIDE)
        return cls(width, height, name.rstrip(b"\0").decode(), frames, sharpness, thumb, used_bits, pixels_hash)

    def matches_suffix(self, name: str) -> bool:
        """Does the suffix of the name match the format?"""
        ending = name.rpartition(".")[2].lower()
        return ending in ENDINGS.get(self.format, (ending,)) or "." not in name.rpartition("/")[2]


def compute_image_stats(content: bytes, *, max_pixels: int, admit: Admit = admit_all) -> ImageStats:
    """Compute the statistics of an image from a file's bytes. DecodeError if they cannot be used."""
    opened = image_file.open_file(content, max_pixels=max_pixels, min_side=SHARP_SIDE, admit=admit)
    *_, frames = image_file.read_header(content)
    grey = opened.image.convert("L")
    scale = SHARP_SIDE / min(grey.size)
    if scale < 1:
        grey = grey.resize((round(grey.width * scale), round(grey.height * scale)), Image.Resampling.BOX)
    thumb = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX if scale <= 4 else Image.Resampling.BILINEAR))
    sharpness = compute_sharpness(np.asarray(grey))
    return ImageStats(
        *(opened.width, opened.height, opened.format, frames, sharpness, thumb, opened.used_bits),
        pixels_hash=_hash_pixels(opened.image),
    )


def _hash_pixels(image: Image.Image) -> bytes:
    hasher = xxhash.xxh3_128(f"{image.width} {image.height}".encode())
    for top in range(0, image.height, HASHED_LINES):
        lines = image.crop((0, top, image.width, min(top + HASHED_LINES, image.height)))
        hasher.update(lines.convert("RGB").tobytes())
    return hasher.digest()


def compute_sharpness(grey_HW: np.ndarray) -> float:
    """See ImageStats; 0 for an image of one colour."""
    if min(grey_HW.shape) < 3:
        return 0.0
    values = grey_HW.astype(np.float32)
    inner = values[1:-1, 1:-1]
    laplacian = 4 * inner - values[:-2, 1:-1] - values[2:, 1:-1] - values[1:-1, :-2] - values[1:-1, 2:]
    variance = float(values.var())
    return float(laplacian.var()) / variance if variance > 0 else 0.0
