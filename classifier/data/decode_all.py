"""Decode all images of a source: infer a suitable size and channels, then decode each file once."""

import dataclasses
import functools
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from classifier.config.sections import DataConfig
from classifier.data.decoding import decode
from classifier.data.decoding.earlier import may_differ
from classifier.data.decoding.image_file import to_pillow
from classifier.data.decoding.image_spec import ImageSpec
from classifier.data.decoding.threads import run_in_threads
from classifier.data.image_decoder import ArrayWriter, ImageDecoder, Progress, no_progress
from classifier.data.images.arrays import Images
from classifier.data.images.jpeg_segment import JPEG
from classifier.data.images.pixel_segment import PIXELS
from classifier.data.images.row_hash import hash_rows
from classifier.data.images.stream import ReadImages, StreamedImages
from classifier.data.infer_shape import describe_few_bits, find_few_bits, infer_shape, measure_sample
from classifier.data.readers.compact import pack_digests
from classifier.data.readers.file_bytes import compute_digest, file_identity, may_pass
from classifier.data.readers.source import Source
from classifier.errors import ConfigError, DataError, list_few

if TYPE_CHECKING:
    from classifier.data.images.cache import Cache

logger = logging.getLogger(__name__)

MAX_PIXEL_SHARE = 0.5
"""Data sets whose pixels would take more than this share of data.cache_gb are cached as JPEGs instead."""
LARGE_CACHE_BYTES = 4e9
"""From this size on, checking the cached images shows its progress."""


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """images_NCHW: uint8; digests_N: V16, of each content; errors: why an image cannot be used, by its index.

    hashes_N: V16, equal for images with the same pixels in images_NCHW; None for a stream.
    """

    images_NCHW: Images
    digests_N: np.ndarray
    errors: dict[int, str]
    hashes_N: np.ndarray | None
    findings: tuple[str, ...] = ()
    """What users should know about the images."""
    read_at: Callable[[int], ReadImages] | None = None
    """Of a stream: how its images are read at another size."""


def decode_source(source: Source, config: DataConfig, progress: Progress | None = None) -> DecodedImages:
    """Decode every image to config.fit, config.size and config.channels; what is not set is inferred.

    Files are decoded once per machine, into config.cache. The pixels of an image that cannot be used are undefined.
    DataError if they do not fit in memory, or on the cache's disk.
    """
    measured = measure_sample(source, config)
    decoded = decode_to(source, config, infer_shape(source, config, measured), progress)
    if (bits := find_few_bits(one.used_bits for one in measured)) is None:
        return decoded
    advice = "multiply their values, or write a TIFF's MaxSampleValue or a PNG's sBIT"
    return dataclasses.replace(decoded, findings=(f"{source.name}: {describe_few_bits(bits)}; {advice}.",))


def decode_to(source: Source, config: DataConfig, shape: tuple[int, int], progress: Progress | None) -> DecodedImages:
    """`decode_source`, to this size and number of channels."""
    size, channels = shape
    spec = ImageSpec(size, channels, config.fit, config.max_pixels)
    if isinstance(source.images, np.ndarray):
        _check_memory(source, spec)
        return _from_arrays(source.images, spec)
    decoder = ImageDecoder(
        source.name, source.images, spec, config.max_bytes, config.max_seconds, progress or no_progress
    )
    if config.stream:
        return _as_stream(source, decoder, config)
    cache = None if config.cache is None else _open_cache(config, spec, len(decoder.files))
    if cache is None:
        _check_memory(source, spec)
        return _in_memory(decoder)
    return _from_cache(decoder, cache, 1e9 * config.cache_gb)


def _as_stream(source: Source, decoder: ImageDecoder, config: DataConfig) -> DecodedImages:
    """Return images that are read as they are needed; their digests are those of their names.

    All are decoded once before, as those that cannot be used are left out.
    """
    from classifier.data.stream_errors import find_errors  # imports Arrow, which small data sets do without

    if config.balance:
        raise ConfigError("data.balance cannot be used with data.stream: give --loss.class_weights balanced instead")
    count = len(decoder.files)
    errors = find_errors(decoder, config.cache)

    def read_at(size: int) -> ReadImages:
        resized = dataclasses.replace(decoder, spec=dataclasses.replace(decoder.spec, size=size))
        return functools.partial(resized.decode_block, unusable=errors)

    images = StreamedImages(read_at(decoder.spec.size), torch.arange(count), decoder.spec.shape, count, config.window)
    digests_N = pack_digests(compute_digest(id_.encode()) for id_ in source.ids)
    return DecodedImages(images, digests_N, errors, None, read_at=read_at)


