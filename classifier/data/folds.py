"""Cross-validation's folds: images of each class in their share, and what must stay together on one side."""

import warnings

import numpy as np

from classifier.errors import DataError


def fold_of(labels_N: np.ndarray, units_N: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """folds_N, int64: the fold of each image, by scikit-learn's StratifiedGroupKFold; images of a unit share theirs.

    DataError if there are fewer units than folds, or than two.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    units = len(np.unique(units_N))
    if folds < 2 or units < folds:
        raise DataError(f"data.folds {folds}: give a number from 2 to {units}, of pictures (or groups) that differ")
    found_N = np.empty(len(labels_N), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # of classes with fewer pictures than folds, which are told elsewhere
        warnings.simplefilter("ignore")
        for fold, (_, here) in enumerate(splitter.split(np.zeros(len(labels_N)), labels_N, units_N)):
            found_N[here] = fold
    return found_N
