"""Scores of a set of predictions, each with its 95 % confidence interval.

Proportions have Wilson's interval (metrics.intervals): accuracy, top5, and the precision, recall and F1 of a class. The
others have percentiles of a seeded bootstrap (metrics.bootstrap).

A bootstrap does not see that a class without errors may have some on other images. Means over classes, kappa and MCC
therefore have the wider of two intervals at each end: the bootstrap's, and the one that follows from Wilson's. In
simulations of 2 to 20 classes of 3 to 200 images, the bootstrap's alone held the true macro F1 in as few as 66 % of
cases, and the true balanced accuracy in 44 %; the wider of the two held either in 94 % or more. So has ROC AUC, by
Newcombe's.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from classifier.errors import DataError
from classifier.metrics.bootstrap import (
    CLASS_PREFIX,
    MAX_WEIGHTS,
    MIN_BOOTSTRAP_IMAGES,
    Scores,
    auroc_intervals,
    average,
    compute_ranking_scores,
    count_ranking_samples,
    divide,
    draw_weights,
    percentile_interval,
    sum_by_class,
    to_json_interval,
    to_json_number,
    widen,
)
from classifier.metrics.intervals import CONFIDENCE_LEVEL, UNKNOWN, Interval, f1_interval, sum_interval, wilson
from classifier.metrics.ordinal import compute_ordinal_scores, ordinal_intervals

TOP_K, BINS = 5, 15
# Sets of labels that are drawn for the calibration error by chance.
CHANCE_SAMPLES = 400
# Scores that are proportions of images: their intervals are Wilson's.
PROPORTIONS = ("accuracy", "weighted_recall", "top5")
# Probabilities are clipped before the logarithm, as in scikit-learn.
_EPSILON = float(np.finfo(np.float64).eps)


def compute_scores(
    probabilities_NK: Tensor,
    labels_N: Tensor,
    class_names: Sequence[str] | None = None,
    *,
    is_ordinal: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Return plain data for JSON: scores, `intervals` {name: [low, high]}, per_class [the same by class] and confusion.

    Overall: accuracy, balanced_accuracy, top5, macro_ and weighted_ precision, recall and f1, roc_auc and
    average_precision (one-vs-rest, mean over classes), kappa (Cohen 1960), mcc (Matthews; Gorodkin 2004), loss (-log p
    of the label, in nats), brier (Brier 1950, summed over classes, 0 to 2), ece (expected calibration error, 15 bins of
    equal width; Guo et al. 2017), ece_by_chance, confidence (mean probability of the predicted class) and count; if
    is_ordinal, also quadratic_kappa and mean_absolute_error, of classes in their order (metrics.ordinal). Per class:
    precision, recall, f1, roc_auc, average_precision and support. Definitions are scikit-learn's with
    zero_division=0: macro means are over classes that occur as a label or as a prediction. Undefined scores (such as
    roc_auc of a class without images) are None, and so are the intervals of scores on which all bootstrap samples
    agree, other than proportions, and of loss, brier and ece without errors, with nothing else, or of fewer than 8
    images: that does not make them certain.

    ece_by_chance: a model with these confidences has an ece up to this on 95 % of sets of as many images even if it is
    perfectly calibrated. probabilities_NK: float, rows sum to 1. labels_N: -1 is padding and is not counted. DataError
    without images.
    """
    probabilities, labels = np.asarray(probabilities_NK, np.float64), np.asarray(labels_N)
    probabilities, labels = probabilities[labels >= 0], labels[labels >= 0]
    count, classes = probabilities.shape
    if count == 0:
        raise DataError("no images to score: the split is empty; increase data.validation or data.test")
    scores = _sum_scores(probabilities, labels, np.ones((1, count)))
    targets = labels[:, None] == np.arange(classes)
    scores |= compute_ranking_scores(probabilities, targets, np.ones((1, count)))
    predicted = probabilities.argmax(1)
    if is_ordinal:
        scores |= compute_ordinal_scores(labels, predicted, np.ones((1, count)))
    confusion_KK = np.zeros((classes, classes), np.int64)
    np.add.at(confusion_KK, (labels, predicted), 1)
    of_proportions, of_classes = _proportion_intervals(scores, confusion_KK)
    of_proportions |= ordinal_intervals(confusion_KK) if is_ordinal else {}
    samples: dict[str, list[np.ndarray]] = {}
    ranking_samples = count_ranking_samples(count, classes)
    for done, weights_BN in draw_weights(count, seed):
        block = _sum_scores(probabilities, labels, weights_BN)
        if done < ranking_samples:
            block |= compute_ranking_scores(probabilities, targets, weights_BN[: ranking_samples - done])
        if is_ordinal:
            block |= compute_ordinal_scores(labels, predicted, weights_BN)
        for name, values in block.items():
            if name.removeprefix(CLASS_PREFIX) not in of_classes:
                samples.setdefault(name, []).append(values)
    intervals = {name: percentile_interval(np.concatenate(values)) for name, values in samples.items()}
    for name, ends in of_proportions.items():
        is_mean = name not in PROPORTIONS
        intervals[name] = widen(intervals[name], ends) if is_mean else np.array(ends)
    for name, ends in auroc_intervals(scores[CLASS_PREFIX + "roc_auc"][0], confusion_KK.sum(1), count).items():
        intervals[name] = widen(intervals.get(name, np.full_like(ends, math.nan)), ends)
    # Images that all end alike have no others to sample, and few images too few.
    if confusion_KK.trace() in (0, count) or count < MIN_BOOTSTRAP_IMAGES:
        intervals |= dict.fromkeys(("loss", "brier", "ece"), np.full(2, math.nan))
    class_scores = {name.removeprefix(CLASS_PREFIX): name for name in scores if name.startswith(CLASS_PREFIX)}
    per_class = []
    for k in range(classes):
        row: dict[str, Any] = {"name": class_names[k]} if class_names is not None else {}
        row |= {name: to_json_number(scores[key][0, k]) for name, key in class_scores.items()}
        row["support"] = int(confusion_KK[k].sum())
        bootstrapped = {name: intervals[key][:, k] for name, key in class_scores.items() if key in intervals}
        known = {name: np.array(math.nan if ends_K[k] == UNKNOWN else ends_K[k]) for name, ends_K in of_classes.items()}
        row["intervals"] = {name: to_json_interval(ends) for name, ends in (known | bootstrapped).items()}
        per_class.append(row)
    scalars = {name: to_json_number(values[0]) for name, values in scores.items() if not name.startswith(CLASS_PREFIX)}
    return {
        **scalars,
        "ece_by_chance": _ece_by_chance(probabilities.max(1), seed),
        "confidence": float(probabilities.max(1).mean()),
        "count": count,
        "intervals": {name: to_json_interval(intervals[name]) for name in scalars if name in intervals},
        "per_class": per_class,
        "confusion": confusion_KK.tolist(),
    }


