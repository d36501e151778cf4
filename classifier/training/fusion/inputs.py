"""What models of image and columns are fitted to: the features of images, their columns and labels."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from classifier.config.sections import Task
from classifier.data.dataset import Dataset, Split
from classifier.data.labels.label_sets import find_rarest
from classifier.inference.scorer import gather_targets


@dataclass(frozen=True, eq=False, kw_only=True)
class FusionInputs:
    """Images that are described by their features and columns; on the CPU.

    features_NB: float32, of a frozen backbone; of a missing image they mean nothing. columns_NF: float32, as
    Dataset.columns encodes them. targets: labels_N, or targets_NK of several labels. strata_N: Dataset.strata; units_N:
    Split.units_N.
    """

    features_NB: Tensor
    columns_NF: Tensor
    targets: Tensor
    strata_N: Tensor
    classes: int
    task: Task
    seed: int
    units_N: Tensor | None = None
    adjustment: float = 0.0
    """Strength of the logarithms of the classes' shares that are taken from the logits (loss.adjustment)."""

    @classmethod
    def from_split(
        cls, features_NB: Tensor, split: Split, dataset: Dataset, *, seed: int, adjustment: float
    ) -> "FusionInputs":
        """Describe the images of a split of the data set by their features."""
        assert split.columns_NF is not None
        label_sets_MK, classes = dataset.label_sets_MK, len(dataset.class_names)
        sets = None if label_sets_MK is None else label_sets_MK.numpy()
        return cls(
            features_NB=features_NB,
            columns_NF=split.columns_NF,
            targets=gather_targets(split.labels_N, label_sets_MK),
            strata_N=torch.from_numpy(find_rarest(split.labels_N.numpy(), classes, sets)),
            units_N=split.units_N,
            classes=classes,
            task=dataset.task,
            seed=seed,
            adjustment=0.0 if dataset.task == "ordinal" else adjustment,
        )

    def __len__(self) -> int:
        return len(self.features_NB)

    @property
    def is_multilabel(self) -> bool:
        return self.task == "multilabel"

    @property
    def has_image(self) -> Tensor:
        """has_image_N1, bool."""
        return self.columns_NF[:, :1] > 0

    @property
    def of_images(self) -> "FusionInputs":
        """Those that have an image; all, if none has."""
        return self.take(self.has_image[:, 0]) if self.has_image.any() else self

    @property
    def values(self) -> Tensor:
        """values_NF: the columns, without the flag of the image."""
        return self.columns_NF[:, 1:]

    @property
    def offsets(self) -> Tensor:
        """offsets_K, which are taken from the logits, so that rare classes are found as often as frequent ones."""
        if self.is_multilabel:
            shares_K = self.targets.sum(0).clamp(0.5, len(self) - 0.5) / len(self)
            return self.adjustment * shares_K.logit()
        counts_K = self.targets.bincount(minlength=self.classes).clamp_min(0.5)
        return self.adjustment * (counts_K / len(self)).log()

    @property
    def labels(self) -> Tensor:
        """labels_N, or, of several labels an image, rows of `label_sets`."""
        return torch.arange(len(self)) if self.is_multilabel else self.targets

    @property
    def label_sets(self) -> Tensor | None:
        return self.targets.bool() if self.is_multilabel else None

    def take(self, index_M: Tensor) -> "FusionInputs":
        """Return the images at these positions, or of this mask."""
        tensors = {
            name: getattr(self, name) for name in ("features_NB", "columns_NF", "targets", "strata_N", "units_N")
        }
        return dataclasses.replace(self, **{name: one[index_M] for name, one in tensors.items() if one is not None})
