"""What a frozen backbone sees in images, kept: the head learns from that, and the backbone runs once an image and view.

A view is an augmentation of an image. With augment.views V, epoch e shows view e % V of each image, so that epochs
after the first V cost the head alone. That frozen features are worth keeping: Kornblith et al., "Do better ImageNet
models transfer better?", 2019, who fit linear heads on them; that a few views of each image make most of the gain of
augmentation was measured here (LOG.md).
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
from safetensors.torch import load_file
from torch import Tensor, nn

from classifier.augment import policy
from classifier.config.experiment import Experiment
from classifier.data import loader
from classifier.data.dataset import Dataset, Split
from classifier.errors import ConfigError, ModelError
from classifier.inference.features import extract_batch_features, save_features, weights_identity
from classifier.inference.scorer import Scorer
from classifier.metrics.confusion import ConfusionMatrix
from classifier.models.head import DropoutLinear, head_modules
from classifier.runtime import counter_rng as counter
from classifier.runtime.distributed import ProcessGroup

# Bytes of memory that views may take.
MOST = 8 << 30
# How near the head's own answer must come to the model's.
CLOSE = 1e-2


class Head(nn.Module):
    """What learns while the backbone of `model` is frozen: logits_NK of features_NF. Its parameters are the model's."""

    def __init__(self, model: nn.Module, dropout: float) -> None:
        super().__init__()
        self.layer = next(iter(head_modules(model).values()))
        self.dropout = 0.0 if isinstance(self.layer, DropoutLinear) else dropout

    def forward(self, features_NF: Tensor) -> Tensor:
        return self.layer(F.dropout(features_NF, self.dropout, self.training))


