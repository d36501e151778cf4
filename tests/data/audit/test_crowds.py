"""Among thousands of images that resemble each other, time, memory and findings are bounded, and copies are found."""

import time

import numpy as np
import pytest
import torch
from PIL import Image

from classifier.data.audit import crowds, near_duplicates
from classifier.data.audit.crowds import Links, split_crowds


def resembling(count: int, noise: float) -> np.ndarray:
    """Thumbnails of one scene, each with noise of its own."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8))
    scene = np.asarray(coarse.resize((64, 64), Image.Resampling.BICUBIC)).astype(np.float32)
    thumbs_NHW = np.empty((count, 64, 64), np.uint8)
    for n in range(count):
        thumbs_NHW[n] = (scene + noise * rng.standard_normal((64, 64), np.float32)).clip(0, 255)
    return thumbs_NHW


@pytest.fixture
def small(monkeypatch) -> None:
    monkeypatch.setattr(crowds, "MIN_CROWD", 100)
    monkeypatch.setattr(crowds, "MAX_PART", 40)


@pytest.mark.usefixtures("small")
def test_images_that_are_all_alike_are_linked_by_few_pairs() -> None:
    thumbs_NHW = resembling(400, 3)
    pairs = near_duplicates.find_pairs(thumbs_NHW, np.full(400, 64))
    assert len(pairs) < 2 * 400
    links = Links(400)
    for pair in pairs:
        links.add(pair.first, pair.second)
    assert max(map(len, links.find_groups(range(400)))) > 390


@pytest.mark.usefixtures("small")
def test_copies_within_a_crowd_and_outside_of_it_are_found(monkeypatch) -> None:
    """Frames that differ in faint structure are a crowd, but no near duplicates."""
    monkeypatch.setattr(crowds, "MIN_CROWD_COSINE", 0.9)
    monkeypatch.setattr(crowds, "_HASH_BITS", 1)
    frames_NHW = resembling(300, 80)
    others_NHW = np.random.default_rng(1).integers(0, 256, (20, 8, 8), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    copied = np.r_[frames_NHW[:10], others_NHW[:10]]
    thumbs_NHW = np.r_[frames_NHW, others_NHW, (0.9 * copied).astype(np.uint8)]
    assert len(split_crowds(*near_duplicates._frequency_vectors(thumbs_NHW))) > 1
    found = {(pair.first, pair.second) for pair in near_duplicates.find_pairs(thumbs_NHW, np.full(340, 64))}
    assert found == {(n, 320 + n) for n in range(10)} | {(300 + n, 330 + n) for n in range(10)}


@pytest.mark.usefixtures("small")
def test_crowds_are_cut_into_parts() -> None:
    vectors_ND = torch.nn.functional.normalize(torch.randn(1000, 10, generator=torch.Generator().manual_seed(0)), dim=1)
    vectors_ND[:600] = torch.nn.functional.normalize(vectors_ND[0] + 0.01 * vectors_ND[:600], dim=1)
    apart_M, *parts = split_crowds(vectors_ND[:, :5], vectors_ND[:, 5:])
    assert 400 <= len(apart_M) < 500
    assert max(map(len, parts)) <= 40
    assert set(apart_M.tolist()) | {n for part_M in parts for n in part_M.tolist()} == set(range(1000))


def test_small_sets_are_compared_as_a_whole() -> None:
    vectors_ND = torch.ones(crowds.MIN_CROWD, 4)
    [everything_N] = split_crowds(vectors_ND, vectors_ND)
    assert everything_N.tolist() == list(range(crowds.MIN_CROWD))


def test_links() -> None:
    links = Links(7)
    for pair in ((1, 3), (5, 3), (0, 2)):
        links.add(*pair)
    assert sorted(links.find_groups([5, 1, 3, 0, 2, 6])) == [[0, 2], [1, 3, 5], [6]]
    assert not links.are_listed(1, 5)


@pytest.mark.slow
def test_a_hundred_thousand_images_that_are_all_alike() -> None:
    thumbs_NHW = resembling(100_000, 3)
    began = time.monotonic()
    pairs = near_duplicates.find_pairs(thumbs_NHW, np.full(len(thumbs_NHW), 64))
    print(f"{len(pairs):,} pairs, {time.monotonic() - began:.1f} s")
    assert len(pairs) < 2 * len(thumbs_NHW)
    assert time.monotonic() - began < 250
