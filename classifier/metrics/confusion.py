"""Confusion matrices: counts that can be summed over processes, and the scores that follow from them."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from classifier.errors import DataError, DivergedError
from classifier.metrics.ordinal import count_ordinal_scores

TOP_K = 5


class ConfusionMatrix:
    """A confusion matrix, with top-5 hits and the summed loss of the same images.

    It holds counts and sums, never means, so that shards of any size can be added (`+`, or an all-reduce of
    `tensor()`). It is on the model's device and does not synchronize with it; on the CPU for MPS, which lacks float64.
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
        """Number of images counted; synchronizes with the device."""
        return int(self.confusion_KK.sum())

    def update(self, log_probabilities_NK: Tensor, labels_N: Tensor) -> None:
        """Count a batch. Labels of -1 are padding and are not counted; ties are predicted as the lower class.

        log_probabilities_NK: float, normalized (log_softmax of logits). The loss is -log p of the label, in nats.
        """
        log_probabilities_NK = log_probabilities_NK.to(self.device)
        labels_N = labels_N.to(self.device)
        counts_N = labels_N >= 0
        labels_N1 = labels_N.clamp(min=0)[:, None]
        of_label_N1 = log_probabilities_NK.gather(1, labels_N1)
        # Not a product: a NaN in a padded row must not reach the sum.
        self.loss_sum -= torch.where(counts_N, of_label_N1[:, 0].double(), 0.0).sum()
        lower_NK = torch.arange(self.classes, device=self.device) < labels_N1
        ahead_NK = (log_probabilities_NK > of_label_N1) | ((log_probabilities_NK == of_label_N1) & lower_NK)
        self.top5_hits += ((ahead_NK.sum(1) < TOP_K) & counts_N).sum()
        # From the probabilities, as those are saved: different log-probabilities may round to equal probabilities.
        predicted_N = log_probabilities_NK.exp().argmax(1)
        cells_N = labels_N1[:, 0] * self.classes + predicted_N  # not bincount, which synchronizes with a GPU
        self.confusion_KK.view(-1).scatter_add_(0, cells_N, counts_N.long())

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        return ConfusionMatrix.from_tensor(self.tensor() + other.tensor().to(self.device))

    def tensor(self) -> Tensor:
        """Return all of it as one float64 vector, to sum over processes; integers are exact up to 2^53."""
        return torch.cat([torch.stack([self.loss_sum, self.top5_hits.double()]), self.confusion_KK.double().view(-1)])

    @classmethod
    def from_tensor(cls, tensor: Tensor) -> Self:
        """The inverse of `tensor`."""
        classes = math.isqrt(len(tensor) - 2)
        matrix = cls(classes, tensor.device)
        matrix.loss_sum = tensor[0].clone()
        matrix.top5_hits = tensor[1].round().long()
        matrix.confusion_KK = tensor[2:].round().long().view(classes, classes)
        return matrix

    def scores(self, class_names: Sequence[str] | None = None, *, is_ordinal: bool = False) -> dict[str, Any]:
        """Return plain data for JSON: accuracy, top5, macro_precision, macro_recall, macro_f1, loss, count, per_class
        [name?, precision, recall, f1, support] and confusion; of ordered grades those of metrics.ordinal, too.

        confusion[i][j] counts images of class i that were predicted as j. Definitions are scikit-learn's with
        zero_division=0: macro means are over the classes that occur as a label or as a prediction.
        DataError without images; DivergedError if the loss is not finite.
        """
        confusion_KK, count = self.confusion_KK.cpu(), self.count
        if count == 0:
            raise DataError("no images to score: the split is empty; increase data.validation or data.test")
        loss = float(self.loss_sum) / count
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss of {count} images is not finite: training diverged, or train.precision is too low for the "
                "model; try a lower optimizer.lr or --train.precision fp32"
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
            **(count_ordinal_scores(confusion_KK.numpy()) if is_ordinal else {}),
            "loss": loss,
            "count": count,
            "per_class": per_class,
            "confusion": confusion_KK.tolist(),
        }


def _ratio(numerator_K: Tensor, denominator_K: Tensor) -> Tensor:
    return torch.where(denominator_K > 0, numerator_K / denominator_K.clamp(min=1), 0.0)
