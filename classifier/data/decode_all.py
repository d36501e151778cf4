"""All pictures of a source: what size and channels suit them, then all of them decoded, each file read once."""

import contextlib
import functools
import io
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from classifier.config.sections import DataConfig
from classifier.data.decoding import decode, jpeg, worker_processes
from classifier.data.decoding.threads import in_threads
from classifier.data.decoding.worker_processes import Decoder
from classifier.data.images.arrays import Images
from classifier.data.images.jpeg_segment import JPEG, JpegSegmentWriter
from classifier.data.images.pixel_segment import PIXELS, PixelSegmentWriter
from classifier.data.images.stream import StreamedImages
from classifier.data.infer_shape import shape
from classifier.data.readers.compact import digests_of
from classifier.data.readers.file_bytes import digest, read
from classifier.data.readers.source import Source
from classifier.data.readers.tree import File, identity
from classifier.errors import ConfigError, DataError, list_few
from classifier.runtime.cpu import available_cores, keep_freed_memory

if TYPE_CHECKING:
    from classifier.data.images.cache import Cache

logger = logging.getLogger(__name__)

IN_THREADS = 64
"""So few pictures are decoded in threads of this process: to start others takes longer."""
MOSTLY = 0.5
"""Where a set's pixels would take more than this part of data.cache_gb, JPEGs of them are kept instead."""
Progress = Callable[[str, int], contextlib.AbstractContextManager[Callable[[int], None]]]
"""(what is done, how many times): while the context is used, it is told how many more are done."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """images_NCHW: uint8; digests_N: V16, of each content; flaws: why a picture could not be used, by its index."""

    images_NCHW: Images
    digests_N: np.ndarray
    flaws: dict[int, str]


def decoded(source: Source, config: DataConfig, progress: Progress | None = None) -> Pictures:
    """Every picture as config.fit, config.size and config.channels want it; what is not set is found by `shape`.

    Files are decoded once a machine, into config.cache. What stands in the place of a picture with a flaw is undefined.
    DataError if they do not fit in memory, or on the cache's disk.
    """
    size, channels = shape(source, config)
    if isinstance(source.images, np.ndarray):
        _refuse_giants(source, size, channels)
        return _from_arrays(source.images, size, channels, config.fit)
    files, way = source.images, _Way(source.name, size, channels, config, progress or _silent)
    if config.stream:
        if config.balance:
            raise ConfigError(
                "data.balance cannot be used with data.stream: give --loss.class_weights balanced instead"
            )
        images = StreamedImages(
            functools.partial(way.block, files),
            torch.arange(len(files)),
            (channels, size, size),
            len(files),
            config.window,
        )
        return Pictures(images, digests_of(digest(id_.encode()) for id_ in source.ids), {})
    cache = None if config.cache is None else _cache_of(config, (channels, size, size), len(files))
    if cache is None:
        _refuse_giants(source, size, channels)
        images_NCHW = np.zeros((len(files), channels, size, size), np.uint8)
        told = way.decode(files, images_NCHW, range(len(files)), lambda _: False)
        digests = digests_of(answer if isinstance(answer := told[n], bytes) else b"" for n in range(len(files)))
        flaws = {n: answer for n in range(len(files)) if isinstance(answer := told[n], str)}
        return Pictures(torch.from_numpy(images_NCHW), digests, flaws)
    identities = [identity(file) if isinstance(file, Path) else file.identity() for file in files]
    found = cache.pictures(identities, functools.partial(way.decode, files), 1e9 * config.cache_gb)
    return Pictures(found.images, digests_of(found.digests), found.flaws)


def _cache_of(config: DataConfig, shape_CHW: tuple[int, int, int], count: int) -> "Cache | None":
    """None where the folder that nobody chose cannot be written."""
    from classifier.data.images.cache import Cache

    home = Path(os.path.expanduser(config.cache or ""))
    limits = {"max_pixels": config.max_pixels, "max_bytes": config.max_bytes, "seconds": config.max_seconds}
    try:
        return Cache.open(home, shape_CHW, _kept_as(config, shape_CHW, count), fit=config.fit, **limits)
    except DataError as error:
        if config.cache != DataConfig().cache:
            raise
        logger.warning("%s; pictures are decoded in memory, each time", error)
        return None


def _kept_as(config: DataConfig, shape_CHW: tuple[int, int, int], count: int) -> str:
    """What a cache keeps of so many pictures of this shape."""
    if config.cache_as != "auto":
        return config.cache_as
    return JPEG if count * math.prod(shape_CHW) > MOSTLY * 1e9 * config.cache_gb else PIXELS


@dataclass(frozen=True)
class _Way:
    """How files become pictures."""

    name: str
    size: int
    channels: int
    config: DataConfig
    progress: Progress

    def block(self, files: Sequence[File], indices: np.ndarray) -> np.ndarray:
        """The pictures of these indices, uint8 N x C x H x W; those with a flaw are black, and told of."""
        pixels_NCHW = np.zeros((len(indices), self.channels, self.size, self.size), np.uint8)
        flaws: list[str] = []

        def work(row: int) -> None:
            try:
                content = read(files[indices[row]], self.config.max_bytes)
                pixels_NCHW[row] = decode.loaded(
                    content,
                    size=self.size,
                    channels=self.channels,
                    fit=self.config.fit,
                    max_pixels=self.config.max_pixels,
                )
            except decode.DecodeError as flaw:
                flaws.append(f"{files[indices[row]]} ({flaw})")

        def late(row: int) -> None:
            flaws.append(f"{files[indices[row]]} ({worker_processes.too_slow(self.config.max_seconds)})")

        in_threads(work, range(len(indices)), self.config.max_seconds, late)
        if flaws:
            logger.warning(
                "%d pictures of %s cannot be used, and are black: %s", len(flaws), self.name, list_few(flaws)
            )
        return pixels_NCHW

    def decode(
        self,
        files: Sequence[File],
        target: PixelSegmentWriter | JpegSegmentWriter | np.ndarray,
        indices: Sequence[int],
        is_known: Callable[[bytes], bool],
    ) -> "dict[int, bytes | str]":
        """The pictures of these indices into the rows of `target`, a draft or uint8 N x C x H x W, unless their content
        is known; by index its digest or flaw.
        """
        rows = {index: row for row, index in enumerate(indices)}
        told: dict[int, bytes | str] = {}
        settings: dict[str, Any] = {"size": self.size, "channels": self.channels, "fit": self.config.fit}
        settings["max_pixels"] = self.config.max_pixels

        def put(index: int, pixels_CHW: np.ndarray) -> None:
            if not isinstance(target, np.ndarray):
                target.put(rows[index], pixels_CHW)
            else:
                target[rows[index]] = pixels_CHW

        def contents(index: int) -> "bytes | str | None":
            try:
                content = read(files[index], self.config.max_bytes)
            except decode.DecodeError as flaw:
                return str(flaw)
            name = told[index] = digest(content)
            return None if is_known(name) else content

        def work(index: int) -> None:
            content = contents(index)
            if isinstance(content, bytes):
                try:
                    put(index, decode.loaded(content, **settings))
                except decode.DecodeError as flaw:
                    told[index] = str(flaw)
            elif content is not None:
                told[index] = content

        if len(indices) <= IN_THREADS:
            in_threads(
                work,
                indices,
                self.config.max_seconds,
                lambda index: told.update({index: worker_processes.too_slow(self.config.max_seconds)}),
            )
            return told
        keep_freed_memory()  # a picture's pixels are freed before the next one's are asked for
        shape_CHW = (self.channels, self.size, self.size)
        in_place = None if isinstance(target, np.ndarray) else target.words()
        words = ("rows", *settings.values(), *in_place) if in_place else ("pixels", *settings.values())
        length = 0 if in_place else math.prod(shape_CHW)
        make = functools.partial(Decoder, *words, length=length, seconds=self.config.max_seconds)

        def take(index: int, answer: "bytes | str") -> None:
            if isinstance(answer, str):
                told[index] = answer
            elif not in_place:
                put(index, np.frombuffer(answer, np.uint8).reshape(shape_CHW))

        with self.progress(f"decoding {self.name}", len(indices)) as tick:

            def rest(index: int) -> "bytes | str | None":
                """What is left to a process."""
                tick(1)
                content = contents(index)
                if not isinstance(content, bytes):
                    return content
                if (pixels_CHW := jpeg.fast(content, **settings)) is not None:
                    put(index, pixels_CHW)
                    return None
                return worker_processes.for_row(rows[index], content) if in_place else content

            worker_processes.decoded(make, rest, indices, take, processes=available_cores())
        return told


@contextlib.contextmanager
def _silent(_: str, __: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def as_png(image_CHW: np.ndarray) -> bytes:
    """A file of the picture, as if it had come from one."""
    stream = io.BytesIO()
    _image_of(image_CHW).save(stream, "png", compress_level=1)
    return stream.getvalue()


def _from_arrays(images_NCHW: np.ndarray, size: int, channels: int, fit: str) -> Pictures:
    images_NCHW = np.ascontiguousarray(images_NCHW)
    digests = digests_of(digest(image) for image in images_NCHW)
    if images_NCHW.shape[2:] == (size, size) and images_NCHW.shape[1] in (1, channels):
        images_NCHW = np.repeat(images_NCHW, channels // images_NCHW.shape[1], axis=1)
        return Pictures(torch.from_numpy(images_NCHW), digests, {})
    resized_NCHW = np.empty((len(images_NCHW), channels, size, size), np.uint8)

    def work(index: int) -> None:
        resized_NCHW[index] = decode.prepare(_image_of(images_NCHW[index]), size=size, channels=channels, fit=fit)

    in_threads(work, range(len(images_NCHW)))
    return Pictures(torch.from_numpy(resized_NCHW), digests, {})


def _image_of(image_CHW: np.ndarray) -> Image.Image:
    return Image.fromarray(image_CHW[0] if len(image_CHW) == 1 else np.ascontiguousarray(image_CHW.transpose(1, 2, 0)))


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
    return list_few([f"{source.ids[index]} ({flaw})" for index, flaw in flaws.items()])
