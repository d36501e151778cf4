"""The data set of an update: examples of older images, and the new ones, in tables in the run's folder."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from classifier.data.dataset import Dataset, Split
from classifier.data.split_names import SPLITS
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
