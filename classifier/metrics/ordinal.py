"""Scores of ordered grades, which count how far predictions are from labels: 0 for a hit, 1 for a neighbouring grade.

quadratic_kappa is Cohen's weighted kappa with squared distances (J. Cohen, "Weighted kappa", 1968): 1 less the mean
squared distance as a share of that by chance, at the same numbers of labels and predictions of each grade. It is 1 for
hits alone, and 0 for a model that always says the same. mean_absolute_error is the mean distance, in grades.
"""

import math

import numpy as np

from classifier.metrics.bootstrap import Scores, divide
from classifier.metrics.intervals import Interval, sum_interval, wilson


def compute_ordinal_scores(labels_N: np.ndarray, predicted_N: np.ndarray, weights_BN: np.ndarray) -> Scores:
    """Compute both scores of B samples, in which image n counts weights_BN[:, n] times. kappa is NaN for one grade."""
    distance_N = np.abs(labels_N - predicted_N)
    columns_N6 = [distance_N, distance_N**2, labels_N, labels_N**2, predicted_N, predicted_N**2]
    means_B6 = weights_BN @ np.stack(columns_N6, 1).astype(np.float64) / weights_BN.sum(1, keepdims=True)
    error_B, squared_B, label_B, label_squared_B, predicted_B, predicted_squared_B = means_B6.T
    by_chance_B = label_squared_B + predicted_squared_B - 2 * label_B * predicted_B
    return {"quadratic_kappa": 1 - divide(squared_B, by_chance_B, math.nan), "mean_absolute_error": error_B}


def count_ordinal_scores(confusion_KK: np.ndarray) -> dict[str, float | None]:
    """Return both scores of a confusion matrix; None for a kappa of images of one grade."""
    labels_KK, predicted_KK = np.indices(confusion_KK.shape)
    weights_BN = confusion_KK.reshape(1, -1).astype(np.float64)
    scores = compute_ordinal_scores(labels_KK.ravel(), predicted_KK.ravel(), weights_BN)
    return {name: None if math.isnan(value_B[0]) else float(value_B[0]) for name, value_B in scores.items()}


def ordinal_intervals(confusion_KK: np.ndarray) -> dict[str, Interval]:
    """Return the intervals that follow from Wilson's of the shares of images at least 1, 2, ... grades off.

    A distance is the sum of these shares, a squared one the sum of 1, 3, 5, ... times them.
    """
    labels_KK, predicted_KK = np.indices(confusion_KK.shape)
    distance_KK, count = np.abs(labels_KK - predicted_KK), int(confusion_KK.sum())
    distances = range(1, len(confusion_KK))
    off = [int(confusion_KK[distance_KK >= distance].sum()) for distance in distances]
    shares, ends = [images / count for images in off], [wilson(images, count) for images in off]
    low, high = sum_interval(shares, ends, [1.0 for _ in distances])
    intervals = {"mean_absolute_error": (max(0.0, low), min(high, float(len(distances))))}
    by_chance_KK = np.outer(confusion_KK.sum(1), confusion_KK.sum(0)) / count**2
    if (by_chance := float((by_chance_KK * distance_KK**2).sum())) > 0:
        low, high = sum_interval(shares, ends, [2.0 * distance - 1 for distance in distances])
        intervals["quadratic_kappa"] = max(-1.0, 1 - high / by_chance), min(1.0, 1 - low / by_chance)
    return intervals
