"""One picture: from a file to the uint8 square that a model sees. Training, evaluation and prediction share this."""

import contextlib
import functools
import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from classifier.data.decoding import jpeg
from classifier.errors import DataError, in_short

SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("avif", "bmp", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg"),
        *("pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp"),
    )
)
"""Endings of the files in a folder that count as pictures, in lower case. What they hold decides how they are read."""

# Pillow knows more formats, some of which start other programs (EPS) or are no pictures to learn from.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodeError(Exception):
    """Why a picture cannot be used, in a few words, without its name."""


def is_picture(path: Path) -> bool:
    """Does this path look like an image file? Hidden files do not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def read_image(source: Path | bytes, *, max_pixels: int) -> Image.Image:
    """The picture in a file, or in its bytes: first frame, upright as EXIF says, 8 bits, mode L or RGB.

    16-bit grey is scaled to 8 bits, transparency is laid on white. DataError names a file that cannot be used.
    """
    with _named(source):
        return opened(_content(source), max_pixels=max_pixels)


def load(source: Path | bytes, *, size: int, channels: int, fit: str, max_pixels: int) -> np.ndarray:
    """prepare(read_image(source)), and faster: a JPEG much larger than `size` is decoded at a part of its size.

    uint8, channels x size x size. DataError names a file that cannot be used.
    """
    with _named(source):
        return loaded(_content(source), size=size, channels=channels, fit=fit, max_pixels=max_pixels)


def loaded(content: bytes, *, size: int, channels: int, fit: str, max_pixels: int) -> np.ndarray:
    """`load` of a file's bytes. DecodeError if they cannot be used."""
    pixels_CHW = jpeg.fast(content, size=size, channels=channels, fit=fit, max_pixels=max_pixels)
    if pixels_CHW is None:
        pixels_CHW = thorough(content, size=size, channels=channels, fit=fit, max_pixels=max_pixels)
    return pixels_CHW


def thorough(content: bytes, *, size: int, channels: int, fit: str, max_pixels: int) -> np.ndarray:
    """`loaded`, of files that are not the common case."""
    return _prepared(opened(content, max_pixels=max_pixels, least=size), size, channels, fit)


def prepare(image: Image.Image, *, size: int, channels: int, fit: str) -> np.ndarray:
    """The uint8 array, channels x size x size, of a picture of any mode and size.

    fit: crop (centre square), pad (with the median colour of the border, so that a plain background goes on), or
    stretch. Shrinking averages over all pixels (no aliases); a picture of the right size is not resampled at all.
    DataError if its values have no fixed range (32-bit, floating point).
    """
    with _named(b""):
        return _prepared(image, size, channels, fit)


def _prepared(image: Image.Image, size: int, channels: int, fit: str) -> np.ndarray:
    image = _plain(image)
    if channels == 1:
        image = image.convert("L")
    width, height = image.size
    box, target = (0, 0, width, height), (size, size)
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
    elif fit == "pad":
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
        return np.repeat(pixels[None], channels, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def look(content: bytes, *, max_pixels: int) -> tuple[int, int, bool]:
    """Width, height, and whether the picture is grey, from a file's bytes. DecodeError if it cannot be used."""
    image = opened(content, max_pixels=max_pixels, least=64)
    width, height, *_ = described(content)
    return width, height, is_grey(image)


def is_grey(image: Image.Image) -> bool:
    """Is there no colour in it? An RGB picture whose channels are equal is grey."""
    if image.mode == "L":
        return True
    red, green, blue = image.split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def opened(content: bytes, *, max_pixels: int, least: int | None = None) -> Image.Image:
    """read_image of a file's bytes. A JPEG may come smaller, no side below `least`. DecodeError if it is of no use."""
    if not content:
        raise DecodeError("the file is empty")
    if (pixels_HWC := jpeg.read(content, max_pixels=max_pixels, least=least)) is not None:
        return Image.fromarray(pixels_HWC if pixels_HWC.shape[2] > 1 else pixels_HWC[:, :, 0])
    with _opening(content) as image:
        width, height = image.size
        if min(width, height) < 2:
            raise DecodeError(f"it has {width} x {height} pixels")
        if width * height > max_pixels:
            raise DecodeError(f"its {width} x {height} pixels are more than data.max_pixels {max_pixels:,}")
        if least is not None:
            scale = min(1.0, least / min(width, height))
            image.draft(None, (round(width * scale), round(height * scale)))  # pyright: ignore[reportArgumentType]
        image.load()
        return _plain(_upright(image))


@contextlib.contextmanager
def _opening(content: bytes) -> Iterator[Image.Image]:
    """The picture before it is decoded. DecodeError for whatever happens to it."""
    try:
        with quiet(), Image.open(io.BytesIO(content), formats=_formats()) as image:
            yield image
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise DecodeError("it is no image, or of an unknown format") from None
    except Exception as error:  # a damaged file can make a decoder fail in any way
        words = in_short(error)
        raise DecodeError("it is truncated" if "truncated" in words.lower() else f"it is damaged ({words})") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Pillow with its own limits and warnings off: what they warn of is a DecodeError here. Threads may share it.

    Filters of warnings and Pillow's settings are the process's: the first thread in sets them, the last one out
    brings them back, where one catch_warnings a thread would restore them in the wrong order.
    """
    with _QUIET.lock:
        if _QUIET.depth == 0:
            _QUIET.begin()
        _QUIET.depth += 1
    try:
        yield
    finally:
        with _QUIET.lock:
            _QUIET.depth -= 1
            if _QUIET.depth == 0:
                _QUIET.stack.close()


class _Quiet:
    def __init__(self) -> None:
        self.lock, self.depth, self.stack = threading.Lock(), 0, contextlib.ExitStack()

    def begin(self) -> None:
        self.stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"PIL\.")
        self._set(Image, "MAX_IMAGE_PIXELS", None)  # data.max_pixels is the limit
        self._set(ImageFile, "LOAD_TRUNCATED_IMAGES", False)  # half a picture is a DecodeError

    def _set(self, module: Any, name: str, value: Any) -> None:
        self.stack.callback(setattr, module, name, getattr(module, name))
        setattr(module, name, value)


_QUIET = _Quiet()


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing about the pixels, which are whole
        turn = None
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image) -> Image.Image:
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


def described(content: bytes) -> tuple[int, int, str, int]:
    """Width and height, upright; the format; and how many frames there are. DecodeError if it is of no use."""
    with _opening(content) as image:
        width, height = image.size
        try:
            is_turned = image.getexif().get(_ORIENTATION, 1) >= 5
        except Exception:  # as in _upright
            is_turned = False
        if is_turned:
            width, height = height, width
        try:
            frames = getattr(image, "n_frames", 1)
        except Exception:  # a later frame is damaged: the first is the picture here
            frames = 1
        return width, height, image.format or "", frames


def _content(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise DecodeError(f"it cannot be read ({error.strerror or error})") from None


@contextlib.contextmanager
def _named(source: Path | bytes) -> Iterator[None]:
    try:
        yield
    except DecodeError as flaw:
        name = "the picture" if isinstance(source, bytes) else source
        raise DataError(f"{name} cannot be used as a picture: {flaw}; replace or remove it") from None
