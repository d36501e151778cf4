"""Logistic regression on features, its L2 penalty chosen by cross-validation: a linear probe.

Multinomial, or, of ordered grades, the proportional odds model (models/ordinal_head.py); of several labels an image,
one binary regression for each label, with the same penalty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from classifier.config.sections import Task
from classifier.data.labels.label_sets import find_rarest
from classifier.inference.scorer import find_hits, gather_targets
from classifier.models.ordinal_head import log_probabilities
from classifier.runtime.eager_optimizer import LBFGS

# Strongest first, where cross-validation chooses; and where no class has two images.
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
DEFAULT_PENALTY = 0.1
# With more images a single fold is enough.
FOLDS, MAX_IMAGES_FOR_FOLDS = 5, 1000
MAX_ITERATIONS, TOLERANCE = 100, 1e-6
# Features that hardly vary are left as they are.
MIN_SCALE = 1e-6


@dataclass(frozen=True)
class HeldOut:
    """What models that had not seen them made of some or all of the images, those of `find_held_out`."""

    logits_MK: Tensor
    targets: Tensor
    """labels_M, or targets_MK."""

    @property
    def hits(self) -> Tensor:
        """is_hit_M, bool: of which images the class, or all labels, are right."""
        return find_hits(self.logits_MK, self.targets)

    @property
    def accuracy(self) -> float:
        return int(self.hits.sum()) / len(self.logits_MK)

    @property
    def loss(self) -> float:
        """Mean log loss, in nats."""
        return float(compute_log_loss(self.logits_MK, self.targets))


class Head(NamedTuple):
    """logits_NK = features_NF @ weight_KF.T + bias_K; of ordered grades, the parameters of an OrdinalHead: K is 1."""

    weight_KF: Tensor
    bias_K: Tensor
    gaps: Tensor | None = None

    @property
    def parameters(self) -> list[Tensor]:
        """Those that it has, in the order of the layer's."""
        return [one for one in self if one is not None]

    def __call__(self, features_NF: Tensor) -> Tensor:
        """Return logits_NK of the classes."""
        values_NK = features_NF @ self.weight_KF.T + self.bias_K
        return values_NK if self.gaps is None else log_probabilities(values_NK, self.gaps)


class FoldHead(NamedTuple):
    """The head of a fold: fitted to all images but those of index_M."""

    index_M: Tensor
    head: Head


@dataclass(frozen=True)
class LinearProbe:
    """held_out: by cross-validation with the same penalty, or None; folds: its heads."""

    head: Head
    penalty: float
    held_out: HeldOut | None
    folds: tuple[FoldHead, ...]


