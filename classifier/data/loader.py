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
    """A rank's shard of one step; it may be empty. positions_N: each image's place in the epoch's order, int64."""

    images_NCHW: Tensor
    labels_N: Tensor
    positions_N: Tensor
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
        mine_low, mine_high = cut(low, high, rank, world)
        if shuffle:
            chosen_N = order_N[mine_low:mine_high]
            images_NCHW, labels_N = part.images_NCHW[chosen_N], part.labels_N[chosen_N]
        else:  # in order: a view, no copy
            images_NCHW, labels_N = part.images_NCHW[mine_low:mine_high], part.labels_N[mine_low:mine_high]
        yield Batch(images_NCHW, labels_N, torch.arange(mine_low, mine_high), step, high - low)


def evaluation_batches(part: Part, *, batch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """Every image exactly once over all ranks, in order; `batch` images a step over all ranks."""
    return batches(part, batch=batch, seed=0, epoch=0, rank=rank, world=world, shuffle=False)


def cut(low: int, high: int, index: int, pieces: int) -> tuple[int, int]:
    """Piece `index` of [low, high) cut into `pieces` whose sizes differ by one at most."""
    length = high - low
    return low + index * length // pieces, low + (index + 1) * length // pieces


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
