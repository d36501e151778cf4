"""Tables of label sets: as many images, pairs and counts as a loop finds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.data.labels.label_sets import (
    count_labels,
    describe_label,
    describe_label_sets,
    encode_label_sets,
    find_rarest,
    pair_labels,
)

LABEL_SETS = ((), (0,), (0, 2), (1, 2))
NAMES = ("cat", "dog", "owl")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=4, unique=True).map(lambda one: tuple(sorted(one))), max_size=30))
def test_pairs_and_counts_are_those_of_a_loop(images: list[tuple[int, ...]]) -> None:
    label_sets = tuple(sorted(set(images)))
    label_sets_MK = encode_label_sets(label_sets, 5)
    labels_N = np.array([label_sets.index(one) for one in images], np.int64)
    pairs = [(n, k) for n, one in enumerate(images) for k in one]
    assert list(zip(*(part.tolist() for part in pair_labels(labels_N, label_sets_MK)), strict=True)) == pairs
    counts = [sum(k in one for one in images) for k in range(5)]
    assert count_labels(labels_N, 5, label_sets_MK).tolist() == counts
    rarest = [min(one, key=lambda k: (counts[k], k), default=5) for one in images]
    assert find_rarest(labels_N, 5, label_sets_MK).tolist() == rarest


def test_one_class_an_image() -> None:
    labels_N = np.array([2, 0, 2])
    assert [part.tolist() for part in pair_labels(labels_N)] == [[0, 1, 2], [2, 0, 2]]
    assert count_labels(labels_N, 4).tolist() == [1, 0, 2, 0]
    assert find_rarest(labels_N, 4).tolist() == [2, 0, 2]
    assert describe_label(2, NAMES, None) == "owl"


def test_words() -> None:
    label_sets_MK = encode_label_sets(LABEL_SETS, 3)
    assert [describe_label(m, NAMES, label_sets_MK) for m in range(4)] == ["no label", "cat", "cat + owl", "dog + owl"]
    assert describe_label_sets(np.array([0, 3, 3]), NAMES, LABEL_SETS, "in lists") == (
        "its images have 0 to 2 of 3 labels, 1.3 on average, in lists: multilabel (--data.task)."
    )
    assert describe_label_sets(np.array([1, 1]), NAMES, LABEL_SETS, "") == (
        "its images have 1 of 3 labels each: multilabel (--data.task)."
    )
