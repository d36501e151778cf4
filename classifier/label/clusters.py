"""k-means, in mini-batches where clusters are many."""

import warnings
from typing import Any

import numpy as np

MINI_BATCHES_ABOVE, BATCH_SIZE = 50, 5000
"""Clusters, and images of a batch, as in the code of TypiClust."""


def cluster(
    features_NF: np.ndarray, clusters: int, seed: int, weights_N: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cluster of each image, and squared distances_N to its centre. Deterministic for a seed."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    clusters = min(clusters, len(features_NF))
    if clusters <= MINI_BATCHES_ABOVE or len(features_NF) <= BATCH_SIZE:
        model: Any = KMeans(clusters, random_state=seed)
    else:
        model = MiniBatchKMeans(clusters, batch_size=BATCH_SIZE, random_state=seed)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # where images coincide
        model.fit(features_NF, sample_weight=weights_N)
    return model.labels_, np.square(features_NF - model.cluster_centers_[model.labels_]).sum(1)
