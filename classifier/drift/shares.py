"""Class shares: whether a class is more frequent than in the training data, by the model's own outputs."""

from typing import NamedTuple

import numpy as np

from classifier.inference.reference import Reference

# Below this, the saddlepoint is so near the mean that its formula divides by almost zero; a normal tail is exact there.
_NEAR_MEAN = 0.05
_BISECTIONS = 60
# Added to the squared deviations of a class, whose few images may all have equal outputs.
_SMOOTHING = 0.1


class ShareTest(NamedTuple):
    """Of each class: the mean output that the training shares lead to, that of the window, and the p-value."""

    expected_K: np.ndarray
    observed_K: np.ndarray
    p_K: np.ndarray


def measure_shares(reference: Reference, probabilities_MK: np.ndarray) -> ShareTest:
    """Test whether the mean output of each class is larger than expected; of several labels also whether smaller.

    The expectation weighs the outputs of each class in the reference by the class's share of all labelled images of the
    training, which is known far better than that of a few hundred validation images: a window of 200 images is then
    compared with what is practically a constant. What remains uncertain of it (the model's outputs for each class)
    is added to the variance. The tail is the saddlepoint approximation of the mean of M draws from the weighted
    reference (Lugannani and Rice 1980; Davison and Hinkley 1988), which a normal one misses where a class is rare. A
    class that becomes rarer raises others, so one tail is enough where each image has one class.
    """
    outputs_NK = reference.outputs.astype(np.float64)
    weights_NK, variance_K = _weigh(reference, outputs_NK)
    observed_K = probabilities_MK.mean(0, dtype=np.float64)
    expected_K = (weights_NK * outputs_NK).sum(0)
    count = len(probabilities_MK)
    p_K = _upper_tail(outputs_NK, weights_NK, variance_K, count, observed_K)
    if reference.is_multilabel:
        lower_K = _upper_tail(1 - outputs_NK, weights_NK, variance_K, count, 1 - observed_K)
        p_K = np.minimum(1, 2 * np.minimum(p_K, lower_K))
    return ShareTest(expected_K, observed_K, p_K)


def _weigh(reference: Reference, outputs_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight of each image for each class, and the variance of the mean that is expected of each class."""
    shares_K, labelled, targets_NK = reference.shares, reference.labelled, reference.targets
    if not reference.is_multilabel:
        weights_N = reference.weights
        variance_K = np.zeros(outputs_NK.shape[1])
        means_CK, known = [], reference.label_counts > 0
        present_K = shares_K * known / (shares_K * known).sum()
        for c in np.flatnonzero(known):
            own_NK = outputs_NK[targets_NK[:, c]]
            means_CK.append(own_NK.mean(0))
            variance_K += present_K[c] ** 2 * _variance_of_mean(own_NK)
        spread_K = present_K[known] @ np.square(np.array(means_CK) - present_K[known] @ np.array(means_CK))
        return np.repeat(weights_N[:, None], outputs_NK.shape[1], 1), variance_K + spread_K / labelled
    weights_NK, variance_K = np.empty_like(outputs_NK), np.empty(outputs_NK.shape[1])
    for k, share in enumerate(shares_K):
        has_N = targets_NK[:, k]
        if has_N.all() or not has_N.any():  # nothing is known of the model's output with it, or without it
            weights_NK[:, k], variance_K[k] = 1 / len(has_N), _variance_of_mean(outputs_NK[:, [k]])[0]
            continue
        weights_NK[:, k] = np.where(has_N, share / has_N.sum(), (1 - share) / (~has_N).sum())
        on, off = (_variance_of_mean(outputs_NK[is_in, k : k + 1])[0] for is_in in (has_N, ~has_N))
        gap = outputs_NK[has_N, k].mean() - outputs_NK[~has_N, k].mean()
        variance_K[k] = share**2 * on + (1 - share) ** 2 * off + gap**2 * share * (1 - share) / labelled
    return weights_NK, variance_K


def _variance_of_mean(values_NK: np.ndarray) -> np.ndarray:
    """Return the variance of the mean of values in [0, 1], not zero even if a few values are equal."""
    return (np.square(values_NK - values_NK.mean(0)).sum(0) + _SMOOTHING) / len(values_NK) ** 2


def _upper_tail(
    values_NK: np.ndarray, weights_NK: np.ndarray, variance_K: np.ndarray, count: int, means_K: np.ndarray
) -> np.ndarray:
    """Return the probability that the mean of `count` draws from the weighted values, plus a normal error of this
    variance, is at least means_K.
    """
    from scipy.stats import norm

    offsets_NK = values_NK - 1  # exponentials of these do not overflow
    expected_K = (weights_NK * values_NK).sum(0)
    deviation_K = np.sqrt((weights_NK * np.square(values_NK - expected_K)).sum(0) / count + variance_K)

    def cumulants(theta_K: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The cumulant generating function of one draw and its first two derivatives."""
        tilted_NK = weights_NK * np.exp(theta_K * offsets_NK)
        total_K = tilted_NK.sum(0)
        mean_K = (tilted_NK * values_NK).sum(0) / total_K
        return np.log(total_K) + theta_K, mean_K, (tilted_NK * np.square(values_NK - mean_K)).sum(0) / total_K

    excess_K = np.maximum(means_K - expected_K, 0)
    low_K, high_K = np.zeros_like(means_K), excess_K / (variance_K * count)
    for _ in range(_BISECTIONS):
        theta_K = (low_K + high_K) / 2
        is_below_K = cumulants(theta_K)[1] + variance_K * count * theta_K < means_K
        low_K, high_K = np.where(is_below_K, theta_K, low_K), np.where(is_below_K, high_K, theta_K)
    theta_K = (low_K + high_K) / 2
    log_K, _, second_K = cumulants(theta_K)
    exponent_K = count * (theta_K * means_K - log_K) - variance_K * (count * theta_K) ** 2 / 2
    root_K = np.sqrt(2 * np.maximum(exponent_K, 0))
    step_K = theta_K * np.sqrt(count * second_K + variance_K * count**2)
    is_far_K = (root_K > _NEAR_MEAN) & (step_K > 0)
    root_K, step_K = np.where(is_far_K, root_K, 1), np.where(is_far_K, step_K, 1)
    tail_K = norm.sf(root_K) + norm.pdf(root_K) * (1 / step_K - 1 / root_K)
    return np.clip(np.where(is_far_K, tail_K, norm.sf((means_K - expected_K) / deviation_K)), 0, 1)
