"""Accuracy on images without labels, estimated from how sure the model is, as in its reference."""

from typing import NamedTuple

import numpy as np

from classifier.drift.transport import estimate_by_transport
from classifier.inference.reference import Reference
from classifier.metrics.decisions import DEFAULT_THRESHOLD, Calibration

RESAMPLES = 1000
_NORMAL = 1.96
MIN_IMAGES = 30
"""Of the reference or the window: fewer tell no accuracy."""


class Estimate(NamedTuple):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


class ExpectedAccuracy(NamedTuple):
    """Of several labels an image, accuracy is the share of images with all labels right."""

    reference: float
    """On the reference, whose labels are known."""
    confidence: Estimate
    """By the mean confidence, less what it is above the accuracy of the reference."""
    threshold: Estimate
    """By average thresholded confidence."""
    transport: Estimate | None
    """By optimal transport to the shares of the training; None of several labels an image."""
    has_changed: bool
    """Whether the images have changed themselves, not only their shares."""

    @property
    def do_agree(self) -> bool:
        """Whether the intervals of all estimates overlap."""
        estimates = [one for one in (self.confidence, self.threshold, self.transport) if one]
        return max(one.low for one in estimates) <= min(one.high for one in estimates)

    @property
    def value(self) -> float:
        """By transport where images have changed, as confidence then hardly falls; else by confidence, which holds for
        any shares."""
        return self.transport.value if self.transport and self.has_changed else self.confidence.value


def estimate_accuracy(
    reference: Reference,
    probabilities_MK: np.ndarray,
    calibration: Calibration | None,
    *,
    has_changed: bool,
    seed: int = 0,
) -> ExpectedAccuracy:
    """Estimate the accuracy on a window from the model's outputs for it.

    By the difference of mean confidences (Guillory et al. 2021: calibrated confidence itself is the accuracy where the
    calibration holds; what it is off by on the reference is taken away), and by ATC (Garg et al. 2022): the share of
    images whose negative entropy is above the threshold that as many images of the reference exceed as are right; and
    by transport.py. Intervals are percentiles of bootstrap resamples of both samples; by transport they are normal.
    has_changed: whether tests say that the images have changed, and not only the shares of their classes.
    """
    is_right_N = find_right(reference, calibration)
    rng = np.random.Generator(np.random.Philox(seed))
    weights_BN = rng.multinomial(len(reference), reference.weights, RESAMPLES) / len(reference)
    weights_BN = np.concatenate([reference.weights[None], weights_BN])
    count = len(probabilities_MK)
    weights_BM = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    weights_BM = np.concatenate([np.full((1, count), 1 / count), weights_BM])
    accuracy_B = weights_BN @ is_right_N

    confidence_N = rate_confidence(reference.outputs, calibration, reference.is_multilabel)
    confidence_M = rate_confidence(probabilities_MK, calibration, reference.is_multilabel)
    by_confidence_B = accuracy_B - weights_BN @ confidence_N + weights_BM @ confidence_M

    scores_N, scores_M = (_negative_entropy(p, reference.is_multilabel) for p in (reference.outputs, probabilities_MK))
    order_N, order_M = scores_N.argsort(), scores_M.argsort()
    # Of images in the order of their scores: the first position whose images before it weigh as much as the errors.
    below_BN = weights_BN[:, order_N].cumsum(1)
    cut_B = (below_BN < (1 - accuracy_B)[:, None] - 1e-12).sum(1)
    sorted_N = np.append(scores_N[order_N], np.inf)
    # Half of the images at the threshold itself are above it.
    thresholds_B = (sorted_N[cut_B] + sorted_N[np.minimum(cut_B + 1, len(scores_N) - 1)]) / 2
    thresholds_B[accuracy_B >= 1 - 1e-12] = -np.inf
    positions_B = np.searchsorted(scores_M[order_M], thresholds_B)
    below_BM = np.concatenate([np.zeros((len(weights_BM), 1)), weights_BM[:, order_M].cumsum(1)], 1)
    by_threshold_B = 1 - below_BM[np.arange(len(positions_B)), positions_B]
    transport = None
    if not reference.is_multilabel:
        value, deviation = estimate_by_transport(reference, probabilities_MK, float(accuracy_B[0]), seed=seed)
        ends = (float(np.clip(value + sign * _NORMAL * deviation, 0, 1)) for sign in (-1, 1))
        transport = Estimate(value, *ends)
    by_confidence, by_threshold = _summarize(by_confidence_B), _summarize(by_threshold_B)
    return ExpectedAccuracy(float(accuracy_B[0]), by_confidence, by_threshold, transport, has_changed)


def find_right(reference: Reference, calibration: Calibration | None) -> np.ndarray:
    """Return is_right_N: whether the model's class, or all labels that it says, are those of the image."""
    outputs_NK = reference.outputs
    if reference.is_multilabel:
        return (_say(outputs_NK, calibration) == reference.targets).all(1)
    return outputs_NK.argmax(1) == reference.targets.argmax(1)


def rate_confidence(outputs_NK: np.ndarray, calibration: Calibration | None, is_multilabel: bool) -> np.ndarray:
    """Return the probability, by the model's own outputs, that an image's answer is right."""
    if not is_multilabel:
        return outputs_NK.max(1).astype(np.float64)
    return np.where(_say(outputs_NK, calibration), outputs_NK, 1 - outputs_NK).prod(1, dtype=np.float64)


def _say(outputs_NK: np.ndarray, calibration: Calibration | None) -> np.ndarray:
    return calibration.decide_labels(outputs_NK) if calibration else outputs_NK >= DEFAULT_THRESHOLD


def _negative_entropy(outputs_NK: np.ndarray, is_multilabel: bool) -> np.ndarray:
    outputs_NK = outputs_NK.astype(np.float64)
    terms_NK = outputs_NK * np.log(np.maximum(outputs_NK, 1e-30))
    if is_multilabel:
        terms_NK += (1 - outputs_NK) * np.log(np.maximum(1 - outputs_NK, 1e-30))
    return terms_NK.sum(1)


def _summarize(values_B: np.ndarray) -> Estimate:
    value, low, high = values_B[0], *np.quantile(values_B[1:], [0.025, 0.975])
    return Estimate(*(float(np.clip(one, 0, 1)) for one in (value, low, high)))
