"""Learn from validation images when a finished model may be believed, and keep it in its bundle."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from classifier.bundle import bundle
from classifier.bundle.bundle import Bundle
from classifier.data.dataset import Dataset
from classifier.inference.out_of_distribution import Novelty
from classifier.metrics.calibration import Calibration, calibrate, tempered
from classifier.metrics.scores import figures


def calibrated(
    path: str | Path,
    dataset: Dataset,
    device: torch.device,
    *,
    coverage: float | None = None,
    precision: float | None = None,
    recall: float | None = None,
) -> tuple[Bundle, Tensor]:
    """Calibrate the bundle at `path` (a run, search or bundle folder); the bundle and its validation probabilities_NK.

    The scores on the validation images become those of the calibrated probabilities, and scores on the test split that
    another temperature made are forgotten. Errors of bundle.load and calibrate; DivergedError from spoiled weights.
    """
    made, model = bundle.load(path, device)
    plain, part = dataclasses.replace(made.scorer(device), temperature=1.0), dataset.validation
    tally, probabilities_NK = plain.evaluate(model, part)
    tally.scores()  # raises where they are not finite
    found = calibrate(probabilities_NK, part.labels_N, coverage=coverage, precision=precision, recall=recall)
    probabilities_NK = tempered(probabilities_NK.log(), found.temperature).exp()
    scores = made.scores | {"validation": figures(probabilities_NK, part.labels_N, made.class_names)}
    if made.calibration and made.calibration["temperature"] != found.temperature:
        scores["test"] = None
    made = keep(dataclasses.replace(made, scores=scores), found, model, dataset, bundle.home(path), device)
    return made, probabilities_NK


def keep(
    made: Bundle, calibration: Calibration, model: nn.Module, dataset: Dataset, folder: Path, device: torch.device
) -> Bundle:
    """Write the bundle with this calibration, and with what tells pictures unlike its training images."""
    made = dataclasses.replace(made, calibration=calibration.as_dict())
    images = dataset.train.images_NCHW, dataset.validation.images_NCHW
    novelty = Novelty.fitted(model, made.scorer(device), *images)
    bundle.save(made, model, folder, novelty.tensors)
    return made
