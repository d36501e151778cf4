"""Pictures, each looked at once: what an audit must know of all of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from classifier.config.sections import DataConfig
from classifier.data.decoding.decode import DecodeError, DecodeFailure
from classifier.data.decoding.image_stats import SHARP_SIDE, SIDE, ImageStats
from classifier.data.decoding.worker_processes import DecodeWorkers, Task
from classifier.data.readers.compact import pack_digests
from classifier.data.readers.file_bytes import compute_digest, read_image_bytes
from classifier.data.readers.source import Source
from classifier.runtime.cpu import available_cores

_BLOCK = 256


@dataclass(frozen=True, eq=False)
class ScanResult:
    """N pictures. kept_N: those without a flaw, of which the other arrays speak in this order.

    digests_N: V16, of all N. sides_K2: width and height; thumbs_KHW: uint8, grey.
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


def scan_images(source: Source, config: DataConfig, tick: Callable[[int], None] = lambda _: None) -> ScanResult:
    """Read and decode each picture once, in several processes. tick: gets how many more are done."""
    if isinstance(source.images, np.ndarray):
        return _scan_arrays(source, source.images, tick)
    files, count = source.images, len(source.labels_N)
    digests: list[bytes] = [b""] * count
    flaws: dict[int, str] = {}
    glances: dict[int, ImageStats] = {}

    def read(index: int) -> bytes | DecodeFailure:
        try:
            content = read_image_bytes(files[index], config.max_bytes)
        except DecodeError as error:
            return DecodeFailure(str(error))
        digests[index] = compute_digest(content)
        return content

    workers = DecodeWorkers(Task.stats(config.max_pixels), config.max_seconds, available_cores() + 1)
    for index, reply in workers.map(read, range(count)):
        if isinstance(reply, DecodeFailure):
            flaws[index] = reply.reason
        else:
            glances[index] = ImageStats.unpack(reply)
        tick(1)
    kept = sorted(glances)
    return ScanResult(
        source=source,
        flaws=dict(sorted(flaws.items())),
        digests_N=pack_digests(digests),
        usable_N=np.array(kept, np.int64),
        sizes_K2=np.array([(glances[n].width, glances[n].height) for n in kept]).reshape(-1, 2),
        sharpness_K=np.array([glances[n].sharpness for n in kept]),
        frames_K=np.array([glances[n].frames for n in kept], np.int64),
        misnamed_K=np.array([not glances[n].matches_suffix(source.ids[n]) for n in kept], bool),
        thumbs_KHW=np.stack([glances[n].thumb for n in kept]) if kept else np.zeros((0, SIDE, SIDE), np.uint8),
    )


def _scan_arrays(source: Source, pixels_NCHW: np.ndarray, tick: Callable[[int], None]) -> ScanResult:
    """The same of uint8 arrays, many at once."""
    count, channels, height, width = pixels_NCHW.shape
    thumbs_NHW, sharpness_N = np.empty((count, SIDE, SIDE), np.uint8), np.empty(count)
    shares = torch.tensor([0.299, 0.587, 0.114] if channels == 3 else [1.0])  # as Pillow makes grey of colours
    scale = min(1.0, SHARP_SIDE / min(height, width))
    sides = (round(height * scale), round(width * scale))
    for start in range(0, count, _BLOCK):
        part = slice(start, start + _BLOCK)
        grey_NHW = torch.einsum("nchw,c->nhw", torch.from_numpy(pixels_NCHW[part]).float(), shares)
        if scale < 1:
            grey_NHW = F.interpolate(grey_NHW[:, None], sides, mode="area")[:, 0]
        sharpness_N[part] = _sharpness(grey_NHW)
        thumbs_N1HW = F.interpolate(grey_NHW[:, None], (SIDE, SIDE), mode="bilinear", antialias=True)
        thumbs_NHW[part] = thumbs_N1HW[:, 0].round_().to(torch.uint8)
        tick(len(grey_NHW))
    return ScanResult(
        source=source,
        flaws={},
        digests_N=pack_digests(compute_digest(np.ascontiguousarray(image_CHW)) for image_CHW in pixels_NCHW),
        usable_N=np.arange(count),
        sizes_K2=np.tile(np.array([[width, height]]), (count, 1)),
        sharpness_K=sharpness_N,
        frames_K=np.ones(count, np.int64),
        misnamed_K=np.zeros(count, bool),
        thumbs_KHW=thumbs_NHW,
    )


def _sharpness(grey_NHW: torch.Tensor) -> np.ndarray:
    """glance.sharpness of each."""
    if min(grey_NHW.shape[1:]) < 3:
        return np.zeros(len(grey_NHW))
    laplacian_NHW = 4 * grey_NHW[:, 1:-1, 1:-1] - grey_NHW[:, :-2, 1:-1] - grey_NHW[:, 2:, 1:-1]
    laplacian_NHW -= grey_NHW[:, 1:-1, :-2] + grey_NHW[:, 1:-1, 2:]
    variance_N = grey_NHW.flatten(1).var(1, correction=0)
    softness_N = laplacian_NHW.flatten(1).var(1, correction=0) / variance_N
    return torch.where(variance_N > 0, softness_N, 0.0).double().numpy()
