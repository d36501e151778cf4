"""Scores of nested classes at each level above the leaves, with their 95 % intervals, as metrics.scores has them."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from classifier.metrics.bootstrap import (
    average,
    divide,
    draw_weights,
    percentile_interval,
    sum_by_class,
    to_json_interval,
    widen,
)
from classifier.metrics.hierarchy import Hierarchy
from classifier.metrics.intervals import f1_interval, sum_interval, wilson


def compute_level_scores(
    probabilities_NK: ArrayLike, labels_N: ArrayLike, hierarchy: Hierarchy, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Return plain data for JSON, the outermost level first: depth, classes, accuracy, macro_f1 and intervals.

    What is predicted at a level is the class with the largest sum of probabilities, which may not hold the most likely
    leaf.
    """
    labels_N, levels = np.asarray(labels_N), []
    for level in hierarchy.levels:
        predicted_N, of_label_N = level.sum_up(probabilities_NK).argmax(1), level.of_leaf_K[labels_N]
        accuracy, f1, intervals = _score(predicted_N, of_label_N, len(level.names), seed)
        row = {"depth": level.depth, "classes": len(level.names), "accuracy": accuracy, "macro_f1": f1}
        levels.append(row | {"intervals": intervals})
    return levels


def _score(
    predicted_N: np.ndarray, labels_N: np.ndarray, classes: int, seed: int
) -> tuple[float, float, dict[str, list[float] | None]]:
    """Return accuracy, macro F1, and the intervals of both."""

    def compute_f1(weights_BN: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """F1_BK of each class, and the images of it and predicted as it."""
        support_BK, predicted_BK = (sum_by_class(weights_BN, of_N, classes) for of_N in (labels_N, predicted_N))
        hits_BK = sum_by_class(weights_BN * is_hit_N, labels_N, classes)
        return divide(2 * hits_BK, support_BK + predicted_BK), support_BK, predicted_BK

    is_hit_N, count = predicted_N == labels_N, len(labels_N)
    f1_BK, *sums = compute_f1(np.ones((1, count)))
    support_K, predicted_K = (sums_BK[0].astype(int) for sums_BK in sums)
    hits_K = np.bincount(labels_N[is_hit_N], minlength=classes)
    occurs_K = support_K + predicted_K > 0
    counts_K = zip(hits_K.tolist(), support_K.tolist(), predicted_K.tolist(), strict=True)
    shares_K = (occurs_K / occurs_K.sum()).tolist()
    by_class = sum_interval(f1_BK[0].tolist(), [f1_interval(*one) for one in counts_K], shares_K)
    samples = []
    for _, weights_BN in draw_weights(count, seed):
        sample_BK, support_BK, predicted_BK = compute_f1(weights_BN)
        samples.append(average(sample_BK, support_BK + predicted_BK > 0))
    intervals = {
        "accuracy": to_json_interval(np.array(wilson(int(is_hit_N.sum()), count))),
        "macro_f1": to_json_interval(widen(percentile_interval(np.concatenate(samples)), by_class)),
    }
    return float(is_hit_N.mean()), float(average(f1_BK, occurs_K[None])[0]), intervals
