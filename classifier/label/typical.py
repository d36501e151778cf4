"""TypiClust: while labels are few, the most typical image of each cluster that has none yet.

G. Hacohen, A. Dekel, D. Weinshall, "Active learning on a budget: opposite strategies suit high and low budgets", 2022.
As in their code, there are as many clusters as labels will be, up to MAX_CLUSTERS; small ones come after all others
rather than never, as in a small folder most clusters are small.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from classifier.label.clusters import cluster

MAX_CLUSTERS = 500
NEIGHBOURS = 20
"""Typicality is the inverse of the mean distance to so many nearest neighbours in the cluster, or to half of it."""
MAX_COMPARED = 2000
"""Of a larger cluster, neighbours are looked for among the images nearest to its centre."""


def choose_typical(features_NF: np.ndarray, labelled: Sequence[int], count: int, seed: int) -> list[int]:
    """Return the indices of up to `count` images to label next, the most urgent first.

    features_NF: float32, in which near means alike. labelled: indices of images that have a label, whose clusters come
    last. Deterministic for a seed.
    """
    total = len(features_NF)
    count = min(count, total - len(labelled))
    clusters = min(len(labelled) + count, MAX_CLUSTERS, total)
    if count <= 0:
        return []
    assigned_N, from_centre_N = cluster(features_NF, clusters, seed)
    is_labelled_N = np.zeros(total, bool)
    is_labelled_N[list(labelled)] = True
    sizes_K = np.bincount(assigned_N, minlength=clusters)
    covered_K = np.bincount(assigned_N[is_labelled_N], minlength=clusters)
    order = np.lexsort((np.arange(clusters), -sizes_K, covered_K))
    ranked = [_rank(features_NF, np.flatnonzero(assigned_N == k), from_centre_N, is_labelled_N) for k in order]
    in_turns = (n for one_of_each in itertools.zip_longest(*ranked) for n in one_of_each if n is not None)
    return list(itertools.islice(in_turns, count))


def _rank(
    features_NF: np.ndarray, members: np.ndarray, from_centre_N: np.ndarray, is_labelled_N: np.ndarray
) -> list[int]:
    """Return the unlabelled images of a cluster, the most typical first."""
    near_first = members[np.argsort(from_centre_N[members], kind="stable")]
    members, rest = near_first[:MAX_COMPARED], near_first[MAX_COMPARED:]
    own_MF = features_NF[members]
    squared_M = np.square(own_MF).sum(1)
    distance_MM = np.sqrt(np.maximum(squared_M[:, None] + squared_M - 2 * own_MF @ own_MF.T, 0))
    np.fill_diagonal(distance_MM, np.inf)
    neighbours = max(1, min(NEIGHBOURS, len(members) // 2))
    if len(members) > 1:
        mean_M = np.partition(distance_MM, neighbours - 1, axis=1)[:, :neighbours].mean(1)
        members = members[np.argsort(mean_M, kind="stable")]
    return [int(n) for n in (*members, *rest) if not is_labelled_N[n]]