def fit_linear_probe(
    features_NF: Tensor,
    labels_N: Tensor,
    classes: int,
    adjustment: float = 0.0,
    task: Task = "multiclass",
    label_sets_MK: Tensor | None = None,
    units_N: Tensor | None = None,
) -> LinearProbe:
    """Fit logistic regression to features; the weights that are returned take them as they are.

    adjustment: strength of the logarithms of the classes' shares, or of the odds of labels, which are taken from the
    logits (post-hoc logit adjustment: A. K. Menon et al., "Long-tail learning via logit adjustment", 2021); not of
    ordered grades. label_sets_MK: where images have several labels; labels_N are its rows. units_N: Split.units_N.

    The features are centred and scaled as one: the variances of single ones are noise where images are few. The penalty
    of the highest cross-validated accuracy is chosen, then of the lowest log loss, by stratified folds; of several
    labels and of grades that of the lowest log loss. If no class has two images, the penalty is fixed, and nothing is
    known of its accuracy. Deterministic.
    """
    label_sets = None if label_sets_MK is None else label_sets_MK.numpy()
    strata_N = torch.from_numpy(find_rarest(labels_N.numpy(), classes, label_sets))
    targets = gather_targets(labels_N, label_sets_MK)
    mean_F = features_NF.mean(0)
    scale = (features_NF - mean_F).square().mean().sqrt().clamp(min=MIN_SCALE)
    scaled_NF = (features_NF - mean_F) / scale
    # With fewer images than features the weights lie in the span of the images: their coordinates in it are enough.
    basis_FR = torch.linalg.qr(scaled_NF.T).Q if len(scaled_NF) < scaled_NF.shape[1] else None
    inputs_NR = scaled_NF if basis_FR is None else scaled_NF @ basis_FR
    folds = _cross_validate(inputs_NR, targets, strata_N, units_N, classes, task)
    held_out = {one: _hold_out(heads, inputs_NR, targets) for one, heads in folds.items()}
    penalty = DEFAULT_PENALTY
    if held_out:
        penalty = max(held_out, key=lambda one: rank(held_out[one], task))
    fitted = fit_logistic_regression(inputs_NR, targets, classes, penalty, task=task)
    offsets_K = torch.zeros(1)
    if label_sets_MK is not None:
        offsets_K = adjustment * (targets.sum(0).clamp(0.5, len(targets) - 0.5) / len(targets)).logit()
    elif task != "ordinal":
        offsets_K = adjustment * (labels_N.bincount(minlength=classes).clamp_min(0.5) / len(labels_N)).log()

    def restore(head: Head) -> Head:
        weight_KF = (head.weight_KF if basis_FR is None else head.weight_KF @ basis_FR.T) / scale
        return head._replace(weight_KF=weight_KF, bias_K=head.bias_K - weight_KF @ mean_F - offsets_K)

    chosen = held_out.get(penalty)
    if chosen is not None:
        chosen = HeldOut(chosen.logits_MK - offsets_K, chosen.targets)
    heads = tuple(fold._replace(head=restore(fold.head)) for fold in folds.get(penalty, ()))
    return LinearProbe(restore(fitted), penalty, chosen, heads)


def rank(held_out: HeldOut, task: Task) -> tuple[float, float]:
    """Rank answers to images that were held out: higher is better. That all labels of an image are right says
    little of single ones, and that grades are right little of how far they are off."""
    return (0.0 if task in ("multilabel", "ordinal") else held_out.accuracy), -held_out.loss


def compute_log_loss(logits_NK: Tensor, targets: Tensor) -> Tensor:
    """Return the mean log loss, in nats, over images of labels_N, or over images and labels of targets_NK."""
    if targets.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits_NK, targets)
    return F.cross_entropy(logits_NK, targets)


def fit_logistic_regression(
    inputs_NF: Tensor,
    targets: Tensor,
    classes: int,
    penalty: float = 1e-2,
    start: Head | None = None,
    task: Task = "multiclass",
    weights_N: Tensor | None = None,
) -> Head:
    """Minimise mean log loss + penalty x squared weights by L-BFGS, from zero or `start`.

    targets: labels_N; or targets_NK, float, of images with several labels, each of which is a regression of its own.
    weights_N: of images of labels_N in the mean; all alike if None.
    """
    if start is None:
        rows = 1 if task == "ordinal" else classes
        gaps = inputs_NF.new_zeros(classes - 2) if task == "ordinal" else None
        start = Head(inputs_NF.new_zeros(rows, inputs_NF.shape[1]), inputs_NF.new_zeros(rows), gaps)
    head = Head(*(one.clone().requires_grad_() for one in start.parameters))
    optimizer = LBFGS(
        head.parameters, max_iter=MAX_ITERATIONS, tolerance_change=TOLERANCE, line_search_fn="strong_wolfe"
    )

    regressions = classes if targets.is_floating_point() else 1  # whose losses are summed

    def closure() -> float:
        optimizer.zero_grad()
        if weights_N is None:
            loss = regressions * compute_log_loss(head(inputs_NF), targets)
        else:
            losses_N = F.cross_entropy(head(inputs_NF), targets, reduction="none")
            loss = (weights_N * losses_N).sum() / weights_N.sum()
        loss = loss + penalty * head.weight_KF.square().sum()
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    return Head(*(one.detach() for one in head.parameters))