class FeatureCache:
    """The views of a training's images, and its validation images, as the frozen backbone of `model` sees them.

    folder: where whole views stay for other trainings of these images, if anywhere. experiment: resolved. ConfigError
    where memory does not hold the views; ModelError where the model's answer is not that of its head.
    """

    def __init__(
        self, experiment: Experiment, dataset: Dataset, model: nn.Module, scorer: Scorer, folder: Path | None
    ) -> None:
        self.experiment, self.dataset, self.model, self.scorer = experiment, dataset, model, scorer
        self.views, self.folder = experiment.views, folder
        self.head = Head(model, experiment.model.dropout)
        width, images = self._width(), len(dataset.train)
        room = 4 * self.views * images * width
        if room > MOST:
            raise ConfigError(
                f"augment.views {self.views}: what the backbone sees in {images:,} images would take {room / 1e9:.0f} "
                f"GB of memory, more than {MOST / 1e9:.0f}: set --augment.views {MOST * self.views // room}"
            )
        self.features_VNF = torch.zeros(self.views, images, width)
        self.is_there_VN = torch.zeros(self.views, images, dtype=torch.bool)
        self.held: list[tuple[Tensor, Tensor]] = []
        """features_WNF, a view and its mirror image, and labels_N of each batch of this rank's validation images."""
        self.kept: set[int] = set()
        """Views that are whole on disk."""

    @property
    def module(self) -> nn.Module:
        return self.head

    def training_images(self, epoch: int) -> Split:
        """The training images for the epoch's loader: without pixels where all features are cached."""
        view, part = self._opened(epoch), self.dataset.train
        if not self.is_there_VN[view].all():
            return part
        return dataclasses.replace(part, images_NCHW=torch.empty(len(part), 0, 1, 1, dtype=torch.uint8))

    def set_train_mode(self, network: nn.Module) -> None:
        network.train()

    def forward(self, network: nn.Module, batch: loader.Batch, labels_N: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """logits_NK of the head for a batch of training_images, and its labels_N."""
        return self.head_logits(network, self.batch_features(batch, epoch)), labels_N

    def batch_features(self, batch: loader.Batch, epoch: int) -> Tensor:
        """features_NF of a batch of training_images, on the device; runs the backbone on those not cached yet."""
        view, device = epoch % self.views, self.scorer.device
        missing_N = ~self.is_there_VN[view, batch.indices_N]
        if missing_N.any():
            indices_N = batch.indices_N[missing_N].to(device)
            images_NCHW = batch.images_NCHW[missing_N].to(device)
            key = counter.key(self.experiment.seed, view)
            images_NCHW = policy.augment(images_NCHW, self.experiment.augment, key=key, positions_N=indices_N)
            features_NF, _ = extract_batch_features(self.model.eval(), self.scorer, images_NCHW)
            self.features_VNF[view, batch.indices_N[missing_N]] = features_NF.cpu()
            self.is_there_VN[view, batch.indices_N[missing_N]] = True
            self.head.train()  # eval() has put it to sleep
        return self.features_VNF[view, batch.indices_N].to(device, non_blocking=True)

    def end_epoch(self, epoch: int, group: ProcessGroup) -> None:
        """After an epoch: every rank has what any has seen of its view, and a whole view is kept."""
        view = epoch % self.views
        there_N, features_NF = self.is_there_VN[view], self.features_VNF[view]
        if group.world_size > 1 and group.all_reduce_max(int(not there_N.all())):
            count_N = group.all_reduce_sum(there_N.float()).cpu()
            total_NF = group.all_reduce_sum(features_NF * there_N[:, None]).cpu()
            features_NF.copy_(total_NF / count_N.clamp(min=1)[:, None])
            there_N.copy_(count_N > 0)
        path = self._path(f"view{view}")
        if path is not None and view not in self.kept and group.is_first and there_N.all():
            self.kept.add(view)
            save_features({"features": features_NF}, path)

    def validate(self, model: nn.Module, group: ProcessGroup) -> dict[str, Any]:
        """The validation scores of a model with this backbone; its head may be another. Errors of Tally.scores."""
        head, tally = Head(model.eval(), 0.0), ConfusionMatrix(len(self.dataset.class_names), self.scorer.device)
        if not self.held:
            self.held = list(self._validation(group))
        for features_WNF, labels_N in self.held:
            with torch.no_grad():
                log_probabilities_WNK = self.head_logits(head, features_WNF).log_softmax(-1)
            views = len(features_WNF)
            tally.update(log_probabilities_WNK.logsumexp(0) - math.log(views), labels_N)
        return ConfusionMatrix.from_tensor(group.all_reduce_sum(tally.tensor())).scores(self.dataset.class_names)

    def head_logits(self, head: nn.Module, features_NF: Tensor) -> Tensor:
        """logits_NK, float32, in the scorer's number format."""
        with self.scorer.autocast():
            return head(features_NF).float()

    def _validation(self, group: ProcessGroup) -> Iterator[tuple[Tensor, Tensor]]:
        path = self._path("validation") if group.world_size == 1 else None
        kept = load_file(path) if path is not None and path.exists() else {}
        found: dict[str, Tensor] = {}
        for batch in loader.evaluation_batches(
            self.dataset.validation, batch=self.scorer.batch_size, rank=group.rank, world=group.world_size
        ):
            if len(batch.labels_N):  # with more ranks than images a shard is empty
                step = str(batch.step)
                # A copy lies in memory as what was computed does: products are the same to the last bit.
                found[step] = kept[step].clone() if step in kept else self._mirrored(batch.images_NCHW)
                yield found[step].to(self.scorer.device), batch.labels_N.to(self.scorer.device)
        if path is not None and not kept:
            save_features(found, path)

    def _mirrored(self, images_NCHW: Tensor) -> Tensor:
        """features_WNF of plain images, with test_flip of mirrored ones too; on the CPU."""
        images_NCHW = images_NCHW.to(self.scorer.device)
        views = [images_NCHW, images_NCHW.flip(-1)] if self.scorer.test_flip else [images_NCHW]
        return torch.stack([extract_batch_features(self.model.eval(), self.scorer, view)[0].cpu() for view in views])

    def _width(self) -> int:
        """Of the features; by the way, whether the head's answer is the model's."""
        images_NCHW = self.dataset.train.images_NCHW[:2].to(self.scorer.device)
        features_NF, logits_NK = extract_batch_features(self.model.eval(), self.scorer, images_NCHW)
        with torch.no_grad():
            own = self.head_logits(self.head.eval(), features_NF)
        if own.shape != logits_NK.shape or not torch.allclose(own, logits_NK, rtol=CLOSE, atol=CLOSE):
            raise ModelError(
                f"augment.views: the last layer of {self.experiment.model.name} is not all that follows its features, "
                "which therefore cannot be kept: set --augment.views 0, and --train.epochs to about 15"
            )
        return features_NF.shape[1]

    def _opened(self, epoch: int) -> int:
        """The view of an epoch, with what is on disk of it: of the first images, where there are more now."""
        view = epoch % self.views
        path, is_there_N = self._path(f"view{view}"), self.is_there_VN[view]
        if path is not None and not is_there_N.all() and path.exists():
            features_NF = load_file(path)["features"][: len(is_there_N)]
            self.features_VNF[view, : len(features_NF)] = features_NF
            is_there_N[: len(features_NF)] = True
            if is_there_N.all():
                self.kept.add(view)
        return view

    @functools.cached_property
    def _key(self) -> str:
        """Of the backbone, and what it looks at. Merged with the validation images, a data set keeps its fingerprint,
        and its first images."""
        model, augment = self.experiment.model, dataclasses.replace(self.experiment.augment, views=0)
        settings = (model.name, model.norm, model.stem, weights_identity(model.weights), self.dataset.fingerprint)
        settings += (self.scorer.size, self.scorer.precision, self.experiment.seed, augment)
        return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{self._key}-{name}.safetensors"
