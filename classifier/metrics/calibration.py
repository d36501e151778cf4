"""Calibration: a temperature for the probabilities, prediction sets, and decision thresholds per class.

All of it is fitted to validation images after training, and stored in the bundle.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from classifier.errors import ConfigError, DataError
from classifier.metrics.decisions import COVERAGE, Calibration
from classifier.metrics.hierarchy import Hierarchy
from classifier.metrics.intervals import wilson

# Log-probabilities are clamped here: the exponentials of lower ones underflow in float32.
MIN_LOG_PROBABILITY = -100.0
# Bounds of the temperature, and the number of images below which it is not fitted, as it would be noise.
MIN_TEMPERATURE, MAX_TEMPERATURE, MIN_IMAGES = 0.05, 20.0, 30

# A model with a lower expected calibration error is well calibrated.
WELL_CALIBRATED_ECE = 0.05


def fit_temperature(log_probabilities_NK: Tensor, labels_N: Tensor) -> float:
    """Return the temperature that minimizes the loss, by a bounded search over its logarithm; 1 for too few images.

    The labels are smoothed as if one image in N + 2 had another label (Platt 1999): otherwise the confidence of a model
    without errors would grow without bound.
    """
    if len(labels_N) < MIN_IMAGES:
        return 1.0
    log_probabilities_NK = log_probabilities_NK.double().clamp(min=MIN_LOG_PROBABILITY)
    classes, smoothing = log_probabilities_NK.shape[1], 1 / (len(labels_N) + 2)
    targets_NK = torch.full_like(log_probabilities_NK, smoothing / max(1, classes - 1))
    targets_NK.scatter_(1, labels_N[:, None], 1 - smoothing)

    def loss(temperature: float) -> float:
        return -float((targets_NK * apply_temperature(log_probabilities_NK, temperature)).sum(1).mean())

    return search_temperature(loss)


def search_temperature(loss: Callable[[float], float]) -> float:
    """Return the temperature of the lowest loss, by a bounded search over its logarithm."""
    from scipy.optimize import minimize_scalar

    def loss_of(log_temperature: float) -> float:
        return loss(math.exp(log_temperature))

    return math.exp(
        minimize_scalar(loss_of, bounds=(math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)), method="bounded").x
    )


def apply_temperature(log_probabilities_NK: Tensor, temperature: float) -> Tensor:
    """Return the log-probabilities after dividing the logits by the temperature, which keeps their order."""
    if temperature == 1:
        return log_probabilities_NK
    return (log_probabilities_NK.clamp(min=MIN_LOG_PROBABILITY) / temperature).log_softmax(1)


def fit_set_threshold(probabilities_NK: Tensor, labels_N: Tensor, coverage: float) -> float:
    """Return the minimum probability of classes in prediction sets that contain the label of `coverage` of new images.

    The guarantee is on average over draws of the validation images. 0 if there are too few of them: then sets contain
    all classes. ConfigError unless coverage is between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"--coverage {coverage:g}: must be between 0 and 1, for example 0.9")
    label_probabilities_N = probabilities_NK.gather(1, labels_N[:, None])[:, 0].double().sort(descending=True).values
    rank = math.ceil((len(labels_N) + 1) * coverage)
    return float(label_probabilities_N[rank - 1]) if 0 < rank <= len(labels_N) else 0.0


def fit_thresholds(
    probabilities_NK: Tensor, labels: Tensor, *, precision: float | None = None, recall: float | None = None
) -> tuple[float | None, ...]:
    """Return, per class, the lowest threshold with at least that precision, or the highest with at least that recall.

    Measured on these images. labels: labels_N, or bool targets_NK of images with several labels. None for a class that
    no threshold achieves it for. ConfigError unless exactly one of precision and recall is given.
    """
    target = precision if recall is None else recall
    if (precision is None) == (recall is None) or target is None or not 0 < target <= 1:
        raise ConfigError("set exactly one of --precision and --recall, above 0 and at most 1")
    thresholds: list[float | None] = []
    for k in range(probabilities_NK.shape[1]):
        scores_N, order_N = probabilities_NK[:, k].sort(descending=True, stable=True)
        is_class_N = labels[:, k] if labels.ndim == 2 else labels == k
        hits_N = is_class_N[order_N].double().cumsum(0)
        last_N = torch.cat([scores_N[1:] != scores_N[:-1], torch.ones(1, dtype=torch.bool)])  # of tied images
        if precision is not None:
            good_N = last_N & (hits_N / torch.arange(1, len(hits_N) + 1) >= precision) & (hits_N > 0)
            positions = good_N.nonzero()[-1:]
        else:
            good_N = last_N & (hits_N >= target * hits_N[-1]) & (hits_N[-1] > 0)
            positions = good_N.nonzero()[:1]
        thresholds.append(float(scores_N[positions[0, 0]]) if len(positions) else None)
    return tuple(thresholds)


