"""Pictures of one shape, wherever they lie: in memory as a Tensor, in segments of a cache that are mapped into it, or
where they come from, as a stream (stream.py).

All answer `len`, `shape` and an index (a slice, or int64 places) with uint8 tensors N x C x H x W, which may lie in
channels_last; `chosen` and `joined` make others of them without reading a picture.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
import torch
from torch import Tensor

from classifier.data.draft import DIGEST, PIXELS, SHAPE, SUMS, as_it_lies, has_channels_last
from classifier.data.rows import Rows
from classifier.data.stream import Streamed

Images = Union[Tensor, "Mapped", Streamed]


@dataclass(frozen=True, eq=False)
class Segment:
    """A file of the cache, as it lies on the disk: its pages come into memory as they are asked for, and go again."""

    path: Path
    pixels: np.ndarray
    """As they lie: uint8 N x C x H x W, or N x H x W x C (draft.LARGE)."""
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
        pixels = np.frombuffer(batch.column(PIXELS).buffers()[1], np.uint8).reshape(-1, *as_it_lies(shape))
        digests = np.frombuffer(batch.column(DIGEST).buffers()[1], np.uint8).reshape(-1, 16)
        sums = np.frombuffer(batch.column(SUMS).buffers()[1], np.int64).reshape(-1, shape[0], 2)
        return cls(path, pixels, shape, digests, sums)

    def __len__(self) -> int:
        return len(self.digests_N16)

    def __reduce__(self) -> tuple[Any, ...]:
        """What crosses to another process is where it lies."""
        return Segment.open, (self.path,)


@dataclass(frozen=True, eq=False)
class Mapped(Rows):
    """Pictures in segments of a cache. rows_N: int64, each picture's place in all segments together."""

    segments: Sequence[Segment]
    rows_N: Tensor
    shape_CHW: tuple[int, int, int]

    def __getitem__(self, index: "Tensor | slice") -> Tensor:
        rows_N = self.rows_N[index].numpy()
        if len(self.segments) == 1:
            images = self.segments[0].pixels[rows_N]
        else:
            images = np.empty((len(rows_N), *as_it_lies(self.shape_CHW)), np.uint8)
            start = 0
            for segment in self.segments:
                places_N = np.flatnonzero((rows_N >= start) & (rows_N < start + len(segment)))
                images[places_N] = segment.pixels[rows_N[places_N] - start]
                start += len(segment)
        images_N = torch.from_numpy(images)
        return images_N.permute(0, 3, 1, 2) if has_channels_last(self.shape_CHW) else images_N

    def sums(self) -> np.ndarray:
        """int64 C x 2, of each channel over all pictures: the sum of its values, and of their squares."""
        sums_NC2 = np.concatenate([segment.sums_NC2 for segment in self.segments])
        return sums_NC2[self.rows_N.numpy()].sum(0)


def gathered(images: Images, index_N: Tensor) -> Tensor:
    """The pictures at these places, int64: a copy, by numpy, which takes a tenth of torch's time for it."""
    if isinstance(images, Tensor) and images.device.type == "cpu":
        return torch.from_numpy(images.numpy()[index_N.numpy()])
    return images[index_N]


def chosen(images: Images, index_N: Tensor) -> Images:
    """Some of the pictures, in this order; index_N: int64 places."""
    if isinstance(images, Streamed):
        return images.chosen(index_N)
    if isinstance(images, Mapped):
        return dataclasses.replace(images, rows_N=images.rows_N[index_N])
    return images[index_N]


def joined(first: Images, second: Images) -> Images:
    """The pictures of both, in this order; they are of one data set."""
    if isinstance(first, Streamed) and isinstance(second, Streamed):
        return dataclasses.replace(first, rows_N=torch.cat([first.rows_N, second.rows_N]))
    if isinstance(first, Mapped) and isinstance(second, Mapped) and first.segments == second.segments:
        return dataclasses.replace(first, rows_N=torch.cat([first.rows_N, second.rows_N]))
    return torch.cat([first[:], second[:]])