def _in_memory(decoder: ImageDecoder) -> DecodedImages:
    indices = range(len(decoder.files))
    images_NCHW = np.zeros((len(indices), *decoder.spec.shape), np.uint8)
    results = decoder.fill(ArrayWriter(images_NCHW), indices)
    digests_N = pack_digests(results.digests.get(index, b"") for index in indices)
    return DecodedImages(
        torch.from_numpy(images_NCHW), digests_N, dict(sorted(results.errors.items())), hash_rows(images_NCHW)
    )


def _from_cache(decoder: ImageDecoder, cache: "Cache", max_cache_bytes: float) -> DecodedImages:
    """Return images of the cache, after decoding those that it lacks into it."""
    identities = [file_identity(file) if isinstance(file, Path) else file.identity() for file in decoder.files]
    found = cache.look_up(identities, may_pass)
    count, is_large = len(identities), len(identities) * math.prod(decoder.spec.shape) > LARGE_CACHE_BYTES
    with (decoder.progress if is_large else no_progress)(f"checking the cached {decoder.name}", count) as tick:
        missing = cache.find_missing(found, tick)
    if missing:
        with cache.lock():
            found = cache.look_up(identities, may_pass)  # another process may have added them meanwhile
            missing = cache.find_missing(found)
            is_known = functools.partial(cache.contains, may_differ=may_differ)
            for _ in range(2):  # of files that were read for their digests, cached images may turn out to be damaged
                for indices in cache.plan_segments(missing):
                    with cache.new_segment(len(indices)) as segment:
                        results = decoder.fill(segment.writer, indices, is_known)
                        segment.digests = [results.digests.get(index, b"") for index in indices]
                    found.update(results.digests, results.errors)
                missing = cache.find_missing(found)
            cache.remember(identities, found)
            cache.evict(max_cache_bytes)
    images_NCHW, hashes_N = cache.map_images(found)
    return DecodedImages(images_NCHW, pack_digests(found.digests), dict(sorted(found.errors.items())), hashes_N)


def _open_cache(config: DataConfig, spec: ImageSpec, count: int) -> "Cache | None":
    """Return the cache; None where the default folder cannot be written."""
    from classifier.data.images.cache import Cache

    root = Path(os.path.expanduser(config.cache or ""))
    limits = {"max_pixels": spec.max_pixels, "max_bytes": config.max_bytes, "seconds": config.max_seconds}
    try:
        return Cache.open(root, spec.shape, choose_cache_format(config, spec.shape, count), fit=spec.fit, **limits)
    except DataError as error:
        if config.cache != DataConfig().cache:
            raise
        logger.warning("%s; images are decoded in memory, by every run", error)
        return None


def choose_cache_format(config: DataConfig, shape_CHW: tuple[int, int, int], count: int) -> str:
    """Return what a cache stores of `count` images of this shape: pixels, or jpeg for data sets that are too large."""
    if config.cache_as != "auto":
        return config.cache_as
    return JPEG if count * math.prod(shape_CHW) > MAX_PIXEL_SHARE * 1e9 * config.cache_gb else PIXELS


def _from_arrays(images_NCHW: np.ndarray, spec: ImageSpec) -> DecodedImages:
    images_NCHW = np.ascontiguousarray(images_NCHW)
    digests = pack_digests(compute_digest(image) for image in images_NCHW)
    if images_NCHW.shape[2:] == spec.shape[1:] and images_NCHW.shape[1] in (1, spec.channels):
        images_NCHW = np.repeat(images_NCHW, spec.channels // images_NCHW.shape[1], axis=1)
        return DecodedImages(torch.from_numpy(images_NCHW), digests, {}, hash_rows(images_NCHW))
    resized_NCHW = np.empty((len(images_NCHW), *spec.shape), np.uint8)

    def work(index: int) -> None:
        resized_NCHW[index] = decode.prepare(to_pillow(images_NCHW[index]), spec)

    run_in_threads(work, range(len(images_NCHW)))
    return DecodedImages(torch.from_numpy(resized_NCHW), digests, {}, hash_rows(resized_NCHW))


def _check_memory(source: Source, spec: ImageSpec) -> None:
    """DataError if there is too little memory: the images are in it twice while they are split."""
    count = len(source.labels_N)
    required = 2 * count * math.prod(spec.shape)
    try:
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system knows
        return
    if required > available:
        raise DataError(
            f"{source.name}: {count:,} images of {spec.size} x {spec.size} x {spec.channels} need "
            f"{required / 1e9:,.0f} GB of memory, this machine has {available / 1e9:,.0f}: set a smaller --data.size, "
            "or use fewer images"
        )


def list_errors(source: Source, errors: dict[int, str]) -> str:
    """Name the first images that cannot be used, each with its reason."""
    return list_few([f"{source.ids[index]} ({error})" for index, error in errors.items()])
