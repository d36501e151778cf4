"""Calibration of images with several labels: a temperature, a threshold for each label, and prediction sets.

Each label has a probability of its own, the sigmoid of its logit. All of it is fitted to validation images after
training, and stored in the bundle as that of single labels is.

Prediction sets control a risk rather than the coverage of each label: on average over new images that have labels, at
most 1 - coverage of an image's labels is missing in its set (A. Angelopoulos, S. Bates, A. Fisch, L. Lei, T. Schuster,
"Conformal risk control", 2022). That holds for a finite number of images and any model, by one probability for all
labels. A guarantee for each label would need many images of each: of one with 8, no set without it could be made.
"""

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from classifier.errors import ConfigError, DataError
from classifier.metrics.calibration import MIN_IMAGES, MIN_LOG_PROBABILITY, fit_thresholds, search_temperature
from classifier.metrics.decisions import COVERAGE, DEFAULT_THRESHOLD, Calibration

# A label of fewer images keeps the default threshold: in simulations one that was fitted to 5 images was worse on new
# ones half of the time, and of 8 images 3 points of F1 better on average.
MIN_LABEL_IMAGES = 8
# Float32 has no probability between this and 1, of which a logit could be told.
_MAX_LOG_PROBABILITY = -6e-8


def compute_logits(log_probabilities_NK: Tensor) -> Tensor:
    """Return the logits, log(p / (1 - p)), of independent probabilities; finite also for 0 and 1."""
    bounded_NK = log_probabilities_NK.clamp(MIN_LOG_PROBABILITY, _MAX_LOG_PROBABILITY)
    return bounded_NK - (-torch.expm1(bounded_NK)).log()


def apply_label_temperature(log_probabilities_NK: Tensor, temperature: float) -> Tensor:
    """Return the log-probabilities of independent labels after dividing their logits by the temperature."""
    if temperature == 1:
        return log_probabilities_NK
    return F.logsigmoid(compute_logits(log_probabilities_NK) / temperature)


def fit_label_temperature(log_probabilities_NK: Tensor, targets_NK: Tensor) -> float:
    """Return the temperature that minimizes binary cross-entropy, by a bounded search over its logarithm; 1 for too few
    images.

    One for all labels. The targets are smoothed as if one more label had been there and one had not (Platt 1999).
    """
    if len(targets_NK) < MIN_IMAGES:
        return 1.0
    logits_NK, present = compute_logits(log_probabilities_NK.double()), int(targets_NK.sum())
    high, low = (present + 1) / (present + 2), 1 / (targets_NK.numel() - present + 2)
    smooth_NK = torch.where(targets_NK, high, low).double()

    return search_temperature(
        lambda temperature: float(F.binary_cross_entropy_with_logits(logits_NK / temperature, smooth_NK))
    )


def fit_f1_thresholds(probabilities_NK: Tensor, targets_NK: Tensor) -> tuple[float, ...]:
    """Return the threshold of the highest F1 of each label on these images, half way to the next lower probability.

    The default for labels of few images, and for those that all images or none have.
    """
    thresholds = []
    for scores_N, is_label_N in zip(np.asarray(probabilities_NK, np.float64).T, np.asarray(targets_NK).T, strict=True):
        support = int(is_label_N.sum())
        if not MIN_LABEL_IMAGES <= support < len(scores_N):
            thresholds.append(DEFAULT_THRESHOLD)
            continue
        order_N = np.argsort(-scores_N, kind="stable")
        sorted_N, hits_N = scores_N[order_N], is_label_N[order_N].cumsum()
        lower_N = np.r_[sorted_N[1:], 0.0]
        f1_N = np.where(sorted_N > lower_N, 2 * hits_N / (np.arange(1, len(hits_N) + 1) + support), -1.0)
        best = int(f1_N.argmax())
        thresholds.append(float((sorted_N[best] + lower_N[best]) / 2))
    return tuple(thresholds)


def fit_label_set_threshold(probabilities_NK: Tensor, targets_NK: Tensor, coverage: float) -> float:
    """Return the minimum probability of labels in prediction sets that hold, on average, `coverage` of the labels of an
    image that has some.

    The guarantee is on average over draws of the validation images. 0 if too few of them have labels: then sets contain
    all labels. ConfigError unless coverage is between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"--coverage {coverage:g}: must be between 0 and 1, for example 0.9")
    sizes_N = targets_NK.sum(1)
    images = int((sizes_N > 0).sum())
    rows_L, columns_L = targets_NK.nonzero(as_tuple=True)
    scores_L, order_L = probabilities_NK[rows_L, columns_L].double().sort()
    shares_L = (1 / sizes_N.double())[rows_L][order_L]
    # The risk if the threshold were a label's own probability: of all labels below it, ties not among them.
    missing_L = torch.cat([torch.zeros(1, dtype=torch.float64), shares_L.cumsum(0)[:-1]])
    first_L = torch.searchsorted(scores_L, scores_L)
    allowed_L = (missing_L[first_L] <= (images + 1) * (1 - coverage) - 1 + 1e-9).nonzero()[:, 0]
    return float(scores_L[allowed_L[-1]]) if len(allowed_L) else 0.0


def calibrate_labels(
    probabilities_NK: Tensor,
    targets_NK: Tensor,
    *,
    coverage: float | None = None,
    precision: float | None = None,
    recall: float | None = None,
) -> Calibration:
    """Fit a calibration to the probabilities of validation images, before any temperature.

    Thresholds are those of the highest F1, unless a precision or a recall is given. coverage: None for 90 %, or, if the
    labels that are decided for are more of an image's labels, for the mean of that share and 100 %: a set always
    contains them. targets_NK: bool, or 0 and 1. DataError without images, or if none has a label.
    """
    targets_NK = targets_NK.bool()
    if not targets_NK.any():
        raise DataError(
            "there are no validation images with labels to calibrate on: train with --data.validation above 0"
        )
    temperature = fit_label_temperature(probabilities_NK.log(), targets_NK)
    probabilities_NK = apply_label_temperature(probabilities_NK.log(), temperature).exp()
    thresholds, target = fit_f1_thresholds(probabilities_NK, targets_NK), "F1"
    if precision is not None or recall is not None:
        thresholds = fit_thresholds(probabilities_NK, targets_NK, precision=precision, recall=recall)
        name, value = ("precision", precision) if precision is not None else ("recall", recall)
        target = f"{name} {value:g}"
    calibration = Calibration(
        images=len(targets_NK), temperature=temperature, target=target, thresholds=thresholds, set_threshold=1.0
    )
    if coverage is None:
        has_some_N = targets_NK.any(1)
        targets_MK = targets_NK[has_some_N]
        said_MK = torch.from_numpy(calibration.decide_labels(probabilities_NK[has_some_N]))
        found = float(((said_MK & targets_MK).sum(1) / targets_MK.sum(1)).double().mean())
        # n images support a coverage of at most n / (n + 1).
        coverage = min(max(COVERAGE, (1 + found) / 2), len(targets_MK) / (len(targets_MK) + 1))
    set_threshold = fit_label_set_threshold(probabilities_NK, targets_NK, coverage)
    return dataclasses.replace(calibration, coverage=coverage, set_threshold=set_threshold)
