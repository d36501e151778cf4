"""Decode an image file to the uint8 square that a model sees. Training, evaluation and prediction share this."""

import contextlib
import functools
import io
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from classifier.data.decoding import jpeg
from classifier.data.decoding.image_spec import ImageSpec
from classifier.errors import DataError, in_short

SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("avif", "bmp", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg"),
        *("pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)
"""Suffixes, in lower case, of files that count as images. How a file is read depends on its content alone."""

# Pillow knows more formats, some of which start other programs (EPS) or are not images to learn from.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")


class DecodeError(Exception):
    """Why an image cannot be used, in a few words, without its name."""


@dataclass(frozen=True)
class DecodeFailure:
    """A DecodeError to keep: the exception itself would keep its frames alive, and the file's bytes in them."""

    reason: str


def timeout_reason(seconds: float) -> str:
    """Say why an image that takes longer to decode than it may cannot be used."""
    return f"it takes longer than {seconds:g} s to decode"


def is_image_path(path: Path) -> bool:
    """Does this path look like an image file? Hidden files do not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def read_image(source: Path | bytes, *, max_pixels: int) -> Image.Image:
    """Return the image in a file, or in its bytes: first frame, upright as EXIF says, 8 bits, mode L or RGB.

    16-bit grey is scaled to 8 bits, transparency is laid on white. DataError names a file that cannot be used.
    """
    with _as_data_error(source):
        return open_image(_read_bytes(source), max_pixels=max_pixels)


def load(source: Path | bytes, spec: ImageSpec) -> np.ndarray:
    """Return prepare(read_image(source)), but faster: a JPEG much larger than spec.size is shrunk while it is decoded.

    uint8, channels x size x size. DataError names a file that cannot be used.
    """
    with _as_data_error(source):
        return decode_bytes(_read_bytes(source), spec)


def decode_bytes(content: bytes, spec: ImageSpec) -> np.ndarray:
    """`load` a file's bytes. DecodeError if they cannot be used."""
    pixels_CHW = jpeg.decode_fast(content, spec)
    return decode_general(content, spec) if pixels_CHW is None else pixels_CHW


def decode_general(content: bytes, spec: ImageSpec) -> np.ndarray:
    """`decode_bytes` without the fast path for common JPEGs."""
    return _fit_to_square(open_image(content, max_pixels=spec.max_pixels, min_side=spec.size), spec)


def prepare(image: Image.Image, spec: ImageSpec) -> np.ndarray:
    """Return the uint8 array, channels x size x size, of an image of any mode and size.

    fit: crop (centre square), pad (with the median colour of the border, which continues a plain background), or
    stretch. Shrinking averages over all pixels (no aliasing); an image of the right size is not resampled at all.
    DataError if its values have no fixed range (32-bit, floating point).
    """
    with _as_data_error(b""):
        return _fit_to_square(image, spec)


def _fit_to_square(image: Image.Image, spec: ImageSpec) -> np.ndarray:
    size = spec.size
    image = _to_grey_or_rgb(image)
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


def measure_image(content: bytes, *, max_pixels: int) -> tuple[int, int, bool]:
    """Return width, height, and whether the image is grey, from a file's bytes. DecodeError if it cannot be used."""
    image = open_image(content, max_pixels=max_pixels, min_side=64)
    width, height, *_ = read_header(content)
    return width, height, is_grey(image)


def is_grey(image: Image.Image) -> bool:
    """Is it free of colour? An RGB image whose channels are equal is grey."""
    if image.mode == "L":
        return True
    red, green, blue = image.split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def open_image(content: bytes, *, max_pixels: int, min_side: int | None = None) -> Image.Image:
    """`read_image` of bytes. A JPEG may come smaller, no side below `min_side`. DecodeError if it cannot be used."""
    if not content:
        raise DecodeError("the file is empty")
    if (pixels_HWC := jpeg.read(content, max_pixels=max_pixels, min_side=min_side)) is not None:
        return Image.fromarray(pixels_HWC if pixels_HWC.shape[2] > 1 else pixels_HWC[:, :, 0])
    with _open_with_pillow(content) as image:
        width, height = image.size
        if min(width, height) < 2:
            raise DecodeError(f"it has {width} x {height} pixels")
        if width * height > max_pixels:
            raise DecodeError(f"its {width} x {height} pixels are more than data.max_pixels {max_pixels:,}")
        if min_side is not None:
            scale = min(1.0, min_side / min(width, height))
            image.draft(None, (round(width * scale), round(height * scale)))  # pyright: ignore[reportArgumentType]
        image.load()
        _turn_upright(image)
        return _to_grey_or_rgb(image)


@contextlib.contextmanager
def _open_with_pillow(content: bytes) -> Iterator[Image.Image]:
    """The image before it is decoded. DecodeError for whatever happens to it."""
    try:
        with pillow_limits_off(), Image.open(io.BytesIO(content), formats=_formats()) as image:
            yield image
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise DecodeError("it is not an image, or its format is unknown") from None
    except Exception as error:  # a corrupted file can make a decoder fail in any way
        words = in_short(error)
        raise DecodeError("it is truncated" if "truncated" in words.lower() else f"it is corrupted ({words})") from None


@contextlib.contextmanager
def pillow_limits_off() -> Iterator[None]:
    """Turn Pillow's own limits and warnings off: what they warn of is a DecodeError here. Threads may share it.

    Warning filters and Pillow's settings are global to the process: the first thread to enter sets them and the last
    to leave restores them; one catch_warnings per thread would restore them in the wrong order.
    """
    with _PILLOW.lock:
        if _PILLOW.depth == 0:
            _PILLOW.override()
        _PILLOW.depth += 1
    try:
        yield
    finally:
        with _PILLOW.lock:
            _PILLOW.depth -= 1
            if _PILLOW.depth == 0:
                _PILLOW.stack.close()


class _PillowSettings:
    def __init__(self) -> None:
        self.lock, self.depth, self.stack = threading.Lock(), 0, contextlib.ExitStack()

    def override(self) -> None:
        self.stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"PIL\.")
        self._set(Image, "MAX_IMAGE_PIXELS", None)  # data.max_pixels is the limit
        self._set(ImageFile, "LOAD_TRUNCATED_IMAGES", False)  # half an image is a DecodeError

    def _set(self, module: Any, name: str, value: Any) -> None:
        self.stack.callback(setattr, module, name, getattr(module, name))
        setattr(module, name, value)


_PILLOW = _PillowSettings()


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _turn_upright(image: Image.Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # corrupted EXIF says nothing about the pixels, which are intact
        pass


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    """Mode L or RGB, on white where it is transparent."""
    mode = image.mode
    if mode.startswith("I"):  # I;16 and its byte orders; or I, in which 16-bit PGM files arrive
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise DecodeError("its 32-bit values have no fixed range")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if mode == "F":
        raise DecodeError("its floating-point values have no fixed range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if mode in ("L", "RGB"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def _border_colour(image: Image.Image) -> Any:
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    median = np.median(border, axis=0).round().astype(int)
    return int(median) if pixels.ndim == 2 else tuple(map(int, median))


def read_header(content: bytes) -> tuple[int, int, str, int]:
    """Return width and height, upright; the format; and the number of frames. DecodeError if it cannot be used."""
    with _open_with_pillow(content) as image:
        width, height = image.size
        try:
            is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        except Exception:  # as in _turn_upright
            is_turned = False
        if is_turned:
            width, height = height, width
        try:
            frames = getattr(image, "n_frames", 1)
        except Exception:  # a later frame is corrupted: only the first is used here
            frames = 1
        return width, height, image.format or "", frames


def _read_bytes(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise DecodeError(f"it cannot be read ({error.strerror or error})") from None


@contextlib.contextmanager
def _as_data_error(source: Path | bytes) -> Iterator[None]:
    try:
        yield
    except DecodeError as error:
        name = "the image" if isinstance(source, bytes) else source
        raise DataError(f"{name} cannot be used as an image: {error}; replace or remove it") from None
