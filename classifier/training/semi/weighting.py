"""How much each unlabelled image counts, by the teacher's probabilities: SoftMatch and FreeMatch.

Their running statistics are all their state. The decay of these rises with the steps, as that of the averaged weights,
so that short trainings forget the first answers, too.
"""

from typing import Any, Literal, Protocol

import torch
from torch import Tensor

DECAY = 0.999
# SoftMatch: an answer one standard deviation below the mean confidence counts exp(-N_SIGMA**2 / 2) of a sure one.
N_SIGMA = 2.0
# FreeMatch: weight of the fairness of classes, as in its experiments on CIFAR-10.
FAIRNESS = 0.01


class Weighting(Protocol):
    """What a step asks of a method."""

    def weigh(self, probabilities_NK: Tensor, step: int) -> Tensor:
        """Return weights_N in [0, 1], after the statistics have taken these answers in."""
        ...

    def align(self, probabilities_NK: Tensor) -> Tensor:
        """Return the answers, of which the largest become labels: as they are, or with other shares of the classes."""
        ...

    def penalize(self, logits_NK: Tensor) -> Tensor | None:
        """Return what is added to the loss of these logits of strongly augmented images; None for nothing."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def decay_at(step: int) -> float:
    """Return the decay of the running statistics at a step, counted from 0."""
    return min(DECAY, (1 + step) / (10 + step))


class _Statistics:
    """Running statistics that a checkpoint keeps. names: of the tensors."""

    names: tuple[str, ...] = ()

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).clone() for name in self.names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.names:
            getattr(self, name).copy_(state[name])


class SoftMatch(_Statistics):
    """A truncated Gaussian of the confidence, with uniform alignment (H. Chen et al., "SoftMatch: addressing the
    quantity-quality trade-off in semi-supervised learning", 2023).

    Probabilities are divided by their running mean, so that rare answers count as frequent ones do; an answer of more
    than the mean confidence counts fully. Labels have the classes' shares of the labelled images in the long run
    (distribution alignment: D. Berthelot et al., "ReMixMatch", 2020), else a few classes would take all.
    """

    names = ("mean", "variance", "marginals_K")

    def __init__(self, classes: int, device: torch.device, shares_K: Tensor | None = None) -> None:
        self.shares_K = torch.full((classes,), 1 / classes, device=device) if shares_K is None else shares_K.to(device)
        self.mean = torch.tensor(1 / classes, device=device)
        self.variance = torch.tensor(1.0, device=device)
        self.marginals_K = torch.full((classes,), 1 / classes, device=device)

    def weigh(self, probabilities_NK: Tensor, step: int) -> Tensor:
        share = 1 - decay_at(step)
        self.marginals_K.lerp_(probabilities_NK.mean(0), share)
        aligned_NK = probabilities_NK / self.marginals_K.clamp_min(1e-6)
        best_N = (aligned_NK / aligned_NK.sum(1, keepdim=True)).amax(1)
        self.mean.lerp_(best_N.mean(), share)
        self.variance.lerp_(best_N.var(correction=min(1, len(best_N) - 1)), share)
        below_N = (best_N - self.mean).clamp_max(0)
        return torch.exp(-below_N.square() / (2 * self.variance.clamp_min(1e-12) / N_SIGMA**2))

    def align(self, probabilities_NK: Tensor) -> Tensor:
        return probabilities_NK * (self.shares_K / self.marginals_K.clamp_min(1e-6))

    def penalize(self, logits_NK: Tensor) -> Tensor | None:
        return None


class FreeMatch(_Statistics):
    """Thresholds of each class that adapt to the model, and fairness of classes (Y. Wang et al., "FreeMatch:
    self-adaptive thresholding for semi-supervised learning", 2023)."""

    names = ("threshold", "means_K", "histogram_K")

    def __init__(self, classes: int, device: torch.device, shares_K: Tensor | None = None) -> None:
        self.threshold = torch.tensor(1 / classes, device=device)
        self.means_K = torch.full((classes,), 1 / classes, device=device)
        self.histogram_K = torch.full((classes,), 1 / classes, device=device)

    def weigh(self, probabilities_NK: Tensor, step: int) -> Tensor:
        share = 1 - decay_at(step)
        best_N, labels_N = probabilities_NK.max(1)
        self.threshold.lerp_(best_N.mean(), share)
        self.means_K.lerp_(probabilities_NK.mean(0), share)
        self.histogram_K.lerp_(_shares(labels_N, len(self.means_K)), share)
        thresholds_K = self.threshold * self.means_K / self.means_K.max()
        return (best_N >= thresholds_K[labels_N]).to(best_N.dtype)

    def align(self, probabilities_NK: Tensor) -> Tensor:
        return probabilities_NK

    def penalize(self, logits_NK: Tensor) -> Tensor | None:
        """FAIRNESS times the negative cross-entropy of what is expected and found of each class."""
        if len(logits_NK) == 0:
            return None
        probabilities_NK = logits_NK.softmax(1)
        found_K = _shares(probabilities_NK.argmax(1), len(self.means_K))
        expected_K = _normalise(_divide(self.means_K, self.histogram_K))
        own_K = _normalise(_divide(probabilities_NK.mean(0), found_K))
        return FAIRNESS * (expected_K * (own_K + 1e-12).log()).sum()


def _shares(labels_N: Tensor, classes: int) -> Tensor:
    counts_K = torch.zeros(classes, device=labels_N.device).index_add_(0, labels_N, torch.ones_like(labels_N).float())
    return counts_K / max(1, len(labels_N))


def _divide(values_K: Tensor, by_K: Tensor) -> Tensor:
    """Return the quotient, 0 where the divisor is."""
    return torch.where(by_K > 0, values_K / by_K.clamp_min(1e-12), 0.0)


def _normalise(values_K: Tensor) -> Tensor:
    return values_K / values_K.sum().clamp_min(1e-12)


METHODS: dict[Literal["softmatch", "freematch"], type[SoftMatch | FreeMatch]] = {
    "softmatch": SoftMatch,
    "freematch": FreeMatch,
}
