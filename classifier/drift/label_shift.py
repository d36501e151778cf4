"""Label shift: the class shares of unlabelled images, estimated from what a model says of them."""

from typing import NamedTuple

import numpy as np

from classifier.inference.reference import Reference

RESAMPLES = 500
MAX_CLASSES = 200
"""With more, the reference is not resampled: intervals are those of the window alone."""
PRIOR_DEVIATION = 1.0
"""Of the ratio of a class's share to that in the training data, before any image is seen."""
_SUM_PRECISION = 1e8
"""Of the sum of the shares, which is 1."""
_ROUNDING = 1e-6
"""Relative variance of the outputs below which it is rounding."""


class LabelShift(NamedTuple):
    """Estimated class shares with 95 % intervals, and their ratio to those of the training."""

    shares_K: np.ndarray
    low_K: np.ndarray
    high_K: np.ndarray
    ratios_K: np.ndarray


def estimate_label_shift(reference: Reference, probabilities_MK: np.ndarray, *, seed: int = 0) -> LabelShift:
    """Estimate the shares by black box shift estimation (BBSE; Lipton, Wang and Smola 2018), regularised.

    Assumes that images of a class look as in the reference, and only the shares differ. The ratios solve
    confusion_KK @ ratios = mean output of the window, by least squares in the metric of the outputs' covariance, with a
    normal prior around 1 (regularisation: Azizzadenesheli et al. 2019), which decides where two classes are confused
    so often that the images cannot tell. Intervals are percentiles of bootstrap resamples of the window, with random
    weights of the reference (D. Rubin, "The Bayesian bootstrap", 1981).
    """
    shares_K = reference.shares * (reference.label_counts > 0)
    shares_K = shares_K / shares_K.sum()
    outputs_NK = reference.outputs.astype(np.float64)
    labels_N, count = reference.targets.argmax(1), len(probabilities_MK)
    outputs_MK = probabilities_MK.astype(np.float64)
    covariance_KK = np.cov(outputs_MK.T, bias=True).reshape(len(shares_K), -1) / count
    # Outputs sum to 1: what varies along that direction is rounding.
    precision_KK = np.linalg.pinv(covariance_KK, _ROUNDING, hermitian=True)
    rng = np.random.Generator(np.random.Philox(seed))
    window_BM = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count
    means_BK = window_BM @ outputs_MK
    is_class_NK = (labels_N[:, None] == np.arange(len(shares_K))).astype(np.float64)
    confusion_KK = _confusion(outputs_NK, is_class_NK, shares_K)
    ratios_K = _solve(confusion_KK, precision_KK, outputs_MK.mean(0)[None], shares_K)[0]
    if len(shares_K) > MAX_CLASSES:
        ratios_BK = _solve(confusion_KK, precision_KK, means_BK, shares_K)
    else:
        ratios_BK = np.empty_like(means_BK)
        for b, mean_K in enumerate(means_BK):
            weights_N1 = rng.exponential(size=(len(labels_N), 1))
            confusion_KK = _confusion(outputs_NK, is_class_NK * weights_N1, shares_K)
            ratios_BK[b] = _solve(confusion_KK, precision_KK, mean_K[None], shares_K)[0]
    low_K, high_K = np.quantile(ratios_BK * shares_K, [0.025, 0.975], axis=0)
    return LabelShift(ratios_K * shares_K, low_K, high_K, ratios_K)


def _confusion(outputs_NK: np.ndarray, weights_NK: np.ndarray, shares_K: np.ndarray) -> np.ndarray:
    """Return the mean output of each class (columns), times its share. weights_NK: 0 but for the image's class."""
    totals_K = weights_NK.sum(0)
    return (outputs_NK.T @ weights_NK) * (shares_K / np.where(totals_K > 0, totals_K, 1))


def _solve(
    confusion_KK: np.ndarray, precision_KK: np.ndarray, means_BK: np.ndarray, shares_K: np.ndarray
) -> np.ndarray:
    """Return ratios_BK: not negative, and such that the shares sum to 1. 1 for classes without a share."""
    weighted_KK = confusion_KK.T @ precision_KK
    system_KK = weighted_KK @ confusion_KK + np.eye(len(shares_K)) / PRIOR_DEVIATION**2
    system_KK += _SUM_PRECISION * np.outer(shares_K, shares_K)
    offsets_BK = np.linalg.solve(system_KK, weighted_KK @ (means_BK - confusion_KK.sum(1)).T).T
    ratios_BK = np.where(shares_K > 0, np.maximum(1 + offsets_BK, 0), 1)
    return ratios_BK / (ratios_BK @ shares_K)[:, None]


def reweigh_outputs(probabilities_NK: np.ndarray, ratios_K: np.ndarray) -> np.ndarray:
    """Return the outputs as they would be had the model been trained on these class shares (Saerens et al. 2002)."""
    weighted_NK = probabilities_NK * ratios_K
    return weighted_NK / np.maximum(weighted_NK.sum(1, keepdims=True), 1e-300)


class ShiftedAccuracy(NamedTuple):
    """The accuracy on the estimated shares, if the images of each class look as in the reference."""

    as_it_is: float
    reweighted: float
    """If the outputs are corrected for the shares."""


def predict_shifted_accuracy(reference: Reference, ratios_K: np.ndarray) -> ShiftedAccuracy:
    """Predict the accuracy at other class shares from the reference."""
    labels_N = reference.targets.argmax(1)
    weights_N = reference.weights * ratios_K[labels_N]
    weights_N = weights_N / max(float(weights_N.sum()), 1e-12)
    outputs_NK = reference.outputs.astype(np.float64)
    as_it_is, reweighted = (
        float(weights_N @ (outputs.argmax(1) == labels_N))
        for outputs in (outputs_NK, reweigh_outputs(outputs_NK, ratios_K))
    )
    return ShiftedAccuracy(as_it_is, reweighted)
