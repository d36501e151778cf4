"""Colours as a person sees them: ICC profiles, declared depths, and transparency at any depth."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from classifier.data.decoding import colours, decode, jpeg
from classifier.data.decoding.image_file import DecodeError
from classifier.data.decoding.image_spec import ImageSpec
from tests.data.decoding.profiles import cmyk_profile, grey_profile, rgb_profile
from tests.data.decoding.test_decode import encoded

BIG = 10**7
COLOUR = (100, 150, 200)
FLAT = Image.new("RGB", (16, 16), COLOUR)
GREY = Image.new("L", (16, 16), 100)
RAMP = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (64, 1))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def opened(content: bytes) -> Image.Image:
    return decode.open_image(content, max_pixels=BIG)


def png(width: int, height: int, depth: int, kind: int, row: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of equal rows."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress((b"\0" + row) * height)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in body)


FORMATS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True},
    "TIFF": {},
}


@pytest.mark.parametrize("format", FORMATS)
def test_profiles_are_converted_to_srgb(format: str) -> None:
    profile = rgb_profile()
    reference = ImageCms.profileToProfile(FLAT, io.BytesIO(profile), ImageCms.createProfile("sRGB"))
    assert reference is not None
    content = encoded(FLAT, format, icc_profile=profile, **FORMATS[format])
    assert np.abs(np.asarray(opened(content), int) - np.asarray(reference)).max() <= 2
    got = decode.decode_bytes(content, ImageSpec(8, 3, "crop", BIG))
    assert np.abs(got.transpose(1, 2, 0).astype(int) - np.asarray(reference)[0, 0]).max() <= 2


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_profiles_of_transparent_and_palette_images(mode: str) -> None:
    image = FLAT.convert("RGBA") if mode == "RGBA" else FLAT.quantize(4)
    expected = opened(encoded(FLAT, icc_profile=rgb_profile()))
    np.testing.assert_array_equal(opened(encoded(image, icc_profile=rgb_profile())), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_profiles(mode: str) -> None:
    """A linear 100 of 255 is 168 in sRGB."""
    image = Image.fromarray(np.full((16, 16), 100 * 257, np.uint16)) if mode == "I;16" else GREY.convert(mode)
    assert opened(encoded(image, icc_profile=grey_profile(1.0))).convert("L").getpixel((4, 4)) == 168


@pytest.mark.parametrize("format", ["TIFF", "JPEG"])
def test_cmyk_goes_through_its_profile(format: str) -> None:
    inks = Image.new("CMYK", (16, 16), (128, 0, 0, 0))
    assert opened(encoded(inks, format)).getpixel((4, 4)) == (127, 255, 255)
    assert opened(encoded(inks, format, icc_profile=cmyk_profile())).getpixel((4, 4)) == (118, 118, 118)


@pytest.mark.parametrize("profile", [SRGB, b"junk" * 99, rgb_profile()[:300], cmyk_profile(), grey_profile(1.0)])
def test_srgb_and_unusable_profiles_change_nothing(profile: bytes) -> None:
    assert not colours.is_converted(profile, "RGB")
    assert opened(encoded(FLAT, icc_profile=profile)).getpixel((4, 4)) == COLOUR
    content = encoded(FLAT, "JPEG", icc_profile=profile)
    spec = ImageSpec(8, 3, "crop", BIG)
    fast = jpeg.decode_fast(content, spec)
    assert fast is not None
    np.testing.assert_array_equal(fast, jpeg.decode_fast(encoded(FLAT, "JPEG"), spec))
    assert jpeg.decode_fast(encoded(FLAT, "JPEG", icc_profile=rgb_profile()), spec) is None


def test_large_images_are_converted_in_bands(monkeypatch) -> None:
    content = encoded(FLAT.convert("RGBA").resize((50, 31)), icc_profile=rgb_profile())
    deep = encoded(Image.fromarray(RAMP), "TIFF", tiffinfo={281: 4095})
    whole = opened(content), opened(deep)
    monkeypatch.setattr(colours, "BAND_PIXELS", 150)
    for one, other in zip(whole, (opened(content), opened(deep)), strict=True):
        np.testing.assert_array_equal(one, other)


def with_sbit(content: bytes, *bits: int) -> bytes:
    chunk = b"sBIT" + bytes(bits)
    return content[:33] + struct.pack(">I", len(bits)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


FLOATS = (RAMP / 4095).astype(np.float32)
# Name -> content, largest grey value, and how many bits are reported as used.
DEPTHS = {
    "PNG": (encoded(Image.fromarray(RAMP)), 16, 12),
    "PNG with sBIT": (with_sbit(encoded(Image.fromarray(RAMP)), 12), 255, 0),
    "PNG with sBIT, shifted up as it should be": (with_sbit(encoded(Image.fromarray(RAMP * 16)), 12), 255, 0),
    "dark PNG with sBIT, shifted up": (with_sbit(encoded(Image.fromarray(RAMP // 16 * 16)), 12), 16, 0),
    "TIFF": (encoded(Image.fromarray(RAMP), "TIFF"), 16, 12),
    "TIFF with MaxSampleValue": (encoded(Image.fromarray(RAMP), "TIFF", tiffinfo={281: 4095}), 255, 0),
    "TIFF with a MaxSampleValue that is too low": (encoded(Image.fromarray(RAMP), "TIFF", tiffinfo={281: 99}), 16, 12),
    "TIFF of floats from 0 to 1": (encoded(Image.fromarray(FLOATS), "TIFF"), 255, 0),
    "TIFF of floats with SMaxSampleValue": (
        encoded(Image.fromarray(FLOATS * 9), "TIFF", tiffinfo={340: 0.0, 341: 9.0}),
        255,
        0,
    ),
    "PGM": (b"P5 64 64 4095\n" + RAMP.astype(">u2").tobytes(), 255, 16),
    "PNG in colour": (png(2, 2, 16, 2, struct.pack(">6H", 4095, 0, 9, 1, 2, 3)), 15, 12),
    "8 bits": (encoded(GREY), 100, 0),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_declared_depths_are_used_and_undeclared_ones_reported(name: str) -> None:
    content, largest, used_bits = DEPTHS[name]
    assert np.asarray(opened(content)).max() == largest
    assert decode.measure_image(content, max_pixels=BIG).used_bits == used_bits


def test_white_is_zero_in_16_bits() -> None:
    values = RAMP * 16
    inverted = opened(encoded(Image.fromarray(values), "TIFF", tiffinfo={262: 0}))
    np.testing.assert_array_equal(np.asarray(inverted), 255 - np.asarray(opened(encoded(Image.fromarray(values)))))


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "not finite"), (5.0, "no fixed range"), (-0.1, "no fixed")])
def test_floats_without_a_range_are_refused(value: float, reason: str) -> None:
    values = FLOATS.copy()
    values[3, 3] = value
    with pytest.raises(DecodeError, match=reason):
        opened(encoded(Image.fromarray(values), "TIFF"))


WHITE, BLACK, KEY = [255] * 3, [0] * 3, bytes.fromhex("123456789abc")
# Name -> a PNG with a transparent colour, and its first row.
TRANSPARENT = {
    "1 bit": (png(8, 2, 1, 0, b"\x0f", (b"tRNS", b"\0\1")), [BLACK] * 4 + [WHITE] * 4),
    "2 bits": (png(4, 2, 2, 0, b"\x1b", (b"tRNS", b"\0\1")), [BLACK, WHITE, [170] * 3, WHITE]),
    "4 bits": (png(2, 2, 4, 0, b"\x3a", (b"tRNS", b"\0\x03")), [WHITE, [170] * 3]),
    "16 bits": (png(2, 2, 16, 0, b"\x12\x34\x80\x80", (b"tRNS", b"\x12\x34")), [255, 128]),
    "16 bits in colour": (
        png(
            2,
            2,
            16,
            2,
            struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x4000, 0, 0x8000),
            (b"tRNS", bytes.fromhex("123456789abc")),
        ),
        [WHITE, [64, 0, 128]],
    ),
    "16 bits with alpha": (png(2, 2, 16, 4, struct.pack(">4H", 0x8000, 0xFFFF, 0x8000, 0)), [[128] * 3, WHITE]),
    "palette of 2 bits": (
        png(4, 2, 2, 3, b"\x1b", (b"PLTE", bytes(range(12))), (b"tRNS", b"\xff\0")),
        [[0, 1, 2], WHITE, [6, 7, 8], [9, 10, 11]],
    ),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparent_colours_at_any_depth(name: str) -> None:
    content, row = TRANSPARENT[name]
    assert np.asarray(opened(content))[0].tolist() == row
