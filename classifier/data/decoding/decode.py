"""Decode an image file to the uint8 square that a model sees. Training, evaluation and prediction share this."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from classifier.data.decoding import colours, image_file, jpeg, orientation
from classifier.data.decoding.image_file import Admit, DecodeError, admit_all
from classifier.data.decoding.image_file import read_header as read_header  # for whoever decodes
from classifier.data.decoding.image_spec import ImageSpec
from classifier.errors import DataError

SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("avif", "bmp", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg"),
        *("pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)
"""Suffixes, in lower case, of files that count as images. How a file is read depends on its content alone."""


@dataclass(frozen=True)
class DecodeFailure:
    """A DecodeError to keep: the exception itself would keep its frames alive, and the file's bytes in them."""

    reason: str


class Measurement(NamedTuple):
    """used_bits: see OpenedImage."""

    width: int
    height: int
    is_grey: bool
    used_bits: int


def timeout_reason(seconds: float) -> str:
    """Say why an image that takes longer to decode than it may cannot be used."""
    return f"it takes longer than {seconds:g} s to decode"


def read_image(source: Path | bytes, *, max_pixels: int) -> Image.Image:
    """Return the image in a file, or in its bytes, as a person sees it: see image_file.py.

    DataError names a file that cannot be used.
    """
    with as_data_error(source):
        return open_image(_read_bytes(source), max_pixels=max_pixels)


def open_image(content: bytes, *, max_pixels: int, min_side: int | None = None) -> Image.Image:
    """`read_image` of bytes. A JPEG may come smaller, no side below `min_side`. DecodeError if it cannot be used."""
    return image_file.open_file(content, max_pixels=max_pixels, min_side=min_side).image


def load(source: Path | bytes, spec: ImageSpec) -> np.ndarray:
    """Return prepare(read_image(source)), but faster: a JPEG much larger than spec.size is shrunk while it is decoded.

    uint8, channels x size x size. DataError names a file that cannot be used.
    """
    with as_data_error(source):
        return decode_bytes(_read_bytes(source), spec)


def decode_bytes(content: bytes, spec: ImageSpec, admit: Admit = admit_all) -> np.ndarray:
    """`load` a file's bytes. DecodeError if they cannot be used."""
    pixels_CHW = jpeg.decode_fast(content, spec)
    return decode_general(content, spec, admit) if pixels_CHW is None else pixels_CHW


def decode_general(content: bytes, spec: ImageSpec, admit: Admit = admit_all) -> np.ndarray:
    """`decode_bytes` without the fast path for common JPEGs."""
    opened = image_file.open_file(content, max_pixels=spec.max_pixels, min_side=spec.size, admit=admit)
    return _fit_to_square(opened.image, spec)


def prepare(image: Image.Image, spec: ImageSpec) -> np.ndarray:
    """Return the uint8 array, channels x size x size, of an image of any mode and size.

    fit: crop (centre square), pad (with the median colour of the border, which continues a plain background), or
    stretch. Shrinking averages over all pixels (no aliasing); an image of the right size is not resampled at all.
    It is turned upright and its colours are converted, as its metadata say. DataError if its values have no fixed range
    (32-bit, floating point).
    """
    with as_data_error(b""), image_file.as_decode_error():
        return _fit_to_square(colours.to_grey_or_rgb(orientation.turn_upright(image)), spec)


def _fit_to_square(image: Image.Image, spec: ImageSpec) -> np.ndarray:
    size = spec.size
    if spec.channels == 1:
        image = image.convert("L")
    width, height = image.size
    box, target = (0, 0, width, height), (size, size)
    if spec.fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
    elif spec.fit == "pad":
        scale = size / max(width, height)
        target = (max(1, round(width * scale)), max(1, round(height * scale)))
    if (box[2] - box[0], box[3] - box[1]) == target:
        image = image if box == (0, 0, width, height) else image.crop(box)
    else:
        image = image.resize(target, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    if target != (size, size):
        square = Image.new(image.mode, (size, size), _border_colour(image))
        square.paste(image, ((size - target[0]) // 2, (size - target[1]) // 2))
        image = square
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return np.repeat(pixels[None], spec.channels, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def measure_image(content: bytes, *, max_pixels: int, admit: Admit = admit_all) -> Measurement:
    """Measure a file's bytes. DecodeError if they cannot be used."""
    opened = image_file.open_file(content, max_pixels=max_pixels, min_side=64, admit=admit)
    return Measurement(opened.width, opened.height, is_grey(opened.image), opened.used_bits)


def is_grey(image: Image.Image) -> bool:
    """Is it free of colour? An RGB image whose channels are equal is grey."""
    if image.mode == "L":
        return True
    red, green, blue = image.split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def _border_colour(image: Image.Image) -> Any:
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    median = np.median(border, axis=0).round().astype(int)
    return int(median) if pixels.ndim == 2 else tuple(map(int, median))


def _read_bytes(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise DecodeError(f"it cannot be read ({error.strerror or error})") from None


@contextlib.contextmanager
def as_data_error(source: Path | bytes) -> Iterator[None]:
    """Raise DataError, which names the source, for a DecodeError."""
    try:
        yield
    except DecodeError as error:
        raise data_error(source, str(error)) from None


def data_error(source: Path | bytes, reason: str) -> DataError:
    """Return the exception that says why an image cannot be used. source: its path; bytes if it has none."""
    what = "the image cannot be used" if isinstance(source, bytes) else f"{source} cannot be used as an image"
    return DataError(f"{what}: {reason}; replace or remove it")
