"""The images of an update as data sets: what is kept of the older ones, the new ones, and both in one."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classifier import data
from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import Bundle
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from classifier.data.assigned_splits import FILE as ASSIGNED_FILE
from classifier.data.build import build_dataset
from classifier.data.dataset import Dataset
from classifier.data.image_decoder import Progress
from classifier.errors import DataError, list_few
from classifier.evaluation.training_data import load_training_data, without_choices
from classifier.text import show
from classifier.update.compose import MEMORY

# Settings of a training that are none of an update's.
_UNUSED: dict[str, Any] = {"crop_scale": 1.0, "limit": None, "folds": None, "fold": 0, "only": None, "stream": False}
_UNUSED |= {"unlabelled": None, "columns": ()}


def load_old_images(
    path: str | Path,
    about: Bundle,
    data_path: str | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load what an earlier update of the run at `path` has kept, else the data set that it was trained on.

    about: its bundle; data_path, settings, errors: of load_training_data.
    """
    memory = bundles.find(path).parent / MEMORY
    if memory.is_dir() and data_path is None:
        return data.load(read_composed_as(about, memory, settings), progress)
    return load_training_data(path, about, data_path, settings)


def load_new_images(
    path: str | Path, about: Bundle, images: str, settings: Mapping[str, Any], progress: Progress | None = None
) -> Dataset:
    """Load new images, at `images`, as the model of the run at `path` sees them; one class is enough.

    Those that the run had, and copies of them, stay in their splits. DataError if they cannot be used, or have labels
    for another task than the model's.
    """
    folder = bundles.find(path).parent
    changes = _describe_images(about) | _UNUSED | {"path": images}
    changes["split_from"] = str(folder) if (folder / ASSIGNED_FILE).is_file() else None
    config = dataclasses.replace(_read_settings(about, settings), **changes)
    dataset = build_dataset(data.open_source(config), config, progress, min_classes=1)
    if dataset.task != about.task:
        raise DataError(f"{dataset.name} has labels for {dataset.task}, and the model is for {about.task}: label it so")
    if about.task == "ordinal" and (unknown := sorted({*dataset.class_names} - {*about.class_names})):
        raise DataError(
            f"{dataset.name} has grades that the model does not know ({show(list_few(unknown))}): a scale is learned "
            "as a whole, so train a new model"
        )
    return dataset


def read_composed_as(about: Bundle, folder: Path, settings: Mapping[str, Any] | None = None) -> DataConfig:
    """Return the settings by which the tables in `folder` are read. A split without a table has no images."""
    recorded = _read_settings(about, settings or {})
    shares = {
        split: getattr(recorded, split) if any(folder.rglob(f"{split}.parquet")) else 0.0
        for split in ("validation", "test")
    }
    changes = _describe_images(about) | _UNUSED | shares | {"path": str(folder), "group": None, "split_from": None}
    return dataclasses.replace(recorded, **changes)


def _read_settings(about: Bundle, settings: Mapping[str, Any]) -> DataConfig:
    """Return the model's own settings of data, with those that only the user chooses. settings: such as data.cache."""
    recorded = without_choices(Experiment.from_dict(about.experiment).data)
    return dataclasses.replace(recorded, **{name.removeprefix("data."): value for name, value in settings.items()})


def _describe_images(about: Bundle) -> dict[str, Any]:
    order = ",".join(about.class_names) if about.task == "ordinal" else None
    return {"size": about.size, "channels": about.channels, "fit": about.fit, "task": about.task, "order": order}
