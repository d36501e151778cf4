"""Per-image losses: cross-entropy and focal loss, with label smoothing, class weights and soft targets."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from classifier.config.sections import LossConfig

# Weight of an auxiliary head's loss, as in C. Szegedy et al., "Going deeper with convolutions", 2015.
AUXILIARY_WEIGHT = 0.3
# Binary targets: an image is of each class that has more than this share of it.
BINARY_SHARE = 0.2


@dataclass(frozen=True)
class Loss:
    """losses_N of a batch. weights_K: float, or None for equal weights; gamma 0 is cross-entropy.

    offsets_K: float, added to the logits, or None (logit adjustment: A. K. Menon et al., "Long-tail learning via logit
    adjustment", 2021). is_binary: binary cross-entropy, the mean over the classes (R. Wightman et al., "ResNet strikes
    back", 2021, and timm's threshold for mixed images).

    To be summed over all images of a step and divided by their number. The loss of a mixed image is the mixture of the
    losses for each of its labels: weights and smoothing apply per label.
    """

    smoothing: float
    gamma: float
    weights_K: Tensor | None
    offsets_K: Tensor | None = None
    is_binary: bool = False

    def __call__(self, outputs: Tensor | tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """losses_N, float32. outputs: logits_NK, or (logits_NK, auxiliary logits...) of a model with auxiliary heads.

        targets: labels_N, int64 in [0, K), or targets_NK, float, each row with the sum 1.
        """
        if isinstance(outputs, tuple):
            main, *others = (self._loss(logits_NK, targets) for logits_NK in outputs)
            return main + AUXILIARY_WEIGHT * sum(others, torch.zeros_like(main))
        return self._loss(outputs, targets)

    def _loss(self, logits_NK: Tensor, targets: Tensor) -> Tensor:
        logits_NK = logits_NK.float()
        if self.offsets_K is not None:
            logits_NK = logits_NK + self.offsets_K
        if self.is_binary:
            return self._binary_loss(logits_NK, targets)
        if self.gamma == 0 and self.weights_K is None:
            return F.cross_entropy(logits_NK, targets, reduction="none", label_smoothing=self.smoothing)
        logs_NK = logits_NK.log_softmax(1)
        costs_NK = -logs_NK
        if self.gamma:
            # T.-Y. Lin et al., "Focal loss for dense object detection", 2017. Not below 1e-7: the slope of a root at 0
            # is infinite.
            costs_NK = costs_NK * (-torch.expm1(logs_NK)).clamp_min(1e-7) ** self.gamma
        if targets.is_floating_point():
            shares_NK = targets if self.weights_K is None else targets * self.weights_K
            weight_N, costs_N = shares_NK.sum(1), (shares_NK * costs_NK).sum(1)
        else:
            weight_N = torch.ones_like(costs_NK[:, 0]) if self.weights_K is None else self.weights_K[targets]
            costs_N = weight_N * costs_NK.gather(1, targets[:, None])[:, 0]
        if not self.smoothing:
            return costs_N
        # The image is weighted, not each class's share of the smoothing (as in torch), which would favour rare classes
        # with large weights for every image.
        return (1 - self.smoothing) * costs_N + self.smoothing * weight_N * costs_NK.mean(1)

    def _binary_loss(self, logits_NK: Tensor, targets: Tensor) -> Tensor:
        classes = logits_NK.shape[1]
        shares_NK = targets if targets.is_floating_point() else F.one_hot(targets, classes).to(logits_NK.dtype)
        on_NK = (shares_NK > BINARY_SHARE).to(logits_NK.dtype)
        smooth_NK = on_NK * (1 - self.smoothing) + self.smoothing / classes
        losses_N = F.binary_cross_entropy_with_logits(logits_NK, smooth_NK, reduction="none").mean(1)
        return losses_N if self.weights_K is None else losses_N * (shares_NK @ self.weights_K)


def build(config: LossConfig, *, class_counts_K: Tensor) -> Loss:
    """Build the loss from its settings. class_counts_K: training images per class, on the training device.

    Balanced weights have the same sum for each class, and mean 1 over the training images.
    """
    weights_K, offsets_K = None, None
    if config.adjustment:
        shares_K = class_counts_K.to(torch.float32).clamp_min(0.5) / class_counts_K.sum()
        offsets_K = config.adjustment * shares_K.log()
    if config.class_weights == "balanced":
        counts_K = class_counts_K.to(torch.float32)
        present = (counts_K > 0).sum()
        weights_K = torch.where(counts_K > 0, counts_K.sum() / (present * counts_K.clamp_min(1)), 1.0)
    gamma = config.gamma if config.name == "focal" else 0.0
    return Loss(config.smoothing, gamma, weights_K, offsets_K, is_binary=config.name == "bce")
