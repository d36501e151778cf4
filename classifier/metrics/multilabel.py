"""Counts of the predictions of images with any number of labels, which can be summed over processes, and their scores.

Definitions are scikit-learn's, with zero_division=0: macro means are over all labels, samples means over all images, so
that a label without images, or an image without labels, counts as 0 there even if nothing is said wrongly.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from classifier.errors import DataError, DivergedError
from classifier.metrics.bootstrap import divide, to_json_number
from classifier.metrics.decisions import DEFAULT_THRESHOLD

# Probabilities are clipped before the logarithm, as in scikit-learn.
EPSILON = float(np.finfo(np.float32).eps)
# Bins of the logits of probabilities, and how many there are for 1: from -16 to 16, with 0.5 at the edge of one.
LOGIT_BINS, BINS_PER_LOGIT = 512, 16
NO_IMAGES = "no images to score: the split is empty; increase data.validation or data.test"
# Sums that MultilabelCounts holds beside its histograms.
_SUMS = 3


class MultilabelCounts:
    """For each label, a histogram of the probabilities of images that lack it and that have it; and sums over images.

    Like a ConfusionMatrix it holds counts and sums, so that shards of any size can be added (an all-reduce of
    `tensor()`). A label is said from a probability of 0.5. It is on the model's device and does not synchronize with
    it; on the CPU for MPS, which lacks float64.
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device("cpu" if torch.device(device).type == "mps" else device)
        self.loss_sum, self.f1_sum = torch.zeros(2, dtype=torch.float64, device=self.device)
        self.exact = torch.zeros((), dtype=torch.int64, device=self.device)
        self.histogram_2KB = torch.zeros(2, classes, LOGIT_BINS, dtype=torch.int64, device=self.device)

    @property
    def classes(self) -> int:
        return self.histogram_2KB.shape[1]

    @property
    def count(self) -> int:
        """Number of images counted; synchronizes with the device."""
        return int(self.histogram_2KB[:, 0].sum())

    def update(self, log_probabilities_NK: Tensor, targets_NK: Tensor) -> None:
        """Count a batch. log_probabilities_NK: float, of independent labels. targets_NK: bool, or 0 and 1.

        The loss is binary cross-entropy, the mean over labels, in nats.
        """
        probabilities_NK, targets_NK = log_probabilities_NK.to(self.device).exp(), targets_NK.to(self.device).bool()
        said_NK = probabilities_NK >= DEFAULT_THRESHOLD
        self.exact += (said_NK == targets_NK).all(1).sum()
        hits_N, sizes_N = (said_NK & targets_NK).sum(1), said_NK.sum(1) + targets_NK.sum(1)
        self.f1_sum += (2 * hits_N.double() / sizes_N.clamp(min=1)).sum()
        clipped_NK = probabilities_NK.double().clamp(EPSILON, 1 - EPSILON)  # a NaN stays one
        self.loss_sum -= torch.where(targets_NK, clipped_NK, 1 - clipped_NK).log().mean(1).sum()
        logits_NK = probabilities_NK.double().logit().nan_to_num(0.0)
        bins_NK = ((logits_NK * BINS_PER_LOGIT).floor() + LOGIT_BINS // 2).clamp(0, LOGIT_BINS - 1).long()
        rows_NK = targets_NK.long() * self.classes + torch.arange(self.classes, device=self.device)
        cells = (rows_NK * LOGIT_BINS + bins_NK).view(-1)
        self.histogram_2KB.view(-1).scatter_add_(0, cells, torch.ones_like(cells))

    def tensor(self) -> Tensor:
        """Return all of it as one float64 vector, to sum over processes; integers are exact up to 2^53."""
        sums = torch.stack([self.loss_sum, self.f1_sum, self.exact.double()])
        return torch.cat([sums, self.histogram_2KB.double().view(-1)])

    @classmethod
    def from_tensor(cls, tensor: Tensor) -> Self:
        """The inverse of `tensor`."""
        counts = cls((len(tensor) - _SUMS) // (2 * LOGIT_BINS), tensor.device)
        counts.loss_sum, counts.f1_sum = tensor[0].clone(), tensor[1].clone()
        counts.exact = tensor[2].round().long()
        counts.histogram_2KB = tensor[_SUMS:].round().long().view_as(counts.histogram_2KB)
        return counts

    def scores(self, class_names: Sequence[str] | None = None) -> dict[str, Any]:
        """Return plain data for JSON: map, micro_f1, macro_f1, samples_f1, subset_accuracy, hamming_loss, loss, count
        and per_class [name?, precision, recall, f1, average_precision, support].

        Average precision is as if the images of a bin (1/16 of a logit) that have the label were in the middle of it:
        in simulations within 0.016 of that of the probabilities for labels of 20 images, within 0.004 for those of 100.
        map: its mean over the labels that images have, 0 if there are none. DataError without images; DivergedError if
        the loss is not finite.
        """
        count = self.count
        if count == 0:
            raise DataError(NO_IMAGES)
        loss = float(self.loss_sum) / count
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss of {count} images is not finite: training diverged, or train.precision is too low for the "
                "model; try a lower optimizer.lr or --train.precision fp32"
            )
        others_KB, own_KB = self.histogram_2KB.cpu().numpy()[:, :, ::-1].astype(np.float64)
        support_K, half = own_KB.sum(1), LOGIT_BINS // 2
        hits_K = own_KB[:, :half].sum(1)
        predicted_K = hits_K + others_KB[:, :half].sum(1)
        middle_KB = own_KB.cumsum(1) - (own_KB - 1) / 2
        precision_KB = divide(middle_KB, middle_KB + others_KB.cumsum(1) - others_KB / 2)
        columns = rate_labels(hits_K, predicted_K, support_K)
        columns["average_precision"] = divide((own_KB * precision_KB).sum(1), support_K, otherwise=math.nan)
        known_K = columns["average_precision"][support_K > 0]
        pooled = rate_labels(hits_K.sum(), predicted_K.sum(), support_K.sum())
        wrong = float((predicted_K + support_K - 2 * hits_K).sum())
        return {
            "map": float(known_K.mean()) if len(known_K) else 0.0,
            "micro_f1": float(pooled["f1"]),
            "macro_f1": float(columns["f1"].mean()),
            "samples_f1": float(self.f1_sum) / count,
            "subset_accuracy": int(self.exact) / count,
            "hamming_loss": wrong / (count * self.classes),
            "loss": loss,
            "count": count,
            "per_class": list_classes(columns, {"support": support_K}, class_names),
        }


def rate_labels(hits: np.ndarray, predicted: np.ndarray, support: np.ndarray) -> dict[str, np.ndarray]:
    """Return precision, recall and F1. predicted: images that a label is said of; support: those that have it."""
    hits, predicted, support = (np.asarray(values, np.float64) for values in (hits, predicted, support))
    both = predicted + support
    return {"precision": divide(hits, predicted), "recall": divide(hits, support), "f1": divide(2 * hits, both)}


def list_classes(
    columns: Mapping[str, np.ndarray], counts: Mapping[str, np.ndarray], class_names: Sequence[str] | None
) -> list[dict[str, Any]]:
    """Return a row for each label."""
    rows = []
    for k in range(len(next(iter(columns.values())))):
        row: dict[str, Any] = {"name": class_names[k]} if class_names is not None else {}
        row |= {name: to_json_number(values_K[k]) for name, values_K in columns.items()}
        rows.append(row | {name: int(values_K[k]) for name, values_K in counts.items()})
    return rows
