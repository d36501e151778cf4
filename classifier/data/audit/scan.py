"""Scan each image once for everything that the audit needs."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from classifier.config.sections import DataConfig
from classifier.data.decoding.decode import DecodeFailure
from classifier.data.decoding.image_file import DecodeError
from classifier.data.decoding.image_stats import SHARP_SIDE, SIDE, ImageStats
from classifier.data.decoding.tasks import Task
from classifier.data.decoding.worker_processes import DecodeWorkers
from classifier.data.readers.compact import pack_digests
from classifier.data.readers.file_bytes import compute_digest, read_image_bytes
from classifier.data.readers.source import Source
from classifier.runtime.cpu import available_cores

_BLOCK_SIZE = 256


@dataclass(frozen=True, eq=False)
class ScanResult:
    """N scanned images. usable_N: the indices of the K readable ones, in the order of the arrays with a K.

    flaws: index -> why it is unreadable. digests_N: V16, of all N. sizes_K2: width and height; thumbs_KHW: uint8, grey.
    """

    source: Source
    flaws: dict[int, str]
    digests_N: np.ndarray
    usable_N: np.ndarray
    sizes_K2: np.ndarray
    sharpness_K: np.ndarray
    frames_K: np.ndarray
    misnamed_K: np.ndarray
    thumbs_KHW: np.ndarray
    used_bits_K: np.ndarray
    """How many bits of its 16 an image needs; 0 if it has 8, or declares how many it uses."""
    hashes_K: np.ndarray
    """V16, equal for images with the same pixels."""


def scan_images(source: Source, config: DataConfig, tick: Callable[[int], None] = lambda _: None) -> ScanResult:
    """Read and decode each image once, in several processes. tick: called with the number of images just done."""
    if isinstance(source.images, np.ndarray):
        return _scan_arrays(source, source.images, tick)
    files, count = source.images, len(source.labels_N)
    digests: list[bytes] = [b""] * count
    flaws: dict[int, str] = {}
    stats: dict[int, ImageStats] = {}
    thumbs_NHW = np.zeros((count, SIDE, SIDE), np.uint8)

    def read(index: int) -> bytes | DecodeFailure:
        try:
            content = read_image_bytes(files[index], config.max_bytes)
        except DecodeError as error:
            return DecodeFailure(str(error))
        digests[index] = compute_digest(content)
        return content

    with DecodeWorkers(Task.stats(config.max_pixels), config.max_seconds, available_cores() + 1) as workers:
        for index, reply in workers.map(read, range(count)):
            if isinstance(reply, DecodeFailure):
                flaws[index] = reply.reason
            else:
                unpacked = ImageStats.unpack(reply)
                thumbs_NHW[index] = unpacked.thumb
                stats[index] = dataclasses.replace(unpacked, thumb=thumbs_NHW[index])
            tick(1)
    usable = sorted(stats)
    return ScanResult(
        source=source,
        flaws=dict(sorted(flaws.items())),
        digests_N=pack_digests(digests),
        usable_N=np.array(usable, np.int64),
        sizes_K2=np.array([(stats[n].width, stats[n].height) for n in usable]).reshape(-1, 2),
        sharpness_K=np.array([stats[n].sharpness for n in usable]),
        frames_K=np.array([stats[n].frames for n in usable], np.int64),
        misnamed_K=np.array([not stats[n].matches_suffix(source.ids[n]) for n in usable], bool),
        thumbs_KHW=thumbs_NHW if len(usable) == count else thumbs_NHW[usable],
        used_bits_K=np.array([stats[n].used_bits for n in usable], np.int64),
        hashes_K=pack_digests(stats[n].pixels_hash for n in usable),
    )


def _scan_arrays(source: Source, pixels_NCHW: np.ndarray, tick: Callable[[int], None]) -> ScanResult:
    """scan_images for uint8 arrays, in blocks."""
    count, channels, height, width = pixels_NCHW.shape
    thumbs_NHW, sharpness_N = np.empty((count, SIDE, SIDE), np.uint8), np.empty(count)
    grey_weights = torch.tensor([0.299, 0.587, 0.114] if channels == 3 else [1.0])  # as Pillow converts colour to grey
    scale = min(1.0, SHARP_SIDE / min(height, width))
    size = (round(height * scale), round(width * scale))
    for start in range(0, count, _BLOCK_SIZE):
        block = slice(start, start + _BLOCK_SIZE)
        grey_NHW = torch.einsum("nchw,c->nhw", torch.from_numpy(pixels_NCHW[block]).float(), grey_weights)
        if scale < 1:
            grey_NHW = F.interpolate(grey_NHW[:, None], size, mode="area")[:, 0]
        sharpness_N[block] = _sharpness(grey_NHW)
        thumbs_N1HW = F.interpolate(grey_NHW[:, None], (SIDE, SIDE), mode="bilinear", antialias=True)
        thumbs_NHW[block] = thumbs_N1HW[:, 0].round_().to(torch.uint8)
        tick(len(grey_NHW))
    digests_N = pack_digests(compute_digest(np.ascontiguousarray(image_CHW)) for image_CHW in pixels_NCHW)
    return ScanResult(
        source=source,
        flaws={},
        digests_N=digests_N,
        usable_N=np.arange(count),
        sizes_K2=np.tile(np.array([[width, height]]), (count, 1)),
        sharpness_K=sharpness_N,
        frames_K=np.ones(count, np.int64),
        misnamed_K=np.zeros(count, bool),
        thumbs_KHW=thumbs_NHW,
        used_bits_K=np.zeros(count, np.int64),
        hashes_K=digests_N,
    )


def _sharpness(grey_NHW: torch.Tensor) -> np.ndarray:
    """image_stats sharpness of each image."""
    if min(grey_NHW.shape[1:]) < 3:
        return np.zeros(len(grey_NHW))
    laplacian_NHW = 4 * grey_NHW[:, 1:-1, 1:-1] - grey_NHW[:, :-2, 1:-1] - grey_NHW[:, 2:, 1:-1]
    laplacian_NHW -= grey_NHW[:, 1:-1, :-2] + grey_NHW[:, 1:-1, 2:]
    variance_N = grey_NHW.flatten(1).var(1, correction=0)
    softness_N = laplacian_NHW.flatten(1).var(1, correction=0) / variance_N
    return torch.where(variance_N > 0, softness_N, 0.0).double().numpy()