def reliability_bins(probabilities_NK: Tensor, labels_N: Tensor, bins: int = 15) -> list[tuple[float, float, int]]:
    """Return (mean confidence, accuracy, images) of each non-empty bin of equal width, for a reliability diagram."""
    confidence_N, predicted_N = probabilities_NK.double().max(1)
    bins_N = (confidence_N * bins).long().clamp(max=bins - 1)
    rows = []
    for index in bins_N.unique().tolist():
        in_bin_N = bins_N == index
        accuracy = float((predicted_N == labels_N)[in_bin_N].double().mean())
        rows.append((float(confidence_N[in_bin_N].mean()), accuracy, int(in_bin_N.sum())))
    return rows


def judge_calibration(scores: dict[str, Any]) -> Literal["well", "poorly"] | None:
    """Return how a model is calibrated, by its scores; None if its images are too few to tell.

    A perfectly calibrated model has an expected calibration error too, as each bin of confidences has few images: in
    simulations of five classes, below 5 % on 95 % of sets of 1,000 images with an accuracy of 46 to 64 %, but already
    of 400 with 90 %, and of 200 with 94 %. On 27 images it is above 5 % nearly always. So the number that it takes
    depends on the confidences, and scores have ece_by_chance; those of older runs lack it, and are not judged. A model
    that is sure of itself has hardly any error by chance: there the accuracy must be known to be near its confidence,
    which takes 73 images without an error.
    """
    ece, by_chance = scores["ece"], scores.get("ece_by_chance")
    if by_chance is None:
        return None
    if ece >= WELL_CALIBRATED_ECE:
        return "poorly" if ece > by_chance else None
    ends = wilson(round(scores["accuracy"] * scores["count"]), scores["count"])
    gap = max(abs(end - scores["confidence"]) for end in ends)
    return "well" if max(gap, by_chance) < WELL_CALIBRATED_ECE else None


def coverage_curve(probabilities_NK: Tensor, labels_N: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return coverage_N and accuracy_N: the accuracy if only the most confident predictions are made."""
    if len(labels_N) == 0:
        raise DataError("no images to score: the split is empty; increase data.validation or data.test")
    confidence_N, predicted_N = probabilities_NK.max(1)
    order_N = confidence_N.argsort(descending=True, stable=True)
    counts_N = np.arange(1, len(labels_N) + 1)
    hits_N = (predicted_N == labels_N)[order_N].double().cumsum(0).numpy()
    return counts_N / len(labels_N), hits_N / counts_N


def calibrate(
    probabilities_NK: Tensor,
    labels_N: Tensor,
    *,
    coverage: float | None = None,
    precision: float | None = None,
    recall: float | None = None,
    hierarchy: Hierarchy | None = None,
) -> Calibration:
    """Fit a calibration to the probabilities of validation images, before any temperature. DataError without images.

    coverage: None for 90 %, or, if the model is more accurate, for the mean of its accuracy and 100 %: a set always
    contains the most likely class, so its coverage cannot be below the accuracy. hierarchy: of nested classes.
    """
    if len(labels_N) == 0:
        raise DataError("there are no validation images to calibrate on: train with --data.validation above 0")
    temperature = fit_temperature(probabilities_NK.log(), labels_N)
    probabilities_NK = apply_temperature(probabilities_NK.log(), temperature).exp()
    if coverage is None:
        accuracy = float((probabilities_NK.argmax(1) == labels_N).double().mean())
        # n images support a coverage of at most n / (n + 1).
        coverage = min(max(COVERAGE, (1 + accuracy) / 2), len(labels_N) / (len(labels_N) + 1))
    thresholds, has_target = None, precision is not None or recall is not None
    if has_target:
        thresholds = fit_thresholds(probabilities_NK, labels_N, precision=precision, recall=recall)
    name, value = ("precision", precision) if precision is not None else ("recall", recall)
    return Calibration(
        images=len(labels_N),
        temperature=temperature,
        coverage=coverage,
        set_threshold=fit_set_threshold(probabilities_NK, labels_N, coverage),
        target=f"{name} {value:g}" if has_target else None,
        thresholds=thresholds,
        ancestor_threshold=hierarchy.fit_threshold(probabilities_NK, labels_N, coverage) if hierarchy else None,
    )
