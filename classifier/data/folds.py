"""Folds of a cross-validation: stratified by class, with images that belong together in one fold."""

import warnings

import numpy as np

from classifier.errors import DataError


def assign_folds(labels_N: np.ndarray, units_N: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each image, int64, by scikit-learn's StratifiedGroupKFold; images of a unit share one.

    DataError if there are fewer units than folds, or fewer than two folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    units = len(np.unique(units_N))
    if folds < 2 or units < folds:
        raise DataError(f"data.folds {folds}: give a number from 2 to {units}, the different images (or groups)")
    folds_N = np.empty(len(labels_N), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # about classes with fewer images than folds, which are reported elsewhere
        warnings.simplefilter("ignore")
        for fold, (_, test) in enumerate(splitter.split(np.zeros(len(labels_N)), labels_N, units_N)):
            folds_N[test] = fold
    return folds_N
