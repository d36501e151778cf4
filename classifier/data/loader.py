"""Which images are in which step, on which rank: a pure function of (seed, epoch), with no state to save or restore.

An epoch of N images has ceil(N / batch) steps. Step k of S takes positions k*N//S to (k+1)*N//S of the epoch's order,
so that sizes differ by at most one and no last batch is tiny (its gradient, and its batch norm, would be all noise).
The ranks cut each step in the same way, so the global batches do not depend on their number.
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

MIN_PREFETCH_BYTES = 1 << 20
"""Smaller batches take less time to gather than to hand over from a thread."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A rank's shard of one step; it may be empty.

    positions_N: each image's position in the epoch's order; indices_N: its index in the split; both int64.
    """

    images_NCHW: Tensor
    labels_N: Tensor
    positions_N: Tensor
    indices_N: Tensor
    step: int
    """Index within the epoch."""
    global_count: int
    """Images of this step, across all ranks."""
    columns_NF: Tensor | None = None
    """float32, where columns join the images."""

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory."""
        fields = ("images_NCHW", "labels_N", "positions_N", "columns_NF")
        tensors = {name: tensor for name in fields if (tensor := getattr(self, name)) is not None}
        return dataclasses.replace(self, **{name: tensor.pin_memory() for name, tensor in tensors.items()})


def steps_per_epoch(count: int, batch: int) -> int:
    """Return the number of steps for `count` images, at most `batch` per step."""
    return -(-count // batch)


def batches(
    split: Split,
    *,
    batch: int,
    seed: int,
    epoch: int,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    balance: float = 0.0,
    strata_N: Tensor | None = None,
    shuffle: bool = True,
    repeats: int = 1,
) -> Iterator[Batch]:
    """Yield the shards of `rank` in an epoch's steps from `start` on; one for every step, so that ranks stay in step.

    batch: global batch size. balance: see `balanced_order`; strata_N: the classes that it balances, if not the labels.
    repeats: how often each image is in an epoch, at different positions; not of a stream.
    """
    count = len(split) * repeats
    steps = steps_per_epoch(count, batch)
    order_N = torch.arange(count)
    if shuffle and isinstance(split.images_NCHW, StreamedImages):
        order_N, lanes_N = split.images_NCHW.epoch_order(seed, epoch)
        for step in range(steps):
            positions = slice(*split_range(0, count, step, steps))
            order_N[positions] = order_N[positions][lanes_N[positions].argsort(stable=True)]
    elif shuffle:
        strata_N = split.labels_N if strata_N is None else strata_N
        strata_N = strata_N.repeat(repeats)
        order_N = balanced_order(strata_N, seed, epoch, balance) if balance else permutation(count, seed, epoch)
        order_N = order_N % len(split) if repeats > 1 else order_N
    for step in range(start, steps):
        low, high = split_range(0, count, step, steps)
        own = slice(*split_range(low, high, rank, world))
        indices_N = order_N[own]
        # Of an evaluation a view, where that is possible.
        images_NCHW = gather(split.training_images, indices_N) if shuffle else split.images_NCHW[own]
        positions_N = torch.arange(own.start, own.stop)
        columns_NF = None if split.columns_NF is None else split.columns_NF[indices_N]
        yield Batch(images_NCHW, split.labels_N[indices_N], positions_N, indices_N, step, high - low, columns_NF)


def prefetch(batches: Iterator[Batch], *, pin: bool = False, decodes: bool = False) -> Iterator[Batch]:
    """Yield the same batches, gathering the next one in a thread while the current one is used, where that pays off.

    pin: in page-locked memory, from which a GPU copies while it computes. decodes: gathering takes more than copying
    memory, so a thread always pays off.
    """
    first = next(batches, None)
    if first is None:
        return
    if not (pin or decodes) and first.images_NCHW.numel() < MIN_PREFETCH_BYTES:
        yield first
        yield from batches
        return

    def gather_next() -> Batch | None:
        batch = next(batches, None)
        return batch.pin_memory() if pin and batch is not None else batch

    with ThreadPoolExecutor(1, "loader") as pool:
        future = pool.submit(gather_next)
        yield first.pin_memory() if pin else first
        while (batch := future.result()) is not None:
            future = pool.submit(gather_next)
            yield batch


def evaluation_batches(split: Split, *, batch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """Yield every image exactly once across all ranks, in order. batch: global batch size."""
    return batches(split, batch=batch, seed=0, epoch=0, rank=rank, world=world, shuffle=False)


def split_range(low: int, high: int, index: int, pieces: int) -> tuple[int, int]:
    """Return piece `index` of [low, high), cut into `pieces` whose sizes differ by at most one."""
    length = high - low
    return low + index * length // pieces, low + (index + 1) * length // pieces


def compute_trace(batch: Batch) -> int:
    """Return a checksum, in [-2^63, 2^63), of which image was at which position.

    The sum over an epoch's shards, with wrap-around, does not depend on how the epoch was cut; another order, or an
    image twice or never, changes it.
    """
    hashes_N = splitmix64(splitmix64(batch.indices_N.numpy().astype(np.uint64)) ^ batch.positions_N.numpy().view("u8"))
    return int(hashes_N.sum(dtype=np.uint64).view(np.int64))


def balanced_order(labels_N: Tensor, seed: int, epoch: int, balance: float) -> Tensor:
    """Return the indices of an epoch, int64, as many as there are images, with rare classes oversampled.

    A class of n images gets a share of the epoch in proportion to n ** (1 - balance): at 1 all classes get the same.
    Its images take turns: the numbers of their occurrences differ by at most one.
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


def split_batch(batch: Batch, count: int) -> list[Batch]:
    """Split a batch for gradient accumulation, into pieces whose sizes differ by one at most."""
    names = ("images_NCHW", "labels_N", "positions_N", "indices_N", "columns_NF")
    tensors = {name: tensor for name in names if (tensor := getattr(batch, name)) is not None}
    pieces = zip(*(torch.tensor_split(tensor, count) for tensor in tensors.values()), strict=True)
    return [dataclasses.replace(batch, **dict(zip(tensors, piece, strict=True))) for piece in pieces]


def make_placeholder(batch: Batch, split: Split) -> Batch:
    """Return a batch of one image, in place of an empty shard: its rank takes part in the exchange of gradients."""
    index = torch.zeros(1, dtype=torch.int64)
    return dataclasses.replace(
        batch,
        images_NCHW=split.images_NCHW[:1],
        labels_N=split.labels_N[:1],
        columns_NF=None if split.columns_NF is None else split.columns_NF[:1],
        positions_N=index,
        indices_N=index,
    )