def _proportion_intervals(
    scores: Scores, confusion_KK: np.ndarray
) -> tuple[dict[str, Interval], dict[str, list[Interval]]]:
    """Return the intervals that follow from Wilson's, overall and per class.

    Means are sums of independent scores of classes; kappa and mcc are linear in the accuracy, for given numbers of
    labels and predictions of each class. A class that is never predicted may have any precision.
    """
    hits_K, support_K, predicted_K = confusion_KK.diagonal(), confusion_KK.sum(1), confusion_KK.sum(0)
    counts_K = list(zip(hits_K.tolist(), support_K.tolist(), predicted_K.tolist(), strict=True))
    count, occurs_K = int(confusion_KK.sum()), (support_K + predicted_K) > 0
    of_classes = {
        "precision": [wilson(hits, predicted) for hits, _, predicted in counts_K],
        "recall": [wilson(hits, support) for hits, support, _ in counts_K],
        "f1": [f1_interval(*counts) for counts in counts_K],
    }

    def mean(name: str, weights_K: np.ndarray) -> Interval:
        values_K = scores[CLASS_PREFIX + name][0].tolist()
        return sum_interval(values_K, of_classes[name], (weights_K / weights_K.sum()).tolist())

    accuracy = wilson(int(hits_K.sum()), count)
    overall = {"accuracy": accuracy, "weighted_recall": accuracy}
    if len(confusion_KK) > TOP_K:  # of fewer classes all are among the top 5
        overall["top5"] = wilson(round(float(scores["top5"][0]) * count), count)
    overall["balanced_accuracy"] = mean("recall", support_K > 0)
    for name in of_classes:
        overall[f"macro_{name}"] = mean(name, occurs_K)
    for name in ("precision", "f1"):
        overall[f"weighted_{name}"] = mean(name, support_K)
    for name in ("kappa", "mcc"):
        chance, scale = _agreement(support_K[None].astype(float), predicted_K[None].astype(float), count)[name]
        if scale[0] > 0:
            low, high = ((end - float(chance[0])) / float(scale[0]) for end in accuracy)
            overall[name] = max(-1.0, low), min(1.0, high)
    return overall, of_classes


