"""The fast path for JPEGs gives what Pillow gives, and leaves everything else to Pillow."""

import dataclasses
import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classifier.data.decoding import decode, jpeg
from classifier.data.decoding.image_spec import ImageSpec

BIG = 10**8
COARSE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
PHOTO = Image.fromarray(COARSE).resize((400, 300), Image.Resampling.BICUBIC)
SPEC = ImageSpec(96, 3, "crop", BIG)


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **{"quality": 92} | options)
    return stream.getvalue()


def by_pillow(image: Image.Image | bytes, spec: ImageSpec) -> np.ndarray:
    if isinstance(image, bytes):
        image = Image.open(io.BytesIO(image))
    return decode.prepare(image, spec)


@pytest.mark.parametrize("size", [40, 96, 224, 300, 350])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_fast_path_matches_pillow(size: int, fit: str) -> None:
    spec = dataclasses.replace(SPEC, size=size, fit=fit)
    for image in (PHOTO, PHOTO.rotate(90, expand=True), PHOTO.convert("L")):
        content = encoded(image)
        got = jpeg.decode_fast(content, spec)
        assert got is not None
        assert got.shape == (3, size, size)
        assert got.dtype == np.uint8
        difference = np.abs(got.astype(int) - by_pillow(content, spec))
        # The crop of a shrunk image begins at a whole pixel: off by up to half a pixel, at steep edges.
        assert difference.mean() < (4 if fit == "crop" and size < 150 else 1.5)


def test_grey_is_decoded_and_colour_to_grey_is_left_to_pillow() -> None:
    spec = dataclasses.replace(SPEC, channels=1)
    grey = encoded(PHOTO.convert("L"))
    got = jpeg.decode_fast(grey, spec)
    assert got is not None
    assert np.abs(got.astype(int) - by_pillow(grey, spec)).mean() < 4
    colour = encoded(PHOTO)
    assert jpeg.decode_fast(colour, spec) is None
    assert np.abs(decode.decode_bytes(colour, spec).astype(int) - by_pillow(colour, spec)).mean() < 4


ROTATED = Image.Exif()
ROTATED[0x0112] = 6


OTHERS = {
    "empty": b"",
    "no image": b"text" * 100,
    "a PNG": encoded(PHOTO, "PNG"),
    "rotated by EXIF": encoded(PHOTO, exif=ROTATED),
    "EXIF after a colour profile": encoded(PHOTO, exif=ROTATED, icc_profile=b"x" * 9000),
    "progressive": encoded(PHOTO, progressive=True),
    "CMYK": encoded(PHOTO.convert("CMYK")),
    "truncated": encoded(PHOTO)[:3000],
    "a line": encoded(PHOTO.resize((300, 1))),
    "its header alone": encoded(PHOTO)[:24],
    "a header that leads nowhere": b"\xff\xd8\xff\xe0\x00\x00" * 3000,
    "a thousand segments": b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1_000_000,
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_left_to_pillow(name: str) -> None:
    assert jpeg.decode_fast(OTHERS[name], SPEC) is None


@pytest.mark.parametrize("name", ["a PNG", "rotated by EXIF", "progressive", "CMYK"])
def test_files_that_are_left_to_pillow_are_decoded(name: str) -> None:
    image = PHOTO.rotate(270, expand=True) if name == "rotated by EXIF" else PHOTO
    got = decode.decode_bytes(OTHERS[name], SPEC)
    assert np.abs(got.astype(int) - by_pillow(image, SPEC)).mean() < 4


def test_too_many_pixels_are_not_decoded(monkeypatch) -> None:
    content = encoded(PHOTO)
    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", lambda *words, **settings: pytest.fail("it was decoded"))
    assert jpeg.read(content, jpeg.read_head(content), max_pixels=400 * 300 - 1, min_side=None) is None
    with pytest.raises(decode.DecodeError, match=r"more than data\.max_pixels"):
        decode.decode_bytes(content, dataclasses.replace(SPEC, max_pixels=400 * 300 - 1))


def test_files_of_many_scans_are_left_to_a_process_that_can_be_killed() -> None:
    content = encoded(PHOTO)
    assert jpeg.decode_fast(content + b"\xff\xda" * 5, SPEC) is None


def test_small_file_is_enlarged_as_by_pillow() -> None:
    content = encoded(PHOTO.resize((30, 20)))
    got = jpeg.decode_fast(content, SPEC)
    assert got is not None
    assert np.abs(got.astype(int) - by_pillow(content, SPEC)).mean() < 1


def test_decoding_processes_load_no_torch() -> None:
    code = "import sys, classifier.data.decoding.worker_processes; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
