"""Pictures of one shape, wherever they lie: in memory as a Tensor, in segments of a cache that are mapped into it, or
where they come from, as a stream (stream.py).

All answer `len`, `shape` and an index (a slice, or int64 places) with uint8 tensors N x C x H x W, which may lie in
channels_last; `chosen` and `joined` make others of them without reading a picture.
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

from classifier.data.images.jpeg_segment import JPEG, decoded_into
from classifier.data.images.lazy import LazyImages
from classifier.data.images.pixel_segment import DIGEST, PIXELS, SHAPE, SUMS, as_it_lies, has_channels_last
from classifier.data.images.stream import StreamedImages
from classifier.errors import DataError
from classifier.runtime.cpu import available_cores

WORTH_A_THREAD = 8
"""JPEGs for which to start a thread."""

Images = Union[Tensor, "MappedImages", StreamedImages]


@dataclass(frozen=True, eq=False)
class Segment:
    """A file of the cache, as it lies on the disk: its pages come into memory as they are asked for, and go again."""

    path: Path
    pixels: np.ndarray | None
    """As they lie: uint8 N x C x H x W, or N x H x W x C (draft.LARGE)."""
    jpegs: tuple[np.ndarray, np.ndarray] | None
    """In place of pixels: where each begins, N + 1 places, in what follows."""
    shape_CHW: tuple[int, int, int]
    digests_N16: np.ndarray
    sums_NC2: np.ndarray
    """int64, of each channel: the sum of its values, and of their squares."""

    @classmethod
    def open(cls, path: Path) -> "Segment":
        """OSError or pa.ArrowInvalid if it is missing, or none."""
        import pyarrow as pa

        with pa.memory_map(str(path)) as file:
            batch = pa.ipc.open_file(file).get_batch(0)
        shape = tuple(json.loads((batch.schema.metadata or {})[SHAPE]))
        pixels = jpegs = None
        if JPEG in batch.schema.names:
            _, ends, contents = batch.column(JPEG).buffers()
            jpegs = np.frombuffer(ends, np.int64), np.frombuffer(contents, np.uint8)
        else:
            pixels = np.frombuffer(batch.column(PIXELS).buffers()[1], np.uint8).reshape(-1, *as_it_lies(shape))
        digests = np.frombuffer(batch.column(DIGEST).buffers()[1], np.uint8).reshape(-1, 16)
        sums = np.frombuffer(batch.column(SUMS).buffers()[1], np.int64).reshape(-1, shape[0], 2)
        return cls(path, pixels, jpegs, shape, digests, sums)

    def __len__(self) -> int:
        return len(self.digests_N16)

    def read(self, rows_N: np.ndarray, images: np.ndarray, places_N: np.ndarray) -> None:
        """Pictures of these rows to their places among images, which lie as pixels here do. DataError on damage."""
        if self.pixels is not None:
            images[places_N] = self.pixels[rows_N]
            return
        assert self.jpegs is not None
        ends, contents = self.jpegs
        last = has_channels_last(self.shape_CHW)

        def work(share: slice) -> None:
            for row, place in zip(rows_N[share].tolist(), places_N[share].tolist(), strict=True):
                image = images[place].transpose(2, 0, 1) if last else images[place]
                decoded_into(contents[ends[row] : ends[row + 1]], image)

        threads = max(1, min(available_cores(), len(rows_N) // WORTH_A_THREAD))
        try:
            with ThreadPoolExecutor(threads) as pool:
                for done in [pool.submit(work, slice(n, None, threads)) for n in range(threads)]:
                    done.result()
        except ValueError as error:
            raise DataError(f"{self.path} is damaged ({error}): delete it, and the next run makes it anew") from None

    def __reduce__(self) -> tuple[Any, ...]:
        """What crosses to another process is where it lies."""
        return Segment.open, (self.path,)


@dataclass(frozen=True, eq=False)
class MappedImages(LazyImages):
    """Pictures in segments of a cache. rows_N: int64, each picture's place in all segments together."""

    segments: Sequence[Segment]
    rows_N: Tensor
    shape_CHW: tuple[int, int, int]

    def __getitem__(self, index: "Tensor | slice") -> Tensor:
        rows_N = self.rows_N[index].numpy()
        if len(self.segments) == 1 and (pixels := self.segments[0].pixels) is not None:
            images = pixels[rows_N]
        else:
            images = np.empty((len(rows_N), *as_it_lies(self.shape_CHW)), np.uint8)
            start = 0
            for segment in self.segments:
                places_N = np.flatnonzero((rows_N >= start) & (rows_N < start + len(segment)))
                segment.read(rows_N[places_N] - start, images, places_N)
                start += len(segment)
        images_N = torch.from_numpy(images)
        return images_N.permute(0, 3, 1, 2) if has_channels_last(self.shape_CHW) else images_N

    @property
    def is_lossy(self) -> bool:
        """Are they kept as JPEGs?"""
        return any(segment.jpegs is not None for segment in self.segments)

    def sums(self) -> np.ndarray:
        """int64 C x 2, of each channel over all pictures: the sum of its values, and of their squares."""
        sums_NC2 = np.concatenate([segment.sums_NC2 for segment in self.segments])
        return sums_NC2[self.rows_N.numpy()].sum(0)


def gather(images: Images, index_N: Tensor) -> Tensor:
    """The pictures at these places, int64: a copy, by numpy, which takes a tenth of torch's time for it."""
    if isinstance(images, Tensor) and images.device.type == "cpu":
        return torch.from_numpy(images.numpy()[index_N.numpy()])
    return images[index_N]


def are_decoded_each_time(images: Images) -> bool:
    """Does it take longer to gather them than to copy memory?"""
    return isinstance(images, StreamedImages) or (isinstance(images, MappedImages) and images.is_lossy)


def select(images: Images, index_N: Tensor) -> Images:
    """Some of the pictures, in this order; index_N: int64 places."""
    if isinstance(images, StreamedImages):
        return images.chosen(index_N)
    if isinstance(images, MappedImages):
        return dataclasses.replace(images, rows_N=images.rows_N[index_N])
    return images[index_N]


def concatenate(first: Images, second: Images) -> Images:
    """The pictures of both, in this order; they are of one data set."""
    if isinstance(first, StreamedImages) and isinstance(second, StreamedImages):
        return dataclasses.replace(first, rows_N=torch.cat([first.rows_N, second.rows_N]))
    if isinstance(first, MappedImages) and isinstance(second, MappedImages) and first.segments == second.segments:
        return dataclasses.replace(first, rows_N=torch.cat([first.rows_N, second.rows_N]))
    return torch.cat([first[:], second[:]])
