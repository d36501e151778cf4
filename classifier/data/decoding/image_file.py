"""An image file's bytes to an image as a person sees it: first frame, upright, 8 bits, sRGB, mode L or RGB.

Everything that depends on a format is here and in jpeg.py, orientation.py and colours.py.
"""

import contextlib
import functools
import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from classifier.data.decoding import colours, jpeg, orientation
from classifier.data.decoding.pillow_settings import pillow_limits_off
from classifier.errors import in_short

MAX_SCANS = 100
"""Scans of a JPEG: each goes over all pixels, and ordinary files have up to 12."""
MAX_FRAMES = 1000
"""Frames of a TIFF that are counted; only the first is decoded."""
MAX_PNG_CHUNKS = 100_000
JPEG_SCANS_PER_PASS = 4
"""Scans of a JPEG that take as long as other formats take for the same pixels."""
MAX_SIMPLE_BYTES, MAX_SIMPLE_BYTES_OF_NESTED = 1 << 24, 1 << 16
"""Larger files are complex: those whose parts refer to each other (TIFF, AVIF, JPEG 2000), and all others."""

# Pillow knows more formats, some of which start other programs (EPS) or are not images to learn from.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")

Admit = Callable[[int], None]
"""Called before an image is decoded with its work, in pixels times passes over them; it may wait, or raise
ExpensiveError."""


def to_pillow(image_CHW: np.ndarray) -> Image.Image:
    """Return a uint8 array as an image."""
    return Image.fromarray(image_CHW[0] if len(image_CHW) == 1 else np.ascontiguousarray(image_CHW.transpose(1, 2, 0)))


def encode_png(image_CHW: np.ndarray) -> bytes:
    """Return the bytes of a PNG file of the image."""
    stream = io.BytesIO()
    to_pillow(image_CHW).save(stream, "png", compress_level=1)
    return stream.getvalue()


class DecodeError(Exception):
    """Why an image cannot be used, in a few words, without its name."""


class ExpensiveError(Exception):
    """An image takes too much time or memory for the process that would decode it."""


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """image: mode L or RGB, upright, maybe shrunk. width, height: before that, but upright as well."""

    image: Image.Image
    width: int
    height: int
    format: str

    @property
    def used_bits(self) -> int:
        """How many bits of its 16 the image needs; 0 if it has 8, or declares how many it uses."""
        return self.image.info.get(colours.USED_BITS, 0)


def admit_all(_: int) -> None:
    """Admit any image."""


