"""Images read on demand, for data sets larger than memory and disk.

Neighbours in the source (of one shard, one table) make a chunk, which is read and decoded as a whole. An epoch deals
the chunks, in a new order, out to `window` lanes; a batch takes equally many images from each lane, and within a lane
one chunk follows another. So `window` chunks are in memory, at most twice as many, however large the data set is.
Within a batch the images are sorted by lane: workers, which always cut it in the same way, each read the chunks of
their own lanes. Like any other, the order is a function of (seed, epoch): a run resumes in the middle of an epoch, and
another number of workers gets the same batches.
"""

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from classifier.data.images.lazy import LazyImages
from classifier.runtime.counter_rng import permutation, uniform_by_index

CHUNK = 256
"""Images per chunk."""
SAMPLE_IMAGES = 1024
"""Images, evenly spread, from which mean and standard deviation are computed."""


ReadImages = Callable[[np.ndarray], np.ndarray]
"""Decodes the images of a source at these indices, to uint8 N x C x H x W."""


@dataclass(eq=False)
class StreamedImages(LazyImages):
    """rows_N: int64, each image's index in the source."""

    read: ReadImages
    rows_N: Tensor
    shape_CHW: tuple[int, int, int]
    total: int
    """Images of the source."""
    window: int
    _chunks: "OrderedDict[int, np.ndarray]" = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __getitem__(self, index: "Tensor | slice") -> Tensor:
        rows_N = self.rows_N[index].numpy()
        images_NCHW = torch.empty(len(rows_N), *self.shape_CHW, dtype=torch.uint8)
        chunks_N = rows_N // CHUNK
        for chunk in np.unique(chunks_N).tolist():
            positions_N = np.flatnonzero(chunks_N == chunk)
            pixels_NCHW = torch.from_numpy(self._load_chunk(chunk))
            in_chunk_N = torch.from_numpy(rows_N[positions_N] - chunk * CHUNK)
            images_NCHW[torch.from_numpy(positions_N)] = pixels_NCHW[in_chunk_N]
        return images_NCHW

    def select(self, index_N: Tensor) -> "StreamedImages":
        """Return the images at these int64 positions, in this order; chunks in memory are shared."""
        return dataclasses.replace(self, rows_N=self.rows_N[index_N])

    def read_by(self, read: ReadImages, size: int) -> "StreamedImages":
        """Return the same images in the same order, read at another size."""
        return StreamedImages(read, self.rows_N, (self.shape_CHW[0], size, size), self.total, self.window)

    def epoch_order(self, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Return the positions in an epoch's order, int64, and the lane of each of them."""
        chunks, chunk_N = np.unique(self.rows_N.numpy() // CHUNK, return_inverse=True)
        turn_C = np.empty(len(chunks), np.int64)
        turn_C[permutation(len(chunks), seed, epoch).numpy()] = np.arange(len(chunks))
        turn_N = turn_C[chunk_N]
        lane_N = turn_N % self.window
        # Chunk by chunk in each lane, in any order within a chunk; then each lane's images spread over the epoch.
        by_lane = np.lexsort((uniform_by_index(len(turn_N), seed, epoch), turn_N, lane_N))
        sizes_L = np.bincount(lane_N, minlength=self.window)
        rank_N = np.arange(len(turn_N)) - (np.cumsum(sizes_L) - sizes_L)[lane_N[by_lane]]
        spread = (rank_N + 0.5) / sizes_L[lane_N[by_lane]]
        order_N = by_lane[np.argsort(spread, kind="stable")]
        return torch.from_numpy(order_N), torch.from_numpy(lane_N[order_N])

    def _load_chunk(self, chunk: int) -> np.ndarray:
        with self._lock:
            if chunk not in self._chunks:
                start = chunk * CHUNK
                self._chunks[chunk] = self.read(np.arange(start, min(start + CHUNK, self.total)))
                # A batch may hold the ends of some chunks and the beginnings of the next ones.
                while len(self._chunks) > 2 * self.window:
                    self._chunks.popitem(last=False)
            self._chunks.move_to_end(chunk)
            return self._chunks[chunk]
