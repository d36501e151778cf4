"""All pictures of a source: what size and channels suit them, then all of them decoded, each file read once."""

import contextlib
import hashlib
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from classifier.config import DataConfig
from classifier.data import decode
from classifier.data.source import Source, few
from classifier.errors import DataError

LOOKED_AT = 256
SMALL, LARGEST, GRID = 64, 128, 16
"""Sizes that are chosen: small squares stay as they are; others are a multiple of 16, at most 128 (in memory, on a
CPU, more is the user's decision)."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """images_NCHW: uint8; digests: 16 bytes of each content; flaws: why a picture could not be used, by its index."""

    images_NCHW: np.ndarray
    digests: list[bytes]
    flaws: dict[int, str]


def decoded(source: Source, config: DataConfig) -> Pictures:
    """Every picture as config.fit, config.size and config.channels want it; what is not set is found by `shape`.

    Pictures with a flaw are black. DataError if they do not fit in memory.
    """
    size, channels = shape(source, config)
    _refuse_giants(source, size, channels)
    if isinstance(source.pictures, np.ndarray):
        return _from_arrays(source.pictures, size, channels, config.fit)
    paths = source.pictures
    images_NCHW = np.zeros((len(paths), channels, size, size), np.uint8)
    digests, flaws = [b""] * len(paths), {}

    def work(index: int) -> None:
        try:
            content = _read(paths[index])
            digests[index] = digest(content)
            images_NCHW[index] = decode.loaded(
                content, size=size, channels=channels, fit=config.fit, max_pixels=config.max_pixels
            )
        except decode.FlawError as flaw:
            flaws[index] = str(flaw)

    in_threads(work, range(len(paths)))
    return Pictures(images_NCHW, digests, dict(sorted(flaws.items())))


def shape(source: Source, config: DataConfig) -> tuple[int, int]:
    """The side in pixels and the channels: as set, or found from up to 256 pictures, evenly spread.

    Size: that of the pictures, if all are squares of one size up to 64; else the median of their shorter sides,
    rounded to a multiple of 16, at least 16 and at most 128. Channels: 1 if all are grey, else 3.
    """
    pictures = source.pictures
    if isinstance(pictures, np.ndarray):
        chosen = pictures[_spread(len(pictures))]
        grey = chosen.shape[1] == 1 or bool((chosen == chosen[:, :1]).all())
        seen = [(pictures.shape[3], pictures.shape[2], grey)]
    elif config.size is not None and config.channels is not None:
        seen = []
    else:
        seen = _looks(pictures, config.max_pixels)
    channels = config.channels or (1 if all(grey for _, _, grey in seen) else 3)
    return config.size or _size([(width, height) for width, height, _ in seen]), channels


def digest(content: Any) -> bytes:
    """16 bytes that two contents (bytes, or arrays of one shape) share only if they are equal."""
    return hashlib.blake2b(content, digest_size=16).digest()


def in_threads(work: Callable[[int], None], indices: "range | list[int]") -> None:
    """Call `work` on every index, on all cores that this process may use; decoders leave Python's lock alone."""
    count, over = min(_cores(), max(1, len(indices))), threading.Event()

    def share(first: int) -> None:
        for index in indices[first::count]:
            if over.is_set():
                return
            work(index)

    with decode.quiet(), ThreadPoolExecutor(count) as pool:
        try:
            for done in [pool.submit(share, first) for first in range(count)]:
                done.result()
        except BaseException:  # Ctrl-C, or an error in one thread: the others need not finish
            over.set()
            raise


def _from_arrays(images_NCHW: np.ndarray, size: int, channels: int, fit: str) -> Pictures:
    images_NCHW = np.ascontiguousarray(images_NCHW)
    digests = [digest(image) for image in images_NCHW]
    if images_NCHW.shape[2:] == (size, size) and images_NCHW.shape[1] in (1, channels):
        return Pictures(np.repeat(images_NCHW, channels // images_NCHW.shape[1], axis=1), digests, {})
    resized_NCHW = np.empty((len(images_NCHW), channels, size, size), np.uint8)

    def work(index: int) -> None:
        pixels = images_NCHW[index]
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        resized_NCHW[index] = decode.prepare(image, size=size, channels=channels, fit=fit)

    in_threads(work, range(len(images_NCHW)))
    return Pictures(resized_NCHW, digests, {})


def _looks(paths: list[Path], max_pixels: int) -> list[tuple[int, int, bool]]:
    found: dict[int, tuple[int, int, bool]] = {}

    def work(index: int) -> None:
        with contextlib.suppress(decode.FlawError):
            found[index] = decode.look(_read(paths[index]), max_pixels=max_pixels)

    in_threads(work, _spread(len(paths)).tolist())
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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise decode.FlawError(f"it cannot be read ({error.strerror or error})") from None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _refuse_giants(source: Source, size: int, channels: int) -> None:
    """The pictures lie in memory twice, while they are sorted into splits."""
    count = len(source.labels_N)
    need = 2 * count * channels * size * size
    try:
        have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return
    if need > have:
        raise DataError(
            f"{source.name}: {count:,} pictures of {size} x {size} x {channels} need {need / 1e9:,.0f} GB of memory, "
            f"this machine has {have / 1e9:,.0f}: set a smaller --data.size, or take fewer pictures"
        )


def listed(source: Source, flaws: dict[int, str]) -> str:
    """The first pictures with a flaw, each with its flaw."""
    return few([f"{source.ids[index]} ({flaw})" for index, flaw in flaws.items()])
