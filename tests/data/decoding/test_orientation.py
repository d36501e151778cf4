"""One rule for orientation: EXIF's, or else XMP's, in every format; the told sizes are those of the upright image."""

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from classifier.data.decoding import decode, orientation
from classifier.data.decoding.image_spec import ImageSpec
from classifier.data.decoding.image_stats import compute_image_stats
from tests.data.decoding.test_decode import encoded

SCENE = np.zeros((40, 60, 3), np.uint8)
SCENE[:] = (20, 200, 20)
SCENE[:20, :30] = (220, 20, 20)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO")


def exif(value: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = value
    return made


def lying(format: str, *, by: str) -> bytes:
    """The scene, to be turned by a quarter: what was on the left is then at the top."""
    options: dict[str, Any] = {"quality": 95} if format not in ("PNG", "TIFF") else {}
    if format == "MPO":
        options |= {"save_all": True, "append_images": [Image.fromarray(SCENE)]}
    if "EXIF" in by:
        options["exif"] = exif(8 if "XMP" in by else 6)
    if "XMP" in by and format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    elif "XMP" in by and format == "TIFF":
        options["tiffinfo"] = {700: XMP, **({0x0112: 8} if "EXIF" in by else {})}
    elif "XMP" in by:
        options["xmp"] = XMP
    return encoded(Image.fromarray(SCENE), format, **options)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("by", ["EXIF", "XMP", "EXIF before XMP"])
def test_images_are_upright_in_every_format(format: str, by: str) -> None:
    if format == "MPO" and by != "EXIF":
        pytest.skip("Pillow writes no XMP in an MPO")
    content = lying(format, by=by)
    image = decode.open_image(content, max_pixels=10**7)
    assert image.size == (40, 60)
    red = (30, 10) if by != "EXIF before XMP" else (10, 50)
    assert np.abs(np.array(image.getpixel(red)) - (220, 20, 20)).max() < 30
    assert decode.read_header(content)[:2] == (40, 60)
    stats = compute_image_stats(content, max_pixels=10**7)
    assert (stats.width, stats.height, stats.format) == (40, 60, format)
    assert decode.measure_image(content, max_pixels=10**7)[:2] == (40, 60)
    loaded = decode.prepare(image, ImageSpec(20, 3, "crop", 10**7)).astype(int)
    assert np.abs(loaded - decode.decode_bytes(content, ImageSpec(20, 3, "crop", 10**7))).mean() < 4


def test_exif_after_the_pixels_of_a_png() -> None:
    content = encoded(Image.fromarray(SCENE), exif=exif(6))
    at = content.index(b"eXIf") - 4
    length = 12 + int.from_bytes(content[at : at + 4], "big")
    late = content[:at] + content[at + length : -12] + content[at : at + length] + content[-12:]
    assert decode.read_header(late)[:2] == decode.open_image(late, max_pixels=10**7).size == (40, 60)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"", None),
        (b"II*\0", None),
        (b"II*\0\xff\xff\xff\xff", None),
        (b"XX*\0" + bytes(30), None),
        (b"Exif\0\0MM\0*" + struct.pack(">IHHHIHH", 8, 1, 0x0112, 3, 1, 6, 0), 6),
        (b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 4, 1, 8), 8),
        (b"MM\0*" + struct.pack(">IHHHI", 8, 60000, 0x0100, 7, 10**9), None),
    ],
)
def test_orientation_in_exif(content: bytes, value: int | None) -> None:
    assert orientation.find_in_exif(content) == value


@pytest.mark.parametrize(
    ("xmp", "value"),
    [
        (XMP, 6),
        (b"<tiff:Orientation>3</tiff:Orientation>", 3),
        (b"tiff:Orientation='8'", 8),
        (b"tiff:Orientation", None),
        (None, None),
    ],
)
def test_orientation_in_xmp(xmp: bytes | None, value: int | None) -> None:
    assert orientation.find_in_xmp(xmp) == value
