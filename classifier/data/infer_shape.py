"""Infer the image size and channels of a data set from a few of its images."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from classifier.config.sections import DataConfig
from classifier.data.decoding.bounded import BoundedDecoder
from classifier.data.decoding.decode import DecodeFailure, Measurement
from classifier.data.decoding.image_file import DecodeError
from classifier.data.decoding.tasks import Task, unpack_measurement
from classifier.data.readers.file_bytes import File, read_image_bytes
from classifier.data.readers.source import Source

SAMPLE_IMAGES = 256
MAX_FEW_BITS = 13
"""If no image uses more of its 16 bits than this, its depth is told: less than an eighth of the grey values."""
MAX_KEPT_SIZE, MAX_SIZE, SIZE_STEP = 64, 128, 16
"""Small squares up to MAX_KEPT_SIZE keep their size; others get a multiple of SIZE_STEP, at most MAX_SIZE (in memory,
on a CPU, anything larger is the user's decision)."""


def infer_shape(source: Source, config: DataConfig, measured: Sequence[Measurement] | None = None) -> tuple[int, int]:
    """Return image size in pixels and channels: as configured, or inferred from `measure_sample`.

    Size: that of the images, if all are squares of one size up to 64; else the median of their shorter sides,
    rounded to a multiple of 16, at least 16 and at most 128. Channels: 1 if all are grey, else 3.
    """
    if measured is None:
        measured = measure_sample(source, config)
    channels = config.channels or (1 if all(one.is_grey for one in measured) else 3)
    return config.size or _common_size([(one.width, one.height) for one in measured]), channels


def measure_sample(source: Source, config: DataConfig) -> list[Measurement]:
    """Measure up to 256 images, evenly spread; none if nothing is to be inferred, and none that cannot be used."""
    images = source.images
    if isinstance(images, np.ndarray):
        sample = images[_evenly_spread(len(images))]
        is_grey = sample.shape[1] == 1 or bool((sample == sample[:, :1]).all())
        return [Measurement(images.shape[3], images.shape[2], is_grey, 0)]
    if config.size is not None and config.channels is not None:
        return []
    files: Sequence[File] = images

    def read(index: int) -> bytes | DecodeFailure:
        try:
            return read_image_bytes(files[index], config.max_bytes)
        except DecodeError as error:
            return DecodeFailure(str(error))

    with BoundedDecoder(Task.measure(config.max_pixels), config.max_seconds) as decoder:
        replies = dict(decoder.map(read, _evenly_spread(len(files)).tolist()))
    ordered = (replies[index] for index in sorted(replies))
    return [unpack_measurement(reply) for reply in ordered if not isinstance(reply, DecodeFailure)]


def find_few_bits(used_bits: Iterable[int]) -> int | None:
    """Return how many bits all images in files of 16 bits need, if that is few: they are nearly black as read.

    used_bits: see OpenedImage.
    """
    most = max(used_bits, default=0)
    return most if 0 < most <= MAX_FEW_BITS else None


def describe_few_bits(bits: int) -> str:
    return f"files of 16 bits use {bits} of them at most, and do not say so: they are nearly black as read"


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
