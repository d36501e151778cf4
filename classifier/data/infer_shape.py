"""Infer the image size and channels of a data set from a few of its images."""

import contextlib
import math
from collections.abc import Sequence

import numpy as np

from classifier.config.sections import DataConfig
from classifier.data.decoding import decode
from classifier.data.decoding.threads import run_in_threads
from classifier.data.readers.file_bytes import read_image_bytes
from classifier.data.readers.source import Source
from classifier.data.readers.tree import File

SAMPLE_IMAGES = 256
MAX_KEPT_SIZE, MAX_SIZE, SIZE_STEP = 64, 128, 16
"""Small squares up to MAX_KEPT_SIZE keep their size; others get a multiple of SIZE_STEP, at most MAX_SIZE (in memory,
on a CPU, anything larger is the user's decision)."""


def infer_shape(source: Source, config: DataConfig) -> tuple[int, int]:
    """Return image size in pixels and channels: as configured, or inferred from up to 256 images, evenly spread.

    Size: that of the images, if all are squares of one size up to 64; else the median of their shorter sides,
    rounded to a multiple of 16, at least 16 and at most 128. Channels: 1 if all are grey, else 3.
    """
    images = source.images
    if isinstance(images, np.ndarray):
        sample = images[_evenly_spread(len(images))]
        grey = sample.shape[1] == 1 or bool((sample == sample[:, :1]).all())
        measured = [(images.shape[3], images.shape[2], grey)]
    elif config.size is not None and config.channels is not None:
        measured = []
    else:
        measured = _measure_sample(images, config)
    channels = config.channels or (1 if all(grey for _, _, grey in measured) else 3)
    return config.size or _common_size([(width, height) for width, height, _ in measured]), channels


def _measure_sample(files: Sequence[File], config: DataConfig) -> list[tuple[int, int, bool]]:
    """Width, height and whether it is grey, of each image that can be decoded."""
    measured: dict[int, tuple[int, int, bool]] = {}

    def work(index: int) -> None:
        with contextlib.suppress(decode.DecodeError):
            content = read_image_bytes(files[index], config.max_bytes)
            measured[index] = decode.measure_image(content, max_pixels=config.max_pixels)

    run_in_threads(work, _evenly_spread(len(files)).tolist(), config.max_seconds)
    return list(measured.values())


def _common_size(sizes: list[tuple[int, int]]) -> int:
    if not sizes:
        return SIZE_STEP
    width, height = sizes[0]
    if width == height and 4 <= width <= MAX_KEPT_SIZE and all(size == sizes[0] for size in sizes):
        return width
    median = float(np.median([min(size) for size in sizes]))
    return min(MAX_SIZE, max(SIZE_STEP, SIZE_STEP * math.floor(median / SIZE_STEP + 0.5)))


def _evenly_spread(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, SAMPLE_IMAGES)).astype(int))
