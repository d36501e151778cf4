"""Multinomial logistic regression on features, its L2 penalty chosen by cross-validation: a linear probe."""

from dataclasses import dataclass

import torch
from torch import Tensor

# For standardised features, strongest first, where cross-validation chooses; and where no class has two images.
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
DEFAULT_PENALTY = 0.1
# With more images a single fold is enough.
FOLDS, MAX_IMAGES_FOR_FOLDS = 5, 1000
MAX_ITERATIONS, TOLERANCE = 100, 1e-6
# A feature that hardly varies is left as it is.
MIN_STD = 1e-6


@dataclass(frozen=True)
class LinearProbe:
    """logits_NK = features_NF @ weight_KF.T + bias_K; accuracy and loss: cross-validated on `count` images, or None."""

    weight_KF: Tensor
    bias_K: Tensor
    penalty: float
    accuracy: float | None
    loss: float | None
    count: int


def fit_linear_probe(features_NF: Tensor, labels_N: Tensor, classes: int) -> LinearProbe:
    """Fit logistic regression to standardised features; the weights that are returned take features as they are.

    The penalty of the highest cross-validated accuracy is chosen, then of the lowest log loss, by stratified folds. If
    no class has two images, the penalty is fixed, and nothing is known of its accuracy. Deterministic.
    """
    mean_F, std_F = features_NF.mean(0), features_NF.std(0, correction=0).clamp(min=MIN_STD)
    standard_NF = (features_NF - mean_F) / std_F
    # With fewer images than features the weights lie in the span of the images: their coordinates in it are enough.
    basis_FR = torch.linalg.qr(standard_NF.T).Q if len(standard_NF) < standard_NF.shape[1] else None
    inputs_NR = standard_NF if basis_FR is None else standard_NF @ basis_FR
    scores, count = _cross_validate(inputs_NR, labels_N, classes)
    penalty = max(scores, key=lambda one: (scores[one][0], -scores[one][1])) if scores else DEFAULT_PENALTY
    weight_KR, bias_K = fit_logistic_regression(inputs_NR, labels_N, classes, penalty)
    weight_KF = (weight_KR if basis_FR is None else weight_KR @ basis_FR.T) / std_F
    return LinearProbe(weight_KF, bias_K - weight_KF @ mean_F, penalty, *scores.get(penalty, (None, None)), count)


def fit_logistic_regression(
    inputs_NF: Tensor,
    labels_N: Tensor,
    classes: int,
    penalty: float = 1e-2,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Minimise mean log loss + penalty x squared weights by L-BFGS, from zero or `start`; return weight_KF, bias_K."""
    if start is None:
        start = inputs_NF.new_zeros(classes, inputs_NF.shape[1]), inputs_NF.new_zeros(classes)
    weight_KF, bias_K = (one.clone().requires_grad_() for one in start)
    optimizer = torch.optim.LBFGS(
        [weight_KF, bias_K], max_iter=MAX_ITERATIONS, tolerance_change=TOLERANCE, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(inputs_NF @ weight_KF.T + bias_K, labels_N)
        loss = loss + penalty * weight_KF.square().sum()
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    return weight_KF.detach(), bias_K.detach()


def _cross_validate(inputs_NF: Tensor, labels_N: Tensor, classes: int) -> tuple[dict[float, tuple[float, float]], int]:
    """Return accuracy and log loss of held-out images by penalty (empty if no class has two), and their number."""
    folds_N = assign_folds(labels_N, FOLDS)
    held_out = range(FOLDS) if len(labels_N) <= MAX_IMAGES_FOR_FOLDS else range(1)
    scores: dict[float, tuple[float, float]] = {}
    hits, losses, count = dict.fromkeys(PENALTIES, 0.0), dict.fromkeys(PENALTIES, 0.0), 0
    for fold in held_out:
        is_held_N = folds_N == fold
        if not is_held_N.any():
            continue
        count += int(is_held_N.sum())
        start = None
        for penalty in PENALTIES:
            start = fit_logistic_regression(inputs_NF[~is_held_N], labels_N[~is_held_N], classes, penalty, start)
            logits_NK = inputs_NF[is_held_N] @ start[0].T + start[1]
            hits[penalty] += float((logits_NK.argmax(1) == labels_N[is_held_N]).sum())
            losses[penalty] += float(torch.nn.functional.cross_entropy(logits_NK, labels_N[is_held_N], reduction="sum"))
    if count:
        scores = {penalty: (hits[penalty] / count, losses[penalty] / count) for penalty in PENALTIES}
    return scores, count


def assign_folds(labels_N: Tensor, folds: int) -> Tensor:
    """Return a fold in [0, folds) of each image, in turns within its class; -1 for the only image of a class."""
    folds_N = torch.full_like(labels_N, -1)
    for label in labels_N.unique().tolist():
        (indices_M,) = torch.nonzero(labels_N == label, as_tuple=True)
        if len(indices_M) > 1:
            folds_N[indices_M] = torch.arange(len(indices_M)) % min(folds, len(indices_M))
    return folds_N
