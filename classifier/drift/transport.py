"""Accuracy without labels by optimal transport: outputs are matched with labels of the shares of the training."""

import numpy as np

from classifier.inference.reference import Reference

MAX_IMAGES = 500
"""Matched at a time: the time grows with their cube."""
RESAMPLES, PARTS = 40, 8
"""Of the reference; and of a larger window."""


def estimate_by_transport(
    reference: Reference, outputs_MK: np.ndarray, accuracy: float, *, seed: int = 0
) -> tuple[float, float]:
    """Return the expected accuracy and its standard deviation, by confidence optimal transport.

    Outputs are matched one to one with labels that have the shares of the training, so that the mean probability of
    the labels is highest (COT; Lu et al. 2023): where a model gives nearly all images to a few classes, and is sure of
    it, this falls and mean confidence does not. It assumes that the shares are those of the training. What the
    reference loses in the same matching of as many images is added: it is random shares and miscalibration. accuracy:
    that of the reference.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    count, size = len(outputs_MK), min(MAX_IMAGES, len(outputs_MK))
    draws = [rng.choice(len(reference), size, p=reference.weights) for _ in range(RESAMPLES)]
    matched_R = np.array([_match(reference.outputs[rows], reference.shares) for rows in draws])
    parts = 1 if count == size else PARTS
    matched = np.mean(
        [_match(outputs_MK[rng.choice(count, size, replace=False)], reference.shares) for _ in range(parts)]
    )
    value = float(np.clip(matched + accuracy - matched_R.mean(), 0, 1))
    variance = matched_R.var() * (size / count + size / len(reference)) + value * (1 - value) / count
    return value, float(np.sqrt(variance))


def _match(outputs_MK: np.ndarray, shares_K: np.ndarray) -> float:
    """Return the highest mean probability of labels of these shares, one for each image."""
    from scipy.optimize import linear_sum_assignment

    wanted_K = shares_K * len(outputs_MK)
    counts_K = np.floor(wanted_K).astype(int)
    missing = len(outputs_MK) - counts_K.sum()
    counts_K[np.argsort(counts_K - wanted_K, kind="stable")[:missing]] += 1
    scores_MM = outputs_MK[:, np.repeat(np.arange(len(shares_K)), counts_K)].astype(np.float64)
    return float(scores_MM[linear_sum_assignment(scores_MM, maximize=True)].mean())
