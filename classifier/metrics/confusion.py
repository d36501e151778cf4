"""How well a model does: counts and sums that processes add up, and the scores that follow from them."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from classifier.errors import DataError, DivergedError

TOP = 5


class ConfusionMatrix:
    """The account of an evaluation: a confusion matrix, top-5 hits and the summed loss of the images seen so far.

    Sums and counts, never means, so shards of any size add up to the whole (`+`, or an all-reduce of `tensor()`).
    Lives on the device of the model and makes no batch wait for it; MPS lacks float64, so there it lies on the CPU.
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device("cpu" if torch.device(device).type == "mps" else device)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.top5_hits = torch.zeros((), dtype=torch.int64, device=self.device)
        self.confusion_KK = torch.zeros(classes, classes, dtype=torch.int64, device=self.device)

    @property
    def classes(self) -> int:
        return len(self.confusion_KK)

    @property
    def count(self) -> int:
        """Images counted; waits for the device."""
        return int(self.confusion_KK.sum())

    def add(self, log_probabilities_NK: Tensor, labels_N: Tensor) -> None:
        """Count a batch. A label of -1 is padding and never counts; of equal probabilities the lower class is taken.

        log_probabilities_NK: float, normalised (log_softmax of logits). The loss is -log p of the label, in nats.
        """
        log_probabilities_NK = log_probabilities_NK.to(self.device)
        labels_N = labels_N.to(self.device)
        counts_N = labels_N >= 0
        labels_N1 = labels_N.clamp(min=0)[:, None]
        chosen_N1 = log_probabilities_NK.gather(1, labels_N1)
        # where, not a product: a NaN in a padded row must not reach the sum.
        self.loss_sum -= torch.where(counts_N, chosen_N1[:, 0].double(), 0.0).sum()
        lower_NK = torch.arange(self.classes, device=self.device) < labels_N1
        ahead_NK = (log_probabilities_NK > chosen_N1) | ((log_probabilities_NK == chosen_N1) & lower_NK)
        self.top5_hits += ((ahead_NK.sum(1) < TOP) & counts_N).sum()
        # Of the probabilities, which are what is saved: two log-probabilities that differ may round to equal ones.
        predicted_N = log_probabilities_NK.exp().argmax(1)
        cells_N = labels_N1[:, 0] * self.classes + predicted_N  # no bincount: on a GPU it waits for the device
        self.confusion_KK.view(-1).scatter_add_(0, cells_N, counts_N.long())

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        return ConfusionMatrix.from_tensor(self.tensor() + other.tensor().to(self.device))

    def tensor(self) -> Tensor:
        """All of it as one float64 vector, to be summed over processes; whole numbers are exact up to 2^53."""
        return torch.cat([torch.stack([self.loss_sum, self.top5_hits.double()]), self.confusion_KK.double().view(-1)])

    @classmethod
    def from_tensor(cls, tensor: Tensor) -> Self:
        """The inverse of `tensor`."""
        classes = math.isqrt(len(tensor) - 2)
        tally = cls(classes, tensor.device)
        tally.loss_sum = tensor[0].clone()
        tally.top5_hits = tensor[1].round().long()
        tally.confusion_KK = tensor[2:].round().long().view(classes, classes)
        return tally

    def scores(self, class_names: Sequence[str] | None = None) -> dict[str, Any]:
        """Plain data for JSON: accuracy, top5, macro_precision, macro_recall, macro_f1, loss, count, per_class [name?,
        precision, recall, f1, support] and confusion.

        confusion[i][j] counts images of class i that were taken for j. A ratio over nothing is 0, and the macro means
        are over the classes that occur as a label or as a prediction: scikit-learn's, with zero_division=0.
        DataError without images; DivergedError if the loss is not finite.
        """
        confusion_KK, count = self.confusion_KK.cpu(), self.count
        if count == 0:
            raise DataError("there are no images to score: give the split some (data.validation, data.test)")
        loss = float(self.loss_sum) / count
        if not math.isfinite(loss):
            raise DivergedError(
                f"the model's answers to {count} images are not finite: its weights are spoiled, or "
                "train.precision is too narrow for it; try a lower optimizer.lr or --train.precision fp32"
            )
        hits_K = confusion_KK.diagonal().double()
        support_K, predicted_K = confusion_KK.sum(1).double(), confusion_KK.sum(0).double()
        columns = {
            "precision": _ratio(hits_K, predicted_K),
            "recall": _ratio(hits_K, support_K),
            "f1": _ratio(2 * hits_K, support_K + predicted_K),
        }
        occurs_K = (support_K + predicted_K) > 0
        per_class = []
        for k in range(self.classes):
            row: dict[str, Any] = {"name": class_names[k]} if class_names is not None else {}
            row |= {name: float(value_K[k]) for name, value_K in columns.items()}
            per_class.append(row | {"support": int(support_K[k])})
        return {
            "accuracy": float(hits_K.sum()) / count,
            "top5": int(self.top5_hits) / count,
            **{f"macro_{name}": float(value_K[occurs_K].mean()) for name, value_K in columns.items()},
            "loss": loss,
            "count": count,
            "per_class": per_class,
            "confusion": confusion_KK.tolist(),
        }


def _ratio(part_K: Tensor, whole_K: Tensor) -> Tensor:
    return torch.where(whole_K > 0, part_K / whole_K.clamp(min=1), 0.0)
