"""A data set that is ready to train on: decoded images, labels, splits, statistics."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from classifier.config.experiment import Experiment
from classifier.config.sections import Task
from classifier.data.assigned_splits import AssignedSplits
from classifier.data.columns.schema import ColumnSchema
from classifier.data.images.arrays import Images, concatenate, select
from classifier.data.labels.label_sets import find_rarest
from classifier.data.readers.compact import select_strings
from classifier.data.split_names import SPLITS, ImageKind, explain_no_test


@dataclass(frozen=True, eq=False)
class Split:
    """One split. images_NCHW: uint8, in memory, mapped or streamed; an index gives a Tensor. ids: N names, unique in
    the data set. labels_N: int64, classes in [0, K), or, in a multilabel data set, rows of its label_sets_MK.
    columns_NF: float32, where columns join the image, as Dataset.columns encodes them: NaN where a value is missing."""

    images_NCHW: Images
    labels_N: Tensor
    ids: Sequence[str]
    columns_NF: Tensor | None = None
    larger_NCHW: Images | None = None
    """The same images, larger, for random crops; None where they are not kept."""
    units_N: Tensor | None = None
    """int64, equal for images that belong together, copies and those of a group, of which folds keep all in one; None
    where each image stands alone."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def training_images(self) -> Images:
        """The images that are augmented in training."""
        return self.images_NCHW if self.larger_NCHW is None else self.larger_NCHW

    def take(self, index_M: Tensor) -> "Split":
        """Return the images at these positions, int64, without reading one."""
        return Split(
            select(self.images_NCHW, index_M),
            self.labels_N[index_M],
            select_strings(self.ids, index_M.tolist()),
            None if self.columns_NF is None else self.columns_NF[index_M],
            None if self.larger_NCHW is None else select(self.larger_NCHW, index_M),
            None if self.units_N is None else self.units_N[index_M],
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Three splits, and what a model needs to know about them."""

    name: str
    kind: ImageKind
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    mean: tuple[float, ...]
    """Of each channel of the training images, in [0, 1]."""
    std: tuple[float, ...]
    """Of each channel of the training images, in [0, 1]; never 0."""
    fit: Literal["crop", "pad", "stretch"]
    """How images were made square."""
    fingerprint: str
    """16 hex digits over contents, labels, splits, their order, and how images were prepared."""
    findings: tuple[str, ...]
    """What users should know about these data, one sentence each."""
    split_record: dict[str, Any]
    """How the splits were drawn, which images were reassigned, which could not be read: plain data for split.json."""
    assigned: AssignedSplits | None = None
    """The split of every image that it ever had, for later runs; None if it was not built from a source."""
    task: Task = "multiclass"
    label_sets_MK: Tensor | None = None
    """bool, the different sets of labels that images have; None unless the task is multilabel."""
    columns: ColumnSchema | None = None
    """The columns of a table that join each image; None if there are none."""
    unlabelled: Split | None = None
    """The images of data.unlabelled, with labels of -1; None without."""
    unlabelled_fingerprint: str = ""
    """16 hex digits over their contents and order. Apart from `fingerprint`: no score depends on them."""

    @property
    def size(self) -> int:
        """Width and height of the images, in pixels."""
        return self.train.images_NCHW.shape[-1]

    @property
    def channels(self) -> int:
        return self.train.images_NCHW.shape[1]

    @property
    def counts(self) -> dict[str, int]:
        """Images per split."""
        return {split: len(getattr(self, split)) for split in SPLITS}

    @property
    def strata(self) -> Tensor:
        """strata_N, of which folds of the training images have equal shares: their class, or the rarest of their
        labels, or K if they have none; int64."""
        label_sets_MK = None if self.label_sets_MK is None else self.label_sets_MK.numpy()
        return torch.from_numpy(find_rarest(self.train.labels_N.numpy(), len(self.class_names), label_sets_MK))

    @property
    def why_untested(self) -> str:
        """Why there are no test images; "" if there are."""
        return "" if len(self.test) else explain_no_test(self.split_record.get("test", 0.0))

    def how_to_fill(self, split: Literal["validation", "test"]) -> str:
        """Say how this split, which is empty, gets images; the start of an instruction."""
        is_drawn = bool(self.split_record.get(split))  # its share
        return f"add images, as these are too few for a {split} split" if is_drawn else f"set --data.{split} above 0"

    def merge_validation(self, experiment: Experiment) -> "Dataset":
        """Return the data set with its validation images among the training images, and none left to validate on.

        The plateau schedule needs validation scores, even of images that it trains on: for it they stay there, too.
        """
        splits = (self.train, self.validation)
        columns = [split.columns_NF for split in splits if split.columns_NF is not None]
        larger = [split.larger_NCHW for split in splits if split.larger_NCHW is not None]
        units = [split.units_N for split in splits if split.units_N is not None]
        train = Split(
            concatenate(*(split.images_NCHW for split in splits)),
            torch.cat([split.labels_N for split in splits]),
            tuple(name for split in splits for name in split.ids),
            torch.cat(columns) if columns else None,
            concatenate(*larger) if larger else None,
            torch.cat(units) if units else None,
        )
        empty = self.validation.take(torch.empty(0, dtype=torch.int64))
        keep_validation = experiment.schedule.name == "plateau"
        return dataclasses.replace(self, train=train, validation=self.validation if keep_validation else empty)

    def summary(self) -> dict[str, Any]:
        """Return the `dataset` section of result.json."""
        return {
            "name": self.name,
            "counts": self.counts,
            "class_names": list(self.class_names),
            "fingerprint": self.fingerprint,
            "size": self.size,
            "channels": self.channels,
            "findings": list(self.findings),
        }
