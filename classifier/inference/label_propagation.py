"""Labels spread over a graph of nearest neighbours: from few images with labels to similar ones without.

D. Zhou et al., "Learning with local and global consistency", 2004; graph and weights as A. Iscen et al., "Label
propagation for deep semi-supervised learning", 2019; class masses as X. Zhu et al., "Semi-supervised learning using
Gaussian fields and harmonic functions", 2003.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

NO_LABEL = -1
# Neighbours of each image; exponent of their cosine similarity, so that near ones count more.
NEIGHBOURS, SHARPNESS = 10, 3.0
# Share of what an image has of its neighbours, not of its own label; rounds until hardly anything changes.
ALPHA, ROUNDS = 0.95, 100
# Images whose similarities with all are in memory at once.
CHUNK = 1024


def propagate_labels(features_NF: Tensor, labels_N: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return labels_N of all images, and weights_N in [0, 1]: how sure each is; 1 where the label was given.

    labels_N: NO_LABEL where it is unknown. Each class gets as large a share of all as it has of the labels. An image
    that no label reaches has the weight 0.
    """
    is_known_N = labels_N != NO_LABEL
    graph_NN = build_graph(features_NF)
    given_NK = torch.zeros(len(labels_N), classes)
    given_NK[is_known_N] = F.one_hot(labels_N[is_known_N], classes).float()
    spread_NK = given_NK
    for _ in range(ROUNDS):
        spread_NK = given_NK + ALPHA * (graph_NN @ spread_NK)
    shares_K = count_shares(labels_N[is_known_N], classes)
    spread_NK = spread_NK * (shares_K / spread_NK.sum(0).clamp_min(1e-12))
    total_N = spread_NK.sum(1)
    probabilities_NK = spread_NK / total_N.clamp_min(1e-30)[:, None]
    entropy_N = torch.special.entr(probabilities_NK).sum(1)
    weights_N = torch.where(total_N > 0, 1 - entropy_N / math.log(max(2, classes)), 0.0).clamp(0, 1)
    return torch.where(is_known_N, labels_N, spread_NK.argmax(1)), torch.where(is_known_N, 1.0, weights_N)


def count_shares(labels_N: Tensor, classes: int) -> Tensor:
    """Return shares_K of the classes among these labels, each with half an image more: no class is impossible."""
    counts_K = labels_N.bincount(minlength=classes) + 0.5
    return counts_K / counts_K.sum()


def build_graph(features_NF: Tensor) -> Tensor:
    """Return the sparse (N, N) affinities of nearest neighbours, symmetric, with the eigenvalues of a walk.

    By the cosine similarity of centred features; dissimilar images (below 0) are no neighbours.
    """
    count = len(features_NF)
    unit_NF = F.normalize(features_NF - features_NF.mean(0), dim=1)
    neighbours = min(NEIGHBOURS, count - 1)
    values, columns = [], []
    for start in range(0, count, CHUNK):
        similarity_MN = unit_NF[start : start + CHUNK] @ unit_NF.T
        rows_M = torch.arange(len(similarity_MN))
        similarity_MN[rows_M, start + rows_M] = -1.0  # no image is its own neighbour
        best_MA, index_MA = similarity_MN.topk(neighbours, dim=1)
        values.append(best_MA.clamp_min(0) ** SHARPNESS)
        columns.append(index_MA)
    rows_E = torch.arange(count).repeat_interleave(neighbours)
    edges_2E = torch.stack([rows_E, torch.cat(columns).flatten()])
    values_E = torch.cat(values).flatten()
    both = torch.cat([edges_2E, edges_2E.flip(0)], dim=1), torch.cat([values_E, values_E])
    affinity_NN = torch.sparse_coo_tensor(*both, (count, count), check_invariants=True).coalesce()
    (rows_E, columns_E), values_E = affinity_NN.indices(), affinity_NN.values()
    degrees_N = torch.zeros(count).index_add_(0, rows_E, values_E)
    scale_N = degrees_N.clamp_min(1e-12).rsqrt()
    values_E = scale_N[rows_E] * values_E * scale_N[columns_E]
    edges_2E = affinity_NN.indices()
    return torch.sparse_coo_tensor(edges_2E, values_E, (count, count), check_invariants=True, is_coalesced=True)
