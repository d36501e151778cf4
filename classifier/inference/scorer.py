"""The one path from uint8 images to probabilities, shared by training, evaluation and prediction."""

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classifier import models
from classifier.augment import policy
from classifier.config.experiment import Experiment
from classifier.config.sections import Task
from classifier.data import loader
from classifier.data.dataset import Dataset, Split
from classifier.metrics.calibration import apply_temperature
from classifier.metrics.confusion import ConfusionMatrix
from classifier.metrics.label_calibration import apply_label_temperature
from classifier.metrics.multilabel import MultilabelCounts
from classifier.runtime import cpu
from classifier.runtime.distributed import ProcessGroup

# Pixels per batch and channel (64 images of 224 x 224), which fit in memory wherever the model was trained, and the
# largest batch: 512 images saturate a GPU, but overflow the caches of a CPU (a third slower in fp32).
BATCH_PIXELS = 64 * 224 * 224
MAX_CPU_BATCH, MAX_GPU_BATCH = 64, 512

Counts: TypeAlias = ConfusionMatrix | MultilabelCounts

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def gather_targets(labels_N: Tensor, label_sets_MK: Tensor | None) -> Tensor:
    """Return the targets of images: labels_N, or, where images have several labels, targets_NK, float32."""
    return labels_N if label_sets_MK is None else label_sets_MK[labels_N].float()


