"""Margin sampling with diversity: images between two classes, which do not resemble each other.

F. Zhdanov, "Diverse mini-batch active learning", 2019: of the images with the smallest margins, several times as many
as are wanted, those nearest to the centres of clusters in which the least certain images weigh most.
"""

import numpy as np

from classifier.label.clusters import cluster

CANDIDATES = 10
"""Times the wanted images, that are clustered."""
_MIN_WEIGHT = 1e-3


def compute_uncertainty(probabilities_NK: np.ndarray, *, is_multilabel: bool = False) -> np.ndarray:
    """Return uncertainty_N in [0, 1]: 1 less the margin between the two most likely classes.

    Of several labels an image, the mean over its labels of 1 less the margin between yes and no.
    """
    if is_multilabel:
        return (1 - np.abs(2 * probabilities_NK - 1)).mean(1)
    if probabilities_NK.shape[1] < 2:
        return np.zeros(len(probabilities_NK), probabilities_NK.dtype)
    top_N2 = np.partition(probabilities_NK, -2, axis=1)[:, -2:]
    return 1 - (top_N2[:, 1] - top_N2[:, 0])


def choose_uncertain(
    features_NF: np.ndarray, uncertainty_N: np.ndarray, is_open_N: np.ndarray, count: int, seed: int
) -> list[int]:
    """Return the indices of up to `count` images to label next, the least certain first.

    features_NF: float32, in which near means alike. is_open_N: bool, the images that may be chosen. Deterministic for
    a seed.
    """
    open_M = np.flatnonzero(is_open_N)
    count = min(count, len(open_M))
    if count <= 0:
        return []
    least = np.argsort(-uncertainty_N[open_M], kind="stable")[: CANDIDATES * count]
    candidates = open_M[least]
    weights = np.maximum(uncertainty_N[candidates], _MIN_WEIGHT)
    assigned_M, from_centre_M = cluster(features_NF[candidates], count, seed, weights)
    order = np.lexsort((from_centre_M, assigned_M))
    first = np.unique(assigned_M[order], return_index=True)[1]
    chosen = candidates[order[first]].tolist()
    rest = [int(n) for n in candidates if n not in set(chosen)]  # where images coincide, clusters are fewer
    chosen += rest[: count - len(chosen)]
    return sorted(chosen, key=lambda n: (-uncertainty_N[n], n))
