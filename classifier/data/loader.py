"""Which images come in which step, on which rank: a pure function of (seed, epoch), with nothing to save or restore.

An epoch of N images has ceil(N / batch) steps. Step k of S holds places k*N//S to (k+1)*N//S of the epoch's order, so
that sizes differ by one at most and no last batch is tiny (its gradient, and its batch norm, would be all noise). The
ranks cut each step in the same way, so the global batches do not depend on their number.
"""

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from classifier.data.dataset import Split
from classifier.data.images.arrays import gather
from classifier.data.images.stream import StreamedImages
from classifier.runtime.counter_rng import permutation, splitmix64

WORTH_A_THREAD = 1 << 20
"""Bytes of a batch that take longer to gather than to hand over from a thread."""


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

    def pinned(self) -> "Batch":
        """The same, in page-locked memory."""
        fields = ("images_NCHW", "labels_N", "positions_N")
        return dataclasses.replace(self, **{name: getattr(self, name).pin_memory() for name in fields})


def steps_per_epoch(count: int, batch: int) -> int:
    """Steps that `count` images take, `batch` a step."""
    return -(-count // batch)


def batches(
    part: Split,
    *,
    batch: int,
    seed: int,
    epoch: int,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    balance: float = 0.0,
    shuffle: bool = True,
) -> Iterator[Batch]:
    """The shards of `rank` in the steps from `start` of an epoch; one for every step, so that ranks stay together.

    balance: see `balanced_order`.
    """
    count, steps = len(part), steps_per_epoch(len(part), batch)
    order_N = torch.arange(count)
    if shuffle and isinstance(part.images_NCHW, StreamedImages):
        order_N, lanes_N = part.images_NCHW.epoch_order(seed, epoch)
        for step in range(steps):
            places = slice(*cut(0, count, step, steps))
            order_N[places] = order_N[places][lanes_N[places].argsort(stable=True)]
    elif shuffle:
        order_N = balanced_order(part.labels_N, seed, epoch, balance) if balance else permutation(count, seed, epoch)
    for step in range(start, steps):
        low, high = cut(0, count, step, steps)
        mine = slice(*cut(low, high, rank, world))
        chosen_N = order_N[mine]
        images_NCHW = gather(part.images_NCHW, chosen_N) if shuffle else part.images_NCHW[mine]  # a view, if it can
        positions_N = torch.arange(mine.start, mine.stop)
        yield Batch(images_NCHW, part.labels_N[chosen_N], positions_N, chosen_N, step, high - low)


def prefetch(batches: Iterator[Batch], *, pin: bool = False, decodes: bool = False) -> Iterator[Batch]:
    """The same batches, the next of which is gathered in a thread while the one before is used, where that pays.

    pin: in memory that a GPU copies from while it computes. decodes: gathering is more than copying, and pays a thread.
    """
    first = next(batches, None)
    if first is None:
        return
    if not (pin or decodes) and first.images_NCHW.numel() < WORTH_A_THREAD:
        yield first
        yield from batches
        return

    def following() -> Batch | None:
        batch = next(batches, None)
        return batch.pinned() if pin and batch is not None else batch

    with ThreadPoolExecutor(1, "loader") as pool:
        coming = pool.submit(following)
        yield first.pinned() if pin else first
        while (batch := coming.result()) is not None:
            coming = pool.submit(following)
            yield batch


def evaluation_batches(part: Split, *, batch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
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
    hashes_N = splitmix64(splitmix64(batch.indices_N.numpy().astype(np.uint64)) ^ batch.positions_N.numpy().view("u8"))
    return int(hashes_N.sum(dtype=np.uint64).view(np.int64))


def balanced_order(labels_N: Tensor, seed: int, epoch: int, balance: float) -> Tensor:
    """Places of as many images as there are, int64, of which rare classes have more than their share.

    A class of n images gets a part of the epoch in proportion to n ** (1 - balance): at 1 each class gets the same. Its
    images take turns, so that none comes twice more often than another of its class.
    """
    labels = labels_N.numpy()
    counts_K = np.bincount(labels)
    weights_K = np.where(counts_K > 0, np.maximum(counts_K, 1) ** (1.0 - balance), 0.0)
    ends_K = np.rint(np.cumsum(weights_K) / weights_K.sum() * len(labels)).astype(int)
    turns = permutation(len(labels), seed, epoch).numpy()
    turns = turns[np.argsort(labels[turns], kind="stable")]  # class by class, each in the epoch's order
    starts_K = np.cumsum(counts_K) - counts_K
    drawn = np.empty(len(labels), np.int64)
    for k in np.flatnonzero(counts_K):
        low, high = (int(ends_K[k - 1]) if k else 0), int(ends_K[k])
        drawn[low:high] = turns[starts_K[k] + np.arange(high - low) % counts_K[k]]
    return torch.from_numpy(drawn[permutation(len(labels), seed + 1, epoch).numpy()])
