"""Measure robustness: load what the measurements need, save their scores, and summarize them."""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from classifier import data
from classifier.bundle.bundle import Bundle, LoadedBundle, load_ood_tensors
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset, Split
from classifier.data.images.arrays import concatenate
from classifier.data.split_names import SPLITS
from classifier.errors import DataError, list_few
from classifier.evaluation import robustness
from classifier.evaluation.test_split import load_training_data
from classifier.inference.out_of_distribution import OODDetector
from classifier.runs.folder import ROBUSTNESS
from classifier.storage.atomic import write_atomically

from ..cli.console import RunLog


def measure(loaded: LoadedBundle, options: Any, log: RunLog) -> dict[str, Any]:
    """Compute all requested scores. DataError if there are no test images, or the second set has other classes."""
    bundle, model = loaded
    scorer = loaded.scorer()
    tensors = load_ood_tensors(options.run)
    detector = OODDetector(tensors) if tensors else None
    dataset = load_training_data(bundle, options.data)
    split = robustness.subsample(dataset.test if len(dataset.test) else dataset.validation, options.images)
    if len(split) == 0:
        raise DataError(f"{dataset.name} has neither test nor validation images")
    # Everything is loaded before the long measurements, so that a user error shows at once.
    shift = _relabel(bundle, _load_other(bundle, options.shift)) if options.shift else None
    unlike = _load_other(bundle, options.unlike) if options.unlike else None
    log.info(f"{len(split):,} images of {dataset.name}, severities 1 to 5")
    scores: dict[str, Any] = {"corruptions": robustness.measure_corruptions(model, scorer, split, log.info)}
    if options.attacks:
        scores["attacks"] = robustness.measure_attacks(model, scorer, split, detector, log.info)
    if shift is not None:
        scores["shift"] = {"name": shift.name, **robustness.measure_shift(model, scorer, _concatenate_splits(shift))}
    if unlike is not None:
        others = robustness.subsample(_concatenate_splits(unlike), options.images)
        images = split.images_NCHW[:], others.images_NCHW[:]
        auroc = robustness.detection_aurocs(model, scorer, *images, detector)
        scores["unlike"] = {"name": unlike.name, "images": len(others), "auroc": auroc}
    return scores


def save(scores: dict[str, Any], folders: Sequence[Path]) -> None:
    """Save the scores in run folders."""
    for folder in folders:
        write_atomically(folder / ROBUSTNESS, json.dumps(scores, indent=1, allow_nan=False) + "\n")


def describe(scores: dict[str, Any]) -> Iterator[str]:
    """The scores in up to three lines."""
    corruptions = scores["corruptions"]
    groups = ", ".join(f"{group} {value:.1%}" for group, value in corruptions["groups"].items())
    yield f"accuracy: clean {corruptions['clean']:.1%}, corrupted {corruptions['mean']:.1%} on average ({groups})"
    if "shift" in scores:
        low, high = scores["shift"]["intervals"]["accuracy"] or (0.0, 1.0)
        yield f"{scores['shift']['name']}: accuracy {scores['shift']['accuracy']:.2%} ({low:.1%} to {high:.1%})"
    if "unlike" in scores:
        aurocs = ", ".join(f"{name} {value:.3f}" for name, value in scores["unlike"]["auroc"].items())
        yield f"{scores['unlike']['name']} detected as out of distribution, AUROC: {aurocs}"


def _load_other(bundle: Bundle, path: str) -> Dataset:
    """All images of another data set, preprocessed as the model's own."""
    config = Experiment.from_dict(bundle.experiment).data
    changes = {"path": path, "size": bundle.size, "channels": bundle.channels, "fit": bundle.fit, "group": None}
    changes |= {"only": None, "limit": None, "folds": None, "test": 0.0, "validation": 0.0}
    return data.load(dataclasses.replace(config, **changes))


def _relabel(bundle: Bundle, dataset: Dataset) -> Dataset:
    """The data set with labels as indices of the model's classes. DataError if it has other classes."""
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
    )
