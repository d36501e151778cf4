"""Every kind of image file is decoded to the pixels that a person sees; corrupted files are named and break nothing."""

import contextlib
import io
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from classifier.data.decoding import decode
from classifier.data.decoding.image_spec import ImageSpec
from classifier.errors import DataError

BIG = 10**8
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 8), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixels(content: bytes) -> np.ndarray:
    image = decode.read_image(content, max_pixels=BIG)
    assert image.mode in ("L", "RGB")
    return np.asarray(image)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_grey_and_colour(format: str) -> None:
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(GREY), format)), GREY)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(COLOUR), format)), COLOUR)


def test_lossy_formats_are_near() -> None:
    smooth = np.asarray(Image.fromarray(COLOUR).resize((64, 48), Image.Resampling.BICUBIC))
    for format, options in (("JPEG", {"quality": 95, "subsampling": 0}), ("WEBP", {"quality": 95})):
        got = pixels(encoded(Image.fromarray(smooth), format, **options)).astype(int)
        assert np.abs(got - smooth).mean() < 6


def test_transparency_is_laid_on_white() -> None:
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    rgba[0, 1] = (10, 20, 30, 0)
    rgba[0, 2] = (0, 0, 0, 51)
    got = pixels(encoded(Image.fromarray(rgba)))
    np.testing.assert_array_equal(got[0], [[10, 20, 30], [255, 255, 255], [204, 204, 204]])
    la = np.zeros((2, 2, 2), np.uint8)
    la[0, 0] = (90, 255)
    got = pixels(encoded(Image.fromarray(la)))
    np.testing.assert_array_equal(got[0], [[90, 90, 90], [255, 255, 255]])


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"])
def test_palette_with_and_without_transparency(transparency: "int | bytes") -> None:
    image = Image.new("P", (3, 2))
    image.putpalette([5, 6, 7, 50, 60, 70, 200, 100, 0])
    image.putdata([0, 1, 2, 2, 1, 0])
    seen = np.array([[[5, 6, 7], [50, 60, 70], [200, 100, 0]], [[200, 100, 0], [50, 60, 70], [5, 6, 7]]])
    np.testing.assert_array_equal(pixels(encoded(image)), seen)
    seen[:, 1] = 255
    np.testing.assert_array_equal(pixels(encoded(image, transparency=transparency)), seen)


def test_transparent_colour_of_an_image_without_alpha() -> None:
    grey = np.array([[0, 7], [7, 200]], np.uint8)
    got = pixels(encoded(Image.fromarray(grey), transparency=7))
    np.testing.assert_array_equal(got[..., 0], [[0, 255], [255, 200]])


def test_cmyk() -> None:
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:, :, 0], inks[:, 8:, 3] = 255, 128  # cyan; on the right with some black
    for format, options in (("TIFF", {}), ("JPEG", {"quality": 100})):
        got = pixels(encoded(Image.fromarray(inks, "CMYK"), format, **options)).astype(int)
        np.testing.assert_allclose(got[4, 4], [0, 255, 255], atol=3)
        np.testing.assert_allclose(got[4, 12], [0, 127, 127], atol=3)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_to_8(format: str) -> None:
    deep = GREY.astype(np.uint16) * 257
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(deep), format)), GREY)
    deep = np.array([[0, 128, 129], [65535, 65407, 65406]], np.uint16)  # rounded, not cut off
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(deep), format)), [[0, 0, 1], [255, 255, 254]])


def test_16_bits_with_the_high_byte_first() -> None:
    head = b"MM\0*\0\0\0\x08\0\x08"
    tags = [(256, 4, 8), (257, 4, 6), (258, 3, 16 << 16), (259, 3, 1 << 16), (262, 3, 1 << 16)]
    tags += [(273, 4, 10 + 8 * 12 + 4), (278, 4, 6), (279, 4, 96)]
    entries = b"".join(struct.pack(">HHII", tag, kind, 1, value) for tag, kind, value in tags)
    content = head + entries + b"\0\0\0\0" + (GREY.astype(">u2") * 257).astype(">u2").tobytes()
    np.testing.assert_array_equal(pixels(content), GREY)


