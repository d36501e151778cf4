"""Splits of images with several labels: each label in each split, as few images moved as for one class."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.data.folds import assign_folds
from classifier.data.labels.label_sets import count_labels, encode_label_sets
from classifier.data.split import DrawnSplits, SplitInput, draw_splits
from classifier.data.split_names import SPLITS, TEST, TRAIN, UNASSIGNED, VALIDATION
from classifier.errors import DataError
from tests.data.test_split import find_drawn_splits, make_input, texts

Item = tuple[int, tuple[int, ...]]
"""Content and labels."""
CLASSES = 4


def make_multilabel(images: Sequence[Item], **more: object) -> SplitInput:
    import dataclasses

    label_sets = tuple(sorted({labels for _, labels in images}))
    plain = make_input([(content, label_sets.index(labels)) for content, labels in images])
    names = [f"class{k}" for k in range(CLASSES)]
    sets_MK = encode_label_sets(label_sets, CLASSES)
    return dataclasses.replace(plain, class_names=names, label_sets_MK=sets_MK, **more)


def draw(images: Sequence[Item], **more: object) -> DrawnSplits:
    return draw_splits(make_multilabel(images, **more), validation=0.1, test=0.2, seed=0)


def count(result: DrawnSplits, images: Sequence[Item]) -> np.ndarray:
    """Images of each label in each split, 3 x K."""
    counts = np.zeros((3, CLASSES), int)
    for split, (_, labels) in zip(result.splits_N, images, strict=True):
        counts[split, list(labels)] += 1
    return counts


@st.composite
def collections(draw: st.DrawFn) -> list[Item]:
    """Each label alone on three images at least, and images with any labels, some copied."""
    contents = iter(draw(st.lists(st.integers(0, 10**6), min_size=60, max_size=60, unique=True)))
    images: list[Item] = [(next(contents), (k,)) for k in range(CLASSES) for _ in range(3)]
    several = st.lists(st.integers(0, CLASSES - 1), max_size=3, unique=True).map(lambda one: tuple(sorted(one)))
    images += [(next(contents), labels) for labels in draw(st.lists(several, max_size=40))]
    return draw(st.permutations(images + draw(st.lists(st.sampled_from(images), max_size=6))))


@settings(max_examples=60, deadline=None)
@given(collections())
def test_each_label_is_in_each_split_and_copies_stay_together(images: list[Item]) -> None:
    result = draw(images)
    assert (count(result, images) > 0).all()
    split_of: dict[int, int] = {}
    for (content, _), split in zip(images, result.splits_N.tolist(), strict=True):
        assert split_of.setdefault(content, split) == split
    drawn = find_drawn_splits(result)
    lacking = {(k, s) for k in range(CLASSES) for s in range(3)}
    lacking -= {(k, s) for s, (_, labels) in zip(drawn, images, strict=True) for k in labels}
    assert len({images[int(moved.id[:-4])][0] for moved in result.reassignments}) <= 2 * len(lacking)


@settings(max_examples=60, deadline=None)
@given(collections(), st.data())
def test_adding_images_moves_no_other_except_by_reassignment(images: list[Item], data: st.DataObject) -> None:
    chosen = [n for n in range(len(images)) if data.draw(st.booleans())]
    fewer = [images[n] for n in chosen]
    try:
        before = draw(fewer)
    except (DataError, ValueError):  # too few are left
        return
    assert [find_drawn_splits(draw(images))[n] for n in chosen] == find_drawn_splits(before)


def test_shares_of_each_label_hold_in_expectation() -> None:
    rng = np.random.default_rng(0)
    images = [(n, tuple(np.flatnonzero(rng.random(CLASSES) < (0.5, 0.2, 0.1, 0.03)).tolist())) for n in range(20_000)]
    result = draw(images)
    counts = count(result, images)
    np.testing.assert_allclose(counts / counts.sum(0), [[0.7] * 4, [0.1] * 4, [0.2] * 4], atol=0.05)
    assert not result.reassignments


def test_findings_of_rare_and_contradicting_labels() -> None:
    images: list[Item] = [(n, (0, 1) if n % 2 else (1, 2)) for n in range(80)]
    result = draw([*images, (80, (0, 3))])
    assert result.splits_N[-1] == TRAIN
    assert "The class 'class3' has only one image, which trains: it is not tested." in texts(result)
    images += [(100, (0, 3)), (101, (0, 3)), (102, (0, 3))]
    assert sorted(draw(images).splits_N[-3:].tolist()) == [TRAIN, VALIDATION, TEST]
    copies = [*images, (5, (2,))]
    assert draw(copies).splits_N[-1] == draw(copies).splits_N[5]
    assert texts(draw(copies))[0] == (
        "1 images have copies with other labels, byte for byte; one pair is 5.png (class0 + class1) and 83.png "
        "(class2)."
    )


@pytest.mark.parametrize(
    ("split", "reason"),
    [(TEST, "the class 'class3' has no training image: add some, or remove it"), (UNASSIGNED, None)],
)
def test_a_class_seen_only_in_test(split: int, reason: str | None) -> None:
    images: list[Item] = [(n, (n % 3,)) for n in range(60)]
    images += [(60, (0, 3)), (61, (3,)), (62, (1, 3))]
    supplied_N = np.array([(TRAIN, TRAIN, TRAIN, VALIDATION, TEST)[n % 5] for n in range(60)] + [split] * 3, np.int8)
    if reason is None:
        assert draw(images, supplied_N=supplied_N).splits_N[-1] in range(len(SPLITS))
        return
    with pytest.raises(DataError, match=reason):
        draw(images, supplied_N=supplied_N)


@pytest.mark.parametrize("folds", [2, 5])
def test_folds_have_their_shares_of_every_label(folds: int) -> None:
    rng = np.random.default_rng(1)
    labels_NK = rng.random((600, 6)) < (0.6, 0.3, 0.2, 0.1, 0.05, 0.02)
    label_sets_MK, labels_N = np.unique(labels_NK, axis=0, return_inverse=True)
    units_N = np.concatenate([np.arange(500), np.repeat(np.arange(500, 520), 5)])
    folds_N = assign_folds(labels_N, units_N, folds, 0, label_sets_MK)
    for unit in range(520):
        assert len(set(folds_N[units_N == unit].tolist())) == 1
    sizes = np.bincount(folds_N, minlength=folds)
    assert sizes.max() - sizes.min() <= 10
    counts_FK = np.stack([count_labels(labels_N[folds_N == fold], 6, label_sets_MK) for fold in range(folds)])
    assert (np.abs(counts_FK - labels_NK.sum(0) / folds) <= np.maximum(2, 0.05 * labels_NK.sum(0) / folds)).all()
    assert (folds_N == assign_folds(labels_N, units_N, folds, 0, label_sets_MK)).all()
    assert (folds_N != assign_folds(labels_N, units_N, folds, 1, label_sets_MK)).any()
