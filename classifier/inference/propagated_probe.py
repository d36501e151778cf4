"""A linear probe that also learns from images without labels: theirs come from similar images by label propagation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from classifier.inference.label_propagation import NO_LABEL, count_shares, propagate_labels
from classifier.inference.logistic_regression import (
    MIN_SCALE,
    FoldHead,
    Head,
    HeldOut,
    LinearProbe,
    fit_linear_probe,
    fit_logistic_regression,
)

# L2 penalty of the regression. With many images it matters little: photographs, 0.03 to 0.3, within 0.1 points.
PENALTY = 0.1
# The probe of the labels alone is kept if it has more images right than the other, by this many standard errors.
MAX_LOSS_ERRORS = 1.0


@dataclass(frozen=True)
class PropagatedProbe:
    """probe: the one that is kept. alone, propagated: answers to the images held out, by the labels alone and with the
    unlabelled images; None if no class has two images."""

    probe: LinearProbe
    alone: HeldOut | None
    propagated: HeldOut | None
    is_kept: bool
    """Whether the unlabelled images had a part in `probe`."""


def fit_propagated_probe(
    features_NF: Tensor,
    labels_N: Tensor,
    classes: int,
    unlabelled_MF: Tensor,
    adjustment: float = 0.0,
    units_N: Tensor | None = None,
) -> PropagatedProbe:
    """Fit logistic regression to labelled and unlabelled images, unless folds of the labelled ones say that it hurts.

    Parameters as those of fit_linear_probe. In each fold the labels, and the images, that it holds out are unknown.
    """
    alone = fit_linear_probe(features_NF, labels_N, classes, adjustment, units_N=units_N)
    heads = []
    for index_M, _ in alone.folds:
        is_kept_N = torch.ones(len(labels_N), dtype=torch.bool)
        is_kept_N[index_M] = False
        head = _fit(features_NF[is_kept_N], labels_N[is_kept_N], classes, unlabelled_MF, adjustment)
        heads.append(FoldHead(index_M, head))
    whole = _fit(features_NF, labels_N, classes, unlabelled_MF, adjustment)
    held_out = _hold_out(heads, features_NF, labels_N)
    propagated = LinearProbe(whole, PENALTY, held_out, tuple(heads))
    if alone.held_out is None or held_out is None:
        return PropagatedProbe(propagated, None, None, is_kept=True)
    is_kept = not is_worse(held_out.hits, alone.held_out.hits)
    return PropagatedProbe(propagated if is_kept else alone, alone.held_out, held_out, is_kept)


def is_worse(hits_M: Tensor, other_hits_M: Tensor) -> bool:
    """Whether fewer images are right than by another model, by more than MAX_LOSS_ERRORS of that difference."""
    lost, won = int((other_hits_M & ~hits_M).sum()), int((hits_M & ~other_hits_M).sum())
    return lost - won > MAX_LOSS_ERRORS * math.sqrt(lost + won)


def _fit(features_NF: Tensor, labels_N: Tensor, classes: int, unlabelled_MF: Tensor, adjustment: float) -> Head:
    """Fit a head to both; sure labels count more, and each class as much as its share of the labels."""
    inputs_NF = torch.cat([features_NF, unlabelled_MF])
    known_N = torch.cat([labels_N, labels_N.new_full((len(unlabelled_MF),), NO_LABEL)])
    spread_N, weights_N = propagate_labels(inputs_NF, known_N, classes)
    shares_K = count_shares(labels_N, classes)
    mass_K = torch.zeros(classes).index_add_(0, spread_N, weights_N)
    weights_N = weights_N * (shares_K / mass_K.clamp_min(1e-12))[spread_N]
    mean_F = inputs_NF.mean(0)
    scale = (inputs_NF - mean_F).square().mean().sqrt().clamp(min=MIN_SCALE)
    scaled_NF = (inputs_NF - mean_F) / scale
    head = fit_logistic_regression(scaled_NF, spread_N, classes, PENALTY, weights_N=weights_N)
    weight_KF = head.weight_KF / scale
    offsets_K = adjustment * shares_K.log()
    return Head(weight_KF, head.bias_K - weight_KF @ mean_F - offsets_K)


def _hold_out(heads: list[FoldHead], features_NF: Tensor, labels_N: Tensor) -> HeldOut | None:
    if not heads:
        return None
    logits_MK = torch.cat([head(features_NF[index_M]) for index_M, head in heads])
    index_M, order_M = torch.cat([index_M for index_M, _ in heads]).sort()
    return HeldOut(logits_MK[order_M], labels_N[index_M])