def test_one_bit() -> None:
    bits = GREY > 127
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(bits))), bits * np.uint8(255))


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(format: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0))]
    options = {"lossless": True} if format == "WEBP" else {}
    got = pixels(encoded(frames[0], format, save_all=True, append_images=frames[1:], **options))
    assert got.shape == (6, 8, 3)
    assert (got == (255, 0, 0)).all()


# What a camera stores, of a scene that is upright, for each value of EXIF's orientation.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](COLOUR)))
    options = {"lossless": True} if format == "WEBP" else {}
    np.testing.assert_array_equal(pixels(encoded(image, format, exif=exif, **options)), COLOUR)


def test_jpeg_rotated_by_exif() -> None:
    scene = np.zeros((32, 64, 3), np.uint8)
    scene[:, :32, 0], scene[:16, 32:, 1] = 250, 250  # red on the left, green on the upper right
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(np.ascontiguousarray(np.rot90(scene))), "JPEG", exif=exif, subsampling=0)
    assert np.abs(pixels(content).astype(int) - scene).mean() < 2
    got = decode.load(content, ImageSpec(8, 3, "stretch", BIG)).transpose(1, 2, 0)
    np.testing.assert_allclose(got[1, 6], (0, 250, 0), atol=12)


def test_corrupted_exif_does_not_affect_the_pixels() -> None:
    content = encoded(Image.fromarray(GREY), "JPEG", exif=b"Exif\0\0" + b"II*\0\xff\xff\xff\x7f" + b"\xff" * 30)
    assert pixels(content).shape == GREY.shape


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_orientation_counts_though_the_other_tags_are_corrupted(format: str) -> None:
    """Pillow cannot write this width of -1 back, after it has turned the image."""
    entries = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack(">HHIi", 0x0100, 9, 1, -1)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4)
    image = Image.fromarray(np.ascontiguousarray(STORED[6](COLOUR)))
    got = pixels(encoded(image, format, exif=exif, quality=100, subsampling=0, lossless=True))
    assert got.shape == COLOUR.shape
    assert np.abs(got.astype(int) - COLOUR).mean() < (2 if format == "JPEG" else 1e-9)


def test_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "really_a.jpg"
    path.write_bytes(encoded(Image.fromarray(GREY), "PNG"))
    np.testing.assert_array_equal(np.asarray(decode.read_image(path, max_pixels=BIG)), GREY)


# --- unusable files


def png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * ((width + 1) * height) if height < 100 else b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


