"""Which images come in which step, on which rank: a pure function of (seed, epoch), with nothing to save or restore.

An epoch of N images has ceil(N / batch) steps. Step k of S holds places k*N//S to (k+1)*N//S of the epoch's order, so
that sizes differ by one at most and no last batch is tiny (its gradient, and its batch norm, would be all noise). The
ranks cut each step in the same way, so the global batches do not depend on their number.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from classifier.data.dataset import Part


@dataclass(frozen=True, eq=False)
class Batch:
    """A rank's shard of one step; it may be empty.

    positions_N: each image's place in the epoch's order; indices_N: its place in the data set; both int64.
    """

    images_NCHW: Tensor
    labels_N: Tensor
    positions_N: Tensor
    indices_N: Tensor
    step: int
    """Index within the epoch."""
    global_count: int
    """Images of this step over all ranks."""


def steps_per_epoch(count: int, batch: int) -> int:
    """Steps that `count` images take, `batch` a step."""
    return -(-count // batch)


def batches(
    part: Part,
    *,
    batch: int,
    seed: int,
    epoch: int,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    shuffle: bool = True,
) -> Iterator[Batch]:
    """The shards of `rank` in the steps from `start` of an epoch; one for every step, so that ranks stay together."""
    count = len(part)
    order_N = order(count, seed, epoch) if shuffle else torch.arange(count)
    steps = steps_per_epoch(count, batch)
    for step in range(start, steps):
        low, high = cut(0, count, step, steps)
        mine = slice(*cut(low, high, rank, world))
        chosen_N = order_N[mine]
        taken = chosen_N if shuffle else mine  # in order: a view, no copy
        positions_N = torch.arange(mine.start, mine.stop)
        yield Batch(part.images_NCHW[taken], part.labels_N[taken], positions_N, chosen_N, step, high - low)


def evaluation_batches(part: Part, *, batch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """Every image exactly once over all ranks, in order; `batch` images a step over all ranks."""
    return batches(part, batch=batch, seed=0, epoch=0, rank=rank, world=world, shuffle=False)


def cut(low: int, high: int, index: int, pieces: int) -> tuple[int, int]:
    """Piece `index` of [low, high) cut into `pieces` whose sizes differ by one at most."""
    length = high - low
    return low + index * length // pieces, low + (index + 1) * length // pieces


def trace(batch: Batch) -> int:
    """A number in [-2^63, 2^63) for which image stood where. Those of an epoch's shards add up, wrapping, to one that
    does not depend on how the epoch was cut: another order, or an image twice or never, makes another one.
    """
    hashes_N = _splitmix64(
        _splitmix64(batch.indices_N.numpy().astype(np.uint64)) ^ batch.positions_N.numpy().view("u8")
    )
    return int(hashes_N.sum(dtype=np.uint64).view(np.int64))


def order(count: int, seed: int, epoch: int) -> Tensor:
    """A permutation of `count` places, int64: a function of (seed, epoch) on every machine and version.

    Places are sorted by their number's hash (splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number
    generators", 2014); torch.randperm promises no such stability.
    """
    key = _splitmix64(np.array([seed % 2**64], np.uint64))
    key = _splitmix64(key ^ np.uint64(epoch))
    hashes = _splitmix64(_splitmix64(np.arange(count, dtype=np.uint64)) ^ key)
    return torch.from_numpy(np.argsort(hashes, kind="stable"))


def _splitmix64(values: np.ndarray) -> np.ndarray:
    values = values + np.uint64(0x9E3779B97F4A7C15)  # wraps, as it must
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
