"""A segment is written in place, by whichever process decodes; empty rows take no disk space."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from classifier.data.images.arrays import Segment
from classifier.data.images.pixel_segment import (
    PixelSegmentWriter,
    has_channels_last,
    sum_channels,
    sum_channels_last,
    summed_lines,
)

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 28, 28), (3, 4, 300), (1, 64, 64), (3, 64, 64)])
def test_segment_holds_what_was_written(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    writer = PixelSegmentWriter.create(tmp_path / "writer", 5, shape)
    pixels_NCHW = RANDOM.integers(0, 256, (5, *shape), dtype=np.uint8)
    for row in (3, 0, 4):
        writer.write(row, pixels_NCHW[row])
    digests = {row: bytes([row + 1]) * 16 for row in (0, 3, 4)}
    writer.finish(digests)
    segment = Segment.open(writer.path)
    assert segment.pixels is not None
    for row, digest in digests.items():
        stored = segment.pixels[row].transpose(2, 0, 1) if has_channels_last(shape) else segment.pixels[row]
        np.testing.assert_array_equal(stored, pixels_NCHW[row])
        assert bytes(segment.digests_N16[row]) == digest
        np.testing.assert_array_equal(
            segment.sums_NC2[row], exact(pixels_NCHW[row : row + 1, :, summed_lines(shape[1])])[0]
        )
    for row in (1, 2):
        assert not segment.digests_N16[row].any()


def exact(pixels_NCHW: np.ndarray) -> np.ndarray:
    values = pixels_NCHW.reshape(*pixels_NCHW.shape[:2], -1).astype(np.int64)
    return np.stack([values.sum(-1), (values**2).sum(-1)], axis=-1)


@pytest.mark.parametrize("width", [1, 28, 256, 257, 5000])
def test_sums_are_exact(width: int) -> None:
    for pixels in (RANDOM.integers(0, 256, (2, 3, 7, width), dtype=np.uint8), np.full((2, 3, 7, width), 255, np.uint8)):
        sums = sum_channels(pixels)
        assert sums.dtype == np.int64
        np.testing.assert_array_equal(sums, exact(pixels))


def test_sums_of_images_with_channels_last_are_exact() -> None:
    for pixels_HWC in (RANDOM.integers(0, 256, (90, 70, 3), dtype=np.uint8), np.full((5000, 64, 3), 255, np.uint8)):
        sums = sum_channels_last(pixels_HWC)
        assert sums.dtype == np.int64
        np.testing.assert_array_equal(sums, exact(pixels_HWC.transpose(2, 0, 1)[None])[0])


def test_another_process_writes_into_the_same_file(tmp_path: Path) -> None:
    writer = PixelSegmentWriter.create(tmp_path / "writer", 3, (1, 4, 4))
    code = (
        "import sys, numpy as np; from classifier.data.images.jpeg_segment import open_writer; "
        "open_writer(sys.argv[1:]).write(1, np.full((1, 4, 4), 7, np.uint8)); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, *writer.to_words()], check=True)
    writer.finish({1: b"x" * 16})
    segment = Segment.open(writer.path)
    assert segment.pixels is not None
    assert (segment.pixels[1] == 7).all()
    assert segment.sums_NC2[1].tolist() == [[7 * 16, 49 * 16]]


def test_empty_rows_take_no_disk_space(tmp_path: Path) -> None:
    writer = PixelSegmentWriter.create(tmp_path / "writer", 1000, (3, 100, 100))
    writer.write(500, np.ones((3, 100, 100), np.uint8))
    writer.finish({500: b"x" * 16})
    about = writer.path.stat()
    assert about.st_size > 30_000_000
    assert about.st_blocks * 512 < 1_000_000
