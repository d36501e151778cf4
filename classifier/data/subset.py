"""Subsets of the training images, with all classes: a smaller subset is always part of a larger one."""

import dataclasses
import hashlib

import numpy as np
import torch

from classifier.data.dataset import Dataset, Split
from classifier.data.images.arrays import select
from classifier.data.readers.compact import select_strings
from classifier.errors import DataError


def limit_training_images(dataset: Dataset, count: int, seed: int) -> Dataset:
    """Return the data set with `count` of its training images: stratified by class, no class left out.

    They are chosen by a hash of their names: the images of a smaller count are among those of a larger one.
    DataError if there are fewer images than that, or more classes.
    """
    train, classes = dataset.train, len(dataset.class_names)
    if not classes <= count <= len(train):
        raise DataError(
            f"data.limit {count}: {dataset.name} has {len(train):,} training images of {classes} classes; "
            f"give a number from {classes} to {len(train)}"
        )
    key = str(seed).encode()
    hashes = (hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in train.ids)
    hashes_N = np.frombuffer(b"".join(hashes), "<u8")
    labels_N = train.labels_N.numpy()
    by_class = np.lexsort((hashes_N, labels_N))
    sizes_K = np.bincount(labels_N, minlength=classes)
    starts_K = np.cumsum(sizes_K) - sizes_K
    rank_N = np.empty(len(train))  # 0 for each class's first image, near 1 for its last
    rank_N[by_class] = (np.arange(len(train)) - starts_K[labels_N[by_class]]) / sizes_K[labels_N[by_class]]
    chosen = np.sort(np.lexsort((hashes_N, rank_N))[:count])
    index = torch.from_numpy(chosen)
    split = Split(select(train.images_NCHW, index), train.labels_N[index], select_strings(train.ids, chosen.tolist()))
    fingerprint = hashlib.blake2b(f"{dataset.fingerprint} {count} {seed}".encode(), digest_size=8).hexdigest()
    finding = f"{dataset.name} trains on {count:,} of its {len(train):,} training images (data.limit)."
    return dataclasses.replace(dataset, train=split, fingerprint=fingerprint, findings=(*dataset.findings, finding))
