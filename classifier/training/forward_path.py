"""How a training step gets from a batch to logits: images through the full model, or cached features through the head.

`FullModelPath` is the one, `feature_cache.FeatureCache` the other; `TrainState` picks one whenever the backbone is
frozen or unfrozen.
"""

import functools
from typing import Any, Protocol

from torch import Tensor, nn

from classifier import models
from classifier.augment import policy
from classifier.config.experiment import Experiment
from classifier.data import loader
from classifier.data.dataset import Dataset, Split
from classifier.inference.scorer import Scorer
from classifier.runtime import counter_rng
from classifier.runtime.distributed import ProcessGroup
from classifier.training import image_size
from classifier.training.distillation import Teacher
from classifier.training.int8_forward import forward_in_int8


class ForwardPath(Protocol):
    """What the training loop needs from either path. `network` is `module`, wrapped for gradient exchange."""

    @property
    def module(self) -> nn.Module:
        """The part of the model that a step runs forward and backward."""
        ...

    def training_images(self, epoch: int) -> Split:
        """The split for the epoch's loader."""
        ...

    def set_train_mode(self, network: nn.Module) -> None:
        """Put the network into train mode; a frozen backbone stays in eval mode."""
        ...

    def forward(self, network: nn.Module, batch: loader.Batch, targets: Tensor, epoch: int) -> tuple[Any, Any]:
        """The network's outputs for a batch, and the targets of the loss. targets: labels_N, or, of several labels an
        image, targets_NK; on the device."""
        ...

    def validate(self, model: nn.Module, group: ProcessGroup) -> dict[str, Any]:
        """The validation scores of `model` (its backbone is the trained one), on every rank."""
        ...

    def end_epoch(self, epoch: int, group: ProcessGroup) -> None:
        """Called on every rank after the epoch's last step."""
        ...


class FullModelPath:
    """Augmented images through the full model."""

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset,
        model: nn.Module,
        scorer: Scorer,
        *,
        is_backbone_frozen: bool,
        teacher: Teacher | None = None,
    ) -> None:
        self.experiment, self.dataset, self.module, self.scorer = experiment, dataset, model, scorer
        self.is_backbone_frozen, self.teacher = is_backbone_frozen, teacher

    def training_images(self, epoch: int) -> Split:
        return self.dataset.train

    def set_train_mode(self, network: nn.Module) -> None:
        network.train()
        if self.is_backbone_frozen:
            models.set_frozen(self.module, True)  # train() has put its batch norms into train mode
        elif self.experiment.model.freeze in ("statistics", "early"):
            models.freeze_statistics(self.module)

    def forward(self, network: nn.Module, batch: loader.Batch, targets: Tensor, epoch: int) -> tuple[Any, Any]:
        key, config = counter_rng.key(self.experiment.seed, epoch), self.experiment.augment
        images_NCHW = batch.images_NCHW.to(self.scorer.device, non_blocking=True)
        positions_N = batch.positions_N.to(self.scorer.device, non_blocking=True)
        size = image_size.size_at(
            self.experiment.schedule, size=self.dataset.size, epoch=epoch, epochs=self.experiment.train.epochs
        )
        images_NCHW = policy.augment(images_NCHW, config, key=key, positions_N=positions_N, size=size)
        images_NCHW, targets = policy.mix_batch(
            images_NCHW, targets, config, classes=len(self.dataset.class_names), key=key, positions_N=positions_N
        )
        run: Any = functools.partial(forward_in_int8, network) if self.experiment.train.int8 else network
        outputs = self.scorer.forward(run, images_NCHW, batch.columns_NF)
        if self.teacher is None:
            return outputs, targets
        return outputs, self.teacher.teach(images_NCHW, targets, self.experiment.loss.distill_temperature)

    def validate(self, model: nn.Module, group: ProcessGroup) -> dict[str, Any]:
        return self.scorer.compute_scores(model, self.dataset.validation, group, self.dataset.label_sets_MK)

    def end_epoch(self, epoch: int, group: ProcessGroup) -> None:
        pass