def _ece_by_chance(confidence_N: np.ndarray, seed: int) -> float:
    """Return the 95th percentile of the ece of a calibrated model: each image is a hit with its confidence."""
    rng, count = np.random.default_rng(seed), len(confidence_N)
    bins_N, size, errors = _calibration_bins(confidence_N), max(1, MAX_WEIGHTS // count), []
    for done in range(0, CHANCE_SAMPLES, size):
        hits_BN = rng.random((min(size, CHANCE_SAMPLES - done), count)) < confidence_N
        errors.append(np.abs(sum_by_class(confidence_N - hits_BN, bins_N, BINS)).sum(1) / count)
    return float(np.quantile(np.concatenate(errors), CONFIDENCE_LEVEL))


def _sum_scores(probabilities_NK: np.ndarray, labels_N: np.ndarray, weights_BN: np.ndarray) -> Scores:
    """Compute the scores that follow from sums over the images."""
    count, classes = probabilities_NK.shape
    rows_N = np.arange(count)
    predicted_N, of_label_N = probabilities_NK.argmax(1), probabilities_NK[rows_N, labels_N]
    hit_N = predicted_N == labels_N
    lower_NK = np.arange(classes) < labels_N[:, None]
    ahead_NK = (probabilities_NK > of_label_N[:, None]) | ((probabilities_NK == of_label_N[:, None]) & lower_NK)
    confidence_N = probabilities_NK[rows_N, predicted_N]
    brier_N = (probabilities_NK**2).sum(1) - 2 * of_label_N + 1
    means_B3 = weights_BN @ np.stack([ahead_NK.sum(1) < TOP_K, -np.log(of_label_N.clip(_EPSILON)), brier_N], 1) / count
    gaps_BM = sum_by_class(weights_BN * (confidence_N - hit_N), _calibration_bins(confidence_N), BINS)
    support_BK, predicted_BK = (sum_by_class(weights_BN, of_N, classes) for of_N in (labels_N, predicted_N))
    hits_BK = sum_by_class(weights_BN * hit_N, labels_N, classes)
    per_class = {
        "precision": divide(hits_BK, predicted_BK),
        "recall": divide(hits_BK, support_BK),
        "f1": divide(2 * hits_BK, support_BK + predicted_BK),
    }
    occurs_BK, accuracy_B = support_BK + predicted_BK > 0, hits_BK.sum(1) / count
    agreement = _agreement(support_BK, predicted_BK, count)
    return {
        "accuracy": accuracy_B,
        "balanced_accuracy": average(per_class["recall"], support_BK > 0),
        "top5": means_B3[:, 0],
        **{f"macro_{name}": average(values, occurs_BK) for name, values in per_class.items()},
        **{f"weighted_{name}": (values * support_BK).sum(1) / count for name, values in per_class.items()},
        "kappa": divide(accuracy_B - agreement["kappa"][0], agreement["kappa"][1], otherwise=math.nan),
        "mcc": divide(accuracy_B - agreement["mcc"][0], agreement["mcc"][1]),
        "loss": means_B3[:, 1],
        "brier": means_B3[:, 2],
        "ece": np.abs(gaps_BM).sum(1) / count,
        **{CLASS_PREFIX + name: values for name, values in per_class.items()},
    }


def _agreement(
    support_BK: np.ndarray, predicted_BK: np.ndarray, count: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return, for kappa and mcc, the accuracy by chance and the scale: (accuracy - chance) / scale is the score."""
    chance_B = (support_BK * predicted_BK).sum(1) / count**2
    spread_B = (1 - (support_BK**2).sum(1) / count**2) * (1 - (predicted_BK**2).sum(1) / count**2)
    return {"kappa": (chance_B, 1 - chance_B), "mcc": (chance_B, np.sqrt(spread_B.clip(0)))}


def _calibration_bins(confidence_N: np.ndarray) -> np.ndarray:
    return np.minimum((confidence_N * BINS).astype(int), BINS - 1)