NOISE = encoded(Image.fromarray(RANDOM.integers(0, 256, (40, 40, 3), dtype=np.uint8)), "JPEG")
UNUSABLE = {
    "empty": (b"", "empty"),
    "text": (b"this is no image", "not an image"),
    "html": (b"<!doctype html><html>not found</html>", "not an image"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
    "cut.jpg": (NOISE[:-60], "truncated"),
    "cut.png": (encoded(Image.fromarray(COLOUR))[:-40], "truncated|corrupted"),
    "head.png": (encoded(Image.fromarray(COLOUR))[:20], "truncated|corrupted|not an image"),
    "0x0": (png_of(0, 0), "0 x 0|corrupted|not an image"),
    "0x0.pgm": (b"P5 0 0 255\n", "0 x 0|corrupted|not an image"),
    "1x1": (encoded(Image.new("L", (1, 1))), "1 x 1"),
    "1x9": (encoded(Image.new("RGB", (1, 9))), "1 x 9"),
    "bomb": (png_of(60000, 60000), "60000 x 60000"),
    "float": (encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "no fixed range"),
    "32 bits": (encoded(Image.fromarray(GREY.astype(np.int32) - 9), "TIFF"), "no fixed range"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_error_says_why_a_file_cannot_be_used(name: str, tmp_path: Path) -> None:
    content, reason = UNUSABLE[name]
    with pytest.raises(decode.DecodeError, match=reason):
        decode.open_image(content, max_pixels=BIG)
    path = tmp_path / "some.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"some\.jpg cannot be used as an image: .*({reason}).*replace") as caught:
        decode.load(path, ImageSpec(8, 3, "crop", BIG))
    assert "\n" not in str(caught.value)


def test_unreadable_file(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(DataError, match=f"{path.name} cannot be used .*cannot be read"):
            decode.read_image(path, max_pixels=BIG)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_corrupted_files_raise_nothing_but_decode_errors(format: str) -> None:
    """Cut anywhere, or with a byte changed anywhere, a file gives an image or a DecodeError."""
    whole = encoded(Image.fromarray(COLOUR), format)
    random = np.random.default_rng(1)
    for _ in range(150):
        corrupted = bytearray(whole)
        corrupted[random.integers(len(corrupted))] = random.integers(256)
        for content in (bytes(corrupted), whole[: random.integers(len(whole))]):
            with contextlib.suppress(decode.DecodeError):
                decode.decode_bytes(content, ImageSpec(8, 3, "crop", 10**5))


def test_too_many_pixels() -> None:
    content = encoded(Image.fromarray(GREY))
    assert pixels(content).size == 48
    with pytest.raises(DataError, match=r"8 x 6 pixels are more than data\.max_pixels 47"):
        decode.read_image(content, max_pixels=47)


def test_global_pillow_settings_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # Pillow would warn above 20, and refuse above 40
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    before = list(warnings.filters)
    barrier = threading.Barrier(4)

    def work(number: int) -> int:
        barrier.wait(timeout=30)
        good = 0
        for content in [encoded(Image.fromarray(GREY)), NOISE[:-60], b"text", NOISE] * 20:
            try:
                decode.read_image(content, max_pixels=BIG)
                good += 1
            except DataError:
                pass
        return good

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [40] * 4
    assert list(warnings.filters) == before
    assert Image.MAX_IMAGE_PIXELS == 20
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


# --- from any image to a square


def test_image_of_the_right_size_is_not_resampled() -> None:
    square = RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for fit in ("crop", "pad", "stretch"):
        got = decode.prepare(Image.fromarray(square), ImageSpec(8, 3, fit, BIG))
        np.testing.assert_array_equal(got, square.transpose(2, 0, 1))
        assert got.flags.c_contiguous
    wide = decode.prepare(Image.fromarray(COLOUR), ImageSpec(6, 3, "crop", BIG))
    np.testing.assert_array_equal(wide, COLOUR[:, 1:7].transpose(2, 0, 1))
    padded = decode.prepare(Image.fromarray(COLOUR), ImageSpec(8, 3, "pad", BIG))
    np.testing.assert_array_equal(padded[:, 1:7], COLOUR.transpose(2, 0, 1))


def test_conversion_between_grey_and_colour() -> None:
    three = decode.prepare(Image.fromarray(GREY), ImageSpec(6, 3, "crop", BIG))
    np.testing.assert_array_equal(three, np.repeat(GREY[None, :, 1:7], 3, axis=0))
    one = decode.prepare(Image.fromarray(np.repeat(GREY[:, :, None], 3, axis=2)), ImageSpec(6, 1, "crop", BIG))
    np.testing.assert_array_equal(one, GREY[None, :, 1:7])


@pytest.mark.parametrize("size", [(30, 7), (7, 30), (200, 333), (2, 2), (500, 2)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_uniform_image_stays_uniform(size: tuple[int, int], fit: str) -> None:
    got = decode.prepare(Image.new("RGB", size, (200, 3, 90)), ImageSpec(16, 3, fit, BIG))
    assert got.shape == (3, 16, 16)
    assert (got == np.array([200, 3, 90], np.uint8)[:, None, None]).all()


def test_what_each_fit_shows() -> None:
    bands = np.zeros((20, 60), np.uint8)
    bands[:, 20:40] = 100
    bands[:, 40:] = 200
    crop, pad, stretch = (
        decode.prepare(Image.fromarray(bands), ImageSpec(20, 1, fit, BIG))[0] for fit in ("crop", "pad", "stretch")
    )
    assert (crop == 100).all()
    assert [int(stretch[10, x]) for x in (2, 10, 17)] == [0, 100, 200]
    assert [int(pad[10, x]) for x in (2, 10, 17)] == [0, 100, 200]
    assert (pad[:6] == 100).all()  # the border's median
    assert (pad[-6:] == 100).all()


def test_shrinking_averages() -> None:
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    got = decode.prepare(Image.fromarray(board), ImageSpec(16, 1, "crop", BIG)).astype(int)
    assert np.abs(got - 127).max() <= 3


def test_large_jpeg_is_shrunk_while_it_is_decoded() -> None:
    smooth = Image.fromarray(COLOUR).resize((1600, 1200), Image.Resampling.BICUBIC)
    content = encoded(smooth, "JPEG", quality=95)
    small = decode.open_image(content, max_pixels=BIG, min_side=2 * 32)
    assert 64 <= min(small.size) < 200
    for fit in ("crop", "pad", "stretch"):
        quick = decode.load(content, ImageSpec(32, 3, fit, BIG)).astype(int)
        slow = decode.prepare(decode.read_image(content, max_pixels=BIG), ImageSpec(32, 3, fit, BIG))
        assert np.abs(quick - slow).mean() < 1.5
    with pytest.raises(DataError, match="truncated"):
        decode.load(content[: len(content) // 2], ImageSpec(32, 3, "crop", BIG))


def test_prepare_accepts_images_of_any_mode() -> None:
    modes = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "HSV", "YCbCr", "LAB")
    for mode in (*modes, "I;16", "I;16B", "I", "F"):
        got = decode.prepare(Image.new(mode, (9, 5)), ImageSpec(4, 3, "crop", BIG))
        assert got.shape == (3, 4, 4)
    with pytest.raises(DataError, match="no fixed range"):
        decode.prepare(Image.new("F", (9, 5), 2.0), ImageSpec(4, 3, "crop", BIG))


def test_measure_image() -> None:
    assert decode.measure_image(encoded(Image.fromarray(GREY)), max_pixels=BIG) == (8, 6, True, 0)
    assert decode.measure_image(encoded(Image.fromarray(COLOUR)), max_pixels=BIG) == (8, 6, False, 0)
    three = Image.fromarray(np.repeat(GREY[:, :, None], 3, axis=2))
    for format in ("PNG", "JPEG"):
        assert decode.measure_image(encoded(three, format), max_pixels=BIG) == (8, 6, True, 0)
    large = Image.new("RGB", (800, 600), (90, 90, 90))
    assert decode.measure_image(encoded(large, "JPEG"), max_pixels=BIG) == (800, 600, True, 0)


def test_corrupted_second_frame_does_not_affect_the_first() -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(COLOUR)]
    whole = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    at = int.from_bytes(whole[4:8], "little")
    second = at + 2 + 12 * int.from_bytes(whole[at : at + 2], "little")  # where the first names the second
    assert decode.read_header(whole) == (8, 6, "TIFF", 2)
    broken = whole[:second] + len(whole).to_bytes(4, "little") + whole[second + 4 :] + bytes(6)  # it says nothing
    assert decode.read_header(broken) == (8, 6, "TIFF", 1)
    np.testing.assert_array_equal(pixels(broken), GREY)


def test_unknown_format_has_no_header() -> None:
    with pytest.raises(decode.DecodeError, match="not an image"):
        decode.read_header(b"nothing")