def find_hits(logits_NK: Tensor, targets: Tensor) -> Tensor:
    """Return is_hit_N, bool: whether the class of an image is right (targets: labels_N), or all labels (targets_NK).

    So the accuracy of several labels is scikit-learn's accuracy_score, subset accuracy.
    """
    if targets.is_floating_point():
        return ((logits_NK >= 0) == (targets > 0.5)).all(1)
    return logits_NK.argmax(1) == targets


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """How images become predictions: normalisation, precision, memory layout, test-time flips, temperature.

    Evaluation and prediction share `predict_log_probabilities`, so a model is served exactly as it was evaluated.
    """

    class_names: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    precision: str = "fp32"
    channels_last: bool = False
    test_flip: bool = False
    task: Task = "multiclass"
    """Of several labels an image (multilabel) each has a probability of its own; else they sum to 1."""
    temperature: float = 1.0
    """Divides the logits, after the views are averaged (see metrics/calibration.py)."""

    @classmethod
    def from_experiment(cls, experiment: Experiment, dataset: Dataset, device: torch.device) -> "Scorer":
        """Make the scorer of a resolved experiment and its dataset."""
        pretrained = models.pretrained_statistics(experiment.model, dataset.channels)
        mean, std = pretrained or (dataset.mean, dataset.std)
        return cls(
            class_names=dataset.class_names,
            size=dataset.size,
            mean=mean,
            std=std,
            device=device,
            precision=experiment.train.precision,
            channels_last=experiment.train.channels_last,
            test_flip=experiment.augment.test_flip,
            task=dataset.task,
        )

    @property
    def batch_size(self) -> int:
        """Images per batch; independent of the training batch, so that prediction uses the same."""
        max_batch = MAX_CPU_BATCH if self.device.type == "cpu" else MAX_GPU_BATCH
        return max(1, min(max_batch, BATCH_PIXELS // self.size**2))

    def prepare_model(self, model: nn.Module) -> nn.Module:
        """Move the model to the scorer's device and memory layout, in eval mode."""
        cpu.setup(self.device.type)
        model = model.to(self.device)
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return model.eval()

    def forward(self, model: nn.Module, images_NCHW: Tensor, columns_NF: Tensor | None = None) -> Any:
        """Normalise the images (uint8, or float in [0, 1]) and run the model in the scorer's precision.

        columns_NF: of a model that takes columns beside the image (see models/fusion.py); without them all are missing.

        Returns float32 logits_NK; in training mode a model with auxiliary heads gives (logits_NK, auxiliary_NK...).
        Keeps gradients: training uses it too.
        """
        images_NCHW = policy.normalise(images_NCHW, self.mean, self.std)
        if self.channels_last:
            images_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            if columns_NF is None:
                outputs = model(images_NCHW)
            else:
                outputs = model(images_NCHW, columns_NF.to(self.device, non_blocking=True))
        if isinstance(outputs, tuple):
            return tuple(output.float() for output in outputs)
        return outputs.float()

    def log_probabilities(self, logits_NK: Tensor) -> Tensor:
        """Return log_probabilities_NK of logits, of any number of leading dimensions."""
        return F.logsigmoid(logits_NK) if self.task == "multilabel" else logits_NK.log_softmax(-1)

    def apply_temperature(self, log_probabilities_NK: Tensor) -> Tensor:
        """Return the log-probabilities after dividing the logits by the temperature."""
        apply = apply_label_temperature if self.task == "multilabel" else apply_temperature
        return apply(log_probabilities_NK, self.temperature)

    def predict_log_probabilities(
        self, model: nn.Module, images_NCHW: Tensor, columns_NF: Tensor | None = None
    ) -> Tensor:
        """Return log_probabilities_NK, float32 on the device, of a batch of uint8 images. Sets eval mode.

        Flipped views are averaged as probabilities, not as logits: each view then has one vote, whereas logits are
        unbounded and a single overconfident view could decide.
        """
        model.eval()
        with torch.inference_mode():
            images_NCHW = images_NCHW.to(self.device, non_blocking=True)
            log_probabilities_NK = self.log_probabilities(self.forward(model, images_NCHW, columns_NF))
            if self.test_flip:
                flipped_NK = self.log_probabilities(self.forward(model, images_NCHW.flip(-1), columns_NF))
                log_probabilities_NK = torch.logaddexp(log_probabilities_NK, flipped_NK) - math.log(2)
            return self.apply_temperature(log_probabilities_NK)

    def predict_probabilities(self, model: nn.Module, images_NCHW: Tensor, columns_NF: Tensor | None = None) -> Tensor:
        """Return probabilities_NK, float32 on the CPU, of any number of uint8 images, batch by batch."""
        batches = images_NCHW.split(self.batch_size)
        columns = itertools.repeat(None) if columns_NF is None else columns_NF.split(self.batch_size)
        pairs = zip(batches, columns, strict=False)
        parts = [self.predict_log_probabilities(model, *pair).exp() for pair in pairs]
        return torch.cat(parts).cpu() if parts else torch.zeros(0, len(self.class_names))

    def predict_split(
        self, model: nn.Module, split: Split, label_sets_MK: Tensor | None = None
    ) -> tuple[Counts, Tensor]:
        """Return the split's counts and probabilities_NK (float32 on the CPU, in the order of split.ids).

        label_sets_MK: those of the data set, where images have several labels.
        """
        counts, parts = self.start_counts(), []
        for log_probabilities_NK, targets in self._predict_batches(model, split, ProcessGroup(), label_sets_MK):
            counts.update(log_probabilities_NK, targets)
            parts.append(log_probabilities_NK.exp())
        return counts, torch.cat(parts).cpu() if parts else torch.zeros(0, len(self.class_names))

    def compute_counts(
        self,
        model: nn.Module,
        split: Split,
        group: ProcessGroup | None = None,
        label_sets_MK: Tensor | None = None,
    ) -> Counts:
        """Return the counts of the whole split on every rank; the ranks of `group` each predict a shard.

        label_sets_MK: as in predict_split.
        """
        group = group or ProcessGroup()
        return self._count_all(self._predict_batches(model, split, group, label_sets_MK), group)

    def compute_scores(
        self,
        model: nn.Module,
        split: Split,
        group: ProcessGroup | None = None,
        label_sets_MK: Tensor | None = None,
    ) -> dict[str, Any]:
        """Return the scores of the split, as `compute_counts`, as plain data.

        Keys and errors: see ConfusionMatrix.scores and MultilabelCounts.scores.
        """
        return self._to_scores(self.compute_counts(model, split, group, label_sets_MK))

    def score(self, batches: Iterable[tuple[Tensor, Tensor]], group: ProcessGroup) -> dict[str, Any]:
        """Return the scores, on every rank, of log_probabilities_NK and targets of the batches of all ranks.

        targets: labels_N, or targets_NK of several labels.
        """
        return self._to_scores(self._count_all(batches, group))

    def _count_all(self, batches: Iterable[tuple[Tensor, Tensor]], group: ProcessGroup) -> Counts:
        counts = self.start_counts()
        for log_probabilities_NK, targets in batches:
            counts.update(log_probabilities_NK, targets)
        return type(counts).from_tensor(group.all_reduce_sum(counts.tensor()))

    def _to_scores(self, counts: Counts) -> dict[str, Any]:
        if isinstance(counts, MultilabelCounts):
            return counts.scores(self.class_names)
        return counts.scores(self.class_names, is_ordinal=self.task == "ordinal")

    def start_counts(self) -> Counts:
        """Return the counts of no image, on the device."""
        kind = MultilabelCounts if self.task == "multilabel" else ConfusionMatrix
        return kind(len(self.class_names), self.device)

    def _predict_batches(
        self, model: nn.Module, split: Split, group: ProcessGroup, label_sets_MK: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield log_probabilities_NK and targets of each batch of this rank's shard, on the device."""
        for batch in loader.evaluation_batches(split, batch=self.batch_size, rank=group.rank, world=group.world_size):
            if len(batch.labels_N):  # a shard is empty where there are more ranks than images
                targets = gather_targets(batch.labels_N, label_sets_MK).to(self.device, non_blocking=True)
                yield self.predict_log_probabilities(model, batch.images_NCHW, batch.columns_NF), targets

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the model computes in the scorer's precision."""
        if self.precision not in _DTYPES:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.precision])
