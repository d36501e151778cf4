"""The examples that are kept of older images: bounded, and as many of each class."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from classifier.errors import ConfigError, list_few
from classifier.text import show

MIN_MEMORY, MIN_A_CLASS = 500, 20
MAX_HELD_OUT = 5000
"""Of the validation images, and of the test images, that are kept to judge later updates by."""


def choose_size(asked: int | None, old_names: Sequence[str], new_names: Sequence[str]) -> int:
    """Return how many training images are kept. asked: by the user; if None, 500, or 20 a class if that is more.

    ConfigError if not every class would have one, or, for 0, if there are new classes: from the weights alone, whatever
    holds them, a model learns to answer with new classes only (G. van de Ven and A. Tolias, "Three scenarios for
    continual learning", 2019).
    """
    classes, new_classes = {*old_names, *new_names}, sorted({*new_names} - {*old_names})
    if asked is None:
        return max(MIN_MEMORY, MIN_A_CLASS * len(classes))
    if asked == 0 and new_classes:
        raise ConfigError(
            f"--memory 0: new classes ({show(list_few(new_classes))}) cannot be learned without images of the older "
            "ones, which a model forgets if it has only its weights: allow at least one image a class"
        )
    if 0 < asked < len(classes):
        raise ConfigError(f"--memory {asked}: there are {len(classes)} classes: keep at least one image of each")
    return asked


def select_balanced(labels_N: Tensor, ids: Sequence[str], count: int) -> Tensor:
    """Return indices_M, int64 and ascending, of at most `count` images, as many of each class as there are.

    What a class lacks goes to the others. They are chosen by a hash of their names, at random as in A. Chaudhry et al.,
    "On tiny episodic memories in continual learning", 2019: those of a smaller count are among those of a larger one.
    Centres of k-means were worse (LOG.md).
    """
    hashes_N = np.array([hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids], "V8").view("<u8")
    labels = labels_N.numpy()
    order_N = np.lexsort((hashes_N, labels))
    sizes_K = np.bincount(labels)
    starts_K = np.cumsum(sizes_K) - sizes_K
    rank_N = np.empty(len(labels), np.int64)  # 0 for each class's first image
    rank_N[order_N] = np.arange(len(labels)) - starts_K[labels[order_N]]
    return torch.from_numpy(np.sort(np.lexsort((hashes_N, rank_N))[:count]))
