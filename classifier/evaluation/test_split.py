"""Evaluate a model on its held-out test split; the scores are saved in its bundle and reused."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from classifier import data
from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import Bundle, LoadedBundle
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.errors import DataError, RunError
from classifier.evaluation.split_predictions import SplitPredictions
from classifier.metrics.scores import compute_scores


@dataclass(frozen=True)
class TestResult:
    """A bundle's scores on its test split; `predictions` is None if the scores were saved by an earlier evaluation."""

    bundle: Bundle
    scores: dict[str, Any]
    predictions: SplitPredictions | None = None

    @property
    def accuracy(self) -> float:
        """The fraction of the test images that were classified correctly."""
        return self.scores["accuracy"]

    def __repr__(self) -> str:
        bounds = self.scores["intervals"]["accuracy"]
        interval = f" ({bounds[0]:.1%} to {bounds[1]:.1%})" if bounds else ""
        return f"<test accuracy {self.accuracy:.2%}{interval}, {self.scores['count']:,} images>"

    @property
    def loaded(self) -> LoadedBundle | None:
        """The bundle with its model, if it was loaded to be evaluated."""
        return self.predictions.loaded if self.predictions else None


def evaluate_test_split(
    path: str | Path,
    *,
    again: bool = False,
    data_path: str | None = None,
    device: torch.device,
    dataset: Dataset | None = None,
    loaded: LoadedBundle | None = None,
) -> TestResult:
    """Evaluate the bundle at `path` (a run, search or bundle folder) on its test split, and save the scores in it.

    Later calls return the saved scores unless `again`. dataset, loaded: the bundle's dataset, and the bundle with its
    model, if the caller has them in memory already. DataError if there are no test images; RunError if the data are
    not those that the model was trained on, whose training images may be among these test images.
    """
    bundle = bundles.read(path)
    if bundle.scores["test"] and "intervals" in bundle.scores["test"] and not again:
        return TestResult(bundle, bundle.scores["test"])
    dataset = dataset or load_training_data(bundle, data_path)
    if len(dataset.test) == 0:
        raise DataError(f"{dataset.name} has no test images: train with --data.test above 0")
    loaded = loaded or bundles.load(path, device)
    confusion, probabilities_NK = loaded.scorer().predict_split(loaded.model, dataset.test)
    # scores() raises if a prediction is not finite, and computes the loss without clipping.
    loss = confusion.scores()["loss"]
    scores = compute_scores(probabilities_NK, dataset.test.labels_N, bundle.class_names) | {"loss": loss}
    bundle = bundles.update_scores(path, "test", scores)
    loaded = LoadedBundle(bundle, loaded.model)
    return TestResult(bundle, scores, SplitPredictions(loaded, dataset, "test", probabilities_NK))


def load_training_data(bundle: Bundle, data_path: str | None) -> Dataset:
    """Load the dataset that the bundle was trained on, from data_path if it has moved. RunError if it has changed."""
    config = Experiment.from_dict(bundle.experiment).data
    dataset = data.load(config if data_path is None else dataclasses.replace(config, path=data_path))
    if dataset.fingerprint != bundle.dataset["fingerprint"]:
        raise RunError(
            f"{dataset.name} has other images, labels or splits than the model was trained on: restore the data, or "
            "train a new model on them"
        )
    return dataset
