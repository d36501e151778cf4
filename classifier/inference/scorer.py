"""Measure a model. The one way from uint8 images to probabilities, which evaluation and prediction share."""

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
from classifier.runtime.cpu import keep_freed_memory
from classifier.runtime.distributed import ProcessGroup

# A batch holds about this many pixels a channel (64 photographs of 224 x 224), which fits wherever the model was
# trained, and at most so many images: 512 fill a GPU, but on a CPU they leave its caches (fp32 lost a third).
BATCH_PIXELS = 64 * 224 * 224
MAX_CPU_BATCH, MAX_GPU_BATCH = 64, 512

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """How images become answers: normalisation, number format, memory layout, mirrored views.

    What is served is what was measured, since evaluation and prediction go through one Scorer's `log_probabilities`.
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
    """Divides what is averaged over the views (see calibration.py)."""

    @classmethod
    def from_experiment(cls, experiment: Experiment, dataset: Dataset, device: torch.device) -> "Scorer":
        """The scorer of a resolved experiment on its data."""
        pretrained = models.statistics(experiment.model, dataset.channels)
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
        """Images a batch; they do not depend on the training's batch, so that prediction can use the same."""
        most = MAX_CPU_BATCH if self.device.type == "cpu" else MAX_GPU_BATCH
        return max(1, min(most, BATCH_PIXELS // self.size**2))

    def prepare_model(self, model: nn.Module) -> nn.Module:
        """The model on the scorer's device, in its memory layout and in eval mode."""
        if self.device.type == "cpu":
            keep_freed_memory()
        model = model.to(self.device)
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return model.eval()

    def forward(self, model: nn.Module, images_NCHW: Tensor) -> Any:
        """The model's float32 outputs for images in [0, 1] or uint8 ones: logits_NK; in training they may come with
        auxiliary ones, (logits_NK, auxiliary_NK...).

        Normalises, and runs the model in the scorer's number format. Keeps gradients, so that training uses it too.
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
        """log_probabilities_NK, float32 on the device, of uint8 images. Leaves the model in eval mode.

        Mirrored views are averaged as probabilities, not as logits: a mean of distributions is one, in which a view
        that is unsure counts as one vote, while a logit has no bound and a single overconfident view could decide.
        """
        model.eval()
        with torch.inference_mode():
            images_NCHW = images_NCHW.to(self.device, non_blocking=True)
            log_probabilities_NK = self.forward(model, images_NCHW).log_softmax(1)
            if self.test_flip:
                mirrored_NK = self.forward(model, images_NCHW.flip(-1)).log_softmax(1)
                log_probabilities_NK = torch.logaddexp(log_probabilities_NK, mirrored_NK) - math.log(2)
            return apply_temperature(log_probabilities_NK, self.temperature)

    def predict_probabilities(self, model: nn.Module, images_NCHW: Tensor) -> Tensor:
        """probabilities_NK, float32 on the CPU, of any number of uint8 images, batch by batch."""
        parts = [self.predict_log_probabilities(model, batch_NCHW).exp() for batch_NCHW in images_NCHW.split(self.batch_size)]
        return torch.cat(parts).cpu() if parts else torch.zeros(0, len(self.class_names))

    def predict_split(self, model: nn.Module, split: Split) -> tuple[ConfusionMatrix, Tensor]:
        """The tally of a split and its probabilities_NK, float32 on the CPU, in the order of part.ids."""
        tally, parts = ConfusionMatrix(len(self.class_names), self.device), []
        for log_probabilities_NK, labels_N in self._predict_batches(model, split, ProcessGroup()):
            tally.add(log_probabilities_NK, labels_N)
            parts.append(log_probabilities_NK.exp())
        return tally, torch.cat(parts).cpu() if parts else torch.zeros(0, len(self.class_names))

    def compute_confusion_matrix(self, model: nn.Module, split: Split, group: ProcessGroup | None = None) -> ConfusionMatrix:
        """The tally of a split, whose images the ranks of `group` share out; each rank gets the whole account."""
        group = group or ProcessGroup()
        tally = ConfusionMatrix(len(self.class_names), self.device)
        for log_probabilities_NK, labels_N in self._predict_batches(model, split, group):
            tally.add(log_probabilities_NK, labels_N)
        return ConfusionMatrix.from_tensor(group.all_reduce_sum(tally.tensor()))

    def compute_scores(self, model: nn.Module, split: Split, group: ProcessGroup | None = None) -> dict[str, Any]:
        """The scores of a split as plain data (see Tally.scores). Errors as there."""
        return self.compute_confusion_matrix(model, split, group).scores(self.class_names)

    def _predict_batches(self, model: nn.Module, split: Split, group: ProcessGroup) -> Iterator[tuple[Tensor, Tensor]]:
        """log_probabilities_NK and labels_N of each batch of this rank's images, on the device."""
        for batch in loader.evaluation_batches(split, batch=self.batch_size, rank=group.rank, world=group.world_size):
            if len(batch.labels_N):  # with more ranks than images a shard is empty
                labels_N = batch.labels_N.to(self.device, non_blocking=True)
                yield self.predict_log_probabilities(model, batch.images_NCHW), labels_N

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """What models compute in, while it lasts."""
        if self.precision not in _DTYPES:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.precision])
