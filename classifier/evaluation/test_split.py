"""The held-out test split: read once, remembered, and counted when it is read again."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classifier import data
from classifier.bundle import bundle
from classifier.bundle.bundle import Bundle
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.errors import DataError, RunError
from classifier.metrics.scores import figures


@dataclass(frozen=True)
class Reading:
    """Scores on the test split, with probabilities_NK; where they were remembered, both data and these are None."""

    bundle: Bundle
    scores: dict[str, Any]
    dataset: Dataset | None = None
    probabilities: Tensor | None = None


def read_test(
    path: str | Path,
    *,
    again: bool = False,
    data_path: str | None = None,
    device: torch.device,
    dataset: Dataset | None = None,
) -> Reading:
    """Test the bundle at `path` (a run, search or bundle folder) on its test split, and remember the scores in it.

    A second call answers from memory unless `again`. `dataset` spares the loading where the caller has it already.
    DataError if there are no test images; RunError if the data are not those that the model was trained on: its test
    split could then hold images that the model has seen.
    """
    made = bundle.read(path)
    if made.scores["test"] and "intervals" in made.scores["test"] and not again:
        return Reading(made, made.scores["test"])
    dataset = dataset or same_data(made, data_path)
    if len(dataset.test) == 0:
        raise DataError(f"{dataset.name} has no test images: train with --data.test above 0")
    made, model = bundle.load(path, device)
    tally, probabilities_NK = made.scorer(device).evaluate(model, dataset.test)
    # The tally refuses answers that are not finite, and adds a loss that needs no clipping.
    scores = figures(probabilities_NK, dataset.test.labels_N, made.class_names) | {"loss": tally.scores()["loss"]}
    return Reading(bundle.update_scores(path, "test", scores), scores, dataset, probabilities_NK)


def same_data(made: Bundle, data_path: str | None) -> Dataset:
    """The data that the bundle was trained on, from where they lie now. RunError if they are others."""
    config = Experiment.from_dict(made.experiment).data
    dataset = data.load(config if data_path is None else dataclasses.replace(config, path=data_path))
    if dataset.fingerprint != made.dataset["fingerprint"]:
        raise RunError(
            f"{dataset.name} holds other images, labels or splits than the model was trained with: bring them back as "
            "they were, or train on what is there now"
        )
    return dataset
