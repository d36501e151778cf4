"""A cache segment under construction: an Arrow file whose rows are filled as images are decoded.

Its columns are holes at first, which take no disk space. Whoever decodes an image, in whatever process, writes it into
the row where it will be read; rows that stay empty stay holes. This module imports no torch, so that decoding
processes start in a moment.
"""

import errno
import functools
import json
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classifier.data.images.row_hash import HASH_BYTES, hash_row

PIXELS, DIGEST, SUMS, HASH = "pixels", "digest", "sums", "hash"
SHAPE = b"shape"
"""In the metadata of a segment: C, H, W as JSON."""
CHANNELS_LAST_SIZE = 64
"""From this size on, in pixels, colour images are stored with their channels last, as they are decoded and resized:
H x W x C; smaller ones channel by channel."""
EXACT_VALUES = 256
"""The number of values whose squares float32 adds up exactly."""


@dataclass(frozen=True)
class PixelSegmentWriter:
    """Writes images into their rows. offsets: of the columns of pixels, digests, sums and hashes, in bytes."""

    path: Path
    count: int
    shape: tuple[int, int, int]
    offsets: tuple[int, ...]

    @classmethod
    def create(cls, path: Path, count: int, shape: tuple[int, int, int]) -> "PixelSegmentWriter":
        """Create a file of `count` empty rows. OSError if that fails."""
        import pyarrow as pa

        widths = {PIXELS: int(np.prod(shape)), DIGEST: 16, SUMS: 16 * shape[0], HASH: HASH_BYTES}
        # Zeros that nobody reads take no memory: Arrow gets them, and the file leaves them out.
        columns = [
            pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(width), count, [None, pa.py_buffer(mmap.mmap(-1, count * width))]
            )
            for width in widths.values()
        ]
        batch = pa.record_batch(columns, names=[*widths])
        batch = batch.replace_schema_metadata({SHAPE: json.dumps(shape)})
        with (
            path.open("wb") as file,
            pa.PythonFile(_SparseFile(file), "w") as sink,
            pa.ipc.new_file(sink, batch.schema) as writer,
        ):
            writer.write_batch(batch)
        with pa.memory_map(str(path)) as file:
            buffer = file.read_buffer()
            batch = pa.ipc.open_file(buffer).get_batch(0)
            offsets = [column.buffers()[1].address - buffer.address for column in batch.columns]
        return cls(path, count, shape, tuple(offsets))

    @classmethod
    def from_words(cls, words: Sequence[str]) -> "PixelSegmentWriter":
        """Return the writer that `to_words` described, whose first word is left out."""
        path, count, *numbers = words
        c, h, w, *offsets = map(int, numbers)
        return cls(Path(path), int(count), (c, h, w), tuple(offsets))

    def to_words(self) -> list[str]:
        """The arguments that describe this writer to another process; see jpeg_segment.open_writer."""
        return [PIXELS, str(self.path), *map(str, (self.count, *self.shape, *self.offsets))]

    def write(self, row: int, pixels_CHW: np.ndarray) -> None:
        """Write an image, uint8, into its row. OSError if the disk is full."""
        if has_channels_last(self.shape):
            pixels = np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0))
            self._sums[row] = sum_channels_last(pixels[summed_lines(len(pixels))])
        else:
            pixels = np.ascontiguousarray(pixels_CHW)
            self._sums[row] = sum_channels(pixels[None, :, summed_lines(pixels.shape[1])])[0]
        self._hashes[row] = np.frombuffer(hash_row(pixels), np.uint8)
        # Not through a memory map: the first touch of a page costs more than its copy.
        with self.path.open("r+b", buffering=0) as file:
            file.seek(self.offsets[0] + row * pixels.nbytes)
            check_written(file.write(pixels.data), pixels.nbytes)

    def finish(self, digests: dict[int, bytes]) -> None:
        """Record the digests of the rows that hold an image: the others count as empty."""
        for row, digest in digests.items():
            self._digests[row] = np.frombuffer(digest, np.uint8)
        for name in ("_sums", "_hashes", "_digests"):
            getattr(self, name).flush()
            del self.__dict__[name]  # Windows renames no file that is mapped

    @functools.cached_property
    def _digests(self) -> np.memmap:
        return self._column(1, np.uint8, (self.count, 16))

    @functools.cached_property
    def _sums(self) -> np.memmap:
        return self._column(2, np.int64, (self.count, self.shape[0], 2))

    @functools.cached_property
    def _hashes(self) -> np.memmap:
        return self._column(3, np.uint8, (self.count, HASH_BYTES))

    def _column(self, number: int, dtype: type, shape: tuple[int, ...]) -> np.memmap:
        return np.memmap(self.path, dtype, "r+", self.offsets[number], shape)


def check_written(written: int, expected: int) -> None:
    """OSError if only a part was written: the disk is full."""
    if written < expected:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def has_channels_last(shape_CHW: tuple[int, int, int]) -> bool:
    """Are images of this shape stored with their channels last? See CHANNELS_LAST_SIZE."""
    return shape_CHW[0] > 1 and shape_CHW[2] >= CHANNELS_LAST_SIZE


def stored_shape(shape_CHW: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return an image's shape in a segment: C x H x W or H x W x C."""
    c, h, w = shape_CHW
    return (h, w, c) if has_channels_last(shape_CHW) else shape_CHW


def summed_lines(height: int) -> slice:
    """Return the lines of an image that count for its sums: every fourth of a large one says as much of its mean and
    standard deviation."""
    return slice(None, None, 4 if height >= CHANNELS_LAST_SIZE else None)


def sum_channels_last(pixels_HWC: np.ndarray) -> np.ndarray:
    """`sum_channels` of an image with its channels last, int64 C x 2: summed by columns, which do not mix channels."""
    height, width, channels = pixels_HWC.shape
    lines_HD = pixels_HWC.reshape(height, width * channels)
    sums_2WC = np.zeros((2, width, channels), np.int64)
    for start in range(0, height, EXACT_VALUES):
        values_HD = lines_HD[start : start + EXACT_VALUES].astype(np.float32)
        sums_2D = np.add.reduce(values_HD, axis=0), np.einsum("hd,hd->d", values_HD, values_HD)
        sums_2WC += np.stack(sums_2D).reshape(2, width, channels).astype(np.int64)
    return sums_2WC.sum(1).T


def sum_channels(pixels_NCHW: np.ndarray) -> np.ndarray:
    """Return int64 N x C x 2: for each channel of each image the sum of its values, and of their squares."""
    if pixels_NCHW.shape[-1] > EXACT_VALUES:
        lines = pixels_NCHW.reshape(*pixels_NCHW.shape[:2], -1).astype(np.float64)
    else:
        lines = pixels_NCHW.astype(np.float32)  # integers below 2^24 are exact in it
    sums_NCH = lines.sum(-1), np.einsum("...w,...w->...", lines, lines)
    return np.stack([sums.reshape(*sums.shape[:2], -1).sum(-1, dtype=np.int64) for sums in sums_NCH], axis=-1)


class _SparseFile:
    """A file in which long runs of zeros become holes: they are skipped, not written."""

    LONG = 1 << 12

    def __init__(self, file) -> None:
        self.file = file

    def write(self, content) -> int:
        view = memoryview(content)
        if view.nbytes >= self.LONG:
            self.file.seek(view.nbytes, 1)
        else:
            self.file.write(view)
        return view.nbytes

    def flush(self) -> None:
        self.file.flush()

    def tell(self) -> int:
        return self.file.tell()

    closed = False

    def close(self) -> None:
        pass
