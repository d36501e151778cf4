"""The measurements of robustness, with what they need read; and where their figures go."""

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from classifier import data
from classifier.bundle import bundle
from classifier.bundle.bundle import Bundle
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset, Split
from classifier.data.images.arrays import concatenate
from classifier.data.split_names import SPLITS
from classifier.errors import DataError
from classifier.evaluation import robustness
from classifier.evaluation.test_split import load_training_data
from classifier.inference.out_of_distribution import OODDetector
from classifier.report import run_page
from classifier.runtime.distributed import pick_device
from classifier.storage.atomic import write_atomically
from jobs.cli.console import RunLog
from jobs.steps import test_model


def measure(options: Any, journal: RunLog) -> dict[str, Any]:
    """All that was asked for. DataError where there are no test images, or the second set has other classes."""
    device = pick_device(options.device)
    made, model = bundle.load(options.run, device)
    scorer = made.scorer(device)
    tensors = bundle.load_ood_tensors(options.run)
    novelty = OODDetector(tensors) if tensors else None
    dataset = load_training_data(made, options.data)
    part = robustness.subsample(dataset.test if len(dataset.test) else dataset.validation, options.images)
    if len(part) == 0:
        raise DataError(f"{dataset.name} has neither test nor validation images")
    # All that is read is read before the long work: a mistake shows at once.
    shift = _every(made, options.shift) if options.shift else None
    if shift is not None:
        shift = _as_known(made, shift)
    unlike = _every(made, options.unlike) if options.unlike else None
    journal.info(f"{len(part):,} images of {dataset.name}, severities 1 to 5")
    found: dict[str, Any] = {"corruptions": robustness.measure_corruptions(model, scorer, part, journal.info)}
    if options.attacks:
        found["attacks"] = robustness.measure_attacks(model, scorer, part, novelty, journal.info)
    if shift is not None:
        scores = robustness.measure_shift(model, scorer, _together(shift))
        found["shift"] = {"name": shift.name, **scores}
    if unlike is not None:
        others = robustness.subsample(_together(unlike), options.images)
        images = part.images_NCHW[:], others.images_NCHW[:]
        auroc = robustness.detection_aurocs(model, scorer, *images, novelty)
        found["unlike"] = {"name": unlike.name, "images": len(others), "auroc": auroc}
    return found


def save(path: str, into: Path, found: dict[str, Any]) -> Iterator[str]:
    """Save the figures in the run that they are of, or beside; what they say, in lines."""
    corruptions = found["corruptions"]
    groups = ", ".join(f"{group} {value:.1%}" for group, value in corruptions["groups"].items())
    yield f"clean {corruptions['clean']:.1%}, corrupted {corruptions['mean']:.1%} on the mean ({groups})"
    if "shift" in found:
        low, high = found["shift"]["intervals"]["accuracy"] or (0.0, 1.0)
        yield f"{found['shift']['name']}: accuracy {found['shift']['accuracy']:.2%} ({low:.1%} to {high:.1%})"
    if "unlike" in found:
        words = ", ".join(f"{name} {value:.3f}" for name, value in found["unlike"]["auroc"].items())
        yield f"{found['unlike']['name']} told from its own images, AUROC: {words}"
    owner = test_model.owner_of(path)
    text = json.dumps(found, indent=1, allow_nan=False) + "\n"
    for folder in {into, owner or into}:
        write_atomically(folder / run_page.ROBUSTNESS, text)
    if owner:
        yield f"all about it: {run_page.write(owner)}"


def _every(made: Bundle, path: str) -> Dataset:
    """A second data set, prepared as the model's own."""
    config = Experiment.from_dict(made.experiment).data
    changes = {"path": path, "size": made.size, "channels": made.channels, "fit": made.fit, "group": None}
    changes |= {"only": None, "limit": None, "folds": None, "test": 0.0, "validation": 0.0}
    return data.load(dataclasses.replace(config, **changes))


def _as_known(made: Bundle, dataset: Dataset) -> Dataset:
    """The second set's labels as numbers of the model's classes. DataError if it has others."""
    others = [name for name in dataset.class_names if name not in made.class_names]
    if others:
        raise DataError(
            f"{dataset.name} has classes that the model does not know ({', '.join(others[:5])}): --shift takes a set "
            "of the same classes, --unlike one of others"
        )
    numbers = torch.tensor([made.class_names.index(name) for name in dataset.class_names])
    parts = {split: getattr(dataset, split) for split in SPLITS}
    parts = {split: dataclasses.replace(part, labels_N=numbers[part.labels_N]) for split, part in parts.items()}
    return dataclasses.replace(dataset, **parts)


def _together(dataset: Dataset) -> Split:
    parts = [part for split in SPLITS if len(part := getattr(dataset, split))]
    ids = tuple(name for part in parts for name in part.ids)
    return Split(
        functools.reduce(concatenate, (part.images_NCHW for part in parts)),
        torch.cat([part.labels_N for part in parts]),
        ids,
    )
