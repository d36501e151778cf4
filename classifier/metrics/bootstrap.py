"""The bootstrap (Efron 1979) of scores, and the ranking scores of its samples.

The images are resampled with replacement. A sample is represented by a weight per image, the number of times it was
drawn, so that all samples form one matrix and a score is a few sums over it. The score itself is that of weights of
one.
"""

import math
from collections.abc import Iterator

import numpy as np

from classifier.metrics.intervals import CONFIDENCE_LEVEL, Interval, auroc_interval

BOOTSTRAP_SAMPLES = 1000
# Samples of fewer images than this give no interval of loss, brier and ece.
MIN_BOOTSTRAP_IMAGES = 8
# Ranking scores (ROC AUC, average precision) sort all images per class: where images * classes * samples would exceed
# this, they get fewer samples, and no interval if fewer than the minimum.
MAX_RANKING_CELLS, MIN_RANKING_SAMPLES = 2_000_000_000, 100
# Maximum number of weights in memory at a time.
MAX_WEIGHTS = 1_000_000
# Prefix of the names of per-class scores.
CLASS_PREFIX = "class."

Scores = dict[str, np.ndarray]
"""By name, for B samples: an array of shape B, or B x K for per-class scores. NaN where a score is undefined."""


def draw_weights(count: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of samples before, and weights_BN, how often each image is drawn, in blocks of samples."""
    rng, size = np.random.default_rng(seed), max(1, MAX_WEIGHTS // count)
    for done in range(0, BOOTSTRAP_SAMPLES, size):
        drawn_BN = rng.integers(0, count, (min(size, BOOTSTRAP_SAMPLES - done), count))
        drawn_BN += count * np.arange(len(drawn_BN))[:, None]
        yield done, np.bincount(drawn_BN.ravel(), minlength=drawn_BN.size).reshape(drawn_BN.shape).astype(np.float64)


def count_ranking_samples(count: int, classes: int) -> int:
    """Return how many samples have ranking scores, 0 if too few."""
    samples = min(BOOTSTRAP_SAMPLES, MAX_RANKING_CELLS // (count * classes))
    return samples if samples >= MIN_RANKING_SAMPLES else 0


def compute_ranking_scores(probabilities_NK: np.ndarray, targets_NK: np.ndarray, weights_BN: np.ndarray) -> Scores:
    """Compute ROC AUC and average precision of each class against the rest, and their means.

    targets_NK: bool, whether an image is of a class.
    """
    by_class: dict[str, list[np.ndarray]] = {"roc_auc": [], "average_precision": []}
    for k in range(probabilities_NK.shape[1]):
        order_N = np.argsort(-probabilities_NK[:, k], kind="stable")
        scores_N = probabilities_NK[order_N, k]
        starts_G = np.flatnonzero(np.r_[True, scores_N[1:] != scores_N[:-1]])  # tied images are one step
        sorted_BN, is_class_N = weights_BN[:, order_N], targets_NK[order_N, k]
        steps_BG = np.add.reduceat(sorted_BN * is_class_N, starts_G, axis=1)
        others_BG = np.add.reduceat(sorted_BN * ~is_class_N, starts_G, axis=1)
        hits_BG, misses_BG = steps_BG.cumsum(1), others_BG.cumsum(1)
        of_class_B, of_rest_B = hits_BG[:, -1], misses_BG[:, -1]
        area_B = (others_BG * (hits_BG - steps_BG / 2)).sum(1)
        by_class["roc_auc"].append(divide(area_B, of_class_B * of_rest_B, otherwise=math.nan))
        precision_B = (steps_BG * divide(hits_BG, hits_BG + misses_BG)).sum(1)
        by_class["average_precision"].append(divide(precision_B, of_class_B, otherwise=math.nan))
    per_class = {name: np.stack(values, 1) for name, values in by_class.items()}
    means = {name: average(values, np.isfinite(values), otherwise=math.nan) for name, values in per_class.items()}
    return means | {CLASS_PREFIX + name: values for name, values in per_class.items()}


def auroc_intervals(areas_K: np.ndarray, support_K: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Return the intervals that hold for few images too, 2 x K per class and overall; NaN where undefined.

    The areas of two classes may depend on each other entirely, so that their mean varies as they do. count: of all
    images.
    """
    ends_K2 = np.array(
        [
            (math.nan, math.nan) if math.isnan(area) else auroc_interval(area, support, count - support)
            for area, support in zip(areas_K.tolist(), support_K.tolist(), strict=True)
        ]
    )
    known_K2 = ends_K2[~np.isnan(areas_K)]
    return {
        CLASS_PREFIX + "roc_auc": ends_K2.T,
        "roc_auc": known_K2.mean(0) if len(known_K2) else np.full(2, math.nan),
    }


def sum_by_class(weights_BN: np.ndarray, of_N: np.ndarray, classes: int) -> np.ndarray:
    """Sum the weights of the images of each class: B x classes."""
    order_N = np.argsort(of_N, kind="stable")
    present, starts = np.unique(of_N[order_N], return_index=True)
    sums_BK = np.zeros((len(weights_BN), classes))
    sums_BK[:, present] = np.add.reduceat(weights_BN[:, order_N], starts, axis=1)
    return sums_BK


def divide(numerator: np.ndarray, denominator: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    """Return the ratio, and `otherwise` for a denominator of 0."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, otherwise), where=denominator > 0)


def average(values_BK: np.ndarray, where_BK: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    """Return the mean over the classes that are to be counted."""
    return divide(np.where(where_BK, values_BK, 0.0).sum(1), where_BK.sum(1), otherwise)


def percentile_interval(values_B: np.ndarray) -> np.ndarray:
    """Return the ends of the central 95 %; NaN where a score is undefined in all samples."""
    ends = 100 * np.array([(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2])
    undefined = np.isnan(values_B).all(0)
    return np.where(undefined, math.nan, np.nanpercentile(np.where(undefined, 0.0, values_B), ends, axis=0))


def widen(first: np.ndarray, second: Interval | np.ndarray) -> np.ndarray:
    """Return the interval from the lower of two lower ends to the higher of two higher ends; a NaN does not count."""
    return np.stack([np.fmin(first[0], second[0]), np.fmax(first[1], second[1])])


def to_json_interval(ends: np.ndarray) -> list[float] | None:
    """Return None if an end is undefined or both are equal."""
    return None if np.isnan(ends).any() or ends[0] == ends[1] else [float(end) for end in ends]


def to_json_number(value: float) -> float | None:
    """Return None for NaN, which JSON lacks."""
    return None if math.isnan(value) else float(value)
