"""The same image is the same pixels by every way in; nothing but a regular file or a pipe on standard input is read."""

import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classifier.bundle.image_reader import ImageReader
from classifier.data.decoding.image_spec import ImageSpec
from classifier.errors import DataError
from tests.data.decoding.profiles import rgb_profile
from tests.data.decoding.test_colours import RAMP, with_sbit
from tests.data.decoding.test_decode import encoded
from tests.data.decoding.test_orientation import FORMATS, lying

SPEC = ImageSpec(24, 3, "crop", 10**6)
FLAT = Image.new("RGB", (40, 30), (90, 140, 30))
FILES: dict[str, bytes] = {f"{format} on its side": lying(format, by="EXIF") for format in FORMATS}
FILES |= {
    "GIF": encoded(FLAT.quantize(9), "GIF"),
    "BMP": encoded(FLAT, "BMP"),
    "PPM": encoded(FLAT, "PPM"),
    "JPEG 2000": encoded(FLAT, "JPEG2000"),
    "JPEG with XMP": lying("JPEG", by="XMP"),
    "JPEG with a profile": encoded(FLAT, "JPEG", icc_profile=rgb_profile(), quality=95),
    "CMYK": encoded(FLAT.convert("CMYK"), "TIFF"),
    "TIFF of 12 bits": encoded(Image.fromarray(RAMP), "TIFF", tiffinfo={281: 4095}),
    "PNG of 12 bits": with_sbit(encoded(Image.fromarray(RAMP)), 12),
}


@pytest.fixture(scope="module")
def reader() -> ImageReader:
    return ImageReader(SPEC, 10**6, 20.0)


def refused(reader: ImageReader, image: Any) -> str:
    [error] = reader.decode([image])
    assert isinstance(error, DataError)
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("name", FILES)
def test_file_bytes_and_pillow_image_are_the_same_pixels(reader: ImageReader, name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(FILES[name])
    with Image.open(path) as unread, Image.open(path) as loaded:
        loaded.load()
        by_path, *others, by_pixels = reader.decode([path, str(path), FILES[name], unread, loaded])
        unread.load()  # it is as usable as before
    for pixels_CHW in others:
        np.testing.assert_array_equal(pixels_CHW, by_path)
    if name == "PNG of 12 bits":  # Pillow has not kept its sBIT
        return
    # Resampling by torch and by Pillow differs a little; a profile or a turn would differ by more.
    assert np.abs(by_pixels.astype(int) - by_path).mean() < (3 if "JPEG" in name or "MPO" in name else 1e-9)


def test_a_frame_that_was_chosen_and_an_edited_image_are_taken_as_they_are(reader: ImageReader) -> None:
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "blue")]
    with Image.open(io.BytesIO(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]))) as image:
        image.seek(1)
        assert reader.decode([image])[0][:, 5, 5].tolist() == [0, 0, 255]
    with Image.open(io.BytesIO(lying("PNG", by="EXIF"))) as image:
        np.testing.assert_array_equal(*reader.decode([image.convert("RGBA"), image]))


def test_arrays_are_checked_like_files(reader: ImageReader) -> None:
    for shape in ((0, 5, 3), (5, 0), (0, 0, 4), (1, 1), (1, 9, 1)):
        assert "pixels; replace" in refused(reader, np.zeros(shape, np.uint8))
    assert "more than data.max_pixels" in refused(reader, np.zeros((1001, 1000), np.uint8))
    assert "more than data.max_pixels" in refused(reader, Image.new("L", (1001, 1000)))
    assert "1 x 9 pixels" in refused(reader, Image.new("L", (1, 9)))
    assert "a list is not an image" in refused(reader, [1, 2])
    assert "a NoneType is not an image" in refused(reader, None)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
def test_what_is_no_regular_file_is_refused_at_once(reader: ImageReader, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
        for name in ("fifo", "zero", "loop", "socket", "gone", "."):
            assert str(tmp_path / name) in refused(reader, tmp_path / name)


def test_too_many_bytes(reader: ImageReader, tmp_path: Path) -> None:
    content = encoded(FLAT, "BMP") + bytes(10**6)
    (tmp_path / "a.bmp").write_bytes(content)
    for image in (content, tmp_path / "a.bmp", Image.open(io.BytesIO(content))):
        assert "more than data.max_bytes 1,000,000" in refused(reader, image)


PIPED = """
import sys
from classifier.bundle.image_reader import ImageReader
from classifier.data.decoding.image_spec import ImageSpec
print(ImageReader(ImageSpec(8, 3, "crop", 10**6), 10**6, 20.0).decode(["/dev/stdin"])[0].shape)
"""


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="Windows has no such file")
def test_an_image_is_read_from_a_pipe_on_standard_input() -> None:
    done = subprocess.run([sys.executable, "-c", PIPED], input=lying("PNG", by="EXIF"), capture_output=True, check=True)
    assert done.stdout.split() == [b"(3,", b"8,", b"8)"]
