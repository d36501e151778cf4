"""Images of one shape: in memory as a Tensor, in memory-mapped segments of a cache, or read from their source on demand
(stream.py).

All of them have `len` and `shape`, and an index (a slice, or int64 positions) gives uint8 tensors N x C x H x W, which
may be channels_last; `select` and `concatenate` make new ones without reading an image.
"""

import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from torch import Tensor

from classifier.data.images.jpeg_segment import JPEG, decode_into
from classifier.data.images.lazy import LazyImages
from classifier.data.images.pixel_segment import DIGEST, HASH, PIXELS, SHAPE, SUMS, has_channels_last, stored_shape
from classifier.data.images.row_hash import HASH_BYTES, hash_columns, hash_rows
from classifier.data.images.stream import StreamedImages
from classifier.errors import DataError
from classifier.runtime.cpu import available_cores

JPEGS_PER_THREAD = 8
"""A thread is started for no fewer JPEGs."""

Images = Union[Tensor, "MappedImages", StreamedImages]


@dataclass(frozen=True, eq=False)
class Segment:
    """A memory-mapped file of the cache: its pages are loaded when they are read, and evicted again."""

    path: Path
    pixels: np.ndarray | None
    """As stored: uint8 N x C x H x W, or N x H x W x C (pixel_segment.CHANNELS_LAST_SIZE)."""
    jpegs: tuple[np.ndarray, np.ndarray] | None
    """Instead of pixels: the N + 1 offsets of the files, and their bytes."""
    shape_CHW: tuple[int, int, int]
    digests_N16: np.ndarray
    sums_NC2: np.ndarray
    """int64, for each channel: the sum of its values, and of their squares."""
    hashes_N: np.ndarray | None
    """V16: the hash of each row as it was written; None in a file of an earlier version."""

    @classmethod
    def open(cls, path: Path) -> "Segment":
        """Map a file. OSError, ValueError, KeyError or pa.ArrowException if it is missing, or not a segment."""
        import pyarrow as pa

        with pa.memory_map(str(path)) as file:
            batch = pa.ipc.open_file(file).get_batch(0)
        shape = tuple(json.loads((batch.schema.metadata or {})[SHAPE]))
        pixels = jpegs = None
        if JPEG in batch.schema.names:
            _, ends, contents = batch.column(JPEG).buffers()
            jpegs = np.frombuffer(ends, np.int64), np.frombuffer(contents, np.uint8)
        else:
            pixels = np.frombuffer(batch.column(PIXELS).buffers()[1], np.uint8).reshape(-1, *stored_shape(shape))
        digests = np.frombuffer(batch.column(DIGEST).buffers()[1], np.uint8).reshape(-1, 16)
        sums = np.frombuffer(batch.column(SUMS).buffers()[1], np.int64).reshape(-1, shape[0], 2)
        hashes = None
        if HASH in batch.schema.names:
            hashes = np.frombuffer(batch.column(HASH).buffers()[1], f"V{HASH_BYTES}")
        return cls(path, pixels, jpegs, shape, digests, sums, hashes)

    def __len__(self) -> int:
        return len(self.digests_N16)

    def hash_table(self) -> str | None:
        """Hash everything but the images, in hex: the name of the file. None for a file of an earlier version."""
        if self.hashes_N is None:
            return None
        ends = () if self.jpegs is None else (self.jpegs[0],)
        return hash_columns((self.digests_N16, self.sums_NC2, self.hashes_N, *ends))

    def hash_images(self, rows_N: np.ndarray) -> np.ndarray:
        """Hash these rows as they are now, V16. IndexError if the file is corrupted."""
        if self.pixels is not None:
            pixels_ND = self.pixels.reshape(len(self), -1)
            return hash_rows(pixels_ND[row] for row in rows_N.tolist())
        assert self.jpegs is not None
        ends, contents = self.jpegs
        return hash_rows(contents[ends[row] : ends[row + 1]] for row in rows_N.tolist())

    def read(self, rows_N: np.ndarray, images: np.ndarray, positions_N: np.ndarray) -> None:
        """Read these rows into these positions of `images`, of the stored shape. DataError if the file is corrupted."""
        if self.pixels is not None:
            images[positions_N] = self.pixels[rows_N]
            return
        assert self.jpegs is not None
        ends, contents = self.jpegs
        channels_last = has_channels_last(self.shape_CHW)

        def work(share: slice) -> None:
            for row, position in zip(rows_N[share].tolist(), positions_N[share].tolist(), strict=True):
                image = images[position].transpose(2, 0, 1) if channels_last else images[position]
                decode_into(contents[ends[row] : ends[row + 1]], image)

        threads = max(1, min(available_cores(), len(rows_N) // JPEGS_PER_THREAD))
        try:
            with ThreadPoolExecutor(threads) as pool:
                for done in [pool.submit(work, slice(n, None, threads)) for n in range(threads)]:
                    done.result()
        except ValueError as error:
            raise DataError(
                f"{self.path} is corrupted ({error}): delete it, and the next run writes it again"
            ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path alone."""
        return Segment.open, (self.path,)


@dataclass(frozen=True, eq=False)
class MappedImages(LazyImages):
    """Images in segments of a cache. rows_N: int64, each image's row, counted over all segments."""

    segments: Sequence[Segment]
    rows_N: Tensor
    shape_CHW: tuple[int, int, int]

    def __getitem__(self, index: "Tensor | slice") -> Tensor:
        rows_N = self.rows_N[index].numpy()
        if len(self.segments) == 1 and (pixels := self.segments[0].pixels) is not None:
            images = pixels[rows_N]
        else:
            images = np.empty((len(rows_N), *stored_shape(self.shape_CHW)), np.uint8)
            start = 0
            for segment in self.segments:
                positions_N = np.flatnonzero((rows_N >= start) & (rows_N < start + len(segment)))
                segment.read(rows_N[positions_N] - start, images, positions_N)
                start += len(segment)
        images_N = torch.from_numpy(images)
        return images_N.permute(0, 3, 1, 2) if has_channels_last(self.shape_CHW) else images_N

    @property
    def is_lossy(self) -> bool:
        """Are they stored as JPEGs?"""
        return any(segment.jpegs is not None for segment in self.segments)

    def sum_channels(self) -> np.ndarray:
        """Return int64 C x 2: for each channel, over all images, the sum of its values, and of their squares."""
        sums_NC2 = np.concatenate([segment.sums_NC2 for segment in self.segments])
        return sums_NC2[self.rows_N.numpy()].sum(0)


def gather(images: Images, index_N: Tensor) -> Tensor:
    """Copy the images at these int64 positions, by numpy, which takes a tenth of torch's time."""
    if isinstance(images, Tensor) and images.device.type == "cpu":
        return torch.from_numpy(images.numpy()[index_N.numpy()])
    return images[index_N]


def decodes_on_access(images: Images) -> bool:
    """Does gathering them take more than copying memory?"""
    return isinstance(images, StreamedImages) or (isinstance(images, MappedImages) and images.is_lossy)


def select(images: Images, index_N: Tensor) -> Images:
    """Return the images at these int64 positions, in this order."""
    if isinstance(images, StreamedImages):
        return images.select(index_N)
    if isinstance(images, MappedImages):
        return dataclasses.replace(images, rows_N=images.rows_N[index_N])
    return images[index_N]


def concatenate(first: Images, second: Images) -> Images:
    """Return the images of both, in this order; they belong to one data set."""
    if isinstance(first, StreamedImages) and isinstance(second, StreamedImages):
        return dataclasses.replace(first, rows_N=torch.cat([first.rows_N, second.rows_N]))
    if isinstance(first, MappedImages) and isinstance(second, MappedImages) and first.segments == second.segments:
        return dataclasses.replace(first, rows_N=torch.cat([first.rows_N, second.rows_N]))
    return torch.cat([first[:], second[:]])
