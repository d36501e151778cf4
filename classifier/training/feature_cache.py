"""A cache of a frozen backbone's features: the backbone runs once per image and view, and only the head is trained.

A view is one random augmentation of an image. With augment.views V, epoch e uses view e % V of each image, so epochs
after the first V cost only the head. Linear heads on frozen features: Kornblith et al., "Do better ImageNet models
transfer better?", 2019. That a few views per image give most of the gain of augmentation was measured here (LOG.md).
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classifier.augment import policy
from classifier.config.experiment import Experiment
from classifier.data import loader
from classifier.data.dataset import Dataset, Split
from classifier.errors import ConfigError, ModelError
from classifier.inference.features import extract_batch_features, load_features, save_features, weights_identity
from classifier.inference.scorer import Scorer, gather_targets
from classifier.models.fusion.fusion_net import Fusion, FusionNet
from classifier.models.head import DropoutLinear, head_modules
from classifier.runtime import counter_rng
from classifier.runtime.distributed import ProcessGroup

# Maximum memory for cached features.
MAX_BYTES = 8 << 30
# Tolerance between the logits of the head on features and those of the full model.
LOGIT_TOLERANCE = 1e-2


class Head(nn.Module):
    """The head of `model` as a module: logits_NK of features_NF, and of columns_NF where these join the image, as all
    that comes after the backbone is a head there. It shares the model's parameters.
    """

    def __init__(self, model: nn.Module, dropout: float) -> None:
        super().__init__()
        self.layer = model.fusion if isinstance(model, FusionNet) else next(iter(head_modules(model).values()))
        has_dropout = isinstance(self.layer, (DropoutLinear, Fusion)) or getattr(self.layer, "p", 0.0)
        self.dropout = 0.0 if has_dropout else dropout

    def forward(self, features_NF: Tensor, columns_NF: Tensor | None = None) -> Tensor:
        features_NF = F.dropout(features_NF, self.dropout, self.training)
        return self.layer(features_NF) if columns_NF is None else self.layer(features_NF, columns_NF)


class FeatureCache:
    """A ForwardPath through cached features: those of each view of the training images, and of the validation images.

    folder: where complete views are stored for other trainings on these images, if anywhere. experiment: resolved.
    ConfigError if the features do not fit into memory; ModelError if the model's head is not its last layer.
    """

    def __init__(
        self, experiment: Experiment, dataset: Dataset, model: nn.Module, scorer: Scorer, folder: Path | None
    ) -> None:
        self.experiment, self.dataset, self.model, self.scorer = experiment, dataset, model, scorer
        self.views, self.folder = experiment.views, folder
        self.head = Head(model, experiment.model.dropout)
        width, images = self._check_head(), len(dataset.train)
        needed = 4 * self.views * images * width
        if needed > MAX_BYTES:
            raise ConfigError(
                f"augment.views {self.views}: the features of {images:,} images would take {needed / 1e9:.0f} GB of "
                f"memory, more than {MAX_BYTES / 1e9:.0f}: set --augment.views {MAX_BYTES * self.views // needed}"
            )
        self.features_VNF = torch.zeros(self.views, images, width)
        self.is_cached_VN = torch.zeros(self.views, images, dtype=torch.bool)
        self.validation_batches: list[tuple[Tensor, Tensor | None, Tensor]] = []
        """features_WNF (the image, with test_flip also its mirror image), columns_NF where these join the image, and
        targets per batch of this rank."""
        self.stored_views: set[int] = set()
        """Views that are complete on disk."""

    @property
    def module(self) -> nn.Module:
        return self.head

    def training_images(self, epoch: int) -> Split:
        """The training images for the epoch's loader, without pixels if all of the view's features are cached."""
        view, split = epoch % self.views, self.dataset.train
        self._load_view(view)
        if not self.is_cached_VN[view].all():
            return split
        nothing_NCHW = torch.empty(len(split), 0, 1, 1, dtype=torch.uint8)
        return dataclasses.replace(split, images_NCHW=nothing_NCHW, larger_NCHW=None)

    def set_train_mode(self, network: nn.Module) -> None:
        network.train()

    def forward(self, network: nn.Module, batch: loader.Batch, targets: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """logits_NK of the head for a batch of training_images, and its targets."""
        return self.head_logits(network, self.batch_features(batch, epoch), batch.columns_NF), targets

    def batch_features(self, batch: loader.Batch, epoch: int) -> Tensor:
        """features_NF of a batch of training_images, on the device; runs the backbone on those not cached yet."""
        view, device = epoch % self.views, self.scorer.device
        missing_N = ~self.is_cached_VN[view, batch.indices_N]
        if missing_N.any():
            indices_N = batch.indices_N[missing_N].to(device)
            images_NCHW = batch.images_NCHW[missing_N].to(device)
            key = counter_rng.key(self.experiment.seed, view)
            images_NCHW = policy.augment(
                images_NCHW, self.experiment.augment, key=key, positions_N=indices_N, size=self.dataset.size
            )
            features_NF, _ = extract_batch_features(self.model.eval(), self.scorer, images_NCHW)
            self.features_VNF[view, batch.indices_N[missing_N]] = features_NF.cpu()
            self.is_cached_VN[view, batch.indices_N[missing_N]] = True
            self.head.train()  # the head is a part of the model, which eval() has just put into eval mode
        return self.features_VNF[view, batch.indices_N].to(device, non_blocking=True)

    def end_epoch(self, epoch: int, group: ProcessGroup) -> None:
        """Give every rank the features that any rank has computed for the epoch's view; store a complete view."""
        view = epoch % self.views
        is_cached_N, features_NF = self.is_cached_VN[view], self.features_VNF[view]
        if group.world_size > 1 and group.all_reduce_max(int(not is_cached_N.all())):
            count_N = group.all_reduce_sum(is_cached_N.float()).cpu()
            total_NF = group.all_reduce_sum(features_NF * is_cached_N[:, None]).cpu()
            features_NF.copy_(total_NF / count_N.clamp(min=1)[:, None])
            is_cached_N.copy_(count_N > 0)
        path = self._path(f"view{view}")
        if path is not None and view not in self.stored_views and group.is_first and is_cached_N.all():
            self.stored_views.add(view)
            save_features({"features": features_NF}, path)

    def validate(self, model: nn.Module, group: ProcessGroup) -> dict[str, Any]:
        """Compute the validation scores of a model with this backbone, whose head may differ."""
        head = Head(model.eval(), 0.0)
        if not self.validation_batches:
            self.validation_batches = list(self._compute_validation_batches(group))
        batches = (
            (self._predict(head, features_WNF, columns_NF), targets)
            for features_WNF, columns_NF, targets in self.validation_batches
        )
        return self.scorer.score(batches, group)

    @torch.no_grad()
    def _predict(self, head: nn.Module, features_WNF: Tensor, columns_NF: Tensor | None) -> Tensor:
        """log_probabilities_NK of images, their views averaged."""
        logits = [self.head_logits(head, features_NF, columns_NF) for features_NF in features_WNF]
        log_probabilities_WNK = self.scorer.log_probabilities(torch.stack(logits))
        return log_probabilities_WNK.logsumexp(0) - math.log(len(features_WNF))

    def head_logits(self, head: nn.Module, features_NF: Tensor, columns_NF: Tensor | None = None) -> Tensor:
        """logits_NK, float32, computed in the scorer's precision."""
        if columns_NF is not None:
            columns_NF = columns_NF.to(self.scorer.device, non_blocking=True)
        with self.scorer.autocast():
            return head(features_NF, columns_NF).float()

    def _compute_validation_batches(self, group: ProcessGroup) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        path = self._path("validation") if group.world_size == 1 else None
        stored = (load_features(path) if path is not None else None) or {}
        features: dict[str, Tensor] = {}
        for batch in loader.evaluation_batches(
            self.dataset.validation, batch=self.scorer.batch_size, rank=group.rank, world=group.world_size
        ):
            if len(batch.labels_N):  # with more ranks than images a shard is empty
                step = str(batch.step)
                # The clone has the memory alignment of computed features: products are equal to the last bit.
                features[step] = (
                    stored[step].clone() if step in stored else self._validation_features(batch.images_NCHW)
                )
                targets = gather_targets(batch.labels_N, self.dataset.label_sets_MK)
                yield features[step].to(self.scorer.device), batch.columns_NF, targets.to(self.scorer.device)
        if path is not None and not stored:
            save_features(features, path)

    def _validation_features(self, images_NCHW: Tensor) -> Tensor:
        """features_WNF of images without augmentation, with test_flip also of the mirrored images; on the CPU."""
        images_NCHW = images_NCHW.to(self.scorer.device)
        views = [images_NCHW, images_NCHW.flip(-1)] if self.scorer.test_flip else [images_NCHW]
        return torch.stack([extract_batch_features(self.model.eval(), self.scorer, view)[0].cpu() for view in views])

    def _check_head(self) -> int:
        """Return the number of features. ModelError if the head on them does not give the model's logits."""
        images_NCHW = self.dataset.train.images_NCHW[:2].to(self.scorer.device)
        features_NF, logits_NK = extract_batch_features(self.model.eval(), self.scorer, images_NCHW)
        with torch.no_grad():
            head_NK = self.head_logits(self.head.eval(), features_NF)
        tolerance = LOGIT_TOLERANCE
        if head_NK.shape != logits_NK.shape or not torch.allclose(head_NK, logits_NK, rtol=tolerance, atol=tolerance):
            raise ModelError(
                f"augment.views: the last layer of {self.experiment.model.name} is not the only layer after its "
                "features, which cannot be cached: set --augment.views 0, and --train.epochs to about 15"
            )
        return features_NF.shape[1]

    def _load_view(self, view: int) -> None:
        """Load the view from disk, if it is there; a refit has more images, of which the first ones are stored."""
        path, is_cached_N = self._path(f"view{view}"), self.is_cached_VN[view]
        if path is None or is_cached_N.all():
            return
        if (stored := load_features(path)) is not None:
            features_NF = stored["features"][: len(is_cached_N)]
            self.features_VNF[view, : len(features_NF)] = features_NF
            is_cached_N[: len(features_NF)] = True
            if is_cached_N.all():
                self.stored_views.add(view)

    @functools.cached_property
    def _key(self) -> str:
        """Hash of the backbone and its input. A dataset merged with its validation images for a refit keeps its
        fingerprint and its first images, and so shares the cache."""
        model, augment = self.experiment.model, dataclasses.replace(self.experiment.augment, views=0)
        settings = (model.name, model.norm, model.stem, weights_identity(model.weights), self.dataset.fingerprint)
        settings += (self.scorer.size, self.scorer.precision, self.experiment.seed, augment)
        if self.dataset.train.larger_NCHW is not None:
            settings += (self.dataset.train.larger_NCHW.shape[-1],)
        return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{self._key}-{name}.safetensors"
