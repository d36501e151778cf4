"""The data set of an update: examples of older images, and the new ones, in tables in the run's folder."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from classifier import data
from classifier.bundle.bundle import Bundle
from classifier.config.sections import DataConfig
from classifier.data.build import build_dataset
from classifier.data.dataset import Dataset, Split
from classifier.data.image_decoder import Progress
from classifier.data.split_names import SPLITS
from classifier.errors import DataError, list_few
from classifier.text import show
from classifier.update.memory import MAX_HELD_OUT, select_balanced
from classifier.update.tables import NEW, OLD, write_tables

DATA = "data"
"""In the run folder: the images that the update learns from and is judged by."""
MEMORY = "memory"
"""In the run folder: the images that the next update takes from this one."""


@dataclass(frozen=True)
class Composed:
    """What an update learns. counts: images by origin and split; new_classes: those that the model does not know."""

    counts: dict[str, dict[str, int]]
    new_classes: list[str]


def load_new_data(about: Bundle, config: DataConfig, progress: Progress | None = None) -> Dataset:
    """Load new images as the model sees them. config: with their path, and the splits of images that it may know.

    One class is enough. DataError if they cannot be used, or have other tasks than the model's.
    """
    source = data.open_source(config)
    dataset = build_dataset(source, config, progress, min_classes=1)
    if dataset.task != about.task:
        raise DataError(f"{dataset.name} has labels for {dataset.task}, and the model is for {about.task}: label it so")
    if about.task == "ordinal" and (unknown := sorted({*dataset.class_names} - {*about.class_names})):
        raise DataError(
            f"{dataset.name} has grades that the model does not know ({show(list_few(unknown))}): a scale is learned "
            "as a whole, so train a new model"
        )
    return dataset


def read_new_as(about: Bundle, recorded: DataConfig, path: str) -> DataConfig:
    """Return the settings by which new images are read: the model's own. recorded: those it was trained with."""
    return dataclasses.replace(recorded, path=path, **_describe_images(about), **_UNUSED)


def read_composed_as(about: Bundle, recorded: DataConfig, folder: Path) -> DataConfig:
    """Return the settings by which the tables in `folder` are read. A split without a table has no images."""
    shares = {
        split: getattr(recorded, split) if any(folder.rglob(f"{split}.parquet")) else 0.0
        for split in ("validation", "test")
    }
    changes = _describe_images(about) | _UNUSED | shares | {"path": str(folder), "group": None, "split_from": None}
    return dataclasses.replace(recorded, **changes)


def _describe_images(about: Bundle) -> dict[str, Any]:
    order = ",".join(about.class_names) if about.task == "ordinal" else None
    return {"size": about.size, "channels": about.channels, "fit": about.fit, "task": about.task, "order": order}


# Settings of a training that are none of an update's.
_UNUSED: dict[str, Any] = {"crop_scale": 1.0, "limit": None, "folds": None, "fold": 0, "only": None, "stream": False}
_UNUSED |= {"unlabelled": None, "columns": ()}


def compose(old: Dataset, new: Dataset, memory: int, folder: Path) -> Composed:
    """Write the data set of an update into a run folder. memory: training images of the old ones that are taken.

    Of their validation and test images 5,000 each are taken. Errors of write_tables.
    """
    kept = {split: _select(getattr(old, split), memory if split == "train" else MAX_HELD_OUT) for split in SPLITS}
    added = {split: getattr(new, split) for split in SPLITS}
    write_tables(kept, old.class_names, folder / DATA / OLD)
    write_tables(added, new.class_names, folder / DATA / NEW)
    counts = {
        origin: {split: len(images) for split, images in parts.items()} for origin, parts in ((OLD, kept), (NEW, added))
    }
    return Composed(counts, sorted({*new.class_names} - {*old.class_names}))


def write_memory(dataset: Dataset, memory: int, folder: Path) -> None:
    """Write what the next update takes from this data set, in which old and new are one. Errors of write_tables."""
    parts = {split: _select(getattr(dataset, split), memory if split == "train" else MAX_HELD_OUT) for split in SPLITS}
    write_tables(parts, dataset.class_names, folder / MEMORY)


def select_memory(dataset: Dataset, memory: int) -> Dataset:
    """Return the data set with only those training images that the next update takes."""
    return dataclasses.replace(dataset, train=_select(dataset.train, memory))


def _select(split: Split, count: int) -> Split:
    return split.take(select_balanced(split.labels_N, split.ids, count) if count else torch.empty(0, dtype=torch.int64))
