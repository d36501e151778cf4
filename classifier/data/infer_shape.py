"""What size and channels suit a set of pictures: found from a few of them."""

import contextlib
import math
from collections.abc import Sequence

import numpy as np

from classifier.config.sections import DataConfig
from classifier.data.decoding import decode
from classifier.data.decoding.threads import in_threads
from classifier.data.readers.file_bytes import read
from classifier.data.readers.source import Source
from classifier.data.readers.tree import File

LOOKED_AT = 256
SMALL, LARGEST, GRID = 64, 128, 16
"""Sizes that are chosen: small squares stay as they are; others are a multiple of 16, at most 128 (in memory, on a
CPU, more is the user's decision)."""


def shape(source: Source, config: DataConfig) -> tuple[int, int]:
    """The side in pixels and the channels: as set, or found from up to 256 pictures, evenly spread.

    Size: that of the pictures, if all are squares of one size up to 64; else the median of their shorter sides,
    rounded to a multiple of 16, at least 16 and at most 128. Channels: 1 if all are grey, else 3.
    """
    pictures = source.images
    if isinstance(pictures, np.ndarray):
        chosen = pictures[_spread(len(pictures))]
        grey = chosen.shape[1] == 1 or bool((chosen == chosen[:, :1]).all())
        seen = [(pictures.shape[3], pictures.shape[2], grey)]
    elif config.size is not None and config.channels is not None:
        seen = []
    else:
        seen = _looks(pictures, config)
    channels = config.channels or (1 if all(grey for _, _, grey in seen) else 3)
    return config.size or _size([(width, height) for width, height, _ in seen]), channels


def _looks(files: Sequence[File], config: DataConfig) -> list[tuple[int, int, bool]]:
    found: dict[int, tuple[int, int, bool]] = {}

    def work(index: int) -> None:
        with contextlib.suppress(decode.DecodeError):
            found[index] = decode.look(read(files[index], config.max_bytes), max_pixels=config.max_pixels)

    in_threads(work, _spread(len(files)).tolist(), config.max_seconds)
    return list(found.values())


def _size(sides: list[tuple[int, int]]) -> int:
    if not sides:
        return GRID
    first = sides[0]
    if first[0] == first[1] and 4 <= first[0] <= SMALL and all(side == first for side in sides):
        return first[0]
    median = float(np.median([min(side) for side in sides]))
    return min(LARGEST, max(GRID, GRID * math.floor(median / GRID + 0.5)))


def _spread(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(int))
