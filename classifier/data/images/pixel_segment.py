"""A segment of the cache while it is made: an Arrow file of rows that wait for their pictures.

Its columns are holes at first, which take no room on the disk. Whoever decodes a picture, in whatever process, writes
it into its row, where it will be read; rows that stay empty stay holes. This module imports no torch, so that processes
that decode start in a moment.
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

PIXELS, DIGEST, SUMS = "pixels", "digest", "sums"
SHAPE = b"shape"
"""In the metadata of a segment: C, H, W as JSON."""
LARGE = 64
"""Colour pictures of so many pixels a side lie in a segment with their channels last, as they are decoded and resized:
H x W x C; smaller ones channel by channel."""


@dataclass(frozen=True)
class PixelSegmentWriter:
    """places: where in the file the columns of pixels, digests and sums begin, in bytes."""

    path: Path
    count: int
    shape: tuple[int, int, int]
    places: tuple[int, int, int]

    @classmethod
    def begin(cls, path: Path, count: int, shape: tuple[int, int, int]) -> "PixelSegmentWriter":
        """A file of so many empty rows. OSError if it cannot be made."""
        import pyarrow as pa

        widths = {PIXELS: int(np.prod(shape)), DIGEST: 16, SUMS: 16 * shape[0]}
        # Zeros that nobody looks at take no memory: they are named to Arrow, and left out of the file.
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
            pa.PythonFile(_Sparse(file), "w") as sink,
            pa.ipc.new_file(sink, batch.schema) as writer,
        ):
            writer.write_batch(batch)
        with pa.memory_map(str(path)) as file:
            whole = file.read_buffer()
            batch = pa.ipc.open_file(whole).get_batch(0)
            begins = [column.buffers()[1].address - whole.address for column in batch.columns]
        return cls(path, count, shape, (begins[0], begins[1], begins[2]))

    @classmethod
    def named(cls, words: Sequence[str]) -> "PixelSegmentWriter":
        """The inverse of `words`, without the first: the same file in another process."""
        path, count, *numbers = words
        c, h, w, *places = map(int, numbers)
        return cls(Path(path), int(count), (c, h, w), (places[0], places[1], places[2]))

    def words(self) -> list[str]:
        """What names it to another process; see encoded.reopened."""
        return [PIXELS, str(self.path), *map(str, (self.count, *self.shape, *self.places))]

    def put(self, row: int, pixels_CHW: np.ndarray) -> None:
        """Write a picture, uint8, into its row. OSError if the disk is full."""
        if has_channels_last(self.shape):
            pixels = np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0))
            self._sums[row] = sums_of_last(pixels[lines(len(pixels))])
        else:
            pixels = np.ascontiguousarray(pixels_CHW)
            self._sums[row] = sums_of(pixels[None, :, lines(pixels.shape[1])])[0]
        # Not through a map of the file: a page that is met for the first time costs more than its copy.
        file = os.open(self.path, os.O_WRONLY)
        try:
            whole(os.pwrite(file, pixels.data, self.places[0] + row * pixels.nbytes), pixels.nbytes)
        finally:
            os.close(file)

    def finish(self, digests: dict[int, bytes]) -> None:
        """Name the contents of the rows that hold a picture: the others count as none."""
        for row, digest in digests.items():
            self._digests[row] = np.frombuffer(digest, np.uint8)
        for column in (self._sums, self._digests):
            column.flush()

    @functools.cached_property
    def _digests(self) -> np.memmap:
        return self._column(1, np.uint8, (self.count, 16))

    @functools.cached_property
    def _sums(self) -> np.memmap:
        return self._column(2, np.int64, (self.count, self.shape[0], 2))

    def _column(self, number: int, dtype: type, shape: tuple[int, ...]) -> np.memmap:
        return np.memmap(self.path, dtype, "r+", self.places[number], shape)


def whole(written: int, wanted: int) -> None:
    """OSError if a part alone was written: there is no room for the rest."""
    if written < wanted:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def has_channels_last(shape_CHW: tuple[int, int, int]) -> bool:
    """See LARGE."""
    return shape_CHW[0] > 1 and shape_CHW[2] >= LARGE


def as_it_lies(shape_CHW: tuple[int, int, int]) -> tuple[int, int, int]:
    """A picture's shape in a segment: C x H x W or H x W x C."""
    c, h, w = shape_CHW
    return (h, w, c) if has_channels_last(shape_CHW) else shape_CHW


def lines(height: int) -> slice:
    """Of a picture, those that are added up: every fourth of a large one says as much of its mean and deviation."""
    return slice(None, None, 4 if height >= LARGE else None)


def sums_of_last(pixels_HWC: np.ndarray) -> np.ndarray:
    """`sums_of` a picture with its channels last, int64 C x 2: added up by columns, in which they do not mix."""
    height, width, channels = pixels_HWC.shape
    lines_HD = pixels_HWC.reshape(height, width * channels)
    sums_2WC = np.zeros((2, width, channels), np.int64)
    for start in range(0, height, LINE):
        values_HD = lines_HD[start : start + LINE].astype(np.float32)
        sums_2D = np.add.reduce(values_HD, axis=0), np.einsum("hd,hd->d", values_HD, values_HD)
        sums_2WC += np.stack(sums_2D).reshape(2, width, channels).astype(np.int64)
    return sums_2WC.sum(1).T


def sums_of(pixels_NCHW: np.ndarray) -> np.ndarray:
    """int64 N x C x 2: of each channel of each picture the sum of its values, and of their squares."""
    if pixels_NCHW.shape[-1] > LINE:
        lines = pixels_NCHW.reshape(*pixels_NCHW.shape[:2], -1).astype(np.float64)
    else:
        lines = pixels_NCHW.astype(np.float32)  # whole numbers below 2^24 are exact in it
    sums_NCH = lines.sum(-1), np.einsum("...w,...w->...", lines, lines)
    return np.stack([sums.reshape(*sums.shape[:2], -1).sum(-1, dtype=np.int64) for sums in sums_NCH], axis=-1)


LINE = 256
"""Values whose squares float32 adds up exactly."""


class _Sparse:
    """A file in which zeros are not written: long ones become holes."""

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
