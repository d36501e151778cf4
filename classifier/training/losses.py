"""Per-image losses, of one class or of several labels, with label smoothing, class weights and soft targets."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from classifier.config.sections import LossConfig, Task
from classifier.errors import ConfigError

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
        return _add_auxiliary(self._loss, outputs, targets)

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


@dataclass(frozen=True)
class MultilabelLoss:
    """losses_N of images with any number of labels: the mean over the labels of the loss of a yes or no for each.

    gamma_on, gamma_off, clip: the asymmetric loss (T. Ridnik et al., "Asymmetric loss for multi-label classification",
    2021); with no clip, equal gammas are the focal loss, and gammas of 0 binary cross-entropy. weights_2K: of labels
    that an image lacks, and that it has, or None. offsets_K: added to the logits, or None. smoothing: the share of a
    target that is one half.
    """

    smoothing: float
    gamma_on: float
    gamma_off: float
    clip: float
    weights_2K: Tensor | None = None
    offsets_K: Tensor | None = None

    def __call__(self, outputs: Tensor | tuple[Tensor, ...], targets_NK: Tensor) -> Tensor:
        """losses_N, float32. outputs: as for Loss. targets_NK: float in [0, 1], of a mixed image the mixture."""
        return _add_auxiliary(self._loss, outputs, targets_NK)

    def _loss(self, logits_NK: Tensor, targets_NK: Tensor) -> Tensor:
        logits_NK = logits_NK.float()
        if self.offsets_K is not None:
            logits_NK = logits_NK + self.offsets_K
        on_NK = targets_NK * (1 - self.smoothing) + self.smoothing / 2
        costs_on_NK, costs_off_NK = -F.logsigmoid(logits_NK), -F.logsigmoid(-logits_NK)
        if self.clip:
            costs_off_NK = -(1 - logits_NK.sigmoid() + self.clip).clamp_max(1).log()
        # Not below 1e-7: the slope of a root at 0 is infinite.
        if self.gamma_on:
            costs_on_NK = costs_on_NK * (-logits_NK).sigmoid().clamp_min(1e-7) ** self.gamma_on
        if self.gamma_off:
            costs_off_NK = costs_off_NK * (logits_NK.sigmoid() - self.clip).clamp_min(1e-7) ** self.gamma_off
        if self.weights_2K is not None:
            costs_off_NK, costs_on_NK = costs_off_NK * self.weights_2K[0], costs_on_NK * self.weights_2K[1]
        return (on_NK * costs_on_NK + (1 - on_NK) * costs_off_NK).mean(1)


def _add_auxiliary(
    loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor | tuple[Tensor, ...], targets: Tensor
) -> Tensor:
    """Return losses_N of a model, with those of its auxiliary heads where it has some."""
    if not isinstance(outputs, tuple):
        return loss(outputs, targets)
    main_N, *others = (loss(logits_NK, targets) for logits_NK in outputs)
    return main_N + AUXILIARY_WEIGHT * sum(others, torch.zeros_like(main_N))


def build(
    config: LossConfig, *, class_counts_K: Tensor, task: Task = "multiclass", images: int = 0
) -> Loss | MultilabelLoss:
    """Build the loss from its settings. class_counts_K: training images per class, on the training device.

    images: how many there are in all, where they have several labels. Balanced weights have the same sum for each
    class, and mean 1 over the training images; of a label, for the images that have it and for those that lack it.
    ConfigError if the loss is not one of the task.
    """
    if task == "multilabel":
        return _build_multilabel(config, class_counts_K, images)
    if config.name == "asymmetric":
        raise ConfigError(
            "loss.name asymmetric is for images with several labels: give --loss.name focal, or leave it out"
        )
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


def _build_multilabel(config: LossConfig, class_counts_K: Tensor, images: int) -> MultilabelLoss:
    gamma_on, gamma_off, clip = 0.0, 0.0, 0.0
    if config.name == "focal":
        gamma_on = gamma_off = config.gamma
    elif config.name == "asymmetric":
        gamma_on, gamma_off, clip = config.gamma_on, config.gamma_off, config.clip
    counts_2K = torch.stack([images - class_counts_K, class_counts_K]).to(torch.float32)
    weights_2K, offsets_K = None, None
    if config.class_weights == "balanced":
        weights_2K = torch.where(counts_2K > 0, images / (2 * counts_2K.clamp_min(1)), 1.0)
    if config.adjustment:
        logs_2K = counts_2K.clamp_min(0.5).log()
        offsets_K = config.adjustment * (logs_2K[1] - logs_2K[0])
    return MultilabelLoss(config.smoothing, gamma_on, gamma_off, clip, weights_2K, offsets_K)
