"""Distillation: a student learns a teacher's probabilities (G. Hinton et al., "Distilling the knowledge in a neural
network", 2015). Both see the same augmented images (L. Beyer et al., "Knowledge distillation: a good teacher is patient
and consistent", 2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classifier.inference.scorer import Scorer
from classifier.training.losses import Loss


class TaughtTargets(NamedTuple):
    """The targets of a loss, as labels_N or targets_NK, and what the teacher says of the same images."""

    targets: Tensor
    teacher_MK: Tensor
    """Log-probabilities, at the temperature of the distillation."""
    known_M: Tensor | None = None
    """Indices of the images that they are of; None: all."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """One or more trained models with their scorers; the probabilities of several are averaged."""

    members: Sequence[tuple[nn.Module, Scorer]]
    classes: Sequence[int] | None = None
    """The student's classes that it knows, in its order, where the student has more; None: the same."""

    def teach(self, images_NCHW: Tensor, targets: Tensor, temperature: float) -> TaughtTargets:
        """Return what it says of a batch; only of images whose class it knows, where the student has more."""
        if self.classes is None:
            return TaughtTargets(targets, self.predict(images_NCHW, temperature))
        classes_J = torch.tensor(self.classes, device=targets.device)
        known_M = torch.isin(targets, classes_J).nonzero()[:, 0]
        return TaughtTargets(targets, self.predict(images_NCHW[known_M], temperature), known_M)

    def predict(self, images_NCHW: Tensor, temperature: float) -> Tensor:
        """Return log-probabilities_NK of augmented images, softened by the temperature. Their logits are divided by it.

        images_NCHW: uint8, or float in [0, 1], of any size: they are resized to that of each member.
        """
        parts = []
        with torch.no_grad():
            for model, scorer in self.members:
                model.eval()
                own_NCHW = images_NCHW
                if images_NCHW.shape[-1] != scorer.size:
                    own_NCHW = images_NCHW.float() / (1 if images_NCHW.is_floating_point() else 255)
                    own_NCHW = F.interpolate(own_NCHW, (scorer.size, scorer.size), mode="bilinear", antialias=True)
                parts.append((scorer.forward(model, own_NCHW) / temperature).log_softmax(1))
            return torch.stack(parts).logsumexp(0).log_softmax(1)


@dataclass(frozen=True)
class DistillationLoss:
    """losses_N: `share` of the divergence from the teacher, the rest of the loss for the labels.

    The divergence is multiplied by the squared temperature, so that its gradients do not shrink with it.
    """

    loss: Loss
    share: float
    temperature: float

    def __call__(self, outputs: Any, targets: TaughtTargets) -> Tensor:
        divergence_N = _measure_divergence(_logits(outputs), targets.teacher_MK, self.temperature)
        losses_N = self.share * divergence_N
        return losses_N if self.share == 1 else losses_N + (1 - self.share) * self.loss(outputs, targets.targets)


@dataclass(frozen=True, eq=False)
class ReplayLoss:
    """losses_N: the loss for the labels, and, of images of classes that the teacher knows, the divergence from it.

    That is over the teacher's classes alone: it says nothing of the others. So a model learns new classes while what it
    said of the old ones is replayed (DER++: P. Buzzega et al., "Dark experience for general continual learning", 2020;
    with probabilities at a temperature in place of logits, whose squared error made trainings diverge, and of the model
    before the update in place of those that were stored). share: as in DistillationLoss.
    """

    loss: Loss
    share: float
    temperature: float
    classes_J: Tensor

    def __call__(self, outputs: Any, targets: TaughtTargets) -> Tensor:
        losses_N = self.loss(outputs, targets.targets)
        assert targets.known_M is not None
        logits_MJ = _logits(outputs)[targets.known_M][:, self.classes_J]
        divergence_M = _measure_divergence(logits_MJ, targets.teacher_MK, self.temperature)
        weight = self.share / (1 - self.share)
        return losses_N.index_add(0, targets.known_M, divergence_M.to(losses_N), alpha=weight)


def make_loss(loss: Loss, teacher: Teacher, share: float, temperature: float, device: torch.device) -> Any:
    """Return the loss of a training with a teacher."""
    if teacher.classes is None:
        return DistillationLoss(loss, share, temperature)
    return ReplayLoss(loss, share, temperature, torch.tensor(teacher.classes, device=device))


def _logits(outputs: Any) -> Tensor:
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _measure_divergence(logits_NK: Tensor, teacher_NK: Tensor, temperature: float) -> Tensor:
    student_NK = (logits_NK.float() / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(student_NK, teacher_NK, reduction="none", log_target=True).sum(1)
