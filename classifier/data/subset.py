"""Subsets of the training images, with all classes: a smaller subset is always part of a larger one."""

import dataclasses
import hashlib

import numpy as np
import torch

from classifier.data.dataset import Dataset
from classifier.data.labels.label_sets import count_labels, find_rarest
from classifier.errors import DataError


def limit_training_images(dataset: Dataset, count: int, seed: int) -> Dataset:
    """Return the data set with `count` of its training images: stratified by class, no class left out.

    They are chosen by a hash of their names: the images of a smaller count are among those of a larger one. Where
    images have several labels, they are stratified by the rarest one of each, and the first ones have every label.
    DataError if there are fewer images than that, or more classes.
    """
    train, classes = dataset.train, len(dataset.class_names)
    label_sets_MK = None if dataset.label_sets_MK is None else dataset.label_sets_MK.numpy()
    if not classes <= count <= len(train):
        raise DataError(
            f"data.limit {count}: {dataset.name} has {len(train):,} training images of {classes} classes; "
            f"give a number from {classes} to {len(train)}"
        )
    key = str(seed).encode()
    hashes = (hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in train.ids)
    hashes_N = np.frombuffer(b"".join(hashes), "<u8")
    labels_N = find_rarest(train.labels_N.numpy(), classes, label_sets_MK)
    by_class = np.lexsort((hashes_N, labels_N))
    sizes_K = np.bincount(labels_N, minlength=classes)
    starts_K = np.cumsum(sizes_K) - sizes_K
    rank_N = np.empty(len(train))  # 0 for each class's first image, near 1 for its last
    rank_N[by_class] = (np.arange(len(train)) - starts_K[labels_N[by_class]]) / sizes_K[labels_N[by_class]]
    if label_sets_MK is not None:
        rank_N[_cover_labels(train.labels_N.numpy(), hashes_N, label_sets_MK)] = -1
    chosen = np.sort(np.lexsort((hashes_N, rank_N))[:count])
    index = torch.from_numpy(chosen)
    fingerprint = hashlib.blake2b(f"{dataset.fingerprint} {count} {seed}".encode(), digest_size=8).hexdigest()
    finding = f"{dataset.name} trains on {count:,} of its {len(train):,} training images (data.limit)."
    return dataclasses.replace(
        dataset, train=train.take(index), fingerprint=fingerprint, findings=(*dataset.findings, finding)
    )


def _cover_labels(labels_N: np.ndarray, hashes_N: np.ndarray, label_sets_MK: np.ndarray) -> list[int]:
    """Return images that have every label, at most one for each: by hash, the rarest labels first."""
    classes = label_sets_MK.shape[1]
    by_hash = np.argsort(hashes_N, kind="stable")
    has_K, chosen = np.zeros(classes, bool), []
    for k in np.argsort(count_labels(labels_N, classes, label_sets_MK), kind="stable").tolist():
        if not has_K[k]:
            chosen += by_hash[label_sets_MK[labels_N[by_hash], k]][:1].tolist()
            has_K |= label_sets_MK[labels_N[chosen[-1:]]].any(0)
    return chosen
