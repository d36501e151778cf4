"""The one path from uint8 images to probabilities, shared by training, evaluation and prediction."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from classifier import models
from classifier.augment import policy
from classifier.config.experiment import Experiment
from classifier.data import loader
from classifier.data.dataset import Dataset, Split
from classifier.metrics.calibration import apply_temperature
from classifier.metrics.confusion import ConfusionMatrix
from classifier.runtime import cpu
from classifier.runtime.distributed import ProcessGroup

# Pixels per batch and channel (64 images of 224 x 224), which fit in memory wherever the model was trained, and the
# largest batch: 512 images saturate a GPU, but overflow the caches of a CPU (a third slower in fp32).
BATCH_PIXELS = 64 * 224 * 224
MAX_CPU_BATCH, MAX_GPU_BATCH = 64, 512

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
    temperature: float = 1.0
    """Divides the log-probabilities, after the views are averaged (see metrics/calibration.py)."""

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

    def forward(self, model: nn.Module, images_NCHW: Tensor) -> Any:
        """Normalise the images (uint8, or float in [0, 1]) and run the model in the scorer's precision.

        Returns float32 logits_NK; in training mode a model with auxiliary heads gives (logits_NK, auxiliary_NK...).
        Keeps gradients: training uses it too.
        """
        images_NCHW = policy.normalise(images_NCHW, self.mean, self.std)
        if self.channels_last:
            images_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            outputs = model(images_NCHW)
        if isinstance(outputs, tuple):
            return tuple(output.float() for output in outputs)
        return outputs.float()

    def predict_log_probabilities(self, model: nn.Module, images_NCHW: Tensor) -> Tensor:
        """Return log_probabilities_NK, float32 on the device, of a batch of uint8 images. Sets eval mode.

        Flipped views are averaged as probabilities, not as logits: each view then has one vote, whereas logits are
        unbounded and a single overconfident view could decide.
        """
        model.eval()
        with torch.inference_mode():
            images_NCHW = images_NCHW.to(self.device, non_blocking=True)
            log_probabilities_NK = self.forward(model, images_NCHW).log_softmax(1)
            if self.test_flip:
                flipped_NK = self.forward(model, images_NCHW.flip(-1)).log_softmax(1)
                log_probabilities_NK = torch.logaddexp(log_probabilities_NK, flipped_NK) - math.log(2)
            return apply_temperature(log_probabilities_NK, self.temperature)

    def predict_probabilities(self, model: nn.Module, images_NCHW: Tensor) -> Tensor:
        """Return probabilities_NK, float32 on the CPU, of any number of uint8 images, batch by batch."""
        batches = images_NCHW.split(self.batch_size)
        parts = [self.predict_log_probabilities(model, batch_NCHW).exp() for batch_NCHW in batches]
        return torch.cat(parts).cpu() if parts else torch.zeros(0, len(self.class_names))

    def predict_split(self, model: nn.Module, split: Split) -> tuple[ConfusionMatrix, Tensor]:
        """Return the split's confusion matrix and probabilities_NK (float32 on the CPU, in the order of split.ids)."""
        confusion, parts = ConfusionMatrix(len(self.class_names), self.device), []
        for log_probabilities_NK, labels_N in self._predict_batches(model, split, ProcessGroup()):
            confusion.update(log_probabilities_NK, labels_N)
            parts.append(log_probabilities_NK.exp())
        return confusion, torch.cat(parts).cpu() if parts else torch.zeros(0, len(self.class_names))

    def compute_confusion_matrix(
        self, model: nn.Module, split: Split, group: ProcessGroup | None = None
    ) -> ConfusionMatrix:
        """Return the confusion matrix of the whole split on every rank; the ranks of `group` each predict a shard."""
        group = group or ProcessGroup()
        confusion = ConfusionMatrix(len(self.class_names), self.device)
        for log_probabilities_NK, labels_N in self._predict_batches(model, split, group):
            confusion.update(log_probabilities_NK, labels_N)
        return ConfusionMatrix.from_tensor(group.all_reduce_sum(confusion.tensor()))

    def compute_scores(self, model: nn.Module, split: Split, group: ProcessGroup | None = None) -> dict[str, Any]:
        """Return the split's scores as plain data. Keys and errors: see ConfusionMatrix.scores."""
        return self.compute_confusion_matrix(model, split, group).scores(self.class_names)

    def _predict_batches(self, model: nn.Module, split: Split, group: ProcessGroup) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield log_probabilities_NK and labels_N of each batch of this rank's shard, on the device."""
        for batch in loader.evaluation_batches(split, batch=self.batch_size, rank=group.rank, world=group.world_size):
            if len(batch.labels_N):  # a shard is empty where there are more ranks than images
                labels_N = batch.labels_N.to(self.device, non_blocking=True)
                yield self.predict_log_probabilities(model, batch.images_NCHW), labels_N

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the model computes in the scorer's precision."""
        if self.precision not in _DTYPES:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.precision])
