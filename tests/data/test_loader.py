"""Laws of the loader: each image once, steps of equal size, the same global batches for any number of ranks."""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.data import loader
from classifier.data.dataset import Split
from classifier.data.loader import (
    Batch,
    balanced_order,
    batches,
    compute_trace,
    evaluation_batches,
    prefetch,
    steps_per_epoch,
)
from classifier.runtime.counter_rng import permutation

QUICK = settings(max_examples=60, deadline=None)


def make_split(count: int) -> Split:
    """Images that encode their own number."""
    numbers = torch.arange(count)
    images_NCHW = (numbers % 251).to(torch.uint8)[:, None, None, None].expand(count, 1, 2, 2).clone()
    return Split(images_NCHW, numbers, tuple(f"train/{n}" for n in range(count)))


def whole(shards: list[Batch]) -> torch.Tensor:
    return torch.cat([shard.labels_N for shard in shards])


CASES = st.tuples(st.integers(0, 90), st.integers(1, 40), st.integers(0, 2**63), st.integers(0, 500))


@QUICK
@given(CASES)
def test_every_image_once_per_epoch_in_steps_of_equal_size(case: tuple[int, int, int, int]) -> None:
    count, batch, seed, epoch = case
    split = make_split(count)
    steps = list(batches(split, batch=batch, seed=seed, epoch=epoch))
    assert len(steps) == steps_per_epoch(count, batch)
    assert [step.step for step in steps] == list(range(len(steps)))
    if count == 0:
        return
    assert sorted(whole(steps).tolist()) == list(range(count))
    sizes = [len(step.labels_N) for step in steps]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch
    assert sizes == [step.global_count for step in steps]
    assert torch.cat([step.positions_N for step in steps]).tolist() == list(range(count))
    for step in steps:
        assert torch.equal(step.images_NCHW[:, 0, 0, 0].long(), step.labels_N % 251)
        assert step.images_NCHW.dtype == torch.uint8
        assert step.labels_N.dtype == step.positions_N.dtype == torch.int64


@QUICK
@given(CASES, st.integers(1, 5), st.integers(0, 9))
def test_ranks_share_the_same_global_batches(case: tuple[int, int, int, int], world: int, start: int) -> None:
    count, batch, seed, epoch = case
    split = make_split(count)
    alone = list(batches(split, batch=batch, seed=seed, epoch=epoch))[start:]
    shards = [
        list(batches(split, batch=batch, seed=seed, epoch=epoch, start=start, rank=rank, world=world))
        for rank in range(world)
    ]
    assert {len(shard) for shard in shards} == {len(alone)}
    for step, *parts in zip(alone, *shards, strict=True):
        assert torch.equal(whole(parts), step.labels_N)
        assert torch.equal(torch.cat([p.images_NCHW for p in parts]), step.images_NCHW)
        assert torch.equal(torch.cat([p.positions_N for p in parts]), step.positions_N)
        assert {(p.step, p.global_count) for p in parts} == {(step.step, step.global_count)}
        sizes = [len(p.labels_N) for p in parts]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 64, 101])
def test_evaluation_yields_every_image_once_in_order(count: int, world: int) -> None:
    split = make_split(count)
    shards = [list(evaluation_batches(split, batch=16, rank=rank, world=world)) for rank in range(world)]
    seen = [p.labels_N for parts in zip(*shards, strict=True) for p in parts]
    assert torch.equal(torch.cat([torch.zeros(0, dtype=torch.int64), *seen]), torch.arange(count))


def test_trace_depends_on_the_order_but_not_on_how_it_was_cut() -> None:
    split = make_split(40)

    def total_trace(seed: int, batch: int, world: int) -> int:
        cuts = (batches(split, batch=batch, seed=seed, epoch=0, rank=rank, world=world) for rank in range(world))
        return sum(compute_trace(shard) for shards in cuts for shard in shards) % 2**64

    assert total_trace(0, 7, 1) == total_trace(0, 7, 3) == total_trace(0, 5, 2)
    assert total_trace(0, 7, 1) != total_trace(1, 7, 1)
    first, *others = batches(split, batch=7, seed=0, epoch=0)
    assert sum(map(compute_trace, others)) % 2**64 != total_trace(0, 7, 1)
    assert sum(map(compute_trace, (first, first, *others))) % 2**64 != total_trace(0, 7, 1)


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_rare_classes_are_oversampled(balance: float) -> None:
    labels_N = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)[permutation(1000, 3, 0)]
    first, second = (balanced_order(labels_N, 0, epoch, balance) for epoch in (0, 1))
    assert len(first) == 1000
    shares = torch.bincount(labels_N[first]) / 1000
    wanted = torch.tensor([900.0, 90.0, 10.0]) ** (1 - balance)
    assert shares.tolist() == pytest.approx((wanted / wanted.sum()).tolist(), abs=2e-3)
    for k in range(3):
        times = torch.bincount(first, minlength=1000)[labels_N == k]
        assert times.max() - times.min() <= 1
    assert not first.equal(second)
    assert first.equal(balanced_order(labels_N, 0, 0, balance))
    assert labels_N[first][:100].unique().numel() == 3


def test_prefetched_batches_are_the_same(monkeypatch) -> None:
    split = Split(
        torch.arange(100 * 12).view(100, 3, 2, 2).to(torch.uint8), torch.arange(100), tuple(map(str, range(100)))
    )
    plain = list(batches(split, batch=7, seed=0, epoch=3))
    before = threading.active_count()
    for min_bytes, decodes in ((0, False), (1 << 20, False), (1 << 20, True)):
        monkeypatch.setattr(loader, "MIN_PREFETCH_BYTES", min_bytes)
        for one, other in zip(prefetch(batches(split, batch=7, seed=0, epoch=3), decodes=decodes), plain, strict=True):
            assert one.images_NCHW.equal(other.images_NCHW)
            assert one.step == other.step
        some = prefetch(batches(split, batch=7, seed=0, epoch=3))
        next(some)
        del some
    assert threading.active_count() == before
    assert list(prefetch(iter(()))) == []


def test_error_in_the_prefetch_thread_is_raised(monkeypatch) -> None:
    monkeypatch.setattr(loader, "MIN_PREFETCH_BYTES", 0)
    split = Split(torch.zeros(20, 1, 2, 2, dtype=torch.uint8), torch.zeros(20, dtype=torch.int64), ("",) * 20)

    def broken():
        yield from list(batches(split, batch=7, seed=0, epoch=0))[:2]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(prefetch(broken()))


def test_strata_are_balanced_instead_of_labels():
    split = make_split(100)
    strata_N = (torch.arange(100) >= 10).long()  # ten of one, ninety of another
    steps = batches(split, batch=100, seed=0, epoch=0, balance=1.0, strata_N=strata_N)
    assert torch.bincount(strata_N[whole(list(steps))]).tolist() == [50, 50]
