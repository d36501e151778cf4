"""What the features are worth while they are learned: nearest neighbours where labels are known, else their rank."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

NEIGHBOURS = 20
COLLAPSED_RANK = 2.0
"""Features of a lower effective rank tell hardly any images apart."""


def measure_neighbours(known_NF: Tensor, known_labels_N: Tensor, asked_MF: Tensor, asked_labels_M: Tensor) -> float:
    """Return the accuracy of a vote of the 20 nearest neighbours by cosine, weighted by similarity.

    Z. Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", 2018.
    """
    from sklearn.neighbors import KNeighborsClassifier

    def weigh(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / 0.07)

    votes: Any = weigh
    voters = KNeighborsClassifier(min(NEIGHBOURS, len(known_NF)), metric="cosine", weights=votes)
    voters.fit(known_NF.numpy(), known_labels_N.numpy())
    return float((voters.predict(asked_MF.numpy()) == asked_labels_M.numpy()).mean())


def measure_rank(features_NF: Tensor) -> float:
    """Return the effective rank of features, from 1 to F: exp of the entropy of their singular values' shares.

    O. Roy, M. Vetterli, "The effective rank", 2007; Q. Garrido et al., "RankMe", 2023, show that it follows accuracy.
    """
    centred_NF = features_NF.double() - features_NF.double().mean(0)
    values_F = torch.linalg.svdvals(centred_NF)
    if not values_F.sum() > 0:
        return 1.0
    shares_F = values_F / values_F.sum()
    return float(torch.exp(-(shares_F * (shares_F + 1e-12).log()).sum()))
