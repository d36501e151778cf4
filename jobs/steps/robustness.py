"""Measure robustness: load what the measurements need, save their scores, and summarize them."""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from classifier import data
from classifier.bundle.bundle import Bundle, LoadedBundle, load_ood_detector
from classifier.bundle.test_reads import describe_count
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from classifier.data.build import check_errors
from classifier.data.dataset import Dataset, Split
from classifier.data.decode_all import decode_source
from classifier.data.images.arrays import concatenate, select
from classifier.data.readers.source import from_files
from classifier.data.readers.tree import DiskFolder
from classifier.data.split_names import SPLITS, UNASSIGNED
from classifier.errors import DataError, list_few
from classifier.evaluation import robustness
from classifier.evaluation.test_split import count_test_read
from classifier.evaluation.training_data import load_training_data, without_choices
from classifier.report.numbers import count_images, format_accuracy, format_share
from classifier.report.sections.study_sections import describe_aurocs, format_mean
from classifier.runs.folder import ROBUSTNESS
from classifier.storage.atomic import write_atomically

from ..cli.console import RunLog


def measure(loaded: LoadedBundle, options: Any, settings: dict[str, Any], log: RunLog) -> dict[str, Any]:
    """Compute all requested scores. settings: the user's, for reading images.

    DataError if there are no test images, or the second set has other classes.
    """
    bundle, model = loaded
    bundle.refuse_labels("robust")
    scorer = loaded.scorer()
    detector = load_ood_detector(options.run)
    dataset = load_training_data(options.run, bundle, options.data, settings)
    split = robustness.subsample(dataset.test if len(dataset.test) else dataset.validation, options.images)
    if len(split) == 0:
        raise DataError(f"{dataset.name} has neither test nor validation images")
    # Everything is loaded before the long measurements, so that a user error shows at once.
    shift = _load_shift(bundle, _other_config(bundle, options.shift, settings)) if options.shift else None
    unlike = _load_unlike(_other_config(bundle, options.unlike, settings)) if options.unlike else None
    log.info(f"{len(split):,} images of {dataset.name}, severities 1 to 5")
    if len(dataset.test):
        log.info(f"the test split was read {describe_count(count_test_read(options.run, 'robust'))}")
    scores: dict[str, Any] = {"corruptions": robustness.measure_corruptions(model, scorer, split, log.info)}
    if options.attacks:
        scores["attacks"] = robustness.measure_attacks(model, scorer, split, detector, log.info)
    if shift is not None:
        scores["shift"] = {"name": shift.name, **robustness.measure_shift(model, scorer, _concatenate_splits(shift))}
    if unlike is not None:
        others = robustness.subsample(unlike, options.images)
        images = split.images_NCHW[:], others.images_NCHW[:]
        auroc = robustness.detection_aurocs(model, scorer, *images, detector)
        scores["unlike"] = {"name": Path(options.unlike).name, "images": len(others), "auroc": auroc}
    return scores


def save(scores: dict[str, Any], folders: Sequence[Path]) -> None:
    """Save the scores in run folders."""
    for folder in folders:
        write_atomically(folder / ROBUSTNESS, json.dumps(scores, indent=1, allow_nan=False) + "\n")


def describe(scores: dict[str, Any]) -> Iterator[str]:
    """The scores in a few lines."""
    corruptions = scores["corruptions"]
    count = corruptions["images"]
    groups = ", ".join(f"{group} {format_share(value)}" for group, value in corruptions["groups"].items())
    clean, corrupted = (format_mean(corruptions[name], count) for name in ("clean", "mean"))
    yield f"accuracy on {count_images(count)}: clean {clean}, corrupted {corrupted} on average"
    yield f"  by kind of corruption: {groups}"
    if "shift" in scores:
        yield f"{scores['shift']['name']}: accuracy {format_accuracy(scores['shift'], 2)}"
    if "unlike" in scores:
        aurocs = describe_aurocs(scores["unlike"], count)
        yield f"{scores['unlike']['name']} detected as out of distribution, AUROC: {aurocs}"


def _other_config(bundle: Bundle, path: str, settings: dict[str, Any]) -> DataConfig:
    """How to read all images of another data set, preprocessed as the model's own."""
    config = without_choices(Experiment.from_dict(bundle.experiment).data)
    changes = {"path": path, "size": bundle.size, "channels": bundle.channels, "fit": bundle.fit, "group": None}
    changes |= {"only": None, "limit": None, "folds": None, "test": 0.0, "validation": 0.0}
    changes |= {name.removeprefix("data."): value for name, value in settings.items()}
    return dataclasses.replace(config, **changes)


def _load_unlike(config: DataConfig) -> Split:
    """All images of a data set, or of a folder without classes."""
    folder = Path(os.path.expanduser(config.path))
    files = [*DiskFolder(folder).walk_image_files()] if folder.is_dir() else []
    rows = ((id_, file, folder.name, UNASSIGNED) for id_, file in files)
    source = from_files(folder.name, rows) if files else data.open_source(dataclasses.replace(config, columns=()))
    decoded = decode_source(source, config)
    check_errors(source, decoded.errors, config.max_corrupt)
    usable = [n for n in range(len(source.ids)) if n not in decoded.errors]
    if not usable:
        raise DataError(f"{config.path} contains no images: give --unlike another data set or folder of images")
    index_N = torch.tensor(usable)
    return Split(
        select(decoded.images_NCHW, index_N),
        torch.zeros(len(usable), dtype=torch.int64),
        tuple(source.ids[n] for n in usable),
    )


def _load_shift(bundle: Bundle, config: DataConfig) -> Dataset:
    """A data set with columns, if any, as the model learned them, and labels as indices of the model's classes.
    DataError if it has other classes, or no columns for a model with columns."""
    dataset = data.load(config, schema=bundle.columns)
    unknown = [name for name in dataset.class_names if name not in bundle.class_names]
    if unknown:
        raise DataError(
            f"{dataset.name} has classes that the model does not know ({list_few(unknown)}): --shift takes a data set "
            "of the same classes, --unlike one of other classes"
        )
    indices = torch.tensor([bundle.class_names.index(name) for name in dataset.class_names])
    splits = {name: getattr(dataset, name) for name in SPLITS}
    splits = {name: dataclasses.replace(split, labels_N=indices[split.labels_N]) for name, split in splits.items()}
    return dataclasses.replace(dataset, **splits)


def _concatenate_splits(dataset: Dataset) -> Split:
    splits = [split for name in SPLITS if len(split := getattr(dataset, name))]
    return Split(
        functools.reduce(concatenate, (split.images_NCHW for split in splits)),
        torch.cat([split.labels_N for split in splits]),
        tuple(id_ for split in splits for id_ in split.ids),
        torch.cat(columns) if (columns := [s.columns_NF for s in splits if s.columns_NF is not None]) else None,
    )
