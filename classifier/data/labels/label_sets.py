"""Labels of N images as numbers: classes or, where an image has any number of labels, rows of a table of label sets.

Such a table, label_sets_MK, holds the M different sets that occur. So whatever moves labels (splits, subsets, batches,
caches) moves one integer per image for any task; who needs targets takes label_sets_MK[labels_N].
"""

from collections.abc import Sequence

import numpy as np

LabelSets = tuple[tuple[int, ...], ...]
"""The sorted indices of the classes of each set, perhaps none."""


def encode_label_sets(label_sets: LabelSets, classes: int) -> np.ndarray:
    """Return label_sets_MK, bool."""
    label_sets_MK = np.zeros((len(label_sets), classes), bool)
    for m, label_set in enumerate(label_sets):
        label_sets_MK[m, [*label_set]] = True
    return label_sets_MK


def pair_labels(labels_N: np.ndarray, label_sets_MK: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return image_P and class_P, int64: a pair for each label of each image, in the order of the images.

    label_sets_MK: None if labels_N are classes, one of each image.
    """
    if label_sets_MK is None:
        return np.arange(len(labels_N)), labels_N
    sizes_M = label_sets_MK.sum(1)
    starts_M = np.cumsum(sizes_M) - sizes_M
    sizes_N = sizes_M[labels_N]
    image_P = np.repeat(np.arange(len(labels_N)), sizes_N)
    within_P = np.arange(len(image_P)) - np.repeat(np.cumsum(sizes_N) - sizes_N, sizes_N)
    return image_P, np.nonzero(label_sets_MK)[1][starts_M[labels_N[image_P]] + within_P]


def count_labels(labels_N: np.ndarray, classes: int, label_sets_MK: np.ndarray | None = None) -> np.ndarray:
    """Return counts_K, int64: the images of each class. label_sets_MK: None if labels_N are classes."""
    if label_sets_MK is None:
        return np.bincount(labels_N, minlength=classes)
    return np.bincount(labels_N, minlength=len(label_sets_MK)) @ label_sets_MK.astype(np.int64)


def find_rarest(labels_N: np.ndarray, classes: int, label_sets_MK: np.ndarray | None = None) -> np.ndarray:
    """Return the rarest class of each image, int64; K for an image without a label. Of classes alike, the first."""
    if label_sets_MK is None:
        return labels_N
    order_K = np.argsort(count_labels(labels_N, classes, label_sets_MK), kind="stable")
    has_any_M = label_sets_MK.any(1)
    return np.where(has_any_M, order_K[label_sets_MK[:, order_K].argmax(1)], classes)[labels_N]


def list_classes(label: int, class_names: Sequence[str], label_sets_MK: np.ndarray | None) -> list[str]:
    """Return the names of the classes that a label, as a number, stands for."""
    numbers = [label] if label_sets_MK is None else np.flatnonzero(label_sets_MK[label]).tolist()
    return [class_names[k] for k in numbers]


def describe_label(label: int, class_names: Sequence[str], label_sets_MK: np.ndarray | None) -> str:
    """Name the classes that a label, as a number, stands for."""
    return " + ".join(list_classes(label, class_names, label_sets_MK)) or "no label"


def describe_label_sets(labels_N: np.ndarray, class_names: Sequence[str], label_sets: LabelSets, how: str) -> str:
    """Say how many labels images have. how: how they are written; "" if there is nothing to say about that."""
    sizes_N = np.array([len(label_set) for label_set in label_sets], np.int64)[labels_N]
    low, high = int(sizes_N.min()), int(sizes_N.max())
    count = (
        f"{low} of {len(class_names):,} labels each"
        if low == high
        else (f"{low} to {high} of {len(class_names):,} labels, {sizes_N.mean():.1f} on average")
    )
    return f"its images have {count}{how and ', '}{how}: multilabel (--data.task)."
