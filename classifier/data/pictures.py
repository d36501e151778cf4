"""All pictures of a source: what size and channels suit them, then all of them decoded, each file read once."""

import contextlib
import functools
import hashlib
import io
import logging
import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from classifier.config import DataConfig
from classifier.data import decode, decoder, jpeg
from classifier.data.decoder import Decoder
from classifier.data.draft import PIXELS, Draft
from classifier.data.encoded import JPEG, Frames
from classifier.data.images import Images
from classifier.data.packed import digests_of
from classifier.data.source import Source, few
from classifier.data.stream import Streamed
from classifier.data.threads import cores, in_threads
from classifier.data.tree import File, identity
from classifier.errors import ConfigError, DataError
from classifier.heap import keep_freed_memory

if TYPE_CHECKING:
    from classifier.data.cache import Cache

logger = logging.getLogger(__name__)

LOOKED_AT = 256
IN_THREADS = 64
"""So few pictures are decoded in threads of this process: to start others takes longer."""
MOSTLY = 0.5
"""Where a set's pixels would take more than this part of data.cache_gb, JPEGs of them are kept instead."""
SMALL, LARGEST, GRID = 64, 128, 16
"""Sizes that are chosen: small squares stay as they are; others are a multiple of 16, at most 128 (in memory, on a
CPU, more is the user's decision)."""

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
    if isinstance(source.pictures, np.ndarray):
        _refuse_giants(source, size, channels)
        return _from_arrays(source.pictures, size, channels, config.fit)
    files, way = source.pictures, _Way(source.name, size, channels, config, progress or _silent)
    if config.stream:
        if config.balance:
            raise ConfigError(
                "data.balance cannot be used with data.stream: give --loss.class_weights balanced instead"
            )
        images = Streamed(
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
    from classifier.data.cache import Cache

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
            except decode.FlawError as flaw:
                flaws.append(f"{files[indices[row]]} ({flaw})")

        def late(row: int) -> None:
            flaws.append(f"{files[indices[row]]} ({decoder.too_slow(self.config.max_seconds)})")

        in_threads(work, range(len(indices)), self.config.max_seconds, late)
        if flaws:
            logger.warning("%d pictures of %s cannot be used, and are black: %s", len(flaws), self.name, few(flaws))
        return pixels_NCHW

    def decode(
        self,
        files: Sequence[File],
        target: Draft | Frames | np.ndarray,
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
            except decode.FlawError as flaw:
                return str(flaw)
            name = told[index] = digest(content)
            return None if is_known(name) else content

        def work(index: int) -> None:
            content = contents(index)
            if isinstance(content, bytes):
                try:
                    put(index, decode.loaded(content, **settings))
                except decode.FlawError as flaw:
                    told[index] = str(flaw)
            elif content is not None:
                told[index] = content

        if len(indices) <= IN_THREADS:
            in_threads(
                work,
                indices,
                self.config.max_seconds,
                lambda index: told.update({index: decoder.too_slow(self.config.max_seconds)}),
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
                return decoder.for_row(rows[index], content) if in_place else content

            decoder.decoded(make, rest, indices, take, processes=cores())
        return told


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
        seen = _looks(pictures, config)
    channels = config.channels or (1 if all(grey for _, _, grey in seen) else 3)
    return config.size or _size([(width, height) for width, height, _ in seen]), channels


def digest(content: Any) -> bytes:
    """16 bytes that two contents (bytes, or arrays of one shape) share only if they are equal."""
    return hashlib.blake2b(content, digest_size=16).digest()


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


def _looks(files: Sequence[File], config: DataConfig) -> list[tuple[int, int, bool]]:
    found: dict[int, tuple[int, int, bool]] = {}

    def work(index: int) -> None:
        with contextlib.suppress(decode.FlawError):
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


def read(file: File, max_bytes: int) -> bytes:
    """The bytes of a picture's file. FlawError if they cannot be read, are more than that, or might never end."""
    try:
        if isinstance(file, Path):
            size, content = _whole(file, max_bytes)
        else:
            size = getattr(file, "size", None) or 0
            content = file.read_bytes() if size <= max_bytes else b""
        if max(size, len(content)) > max_bytes:
            size = max(size, len(content))
            raise decode.FlawError(f"its {size:,} bytes are more than data.max_bytes {max_bytes:,}")
        return content
    except OSError as error:
        raise decode.FlawError(f"it cannot be read ({error.strerror or error})") from None


def _whole(path: Path, max_bytes: int) -> tuple[int, bytes]:
    """Size and content of a file, which is read if it is not larger than that."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:  # to open a pipe otherwise is to wait for its writer
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            raise decode.FlawError("it is no regular file")
        return about.st_size, io.FileIO(file, closefd=False).read() if about.st_size <= max_bytes else b""
    finally:
        os.close(file)


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
