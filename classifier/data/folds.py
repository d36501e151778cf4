"""Folds of a cross-validation: stratified by class, with images that belong together in one fold."""

import warnings

import numpy as np

from classifier.data.labels.label_sets import pair_labels
from classifier.errors import DataError


def assign_folds(
    labels_N: np.ndarray, units_N: np.ndarray, folds: int, seed: int, label_sets_MK: np.ndarray | None = None
) -> np.ndarray:
    """Return the fold of each image, int64, by scikit-learn's StratifiedGroupKFold; images of a unit share one.

    label_sets_MK: where an image has several labels, see label_sets.py; then by iterative stratification. DataError
    if there are fewer units than folds, or fewer than two folds.
    """
    units = len(np.unique(units_N))
    if folds < 2 or units < folds:
        raise DataError(f"data.folds {folds}: give a number from 2 to {units}, the different images (or groups)")
    if label_sets_MK is not None:
        return _stratify_iteratively(labels_N, units_N, folds, seed, label_sets_MK)
    from sklearn.model_selection import StratifiedGroupKFold

    folds_N = np.empty(len(labels_N), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # about classes with fewer images than folds, which are reported elsewhere
        warnings.simplefilter("ignore")
        for fold, (_, test) in enumerate(splitter.split(np.zeros(len(labels_N)), labels_N, units_N)):
            folds_N[test] = fold
    return folds_N


def _stratify_iteratively(
    labels_N: np.ndarray, units_N: np.ndarray, folds: int, seed: int, label_sets_MK: np.ndarray
) -> np.ndarray:
    """Return the fold of each image, so that each fold has its share of every label, the rarest above all.

    K. Sechidis, G. Tsoumakas, I. Vlahavas, "On the stratification of multi-label data", 2011; of units instead of
    images, the largest first. Its step for images without labels makes the folds equally large.
    """
    from scipy.sparse import coo_array

    unit_N = np.unique(units_N, return_inverse=True)[1]
    sizes_U = np.bincount(unit_N)
    image_P, class_P = pair_labels(labels_N, label_sets_MK)
    shape = (len(sizes_U), label_sets_MK.shape[1])
    counts_UK = coo_array((np.ones(len(image_P), np.int64), (unit_N[image_P], class_P)), shape=shape).tocsr()
    members_KU = counts_UK.tocsc()
    wanted_KF = np.repeat(counts_UK.sum(0)[:, None] / folds, folds, axis=1)
    wanted_F = np.full(folds, len(labels_N) / folds)
    fold_U = np.full(len(sizes_U), -1)
    left_K = np.diff(members_KU.indptr)
    order_U = np.random.default_rng(seed).permutation(len(sizes_U))
    rank_U = np.empty(len(order_U), np.int64)
    rank_U[order_U[np.argsort(-sizes_U[order_U], kind="stable")]] = np.arange(len(order_U))

    def assign(units_V: np.ndarray, k: int | None) -> None:
        for unit in units_V[np.argsort(rank_U[units_V])].tolist():
            lacks_F = wanted_F if k is None else wanted_KF[k]
            best = np.flatnonzero(lacks_F == lacks_F.max())
            fold = int(best[wanted_F[best].argmax()])
            fold_U[unit] = fold
            own = slice(counts_UK.indptr[unit], counts_UK.indptr[unit + 1])
            classes, counts = counts_UK.indices[own], counts_UK.data[own]
            wanted_KF[classes, fold] -= counts
            wanted_F[fold] -= sizes_U[unit]
            left_K[classes] -= 1

    while left_K.any():
        k = int(np.where(left_K > 0, left_K, len(sizes_U) + 1).argmin())
        members_U = members_KU.indices[members_KU.indptr[k] : members_KU.indptr[k + 1]]
        assign(members_U[fold_U[members_U] < 0], k)
    assign(np.flatnonzero(fold_U < 0), None)
    return fold_U[unit_N]
