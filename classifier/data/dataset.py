"""A data set that is ready to train on: decoded pictures, labels, splits, statistics."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from classifier.config.experiment import Experiment
from classifier.data.images.arrays import Images, concatenate, select
from classifier.data.split_names import SPLITS, ImageKind


@dataclass(frozen=True, eq=False)
class Split:
    """One split. images_NCHW: uint8, in memory or mapped; an index gives a Tensor. labels_N: int64 in [0, K); ids: N
    names, unique within the data set."""

    images_NCHW: Images
    labels_N: Tensor
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Three splits and what a model must know about them."""

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
    """How pictures became square."""
    fingerprint: str
    """16 hex digits over contents, labels, splits, their order, and how pictures were prepared."""
    findings: tuple[str, ...]
    """What a person should know of these data, a sentence each."""
    split_record: dict[str, Any]
    """How the splits were drawn, which images moved for it, and which could not be read: plain data for split.json."""

    @property
    def size(self) -> int:
        """Side of the square pictures, in pixels."""
        return self.train.images_NCHW.shape[-1]

    @property
    def channels(self) -> int:
        return self.train.images_NCHW.shape[1]

    @property
    def counts(self) -> dict[str, int]:
        """Images a split."""
        return {split: len(getattr(self, split)) for split in SPLITS}

    def merged(self, experiment: Experiment) -> "Dataset":
        """With its validation images among the training ones; none is left to validate with.

        A schedule that waits for a plateau waits for scores, be they of images that it has seen: there they stay too.
        """
        parts = (self.train, self.validation)
        train = Split(
            concatenate(*(part.images_NCHW for part in parts)),
            torch.cat([part.labels_N for part in parts]),
            tuple(name for part in parts for name in part.ids),
        )
        none = torch.empty(0, dtype=torch.int64)
        empty = Split(select(self.validation.images_NCHW, none), none, ())
        stays = experiment.schedule.name == "plateau"
        return dataclasses.replace(self, train=train, validation=self.validation if stays else empty)

    def summary(self) -> dict[str, Any]:
        """The `dataset` part of result.json."""
        return {
            "name": self.name,
            "counts": self.counts,
            "class_names": list(self.class_names),
            "fingerprint": self.fingerprint,
            "size": self.size,
            "channels": self.channels,
            "findings": list(self.findings),
        }
