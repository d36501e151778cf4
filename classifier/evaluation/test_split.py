"""Evaluate a model on its held-out test split; the scores are saved in its bundle and reused, each read is counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import Bundle, LoadedBundle
from classifier.bundle.test_reads import record_test_read
from classifier.data.dataset import Dataset
from classifier.errors import DataError
from classifier.evaluation.column_importance import measure_split_importance
from classifier.evaluation.served import predict_served
from classifier.evaluation.split_predictions import SplitPredictions
from classifier.evaluation.split_scores import score_predictions
from classifier.evaluation.training_data import load_training_data
from classifier.inference.scorer import gather_targets
from classifier.runs.folder import update_result

_HOW_TO_TEST = (
    "add images, or put some of each class into a folder test/ beside train/, and train again with --data.test above 0"
)


@dataclass(frozen=True)
class TestResult:
    """A bundle's scores on its test split; `predictions` is None if the scores were saved by an earlier evaluation."""

    bundle: Bundle
    scores: dict[str, Any]
    predictions: SplitPredictions | None = None

    @property
    def accuracy(self) -> float:
        """The fraction of the test images that were classified correctly: in all labels, where they have several."""
        return self.scores["subset_accuracy" if self.bundle.task == "multilabel" else "accuracy"]

    def __repr__(self) -> str:
        name, text = ("map", "mAP") if self.bundle.task == "multilabel" else ("accuracy", "accuracy")
        bounds, score = self.scores["intervals"][name], self.scores[name]
        interval = f" ({bounds[0]:.1%} to {bounds[1]:.1%})" if bounds else ""
        value = "undefined" if score is None else f"{score:.2%}"
        return f"<test {text} {value}{interval}, {self.scores['count']:,} images>"

    @property
    def loaded(self) -> LoadedBundle | None:
        """The bundle with its model, if it was loaded to be evaluated."""
        return self.predictions.loaded if self.predictions else None


def evaluate_test_split(
    path: str | Path,
    *,
    again: bool = False,
    data_path: str | None = None,
    data_settings: Mapping[str, Any] | None = None,
    device: torch.device,
    dataset: Dataset | None = None,
    loaded: LoadedBundle | None = None,
) -> TestResult:
    """Evaluate the bundle at `path` (a run, search or bundle folder) on its test split, and save the scores in it.

    data_path, data_settings: see load_training_data. Later calls return the saved scores unless `again`; each
    evaluation is counted before it starts. dataset, loaded: the bundle's dataset, and the bundle with its model, if the
    caller has them in memory already. DataError if there are no test images; RunError if the data are not those that
    the model was trained on, whose training images may be among these test images.
    """
    bundle = bundles.read(path)
    if bundle.scores["test"] and "intervals" in bundle.scores["test"] and not again:
        return TestResult(bundle, bundle.scores["test"])
    dataset = dataset or load_training_data(path, bundle, data_path, data_settings)
    if len(dataset.test) == 0:
        raise DataError(f"{dataset.name} has no test images ({dataset.why_untested}): {_HOW_TO_TEST}")
    loaded = loaded or bundles.load(path, device)
    count_test_read(path, "evaluate")
    counts, probabilities_NK = predict_served(path, loaded, dataset.test, dataset.label_sets_MK)
    # scores() raises if a prediction is not finite, and computes the loss without clipping.
    loss = counts.scores()["loss"]
    targets = gather_targets(dataset.test.labels_N, dataset.label_sets_MK)
    thresholds = bundle.calibration["thresholds"] if bundle.calibration else None
    scores = score_predictions(bundle.task, probabilities_NK, targets, bundle.class_names, thresholds)
    scores["loss"] = loss
    importance = measure_split_importance(loaded, dataset.test, dataset.label_sets_MK)
    bundle = bundles.update_scores(path, "test", scores, importance)
    loaded = LoadedBundle(bundle, loaded.model)
    return TestResult(bundle, scores, SplitPredictions(loaded, dataset, "test", probabilities_NK))


def count_test_read(path: str | Path, verb: str) -> int:
    """Count that this verb is about to read the test split of a bundle; return how often it has been read by then.

    The count in result.json of its run agrees, even if the process is killed while it reads. RunError if it cannot be
    counted.
    """
    reads = record_test_read(path, verb)
    if owner := owner_of(path):
        update_result(owner, test_reads=reads)
    return reads


def owner_of(path: str | Path) -> Path | None:
    """The run folder that contains a bundle; None for a bundle on its own."""
    folder = bundles.find(path)
    return folder.parent if (folder.parent / "result.json").is_file() else None
