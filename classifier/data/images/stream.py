"""Pictures that are read as they are needed, for sets larger than memory and disk.

Neighbours in the source (of one shard, one table) make a chunk, which is read and decoded as a whole. An epoch deals
the chunks, in a new order, out to as many lanes as `window` says; a batch takes as many pictures from each lane, and
within a lane one chunk follows the other. So `window` chunks are in memory, at most twice as many, however large the
set is. Within a batch the pictures are sorted by lane: workers, which cut it in one way, each meet their own lanes'
chunks. The order is a function of (seed, epoch), as any other: a run goes on in the middle of an epoch, and on another
number of workers it sees the same batches.
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
"""Pictures of a chunk."""
SAMPLE = 1024
"""Pictures, evenly spread, from which mean and deviation are taken."""


@dataclass(eq=False)
class StreamedImages(LazyImages):
    """rows_N: int64, each picture's place in the source. read: decodes pictures of the source, by their places, to
    uint8 N x C x H x W."""

    read: Callable[[np.ndarray], np.ndarray]
    rows_N: Tensor
    shape_CHW: tuple[int, int, int]
    total: int
    """Pictures of the source."""
    window: int
    _kept: "OrderedDict[int, np.ndarray]" = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __getitem__(self, index: "Tensor | slice") -> Tensor:
        rows_N = self.rows_N[index].numpy()
        images_NCHW = torch.empty(len(rows_N), *self.shape_CHW, dtype=torch.uint8)
        chunks_N = rows_N // CHUNK
        for chunk in np.unique(chunks_N).tolist():
            places_N = np.flatnonzero(chunks_N == chunk)
            pixels_NCHW = torch.from_numpy(self._chunk(chunk))
            images_NCHW[torch.from_numpy(places_N)] = pixels_NCHW[torch.from_numpy(rows_N[places_N] - chunk * CHUNK)]
        return images_NCHW

    def chosen(self, index_N: Tensor) -> "StreamedImages":
        """Some of the pictures, in this order; what is in memory is shared."""
        return dataclasses.replace(self, rows_N=self.rows_N[index_N])

    def order(self, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        """Places in an epoch's order, int64, and the lane of each of them."""
        chunks, chunk_N = np.unique(self.rows_N.numpy() // CHUNK, return_inverse=True)
        turn_C = np.empty(len(chunks), np.int64)
        turn_C[permutation(len(chunks), seed, epoch).numpy()] = np.arange(len(chunks))
        turn_N = turn_C[chunk_N]
        lane_N = turn_N % self.window
        # Chunk by chunk in each lane, in any order within a chunk; then each lane's pictures spread over the epoch.
        by_lane = np.lexsort((uniform_by_index(len(turn_N), seed, epoch), turn_N, lane_N))
        sizes_L = np.bincount(lane_N, minlength=self.window)
        rank_N = np.arange(len(turn_N)) - (np.cumsum(sizes_L) - sizes_L)[lane_N[by_lane]]
        spread = (rank_N + 0.5) / sizes_L[lane_N[by_lane]]
        order_N = by_lane[np.argsort(spread, kind="stable")]
        return torch.from_numpy(order_N), torch.from_numpy(lane_N[order_N])

    def _chunk(self, chunk: int) -> np.ndarray:
        with self._lock:
            if chunk not in self._kept:
                start = chunk * CHUNK
                self._kept[chunk] = self.read(np.arange(start, min(start + CHUNK, self.total)))
                # A batch may have the ends of some chunks and the beginnings of those that follow them.
                while len(self._kept) > 2 * self.window:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(chunk)
            return self._kept[chunk]