def open_file(content: bytes, *, max_pixels: int, min_side: int | None = None, admit: Admit = admit_all) -> OpenedImage:
    """Decode the bytes of a file. A JPEG may come smaller, no side below `min_side`. DecodeError if it cannot be used.

    ExpensiveError if `admit` raises it.
    """
    if not content:
        raise DecodeError("the file is empty")
    head = _read_jpeg_head(content)
    if head is not None and head.size is not None:
        scans = jpeg.count_scans(content)
        if scans > MAX_SCANS:
            raise DecodeError(f"its {scans:,} scans are more than the {MAX_SCANS} that a JPEG may have")
        width, height = head.size
        check_size(width, height, max_pixels)
        admit(width * height * max(1, scans // JPEG_SCANS_PER_PASS))
        if (pixels_HWC := jpeg.read(content, head, max_pixels=max_pixels, min_side=min_side)) is not None:
            image = Image.fromarray(pixels_HWC if pixels_HWC.shape[2] > 1 else pixels_HWC[:, :, 0])
            return OpenedImage(image, width, height, "JPEG" if head.images == 1 else "MPO")
    with _open_with_pillow(content, head) as image:
        check_size(image.width, image.height, max_pixels)
        stored, name = image.size, image.format or ""
        if head is not None:
            stored, name = orientation.upright_size(image), name if head.images == 1 else "MPO"
            scale = 1.0 if min_side is None else min(1.0, min_side / min(image.size))
            image.draft(None, tuple(round(side * scale) for side in image.size))  # pyright: ignore[reportArgumentType]
        else:
            admit(image.width * image.height)
        upright = orientation.turn_upright(image)
        width, height = upright.size if head is None else stored
        flat = colours.to_grey_or_rgb(upright)
        # Its other metadata were applied, and no longer hold.
        flat.info = {key: flat.info[key] for key in (colours.USED_BITS,) if key in flat.info}
        return OpenedImage(flat, width, height, name)


def read_header(content: bytes) -> tuple[int, int, str, int]:
    """Return width and height, upright; the format; and the number of frames. DecodeError if it cannot be used."""
    head = _read_jpeg_head(content)
    with _open_with_pillow(content, head) as image:
        width, height = orientation.upright_size(image)
        if head is not None:
            return width, height, "JPEG" if head.images == 1 else "MPO", head.images
        if image.format == "TIFF":
            return width, height, "TIFF", count_tiff_frames(content)
        try:
            frames = getattr(image, "n_frames", 1)
        except Exception:  # a later frame is corrupted: only the first is used here
            frames = 1
        return width, height, image.format or "", frames


def check_size(width: int, height: int, max_pixels: int) -> None:
    """DecodeError if an image of this size cannot be used."""
    if min(width, height) < 2:
        raise DecodeError(f"it has {width} x {height} pixels")
    if width * height > max_pixels:
        raise DecodeError(f"its {width} x {height} pixels are more than data.max_pixels {max_pixels:,}")


def is_complex(content: bytes) -> bool:
    """May merely opening it take long, or much memory? Such a file needs a process that can be killed."""
    if jpeg.is_jpeg(content):
        return _read_jpeg_head(content) is None
    is_nested = content.startswith((b"II", b"MM", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP")) or content[4:8] == b"ftyp"
    return len(content) > (MAX_SIMPLE_BYTES_OF_NESTED if is_nested else MAX_SIMPLE_BYTES)


def _read_jpeg_head(content: bytes) -> jpeg.Head | None:
    """Return the head of a JPEG whose segments are in order; None for any other file."""
    head = jpeg.read_head(content) if jpeg.is_jpeg(content) else None
    return head if head is not None and head.size else None


@contextlib.contextmanager
def _open_with_pillow(content: bytes, head: jpeg.Head | None) -> Iterator[Image.Image]:
    """The image before it is decoded, with its metadata. DecodeError for whatever happens to it."""
    stored = content if head is None else jpeg.without_metadata(content, head)
    with as_decode_error(), Image.open(io.BytesIO(stored), formats=_formats()) as image:
        if head is not None:
            image.info |= {"exif": head.exif, "xmp": head.xmp, "icc_profile": head.profile}
        elif image.format == "PNG":
            _complete_png(image, content)
        yield image


@contextlib.contextmanager
def as_decode_error() -> Iterator[None]:
    """Turn Pillow's own limits off, and raise DecodeError for whatever happens to an image."""
    try:
        with pillow_limits_off():
            yield
    except (DecodeError, ExpensiveError):
        raise
    except colours.ColourError as error:
        raise DecodeError(str(error)) from None
    except UnidentifiedImageError:
        raise DecodeError("it is not an image, or its format is unknown") from None
    except MemoryError:
        raise DecodeError("it takes more memory to decode than it may") from None
    except Exception as error:  # a corrupted file can make a decoder fail in any way
        words = in_short(error)
        raise DecodeError("it is truncated" if "truncated" in words.lower() else f"it is corrupted ({words})") from None


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _complete_png(image: Image.Image, content: bytes) -> None:
    """Correct what Pillow says of a PNG: transparency at the depth of the pixels, significant bits, late EXIF."""
    depth, transparent = content[24], image.info.get("transparency")
    image.info[colours.DEPTH] = depth
    if image.mode == "L" and depth < 8 and isinstance(transparent, int):
        image.info["transparency"] = transparent * 255 // (2**depth - 1)
    elif depth == 16 and isinstance(transparent, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    for kind, start, end in _png_chunks(content):
        if kind == b"sBIT" and image.mode.startswith("I") and 1 <= content[start] <= 16:
            image.info[colours.SIGNIFICANT_BITS] = content[start]
        elif kind == b"eXIf":
            image.info.setdefault("exif", b"Exif\0\0" + content[start:end])


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk, and where its data begin and end."""
    offset = 8
    for _ in range(MAX_PNG_CHUNKS):
        start = offset + 8
        offset = start + int.from_bytes(content[offset : offset + 4], "big") + 4
        if offset > len(content):
            return
        yield content[start - 4 : start], start, offset - 4


def count_tiff_frames(content: bytes) -> int:
    """Return the number of directories in a TIFF, at most MAX_FRAMES; Pillow would read all their tags."""
    order = "<" if content.startswith(b"II") else ">"
    is_big = struct.unpack_from(f"{order}H", content, 2) == (43,)
    counter, entry, pointer = (f"{order}Q", 20, f"{order}Q") if is_big else (f"{order}H", 12, f"{order}I")
    visited: set[int] = set()
    with contextlib.suppress(struct.error):
        (offset,) = struct.unpack_from(pointer, content, 8 if is_big else 4)
        while offset not in visited and len(visited) < MAX_FRAMES:
            (count,) = struct.unpack_from(counter, content, offset)
            following = struct.unpack_from(pointer, content, offset + struct.calcsize(counter) + entry * count)
            if not count:
                break
            visited.add(offset)
            (offset,) = following
            if not offset:
                break
    return max(1, len(visited))
