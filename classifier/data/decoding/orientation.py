"""Which side of a stored image is up: EXIF's orientation, or if EXIF has none XMP's, in every format.

EXIF is read here and not by Pillow, which copies whatever its tags refer to: a file of 1 MB can refer to itself 60,000
times.
"""

import contextlib
import re
import struct
from collections.abc import Iterator

from PIL import Image

_TAG = 0x0112
_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([0-9])")
_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Types of TIFF tags that hold a whole number: its size in bytes, and whether it has a sign.
_WHOLE_NUMBERS = {1: (1, False), 3: (2, False), 4: (4, False), 6: (1, True), 8: (2, True), 9: (4, True)}


def turn_upright(image: Image.Image) -> Image.Image:
    """Return the image upright; it is loaded first, as Pillow turns a TIFF then, and forgets its orientation."""
    image.load()
    method = _METHODS.get(read_orientation(image))
    return image if method is None else image.transpose(method)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height as they will be when the image is upright; it may be unloaded."""
    width, height = image.size
    is_swapped_already = _TAG in getattr(image, "tag_v2", ())
    return (height, width) if read_orientation(image) >= 5 and not is_swapped_already else (width, height)


def read_orientation(image: Image.Image) -> int:
    """Return what the image's metadata say, 1 to 8; 1 if they say nothing."""
    tags = getattr(image, "tag_v2", {})
    value = tags[_TAG] if _TAG in tags else find_in_exif(_exif_of(image))
    if value is None:
        xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp")
        value = find_in_xmp(xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp)
    return value if value in _METHODS else 1


def find_in_xmp(xmp: object) -> int | None:
    """Return the orientation that XMP states, if it does."""
    found = _XMP.search(xmp) if isinstance(xmp, bytes) else None
    return int(found[1]) if found else None


def find_in_exif(exif: bytes, wanted: int = _TAG) -> int | None:
    """Return the whole number that a tag of EXIF states, if it does. Other tags may be corrupted."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    with contextlib.suppress(struct.error):
        for tag, kind, value in _first_directory(exif, order) if order else ():
            if tag == wanted and kind in _WHOLE_NUMBERS:
                length, is_signed = _WHOLE_NUMBERS[kind]
                return int.from_bytes(value[:length], "little" if order == "<" else "big", signed=is_signed)
    return None


def _first_directory(exif: bytes, order: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield tag, type and value field of each entry. struct.error where it is cut off."""
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for offset in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHI4s", exif, offset)
        yield tag, kind, value


def _exif_of(image: Image.Image) -> bytes:
    exif = image.info.get("exif", b"")
    if not exif and isinstance(raw := image.info.get("Raw profile type exif"), str):  # ImageMagick's way, in PNG
        with contextlib.suppress(ValueError):
            exif = bytes.fromhex("".join(raw.split("\n")[3:]))
    return exif if isinstance(exif, bytes) else b""
