"""The fast way for JPEGs sees what Pillow sees, and leaves to it what it does not know."""

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
def test_it_sees_what_pillow_sees(size: int, fit: str) -> None:
    spec = dataclasses.replace(SPEC, size=size, fit=fit)
    for image in (PHOTO, PHOTO.rotate(90, expand=True), PHOTO.convert("L")):
        content = encoded(image)
        got = jpeg.decode_fast(content, spec)
        assert got is not None
        assert got.shape == (3, size, size)
        assert got.dtype == np.uint8
        difference = np.abs(got.astype(int) - by_pillow(content, spec))
        # The square of a picture that was shrunk begins at a whole pixel: half of one off, in colours that are steep.
        assert difference.mean() < (4 if fit == "crop" and size < 150 else 1.5)


def test_grey_stays_grey_and_colours_are_left_where_grey_is_asked_for() -> None:
    spec = dataclasses.replace(SPEC, channels=1)
    grey = encoded(PHOTO.convert("L"))
    got = jpeg.decode_fast(grey, spec)
    assert got is not None
    assert np.abs(got.astype(int) - by_pillow(grey, spec)).mean() < 4
    colour = encoded(PHOTO)
    assert jpeg.decode_fast(colour, spec) is None
    assert np.abs(decode.decode_bytes(colour, spec).astype(int) - by_pillow(colour, spec)).mean() < 4


TURNED = Image.Exif()
TURNED[0x0112] = 6


OTHERS = {
    "empty": b"",
    "no image": b"text" * 100,
    "a PNG": encoded(PHOTO, "PNG"),
    "turned by EXIF": encoded(PHOTO, exif=TURNED),
    "EXIF after a colour profile": encoded(PHOTO, exif=TURNED, icc_profile=b"x" * 9000),
    "progressive": encoded(PHOTO, progressive=True),
    "CMYK": encoded(PHOTO.convert("CMYK")),
    "truncated": encoded(PHOTO)[:3000],
    "a line": encoded(PHOTO.resize((300, 1))),
    "its head alone": encoded(PHOTO)[:24],
    "a head that leads nowhere": b"\xff\xd8\xff\xe0\x00\x00" * 3000,
    "a thousand segments": b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1_000_000,
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_it_does_not_know_it_leaves(name: str) -> None:
    assert jpeg.decode_fast(OTHERS[name], SPEC) is None


@pytest.mark.parametrize("name", ["a PNG", "turned by EXIF", "progressive", "CMYK"])
def test_what_it_leaves_is_read_all_the_same(name: str) -> None:
    image = PHOTO.rotate(270, expand=True) if name == "turned by EXIF" else PHOTO
    got = decode.decode_bytes(OTHERS[name], SPEC)
    assert np.abs(got.astype(int) - by_pillow(image, SPEC)).mean() < 4


def test_more_pixels_than_wanted_are_not_decoded(monkeypatch) -> None:
    content = encoded(PHOTO)
    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", lambda *words, **settings: pytest.fail("it decodes"))
    assert jpeg.read(content, max_pixels=400 * 300 - 1, min_side=None) is None
    with pytest.raises(decode.DecodeError, match=r"more than data\.max_pixels"):
        decode.decode_bytes(content, dataclasses.replace(SPEC, max_pixels=400 * 300 - 1))


def test_many_scans_are_left_to_a_process_that_may_be_ended() -> None:
    content = encoded(PHOTO)
    assert jpeg.decode_fast(content + b"\xff\xda" * 5, SPEC) is None


def test_a_file_smaller_than_asked_is_enlarged_as_pillow_does() -> None:
    content = encoded(PHOTO.resize((30, 20)))
    got = jpeg.decode_fast(content, SPEC)
    assert got is not None
    assert np.abs(got.astype(int) - by_pillow(content, SPEC)).mean() < 1


def test_processes_that_decode_need_no_torch() -> None:
    code = "import sys, classifier.data.decoding.worker_processes; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
