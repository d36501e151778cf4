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
    teacher_NK: Tensor
    """Log-probabilities, at the temperature of the distillation."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """One or more trained models with their scorers; the probabilities of several are averaged."""

    members: Sequence[tuple[nn.Module, Scorer]]

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
        logits_NK = outputs[0] if isinstance(outputs, tuple) else outputs
        student_NK = (logits_NK.float() / self.temperature).log_softmax(1)
        divergence_N = F.kl_div(student_NK, targets.teacher_NK, reduction="none", log_target=True).sum(1)
        losses_N = self.share * self.temperature**2 * divergence_N
        return losses_N if self.share == 1 else losses_N + (1 - self.share) * self.loss(outputs, targets.targets)