def _cross_validate(
    inputs_NF: Tensor, targets: Tensor, strata_N: Tensor, units_N: Tensor | None, classes: int, task: Task
) -> dict[float, list[FoldHead]]:
    """Return the heads of the folds by penalty; empty if no class has two images."""
    folds_N = assign_folds(strata_N, FOLDS, units_N)
    heads: dict[float, list[FoldHead]] = {}
    held_out_M = find_held_out(strata_N, units_N)
    for fold in folds_N[held_out_M].unique():
        is_held_N = folds_N == fold
        index_M = torch.nonzero(is_held_N)[:, 0]
        start = None
        for penalty in PENALTIES:
            start = fit_logistic_regression(inputs_NF[~is_held_N], targets[~is_held_N], classes, penalty, start, task)
            heads.setdefault(penalty, []).append(FoldHead(index_M, start))
    return heads


def _hold_out(heads: Sequence[FoldHead], inputs_NF: Tensor, targets: Tensor) -> HeldOut:
    """Ask each head about the images that it was not fitted to, in the order of the images."""
    logits_MK = torch.cat([fold.head(inputs_NF[fold.index_M]) for fold in heads])
    index_M, order_M = torch.cat([fold.index_M for fold in heads]).sort()
    return HeldOut(logits_MK[order_M], targets[index_M])


def find_held_out(strata_N: Tensor, units_N: Tensor | None = None) -> Tensor:
    """Return index_M of the images that cross-validation holds out: of many a fold, of few all but single ones.

    strata_N: Dataset.strata; units_N: Split.units_N of the training images.
    """
    folds_N = assign_folds(strata_N, FOLDS, units_N)
    return torch.nonzero(folds_N >= 0 if len(strata_N) <= MAX_IMAGES_FOR_FOLDS else folds_N == 0)[:, 0]


def describe_folds(images: int, classes: int) -> str:
    """Say by which folds of so many training images a probe is validated: words that follow a verb or a score."""
    if images > MAX_IMAGES_FOR_FOLDS:
        return f"by 1 of {FOLDS} folds of the training images"
    has_large_class = images > (FOLDS - 1) * classes  # else there may be fewer folds
    return f"by {f'{FOLDS} ' if has_large_class else ''}folds of the training images"


def assign_folds(strata_N: Tensor, folds: int, units_N: Tensor | None = None) -> Tensor:
    """Return a fold in [0, folds) of each image, in turns within its class; -1 for the only image of a class.

    units_N: Split.units_N. Images of a unit share a fold: the one with the fewest images of the unit's first class, in
    which the largest units come first. The only unit of a class is in none, -1.
    """
    if units_N is not None:
        return _assign_units(strata_N, folds, units_N)
    folds_N = torch.full_like(strata_N, -1)
    for label in strata_N.unique().tolist():
        (indices_M,) = torch.nonzero(strata_N == label, as_tuple=True)
        if len(indices_M) > 1:
            folds_N[indices_M] = torch.arange(len(indices_M)) % min(folds, len(indices_M))
    return folds_N


def _assign_units(strata_N: Tensor, folds: int, units_N: Tensor) -> Tensor:
    _, unit_N, sizes_U = units_N.unique(return_inverse=True, return_counts=True)
    first_U = torch.full_like(sizes_U, len(units_N)).scatter_reduce(0, unit_N, torch.arange(len(units_N)), "amin")
    stratum_U, fold_U = strata_N[first_U], torch.full_like(sizes_U, -1)
    for label in stratum_U.unique().tolist():
        (own_V,) = torch.nonzero(stratum_U == label, as_tuple=True)
        if len(own_V) == 1:
            continue
        own_V = own_V[first_U[own_V].argsort()]
        own_V = own_V[sizes_U[own_V].argsort(descending=True, stable=True)]
        images_F = [0] * min(folds, len(own_V))
        for unit, size in zip(own_V.tolist(), sizes_U[own_V].tolist(), strict=True):
            fold_U[unit] = fold = images_F.index(min(images_F))
            images_F[fold] += size
    return fold_U[unit_N]
